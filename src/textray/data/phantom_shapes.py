"""Shapes that the phantoms are drawn with."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from textray.errors import UsageError
from textray.records import ZONE_ROWS

Field = NDArray[np.float32]
Floats = NDArray[np.floating[Any]]


SMALLEST = 16
"""Shortest side that a phantom can have, in pixels."""
LEVELS = (0.0, *ZONE_ROWS, 1.0)
"""Heights between which the upper, middle and lower zones of pixels lie, as shares of the image's height."""


def places(size: tuple[int, int]) -> tuple[Field, Field]:
    """Where each pixel lies: across and down, each ``(H, W)`` in (0, 1).

    Raises:
        UsageError: If a side is shorter than `SMALLEST`.
    """
    height, width = size
    if min(size) < SMALLEST:
        raise UsageError("the phantom is too small", came=f"{height} x {width}", expected=f"at least {SMALLEST} pixels")
    down = np.repeat(((np.arange(height) + 0.5) / height).astype(np.float32)[:, None], width, axis=1)
    across = np.repeat(((np.arange(width) + 0.5) / width).astype(np.float32)[None], height, axis=0)
    return across, down


def edge(distance: Floats, softness: float) -> Field:
    """A soft step: 1 where ``distance`` is well above 0, 0 well below."""
    return np.asarray(1 / (1 + np.exp(-np.clip(distance / softness, -30, 30))), np.float32)


def cloud(size: tuple[int, int], cells: int, rng: np.random.Generator) -> Field:
    """Smooth noise about 0, its features a ``cells``-th of the image."""
    coarse = rng.standard_normal((cells, cells)).astype(np.float32)
    picture = PILImage.fromarray(coarse).resize((size[1], size[0]), PILImage.Resampling.BICUBIC)
    return np.asarray(picture, np.float32)
