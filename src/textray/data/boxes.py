"""Phrases and where they are true: what grounding is scored on. Free of torch.

A data set's boxes or mask say where a phrase is true; a network that grounds phrases never learns from them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from textray.data.base import Box, Problem, Sample
from textray.errors import DataError
from textray.text.tables import known_cell, read_columns

SQUEEZE = 0.02
"""The most by which the two sides of a picture may be scaled differently from its boxes, as a share."""


def truth(sample: Sample, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Where a phrase is true, as a mask.

    Boxes are joined by "or", so that overlapping ones count once. A box covers the pixels whose centres lie in it, at
    least one pixel; what lies outside of the picture is cut off. Where the picture is a smaller copy of the one that
    the boxes were drawn on, they are scaled with it. ``shape`` is height and width of the picture as read; where it is
    neither the mask's nor that of a scaled copy, that is a `DataError`.
    """
    if sample.mask_path is not None:
        return sample.read_mask(shape)
    height, width = shape
    drawn = sample.box_space or (width, height)
    if not is_scaled_copy(shape, drawn):
        raise DataError(
            f"{sample.image_path.name} is no scaled copy of the picture that its boxes were drawn on",
            came=f"{width} x {height} pixels",
            expected=f"{drawn[0]} x {drawn[1]}, or both sides scaled alike",
            do="Use the published image, not a cropped or squeezed copy.",
        )
    across, down = width / drawn[0], height / drawn[1]
    mask = np.zeros(shape, dtype=np.bool_)
    for x, y, w, h in sample.boxes:
        mask[_covered(y * down, h * down, height), _covered(x * across, w * across, width)] = True
    return mask


def is_scaled_copy(shape: tuple[int, int], drawn: tuple[int, int]) -> bool:
    """Whether a picture of ``shape`` (height, width) has the proportions of one of ``drawn`` (width, height) pixels."""
    return abs((shape[1] / drawn[0]) / (shape[0] / drawn[1]) - 1) <= SQUEEZE


def box_problem(box: Box, space: tuple[int, int]) -> tuple[str, str] | None:
    """Code of what is wrong with a box in a picture of ``space`` (width, height), and words that follow its name."""
    x, y, w, h = box
    if not all(math.isfinite(value) for value in box):
        return "E_BOX", "has a box whose edges are no numbers"
    if w <= 0 or h <= 0:
        return "E_BOX", f"has a box without area ({w:g} x {h:g})"
    if x >= space[0] or y >= space[1] or x + w <= 0 or y + h <= 0:
        return "E_BOX", f"has a box outside of its picture of {space[0]} x {space[1]} pixels"
    if min(x, y) < -1 or x + w > space[0] + 1 or y + h > space[1] + 1:
        message = f"has a box that reaches out of its picture of {space[0]} x {space[1]} pixels; cut off there"
        return "W_BOX_CUT", message
    return None


def _covered(start: float, length: float, size: int) -> slice:
    """Pixels whose centres lie in ``[start, start + length)``, at least one, within the picture."""
    first, last = math.ceil(start - 0.5), math.ceil(start + length - 0.5)
    if last <= first:
        first = math.floor(start + length / 2)
        last = first + 1
    return slice(min(max(first, 0), size), min(max(last, 0), size))


# Tables of boxes: named columns, one row for each box.


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """One row of a table: cells by the column's name in lower case, ``None`` where blank; the header is line 1."""

    cells: Mapping[str, str | None]
    line: int

    def problem(self, code: str, where: str, message: str) -> Problem:
        """A problem of this row of the table ``where``."""
        return Problem(code, where, f"row {self.line} {message}")


def read_table(path: Path, columns: Sequence[str]) -> list[TableRow]:
    """Rows of a table that has these columns, read by `textray.text.tables.read_columns`."""
    table = read_columns(path, columns, of_data=True)
    return [
        TableRow(cells={name: known_cell(cell) for name, cell in cells.items()}, line=line)
        for line, cells in table.rows
    ]


def read_box(edges: Sequence[object]) -> Box | None:
    """Left, top, width and height out of four cells; ``None`` where they are not four numbers."""
    try:
        x, y, w, h = (float(str(edge)) for edge in edges)
    except ValueError:
        return None
    return x, y, w, h
