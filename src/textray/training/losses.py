"""Losses of the segmentation systems, on logits."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from textray.errors import ShapeError


def dice_loss(logits: Tensor, target: Tensor, *, smooth: float = 1e-5) -> Tensor:
    r"""One minus soft Dice, each image weighing the same.

    Args:
        logits: Raw scores, ``(B, 1, H, W)``, any range.
        target: Lesion mask, ``(B, 1, H, W)``, values {0, 1}.
        smooth: Added to numerator and denominator, in pixels.

    Returns:
        Scalar, mean over ``B``.

    Raises:
        ShapeError: If the shapes differ.
    """
    if logits.shape != target.shape:
        raise ShapeError("logits and target differ", came=tuple(target.shape), expected=tuple(logits.shape))
    probability = torch.sigmoid(logits)
    overlap = (probability * target).sum((1, 2, 3))
    sizes = probability.sum((1, 2, 3)) + target.sum((1, 2, 3))
    return (1 - (2 * overlap + smooth) / (sizes + smooth)).mean()


class DiceCELoss(nn.Module):
    """Dice plus binary cross-entropy, the loss of MMI-UNet (section 3.1) and SGSeg in its correct form.

    The released codes apply a softmax over one channel, which makes their cross-entropy exactly zero; ``dice_only``
    reproduces what their numbers were trained with.

    Args:
        parts: ``dice_ce`` or ``dice_only``.
    """

    def __init__(self, parts: Literal["dice_ce", "dice_only"] = "dice_ce") -> None:
        super().__init__()
        self.parts = parts

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar loss of logits and mask, both ``(B, 1, H, W)``."""
        loss = dice_loss(logits, target)
        return loss if self.parts == "dice_only" else loss + F.binary_cross_entropy_with_logits(logits, target)
