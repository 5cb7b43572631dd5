"""Corrections of a report that the network wrote: a whole sentence, which replaces it.

A plus or a dash in front of a place is refused: it may be meant to remove the place, or be the bullet of a list that
names what is there, and the two mean opposite things.
"""

from __future__ import annotations

import re
from dataclasses import replace

from textray.errors import InputError, UsageError
from textray.inference.own_report import TextFree
from textray.records import Grid, Laterality, Notice, Report, Zones
from textray.text.cleaning import clean, is_blank
from textray.text.report import parse

_SIGNS = "[-+\u2010-\u2015\u2212\uff0b\uff0d]"  # programs and keyboards turn a minus into many dashes
# At the start, or in front of a word; a hyphen inside a word, or between blanks of a sentence, is punctuation.
_SIGN = re.compile(rf"^\W*?{_SIGNS}|(?<!\S){_SIGNS}(?=\w)")
_EXPECTED = "a whole sentence, such as 'opacity in the left lower zone'"


def check(edit: str, laterality: Laterality, *, text: str | None = None, text_free: TextFree | None = None) -> None:
    """Refuse a correction that cannot be understood, before any film is read.

    Args:
        edit: The correction.
        laterality: Whose left and right it means.
        text: A report that was given beside it.
        text_free: What was asked for films without a text.

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
            came=repr(words[:80]),
            expected=_EXPECTED,
            do="Name all places that have a lesion, without signs",
        )
    try:
        apply(edit, Zones(), laterality=laterality)
    except InputError as error:
        raise UsageError(
            f"the correction is not understood: {error.what}", came=repr(words[:80]), expected=_EXPECTED, do=error.do
        ) from error


def apply(edit: str, written: Zones, *, laterality: Laterality, grid: Grid | None = None) -> Report:
    """Correct a written report.

    Args:
        edit: A sentence, which replaces the report.
        written: The zones that the network wrote, by image side.
        laterality: Whose left and right ``edit`` means.
        grid: Grid of the film, which places the patient's sides; ``None`` takes the usual film.

    Returns:
        The corrected report, by image side; ``text`` is the correction as given. It may name no zone.

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
