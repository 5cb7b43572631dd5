"""The Lightning module that trains a segmentation network."""

from __future__ import annotations

from itertools import islice
from typing import Any, Literal, cast

import torch
from torch import Tensor

from textray.data.batches import Batch
from textray.data.segmentation import SegmentationData
from textray.errors import UsageError
from textray.models.base import Network, Output
from textray.models.self_guided import Located, SelfGuided
from textray.training.checkpoints import named_parts
from textray.training.losses import DiceCELoss, LossParts, lung_loss, presence_loss, zone_loss
from textray.training.self_guided import OwnReports
from textray.training.task import Task

Route = Literal["generated", "oracle", "none"]
"""Report of an image in a validation: the one that the network writes, the data set's own, or none."""


class SegmentationTask(Task):
    """Trains a network on images, masks and reports.

    Logs ``train/loss`` and, on the inner split, ``inner/loss`` and the pooled Dice with the data set's own reports
    (``inner/dice_oracle``) and without any (``inner/dice_none``; not for a network that needs a text), at the network's
    size; ``inner/dice`` is the former, or the latter for a network that reads no report.

    A network that writes its own reports (`textray.models.self_guided.SelfGuided`) is judged by those:
    ``inner/dice_generated``, ``inner/dice`` and ``inner/loss`` are with the reports it writes. ``inner/zones_f1`` is
    the macro F1 of its zones, ``inner/sentence_share`` the share of images that get a sentence. Before each validation
    its thresholds are chosen on the same split, so that a checkpoint holds those that its score was measured with.

    With a second data set (``data.beside``) it also logs ``inner/healthy_marked``, the share of its normal films in
    which anything is marked without a report, ``inner/lungs_dice`` of both lungs, and ``inner/presence_auc``, the mean
    over its sources of the area under the curve of normal and sick films of one source.

    Args:
        network: The network, built by its configuration.
        text_encoder: Registry name of the frozen text encoder; ``None`` for a network that reads no text.
        loss: ``dice_ce`` (the paper's), ``dice_only`` (what the released code computes), ``pooled_dice_ce`` or
            ``lvit_wdbce`` (LViT's), see `textray.training.losses.DiceCELoss`.
        zone_weight: Weight of a binary cross-entropy, mean over the zones, on the zones of the report, for a network
            that predicts zones (1 in SGSeg's paper).
        presence_weight: Weight of a binary cross-entropy on whether the film shows a lesion, see `presence_loss`.
        lung_weight: Weight of the loss of the lungs, see `lung_loss`.
        self_guided: Share of the training samples without a report that are given the one the network writes; the rest
            go without any. How many come without is ``data.report_dropout``: at 0, as in the paper, the segmenter
            always learns with the true report.
        segment: False trains the locator of a self-guided network alone, by the zones; the segmenter is not run, and
            unless it comes from an earlier training no bundle is exported from the checkpoint.
        options: Those of `Task`.
    """

    def __init__(
        self,
        network: Network,
        text_encoder: str | None = "cxr_bert",
        loss: LossParts = "dice_ce",
        zone_weight: float = 0.0,
        presence_weight: float = 0.0,
        lung_weight: float = 0.0,
        self_guided: float = 0.0,
        segment: bool = True,
        **options: Any,  # noqa: ANN401 -- declared by Task
    ) -> None:
        if (text_encoder is None) != (network.text_width is None):
            raise UsageError(
                "network and text encoder must go together", came=f"{text_encoder=}, {network.text_width=}"
            )
        super().__init__(network, text_encoder=text_encoder, **options)
        encoder = self.encoder
        if encoder is not None and encoder.width != network.text_width:
            raise UsageError(
                f"the text encoder {text_encoder!r} does not fit the network",
                came=f"width {encoder.width}",
                expected=f"text_width {network.text_width} of the network's config",
            )
        if zone_weight and not network.tells_zones:
            raise UsageError(
                "a zone weight needs a network that predicts zones",
                came=type(network).__name__,
                do="Set zone_head: true in its config, or take one that writes reports, such as sgseg",
            )
        for name, weight, able in (
            ("presence", presence_weight, network.tells_presence),
            ("lung", lung_weight, network.tells_lungs),
        ):
            if weight and not able:
                raise UsageError(
                    f"{name}_weight needs a network that has an output for it",
                    came=type(network).__name__,
                    do="Set presence: true, or lungs: true, in its config",
                )
        self.presence_weight, self.lung_weight = presence_weight, lung_weight
        started = any(part in (None, "locator") for part, _ in named_parts(self.initial))
        self.own_reports = OwnReports(network, started=started) if isinstance(network, SelfGuided) else None
        if (self_guided or not segment) and self.own_reports is None:
            raise UsageError(
                "self_guided and segment: false are for networks that write their own reports",
                came=type(network).__name__,
                expected="a network such as sgseg",
            )
        if not 0 <= self_guided <= 1:
            raise UsageError("self_guided is a share", came=self_guided, expected="0 to 1")
        self.loss, self.zone_weight = DiceCELoss(loss), zone_weight
        self.self_guided, self.segment, self.learns_empty = self_guided, segment, False
        self.exports = segment or any(part in (None, "segmenter") for part, _ in named_parts(self.initial))
        self._pixels: dict[Route, Tensor] = {}  # hits, claimed and real lesion pixels of a validation, for each route
        self._beside = torch.zeros(4)  # normal films marked, normal films, twice the hits of lungs, both sizes of these

    @property
    def routes(self) -> tuple[Route, ...]:
        """The reports that a validation gives the network; the first is the one that it is for."""
        if self.encoder is None:
            return ("none",)
        if self.own_reports is not None:
            return ("generated", "oracle", "none")
        return ("oracle",) if self.network.needs_text else ("oracle", "none")

    def setup(self, stage: str) -> None:
        """Read the tensors to start from, and fill the bank of sentences of a network that writes reports.

        Raises:
            UsageError: If the tensors came with a bank of another text encoder, or the data deny zones and the network
                does not read that.
        """
        super().setup(stage)
        if isinstance(self.data, SegmentationData):
            if self.data.report_denied and not self.network.reads_denial:
                what = "the network does not read what a report denies"
                raise UsageError(what, came=f"data.report_denied {self.data.report_denied}", do="Set it to 0")
            normal = any(sample.finding is False for data in self.data.sets.values() for sample in data.samples)
            self.learns_empty = bool(self.data.beside or self.data.report_denied or normal)
            if self.own_reports is not None and "fit" in self.data.sets:
                self.data.sets["fit"].whole_zones = True  # the locator sees lesions that the report leaves out, too
        if self.own_reports is not None:
            self.own_reports.fill_bank(cast(Any, self.encoder))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to go on with other data, or sentences of another text encoder."""
        super().on_load_checkpoint(checkpoint)
        given = checkpoint["state_dict"].get("network.bank_features")
        if self.own_reports is not None and given is not None:
            self.own_reports.compare_bank(given, cast(Any, self.encoder))

    def forward(
        self,
        image: Tensor,
        texts: list[str | None],
        no_report: Tensor | None = None,
        located: Located | None = None,
        denied: Tensor | None = None,
    ) -> Output:
        """Run the network on images ``(B, C, H, W)`` and ``B`` reports, ``None`` where none is given.

        The rest is for a self-guided network: where ``no_report`` ``(B,)`` is true and no report is given, it goes
        without instead of writing its own; ``located`` is its locator's output, if that ran before; ``denied``
        ``(B, 6)`` is 1 at zones that are denied.
        """
        encoder = self.encoder
        if encoder is None:
            return cast(Output, self.network(image))
        features, mask = encoder(texts, attend_padding=self.network.needs_text)
        if self.own_reports is not None:
            mask = mask.to(features.dtype)
            if no_report is not None:
                mask[no_report.cpu() & ~mask.any(1)] = -1
        before: dict[str, Any] = {} if located is None else {"located": located}
        if denied is not None and self.network.reads_denial:
            before["denied"] = denied
        return cast(Output, self.network(image, features.to(image.device), mask.to(image.device), **before))

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Loss of a batch."""
        count = len(batch["image_id"])
        if self.segment:
            # From the generator that on_train_batch_start has seeded; drawn whatever the batch holds.
            no_report = None if self.own_reports is None else torch.rand(count) >= self.self_guided
            if no_report is not None:  # nothing is written over what a person denies
                no_report |= batch["denied"].any(1).cpu()
            output = self(batch["image"], batch["text"], no_report, denied=batch["denied"])
            loss = self.mask_loss(output.logits, batch)
            if output.deep is not None:  # each level weighs half of the one before, as in nnU-Net; true masks only
                levels = [loss, *(SegmentationTask.mask_loss(self, found, batch) for found in output.deep)]
                shares = [0.5**level for level in range(len(levels))]
                loss = torch.stack([s * found for s, found in zip(shares, levels, strict=True)]).sum() / sum(shares)
            if self.zone_weight:
                zones = zone_loss(cast(Tensor, output.zone_logits), batch["zones"])
                loss = loss + self.zone_weight * self._logged("zones", zones, count)
        else:
            network = cast(Any, self.network)
            located = network.locator(batch["image"])
            presence = network.presence(located.features) if network.tells_presence else None
            output = Output(located.zone_logits, presence=presence)
            loss = zone_loss(located.zone_logits, batch["zones"])
        if self.presence_weight:
            found = presence_loss(cast(Tensor, output.presence), batch["finding"], batch["source"])
            loss = loss + self.presence_weight * self._logged("presence", found, count)
        if self.lung_weight and self.segment:
            lungs = lung_loss(cast(Tensor, output.lungs), batch["lungs"])
            loss = loss + self.lung_weight * self._logged("lungs", lungs, count)
        self.check_loss(loss, batch, index)
        self.log_train("loss", loss, count)
        return loss

    def mask_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Loss of a training batch's masks, from its ``(B, 1, H, W)`` logits; over those that may be seen.

        Empty masks have no Dice in a training that means them, with normal films or denials; in any other all have.
        """
        seen = batch["labelled"]
        if not seen.any():
            return logits.sum() * 0
        mask = batch["mask"][seen]
        return self.loss(logits[seen], mask, mask.flatten(1).any(1) if self.learns_empty else None)

    def _logged(self, name: str, value: Tensor, count: int) -> Tensor:
        self.log_train(name, value, count)
        return value

    def on_validation_epoch_start(self) -> None:
        """Start counting; choose the thresholds of a network that writes reports."""
        self._pixels = {route: torch.zeros(3, dtype=torch.float64) for route in self.routes}
        self._beside = torch.zeros(4, dtype=torch.float64)
        if self.own_reports is not None:
            self.own_reports.restart()
            if not self.trainer.sanity_checking:
                batches = int(self.trainer.num_val_batches[0])  # as many as the validation will see
                self.own_reports.choose_thresholds(islice(self.data.val_dataloader(), batches))

    def validation_step(self, batch: Batch, index: int) -> None:
        """Count pixels under each route, zones, and what is found in the films of a second data set."""
        located = None if self.own_reports is None else self.own_reports.locate(batch)
        if not self.segment:
            count = int((~batch["zones"].isnan()).any(1).sum())  # images that the loss is over
            if count:
                self.log(
                    "inner/loss",
                    zone_loss(cast(Located, located).zone_logits, batch["zones"]),
                    batch_size=count,
                    sync_dist=True,
                )
            return
        nothing: list[str | None] = [None] * len(batch["image_id"])
        drawn = torch.tensor([not source for source in batch["source"]], device=batch["mask"].device)
        truth = batch["mask"] > 0.5
        for route in self.routes:
            no_report = torch.ones(len(nothing), dtype=torch.bool) if route == "none" else None
            words = (batch["text"], batch["denied"]) if route == "oracle" else (nothing, None)
            output = self(batch["image"], words[0], no_report, located, words[1])
            lesion = output.logits > 0
            counts = torch.stack([(lesion & truth)[drawn].sum(), lesion[drawn].sum(), truth[drawn].sum()])
            self._pixels[route] += counts.double().cpu()
            if route == self.routes[0] and drawn.any():
                loss = self.loss(output.logits[drawn], batch["mask"][drawn])
                self.log("inner/loss", loss, batch_size=int(drawn.sum()), sync_dist=True)
            if route == "none" and not drawn.all():
                marked = lesion.flatten(1).any(1)[~drawn & (batch["finding"] == 0)]
                self._beside[:2] += torch.tensor([marked.sum(), len(marked)])
                if output.lungs is not None:
                    known = ~batch["lungs"].flatten(1).isnan().any(1)
                    found, lungs = output.lungs[known] > 0, batch["lungs"][known] > 0.5
                    self._beside[2:] += torch.tensor([2 * (found & lungs).sum(), found.sum() + lungs.sum()])

    def on_validation_epoch_end(self) -> None:
        """Log pooled Dice by route, how right the zones are, and the figures of a second data set."""
        if self.own_reports is not None:
            for name, value in self.own_reports.scores().items():
                self.log(f"inner/{name}", value, prog_bar=name != "sentence_share", sync_dist=True)
        if not self.segment:
            return
        hit, claimed, real = torch.stack(list(self._pixels.values())).float().unbind(1)
        dice = dict(zip(self._pixels, 2 * hit / (claimed + real).clamp(min=1), strict=True))  # over all pixels
        self.log("inner/dice", dice[self.routes[0]], sync_dist=True)  # what the network is for
        for route, value in dice.items():
            self.log(f"inner/dice_{route}", value, prog_bar=True, sync_dist=True)
        if len(dice) > 1:
            self.log("inner/dice_mean", torch.stack(list(dice.values())).mean(), sync_dist=True)
        marked, healthy, hits, both = self._beside.tolist()
        if healthy:
            self.log("inner/healthy_marked", marked / healthy, prog_bar=True, sync_dist=True)
        if both:
            self.log("inner/lungs_dice", hits / both, prog_bar=True, sync_dist=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write beside what every task does the share of samples that the network wrote a report for."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["textray"]["self_guided"] = self.self_guided

    def learning(self) -> list[torch.nn.Parameter]:
        """Every parameter; without segmentation those of the locator and of the presence it tells."""
        if self.segment:
            return super().learning()
        network = cast(Any, self.network)
        return [*network.locator.parameters(), *(network.presence.parameters() if network.tells_presence else ())]
