"""Explanations of films: a run that writes a picture and a record of each, and what all kinds of explanation share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from textray import __version__
from textray.errors import InputError, UsageError
from textray.inference import own_report, results
from textray.inference.bundle import Bundle
from textray.inference.inputs import Item
from textray.inference.segment_run import Plan, Segmenting
from textray.inference.segmenter import Predictor
from textray.io.page import Page, Picture, line_height, wrap
from textray.io.write import write_picture
from textray.records import ZONE_NAMES, Grid, Laterality, Prediction, Zones, ZoneState


class Explaining(Segmenting):
    """An explanation of each film of a plan, of the kind of an explainer; a network that reads no text is refused."""

    SUMMARY, RECORD = "textray.explain-run/1", "textray.explain/1"
    VOLUMES = False
    LARGEST_RECORD = 2**27  # it holds the maps of every token

    def __init__(self, predictor: Predictor, plan: Plan, explainer: Explainer) -> None:
        needs_words(predictor.bundle)
        # Words are explained: a film without any has no report, not one that the network writes.
        strict = plan.strict_text or explainer.needs_words
        super().__init__(predictor, replace(plan, text_free="none", strict_text=strict))
        self.explainer = explainer

    def _places(self, number: int, folder: Path, name: str) -> dict[str, Path]:
        kind = self.explainer.kind
        return {"picture": folder / f"{name}.{kind}.png", "record": folder / f"{name}.{kind}.json"}

    def _work(self, number: int, item: Item, places: Mapping[str, Path]) -> Mapping[str, Any]:
        prediction = self._segment(number, item)
        explanation = self.explainer.explain(self.predictor, prediction)
        kind = self.explainer.kind
        values = {
            "schema": self.RECORD,
            "kind": kind,
            "textray": __version__,
            "key": self._key(number, prediction.image.sha256),
            **{key: prediction.record[key] for key in ("input", "grid", "model", "text")},
            "convention": convention(prediction),
            "lesion": prediction.record["lesion"],
            kind: explanation.values,
            "warnings": prediction.record["warnings"],
            "settings": self._settings(self._side(self._words(number))),
        }
        self._prepare(places["record"].parent)
        results.write_together(
            places,
            {
                "picture": lambda path: write_picture(path, explanation.picture),
                "record": lambda path: results.write_record(path, values, places),
            },
            claim=lambda: self._claim(item, places),
        )
        return values

    def _remove(self, number: int, folder: Path, name: str) -> None:
        for path in reversed(self._places(number, folder, name).values()):
            path.unlink(missing_ok=True)

    def _settings(self, side: Laterality) -> dict[str, Any]:
        explain = {"kind": self.explainer.kind, **self.explainer.settings}
        return {**super()._settings(side), "explain": explain}


class Explanation(NamedTuple):
    """An explanation of one film: JSON values for the record, and the page."""

    values: dict[str, Any]
    picture: Picture


class Explainer(Protocol):
    """One kind of explanation."""

    kind: str  # its name; part of the names of the files
    needs_words: bool  # a film without words cannot be explained
    settings: dict[str, Any]  # that decide the result, JSON values

    def explain(self, predictor: Predictor, prediction: Prediction) -> Explanation:
        """Explain the prediction for a film; an `InputError` if its words cannot be explained."""
        ...


SIDES = "Zones are named by the viewer's left and right, the sides of the picture, unless the patient's are named."


def needs_words(bundle: Bundle) -> None:
    """Refuse a network that reads no text, or captions without zones."""
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
    """The zones whose sentence steered the network, by image side; none is refused."""
    if prediction.report is None or not prediction.report.zones:
        raise InputError(
            "there are no words to explain: none that the network read names a zone with a lesion",
            do="Name a side and a level with --text, such as 'right lower zone'",
            code="E_NO_ZONE",
        )
    return prediction.report.zones


def convention(prediction: Prediction) -> dict[str, str]:
    """Whose left and right the result means, as a sentence and for programs."""
    text = prediction.record["text"]
    given = text["laterality"] if prediction.report is not None else None
    place = {
        "tag": "by the film's own tag",
        "assumed": "assumed from the standard film, which the file does not confirm",
        "undefined": "not to be placed on this film",
    }[prediction.grid.sides_from]
    left = "right" if prediction.grid.mirrored else "left"
    of_patient = f"The patient's left is on the viewer's {left} ({place})."
    if prediction.grid.sides_from == "undefined":
        of_patient = f"The patient's sides are {place}."
    return {
        "zones": "viewer",
        "words_given": "none" if given is None else str(given),
        "patient_sides": prediction.grid.sides_from,
        "text": f"{SIDES} {of_patient}"
        + ("" if given is None else f" The words given meant the {given}'s." if given != "unknown" else ""),
    }


def describe_zones(zones: Zones, grid: Grid) -> dict[str, Any]:
    """Zones for a record: names by image side, and the sentence by the viewer's and by the patient's sides."""
    denied = [name for name, state in zip(ZONE_NAMES, zones.states, strict=True) if state is ZoneState.ABSENT]
    return {
        "present": [name for name, present in zip(ZONE_NAMES, zones.present, strict=True) if present],
        **({"denied": denied} if denied else {}),
        "bank_row": zones.index if zones else None,
        **(own_report.sentences(zones, grid) or {"viewer": None, "patient": None}),
    }


def dice(mask: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Overlap of two masks, 1 where both are empty."""
    total = int(mask.sum()) + int(other.sum())
    return 1.0 if total == 0 else 2 * int((mask & other).sum()) / total


MARGIN = 16
"""Pixels around the content of a page."""


def open_page(
    width: int, title: str, notes: Iterable[str], *, sentence: Mapping[str, Any] | None = None, gap: int, below: int
) -> tuple[Page, int]:
    """Make a page with a title, the sentence of `describe_zones` and notes on top, and ``below`` pixels of space.

    It comes with the row at which the space begins.
    """
    by_side = {"viewer's sides (what the network was given)": "viewer", "patient's sides": "patient"}
    header = [(title, 18)]
    if sentence is not None:
        header += [(f"{name}: {sentence[side]}", 14) for name, side in by_side.items() if sentence[side]]
    header += [(note, 12) for note in notes]
    lines = [(line, size) for text, size in header for line in wrap(text, size, width - 2 * MARGIN)]
    top = MARGIN + sum(line_height(size) for _, size in lines) + gap
    page, y = Page(width, top + below), MARGIN
    for line, size in lines:
        page.text(MARGIN, y, line, size)
        y += line_height(size)
    return page, top
