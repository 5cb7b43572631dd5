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
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from textray.errors import DataError
from textray.evaluate.page import summary_page
from textray.inference.results import clean, write_together
from textray.io.write import atomic_write, write_json

SUMMARY, PAGE, CASES, SIDES = "summary.json", "summary.md", "cases.csv", "sides.csv"


def write(folder: Path, tables: Mapping[str, bytes], summary: Mapping[str, Any]) -> dict[str, Any]:
    """Write tables, page and summary of a run into a folder that is there, all of them or none.

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
    writers = {name: partial(atomic_write, data=data) for name, data in {**tables, PAGE: page}.items()}
    write_together(
        {name: folder / name for name in (*writers, SUMMARY)}, {**writers, SUMMARY: partial(write_json, obj=whole)}
    )
    if SIDES not in tables:
        (folder / SIDES).unlink(missing_ok=True)
    return whole


def csv_table(fields: Sequence[str], lines: Iterable[Sequence[object]]) -> bytes:
    """A table as CSV."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(fields)
    writer.writerows(lines)
    return text.getvalue().encode()


def check(folder: Path) -> None:
    """Refuse files that are not of one run. Those of versions that noted no hashes pass.

    Raises:
        DataError: If the summary is missing or unreadable, or a file that it names is missing or another.
    """
    do = "Run the evaluation again"
    try:
        summary = json.loads((folder / SUMMARY).read_bytes())
        files = dict(summary.get("files", {}))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise DataError(
            f"{folder} holds no finished evaluation", came=f"no readable {SUMMARY}", expected=SUMMARY, do=do
        ) from error
    for name, expected in files.items():
        try:
            sha256 = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        except OSError:
            sha256 = "no file"
        if sha256 != expected:
            raise DataError(
                f"{folder} holds files of different evaluations",
                came=f"{name}: {sha256[:12]}",
                expected=f"{expected[:12]}, as in {SUMMARY}",
                do=do,
            )
