"""The painter of all figures: rows of pictures with words under, across and beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textray.io.page import FAINT, INK, Colour, Page, Picture, line_height, text_width, wrap

PANEL = 224
"""Pixels of the longer side of a picture."""
_GAP, _SIZE, _SMALL, _LEAST_WIDTH = 6, 14, 12, 620
MARGIN = 16
_MARK: Colour = (200, 40, 40)
Marked = list[tuple[str, bool]]
"""Words of a sentence, each with whether it is marked."""


@dataclass(frozen=True, kw_only=True)
class Band:
    """One row of a figure: pictures of one size, small lines under the first of them, a caption across, and columns.

    The columns stand behind the pictures and hold a sentence each.
    """

    panels: Sequence[Picture]
    under: Sequence[Sequence[str]] = ()
    caption: str = ""
    columns: Sequence[Marked] = ()


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A whole figure: headings of the columns, rows, names of colours, small paragraphs at the foot; gaps in pixels."""

    titles: Sequence[str]
    bands: Sequence[Band] = ()
    foot: Sequence[str]
    legend: Sequence[tuple[str, Colour]] = ()
    least_width: int = _LEAST_WIDTH
    under_gap: int = 4
    foot_gap: int = 4
    end: int = 2 * MARGIN


def paint(sheet: Sheet) -> Picture:
    """Lay out a figure."""
    columns = len(sheet.titles)
    width = max(2 * MARGIN + columns * PANEL + (columns - 1) * _GAP, sheet.least_width)
    lefts = [MARGIN + column * (PANEL + _GAP) for column in range(columns)]
    titles = [wrap(title, _SIZE, PANEL) for title in sheet.titles]
    foot = [line for text in sheet.foot for line in wrap(text, _SMALL, width - 2 * MARGIN)]
    captions = [wrap(band.caption, _SIZE, width - 2 * MARGIN) if band.caption else [] for band in sheet.bands]
    below = [
        band.panels[0].shape[0] + max(map(len, band.under)) * line_height(_SMALL) + sheet.under_gap
        for band in sheet.bands
    ]
    top = MARGIN + max(map(len, titles)) * line_height(_SIZE) + 6
    height = top + sum(below) + sum(len(caption) * line_height(_SIZE) + 14 for caption in captions)
    legend_height = line_height(_SMALL) if sheet.legend else 0
    page = Page(width, height + legend_height + len(foot) * line_height(_SMALL) + sheet.end)
    for left, title in zip(lefts, titles, strict=True):
        page.lines(left, MARGIN, title, _SIZE)
    y = top
    for band, caption, depth in zip(sheet.bands, captions, below, strict=True):
        for left, panel in zip(lefts, band.panels, strict=False):
            page.paste(left, y, panel)
        for left, words in zip(lefts[len(band.panels) :], band.columns, strict=True):
            _write(page, left, y, words)
        for left, lines in zip(lefts, band.under, strict=False):
            page.lines(left, y + band.panels[0].shape[0] + 2, list(lines), _SMALL, colour=FAINT)
        y = page.lines(MARGIN, y + depth, caption, _SIZE) + 14
    for number, (name, colour) in enumerate(sheet.legend):
        page.box(MARGIN + number * 130, y + 3, 12, 12, colour)
        page.text(MARGIN + number * 130 + 18, y, name, 13)
    page.lines(MARGIN, y + sheet.foot_gap, foot, _SMALL, colour=FAINT)
    return page.picture


def _write(page: Page, left: int, top: int, words: Marked) -> None:
    """Write words into a column; marked ones in colour and underlined."""
    x, space = left, text_width(" ", _SIZE)
    for word, marked in words:
        wide = text_width(word, _SIZE)
        if x > left and x + wide > left + PANEL - _GAP:
            x, top = left, top + line_height(_SIZE)
        page.text(x, top, word, _SIZE, colour=_MARK if marked else INK)
        if marked:
            page.rule([(x, top + line_height(_SIZE) - 2), (x + wide, top + line_height(_SIZE) - 2)], _MARK)
        x += wide + space
