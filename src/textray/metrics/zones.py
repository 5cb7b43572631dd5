"""Zones that a report names against those of the caption: accuracy, precision, recall and F1, by zone and over all.

``macro`` is the mean of the zones, ``micro`` counts every zone of every image once, ``exact_match`` is the share of the
images where all six zones are right.

Where something cannot be counted: a zone that neither the captions nor the reports ever name has no precision, recall
or F1 and is left out of the macro mean; a zone that only one of them names has 0 for what would be 0 / 0. Both kinds
are listed in the summary (``never_named``, ``never_written``). A bootstrap draw goes by the same rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from textray.errors import ShapeError
from textray.metrics.intervals import bootstrap, to_dicts
from textray.metrics.segmentation import Floats, Statistic, nanmean, ratio, ratio_of
from textray.records import ZONE_NAMES, Zones

SCORES = ("accuracy", "precision", "recall", "f1")
"""Scores that each zone has."""
OVERALL = ("macro", "micro")
"""Ways over all zones."""

# Columns of an image, 0 or 1: tp of the six zones, fp, fn, tn, then 1 where all six are right, and 1.
_ZONES = len(ZONE_NAMES)
_EXACT, _ONE = 4 * _ZONES, 4 * _ZONES + 1


def zone_summary(written: Sequence[Zones], named: Sequence[Zones], groups: Sequence[str]) -> dict[str, Any]:
    """All scores of the zones of ``N`` reports against those of their captions, with intervals by patient (``groups``).

    Each of `SCORES` has its zones, ``macro`` and ``micro``, each ``{value, low, high}``.

    Raises:
        ShapeError: If the three differ in length.
        UsageError: If there is no image.
    """
    if len(written) != len(named):
        raise ShapeError("one caption for each report", came=(len(written), len(named)), expected="N and N")
    ours, theirs = (np.array([z.present for z in side], np.bool_).reshape(-1, _ZONES) for side in (written, named))
    right = (ours == theirs).all(axis=1, keepdims=True)
    parts = [ours & theirs, ours & ~theirs, ~ours & theirs, ~ours & ~theirs, right, np.ones_like(right)]
    columns = np.concatenate(parts, axis=1).astype(np.float64)
    keys = [(score, of) for score in SCORES for of in (*ZONE_NAMES, *OVERALL)]
    statistics: dict[tuple[str, str], Statistic] = {key: partial(_score, score=key[0], of=key[1]) for key in keys}
    statistics["exact_match", ""] = ratio_of(_EXACT, _ONE)
    scores = to_dicts(bootstrap(columns, groups, statistics))
    by_score = {score: {of: scores[score, of] for of in (*ZONE_NAMES, *OVERALL)} for score in SCORES}
    tp, fp, fn, _ = _counts(columns.sum(axis=0))
    return {
        "images": len(columns),
        **by_score,
        "exact_match": scores["exact_match", ""],
        "never_named": [zone for zone, count in zip(ZONE_NAMES, tp + fn, strict=True) if not count],
        "never_written": [zone for zone, count in zip(ZONE_NAMES, tp + fp, strict=True) if not count],
    }


def _counts(totals: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """True positive, false positive, false negative, true negative, each ``(..., 6)``."""
    tp, fp, fn, tn = (totals[..., k * _ZONES : (k + 1) * _ZONES] for k in range(4))
    return tp, fp, fn, tn


def _rate(score: str, tp: Floats, fp: Floats, fn: Floats, tn: Floats) -> Floats:
    """One of `SCORES` from counts of any shape; NaN where it is not defined."""
    hits, of = {
        "accuracy": (tp + tn, tp + fp + fn + tn),
        "precision": (tp, tp + fp),
        "recall": (tp, tp + fn),
        "f1": (2 * tp, 2 * tp + fp + fn),
    }[score]
    rate = ratio(hits, of, empty=0.0)
    return rate if score == "accuracy" else np.where(tp + fp + fn > 0, rate, np.nan)


def _score(totals: Floats, *, score: str, of: str) -> Floats:
    """One of `SCORES` of a zone or one of `OVERALL`, from totals ``(..., 26)``."""
    counts = _counts(totals)
    if of == "macro":
        return nanmean(_rate(score, *counts))
    tp, fp, fn, tn = (part.sum(axis=-1) if of == "micro" else part[..., ZONE_NAMES.index(of)] for part in counts)
    return _rate(score, tp, fp, fn, tn)
