"""Left and right in words that are taken as they stand."""

from __future__ import annotations

import re

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
