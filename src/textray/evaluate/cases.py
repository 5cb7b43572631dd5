"""Segment a data set: each image is read once and segmented once for each of its texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from textray.data.base import Sample, naming
from textray.errors import DataError, UsageError, unknown_name
from textray.evaluate.order import Progress
from textray.inference import film
from textray.inference.bank import Prompt
from textray.inference.own_report import written
from textray.inference.record import clear_denied, zone_areas, zone_split
from textray.inference.segmenter import Inference, Predictor
from textray.metrics.segmentation import Counts, count
from textray.records import Image, Report, Zones
from textray.text.cleaning import plain


class TextMode(StrEnum):
    """Where the text of an evaluation comes from; a score without its text mode means nothing."""

    ORACLE = "oracle"
    NONE = "none"
    SHUFFLED = "shuffled"
    GENERATED = "generated"


MEANINGS = {
    TextMode.ORACLE: "the data set's own caption, which tells where the lesions are",
    TextMode.NONE: "no text at all",
    TextMode.SHUFFLED: "the caption of another image of the split, naming other zones (seeded)",
    TextMode.GENERATED: "the report that the model writes itself from the image; no text where it finds nothing",
}
FREE_MEANINGS = MEANINGS | {TextMode.SHUFFLED: "the caption of another image of the split, another one (seeded)"}
"""The same for data sets with free captions."""

BATCH = 8
"""Images in one run of the network."""

Texts = Mapping[int, Report | None]
"""Text of each sample by its index; ``None`` for no text. Samples that are left out are not segmented."""


def parse_modes(names: Iterable[str]) -> tuple[TextMode, ...]:
    """Text modes by name, each once, in the order given; an unknown one, or none at all, is a `UsageError`."""
    modes = list(dict.fromkeys(names))
    for name in modes:
        if name not in list(TextMode):
            raise unknown_name("text mode", name, TextMode)
    if not modes:
        raise UsageError("no text mode given", expected="one or more of " + ", ".join(TextMode))
    return tuple(map(TextMode, modes))


def text_of(report: Report) -> Report | None:
    """The report, or ``None`` if it names no zone or, of free captions, has no words."""
    states_something = report.text is not None if report.free else report.zones
    return report if states_something else None


def mode_texts(samples: Sequence[Sample], mode: TextMode, *, seed: int) -> dict[int, Report | None]:
    """Text of each sample in a mode; for ``generated`` none, since the network writes it.

    Shuffled: each sample gets the caption of another sample that names other zones (of free captions: another one),
    drawn evenly from all such samples. The draw depends on seed and ids alone, not on the order of the samples.

    Raises:
        UsageError: If captions are to be shuffled and all name the same zones, or none.
    """
    if mode in (TextMode.NONE, TextMode.GENERATED):
        return dict.fromkeys(range(len(samples)))
    texts = {i: text_of(sample.report) for i, sample in enumerate(samples)}
    if mode is TextMode.ORACLE:
        return texts
    order = sorted(texts, key=lambda i: samples[i].image_id)
    keys = {i: _key(text) for i, text in texts.items()}
    donors = {key: [i for i in order if texts[i] and keys[i] != key] for key in set(keys.values())}
    rng = np.random.default_rng(seed)
    drawn: dict[int, Report | None] = {}
    for i in order:
        others = donors[keys[i]]
        if not others:
            raise UsageError(
                "captions cannot be shuffled: no other image of the split "
                + ("has another one" if samples[i].report.free else "names other zones"),
                came=f"{len(samples)} images, {len({keys[i] for i in order if texts[i]})} different captions",
                expected="at least two different captions",
            )
        drawn[i] = texts[others[int(rng.integers(len(others)))]]
    return {i: drawn[i] for i in texts}


def _key(text: Report | None) -> int | str:
    """What makes texts the same: zones, or words whatever their case and blanks; 0 for no text."""
    if text is None:
        return 0
    return plain(text.text or "") if text.free else text.zones.index


@dataclass(frozen=True, kw_only=True)
class Case:
    """One image under one text: pixels on its grid, and the predicted ones (``areas``) in each of the six zones.

    ``zones`` are those of the text that was given or written, ``None`` without text or with a free ``caption``. ``fit``
    says how well given zones fit those that the network sees without a text, see `textray.inference.film.fit`; ``None``
    without them.
    """

    sample: Sample
    zones: Zones | None
    counts: Counts
    areas: tuple[int, ...]
    caption: str | None = None
    fit: float | None = None


def segment(
    segmenter: Predictor,
    samples: Sequence[Sample],
    texts: Mapping[str, Texts],
    *,
    progress: Progress | None = None,
) -> dict[str, dict[int, Case]]:
    """Segment and count: for each name of ``texts`` the cases by index of the sample.

    Under the name ``generated`` the network writes the texts.

    Raises:
        UsageError: If the network is to write its own report and tells no zones, or does not know a caption.
        DataError: If an image and its mask have different sizes.
        InputError: If a file is refused; the message names it.
    """
    bundle, way = segmenter.bundle, segmenter.bundle.preprocess
    cases: dict[str, dict[int, Case]] = {name: {} for name in texts}
    for start in range(0, len(samples), BATCH):
        batch = samples[start : start + BATCH]
        images, truths = zip(*(open_case(sample, way.read) for sample in batch), strict=True)
        pixels = np.stack([way.apply(image) for image in images])
        for name, given in texts.items():
            places = [k for k in range(len(batch)) if start + k in given]
            if not places:
                continue
            writes = name == TextMode.GENERATED
            prompts = [Prompt.OWN_REPORT if writes else prompt_of(given[start + k], segmenter) for k in places]
            said = [given[start + k] for k in places]
            denied = np.stack([film.denied(Zones() if text is None else text.zones) for text in said])
            inference = segmenter.infer(pixels[places], prompts, denied)
            for position, k in enumerate(places):
                text, grid = said[position], images[k].grid
                mask = way.restore(inference.probability[position], grid) >= bundle.threshold
                sick = True
                if not (text and (text.zones or text.free)) and bundle.bounds and inference.presence is not None:
                    sick = bool(inference.presence[position] >= bundle.bounds.least(text))
                    mask &= sick  # as `Predictor.segment` does
                if text is not None and segmenter.reads_denial:
                    found = None if inference.lungs is None else film.find_lungs(inference.lungs[position], way, grid)
                    clear_denied(mask, text.zones, grid, zone_split(bundle, found))
                free = text is not None and text.free
                zones = None if text is None or free else text.zones
                seen = None if inference.zone_probability is None else inference.zone_probability[position]
                fit = None if zones is None or text is None or seen is None else film.fit(text, seen)
                if writes and sick:
                    zones = _written_zones(inference, position, bundle.zone_thresholds)
                cases[name][start + k] = Case(
                    sample=batch[k],
                    zones=zones,
                    counts=count(mask, truths[k]),
                    areas=tuple(int(area["pixels"]) for area in zone_areas(mask, grid, bundle.zone_split).values()),
                    caption=text.text if text is not None and free else None,
                    fit=fit,
                )
        if progress is not None:
            progress(start + len(batch), len(samples))
    return cases


def open_case(sample: Sample, read: Callable[[Path], Image]) -> tuple[Image, NDArray[np.bool_]]:
    """Image and mask of a sample.

    Raises:
        DataError: If there is no mask, or it has another size.
        InputError: If a file is refused.
    """
    image, mask = naming(sample.image_path, read), sample.read_mask()
    if mask.shape != image.grid.shape:
        raise DataError(f"the mask of {sample.image_id} has another size", came=mask.shape, expected=image.grid.shape)
    return image, mask


def counts_of(cases: Sequence[Case]) -> NDArray[np.int64]:
    """Pixels of cases, ``(N, 4)``: true positive, false positive, false negative, true negative."""
    return np.array([case.counts for case in cases], dtype=np.int64)


def prompt_of(text: Report | None, segmenter: Predictor) -> int | Prompt:
    """Row of the text bank, or no report; refuses a free caption that the network does not know."""
    row = None if text is None else segmenter.bank_row(text)
    if row is None and text is not None and text.free:
        raise UsageError("the network does not know a caption", came=repr(text.text), expected="one of its captions")
    return Prompt.NO_REPORT if row is None else row


def _written_zones(inference: Inference, position: int, thresholds: Sequence[float] | None) -> Zones | None:
    """Zones that the network wrote into its own report of one image; ``None`` if it found none."""
    if inference.zone_probability is None or thresholds is None:
        raise UsageError("the network is to write its own report, and it tells no zones", do="Give it texts.")
    zones = written(inference.zone_probability[position], thresholds)
    return zones if zones else None
