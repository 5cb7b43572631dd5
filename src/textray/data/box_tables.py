"""Tables of boxes as they circulate: CSV with named columns, one row for each box."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from textray.data.base import Problem
from textray.data.phrases import Box
from textray.errors import DataError, LayoutError, UsageError

_BLANK = frozenset({"", "nan", "none", "null", "n/a"})


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """One row of a table.

    Attributes:
        cells: Its cells by the column's name in lower case, ``None`` where blank.
        line: Row number in the table, the header being 1.
    """

    cells: Mapping[str, str | None]
    line: int

    def problem(self, code: str, where: str, message: str) -> Problem:
        """A problem of this row of the table ``where``."""
        return Problem(code=code, path=where, message=f"row {self.line} {message}")


def read_table(path: Path, columns: Sequence[str]) -> list[TableRow]:
    """Rows of a CSV in its own order; columns are found by name, whatever their order, case and the blanks around them.

    A byte order mark, ``;`` or tabs between columns, and lines that end as on Windows are understood.

    Args:
        path: The file.
        columns: Columns that it must have.

    Raises:
        LayoutError: If there is no such file.
        DataError: If it is no CSV in UTF-8, or a column is missing.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
        delimiter = max((",", ";", "\t"), key=text.split("\n", 1)[0].count)  # no column's name holds one of the three
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except FileNotFoundError as error:
        raise LayoutError(f"there is no table {path}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"the table {path.name} is not well-formed CSV in UTF-8", came=str(error)) from error
    header = [name.strip().lower() for name in lines[0]] if lines else []
    missing = [name for name in columns if name.lower() not in header]
    if missing:
        raise DataError(
            f"the table {path.name} has no column {', '.join(missing)}",
            came=", ".join(header) or "an empty file",
            expected="columns " + ", ".join(columns),
        )
    rows = []
    for line, cells in enumerate(lines[1:], start=2):
        values = [cell.strip() for cell in cells]
        if any(values):
            filled = [None if value.lower() in _BLANK else value for value in values]
            filled += [None] * (len(header) - len(filled))
            rows.append(TableRow(cells=dict(zip(header, filled, strict=False)), line=line))
    return rows


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
