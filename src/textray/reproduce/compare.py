"""Which of two rows is better, and how the scores that a paper prints were averaged.

Two rows are compared on the same draws of patients, seed by seed. For printed scores: pixels of a whole set that are
counted once (pooled) have IoU J and Dice D with J = D / (2 - D) exactly, and the mean over images has J >= D / (2 - D),
by Jensen's inequality. So a printed pair shows how it was made, and rows made in different ways cannot be compared.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from textray.errors import DataError
from textray.evaluate import results
from textray.metrics.grounding import THRESHOLDS
from textray.metrics.intervals import LEVEL, Interval, draw_scores, paired_difference
from textray.metrics.segmentation import SCORES, Statistic, case_columns, ratio_of
from textray.reproduce.tables import Question, Scores

NEAR = 0.5
"""Points above D / (2 - D) below which a row is neither pooled nor likely a mean over images."""
MASK_STATISTICS: Mapping[str, Statistic] = {name: SCORES[name] for name in ("dice_pooled", "dice_per_image")}
PHRASE_STATISTICS: Mapping[str, Statistic] = {"iou": ratio_of(0, 2), "dice": ratio_of(1, 2)}


class Protocol(StrEnum):
    """How a pair of Dice and IoU can have been averaged."""

    POOLED = "pooled"
    PER_IMAGE = "per image"
    UNCLEAR = "unclear"
    IMPOSSIBLE = "impossible"


def implied_iou(dice: float) -> float:
    """D / (2 - D), in percent."""
    return 100 * (dice / 100) / (2 - dice / 100)


def gap(scores: Scores) -> float:
    """J - D / (2 - D) in points."""
    return scores.iou - implied_iou(scores.dice)


def protocol_of(scores: Scores) -> Protocol:
    """The protocol that a printed pair satisfies.

    Pooled where some D and J that round to the printed ones obey J = D / (2 - D); impossible where J lies below;
    per image where it lies above, unclear where that is by less than `NEAR`.
    """
    rounding = 0.5 * 10**-scores.decimals
    if scores.iou < implied_iou(scores.dice - rounding) - rounding:
        return Protocol.IMPOSSIBLE
    if scores.iou <= implied_iou(scores.dice + rounding) + rounding:
        return Protocol.POOLED
    return Protocol.PER_IMAGE if gap(scores) >= NEAR else Protocol.UNCLEAR


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The second row minus the first, score by score: all seeds together, interval over patients, and each seed.

    Both are empty where the rows have no case in common.
    """

    differences: Mapping[str, Interval]
    by_seed: Mapping[str, tuple[float, ...]]

    def words(self, score: str) -> str:
        """Better or worse only where the interval leaves 0 out and every seed says the same; a single one is named."""
        if score not in self.differences:
            return "rows are missing"
        difference, each = self.differences[score], self.by_seed[score]
        better = difference.low > 0 and min(each) > 0
        if not better and not (difference.high < 0 and max(each) < 0):
            return "not told apart"
        return ("better" if better else "worse") + (", one seed" if len(each) == 1 else "")


class Case(NamedTuple):
    """One scored image or phrase: its patient (or itself), and the columns that a statistic takes the totals of."""

    group: str
    columns: tuple[float, ...]


Cases = Mapping[tuple[str, ...], Case]
"""Image, or image and phrase, → its case."""


def answer(
    question: Question,
    first: Mapping[int, Cases],
    second: Mapping[int, Cases],
    statistics: Mapping[str, Statistic] = MASK_STATISTICS,
) -> Answer:
    """Answer a question from the cases that two rows have in common, seed → cases each.

    Masks that were not scored on the same images are a `DataError`.
    """
    if statistics is MASK_STATISTICS:
        for seed in first.keys() & second.keys():
            images = [{key: case.group for key, case in side[seed].items()} for side in (first, second)]
            if images[0] != images[1]:
                raise DataError(
                    f"{question.first} and {question.second} were scored on other images",
                    expected="scores of one split",
                    do="Make both rows again, in one --out",
                )
    seeds = tuple(sorted(first.keys() & second.keys()))
    pairs = {seed: sorted(first[seed].keys() & second[seed].keys()) for seed in seeds}  # a control can have fewer
    if not any(pairs.values()):
        return Answer(differences={}, by_seed={})
    columns = [{s: np.array([side[s][k].columns for k in pairs[s]]) for s in seeds} for side in (first, second)]
    each: dict[str, tuple[float, ...]] = {}
    for name, statistic in statistics.items():
        values = [[float(statistic(side[seed].sum(axis=0))) for seed in seeds] for side in columns]
        each[name] = tuple(b - a for a, b in zip(*values, strict=True))
    # The same film of two seeds belongs to the same patient, so seeds add no patients.
    groups = [second[seed][key].group for seed in seeds for key in pairs[seed]]
    stacked = [np.concatenate([side[seed] for seed in seeds]) for side in columns]
    differences = paired_difference(stacked[0], stacked[1], groups, statistics)
    return Answer(differences=differences, by_seed=each)


@dataclass(frozen=True, kw_only=True)
class Rank:
    """Place of a row among others, and how sure it is on the same draws of patients.

    Attributes:
        score: Pooled Dice, all seeds together.
        kept: Share of the draws in which the row has this very place.
        range: Places between which it is in 95 % of the draws.
        above: Share of the draws in which it is above the next row; ``None`` for the last.
    """

    name: str
    score: float
    kept: float
    range: tuple[int, int]
    above: float | None

    @property
    def apart(self) -> bool:
        """True where the next row is below in 97.5 % of the draws."""
        return self.above is not None and self.above >= 0.5 + LEVEL / 2


def rank(rows: Mapping[str, Mapping[int, Cases]]) -> tuple[Rank, ...]:
    """Rank rows, the best first, by pooled Dice over the seeds and images that all of them have, seed → cases each.

    None without such an image.
    """
    seeds = sorted(set[int].intersection(*(set(of_seed) for of_seed in rows.values()))) if rows else []
    keys = [(seed, key) for seed in seeds for key in sorted(set.intersection(*(set(r[seed]) for r in rows.values())))]
    if not keys:
        return ()
    groups = [next(iter(rows.values()))[seed][key].group for seed, key in keys]
    runs = [np.array([of_seed[seed][key].columns for seed, key in keys]) for of_seed in rows.values()]
    scores, drawn = draw_scores(runs, groups, SCORES["dice_pooled"])
    order = np.argsort(-scores, kind="stable")
    drawn = drawn[:, order]
    places = (-drawn).argsort(axis=1, kind="stable").argsort(axis=1)  # (draws, rows), from 0; ties as the rows stand
    found = []
    for place, (number, name) in enumerate(zip(order, [list(rows)[i] for i in order], strict=True)):
        low, high = np.quantile(places[:, place], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="nearest")
        last = place + 1 == len(order)
        found.append(
            Rank(
                name=name,
                score=float(scores[number]),
                kept=float((places[:, place] == place).mean()),
                range=(int(low) + 1, int(high) + 1),
                above=None if last else float((drawn[:, place] > drawn[:, place + 1]).mean()),
            )
        )
    return tuple(found)


def read_masks(scores: Path, mode: str) -> Cases:
    """Cases of one text mode of an evaluation of masks; files of different runs are a `DataError`."""
    return _read_masks(*_cases_file(scores), mode)


def read_phrases(scores: Path, *, maps: str, how: str, kind: str = "") -> Cases:
    """The same of phrases: a row of maps under one range; mean IoU and Dice over the thresholds.

    Each kind of phrases has a folder in that of the scores.
    """
    return _read_phrases(*_cases_file(scores / kind)).get((maps, how), {})


def _cases_file(scores: Path) -> tuple[Path, int]:
    """The file, and when it was written: one that was written again is read again."""
    results.check(scores)
    path = scores / results.CASES
    return path, path.stat().st_mtime_ns


@cache  # many questions are answered from one file
def _read_masks(path: Path, written: int, mode: str) -> Cases:
    with path.open(encoding="utf-8", newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["mode"] == mode]
    counts = np.array([[int(line[name]) for name in ("tp", "fp", "fn", "tn")] for line in lines], dtype=np.int64)
    return {
        (line["image"],): Case(line["patient"] or line["image"], tuple(values))
        for line, values in zip(lines, case_columns(counts), strict=True)
    }


@cache
def _read_phrases(path: Path, written: int) -> Mapping[tuple[str, str], Cases]:
    cases: dict[tuple[str, str], dict[tuple[str, ...], Case]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            iou, dice = (float(np.mean([float(line[f"{name}_{t}"]) for t in THRESHOLDS])) for name in ("iou", "dice"))
            case = Case(line["patient"] or line["image"], (iou, dice, 1.0))
            cases.setdefault((line["row"], line["normalise"]), {})[line["image"], line["phrase"]] = case
    return cases
