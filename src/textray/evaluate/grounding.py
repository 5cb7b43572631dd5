"""Scores of maps of phrases on a split, always beside floors and controls.

A map that scores less than the mean training mask has not localized anything, and one that scores the same when left
and right are exchanged in its phrase has not read it. So every table holds both: `textray.evaluate.maps` defines the
rows. Results: ``cases.csv``, ``summary.json`` and ``summary.md``, written together at the end.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from textray import registry
from textray.data.base import Reader, Sample, check_kind
from textray.data.studies import refuse_unless_excluded
from textray.errors import LayoutError, UsageError
from textray.evaluate import maps, results
from textray.evaluate.maps import Row
from textray.evaluate.order import Evaluation, Progress, population
from textray.inference.bundle import GroundingBundle
from textray.inference.localizer import Localizer
from textray.metrics import grounding as metrics
from textray.metrics import intervals

_SHOWN_PHRASES = 8
_OF_TRAIN = ("train", "inner", "fit")
_PAIRED = ("iou", "dice")
_FIELDS = (
    "image", "patient", "label", "phrase", "row", "told", "normalise",
    *(f"{name}_{t}" for name in ("iou", "dice") for t in metrics.THRESHOLDS), "cnr_signed", "pointing", "marks_nothing",
)  # fmt: skip
_NOT_POSSIBLE = {
    Row.MIRRORED: "no phrase says something else when left and right are exchanged",
    Row.SIDED: "no phrase says something else when left and right are exchanged",
    Row.SHUFFLED: "every phrase is the same",
}


@dataclass(frozen=True, kw_only=True)
class PhraseEvaluation(Evaluation):
    """Order of an evaluation of maps; the mean masks come from ``train`` of the same folder, if it has one.

    Attributes:
        floors_only: Score no network, only what every network must beat.
        phrases: Kind of words, one of the data set's; ``None`` for its first.
        normalise: Ranges that maps are brought to, one or more of `textray.metrics.grounding.NORMALISATIONS`.
        sigma: Smoothing in cells of the network's map.
        margin: Border that is left out of every measure, in pixels of the grid of 224.
        empty_prediction: ``zero`` or ``skip``: what a threshold that marks nothing scores.
        per_box: Contrast of each box by itself, then the mean, instead of all boxes together.
    """

    SAMPLE: ClassVar = "phrase"
    COMMAND: ClassVar = "textray evaluate --task grounding"
    OPTIONS: ClassVar = (
        "data", "root", "split", "floors_only", "model", "phrases", "normalise", "sigma", "margin", "empty_prediction",
        "per_box", "captions", "missing_captions", "split_by", "limit", "out",
    )  # fmt: skip

    floors_only: bool = False
    phrases: str | None = None
    normalise: tuple[str, ...] = ("minmax", "none")
    sigma: float = metrics.SIGMA
    margin: int = 0
    empty_prediction: str = "zero"
    per_box: bool = False

    def settings(self) -> maps.Settings:
        """How maps are made and scored; a wrong name or number is a `UsageError`."""
        most = min(maps.GRID) // 2 - 1
        if not 0 <= self.margin <= most:
            raise UsageError("margin is wrong", came=self.margin, expected=f"0 to {most} pixels of the grid")
        known = metrics.NORMALISATIONS
        ranges = tuple(metrics.one_of(known, name, "normalisation of maps") for name in dict.fromkeys(self.normalise))
        if not ranges:
            raise UsageError("no normalisation of maps is named", expected="one or more")
        return maps.Settings(sigma=self.sigma, margin=self.margin, normalisations=ranges, per_box=self.per_box)


def evaluate(order: PhraseEvaluation, *, progress: Progress | None = None) -> dict[str, Any]:
    """Score a grounding bundle on a split and write the results: what ``summary.json`` holds.

    Raises:
        UsageError: If a name or number is wrong, or the weights must not be scored on this data set.
        InputError: If a picture is refused.
        OutputError: If the folder cannot be written to.
    """
    settings = order.settings()
    rule = metrics.one_of(metrics.EMPTY_PREDICTIONS, order.empty_prediction, "rule for empty predictions")
    if order.floors_only and order.model is not None:
        raise UsageError(
            "floors are scored without weights", came=f"model {Path(order.model).name}", do="Leave one of them out"
        )
    bundle = None if order.floors_only else GroundingBundle.load(order.model)
    kind = check_kind(order.data, order.phrases)
    reader = order.open_reader()
    samples = order.choose(reader.phrases(order.split, kind=kind))
    if bundle is not None:
        refuse_unless_excluded(reader, bundle.provenance, order.data)
    results.check_writable(order.out)
    means, reason = _means(reader, order.data, kind, samples, bundle)
    facts = order.facts((f"{sample.image_id}\t{sample.phrase}" for sample in samples), kind=kind) | {
        "model": None if bundle is None else bundle.describe(),
        "protocol": {
            "grid": list(maps.GRID),
            "sigma": order.sigma,
            "margin": order.margin,
            "thresholds": list(metrics.THRESHOLDS),
            "empty_prediction": rule,
            "per_box": order.per_box,
            "training_masks": None if means is None else means.count,
            "training_masks_scored": means is not None and order.split in _OF_TRAIN,
        },
        "not_computed": {} if reason is None else {str(row): reason for row in (Row.MEAN_PHRASE, Row.MEAN_MASK)},
    }
    localizer = None if bundle is None else Localizer(bundle, threads=order.threads)
    return score(localizer, samples, means, settings, order.out, facts, empty_prediction=rule, progress=progress)


def score(
    localizer: Localizer | None,
    samples: Sequence[Sample],
    means: maps.MeanMasks | None,
    settings: maps.Settings,
    out: Path,
    facts: Mapping[str, Any],
    *,
    empty_prediction: metrics.EmptyPrediction = "zero",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score phrases and write the results into a writable folder; ``facts`` open the summary.

    Without a network only floors are scored, and without mean training masks those that need none. It is a
    `UsageError` if no phrase is left to be scored.
    """
    started = time.perf_counter()
    scored = maps.score_phrases(localizer, samples, means, settings, progress=progress)
    if not scored.rows:
        raise UsageError(
            "no phrase is left to be scored",
            came=f"{len(scored.without_truth)} without truth on the grid, "
            f"{len(scored.without_sides)} whose sides cannot be turned",
            expected="one or more",
        )
    kept = [case.sample for case in scored.rows[Row.FULL].values()]
    wordings = Counter(sample.phrase for sample in kept)
    missing = dict(facts.get("not_computed", {}))
    if localizer is not None:
        missing |= {str(row): words for row, words in _NOT_POSSIBLE.items() if row not in scored.rows}
    ranges = settings.normalisations
    summary = {**facts, "task": "grounding", "phrases": len(kept), **population(kept)} | {
        "left_out": {"empty_truth": len(scored.without_truth), "sides_not_turned": len(scored.without_sides)},
        "classes": dict(sorted(Counter(sample.label for sample in kept).items())),
        "wordings": {
            "different": len(wordings),
            # Sentences of radiologists stay out of what is pasted elsewhere: their data sets may not be passed on.
            "most_frequent": {} if facts["data"]["kind"] == "phrase" else dict(wordings.most_common(_SHOWN_PHRASES)),
        },
        "normalisations": list(ranges),
        "meanings": {str(row): maps.MEANINGS[row] for row in scored.rows},
        "not_computed": missing,
        "rows": {
            str(row): {how: row_scores(list(cases.values()), how, empty_prediction) for how in ranges}
            for row, cases in scored.rows.items()
        },
        "paired": {how: paired(scored, how, empty_prediction) for how in ranges},
    }
    summary["seconds"] = round(time.perf_counter() - started, 1)
    return results.write(out, {results.CASES: results.csv_table(_FIELDS, _case_lines(scored))}, summary)


def _means(
    reader: Reader, data: str, kind: str, samples: Sequence[Sample], bundle: GroundingBundle | None
) -> tuple[maps.MeanMasks | None, str | None]:
    """Mean training masks, or why there are none."""
    if "train" not in registry.dataset(data).splits:
        return None, f"{data} has no training part"
    try:
        training = reader.phrases("train", kind=kind)
    except LayoutError as error:
        return None, f"the training part is not under --root: {error.what}"
    except UsageError as error:
        return None, error.what
    if not training:
        return None, f"the training part of {data} holds no phrase"
    grid = maps.evaluation_grid(None if bundle is None else bundle.preprocess)
    return maps.mean_masks(training, grid, (sample.phrase for sample in samples)), None


def _case_lines(scored: maps.ScoredMaps) -> Iterator[tuple[object, ...]]:
    """Lines of the cases; ``marks_nothing`` counts the thresholds that leave nothing of the map.

    The row `Row.SIDED` is left out, since its cases stand under `Row.MODEL`.
    """
    for row, cases in scored.rows.items():
        for case in cases.values() if row is not Row.SIDED else ():
            sample = case.sample
            about = (sample.image_id, sample.patient_id or "", sample.label, sample.phrase, str(row), case.phrase)
            for how, scores in case.scores.items():
                overlaps = zip(*(scores.at(t) for t in metrics.THRESHOLDS), strict=True)
                overlap = (f"{value:.6f}" for values in overlaps for value in values)
                cnr = "" if math.isnan(scores.cnr_signed) else f"{scores.cnr_signed:.6f}"
                yield *about, how, *overlap, cnr, f"{scores.pointing:.6f}", sum(metrics.skipped([scores]).values())


def row_scores(
    cases: Sequence[maps.PhraseCase], how: metrics.Normalise, rule: metrics.EmptyPrediction
) -> dict[str, Any]:
    """Scores of a row under one normalisation: of the whole set, by threshold and by class."""
    scores_of = [case.scores[how] for case in cases]
    columns, classes = metrics.case_columns(scores_of, [case.sample.label for case in cases], empty_prediction=rule)
    groups = [case.sample.group for case in cases]
    by_class = classes if len(classes) > 1 else ()
    wanted = {("", name): value for name, value in metrics.statistics(len(classes)).items()}
    for place, label in enumerate(by_class):
        wanted |= {(label, name): value for name, value in metrics.class_statistics(place).items()}
    scores = intervals.to_dicts(intervals.bootstrap(columns, groups, wanted))
    totals = columns.sum(axis=0)
    return {
        "cases": len(cases),
        "scores": {name: scores["", name] for name in metrics.SCORES},
        "classes": {label: {name: scores[label, name] for name in metrics.SCORES} for label in by_class},
        "thresholds": metrics.threshold_table(totals, len(classes)),
        "best_threshold": metrics.best_threshold(totals, len(classes)),
        "marks_nothing": metrics.skipped(scores_of),
    }


def paired(scored: maps.ScoredMaps, how: metrics.Normalise, rule: metrics.EmptyPrediction) -> dict[str, Any]:
    """The model minus each control and floor on the phrases of both, on the same draws of patients."""
    model = scored.rows.get(Row.MODEL, {})
    differences: dict[str, Any] = {}
    for row, cases in scored.rows.items():
        if not model or row in (Row.MODEL, Row.SIDED):
            continue
        places = sorted(set(model) & set(cases))
        samples = [model[i].sample for i in places]
        labels, groups = [sample.label for sample in samples], [sample.group for sample in samples]
        first, classes = metrics.case_columns([cases[i].scores[how] for i in places], labels, empty_prediction=rule)
        second, _ = metrics.case_columns([model[i].scores[how] for i in places], labels, empty_prediction=rule)
        chosen = {name: value for name, value in metrics.statistics(len(classes)).items() if name in _PAIRED}
        values = intervals.to_dicts(intervals.paired_difference(first, second, groups, chosen))
        differences[f"model - {row}"] = {"cases": len(places)} | values
    return differences
