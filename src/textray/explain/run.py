"""Explanations of one or many films: a picture and a record of each, written together or not at all."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from textray import __version__
from textray.errors import DiskError, InputError, OutputError, TextRayError
from textray.explain import subject
from textray.explain.explanation import Explainer
from textray.inference import outputs, record
from textray.inference.batch import NOT_IMAGE, Row, Status
from textray.inference.inputs import Item
from textray.inference.plan import Plan
from textray.inference.predictor import Predictor
from textray.inference.texts import Words
from textray.io.write import check_writable, is_own_picture, write_json, write_picture

log = logging.getLogger(__name__)

SCHEMA = "textray.explain/1"
_LARGEST_RECORD = 2**27


def explain_all(
    predictor: Predictor, plan: Plan, explainer: Explainer, on_row: Callable[[Row], None] | None = None
) -> list[Row]:
    """Work through a plan; a refused file is noted and the rest goes on.

    Args:
        predictor: The loaded network.
        plan: What to do.
        explainer: The kind of explanation.
        on_row: Called with the row of each input as it is known.

    Returns:
        What became of each input.

    Raises:
        UsageError: If the network reads no text.
        DiskError: If the disk is full; what is finished stays.
        OutputError: If a folder of the results cannot be written to.
    """
    subject.needs_words(predictor.bundle)
    outputs.clean(plan.out)
    rows = [Row(path=left.path, status="skipped", code=left.code, reason=left.reason) for left in plan.left_out]
    for row in rows:
        if on_row is not None:
            on_row(row)
    for i, item in enumerate(plan.items):
        words, start = plan.words.get(i, Words(text=None)), time.perf_counter()
        try:
            row = _explain(predictor, plan, explainer, item, words)
        except (DiskError, OutputError):
            raise  # every further file would fail alike
        except TextRayError as error:
            _remove(plan.out / item.folder, item, explainer.kind)
            row = Row(path=item.path, status="failed", code=error.code, reason=str(error))
            if not item.named and (error.code == NOT_IMAGE or _is_no_picture(item.path, error)):
                row = Row(path=item.path, status="skipped", code=NOT_IMAGE, reason=str(error))
        except Exception as error:  # one file must not end the run
            log.debug("unexpected failure", exc_info=True)
            _remove(plan.out / item.folder, item, explainer.kind)
            # The class only: the text of a foreign exception may quote the file, and with it a patient.
            reason = f"unexpected {type(error).__name__}. Report this with the file."
            row = Row(path=item.path, status="failed", code="E_INTERNAL", reason=reason)
        rows.append(_timed(row, start))
        if on_row is not None:
            on_row(rows[-1])
    return rows


def paths(folder: Path, name: str, kind: str) -> dict[str, Path]:
    """The files of an explanation, by kind; the record comes last: where it is, the explanation is complete."""
    return {"picture": folder / f"{name}.{kind}.png", "record": folder / f"{name}.{kind}.json"}


def read_record(path: Path) -> dict[str, Any] | None:
    """An explanation's record that this tool wrote, ``None`` where there is none or the file is something else."""
    try:
        if path.stat().st_size > _LARGEST_RECORD:
            return None
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) and values.get("schema") == SCHEMA else None


def _explain(predictor: Predictor, plan: Plan, explainer: Explainer, item: Item, words: Words) -> Row:
    folder = plan.out / item.folder
    name = _free_name(folder, item, explainer.kind)
    places = paths(folder, name, explainer.kind)
    side = words.laterality or plan.laterality
    strict = plan.strict_text or explainer.needs_words
    used = record.settings(predictor.bundle, laterality=side, strict_text=strict)
    used = {**used, "explain": {"kind": explainer.kind, **explainer.settings}}
    found = None if plan.overwrite else read_record(places["record"])
    if found is not None and places["picture"].is_file():
        sha256 = _hash(item.path)
        if sha256 is not None and found.get("key") == record.key(sha256, predictor.bundle, words.text, used):
            return _row(item, "finished", found, places)
    prediction = predictor.segment(item.path, words.text, side, strict)
    explanation = explainer.explain(predictor, prediction)
    values = {
        "schema": SCHEMA,
        "kind": explainer.kind,
        "textray": __version__,
        "key": record.key(prediction.image.sha256, predictor.bundle, words.text, used),
        **{key: prediction.record[key] for key in ("input", "grid", "model", "text")},
        "convention": subject.convention(prediction),
        "lesion": prediction.record["lesion"],
        explainer.kind: explanation.values,
        "warnings": prediction.record["warnings"],
        "settings": used,
        "outputs": {kind: path.name for kind, path in places.items()},
    }
    check_writable(folder)
    outputs.write_together(
        places,
        {
            "picture": lambda path: write_picture(path, explanation.picture),
            "record": lambda path: write_json(path, values),
        },
    )
    return _row(item, "done", values, places)


def _row(item: Item, status: Status, found: dict[str, Any], places: dict[str, Path]) -> Row:
    return Row(
        path=item.path,
        status=status,
        outputs=places,
        share=found["lesion"]["share"],
        text_mode=found["text"]["mode"],
        warnings=tuple(found["warnings"]),
    )


def _timed(row: Row, start: float) -> Row:
    return replace(row, seconds=time.perf_counter() - start)


def _free_name(folder: Path, item: Item, kind: str) -> str:
    """The item's name, marked where an explanation of another input or a foreign file has it."""
    places = paths(folder, item.name, kind)
    found = read_record(places["record"])
    if found is not None:
        earlier = found.get("input", {}).get("path")
        same = isinstance(earlier, str) and os.path.realpath(earlier) == os.path.realpath(item.path)
        return item.name if same else f"{item.name}-{outputs.mark(item.path)}"
    foreign = places["record"].exists() or (places["picture"].exists() and not is_own_picture(places["picture"]))
    return f"{item.name}-{outputs.mark(item.path)}" if foreign else item.name


def _remove(folder: Path, item: Item, kind: str) -> None:
    """Remove an earlier explanation of a film that is now refused, the record first."""
    try:
        places = paths(folder, _free_name(folder, item, kind), kind)
        for path in reversed(places.values()):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise outputs.write_failure(folder, error) from error


def _is_no_picture(path: Path, error: TextRayError) -> bool:
    return (
        isinstance(error, InputError) and error.code == "E_FORMAT" and path.suffix.lower() not in outputs.IMAGE_SUFFIXES
    )


def _hash(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None  # reading it will say why
