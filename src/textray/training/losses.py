"""Losses of the segmentation systems, on logits."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from textray.errors import ShapeError

LossParts = Literal["dice_ce", "dice_only", "pooled_dice_ce"]
"""What a segmentation loss is made of, see `DiceCELoss`."""


def dice_loss(logits: Tensor, target: Tensor, *, smooth: float = 1e-5, pooled: bool = False) -> Tensor:
    r"""One minus soft Dice, each image weighing the same or, pooled, each pixel.

    Args:
        logits: Raw scores, ``(B, 1, H, W)``, any range.
        target: Lesion mask, ``(B, 1, H, W)``, values {0, 1}.
        smooth: Added to numerator and denominator, in pixels.
        pooled: One Dice of all the batch's pixels, as the pooled score counts them, instead of one for each image.

    Returns:
        Scalar, mean over ``B``.

    Raises:
        ShapeError: If the shapes differ.
    """
    if logits.shape != target.shape:
        raise ShapeError("logits and target differ", came=tuple(target.shape), expected=tuple(logits.shape))
    probability = torch.sigmoid(logits)
    axes = (0, 1, 2, 3) if pooled else (1, 2, 3)
    overlap = (probability * target).sum(axes)
    sizes = probability.sum(axes) + target.sum(axes)
    return (1 - (2 * overlap + smooth) / (sizes + smooth)).mean()


class DiceCELoss(nn.Module):
    """Dice plus binary cross-entropy, the loss of MMI-UNet (section 3.1) and SGSeg in its correct form.

    The released codes apply a softmax over one channel, which makes their cross-entropy exactly zero; ``dice_only``
    reproduces what their numbers were trained with. ``pooled_dice_ce`` goes past the papers: their Dice weighs a small
    lesion as much as a large one, and drawing too much is cheap where the lesion is small; the pooled score, by which
    they are judged, counts pixels.

    Args:
        parts: ``dice_ce``, ``dice_only`` or ``pooled_dice_ce``.
    """

    def __init__(self, parts: LossParts = "dice_ce") -> None:
        super().__init__()
        self.parts = parts

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar loss of logits and mask, both ``(B, 1, H, W)``."""
        loss = dice_loss(logits, target, pooled=self.parts == "pooled_dice_ce")
        return loss if self.parts == "dice_only" else loss + F.binary_cross_entropy_with_logits(logits, target)
