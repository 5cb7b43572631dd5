"""Phrases and where they are true: what grounding is scored on. Free of torch.

A data set's boxes or mask say where a phrase is true; a network that grounds phrases never learns from them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from textray import registry
from textray.data.base import Problem, Split, check_split, naming, open_reader
from textray.errors import DataError, UsageError, unknown_name
from textray.io.read import read_mask
from textray.records import Laterality
from textray.text.tables import known_cell, read_columns

Box = tuple[float, float, float, float]
"""Left edge, upper edge, width and height in pixels of a sample's ``box_space``."""

SQUEEZE = 0.02
"""The most by which the two sides of a picture may be scaled differently from its boxes, as a share."""


@dataclass(frozen=True, kw_only=True)
class PhraseSample:
    """A picture, a phrase about it, and where in it the phrase is true: a mask or boxes, on disk.

    Attributes:
        image_id: Name of the image without its extension; several phrases may be about one image.
        image_path: The image.
        phrase: The words, by the sides of ``laterality``.
        label: Class of the finding, over which scores are averaged first.
        mask_path: Mask of where it is true on the image's grid, ``None`` where boxes say it.
        boxes: Where it is true, each half-open ``[x, x + w)`` by ``[y, y + h)``; they may overlap.
        box_space: Width and height of the picture that the boxes were drawn on, ``None`` without boxes.
        patient_id: Pseudonym of the patient, ``None`` where the data set does not tell.
        laterality: Whose left and right the phrase means.
        split: The split it was asked for under.
    """

    image_id: str
    image_path: Path
    phrase: str
    label: str
    mask_path: Path | None = None
    boxes: tuple[Box, ...] = ()
    box_space: tuple[int, int] | None = None
    patient_id: str | None = None
    laterality: Laterality
    split: Split

    @property
    def group(self) -> str:
        """What a bootstrap draws: the patient, or the image itself where the patient is not known."""
        return self.patient_id or self.image_id


class PhraseReader(Protocol):
    """A reader of a data set whose images come with phrases and with where they are true."""

    def phrases(self, split: str, *, kind: str) -> list[PhraseSample]:
        """Phrases of a split, always in the same order; ``kind`` is one of the row's ``phrase_kinds``."""
        ...


def phrases(
    name: str, split: str, *, root: str | Path | None, kind: str | None = None, split_by: str | None = None
) -> list[PhraseSample]:
    """Phrases of a split of a registered data set.

    Args:
        name: Registry name.
        split: A split of the data set.
        root: Its folder.
        kind: Which words are asked, one of the row's ``phrase_kinds``; ``None`` takes its first.
        split_by: One of the row's protocols; ``None`` takes its first.

    Raises:
        UsageError: If a name is unknown, or the data set has nothing that says where a phrase is true.
        LayoutError: If the folder is not laid out as the card says.
        DataError: If the data set is refused.
    """
    row = registry.dataset(name)
    if "grounding" not in row.tasks or not row.phrase_kinds:
        able = ", ".join(sorted(known for known, row in registry.DATASETS.items() if row.phrase_kinds))
        raise UsageError(f"data set {name} does not say where a phrase is true", expected=f"one of {able}")
    wanted = kind or row.phrase_kinds[0]
    if wanted not in row.phrase_kinds:
        raise unknown_name(f"kind of phrases of {name}", wanted, row.phrase_kinds)
    reader = cast(PhraseReader, open_reader(name, root, split_by=split_by))
    return reader.phrases(check_split(split), kind=wanted)


def truth(sample: PhraseSample, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Where a phrase is true, as a mask.

    Boxes are joined by "or", so that overlapping ones count once. A box covers the pixels whose centres lie in it, at
    least one pixel; what lies outside of the picture is cut off. Where the picture is a smaller copy of the one that
    the boxes were drawn on, they are scaled with it.

    Args:
        sample: The phrase.
        shape: Height and width of the picture as read.

    Returns:
        ``(H, W)`` bool.

    Raises:
        DataError: If the mask has another size, or the picture is no scaled copy of the one the boxes belong to.
    """
    if sample.mask_path is not None:
        mask = naming(sample.mask_path, read_mask)
        if mask.shape != shape:
            raise DataError(
                f"{sample.mask_path.name} and its image differ in size",
                came=f"mask {mask.shape[0]} x {mask.shape[1]}, image {shape[0]} x {shape[1]}",
                expected="the same size",
            )
        return mask
    height, width = shape
    drawn = sample.box_space or (width, height)
    across, down = width / drawn[0], height / drawn[1]
    if abs(across / down - 1) > SQUEEZE:
        raise DataError(
            f"{sample.image_path.name} is no scaled copy of the picture that its boxes were drawn on",
            came=f"{width} x {height} pixels",
            expected=f"{drawn[0]} x {drawn[1]}, or both sides scaled alike",
            do="Use the published image, not a cropped or squeezed copy.",
        )
    mask = np.zeros(shape, dtype=np.bool_)
    for x, y, w, h in sample.boxes:
        mask[_covered(y * down, h * down, height), _covered(x * across, w * across, width)] = True
    return mask


def box_problem(box: Box, space: tuple[int, int]) -> tuple[str, str] | None:
    """Code of what is wrong with a box, and words that follow its name; ``None`` for a good one.

    Args:
        box: Left, top, width, height.
        space: Width and height of its picture.
    """
    x, y, w, h = box
    if not all(math.isfinite(value) for value in box):
        return "E_BOX", "has a box whose edges are no numbers"
    if w <= 0 or h <= 0:
        return "E_BOX", f"has a box without area ({w:g} x {h:g})"
    if x >= space[0] or y >= space[1] or x + w <= 0 or y + h <= 0:
        return "E_BOX", f"has a box outside of its picture of {space[0]} x {space[1]} pixels"
    if min(x, y) < -1 or x + w > space[0] + 1 or y + h > space[1] + 1:
        return (
            "W_BOX_CUT",
            f"has a box that reaches out of its picture of {space[0]} x {space[1]} pixels; cut off there",
        )
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
    """One row of a table.

    Attributes:
        cells: Its cells by the column's name in lower case, ``None`` where blank.
        line: Its line, the header being 1.
    """

    cells: Mapping[str, str | None]
    line: int

    def problem(self, code: str, where: str, message: str) -> Problem:
        """A problem of this row of the table ``where``."""
        return Problem(code=code, path=where, message=f"row {self.line} {message}")


def read_table(path: Path, columns: Sequence[str]) -> list[TableRow]:
    """Rows of a table that has these columns, see `textray.text.tables.read_columns`.

    Raises:
        LayoutError: If there is no such file.
        DataError: If it cannot be read, or a column is missing.
    """
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


def refuse_samples(name: str) -> NoReturn:
    """Refuse to give lesion masks.

    Args:
        name: Registry name of a data set that has boxes only.

    Raises:
        UsageError: Always.
    """
    raise UsageError(
        f"data set {name} has boxes around findings, no lesion masks: it can neither train nor score a segmenter",
        do=f'Use it for grounding: "textray evaluate --task grounding --data {name}"',
    )
