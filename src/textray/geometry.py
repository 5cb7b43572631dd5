"""Where an augmentation moved the pixels of a picture, so that other maps of it can go the same way and come back."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

Plane = NDArray[np.float32]
Box = tuple[int, int, int, int]
"""Top, bottom, left, right in pixels; bottom and right are the first that are outside."""


class Geometry(NamedTuple):
    """A flip, then one affine warp, then what is covered.

    A named tuple, not a dataclass: Lightning rebuilds what is in a batch, and cannot do so with a frozen dataclass.

    Attributes:
        flipped: True where left and right were swapped first.
        angle: Turn in radians, clockwise as seen.
        zoom: Above 1 enlarges.
        down: Shift downwards, in pixels.
        across: Shift to the viewer's right, in pixels.
        inside: What black borders leave of the result, if there are any; maps are cleared outside it.
        hidden: A rectangle of the result that was painted over; maps keep what lies under it.
    """

    flipped: bool = False
    angle: float = 0.0
    zoom: float = 1.0
    down: float = 0.0
    across: float = 0.0
    inside: Box | None = None
    hidden: Box | None = None

    @property
    def warped(self) -> bool:
        """True where pixels moved otherwise than by the flip."""
        return (self.angle, self.zoom, self.down, self.across) != (0.0, 1.0, 0.0, 0.0)

    def forward(self, plane: Plane) -> Plane:
        """Move a map as the picture was moved.

        Args:
            plane: ``(h, w)`` float32; not written to.

        Returns:
            The same shape, interpolated linearly; 0 where it comes from outside, and outside ``inside``.
        """
        height, width = plane.shape
        if self.flipped:
            plane = plane[:, ::-1]
        if self.warped:
            plane = _transform(plane, affine(plane.shape, self.angle, self.zoom, (self.down, self.across)))
        if self.inside is not None:
            kept = _box((height, width), self.inside)
            plane = np.where(kept, plane, np.float32(0))
        return np.ascontiguousarray(plane)

    def back(self, plane: Plane) -> tuple[Plane, NDArray[np.bool_]]:
        """Move a map of the changed picture back onto the picture that it was before.

        Args:
            plane: ``(h, w)`` float32; not written to.

        Returns:
            The map, and ``(h, w)`` bool: the pixels that could be seen in the changed picture, neither pushed out of it
            nor covered. Elsewhere the map means nothing.
        """
        seen = np.ones(plane.shape, np.bool_)
        if self.inside is not None:
            seen &= _box(plane.shape, self.inside)
        if self.hidden is not None:
            seen &= ~_box(plane.shape, self.hidden)
        if self.warped:
            there = affine(plane.shape, self.angle, self.zoom, (self.down, self.across))
            returning = _inverse(there)
            plane = _transform(plane, returning)
            seen = _transform(seen.astype(np.float32), returning, PILImage.Resampling.NEAREST) > 0
        if self.flipped:
            plane, seen = plane[:, ::-1], seen[:, ::-1]
        return np.ascontiguousarray(plane), np.ascontiguousarray(seen)


Affine = tuple[float, float, float, float, float, float]
"""``a, b, c, d, e, f``: the point (x, y) of the result comes from (ax + by + c, dx + ey + f)."""


def affine(shape: tuple[int, ...], angle: float, zoom: float, shift: tuple[float, float]) -> Affine:
    """Where each point of a turned, zoomed and shifted picture comes from.

    Args:
        shape: Height and width in pixels; turn and zoom are about the centre.
        angle: Turn in radians, clockwise as seen.
        zoom: Above 1 enlarges.
        shift: Downwards and to the viewer's right, in pixels.
    """
    centre_x, centre_y = shape[1] / 2, shape[0] / 2
    cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
    from_x, from_y = centre_x + shift[1], centre_y + shift[0]  # a point of the result, relative to this, ...
    offset_x = centre_x - cos * from_x - sin * from_y  # ... comes from here
    offset_y = centre_y + sin * from_x - cos * from_y
    return cos, sin, offset_x, -sin, cos, offset_y


def _inverse(way: Affine) -> Affine:
    a, b, c, d, e, f = way
    area = a * e - b * d
    return e / area, -b / area, (b * f - c * e) / area, -d / area, a / area, (c * d - a * f) / area


def _transform(
    plane: Plane, way: Affine, resample: PILImage.Resampling = PILImage.Resampling.BILINEAR
) -> NDArray[np.float32]:
    height, width = plane.shape
    picture = PILImage.fromarray(np.ascontiguousarray(plane, dtype=np.float32))
    return np.asarray(picture.transform((width, height), PILImage.Transform.AFFINE, way, resample=resample))


def _box(shape: tuple[int, ...], box: Box) -> NDArray[np.bool_]:
    top, bottom, left, right = box
    inside = np.zeros(shape, np.bool_)
    inside[top:bottom, left:right] = True
    return inside
