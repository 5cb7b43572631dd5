"""A contact sheet: films of a data set with their masks over them, to see whether they belong together."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from textray.data.base import Sample
from textray.errors import InputError, UsageError
from textray.io.page import FAINT, Colour, Page, Picture, fit, line_height, shrink, text_width
from textray.io.read import read
from textray.io.write import render_overlay

log = logging.getLogger(__name__)

MOST = 48
_COLUMNS, _CELL, _GAP, _SIZE = 6, 220, 12, 12
_FLAG: Colour = (190, 30, 30)


def contact_sheet(films: Sequence[tuple[Sample, str]]) -> Picture:
    """Draw at most `MOST` films with their masks, name and split: first those with words about a fault, then others.

    Raises:
        UsageError: If there is none.
    """
    if not films:
        raise UsageError("no film with a mask to show", do="Look at what the check lists")
    flagged = [place for place, (_, words) in enumerate(films) if words][:MOST]
    others = [place for place in range(len(films)) if place not in set(flagged)]
    wanted = min(MOST - len(flagged), len(others))
    spread = np.linspace(0, len(others) - 1, wanted).round().astype(int) if wanted else ()
    chosen = [films[place] for place in (*flagged, *(others[i] for i in spread))]
    rows = -(-len(chosen) // _COLUMNS)
    height = _CELL + 2 * line_height(_SIZE) + _GAP
    columns = min(_COLUMNS, len(chosen))
    page = Page(columns * (_CELL + _GAP) + _GAP, rows * height + 2 * _GAP + line_height(_SIZE))
    for number, (sample, words) in enumerate(chosen):
        left, top = _GAP + number % _COLUMNS * (_CELL + _GAP), _GAP + number // _COLUMNS * height
        try:
            pixels = read(sample.image_path, color=True).pixels
            pixels = pixels.mean(axis=2) if (pixels == pixels[..., :1]).all() else pixels
            picture = render_overlay(pixels, sample.read_mask((pixels.shape[0], pixels.shape[1])))
        except InputError as error:
            log.warning("%s is not shown: %s", sample.image_id, error)
            words = f"{words} {error.code}".strip()
        else:
            page.paste(left, top, shrink(picture, fit((picture.shape[0], picture.shape[1]), _CELL)))
        under = top + _CELL + 2
        page.text(left, under, _cut(f"{sample.split} {sample.image_id}"), _SIZE)
        page.text(left, under + line_height(_SIZE), _cut(words), _SIZE, colour=_FLAG)
    foot = (
        f"{len(chosen)} of {len(films)} films with masks; what a mask marks is tinted. Left is the left of the picture."
    )
    page.text(_GAP, rows * height + _GAP, foot, _SIZE, colour=FAINT)
    return page.picture


def _cut(text: str) -> str:
    """A text that fits under its film, from its beginning and its end."""
    shown = text
    while shown and text_width(shown, _SIZE) > _CELL:
        text = text[: len(text) // 2 - 1] + text[len(text) // 2 + 1 :]
        shown = f"{text[: len(text) // 2]}…{text[len(text) // 2 :]}"
    return shown
