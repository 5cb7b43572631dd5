"""From which probability on a zone is written into a report: chosen on the split that selects checkpoints."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CANDIDATES = np.linspace(0.02, 0.98, 49)
"""Thresholds that are tried."""
_SWEEPS = 4


def choose_thresholds(probability: NDArray[np.floating], truth: NDArray[np.bool_]) -> tuple[float, ...]:
    """Choose a threshold for each zone, so that zones are told well and few films are left without a sentence.

    Each zone first takes the threshold of its best F1. A film whose zones all stay below theirs would be called free of
    infection, which no film of the training sets is; so the zones are then gone through again, each taking the
    threshold of the highest macro F1 less the share of the films that have zones and would get no sentence, until none
    changes. Of equal ones the lowest is taken. A zone that no film has says nothing about its threshold: 0.5.

    Args:
        probability: ``(N, Z)``, in [0, 1].
        truth: ``(N, Z)``.

    Returns:
        ``Z`` thresholds; a zone is told where its probability is not below its own.
    """
    zones = truth.shape[1]
    told = probability[:, :, None] >= CANDIDATES  # (N, Z, candidates)
    scores = np.stack([f1(told[:, zone], truth[:, zone, None]) for zone in range(zones)])  # (Z, candidates)
    seen = [zone for zone in range(zones) if truth[:, zone].any()]
    middle = int(np.abs(CANDIDATES - 0.5).argmin())
    chosen = [int(scores[zone].argmax()) if zone in seen else middle for zone in range(zones)]
    ill = truth.any(1)
    for _ in range(_SWEEPS):
        before = list(chosen)
        for zone in seen:
            others = np.zeros(len(truth), np.bool_)
            for other in range(zones):
                if other != zone:
                    others |= told[:, other, chosen[other]]
            silent = ~(told[:, zone] | others[:, None])  # (N, candidates)
            share = silent[ill].mean(0)
            chosen[zone] = int((scores[zone] / len(seen) - share).argmax())
        if chosen == before:
            break
    return tuple(float(CANDIDATES[index]) for index in chosen)


def f1(told: NDArray[np.bool_], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """F1 along the first axis, ``2TP / (2TP + FP + FN)``; 1 where nothing is there and nothing told."""
    hit = (told & truth).sum(0)
    total = told.sum(0) + np.broadcast_to(truth, told.shape).sum(0)
    return np.where(total > 0, 2 * hit / np.maximum(total, 1), 1.0)
