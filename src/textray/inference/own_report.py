"""The report that a network writes itself: its settings in a bundle, its zones, and a person's correction of it.

A correction is a whole sentence, which replaces the report. A plus or a dash in front of a place is refused: it may be
meant to remove the place, or be the bullet of a list of what is there, and the two mean opposite things.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from textray.errors import BundleError, InputError, UsageError
from textray.records import ZONE_NAMES, Grid, Laterality, Notice, Report, Zones
from textray.text import zones as report_text
from textray.text.cleaning import clean, is_blank
from textray.text.zones import counted, parse

TextFree = Literal["generated", "none"]
"""What a run without a text does: the network writes its own report, or works from the picture alone."""
TextMode = Literal["given", "generated", "edited", "none"]
"""Source of the report that steered the network: a person, the network, the network corrected by a person, or none."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OwnReport:
    """The report that a network wrote about a film, or would have written, by image side."""

    zones: Zones  # those that reach their thresholds
    probability: NDArray[np.float32]  # (6,), of a lesion in each zone
    thresholds: tuple[float, ...]
    withheld: bool = False  # the network was run without a report, so it wrote none
    denied: bool = False  # it was so because a person's report denies lesions and names no place that has one
    attention: Mapping[str, float] | None = None  # share of it on each zone of pixels, by name

    @property
    def report(self) -> Report | None:
        """The report, ``None`` if no zone reaches its threshold."""
        if not self.zones:
            return None
        return Report(zones=self.zones, text=report_text.sentence(self.zones), laterality=Laterality.VIEWER)


@dataclass(frozen=True, kw_only=True, eq=False)
class Steering:
    """The report that steered the network, ``None`` if it went without one, and where it came from."""

    text: str | None  # the words of a person as given
    words: Report  # the zones or the caption in them or, of a corrected report, in the correction
    mode: TextMode
    report: Report | None
    generated: OwnReport | None = None  # what the network wrote or would have written


def read_thresholds(
    zones: Mapping[str, Any], text: Mapping[str, Any] | None
) -> tuple[tuple[float, ...] | None, TextFree]:
    """Thresholds by zone, ``None`` if no report is written, and what a run without a text does, from a bundle's config.

    Both are refused if they are wrong or contradict each other.
    """
    thresholds = zones.get("thresholds")
    free = None if text is None else text.get("free")
    if thresholds is None:
        if free not in (None, "none"):
            raise BundleError(
                "the bundle writes no report, but its config says that runs without a text have one",
                came=repr(free),
                expected="six zones.thresholds, or no text.free",
            )
        return None, "none"
    values = tuple(float(value) for value in thresholds)
    if text is None or len(values) != len(ZONE_NAMES) or not all(0 <= value <= 1 for value in values):
        raise BundleError(
            "thresholds of the zones are wrong",
            came=thresholds if text is not None else f"{thresholds} without a text bank",
            expected="six numbers in [0, 1], beside a text bank",
        )
    if free not in (None, *get_args(TextFree)):
        raise BundleError("text.free of the bundle is unknown", came=repr(free), expected=", ".join(get_args(TextFree)))
    return values, "none" if free == "none" else "generated"


def written(probability: NDArray[np.float32], thresholds: Sequence[float]) -> Zones:
    """Zones of the report that a network writes: those whose probability ``(6,)`` reaches its threshold."""
    return Zones.from_present((probability >= np.asarray(thresholds, np.float32)).tolist())


def sentences(zones: Zones, grid: Grid, laterality: Laterality = Laterality.PATIENT) -> dict[str, str | None] | None:
    """The sentence of zones by the viewer's sides and by those of a convention, ``None`` without a zone.

    The patient's is ``None`` if the film's sides are undefined and the sentence names one.
    """
    if not zones:
        return None
    by_side: dict[str, str | None] = {"viewer": report_text.sentence(zones)}
    if laterality is not Laterality.VIEWER:
        try:
            by_side[str(laterality)] = report_text.write(zones, laterality=laterality, grid=grid)
        except InputError:
            by_side[str(laterality)] = None
    return by_side


def describe(generated: OwnReport, steering: Steering, grid: Grid) -> dict[str, Any]:
    """The network's own report for a record, used or not."""
    case: str = steering.mode
    if case == "edited" and steering.report is None:
        case = "emptied"
    elif case == "none" and generated.withheld:
        case = "denied" if generated.denied else "silent"
    attention, columns = generated.attention, (generated.thresholds, generated.zones.present)
    by_zone = zip(ZONE_NAMES, generated.probability.tolist(), *columns, strict=True)
    return {
        "sentence": sentences(generated.zones, grid),
        "used": steering.mode == "generated",
        "silent": generated.withheld,
        "denied": generated.denied,
        "meaning": _MEANINGS[case],
        "zones": {
            name: {
                "probability": round(probability, 4),
                "threshold": round(threshold, 4),
                "written": present,
                "attention_share": None if attention is None else round(attention[name], 4),
            }
            for name, probability, threshold, present in by_zone
        },
    }


def notices(steering: Steering, grid: Grid) -> list[Notice]:
    """Warnings for the reader of a result about a report that no person gave, and about a person's correction of it."""
    generated, mode = steering.generated, steering.mode
    if generated is None or mode == "given" or (mode == "none" and generated.withheld):
        return []
    if mode == "none":
        return [_NOTHING_WRITTEN]
    of_report = [_GENERATED] if mode == "generated" else []
    shown = [generated.zones] if steering.report is None else [generated.zones, steering.report.zones]
    if any(zones.present != zones.mirror().present for zones in shown):
        of_report += {"undefined": [_UNDEFINED], "assumed": [_ASSUMED]}.get(grid.sides_from, [])
    return of_report


def caption(record: Mapping[str, Any]) -> list[str]:
    """Lines beneath an overlay, from a record.

    They say that the network sees no lesion in the film, and what report steered it, if a network wrote that.
    """
    text, generated, found = record["text"], record.get("own_report"), finding(record)
    if found and text["used"] is None and text["mode"] != "edited":
        return found
    return [*found, *_authorship(text, generated)]


def finding(record: Mapping[str, Any]) -> list[str]:
    """A line that says so if the network sees no lesion in the film of a record; none if it does, or does not judge."""
    film = record.get("finding")
    if film is None or film["lesion"]:
        return []
    numbers = f"(probability {film['probability']:.3f}, threshold {film['threshold']:.3f})"
    if record["text"]["used"] is not None:
        return [f"Without words the network sees no lesion in this film {numbers}; the mask follows the words."]
    return [f"The network sees no lesion in this film {numbers}, so the mask is empty."]


def _authorship(text: Mapping[str, Any], generated: Mapping[str, Any] | None) -> list[str]:
    if generated is None or text["mode"] == "given":
        return []
    if text["mode"] == "none":
        if generated["denied"]:
            return ["The report that a person gave names no zone with a lesion; the film was read without a report."]
        return [] if generated["silent"] else [generated["meaning"]]
    if text["used"] is None and generated["meaning"] == _MEANINGS["edited"]:
        return ["A person's correction only denies lesions; the network read what it denies."]
    if text["used"] is None:
        return ["A person's correction left no zone in the network's report; the film was read without a report."]
    author = f"Written by the network, {'corrected' if text['mode'] == 'edited' else 'not'} by a person"
    patient, viewer = text["used"]["patient"], text["used"]["viewer"]
    if patient is None:
        return [f"{author} (left and right are the viewer's, as in this picture):", viewer]
    assumed = ", as on the standard film" if text["film_sides_from"] == "assumed" else ""
    return [f"{author} (left is the patient's left{assumed}):", patient]


_GENERATED = Notice(
    code="W_GENERATED",
    text="The report that steered the network was written by the network, not by a person.",
    remedy="Read it in the record; correct it with --edit, or give a report with --text.",
)
_NOTHING_WRITTEN = Notice(
    code="W_NOTHING_WRITTEN",
    text="The network found nothing to write and read the film without a report; this does not say that it is clear.",
    remedy="Give a report with --text, if there is one.",
)
_ASSUMED = Notice(
    code="W_SIDES_ASSUMED",
    text="The film does not say which side is the patient's left; the written report takes the standard one, on the "
    "viewer's right.",
    remedy="Check the picture; the record also has the report by the viewer's sides.",
)
_UNDEFINED = Notice(
    code="W_SIDES_UNDEFINED",
    text="The film's rows run to neither side of the patient; the written report names the viewer's sides only.",
    remedy="Read left and right as in the picture.",
)


_MEANINGS = {
    "generated": "The network wrote this report from the film and was steered by it; no person did.",
    "edited": "The network wrote this from the film; the report that steered it was corrected by a person.",
    "emptied": "The network wrote this from the film; a person's correction left no zone, so it went without a report.",
    "given": "The network was given a report; this is what it would have written from the film.",
    "denied": "A person's report names no zone with a lesion, so the network went without a report; this is what it "
    "would have written from the film.",
    "silent": "The network was not asked for a report; this is what it would have written from the film.",
    "none": "The network found nothing to write about this film; this does not say that it is clear.",
}


_SIGNS = "[-+\u2010-\u2015\u2212\uff0b\uff0d]"  # programs and keyboards turn a minus into many dashes
# At the start, or in front of a word; a hyphen inside a word, or between blanks of a sentence, is punctuation.
_SIGN = re.compile(rf"^\W*?{_SIGNS}|(?<!\S){_SIGNS}(?=\w)")
_EXPECTED = "a whole sentence, such as 'opacity in the left lower zone'"


def check_edit(
    edit: str, laterality: Laterality, *, text: str | None = None, text_free: TextFree | None = None
) -> None:
    """Refuse a correction that cannot be understood, before any film is read.

    Raises:
        UsageError: If it is blank, has a plus or a dash in front of a place, or names no zone; or if there is nothing
            to correct.
    """
    if not is_blank(text) or text_free == "none":
        raise UsageError(
            "a correction is of the report that the network writes",
            came="a given report beside it" if not is_blank(text) else "a run in which none is written",
            expected="one of them",
        )
    if is_blank(edit):
        raise UsageError("the correction is blank", expected=_EXPECTED)
    words = clean(edit)
    if _SIGN.search(words):
        raise UsageError(
            "a plus or a dash stands before words of the correction, which adds and removes nothing",
            came=counted(words),
            expected=_EXPECTED,
            do="Name all places that have a lesion, without signs",
        )
    try:
        apply(edit, Zones(), laterality=laterality)
    except InputError as error:
        raise UsageError(
            f"the correction is not understood: {error.what}", came=counted(words), expected=_EXPECTED, do=error.do
        ) from error


def apply(edit: str, written: Zones, *, laterality: Laterality, grid: Grid | None = None) -> Report:
    """Replace a report that a network wrote; the new one may deny all zones, and its ``text`` is the edit as given.

    Raises:
        InputError: If it names no zone, or the film's sides do not let the words be placed.
    """
    words = clean(edit)
    report = parse(words, laterality=laterality, grid=grid, strict=True)
    notices = [*report.notices]
    if report.zones.present == written.present and grid is not None:
        notices.append(_WITHOUT_EFFECT)
    if not report.zones:
        notices = [notice for notice in notices if notice.code != "W_NEGATIVE"]  # it says so of words beside a film
        notices.append(_EMPTY)
    return replace(report, text=words, notices=tuple(dict.fromkeys(notices)))


_WITHOUT_EFFECT = Notice(
    code="W_EDIT_WITHOUT_EFFECT",
    text="The correction changes nothing: the network wrote of the same zones.",
    remedy="Check whose left and right it means, and --laterality.",
)
_EMPTY = Notice(
    code="W_EDITED_TO_NOTHING",
    text="The corrected report names no zone; the film was read without a report.",
    remedy="Name the places that have a lesion, if any.",
)
