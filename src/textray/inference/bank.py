"""The text bank of a bundle: token features of the sentences that the network can read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textray.errors import BundleError, InputError
from textray.records import Grid, Laterality, Notice, Report, Zones
from textray.text.cleaning import is_blank, plain
from textray.text.zones import parse, parse_caption

BANK = "text_bank.safetensors"
BANK_ROWS = 64
MOST_TOKENS, MOST_WIDTH = 512, 4096
MOST_CAPTIONS = 4096


class Prompt(Enum):
    """What a segmenter reads beside the image if it is no sentence of the bank, which is given by its row."""

    OWN_REPORT = auto()
    """The report that the network writes itself."""
    NO_REPORT = auto()
    """No text, and the network writes none."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TextBank:
    """Token features of K sentences: captions, or the 64 of zones, row ``i`` being that of ``Zones.from_index(i)``."""

    features: NDArray[np.float32]  # (K, L, D)
    mask: NDArray[np.float32]  # (K, L), 1 where a token is
    captions: tuple[str, ...] = ()  # texts of the rows, none if they are those of zones

    def understand(
        self, text: str | None, *, laterality: Laterality | str, grid: Grid | None = None, strict: bool = False
    ) -> Report:
        """Read a text as the zones, or the caption in the bank's spelling, that the network knows.

        Other words give an empty report with a warning; ``strict`` refuses them. Left and right of captions are the
        picture's: of one that names zones of lungs the caller must say so. The grid places the patient's sides.

        Raises:
            InputError: If the words are refused; ``E_UNKNOWN_CAPTION`` for other words than captions,
                ``E_LATERALITY`` for a caption of zones whose sides are to be the patient's.
        """
        if not self.captions:
            return parse(text, laterality=laterality, grid=grid, strict=strict)
        if text is None or is_blank(text):
            return Report(zones=Zones(), free=True)
        row = find(text, self.captions)
        if row is not None:
            _check_sides(self.captions[row], laterality)
            return Report(zones=Zones(), text=self.captions[row], free=True)
        words = plain(text)
        nearest = max(self.captions, key=lambda known: difflib.SequenceMatcher(None, plain(known), words).ratio())
        if strict:
            raise InputError(
                "the network does not know this caption",
                expected=f"one of {len(self.captions)} captions, such as the nearest, {nearest!r}",
                do="textray info lists those that weights know",
                code="E_UNKNOWN_CAPTION",
            )
        what = f"The network knows {len(self.captions)} captions, and the text is none of them; it worked without text."
        notice = Notice(code="W_UNKNOWN_CAPTION", text=what, remedy=f"The nearest is: {nearest}")
        return Report(zones=Zones(), free=True, notices=(notice,))

    def row(self, report: Report) -> int | None:
        """Row of the sentence of a report; ``None`` if it names no zone, or is no caption of the bank."""
        if self.captions:
            return find(report.text, self.captions) if report.free and report.text else None
        return report.zones.index if report.zones else None


def _check_sides(caption: str, laterality: Laterality | str) -> None:
    """Refuse a caption of zones that names a side, unless its sides are said to be the viewer's."""
    try:
        zones = parse_caption(caption).zones
    except InputError:  # of other pictures than films
        return
    if laterality != Laterality.VIEWER and zones != zones.mirror():
        raise InputError(
            "left and right in the captions of these weights are the viewer's",
            came=f"laterality {laterality}",
            expected=f"laterality {Laterality.VIEWER}",
            do="Name the viewer's sides, and say so with --laterality viewer",
            code="E_LATERALITY",
        )


def parse_bank(raw: bytes, shape: tuple[int, int, int] | None = None, *, captions: Sequence[str] = ()) -> TextBank:
    """Read the bytes of a bank, of the ``shape`` ``(K, L, D)`` that the config states; no code can be in them.

    Without ``captions``, the texts of its K rows, they are the 64 zone sentences. Other tensors are refused.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(raw)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise BundleError(f"{BANK} cannot be read", came=f"{type(error).__name__}: {error}") from error
    if set(tensors) != {"features", "mask"}:
        raise BundleError(f"{BANK} has other tensors", came=sorted(tensors), expected="features, mask")
    features, mask, rows = tensors["features"], tensors["mask"], len(captions) or BANK_ROWS
    wanted = shape or features.shape
    if features.ndim != 3 or features.shape[0] != rows or features.shape != wanted or features.dtype.kind != "f":
        came, expected = f"{features.dtype} {features.shape}", f"{shape or f'({rows}, L, D)'}"
        raise BundleError(f"features of {BANK} are wrong", came=came, expected=expected)
    if mask.shape != features.shape[:2] or not np.isin(mask, (0, 1)).all() or not np.isfinite(features).all():
        raise BundleError(f"mask of {BANK} is wrong", came=mask.shape, expected=f"{features.shape[:2]} of 0 and 1")
    return TextBank(features=features.astype(np.float32), mask=mask.astype(np.float32), captions=tuple(captions))


def read_captions(text: Mapping[str, Any] | None, *, writes: bool) -> tuple[str, ...]:
    """Read the captions of the bank, one for each row, from ``text`` of a bundle's config; none of zone sentences.

    They are refused unless they are different texts, and beside a network that ``writes`` reports of zones.
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
