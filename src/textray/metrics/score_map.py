"""Maps of similarity: smoothed, enlarged and brought to a range, the way that published evaluations do."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from textray.errors import ShapeError, UsageError
from textray.metrics.segmentation import Floats

Normalise = Literal["minmax", "none", "clamp"]
NORMALISATIONS: tuple[Normalise, ...] = get_args(Normalise)
"""``minmax``: each map stretched to [-1, 1], so that something is always marked; ``none``: the map as it is;
``clamp``: negative values made 0."""

SIGMA = 1.5
"""Width of the smoothing in cells of the map, as BioViL and AFLoc have it."""
_REACH = 4.0  # widths at which the kernel ends, as SciPy has it


def check_normalise(name: str) -> Normalise:
    """The normalisation of that name.

    Raises:
        UsageError: If there is none.
    """
    for known in NORMALISATIONS:
        if name == known:
            return known
    raise UsageError(f"unknown normalisation of maps {name!r}", expected="one of " + ", ".join(NORMALISATIONS))


def smooth(maps: NDArray[np.floating[Any]], sigma: float = SIGMA) -> NDArray[np.float32]:
    """Smooth maps by a Gaussian; beyond the edge a map goes on as its mirror image.

    Args:
        maps: ``(..., h, w)``, any range.
        sigma: Standard deviation in cells, 0 to leave the maps alone.

    Returns:
        The same shape, float32.

    Raises:
        UsageError: If ``sigma`` is negative or not finite.
        ShapeError: If a map has no cell.
    """
    if not (math.isfinite(sigma) and sigma >= 0):
        raise UsageError("width of the smoothing is wrong", came=sigma, expected="0 or more cells")
    if maps.ndim < 2 or 0 in maps.shape[-2:]:
        raise ShapeError("a map has rows and columns", came=maps.shape, expected="(..., h, w)")
    if sigma == 0:
        return np.asarray(maps, np.float32)
    rows, columns = (_smoothing(length, sigma) for length in maps.shape[-2:])
    return np.asarray(rows @ maps.astype(np.float64) @ columns.T, np.float32)


def _smoothing(length: int, sigma: float) -> Floats:
    """Matrix ``(length, length)`` that smooths a line of so many cells."""
    reach = int(_REACH * sigma + 0.5)
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    weights /= weights.sum()
    places = (np.arange(length)[:, None] + offsets) % (2 * length)  # mirrored with the edge cell repeated
    places = np.minimum(places, 2 * length - 1 - places)
    matrix = np.zeros((length, length))
    np.add.at(matrix, (np.arange(length)[:, None], places), weights)
    return matrix


def enlarge(values: NDArray[np.floating[Any]], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Bring a map ``(h, w)`` to ``shape`` by bilinear interpolation between the centres of its cells."""
    picture = PILImage.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.array(picture.resize((shape[1], shape[0]), PILImage.Resampling.BILINEAR), dtype=np.float32)


def normalise(values: NDArray[np.floating[Any]], how: Normalise) -> NDArray[np.floating[Any]]:
    """Bring a map to the range in which thresholds are meant.

    Args:
        values: A map of any shape.
        how: One of `NORMALISATIONS`.

    Returns:
        The same shape. Under ``minmax`` a map that is constant gives zeros: it points nowhere.
    """
    if how == "none":
        return values
    if how == "clamp":
        return np.asarray(np.maximum(values, 0), values.dtype)
    low, high = values.min(), values.max()
    if not high > low:
        return np.zeros_like(values)
    return np.asarray((values - low) / (high - low) * 2 - 1, values.dtype)
