"""Captions that a network knows: the rows of the bank of a bundle whose data set has captions without zones."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from textray.errors import BundleError, InputError
from textray.records import Notice, Report, Zones
from textray.text.cleaning import is_blank, plain

MOST_CAPTIONS = 4096


def announced(text: Mapping[str, Any] | None, *, writes: bool) -> tuple[str, ...]:
    """Read what a bundle's config says of the captions that its network knows.

    Args:
        text: The config's ``text``, where ``captions`` may stand; ``None`` for a network that reads no text.
        writes: True where the network writes a report of its own, which is one of zones.

    Returns:
        One for each row of the bank; none where the bank holds the 64 zone sentences.

    Raises:
        BundleError: If they are no list of different texts, or the network writes reports of zones beside them.
    """
    captions = None if text is None else text.get("captions")
    if captions is None:
        return ()
    texts = isinstance(captions, list) and all(isinstance(caption, str) for caption in captions)
    if not texts or not 0 < len(captions) <= MOST_CAPTIONS or any(is_blank(caption) for caption in captions):
        raise BundleError("captions of the bundle are wrong", expected=f"a list of 1 to {MOST_CAPTIONS} texts")
    if len({plain(caption) for caption in captions}) < len(captions):
        raise BundleError("captions of the bundle are wrong", came="a caption twice", expected="different ones")
    if writes:
        raise BundleError("the bundle writes reports of zones, but its texts are captions without zones")
    return tuple(captions)


def distinct(captions: Iterable[str]) -> tuple[str, ...]:
    """Captions without those that `find` takes for an earlier one, since they differ in case and blanks only."""
    first: dict[str, str] = {}
    for caption in captions:
        first.setdefault(plain(caption), caption)
    return tuple(first.values())


def find(text: str, captions: Sequence[str]) -> int | None:
    """Row of a caption, whatever its case and blanks; ``None`` where it is not one of them."""
    return next((row for row, caption in enumerate(captions) if plain(caption) == plain(text)), None)


def understand(text: str | None, captions: Sequence[str], *, strict: bool = False) -> Report:
    """Take a text as one of the captions.

    Args:
        text: The words; ``None`` or blank for none.
        captions: Those that the network knows.
        strict: Refuse other words.

    Returns:
        A free report with the caption as the network knows it; without words, and with ``W_UNKNOWN_CAPTION``, where the
        text is another one. Sides are the picture's.

    Raises:
        InputError: ``E_UNKNOWN_CAPTION`` for other words, with ``strict``.
    """
    if text is None or is_blank(text):
        return Report(zones=Zones(), free=True)
    row = find(text, captions)
    if row is not None:
        return Report(zones=Zones(), text=captions[row], free=True)
    nearest = max(captions, key=lambda caption: difflib.SequenceMatcher(None, plain(caption), plain(text)).ratio())
    if strict:
        raise InputError(
            "the network does not know this caption",
            expected=f"one of {len(captions)} captions, such as the nearest, {nearest!r}",
            do="textray info lists those that weights know",
            code="E_UNKNOWN_CAPTION",
        )
    notice = Notice(
        code="W_UNKNOWN_CAPTION",
        text=f"The network knows {len(captions)} captions, and the text is none of them; it worked without text.",
        remedy=f"The nearest is: {nearest}",
    )
    return Report(zones=Zones(), free=True, notices=(notice,))
