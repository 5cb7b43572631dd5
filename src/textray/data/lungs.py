"""Lungs of a film, one at each image side, out of one mask of both."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_SPECK = 0.01  # share of the mask's pixels below which a piece is no part of a lung
_BOTH = 0.5  # share of the image's width from which one piece is both lungs
_APART = 0.2  # share of the image's width from which the two largest pieces are two lungs


def split_lungs(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Split a mask of both lungs, ``(H, W)``, in the lung at the image's left and the one at its right, ``(2, H, W)``.

    Each connected piece belongs to the side that its centre of mass lies on. The line between the sides is halfway
    between the two largest pieces; it is the image's middle where these lie above each other or there is one only.
    Specks are dropped. Lungs that touch are cut at the column with the fewest pixels in the middle third of theirs. The
    plane of a lung that is not there is empty.
    """
    width = mask.shape[1]
    labels, count = ndimage.label(mask)
    pieces = [labels == number for number in range(1, count + 1)]
    pieces = [part for piece in pieces if piece.sum() >= _SPECK * mask.sum() for part in _cut(piece)]
    centres = [float(np.nonzero(piece)[1].mean()) for piece in pieces]
    largest = sorted(zip(pieces, centres, strict=True), key=lambda piece: -piece[0].sum())[:2]
    two = [centre for _, centre in largest]
    line = sum(two) / 2 if len(two) > 1 and abs(two[0] - two[1]) >= _APART * width else (width - 1) / 2
    lungs = np.zeros((2, *mask.shape), np.bool_)
    for piece, centre in zip(pieces, centres, strict=True):
        lungs[int(centre > line)] |= piece
    return lungs


def _cut(piece: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """The piece, or its two halves where it is both lungs."""
    columns = piece.sum(0)
    used = np.flatnonzero(columns)
    first, extent = int(used[0]), int(used[-1] - used[0] + 1)
    if extent < _BOTH * len(columns):
        return [piece]
    start, stop = first + extent // 3, first + max(2 * extent // 3, extent // 3 + 1)
    thin = np.flatnonzero(columns[start:stop] == columns[start:stop].min())
    at = start + int(thin[len(thin) // 2])
    left, right = piece.copy(), piece.copy()
    left[:, at:], right[:, :at] = False, False
    return [left, right]
