"""Films as stored levels, with a table of the pixels that these stand for: 1 or 2 bytes a pixel in place of 4.

What depends on single pixels is computed once for each level, and what depends on their distribution from counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from textray.records import Pixels

_STRIP = 1 << 16  # pixels computed at once


@dataclass(frozen=True, eq=False)
class Levels:
    """A film as levels: indexed like an array ``(H, W)``, it gives the pixels there."""

    levels: NDArray[Any]  # unsigned integers
    table: NDArray[np.float32]  # the pixel of each level
    counts: NDArray[np.int64]  # how often each level occurs

    @classmethod
    def of(cls, levels: NDArray[Any], table: NDArray[np.float32]) -> Levels:
        """Count levels of a table."""
        return cls(levels, table, count(levels, len(table)))

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""
        return self.levels.shape

    @property
    def T(self) -> Levels:  # noqa: N802 -- as of an array
        """The film with rows and columns exchanged."""
        return replace(self, levels=self.levels.T)

    def __getitem__(self, index: Any) -> NDArray[np.float32]:  # noqa: ANN401 -- what an array takes
        levels = self.levels[index]
        return stacked((self.table[levels[rows]] for rows in strips(levels.shape)), len(levels))


def strips(shape: tuple[int, ...]) -> Iterator[slice]:
    """Slices of rows that cover an array, for what needs much memory a pixel."""
    step = max(1, _STRIP // max(1, prod(shape[1:])))
    return (slice(top, min(top + step, shape[0])) for top in range(0, shape[0], step))


def stacked(parts: Iterable[NDArray[Any]], height: int) -> NDArray[Any]:
    """An array of ``height`` rows from parts of some of them."""
    coming = iter(parts)
    first = next(coming)
    result, top = np.empty((height, *first.shape[1:]), first.dtype), 0
    for part in chain([first], coming):
        result[top : top + len(part)] = part
        top += len(part)
    return result


def in_pillow(mode: str, shape: tuple[int, ...], parts: Iterable[NDArray[Any]]) -> PILImage.Image:
    """A picture of a mode of Pillow from parts of some rows."""
    picture, top = PILImage.new(mode, (shape[1], shape[0])), 0
    for part in parts:
        picture.paste(PILImage.fromarray(part), (0, top))
        top += len(part)
    return picture


def count(levels: NDArray[Any], length: int) -> NDArray[np.int64]:
    """How often each level below ``length`` occurs."""
    counts = np.zeros(length, np.int64)
    for rows in strips(levels.shape):
        counts += np.bincount(levels[rows].ravel(), minlength=length)
    return counts


def distribution(film: Pixels) -> tuple[NDArray[np.float32], NDArray[np.int64] | None]:
    """The pixels that occur in a film, in any order, and how often each; ``None`` where all of them are listed."""
    if isinstance(film, Levels):
        used = np.flatnonzero(film.counts)
        return film.table[used], film.counts[used]
    return np.ravel(film[:]), None


def percentiles(
    values: NDArray[np.float32], counts: NDArray[np.int64] | None, shares: Sequence[float]
) -> tuple[np.float64, ...]:
    """Percentiles of values that occur ``counts`` times, to the bit those of `numpy.percentile` for all of them."""
    if counts is None:
        return tuple(np.percentile(values, shares))
    order = np.argsort(values, kind="stable")
    ends = np.cumsum(counts[order])
    found = []
    for share in shares:
        place = (ends[-1] - 1) * np.true_divide(share, 100)
        first = np.floor(place)
        low, high = values[order[np.searchsorted(ends, [first, min(first + 1, ends[-1] - 1)], side="right")]]
        weight, step = place - first, high - low
        found.append(low + step * weight if weight < 0.5 else high - step * (1 - weight))
    return tuple(found)


def share(chosen: NDArray[np.bool_], counts: NDArray[np.int64] | None) -> float:
    """The share of pixels whose values are chosen, of a distribution."""
    return float(chosen.mean()) if counts is None else float(counts[chosen].sum() / counts.sum())
