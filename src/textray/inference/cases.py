"""A data set through a network: each image read once, asked once for each text, counted on its own grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from textray.data.base import Sample, naming
from textray.errors import DataError
from textray.inference.record import zone_areas
from textray.io.read import read, read_mask
from textray.metrics.segmentation import Counts, count
from textray.preprocess import Preprocess
from textray.records import Zones

BATCH = 8
"""Images in one run of the network."""

Texts = Mapping[int, Zones | None]
"""What the network is told about each sample, by its index; ``None`` or no zone in it is no text. Samples that are left
out are not segmented."""


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

    def predict_batch(self, pixels: NDArray[np.float32], rows: Sequence[int | None]) -> NDArray[np.float32]:
        """Probabilities ``(B, h, w)`` of preprocessed ``(B, C, h, w)``, each told a row of the text bank or nothing."""
        ...


@dataclass(frozen=True, kw_only=True)
class Case:
    """One image under one text.

    Attributes:
        sample: The image.
        zones: What the network was told, ``None`` without text.
        counts: Pixels on the image's own grid.
        areas: Predicted pixels in each of the six zones.
    """

    sample: Sample
    zones: Zones | None
    counts: Counts
    areas: tuple[int, ...]


def segment(
    segmenter: Segmenter,
    samples: Sequence[Sample],
    texts: Mapping[str, Texts],
    *,
    zone_rows: tuple[float, float],
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, dict[int, Case]]:
    """Segment and count: for each name of ``texts`` the cases by index of the sample.

    Args:
        segmenter: The network.
        samples: What to read.
        texts: By name, what the network is told; each image is read and preprocessed once for all of them.
        zone_rows: Heights, as shares of the image, that split the zones of pixels.
        progress: Called with the number of images done and of all.

    Raises:
        DataError: If an image and its mask have different sizes.
        InputError: If a file is refused; the message names it.
    """
    cases: dict[str, dict[int, Case]] = {name: {} for name in texts}
    for start in range(0, len(samples), BATCH):
        indices = range(start, min(start + BATCH, len(samples)))
        images = [naming(samples[i].image_path, read) for i in indices]
        truths = [naming(samples[i].mask_path, read_mask) for i in indices]
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
            rows = [zones.index if (zones := told[start + k]) else None for k in here]
            maps = segmenter.predict_batch(pixels[here], rows)
            for k, values in zip(here, maps, strict=True):
                grid = images[k].grid
                mask = segmenter.preprocess.restore(values, grid) >= segmenter.threshold
                cases[name][start + k] = Case(
                    sample=samples[start + k],
                    zones=told[start + k],
                    counts=count(mask, truths[k]),
                    areas=tuple(int(area["pixels"]) for area in zone_areas(mask, grid, zone_rows).values()),
                )
        if progress is not None:
            progress(indices[-1] + 1, len(samples))
    return cases
