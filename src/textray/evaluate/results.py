"""Files of an evaluation, written so that those of two runs never mix.

All are written beside their places first, so a full disk leaves the earlier ones as they were. Then an earlier
``summary.json`` is removed and the new files take their names, ``summary.json`` last: it holds the SHA-256 of the
others, by which `check` detects an interruption between two renames, or a copy of single files.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from textray.errors import DataError
from textray.evaluate.page import summary_page
from textray.inference.results import clean, write_together
from textray.io import write as disk
from textray.io.files import regular, sha256

SUMMARY, PAGE, CASES, SIDES = "summary.json", "summary.md", "cases.csv", "sides.csv"
_BEGIN = {
    CASES: (b"image,patient,mode,zones,tp,", b"image,patient,label,phrase,row,", b"image,patient,source,label,"),
    SIDES: (b"image,patient,kind,zones,named_true,",),
    PAGE: (b"# Evaluation\n", b"# Grounding: phrases of kind ", b"# Whole films\n"),
}
"""How files of an evaluation begin."""


def check_writable(folder: Path) -> None:
    """Create the folder of an evaluation; refuse one in which a file of its names is of another kind.

    Raises:
        OutputError: If it cannot be written to, or files of somebody else would be replaced.
        DiskError: If the disk is full.
    """
    disk.check_writable(folder)
    for name in (SUMMARY, *_BEGIN):
        disk.refuse_other(folder / name, _is_own, "evaluation")


def _is_own(path: Path) -> bool:
    try:
        regular(path)
        if path.name == SUMMARY:
            values = json.loads(path.read_bytes())
            return isinstance(values, dict) and {"textray", "command", "data"} <= values.keys()
        with path.open("rb") as file:
            return file.read(64).startswith(_BEGIN[path.name])
    except (OSError, ValueError, RecursionError):
        return False


def write(folder: Path, tables: Mapping[str, bytes], summary: Mapping[str, Any]) -> dict[str, Any]:
    """Write tables, page and summary of a run into a folder of `check_writable`, all of them or none.

    An earlier ``sides.csv`` that is not among the tables is removed. The result is the summary as written, with
    ``files``: the SHA-256 of each other file.

    Raises:
        DiskError: If the disk is full.
        OutputError: If the folder cannot be written to.
    """
    clean(folder)  # what a killed run left half-written
    # The page names the tables' hashes, and the summary the page's.
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in tables.items()}
    page = summary_page({**summary, "files": hashes}).encode()
    whole = {**summary, "files": {**hashes, PAGE: hashlib.sha256(page).hexdigest()}}
    writers = {name: partial(disk.atomic_write, data=data) for name, data in {**tables, PAGE: page}.items()}
    write_together(
        {name: folder / name for name in (*writers, SUMMARY)},
        {**writers, SUMMARY: partial(disk.write_json, obj=whole)},
        lambda: [folder / SIDES],
    )
    return whole


def csv_table(fields: Sequence[str], lines: Iterable[Sequence[object]]) -> bytes:
    """A table as CSV; a text that a spreadsheet would take for a formula gets an apostrophe in front."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(fields)
    writer.writerows([_harmless(cell) for cell in line] for line in lines)
    return text.getvalue().encode()


def _harmless(cell: object) -> object:
    if not isinstance(cell, str) or unicodedata.normalize("NFKC", cell).lstrip()[:1] not in set("=+-@"):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell  # a number


def check(folder: Path) -> None:
    """Refuse files that are not of one run. Those of versions that noted no hashes pass.

    Raises:
        DataError: If the summary is missing or unreadable, or a file that it names is missing or another.
    """
    do = "Run the evaluation again"
    try:
        regular(folder / SUMMARY)
        summary = json.loads((folder / SUMMARY).read_bytes())
        files = dict(summary.get("files", {}))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise DataError(
            f"{folder} holds no finished evaluation", came=f"no readable {SUMMARY}", expected=SUMMARY, do=do
        ) from error
    for name, expected in files.items():
        try:
            found = sha256(folder / name)
        except OSError:
            found = "no file"
        if found != expected:
            raise DataError(
                f"{folder} holds files of different evaluations",
                came=f"{name}: {found[:12]}",
                expected=f"{expected[:12]}, as in {SUMMARY}",
                do=do,
            )
