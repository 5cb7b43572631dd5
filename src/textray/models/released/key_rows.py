"""Rows of the tables of published tensors, and the few kinds of them that recur."""

from __future__ import annotations

from collections.abc import Iterator

Shape = tuple[int, ...]
Row = tuple[str, str | None, Shape]
"""The published name, our name (``None`` for what our networks compute themselves), the shape."""


def under(theirs: str, ours: str, rows: Iterator[Row]) -> Iterator[Row]:
    """Rows with prefixes before both names."""
    for their_name, our_name, shape in rows:
        yield theirs + their_name, None if our_name is None else ours + our_name, shape


def pair(theirs: str, ours: str, *weight: int) -> Iterator[Row]:
    """A weight, and a bias as long as the weight's first side."""
    yield f"{theirs}.weight", f"{ours}.weight", weight
    yield f"{theirs}.bias", f"{ours}.bias", weight[:1]


def batch_norm(theirs: str, ours: str, width: int) -> Iterator[Row]:
    """A batch norm with its statistics."""
    yield from pair(theirs, ours, width)
    for part in ("running_mean", "running_var"):
        yield f"{theirs}.{part}", f"{ours}.{part}", (width,)
    yield f"{theirs}.num_batches_tracked", f"{ours}.num_batches_tracked", ()
