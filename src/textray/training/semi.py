"""The Lightning module that also learns from images without masks, by pseudo-labels and by their reports.

Source: Li et al.: LViT, Language meets Vision Transformer in Medical Image Segmentation; its exponential pseudo-label
iteration (EPI) and its language-vision (LV) loss, neither of which its released code contains. A teacher, trained on
the labelled part, gives the first pseudo-labels; each epoch moves them towards what the network finds. Any segmentation
network will do.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
from torch import Tensor

from textray.augment import Geometry, Plane
from textray.data.base import trained_without_report
from textray.data.batches import Batch, SegmentationSet, collate
from textray.data.segmentation import SegmentationData
from textray.errors import UsageError
from textray.models.base import Network
from textray.preprocess import Preprocess
from textray.training.checkpoints import facts_of, read_network, start_from
from textray.training.losses import BankKind, CaptionBank, DiceCELoss, bank_of, lv_loss
from textray.training.pseudo_labels import PseudoLabels, moved
from textray.training.segmentation import SegmentationTask

logger = logging.getLogger(__name__)

FOLDER = "pseudo_labels"
"""Folder of the pseudo-labels within the run's."""
_FACTS = ("epi", "beta", "target", "unlabelled_weight", "unlabelled_ramp_epochs", "lv_weight", "lv_bank")
"""Options that a checkpoint keeps."""


class SemiSupervisedTask(SegmentationTask):
    """Trains a network on images with masks and on images without, each of them with its report.

    Masks of a data set are hidden by ``data.labelled_fraction``; ``data.unlabelled`` adds images that have none. The
    loss of a batch is that of its labelled images plus a weight times that of the others: Dice and cross-entropy
    against their pseudo-labels, and the LV loss.

    A pseudo-label P belongs to the picture as it is. After each forward pass the prediction p of the augmented picture
    is moved back, P becomes beta P + (1 - beta) p wherever it could be seen, and P, moved forward, is the target. After
    n equal predictions beta^n of the teacher's label is left: a beta of 0.99, which LViT's authors name, moves next to
    nothing in 20 epochs, where 0.9 leaves an eighth.

    Logs beside what `SegmentationTask` does: ``train/labelled``, ``train/unlabelled``, ``train/lv``, and of each epoch
    ``pseudo/changed`` (share of pixels whose label changed in it), ``pseudo/dice_teacher`` and ``pseudo/dice_truth``
    (pooled Dice of the labels against the teacher's, and against masks that nothing learns from, if there are any),
    ``pseudo/weight``.

    Args:
        network: The network, built by its configuration.
        initial: What to start from: ``teacher``, or as of `SegmentationTask`.
        teacher: Checkpoint of the same network, trained on the labelled part; only a first start reads it.
        epi: False leaves the pseudo-labels as the teacher gave them.
        beta: Share of a pseudo-label that an epoch leaves, in [0, 1).
        target: Target of a pseudo-label: ``hard``, lesion where P is one half or more, or ``soft``, P itself.
        unlabelled_weight: Weight of the loss of the images without masks, above 0.
        unlabelled_ramp_epochs: Epochs in which that weight grows, from its first step above 0; 0 is the whole at once.
        lv_weight: Weight of the LV loss within that loss (0.1 in LViT's released code); 0 leaves it out. Images whose
            report is missing or dropped have none.
        lv_bank: Masks that the LV loss compares with: ``labelled``, those of the labelled images by their captions, or
            ``schematic``, ellipses drawn from the zones of the 63 sentences, where it is known whose sides they mean.

        options: Those of `SegmentationTask`, whose ``loss`` is of the labelled images, and whose ``zone_weight`` is of
            all: reports are known of both.

    Raises:
        UsageError: If a value is out of range, or the LV loss is asked for without a text encoder.
    """

    learns_unlabelled: ClassVar[bool] = True
    labels: PseudoLabels  # of the images without masks; from `setup` on

    def __init__(
        self,
        network: Network,
        initial: str | list[str] | None = "teacher",
        teacher: str | None = None,
        epi: bool = True,
        beta: float = 0.9,
        target: Literal["hard", "soft"] = "hard",
        unlabelled_weight: float = 1.0,
        unlabelled_ramp_epochs: int = 0,
        lv_weight: float = 0.1,
        lv_bank: BankKind = "labelled",
        **options: Any,  # noqa: ANN401 -- declared by SegmentationTask
    ) -> None:
        initial = teacher if initial == "teacher" else initial
        super().__init__(network, initial=initial, self_guided=0.0, segment=True, **options)
        if not 0 <= beta < 1:
            raise UsageError("beta is out of range", came=beta, expected="0 or more, below 1; or epi: false")
        if unlabelled_weight <= 0 or lv_weight < 0 or unlabelled_ramp_epochs < 0:
            raise UsageError(
                "weights of the images without masks are out of range",
                came=f"{unlabelled_weight=}, {unlabelled_ramp_epochs=}, {lv_weight=}",
                expected="an unlabelled_weight above 0, the others not below",
                do="To learn from the labelled images alone, train with task: segmentation",
            )
        if lv_weight and self.encoder is None:
            raise UsageError(
                "the LV loss compares reports and needs a text encoder",
                came="text_encoder null",
                do="Set model.lv_weight 0 for a network that reads no report",
            )
        self.teacher, self.epi, self.beta, self.target = teacher, epi, beta, target
        self.unlabelled_weight, self.unlabelled_ramp_epochs = unlabelled_weight, unlabelled_ramp_epochs
        self.lv_weight, self.lv_bank = lv_weight, lv_bank
        self.pseudo_loss = DiceCELoss("dice_ce")
        self._bank: CaptionBank | None = None
        self._rows: dict[int, int] = {}  # of the images without masks: number of the label by index of the sample
        self._saved: int | None = None  # epoch of the labels that the last checkpoint names
        self._teacher_sha256: str | None = None

    @property
    def fit_set(self) -> SegmentationSet:
        """Samples of the training."""
        return cast(SegmentationData, self.data).sets["fit"]

    def setup(self, stage: str) -> None:
        """Find the images without masks, and make the bank that the LV loss compares with.

        Raises:
            UsageError: If every image has a mask, there is no teacher to start from, or there is a second data set.
        """
        if self.data.beside is not None:
            raise UsageError(
                "pseudo-labels are given to the images of one data set",
                came=f"data.beside {self.data.beside}",
                expected="data.beside null",
            )
        unlabelled = np.flatnonzero(~np.asarray(self.fit_set.labelled))
        if not len(unlabelled):
            raise UsageError(
                "every image has a mask",
                came=f"labelled_fraction {self.data.labelled_fraction:g}",
                expected="a data.labelled_fraction below 1, of more than one patient; or data.unlabelled",
            )
        if self.teacher is None and self.trainer.ckpt_path is None:
            raise UsageError(
                "no teacher to give the first pseudo-labels",
                expected="model.teacher, a checkpoint of a training with task: segmentation on the same labelled part",
            )
        super().setup(stage)
        self._rows = {index: number for number, index in enumerate(unlabelled.tolist())}
        self.labels = PseudoLabels(
            Path(self.trainer.default_root_dir) / FOLDER, count=len(unlabelled), size=self.fit_set.pixels.size
        )
        if self.lv_weight:
            self._bank = bank_of(self.data, self.lv_bank, cast(Any, self.encoder))

    def on_train_start(self) -> None:
        """Open the labels of the checkpoint to resume from, or let the teacher give the first ones."""
        epochs = self.trainer.max_epochs or 1
        left = self.beta**epochs if self.epi else 1.0
        level = logging.WARNING if self.epi and left > 0.5 else logging.INFO
        logger.log(level, "after %d epochs %.2f of the teacher's labels is left (beta %g)", epochs, left, self.beta)
        if self._saved is None:
            if self.trainer.is_global_zero:
                self._write_first_labels()
            self.trainer.strategy.barrier()
        self.labels.open(self._saved or 0)

    def on_train_epoch_start(self) -> None:
        """Lay out the labels that the epoch writes."""
        super().on_train_epoch_start()
        if self.epi:
            if self.trainer.is_global_zero:
                self.labels.prepare(keep=self._saved)
            self.trainer.strategy.barrier()
            self.labels.begin()

    def on_train_epoch_end(self) -> None:
        """Log scores of the labels and put them in place; the checkpoint is written after this."""
        self.labels.flush()
        self.trainer.strategy.barrier()
        indices = list(self._rows)
        for name, value in self.labels.scores(lambda number: self.fit_set.truth(indices[number])).items():
            self.log(f"pseudo/{name}", value, prog_bar=name == "dice_truth")
        self.log("pseudo/weight", self.weight)
        if self.epi:
            self.trainer.strategy.barrier()
            if self.trainer.is_global_zero:
                self.labels.finish()
            self.trainer.strategy.barrier()
            self.labels.open(self.labels.epoch + 1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Name the labels that belong to it."""
        super().on_save_checkpoint(checkpoint)
        self._saved = self.labels.epoch
        checkpoint["textray"]["semi_supervised"] = {
            "labels": self.labels.epoch,
            "teacher_sha256": self._teacher_sha256,
            **{name: getattr(self, name) for name in _FACTS},
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remember which labels the checkpoint names.

        Raises:
            UsageError: If it is of a training with masks only, or of other data.
        """
        facts = checkpoint["textray"].get("semi_supervised")
        if facts is None:
            raise UsageError(
                "the checkpoint in this folder is of another task, and names no pseudo-labels",
                do="Name another --out; set model.teacher to start from it",
            )
        super().on_load_checkpoint(checkpoint)
        self._saved, self._teacher_sha256 = int(facts["labels"]), facts["teacher_sha256"]

    @property
    def weight(self) -> float:
        """Weight of the images without masks in this epoch: grows evenly, and is above 0 in the first one too."""
        return self.unlabelled_weight * min(1.0, (self.current_epoch + 1) / (self.unlabelled_ramp_epochs + 1))

    def mask_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Loss of the labelled images plus the weighted loss of the others."""
        seen, total = batch["labelled"], super().mask_loss(logits, batch)
        if seen.any():
            self.log_train("labelled", total, int(seen.sum()), always=False)
        if not seen.all():
            hidden = torch.nonzero(~seen).flatten().tolist()
            total = total + self.weight * self._unlabelled(logits[hidden], batch, hidden)
        return total

    def _unlabelled(self, logits: Tensor, batch: Batch, hidden: list[int]) -> Tensor:
        """Loss of the images of a batch without masks, ``(U, 1, H, W)`` logits; moves their pseudo-labels."""
        ways = [batch["geometry"][place] for place in hidden]
        predicted = torch.sigmoid(logits.detach()).float().cpu().numpy()[:, 0]
        targets = [
            way.forward(self._moved(self._rows[int(batch["index"][place])], plane, way))
            for place, plane, way in zip(hidden, predicted, ways, strict=True)
        ]
        target = torch.from_numpy(np.stack(targets))[:, None].to(logits)
        if self.target == "hard":
            target = (target >= 0.5).to(logits)
        loss = self.pseudo_loss(logits, target)
        self.log_train("unlabelled", loss, len(hidden), always=False)
        texts = {number: text for number, place in enumerate(hidden) if (text := batch["text"][place]) is not None}
        if self._bank is not None and texts:
            # The sentence was flipped with the picture, so its mask is on the right side already.
            masks = [
                ways[number]._replace(flipped=False).forward(self._bank.mask(text)) for number, text in texts.items()
            ]
            similar = lv_loss(logits[list(texts)], torch.from_numpy(np.stack(masks))[:, None].to(logits))
            self.log_train("lv", similar, len(texts), always=False)
            loss = loss + self.lv_weight * len(texts) / len(hidden) * similar
        return loss

    def _moved(self, number: int, predicted: Plane, way: Geometry) -> Plane:
        """A pseudo-label after a prediction of the augmented picture, written for the next epoch."""
        label = self.labels.read(number)
        if self.epi:
            label = moved(label, predicted, way, self.beta)
            self.labels.write(number, label)
        return label

    def _write_first_labels(self) -> None:
        """Write the teacher's predictions of the pictures as they are, with their reports."""
        path = Path(str(self.teacher))
        kept = deepcopy(self.network.state_dict())
        load_teacher(self.network, path, self.data, text_encoder=self.encoder_name, max_tokens=self.max_tokens)
        training = self.network.training
        self.network.eval()
        plain, indices = self.fit_set.plain(), list(self._rows)

        def planes() -> Iterator[Plane]:
            for start in range(0, len(indices), self.data.batch_size):
                some = indices[start : start + self.data.batch_size]
                batch = collate([plain[0, index] for index in some])
                denied = torch.tensor([plain.denies(index) for index in some])  # no report is written over these
                logits = self(batch["image"].to(self.device), batch["text"], denied).logits
                yield from torch.sigmoid(logits).float().cpu().numpy()[:, 0]

        with torch.no_grad():
            self.labels.start(planes())
        self.network.load_state_dict(kept)
        self.network.train(training)
        self._teacher_sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        logger.info("%s gave the first pseudo-labels of %d images", path, len(indices))


# The teacher, an earlier training that must fit this one in every respect.


def load_teacher(
    network: Network, path: Path, data: SegmentationData, *, text_encoder: str | None, max_tokens: int
) -> None:
    """Give a network all tensors of the teacher; the other arguments are those of the training.

    Warns of a teacher that was trained on other images than those labelled in the data, since it may have seen masks
    that the training may not, and of one that was never trained without reports, where some images come without.

    Raises:
        UsageError: If there is no such checkpoint, or it is of another network, or read pictures or reports otherwise;
            or if the network needs a report and some images have none.
    """
    missing = sorted(set(network.state_dict()) - set(read_network(path)))
    if missing:
        raise UsageError(
            f"{path.name} is of another network",
            came=f"nothing for {', '.join(missing[:5])}",
            expected="its own tensors",
        )
    start_from(network, path)
    facts = facts_of(path)
    about = facts.get("data", {})
    came = {
        "text_encoder": facts.get("text_encoder"),
        "max_tokens": facts.get("max_tokens"),
        "preprocess": Preprocess.from_dict(about["preprocess"]).to_dict() if "preprocess" in about else None,
    }
    expected = {"text_encoder": text_encoder, "max_tokens": max_tokens, "preprocess": data.preprocess.to_dict()}
    other = [name for name in expected if came[name] != expected[name]]
    if other:
        raise UsageError(
            "the teacher reads pictures or reports otherwise than this training",
            came=", ".join(f"{name} {came[name]}" for name in other),
            expected=", ".join(f"{name} {expected[name]}" for name in other),
            do="Train teacher and student with the same text encoder and data settings",
        )
    without_report = data.sets["fit"].unlabelled_without_text
    if without_report and network.needs_text:
        raise UsageError(
            "this network needs a report with every image",
            came=f"{without_report} images without masks that have none",
            expected="a report of each that names an infected zone",
            do="Leave these images out, or take a form of the network that goes without",
        )
    if without_report and text_encoder is not None and trained_without_report(facts) is False:
        logger.warning(
            "W_SILENCE: %d images without masks have no report, and %s was never trained without one: do not rely on "
            "its labels of them. Train it with data.report_dropout above 0, or leave these images out",
            without_report,
            path,
        )
    ids = about.get("labelled", {}).get("ids_sha256", about.get("ids_sha256", {}).get("fit"))
    if ids != data.describe()["labelled"]["ids_sha256"]:
        logger.warning(
            "W_TEACHER: %s was trained on other images than those labelled now (%s of %s); if it saw more masks, this "
            "is not semi-supervised training. Give both the same data.labelled_fraction and data.fraction_seed",
            path,
            about.get("images", {}).get("fit", "an unknown number"),
            about.get("name", "unknown data"),
        )
