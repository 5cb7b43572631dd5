"""Rows that the papers print, as data, and which way of averaging each of them can come from.

For one set of pixels counted once (pooled), IoU J and Dice D satisfy J = D / (2 - D) exactly. The mean over images
satisfies J >= D / (2 - D), by Jensen's inequality. So two printed numbers tell how they were made, and rows made in
different ways cannot be compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

NEAR = 0.5
"""Points above D / (2 - D) under which a row is neither pooled nor likely a mean over images."""


class Protocol(StrEnum):
    """How a pair of Dice and IoU can have come about."""

    POOLED = "pooled"
    PER_IMAGE = "per image"
    UNCLEAR = "unclear"
    IMPOSSIBLE = "impossible"


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores as printed, in percent.

    Attributes:
        dice: Dice D.
        iou: IoU J.
        accuracy: Share of pixels that are told right; ``None`` where the paper prints none.
        decimals: Digits behind the point that are printed of a percentage.
    """

    dice: float
    iou: float
    accuracy: float | None = None
    decimals: int = 2

    @property
    def gap(self) -> float:
        """J - D / (2 - D) in points."""
        return self.iou - _implied(self.dice)

    @property
    def protocol(self) -> Protocol:
        """The protocol that the pair satisfies.

        Pooled where some D and J that round to the printed ones obey J = D / (2 - D); impossible where J lies below;
        per image where it lies above, unclear where that is by less than `NEAR`.
        """
        off = 0.5 * 10**-self.decimals  # what rounding can have hidden
        lowest, highest = _implied(self.dice - off) - off, _implied(self.dice + off) + off
        if lowest <= self.iou <= highest:
            return Protocol.POOLED
        if self.iou < lowest:
            return Protocol.IMPOSSIBLE
        return Protocol.PER_IMAGE if self.gap >= NEAR else Protocol.UNCLEAR

    def __str__(self) -> str:
        shown = [self.dice, self.iou] if self.accuracy is None else [self.accuracy, self.dice, self.iou]
        return " / ".join(f"{score:.{self.decimals}f}" for score in shown)


def _implied(dice: float) -> float:
    """D / (2 - D), in percent."""
    share = dice / 100
    return 100 * share / (2 - share)


@dataclass(frozen=True, kw_only=True)
class PrintedRow:
    """A row of a paper's table.

    Attributes:
        label: The method as printed.
        scores: Registry name of the data set → what is printed.
        parameters: The paper's "Param", in millions.
        flops: The paper's "FLOPs", in G.
    """

    label: str
    scores: dict[str, Scores]
    parameters: float | None = None
    flops: float | None = None


def _row(label: str, qata: tuple[float, float], mosmed: tuple[float, float], *sizes: float) -> PrintedRow:
    scores = {name: Scores(dice=d, iou=j) for name, (d, j) in (("qata_cov19", qata), ("mosmed_plus", mosmed))}
    parameters, flops = (*sizes, None, None)[:2]
    return PrintedRow(label=label, scores=scores, parameters=parameters, flops=flops)


MMI_UNET_TABLE_1 = (
    _row("UNet", (79.02, 69.46), (64.60, 50.73), 14.8, 50.3),
    _row("UNet++", (79.62, 70.25), (71.75, 58.39), 74.5, 94.6),
    _row("AttUNet", (79.31, 70.04), (66.34, 52.82), 34.9, 101.9),
    _row("nnUNet", (80.42, 70.81), (72.59, 60.36), 19.1, 412.7),
    _row("TransUNet", (78.63, 69.13), (71.24, 58.44), 105.0, 56.7),
    _row("UCTransNet", (79.15, 69.60), (65.90, 52.69), 65.6, 63.2),
    _row("Swin-UNet", (78.07, 68.34), (63.29, 50.19), 82.3, 67.3),
    _row("CLIP", (79.81, 70.66), (71.97, 59.64), 87.0, 105.3),
    _row("GLoRIA", (79.94, 70.68), (72.42, 60.18), 45.6, 60.8),
    _row("ConVIRT", (79.72, 70.58), (72.06, 59.73), 35.2, 44.6),
    _row("TGANet", (79.87, 70.75), (71.81, 59.28), 19.8, 41.9),
    _row("ViLT", (79.63, 70.12), (72.36, 60.15), 87.4, 55.9),
    _row("LAVT", (79.28, 69.89), (73.29, 60.41), 118.6, 83.8),
    _row("LViT", (83.66, 75.11), (74.57, 61.33), 29.7, 54.1),
    _row("GuideDecoder", (89.78, 81.45), (77.75, 63.60), 44.0, 22.4),
    _row("MMI-UNet", (90.88, 83.28), (78.42, 64.50), 56.2, 22.1),
)
"""Table 1 of Bui, Le, Choo, MICCAI 2024."""

LVIT_QATA = tuple(row for row in MMI_UNET_TABLE_1 if row.label in ("UNet", "LViT"))
"""LViT and its baseline as MMI-UNet's paper prints them: to the last digit as LViT's authors do beside their code."""

MMI_UNET_TABLE_2 = (
    _row("MMI-UNet w/ GD", (90.36, 82.46), (78.38, 64.45), 65.8),
    _row("MMI-UNet", (90.88, 83.28), (78.42, 64.50), 56.2),
)
"""Table 2: decoders."""

MMI_UNET_TABLE_3 = (
    _row("nnUNet (100% training data)", (80.42, 70.81), (72.59, 60.36)),
    _row("MMI-UNet (15% training data)", (88.72, 79.73), (74.00, 58.73)),
    _row("MMI-UNet (25% training data)", (89.37, 80.79), (75.40, 60.51)),
    _row("MMI-UNet (50% training data)", (90.04, 81.89), (76.27, 61.64)),
    _row("MMI-UNet (100% training data)", (90.88, 83.28), (78.42, 64.50)),
)
"""Table 3: share of the training data."""


def _of_sgseg(label: str, accuracy: float, dice: float, iou: float) -> PrintedRow:
    """A row of shares with three decimals."""
    scores = Scores(dice=round(100 * dice, 1), iou=round(100 * iou, 1), accuracy=round(100 * accuracy, 1), decimals=1)
    return PrintedRow(label=label, scores={"qata_cov19": scores})


SGSEG_TABLE_1 = (
    _of_sgseg("U-Net", 0.945, 0.819, 0.692),
    _of_sgseg("U-Net++", 0.947, 0.823, 0.706),
    _of_sgseg("Attention U-Net", 0.945, 0.822, 0.701),
    _of_sgseg("Trans U-Net", 0.939, 0.806, 0.687),
    _of_sgseg("Swin U-Net", 0.950, 0.832, 0.724),
    _of_sgseg("SGSeg (ours)", 0.971, 0.874, 0.778),
    _of_sgseg("LViT", 0.962, 0.837, 0.751),
    _of_sgseg("LanGuideSeg", 0.975, 0.898, 0.815),
)
"""Table 1 of Ye, Meng, Li, Feng, Kim, MICCAI 2024."""

SGSEG_TABLE_2 = (
    _of_sgseg("Without Text", 0.953, 0.846, 0.725),
    _of_sgseg("Vision-language pre-training (CLIP)", 0.962, 0.850, 0.740),
    _of_sgseg("Self-Guidance (simple report generation)", 0.966, 0.861, 0.759),
    _of_sgseg("Self-Guidance (weakly-supervised LERG)", 0.971, 0.874, 0.778),
    _of_sgseg("Full Text", 0.973, 0.890, 0.797),
)
"""Table 2: ablation."""
