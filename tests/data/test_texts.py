from pathlib import Path

import pytest

from textray.errors import UsageError
from textray.records import Laterality
from textray.text.tables import TextTable


def table(tmp_path, raw):
    path = tmp_path / "texts.csv"
    path.write_bytes(raw)
    return TextTable.read(path)


@pytest.mark.parametrize(
    "raw",
    [
        b"image,text\na.png,left base\n",
        b"\xef\xbb\xbfimage;text\r\na.png;left base\r\n",
        b"Text\tImage\nleft base\ta.png\n",
        "image,text\na.png,left base\n".encode("utf-16"),
        b'"image","text"\n"a.png","left base"\n',
    ],
)
def test_usual_forms_of_tables_read_alike(tmp_path, raw):
    assert {name: words.text for name, words in table(tmp_path, raw).rows.items()} == {"a.png": "left base"}


def test_quotes_commas_and_line_breaks_stay_in_the_text(tmp_path):
    rows = table(tmp_path, b'image,text\na.png,"left, base\nand ""hilar"""\n').rows
    assert rows["a.png"].text == 'left, base\nand "hilar"'


def test_names_stay_text_and_blanks_mean_no_text(tmp_path):
    rows = table(tmp_path, b"image,text,laterality\n007,NaN,\n8,,viewer\n9,left base,Viewer\n\n").rows
    assert rows["007"].text is None
    assert rows["8"].text is None
    assert rows["9"].laterality is Laterality.VIEWER


def test_latin_1_is_read_and_stated(tmp_path):
    found = table(tmp_path, "image,text\na.png,Verdichtung über links\n".encode("latin-1"))
    assert found.encoding == "latin-1"
    assert found.rows["a.png"].text == "Verdichtung über links"


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", "lacks the column image and text"),
        (b"image\na.png\n", "lacks the column text"),
        (b"image,text\na.png,x\na.png,y\n", "names 'a.png' twice"),
        (b"image,text,laterality\na.png,x,links\n", "unknown laterality"),
        (b"image,text\n,left base\n", "no image name"),
        (b'image,text\na.png,"left\n', "not a CSV table"),
    ],
)
def test_wrong_tables_are_refused(tmp_path, raw, text):
    with pytest.raises(UsageError, match=text):
        table(tmp_path, raw)
    with pytest.raises(UsageError, match="cannot be read"):
        TextTable.read(tmp_path / "missing.csv")


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
