"""Scores of maps of phrases on a split, always beside floors and controls.

A map that scores less than the mean training mask has not localized anything, and one that scores the same when left
and right are exchanged in its phrase has not read it. So every table holds both: `textray.evaluate.maps`
says what each row is. Results: ``cases.csv``, ``summary.json`` and ``summary.md``, written together at the end.
"""

from __future__ import annotations

import csv
import io
import math
import shlex
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from textray import __version__, registry
from textray.data.base import Reader, Sample, check_kind, fingerprint, open_reader
from textray.data.studies import refuse_unless_excluded
from textray.errors import LayoutError, UsageError
from textray.evaluate import results
from textray.evaluate.maps import (
    GRID,
    MEANINGS,
    Found,
    MeanMasks,
    PhraseCase,
    Row,
    Settings,
    evaluation_grid,
    mean_masks,
    score_phrases,
)
from textray.evaluate.page import grounding_page
from textray.inference.bundle import GroundingBundle
from textray.inference.localizer import Localizer, Locates
from textray.io.write import check_writable
from textray.metrics import intervals
from textray.metrics.grounding import (
    SIGMA,
    THRESHOLDS,
    EmptyPrediction,
    Normalise,
    best_threshold,
    case_columns,
    check_empty_prediction,
    check_normalise,
    class_statistics,
    skipped,
    statistics,
    threshold_table,
)
from textray.provenance import git_state

_SHOWN_PHRASES = 8
_OF_TRAIN = ("train", "inner", "fit")


def evaluate(
    *,
    data: str,
    root: Path | None,
    split: str,
    out: Path,
    model: str | Path | None = None,
    floors_only: bool = False,
    kind: str | None = None,
    normalise: Sequence[str] = ("minmax", "none"),
    sigma: float = SIGMA,
    margin: int = 0,
    empty_prediction: str = "zero",
    per_box: bool = False,
    split_by: str | None = None,
    threads: int | None = None,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Score a grounding bundle on a split and write ``cases.csv``, ``summary.json`` and ``summary.md`` into ``out``.

    Args:
        data: Registry name of a data set that says where phrases are true.
        root: Its folder.
        split: Name of the split; the mean masks come from ``train`` of the same folder, where it has one.
        out: Folder of the results.
        model: Name of weights inside the package, or a bundle folder; ``None`` for the default weights.
        floors_only: Score no network, only what every network must beat.
        kind: Which words are asked, one of the data set's kinds; ``None`` takes its first.
        normalise: Ranges that maps are brought to, one or more of `textray.metrics.grounding.NORMALISATIONS`.
        sigma: Smoothing in cells of the network's map.
        margin: Border that is left out of every measure, in pixels of the grid of 224.
        empty_prediction: ``zero`` or ``skip``: what a threshold that marks nothing scores.
        per_box: Contrast of each box by itself, then the mean, instead of all boxes together.
        split_by: How the data set is cut; ``None`` takes its first way.
        threads: Threads of the network; ``None`` is one for each processor.
        limit: Score only so many phrases, spread evenly over the split.
        progress: Called with the number of phrases done and of all.

    Returns:
        What ``summary.json`` holds.

    Raises:
        UsageError: If a name or number is wrong, or the weights must not be scored on this data set.
        InputError: If a picture is refused.
        OutputError: If ``out`` cannot be written to.
    """
    settings = Settings(
        sigma=sigma,
        margin=_margin(margin),
        normalisations=_normalisations(normalise),
        per_box=per_box,
        seed=intervals.SEED,
    )
    rule = check_empty_prediction(empty_prediction)
    if floors_only and model is not None:
        raise UsageError(
            "floors are scored without weights", came=f"model {Path(model).name}", do="Leave one of them out"
        )
    bundle = None if floors_only else GroundingBundle.load(model)
    asked = check_kind(data, kind)
    reader = open_reader(data, root, split_by=split_by)
    samples = _limited(reader.phrases(split, kind=asked), limit)
    if not samples:
        raise UsageError(f"split {split} of {data} holds no phrase", do=f"See {registry.dataset(data).card}.")
    if bundle is not None:
        refuse_unless_excluded(reader, bundle.provenance, data)
    check_writable(out)
    means, reason = _means(reader, data, asked, samples, bundle)
    facts: dict[str, Any] = {
        "textray": __version__,
        "task": "grounding",
        "model": None if bundle is None else bundle.describe(),
        "data": {
            "name": data,
            "split": split,
            "split_by": split_by or next(iter(registry.dataset(data).protocols), None),
            "kind": asked,
            "laterality": registry.dataset(data).laterality,
            "ids_sha256": fingerprint(f"{sample.image_id}\t{sample.phrase}" for sample in samples),
            "limit": limit,
        },
        "protocol": {
            "grid": list(GRID),
            "sigma": sigma,
            "margin": margin,
            "thresholds": list(THRESHOLDS),
            "empty_prediction": rule,
            "per_box": per_box,
            "training_masks": None if means is None else means.count,
            "training_masks_scored": means is not None and split in _OF_TRAIN,
        },
        "not_computed": {} if reason is None else {str(row): reason for row in (Row.MEAN_PHRASE, Row.MEAN_MASK)},
        "command": _command(
            model, floors_only, data, root, split, kind, normalise, sigma, margin, rule, per_box, split_by, limit
        ),
        "git": git_state(Path(__file__).parent),
    }
    localizer = None if bundle is None else Localizer(bundle, threads=threads)
    return score(localizer, samples, means, settings, out, facts, empty_prediction=rule, progress=progress)


def score(
    localizer: Locates | None,
    samples: Sequence[Sample],
    means: MeanMasks | None,
    settings: Settings,
    out: Path,
    facts: Mapping[str, Any],
    *,
    empty_prediction: EmptyPrediction = "zero",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Score phrases and write the results; what `evaluate` does once it has opened everything.

    Args:
        localizer: The network; ``None`` for floors alone.
        samples: The phrases.
        means: Mean training masks; ``None`` where there are none.
        settings: How maps are made and scored.
        out: Folder of the results, writable.
        facts: What the summary says of model, data and run.
        empty_prediction: What a threshold that marks nothing scores.
        progress: Called with the number of phrases done and of all.

    Raises:
        UsageError: If no phrase is left to be scored.
    """
    started = time.perf_counter()
    found = score_phrases(localizer, samples, means, settings, progress=progress)
    if not found.rows:
        raise UsageError(
            "no phrase is left to be scored",
            came=f"{len(found.without_truth)} without truth on the grid, {len(found.without_sides)} whose sides cannot "
            "be turned",
            expected="one or more",
        )
    kept = [case.sample for case in found.rows[Row.FULL].values()]
    classes = Counter(sample.label for sample in kept)
    wordings = Counter(sample.phrase for sample in kept)
    missing = dict(facts.get("not_computed", {}))
    if localizer is not None:
        missing |= {str(row): words for row, words in _UNASKED.items() if row not in found.rows}
    summary = dict(facts) | {
        "phrases": len(kept),
        "images": len({sample.image_path for sample in kept}),
        "patients": len({sample.patient_id for sample in kept} - {None}),
        "images_without_patient": len({sample.image_path for sample in kept if sample.patient_id is None}),
        "left_out": {"empty_truth": len(found.without_truth), "sides_not_turned": len(found.without_sides)},
        "classes": dict(sorted(classes.items())),
        "wordings": {
            "different": len(wordings),
            # Sentences of radiologists stay out of what is pasted elsewhere: their data sets may not be passed on.
            "most_frequent": {} if facts["data"]["kind"] == "phrase" else dict(wordings.most_common(_SHOWN_PHRASES)),
        },
        "estimator": intervals.ESTIMATOR,
        "draws": intervals.DRAWS,
        "seed": intervals.SEED,
        "normalisations": list(settings.normalisations),
        "meanings": {str(row): MEANINGS[row] for row in found.rows},
        "not_computed": missing,
        "rows": {
            str(row): {how: row_scores(list(cases.values()), how, empty_prediction) for how in settings.normalisations}
            for row, cases in found.rows.items()
        },
        "paired": {how: paired(found, how, empty_prediction) for how in settings.normalisations},
    }
    summary["seconds"] = round(time.perf_counter() - started, 1)
    tables = {results.CASES: case_table(found.rows)}
    return results.write(out, tables, summary, page=grounding_page)


_UNASKED = {
    Row.MIRRORED: "no phrase says something else when left and right are exchanged",
    Row.SIDED: "no phrase says something else when left and right are exchanged",
    Row.SHUFFLED: "every phrase is the same",
}


def _means(
    reader: Reader,
    data: str,
    kind: str,
    samples: Sequence[Sample],
    bundle: GroundingBundle | None,
) -> tuple[MeanMasks | None, str | None]:
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
    grid = evaluation_grid(None if bundle is None else bundle.preprocess)
    return mean_masks(training, grid, (sample.phrase for sample in samples)), None


def _normalisations(names: Sequence[str]) -> tuple[Normalise, ...]:
    found = tuple(dict.fromkeys(check_normalise(name) for name in names))
    if not found:
        raise UsageError("no normalisation of maps is named", expected="one or more")
    return found


def _margin(margin: int) -> int:
    if not 0 <= margin < min(GRID) // 2:
        raise UsageError("margin is wrong", came=margin, expected=f"0 to {min(GRID) // 2 - 1} pixels of the grid")
    return margin


def _limited(samples: list[Sample], limit: int | None) -> list[Sample]:
    if limit is None or limit >= len(samples):
        return samples
    if limit < 1:
        raise UsageError("limit of phrases is wrong", came=limit, expected="1 or more")
    return [samples[i * len(samples) // limit] for i in range(limit)]


def _command(
    model: str | Path | None,
    floors_only: bool,
    data: str,
    root: Path | None,
    split: str,
    kind: str | None,
    normalise: Sequence[str],
    sigma: float,
    margin: int,
    rule: EmptyPrediction,
    per_box: bool,
    split_by: str | None,
    limit: int | None,
) -> str:
    """The command line of this run; folders by placeholders, since a path may name persons."""
    words = ["textray", "evaluate", "--task", "grounding", "--data", data]
    words += [] if root is None else ["--root", "ROOT"]
    words += ["--split", split]
    words += ["--floors-only"] if floors_only else []
    words += [] if model is None else ["--model", Path(model).name]
    words += [] if kind is None else ["--phrases", kind]
    words += [] if tuple(normalise) == ("minmax", "none") else [w for how in normalise for w in ("--normalise", how)]
    words += [] if sigma == SIGMA else ["--sigma", str(sigma)]
    words += [] if margin == 0 else ["--margin", str(margin)]
    words += [] if rule == "zero" else ["--empty-prediction", rule]
    words += ["--per-box"] if per_box else []
    words += [] if split_by is None else ["--split-by", split_by]
    words += [] if limit is None else ["--limit", str(limit)]
    return shlex.join([*words, "--out", "OUT"])


# What a grounding evaluation tells of its cases: a table of each of them, scores of each row, and differences.

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
