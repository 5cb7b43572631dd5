"""Base of all trainings: start, optimiser, random numbers, and what a checkpoint keeps."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from typing import Any, ClassVar, cast

import numpy as np
import torch
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from textray.data.batches import Batch
from textray.data.grounding import GroundingData
from textray.data.segmentation import SegmentationData
from textray.errors import UsageError
from textray.models.base import Network
from textray.nn.bert import TextEncoder, load_text_encoder
from textray.registry import form_of
from textray.training.checkpoints import begin, find_part, start_of
from textray.training.zone_labels import label_training


class Task(LightningModule):
    """Trains a network with a frozen text encoder beside it.

    Subclasses take these options as ``**options`` and pass them on; jsonargparse follows the call of ``__init__`` and
    shows them, so each is declared and documented once.

    Args:
        network: The network, built by its configuration.
        text_encoder: Registry name of the frozen text encoder; ``None`` for a network that reads no text.
        text_encoder_folder: Folder of its weights, see `textray.nn.bert.load_text_encoder`.
        max_tokens: Longest report in tokens; no more than the network takes.
        lr: Learning rate after the warm-up.
        lr_final: Learning rate at the last step of the last epoch.
        trunk_lr_scale: The trunk learns at this multiple of the rates (1 is the paper's).
        weight_decay: AdamW's, every parameter in one group.
        warmup_epochs: Linear warm-up, in epochs (0 is the paper's).
        initial: What to start from: ``CHECKPOINT`` of an earlier training (parts that it lacks start at random), a
            bundle's folder, the name of weights inside, or a list of ``PART=CHECKPOINT``, such as
            ``segmenter=mmi.ckpt``; see `textray.training.checkpoints.begin`.
        freeze: Parts of the network that do not learn, such as ``locator`` or ``segmenter``; their norms keep their
            statistics.

    Attributes:
        selects: Default score that selects the best checkpoint, and its best: ``max`` or ``min``.
        exports: False where the network segments nothing yet: its checkpoints then leave its name out, and an export
            refuses them.
        learns_unlabelled: True where images with hidden masks take part in the training.

    Raises:
        UsageError: If the network has no such part, or reads fewer tokens.
    """

    selects: ClassVar[tuple[str, str]] = ("inner/dice", "max")
    exports: bool = True
    learns_unlabelled: ClassVar[bool] = False

    def __init__(
        self,
        network: Network,
        *,
        text_encoder: str | None = "cxr_bert",
        text_encoder_folder: str | None = None,
        max_tokens: int = 24,
        lr: float = 3e-4,
        lr_final: float = 1e-6,
        trunk_lr_scale: float = 1.0,
        weight_decay: float = 0.01,
        warmup_epochs: float = 0.0,
        initial: str | list[str] | None = None,
        freeze: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.network = network
        self.lr, self.lr_final, self.trunk_lr_scale = lr, lr_final, trunk_lr_scale
        self.weight_decay, self.warmup_epochs = weight_decay, warmup_epochs
        self.initial, self.frozen = initial, tuple(freeze)
        self.start: list[dict[str, Any]] = []  # the weights that it started from
        self.encoder_name, self.max_tokens = text_encoder, max_tokens
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
        # In a list so that the frozen encoder is no sub-module: it is neither trained nor written to checkpoints.
        self._encoder = [encoder]
        for part in self.frozen:
            find_part(network, part).requires_grad_(False)
        if not any(p.requires_grad for p in network.parameters()):
            raise UsageError("everything of the network is frozen", came=", ".join(freeze), do="Shorten model.freeze")

    @property
    def encoder(self) -> TextEncoder | None:
        """The frozen text encoder."""
        return self._encoder[0]

    @property
    def data(self) -> Any:  # noqa: ANN401 -- each task knows its own
        """Data of the training, set up before the task; ``None`` without a data module."""
        return getattr(self.trainer, "datamodule", None)

    def setup(self, stage: str) -> None:
        """Read the tensors to start from, unless the training resumes; label zones by clusters, if configured."""
        if stage == "fit" and self.trainer.ckpt_path is None:
            begin(self.network, self.initial)
            self.start = start_of(self.initial)
        if str(self.trainer.precision).startswith("bf16"):
            suit_half(self.network)
        if stage == "fit" and isinstance(self.data, SegmentationData):
            label_training(self.data, self.encoder)

    def on_train_epoch_start(self) -> None:
        """Keep frozen parts in evaluation mode: no dropout, and norms that keep their statistics."""
        for part in self.frozen:
            find_part(self.network, part).eval()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed dropout from seed, epoch, batch and rank, so that a resumed training equals an uninterrupted one."""
        seeds = (getattr(self.data, "seed", 0), self.current_epoch, batch_idx, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(seeds).generate_state(1)[0]))

    def log_train(self, name: str, value: Tensor, count: int, *, always: bool = True) -> None:
        """Log the mean of an epoch over the images of its training batches, ``count`` in this one, in all processes.

        What a process may not have in an epoch is not logged ``always``: the first process logs its own mean, since the
        others cannot wait for it.
        """
        self.log(
            f"train/{name}", value, on_step=False, on_epoch=True, prog_bar=name == "loss", batch_size=count,
            sync_dist=always,
        )  # fmt: skip

    def check_loss(self, loss: Tensor, batch: Batch, index: int) -> None:
        """Refuse a loss that is no finite number, naming epoch, batch and images."""
        if not torch.isfinite(loss):
            raise UsageError(
                f"the loss is {loss.item()} in epoch {self.current_epoch}, batch {index}",
                came=f"images {batch['image_id']}",
                do="Lower the learning rate, or look at these images",
            )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with a warm-up and a schedule to the last step of the last epoch."""
        groups = [{"params": some, "lr": self.lr * scale} for some, scale in self.groups() if some]
        optimizer = torch.optim.AdamW(groups, lr=self.lr, weight_decay=self.weight_decay)
        total = max(int(self.trainer.estimated_stepping_batches), 1)
        warmup = round(total * self.warmup_epochs / (self.trainer.max_epochs or 1))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.rate(step, total, warmup))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def groups(self) -> list[tuple[list[torch.nn.Parameter], float]]:
        """Parameters that learn, each group with its multiple of the learning rate."""
        trunk = getattr(self.network, "trunk", None)
        inside = {id(p) for p in trunk.parameters()} if trunk is not None else set()
        parameters = [p for p in self.learning() if p.requires_grad]
        return [
            ([p for p in parameters if id(p) not in inside], 1.0),
            ([p for p in parameters if id(p) in inside], self.trunk_lr_scale),
        ]

    def rate(self, step: int, total: int, warmup: int) -> float:
        """Multiple of the learning rate: up to 1 in ``warmup`` steps, then along a cosine to the last at ``total``."""
        if step < warmup:
            return (step + 1) / warmup
        floor = self.lr_final / self.lr
        progress = min((step - warmup) / max(total - warmup, 1), 1.0)
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))

    def learning(self) -> list[torch.nn.Parameter]:
        """Parameters that the loss can reach."""
        return list(self.network.parameters())

    def _settings(self) -> dict[str, str]:
        """What a resumed training must share with its checkpoint, flat by dotted names."""
        data = None if self._trainer is None else self.data
        if not isinstance(data, (SegmentationData, GroundingData)):
            return {}
        flat = {"text_encoder": str(self.encoder_name), "max_tokens": str(self.max_tokens)}
        for name, value in data.settings().items():
            parts = value if isinstance(value, dict) else {"": value}
            flat |= {f"data.{name}.{part}".rstrip("."): json.dumps(inner) for part, inner in parts.items()}
        return flat

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to resume with other films, reports, seed, size or other settings of the data.

        Raises:
            UsageError: If any differs; names them.
        """
        self.start = checkpoint.get("textray", {}).get("start", [])
        before, now = checkpoint.get("settings", {}), self._settings()  # older checkpoints hold none
        other = [name for name in now if before.get(name, now[name]) != now[name]]
        if other:
            came, expected = (
                "; ".join(f"{name} {values[name][:40]}" for name in other[:5]) for values in (now, before)
            )
            raise UsageError(
                f"the checkpoint in this folder is of a training with other data or settings ({len(other)} differ)",
                came=came,
                expected=expected,
                do="Give what it was trained with, name another --out, or start again with --fresh",
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write beside the tensors the facts that an export needs to build the network again."""
        name, form = form_of(type(self.network)) or (None, None)
        checkpoint["settings"] = self._settings()
        built = {"network": name, "form": form, "config": asdict(cast(Any, self.network).config)}
        checkpoint["textray"] = {
            "version": version("textray"),
            **(built if self.exports else {}),
            "text_encoder": self.encoder_name,
            "max_tokens": self.max_tokens,
            "data": self.data.describe() if self.data is not None else {},
            "epoch": self.current_epoch + 1,
            "max_epochs": self.trainer.max_epochs,
            "started": self.initial is not None,
            **({"start": self.start} if self.start else {}),
        }


def suit_half(network: torch.nn.Module) -> None:
    """Make a network fast under bf16 on a CPU, at about 1.8 times the speed of single precision.

    Its kernels of half precision want channels last; those of depthwise convolutions are slower than single ones.
    """
    network.to(memory_format=torch.channels_last)
    for module in network.modules():
        if type(module) is torch.nn.Conv2d and module.groups > 1:
            module.forward = partial(_single, module)  # type: ignore[method-assign]  # of this layer alone


def _single(conv: torch.nn.Conv2d, image: Tensor) -> Tensor:
    if image.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return torch.nn.Conv2d.forward(conv, image)
    with torch.autocast("cpu", enabled=False):
        return torch.nn.Conv2d.forward(conv, image.float()).to(torch.bfloat16)
