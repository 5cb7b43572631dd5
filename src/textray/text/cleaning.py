"""Text as it may come from a table, a form or another program, made safe to read, compare and store."""

from __future__ import annotations

import math
import re
import unicodedata

from textray.errors import InputError

_BLANK = frozenset({"", "nan", "none", "null", "<na>", "nat"})
_MAX_MARKS = 30
"""Combining marks kept in a row, the limit of Unicode's stream-safe format: NFC sorts longer runs in quadratic time."""


def is_blank(text: object) -> bool:
    """True for what tables write where there is no text: ``None``, NaN, blanks, and the words for them."""
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
        InputError: If ``text`` is no string.
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


# Left and right in words that are taken as they stand.

_SIDE = re.compile(r"\b(left|right)\b", re.IGNORECASE)
# Not cleft, upright, bright.
_ANY = re.compile(r"(?<!\bc)left|(?<!\bup)(?<!\bb)right|clockwise|o.?clock", re.IGNORECASE)
_OTHER = {"left": "right", "right": "left"}


def swap_sides(text: str) -> str | None:
    """The words that are true of the mirrored picture, by exchanging left and right.

    Args:
        text: Words whose sides are the picture's.

    Returns:
        The words, unchanged where they name no side; ``None`` where they name one in a way that is not understood,
        such as "leftmost", "clockwise" or "3 o'clock".
    """
    if _ANY.search(_SIDE.sub("", text)):
        return None
    return _SIDE.sub(lambda match: _as_written(_OTHER[match[0].lower()], match[0]), text)


def _as_written(word: str, like: str) -> str:
    if like.isupper():
        return word.upper()
    return word.capitalize() if like[0].isupper() else word
