"""Losses of segmentation, on logits, and the bank of captions with masks that the LV loss compares with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from textray.augment import Plane
from textray.data.segmentation import SegmentationData
from textray.errors import ShapeError, UsageError
from textray.nn.bert import TextEncoder
from textray.records import Zones
from textray.text.zones import sentence

LossParts = Literal["dice_ce", "dice_only", "pooled_dice_ce", "lvit_wdbce"]
"""Parts of a segmentation loss, see `DiceCELoss`."""
SMOOTH = 1e-5
"""Added to numerator and denominator of a Dice, in pixels."""
EMPTY_AREA = 0.005
"""Share of an image that costs one half of `empty_loss` if it is marked where there is nothing."""


def dice_loss(logits: Tensor, target: Tensor, *, pooled: bool = False) -> Tensor:
    """One minus soft Dice of raw scores and a mask in [0, 1], both ``(B, 1, H, W)``: a mean over ``B``.

    Each image weighs the same or, pooled, each pixel: one Dice of the batch's pixels, as the pooled score counts them.

    Raises:
        ShapeError: If the shapes differ.
    """
    _check(logits, target)
    probability = torch.sigmoid(logits)
    axes = (0, 1, 2, 3) if pooled else (1, 2, 3)
    overlap = (probability * target).sum(axes)
    sizes = probability.sum(axes) + target.sum(axes)
    return (1 - (2 * overlap + SMOOTH) / (sizes + SMOOTH)).mean()


def lvit_wdbce(logits: Tensor, target: Tensor) -> Tensor:
    r"""Half a Dice of squared sums and half a cross-entropy that weighs lesion and background the same.

    The supervised loss of LViT's released code ("Dice + CE" in its article) on raw scores and a mask of {0, 1}, both
    ``(B, 1, H, W)``. Its Dice, a mean over ``B``, halves probability and mask, which only matters beside the smoothing
    of 1e-5: :math:`1 - (2 \sum pt/4 + e) / (\sum p^2/4 + \sum t^2/4 + e)`. Its cross-entropy is over the batch's
    pixels; without lesion pixels, or without others, that half of it is zero.

    Raises:
        ShapeError: If the shapes differ.
    """
    _check(logits, target)
    probability = torch.sigmoid(logits)
    overlap = (probability * target).sum((1, 2, 3)) / 4
    squares = (probability.square() + target.square()).sum((1, 2, 3)) / 4
    dice = (1 - (2 * overlap + SMOOTH) / (squares + SMOOTH)).mean()
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    inside = (target > 0.5).to(entropy)
    lesion = (entropy * inside).sum() / inside.sum().clamp(min=1)
    ground = (entropy * (1 - inside)).sum() / (1 - inside).sum().clamp(min=1)
    return 0.5 * dice + 0.5 * (0.5 * lesion + 0.5 * ground)


def lv_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Language-vision loss of LViT: one minus the cosine of prediction and mask of the most similar text.

    Raw scores and masks in [0, 1] are both ``(B, 1, H, W)``; an empty mask costs 1 and has no gradient. Source: Li et
    al.: LViT, whose released code never calls its own, which is not differentiable.

    Raises:
        ShapeError: If the shapes differ.
    """
    _check(logits, masks)
    cosine = F.cosine_similarity(torch.sigmoid(logits).flatten(1), masks.flatten(1), dim=1, eps=1e-8)
    return (1 - cosine).mean()


def zone_loss(logits: Tensor, zones: Tensor) -> Tensor:
    """Binary cross-entropy of raw scores ``(B, 6)`` on zones ``(B, 6)``, mean over the known ones; 0 where none is.

    Zones are {0, 1}, NaN where unknown.

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


def empty_loss(logits: Tensor) -> Tensor:
    """Loss of raw scores ``(B, 1, H, W)`` where nothing is to be found: a mean over ``B``.

    Cross-entropy, and in place of a Dice ``a / (a + s)`` of the marked area a, s being `EMPTY_AREA` of the image.
    """
    area = torch.sigmoid(logits).mean((1, 2, 3))
    return F.softplus(logits).mean() + (area / (area + EMPTY_AREA)).mean()


def presence_loss(logits: Tensor, finding: Tensor, source: Sequence[str]) -> Tensor:
    """Binary cross-entropy of raw scores ``(B, 1)`` on findings ``(B,)`` of {0, 1}, NaN where unknown.

    Sick and normal films of each source weigh the same, however many a batch has: a source must not stand for health.
    """
    known = ~finding.isnan()
    if not known.any():
        return logits.sum() * 0
    losses = F.binary_cross_entropy_with_logits(logits[known, 0], finding[known], reduction="none")
    groups: dict[tuple[str, bool], list[int]] = defaultdict(list)
    for place, index in enumerate(known.nonzero()[:, 0].tolist()):
        groups[source[index], bool(finding[index])].append(place)
    return torch.stack([losses[places].mean() for places in groups.values()]).mean()


def lung_loss(logits: Tensor, lungs: Tensor) -> Tensor:
    """Dice plus cross-entropy of raw scores of both lungs on shares of pixels, both ``(B, 2, h, w)``.

    A mean over the images whose lungs are known, those of the others being NaN; 0 where none is.

    Raises:
        ShapeError: If the shapes differ.
    """
    _check(logits, lungs)
    known = ~lungs.isnan().flatten(1).any(1)
    if not known.any():
        return logits.sum() * 0
    planes, targets = logits[known].flatten(0, 1)[:, None], lungs[known].flatten(0, 1)[:, None]
    return dice_loss(planes, targets) + F.binary_cross_entropy_with_logits(planes, targets)


def _check(logits: Tensor, target: Tensor) -> None:
    if logits.shape != target.shape:
        raise ShapeError("logits and target differ", came=tuple(target.shape), expected=tuple(logits.shape))


class DiceCELoss(nn.Module):
    """Dice plus binary cross-entropy, the loss of MMI-UNet (section 3.1) and SGSeg in its correct form.

    The released codes apply a softmax over one channel, which makes their cross-entropy exactly zero; ``dice_only``
    reproduces what their numbers were trained with. ``pooled_dice_ce`` goes past the papers: their Dice weighs a small
    lesion as much as a large one, and drawing too much is cheap where the lesion is small; the pooled score, by which
    they are judged, counts pixels. Of ``lvit_wdbce`` see `lvit_wdbce`.
    """

    def __init__(self, parts: LossParts = "dice_ce") -> None:
        super().__init__()
        self.parts = parts

    def forward(self, logits: Tensor, target: Tensor, whole: Tensor | None = None) -> Tensor:
        """Scalar loss of logits and mask, both ``(B, 1, H, W)``.

        Images that ``whole`` ``(B,)`` leaves out have an empty mask, and a Dice of nothing has no gradient: see
        `empty_loss`.
        """
        if whole is not None and not whole.all():
            share = float(whole.float().mean())
            found = share * self(logits[whole], target[whole]) if whole.any() else 0
            return (1 - share) * empty_loss(logits[~whole]) + found
        if self.parts == "lvit_wdbce":
            return lvit_wdbce(logits, target)
        loss = dice_loss(logits, target, pooled=self.parts == "pooled_dice_ce")
        return loss if self.parts == "dice_only" else loss + F.binary_cross_entropy_with_logits(logits, target)


# Bank of captions with a mask each.

BankKind = Literal["labelled", "schematic"]
"""Masks of the labelled images by their captions, or ellipses drawn from the zones of the 63 sentences."""
_TIE = 1e-6
"""Similarities that differ by rounding only count as the same."""
_ROWS = ((0.14, 0.375), (0.375, 0.55), (0.55, 0.85))
"""Heights of the zones of a schematic lung, as shares of the image's."""
_COLUMNS = ((0.14, 0.44), (0.56, 0.86))
"""Widths of the image's left and right lung, the same way."""


class CaptionBank:
    """``K`` captions and masks ``(K, h, w)`` bool; gives a text the mask of the most similar caption.

    Similarity is the cosine between means of the frozen encoder's token features; of equally similar captions the first
    one counts.

    Raises:
        UsageError: If there is none.
        ShapeError: If captions and masks differ in number.
    """

    def __init__(self, captions: Sequence[str], masks: NDArray[np.bool_], encoder: TextEncoder) -> None:
        if not captions:
            raise UsageError(
                "no caption with a mask to compare with",
                do="Set model.lv_weight 0, model.lv_bank schematic, or a larger data.labelled_fraction",
            )
        if len(captions) != len(masks):
            raise ShapeError("masks of a caption bank", came=len(masks), expected=len(captions))
        self.captions, self.masks, self._encoder = tuple(captions), masks, encoder
        self._features = torch.stack([self._mean(caption) for caption in captions])
        self._known: dict[str, int] = {}

    def nearest(self, text: str) -> int:
        """Index of the caption that is most similar to a text."""
        if text not in self._known:
            similarity = self._features @ self._mean(text)
            self._known[text] = int(torch.nonzero(similarity >= similarity.max() - _TIE)[0])
        return self._known[text]

    def mask(self, text: str) -> Plane:
        """Mask of that caption: ``(h, w)`` float32 of {0, 1}."""
        return self.masks[self.nearest(text)].astype(np.float32)

    def _mean(self, text: str) -> Tensor:
        mean = self._encoder.encode(text).double().mean(0)
        return mean / mean.norm()


def bank_of(data: SegmentationData, kind: BankKind, encoder: TextEncoder) -> CaptionBank:
    """Build the bank of a training.

    Of labelled samples with the same caption the first one with a lesion stands for all: it would win every tie.

    Raises:
        UsageError: If masks are to be drawn of captions that name no zones, or whose left and right are unknown; or if
            no caption has a mask.
    """
    fit = data.sets["fit"]
    if kind == "labelled":
        masks: dict[str, NDArray[np.bool_]] = {}
        for index in np.flatnonzero(fit.labelled).tolist():
            text = fit.whole_text(index)
            if text is not None and text not in masks and (mask := fit.pixels.mask(index)).any():
                masks[text] = mask
        return CaptionBank(list(masks), np.array(list(masks.values())), encoder)
    advice = "Set model.lv_bank labelled"
    if data.row.captions != "zones":
        raise UsageError(f"captions of {data.row.name} name no zones to draw", do=advice)
    if data.row.laterality == "unknown":
        raise UsageError(
            f"whose left and right captions of {data.row.name} mean is unknown, so none is drawn", do=advice
        )
    return schematic_bank(fit.pixels.size, encoder, transpose=data.preprocess.transpose)


def schematic_bank(size: tuple[int, int], encoder: TextEncoder, *, transpose: bool = False) -> CaptionBank:
    """Build a bank of the 63 sentences of zones, each with ellipses where its zones lie.

    Zones of one lung that follow each other are one long ellipse, as in the schematic masks that LViT's authors ship.
    ``transpose`` is for a network that reads pictures with rows and columns swapped: the masks are then, too.
    """
    zones = [Zones.from_index(index) for index in range(1, 64)]
    upright = size[::-1] if transpose else size
    masks = np.array([_draw(chosen, upright) for chosen in zones])
    masks = masks.swapaxes(1, 2) if transpose else masks
    return CaptionBank([sentence(chosen) for chosen in zones], masks, encoder)


def _draw(zones: Zones, size: tuple[int, int]) -> NDArray[np.bool_]:
    height, width = size
    down = ((np.arange(height) + 0.5) / height)[:, None]
    across = ((np.arange(width) + 0.5) / width)[None]
    mask = np.zeros(size, np.bool_)
    for side, (left, right) in enumerate(_COLUMNS):
        levels = [level for level in range(3) if zones.present[3 * side + level]]
        runs = [levels] if levels != [0, 2] else [[0], [2]]
        for run in (run for run in runs if run):
            top, bottom = _ROWS[run[0]][0], _ROWS[run[-1]][1]
            y, x = 2 * (down - top) / (bottom - top) - 1, 2 * (across - left) / (right - left) - 1
            mask |= y**2 + x**2 <= 1
    return mask
