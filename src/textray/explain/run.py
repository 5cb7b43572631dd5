"""Explanations of films: what is explained, and a picture and a record of each, whole or not at all."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from textray import __version__
from textray.errors import DiskError, InputError, OutputError, TextRayError, UsageError
from textray.inference import record, results
from textray.inference.bundle import Bundle
from textray.inference.inputs import Item
from textray.inference.run import NOT_IMAGE, failed_row, is_no_picture, same_file
from textray.inference.segment_run import Plan, Row, done_row
from textray.inference.segmenter import Predictor
from textray.io.files import mark
from textray.io.write import check_writable, is_own_picture, write_json, write_picture
from textray.records import ZONE_NAMES, Grid, Prediction, Zones
from textray.text.tables import Words
from textray.text.zones import sentence, write

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
    needs_words(predictor.bundle)
    results.clean(plan.out)
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
    found = None if plan.overwrite else results.read_record(places["record"], SCHEMA, largest=_LARGEST_RECORD)
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
        "convention": convention(prediction),
        "lesion": prediction.record["lesion"],
        explainer.kind: explanation.values,
        "warnings": prediction.record["warnings"],
        "settings": used,
        "outputs": {kind: path.name for kind, path in places.items()},
    }
    check_writable(folder)
    results.write_together(
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
    found = results.read_record(places["record"], SCHEMA, largest=_LARGEST_RECORD)
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
        raise results.write_failure(folder, error) from error


# What every explanation gives, and what a run needs of the code that makes one.


@dataclass(frozen=True, kw_only=True, eq=False)
class Explanation:
    """An explanation of one film.

    Attributes:
        values: Numbers and words for the record, JSON values.
        picture: The page, ``(H, W, 3)`` uint8.
    """

    values: dict[str, Any]
    picture: NDArray[np.uint8]


class Explainer(Protocol):
    """One kind of explanation.

    Attributes:
        kind: Its name; part of the names of the files.
        needs_words: True where a film without words cannot be explained.
        settings: What besides film, words and weights decides the result; JSON values.
    """

    kind: str
    needs_words: bool
    settings: dict[str, Any]

    def explain(self, predictor: Predictor, prediction: Prediction) -> Explanation:
        """Explain what the network made of a film.

        Raises:
            InputError: If the film's words cannot be explained.
        """
        ...


# What is explained: a film with its words, segmented as usual, and how its sides are called.

SIDES = "Zones are named by the viewer's left and right, the sides of the picture, unless the patient's are named."


def needs_words(bundle: Bundle) -> None:
    """Refuse a network that reads no text, or captions without zones.

    Raises:
        UsageError: If the bundle has no text bank, or one of captions.
    """
    if bundle.captions:
        raise UsageError(
            f"model {bundle.name} reads captions that name no zones, and only zones are explained",
            expected="a model of chest images that reads text",
            do="Name one with --model",
        )
    if bundle.text_encoder is None:
        raise UsageError(
            f"model {bundle.name} reads no text, so words and zones change nothing in it",
            came=bundle.model,
            expected="a model that reads text",
            do="Name one with --model",
        )


def zones_of(prediction: Prediction) -> Zones:
    """The zones whose sentence the network was given, by image side.

    Raises:
        InputError: If it was given none.
    """
    if prediction.report is None:
        raise InputError(
            "there are no words to explain: the network worked from the picture alone",
            do="Name a side and a level with --text, such as 'right lower zone'",
            code="E_NO_ZONE",
        )
    return prediction.report.zones


def convention(prediction: Prediction) -> dict[str, str]:
    """Whose left and right the result means, in words and for programs."""
    text = prediction.record["text"]
    given = text["laterality"] if prediction.report is not None else None
    place = {
        "tag": "by the film's own tag",
        "assumed": "assumed from the usual film, which the file does not confirm",
        "undefined": "not to be placed on this film",
    }[prediction.grid.sides_from]
    left = "right" if prediction.grid.mirrored else "left"
    told = f"The patient's left is on the viewer's {left} ({place})."
    if prediction.grid.sides_from == "undefined":
        told = f"The patient's sides are {place}."
    return {
        "zones": "viewer",
        "words_given": "none" if given is None else str(given),
        "patient_sides": prediction.grid.sides_from,
        "text": f"{SIDES} {told}"
        + ("" if given is None else f" The words given meant the {given}'s." if given != "unknown" else ""),
    }


def patient_words(zones: Zones, grid: Grid) -> str | None:
    """The sentence of zones by the patient's sides, ``None`` where they cannot be placed or there is no zone."""
    if not zones:
        return None
    try:
        return write(zones, laterality="patient", grid=grid)
    except TextRayError:
        return None


def describe_zones(zones: Zones, grid: Grid) -> dict[str, Any]:
    """Zones for a record: names by image side, and the sentence by the viewer's and by the patient's sides."""
    return {
        "present": [name for name, present in zip(ZONE_NAMES, zones.present, strict=True) if present],
        "bank_row": zones.index if zones else None,
        "viewer": sentence(zones) if zones else None,
        "patient": patient_words(zones, grid),
    }


def dice(mask: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Overlap of two masks, 1 where both are empty."""
    total = int(mask.sum()) + int(other.sum())
    return 1.0 if total == 0 else 2 * int((mask & other).sum()) / total
