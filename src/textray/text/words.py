"""Words of a text as BERT's normaliser and its pre-tokenizer give them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from string import punctuation

_IDEOGRAPHS = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip
"""Code points that are words by themselves; the fifth and sixth range as BERT's tokenizers have them."""


def words(text: str, *, lower: bool) -> Iterator[str]:
    """Cut a text at blanks; punctuation marks and ideographs are words by themselves.

    Args:
        text: Any text.
        lower: Lower-case and strip accents.
    """
    start = ""
    for char in _normalise(text, lower=lower):
        if char == " " or stands_alone(char):
            if start:
                yield start
            start = ""
            if char != " ":
                yield char
        else:
            start += char
    if start:
        yield start


def _normalise(text: str, *, lower: bool) -> Iterator[str]:
    """Drop control characters, make blanks spaces; lower-case without accents if asked to."""
    clean = "".join(map(_clean, text))
    if not lower:
        return iter(clean)
    if clean.isascii():
        return iter(clean.lower())
    # Marks go before as well as after: a long run of them would take quadratic time to put in order.
    plain = "".join(char for char in clean if unicodedata.category(char) != "Mn")
    kept = (char for char in unicodedata.normalize("NFD", plain) if unicodedata.category(char) != "Mn")
    return (small for char in kept for small in char.lower())  # by letter: a final sigma is a sigma, as in BERT


@lru_cache(maxsize=4096)
def _clean(char: str) -> str:
    if char in "\t\n\r" or unicodedata.category(char) in {"Zs", "Zl", "Zp"}:
        return " "
    return "" if char == "\ufffd" or unicodedata.category(char) in {"Cc", "Cf", "Co", "Cs"} else char


@lru_cache(maxsize=4096)
def stands_alone(char: str) -> bool:
    """True for a character that is a word by itself: punctuation, ideographs."""
    code = ord(char)
    if char in punctuation or unicodedata.category(char).startswith("P"):
        return True
    return code > 0x2FFF and any(low <= code <= high for low, high in _IDEOGRAPHS)
