"""Batches for training: the one data module, for every data set with masks.

Decoded pixels come from the memory-mapped cache, augmentation and normalisation happen per sample. Everything random
depends on seed, epoch and sample only, so a resumed training sees the very batches it would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from lightning import LightningDataModule
from torch.utils.data import DataLoader

from textray.augment import Augment, Preset
from textray.data.base import CaptionPolicy, Reader, Sample, Split, fingerprint, keep_share, open_reader
from textray.data.segmentation_set import EpochSampler, Item, SegmentationSet, collate, told_of
from textray.data.unlabelled import unlabelled_samples
from textray.errors import ShapeError, UsageError
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
        transpose: Swap rows and columns, as the authors' released codes do; not with flips or withheld zones, which
            must know where left is.
        interpolation: How images are resized, see `textray.preprocess.Preprocess`.
        colour: Read images in colour; ``None`` where the data set's are.
        augment: Preset of `textray.augment.Augment`: ``none``, ``paper`` (random zoom), ``flips``, ``light``,
            ``strong``, ``sgseg`` (random crops, masks and rotations).
        batch_size: Images of a training batch; the last, smaller one of an epoch is left out.
        report_dropout: Share of training samples that lose their report (0 is the paper's).
        report_withheld: Share of training samples that lose some zones from report and mask together, see
            `textray.data.segmentation_set` (0 is the paper's).
        report_withheld_last: That share in the last epoch, linear between; ``None`` keeps it the same throughout.
        captions: What to do with images without a usable caption.
        labels: Zones to learn from: ``rules`` takes those the rule parser reads in each report, ``clusters`` those of
            the cluster that its location phrase lies in. The training fits the clusters with its own text encoder and
            hands them over (`set_labels`); reports and sentences stay as they are.
        split_by: How the data set is cut where it offers more than one way (``slice`` or ``volume`` for CT);
            ``None`` takes its first.
        train_fraction: Share of the images of ``fit`` to learn from, whole patients at a time; see
            `textray.data.base`. ``inner`` stays whole.
        labelled_fraction: Share of the images of ``fit``, as far as they are used, whose masks may be seen, whole
            patients at a time. A task that learns from images without masks (``learns_unlabelled``) is given the
            others too, without theirs; any other task never sees them.
        fraction_seed: Chooses the patients of both shares; smaller shares of one seed lie in larger ones.
        unlabelled: Folder of pictures whose masks nobody has drawn, to be learnt from beside those of ``fit``; for a
            task that learns from such. See `textray.data.unlabelled`.
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
        captions: CaptionPolicy = "error",
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
        self.root, self.captions, self.split_by, self.limit = root, captions, split_by, limit
        self.train_fraction, self.fraction_seed = train_fraction, fraction_seed
        self.labelled_fraction = labelled_fraction
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
        if transpose and (self.augment.flip_p or report_withheld or report_withheld_last):
            raise UsageError(
                "transposed images have left and right in their rows",
                came=f"augment {augment}, report_withheld {report_withheld}",
                expected="an augmentation without flips, and report_withheld 0",
            )
        by_zones = report_withheld or report_withheld_last or labels != "rules"
        if self.row.captions == "free" and by_zones:
            raise UsageError(
                f"captions of {data} name no zones",
                came=f"report_withheld {report_withheld}, labels {labels}",
                expected="report_withheld 0, labels rules",
            )
        self.batch_size, self.workers, self.seed = batch_size, workers, seed
        self.report_dropout, self.report_withheld = report_dropout, report_withheld
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
        self.known_captions = reader.known_captions()
        task = self.trainer.lightning_module if self.trainer is not None else None
        learns_unlabelled = getattr(task, "learns_unlabelled", False)
        others = self._others(reader, learns_unlabelled)
        splits: tuple[Split, ...] = ("fit", "inner")
        for split in splits:
            learning, samples = split == "fit", reader.samples(split)
            if learning:
                samples = keep_share(samples, self.train_fraction, seed=self.fraction_seed)
            samples = samples[: self.limit]
            labelled = keep_share(samples, self.labelled_fraction, seed=self.fraction_seed) if learning else samples
            if not learns_unlabelled:
                samples = labelled
            self.sets[split] = SegmentationSet(
                samples,
                self.preprocess,
                augment=self.augment if learning else Augment.preset("none"),
                report_dropout=self.report_dropout if learning else 0.0,
                report_withheld=(self.report_withheld, self.report_withheld_last) if learning else 0.0,
                epochs=(self.trainer.max_epochs if self.trainer is not None else None) or 1,
                seed=self.seed,
                labelled={sample.image_id for sample in labelled},
                others=others if learning else (),
                cache=self.cache,
            )

    def _others(self, reader: Reader, learns_unlabelled: bool) -> list[Sample]:
        """Pictures without masks from a folder of their own."""
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
                do="Train the teacher without data.unlabelled, and what it teaches with it",
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
            **({} if self.unlabelled is None else {"unlabelled": self._describe_unlabelled()}),
        }

    def _describe_unlabelled(self) -> dict[str, Any]:
        """Those of ``fit`` whose masks nobody has drawn."""
        found = [sample for sample in self.sets["fit"].samples if sample.mask_path is None] if self.sets else []
        told = [(sample.image_id, told_of(sample.report)) for sample in found]
        return {
            "images": len(found),
            "with_text": sum(text is not None for _, text in told),
            "laterality": str(self.unlabelled_laterality),
            "reports_sha256": fingerprint(f"{name}\t{text}" for name, text in told),
        }

    def _describe_labelled(self) -> dict[str, Any]:
        """Those of ``fit`` whose masks may be seen."""
        if "fit" not in self.sets:
            return {}
        data = self.sets["fit"]
        seen = [sample for sample, labelled in zip(data.samples, data.labelled, strict=True) if labelled]
        groups, ids = len({s.group for s in seen}), fingerprint(s.image_id for s in seen)
        return {"images": len(seen), "groups": groups, "ids_sha256": ids}
