"""Losses of the segmentation systems, on logits."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from textray.errors import ShapeError

LossParts = Literal["dice_ce", "dice_only", "pooled_dice_ce", "lvit_wdbce"]
"""What a segmentation loss is made of, see `DiceCELoss`."""


def dice_loss(logits: Tensor, target: Tensor, *, smooth: float = 1e-5, pooled: bool = False) -> Tensor:
    r"""One minus soft Dice, each image weighing the same or, pooled, each pixel.

    Args:
        logits: Raw scores, ``(B, 1, H, W)``, any range.
        target: Lesion mask, ``(B, 1, H, W)``, values {0, 1}, or between for a soft one.
        smooth: Added to numerator and denominator, in pixels.
        pooled: One Dice of all the batch's pixels, as the pooled score counts them, instead of one for each image.

    Returns:
        Scalar, mean over ``B``.

    Raises:
        ShapeError: If the shapes differ.
    """
    _check(logits, target)
    probability = torch.sigmoid(logits)
    axes = (0, 1, 2, 3) if pooled else (1, 2, 3)
    overlap = (probability * target).sum(axes)
    sizes = probability.sum(axes) + target.sum(axes)
    return (1 - (2 * overlap + smooth) / (sizes + smooth)).mean()


def lvit_wdbce(logits: Tensor, target: Tensor) -> Tensor:
    r"""Half a Dice of squared sums and half a cross-entropy that weighs lesion and background the same.

    The supervised loss of LViT's released code ("Dice + CE" in its article). Its Dice halves probability and mask,
    which only matters beside the smoothing of 1e-5: :math:`1 - (2 \sum pt/4 + e) / (\sum p^2/4 + \sum t^2/4 + e)`.

    Args:
        logits: Raw scores, ``(B, 1, H, W)``, any range.
        target: Lesion mask, ``(B, 1, H, W)``, values {0, 1}.

    Returns:
        Scalar: Dice as mean over ``B``, cross-entropy over the batch's pixels; a batch without lesion pixels or without
        others, has that half of the cross-entropy zero.

    Raises:
        ShapeError: If the shapes differ.
    """
    _check(logits, target)
    probability, smooth = torch.sigmoid(logits), 1e-5
    overlap = (probability * target).sum((1, 2, 3)) / 4
    squares = (probability.square() + target.square()).sum((1, 2, 3)) / 4
    dice = (1 - (2 * overlap + smooth) / (squares + smooth)).mean()
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    inside = (target > 0.5).to(entropy)
    lesion = (entropy * inside).sum() / inside.sum().clamp(min=1)
    ground = (entropy * (1 - inside)).sum() / (1 - inside).sum().clamp(min=1)
    return 0.5 * dice + 0.5 * (0.5 * lesion + 0.5 * ground)


def lv_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Language-vision loss of LViT: one minus the cosine between what is found and the mask of the most similar text.

    Source: Li et al.: LViT, whose released code never calls its own, which is not differentiable.

    Args:
        logits: Raw scores, ``(B, 1, H, W)``, any range.
        masks: ``(B, 1, H, W)`` float, in [0, 1]; an empty one costs 1 and teaches nothing.

    Returns:
        Scalar, mean over ``B``.

    Raises:
        ShapeError: If the shapes differ.
    """
    _check(logits, masks)
    cosine = F.cosine_similarity(torch.sigmoid(logits).flatten(1), masks.flatten(1), dim=1, eps=1e-8)
    return (1 - cosine).mean()


def zone_loss(logits: Tensor, zones: Tensor) -> Tensor:
    """Binary cross-entropy on zones, mean over the zones that are known.

    Args:
        logits: Raw scores, ``(B, 6)``.
        zones: ``(B, 6)``, values {0, 1}; NaN where nothing tells.

    Returns:
        Scalar; 0 where none is known.

    Raises:
        ShapeError: If the shapes differ.
    """
    _check(logits, zones)
    known = ~zones.isnan()
    if known.all():
        return F.binary_cross_entropy_with_logits(logits, zones)
    if not known.any():
        return logits.sum() * 0  # part of the graph all the same, as several processes need
    return F.binary_cross_entropy_with_logits(logits[known], zones[known])


def _check(logits: Tensor, target: Tensor) -> None:
    if logits.shape != target.shape:
        raise ShapeError("logits and target differ", came=tuple(target.shape), expected=tuple(logits.shape))


class DiceCELoss(nn.Module):
    """Dice plus binary cross-entropy, the loss of MMI-UNet (section 3.1) and SGSeg in its correct form.

    The released codes apply a softmax over one channel, which makes their cross-entropy exactly zero; ``dice_only``
    reproduces what their numbers were trained with. ``pooled_dice_ce`` goes past the papers: their Dice weighs a small
    lesion as much as a large one, and drawing too much is cheap where the lesion is small; the pooled score, by which
    they are judged, counts pixels.

    Args:
        parts: ``dice_ce``, ``dice_only``, ``pooled_dice_ce`` or ``lvit_wdbce``, see `lvit_wdbce`.
    """

    def __init__(self, parts: LossParts = "dice_ce") -> None:
        super().__init__()
        self.parts = parts

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar loss of logits and mask, both ``(B, 1, H, W)``."""
        if self.parts == "lvit_wdbce":
            return lvit_wdbce(logits, target)
        loss = dice_loss(logits, target, pooled=self.parts == "pooled_dice_ce")
        return loss if self.parts == "dice_only" else loss + F.binary_cross_entropy_with_logits(logits, target)
