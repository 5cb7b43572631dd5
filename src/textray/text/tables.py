"""Tables as they circulate, CSV with its quirks or XLSX; among them ``image,text[,laterality]``, texts of pictures."""

from __future__ import annotations

import csv
import io
import os
import re
import threading
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path, PureWindowsPath
from zipfile import ZipFile

from textray.errors import DataError, LayoutError, TextRayError, UsageError
from textray.io.files import IMAGE_SUFFIXES, plain_path, regular, stem
from textray.io.read import read_keys
from textray.records import Laterality, Notice
from textray.text.cleaning import is_blank

_COLUMNS = ("image", "text", "laterality")
_KEYS = {"accession", "accessionnumber", "sopinstanceuid"}
"""Names of a column that names films in place of ``image``, without blanks and underscores."""
_LARGEST, _LARGEST_REPORT = 2**28, 2**24
_LARGEST_SHEETS = 2**24  # bytes of all parts of an XLSX, inflated; openpyxl takes 25 times that
_OF_CELLS = ("xl/worksheets/", "xl/sharedStrings")
"""Parts that hold cells; the others, such as styles, take openpyxl eight times as long."""
_MOST_CELLS, _MOST_ROWS = 2**22, 2**20  # a row names itself, and ends at its last cell
_MOST_CHARACTERS = 2**26  # cells may share one text, which is stored once
_BLANK_LINES = re.compile(r"(?:[ \t]*(?:\r\n?|\n))+")
_SEPARATOR = re.compile(r'"?sep=(.)"?[,;\t]*(\n|\r|$)', re.IGNORECASE)
"""First line by which Excel names what stands between the columns."""
_FIELD_LIMIT = threading.Lock()
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]")
_CONTRACTED = re.compile(r"(s|t|d|m|re|ve|ll)\b", re.IGNORECASE)
_SIGNS = "–—…•°±×½¼¾·®«»≤≥ªºµ€£§\xa0\xad"
_RARE = "ÐðÞþŠšŽžŸƒ"
_LEGACY = {"latin-1": "Latin-1", "cp1252": "Windows-1252", "mac_roman": "Mac Roman"}


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

    A CSV has commas, semicolons or tabs between columns, or what its first line names (``sep=|``). It is UTF-8 or
    UTF-16; lines that are neither are Windows-1252 or Mac Roman, whichever makes words. An XLSX is known by its suffix.
    Values stay text ("007").

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
    if "image" in columns and "image" not in names:
        names = ["image" if re.sub(r"[\s_-]", "", name) in _KEYS else name for name in names]
    known = {alias for name in columns for alias in name.lower().split("|")}
    # A first line without any of the names is no heading, and what it holds is not for messages.
    came = ", ".join(names) if known & set(names) else "another first line" if names else "an empty table"
    missing = []
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
                raise UsageError(f"{table.path} names {_shown(name)} twice", came=came, expected="once")
            if name:
                rows[name] = Words(text=text, laterality=read_side(table.path, line, values), line=line)
        return cls(path=table.path, rows=rows, encoding=table.encoding)

    def match(self, paths: Sequence[Path], *, below: Path | None = None) -> tuple[dict[int, Words], list[str]]:
        """Find the row of each picture: by the path as given, else by file name, else by name without suffix.

        Then paths of Windows count, then other cases of letters, and last the accession number, which names all films
        of a study, and the SOP Instance UID of DICOM files. If the pictures lie in the folder ``below``, the path below
        it names one too.

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
        self, paths: Sequence[Path], *, below: Path | None = None, ambiguous: list[str] | None = None
    ) -> tuple[dict[int, list[Words]], list[str]]:
        """Find the rows of each picture, which may be several under different spellings of its name; see `match`.

        Raises:
            UsageError: If a row fits several pictures, unless its name can be noted as ``ambiguous``.
        """
        whole = [os.path.abspath(path) for path in paths]  # noqa: PTH100 -- links keep the names they were given
        inner = [whole[i] if below is None else plain_path(p.relative_to(below)) for i, p in enumerate(paths)]
        places = [(plain_path(p), p.as_posix(), whole[i], inner[i]) for i, p in enumerate(paths)]
        tails = [["/".join(p.parts[first:]) for first in range(len(p.parts) - 1)] for p in paths]
        names = [(plain_path(p.name), p.name) for p in paths]
        stems = [(stem(p.name),) for p in paths]
        found: dict[int, list[Words]] = {}
        unknown = list(self.rows)
        for fold in (str, str.casefold):
            rest = [i for i in range(len(paths)) if unknown and i not in found]
            indexes = [_index(((i, named[i]) for i in rest), fold) for named in (places, tails, names, stems)]
            left = []
            for name in unknown:
                hits = _find(fold(unicodedata.normalize("NFC", name)), *indexes)
                if len(hits) > 1:
                    if ambiguous is None:
                        raise self._ambiguous(name, self.rows[name], [paths[i] for i in hits[:3]])
                    ambiguous.append(name)
                    continue
                for i in hits:
                    found.setdefault(i, []).append(self.rows[name])
                left += [] if hits else [name]
            unknown = left
        films = _index(((i, read_keys(p)) for i, p in enumerate(paths) if unknown and i not in found), str)
        for name in unknown:
            for i in films.get(name, ()):
                found.setdefault(i, []).append(self.rows[name])
        return found, [name for name in unknown if name not in films]

    def _ambiguous(self, name: str, words: Words, paths: Sequence[Path]) -> UsageError:
        return UsageError(
            f"{self.path} line {words.line}: {_shown(name)} is not the only row or picture of that name",
            came=", ".join(map(plain_path, paths)),
            expected="one row for one picture",
            do="Write as much of the path as tells them apart",
        )


def no_match(table: TextTable) -> UsageError:
    """Build the error for a table of which no row names an input."""
    return UsageError(
        f"{table.path} names none of the inputs",
        expected="file names, or accession numbers or SOP Instance UIDs of DICOM files",
        do="Write image names as they are given on the command line",
    )


def read_report(path: Path) -> tuple[str, list[Notice]]:
    """Read a report from a file of text, in any encoding that a table may have; its encoding may be a warning.

    Raises:
        UsageError: If the file cannot be read, or is no text.
    """
    try:
        regular(path, _LARGEST_REPORT)
        text, encoding = _decode(path.read_bytes())
    except OSError as error:
        raise UsageError(f"the report {path} cannot be read", came=error.strerror, expected="a file of text") from error
    if "\0" in text:
        raise UsageError(f"{path} is no report", came="bytes that are no text", expected="a file of text")
    return text, _encoding_notices(path, encoding)


def table_notices(table: TextTable, unknown: Sequence[str]) -> list[Notice]:
    """Warnings about a table: rows that fit no picture, and an encoding that had to be guessed."""
    notices = []
    if unknown:
        shown = ", ".join(_shown(name, table.rows[name].line) for name in unknown[:10])
        shown += f" and {len(unknown) - 10} more" if len(unknown) > 10 else ""
        rows = f"1 row of {table.path} names" if len(unknown) == 1 else f"{len(unknown)} rows of {table.path} name"
        text = f"{rows} no input: {shown}."
        remedy = "Write image names as they are given on the command line."
        notices.append(Notice(code="W_UNKNOWN_IMAGE", text=text, remedy=remedy))
    return notices + _encoding_notices(table.path, table.encoding)


def _encoding_notices(path: Path, encoding: str) -> list[Notice]:
    if encoding not in _LEGACY:
        return []
    text = f"{path} is not UTF-8 and was read as {_LEGACY[encoding]}."
    return [Notice(code="W_ENCODING", text=text, remedy="Save it as UTF-8.")]


def _index(named: Iterable[tuple[int, Iterable[str]]], fold: Callable[[str], str]) -> dict[str, list[int]]:
    """Positions by name; the same letters composed in another way, as macOS stores them, are the same name."""
    found: dict[str, list[int]] = {}
    for i, names in named:
        for name in {fold(unicodedata.normalize("NFC", name)) for name in names}:
            found.setdefault(name, []).append(i)
    return found


def _find(
    key: str,
    places: Mapping[str, list[int]],
    tails: Mapping[str, list[int]],
    names: Mapping[str, list[int]],
    stems: Mapping[str, list[int]],
) -> list[int]:
    """Positions of the pictures that a row names."""
    path = Path(key)
    hits = places.get(key) or places.get(str(path)) or tails.get("/".join(path.parts))
    if hits := hits or names.get(key) or stems.get(key):
        return hits
    windows = PureWindowsPath(key)
    parts = windows.parts[bool(windows.anchor) :]
    whole = "/".join(parts)
    hits = places.get(whole) or tails.get(whole) or (names.get(whole) or stems.get(whole) if len(parts) == 1 else None)
    if hits or not (windows.drive or path.is_absolute()) or os.name == "nt":
        return hits or []
    # A place of another machine: what lies below some folder of it is the path as given.
    return next((hits for first in range(len(parts)) if (hits := places.get("/".join(parts[first:])))), [])


def _shown(name: str, line: int | None = None) -> str:
    """A name of a table for a message: other cells than names of files may tell of a person."""
    if Path(name).suffix.lower() in IMAGE_SUFFIXES:
        return repr(name) if line is None else name
    return "a picture" if line is None else f"line {line}"


def read_side(path: Path, line: int, values: Mapping[str, str]) -> Laterality | None:
    """Whose left and right a line of a table means, ``None`` where it does not say.

    Raises:
        UsageError: If it is an unknown word.
    """
    side = values.get("laterality", "").strip().lower()
    if side and side not in set(Laterality):
        # Where columns are shifted, it is a part of a report, which is not for messages.
        raise UsageError(f"{path} line {line}: unknown laterality", expected=", ".join(Laterality) + " or nothing")
    return Laterality(side) if side else None


def _lines(path: Path, wanted: str, *, of_data: bool) -> tuple[list[tuple[int, list[str]]], str, str]:
    """Numbers and cells of all lines, the encoding and the delimiter."""
    faulty: type[TextRayError] = DataError if of_data else UsageError
    try:
        regular(path, _LARGEST)
        raw = path.read_bytes()
    except OSError as error:
        absent = LayoutError if of_data else UsageError
        raise absent(f"the table {path} cannot be read", came=error.strerror, expected=f"a CSV: {wanted}") from error
    if path.suffix.lower() == ".xlsx":
        return _sheet(path, raw, faulty), "utf-8-sig", ","
    text, encoding = _decode(raw)
    if "\0" in text:
        raise faulty(f"{path} is not a CSV table", came="bytes that are no text", expected=wanted)
    blank = _BLANK_LINES.match(text)
    before = len(blank[0].splitlines()) if blank else 0
    text = text[blank.end() :] if blank else text
    # Names of columns hold none of the three.
    delimiter = max(",;\t", key=re.split(r"[\r\n]", text, maxsplit=1)[0].count)
    if separator := _SEPARATOR.match(text):
        text, delimiter = text[separator.end() :], separator[1]
        before += 1
    # Blanks behind a quoted cell, or before it, are refused by `csv`, but mean nothing.
    around = re.escape(delimiter)
    blanks = re.compile(rf'(?<=")[ \xa0]+(?={around}|[\r\n]|\Z)|(?:(?<={around})|(?<=[\r\n]))[ \xa0]+(?=")')
    with _FIELD_LIMIT:  # it is that of the whole process
        limit = csv.field_size_limit(_LARGEST)
        try:
            try:
                return _cells(text, delimiter, before), encoding, delimiter
            except csv.Error:
                return _cells(blanks.sub("", text), delimiter, before), encoding, delimiter
        except csv.Error as error:
            raise faulty(f"{path} is not a CSV table", came=str(error), expected=wanted) from error
        finally:
            csv.field_size_limit(limit)


def _cells(text: str, delimiter: str, before: int) -> list[tuple[int, list[str]]]:
    """Numbers, from ``before``, and cells of the lines of a CSV."""
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    return [(lines.line_num + before, cells) for cells in lines]


def _sheet(path: Path, raw: bytes, faulty: type[TextRayError]) -> list[tuple[int, list[str]]]:
    """Numbers and cells of the rows of the first sheet of an XLSX that are not blank."""
    try:
        openpyxl = import_module("openpyxl")  # only for the few who hold XLSX tables; part of textray[train]
    except ModuleNotFoundError as error:
        raise UsageError(
            f"reading {path.name} needs the Python package 'openpyxl'",
            do="Install it with: pip install 'textray[train]', or save the table as CSV.",
        ) from error
    try:
        with ZipFile(io.BytesIO(raw)) as parts:
            sizes = {part.filename: part.file_size for part in parts.infolist()}  # more than this is never inflated
        size = sum(size * (1 if name.startswith(_OF_CELLS) else 8) for name, size in sizes.items())
        if size <= _LARGEST_SHEETS:
            book = openpyxl.load_workbook(io.BytesIO(raw), read_only=True, data_only=True)
            sheet = book.worksheets[0]
            sheet.reset_dimensions()  # those that it declares are padded with blanks
            return _rows(sheet.iter_rows(values_only=True))
    except _TooManyCellsError:
        pass
    except Exception as error:  # of any kind, for any bytes
        raise faulty(f"{path} is not an XLSX table", came=type(error).__name__) from error
    raise faulty(f"{path} is too large for an XLSX table", do="Save it as CSV")


class _TooManyCellsError(Exception):
    pass


def _rows(sheet: Iterable[Sequence[object]]) -> list[tuple[int, list[str]]]:
    rows, cells, characters = [], 0, 0
    for number, row in enumerate(sheet, 1):
        texts = ["" if cell is None else str(cell) for cell in row]
        cells, characters = cells + len(row), characters + sum(map(len, texts))
        if cells > _MOST_CELLS or number > _MOST_ROWS or characters > _MOST_CHARACTERS:
            raise _TooManyCellsError
        if any(cell is not None for cell in row):
            rows.append((number, texts))
    return rows


def _decode(raw: bytes) -> tuple[str, str]:
    encoding = "utf-8-sig"
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    elif len(raw) > 1 and (raw[0] == 0) != (raw[1] == 0):  # a heading begins with a letter below 128
        encoding = "utf-16-be" if raw[0] == 0 else "utf-16-le"
    try:
        return raw.decode(encoding).replace("\r\n", "\n"), encoding
    except UnicodeDecodeError:
        pass
    lines = raw.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").split(b"\n")
    encoding = _legacy(b"\n".join(line for line in lines if _utf8(line) is None)[: 2**20])
    texts = ((line, _utf8(line)) for line in lines)
    return "\n".join(line.decode(encoding, "replace") if text is None else text for line, text in texts), encoding


def _utf8(line: bytes) -> str | None:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _legacy(raw: bytes) -> str:
    """The encoding of lines that are not UTF-8: that in which characters stand where words have them."""
    ways = (raw.decode(name, "replace") for name in ("cp1252", "mac_roman"))
    windows, mac = (sum(map(_fits, _BEYOND_ASCII.finditer(text))) for text in ways)
    if mac > windows:
        return "mac_roman"
    return "cp1252" if re.search(rb"[\x80-\x9f]", raw) else "latin-1"  # the same without these bytes


def _fits(match: re.Match[str]) -> int:
    """1 for a character beyond ASCII that stands where words have it, more for that of "isn't", -1 for another."""
    char, text = match[0], match.string
    before, after = text[match.start() - 1 : match.start()], text[match.end() : match.end() + 1]
    if char == "\u2019" and _CONTRACTED.match(text, match.end()) and before.isalpha():
        return 2
    if char in "\u2019\u201d":
        fits = bool(before.strip()) and (char == "\u2019" or not after.isalnum())
    elif char in "\u2018\u201c":
        fits = bool(after.strip()) and not before.isalnum()
    elif char in "\xb2\xb3":
        fits = before.isalnum()
    elif char in _SIGNS or char in _RARE:
        fits = char in _SIGNS
    elif char.isupper():
        fits = (before + after).isalpha() and not before.islower() and not (before.isupper() and after.islower())
    else:
        fits = char.isalpha() and (before.isalpha() or after.isalpha()) and not (before.isupper() and after.isupper())
    return 1 if fits else -1
