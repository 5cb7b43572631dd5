"""NIH boxes on a small copy in the published layout, made without code of the reader."""

import numpy as np
import pytest
from PIL import Image

from textray.data.base import open_reader
from textray.data.boxes import truth
from textray.data.nih_boxes import NIHBoxes
from textray.errors import DataError, LayoutError, UsageError

HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"
ROWS = [
    "00000001_000.png,Atelectasis,225.084745762712,547.019216763771,86.7796610169491,79.1864406779661,,,",
    "00000001_000.png,Atelectasis,600,500,100,100,,,",
    "00000001_000.png,Effusion,10,900,50,60,,,",
    "00000002_003.png,Infiltrate,400,300,200,200,,,",
    "00000003_001.png,Mass,100,100,40,40,,,",
    "00000004_000.png,Nodule,800,100,20,20,,,",
]


@pytest.fixture
def nih(tmp_path):
    root = tmp_path / "nih"
    for number, name in enumerate(sorted({row[:12] for row in ROWS})):
        folder = root / f"images_{1 + number % 2:03}" / "images"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (64, 64), np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    (root / "BBox_List_2017.csv").write_text("\n".join([HEADER, *ROWS]))
    return tmp_path


def phrases(root, *splits):
    return [one for split in splits for one in open_reader("nih_boxes", root).phrases(split)]


def test_findings_are_asked_once_with_all_their_boxes(nih):
    found = {(one.image_id, one.label): one for one in phrases(nih, "train", "test")}
    assert set(found) == {
        ("00000001_000", "Atelectasis"), ("00000001_000", "Effusion"), ("00000002_003", "Infiltrate"),
        ("00000003_001", "Mass"), ("00000004_000", "Nodule"),
    }  # fmt: skip
    one = found["00000001_000", "Atelectasis"]
    assert (one.phrase, one.patient_id, len(one.boxes)) == ("Findings suggesting atelectasis.", "00000001", 2)
    mask = truth(one, (64, 64))
    assert mask[32:37, 38:43].any()
    assert not mask[:30].any()


def test_patients_are_in_one_split(nih):
    parts = {split: {one.patient_id for one in phrases(nih, split)} for split in ("train", "test", "inner", "fit")}
    assert len(parts["test"]) == len(parts["train"]) == 2
    assert not parts["test"] & parts["train"]
    assert parts["inner"] | parts["fit"] == parts["train"]
    assert not parts["inner"] & parts["fit"]
    with pytest.raises(UsageError, match="has no val"):
        phrases(nih, "val")


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("Mass,100", "Tumour,100", "E_ROW"),
        ("Mass,100,100", "Mass,,100", "E_ROW"),
        ("00000003_001.png", "3_001.png", "E_ROW"),
        ("Mass,100,100,40,40", "Mass,100,100,-40,40", "E_BOX"),
        ("Mass,100,100,40,40", "Mass,1000,100,40,40", "W_BOX_CUT"),
    ],
)
def test_broken_rows_are_found_and_named(nih, old, new, code):
    table = nih / "nih" / "BBox_List_2017.csv"
    table.write_text(table.read_text().replace(old, new, 1))
    found = NIHBoxes(nih).check().problems
    assert any(p.code == code and p.message.startswith("row 6 ") for p in found)
    if code.startswith("E_"):
        with pytest.raises(DataError, match=code):
            phrases(nih, "train")


def test_films_that_are_missing_twice_or_squeezed_are_named(nih):
    first = nih / "nih" / "images_001" / "images" / "00000001_000.png"
    other = nih / "nih" / "images_002" / "images"
    (other / first.name).write_bytes(first.read_bytes())
    assert "E_DUPLICATE_ID" in {p.code for p in NIHBoxes(nih).check().problems}
    (other / first.name).unlink()
    Image.new("L", (64, 40)).save(first)
    assert [p.code for p in NIHBoxes(nih).check().problems] == ["E_SIZE"]
    first.unlink()
    (problem,) = NIHBoxes(nih).check().problems
    assert (problem.code, problem.path) == ("E_PAIR", "00000001_000.png")


def test_check_counts(nih):
    result = NIHBoxes(nih).check()
    assert (result.ok, result.problems) == (True, ())
    assert result.counts["boxes"] == "6 (published: 984)"
    assert result.counts["films with boxes"] == "4 (published: 880)"
    assert result.counts["class Atelectasis"] == 1


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(LayoutError, match=r"no BBox_List_2017\.csv"):
        open_reader("nih_boxes", tmp_path)
