"""Connected parts of masks, their closed outlines, and the way back from an outline to a mask, in NumPy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_VERTICES = 200


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """A connected part of a mask: its pixels, and its place."""

    pixels: int
    top: int
    left: int
    mask: NDArray[np.bool_]  # its own pixels, cut to the box around it


def parts(mask: NDArray[np.bool_], most: int) -> tuple[list[Part], int]:
    """The largest parts of a mask ``(H, W)``, at most ``most``, largest first, and the number of all.

    Pixels that touch at a corner belong together. Equal sizes come in reading order.
    """
    stride = mask.shape[1] + 1
    flat = np.zeros((len(mask), stride), np.int8)
    flat[:, :-1] = mask
    steps = np.diff(flat.ravel(), prepend=0)
    starts, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)  # of runs along rows
    if not len(starts):
        return [], 0
    first = np.searchsorted(ends, starts + stride, "left")
    last = np.searchsorted(starts, ends + stride, "right")
    count = last - first
    upper = np.repeat(np.arange(len(starts)), count)
    lower = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)
    label = _join(len(starts), upper, lower)
    names, inverse = np.unique(label, return_inverse=True)
    sizes = np.bincount(inverse, ends - starts).astype(int)
    found = []
    for part in np.argsort(-sizes, kind="stable")[:most]:
        runs = np.flatnonzero(inverse == part)
        rows, columns = starts[runs] // stride, starts[runs] % stride
        widths = ends[runs] - starts[runs]
        top, left = int(rows[0]), int(columns.min())
        own = np.zeros((int(rows[-1]) - top + 1, int((columns + widths).max()) - left), bool)
        for row, column, width in zip(rows - top, columns - left, widths, strict=True):
            own[row, column : column + width] = True
        found.append(Part(pixels=int(sizes[part]), top=top, left=left, mask=own))
    return found, len(names)


def _join(count: int, one: NDArray[np.intp], other: NDArray[np.intp]) -> NDArray[np.intp]:
    """For each of ``count`` runs the first run that pairs of neighbours lead to."""
    label = np.arange(count)
    while True:
        low, high = np.minimum(label[one], label[other]), np.maximum(label[one], label[other])
        if np.array_equal(low, high):
            return label
        np.minimum.at(label, high, low)
        while not np.array_equal(label, label[label]):
            label = label[label]


def outline(part: Part, most: int = MOST_VERTICES) -> NDArray[np.float64]:
    """The outer border of a part: closed, ``(n, 2)`` columns and rows, at most ``most`` points; holes are left out.

    Points are corners of pixels: the outer corner of the first pixel is (0, 0), its centre (0.5, 0.5).
    """
    inside = np.pad(part.mask, 1)
    column = int(np.argmax(part.mask[0]))
    row, start = 0, (0, column)
    points = [(column, row)]
    down, right = 0, 1  # direction of the walk; the part lies at its right hand
    while True:
        # The two pixels ahead of the corner, at the walk's left and at its right.
        if right:
            pixel = column if right > 0 else column - 1
            sides = ((row - 1, pixel), (row, pixel)) if right > 0 else ((row, pixel), (row - 1, pixel))
        else:
            pixel = row if down > 0 else row - 1
            sides = ((pixel, column), (pixel, column - 1)) if down > 0 else ((pixel, column - 1), (pixel, column))
        at_left, at_right = (inside[r + 1, c + 1] for r, c in sides)
        if at_left:
            points.append((column, row))
            down, right = -right, down
        elif not at_right:
            points.append((column, row))
            down, right = right, -down
        row, column = row + down, column + right
        if (row, column) == start and (down, right) == (-1, 0):
            break
    points.append(points[0])
    return np.asarray(_simplify(np.array(points, np.float64), most) + np.array((part.left, part.top)))


def _simplify(points: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """A closed line of at most ``most`` points that keeps those farthest from it (Douglas and Peucker)."""
    tolerance = 0.5
    kept = points
    while len(kept) > most:
        kept = points[_keep(points, tolerance)]
        tolerance *= 1.5
    return kept


def _keep(points: NDArray[np.float64], tolerance: float) -> NDArray[np.intp]:
    far = int(np.argmax(((points - points[0]) ** 2).sum(1)))
    keep, left = {0, far, len(points) - 1}, [(0, far), (far, len(points) - 1)]
    while left:
        first, last = left.pop()
        if last - first < 2:
            continue
        base, inner = points[last] - points[first], points[first + 1 : last] - points[first]
        length = float(np.hypot(*base))
        gap = np.abs(inner[:, 0] * base[1] - inner[:, 1] * base[0]) / length if length else np.hypot(*inner.T)
        worst = int(np.argmax(gap))
        if gap[worst] > tolerance:
            middle = first + 1 + worst
            keep.add(middle)
            left += [(first, middle), (middle, last)]
    return np.array(sorted(keep))


def fill(points: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels of ``shape`` (height, width) whose centres lie inside a closed line ``(n, 2)`` of columns and rows.

    Points are measured from the outer corner of the first pixel, as in `outline`. Where the line crosses itself, what
    it encloses twice lies outside (even-odd). What is off the picture is cut off.
    """
    height, width = shape
    x, y = points[:, 0], points[:, 1]
    right, below = np.roll(x, -1), np.roll(y, -1)
    crossed = np.zeros((height, width + 1), np.int32)
    rows = np.arange(height) + 0.5
    for x0, y0, x1, y1 in zip(x, y, right, below, strict=True):
        first, last = np.searchsorted(rows, sorted((y0, y1)))
        if first == last:
            continue
        at = x0 + (rows[first:last] - y0) * (x1 - x0) / (y1 - y0)
        column = np.clip(np.ceil(at - 0.5), 0, width).astype(np.intp)  # the first pixel whose centre is right of it
        np.add.at(crossed, (np.arange(first, last), column), 1)
    return np.asarray(np.cumsum(crossed, axis=1)[:, :-1] % 2 == 1)
