"""What is explained: a film with its words, segmented as usual, and how its sides are called."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from textray.errors import InputError, TextRayError, UsageError
from textray.inference.bundle import Bundle
from textray.records import ZONE_NAMES, Grid, Prediction, Zones
from textray.text.report import sentence, write

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
