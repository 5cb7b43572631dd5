from __future__ import annotations

from pathlib import Path

import pytest

from textray.data.captions import read_captions
from textray.errors import DataError, LayoutError

ROWS = [("mask_a.png", 'one, "two" é'), ("007", "x")]


def quoted(delimiter: str, end: str) -> str:
    lines = [delimiter.join(["Image", "Description"])]
    lines += [delimiter.join([k, '"' + t.replace('"', '""') + '"']) for k, t in ROWS]
    return end.join(lines) + end


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_csv_quirks_give_the_same_rows(tmp_path: Path, delimiter: str, end: str, encoding: str) -> None:
    path = tmp_path / "train.csv"
    path.write_bytes(quoted(delimiter, end).encode(encoding))
    assert [(row.key, row.text) for row in read_captions(path)] == ROWS


@pytest.mark.parametrize("head", ["Image,Description", "Filename,Text", " image , DESCRIPTION ", "split,Text,Image"])
def test_columns_are_found_by_name(tmp_path: Path, head: str) -> None:
    path = tmp_path / "train.csv"
    path.write_text(head + "\n" + ("train,words,mask_a.png" if "split" in head else "mask_a.png,words") + "\n\n")
    (row,) = read_captions(path)
    assert (row.key, row.text, row.line) == ("mask_a.png", "words", 2)


@pytest.mark.parametrize("cell", ["", "  ", "NaN", "None", "null"])
def test_blank_captions_are_none(tmp_path: Path, cell: str) -> None:
    path = tmp_path / "train.csv"
    path.write_text(f"Image,Description\nmask_a.png,{cell}\nmask_b.png\n")
    assert [row.text for row in read_captions(path)] == [None, None]


def test_xlsx_reads_as_text(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in [("Image", "Description"), ("007", "x"), ("mask_b", None)]:
        book.active.append(row)
    book.save(tmp_path / "train.xlsx")
    assert [(row.key, row.text) for row in read_captions(tmp_path / "train.xlsx")] == [("007", "x"), ("mask_b", None)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("Name,Description\na,b\n", "no column Image"),
        ("Image,Words\na,b\n", "no column Description"),
        ("Image,Description\n,b\n", "row 2"),
        ('Image,Description\na,"b\n', "well-formed"),
    ],
)
def test_tables_that_are_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "train.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=words):
        read_captions(path)


def test_absent_table(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"train\.csv"):
        read_captions(tmp_path / "train.csv")
