"""Corrections of a report that the network wrote: a sentence that replaces it, or places added (+) and removed (-).

A sign stands directly before its place. "- right lower" is refused: it may be a minus, or the bullet of a list that
names what is there, and the two mean opposite things.
"""

from __future__ import annotations

import re
from dataclasses import replace

from textray.errors import InputError, UsageError
from textray.inference.own_report import TextFree
from textray.records import Grid, Laterality, Notice, Report, Zones, ZoneState
from textray.text.cleaning import clean, is_blank
from textray.text.report import parse

_SIGNS = "+\uff0b\\-\u2010-\u2015\u2212\uff0d"  # programs and keyboards turn a minus into many dashes
# A sign in front of a word; a hyphen inside a word, or between blanks of a sentence, is punctuation.
_SIGN = re.compile(rf"(?<!\S)([{_SIGNS}])(?=\w)")
_LOOSE = re.compile(rf"(?<!\S)[{_SIGNS}]+(?!\w)")
_LEADING = re.compile(rf"\W*?[{_SIGNS}]")
_PLUS = "+\uff0b"
_EXPECTED = "a whole sentence, or places with a sign each, such as '+left upper -right lower'"


def check(edit: str, laterality: Laterality, *, text: str | None = None, text_free: TextFree | None = None) -> None:
    """Refuse a correction that cannot be understood, before any film is read.

    Args:
        edit: The correction.
        laterality: Whose left and right it means.
        text: A report that was given beside it.
        text_free: What was asked for films without a text.

    Raises:
        UsageError: If it is blank, mixes signs and a sentence, has a sign apart from its place, or names no zone; or if
            there is nothing to correct.
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
    signed = _SIGN.match(words)
    if (_LOOSE.search if signed else _LEADING.match)(words):
        raise UsageError(
            "a dash or plus of the correction does not stand directly before a place: a sign or a bullet?",
            came=repr(words[:80]),
            expected=_EXPECTED,
            do="Write '-right lower' to remove the place, '+right lower' to add it, 'right lower' to name it alone",
        )
    if not signed and _SIGN.search(words):
        raise UsageError("the correction mixes a sentence and signs", came=repr(words[:80]), expected=_EXPECTED)
    try:
        apply(edit, Zones(), laterality=laterality)
    except InputError as error:
        raise UsageError(
            f"the correction is not understood: {error.what}", came=repr(words[:80]), expected=_EXPECTED, do=error.do
        ) from error


def apply(edit: str, written: Zones, *, laterality: Laterality, grid: Grid | None = None) -> Report:
    """Correct a written report.

    Args:
        edit: A sentence, which replaces the report; or places, each with + (add) or - (remove) directly before it.
            Signs work from left to right.
        written: The zones that the network wrote, by image side.
        laterality: Whose left and right ``edit`` means.
        grid: Grid of the film, which places the patient's sides; ``None`` takes the usual film.

    Returns:
        The corrected report, by image side; ``text`` is the correction as given. It may name no zone.

    Raises:
        InputError: If a part names no zone, or the film's sides do not let the words be placed.
    """
    words = clean(edit)
    if not _SIGN.match(words):
        report = parse(words, laterality=laterality, grid=grid, strict=True)
    else:
        report = _signed(words, written, laterality=laterality, grid=grid)
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


def _signed(words: str, written: Zones, *, laterality: Laterality, grid: Grid | None) -> Report:
    parts = _SIGN.split(words)[1:]  # sign, words, sign, words, ...
    states, read = list(written.states), []
    for sign, place in zip(parts[::2], parts[1::2], strict=True):
        part = parse(place, laterality=laterality, grid=grid, strict=True)
        if not part.zones:
            raise InputError(
                "a sign stands before words that deny a lesion",
                came=repr(f"{sign}{place.strip()}"),
                expected="a place, such as '-right lower'",
                do="Write the place alone behind its sign",
                code="E_NO_ZONE",
            )
        state = ZoneState.PRESENT if sign in _PLUS else ZoneState.ABSENT
        states = [state if named else old for old, named in zip(states, part.zones.present, strict=True)]
        read.append(part)
    return Report(
        zones=Zones(tuple(states)),
        laterality=laterality,
        sides_from=read[0].sides_from,
        unused=tuple(word for part in read for word in part.unused),
        notices=tuple(notice for part in read for notice in part.notices),
    )
