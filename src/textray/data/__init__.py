"""Data sets on disk: readers, splits, checks, the pixel cache and the synthetic film.

    from textray.data import SegmentationSet, collate, open_reader

    data = SegmentationSet(open_reader("phantom").samples("inner"), preprocess).plain()

Importing this module does not load torch; each part is loaded at its first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from textray import registry

if TYPE_CHECKING:
    from textray.data.base import Reader, Sample, open_reader
    from textray.data.batches import Batch, EpochSampler, SegmentationSet, collate

_BASE = ("Reader", "Sample", "open_reader")
"""Names that need no torch."""

__all__ = ["Batch", "EpochSampler", "Reader", "Sample", "SegmentationSet", "collate", "open_reader"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return registry.load(f"{__name__}.{'base' if name in _BASE else 'batches'}:{name}")


def __dir__() -> list[str]:
    return sorted(__all__)
