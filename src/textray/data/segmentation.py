"""Batches for training segmentation: samples as networks see them, their order, and the one data module.

Decoded pixels come from the memory-mapped cache, augmentation and normalisation happen per sample. Everything random
depends on seed, epoch and sample only, so a resumed training sees the very batches it would have seen.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
import torch
from lightning import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from textray.augment import Augment, Geometry, Preset
from textray.data.base import CaptionPolicy, Reader, Sample, check_wording, fingerprint, keep_share, open_reader
from textray.data.cache import PixelCache
from textray.data.elsewhere import elsewhere
from textray.data.unlabelled import unlabelled_samples
from textray.data.zone_dropout import deny, deny_zones, drop_from_label, drop_zones
from textray.errors import DataError, ShapeError, UsageError
from textray.preprocess import Interpolation, Normalise, Preprocess
from textray.records import Laterality, Report, Zones, ZoneState
from textray.registry import dataset
from textray.text.zones import sentence

Key = tuple[int, int]
"""Epoch and index of a sample: together with the seed they fix everything random about it."""


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


class EpochLoader(DataLoader[Item]):
    """A loader that begins with its first batch: Lightning asks for an iterator before it names the epoch to resume."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # workers would fetch the batches of epoch 0
        yield from super().__iter__()


class SegmentationSet(Dataset[Item]):
    """Samples with their pixels, changed and normalised.

    Args:
        samples: The samples, with masks.
        report_withheld: Share of samples that lose some zones from report and mask, see `textray.data.zone_dropout`,
            in the first and in the last of ``epochs``, linear between.
        report_denied: Share of samples whose report denies zones, see `textray.data.zone_dropout.deny_zones`; of
            films that show no lesion half deny all.
        labelled: Samples whose masks may be seen, by their names; ``None``: all. The masks of the others are not read.
        others: Samples without masks, which come after them. Those of films that show no lesion have an empty mask.
    """

    def __init__(
        self,
        samples: list[Sample],
        preprocess: Preprocess,
        *,
        augment: Augment,
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
        self.samples, self.preprocess, self.augment = [*samples, *others], preprocess, augment
        self.report_dropout, self.seed = report_dropout, seed
        self.pixels = PixelCache(samples, preprocess, cache)  # apart: other pictures beside them change nothing
        self.other_pixels = PixelCache(others, preprocess, cache) if others else None
        self.labelled = [labelled is None or sample.image_id in labelled for sample in samples]
        self.labelled += [sample.finding is False for sample in others]
        self._lungs = {i: self._read_lungs(sample) for i, sample in enumerate(self.samples) if sample.lungs_path}
        self.labels: Sequence[Zones] | None = None  # one for each sample; None takes the reports' zones

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: Key) -> Item:
        epoch, index = key
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
        known = sample.mask_path is not None or whole.zones.mentioned or sample.finding is False
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
            return (mask, deny(report, range(6))) if rng.random() < 0.5 else None
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


class SegmentationData(LightningDataModule):
    """Batches of a registered data set: learns from ``fit``, selects on ``inner``.

    Args:
        data: Registry name of the data set.
        root: Its folder.
        size: Height and width that the network reads.
        normalise: Normalisation of `textray.preprocess.Preprocess`.
        channels: Channels of the image.
        letterbox: Keep the aspect ratio.
        transpose: Swap rows and columns, as the authors' released codes do; not with flips or zone dropout, which
            must know where left is.
        interpolation: How images are resized, see `textray.preprocess.Preprocess`.
        colour: Read images in colour; ``None`` where the data set's are.
        augment: Preset of `textray.augment.Augment`: ``none``, ``paper`` (random zoom), ``flips``, ``light``,
            ``strong``, ``sgseg`` (random crops, masks and rotations).
        batch_size: Images of a training batch; the last, smaller one of an epoch is left out.
        report_dropout: Share of training samples that lose their report (0 is the paper's).
        report_withheld: Share of training samples that lose some zones from report and mask together (0 is the
            paper's).
        report_withheld_last: That share in the last epoch, linear between; ``None`` keeps it the same throughout.
        report_denied: Share of training samples whose report denies zones, for a network that reads denials.
        beside: Registry name of a data set of normal and sick films without lesion masks, to learn from beside
            ``data``: presence of lesions, empty masks of normal films, lungs.
        beside_root: Its folder.
        beside_share: Share of its films in each batch, normal and sick ones as often within each of its sources.
        captions: Wording of the captions where the data set has several, or ``both``: each image then gets one at
            random in each epoch. ``None`` takes the first.
        missing_captions: What to do with images without a usable caption.
        labels: Zones to learn from: ``rules`` takes those the rule parser reads in each report, ``clusters`` those of
            the cluster that its location phrase lies in, which the training fits and hands over (`set_labels`).
        split_by: How the data set is cut where it offers more than one way (``slice`` or ``volume`` for CT);
            ``None`` takes its first.
        train_fraction: Share of the images of ``fit`` to learn from, whole patients at a time; see
            `textray.data.base`. ``inner`` stays whole.
        labelled_fraction: Share of the images of ``fit``, as far as they are used, whose masks may be seen, whole
            patients at a time. Only a task that learns from images without masks (``learns_unlabelled``) gets the
            others too.
        fraction_seed: Chooses the patients of both shares; smaller shares of one seed lie in larger ones.
        unlabelled: Folder of pictures without masks to learn from beside those of ``fit``; for a task that can. See
            `textray.data.unlabelled`.
        unlabelled_texts: Table ``image,text[,laterality]`` with their reports; the others come without.
        unlabelled_laterality: Whose left and right these reports mean, where the table does not say.
        workers: Processes that prepare batches.
        seed: Of order and augmentation.
        cache: Folder of the pixel cache, ``None`` for the user's.
        limit: Use only this many samples of each split, and of ``unlabelled``, for a trial run.
    """

    def __init__(
        self,
        data: str = "qata_cov19",
        root: str | None = None,
        size: tuple[int, int] = (224, 224),
        normalise: Normalise = "zscore",
        channels: int = 3,
        letterbox: bool = False,
        transpose: bool = False,
        interpolation: Interpolation = "bilinear",
        colour: bool | None = None,
        augment: Preset = "paper",
        batch_size: int = 32,
        report_dropout: float = 0.0,
        report_withheld: float = 0.0,
        report_withheld_last: float | None = None,
        report_denied: float = 0.0,
        beside: str | None = None,
        beside_root: str | None = None,
        beside_share: float = 0.25,
        captions: Literal["revised", "original", "both"] | None = None,
        missing_captions: CaptionPolicy = "error",
        labels: Literal["rules", "clusters"] = "rules",
        split_by: Literal["slice", "volume"] | None = None,
        train_fraction: float = 1.0,
        labelled_fraction: float = 1.0,
        fraction_seed: int = 0,
        unlabelled: str | None = None,
        unlabelled_texts: str | None = None,
        unlabelled_laterality: Literal["viewer", "patient", "unknown"] = "patient",
        workers: int = 1,
        seed: int = 0,
        cache: str | None = None,
        limit: int | None = None,
    ) -> None:
        super().__init__()
        self.row = dataset(data)
        self.root, self.missing_captions, self.split_by, self.limit = root, missing_captions, split_by, limit
        self.captions = check_wording(data, captions)
        self.train_fraction, self.labelled_fraction = train_fraction, labelled_fraction
        self.fraction_seed = fraction_seed
        self.unlabelled, self.unlabelled_texts = unlabelled, unlabelled_texts
        self.unlabelled_laterality = Laterality(unlabelled_laterality)
        self.preprocess = Preprocess(
            size=size,
            normalise=normalise,
            channels=channels,
            letterbox=letterbox,
            transpose=transpose,
            interpolation=interpolation,
            colour=self.row.colour if colour is None else colour,
        )
        self.augment, self.augment_name = Augment.preset(augment), augment
        cut = report_withheld or report_withheld_last or report_denied
        if transpose and (self.augment.flip_p or cut):
            raise UsageError(
                "transposed images have left and right in their rows",
                came=f"augment {augment}, report_withheld {report_withheld}, report_denied {report_denied}",
                expected="an augmentation without flips, report_withheld 0 and report_denied 0",
            )
        if self.row.captions == "free" and (cut or labels != "rules"):
            raise UsageError(
                f"captions of {data} name no zones",
                came=f"report_withheld {report_withheld}, report_denied {report_denied}, labels {labels}",
                expected="report_withheld 0, report_denied 0, labels rules",
            )
        self.batch_size, self.workers, self.seed = batch_size, workers, seed
        self.report_dropout, self.report_withheld = report_dropout, report_withheld
        self.report_withheld_last = report_withheld if report_withheld_last is None else report_withheld_last
        self.report_denied = report_denied
        self.beside, self.beside_root, self.beside_share = beside, beside_root, beside_share
        if not 0 <= beside_share < 1:
            raise UsageError("data.beside_share is a share", came=beside_share, expected="0 to less than 1")
        self.cache = Path(cache) if cache is not None else None
        self.labels = labels
        self.sets: dict[str, SegmentationSet] = {}
        self.known_captions: tuple[str, ...] = ()

    def setup(self, stage: str) -> None:
        """Read the samples and decode what is not in the cache yet."""
        if self.sets:
            return
        reader = open_reader(
            self.row.name,
            self.root,
            captions=self.captions,
            missing_captions=self.missing_captions,
            split_by=self.split_by,
        )
        self.known_captions = reader.known_captions()
        task = self.trainer.lightning_module if self.trainer is not None else None
        learns_unlabelled = getattr(task, "learns_unlabelled", False)
        others = self._others(reader, learns_unlabelled)
        for split in ("fit", "inner"):
            learning, samples = split == "fit", reader.samples(split)
            if learning:
                samples = keep_share(samples, self.train_fraction, seed=self.fraction_seed)
            samples = samples[: self.limit]
            beside = [] if self.beside is None else open_reader(self.beside, self.beside_root).samples(split)
            if any(sample.finding is None for sample in beside):
                raise UsageError(
                    f"{self.beside} does not say which films show a lesion", expected="data.beside chest_films"
                )
            if not samples:
                raise DataError(
                    f"no image of {self.row.name} is left in {split}",
                    expected="two patients in train at least, or two images where no patient is known",
                    do="Look at data.limit and data.missing_captions, or add images",
                )
            labelled = keep_share(samples, self.labelled_fraction, seed=self.fraction_seed) if learning else samples
            if not learns_unlabelled:
                samples = labelled
            found = SegmentationSet(
                samples,
                self.preprocess,
                augment=self.augment,
                report_dropout=self.report_dropout,
                report_withheld=(self.report_withheld, self.report_withheld_last),
                report_denied=self.report_denied,
                epochs=(self.trainer.max_epochs if self.trainer is not None else None) or 1,
                seed=self.seed,
                labelled={sample.image_id for sample in labelled},
                others=[*(others if learning else ()), *beside[: self.limit]],
                cache=self.cache,
            )
            self.sets[split] = found if learning else found.plain()

    def _others(self, reader: Reader, learns_unlabelled: bool) -> list[Sample]:
        """Samples without masks from a folder of their own."""
        if self.unlabelled is None:
            if self.unlabelled_texts is not None:
                raise UsageError("reports without pictures", came=self.unlabelled_texts, expected="data.unlabelled")
            return []
        if self.labels == "clusters":
            raise UsageError(
                "reports of data.unlabelled are no captions to cluster", came="labels clusters", expected="labels rules"
            )
        if not learns_unlabelled:
            raise UsageError(
                "this task does not learn from pictures without masks",
                came=f"data.unlabelled {self.unlabelled}",
                expected="task: semi_supervised",
                do="Train the teacher without data.unlabelled, and its student with it",
            )
        return unlabelled_samples(
            self.unlabelled,
            self.row,
            texts=self.unlabelled_texts,
            laterality=self.unlabelled_laterality,
            captions=self.known_captions,
            colour=self.preprocess.colour,
            known=reader,
            limit=self.limit,
        )

    def set_labels(self, split: str, zones: Sequence[Zones]) -> None:
        """Give the samples of ``fit`` or ``inner``, in their order, other zones to learn from than their reports'."""
        if len(zones) != len(self.sets[split]):
            raise ShapeError(f"labels of {split}", came=len(zones), expected=f"{len(self.sets[split])}, one a sample")
        self.sets[split].labels = tuple(zones)

    def train_dataloader(self) -> DataLoader[Item]:
        """Batches of ``fit``."""
        return self._loader("fit", shuffle=True)

    def val_dataloader(self) -> DataLoader[Item]:
        """Batches of ``inner``."""
        return self._loader("inner", shuffle=False)

    def _loader(self, split: str, *, shuffle: bool) -> DataLoader[Item]:
        data = self.sets[split]
        sampler = EpochSampler(
            len(data),
            seed=self.seed,
            shuffle=shuffle,
            labelled=data.labelled,
            beside=data.sources,
            share=self.beside_share,
        )
        if self.labels == "clusters" and data.labels is None:
            raise UsageError(
                "labels: clusters needs the clusters before the first batch",
                do="Train with a task that has a text encoder, or call textray.training.zone_labels.label_training",
            )
        return EpochLoader(
            data,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.workers,
            collate_fn=collate,
            drop_last=shuffle and len(sampler) >= self.batch_size,
        )

    def describe(self) -> dict[str, Any]:
        """Facts of the data for a checkpoint: name, preprocessing, augmentation, and what was in each split."""
        return {
            "name": self.row.name,
            "laterality": self.row.laterality,
            "preprocess": self.preprocess.to_dict(),
            **({"captions": list(self.known_captions)} if self.known_captions else {}),
            **({"wording": self.captions} if self.captions else {}),
            "augment": self.augment_name,
            "report_dropout": self.report_dropout,
            "report_withheld": self.report_withheld,
            "report_withheld_last": self.report_withheld_last,
            "report_denied": self.report_denied,
            "beside": self.beside,
            "beside_share": self.beside_share if self.beside else 0.0,
            "labels": self.labels,
            "seed": self.seed,
            "split_by": self.split_by or next(iter(self.row.protocols), None),
            "train_fraction": self.train_fraction,
            "labelled_fraction": self.labelled_fraction,
            "fraction_seed": self.fraction_seed,
            "images": {split: len(data) for split, data in self.sets.items()},
            "without_text": {split: data.without_text for split, data in self.sets.items()},
            "groups": {split: len({s.group for s in data.samples}) for split, data in self.sets.items()},
            "ids_sha256": {split: fingerprint(s.image_id for s in data.samples) for split, data in self.sets.items()},
            "labelled": self._describe_labelled(),
            **({} if self.unlabelled is None else {"unlabelled": self._describe_unlabelled()}),
        }

    def settings(self) -> dict[str, Any]:
        """What decides the batches, to compare when a training resumes; hashes in place of names and words."""
        reports = {
            split: fingerprint(f"{s.image_id}\t{s.report.text}" for s in data.samples)
            for split, data in self.sets.items()
        }
        captions = {"captions": fingerprint(self.known_captions)}
        return self.describe() | captions | {"batch_size": self.batch_size, "reports_sha256": reports}

    def _describe_unlabelled(self) -> dict[str, Any]:
        """Facts of the samples of ``fit`` that have no masks."""
        without = [sample for sample in self.sets["fit"].samples if sample.mask_path is None] if self.sets else []
        texts = [(sample.image_id, text_of(sample.report)) for sample in without]
        return {
            "images": len(without),
            "with_text": sum(text is not None for _, text in texts),
            "laterality": str(self.unlabelled_laterality),
            "reports_sha256": fingerprint(f"{name}\t{text}" for name, text in texts),
        }

    def _describe_labelled(self) -> dict[str, Any]:
        """Facts of the samples of ``fit`` whose masks may be seen."""
        if "fit" not in self.sets:
            return {}
        seen = list(itertools.compress(self.sets["fit"].samples, self.sets["fit"].labelled))
        groups, ids = len({s.group for s in seen}), fingerprint(s.image_id for s in seen)
        return {"images": len(seen), "groups": groups, "ids_sha256": ids}
