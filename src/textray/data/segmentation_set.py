"""Samples as a network sees them: pixels, mask and words of one, changed and normalised.

Decoded pixels come from the memory-mapped cache. Everything random depends on seed, epoch and sample only, so a resumed
training sees the very samples it would have seen.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from copy import copy
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from textray.augment import Augment
from textray.data.base import Sample
from textray.data.batch import Item, Key
from textray.data.cache import PixelCache, PixelCaches
from textray.data.withhold import withhold, withhold_label
from textray.preprocess import Preprocess
from textray.records import Report, Zones
from textray.text.report import sentence


class SegmentationSet(Dataset[Item]):
    """Samples with their pixels, changed and normalised.

    Args:
        samples: The samples, with masks.
        preprocess: Size and normalisation.
        augment: Changes to image, mask and report.
        report_dropout: Share of samples that lose their report.
        report_withheld: Share of samples, of those with two zones or more, that are told of some of their zones only,
            and are to find only what lies there: the words decide, not the pixels alone. See
            `textray.data.withhold`. A pair is the share in the first and in the last of ``epochs``, linear between.
        epochs: Epochs of the training.
        seed: Of everything random.
        labelled: Samples whose masks may be seen, by their names; ``None``: all. The masks of the others are not read.
        others: Samples without masks, which come after them.
        cache: Folder of the pixel cache, ``None`` for the user's.
    """

    def __init__(
        self,
        samples: list[Sample],
        preprocess: Preprocess,
        *,
        augment: Augment,
        report_dropout: float = 0.0,
        report_withheld: float | tuple[float, float] = 0.0,
        epochs: int = 1,
        seed: int = 0,
        labelled: Collection[str] | None = None,
        others: Sequence[Sample] = (),
        cache: Path | None = None,
    ) -> None:
        pair = report_withheld if isinstance(report_withheld, tuple) else (report_withheld, report_withheld)
        self.report_withheld, self.epochs, self.whole_zones = pair, epochs, False
        self.samples, self.preprocess, self.augment = [*samples, *others], preprocess, augment
        self.report_dropout, self.seed = report_dropout, seed
        self.pixels = (
            PixelCaches([samples, others], preprocess, cache) if others else PixelCache(samples, preprocess, cache)
        )
        self.labelled = [labelled is None or sample.image_id in labelled for sample in samples] + [False] * len(others)
        self.labels: Sequence[Zones] | None = None  # one for each sample; None takes the reports' zones

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: Key) -> Item:
        epoch, index = key
        rng = np.random.default_rng((self.seed, epoch, index))
        sample = self.samples[index]
        labelled, report, certain = self.labelled[index], sample.report, False
        mask = self.pixels.mask(index) if labelled else np.zeros(self.pixels.size, np.bool_)
        own = np.random.default_rng((self.seed, epoch, index, 1))  # its own, so that it changes no other draw
        told = withhold(mask, report, own) if labelled and own.random() < self._withheld(epoch) else None
        if told is not None:
            (mask, report), certain = told, True  # without its words the cut mask would be a lie
        before = report
        pixels, mask, report, way = self.augment.traced(self.pixels.image(index), mask, before, rng)
        target = np.where(labelled, mask, np.float32(np.nan))
        label = sample.report.zones if self.labels is None else self.labels[index]
        if not self.whole_zones:
            label = withhold_label(label, sample.report.zones, before.zones)
        zones = label if report is before else label.mirror()  # only a flip makes a new report
        return Item(
            image=torch.from_numpy(self.preprocess.normalise_pixels(pixels)),
            mask=torch.from_numpy(np.ascontiguousarray(target, dtype=np.float32))[None],
            zones=torch.tensor(zones.present if self.tells_zones(index) else [np.nan] * 6, dtype=torch.float32),
            text=report.text if certain else self._words(report, rng),
            image_id=sample.image_id,
            index=index,
            labelled=labelled,
            geometry=way,
        )

    @property
    def without_text(self) -> int:
        """Number of samples with masks that come without a text, whatever is dropped: none, or one that names no zone.

        Those without masks do not count: what is learnt from them is what a teacher did without a text.
        """
        drawn = (index for index, sample in enumerate(self.samples) if sample.mask_path is not None)
        return sum(not self.whole_text(index) for index in drawn)

    def whole_text(self, index: int) -> str | None:
        """What the network is told of a sample whose report is left whole; the picture is not looked at."""
        return told_of(self.samples[index].report)

    def truth(self, index: int) -> NDArray[np.bool_] | None:
        """Mask of a sample, ``(h, w)`` bool, whether it may be seen or not; ``None`` where nobody has drawn one.

        For looking on: who learns from it or chooses by it uses masks that are hidden.
        """
        return None if self.samples[index].mask_path is None else self.pixels.mask(index)

    def tells_zones(self, index: int) -> bool:
        """False where neither a mask nor a report that speaks of zones tells which a sample has."""
        sample = self.samples[index]
        return sample.mask_path is not None or sample.report.zones.mentioned

    def denies(self, index: int) -> bool:
        """True where a sample's report says that zones are clear and names none that is infected."""
        zones = self.samples[index].report.zones
        return zones.mentioned and not zones

    @property
    def silent_unlabelled(self) -> int:
        """Number of samples whose masks may not be seen and that come without a text."""
        return sum(not seen and self.whole_text(index) is None for index, seen in enumerate(self.labelled))

    def plain(self) -> SegmentationSet:
        """The same samples as they are: not augmented, with their whole reports."""
        same = copy(self)
        same.augment, same.report_dropout = Augment.preset("none"), 0.0
        same.report_withheld = (0.0, 0.0)
        return same

    def _withheld(self, epoch: int) -> float:
        """Share of samples from which zones are withheld in an epoch."""
        first, last = self.report_withheld
        return first + (last - first) * min(epoch / max(self.epochs - 1, 1), 1.0)

    def _words(self, report: Report, rng: np.random.Generator) -> str | None:
        """The words that the network is given, or none."""
        return None if rng.random() < self.report_dropout else told_of(report)


def told_of(report: Report) -> str | None:
    """What a network is told of a report: a free caption as it stands, else the sentence of its zones, as in use.

    ``None`` without words, and where no zone is infected: "no infection." is no text in use.
    """
    return report.text if report.free else sentence(report.zones) if report.zones else None
