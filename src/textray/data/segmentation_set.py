"""What a segmentation task is given: samples, batches of them, and the order that they come in.

Decoded pixels come from the memory-mapped cache. Everything random depends on seed, epoch and sample only, so a resumed
training sees the very samples it would have seen.

Withholding zones from report and mask together, so that a network learns to heed what the report leaves out.

QaTa's captions never contradict the pixels, so a network that only ever sees them may find every lesion by itself and
ignore the words. A sample that is told of some of its zones only, and is to find only what lies there, can be learnt
from the words alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from textray.augment import Augment, Geometry
from textray.data.base import Sample
from textray.data.cache import PixelCache, PixelCaches
from textray.preprocess import Preprocess
from textray.records import Laterality, Report, Zones
from textray.text.zones import sentence

# What a task is given: one sample as the network sees it, a batch of them, and the order that they come in.

Key = tuple[int, int]
"""Epoch and index of a sample: together with the seed they fix everything random about it."""


class Item(TypedDict):
    """One sample as the network sees it."""

    image: Tensor
    mask: Tensor
    zones: Tensor
    text: str | None
    image_id: str
    index: int
    labelled: bool
    geometry: Geometry


class Batch(TypedDict):
    """What a task is given.

    Attributes:
        image: ``(B, C, H, W)`` float32, normalised.
        mask: ``(B, 1, H, W)`` float32, {0, 1}; NaN throughout where it may not be seen, so that no loss can use it.
        zones: ``(B, 6)`` float32, {0, 1}: of the report or its cluster, whatever dropout left in ``text``; less those
            withheld, but not with ``whole_zones``: a locator is not told what is withheld and sees the whole film. NaN
            where nothing tells them.
        text: ``B`` sentences; ``None`` is no report.
        image_id: ``B`` names.
        index: ``(B,)`` int64, place of each sample in its split.
        labelled: ``(B,)`` bool, false where the mask may not be seen.
        geometry: Where each sample's augmentation moved its pixels.
    """

    image: Tensor
    mask: Tensor
    zones: Tensor
    text: list[str | None]
    image_id: list[str]
    index: Tensor
    labelled: Tensor
    geometry: list[Geometry]


def collate(items: list[Item]) -> Batch:
    """Stack the items of a batch; images channels last, which convolutions on CPUs like."""
    return Batch(
        image=torch.stack([item["image"] for item in items]).contiguous(memory_format=torch.channels_last),
        mask=torch.stack([item["mask"] for item in items]),
        zones=torch.stack([item["zones"] for item in items]),
        text=[item["text"] for item in items],
        image_id=[item["image_id"] for item in items],
        index=torch.tensor([item["index"] for item in items]),
        labelled=torch.tensor([item["labelled"] for item in items]),
        geometry=[item["geometry"] for item in items],
    )


class EpochSampler(Sampler[Key]):
    """Keys of one epoch, in an order that seed and epoch fix.

    Args:
        length: Number of samples.
        seed: Of the order.
        shuffle: False keeps the data set's order and epoch 0, as a validation needs.
        labelled: One for each sample; where some are not, the two kinds are shuffled apart and mixed evenly, so that
            every batch holds its share of each. ``None``: all are.
    """

    def __init__(self, length: int, *, seed: int, shuffle: bool, labelled: Sequence[bool] | None = None) -> None:
        self.length, self.seed, self.shuffle, self.epoch = length, seed, shuffle, 0
        self.labelled = None if labelled is None else np.asarray(labelled, np.bool_)

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Key]:
        if not self.shuffle:
            return ((0, index) for index in range(self.length))
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        if self.labelled is not None:
            first = self.labelled[order]
            place = np.zeros(self.length)
            for kind in (first, ~first):
                place[kind] = (np.arange(kind.sum()) + 0.5) / max(kind.sum(), 1)
            order = order[np.argsort(place, kind="stable")]
        return ((self.epoch, int(index)) for index in order)


class SegmentationSet(Dataset[Item]):
    """Samples with their pixels, changed and normalised.

    Args:
        samples: The samples, with masks.
        preprocess: Size and normalisation.
        augment: Changes to image, mask and report.
        report_dropout: Share of samples that lose their report.
        report_withheld: Share of samples, of those with two zones or more, that are told of some of their zones only,
            and are to find only what lies there: the words decide, not the pixels alone. See
            `withhold`. A pair is the share in the first and in the last of ``epochs``, linear between.
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


REACH = ((0.0, 0.38), (0.37, 0.59), (0.47, 1.0))
"""Heights that lesions reach on a side that is named upper, middle or lower alone, as shares of the image's height.

They overlap, for captions divide lungs, not images. Set by hand near the medians of QaTa-COV19's training part that
``benchmarks/caption_heights.py`` prints: one lesion named upper ends at 0.37, middle reaches from 0.39 to 0.60, lower
begins at 0.45 (at 0.48 without its outermost 5 %).
"""


def withhold(
    mask: NDArray[np.bool_], report: Report, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], Report] | None:
    """Withhold some of a report's zones, and with them what lies there of the mask.

    One time in two a whole side is withheld, else any of the zones. A side that is no longer named loses the lesions
    whose centres lie on its half of the image; a side that is still named keeps what lies at the heights (`REACH`) of
    the zones it is still named with. Nothing changes on a side none of whose zones were withheld.

    Args:
        mask: ``(H, W)`` bool, as read (not turned or shifted yet).
        report: What is said of it.
        rng: Draws what is withheld.

    Returns:
        Mask and report of what is left, or ``None`` where the report names one zone at most, its sides are not known,
        or nothing of the mask would be left.
    """
    named = [zone for zone, present in enumerate(report.zones.present) if present]
    if report.laterality is Laterality.UNKNOWN or len(named) < 2:
        return None
    sides = {zone // 3 for zone in named}
    if len(sides) == 2 and rng.random() < 0.5:
        withheld = rng.integers(2)
        gone = {zone for zone in named if zone // 3 == withheld}
    else:
        gone = {int(zone) for zone in rng.choice(named, size=rng.integers(1, len(named)), replace=False)}
    lesions, count = ndimage.label(mask, np.ones((3, 3)))
    centres = ndimage.center_of_mass(mask, lesions, range(1, count + 1))
    of_side = np.array([0, *(1 if column >= mask.shape[1] / 2 else 0 for _, column in centres)])[lesions]  # (H, W)
    kept = mask.copy()
    for side in {zone // 3 for zone in gone}:
        rows = np.zeros(mask.shape[0], np.bool_)
        for level, (top, end) in enumerate(REACH):
            zone = side * 3 + level
            if zone in named and zone not in gone:
                rows[round(top * mask.shape[0]) : round(end * mask.shape[0])] = True
        kept &= (of_side != side) | rows[:, None]
    if not kept.any():
        return None
    zones = Zones.from_present(zone in named and zone not in gone for zone in range(6))
    return kept, replace(report.with_zones(zones), text=sentence(zones))


def withhold_label(label: Zones, whole: Zones, told: Zones) -> Zones:
    """Take from a label what was withheld from its report: those zones, and every zone of a side no longer named.

    Args:
        label: Zones of the sample, which need not be those of the report.
        whole: Zones of the report.
        told: Those of them that are left.
    """
    gone = {zone for zone, (was, left) in enumerate(zip(whole.present, told.present, strict=True)) if was and not left}
    silent = {zone // 3 for zone in gone if not any(told.present[zone // 3 * 3 : zone // 3 * 3 + 3])}
    return Zones.from_present(
        present and zone not in gone and zone // 3 not in silent for zone, present in enumerate(label.present)
    )
