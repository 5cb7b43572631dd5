"""Lightning modules that are given a network."""

from __future__ import annotations

import logging
import math
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn import functional as F

from textray.data.module import Batch
from textray.errors import UsageError
from textray.models.base import Network, Output
from textray.nn.text_encoder import load_text_encoder
from textray.registry import form_of
from textray.training.losses import DiceCELoss

logger = logging.getLogger(__name__)


def start_from(network: Network, path: Path) -> None:
    """Copy the tensors of an earlier training's network.

    Args:
        network: Changed in place; what the checkpoint lacks keeps its random start.
        path: Checkpoint of `textray train`.

    Raises:
        UsageError: If there is no such file, or it holds tensors that the network lacks or shapes otherwise.
    """
    if not path.is_file():
        raise UsageError(
            "no checkpoint to start from", came=path, do="Run the training before it, or set model.initial"
        )
    prefix = "network."
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    given = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    own = network.state_dict()
    wrong = sorted(name for name in given if name not in own or own[name].shape != given[name].shape)
    if wrong:
        raise UsageError(f"{path.name} is of another network", came=", ".join(wrong[:5]), expected="its own tensors")
    missing, _ = network.load_state_dict(given, strict=False)
    logger.info("starting from %s; at random: %s", path, ", ".join(missing) or "nothing")


class SegmentationTask(LightningModule):
    """Trains a network on images, masks and reports.

    Logs ``train/loss`` and, on the inner split, ``inner/loss`` and the pooled Dice with the data set's own reports
    (``inner/dice_oracle``) and without any (``inner/dice_none``; not for a network that needs a text), at the network's
    size; ``inner/dice`` is the former, or the latter for a network that reads no report.

    Args:
        network: The network, built by its configuration.
        text_encoder: Registry name of the frozen text encoder; ``None`` for a network that reads no text.
        text_encoder_folder: Folder of its weights, see `textray.nn.text_encoder.load_text_encoder`.
        max_tokens: Longest report in tokens; no more than the network takes.
        loss: ``dice_ce`` (the paper's) or ``dice_only`` (what the released code computes).
        lr: Learning rate after the warm-up.
        lr_final: Learning rate at the last step of the last epoch.
        trunk_lr_scale: The trunk learns at this multiple of the rates (1 is the paper's).
        weight_decay: AdamW's, every parameter in one group.
        warmup_epochs: Linear warm-up, in epochs (0 is the paper's).
        zone_weight: Weight of a binary cross-entropy on the zones of the report, for a network with a zone head.
        initial: Checkpoint of an earlier training to start from; parts that it lacks start at random.
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
        zone_weight: float = 0.0,
        initial: str | None = None,
    ) -> None:
        super().__init__()
        self.network, self.loss = network, DiceCELoss(loss)
        self.lr, self.lr_final, self.trunk_lr_scale = lr, lr_final, trunk_lr_scale
        self.weight_decay, self.warmup_epochs = weight_decay, warmup_epochs
        self.zone_weight, self.initial = zone_weight, initial
        self.encoder_name, self.max_tokens = text_encoder, max_tokens
        if (text_encoder is None) != (network.text_width is None):
            raise UsageError(
                "network and text encoder must go together", came=f"{text_encoder=}, {network.text_width=}"
            )
        if network.most_tokens is not None and max_tokens > network.most_tokens:
            raise UsageError(
                "reports may be longer than the network can read",
                came=f"max_tokens {max_tokens}",
                expected=f"at most {network.most_tokens}",
                do="Lower model.max_tokens, or raise tokens in the network's config",
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
        if zone_weight and not getattr(cast(Any, network).config, "zone_head", False):
            raise UsageError("a zone weight needs a network with a zone head", do="Set zone_head: true in its config")
        # In a list so that the frozen encoder is no sub-module: it is neither trained nor written to checkpoints.
        self._encoder = [encoder]
        self._counts = torch.zeros(2, 3, dtype=torch.float64)

    def setup(self, stage: str) -> None:
        """Read pretrained tensors before a first training, not before a resumed one."""
        if stage != "fit" or self.trainer.ckpt_path is not None:
            return
        if self.initial is not None:
            start_from(self.network, Path(self.initial))
        else:
            self.network.load_pretrained()

    def forward(self, image: Tensor, texts: list[str | None]) -> Output:
        """Scores of images ``(B, C, H, W)`` with their reports (``None``: no report)."""
        encoder = self._encoder[0]
        if encoder is None:
            return cast(Output, self.network(image))
        features, mask = encoder(texts, attend_padding=self.network.needs_text)
        return cast(Output, self.network(image, features.to(image.device), mask.to(image.device)))

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed dropout from seed, epoch, batch and rank: a resumed training draws what it would have drawn."""
        seed = getattr(getattr(self.trainer, "datamodule", None), "seed", 0)
        drawn = np.random.SeedSequence((seed, self.current_epoch, batch_idx, self.global_rank)).generate_state(1)
        torch.manual_seed(int(drawn[0]))

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Loss of a batch."""
        output = self(batch["image"], batch["text"])
        loss = self.loss(output.logits, batch["mask"])
        if self.zone_weight:
            zones = F.binary_cross_entropy_with_logits(output.zone_logits, batch["zones"])
            self.log("train/zones", zones, on_step=False, on_epoch=True, batch_size=len(batch["image_id"]))
            loss = loss + self.zone_weight * zones
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
        if self._encoder[0] is not None and not self.network.needs_text:
            reports.append([None] * len(batch["text"]))
        for row, texts in enumerate(reports):
            logits = self(batch["image"], texts).logits
            found = logits > 0
            hit, claimed, real = (found & truth).sum(), found.sum(), truth.sum()
            self._counts[row] += torch.stack([hit, claimed, real]).double().cpu()
            if row == 0:
                self.log("inner/loss", self.loss(logits, batch["mask"]), batch_size=len(truth))

    def on_validation_epoch_end(self) -> None:
        """Log pooled Dice, 2TP / (2TP + FP + FN) over all pixels of the split."""
        hit, claimed, real = self._counts.float().unbind(1)
        dice = 2 * hit / (claimed + real).clamp(min=1)
        self.log("inner/dice", dice[0])  # what the network is for: with reports where it reads them
        if self._encoder[0] is None:
            self.log("inner/dice_none", dice[0], prog_bar=True)
        else:
            self.log("inner/dice_oracle", dice[0], prog_bar=True)
            if not self.network.needs_text:
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
        name, form = form_of(type(self.network)) or (None, None)
        data = getattr(self.trainer, "datamodule", None)
        checkpoint["textray"] = {
            "version": version("textray"),
            "network": name,
            "form": form,
            "config": asdict(cast(Any, self.network).config),
            "text_encoder": self.encoder_name,
            "max_tokens": self.max_tokens,
            "data": data.describe() if data is not None else {},
            "epoch": self.current_epoch + 1,
            "max_epochs": self.trainer.max_epochs,
        }
