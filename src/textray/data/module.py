"""Batches for training: the one data module, for every data set with masks.

Decoded pixels come from the memory-mapped cache, augmentation and normalisation happen per sample. Everything random
depends on seed, epoch and sample only, so a resumed training sees the very batches it would have seen.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from textray.augment import Augment, Preset
from textray.data.base import CaptionPolicy, FreeCaptions, Sample, Split, fingerprint, open_reader
from textray.data.batch import EpochSampler, Item, Key, collate
from textray.data.cache import PixelCache
from textray.data.fractions import keep_share
from textray.data.withhold import withhold, withhold_label
from textray.errors import ShapeError, UsageError
from textray.preprocess import Interpolation, Normalise, Preprocess
from textray.records import Report, Zones
from textray.registry import dataset
from textray.text.report import sentence


class SegmentationSet(Dataset[Item]):
    """Samples with their pixels, changed and normalised.

    Args:
        samples: The samples.
        preprocess: Size and normalisation.
        augment: Changes to image, mask and report.
        report_dropout: Share of samples that lose their report.
        report_partial: Share of samples whose report names only some of its zones; samples without a mask keep theirs
            whole.
        report_withheld: Share of samples, of those with two zones or more, that are told of some of their zones only,
            and are to find only what lies there: the words decide, not the pixels alone. See
            `textray.data.withhold`. A pair is the share in the first and in the last of ``epochs``, linear between.
        epochs: Epochs of the training.
        seed: Of everything random.
        labelled: Samples whose masks may be seen, by their names; ``None``: all. The masks of the others are not read.
        cache: Folder of the pixel cache, ``None`` for the user's.
    """

    def __init__(
        self,
        samples: list[Sample],
        preprocess: Preprocess,
        *,
        augment: Augment,
        report_dropout: float = 0.0,
        report_partial: float = 0.0,
        report_withheld: float | tuple[float, float] = 0.0,
        epochs: int = 1,
        seed: int = 0,
        labelled: Collection[str] | None = None,
        cache: Path | None = None,
    ) -> None:
        pair = report_withheld if isinstance(report_withheld, tuple) else (report_withheld, report_withheld)
        self.report_withheld, self.epochs, self.whole_zones = pair, epochs, False
        self.samples, self.preprocess, self.augment = samples, preprocess, augment
        self.report_dropout, self.report_partial, self.seed = report_dropout, report_partial, seed
        self.pixels = PixelCache(samples, preprocess, folder=cache)
        self.labelled = [labelled is None or sample.image_id in labelled for sample in samples]
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
            zones=torch.tensor(zones.present, dtype=torch.float32),
            text=report.text if certain else self._words(report, rng, whole=not labelled),
            image_id=sample.image_id,
            index=index,
            labelled=labelled,
            geometry=way,
        )

    @property
    def without_text(self) -> int:
        """Number of samples that come without a text, whatever is dropped: no caption, or one that names no zone."""
        return sum(not self.whole_text(index) for index in range(len(self)))

    def whole_text(self, index: int) -> str | None:
        """What the network is told of a sample whose report is left whole; the picture is not looked at."""
        return _told(self.samples[index].report)

    def plain(self) -> SegmentationSet:
        """The same samples as they are: not augmented, with their whole reports."""
        same = copy(self)
        same.augment, same.report_dropout, same.report_partial = Augment.preset("none"), 0.0, 0.0
        same.report_withheld = (0.0, 0.0)
        return same

    def _withheld(self, epoch: int) -> float:
        """Share of samples from which zones are withheld in an epoch."""
        first, last = self.report_withheld
        return first + (last - first) * min(epoch / max(self.epochs - 1, 1), 1.0)

    def _words(self, report: Report, rng: np.random.Generator, *, whole: bool = False) -> str | None:
        """The words that the network is given, or none.

        ``whole``: the words of all zones or none, since a pseudo-label knows no shortened report.
        """
        draw, told = rng.random(), _told(report)
        if told is None or draw < self.report_dropout:
            return None
        named = np.flatnonzero(report.zones.present)
        if not whole and draw < self.report_dropout + self.report_partial and len(named) > 1:
            kept = rng.choice(named, size=rng.integers(1, len(named)), replace=False)
            return sentence(Zones.from_present(zone in kept for zone in range(6)))
        return told


def _told(report: Report) -> str | None:
    """A free caption as it stands, else the sentence of the zones, as in use; "no infection." is none in use."""
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
        transpose: Swap rows and columns, as the authors' released codes do; not with flips or withheld zones, which
            must know where left is.
        interpolation: How images are resized, see `textray.preprocess.Preprocess`.
        colour: Read images in colour; ``None`` where the data set's are.
        augment: Preset of `textray.augment.Augment`: ``none``, ``paper`` (random zoom), ``flips``, ``light``,
            ``strong``, ``sgseg`` (random crops, masks and rotations).
        batch_size: Images of a training batch; the last, smaller one of an epoch is left out.
        report_dropout: Share of training samples that lose their report (0 is the paper's).
        report_partial: Share of training samples whose report names only some of its zones (0 is the paper's).
        report_withheld: Share of training samples that lose some zones from report and mask together, see
            `textray.data.withhold` (0 is the paper's).
        report_withheld_last: That share in the last epoch, linear between; ``None`` keeps it the same throughout.
        captions: What to do with images without a usable caption.
        labels: Zones to learn from: ``rules`` takes those the rule parser reads in each report, ``clusters`` those of
            the cluster that its location phrase lies in. The training fits the clusters with its own text encoder and
            hands them over (`set_labels`); reports and sentences stay as they are.
        split_by: How the data set is cut where it offers more than one way (``slice`` or ``volume`` for CT);
            ``None`` takes its first.
        train_fraction: Share of the images of ``fit`` to learn from, whole patients at a time; see
            `textray.data.fractions`. ``inner`` stays whole.
        labelled_fraction: Share of the images of ``fit``, as far as they are used, whose masks may be seen, whole
            patients at a time. A task that learns from images without masks (``learns_unlabelled``) is given the
            others too, without theirs; any other task never sees them.
        fraction_seed: Chooses the patients of both shares; smaller shares of one seed lie in larger ones.
        workers: Processes that prepare batches.
        seed: Of order and augmentation.
        cache: Folder of the pixel cache, ``None`` for the user's.
        limit: Use only this many samples of each split, for a trial run.
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
        report_partial: float = 0.0,
        report_withheld: float = 0.0,
        report_withheld_last: float | None = None,
        captions: CaptionPolicy = "error",
        labels: Literal["rules", "clusters"] = "rules",
        split_by: Literal["slice", "volume"] | None = None,
        train_fraction: float = 1.0,
        labelled_fraction: float = 1.0,
        fraction_seed: int = 0,
        workers: int = 1,
        seed: int = 0,
        cache: str | None = None,
        limit: int | None = None,
    ) -> None:
        super().__init__()
        self.row = dataset(data)
        self.root, self.captions, self.split_by, self.limit = root, captions, split_by, limit
        self.train_fraction, self.fraction_seed = train_fraction, fraction_seed
        self.labelled_fraction = labelled_fraction
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
        if transpose and (self.augment.flip_p or report_withheld or report_withheld_last):
            raise UsageError(
                "transposed images have left and right in their rows",
                came=f"augment {augment}, report_withheld {report_withheld}",
                expected="an augmentation without flips, and report_withheld 0",
            )
        by_zones = report_partial or report_withheld or report_withheld_last or labels != "rules"
        if self.row.captions == "free" and by_zones:
            raise UsageError(
                f"captions of {data} name no zones",
                came=f"report_partial {report_partial}, report_withheld {report_withheld}, labels {labels}",
                expected="report_partial and report_withheld 0, labels rules",
            )
        self.batch_size, self.workers, self.seed = batch_size, workers, seed
        self.report_dropout, self.report_partial = report_dropout, report_partial
        self.report_withheld = report_withheld
        self.report_withheld_last = report_withheld if report_withheld_last is None else report_withheld_last
        self.cache = Path(cache) if cache is not None else None
        self.labels = labels
        self.sets: dict[str, SegmentationSet] = {}
        self.known_captions: tuple[str, ...] = ()

    def setup(self, stage: str) -> None:
        """Read the samples and decode what is not in the cache yet."""
        if self.sets:
            return
        reader = open_reader(self.row.name, self.root, captions=self.captions, split_by=self.split_by)
        if self.row.captions == "free":
            self.known_captions = cast(FreeCaptions, reader).captions()
        splits: tuple[Split, ...] = ("fit", "inner")
        for split in splits:
            learning, samples = split == "fit", reader.samples(split)
            if learning:
                samples = keep_share(samples, self.train_fraction, seed=self.fraction_seed)
            samples = samples[: self.limit]
            labelled = keep_share(samples, self.labelled_fraction, seed=self.fraction_seed) if learning else samples
            task = self.trainer.lightning_module if self.trainer is not None else None
            if not getattr(task, "learns_unlabelled", False):
                samples = labelled
            self.sets[split] = SegmentationSet(
                samples,
                self.preprocess,
                augment=self.augment if learning else Augment.preset("none"),
                report_dropout=self.report_dropout if learning else 0.0,
                report_partial=self.report_partial if learning else 0.0,
                report_withheld=(self.report_withheld, self.report_withheld_last) if learning else 0.0,
                epochs=(self.trainer.max_epochs if self.trainer is not None else None) or 1,
                seed=self.seed,
                labelled={sample.image_id for sample in labelled},
                cache=self.cache,
            )

    def set_labels(self, split: str, zones: Sequence[Zones]) -> None:
        """Give the samples of a split other zones to learn from than their reports'.

        Args:
            split: ``fit`` or ``inner``.
            zones: By image side, one for each of its samples, in their order.

        Raises:
            ShapeError: If there are more or fewer.
        """
        if len(zones) != len(self.sets[split]):
            raise ShapeError(f"labels of {split}", came=len(zones), expected=f"{len(self.sets[split])}, one a sample")
        self.sets[split].labels = tuple(zones)

    def train_dataloader(self) -> DataLoader[Item]:
        """Batches to learn from."""
        return self._loader("fit", shuffle=True)

    def val_dataloader(self) -> DataLoader[Item]:
        """Batches to select with."""
        return self._loader("inner", shuffle=False)

    def _loader(self, split: str, *, shuffle: bool) -> DataLoader[Item]:
        data = self.sets[split]
        if self.labels == "clusters" and data.labels is None:
            raise UsageError(
                "labels: clusters needs the clusters before the first batch",
                do="Train with a task that has a text encoder, or call textray.training.zone_labels.label_training",
            )
        return DataLoader(
            data,
            batch_size=self.batch_size,
            sampler=EpochSampler(len(data), seed=self.seed, shuffle=shuffle, labelled=data.labelled),
            num_workers=self.workers,
            collate_fn=collate,
            drop_last=shuffle and len(data) >= self.batch_size,
        )

    def describe(self) -> dict[str, Any]:
        """What a checkpoint keeps of the data: name, preprocessing, how it was changed, how many there were."""
        return {
            "name": self.row.name,
            "laterality": self.row.laterality,
            "preprocess": self.preprocess.to_dict(),
            **({"captions": list(self.known_captions)} if self.known_captions else {}),
            "augment": self.augment_name,
            "report_dropout": self.report_dropout,
            "report_partial": self.report_partial,
            "report_withheld": self.report_withheld,
            "report_withheld_last": self.report_withheld_last,
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
        }

    def _describe_labelled(self) -> dict[str, Any]:
        """Those of ``fit`` whose masks may be seen."""
        if "fit" not in self.sets:
            return {}
        data = self.sets["fit"]
        seen = [sample for sample, labelled in zip(data.samples, data.labelled, strict=True) if labelled]
        groups, ids = len({s.group for s in seen}), fingerprint(s.image_id for s in seen)
        return {"images": len(seen), "groups": groups, "ids_sha256": ids}
