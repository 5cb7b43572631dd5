"""The door to every table: its quirks, its refusals, and rows that find their pictures."""

import csv
import os
import sys
import tracemalloc
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

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
    if encoding == "utf-16":  # without its mark
        assert {name: words.text for name, words in table(tmp_path, raw[2:]).rows.items()} == ROWS
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


@pytest.mark.parametrize(
    ("part", "content"),
    [
        ("xl/worksheets/sheet1.xml", b" " * 2**24),
        ("xl/styles.xml", b" " * 2**22),
        ("xl/worksheets/sheet1.xml", b'<sheetData><row r="2000000000"><c><v>1</v></c></row></sheetData>'),
        ("xl/worksheets/sheet1.xml", b"<sheetData>" + b'<row><c r="XFD1"/></row>' * 300 + b"</sheetData>"),
    ],
    ids=["blanks", "styles", "a far row", "wide rows"],
)
def test_an_xlsx_that_would_fill_the_memory_is_refused(tmp_path, part, content):
    openpyxl = pytest.importorskip("openpyxl")
    book, whole = openpyxl.Workbook(), tmp_path / "whole.xlsx"
    book.active.append(["image", "text"])
    book.save(whole)
    sheet = b'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">%s</worksheet>'
    with ZipFile(whole) as old, ZipFile(tmp_path / "bomb.xlsx", "w", ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, sheet % content if name == part else old.read(name))
    assert (tmp_path / "bomb.xlsx").stat().st_size < 50_000
    with pytest.raises(UsageError, match=r"too large for an XLSX table\. Save it as CSV"):
        TextTable.read(tmp_path / "bomb.xlsx")


def test_an_xlsx_whose_cells_share_a_long_text_is_refused(tmp_path):
    """The file holds it once; each row would be read by itself, which takes hours."""
    openpyxl = pytest.importorskip("openpyxl")
    book, whole = openpyxl.Workbook(), tmp_path / "whole.xlsx"
    book.active.append(["image", "text"])
    book.save(whole)
    space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    texts = "".join(f"<si><t>{text}</t></si>" for text in ("image", "text", "left base " * 2**17))
    head, row = (
        '<row><c t="s"><v>0</v></c><c t="s"><v>1</v></c></row>',
        '<row><c><v>{}</v></c><c t="s"><v>2</v></c></row>',
    )
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"
    kind = f'<Override PartName="/xl/sharedStrings.xml" ContentType="{kind}"/>'
    for count in (3, 90):
        rows = head + "".join(map(row.format, range(count)))
        with ZipFile(whole) as old, ZipFile(tmp_path / "long.xlsx", "w", ZIP_DEFLATED) as new:
            made = {name: old.read(name).decode() for name in old.namelist()}
            made["xl/worksheets/sheet1.xml"] = f"<worksheet {space}><sheetData>{rows}</sheetData></worksheet>"
            made["xl/sharedStrings.xml"] = f"<sst {space}>{texts}</sst>"
            if "sharedStrings" not in made["[Content_Types].xml"]:
                made["[Content_Types].xml"] = made["[Content_Types].xml"].replace("</Types>", f"{kind}</Types>")
            for name, content in made.items():
                new.writestr(name, content)
        if count == 3:
            assert len(TextTable.read(tmp_path / "long.xlsx").rows) == 3
    with pytest.raises(UsageError, match=r"too large for an XLSX table\. Save it as CSV"):
        TextTable.read(tmp_path / "long.xlsx")


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
        (b"image,text,laterality\na.png,x,links\n", "line 2: unknown laterality"),
        (b"image,text,laterality\na.png,x,Planted\n", "line 2: unknown laterality"),
        (b"a.png,Jane Planted has an opacity\n", "lacks the column image and text. Got another first line"),
        (b"image,text\nPlanted,x\nPlanted,y\n", "names a picture twice. Got lines 2 and 3"),
        (b"image,text\na.png,le\0ft\n", "not a CSV table"),
        (b"image,text\n,left base\n", "no image name"),
        (b'image,text\na.png,"left\n', "not a CSV table"),
    ],
)
def test_faulty_texts_are_usage_errors(tmp_path, raw, text):
    with pytest.raises(UsageError, match=text) as refused:
        table(tmp_path, raw)
    assert "Planted" not in str(refused.value)
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


WORDS = {
    "apostrophe": "There isn\u2019t consolidation in the left base.",
    "dash": "Opacity in the right upper\u2013middle zone.",
    "spaced dash": "Left base \u2014 opacity.",
    "quotes": "A \u201cpatchy\u201d opacity, the patient\u2019s left.",
    "capitals": "THERE ISN\u2019T CONSOLIDATION.",
    "French": "Opacit\xe9 de la base gauche, \xe0 contr\xf4ler.",
    "German": "Verschattung rechts, kein Erguss, gr\xf6\xdfer als fr\xfcher.",
    "signs": "Opacity of 5 cm\xb2 \xb1 1 at 38 \xb0C\u2026",
}


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
@pytest.mark.parametrize(("encoding", "named"), [("cp1252", ("cp1252", "latin-1")), ("mac_roman", ("mac_roman",))])
@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"])
def test_tables_of_older_programs_keep_their_punctuation(tmp_path, words, encoding, named, end):
    try:
        raw = end.join(["image,text", "b.png,left base", f'a.png,"{words}"', ""]).encode(encoding)
    except UnicodeEncodeError:  # Mac Roman has no superscript two
        raw = end.join(["image,text", "b.png,x", f'a.png,"{words.replace(chr(0xB2), "")}"']).encode(encoding)
        words = words.replace(chr(0xB2), "")
    found = table(tmp_path, raw)
    assert found.rows["a.png"].text == words
    assert found.encoding in named


def test_one_line_in_another_encoding_leaves_the_others_as_they_are(tmp_path):
    words = "There isn\u2019t consolidation."
    raw = b"image,text\r\n" + f"a.png,{words}\r\n".encode() + f"b.png,{words}\r\n".encode("cp1252")
    assert {name: row.text for name, row in table(tmp_path, raw).rows.items()} == {"a.png": words, "b.png": words}


@pytest.mark.parametrize("first", ["sep=;", "SEP=;", '"sep=;"', "sep=|", "sep=\t"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
def test_the_separator_that_excel_names_is_used_and_lines_keep_their_numbers(tmp_path, first, encoding):
    mark = first.strip('"')[-1]
    found = table(tmp_path, f"{first}\r\nimage{mark}text\r\na.png{mark}left, base\r\n".encode(encoding))
    assert {name: (row.text, row.line) for name, row in found.rows.items()} == {"a.png": ("left, base", 3)}


def test_a_long_text_is_read_and_the_limit_of_the_process_stays(tmp_path):
    long = "Left base opacity. " * 20_000
    limit = csv.field_size_limit()
    assert table(tmp_path, f"image,text\na.png,{long}\n".encode()).rows["a.png"].text == long
    assert csv.field_size_limit() == limit


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and devices are POSIX")
def test_only_regular_files_are_tables(tmp_path):
    os.mkfifo(tmp_path / "texts.csv")
    for place in (tmp_path / "texts.csv", Path("/dev/zero"), tmp_path):
        with pytest.raises(UsageError, match=r"cannot be read\. Got not a regular file"):
            TextTable.read(place)


@pytest.mark.parametrize(
    ("row", "film"),
    [
        ("films\\a.dcm", "films/a.dcm"),
        (".\\films\\a.dcm", "films/a.dcm"),
        ("..\\films\\a.dcm", "../films/a.dcm"),
        ("C:\\films\\a.dcm", "films/a.dcm"),
        ("C:\\Users\\x\\films\\a.dcm", "films/a.dcm"),
        ("/mnt/pacs/films/a.dcm", "films/a.dcm"),
        ("C:/films/a.dcm", "films/a.dcm"),
        ("\\\\server\\share\\films\\a.dcm", "films/a.dcm"),
        ("A.DCM", "films/a.dcm"),
        ("A", "films/a.dcm"),
        ("Films\\A.dcm", "films/a.DCM"),
        ("d:\\FILMS\\A.DCM", "films/a.dcm"),
        ("films\\a.dcm", "films\\a.dcm"),
    ],
)
def test_names_of_windows_and_of_other_letters_find_their_film(tmp_path, row, film):
    found, unknown = table(tmp_path, f"image,text\n{row},left base\n".encode()).match([Path("films/b.dcm"), Path(film)])
    assert ({i: words.text for i, words in found.items()}, unknown) == ({1: "left base"}, [])


@pytest.mark.parametrize("row", ["C:\\other\\a.dcm", "other\\a.dcm", "C:\\films\\c.dcm", "C:\\", "films\\"])
def test_a_film_of_another_folder_is_not_found(tmp_path, row):
    assert table(tmp_path, f"image,text\n{row},left base\n".encode()).match([Path("films/a.dcm")]) == ({}, [row])


def test_the_name_as_written_comes_before_other_letters(tmp_path):
    both = table(tmp_path, b"image,text\na.png,1\nA.png,2\n")
    found, unknown = both.match([Path("A.png"), Path("a.png")])
    assert ({i: words.text for i, words in found.items()}, unknown) == ({0: "2", 1: "1"}, [])
    assert both.match([Path("a.png")])[1] == ["A.png"]
    with pytest.raises(UsageError, match="not the only row or picture"):
        table(tmp_path, b"image,text\nA.PNG,1\n").match([Path("A.png"), Path("a.png")])


@pytest.mark.parametrize("heading", ["image", "Accession Number", "accession_number", "SOPInstanceUID"])
def test_films_are_found_by_accession_number_and_instance(tmp_path, dicom, levels, heading):
    paths = []
    for name, accession, number in (("a", "007", 1), ("b", "007", 2), ("c", "8", 3)):
        paths.append(tmp_path / f"{name}.dcm")
        paths[-1].write_bytes(dicom(levels, AccessionNumber=accession, SOPInstanceUID=f"1.2.3.{number}"))
    paths.append(tmp_path / "d.png")
    paths[-1].write_bytes(b"no film")
    found, unknown = table(tmp_path, f"{heading},text\n007,left base\n1.2.3.3,right base\n7,x\n".encode()).match(paths)
    assert {i: words.text for i, words in found.items()} == {0: "left base", 1: "left base", 2: "right base"}
    assert unknown == ["7"]


def test_films_that_are_found_by_accession_number_are_read_to_their_heads_only(tmp_path, dicom, levels):
    path = tmp_path / "a.dcm"
    path.write_bytes(dicom(levels, AccessionNumber="007"))
    os.truncate(path, 2**28)
    words = table(tmp_path, b"image,text\n007,left base\n")
    tracemalloc.start()
    try:
        assert words.match([path])[1] == []
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("raw", [b"image,text\na.png,1\n", b"image,text\nd/a.png,1\nd/a,2\na,3\n"])
def test_a_row_that_fits_several_pictures_is_refused(tmp_path, raw):
    with pytest.raises(UsageError, match="not the only row or picture"):
        table(tmp_path, raw).match([Path("d/a.png"), Path("e/a.png")])
