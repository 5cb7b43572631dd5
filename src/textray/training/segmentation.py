"""The Lightning module that trains a segmentation network, and what a self-guided one needs beside."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from textray.data.segmentation import Batch, SegmentationData
from textray.errors import UsageError
from textray.models.base import Network, Output
from textray.models.self_guided import SelfGuided
from textray.text.zones import bank_sentences
from textray.training.checkpoints import starts_part
from textray.training.losses import DiceCELoss, LossParts, zone_loss
from textray.training.task import Task

_SAME_BANK = 1e-3
"""Two banks of the same encoder differ by rounding only; those of two encoders by whole units."""


class SegmentationTask(Task):
    """Trains a network on images, masks and reports.

    Logs ``train/loss`` and, on the inner split, ``inner/loss`` and the pooled Dice with the data set's own reports
    (``inner/dice_oracle``) and without any (``inner/dice_none``; not for a network that needs a text), at the network's
    size; ``inner/dice`` is the former, or the latter for a network that reads no report.

    A network that writes its own reports (`textray.models.self_guided.SelfGuided`) is judged by those:
    ``inner/dice_generated``, ``inner/dice`` and ``inner/loss`` are with the reports it writes. ``inner/zones_f1`` is
    the macro F1 of its zones, ``inner/sentence_share`` the share of images that get a sentence. Before each validation
    its thresholds are chosen on the same split, so that a checkpoint holds those that its score was measured with.

    Args:
        network: The network, built by its configuration.
        text_encoder: Registry name of the frozen text encoder; ``None`` for a network that reads no text.
        text_encoder_folder: Folder of its weights, see `textray.nn.bert.load_text_encoder`.
        max_tokens: Longest report in tokens; no more than the network takes.
        loss: ``dice_ce`` (the paper's), ``dice_only`` (what the released code computes), ``pooled_dice_ce`` or
            ``lvit_wdbce`` (LViT's), see `textray.training.losses.DiceCELoss`.
        lr: Learning rate after the warm-up.
        lr_final: Learning rate at the last step of the last epoch.
        trunk_lr_scale: The trunk learns at this multiple of the rates (1 is the paper's).
        weight_decay: AdamW's, every parameter in one group.
        warmup_epochs: Linear warm-up, in epochs (0 is the paper's).
        zone_weight: Weight of a binary cross-entropy, mean over the zones, on the zones of the report, for a network
            that tells zones (1 in SGSeg's paper).
        self_guided: Share of the training samples without a report that are given the one the network writes; the rest
            go without any. How many come without is ``data.report_dropout``: at 0, as in the paper, the segmenter
            always learns with the true report.
        segment: False trains the locator of a self-guided network alone, by the zones; the segmenter is not run, and
            unless it comes from an earlier training no bundle is exported from the checkpoint.
        initial: What to start from: ``CHECKPOINT`` of an earlier training (parts that it lacks start at random), or a
            list of ``PART=CHECKPOINT``, such as ``segmenter=mmi.ckpt``; see `textray.training.checkpoints.begin`.
        freeze: Parts of the network that do not learn, such as ``locator`` or ``segmenter``.
    """

    def __init__(
        self,
        network: Network,
        text_encoder: str | None = "cxr_bert",
        text_encoder_folder: str | None = None,
        max_tokens: int = 24,
        loss: LossParts = "dice_ce",
        lr: float = 3e-4,
        lr_final: float = 1e-6,
        trunk_lr_scale: float = 1.0,
        weight_decay: float = 0.01,
        warmup_epochs: float = 0.0,
        zone_weight: float = 0.0,
        self_guided: float = 0.0,
        segment: bool = True,
        initial: str | list[str] | None = None,
        freeze: tuple[str, ...] = (),
    ) -> None:
        if (text_encoder is None) != (network.text_width is None):
            raise UsageError(
                "network and text encoder must go together", came=f"{text_encoder=}, {network.text_width=}"
            )
        super().__init__(
            network,
            text_encoder=text_encoder,
            text_encoder_folder=text_encoder_folder,
            max_tokens=max_tokens,
            lr=lr,
            lr_final=lr_final,
            trunk_lr_scale=trunk_lr_scale,
            weight_decay=weight_decay,
            warmup_epochs=warmup_epochs,
            initial=initial,
            freeze=freeze,
        )
        encoder = self.encoder
        if encoder is not None and encoder.width != network.text_width:
            raise UsageError(
                f"the text encoder {text_encoder!r} does not fit the network",
                came=f"width {encoder.width}",
                expected=f"text_width {network.text_width} of the network's config",
            )
        if zone_weight and not network.tells_zones:
            raise UsageError(
                "a zone weight needs a network that tells zones",
                came=type(network).__name__,
                do="Set zone_head: true in its config, or take one that writes reports, such as sgseg",
            )
        # The same object under a type that says what it can do; in a list, so that it is no sub-module twice.
        self._guided = [network] if isinstance(network, SelfGuided) else []
        if (self_guided or not segment) and not self._guided:
            raise UsageError(
                "self_guided and segment: false are for networks that write their own reports",
                came=type(network).__name__,
                expected="a network such as sgseg",
            )
        if not 0 <= self_guided <= 1:
            raise UsageError("self_guided is a share", came=self_guided, expected="0 to 1")
        self.loss, self.zone_weight = DiceCELoss(loss), zone_weight
        self.self_guided, self.segment = self_guided, segment
        self.exports = segment or starts_part("segmenter", initial)
        self._pixels, self._zones = PixelCounts(self.routes), ZoneTable()
        self._located: dict[tuple[str, ...], Tensor] = {}

    @property
    def routes(self) -> tuple[Route, ...]:
        """The reports that a validation gives the network; the first is the one that it is for."""
        if self.encoder is None:
            return ("none",)
        if self._guided:
            return ("generated", "oracle", "none")
        return ("oracle",) if self.network.needs_text else ("oracle", "none")

    def setup(self, stage: str) -> None:
        """Read the tensors to start from, and fill the bank of sentences of a network that writes reports.

        Raises:
            UsageError: If the tensors came with a bank of another text encoder.
        """
        super().setup(stage)
        data = getattr(self.trainer, "datamodule", None)
        if self._guided and isinstance(data, SegmentationData) and "fit" in data.sets:
            data.sets["fit"].whole_zones = True  # the locator is not told what is withheld, and sees every lesion
        for network in self._guided:
            given = network.bank_features.clone() if bool(network.bank_mask.any()) else None
            encoder = cast(Any, self.encoder)
            features, mask = encoder(bank_sentences(), attend_padding=network.needs_text)
            network.set_bank(features.to(network.bank_features.device), mask)
            if given is not None:
                self._compare_banks(given)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to go on with sentences of another text encoder.

        Raises:
            UsageError: If the checkpoint's bank of sentences is not the one of this training.
        """
        given = checkpoint["state_dict"].get("network.bank_features")
        if self._guided and given is not None:
            self._compare_banks(given)

    def _compare_banks(self, given: Tensor) -> None:
        own = self._guided[0].bank_features
        if given.shape != own.shape or (given.to(own) - own).abs().max() > _SAME_BANK:
            raise UsageError(
                "the checkpoint's sentences were encoded by another text encoder",
                expected=f"{self.encoder_name} with max_tokens {self.max_tokens}",
                do="Name the text encoder that it was trained with",
            )

    def forward(
        self, image: Tensor, texts: list[str | None], silent: Tensor | None = None, located: Tensor | None = None
    ) -> Output:
        """Run the network.

        Args:
            image: ``(B, C, H, W)``.
            texts: ``B`` reports; ``None``: there is none.
            silent: ``(B,)`` bool: where there is no report, a self-guided network goes without instead of writing its
                own. Other networks go without anyway.
            located: ``(B, 6)`` zone logits of a self-guided network's locator, where it ran on these images before.
        """
        encoder = self.encoder
        if encoder is None:
            return cast(Output, self.network(image))
        features, mask = encoder(texts, attend_padding=self.network.needs_text)
        if self._guided:
            mask = mask.to(features.dtype)
            if silent is not None:
                mask[silent.cpu() & ~mask.any(1)] = -1
        before = {} if located is None else {"located": (located, None)}
        return cast(Output, self.network(image, features.to(image.device), mask.to(image.device), **before))

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Loss of a batch."""
        count = len(batch["image_id"])
        if self.segment:
            # From the generator that on_train_batch_start has seeded; drawn whatever the batch holds.
            silent = torch.rand(count) >= self.self_guided if self._guided else None
            output = self(batch["image"], batch["text"], silent)
            loss = self.mask_loss(output.logits, batch)
            if self.zone_weight:
                zones = zone_loss(cast(Tensor, output.zone_logits), batch["zones"])
                self.log("train/zones", zones, on_step=False, on_epoch=True, batch_size=count)
                loss = loss + self.zone_weight * zones
        else:
            loss = zone_loss(self._guided[0].locator(batch["image"])[0], batch["zones"])
        self.check_loss(loss, batch, index)
        self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=count)
        return loss

    def mask_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Loss of a training batch's masks, from its ``(B, 1, H, W)`` logits."""
        return self.loss(logits, batch["mask"])

    def on_validation_epoch_start(self) -> None:
        """Start counting; choose the thresholds of a network that writes reports, by a pass of its locator alone."""
        self._pixels, self._zones, self._located = PixelCounts(self.routes), ZoneTable(), {}
        if not self._guided or self.trainer.sanity_checking:
            return
        network, table = self._guided[0], ZoneTable()
        batches = self.trainer.num_val_batches[0]  # as many as the validation will see
        for batch in islice(cast(Any, self.trainer).datamodule.val_dataloader(), int(batches)):
            table.add(self._locate(batch), batch["zones"])
        chosen = choose_thresholds(*table.columns())
        network.set_thresholds(torch.tensor(chosen, device=network.thresholds.device))

    def _locate(self, batch: Batch) -> Tensor:
        """Zone logits ``(B, 6)`` of a validation's batch; the locator sees it once, for thresholds and all routes."""
        key = tuple(batch["image_id"])
        if key not in self._located:
            self._located[key] = self._guided[0].locator(batch["image"].to(self.device))[0]
        return self._located[key]

    def validation_step(self, batch: Batch, index: int) -> None:
        """Count pixels under each route, and zones."""
        count = len(batch["image_id"])
        if not self.segment:
            zone_logits = self._locate(batch)
            self._zones.add(zone_logits, batch["zones"])
            self.log("inner/loss", F.binary_cross_entropy_with_logits(zone_logits, batch["zones"]), batch_size=count)
            return
        truth = batch["mask"] > 0.5
        nothing: list[str | None] = [None] * count
        located = self._locate(batch) if self._guided else None
        for row, route in enumerate(self.routes):
            silent = torch.ones(count, dtype=torch.bool) if route == "none" else None
            output = self(batch["image"], batch["text"] if route == "oracle" else nothing, silent, located)
            self._pixels.add(route, output.logits, truth)
            if row == 0:
                self.log("inner/loss", self.loss(output.logits, batch["mask"]), batch_size=count)
                if self._guided:
                    self._zones.add(output.zone_logits, batch["zones"])

    def on_validation_epoch_end(self) -> None:
        """Log pooled Dice by route, and how well zones are told."""
        for network in self._guided:
            self.log("inner/zones_f1", self._zones.macro_f1(network.thresholds), prog_bar=True)
            self.log("inner/sentence_share", self._zones.sentence_share(network.thresholds))
        if not self.segment:
            return
        dice = self._pixels.dice()
        self.log("inner/dice", dice[self.routes[0]])  # what the network is for
        for route, value in dice.items():
            self.log(f"inner/dice_{route}", value, prog_bar=True)
        if len(dice) > 1:
            self.log("inner/dice_mean", torch.stack(list(dice.values())).mean())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep beside what every task does which samples without a report were given one by the network."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["textray"]["self_guided"] = self.self_guided

    def learning(self) -> list[torch.nn.Parameter]:
        """Every parameter; without segmentation the locator's only."""
        return super().learning() if self.segment else list(self._guided[0].locator.parameters())


# What a validation counts: pixels under each kind of report, and zones.

Route = Literal["generated", "oracle", "none"]
"""Which report an image is given: the one that the network writes, the data set's own, or none."""


class PixelCounts:
    """True, claimed and real lesion pixels of a split, for each route.

    Args:
        routes: The routes that are counted.
    """

    def __init__(self, routes: Sequence[Route]) -> None:
        self._counts = {route: torch.zeros(3, dtype=torch.float64) for route in routes}

    def add(self, route: Route, logits: Tensor, truth: Tensor) -> None:
        """Count a batch: scores ``(B, 1, H, W)``, above 0 a lesion, and a bool mask of the same shape."""
        found = logits > 0
        hit, claimed, real = (found & truth).sum(), found.sum(), truth.sum()
        self._counts[route] += torch.stack([hit, claimed, real]).double().cpu()

    def dice(self) -> dict[Route, Tensor]:
        """Pooled Dice of each route, 2TP / (2TP + FP + FN) over all pixels."""
        hit, claimed, real = torch.stack(list(self._counts.values())).float().unbind(1)
        return dict(zip(self._counts, 2 * hit / (claimed + real).clamp(min=1), strict=True))


class ZoneTable:
    """Zones that a network tells of the images of a split, beside those that are there."""

    def __init__(self) -> None:
        self._probability: list[NDArray[np.float64]] = []
        self._truth: list[NDArray[np.bool_]] = []

    def add(self, zone_logits: Tensor, zones: Tensor) -> None:
        """Keep a batch: zone logits ``(B, 6)`` and zones ``(B, 6)`` of {0, 1}."""
        self._probability.append(torch.sigmoid(zone_logits).double().cpu().numpy())
        self._truth.append(zones.cpu().numpy() > 0.5)

    def columns(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Probabilities and truth, both ``(N, 6)``."""
        return np.concatenate(self._probability), np.concatenate(self._truth)

    def macro_f1(self, thresholds: Tensor) -> float:
        """Mean over the zones of the F1 of "probability not below its threshold"."""
        probability, truth = self.columns()
        return float(f1(probability >= thresholds.double().cpu().numpy(), truth).mean())

    def sentence_share(self, thresholds: Tensor) -> float:
        """Share of the images with at least one zone at its threshold: those that get a sentence."""
        return float((self.columns()[0] >= thresholds.double().cpu().numpy()).any(1).mean())


# From which probability on a zone is written into a report: chosen on the split that selects checkpoints.

CANDIDATES = np.linspace(0.02, 0.98, 49)
"""Thresholds that are tried."""
_SWEEPS = 4


def choose_thresholds(probability: NDArray[np.floating], truth: NDArray[np.bool_]) -> tuple[float, ...]:
    """Choose a threshold for each zone, so that zones are told well and few films are left without a sentence.

    Each zone first takes the threshold of its best F1. A film whose zones all stay below theirs would be called free of
    infection, which no film of the training sets is; so the zones are then gone through again, each taking the
    threshold of the highest macro F1 less the share of the films that have zones and would get no sentence, until none
    changes. Of equal ones the lowest is taken. A zone that no film has says nothing about its threshold: 0.5.

    Args:
        probability: ``(N, Z)``, in [0, 1].
        truth: ``(N, Z)``.

    Returns:
        ``Z`` thresholds; a zone is told where its probability is not below its own.
    """
    zones = truth.shape[1]
    told = probability[:, :, None] >= CANDIDATES  # (N, Z, candidates)
    scores = np.stack([f1(told[:, zone], truth[:, zone, None]) for zone in range(zones)])  # (Z, candidates)
    seen = [zone for zone in range(zones) if truth[:, zone].any()]
    middle = int(np.abs(CANDIDATES - 0.5).argmin())
    chosen = [int(scores[zone].argmax()) if zone in seen else middle for zone in range(zones)]
    ill = truth.any(1)
    for _ in range(_SWEEPS):
        before = list(chosen)
        for zone in seen:
            others = np.zeros(len(truth), np.bool_)
            for other in range(zones):
                if other != zone:
                    others |= told[:, other, chosen[other]]
            silent = ~(told[:, zone] | others[:, None])  # (N, candidates)
            share = silent[ill].mean(0)
            chosen[zone] = int((scores[zone] / len(seen) - share).argmax())
        if chosen == before:
            break
    return tuple(float(CANDIDATES[index]) for index in chosen)


def f1(told: NDArray[np.bool_], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """F1 along the first axis, ``2TP / (2TP + FP + FN)``; 1 where nothing is there and nothing told."""
    hit = (told & truth).sum(0)
    total = told.sum(0) + np.broadcast_to(truth, told.shape).sum(0)
    return np.where(total > 0, 2 * hit / np.maximum(total, 1), 1.0)
