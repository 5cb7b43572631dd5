"""The text bank of a bundle: token features of all it can be told, zone sentences or known captions."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textray.errors import BundleError, InputError
from textray.records import Notice, Report, Zones
from textray.text.cleaning import is_blank, plain

BANK = "text_bank.safetensors"
BANK_ROWS = 64
MOST_TOKENS, MOST_WIDTH = 512, 4096


@dataclass(frozen=True, kw_only=True, eq=False)
class TextBank:
    """Token features of K sentences: captions, or the 64 of zones, row ``i`` being that of ``Zones.from_index(i)``.

    Attributes:
        features: ``(K, L, D)`` float32.
        mask: ``(K, L)`` float32, 1 where a token is.
    """

    features: NDArray[np.float32]
    mask: NDArray[np.float32]


def parse_bank(raw: bytes, shape: tuple[int, int, int] | None = None, *, rows: int = BANK_ROWS) -> TextBank:
    """Read the bank's bytes; no code can be in them.

    Args:
        raw: What the file holds.
        shape: Shape ``(K, L, D)`` of the features that the config announces, ``None`` for any L and D.
        rows: K.

    Raises:
        BundleError: If a tensor is missing, unknown, or of another shape, type or range.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(raw)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise BundleError(f"{BANK} cannot be read", came=f"{type(error).__name__}: {error}") from error
    if set(tensors) != {"features", "mask"}:
        raise BundleError(f"{BANK} has other tensors", came=sorted(tensors), expected="features, mask")
    features, mask = tensors["features"], tensors["mask"]
    wanted = shape or features.shape
    if features.ndim != 3 or features.shape[0] != rows or features.shape != wanted or features.dtype.kind != "f":
        raise BundleError(
            f"features of {BANK} are wrong",
            came=f"{features.dtype} {features.shape}",
            expected=f"{shape or f'({rows}, L, D)'}",
        )
    if mask.shape != features.shape[:2] or not np.isin(mask, (0, 1)).all() or not np.isfinite(features).all():
        raise BundleError(f"mask of {BANK} is wrong", came=mask.shape, expected=f"{features.shape[:2]} of 0 and 1")
    return TextBank(features=features.astype(np.float32), mask=mask.astype(np.float32))


# Captions that a network knows: the rows of the bank of a bundle whose data set has captions without zones.

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
