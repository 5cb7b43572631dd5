"""Scores of a bundle on a split, for each text mode.

A run reads every image once, preprocesses it once, and asks the network once for each text mode. Masks are compared on
the image's own grid. Results: ``cases.csv`` (one row for each image and mode), ``summary.json``, ``summary.md`` and,
where asked for, ``sides.csv``, written together at the end.
"""

from __future__ import annotations

import csv
import io
import itertools
import logging
import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from textray import __version__, registry
from textray.data.base import Sample, check_split, fingerprint, open_reader, trained_without_report
from textray.errors import DataError, UsageError
from textray.evaluate import results
from textray.evaluate.cases import (
    FREE_MEANINGS,
    MEANINGS,
    Case,
    Segmenter,
    TextMode,
    Texts,
    counts_of,
    mode_texts,
    parse_modes,
    refuse_generated,
    segment,
    told_of,
)
from textray.evaluate.page import HEADLINE, NONE_NOT_LEARNT, report_summary
from textray.inference import bank as known_captions
from textray.inference.bundle import Bundle
from textray.inference.segmenter import Predictor
from textray.io.write import check_writable
from textray.metrics import intervals
from textray.metrics.segmentation import SCORES, case_columns, check_protocol, empty_counts
from textray.metrics.sides import SideCase, can_tell, side_summary
from textray.metrics.text import TextScorer
from textray.provenance import git_state
from textray.records import Zones

log = logging.getLogger(__name__)

_MIRRORED = "mirrored"
_RANK = (TextMode.ORACLE, TextMode.GENERATED, TextMode.NONE, TextMode.SHUFFLED)
"""Of two modes, the one that stands first here has the other subtracted from it."""


def evaluate(
    *,
    data: str,
    root: Path | None,
    split: str,
    text_modes: Sequence[str] = (),
    out: Path,
    model: str | Path | None = None,
    captions: str = "error",
    split_by: str | None = None,
    threads: int | None = None,
    limit: int | None = None,
    sides: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Score a bundle on a split and write ``cases.csv``, ``summary.json`` and ``summary.md`` into ``out``.

    Args:
        data: Registry name of the data set.
        root: Its folder; ``None`` for one that is drawn, such as ``phantom``.
        split: Name of the split.
        text_modes: Of `TextMode`; none of them are those that the model can work in of ``oracle`` and ``none``.
        out: Folder of the results.
        model: Name of weights inside the package, or a bundle folder; ``None`` for the default weights.
        captions: Caption policy of the reader (``error``, ``skip``, ``text-free``).
        split_by: How the data set is cut (``slice`` or ``volume`` for CT); ``None`` takes its first way.
        threads: Threads of the network; ``None`` is one for each processor.
        limit: Score only so many images, spread evenly over the split.
        sides: Also measure left-right sensitivity (``sides.csv`` and ``sides`` in the summary).
        progress: Called with the number of images done and of all.

    Returns:
        What ``summary.json`` holds.

    Raises:
        UsageError: If a name or number is wrong, or the model cannot work in a mode; nothing was segmented then.
        DataError: If an image and its mask have different sizes, or the model needs a text that an image lacks.
        OutputError: If ``out`` cannot be written to.
    """
    named = parse_modes(text_modes) if text_modes else ()
    bundle = Bundle.load(model)
    modes = named or _usual_modes(bundle)
    if TextMode.GENERATED in modes and not bundle.writes_report:
        raise refuse_generated()
    if bundle.text_encoder is None and (sides or set(modes) != {TextMode.NONE}):
        raise UsageError(
            f"model {bundle.name} reads no text",
            came=", ".join([*modes, *(["sides"] if sides else [])]),
            expected="text mode none only",
        )
    if bundle.needs_text and TextMode.NONE in modes:
        raise UsageError(
            f"model {bundle.name} needs a text: {bundle.model} in its {bundle.form} form cannot work without",
            came=", ".join(modes),
            expected="text modes without none",
            do="Name them, such as --text-mode oracle --text-mode shuffled",
        )
    samples = _limited(_samples(data, root, split, captions, split_by), limit)
    if bundle.needs_text:
        _require_texts(samples, bundle.name)
    if set(modes) != {TextMode.NONE} or sides:
        _require_captions(samples, bundle, data, sides)
    check_writable(out)
    predictor = Predictor(bundle, threads=threads)
    summary: dict[str, Any] = {
        "textray": __version__,
        "model": bundle.describe(),
        "learnt_without_report": None if bundle.text_encoder is None else trained_without_report(bundle.provenance),
        "data": {
            "name": data,
            "split": split,
            "split_by": split_by or next(iter(registry.dataset(data).protocols), None),
            "laterality": registry.dataset(data).laterality,
            "ids_sha256": fingerprint(s.image_id for s in samples),
            "limit": limit,
        },
        "size": list(bundle.preprocess.size),
        "threshold": bundle.threshold,
        "grid": "native",
        "command": _command(model, data, root, split, modes, captions, split_by, limit, sides),
        "git": git_state(Path(__file__).parent),
    }
    return score(
        predictor,
        samples,
        modes,
        out,
        summary,
        zone_rows=bundle.zone_rows,
        zone_thresholds=bundle.zone_thresholds,
        captions=bundle.captions,
        sides=sides,
        progress=progress,
    )


def score(
    segmenter: Segmenter,
    samples: Sequence[Sample],
    modes: Sequence[TextMode],
    out: Path,
    facts: Mapping[str, Any],
    *,
    zone_rows: tuple[float, float],
    zone_thresholds: Sequence[float] | None = None,
    captions: Sequence[str] = (),
    sides: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Segment samples in each mode and write the results; what `evaluate` does once it has opened everything.

    Args:
        segmenter: The network.
        samples: What to segment.
        modes: Text modes; ``generated`` for a network that writes its own report only.
        out: Folder of the results, writable.
        facts: What the summary says of model, data and run.
        zone_rows: Heights that split the zones of pixels.
        zone_thresholds: Probabilities from which the network writes a zone; ``None`` where it writes no report.
        captions: Those that the network knows, where its data have free captions.
        sides: Also measure left-right sensitivity.
        progress: Called with the number of images done and of all.
    """
    started = time.perf_counter()
    scorer = TextScorer() if TextMode.GENERATED in modes else None  # asks for its packages before the long part
    texts: dict[str, Texts] = {mode: mode_texts(samples, mode, seed=intervals.SEED) for mode in modes}
    if sides:
        telling = {i: s.report.zones for i, s in enumerate(samples) if can_tell(s.report.zones)}
        texts.setdefault(TextMode.ORACLE, telling)
        texts[_MIRRORED] = {i: zones.mirror() for i, zones in telling.items()}
    cases = segment(
        segmenter,
        samples,
        texts,
        zone_rows=zone_rows,
        zone_thresholds=zone_thresholds,
        captions=captions,
        progress=progress,
    )
    by_mode = {mode: list(cases[mode].values()) for mode in modes}
    free = any(sample.report.free for sample in samples)
    tables = {results.CASES: case_table(by_mode, captions=free)}
    known = {s.patient_id for s in samples if s.patient_id is not None}
    summary = dict(facts) | {
        "images": len(samples),
        "patients": len(known),
        "images_without_patient": sum(s.patient_id is None for s in samples),
        "estimator": intervals.ESTIMATOR,
        "draws": intervals.DRAWS,
        "seed": intervals.SEED,
        "text_modes": {str(mode): (FREE_MEANINGS if free else MEANINGS)[mode] for mode in modes},
        "modes": {str(mode): _scores(found) for mode, found in by_mode.items()},
        "images_without_text": {str(m): sum(not (c.zones or c.caption) for c in found) for m, found in by_mode.items()},
        "empty": {str(mode): empty_counts(counts_of(found)) for mode, found in by_mode.items()},
        "paired": _paired(by_mode),
    }
    if TextMode.NONE in by_mode and facts.get("learnt_without_report") is False:
        summary["text_modes"][TextMode.NONE] += f"; {NONE_NOT_LEARNT}"
    if scorer is not None:
        summary["report"] = _own_report(by_mode[TextMode.GENERATED], by_mode.get(TextMode.NONE), scorer)
    if sides:
        films = {i: _side_case(cases[TextMode.ORACLE][i], case) for i, case in cases[_MIRRORED].items()}
        tables[results.SIDES] = side_table((samples[i], film) for i, film in films.items())
        summary["sides"] = side_summary(list(films.values()))
    summary["seconds"] = round(time.perf_counter() - started, 1)
    return results.write(out, tables, summary)


def _samples(data: str, root: Path | None, split: str, captions: str, split_by: str | None) -> list[Sample]:
    samples = open_reader(data, root, captions=captions, split_by=split_by).samples(check_split(split))
    if not samples:
        raise UsageError(f"split {split} of {data} holds no image", do=f"See {registry.dataset(data).card}.")
    return samples


def _require_texts(samples: Sequence[Sample], model: str) -> None:
    without = [sample.image_id for sample in samples if told_of(sample.report) is None]
    if without:
        raise DataError(
            f"model {model} needs a text for each image, and {len(without)} of {len(samples)} have none",
            came=", ".join(without[:3]),
            expected="a caption for each, on chest images one that names zones",
            do="Leave images without a caption out with --captions skip, or take a model that works without",
            code="E_NO_TEXT",
        )


def _require_captions(samples: Sequence[Sample], bundle: Bundle, data: str, sides: bool) -> None:
    """Refuse to tell a network what it does not understand: free captions, or zones."""
    free = registry.dataset(data).captions == "free"
    if free != bool(bundle.captions):
        raise UsageError(
            f"model {bundle.name} reads {'captions' if bundle.captions else 'zones'}, and {data} has "
            + ("captions without zones" if free else "captions that name zones"),
            expected="text mode none only, or a model that was trained on such data",
        )
    if free and sides:
        raise UsageError(f"captions of {data} name no zones, so left and right cannot be exchanged in them")
    texts = sorted({sample.report.text for sample in samples if sample.report.text is not None})
    unknown = [text for text in texts if free and known_captions.find(text, bundle.captions) is None]
    if unknown:
        raise DataError(
            f"model {bundle.name} does not know {len(unknown)} of {len(texts)} captions of the split",
            came=repr(unknown[0]),
            expected=f"one of the {len(bundle.captions)} that textray info {bundle.name} lists",
            do="Train and export with all parts of the data set in place",
            code="E_UNKNOWN_CAPTION",
        )


def _limited(samples: list[Sample], limit: int | None) -> list[Sample]:
    if limit is None or limit >= len(samples):
        return samples
    if limit < 1:
        raise UsageError("limit of images is wrong", came=limit, expected="1 or more")
    return [samples[i * len(samples) // limit] for i in range(limit)]


def _usual_modes(bundle: Bundle) -> tuple[TextMode, ...]:
    """Modes of an evaluation that names none."""
    if bundle.text_encoder is None:
        return (TextMode.NONE,)
    return (TextMode.ORACLE,) if bundle.needs_text else (TextMode.ORACLE, TextMode.NONE)


def _command(
    model: str | Path | None,
    data: str,
    root: Path | None,
    split: str,
    modes: Sequence[TextMode],
    captions: str,
    split_by: str | None,
    limit: int | None,
    sides: bool,
) -> str:
    """The command line of this run; folders by placeholders, since a path may name persons."""
    words = ["textray", "evaluate", "--data", data]
    words += [] if root is None else ["--root", "ROOT"]
    words += ["--split", split, *(word for mode in modes for word in ("--text-mode", mode))]
    words += [] if model is None else ["--model", Path(model).name]
    words += [] if captions == "error" else ["--captions", captions]
    words += [] if split_by is None else ["--split-by", split_by]
    words += [] if limit is None else ["--limit", str(limit)]
    words += ["--sides"] if sides else []
    return shlex.join([*words, "--out", "OUT"])


def _scores(cases: Sequence[Case]) -> dict[str, dict[str, float | None]]:
    found = intervals.bootstrap(case_columns(counts_of(cases)), [case.sample.group for case in cases], SCORES)
    check_protocol({name: interval.value for name, interval in found.items()})
    return {name: interval.to_dict() for name, interval in found.items()}


def _paired(by_mode: Mapping[TextMode, Sequence[Case]]) -> dict[str, dict[str, dict[str, float | None]]]:
    """For each two modes the differences of the main scores, such as ``generated - none``, on the same draws."""
    statistics = {name: SCORES[name] for name in HEADLINE}
    differences = {}
    for high, low in itertools.combinations(sorted(by_mode, key=_RANK.index), 2):
        columns = [case_columns(counts_of(by_mode[mode])) for mode in (low, high)]
        groups = [case.sample.group for case in by_mode[high]]
        found = intervals.paired_difference(columns[0], columns[1], groups, statistics)
        differences[f"{high} - {low}"] = {name: interval.to_dict() for name, interval in found.items()}
    return differences


def _own_report(cases: Sequence[Case], silent: Sequence[Case] | None, scorer: TextScorer) -> dict[str, Any]:
    """The summary's ``report``; ``silent`` are the same images in mode ``none``, where that was measured."""
    captions = [case.sample.report for case in cases]
    groups = [case.sample.group for case in cases]
    without = None if silent is None else counts_of(silent)
    return report_summary([c.zones for c in cases], captions, counts_of(cases), groups, scorer, without=without)


def _side_case(true: Case, mirrored: Case) -> SideCase:
    zones = true.sample.report.zones
    return SideCase(zones=zones, true_areas=true.areas, mirrored_areas=mirrored.areas, group=true.sample.group)


# Tables of what was segmented: one row for each image and text mode, and for each film whose sides were exchanged.

_CASE_FIELDS = (
    "image", "patient", "mode", "zones", "tp", "fp", "fn", "tn", "dice", "iou", "truth_empty", "prediction_empty",
)  # fmt: skip
_SIDE_FIELDS = (
    "image", "patient", "kind", "zones", "named_true", "contested_true", "named_mirrored", "contested_mirrored",
    "share_true", "share_mirrored", "moved",
)  # fmt: skip


def case_table(by_mode: Mapping[TextMode, Sequence[Case]], *, captions: bool = False) -> bytes:
    """Cases as CSV, by text mode.

    Args:
        by_mode: The cases.
        captions: Add a column with the free caption that was told.
    """
    fields = (*_CASE_FIELDS, "caption") if captions else _CASE_FIELDS
    return _table(fields, (row[: len(fields)] for mode, found in by_mode.items() for row in _case_rows(mode, found)))


def side_table(films: Iterable[tuple[Sample, SideCase]]) -> bytes:
    """Films under their true and their mirrored text as CSV."""
    return _table(_SIDE_FIELDS, (_side_row(sample, film) for sample, film in films))


def _bits(zones: Zones | None) -> str:
    """The zones told to the network, or written by it, such as ``101000``; empty without text."""
    return "".join("1" if present else "0" for present in zones.present) if zones else ""


def _case_rows(mode: str, cases: Sequence[Case]) -> Iterable[tuple[object, ...]]:
    columns = case_columns(counts_of(cases))
    for case, (dice, iou) in zip(cases, columns[:, 4:6].tolist(), strict=True):
        sample, counts = case.sample, case.counts
        yield (
            sample.image_id, sample.patient_id or "", str(mode), _bits(case.zones), counts.tp, counts.fp, counts.fn,
            counts.tn, dice, iou, int(counts.truth_empty), int(counts.prediction_empty), case.caption or "",
        )  # fmt: skip


def _side_row(sample: Sample, film: SideCase) -> tuple[object, ...]:
    shares = ("" if share != share else share for share in (film.share_true, film.share_mirrored))  # NaN is empty
    return (
        sample.image_id, sample.patient_id or "", film.kind, _bits(film.zones), *film.areas, *shares, int(film.moved)
    )  # fmt: skip


def _table(fields: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(fields)
    writer.writerows(rows)
    return text.getvalue().encode()
