"""Maps of phrases scored one by one, beside controls (wrong phrases) and floors (maps made without the picture).

Every map is laid on one grid of `GRID` pixels that covers what the network sees of the picture, and so is the truth.
Among the floors, the mean training mask ignores picture and phrase, and the mean over the training phrases of the same
words ignores the picture alone: a map that scores no more than these has not localized anything.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import groupby
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from textray.data.base import Sample, naming
from textray.data.boxes import truth
from textray.errors import DataError, InputError
from textray.evaluate.order import Progress
from textray.inference.localizer import Localizer
from textray.io.read import read_mask
from textray.metrics.grounding import MapScore, Normalise, enlarge, normalise, score, smooth
from textray.metrics.intervals import SEED
from textray.preprocess import Preprocess
from textray.records import Image
from textray.text.phrases import exchange
from textray.text.zones import parse_caption, sentence

GRID = (224, 224)
"""Rows and columns of the grid on which maps are scored."""


class Row(StrEnum):
    """Rows of the table: the network, controls and floors."""

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
    """How maps are made and scored; see `textray.evaluate.grounding.PhraseEvaluation`."""

    sigma: float
    margin: int
    normalisations: tuple[Normalise, ...]
    per_box: bool


@dataclass(frozen=True, kw_only=True)
class PhraseCase:
    """A phrase of an image in one row: the words given to the network, if any, and the scores by normalisation."""

    sample: Sample
    phrase: str
    scores: Mapping[Normalise, MapScore]


@dataclass(frozen=True, kw_only=True)
class ScoredMaps:
    """All cases of an evaluation by row, by place of the sample; a row that could not be made is missing.

    Left out of every row are samples without any truth on the grid, and without sides that can be turned to those of
    the network.
    """

    rows: dict[Row, dict[int, PhraseCase]]
    without_truth: tuple[Sample, ...]
    without_sides: tuple[Sample, ...]


def evaluation_grid(preprocess: Preprocess | None) -> Preprocess:
    """The way of a picture or mask to the grid: that of the network (stretched or padded) at `GRID` pixels."""
    return Preprocess(size=GRID) if preprocess is None else replace(preprocess, size=GRID)


def score_phrases(
    localizer: Localizer | None,
    samples: Sequence[Sample],
    means: MeanMasks | None,
    settings: Settings,
    *,
    progress: Progress | None = None,
) -> ScoredMaps:
    """Score the maps of every phrase, and beside them all controls and floors that can be made.

    Without a network (``localizer``) these are floors alone.

    Raises:
        InputError: If a picture is refused.
        DataError: If truth and picture do not fit each other.
    """
    grid = evaluation_grid(None if localizer is None else localizer.preprocess)
    others = shuffled(samples, seed=SEED)
    rows: dict[Row, dict[int, PhraseCase]] = {row: {} for row in Row}
    without_truth: list[Sample] = []
    without_sides: list[Sample] = []
    done = 0
    order = sorted(range(len(samples)), key=lambda i: (str(samples[i].image_path), i))
    for _, group in groupby(order, key=lambda i: samples[i].image_path):
        places = list(group)  # phrases of one picture: it is read, and its features are computed, once
        image = naming(samples[places[0]].image_path, grid.read)
        truths: dict[int, NDArray[np.bool_]] = {}
        questions: list[_Question] = []
        for i in places:
            mask = _truth(samples[i], image, grid, settings)
            asked = [] if localizer is None else _questions(i, samples[i], others[i], image, localizer, settings)
            if not mask.any():
                without_truth.append(samples[i])
            elif asked is None:
                without_sides.append(samples[i])
            else:
                truths[i] = mask
                questions += asked
        maps = [] if localizer is None or not questions else _maps(localizer, image, questions, settings)
        scored = [(q.place, q.row, q.phrase, values) for q, values in zip(questions, maps, strict=True)]
        scored += [(i, row, "", values) for i in truths for row, values in _floors(samples[i], means, settings)]
        for i, row, phrase, values in scored:
            parts = _boxes(samples[i], image, grid, settings) if settings.per_box else ()
            scores = {
                how: score(values if row is Row.FULL else normalise(values, how), truths[i], parts=parts)
                for how in settings.normalisations
            }
            rows[row][i] = PhraseCase(sample=samples[i], phrase=phrase, scores=scores)
        done += len(places)
        if progress is not None:
            progress(done, len(samples))
    rows[Row.SIDED] = {i: rows[Row.MODEL][i] for i in rows[Row.MIRRORED]}
    return ScoredMaps(
        rows={row: dict(sorted(cases.items())) for row, cases in rows.items() if cases},
        without_truth=tuple(without_truth),
        without_sides=tuple(without_sides),
    )


@dataclass(frozen=True, kw_only=True)
class _Question:
    """A phrase for the network: for which sample and row, in which words, and as which vector ``(D,)``."""

    place: int
    row: Row
    phrase: str
    vector: NDArray[np.float32]


def _questions(
    place: int, sample: Sample, other: Sample | None, image: Image, localizer: Localizer, settings: Settings
) -> list[_Question] | None:
    """The phrase, and in its place those of the controls; ``None`` if its sides cannot be turned."""
    phrase = _turned(sample, image, localizer)
    if phrase is None:
        return None
    wrong = None if other is None else _turned(other, image, localizer)
    words = {Row.MODEL: phrase, Row.MIRRORED: mirrored(phrase), Row.SHUFFLED: wrong}
    phrases = {row: text for row, text in words.items() if text is not None}
    vectors = dict(zip(phrases, localizer.embed(list(phrases.values())), strict=True))
    width = len(vectors[Row.MODEL])
    vectors[Row.RANDOM_HEADS] = random_direction(sample, width, seed=SEED)
    return [_Question(place=place, row=row, phrase=phrases.get(row, ""), vector=vectors[row]) for row in vectors]


def _turned(sample: Sample, image: Image, localizer: Localizer) -> str | None:
    try:
        return localizer.normalise_sides(sample.phrase, laterality=sample.laterality, grid=image.grid)
    except InputError as error:
        if error.code not in ("E_SIDES", "E_SIDES_UNDEFINED"):
            raise
        return None


def _maps(
    localizer: Localizer, image: Image, questions: Sequence[_Question], settings: Settings
) -> list[NDArray[np.float32]]:
    """Smoothed maps on the grid, without the margin."""
    vectors = np.stack([question.vector for question in questions])
    cosines = localizer.maps(localizer.preprocess.apply(image)[None], vectors)[0]
    return [_cropped(enlarge(values, GRID), settings) for values in smooth(cosines, settings.sigma)]


def _floors(sample: Sample, means: MeanMasks | None, settings: Settings) -> Iterable[tuple[Row, NDArray[np.float32]]]:
    maps = {
        Row.CENTRE: centre(GRID),
        Row.FULL: np.ones(GRID, np.float32),
        Row.RANDOM: random_map(sample, GRID, sigma=settings.sigma, seed=SEED),
    }
    if means is not None:
        maps |= {Row.MEAN_PHRASE: means.of(sample), Row.MEAN_MASK: means.whole}
    return ((row, _cropped(values, settings)) for row, values in maps.items())


def _truth(sample: Sample, image: Image, grid: Preprocess, settings: Settings) -> NDArray[np.bool_]:
    return _cropped(grid.resize_mask(truth(sample, image.grid.shape)), settings)


def _boxes(sample: Sample, image: Image, grid: Preprocess, settings: Settings) -> list[NDArray[np.bool_]]:
    """Each box by itself; a mask is one part."""
    parts = [replace(sample, boxes=(box,)) for box in sample.boxes] or [sample]
    return [_truth(part, image, grid, settings) for part in parts]


T = TypeVar("T", np.bool_, np.float32)


def _cropped(values: NDArray[T], settings: Settings) -> NDArray[T]:
    """Without the margin."""
    margin = settings.margin
    return values[margin : values.shape[0] - margin, margin : values.shape[1] - margin]


# Controls: phrases that are wrong on purpose. Floors: maps made without the picture.

CENTRE_WIDTH = 0.25
"""Standard deviation of the centred Gaussian, as a share of height and of width."""
RANDOM_CELLS = (14, 14)
"""Cells of the random map, as many as stride 16 leaves of 224 pixels."""

_BOTH = re.compile(r"\bright(-?(?: (?:and|or|&) (?:the )?| ?/ ?))left\b")
"""Both sides of one thing, as in "right and left base", in the words of `wording`."""
_PLACE_ONLY = "bilateral pulmonary infection, two infected areas, "


def mirrored(phrase: str) -> str | None:
    """A phrase with left and right exchanged; ``None`` if it then means the same, or its sides are not understood.

    Captions and place clauses of QaTa-COV19 keep their usual order of places, so that the network gets other sides, not
    another wording.
    """
    for head in ("", _PLACE_ONLY):  # a whole caption, or its place clause alone
        try:
            zones = parse_caption(head + phrase).zones
        except InputError:
            continue
        if zones:
            caption = None if zones.mirror() == zones else sentence(zones.mirror())
            return caption.removesuffix(".").rsplit(", ", 1)[-1] if caption and head else caption
    swapped = exchange(phrase)
    return None if swapped is None or _parts(swapped) == _parts(phrase) else swapped


def _parts(phrase: str) -> frozenset[str]:
    """Parts of a phrase in no order: "left and right base" means the same as its mirror image."""
    words = _BOTH.sub(r"left\1right", wording(phrase))
    words = words.replace(",", " and ").replace(";", " and ").replace(" or ", " and ")
    return frozenset(part.strip() for part in f" {words} ".split(" and ") if part.strip())


def shuffled(samples: Sequence[Sample], *, seed: int) -> list[Sample | None]:
    """For each phrase another one of the set, drawn at random, to take its place; ``None`` if there is none.

    If the set has several classes it is one of another class, else one in other words.
    """
    rng = np.random.default_rng(seed)
    several = len({sample.label for sample in samples}) > 1
    keys = [sample.label if several else wording(sample.phrase) for sample in samples]
    groups: dict[str, list[int]] = {}
    for place, key in enumerate(keys):
        groups.setdefault(key, []).append(place)
    others = {key: [i for other, places in groups.items() if other != key for i in places] for key in groups}
    return [samples[others[key][rng.integers(len(others[key]))]] if others[key] else None for key in keys]


def _rng(sample: Sample, seed: int) -> np.random.Generator:
    """Random numbers of an image and its phrase, whatever else is scored."""
    digest = hashlib.sha256(f"{seed}:{sample.image_id}:{sample.phrase}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def random_direction(sample: Sample, width: int, *, seed: int) -> NDArray[np.float32]:
    """A unit vector ``(width,)`` in place of the embedding of a phrase, uniform on the sphere.

    Comparing local features with it equals comparing them with the phrase after a random rotation, as in a network
    whose last projections were never trained together. Each image and phrase has another, so the score of a set is a
    mean over many such heads.
    """
    drawn = _rng(sample, seed).standard_normal(width)
    return np.asarray(drawn / np.linalg.norm(drawn), np.float32)


def random_map(sample: Sample, shape: tuple[int, int], *, sigma: float, seed: int) -> NDArray[np.float32]:
    """Uniform noise in [-1, 1] on `RANDOM_CELLS`, smoothed and enlarged as maps of a network are."""
    cells = _rng(sample, seed + 1).uniform(-1, 1, RANDOM_CELLS)
    return enlarge(smooth(cells, sigma), shape)


def centre(shape: tuple[int, int]) -> NDArray[np.float32]:
    """A Gaussian in the middle, 1 at its peak, of `CENTRE_WIDTH`."""
    rows, columns = (
        np.exp(-0.5 * (((np.arange(length) + 0.5) / length - 0.5) / CENTRE_WIDTH) ** 2) for length in shape
    )
    return np.asarray(rows[:, None] * columns[None, :], np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class MeanMasks:
    """Mean of ``count`` training masks, ``(h, w)`` float32 in [0, 1]: of all, of a class, and of the same `wording`."""

    whole: NDArray[np.float32]
    by_label: dict[str, NDArray[np.float32]]
    by_phrase: dict[str, NDArray[np.float32]]
    count: int

    def of(self, sample: Sample) -> NDArray[np.float32]:
        """Mean over the same phrase; if it is new, over its class; else over all."""
        same = self.by_phrase.get(wording(sample.phrase))
        return self.by_label.get(sample.label, self.whole) if same is None else same


def wording(phrase: str) -> str:
    """A phrase without what does not change its meaning: case, blanks, the full stop."""
    return " ".join(phrase.lower().split()).rstrip(" .")


def mean_masks(samples: Iterable[Sample], preprocess: Preprocess, wanted: Iterable[str]) -> MeanMasks:
    """Average the masks or boxes of training phrases, brought to the grid of the result by ``preprocess``.

    Those of one wording are averaged for phrases that are ``wanted`` alone.

    Raises:
        DataError: If there is no phrase, or one has a mask that cannot be read.
    """
    kept = {wording(phrase) for phrase in wanted}
    sums: dict[tuple[str, str], NDArray[np.float32]] = {}
    counts: Counter[tuple[str, str]] = Counter()
    for sample in samples:
        mask = preprocess.resize_mask(_unread_truth(sample)).astype(np.float32)
        words = wording(sample.phrase)
        keys = [("", ""), ("label", sample.label), *([("phrase", words)] if words in kept else [])]
        counts.update(keys)
        for key in keys:
            sums[key] = sums.get(key, np.float32(0)) + mask
    if not sums:
        raise DataError("no mean mask without training phrases", came="0 phrases", expected="at least one")
    means = {key: np.asarray(total / np.float32(counts[key]), np.float32) for key, total in sums.items()}
    return MeanMasks(
        whole=means["", ""],
        by_label={name: mean for (kind, name), mean in means.items() if kind == "label"},
        by_phrase={name: mean for (kind, name), mean in means.items() if kind == "phrase"},
        count=counts["", ""],
    )


def _unread_truth(sample: Sample) -> NDArray[np.bool_]:
    """Where a phrase is true, on the grid of its mask or its boxes; the image is not opened."""
    if sample.mask_path is not None:
        return naming(sample.mask_path, read_mask)
    if sample.box_space is None:
        raise DataError(f"{sample.image_id} has neither a mask nor boxes", expected="one of them for each phrase")
    return truth(sample, (sample.box_space[1], sample.box_space[0]))
