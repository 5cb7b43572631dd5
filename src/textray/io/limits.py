"""What a picture may be: size, contrast and finite values, checked alike by every reader."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from textray.errors import InputError

MAX_FILE_BYTES = 1 << 30
MAX_PIXELS = 8192 * 8192
"""Most pixels of one picture: 256 MiB as float32, twice the largest detector of today."""
MIN_SIDE = 16
MAX_ASPECT = 10


def check_size(height: int, width: int) -> None:
    """Refuse a size that no chest image has, from the header, before any pixel is decoded.

    Raises:
        InputError: ``E_SIZE``.
    """
    came = f"{height} x {width} pixels"
    if height * width > MAX_PIXELS:
        raise InputError(
            "the picture is too large",
            came=came,
            expected=f"at most {MAX_PIXELS} pixels",
            do="Reduce it.",
            code="E_SIZE",
        )
    if min(height, width) < MIN_SIDE:
        raise InputError(
            "the picture is too small", came=came, expected=f"at least {MIN_SIDE} on each side", code="E_SIZE"
        )
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise InputError(
            "the picture is too narrow", came=came, expected=f"sides of at most 1 to {MAX_ASPECT}", code="E_SIZE"
        )


def check_content(pixels: NDArray[Any]) -> None:
    """Refuse pixels that are not finite, or all the same.

    Raises:
        InputError: ``E_FORMAT`` for NaN or infinity, ``E_CONSTANT`` for a picture without any contrast.
    """
    low, high = pixels.min(), pixels.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError("the picture holds NaN or infinity", expected="finite pixels", do="Replace them first.")
    if low == high:
        raise InputError(
            "the picture is constant",
            came=f"{low} in each pixel",
            expected="a film",
            do="Export it again.",
            code="E_CONSTANT",
        )
