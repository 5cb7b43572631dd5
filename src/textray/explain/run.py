"""Explanations of one or many films: a picture and a record of each, written together or not at all."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from textray import __version__
from textray.data.texts import Words
from textray.errors import DiskError, InputError, OutputError, TextRayError
from textray.explain import subject
from textray.explain.explanation import Explainer
from textray.inference import outputs, record
from textray.inference.batch import Row, done_row
from textray.inference.inputs import Item
from textray.inference.plan import Plan
from textray.inference.predictor import Predictor
from textray.inference.run import NOT_IMAGE, failed_row, is_no_picture, same_file
from textray.io.names import mark
from textray.io.write import check_writable, is_own_picture, write_json, write_picture

log = logging.getLogger(__name__)

SCHEMA = "textray.explain/1"
_LARGEST_RECORD = 2**27  # it holds the maps of every token


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
            row = failed_row(Row, item, error.code, str(error), start)
            if not item.named and isinstance(error, InputError) and is_no_picture(item.path, error.code):
                row = replace(row, status="skipped", code=NOT_IMAGE)
        except Exception as error:  # one file must not end the run
            log.debug("unexpected failure", exc_info=True)
            _remove(plan.out / item.folder, item, explainer.kind)
            # The class only: the text of a foreign exception may quote the file, and with it a patient.
            reason = f"unexpected {type(error).__name__}. Report this with the file."
            row = failed_row(Row, item, "E_INTERNAL", reason, start)
        rows.append(row)
        if on_row is not None:
            on_row(rows[-1])
    return rows


def paths(folder: Path, name: str, kind: str) -> dict[str, Path]:
    """The files of an explanation, by kind; the record comes last: where it is, the explanation is complete."""
    return {"picture": folder / f"{name}.{kind}.png", "record": folder / f"{name}.{kind}.json"}


def _explain(predictor: Predictor, plan: Plan, explainer: Explainer, item: Item, words: Words) -> Row:
    start = time.perf_counter()
    folder = plan.out / item.folder
    name = _free_name(folder, item, explainer.kind)
    places = paths(folder, name, explainer.kind)
    side = words.laterality or plan.laterality
    strict = plan.strict_text or explainer.needs_words
    # Words are what is explained: a film without any is told nothing, not what a network would write of it.
    used = record.settings(predictor.bundle, laterality=side, strict_text=strict, text_free="none")
    used = {**used, "explain": {"kind": explainer.kind, **explainer.settings}}
    found = None if plan.overwrite else outputs.read_record(places["record"], SCHEMA, largest=_LARGEST_RECORD)
    if found is not None and places["picture"].is_file():
        sha256 = record.file_sha256(item.path)
        if sha256 is not None and found.get("key") == record.key(sha256, predictor.bundle, words.text, used):
            return done_row(item, "finished", found, places, start)
    prediction = predictor.segment(item.path, words.text, side, strict, text_free="none")
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
    return done_row(item, "done", values, places, start)


def _free_name(folder: Path, item: Item, kind: str) -> str:
    """The item's name, marked where an explanation of another input or a foreign file has it."""
    places = paths(folder, item.name, kind)
    found = outputs.read_record(places["record"], SCHEMA, largest=_LARGEST_RECORD)
    if found is not None:
        same = same_file(found.get("input", {}).get("path"), item.path)
        return item.name if same else f"{item.name}-{mark(item.path)}"
    foreign = places["record"].exists() or (places["picture"].exists() and not is_own_picture(places["picture"]))
    return f"{item.name}-{mark(item.path)}" if foreign else item.name


def _remove(folder: Path, item: Item, kind: str) -> None:
    """Remove an earlier explanation of a film that is now refused, the record first."""
    try:
        places = paths(folder, _free_name(folder, item, kind), kind)
        for path in reversed(places.values()):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise outputs.write_failure(folder, error) from error
