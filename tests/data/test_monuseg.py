"""MoNuSeg in LViT's folders: what is read, what is refused, and that colours and captions stay as they are."""

import shutil

import numpy as np
import pytest
from PIL import Image

from textray.data.base import open_reader
from textray.data.folders import header_size
from textray.data.monuseg import MoNuSeg, patient_of
from textray.errors import DataError, LayoutError
from textray.io.read import read_mask
from textray.preprocess import Preprocess
from textray.records import Laterality

COLOUR = Preprocess(size=(32, 32), colour=True)


def table(root, part="Train"):
    return root / f"{part}_Folder" / f"{part}_text.xlsx"


def rewrite(path, change):
    """Change the rows of a table: a list of [name, words]."""
    import openpyxl

    book = openpyxl.load_workbook(path)
    rows = [list(row) for row in book.active.iter_rows(values_only=True)]
    change(rows)
    book.active.delete_rows(1, len(rows) + 1)
    for row in rows:
        book.active.append(row)
    book.save(path)


def codes(root):
    return {problem.code for problem in MoNuSeg(root).check().problems} - {"W_COUNT"}


def test_parts_are_those_of_the_folders_and_inner_shares_no_patient_with_fit(monuseg):
    reader = MoNuSeg(monuseg.parent)  # the folder around it does as well
    found = {split: reader.samples(split) for split in ("train", "val", "test", "inner", "fit")}
    assert {split: len(samples) for split, samples in found.items()} == {
        "train": 12, "val": 3, "test": 3, "inner": 2, "fit": 10,
    }  # fmt: skip
    ids = {split: {s.image_id for s in samples} for split, samples in found.items()}
    assert ids["inner"] | ids["fit"] == ids["train"]
    assert not ids["inner"] & ids["fit"]
    assert ids["inner"] == {s.image_id for s in MoNuSeg(monuseg).samples("inner")}
    assert ids["inner"] != {s.image_id for s in MoNuSeg(monuseg, seed=1).samples("inner")}


def test_a_sample_carries_its_words_as_they_stand_and_the_pictures_sides(monuseg):
    first, _, third = MoNuSeg(monuseg).samples("train")[:3]
    assert first.report.text == "The nuclei density in the upper left is high."
    assert third.report.text == "The nuclei are evenly distributed."
    assert first.report.free
    assert first.report.laterality is Laterality.VIEWER
    assert not first.report.zones, "upper left names no zone of a lung here"
    assert first.patient_id == "TCGA-AA-0000"
    assert read_mask(first.mask_path).any()
    assert MoNuSeg(monuseg).known_captions() == tuple(
        sorted({"The nuclei are evenly distributed."} | {s.report.text for s in MoNuSeg(monuseg).samples("train")})
    )


@pytest.mark.parametrize("suffix", [".tif", ".jpg"])
def test_a_header_tells_the_size_as_displayed(tmp_path, suffix):
    path = tmp_path / f"turned{suffix}"
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(path, exif=exif)
    assert header_size(path) == COLOUR.read(path).grid.shape == (40, 30)


def test_a_folder_without_the_layout_is_refused(tmp_path, monuseg):
    (tmp_path / "empty").mkdir()
    with pytest.raises(LayoutError, match="no Train_Folder"):
        MoNuSeg(tmp_path / "empty")
    table(monuseg).unlink()
    with pytest.raises(LayoutError, match="no caption table of train"):
        MoNuSeg(monuseg)


def test_an_image_with_a_blank_caption_is_kept_as_one_of_free_captions(monuseg):
    rewrite(table(monuseg), lambda rows: rows[3].__setitem__(1, " "))
    samples = open_reader("monuseg", monuseg, captions="text-free").samples("train")
    assert len(samples) == 12
    assert [s.report.text for s in samples].count(None) == 1
    assert all(s.report.free for s in samples)


def test_a_patient_in_two_parts_is_refused(monuseg):
    for folder in ("img", "labelcol"):
        shutil.copy(
            monuseg / "Train_Folder" / folder / "TCGA-AA-0000-01Z-00-DX1.png",
            monuseg / "Val_Folder" / folder / "TCGA-AA-0000-01A-01-TS1.png",
        )
    rewrite(table(monuseg, "Val"), lambda rows: rows.append(["TCGA-AA-0000-01A-01-TS1.png", "The nuclei are few."]))
    assert "E_PATIENT_LEAK" in codes(monuseg)
    with pytest.raises(DataError, match="E_PATIENT_LEAK"):
        MoNuSeg(monuseg).samples("train")


def test_check_finds_grey_pictures_other_sizes_and_lone_files(monuseg):
    assert codes(monuseg) == set()
    folder = monuseg / "Train_Folder"
    names = sorted(path.name for path in (folder / "img").iterdir())
    with Image.open(folder / "img" / names[0]) as picture:
        picture.convert("L").convert("RGB").save(folder / "img" / names[0])
    with Image.open(folder / "labelcol" / names[1]) as mask:
        mask.resize((18, 20), Image.Resampling.NEAREST).save(folder / "labelcol" / names[1])
    (folder / "labelcol" / names[2]).unlink()
    assert codes(monuseg) == {"E_COLOR", "E_MASK_SIZE", "E_PAIR"}
    assert not MoNuSeg(monuseg).check().ok


def test_check_tells_whether_words_and_pictures_agree_on_the_side(monuseg):
    counts = MoNuSeg(monuseg).check().counts
    assert counts["captions that name the left"] == "6 of 6 have their nuclei further left"
    assert counts["captions that name the right"] == "6 of 6 have their nuclei further right"
    assert counts["different captions"] == 3


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("TCGA-18-5592-01Z-00-DX1", "TCGA-18-5592"),
        ("tcga-g2-a2ek-01A-02-TSB", "TCGA-G2-A2EK"),
        ("slide_7", None),
        ("TCGA-18", None),
    ],
)
def test_the_patient_stands_in_the_barcode(name, patient):
    assert patient_of(name) == patient


def test_the_real_copy_is_read_whole(real_monuseg):
    reader = MoNuSeg(real_monuseg)
    result = reader.check()
    assert result.ok
    assert not result.problems
    assert len(reader.known_captions()) == 11
    assert [len(reader.samples(split)) for split in ("train", "val", "inner", "fit")] == [24, 6, 4, 20]
    assert result.counts["captions that name the left"] == "4 of 4 have their nuclei further left"
    assert result.counts["captions that name the right"] == "6 of 7 have their nuclei further right"
    pixels = COLOUR.apply(COLOUR.read(reader.samples("fit")[0].image_path))
    assert pixels.shape == (3, 32, 32)
    assert np.ptp(pixels.mean(axis=(1, 2))) > 0.1, "its channels differ"
