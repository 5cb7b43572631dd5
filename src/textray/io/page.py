"""Drawing on pages with Pillow: films as thumbnails, heat maps over them, colour scales, wrapped text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

from textray.io.levels import distribution, percentiles, stacked, strips
from textray.records import Pixels

Colour = tuple[int, int, int]
Picture = NDArray[np.uint8]
"""``(H, W, 3)`` uint8, RGB."""
INK: Colour = (30, 30, 30)
FAINT: Colour = (120, 120, 120)
PAPER: Colour = (255, 255, 255)

_RAMP: tuple[tuple[float, Colour], ...] = (
    (0.0, (25, 25, 80)),
    (0.25, (90, 35, 140)),
    (0.5, (200, 55, 100)),
    (0.75, (250, 150, 45)),
    (1.0, (255, 250, 170)),
)
"""From low to high; its brightness always rises, so it is also readable in grey."""
_DIM = 0.75  # a bright film would wash out the dark colours
_HIDES = (0.3, 0.85)  # share of the colour over the film at the lowest and at the highest value
LONGEST = 1024
"""Longest side of a film with a map over it, in pixels."""
_SMALLEST = 10  # pixels of the smallest readable letters
_WIDTH_PER_SIZE = 45  # letters of a caption grow with the film, so that a line holds about as much on each


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Scalable font inside Pillow; no font of the machine is used."""
    return ImageFont.load_default(size)


def text_width(text: str, size: int) -> int:
    """Width of a line in pixels."""
    return int(np.ceil(font(size).getlength(text)))


def wrap(text: str, size: int, width: int) -> list[str]:
    """Break a text into lines of at most ``width`` pixels; a longer word gets a whole line."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def ramp(values: ArrayLike) -> Picture:
    """Colours of values in [0, 1], with a last axis of three."""
    given = np.clip(np.asarray(values, np.float64), 0, 1)
    places = [place for place, _ in _RAMP]
    planes = [np.interp(given, places, [colour[c] for _, colour in _RAMP]) for c in range(3)]
    return np.rint(np.stack(planes, axis=-1)).astype(np.uint8)


def fit(shape: tuple[int, int], most: int) -> tuple[int, int]:
    """Height and width of a picture whose longer side becomes ``most`` pixels."""
    scale = most / max(shape)
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def display_range(film: Pixels) -> tuple[Any, Any]:
    """The 0.5th and the 99.5th percentile of a film, which display shows as black and white."""
    low, high = percentiles(*distribution(film), (0.5, 99.5))
    return low, high


def stretch(pixels: NDArray[np.float32], shades: tuple[Any, Any]) -> NDArray[np.float32]:
    """Pixels of a film for display: ``[0, 255]`` between ``shades``, its `display_range`."""
    low, high = shades
    return np.asarray(np.clip((pixels - low) / max(float(high - low), 1e-6), 0, 1) * 255)


def in_colour(picture: NDArray[Any]) -> NDArray[np.float32]:
    """A picture ``(H, W)`` or ``(H, W, 3)`` as ``(H, W, 3)`` float32."""
    planes = picture[..., None] if picture.ndim == 2 else picture
    return np.array(np.broadcast_to(planes, (*picture.shape[:2], 3)), np.float32)


def levels(film: Pixels) -> NDArray[np.uint8]:
    """A film ``(H, W)`` or ``(H, W, 3)`` for display, stretched over `display_range`: uint8 of the same shape."""
    shades = display_range(film)
    parts = (np.rint(stretch(film[rows], shades)).astype(np.uint8) for rows in strips(film.shape))
    return stacked(parts, film.shape[0])


def thumbnail(film: Pixels, size: tuple[int, int]) -> NDArray[np.float32]:
    """A film ``(H, W)`` or ``(H, W, 3)`` float32 for display in another size: ``(h, w, 3)`` float32 in [0, 255]."""
    return in_colour(shrink(levels(film), size))


def shrink(picture: Picture, size: tuple[int, int]) -> Picture:
    """A picture ``(H, W)`` or ``(H, W, 3)`` in another size, height and width."""
    resized = PILImage.fromarray(picture).resize((size[1], size[0]), PILImage.Resampling.LANCZOS)
    return np.asarray(resized, np.uint8)


def heat(film: NDArray[np.float32], values: NDArray[np.float32]) -> Picture:
    """Lay values ``(h, w)`` in [0, 1] over a film ``(h, w, 3)`` in [0, 255], most visible where they are low."""

    def strip(rows: slice) -> Picture:
        share = (_HIDES[0] + (_HIDES[1] - _HIDES[0]) * np.clip(values[rows], 0, 1))[..., None]
        return np.asarray(np.rint(film[rows] * _DIM * (1 - share) + ramp(values[rows]) * share), np.uint8)

    return stacked(map(strip, strips(film.shape)), len(film))


def project(film: Pixels, values: Iterable[NDArray[np.float32]]) -> Picture:
    """Lay a map ``(H, W)`` float32, from its lowest to its highest value, over its film ``(H, W)`` in [0, 1].

    The map comes in parts of some rows. A film with a side above `LONGEST` is made smaller.
    """
    height, width = film.shape[:2]
    size = fit((height, width), min(max(height, width), LONGEST))
    narrow = stacked((_resized(part, (len(part), size[1])) for part in values), height)  # as Pillow does it first
    coarse = _resized(narrow, size)
    low, high = float(coarse.min()), float(coarse.max())
    level = (coarse - low) / (high - low) if high > low else np.zeros_like(coarse)
    return heat(thumbnail(film, size), level)


def _resized(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    return np.asarray(PILImage.fromarray(values).resize((size[1], size[0]), PILImage.Resampling.BILINEAR))


def captions(width: int, paragraphs: Sequence[str]) -> Picture:
    """A strip of text to go beneath a picture, a line or more for each paragraph."""
    size = max(_SMALLEST, round(width / _WIDTH_PER_SIZE))
    margin = size // 2
    lines = [line for text in paragraphs for line in wrap(text, size, width - 2 * margin)]
    page = Page(width, 2 * margin + len(lines) * line_height(size))
    page.lines(margin, margin, lines, size)
    return page.picture


class Page:
    """A white page to draw on; its sides, and all places and sizes on it, are in pixels."""

    def __init__(self, width: int, height: int) -> None:
        self._sheet = PILImage.new("RGB", (width, height), PAPER)
        self._pen = ImageDraw.Draw(self._sheet)

    @property
    def picture(self) -> Picture:
        """The page as it is now."""
        return np.array(self._sheet)

    def text(
        self,
        left: int,
        top: int,
        text: str,
        size: int = 14,
        *,
        colour: Colour = INK,
        anchor: Literal["l", "m", "r"] = "l",
    ) -> None:
        """Write one line; ``left`` is its left end, middle or right end, as ``anchor`` says, and ``top`` its top."""
        self._pen.text((left, top), text, fill=colour, font=font(size), anchor=f"{anchor}a")

    def lines(self, left: int, top: int, lines: list[str], size: int = 14, *, colour: Colour = INK) -> int:
        """Write lines below each other; return the top of the next one."""
        for line in lines:
            self.text(left, top, line, size, colour=colour)
            top += line_height(size)
        return top

    def paste(self, left: int, top: int, picture: Picture) -> None:
        """Place a picture."""
        self._sheet.paste(PILImage.fromarray(picture), (left, top))

    def box(self, left: int, top: int, width: int, height: int, colour: Colour) -> None:
        """Fill a rectangle, unless it is empty."""
        if width > 0 and height > 0:
            self._pen.rectangle((left, top, left + width - 1, top + height - 1), fill=colour)

    def rule(self, points: list[tuple[int, int]], colour: Colour = FAINT) -> None:
        """Draw a line through points ``(x, y)``."""
        self._pen.line(points, fill=colour, width=1)

    def scale(self, left: int, top: int, height: int, low: float, high: float, mark: tuple[float, str] | None) -> None:
        """Draw a vertical colour scale from ``low`` to ``high``, and a named value between them as its ``mark``."""
        strip = ramp(np.linspace(1, 0, height))[:, None]
        self.paste(left, top, np.ascontiguousarray(np.broadcast_to(strip, (height, 14, 3))))
        right = left + 18
        self.text(right, top - 2, f"{high:.3f}", 12)
        self.text(right, top + height - 13, f"{low:.3f}", 12)
        if mark is not None and high > low:
            at = top + round((high - mark[0]) / (high - low) * (height - 1))
            if top <= at < top + height:
                self.rule([(left - 3, at), (left + 16, at)], INK)
                self.text(right, min(max(at - 7, top + 13), top + height - 29), mark[1], 12)


def line_height(size: int) -> int:
    """Distance from one line to the next."""
    return round(size * 1.35)
