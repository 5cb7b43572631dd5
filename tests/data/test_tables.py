"""The door to every table: its quirks, its refusals, and rows that find their pictures."""

from pathlib import Path

import pytest

from textray.data.boxes import read_table
from textray.data.captions import read_captions
from textray.errors import DataError, LayoutError, UsageError
from textray.records import Laterality
from textray.text.tables import TextTable

ROWS = {"mask_a.png": 'one, "two" é', "007": "x\ny"}


def table(tmp_path, raw):
    path = tmp_path / "texts.csv"
    path.write_bytes(raw)
    return TextTable.read(path)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_csv_quirks_give_the_same_rows_at_each_door(tmp_path, delimiter, end, encoding):
    lines = [" TEXT ", "Image"], *(['"' + t.replace('"', '""') + '"', k] for k, t in ROWS.items()), ["", ""]
    raw = end.join(delimiter.join(line) for line in lines).replace("\n", end).replace("\r\r", "\r").encode(encoding)
    found = table(tmp_path, raw)
    assert {name: words.text for name, words in found.rows.items()} == ROWS
    assert (found.encoding == "latin-1") == (encoding == "latin-1")
    assert {row.key: row.text for row in read_captions(tmp_path / "texts.csv")} == ROWS
    assert {row.cells["image"]: row.cells["text"] for row in read_table(tmp_path / "texts.csv", ["Image"])} == ROWS


def test_xlsx_reads_as_text(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in [("Image", "Text"), ("007", "x"), (None, None), ("mask_b", None)]:
        book.active.append(row)
    book.save(tmp_path / "train.xlsx")
    rows = [(row.key, row.text, row.line) for row in read_captions(tmp_path / "train.xlsx")]
    assert rows == [("007", "x", 2), ("mask_b", None, 4)]
    assert TextTable.read(tmp_path / "train.xlsx").rows["007"].text == "x"
    (tmp_path / "train.xlsx").write_bytes(b"Image,Text")
    for read, error in ((read_captions, DataError), (TextTable.read, UsageError)):
        with pytest.raises(error, match="not an XLSX table"):
            read(tmp_path / "train.xlsx")


@pytest.mark.parametrize("head", ["Image,Description", "Filename,Text", "split,Text,Image", "Filename,Text,Image"])
def test_columns_of_captions_are_found_by_either_name(tmp_path, head):
    path = tmp_path / "train.csv"
    cells = {"Image": "mask_a.png", "Filename": "mask_a.png", "Description": "words", "Text": "words", "split": "train"}
    path.write_text(f"{head}\n{','.join(cells[name] for name in head.split(','))}\n\n")
    (row,) = read_captions(path)
    assert (row.key, row.text, row.line) == ("mask_a.png", "words", 2)


@pytest.mark.parametrize("cell", ["", "  ", "NaN", "None", "null", "n/a"])
def test_blank_cells_are_none(tmp_path, cell):
    path = tmp_path / "train.csv"
    path.write_text(f"Image,Description\nmask_a.png,{cell}\nmask_b.png\n")
    assert [row.text for row in read_captions(path)] == [None, None]
    assert [row.cells["description"] for row in read_table(path, ["Image"])] == [None, None]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "lacks the column Image or Filename"),
        ("Name,Description\na,b\n", "lacks the column Image or Filename"),
        ("Image,Words\na,b\n", "lacks the column Description or Text"),
        ("Image,Description\n,b\n", "row 2"),
        ('Image,Description\na,"b\n', "not a CSV table"),
    ],
)
def test_faulty_tables_of_a_data_set_are_data_errors_and_missing_ones_faults_of_layout(tmp_path, text, words):
    path = tmp_path / "train.csv"
    with pytest.raises(LayoutError, match=r"train\.csv cannot be read"):
        read_captions(path)
    path.write_text(text)
    with pytest.raises(DataError, match=words):
        read_captions(path)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", "lacks the column image and text"),
        (b"image\na.png\n", "lacks the column text"),
        (b"image,text\na.png,x\na.png,y\n", "names 'a.png' twice"),
        (b"image,text\na.png,left, base\n", "line 2 has more columns"),
        (b"image,text,laterality\na.png,x,links\n", "unknown laterality"),
        (b"image,text\n,left base\n", "no image name"),
        (b'image,text\na.png,"left\n', "not a CSV table"),
    ],
)
def test_faulty_texts_are_usage_errors(tmp_path, raw, text):
    with pytest.raises(UsageError, match=text):
        table(tmp_path, raw)
    with pytest.raises(UsageError, match="cannot be read") as caught:
        TextTable.read(tmp_path / "missing.csv")
    assert caught.value.code == "E_USAGE"


def test_names_stay_text_and_blanks_mean_no_text(tmp_path):
    rows = table(tmp_path, b"image,text,laterality\n007,NaN,\n8,,viewer\n9,left base,Viewer\n\n").rows
    assert rows["007"].text is None
    assert rows["8"].text is None
    assert rows["9"].laterality is Laterality.VIEWER


def test_rows_find_pictures_by_path_name_or_stem(tmp_path):
    found, unknown = table(tmp_path, b"image,text\nd/a.png,1\nb.png,2\nc,3\nsub/e.png,4\nz.png,5\n").match(
        [Path("d/a.png"), Path("d/b.png"), Path("d/c.dcm"), Path("x/sub/e.png"), Path("y/e.png")]
    )
    assert {i: words.text for i, words in found.items()} == {0: "1", 1: "2", 2: "3", 3: "4"}
    assert unknown == ["z.png"]


@pytest.mark.parametrize("raw", [b"image,text\na.png,1\n", b"image,text\nd/a.png,1\nd/a,2\na,3\n"])
def test_a_row_that_fits_several_pictures_is_refused(tmp_path, raw):
    with pytest.raises(UsageError, match="not the only row or picture"):
        table(tmp_path, raw).match([Path("d/a.png"), Path("e/a.png")])
