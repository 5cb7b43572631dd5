"""Samples as networks see them, in batches: their order, and how each is changed.

Augmentation and normalisation happen per sample. Everything random depends on seed, epoch and sample only, so a resumed
training sees the very batches it would have seen.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from copy import copy
from itertools import islice
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Sampler

from textray.augment import Augment, Geometry
from textray.data.base import Sample
from textray.data.cache import PixelCache
from textray.data.elsewhere import elsewhere
from textray.data.zone_dropout import deny, deny_zones, drop_from_label, drop_zones
from textray.errors import UsageError
from textray.preprocess import Preprocess
from textray.records import Report, Zones, ZoneState
from textray.text.zones import sentence

Key = tuple[int, int]
"""Epoch and index of a sample: together with the seed they fix everything random about it."""


_NORMAL_DENIED = 0.75  # of films without a lesion; the others teach masks without words to be timid, see docs/results
_ELSEWHERE = 0.15  # share of films with known lungs in whose place a picture comes that is no chest film

Item = dict[str, Any]
"""One sample of a `Batch`, under the same names."""


class Batch(TypedDict):
    """Samples as networks see them.

    Zones are those of the report or its cluster, whatever dropout left in the text; less those dropped, but not with
    ``whole_zones``: a locator reads no words and sees the whole film.
    """

    image: Tensor  # (B, C, H, W) float32, normalised
    mask: Tensor  # (B, 1, H, W) float32, {0, 1}; NaN throughout where it may not be seen, so that no loss can use it
    zones: Tensor  # (B, 6) float32, {0, 1}; NaN where unknown
    text: list[str | None]  # None is no report
    image_id: list[str]
    index: Tensor  # (B,) int64, place of each sample in its split
    labelled: Tensor  # (B,) bool, false where the mask may not be seen
    denied: Tensor  # (B, 6) float32, 1 at zones that the report denies
    finding: Tensor  # (B,) float32, 1 where the film shows a lesion, 0 where it shows none, NaN where unknown
    lungs: Tensor  # (B, 2, H/4, W/4) float32 in [0, 1], left and right lung by image side; NaN where unknown
    source: list[str]  # where each film comes from, "" if the data set has one source
    geometry: list[Geometry]  # where each sample's augmentation moved its pixels


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
        denied=torch.stack([item["denied"] for item in items]),
        finding=torch.tensor([item["finding"] for item in items]),
        lungs=torch.stack([item["lungs"] for item in items]),
        source=[item["source"] for item in items],
        geometry=[item["geometry"] for item in items],
    )


class EpochSampler(Sampler[Key]):
    """Keys of one epoch, in an order that seed and epoch fix; unshuffled, the data set's order and epoch 0.

    Where some samples are not ``labelled``, the two kinds are shuffled apart and mixed evenly, so that every batch
    holds its share of each.

    ``beside`` are source and finding of the last samples, those of a second data set. They fill a ``share`` of each
    epoch, evenly: each source by its size, and in it normal and sick films as often.
    """

    def __init__(
        self,
        length: int,
        *,
        seed: int,
        shuffle: bool,
        labelled: Sequence[bool] | None = None,
        beside: Sequence[tuple[str, bool]] = (),
        share: float = 0.0,
    ) -> None:
        self.seed, self.shuffle, self.epoch = seed, shuffle, 0
        self.first = length - len(beside)
        self.labelled = None if labelled is None else np.asarray(labelled, np.bool_)[: self.first]
        groups: dict[tuple[str, bool], list[int]] = defaultdict(list)
        for place, key in enumerate(beside, self.first):
            groups[key].append(place)
        sizes, kinds = Counter(source for source, _ in beside), Counter(source for source, _ in groups)
        wanted = self.first * share / (1 - share)
        self.groups = [
            (places, round(wanted * sizes[source] / len(beside) / kinds[source]))
            for (source, _), places in sorted(groups.items())
        ]
        self.length = self.first + sum(count for _, count in self.groups) if shuffle else length

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Key]:
        if not self.shuffle:
            return ((0, index) for index in range(self.length))
        rng = np.random.default_rng((self.seed, self.epoch))
        order = rng.permutation(self.first)
        first = np.ones(self.first, np.bool_) if self.labelled is None else self.labelled[order]
        place = np.zeros(self.first)
        for kind in (first, ~first):
            place[kind] = _spread(kind.sum())
        for places, count in self.groups:
            rounds = [rng.permutation(places) for _ in range(-(-count // len(places)))]
            order = np.concatenate([order, np.concatenate(rounds)[:count]])
            place = np.concatenate([place, _spread(count)])
        return ((self.epoch, int(index)) for index in order[np.argsort(place, kind="stable")])


def _spread(count: int) -> NDArray[np.float64]:
    """Even places in [0, 1) of so many samples."""
    return (np.arange(count) + 0.5) / max(count, 1)


class RankSampler(DistributedSampler[Key]):
    """Keys of one epoch for one of several processes, in the order of an `EpochSampler`.

    The processes' parts interleave: a batch of each makes the batch that one process would have with as many times the
    batch size. What does not go up is left out.
    """

    def __init__(self, keys: EpochSampler, *, rank: int = 0, ranks: int = 1) -> None:
        super().__init__(
            cast(Dataset[Key], range(len(keys))),
            num_replicas=ranks,
            rank=rank,
            shuffle=keys.shuffle,
            seed=keys.seed,
            drop_last=True,
        )
        self.keys = keys

    def __iter__(self) -> Iterator[Key]:
        self.keys.set_epoch(self.epoch)
        return islice(self.keys, self.rank, self.num_samples * self.num_replicas, self.num_replicas)


class EpochLoader(DataLoader[Item]):
    """A loader that begins with its first batch: Lightning asks for an iterator before it names the epoch to resume."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # workers would fetch the batches of epoch 0
        yield from super().__iter__()


class SegmentationSet(Dataset[Item]):
    """Samples with their pixels, changed and normalised: a torch data set, indexed by epoch and sample.

    An `EpochSampler` gives a loader such keys. A `plain` set, which changes nothing, also takes the index alone.

    Args:
        samples: The samples, with masks.
        augment: How pixels and masks are changed, by default not at all.
        report_withheld: Share of samples that lose some zones from report and mask, see `textray.data.zone_dropout`,
            in the first and in the last of ``epochs``, linear between.
        report_denied: Share of samples whose report denies zones, see `textray.data.zone_dropout.deny_zones`; of
            films that show no lesion most deny all.
        labelled: Samples whose masks may be seen, by their names; ``None``: all. The masks of the others are not read.
        others: Samples without masks, which come after them. Those of films that show no lesion have an empty mask.
    """

    def __init__(
        self,
        samples: list[Sample],
        preprocess: Preprocess,
        *,
        augment: Augment | None = None,
        report_dropout: float = 0.0,
        report_withheld: tuple[float, float] = (0.0, 0.0),
        report_denied: float = 0.0,
        epochs: int = 1,
        seed: int = 0,
        labelled: Collection[str] | None = None,
        others: Sequence[Sample] = (),
        cache: Path | None = None,
    ) -> None:
        self.report_withheld, self.epochs, self.whole_zones = report_withheld, epochs, False
        self.report_denied, self.draws = report_denied, True
        self.samples, self.preprocess = [*samples, *others], preprocess
        self.augment = augment or Augment.preset("none")
        self.report_dropout, self.seed = report_dropout, seed
        self.pixels = PixelCache(samples, preprocess, cache)  # apart: other pictures beside them change nothing
        self.other_pixels = PixelCache(others, preprocess, cache) if others else None
        self.labelled = [labelled is None or sample.image_id in labelled for sample in samples]
        self.labelled += [sample.finding is False for sample in others]
        self._lungs = {i: self._read_lungs(sample) for i, sample in enumerate(self.samples) if sample.lungs_path}
        self.labels: Sequence[Zones] | None = None  # one for each sample; None takes the reports' zones

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: Key | int) -> Item:
        if not isinstance(key, tuple) and self.draws:
            raise UsageError(
                "a set that changes its samples must know the epoch",
                came=f"index {key}",
                expected="(epoch, index)",
                do="Give the DataLoader sampler=EpochSampler(len(data), seed=0, shuffle=True), or take data.plain()",
            )
        epoch, index = key if isinstance(key, tuple) else (0, key)
        other = np.random.default_rng((self.seed, epoch, index, 3))
        if self.draws and index in self._lungs and other.random() < _ELSEWHERE:
            return self._elsewhere(index, other)
        rng = np.random.default_rng((self.seed, epoch, index))
        sample = self.samples[index]
        labelled, whole = self.labelled[index], self._wording(epoch, index)
        drawn = sample.mask_path is not None and labelled
        mask = self.pixels.mask(index) if drawn else np.zeros(self.pixels.size, np.bool_)
        finding = bool(mask.any()) if drawn else sample.finding
        apart = np.random.default_rng((self.seed, epoch, index, 1))  # zone dropout changes no other draw
        kept = drop_zones(mask, whole, apart) if drawn and apart.random() < self._withheld(epoch) else None
        if kept is None and self.report_denied:
            kept = self._denied(index, mask, whole, apart)
        # Without its words a cut mask would be wrong.
        (mask, before), certain = ((mask, whole), False) if kept is None else (kept, kept[0] is not mask)
        pixels, mask, report, way = self.augment.traced(self.image(index), mask, before, rng)
        target = np.where(labelled, mask, np.float32(np.nan))
        label = whole.zones if self.labels is None else self.labels[index]
        if not self.whole_zones:
            label = drop_from_label(label, whole.zones, before.zones)
        zones = label if report is before else label.mirror()  # only a flip makes a new report
        known = whole.zones.mentioned or sample.finding is False or self.labels is not None
        return Item(
            image=torch.from_numpy(self.preprocess.normalise_pixels(pixels)),
            mask=torch.from_numpy(np.ascontiguousarray(target, dtype=np.float32))[None],
            zones=torch.tensor(zones.present if known else [np.nan] * 6, dtype=torch.float32),
            text=report.text if certain else None if rng.random() < self.report_dropout else text_of(report),
            image_id=sample.image_id,
            index=index,
            labelled=labelled,
            denied=torch.tensor([state is ZoneState.ABSENT for state in report.zones.states], dtype=torch.float32),
            finding=np.nan if finding is None else float(finding),
            lungs=self._moved_lungs(index, way),
            source=sample.source,
            geometry=way,
        )

    def _elsewhere(self, index: int, rng: np.random.Generator) -> Item:
        """A picture that is no chest film in place of a sample whose lungs are known: it has none."""
        unknown = torch.full((1, *self.pixels.size), np.nan)
        return Item(
            image=torch.from_numpy(self.preprocess.normalise_pixels(elsewhere(self.image(index), rng))),
            mask=unknown,
            zones=torch.full((6,), np.nan),
            text=None,
            image_id=self.samples[index].image_id,
            index=index,
            labelled=False,
            denied=torch.zeros(6),
            finding=np.nan,
            lungs=torch.zeros(2, *(side // 4 for side in self.pixels.size)),
            source=self.samples[index].source,
            geometry=Geometry(),
        )

    def _wording(self, epoch: int, index: int) -> Report:
        """The report of a sample in one of its wordings, drawn anew in each epoch of a training."""
        wordings = (self.samples[index].report, *(self.samples[index].also if self.draws else ()))
        drawn = np.random.default_rng((self.seed, epoch, index, 2)).integers(len(wordings))
        return wordings[drawn]

    def _denied(
        self, index: int, mask: NDArray[np.bool_], report: Report, rng: np.random.Generator
    ) -> tuple[NDArray[np.bool_], Report] | None:
        """Mask and report of a sample whose report denies zones; ``None`` of one whose report is left as it is."""
        sample = self.samples[index]
        if sample.finding is False:
            return (mask, deny(report, range(6))) if rng.random() < _NORMAL_DENIED else None
        chosen = self.labelled[index] and sample.mask_path is not None and rng.random() < self.report_denied
        return deny_zones(mask, report, rng) if chosen else None

    def _read_lungs(self, sample: Sample) -> NDArray[np.uint8]:
        """Lungs of a sample at the network's size, two planes packed into bits."""
        planes = [self.preprocess.resize_mask(plane) for plane in sample.read_lungs()]
        return np.packbits(np.stack(planes), axis=None)

    def _moved_lungs(self, index: int, way: Geometry) -> Tensor:
        """Lungs of a sample as its picture was moved, ``(2, h/4, w/4)`` in [0, 1]; NaN where unknown."""
        height, width = self.pixels.size
        if index not in self._lungs:
            return torch.full((2, height // 4, width // 4), np.nan)
        planes = np.unpackbits(self._lungs[index], count=2 * height * width).reshape(2, height, width)
        moved = np.stack([way.forward(plane.astype(np.float32)) for plane in (planes[::-1] if way.flipped else planes)])
        return torch.nn.functional.avg_pool2d(torch.from_numpy(moved)[None], 4)[0]

    def image(self, index: int) -> NDArray[np.float32]:
        """Pixels of a sample as `PixelCache.image` gives them."""
        place = index - len(self.pixels)
        others = self.other_pixels if place >= 0 else None
        return self.pixels.image(index) if others is None else others.image(place)

    @property
    def without_text(self) -> int:
        """Number of samples with masks whose text is missing or names no zone, before any dropout.

        Those without masks do not count: their targets are what a teacher found without a text.
        """
        return sum(sample.mask_path is not None and not text_of(sample.report) for sample in self.samples)

    def whole_text(self, index: int) -> str | None:
        """The text of a sample whose report is left whole; the picture is not read."""
        return text_of(self.samples[index].report)

    def truth(self, index: int) -> NDArray[np.bool_] | None:
        """Mask of a sample, ``(h, w)`` bool, even if hidden, ``None`` without one: to watch, not to learn or choose."""
        return None if self.samples[index].mask_path is None else self.pixels.mask(index)

    def denies(self, index: int) -> bool:
        """True where a sample's report calls zones clear and names none that is infected."""
        zones = self.samples[index].report.zones
        return zones.mentioned and not zones

    @property
    def unlabelled_without_text(self) -> int:
        """Number of samples without text whose masks may not be seen."""
        return sum(not seen and self.whole_text(index) is None for index, seen in enumerate(self.labelled))

    @property
    def sources(self) -> list[tuple[str, bool]]:
        """Source and finding of the samples of a second data set, which are the last ones."""
        return [(s.source, s.finding) for s in self.samples if s.mask_path is None and s.finding is not None]

    def plain(self) -> SegmentationSet:
        """The same samples as they are: not augmented, with their whole reports."""
        same = copy(self)
        same.augment, same.report_dropout, same.report_withheld = Augment.preset("none"), 0.0, (0.0, 0.0)
        same.report_denied, same.draws = 0.0, False
        return same

    def _withheld(self, epoch: int) -> float:
        """Share of samples that lose zones in an epoch."""
        first, last = self.report_withheld
        return first + (last - first) * min(epoch / max(self.epochs - 1, 1), 1.0)


def text_of(report: Report) -> str | None:
    """The text that a network reads for a report: a free caption as it stands, else the sentence of its zones.

    ``None`` without words, and where no zone is infected: "no infection." is no text in use.
    """
    return report.text if report.free else sentence(report.zones) if report.zones else None
