"""Which of two rows of maps is better, phrase by phrase: both see the same draws of patients, seed by seed."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from textray.inference import evaluation_files
from textray.inference.grounding_cases import Row as Asked
from textray.metrics.grounding import THRESHOLDS
from textray.metrics.intervals import paired_difference
from textray.metrics.segmentation import Floats
from textray.reproduce.compare import Answer
from textray.reproduce.plan import Comparison, Row
from textray.reproduce.runner import Entry, State

Key = tuple[str, str]
"""Image and phrase of a case."""


class Case(NamedTuple):
    """Patient of a case, or its image; mean IoU and Dice over the thresholds."""

    group: str
    iou: float
    dice: float


Cases = Mapping[Key, Case]


def _mean(totals: Floats, *, column: int) -> Floats:
    return np.asarray(totals[..., column] / totals[..., -1], np.float64)


STATISTICS = {
    "iou": lambda totals: _mean(totals, column=0),
    "dice": lambda totals: _mean(totals, column=1),
}


def between(comparison: Comparison, entries: Sequence[Entry], kind: str, how: str) -> Answer:
    """Answer a comparison of the networks of two rows.

    Args:
        comparison: The question.
        entries: Entries of the whole table, of one data set of one class.
        kind: Which phrases.
        how: Range that the maps are brought to.
    """
    first, second = (_by_seed(entries, name, kind, how, Asked.MODEL) for name in (comparison.first, comparison.second))
    return _answer(comparison, first, second)


def against(row: Row, other: Asked, question: str, entries: Sequence[Entry], kind: str, how: str) -> Answer:
    """Answer whether the network of a row is better than a floor or control of the same evaluation."""
    first, second = (_by_seed(entries, row.name, kind, how, asked) for asked in (other, Asked.MODEL))
    return _answer(Comparison(question=question, first=str(other), second=row.name), first, second)


def _by_seed(entries: Sequence[Entry], row: str, kind: str, how: str, asked: Asked) -> dict[int, Cases]:
    found: dict[int, Cases] = {}
    for entry in entries:
        if entry.row.name == row and entry.state is State.DONE and entry.folder is not None:
            cases = read_cases(entry.folder / "scores" / kind).get((str(asked), how))
            if cases:
                found[int(entry.seed or 0)] = cases
    return found


def read_cases(scores: Path) -> dict[tuple[str, str], dict[Key, Case]]:
    """Cases of one evaluation by row and range.

    Raises:
        DataError: If its files are not of one run.
    """
    evaluation_files.check(scores)
    path = scores / evaluation_files.CASES
    return _read(path, path.stat().st_mtime_ns)


@cache  # many questions are answered from one file; one that was written again is read again
def _read(path: Path, written: int) -> dict[tuple[str, str], dict[Key, Case]]:
    found: dict[tuple[str, str], dict[Key, Case]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            iou, dice = (float(np.mean([float(line[f"{name}_{t}"]) for t in THRESHOLDS])) for name in ("iou", "dice"))
            case = Case(line["patient"] or line["image"], iou, dice)
            found.setdefault((line["row"], line["normalise"]), {})[line["image"], line["phrase"]] = case
    return found


def _answer(comparison: Comparison, first: Mapping[int, Cases], second: Mapping[int, Cases]) -> Answer:
    seeds = tuple(sorted(first.keys() & second.keys()))
    pairs = {seed: sorted(first[seed].keys() & second[seed].keys()) for seed in seeds}  # a control can have fewer
    if not any(pairs.values()):
        return Answer(comparison=comparison, differences={}, by_seed={}, seeds=())
    # The same film of two seeds belongs to the same patient, so seeds add no patients.
    stacked = [np.array([(*side[s][k][1:], 1.0) for s in seeds for k in pairs[s]]) for side in (first, second)]
    groups = [second[s][k].group for s in seeds for k in pairs[s]]
    each: dict[str, tuple[float, ...]] = {}
    for name in STATISTICS:
        means = [[np.mean([getattr(side[s][k], name) for k in pairs[s]]) for s in seeds] for side in (first, second)]
        each[name] = tuple(float(b - a) for a, b in zip(*means, strict=True))
    differences = paired_difference(stacked[0], stacked[1], groups, STATISTICS)
    return Answer(comparison=comparison, differences=differences, by_seed=each, seeds=seeds)
