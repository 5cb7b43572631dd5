"""Scores of a segmenter on whole films, normal and sick ones, by source: presence of lesions, healthy films, lungs.

Each film is read without words and with "The lungs are clear." Results: ``cases.csv`` (one line for each film),
``summary.json`` and ``summary.md``, written together at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from textray.data.base import Sample, check_split, naming
from textray.errors import UsageError
from textray.evaluate import results
from textray.evaluate.order import Evaluation, Progress, population
from textray.inference.bank import Prompt
from textray.inference.bundle import Bundle
from textray.inference.segmenter import Predictor
from textray.metrics import intervals
from textray.metrics.intervals import Interval
from textray.metrics.segmentation import ratio_of

BATCH = 8
EVERY = "all"
"""All sources together."""
_FIELDS = (
    "image", "patient", "source", "label", "finding", "presence", "area", "area_denied", "lung_left", "lung_right",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FilmEvaluation(Evaluation):
    """Order of an evaluation of whole films."""

    SAMPLE: ClassVar = "image"
    OPTIONS: ClassVar = ("data", "root", "split", "model", "limit", "out")


@dataclass(frozen=True, kw_only=True)
class FilmCase:
    """What was found in one film: shares of its pixels without words (``area``) and with all zones denied."""

    sample: Sample
    presence: float | None
    area: float
    area_denied: float
    lungs: tuple[float, float] | None  # Dice of the lung at the image's left and at its right


def evaluate(order: FilmEvaluation, *, progress: Progress | None = None) -> dict[str, Any]:
    """Score a bundle on the films of a split and write the results: what ``summary.json`` holds.

    Raises:
        UsageError: If the data set says nothing about whole films, or the model needs a text.
        OutputError: If the folder cannot be written to.
    """
    started = time.perf_counter()
    bundle = Bundle.load(order.model)
    if bundle.needs_text:
        raise UsageError(f"model {bundle.name} needs a text, and films of {order.data} have none")
    samples = order.choose(order.open_reader().samples(check_split(order.split)))
    if any(sample.finding is None for sample in samples):
        raise UsageError(f"data set {order.data} does not say which films show a lesion")
    results.check_writable(order.out)
    cases = look(Predictor(bundle, threads=order.threads), samples, progress=progress)
    summary = {
        **order.facts(sample.image_id for sample in samples),
        "task": "films",
        "model": bundle.describe(),
        "size": list(bundle.preprocess.size),
        "threshold": bundle.threshold,
        "presence_threshold": None if bundle.bounds is None else bundle.bounds.threshold,
        **population(samples),
        "sources": {
            name: source_scores([case for case in cases if name in (EVERY, case.sample.source)])
            for name in [*sorted({case.sample.source for case in cases}), EVERY]
        },
    }
    summary["seconds"] = round(time.perf_counter() - started, 1)
    return results.write(order.out, {results.CASES: results.csv_table(_FIELDS, map(_line, cases))}, summary)


def look(segmenter: Predictor, samples: Sequence[Sample], *, progress: Progress | None = None) -> list[FilmCase]:
    """Segment films without words, and with words that deny every lesion."""
    way, bundle = segmenter.preprocess, segmenter.bundle
    leasts = (0.0, 0.0) if bundle.bounds is None else (bundle.bounds.threshold, bundle.bounds.clear_above)
    cases = []
    for start in range(0, len(samples), BATCH):
        batch = samples[start : start + BATCH]
        images = [naming(sample.image_path, way.read) for sample in batch]
        pixels = np.stack([way.apply(image) for image in images])
        prompts = [Prompt.NO_REPORT] * len(batch)
        found = segmenter.infer(pixels, prompts)
        denied = segmenter.infer(pixels, prompts, np.ones((len(batch), 6), np.float32))
        for i, (sample, image) in enumerate(zip(batch, images, strict=True)):
            presence = None if found.presence is None else float(found.presence[i])
            areas = [  # emptied as `Predictor.segment` does
                float((way.restore(one.probability[i], image.grid) >= bundle.threshold).mean())
                if presence is None or presence >= least
                else 0.0
                for one, least in zip((found, denied), leasts, strict=True)
            ]
            lungs = None
            if found.lungs is not None and sample.lungs_path is not None:
                truth = sample.read_lungs(image.grid.shape)
                planes = [way.restore_coarse(plane, image.grid) >= 0.5 for plane in found.lungs[i]]
                lungs = _dice(planes[0], truth[0]), _dice(planes[1], truth[1])
            cases.append(FilmCase(sample=sample, presence=presence, area=areas[0], area_denied=areas[1], lungs=lungs))
        if progress is not None:
            progress(start + len(batch), len(samples))
    return cases


def source_scores(cases: Sequence[FilmCase]) -> dict[str, Any]:
    """Scores of the films of one source with their intervals; ``None`` where there are no such films.

    ``unmarked`` are normal films whose mask is empty, ``area`` is the mean share of their pixels that is marked; both
    also with every lesion denied. ``presence_auc`` is the chance that a sick film has a higher probability of a lesion
    than a normal one.
    """
    normal = [case for case in cases if not case.sample.finding]
    sick = [case for case in cases if case.sample.finding]
    judged = [case for case in cases if case.presence is not None]
    auc = None
    if judged and normal and sick:
        auc = intervals.bootstrap_auc(
            [case.presence or 0.0 for case in judged],
            [bool(case.sample.finding) for case in judged],
            [case.sample.group for case in judged],
        )
    drawn = [case for case in cases if case.lungs is not None]
    return {
        "normal": len(normal),
        "sick": len(sick),
        "presence_auc": _row(auc),
        "unmarked": _mean(normal, lambda case: case.area == 0),
        "unmarked_denied": _mean(normal, lambda case: case.area_denied == 0),
        "marked_sick": _mean(sick, lambda case: case.area > 0),
        "area": _mean(normal, lambda case: case.area),
        "area_denied": _mean(normal, lambda case: case.area_denied),
        "lungs": len(drawn),
        "lung_left": _mean(drawn, lambda case: case.lungs[0] if case.lungs else 0.0),
        "lung_right": _mean(drawn, lambda case: case.lungs[1] if case.lungs else 0.0),
    }


def _mean(cases: Sequence[FilmCase], value: Callable[[FilmCase], float]) -> dict[str, float | None] | None:
    if not cases:
        return None
    columns = np.array([[float(value(case)), 1.0] for case in cases])
    scores = intervals.bootstrap(columns, [case.sample.group for case in cases], {"mean": ratio_of(0, 1)})
    return intervals.to_dicts(scores)["mean"]


def _row(interval: Interval | None) -> dict[str, float | None] | None:
    return None if interval is None else intervals.to_dicts({"auc": interval})["auc"]


def _dice(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    sizes = int(found.sum()) + int(truth.sum())
    return 1.0 if sizes == 0 else 2 * int((found & truth).sum()) / sizes


def _line(case: FilmCase) -> tuple[object, ...]:
    sample, lungs = case.sample, case.lungs or ("", "")
    presence = "" if case.presence is None else round(case.presence, 6)
    return (
        sample.image_id, sample.patient_id or "", sample.source, sample.label, int(bool(sample.finding)), presence,
        round(case.area, 6), round(case.area_denied, 6), *lungs,
    )  # fmt: skip
