"""Caption tables as they circulate: CSV with its quirks, or XLSX."""

from __future__ import annotations

import csv
import io
import logging
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from textray.data.base import Problem
from textray.errors import DataError, InputError, LayoutError, UsageError
from textray.records import Report, Zones
from textray.text.cleaning import clean
from textray.text.report import parse_caption

log = logging.getLogger(__name__)

KEY_COLUMNS = ("image", "filename")
TEXT_COLUMNS = ("description", "text")
_BLANK = {"", "nan", "none", "null", "n/a"}


@dataclass(frozen=True, kw_only=True)
class CaptionRow:
    """One row of a caption table.

    Attributes:
        key: Name as it stands in the table (the mask's file name in QaTa-COV19), never turned into a number.
        text: The caption, ``None`` where blank.
        line: Row number in the table, the header being 1.
    """

    key: str
    text: str | None
    line: int


def read_captions(path: Path) -> list[CaptionRow]:
    """Rows of a caption table in its own order.

    A CSV may begin with a byte order mark, be Latin-1, use ``;`` or tabs, and end lines as on Windows; what was found
    is logged. Columns are found by name: Image or Filename, and Description or Text.

    Args:
        path: ``.csv`` or ``.xlsx`` file.

    Raises:
        DataError: If the table has no such columns or cannot be read.
    """
    cells = _read_xlsx(path) if path.suffix.lower() == ".xlsx" else _read_csv(path)
    if not cells:
        raise DataError(f"the caption table {path.name} is empty", expected="a header and one row for each image")
    header = [cell.strip().lower() for cell in cells[0]]
    key, text = _column(path, header, KEY_COLUMNS), _column(path, header, TEXT_COLUMNS)
    rows = []
    for line, row in enumerate(cells[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        name = row[key].strip() if key < len(row) else ""
        caption = row[text].strip() if text < len(row) else ""
        if not name:
            raise DataError(f"row {line} of {path.name} names no image", do="Fill in or remove the row.")
        rows.append(CaptionRow(key=name, text=None if caption.lower() in _BLANK else caption, line=line))
    return rows


def read_report(
    row: CaptionRow, where: str, parsed: dict[str, Report | InputError]
) -> tuple[Report | None, Problem | None]:
    """The report of a row by the grammar of captions, or the problem that keeps it from being one.

    Args:
        row: The row.
        where: Path of its table, for the message.
        parsed: What is known of texts already; it is added to, since few sentences make up a whole data set.
    """
    if row.text is None:
        return None, row_problem("E_CAPTION_BLANK", where, row, "has a blank caption")
    if row.text not in parsed:
        try:
            parsed[row.text] = parse_caption(row.text)
        except InputError as error:
            parsed[row.text] = error
    report = parsed[row.text]
    if isinstance(report, InputError):
        return None, row_problem("E_CAPTION_WORDS", where, row, "has a caption that the grammar does not know")
    return report, None


def read_free_caption(
    row: CaptionRow, where: str, parsed: dict[str, Report | InputError]
) -> tuple[Report | None, Problem | None]:
    """The caption of a row as it stands, its sides being the picture's; arguments and result are `read_report`'s."""
    if row.text is None:
        return None, row_problem("E_CAPTION_BLANK", where, row, "has a blank caption")
    return Report(zones=Zones(), text=clean(row.text), free=True), None


def row_problem(code: str, where: str, row: CaptionRow, message: str) -> Problem:
    """A problem of a row of the table ``where``."""
    return Problem(code=code, path=where, message=f"row {row.line}, {row.key}: {message}")


def _column(path: Path, header: list[str], names: tuple[str, ...]) -> int:
    for name in names:
        if name in header:
            return header.index(name)
    raise DataError(
        f"the caption table {path.name} has no column {' or '.join(n.capitalize() for n in names)}",
        came=", ".join(header),
        expected="columns Image and Description (or Filename and Text)",
    )


def _read_csv(path: Path) -> list[list[str]]:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise LayoutError(f"there is no caption table {path}") from error
    try:
        text, encoding = data.decode("utf-8-sig"), "UTF-8"
    except UnicodeDecodeError:
        text, encoding = data.decode("latin-1"), "Latin-1"
    head = text.split("\n", 1)[0]
    delimiter = max((",", ";", "\t"), key=head.count)  # the header's names hold none of the three
    if encoding != "UTF-8" or delimiter != ",":
        log.info("%s read as %s, columns parted by %r", path.name, encoding, delimiter)
    try:
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise DataError(f"the caption table {path.name} is not well-formed CSV", came=str(error)) from error


def _read_xlsx(path: Path) -> list[list[str]]:
    try:
        openpyxl = import_module("openpyxl")  # only for the few who hold XLSX tables; part of textray[train]
    except ModuleNotFoundError as error:
        raise UsageError(
            f"reading {path.name} needs the Python package 'openpyxl'",
            do="Install it with: pip install 'textray[train]', or save the table as CSV.",
        ) from error
    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    try:
        rows = book.worksheets[0].iter_rows(values_only=True)
        return [["" if cell is None else str(cell) for cell in row] for row in rows]
    finally:
        book.close()
