"""Overlap of masks: counts per case first, then scores that carry their estimator in the name.

``*_pooled`` counts every pixel of the set once (MMI-UNet and SGSeg report this), ``*_per_image`` is the mean over
images (LViT reports this). The two differ by many points on the same masks: a name without its estimator says nothing.

Every score is a ratio of sums over cases, so it is a function of *totals*: the sum of `case_columns`
over any set of cases. The bootstrap (`textray.metrics.intervals`) then needs one matrix product for all its draws.

Empty masks: where truth and prediction are both empty the case scores 1, where only one is empty it scores 0. The
lesion view (``*_per_lesion_image``) leaves the cases out where both are empty; `empty_counts` says how many there were.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from textray.errors import ShapeError, TextRayError

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""A score of totals: ``(..., K)`` sums over cases to ``(...)``."""
TOLERANCE = 1e-9  # between two ways to the same score


class Counts(NamedTuple):
    """Pixels of one case: true positive, false positive, false negative, true negative."""

    tp: int
    fp: int
    fn: int
    tn: int


def count(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Counts:
    """Count the pixels of one case, both ``(H, W)`` bool.

    Raises:
        ShapeError: If the shapes differ or one of the arrays is not bool.
    """
    if prediction.shape != truth.shape:
        raise ShapeError("prediction and truth lie on different grids", came=prediction.shape, expected=truth.shape)
    if prediction.dtype != np.bool_ or truth.dtype != np.bool_:
        raise ShapeError(
            "masks to be counted are bool", came=f"{prediction.dtype} and {truth.dtype}", do="Compare with a threshold."
        )
    tp = int(np.count_nonzero(prediction & truth))
    fp = int(np.count_nonzero(prediction)) - tp
    fn = int(np.count_nonzero(truth)) - tp
    return Counts(tp=tp, fp=fp, fn=fn, tn=truth.size - tp - fp - fn)


def ratio(hits: Floats, of: Floats, *, empty: Floats | float = math.nan) -> Floats:
    """``hits / of``, and ``empty`` where ``of`` is 0."""
    return np.where(of > 0, hits / np.where(of > 0, of, 1.0), empty)


def ratio_of(hits: int, of: int) -> Statistic:
    """Score of one column of totals over another; NaN where the other is 0."""
    return lambda totals: ratio(totals[..., hits], totals[..., of])


def nanmean(values: Floats) -> Floats:
    """Mean over the last axis of what is defined; NaN where nothing is (without NumPy's warning of it)."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0).sum(axis=-1), defined.sum(axis=-1).astype(np.float64))


def case_columns(counts: NDArray[np.int64]) -> Floats:
    """Columns whose sums over cases give every score.

    From ``(N, 4)`` tp, fp, fn, tn to ``(N, 8)`` float64: the same, Dice, IoU, 1, 1 where truth and result are empty.
    """
    if counts.ndim != 2 or counts.shape[1] != 4:
        raise ShapeError("counts have four columns: tp, fp, fn, tn", came=counts.shape, expected="(N, 4)")
    values = counts.astype(np.float64)
    tp, fp, fn = values[:, 0], values[:, 1], values[:, 2]
    return np.column_stack([values, dice_pooled(values), iou_pooled(values), np.ones(len(values)), tp + fp + fn == 0])


# Each takes totals (..., 8) and gives (...): `totals` is the sum of `case_columns` over a set of cases.


def dice_pooled(totals: Floats) -> Floats:
    """2TP / (2TP + FP + FN) over all pixels of the set; 1 if no pixel is lesion in either."""
    tp, fp, fn = totals[..., 0], totals[..., 1], totals[..., 2]
    return ratio(2 * tp, 2 * tp + fp + fn, empty=1.0)


def iou_pooled(totals: Floats) -> Floats:
    """TP / (TP + FP + FN) over all pixels of the set; 1 if no pixel is lesion in either."""
    tp, fp, fn = totals[..., 0], totals[..., 1], totals[..., 2]
    return ratio(tp, tp + fp + fn, empty=1.0)


def accuracy_pooled(totals: Floats) -> Floats:
    """(TP + TN) / all pixels of the set."""
    return ratio(totals[..., 0] + totals[..., 3], totals[..., :4].sum(axis=-1))


def sensitivity_pooled(totals: Floats) -> Floats:
    """TP / (TP + FN) over all pixels; without lesion in the truth 1 if nothing was predicted, else 0."""
    tp, fp, fn = totals[..., 0], totals[..., 1], totals[..., 2]
    return ratio(tp, tp + fn, empty=(fp == 0).astype(np.float64))


def precision_pooled(totals: Floats) -> Floats:
    """TP / (TP + FP) over all pixels; with nothing predicted 1 if there was nothing to find, else 0."""
    tp, fp, fn = totals[..., 0], totals[..., 1], totals[..., 2]
    return ratio(tp, tp + fp, empty=(fn == 0).astype(np.float64))


def _per_lesion_image(totals: Floats, *, score: int) -> Floats:
    """Mean of the images where truth or prediction has a lesion; NaN if there is none."""
    both_empty = totals[..., 7]  # a case with both empty scores 1
    return ratio(totals[..., score] - both_empty, totals[..., 6] - both_empty)


SCORES: dict[str, Statistic] = {
    "dice_pooled": dice_pooled,
    "iou_pooled": iou_pooled,
    "accuracy_pooled": accuracy_pooled,
    "sensitivity_pooled": sensitivity_pooled,
    "precision_pooled": precision_pooled,
    "dice_per_image": ratio_of(4, 6),  # both empty is 1, one empty is 0; NaN for a set without images
    "iou_per_image": ratio_of(5, 6),
    "dice_per_lesion_image": partial(_per_lesion_image, score=4),
    "iou_per_lesion_image": partial(_per_lesion_image, score=5),
}
"""Every score by its name, in the order of the tables."""


def empty_counts(counts: NDArray[np.int64]) -> dict[str, int]:
    """How many of ``(N, 4)`` cases are empty in truth, in prediction (each whatever the other holds), and in both."""
    truth = counts[:, 0] + counts[:, 2] == 0
    prediction = counts[:, 0] + counts[:, 1] == 0
    return {"truth": int(truth.sum()), "prediction": int(prediction.sum()), "both": int((truth & prediction).sum())}


def check_protocol(values: Mapping[str, float]) -> None:
    """Refuse scores that no set of masks has, such as those of a table that mixes estimators.

    Pooled figures satisfy J = D / (2 - D) exactly; means over images satisfy J >= D / (2 - D), by Jensen's inequality.
    Pairs that are not complete, or NaN, are left alone.

    Raises:
        TextRayError: If a pair of Dice and IoU breaks its rule.
    """
    for kind in ("pooled", "per_image", "per_lesion_image"):
        dice, iou = values.get(f"dice_{kind}", math.nan), values.get(f"iou_{kind}", math.nan)
        if math.isnan(dice) or math.isnan(iou):
            continue
        implied = dice / (2 - dice)
        if abs(iou - implied) > TOLERANCE if kind == "pooled" else iou < implied - TOLERANCE:
            raise TextRayError(
                f"iou_{kind} and dice_{kind} cannot belong to the same masks",
                came=f"iou {iou:.6f} with dice {dice:.6f}",
                expected=f"iou {'=' if kind == 'pooled' else '>='} D/(2-D) = {implied:.6f}",
                do="Compute both with one estimator over the same cases.",
            )
