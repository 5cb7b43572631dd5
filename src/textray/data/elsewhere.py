"""Pictures that are no frontal chest films, drawn or cut from films, in which a network learns to find no lungs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage
from PIL import ImageDraw
from scipy import ndimage

Pixels = NDArray[np.float32]

_CUTS = {"abdomen": (0.82, 1.0, 0.1, 0.9), "neck": (0.0, 0.16, 0.15, 0.85), "spine": (0.05, 0.95, 0.42, 0.58)}
"""Parts of a chest film without much of a lung: top, end, left and right as shares of its sides."""


def elsewhere(film: Pixels, rng: np.random.Generator) -> Pixels:
    """Draw a picture ``(h, w)`` float32 in [0, 1] that is no chest film; some kinds are cut from a film."""
    kind = rng.choice(["page", "hand", "noise", "shapes", *_CUTS])
    if kind in _CUTS:
        return _cut(film, *_CUTS[kind])
    if kind == "noise":
        field = rng.standard_normal(film.shape).astype(np.float32)
        return _stretched(ndimage.gaussian_filter(field, rng.uniform(0.5, 40.0)))
    picture = PILImage.new("L", (film.shape[1], film.shape[0]), int(rng.integers(0, 40)))
    {"page": _page, "hand": _hand, "shapes": _shapes}[kind](picture, rng)
    pixels = np.asarray(picture, np.float32) / np.float32(255)
    if kind == "page" and rng.random() < 0.7:
        pixels = 1 - pixels  # dark on white
    if kind == "hand":
        pixels = ndimage.gaussian_filter(pixels, rng.uniform(0.5, 2.5))
        pixels += rng.normal(0, 0.03, film.shape).astype(np.float32)
    return _limited(pixels)


def _cut(film: Pixels, top: float, end: float, left: float, right: float) -> Pixels:
    height, width = film.shape
    part = film[int(top * height) : int(end * height), int(left * width) : int(right * width)]
    picture = PILImage.fromarray(np.ascontiguousarray(part))
    return _limited(np.asarray(picture.resize((width, height), PILImage.Resampling.BILINEAR)))


def _stretched(field: Pixels) -> Pixels:
    low, high = field.min(), field.max()
    return _limited((field - low) / max(float(high - low), 1e-6))


def _limited(pixels: NDArray[np.floating]) -> Pixels:
    limited: Pixels = np.clip(pixels, 0, 1).astype(np.float32)
    return limited


def _page(picture: PILImage.Image, rng: np.random.Generator) -> None:
    """Lines of words, as a scanned report has them."""
    draw, (width, height) = ImageDraw.Draw(picture), picture.size
    tall = int(rng.integers(2, 9))
    for top in range(int(0.08 * height), int(0.92 * height), 2 * tall + int(rng.integers(0, 4))):
        left = int(0.08 * width)
        while left < 0.9 * width * rng.uniform(0.6, 1.0):
            long = int(rng.integers(1, 8)) * tall
            draw.rectangle(
                (left, top, min(left + long, int(0.94 * width)), top + tall), fill=int(rng.integers(170, 255))
            )
            left += long + tall


def _hand(picture: PILImage.Image, rng: np.random.Generator) -> None:
    """A palm with fingers of bones, or a long bone by itself."""
    draw, (width, height) = ImageDraw.Draw(picture), picture.size
    grey = int(rng.integers(60, 130))
    if rng.random() < 0.7:
        draw.ellipse((0.3 * width, 0.5 * height, 0.7 * width, 0.95 * height), fill=grey)
    for across in np.linspace(0.25, 0.75, int(rng.integers(1, 6))) + rng.uniform(-0.05, 0.05):
        tip = across + (across - 0.5) * rng.uniform(0.2, 0.8)
        ends = (tip * width, rng.uniform(0.05, 0.2) * height, across * width, 0.75 * height)
        for thick, fill in ((0.09, grey), (0.045, int(rng.integers(160, 255)))):
            draw.line(ends, fill=fill, width=max(2, int(thick * width)))


def _shapes(picture: PILImage.Image, rng: np.random.Generator) -> None:
    draw, (width, height) = ImageDraw.Draw(picture), picture.size
    for _ in range(int(rng.integers(1, 9))):
        x, y = sorted(rng.uniform(0, width, 2)), sorted(rng.uniform(0, height, 2))
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape((x[0], y[0], x[1] + 1, y[1] + 1), fill=int(rng.integers(0, 255)))
