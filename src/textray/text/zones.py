"""Words to zones and back; every function names whose left and right the words mean.

Zones are stored by image side. Viewer's words, and words of unknown laterality, are kept as written. The patient's left
lies on the viewer's right of the standard film, so patient's words are swapped unless the film's `Grid` says that it
is mirrored the other way; a film without this information is taken as the standard one (`W_SIDES_ASSUMED`).

The captions of QaTa-COV19 have a grammar, of which one canonical sentence for each set of zones is written:

    caption = status ", " count " " place "."
    status  = "bilateral pulmonary infection" | "unilateral pulmonary infection"
    count   = "one infected area" | ("two" | ... | "six") " infected areas"
    place   = left | right | left " and " right
    left    = levels " left lung"           right = levels " right lung"
    levels  = non-empty subset of upper, middle, lower, in that order

Irregular forms of the first release are read too: capitals, a missing full stop, "all" for the three levels, another
order, a count of lesions instead of zones (kept, with a notice). Anything else is refused, never guessed. Captions name
the viewer's sides.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from itertools import compress

from textray.errors import InputError, unknown_name
from textray.records import LEVELS, SIDES, ZONE_NAMES, Grid, Laterality, Notice, Report, Zones, ZoneState
from textray.text import prose
from textray.text.cleaning import clean, is_blank
from textray.text.terms import FINDINGS, KNOWN, PLACES

__all__ = [
    "ASSUMED",
    "UNDEFINED",
    "bank_sentences",
    "counted",
    "misspelt",
    "parse",
    "parse_caption",
    "quoted",
    "refusal",
    "sentence",
    "write",
]

ASSUMED = Notice(
    code="W_SIDES_ASSUMED",
    text="The film does not say which side is the patient's left; the standard one is assumed: on the viewer's right.",
    remedy="Check the picture, or give the words by the viewer's sides with laterality 'viewer'.",
)
UNDEFINED = Notice(
    code="W_SIDES_UNDEFINED",
    text="The film's rows run to neither side of the patient, so the patient's left and right cannot be placed on it.",
    remedy="Give the words by the viewer's sides with laterality 'viewer'.",
)
_CONTRADICTION = Notice(
    code="W_CONTRADICTION",
    text="The report both affirms and denies a lesion in the same place; it is taken as affirmed.",
    remedy="Name the place once.",
)
_NEGATIVE = Notice(
    code="W_NEGATIVE",
    text="The report says where there is no lesion and names no place that has one; the film is read without it.",
    remedy="Name a side and a level where a lesion is, or leave the text out.",
)
_USUAL = Grid(height=1, width=1)
_LISTED = 12
"""Most words that a message lists."""


def parse(
    text: str | float | None, *, laterality: Laterality | str, grid: Grid | None = None, strict: bool = False
) -> Report:
    """Read a report: a caption by its grammar, anything else by its words for sides and levels.

    Decisions: a side without a level names its three levels; a level without a side names nothing, unless it is a
    plural ("lower zones", "bases") or says both ("bibasal"), which name both sides; "no", "without", "clear", "spared"
    deny the places of their clause; of two statements about a zone the one about fewer zones counts, the affirmation
    if equal. ``docs/how-to/reports.md`` has the whole list.

    Args:
        text: The words; ``None``, NaN, blanks and "nan" mean that there are none.
        laterality: Whose left and right the words mean.
        grid: Grid of the film, which places the patient's sides; ``None`` takes the standard film.
        strict: Refuse a text that names no zone, has misspelt words, or whose sides cannot be placed, instead of a
            notice.

    Returns:
        Zones by image side; the text in NFC without control characters; notices `W_NO_ZONE`, `W_NEGATIVE`,
        `W_MISSPELT`, `W_DENIAL_UNUSED`, `W_SIDES_ASSUMED`, `W_SIDES_UNDEFINED`, `W_CONTRADICTION`, and those of
        `parse_caption`. None quotes a word outside of `terms.KNOWN`.

    Raises:
        UsageError: If the laterality is none of viewer, patient, unknown.
        InputError: With code ``E_NO_ZONE``, ``E_MISSPELT`` or ``E_SIDES_UNDEFINED``, if strict.
    """
    whose = as_laterality(laterality)
    if is_blank(text):
        return Report(zones=Zones(), laterality=whose)
    words = clean(text)  # type: ignore[arg-type]  # refuses any other type
    caption = _caption(words)
    if caption is not None:
        report = replace(caption, laterality=whose)
    else:
        reading = prose.read(words, patient=whose is Laterality.PATIENT)
        report = Report(zones=reading.zones, text=words, laterality=whose, unused=reading.unused)
        if reading.contradictory:
            report = _with(report, _CONTRADICTION)
        if reading.misspelt:
            notice = misspelt(reading.misspelt)
            if strict:
                raise refusal(notice)
            report = _with(report, notice)
        if reading.idle and report.zones:
            report = _with(report, _idle(reading.idle))
    if not report.zones.mentioned:
        notice = _no_zone(report.unused)
        if strict:
            raise refusal(notice)
        return _with(report, notice)
    if not report.zones:
        report = _with(report, _NEGATIVE)
    return report if whose is not Laterality.PATIENT else _placed(report, grid or _USUAL, strict=strict)


def write(zones: Zones, *, laterality: Laterality | str, grid: Grid | None = None) -> str:
    """Write the canonical sentence of zones by whose left and right ``laterality`` says; the left is named first.

    Raises:
        UsageError: If the laterality is none of viewer, patient, unknown.
        InputError: With code ``E_SIDES_UNDEFINED``, if the film's rows run to neither side of the patient and the zones
            differ between the sides.
    """
    if as_laterality(laterality) is not Laterality.PATIENT:
        return sentence(zones)
    film = grid or _USUAL
    if film.sides_from == "undefined" and zones.present != zones.mirror().present:
        raise refusal(UNDEFINED)
    return sentence(zones.mirror() if film.mirrored else zones)


def refusal(notice: Notice, *, came: str | None = None) -> InputError:
    """The error ``E_...`` that takes the place of a notice ``W_...`` where its case is refused."""
    return InputError(notice.text.rstrip("."), came=came, do=notice.remedy, code=f"E_{notice.code.removeprefix('W_')}")


def as_laterality(value: Laterality | str) -> Laterality:
    """The convention of that name; an unknown one is refused."""
    try:
        return Laterality(value)
    except ValueError:
        raise unknown_name("laterality", str(value), list(Laterality)) from None


def _with(report: Report, notice: Notice) -> Report:
    return replace(report, notices=(*report.notices, notice))


def _placed(report: Report, film: Grid, *, strict: bool) -> Report:
    """Turn the patient's sides of a report into those of the image."""
    report = replace(report, sides_from=film.sides_from)
    zones = report.zones
    if zones == zones.mirror():
        return report
    if film.sides_from == "undefined":
        if strict:
            raise refusal(UNDEFINED)
        pairs = zip(zones.states, zones.mirror().states, strict=True)
        agreed = Zones(tuple(state if state is other else ZoneState.UNMENTIONED for state, other in pairs))
        dropped = replace(UNDEFINED, text=f"{UNDEFINED.text} What the words say of one side only is not used.")
        return _with(replace(report, zones=agreed), dropped)
    if film.sides_from == "assumed":
        report = _with(report, ASSUMED)
    return replace(report, zones=zones.mirror() if film.mirrored else zones)


def quoted(words: Iterable[str]) -> str:
    """Words for a message: those of the vocabulary, and how many others; nothing that a stranger wrote is quoted."""
    listed = list(dict.fromkeys(words))
    known = [repr(word) for word in listed if word in KNOWN]
    shown = [*known[:_LISTED], *([f"{len(known) - _LISTED} more"] if len(known) > _LISTED else [])]
    if others := len(listed) - len(known):
        shown.append(f"{others} unknown word{'' if others == 1 else 's'}")
    return ", ".join(shown)


def counted(text: str) -> str:
    """A text for an error: its number of words."""
    count = len(text.split())
    return f"{count} word{'' if count == 1 else 's'}"


def misspelt(near: tuple[str, ...]) -> Notice:
    """The warning `W_MISSPELT` about words that are nearly these known ones."""
    return Notice(
        code="W_MISSPELT",
        text=f"The text has words that are nearly {quoted(near)}; a place that depends on them is not used.",
        remedy=f"Did you mean {quoted(near)}? Correct the spelling.",
    )


def _idle(words: tuple[str, ...]) -> Notice:
    return Notice(
        code="W_DENIAL_UNUSED",
        text=f"A word that denies was not used: {quoted(words)}.",
        remedy="Check what it denies, and name that in one sentence: 'no opacity in the left base'.",
    )


def _no_zone(unused: tuple[str, ...]) -> Notice:
    words = [word for word in unused if word not in FINDINGS and word not in PLACES]
    near = [
        repr(match) for word in words[:_LISTED] for match in difflib.get_close_matches(word, PLACES, n=1, cutoff=0.75)
    ]
    reason = f"not understood: {quoted(words)}." if words else "no side is named."
    return Notice(
        code="W_NO_ZONE",
        text=f"The text names no zone of the lungs; {reason}",
        remedy=(f"Did you mean {', '.join(dict.fromkeys(near))}? " if near else "")
        + "Name a side and a level, such as 'right lower zone'.",
    )


NO_INFECTION = "no infection."
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
"""Counts in words; captions that count lesions go beyond six."""

_CAPTION = re.compile(
    r"(?P<status>bilateral|unilateral) pulmonary infection, "
    rf"(?P<count>{'|'.join(NUMBERS)}|[1-9][0-9]?) infected areas?, (?P<place>[a-z ]+)"
)
_PART = re.compile(r"(?P<levels>all|(?:upper|middle|lower)(?: (?:upper|middle|lower)){0,2}) (?P<side>left|right) lung")


def levels_by_side(zones: Zones) -> dict[str, list[str]]:
    """Levels of the zones that are present, from top to bottom, of the left and of the right side."""
    named = set(compress(ZONE_NAMES, zones.present))
    return {side: [level for level in LEVELS if f"{side} {level}" in named] for side in SIDES}


def status(zones: Zones) -> str:
    """The word "bilateral" or "unilateral", as fits the zones that are present."""
    return "bilateral" if all(levels_by_side(zones).values()) else "unilateral"


def sentence(zones: Zones) -> str:
    """Write the canonical caption of the zones that are present, by viewer's sides; "no infection." if none is."""
    count = sum(zones.present)
    if not count:
        return NO_INFECTION
    places = " and ".join(f"{' '.join(levels)} {side} lung" for side, levels in levels_by_side(zones).items() if levels)
    areas = "area" if count == 1 else "areas"
    return f"{status(zones)} pulmonary infection, {NUMBERS[count - 1]} infected {areas}, {places}."


@lru_cache(maxsize=1)
def bank_sentences() -> tuple[str, ...]:
    """The 64 rows of the text bank: row ``i`` is the sentence of ``Zones.from_index(i)``, row 0 "no infection."."""
    return tuple(sentence(Zones.from_index(index)) for index in range(2 ** len(ZONE_NAMES)))


def parse_caption(text: str) -> Report:
    """Read a QaTa-COV19 caption, canonical, irregular or "no infection."; sides are the viewer's.

    Zones named are present, the others unmentioned; all are absent for "no infection.". A count or a "bilateral" that
    contradicts the places gives a notice `W_COUNT` or `W_STATUS`; the places win.

    Raises:
        InputError: With code ``E_CAPTION``, if the text is no caption.
    """
    caption = clean(text)
    report = _caption(caption)
    if report is None:
        raise InputError(
            "the caption does not follow the grammar of QaTa-COV19",
            came=counted(caption),
            expected=f"a sentence such as {sentence(Zones.from_index(0b100100))!r}",
            do="Correct the caption, or leave it out to go without text",
            code="E_CAPTION",
        )
    return report


def _caption(caption: str) -> Report | None:
    words = " ".join(caption.lower().split()).removesuffix(".").rstrip()
    if words == NO_INFECTION[:-1]:
        return Report(zones=Zones((ZoneState.ABSENT,) * 6), text=caption, laterality=Laterality.VIEWER)
    match = _CAPTION.fullmatch(words)
    named = _named_levels(match["place"]) if match else None
    if match is None or named is None:
        return None
    count = int(match["count"]) if match["count"].isdecimal() else NUMBERS.index(match["count"]) + 1
    zones = Zones.from_present(level in named.get(side, ()) for side in SIDES for level in LEVELS)
    notices = []
    if count != sum(zones.present):
        text = f"The caption counts {count} infected areas but names {sum(zones.present)} zones."
        remedy = "The zones named are used; the count may be one of lesions."
        notices.append(Notice(code="W_COUNT", text=text, remedy=remedy))
    if match["status"] != status(zones):
        text = f"The caption says {match['status']} but names {'both sides' if len(named) == 2 else 'one side'}."
        notices.append(Notice(code="W_STATUS", text=text, remedy="The sides named are used; correct the caption."))
    return Report(zones=zones, text=caption, laterality=Laterality.VIEWER, stated_count=count, notices=tuple(notices))


def _named_levels(place: str) -> dict[str, list[str]] | None:
    """Levels of each side that the end of a caption names; ``None`` where a part is not understood or repeated."""
    named: dict[str, list[str]] = {}
    for words in place.split(" and "):
        part = _PART.fullmatch(words)
        if part is None or part["side"] in named:
            return None
        levels = list(LEVELS) if part["levels"] == "all" else part["levels"].split()
        if len(set(levels)) != len(levels):
            return None
        named[part["side"]] = levels
    return named
