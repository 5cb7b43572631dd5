"""Text from a table, a form or another program, made safe to read, compare and store; and its sides swapped."""

from __future__ import annotations

import math
import re
import unicodedata

from textray.errors import InputError

_BLANK = frozenset({"", "nan", "none", "null", "<na>", "nat"})
_MAX_MARKS = 30
"""Combining marks kept in a row, the limit of Unicode's stream-safe format: NFC sorts longer runs in quadratic time."""

_SIDE = re.compile(r"\b(left|right)\b", re.IGNORECASE)
# Not cleft, upright, bright.
_OTHER_WORDS = re.compile(r"(?<!\bc)left|(?<!\bup)(?<!\bb)right|clockwise|o.?clock", re.IGNORECASE)


def is_blank(text: object) -> bool:
    """True for a missing text as tables write it: ``None``, NaN, blanks, and the words for them."""
    if text is None or (isinstance(text, float) and math.isnan(text)):
        return True
    return isinstance(text, str) and clean(text).casefold() in _BLANK


def plain(text: str) -> str:
    """A text for comparing: without differences of case and blanks."""
    return " ".join(clean(text).split()).casefold()


def clean(text: str) -> str:
    """Normalise to NFC without control, zero-width and bidirectional marks or lone surrogates.

    Line breaks and tabs stay, all other blanks become a space; a second pass changes nothing.

    Raises:
        InputError: If ``text`` is not a string.
    """
    if not isinstance(text, str):
        raise InputError(
            "the report is not text",
            came=type(text).__name__,
            expected="words or nothing",
            do="Give the report as text.",
        )
    if text.isascii() and text.isprintable():
        return text.strip()
    kept: list[str] = []
    marks = 0
    for char in text:
        marks = marks + 1 if unicodedata.combining(char) else 0
        kind = unicodedata.category(char)
        if char in "\n\t":
            kept.append(char)
        elif char in "\x0b\x0c\x85" or kind in {"Zl", "Zp"}:
            kept.append("\n")
        elif kind == "Zs":
            kept.append(" ")
        elif kind not in {"Cc", "Cf", "Cs"} and marks <= _MAX_MARKS:
            kept.append(char)
    return unicodedata.normalize("NFC", "".join(kept)).strip()


def swap_sides(text: str) -> str | None:
    """Exchange left and right, which makes the words true of the mirrored picture.

    ``None`` where they name a side in a way that is not understood: "leftmost", "clockwise", "3 o'clock".
    """
    return None if _OTHER_WORDS.search(_SIDE.sub("", text)) else _SIDE.sub(_other_side, text)


def _other_side(match: re.Match[str]) -> str:
    word = match[0]
    other = "right" if word.lower() == "left" else "left"
    return other.upper() if word.isupper() else other.capitalize() if word[0].isupper() else other
