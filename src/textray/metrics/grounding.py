r"""How well maps of phrases meet boxes or masks: IoU and Dice over thresholds, contrast, pointing.

A case is one phrase of one image. Its map is brought to a range (`textray.metrics.grounding.normalise`), cut at each
threshold (``map > t``, strict), and compared with the truth:

* ``IoU = |P ∩ G| / |P ∪ G|``, ``Dice = 2|P ∩ G| / (|P| + |G|)``;
* ``CNR = (mean inside - mean outside) / sqrt(variance inside + variance outside)`` on the map before any threshold,
  population variances; signed, and without its sign. Stretching a map does not change it;
* pointing game: the highest pixel lies inside the truth. Where several pixels share the peak, the share of them that
  lies inside counts, so a constant map scores the area of the truth.

Averages are taken in this order: cases of a class, classes, thresholds. `case_columns` lays a case out so that sums
over cases give every score, for `textray.metrics.intervals`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from textray.errors import ShapeError, UsageError
from textray.metrics.segmentation import Floats, Statistic, nanmean, ratio

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)
"""The thresholds of BioViL and of the grounding paper; `iou` and `dice` are means over them."""
SCAN = tuple(round(0.05 * step, 2) for step in range(-19, 20))
"""Thresholds among which the best single one is looked for; they contain `THRESHOLDS`."""
EmptyPrediction = Literal["zero", "skip"]
EMPTY_PREDICTIONS: tuple[EmptyPrediction, ...] = get_args(EmptyPrediction)
"""What a threshold that marks nothing of a map scores: 0, or nothing at all (what released codes do, which flatters a
model that marks rarely)."""

Name = TypeVar("Name", bound=str)
_IN_SCAN = [SCAN.index(t) for t in THRESHOLDS]


def one_of(known: tuple[Name, ...], name: str, what: str) -> Name:
    """The one of that name; without it a `UsageError`."""
    for one in known:
        if name == one:
            return one
    raise UsageError(f"unknown {what} {name!r}", expected="one of " + ", ".join(known))


@dataclass(frozen=True, kw_only=True)
class MapScore:
    """Scores of one map against its truth: IoU, Dice and whether anything is marked, at each of `SCAN`.

    ``cnr_signed`` is NaN where the truth fills the map or both variances are 0; ``pointing`` is 0 or 1 but for ties.
    """

    iou: tuple[float, ...]
    dice: tuple[float, ...]
    marked: tuple[bool, ...]
    cnr_signed: float
    pointing: float

    def at(self, threshold: float) -> tuple[float, float]:
        """IoU and Dice at one of `SCAN`."""
        place = SCAN.index(threshold)
        return self.iou[place], self.dice[place]


def overlap(values: NDArray[np.floating[Any]], truth: NDArray[np.bool_]) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """IoU, Dice and whether anything is marked, at each threshold of `SCAN`.

    The map is in the range in which thresholds are meant. Where nothing is marked both scores are 0.

    Raises:
        ShapeError: If the shapes differ or the truth is empty.
    """
    _check(values, truth)
    # The thresholds in the map's own precision, or 0.1 of a float32 map would be above 0.1.
    above = values.ravel() > np.asarray(SCAN, values.dtype)[:, None]
    marked, hit, whole = above.sum(axis=1), (above & truth.ravel()).sum(axis=1), truth.sum()
    return hit / (marked + whole - hit), 2 * hit / (marked + whole), marked > 0


def contrast(
    values: NDArray[np.floating[Any]], truth: NDArray[np.bool_], parts: Sequence[NDArray[np.bool_]] = ()
) -> float:
    """Signed contrast-to-noise ratio of a map before any threshold.

    With ``parts``, the boxes that make up the truth, it is the mean of the ratios of each box against all that lies
    outside every box; without them the truth is taken as a whole. NaN where nothing lies inside or outside, or the map
    does not vary in either.
    """
    numbers = values.astype(np.float64)
    outside = numbers[~truth]
    ratios = []
    for part in parts or (truth,):
        inside = numbers[part]
        if not len(inside) or not len(outside):
            continue
        spread = math.sqrt(inside.var() + outside.var())
        ratios += [float(inside.mean() - outside.mean()) / spread] if spread > 0 else []
    return float(np.mean(ratios)) if ratios else math.nan


def pointing(values: NDArray[np.floating[Any]], truth: NDArray[np.bool_]) -> float:
    """Share of the highest pixels that lies inside the truth: 1 or 0 where one pixel is highest."""
    _check(values, truth)
    return float(truth[values == values.max()].mean())


def score(
    values: NDArray[np.floating[Any]], truth: NDArray[np.bool_], *, parts: Sequence[NDArray[np.bool_]] = ()
) -> MapScore:
    """Score one map ``(H, W)``, already in the range in which thresholds are meant; ``parts`` as in `contrast`.

    Raises:
        ShapeError: If the shapes differ or the truth is empty.
    """
    iou, dice, marked = overlap(values, truth)
    return MapScore(
        iou=tuple(iou.tolist()),
        dice=tuple(dice.tolist()),
        marked=tuple(marked.tolist()),
        cnr_signed=contrast(values, truth, parts),
        pointing=pointing(values, truth),
    )


def _check(values: NDArray[np.floating[Any]], truth: NDArray[np.bool_]) -> None:
    if values.shape != truth.shape or values.ndim != 2 or truth.dtype != np.bool_:
        raise ShapeError(
            "a map and its truth lie on one grid",
            came=f"{values.shape} and {truth.shape} {truth.dtype}",
            expected="(H, W) and (H, W) bool",
        )
    if not truth.any():
        raise ShapeError("a map cannot be scored where nothing is true", came="an empty truth", do="Leave the case out")


# Columns of a case, in the block of its class: IoU, Dice and 1 for each of SCAN; CNR signed, unsigned, 1; pointing, 1.
_STEPS = len(SCAN)
_IOU, _DICE, _COUNTED = (slice(k * _STEPS, (k + 1) * _STEPS) for k in range(3))
_CNR_SIGNED, _CNR, _HAS_CNR, _POINTING, _ONE = range(3 * _STEPS, 3 * _STEPS + 5)
_WIDTH = _ONE + 1
_PARTS: dict[str, tuple[int | slice, int | slice]] = {
    "iou": (_IOU, _COUNTED),
    "dice": (_DICE, _COUNTED),
    "cnr": (_CNR, _HAS_CNR),
    "cnr_signed": (_CNR_SIGNED, _HAS_CNR),
    "pointing": (_POINTING, _ONE),
}
SCORES = tuple(_PARTS)
"""Names of the scores of a set, in the order of tables: each a sum of columns over a count of cases."""


def case_columns(
    cases: Sequence[MapScore], labels: Sequence[str], *, empty_prediction: EmptyPrediction = "zero"
) -> tuple[Floats, tuple[str, ...]]:
    """Columns whose sums over ``N`` cases give every score of `statistics`; ``labels`` names the class of each.

    They are ``(N, classes x columns)`` float64; behind them stand the classes in their order.

    Raises:
        UsageError: If ``empty_prediction`` is unknown.
        ShapeError: If the lengths differ.
    """
    one_of(EMPTY_PREDICTIONS, empty_prediction, "rule for empty predictions")
    if len(cases) != len(labels):
        raise ShapeError("one class for each case", came=len(labels), expected=len(cases))
    classes = tuple(sorted(set(labels)))
    columns = np.zeros((len(cases), len(classes), _WIDTH))
    for n, (case, label) in enumerate(zip(cases, labels, strict=True)):
        counted = np.array(case.marked) if empty_prediction == "skip" else np.ones(_STEPS, bool)
        cnr = (0, 0, 0) if math.isnan(case.cnr_signed) else (case.cnr_signed, abs(case.cnr_signed), 1)
        parts = [counted * case.iou, counted * case.dice, counted, cnr, (case.pointing, 1)]
        columns[n, classes.index(label)] = np.concatenate(parts)
    return columns.reshape(len(cases), -1), classes


def statistics(classes: int) -> dict[str, Statistic]:
    """The scores of `SCORES` as functions of totals ``(..., classes x columns)``."""
    return {name: partial(_score, name=name, classes=classes) for name in SCORES}


def class_statistics(place: int) -> dict[str, Statistic]:
    """The scores of one class alone, from totals of all."""

    def only(totals: Floats, statistic: Statistic) -> Floats:
        return statistic(totals[..., place * _WIDTH : (place + 1) * _WIDTH])

    return {name: partial(only, statistic=statistic) for name, statistic in statistics(1).items()}


def _score(totals: Floats, *, name: str, classes: int) -> Floats:
    values = _over_classes(totals, name, classes)
    return nanmean(values[..., _IN_SCAN]) if name in ("iou", "dice") else values


def _over_classes(totals: Floats, name: str, classes: int) -> Floats:
    """Mean of a score over classes; of IoU and Dice at each of `SCAN`."""
    part, of = _PARTS[name]
    columns = np.swapaxes(totals.reshape(*totals.shape[:-1], classes, _WIDTH), -2, -1)
    return nanmean(ratio(columns[..., part, :], columns[..., of, :]))


def threshold_table(totals: Floats, classes: int) -> dict[str, dict[str, float | None]]:
    """``iou`` and ``dice``, means over classes, by `THRESHOLDS` as text; ``None`` where all cases are left out."""
    overlaps = _overlaps(totals, classes)
    return {str(SCAN[at]): overlaps[at] for at in _IN_SCAN}


def best_threshold(totals: Floats, classes: int) -> dict[str, float | None]:
    """The one ``threshold`` of `SCAN` with the highest ``dice``, chosen on the very cases that it is scored on."""
    overlaps = _overlaps(totals, classes)
    at = max(range(_STEPS), key=lambda step: -1.0 if (dice := overlaps[step]["dice"]) is None else dice)
    return {"threshold": SCAN[at], **overlaps[at]}


def _overlaps(totals: Floats, classes: int) -> list[dict[str, float | None]]:
    """IoU and Dice at each of `SCAN`; ``None`` stands for NaN, which JSON has not."""
    means = [_over_classes(totals, name, classes).tolist() for name in ("iou", "dice")]
    pairs = ((None if math.isnan(x) else x for x in pair) for pair in zip(*means, strict=True))
    return [{"iou": iou, "dice": dice} for iou, dice in pairs]


def skipped(cases: Sequence[MapScore]) -> dict[str, int]:
    """How many cases mark nothing at each of `THRESHOLDS`, by threshold as text."""
    return {str(t): sum(not case.marked[at] for case in cases) for t, at in zip(THRESHOLDS, _IN_SCAN, strict=True)}


# Maps of similarity: smoothed, enlarged and brought to a range, the way that published evaluations do.

Normalise = Literal["minmax", "none", "clamp"]
NORMALISATIONS: tuple[Normalise, ...] = get_args(Normalise)
"""``minmax``: each map stretched to [-1, 1], so that something is always marked; ``none``: the map as it is;
``clamp``: negative values made 0."""

SIGMA = 1.5
"""Width of the smoothing in cells of the map, as BioViL and AFLoc have it."""
_REACH = 4.0  # widths at which the kernel ends, as SciPy has it


def smooth(maps: NDArray[np.floating[Any]], sigma: float = SIGMA) -> NDArray[np.float32]:
    """Smooth maps ``(..., h, w)`` by a Gaussian of ``sigma`` cells, 0 to leave them alone.

    Beyond the edge a map goes on as its mirror image.

    Raises:
        UsageError: If ``sigma`` is negative or not finite.
        ShapeError: If a map has no cell.
    """
    if not (math.isfinite(sigma) and sigma >= 0):
        raise UsageError("width of the smoothing is wrong", came=sigma, expected="0 or more cells")
    if maps.ndim < 2 or 0 in maps.shape[-2:]:
        raise ShapeError("a map has rows and columns", came=maps.shape, expected="(..., h, w)")
    if sigma == 0:
        return np.asarray(maps, np.float32)
    rows, columns = (_smoothing(length, sigma) for length in maps.shape[-2:])
    return np.asarray(rows @ maps.astype(np.float64) @ columns.T, np.float32)


def _smoothing(length: int, sigma: float) -> Floats:
    """Matrix ``(length, length)`` that smooths a line of so many cells."""
    reach = int(_REACH * sigma + 0.5)
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    weights /= weights.sum()
    places = (np.arange(length)[:, None] + offsets) % (2 * length)  # mirrored with the edge cell repeated
    places = np.minimum(places, 2 * length - 1 - places)
    matrix = np.zeros((length, length))
    np.add.at(matrix, (np.arange(length)[:, None], places), weights)
    return matrix


def enlarge(values: NDArray[np.floating[Any]], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Bring a map ``(h, w)`` to ``shape`` by bilinear interpolation between the centres of its cells."""
    picture = PILImage.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.array(picture.resize((shape[1], shape[0]), PILImage.Resampling.BILINEAR), dtype=np.float32)


def normalise(values: NDArray[np.floating[Any]], how: Normalise) -> NDArray[np.floating[Any]]:
    """Bring a map of any shape to the range in which thresholds are meant.

    Under ``minmax`` a map that is constant gives zeros: it points nowhere.
    """
    if how == "none":
        return values
    if how == "clamp":
        return np.asarray(np.maximum(values, 0), values.dtype)
    low, high = values.min(), values.max()
    if not high > low:
        return np.zeros_like(values)
    return np.asarray((values - low) / (high - low) * 2 - 1, values.dtype)
