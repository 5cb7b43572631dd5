"""Shapes that the phantoms are drawn with."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

Field = NDArray[np.float32]
Floats = NDArray[np.floating[Any]]


def edge(distance: Floats, softness: float) -> Field:
    """A soft step: 1 where ``distance`` is well above 0, 0 well below."""
    return np.asarray(1 / (1 + np.exp(-np.clip(distance / softness, -30, 30))), np.float32)


def cloud(size: tuple[int, int], cells: int, rng: np.random.Generator) -> Field:
    """Smooth noise about 0, its features a ``cells``-th of the image."""
    coarse = rng.standard_normal((cells, cells)).astype(np.float32)
    picture = PILImage.fromarray(coarse).resize((size[1], size[0]), PILImage.Resampling.BICUBIC)
    return np.asarray(picture, np.float32)
