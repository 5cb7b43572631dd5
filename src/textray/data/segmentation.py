"""The data module of segmentation: splits of a registered data set, what is learnt from beside them, and their record.

Decoded pixels come from the memory-mapped cache; what a batch holds stands in `textray.data.batches`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from lightning import LightningDataModule
from torch.utils.data import DataLoader

from textray.augment import Augment, Preset
from textray.data.base import (
    CaptionPolicy,
    Reader,
    Sample,
    check_masks,
    check_wording,
    fingerprint,
    keep_share,
    open_reader,
)
from textray.data.batches import EpochLoader, EpochSampler, Item, RankSampler, SegmentationSet, collate, text_of
from textray.data.unlabelled import unlabelled_samples
from textray.errors import DataError, ShapeError, UsageError
from textray.preprocess import Interpolation, Normalise, Preprocess
from textray.records import Laterality, Zones
from textray.registry import dataset


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
        check_masks(data)
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
        self.colour = colour
        self.augment, self.augment_name = Augment.preset(augment), augment
        cut = report_withheld or report_withheld_last or report_denied
        if transpose and (self.augment.flip_p or cut):
            raise UsageError(
                "transposed images have left and right in their rows",
                came=f"augment {augment}, report_withheld {report_withheld}, report_denied {report_denied}",
                expected="an augmentation without flips, report_withheld 0 and report_denied 0",
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
        self._refuse_zones(free=self.row.captions == "free")
        self.sets: dict[str, SegmentationSet] = {}
        self.known_captions: tuple[str, ...] = ()

    def _refuse_zones(self, *, free: bool) -> None:
        """Refuse what needs zones where captions are ``free``."""
        cut = self.report_withheld or self.report_withheld_last or self.report_denied
        if free and (cut or self.labels != "rules"):
            raise UsageError(
                f"captions of {self.row.name} name no zones",
                came=f"report_withheld {self.report_withheld}, report_denied {self.report_denied}, "
                f"labels {self.labels}",
                expected="report_withheld 0, report_denied 0, labels rules",
            )

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
        self._refuse_zones(free=reader.free)
        if self.colour is None:
            self.preprocess = replace(self.preprocess, colour=reader.colour)
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
        keys = EpochSampler(
            len(data),
            seed=self.seed,
            shuffle=shuffle,
            labelled=data.labelled,
            beside=data.sources,
            share=self.beside_share,
        )
        # Each process learns from a share of its own; all select on the whole of `inner`, so that they agree.
        trainer = self.trainer if shuffle else None
        rank, ranks = (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)
        sampler = RankSampler(keys, rank=rank, ranks=ranks)
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
            "beside_images": {split: len(data.sources) for split, data in self.sets.items()},
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
