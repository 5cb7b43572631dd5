"""Lightning modules that are given a network."""

from __future__ import annotations

import math
from dataclasses import asdict
from importlib.metadata import version
from typing import Any, Literal, cast

import numpy as np
import torch
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from textray.data.module import Batch
from textray.errors import UsageError
from textray.models.base import Network
from textray.nn.text_encoder import load_text_encoder
from textray.registry import MODELS
from textray.training.losses import DiceCELoss


class SegmentationTask(LightningModule):
    """Trains a network on images, masks and reports.

    Logs ``train/loss`` and, on the inner split, ``inner/loss`` and the pooled Dice with the data set's own reports
    (``inner/dice_oracle``) and without any (``inner/dice_none``), at the network's size.

    Args:
        network: The network, built by its configuration.
        text_encoder: Registry name of the frozen text encoder; ``None`` for a network that reads no text.
        text_encoder_folder: Folder of its weights, see `textray.nn.text_encoder.load_text_encoder`.
        max_tokens: Longest report in tokens.
        loss: ``dice_ce`` (the paper's) or ``dice_only`` (what the released code computes).
        lr: Learning rate after the warm-up.
        lr_final: Learning rate at the last step of the last epoch.
        trunk_lr_scale: The trunk learns at this multiple of the rates (1 is the paper's).
        weight_decay: AdamW's, every parameter in one group.
        warmup_epochs: Linear warm-up, in epochs (0 is the paper's).
    """

    def __init__(
        self,
        network: Network,
        text_encoder: str | None = "cxr_bert",
        text_encoder_folder: str | None = None,
        max_tokens: int = 24,
        loss: Literal["dice_ce", "dice_only"] = "dice_ce",
        lr: float = 3e-4,
        lr_final: float = 1e-6,
        trunk_lr_scale: float = 1.0,
        weight_decay: float = 0.01,
        warmup_epochs: float = 0.0,
    ) -> None:
        super().__init__()
        self.network, self.loss = network, DiceCELoss(loss)
        self.lr, self.lr_final, self.trunk_lr_scale = lr, lr_final, trunk_lr_scale
        self.weight_decay, self.warmup_epochs = weight_decay, warmup_epochs
        self.encoder_name, self.max_tokens = text_encoder, max_tokens
        if (text_encoder is None) != (network.text_width is None):
            raise UsageError(
                "network and text encoder must go together", came=f"{text_encoder=}, {network.text_width=}"
            )
        encoder = None
        if text_encoder is not None:
            encoder = load_text_encoder(text_encoder, folder=text_encoder_folder, max_tokens=max_tokens)
            if encoder.width != network.text_width:
                raise UsageError(
                    f"the text encoder {text_encoder!r} does not fit the network",
                    came=f"width {encoder.width}",
                    expected=f"text_width {network.text_width} of the network's config",
                )
        # In a list so that the frozen encoder is no sub-module: it is neither trained nor written to checkpoints.
        self._encoder = [encoder]
        self._counts = torch.zeros(2, 3, dtype=torch.float64)

    def setup(self, stage: str) -> None:
        """Read pretrained tensors before a first training, not before a resumed one."""
        load = getattr(self.network, "load_pretrained", None)
        if stage == "fit" and load is not None and self.trainer.ckpt_path is None:
            load()

    def forward(self, image: Tensor, texts: list[str | None]) -> Tensor:
        """Logits ``(B, 1, H, W)`` of images ``(B, C, H, W)`` with their reports (``None``: no report)."""
        encoder = self._encoder[0]
        if encoder is None:
            return self.network(image).logits
        features, mask = encoder(texts)
        return self.network(image, features.to(image.device), mask.to(image.device)).logits

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed dropout from seed, epoch, batch and rank: a resumed training draws what it would have drawn."""
        seed = getattr(getattr(self.trainer, "datamodule", None), "seed", 0)
        drawn = np.random.SeedSequence((seed, self.current_epoch, batch_idx, self.global_rank)).generate_state(1)
        torch.manual_seed(int(drawn[0]))

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Loss of a batch."""
        loss = self.loss(self(batch["image"], batch["text"]), batch["mask"])
        if not torch.isfinite(loss):
            raise UsageError(
                f"the loss is {loss.item()} in epoch {self.current_epoch}, batch {index}",
                came=f"images {batch['image_id']}",
                do="Lower the learning rate, or look at these images",
            )
        self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch["image_id"]))
        return loss

    def on_validation_epoch_start(self) -> None:
        """Start counting pixels."""
        self._counts = torch.zeros(2, 3, dtype=torch.float64)

    def validation_step(self, batch: Batch, index: int) -> None:
        """Count pixels with reports and without."""
        truth = batch["mask"] > 0.5
        reports: list[list[str | None]] = [batch["text"]]
        if self._encoder[0] is not None:
            reports.append([None] * len(batch["text"]))
        for row, texts in enumerate(reports):
            logits = self(batch["image"], texts)
            found = logits > 0
            hit, claimed, real = (found & truth).sum(), found.sum(), truth.sum()
            self._counts[row] += torch.stack([hit, claimed, real]).double().cpu()
            if row == 0:
                self.log("inner/loss", self.loss(logits, batch["mask"]), batch_size=len(truth))

    def on_validation_epoch_end(self) -> None:
        """Log pooled Dice, 2TP / (2TP + FP + FN) over all pixels of the split."""
        hit, claimed, real = self._counts.float().unbind(1)
        dice = 2 * hit / (claimed + real).clamp(min=1)
        if self._encoder[0] is None:
            self.log("inner/dice_none", dice[0], prog_bar=True)
        else:
            self.log("inner/dice_oracle", dice[0], prog_bar=True)
            self.log("inner/dice_none", dice[1], prog_bar=True)
            self.log("inner/dice_mean", dice.mean())

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with a warm-up and a cosine to the last step of the last epoch."""
        trunk = getattr(self.network, "trunk", None)
        inside = {id(p) for p in trunk.parameters()} if trunk is not None else set()
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in parameters if id(p) not in inside], "lr": self.lr},
            {"params": [p for p in parameters if id(p) in inside], "lr": self.lr * self.trunk_lr_scale},
        ]
        optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=self.lr, weight_decay=self.weight_decay)
        total = max(int(self.trainer.estimated_stepping_batches), 1)
        epochs = self.trainer.max_epochs or 1
        warmup = round(total * self.warmup_epochs / epochs)
        floor = self.lr_final / self.lr

        def scale(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            progress = min((step - warmup) / max(total - warmup, 1), 1.0)
            return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, scale)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write beside the tensors what an export needs to build the network again."""
        kind = type(self.network)
        names = [row.name for row in MODELS.values() if row.path == f"{kind.__module__}:{kind.__qualname__}"]
        data = getattr(self.trainer, "datamodule", None)
        checkpoint["textray"] = {
            "version": version("textray"),
            "network": names[0] if names else None,
            "config": asdict(cast(Any, self.network).config),
            "text_encoder": self.encoder_name,
            "max_tokens": self.max_tokens,
            "data": data.describe() if data is not None else {},
            "epoch": self.current_epoch + 1,
            "max_epochs": self.trainer.max_epochs,
        }
