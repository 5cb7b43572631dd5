"""What a grounding evaluation tells of its cases: a table of each of them, scores of each row, and differences."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from textray.inference.grounding_cases import Found, PhraseCase, Row
from textray.metrics import intervals
from textray.metrics.grounding import (
    THRESHOLDS,
    EmptyPrediction,
    best_threshold,
    case_columns,
    class_statistics,
    skipped,
    statistics,
    threshold_table,
)
from textray.metrics.score_map import Normalise

_PAIRED = ("iou", "dice")

_FIELDS = (
    "image", "patient", "label", "phrase", "row", "told", "normalise",
    *(f"iou_{t}" for t in THRESHOLDS), *(f"dice_{t}" for t in THRESHOLDS), "cnr_signed", "pointing", "marks_nothing",
)  # fmt: skip


def case_table(rows: Mapping[Row, Mapping[int, PhraseCase]]) -> bytes:
    """Cases as CSV; ``marks_nothing`` counts the thresholds that leave nothing of the map.

    The row `Row.SIDED` is left out, since its cases stand under `Row.MODEL`.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_FIELDS)
    for row, cases in rows.items():
        if row is Row.SIDED:
            continue
        for case in cases.values():
            sample = case.sample
            for how, found in case.scores.items():
                at = [found.at(t) for t in THRESHOLDS]
                cnr = "" if math.isnan(found.cnr_signed) else f"{found.cnr_signed:.6f}"
                told = (sample.image_id, sample.patient_id or "", sample.label, sample.phrase, str(row), case.told, how)
                overlap = (f"{value:.6f}" for values in zip(*at, strict=True) for value in values)
                writer.writerow((*told, *overlap, cnr, f"{found.pointing:.6f}", found.marks_nothing))
    return text.getvalue().encode()


def row_scores(cases: Sequence[PhraseCase], how: Normalise, rule: EmptyPrediction) -> dict[str, Any]:
    """Scores of a row under one normalisation: of the whole set, by threshold and by class."""
    found = [case.scores[how] for case in cases]
    columns, classes = case_columns(found, [case.sample.label for case in cases], empty_prediction=rule)
    wanted = {("", name): value for name, value in statistics(len(classes)).items()}
    if len(classes) > 1:
        for place, label in enumerate(classes):
            wanted |= {(label, name): value for name, value in class_statistics(place, len(classes)).items()}
    keys = list(wanted)
    values = intervals.bootstrap(
        columns, [case.sample.group for case in cases], {str(i): wanted[key] for i, key in enumerate(keys)}
    )
    by_key = {key: values[str(i)].to_dict() for i, key in enumerate(keys)}
    totals = columns.sum(axis=0)
    return {
        "cases": len(cases),
        "scores": {name: value for (label, name), value in by_key.items() if not label},
        "classes": {
            label: {name: by_key[label, name] for name in statistics(1)} for label in classes if len(classes) > 1
        },
        "thresholds": threshold_table(totals, len(classes)),
        "best_threshold": dict(best_threshold(totals, len(classes))),
        "marks_nothing": skipped(found),
    }


def paired(found: Found, how: Normalise, rule: EmptyPrediction) -> dict[str, Any]:
    """The model minus each control and floor on the phrases of both, on the same draws of patients."""
    own = found.rows.get(Row.MODEL)
    differences: dict[str, Any] = {}
    for row, cases in found.rows.items():
        if own is None or row in (Row.MODEL, Row.SIDED):
            continue
        places = sorted(set(own) & set(cases))
        labels = [own[i].sample.label for i in places]
        first, classes = case_columns([cases[i].scores[how] for i in places], labels, empty_prediction=rule)
        second, _ = case_columns([own[i].scores[how] for i in places], labels, empty_prediction=rule)
        chosen = {name: value for name, value in statistics(len(classes)).items() if name in _PAIRED}
        groups = [own[i].sample.group for i in places]
        values = intervals.paired_difference(first, second, groups, chosen)
        differences[f"model - {row}"] = {"cases": len(places)} | {n: value.to_dict() for n, value in values.items()}
    return differences
