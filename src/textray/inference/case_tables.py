"""Tables of what was segmented: one row for each image and text mode, and for each film whose sides were exchanged."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from textray.data.base import Sample
from textray.data.text_modes import TextMode
from textray.inference.cases import Case, counts_of
from textray.metrics.segmentation import case_columns
from textray.metrics.sides import SideCase
from textray.records import Zones

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
