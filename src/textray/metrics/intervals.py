"""Percentile bootstrap over groups (patients), for scores that are functions of sums over cases.

Films of one patient are alike, so patients are drawn, not films. A draw of groups is a row of weights (how often each
group came up), and the totals of all draws are one matrix product: ``weights (draws, G) @ group sums (G, K)``.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np

from textray.errors import ShapeError, UsageError
from textray.metrics.segmentation import Floats, Statistic, ratio

DRAWS = 1000
LEVEL = 0.95
SEED = 20240
ESTIMATOR = "percentile bootstrap over patients, 95 %, 1,000 draws; an image without a patient is its own group"
K = TypeVar("K", bound=Hashable)
_WEIGHTS_AT_ONCE = 4_000_000  # 32 MB of draws x groups


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A score of the whole set and the bounds of its interval; NaN where the score is not defined."""

    value: float
    low: float
    high: float


def to_dicts(scores: Mapping[K, Interval]) -> dict[K, dict[str, float | None]]:
    """Intervals by name for JSON, which has no NaN: ``None`` stands for it."""
    return {
        name: {end: None if math.isnan(value) else value for end, value in vars(interval).items()}
        for name, interval in scores.items()
    }


def bootstrap(columns: Floats, groups: Sequence[str], statistics: Mapping[K, Statistic]) -> dict[K, Interval]:
    """Scores of a set with their intervals, from `DRAWS` draws; one seed for every set, so a run repeats.

    Args:
        columns: ``(N, K)``, one row a case, whose sums the statistics understand.
        groups: ``N`` labels; cases with the same label are drawn together.
        statistics: By name, each from totals ``(..., K)`` to ``(...)``.

    Raises:
        UsageError: If there is no case.
        ShapeError: If ``groups`` and ``columns`` differ in length.
    """
    sums = _group_sums(columns, groups)
    totals = np.concatenate([weights @ sums for weights in _weights(len(sums))])
    return {
        name: _interval(float(statistic(sums.sum(axis=0))), statistic(totals)) for name, statistic in statistics.items()
    }


def bootstrap_auc(scores: Sequence[float], truth: Sequence[bool], groups: Sequence[str]) -> Interval:
    """Area under the curve of scores against the truth, with its interval; a tie counts half.

    The three have one item a case; of draws without cases of one kind the area is not defined.

    Raises:
        UsageError: If there is no case.
        ShapeError: If they differ in length.
    """
    values, positive = np.asarray(scores, np.float64), np.asarray(truth, np.bool_)
    if not len(values) == len(positive) == len(groups):
        raise ShapeError("scores, truth and groups differ", came=(len(values), len(positive), len(groups)))
    if not len(values):
        raise UsageError("no interval without cases", came="0 cases", expected="at least one")
    labels, where = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)
    above = values[positive][:, None] - values[~positive][None]
    wins = np.where(above > 0, 1.0, np.where(above == 0, 0.5, 0.0))  # (P, N)

    def area(weights: Floats) -> Floats:
        sick, normal = weights[:, where[positive]], weights[:, where[~positive]]
        return ratio(((sick @ wins) * normal).sum(1), sick.sum(1) * normal.sum(1))

    drawn = np.concatenate([area(weights) for weights in _weights(len(labels))])
    return _interval(float(area(np.ones((1, len(labels))))[0]), drawn)


def paired_difference(
    first: Floats, second: Floats, groups: Sequence[str], statistics: Mapping[K, Statistic]
) -> dict[K, Interval]:
    """Scores of ``second`` minus those of ``first`` on the same cases, with intervals of the difference.

    Both runs see the same draws, so what is common to both (hard films, easy films) cancels. ``first`` and ``second``
    are ``(N, K)``, row for row the same cases; the rest is as in `bootstrap`.

    Raises:
        UsageError: As `bootstrap`.
        ShapeError: If the runs have not the same shape, or ``groups`` another length.
    """
    if first.shape != second.shape:
        raise ShapeError("paired runs have the same cases", came=second.shape, expected=first.shape)
    width = first.shape[-1]

    def difference(totals: Floats, statistic: Statistic) -> Floats:
        return statistic(totals[..., width:]) - statistic(totals[..., :width])

    differences = {name: partial(difference, statistic=statistic) for name, statistic in statistics.items()}
    return bootstrap(np.concatenate([first, second], axis=-1), groups, differences)


def draw_scores(runs: Sequence[Floats], groups: Sequence[str], statistic: Statistic) -> tuple[Floats, Floats]:
    """Scores ``(R,)`` of several runs on the same cases, and those of the same draws for all, ``(DRAWS, R)``.

    Each run is ``(N, K)``, row for row the same cases; the rest is as in `bootstrap`.

    Raises:
        UsageError: As `bootstrap`.
        ShapeError: If there is no run, the runs have not the same shape, or ``groups`` another length.
    """
    if not runs or len({run.shape for run in runs}) > 1:
        raise ShapeError("runs to rank have the same cases", came=[run.shape for run in runs], expected="equal shapes")
    sums = _group_sums(np.concatenate(runs, axis=-1), groups)
    totals = np.concatenate([sums.sum(axis=0)[None], *(weights @ sums for weights in _weights(len(sums)))])
    scores = statistic(np.stack(np.split(totals, len(runs), axis=-1), axis=-2))  # (1 + DRAWS, R)
    return scores[0], scores[1:]


def _group_sums(columns: Floats, groups: Sequence[str]) -> Floats:
    """Add up the rows of each group: ``(N, K)`` to ``(G, K)``, groups in the order of their labels."""
    if columns.ndim != 2 or len(columns) != len(groups):
        raise ShapeError("one group label for each case", came=(columns.shape, len(groups)), expected="(N, K) and N")
    if not len(groups):
        raise UsageError("no interval without cases", came="0 cases", expected="at least one")
    labels, where = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)
    sums = np.zeros((len(labels), columns.shape[1]))
    np.add.at(sums, where, columns)
    return sums


def _weights(groups: int) -> Iterator[Floats]:
    """How often each group comes up in each draw, ``(rows, G)`` at a time, so that large sets fit in memory."""
    rng = np.random.default_rng(SEED)
    chances = np.full(groups, 1 / groups)
    at_once = max(1, _WEIGHTS_AT_ONCE // groups)
    for start in range(0, DRAWS, at_once):
        yield rng.multinomial(groups, chances, size=min(at_once, DRAWS - start)).astype(np.float64)


def _interval(value: float, drawn: Floats) -> Interval:
    """Percentile interval of the draws; draws in which the score is not defined are left out."""
    defined = drawn[~np.isnan(drawn)]
    ends = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist() if len(defined) else [math.nan, math.nan]
    return Interval(value=value, low=ends[0], high=ends[1])
