"""The same picture in two files: under two names, or with another compression, brightness or contrast."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from textray.augment import blur
from textray.data.base import Problem
from textray.errors import InputError
from textray.io import raster

LIKENESS = 0.95
"""From here on two films count as the same: in QaTa-COV19 the pairs of different patients reach 0.88."""
_SIDE, _BORDER, _ROWS = 56, 3, 512
_EVEN = 2 / 255  # contrast below which a place counts as even
_NOISE = 0.1  # length below which nothing but rounding is in a pattern


def same_pictures(pictures: Iterable[tuple[Path, str]], root: Path, *, films: bool) -> list[Problem]:
    """Warnings about pictures that are the same as an earlier one, from the path and the part of each.

    Pictures are the same if their decoded pixels are; ``films`` also if the `pattern` of both is, whatever their
    brightness and contrast. Slices of one volume are too much alike for that. DICOM files, and files that are no
    picture, are not compared.
    """
    paths: list[tuple[Path, str]] = []
    patterns: list[NDArray[np.float32]] = []
    first: dict[bytes, int] = {}
    found: dict[int, tuple[int, float]] = {}  # the earlier picture and the likeness
    for path, part in pictures:
        levels = None if path.suffix.lower() == ".dcm" else _levels(path)
        if levels is None:
            continue
        paths.append((path, part))
        key = hashlib.sha256(repr(levels.shape).encode() + levels.tobytes()).digest()
        place = len(paths) - 1
        if (other := first.setdefault(key, place)) != place:
            found[place] = other, 1.0
        if films:
            patterns.append(pattern(levels))
    for place, other, likeness in _alike(np.array(patterns)) if patterns else ():
        leaks, known = paths[place][1] != paths[other][1], found.get(place)
        if known is None or (leaks, likeness) > (paths[place][1] != paths[known[0]][1], known[1]):
            found[place] = other, likeness
    problems = []
    for place, (other, likeness) in sorted(found.items()):
        (path, part), (twin, its_part) = paths[place], paths[other]
        words = f"the same picture as {twin.relative_to(root)}"
        words += "" if likeness == 1 else f" (likeness {likeness:.3f})"
        code, message = "W_SAME_PICTURE", f"is {words}"
        if part != its_part:
            code, message = "W_PICTURE_LEAK", f"is in {part}, and is {words} in {its_part}"
        problems.append(Problem(code, str(path.relative_to(root)), message))
    return problems


def pattern(levels: NDArray[np.generic]) -> NDArray[np.float32]:
    """Light and dark of a grey picture against their surroundings, as a vector of length 1; zeros where it is even.

    The picture is brought to 56 x 56 pixels, and each is compared with the mean around it, in units of the contrast
    there. Neither brightness nor contrast changes that, so the product of two such vectors, their likeness, is near 1
    for two forms of one film.
    """
    grey = levels.astype(np.float32)
    grey = (grey if grey.ndim == 2 else grey.mean(axis=2)) / max(float(grey.max()), 1.0)
    small = np.asarray(PILImage.fromarray(grey).resize((_SIDE, _SIDE), PILImage.Resampling.BOX))
    small = blur(small, 1)
    apart = small - blur(small, 4)
    apart = apart / (np.sqrt(blur(apart * apart, 4)) + _EVEN)
    vector = apart[_BORDER:-_BORDER, _BORDER:-_BORDER].ravel()
    vector = vector - vector.mean()
    length = float(np.linalg.norm(vector))
    return np.asarray(vector / length if length > _NOISE else np.zeros_like(vector), np.float32)


def _alike(patterns: NDArray[np.float32]) -> Iterator[tuple[int, int, float]]:
    """Place of a picture, of an earlier one, and their likeness, for every pair that is the same."""
    for start in range(0, len(patterns), _ROWS):
        rows = patterns[start : start + _ROWS]
        likeness = rows @ patterns[: start + len(rows)].T
        for row, other in zip(*np.nonzero(likeness >= LIKENESS), strict=True):
            if other < start + row:
                yield int(start + row), int(other), min(float(likeness[row, other]), 0.999)


def _levels(path: Path) -> NDArray[np.generic] | None:
    """Decoded levels of a picture; ``None`` for a file that is none, which other checks name."""
    try:
        levels = raster.decode(path.read_bytes()).levels
    except (InputError, OSError):
        return None
    return levels[..., 0] if levels.ndim == 3 and (levels == levels[..., :1]).all() else levels
