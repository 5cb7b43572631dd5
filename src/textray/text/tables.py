"""Tables as they circulate, CSV with its quirks or XLSX; among them ``image,text[,laterality]``, texts of pictures."""

from __future__ import annotations

import csv
import io
import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from textray.errors import DataError, LayoutError, TextRayError, UsageError
from textray.io.files import plain_path, stem
from textray.records import Laterality, Notice
from textray.text.cleaning import is_blank

_COLUMNS = ("image", "text", "laterality")
_LARGEST = 2**28


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Rows of a table that are not blank: each one's line, from 1, and its cells by column name in lower case."""

    path: Path
    rows: tuple[tuple[int, dict[str, str]], ...]
    encoding: str
    delimiter: str


def read_columns(
    path: str | Path, columns: Sequence[str], *, needed: int | None = None, of_data: bool = False
) -> Columns:
    """Read a table by the column names in its first line, which come in any order and case, among others.

    A CSV has commas, semicolons or tabs between columns, is UTF-8 or UTF-16 with a byte-order mark, or else Latin-1; an
    XLSX is known by its suffix. Values stay text ("007").

    Args:
        path: The file.
        columns: Names of columns; ``"image|filename"`` is one with two names, kept under the first.
        needed: How many of them, from the first, the table must have; ``None`` for all.
        of_data: True for a table of a data set, whose faults are not those of an argument.

    Raises:
        UsageError: If the file cannot be read as a table, or lacks a column.
        LayoutError: In place of it where a data set's file is not there.
        DataError: In place of it where a data set's file is faulty.
    """
    path = Path(path)
    faulty: type[TextRayError] = DataError if of_data else UsageError
    must = columns[:needed]
    wanted = ",".join(name.split("|")[0] for name in must)
    wanted += "".join(f"[,{name}]" for name in columns[len(must) :])
    lines, encoding, delimiter = _lines(path, wanted, of_data=of_data)
    names = [name.strip().lower() for name in lines[0][1]] if lines else []
    came, missing = ", ".join(names) or "an empty table", []
    for name in columns:
        aliases = name.lower().split("|")
        present = next((alias for alias in aliases if alias in names), None)
        if present is not None:
            names[names.index(present)] = aliases[0]
        elif name in must:
            missing.append(name)
    if missing:
        raise faulty(
            f"{path} lacks the column {' and '.join(missing)}".replace("|", " or "),
            came=came,
            expected=f"a first line such as {wanted}",
        )
    rows = []
    for line, cells in lines[1:]:
        if any(cell.strip() for cell in cells[len(names) :]):
            raise faulty(
                f"{path} line {line} has more columns than the first line",
                came=len(cells),
                expected=len(names),
                do=f"Put texts that hold a {delimiter!r} in double quotes",
            )
        if any(cell.strip() for cell in cells):
            rows.append((line, dict.fromkeys(names, "") | dict(zip(names, cells, strict=False))))
    return Columns(path=path, rows=tuple(rows), encoding=encoding, delimiter=delimiter)


def known_cell(cell: str) -> str | None:
    """A cell without blanks around it; ``None`` for what tables write where nothing is known."""
    return None if is_blank(cell) or cell.strip().lower() == "n/a" else cell.strip()


@dataclass(frozen=True, kw_only=True)
class Words:
    """The report of one picture, ``laterality`` ``None`` where the table does not say whose sides; lines from 1."""

    text: str | None
    laterality: Laterality | None = None
    line: int = 0


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """Reports by image name as written; ``encoding`` is that in which the file was read."""

    path: Path
    rows: dict[str, Words]
    encoding: str

    @classmethod
    def read(cls, path: str | Path) -> TextTable:
        """Read a table as `read_columns` does.

        Raises:
            UsageError: If it cannot be read, lacks a column, names an image twice, or has an unknown laterality.
        """
        table = read_columns(path, _COLUMNS, needed=2)
        rows: dict[str, Words] = {}
        for line, values in table.rows:
            name, text = values["image"].strip(), None if is_blank(values["text"]) else values["text"]
            if not name and text is not None:
                raise UsageError(f"{table.path} line {line} has a text, but no image name")
            if name in rows:
                came = f"lines {rows[name].line} and {line}"
                raise UsageError(f"{table.path} names {name!r} twice", came=came, expected="once")
            if name:
                rows[name] = Words(text=text, laterality=read_side(table.path, line, values), line=line)
        return cls(path=table.path, rows=rows, encoding=table.encoding)

    def match(self, paths: Sequence[Path], *, below: Path | None = None) -> tuple[dict[int, Words], list[str]]:
        """Find the row of each picture: by the path as given, else by file name, else by name without suffix.

        If the pictures lie in the folder ``below``, the path below it names one too.

        Returns:
            Words by position in ``paths``, and the names of rows that fit no picture.

        Raises:
            UsageError: If a row fits several pictures, or several rows one.
        """
        found, unknown = self.match_all(paths, below=below)
        for i, rows in found.items():
            if len(rows) > 1:
                name = next(name for name, words in self.rows.items() if words is rows[1])
                raise self._ambiguous(name, rows[1], [paths[i]])
        return {i: words for i, (words,) in found.items()}, unknown

    def match_all(
        self, paths: Sequence[Path], *, below: Path | None = None
    ) -> tuple[dict[int, list[Words]], list[str]]:
        """Find the rows of each picture, which may be several under different spellings of its name; see `match`.

        Raises:
            UsageError: If a row fits several pictures.
        """
        whole = [os.path.abspath(path) for path in paths]  # noqa: PTH100 -- links keep the names they were given
        inner = [whole[i] if below is None else plain_path(p.relative_to(below)) for i, p in enumerate(paths)]
        places = _index((i, (plain_path(p), p.as_posix(), whole[i], inner[i])) for i, p in enumerate(paths))
        tails = _index(
            (i, ("/".join(p.parts[first:]) for first in range(len(p.parts) - 1))) for i, p in enumerate(paths)
        )
        names = _index((i, (plain_path(p.name), p.name)) for i, p in enumerate(paths))
        stems = _index((i, (stem(p.name),)) for i, p in enumerate(paths))
        found: dict[int, list[Words]] = {}
        unknown = []
        for name, words in self.rows.items():
            key = unicodedata.normalize("NFC", name)
            path = Path(key)
            hits = places.get(key) or places.get(str(path)) or tails.get("/".join(path.parts))
            hits = hits or names.get(key) or stems.get(key)
            if not hits:
                unknown.append(name)
                continue
            if len(hits) > 1:
                raise self._ambiguous(name, words, [paths[i] for i in hits[:3]])
            found.setdefault(hits[0], []).append(words)
        return found, unknown

    def _ambiguous(self, name: str, words: Words, paths: Sequence[Path]) -> UsageError:
        return UsageError(
            f"{self.path} line {words.line}: {name!r} is not the only row or picture of that name",
            came=", ".join(map(plain_path, paths)),
            expected="one row for one picture",
            do="Write as much of the path as tells them apart",
        )


def table_notices(table: TextTable, unknown: Sequence[str]) -> list[Notice]:
    """Warnings about a table: rows that fit no picture, and an encoding that had to be guessed."""
    notices = []
    if unknown:
        shown = ", ".join(unknown[:10]) + (f" and {len(unknown) - 10} more" if len(unknown) > 10 else "")
        text = f"{len(unknown)} rows of {table.path} name no input: {shown}"
        remedy = "Write image names as they are given on the command line."
        notices.append(Notice(code="W_UNKNOWN_IMAGE", text=text, remedy=remedy))
    if table.encoding == "latin-1":
        text = f"{table.path} is not UTF-8 and was read as Latin-1."
        notices.append(Notice(code="W_ENCODING", text=text, remedy="Save the table as UTF-8."))
    return notices


def _index(named: Iterable[tuple[int, Iterable[str]]]) -> dict[str, list[int]]:
    """Positions by name; the same letters composed in another way, as macOS stores them, are the same name."""
    found: dict[str, list[int]] = {}
    for i, names in named:
        for name in {unicodedata.normalize("NFC", name) for name in names}:
            found.setdefault(name, []).append(i)
    return found


def read_side(path: Path, line: int, values: Mapping[str, str]) -> Laterality | None:
    """Whose left and right a line of a table means, ``None`` where it does not say.

    Raises:
        UsageError: If it is an unknown word.
    """
    side = values.get("laterality", "").strip().lower()
    if side and side not in set(Laterality):
        raise UsageError(
            f"{path} line {line}: unknown laterality", came=repr(side), expected=", ".join(Laterality) + " or nothing"
        )
    return Laterality(side) if side else None


def _lines(path: Path, wanted: str, *, of_data: bool) -> tuple[list[tuple[int, list[str]]], str, str]:
    """Numbers and cells of all lines, the encoding and the delimiter."""
    faulty: type[TextRayError] = DataError if of_data else UsageError
    try:
        size = path.stat().st_size
        if size > _LARGEST:
            raise faulty(f"{path} is too large for a table", came=f"{size} bytes", expected=f"<= {_LARGEST}")
        raw = path.read_bytes()
    except OSError as error:
        absent = LayoutError if of_data else UsageError
        raise absent(f"the table {path} cannot be read", came=error.strerror, expected=f"a CSV: {wanted}") from error
    if path.suffix.lower() == ".xlsx":
        return list(enumerate(_sheet(path, raw, faulty), start=1)), "utf-8-sig", ","
    text, encoding = _decode(raw)
    delimiter = max(",;\t", key=text.split("\n", 1)[0].count)  # names of columns hold none of the three
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        return [(lines.line_num, cells) for cells in lines], encoding, delimiter
    except csv.Error as error:
        raise faulty(f"{path} is not a CSV table", came=str(error), expected=wanted) from error


def _sheet(path: Path, raw: bytes, faulty: type[TextRayError]) -> list[list[str]]:
    """Rows of the first sheet of an XLSX."""
    try:
        openpyxl = import_module("openpyxl")  # only for the few who hold XLSX tables; part of textray[train]
    except ModuleNotFoundError as error:
        raise UsageError(
            f"reading {path.name} needs the Python package 'openpyxl'",
            do="Install it with: pip install 'textray[train]', or save the table as CSV.",
        ) from error
    try:
        book = openpyxl.load_workbook(io.BytesIO(raw), read_only=True, data_only=True)
        rows = book.worksheets[0].iter_rows(values_only=True)
        return [["" if cell is None else str(cell) for cell in row] for row in rows]
    except Exception as error:  # openpyxl and its XML reader raise many kinds for foreign and damaged files
        raise faulty(f"{path} is not an XLSX table", came=type(error).__name__) from error


def _decode(raw: bytes) -> tuple[str, str]:
    for encoding in ("utf-8-sig", "utf-16"):
        if encoding == "utf-16" and raw[:2] not in (b"\xff\xfe", b"\xfe\xff"):
            continue  # without its mark, almost any bytes pass as UTF-16
        try:
            return raw.decode(encoding).replace("\r\n", "\n"), encoding
        except UnicodeDecodeError:
            continue
    return raw.decode("latin-1").replace("\r\n", "\n"), "latin-1"
