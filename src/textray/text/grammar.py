"""The captions of QaTa-COV19: zones to the canonical sentence and back.

    caption = status ", " count ", " place "."
    status  = "bilateral pulmonary infection" | "unilateral pulmonary infection"
    count   = "one infected area" | ("two" | ... | "six") " infected areas"
    place   = left | right | left " and " right
    left    = levels " left lung"           right = levels " right lung"
    levels  = non-empty subset of upper, middle, lower, in that order

All 63 non-empty zone sets have one canonical caption each. Irregular forms that the first release of the captions
has are read too: capitals, a missing full stop, "all" for the three levels, another order, a count of lesions instead
of zones (kept, with a notice). Anything else is refused, never guessed. Captions name the viewer's sides.
"""

from __future__ import annotations

import re
from functools import lru_cache

from textray.errors import InputError
from textray.records import LEVELS, SIDES, ZONE_NAMES, Laterality, Notice, Report, Zones, ZoneState
from textray.text.cleaning import clean

NO_INFECTION = "no infection."
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
"""Counts in words; captions that count lesions go beyond six."""

_CAPTION = re.compile(
    r"(?P<status>bilateral|unilateral) pulmonary infection, "
    r"(?P<count>[a-z]+|[1-9][0-9]?) infected areas?, (?P<place>[a-z ]+)"
)
_PART = re.compile(r"(?P<levels>all|(?:upper|middle|lower)(?: (?:upper|middle|lower)){0,2}) (?P<side>left|right) lung")


def sentence(zones: Zones) -> str:
    """Write the canonical caption of the zones that are present, by viewer's sides; "no infection." if none is."""
    present = dict(zip(ZONE_NAMES, zones.present, strict=True))
    levels = {side: [level for level in LEVELS if present[f"{side} {level}"]] for side in SIDES}
    places = [f"{' '.join(levels[side])} {side} lung" for side in SIDES if levels[side]]
    if not places:
        return NO_INFECTION
    count = sum(zones.present)
    status = "bilateral" if len(places) == 2 else "unilateral"
    areas = "area" if count == 1 else "areas"
    return f"{status} pulmonary infection, {NUMBERS[count - 1]} infected {areas}, {' and '.join(places)}."


@lru_cache(maxsize=1)
def bank_sentences() -> tuple[str, ...]:
    """The 64 rows of the text bank: row ``i`` is the sentence of ``Zones.from_index(i)``, row 0 "no infection."."""
    return tuple(sentence(Zones.from_index(index)) for index in range(2 ** len(ZONE_NAMES)))


def parse_caption(text: str) -> Report:
    """Read a QaTa-COV19 caption; sides are the viewer's.

    Args:
        text: A canonical caption, one of the irregular forms above, or "no infection.".

    Returns:
        Zones named are present, the others unmentioned; all are absent for "no infection.". A count or a
        "bilateral" that contradicts the places is reported as `W_COUNT` or `W_STATUS`; the places win.

    Raises:
        InputError: With code ``E_CAPTION``, if the text is no caption.
    """
    words = " ".join(clean(text).lower().split()).removesuffix(".").rstrip()
    if words == NO_INFECTION[:-1]:
        return Report(zones=Zones((ZoneState.ABSENT,) * 6), text=clean(text), laterality=Laterality.VIEWER)
    match = _CAPTION.fullmatch(words)
    if match is None:
        raise _refuse(text)
    stated = match["count"]
    if not stated.isdecimal() and stated not in NUMBERS:
        raise _refuse(text)
    count = int(stated) if stated.isdecimal() else NUMBERS.index(stated) + 1
    named: dict[str, list[str]] = {}
    for part in match["place"].split(" and "):
        place = _PART.fullmatch(part)
        if place is None or place["side"] in named:
            raise _refuse(text)
        levels = list(LEVELS) if place["levels"] == "all" else place["levels"].split()
        if len(set(levels)) != len(levels):
            raise _refuse(text)
        named[place["side"]] = levels
    zones = Zones.from_present(level in named.get(side, ()) for side in SIDES for level in LEVELS)
    return Report(
        zones=zones,
        text=clean(text),
        laterality=Laterality.VIEWER,
        stated_count=count,
        notices=_contradictions(zones, count, match["status"], len(named)),
    )


def _contradictions(zones: Zones, count: int, status: str, sides: int) -> tuple[Notice, ...]:
    notices = []
    if count != sum(zones.present):
        notices.append(
            Notice(
                code="W_COUNT",
                text=f"The caption counts {count} infected areas but names {sum(zones.present)} zones.",
                remedy="The zones named are used; the count may be one of lesions.",
            )
        )
    if (status == "bilateral") != (sides == 2):
        notices.append(
            Notice(
                code="W_STATUS",
                text=f"The caption says {status} but names {'both sides' if sides == 2 else 'one side'}.",
                remedy="The sides named are used; correct the caption.",
            )
        )
    return tuple(notices)


def _refuse(text: str) -> InputError:
    shown = clean(text)
    return InputError(
        "the caption does not follow the grammar of QaTa-COV19",
        came=repr(shown if len(shown) <= 160 else shown[:160] + "..."),
        expected=f"a sentence such as {sentence(Zones.from_index(0b100100))!r}",
        do="Correct the caption, or leave it out to go without text",
        code="E_CAPTION",
    )
