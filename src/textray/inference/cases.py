"""A data set through a network: each image read once, asked once for each text, counted on its own grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from textray.data.base import Sample, naming
from textray.data.text_modes import Caption, Told
from textray.errors import DataError, UsageError
from textray.inference import captions as known
from textray.inference.own_report import written
from textray.inference.predictor import Inference, Predictor
from textray.inference.record import zone_areas
from textray.metrics.segmentation import Counts, count
from textray.preprocess import Preprocess
from textray.records import Zones

BATCH = 8
"""Images in one run of the network."""

Texts = Mapping[int, Told]
"""What the network is told about each sample, by its index; ``None`` or no zone in it is no text, and none is written
then. Samples that are left out are not segmented."""


class Segmenter(Protocol):
    """What a run over a data set needs of a network; `textray.inference.predictor.Predictor` has it."""

    @property
    def preprocess(self) -> Preprocess:
        """From a picture to the network's input, and the way back."""
        ...

    @property
    def threshold(self) -> float:
        """Probability from which a pixel is lesion."""
        ...

    def infer(self, pixels: NDArray[np.float32], rows: Sequence[int | None]) -> Inference:
        """Run on preprocessed ``(B, C, h, w)``, each told a row of the bank, to be silent, or to write its own."""
        ...


@dataclass(frozen=True, kw_only=True)
class Case:
    """One image under one text.

    Attributes:
        sample: The image.
        zones: What the network was told or, where it was to write its own report, what it wrote; ``None`` where it
            worked without text.
        counts: Pixels on the image's own grid.
        areas: Predicted pixels in each of the six zones.
        caption: The free caption that the network was told, ``None`` where it was told none.
    """

    sample: Sample
    zones: Zones | None
    counts: Counts
    areas: tuple[int, ...]
    caption: str | None = None


def segment(
    segmenter: Segmenter,
    samples: Sequence[Sample],
    texts: Mapping[str, Texts],
    *,
    zone_rows: tuple[float, float],
    zone_thresholds: Sequence[float] | None = None,
    captions: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, dict[int, Case]]:
    """Segment and count: for each name of ``texts`` the cases by index of the sample.

    Args:
        segmenter: The network.
        samples: What to read.
        texts: By name, what the network is told; each image is read and preprocessed once for all of them.
        zone_rows: Heights, as shares of the image, that split the zones of pixels.
        zone_thresholds: Probabilities from which the network writes the six zones into a report of its own; ``None``
            where it writes none.
        captions: What the rows of its bank say, where its data have free captions.
        progress: Called with the number of images done and of all.

    Raises:
        UsageError: If the network is to write its own report and tells no zones, or does not know a caption.
        DataError: If an image and its mask have different sizes.
        InputError: If a file is refused; the message names it.
    """
    cases: dict[str, dict[int, Case]] = {name: {} for name in texts}
    for start in range(0, len(samples), BATCH):
        indices = range(start, min(start + BATCH, len(samples)))
        images = [naming(samples[i].image_path, segmenter.preprocess.read) for i in indices]
        truths = [samples[i].read_mask() for i in indices]
        for i, image, truth in zip(indices, images, truths, strict=True):
            if truth.shape != image.grid.shape:
                raise DataError(
                    f"the mask of {samples[i].image_id} has another size", came=truth.shape, expected=image.grid.shape
                )
        pixels = np.stack([segmenter.preprocess.apply(image) for image in images])
        for name, told in texts.items():
            here = [k for k, i in enumerate(indices) if i in told]
            if not here:
                continue
            found = segmenter.infer(pixels[here], [_row(told[start + k], captions) for k in here])
            for position, k in enumerate(here):
                text = told[start + k]
                grid = images[k].grid
                mask = segmenter.preprocess.restore(found.probability[position], grid) >= segmenter.threshold
                cases[name][start + k] = Case(
                    sample=samples[start + k],
                    zones=_zones(text, found, position, zone_thresholds),
                    counts=count(mask, truths[k]),
                    areas=tuple(int(area["pixels"]) for area in zone_areas(mask, grid, zone_rows).values()),
                    caption=text.text if isinstance(text, Caption) else None,
                )
        if progress is not None:
            progress(indices[-1] + 1, len(samples))
    return cases


def counts_of(cases: Sequence[Case]) -> NDArray[np.int64]:
    """Pixels of cases, ``(N, 4)``: true positive, false positive, false negative, true negative."""
    return np.array([[c.counts.tp, c.counts.fp, c.counts.fn, c.counts.tn] for c in cases], dtype=np.int64)


def _row(told: Told, captions: Sequence[str]) -> int:
    """What `Segmenter.infer` takes for a text."""
    if isinstance(told, Caption):
        row = known.find(told.text, captions)
        if row is None:
            raise UsageError(
                "the network does not know a caption", came=repr(told.text), expected="one of its captions"
            )
        return row
    if isinstance(told, Zones) and told:
        return told.index
    return Predictor.WRITE if told == "own" else Predictor.SILENT


def _zones(told: Told, found: Inference, position: int, thresholds: Sequence[float] | None) -> Zones | None:
    if told == "own":
        return _own_zones(found, position, thresholds)
    return told if isinstance(told, Zones) else None


def _own_zones(found: Inference, position: int, thresholds: Sequence[float] | None) -> Zones | None:
    """The zones that the network wrote into its own report of one image; ``None`` where it found nothing to write."""
    if found.zone_probability is None or thresholds is None:
        raise UsageError("the network is to write its own report, and it tells no zones", do="Give it texts.")
    zones = written(found.zone_probability[position], thresholds)
    return zones if zones else None
