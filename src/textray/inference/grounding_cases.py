"""Maps of phrases scored one by one: those of the network, those of wrong phrases, those that saw nothing.

Every map is laid on one grid of `GRID` pixels that covers what the network sees of the picture, and so is the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import groupby
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from textray.data.base import naming
from textray.data.mean_masks import MeanMasks
from textray.data.phrases import PhraseSample, truth
from textray.errors import InputError
from textray.inference import grounding_controls as controls
from textray.inference.localizer import Locates
from textray.metrics.grounding import MapScore, score
from textray.metrics.score_map import Normalise, enlarge, normalise, smooth
from textray.preprocess import Preprocess
from textray.records import Image

GRID = (224, 224)
"""Rows and columns of the grid on which maps are scored."""


class Row(StrEnum):
    """What a row of the table is about."""

    MODEL = "model"
    SIDED = "model_sided"
    MIRRORED = "mirrored"
    SHUFFLED = "shuffled"
    RANDOM_HEADS = "random_heads"
    MEAN_PHRASE = "mean_phrase"
    MEAN_MASK = "mean_mask"
    CENTRE = "centre"
    FULL = "full"
    RANDOM = "random"


MEANINGS = {
    Row.MODEL: "the network, asked the phrase",
    Row.SIDED: "the same maps, only of phrases whose sides can be exchanged: to be read beside mirrored",
    Row.MIRRORED: "control: the network, asked the phrase with left and right exchanged; phrases that name no "
    "side, or then say the same, are left out",
    Row.SHUFFLED: "control: the network, asked a phrase of another class; in a set of one class, other words",
    Row.RANDOM_HEADS: "control: the network's local features against a random direction in place of the phrase's "
    "embedding, a new one for each image and phrase; the same as a random rotation between the two projections",
    Row.MEAN_PHRASE: "floor: mean training mask of the same phrase, of its class where that is new: words, no pixels",
    Row.MEAN_MASK: "floor: mean training mask, whatever picture and phrase",
    Row.CENTRE: "floor: a Gaussian in the middle, standard deviation a quarter of height and width",
    Row.FULL: "floor: everything marked, at every threshold",
    Row.RANDOM: "floor: smoothed noise on 14 x 14 cells",
}
CONTROLS = (Row.MIRRORED, Row.SHUFFLED, Row.RANDOM_HEADS)
FLOORS = (Row.MEAN_PHRASE, Row.MEAN_MASK, Row.CENTRE, Row.FULL, Row.RANDOM)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How maps are made and scored.

    Attributes:
        sigma: Smoothing in cells of the network's map.
        margin: Border of the grid that is left out of every measure, in its pixels.
        normalisations: Ranges that maps are brought to; each gives scores of its own.
        per_box: Contrast of each box by itself, then the mean.
        seed: Of the controls that need chance.
    """

    sigma: float
    margin: int
    normalisations: tuple[Normalise, ...]
    per_box: bool
    seed: int


@dataclass(frozen=True, kw_only=True)
class PhraseCase:
    """A phrase of an image in one row: what was told, and how its map scored by normalisation."""

    sample: PhraseSample
    told: str
    scores: Mapping[Normalise, MapScore]


@dataclass(frozen=True, kw_only=True)
class Found:
    """Everything that was scored.

    Attributes:
        rows: Cases by row, by place of the sample; a row that could not be made is missing.
        without_truth: Samples left out of every row, since nothing of their truth is left on the grid.
        without_sides: Samples left out of every row, since the sides of their words cannot be turned to the network's.
    """

    rows: dict[Row, dict[int, PhraseCase]]
    without_truth: tuple[PhraseSample, ...]
    without_sides: tuple[PhraseSample, ...]


def evaluation_grid(preprocess: Preprocess | None) -> Preprocess:
    """The way of a picture or mask to the grid: the network's own (stretched or padded) at `GRID` pixels."""
    if preprocess is None:
        return Preprocess(size=GRID)
    return replace(preprocess, size=GRID)


def score_phrases(
    localizer: Locates | None,
    samples: Sequence[PhraseSample],
    means: MeanMasks | None,
    settings: Settings,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Found:
    """Score the maps of every phrase, and beside them all controls and floors that can be made.

    Args:
        localizer: The network; ``None`` for floors alone.
        samples: The phrases.
        means: Mean training masks on the grid; ``None`` where there are no training masks.
        settings: How.
        progress: Called with the number of phrases done and of all.

    Raises:
        InputError: If a picture is refused.
        DataError: If truth and picture do not fit each other.
    """
    grid = evaluation_grid(None if localizer is None else localizer.preprocess)
    others = controls.shuffled(samples, seed=settings.seed)
    rows: dict[Row, dict[int, PhraseCase]] = {row: {} for row in Row}
    without_truth: list[PhraseSample] = []
    without_sides: list[PhraseSample] = []
    done = 0
    order = sorted(range(len(samples)), key=lambda i: (str(samples[i].image_path), i))
    for _, group in groupby(order, key=lambda i: samples[i].image_path):
        places = list(group)  # phrases of one picture: it is read, and its features are computed, once
        image = naming(samples[places[0]].image_path, grid.read)
        truths: dict[int, NDArray[np.bool_]] = {}
        asked: list[_Asked] = []
        for i in places:
            mask = _truth(samples[i], image, grid, settings)
            questions = [] if localizer is None else _questions(samples[i], others[i], image, localizer, settings)
            if not mask.any():
                without_truth.append(samples[i])
            elif questions is None:
                without_sides.append(samples[i])
            else:
                truths[i] = mask
                asked += [_Asked(place=i, row=row, told=told, vector=vector) for row, told, vector in questions]
        maps = [] if localizer is None or not asked else _maps(localizer, image, asked, settings)
        answers = [(ask.place, ask.row, ask.told, values) for ask, values in zip(asked, maps, strict=True)]
        answers += [(i, row, "", values) for i in truths for row, values in _floors(samples[i], means, settings)]
        for i, row, told, values in answers:
            parts = _boxes(samples[i], image, grid, settings) if settings.per_box else ()
            scores = {
                how: score(values if row is Row.FULL else normalise(values, how), truths[i], parts=parts)
                for how in settings.normalisations
            }
            rows[row][i] = PhraseCase(sample=samples[i], told=told, scores=scores)
        done += len(places)
        if progress is not None:
            progress(done, len(samples))
    rows[Row.SIDED] = {i: rows[Row.MODEL][i] for i in rows[Row.MIRRORED]}
    found = {row: dict(sorted(cases.items())) for row, cases in rows.items() if cases}
    return Found(rows=found, without_truth=tuple(without_truth), without_sides=tuple(without_sides))


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """A phrase put to the network: for which sample and row, in which words, and as which vector ``(D,)``."""

    place: int
    row: Row
    told: str
    vector: NDArray[np.float32]


def _questions(
    sample: PhraseSample, other: PhraseSample | None, image: Image, localizer: Locates, settings: Settings
) -> list[tuple[Row, str, NDArray[np.float32]]] | None:
    """What the network is asked: the phrase, and in its place those of the controls; ``None`` for sides not known."""
    own = _turned(sample, image, localizer)
    if own is None:
        return None
    words = [(Row.MODEL, own)]
    mirror = controls.mirrored(own)
    wrong = None if other is None else _turned(other, image, localizer)
    words += [] if mirror is None else [(Row.MIRRORED, mirror)]
    words += [] if wrong is None else [(Row.SHUFFLED, wrong)]
    vectors = localizer.embed([told for _, told in words])
    random = controls.random_direction(sample, vectors.shape[1], seed=settings.seed)
    told = [(row, said, vector) for (row, said), vector in zip(words, vectors, strict=True)]
    return [*told, (Row.RANDOM_HEADS, "", random)]


def _turned(sample: PhraseSample, image: Image, localizer: Locates) -> str | None:
    try:
        return localizer.told(sample.phrase, laterality=sample.laterality, grid=image.grid)
    except InputError as error:
        if error.code not in ("E_SIDES", "E_SIDES_UNDEFINED"):
            raise
        return None


def _maps(localizer: Locates, image: Image, asked: Sequence[_Asked], settings: Settings) -> list[NDArray[np.float32]]:
    """Smoothed maps on the grid, without the margin."""
    vectors = np.stack([question.vector for question in asked])
    cosines = localizer.maps(localizer.preprocess.apply(image)[None], vectors)[0]
    return [_cropped(enlarge(values, GRID), settings) for values in smooth(cosines, settings.sigma)]


def _floors(
    sample: PhraseSample, means: MeanMasks | None, settings: Settings
) -> Iterable[tuple[Row, NDArray[np.float32]]]:
    maps = {
        Row.CENTRE: controls.centre(GRID),
        Row.FULL: np.ones(GRID, np.float32),
        Row.RANDOM: controls.random_map(sample, GRID, sigma=settings.sigma, seed=settings.seed),
    }
    if means is not None:
        maps |= {Row.MEAN_PHRASE: means.told(sample), Row.MEAN_MASK: means.whole}
    return ((row, _cropped(values, settings)) for row, values in maps.items())


def _truth(sample: PhraseSample, image: Image, grid: Preprocess, settings: Settings) -> NDArray[np.bool_]:
    return _cropped(grid.resize_mask(truth(sample, image.grid.shape)), settings)


def _boxes(sample: PhraseSample, image: Image, grid: Preprocess, settings: Settings) -> list[NDArray[np.bool_]]:
    """Each box by itself; a mask is one part."""
    parts = [replace(sample, boxes=(box,)) for box in sample.boxes] or [sample]
    return [_truth(part, image, grid, settings) for part in parts]


T = TypeVar("T", np.bool_, np.float32)


def _cropped(values: NDArray[T], settings: Settings) -> NDArray[T]:
    """Without the margin."""
    margin = settings.margin
    return values[margin : values.shape[0] - margin, margin : values.shape[1] - margin]
