"""Which of two rows is better: both rows see the same draws of patients, seed by seed."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np

from textray.errors import DataError
from textray.inference import evaluation_files
from textray.metrics.intervals import Interval, paired_difference
from textray.metrics.segmentation import Floats, case_columns, dice_per_image, dice_pooled
from textray.reproduce.plan import Comparison
from textray.reproduce.runner import Entry, State

RULE = (
    "together. Better or worse is said only where the interval leaves 0 out and every seed agrees.\n"
    "The interval tells what other patients would change, not what another training would"
)
"""What a page says of its answers, two lines of a paragraph, without the full stop."""
STATISTICS = {"dice_pooled": dice_pooled, "dice_per_image": dice_per_image}


class Verdict(StrEnum):
    """What a comparison comes to."""

    BETTER = "better"
    WORSE = "worse"
    UNDECIDED = "not told apart"
    MISSING = "rows are missing"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The difference of two rows on one data set.

    Attributes:
        comparison: The question.
        differences: Score → the second row minus the first, all seeds together, interval over patients.
        by_seed: Score → the difference of each seed.
        seeds: The seeds that both rows have.
    """

    comparison: Comparison
    differences: dict[str, Interval]
    by_seed: dict[str, tuple[float, ...]]
    seeds: tuple[int, ...]

    def verdict(self, score: str) -> Verdict:
        """Better or worse only where the interval leaves 0 out and every seed says the same."""
        if not self.seeds:
            return Verdict.MISSING
        found, each = self.differences[score], self.by_seed[score]
        if found.low > 0 and min(each) > 0:
            return Verdict.BETTER
        return Verdict.WORSE if found.high < 0 and max(each) < 0 else Verdict.UNDECIDED

    def words(self, score: str) -> str:
        """The verdict, and where it rests on a single seed, that it does."""
        verdict = self.verdict(score)
        alone = len(self.seeds) == 1 and verdict in (Verdict.BETTER, Verdict.WORSE)
        return f"{verdict}, one seed" if alone else str(verdict)


def compare(comparison: Comparison, entries: Sequence[Entry], data: str) -> Answer:
    """Answer a comparison on one data set from the cases of both rows.

    Args:
        comparison: The question.
        entries: Entries of the whole table.
        data: Registry name of the data set.

    Raises:
        DataError: If the rows were scored on other images.
    """
    cases = [_cases(entries, data, name) for name in (comparison.first, comparison.second)]
    seeds = tuple(sorted(cases[0].keys() & cases[1].keys()))
    if not seeds:
        return Answer(comparison=comparison, differences={}, by_seed={}, seeds=())
    if any(cases[0][seed][1] != cases[1][seed][1] for seed in seeds):
        raise DataError(
            f"{comparison.first} and {comparison.second} were scored on other images",
            expected="scores of one split",
            do="Make both rows again, in one --out",
        )
    # The same film of two seeds belongs to the same patient, so seeds add no patients.
    stacked = [np.concatenate([side[seed][0] for seed in seeds]) for side in cases]
    groups = [group for seed in seeds for group in cases[0][seed][1]]
    each: dict[str, list[float]] = {name: [] for name in STATISTICS}
    for seed in seeds:
        first, second = (side[seed][0].sum(axis=0) for side in cases)
        for name, statistic in STATISTICS.items():
            each[name].append(float(statistic(second) - statistic(first)))
    return Answer(
        comparison=comparison,
        differences=paired_difference(stacked[0], stacked[1], groups, STATISTICS),
        by_seed={name: tuple(values) for name, values in each.items()},
        seeds=seeds,
    )


def _cases(entries: Sequence[Entry], data: str, row: str) -> dict[int, tuple[Floats, list[str]]]:
    """Seed → case columns in the order of the images, and the group of each."""
    found = {}
    for entry in entries:
        if entry.row.name == row and entry.data == data and entry.state is State.DONE and entry.folder is not None:
            scores = entry.folder / "scores"
            evaluation_files.check(scores)
            found[int(entry.seed or 0)] = read_cases(scores / evaluation_files.CASES, entry.row.mode)
    return found


def read_cases(path: Path, mode: str) -> tuple[Floats, list[str]]:
    """Case columns and groups of one text mode of a ``cases.csv``, in the order of the images' names."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = sorted((row for row in csv.DictReader(file) if row["mode"] == mode), key=lambda row: row["image"])
    counts = np.array([[int(row[name]) for name in ("tp", "fp", "fn", "tn")] for row in rows], dtype=np.int64)
    return case_columns(counts), [row["patient"] or row["image"] for row in rows]


def mean_and_range(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, smallest and largest; NaN without values."""
    if not values:
        return math.nan, math.nan, math.nan
    return sum(values) / len(values), min(values), max(values)
