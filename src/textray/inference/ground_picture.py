"""Picture of a localization: the film with the map in colour, its peak, the patient's sides, and the words."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from textray.inference.localizer import Localization
from textray.io.page import INK, LONGEST, PAPER, Page, Picture, fit, heat, line_height, thumbnail, wrap
from textray.io.write import FOUND, outline
from textray.metrics.grounding import enlarge
from textray.records import Grid, Laterality, Pixels

_SHORTEST = 480  # pixels of the film's longer side in the picture, at least
_PER_LETTER = 40  # letters of the caption that a line of the film's width holds, about
_BAR = 84  # pixels beside the film for the colour scale
_SHOWN = 400
_IN_CAPTION = {"W_UNKNOWN_WORD", "W_PHRASE_CUT", "W_DENIED", "W_NO_PLACE", "W_PEAK_OTHER_SIDE"}
"""Warnings that belong to the picture, which may be passed on without its record."""


def draw(
    film: Pixels,
    localization: Localization,
    grid: Grid,
    *,
    mask: NDArray[np.bool_] | None = None,
    rule: str = "",
) -> Picture:
    """Draw one localization on its film, ``(H, W)`` float32 in [0, 1] or ``(H, W, 3)``.

    Colours run from the lowest to the highest value of this map, which the scale beside the film names: two pictures
    of the same colour need not mean the same cosine. A mask ``(H, W)`` is outlined; ``rule`` tells how it came about.
    """
    size = fit(grid.shape, min(max(*grid.shape, _SHORTEST), LONGEST))
    values = enlarge(localization.map, size)
    low, high = float(localization.map.min()), float(localization.map.max())
    level = np.clip((values - low) / (high - low), 0, 1) if high > low else np.zeros_like(values)
    picture = heat(thumbnail(film, size), level)
    if mask is not None:
        small = enlarge(mask.astype(np.float32), size) >= 0.5
        picture[outline(small, max(1, round(max(size) / 400)))] = FOUND
    height, width = size
    letters = max(12, round(max(size) / _PER_LETTER * 0.8))
    margin = letters // 2
    lines = [
        line for text in _caption(localization, grid, rule) for line in wrap(text, letters, width + _BAR - 2 * margin)
    ]
    page = Page(width + _BAR, height + 2 * margin + len(lines) * line_height(letters))
    page.paste(0, 0, picture)
    scale = round(height * 0.6)
    page.scale(width + 12, (height - scale) // 2, scale, low, high, None)
    cross(page, localization.peak, grid, size)
    _sides(page, grid, width, letters)
    page.lines(margin, height + margin, lines, letters)
    return page.picture


_SIDES = {
    "tag": "R, L: the patient's right and left, by the film's tag.",
    "assumed": "R?, L?: the patient's right and left, assumed; the file does not tell them.",
    "undefined": "The film has no left and right of the patient.",
}


def _caption(localization: Localization, grid: Grid, rule: str) -> list[str]:
    phrase = localization.phrase
    lines = [f'"{_short(phrase.phrase)}" (left and right: the {_whose(phrase.laterality)})']
    if localization.told != phrase.phrase:
        whose = _whose(phrase.network_laterality)
        lines.append(f'The network reads: "{_short(localization.told)}" (the {whose})')
    low, high = float(localization.map.min()), float(localization.map.max())
    row, column = localization.peak
    lines.append(f"Colours run over this map's own cosines, {low:.3f} to {high:.3f}.")
    lines.append(f"Cross: its peak, row {row}, column {column}.")
    if rule:
        lines.append(rule)
    lines += [notice.text for notice in localization.notices if notice.code in _IN_CAPTION]
    return [*lines, _SIDES[grid.sides_from]]


def _whose(laterality: Laterality) -> str:
    return "viewer's, as far as is known" if laterality is Laterality.UNKNOWN else f"{laterality}'s"


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def cross(page: Page, peak: tuple[int, int], grid: Grid, size: tuple[int, int]) -> None:
    """Mark the peak by a white cross with a dark edge that leaves the place itself open."""
    height, width = size
    y = round((peak[0] + 0.5) / grid.height * height - 0.5)
    x = round((peak[1] + 0.5) / grid.width * width - 0.5)
    arm, gap = max(6, max(size) // 45), max(2, max(size) // 200)
    for thick, colour, longer in ((5, INK, 1), (3, PAPER, 0)):
        for start in (gap - longer, -gap - arm - longer):
            span = arm + 2 * longer
            left, right = max(x + start, 0), min(x + start + span, width)
            page.box(left, max(y - thick // 2, 0), right - left, thick, colour)
            top, bottom = max(y + start, 0), min(y + start + span, height)
            page.box(min(max(x - thick // 2, 0), width - thick), top, thick, bottom - top, colour)


def _sides(page: Page, grid: Grid, width: int, letters: int) -> None:
    if grid.sides_from == "undefined":
        return
    unsure = "?" if grid.sides_from == "assumed" else ""
    left, right = ("R", "L") if grid.mirrored else ("L", "R")
    room, size = round(letters * 1.6), round(letters * 1.2)
    for at, letter in ((4, left), (width - room - 4, right)):
        page.box(at, 4, room, room, INK)
        page.text(at + room // 2, 4 + (room - size) // 2, letter + unsure, size, colour=PAPER, anchor="m")
