"""Scores of a segmenter on a split, for each text mode.

Masks are compared on the image's own grid. Results: ``cases.csv`` (one line for each image and mode), ``summary.json``,
``summary.md`` and, if ordered, ``sides.csv``, written together at the end.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from textray import registry
from textray.data.base import Sample, check_masks, check_split, trained_without_report
from textray.errors import DataError, UsageError
from textray.evaluate import results
from textray.evaluate.cases import (
    FREE_MEANINGS,
    MEANINGS,
    Case,
    TextMode,
    Texts,
    counts_of,
    mode_texts,
    parse_modes,
    segment,
    text_of,
)
from textray.evaluate.order import Evaluation, Progress, population
from textray.evaluate.page import HEADLINE, NONE_NOT_TRAINED
from textray.inference import bank
from textray.inference.bundle import Bundle
from textray.inference.segmenter import Predictor
from textray.metrics import intervals
from textray.metrics.segmentation import SCORES, case_columns, check_protocol, empty_counts, ratio_of
from textray.metrics.sides import SideCase, can_tell, side_summary
from textray.metrics.text import TextScorer
from textray.metrics.zones import zone_summary
from textray.records import Zones
from textray.text.zones import write

_MIRRORED = "mirrored"
_RANK = (TextMode.ORACLE, TextMode.GENERATED, TextMode.NONE, TextMode.SHUFFLED)  # the first minus a later one
_MAIN = {name: SCORES[name] for name in HEADLINE}
_CASE_FIELDS = (
    "image", "patient", "mode", "zones", "tp", "fp", "fn", "tn", "dice", "iou", "truth_empty", "prediction_empty",
    "caption",
)  # fmt: skip
_SIDE_FIELDS = (
    "image", "patient", "kind", "zones", "named_true", "contested_true", "named_mirrored", "contested_mirrored",
    "share_true", "share_mirrored", "moved",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class MaskEvaluation(Evaluation):
    """Order of an evaluation of masks.

    Attributes:
        text_mode: Names of `TextMode`; none for ``oracle`` and ``none``, as far as the model can work in them.
        sides: Also measure left-right sensitivity (``sides.csv`` and ``sides`` in the summary).
    """

    SAMPLE: ClassVar = "image"
    OPTIONS: ClassVar = (
        "data", "root", "split", "text_mode", "model", "captions", "missing_captions", "split_by", "limit", "sides",
        "out",
    )  # fmt: skip

    text_mode: tuple[str, ...] = ()
    sides: bool = False


def evaluate(order: MaskEvaluation, *, progress: Progress | None = None) -> dict[str, Any]:
    """Score a bundle on a split and write the results: what ``summary.json`` holds.

    Raises:
        UsageError: If a name or number is wrong, or the model cannot work in a mode; nothing was segmented then.
        DataError: If an image and its mask have different sizes, or the model needs a text that an image lacks.
        OutputError: If the folder cannot be written to.
    """
    named = parse_modes(order.text_mode) if order.text_mode else ()
    bundle = Bundle.load(order.model)
    modes = named or _usual_modes(bundle)
    order = replace(order, text_mode=modes)
    _check_modes(order, bundle)
    check_masks(order.data)
    reader = order.open_reader()
    samples = order.choose(reader.samples(check_split(order.split)))
    if bundle.captions and not bundle.preprocess.colour:  # weights that know captions of films read them as they stand
        samples = [replace(sample, report=replace(sample.report, free=True)) for sample in samples]
    if bundle.needs_text:
        _require_texts(samples, bundle.name)
    if set(modes) != {TextMode.NONE} or order.sides:
        _require_captions(samples, bundle, order)
    results.check_writable(order.out)
    facts = order.facts(sample.image_id for sample in samples) | {
        "model": bundle.describe(),
        "learnt_without_report": None if bundle.text_encoder is None else trained_without_report(bundle.provenance),
        "size": list(bundle.preprocess.size),
        "threshold": bundle.threshold,
        "grid": "native",
    }
    predictor = Predictor(bundle, threads=order.threads)
    return score(predictor, samples, modes, order.out, facts, sides=order.sides, progress=progress)


def score(
    segmenter: Predictor,
    samples: Sequence[Sample],
    modes: Sequence[TextMode],
    out: Path,
    facts: Mapping[str, Any],
    *,
    sides: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Segment samples in each mode and write the results into a writable folder; ``facts`` open the summary.

    ``generated`` is only for a network that writes its own report. ``sides`` also measures left-right sensitivity.
    """
    started = time.perf_counter()
    scorer = TextScorer() if TextMode.GENERATED in modes else None  # loads its packages before the long part
    texts: dict[str, Texts] = {mode: mode_texts(samples, mode, seed=intervals.SEED) for mode in modes}
    if sides:
        reports = {i: sample.report for i, sample in enumerate(samples) if can_tell(sample.report.zones)}
        texts.setdefault(TextMode.ORACLE, reports)
        texts[_MIRRORED] = {i: report.with_zones(report.zones.mirror()) for i, report in reports.items()}
    cases = segment(segmenter, samples, texts, progress=progress)
    by_mode = {mode: list(cases[mode].values()) for mode in modes}
    free = any(sample.report.free for sample in samples)
    fields = _CASE_FIELDS if free else _CASE_FIELDS[:-1]
    lines = (line[: len(fields)] for mode, scored in by_mode.items() for line in _case_lines(mode, scored))
    tables = {results.CASES: results.csv_table(fields, lines)}
    summary = {**facts, **population(samples)} | {
        "text_modes": {str(mode): (FREE_MEANINGS if free else MEANINGS)[mode] for mode in modes},
        "modes": {str(mode): _scores(scored) for mode, scored in by_mode.items()},
        "images_without_text": {str(m): sum(not (c.zones or c.caption) for c in cs) for m, cs in by_mode.items()},
        "empty": {str(mode): empty_counts(counts_of(scored)) for mode, scored in by_mode.items()},
        "paired": {
            f"{high} - {low}": _difference(by_mode[low], by_mode[high])
            for high, low in itertools.combinations(sorted(by_mode, key=_RANK.index), 2)
        },
    }
    if TextMode.NONE in by_mode and facts.get("learnt_without_report") is False:
        summary["text_modes"][TextMode.NONE] += f"; {NONE_NOT_TRAINED}"
    if TextMode.ORACLE in by_mode and TextMode.SHUFFLED in by_mode:
        fit = fit_summary(by_mode[TextMode.ORACLE], by_mode[TextMode.SHUFFLED])
        summary |= {} if fit is None else {"fit": fit}
    if scorer is not None:
        summary["report"] = report_summary(by_mode[TextMode.GENERATED], by_mode.get(TextMode.NONE), scorer)
    if sides:
        films = {
            i: SideCase(
                zones=samples[i].report.zones,
                true_areas=cases[TextMode.ORACLE][i].areas,
                mirrored_areas=mirrored.areas,
                group=samples[i].group,
            )
            for i, mirrored in cases[_MIRRORED].items()
        }
        tables[results.SIDES] = results.csv_table(_SIDE_FIELDS, (_side_line(samples[i], films[i]) for i in films))
        summary["sides"] = side_summary(list(films.values()))
    summary["seconds"] = round(time.perf_counter() - started, 1)
    return results.write(out, tables, summary)


def _usual_modes(bundle: Bundle) -> tuple[TextMode, ...]:
    """Modes of an evaluation that names none."""
    if bundle.text_encoder is None:
        return (TextMode.NONE,)
    return (TextMode.ORACLE,) if bundle.needs_text else (TextMode.ORACLE, TextMode.NONE)


def _check_modes(order: MaskEvaluation, bundle: Bundle) -> None:
    """Refuse text modes that the model cannot work in."""
    modes = order.text_mode
    if TextMode.GENERATED in modes and not bundle.writes_report:
        raise UsageError(
            "text mode 'generated' needs a model that writes its own report, and this model has no report generator",
            expected=", ".join(mode for mode in TextMode if mode is not TextMode.GENERATED),
            do="Leave --text-mode generated out; 'none' scores the model without text.",
        )
    if bundle.text_encoder is None and (order.sides or set(modes) != {TextMode.NONE}):
        raise UsageError(
            f"model {bundle.name} reads no text",
            came=", ".join([*modes, *(["sides"] if order.sides else [])]),
            expected="text mode none only",
        )
    if bundle.needs_text and TextMode.NONE in modes:
        raise UsageError(
            f"model {bundle.name} needs a text: {bundle.model} in its {bundle.form} form cannot work without",
            came=", ".join(modes),
            expected="text modes without none",
            do="Name them, such as --text-mode oracle --text-mode shuffled",
        )


def _require_texts(samples: Sequence[Sample], model: str) -> None:
    without = [sample.image_id for sample in samples if text_of(sample.report) is None]
    if without:
        raise DataError(
            f"model {model} needs a text for each image, and {len(without)} of {len(samples)} have none",
            came=", ".join(without[:3]),
            expected="a caption for each, on chest images one that names zones",
            do="Leave images without a caption out with --missing-captions skip, or take a model that works without",
            code="E_NO_TEXT",
        )


def _require_captions(samples: Sequence[Sample], bundle: Bundle, order: MaskEvaluation) -> None:
    """Refuse captions of a kind that the network does not read: free ones, or ones that name zones."""
    free = registry.dataset(order.data).captions == "free" or any(sample.report.free for sample in samples)
    if free != bool(bundle.captions):
        raise UsageError(
            f"model {bundle.name} reads {'captions' if bundle.captions else 'zones'}, and {order.data} has "
            + ("captions without zones" if free else "captions that name zones"),
            expected="text mode none only, or a model that was trained on such data",
        )
    if free and order.sides:
        raise UsageError(f"captions of {order.data} name no zones, so left and right cannot be exchanged in them")
    texts = sorted({sample.report.text for sample in samples if sample.report.text is not None})
    unknown = [text for text in texts if free and bank.find(text, bundle.captions) is None]
    if unknown:
        raise DataError(
            f"model {bundle.name} does not know {len(unknown)} of {len(texts)} captions of the split",
            came=repr(unknown[0]),
            expected=f"one of the {len(bundle.captions)} that textray info {bundle.name} lists",
            do="Train and export with all parts of the data set in place",
            code="E_UNKNOWN_CAPTION",
        )


# What a summary holds.


def _scores(cases: Sequence[Case]) -> dict[str, dict[str, float | None]]:
    scores = intervals.bootstrap(case_columns(counts_of(cases)), [case.sample.group for case in cases], SCORES)
    check_protocol({name: interval.value for name, interval in scores.items()})
    return intervals.to_dicts(scores)


def _difference(first: Sequence[Case], second: Sequence[Case]) -> dict[str, dict[str, float | None]]:
    """Main scores of the second cases minus those of the first, the same images, on the same draws."""
    columns = [case_columns(counts_of(cases)) for cases in (first, second)]
    groups = [case.sample.group for case in second]
    return intervals.to_dicts(intervals.paired_difference(columns[0], columns[1], groups, _MAIN))


def fit_summary(true: Sequence[Case], shuffled: Sequence[Case]) -> dict[str, Any] | None:
    """How well the zones that a network sees without a text tell captions from those of other images.

    The area under the curve of `textray.inference.film.fit` of all captions of both kinds. Images without one are left
    out; ``None`` if no image has one or the network tells no zones. Both modes have the same images.
    """
    both = [(one, other) for one, other in zip(true, shuffled, strict=True) if None not in (one.fit, other.fit)]
    if not both:
        return None
    cases = [case for kind in zip(*both, strict=True) for case in kind]
    truth = [True] * len(both) + [False] * len(both)
    auc = intervals.bootstrap_auc([case.fit or 0.0 for case in cases], truth, [case.sample.group for case in cases])
    return {"images": len(both), **intervals.to_dicts({"auc": auc})}


def report_summary(cases: Sequence[Case], without: Sequence[Case] | None, scorer: TextScorer) -> dict[str, Any]:
    """Scores of the reports that a network wrote.

    A report is written in the convention of the caption that it is compared with; for the patient's sides that of the
    standard film. If the network found nothing, its report is "no infection.". Captions that affirm or deny no zone
    have nothing to compare with and are left out of ``zones`` and ``text``, which are ``None`` without any.

    The scores ``where_used`` are those of the images with a sentence alone, ``None`` without one; ``without`` are the
    same images without any report, ``None`` if that was not measured.
    """
    used = [i for i, case in enumerate(cases) if case.zones]
    hits = np.array([[bool(case.zones), 1] for case in cases], dtype=np.float64)
    share = intervals.bootstrap(hits, [case.sample.group for case in cases], {"share": ratio_of(0, 1)})
    summary: dict[str, Any] = {
        "used": {"images": len(used), **intervals.to_dicts(share)},
        "scores_where_used": None,
        "none_where_used": None,
        "paired_where_used": None,
    }
    if used:
        with_sentence = [cases[i] for i in used]
        summary["scores_where_used"] = _scores(with_sentence)
        if without is not None:
            same = [without[i] for i in used]
            summary["none_where_used"] = _scores(same)
            summary["paired_where_used"] = _difference(same, with_sentence)
    compared = [case for case in cases if case.sample.report.text is not None and case.sample.report.zones.mentioned]
    summary |= {"images_without_caption": len(cases) - len(compared), "zones": None, "text": None}
    if compared:
        captions = [case.sample.report for case in compared]
        groups = [case.sample.group for case in compared]
        written = [case.zones or Zones() for case in compared]
        words = [write(z, laterality=caption.laterality) for z, caption in zip(written, captions, strict=True)]
        summary["zones"] = zone_summary(written, [caption.zones for caption in captions], groups)
        summary["text"] = scorer.summary(words, [caption.text or "" for caption in captions], groups)
    return summary


# Lines of tables.


def _bits(zones: Zones | None) -> str:
    """Zones of a text, such as ``101000``; empty without text."""
    return "".join("1" if present else "0" for present in zones.present) if zones else ""


def _case_lines(mode: str, cases: Sequence[Case]) -> Iterable[tuple[object, ...]]:
    columns = case_columns(counts_of(cases))
    for case, (dice, iou) in zip(cases, columns[:, 4:6].tolist(), strict=True):
        sample, (tp, fp, fn, tn) = case.sample, case.counts
        yield (
            sample.image_id, sample.patient_id or "", str(mode), _bits(case.zones), tp, fp, fn, tn, dice, iou,
            int(tp + fn == 0), int(tp + fp == 0), case.caption or "",
        )  # fmt: skip


def _side_line(sample: Sample, film: SideCase) -> tuple[object, ...]:
    shares = ("" if share != share else share for share in film.shares.tolist())  # NaN is empty
    return (
        sample.image_id, sample.patient_id or "", film.kind, _bits(film.zones), *film.areas, *shares, int(film.moved)
    )  # fmt: skip
