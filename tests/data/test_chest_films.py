"""Films of several places with labels and lungs: splits by patient, and one mask of lungs as two."""

import csv

import numpy as np
import pytest
from PIL import Image

from textray.data.base import SPLITS, open_reader
from textray.data.chest_films import ChestFilms
from textray.data.lungs import split_lungs
from textray.errors import DataError, UsageError


def lungs_mask(size=(48, 40)):
    mask = np.zeros(size, np.uint8)
    mask[8:40, 5:16] = mask[6:38, 23:36] = 1
    mask[2, 20] = 1  # a speck
    return mask


def write_table(root, rows, header=("file", "source", "label", "lungs")):
    with (root / "films.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])


@pytest.fixture
def films(tmp_path):
    """A fake in the real layout: 40 NIH films of 20 patients, 20 of Shenzhen, 10 of Montgomery; lungs for these."""
    root, rows = tmp_path / "other-films", []
    names = [("nih", f"{i // 2:08d}_{i % 2:03d}", ("normal", "pneumonia")[i // 20]) for i in range(40)]
    names += [("shenzhen", f"CHNCXR_{i:04d}_{i % 2}", ("normal", "tuberculosis")[i % 2]) for i in range(20)]
    names += [("montgomery", f"MCUCXR_{i:04d}_{i % 2}", ("normal", "tuberculosis")[i % 2]) for i in range(10)]
    (root / "lungs").mkdir(parents=True)
    for i, (source, stem, label) in enumerate(names):
        (root / source).mkdir(exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (48, 40), dtype=np.uint8)
        Image.fromarray(pixels).save(root / source / f"{stem}.jpg")
        lungs = "" if source == "nih" else f"lungs/{stem}.png"
        if lungs:
            Image.fromarray(lungs_mask().astype(bool)).save(root / lungs)
        rows.append((f"{source}/{stem}.jpg", source, label, lungs))
    write_table(root, rows)
    return root


def test_splits_are_by_patient_and_hold_each_source_and_label(films):
    reader = open_reader("chest_films", films.parent)
    parts = {split: reader.samples(split) for split in SPLITS}
    assert [len(parts[split]) for split in ("train", "val", "test")] == [50, 6, 14]
    assert {sample.group for sample in parts["test"]}.isdisjoint(sample.group for sample in parts["train"])
    assert {sample.group for sample in parts["inner"]}.isdisjoint(sample.group for sample in parts["fit"])
    names = {split: {sample.image_id for sample in found} for split, found in parts.items()}
    assert names["inner"] | names["fit"] == names["train"]
    everything = {(s.source, s.finding) for s in parts["train"]}
    assert {(s.source, s.finding) for s in parts["test"]} == everything
    assert len(everything) == 6
    assert names["test"] == {s.image_id for s in ChestFilms(films, seed=5).samples("test")}


def test_a_film_says_whether_it_shows_a_lesion_and_where_its_lungs_are(films):
    found = {s.image_id: s for split in ("train", "val", "test") for s in ChestFilms(films).samples(split)}
    healthy, ill = found["nih-00000000_001"], found["shenzhen-CHNCXR_0001_1"]
    assert (healthy.finding, healthy.patient_id, healthy.lungs_path) == (False, "nih-00000000", None)
    assert (ill.finding, ill.label, ill.patient_id) == (True, "tuberculosis", "shenzhen-CHNCXR_0001_1")
    assert not healthy.read_mask((48, 40)).any()
    with pytest.raises(DataError, match="has no mask"):
        ill.read_mask((48, 40))
    with pytest.raises(DataError, match="no mask of the lungs"):
        healthy.read_lungs()
    left, right = ill.read_lungs((48, 40))
    assert np.array_equal(left | right, (lungs_mask() > 0) & (np.arange(48)[:, None] > 2)), "without the speck"
    assert not left[:, 20:].any()
    assert not right[:, :20].any()
    with pytest.raises(DataError, match="differ in size"):
        ill.read_lungs((48, 41))


def test_lungs_that_touch_are_cut_where_they_are_thinnest():
    mask = np.zeros((40, 60), bool)
    mask[5:35, 5:27] = mask[5:35, 33:56] = mask[18:20, 27:33] = True
    left, right = split_lungs(mask)
    assert np.array_equal(left | right, mask)
    assert left[:, :27].sum() == 30 * 22
    assert right[:, 33:].sum() == 30 * 23


@pytest.mark.parametrize("side", [0, 1])
def test_a_film_with_one_lung_has_an_empty_plane(side):
    mask = np.zeros((40, 60), bool)
    mask[5:17, 6:24] = mask[20:35, 8:26] = True  # in two pieces
    lungs = split_lungs(mask[:, :: -1 if side else 1])
    assert lungs[side].sum() == mask.sum()
    assert not lungs[1 - side].any()
    assert split_lungs(np.zeros((4, 6), bool)).shape == (2, 4, 6)


def test_a_segmenter_is_neither_trained_nor_scored_on_them(films, tmp_path):
    from textray.evaluate.segmentation import MaskEvaluation, evaluate

    with pytest.raises(UsageError, match=r"no lesion masks.*beside a data set that has them"):
        evaluate(MaskEvaluation(data="chest_films", root=films, split="test", out=tmp_path / "out"))


def test_faulty_rows_are_refused(films):
    path = films / "films.csv"
    text = path.read_text()
    for old, new, code in (
        ("nih/00000000_000.jpg,nih,normal", "nih/00000000_000.jpg,nih,", "lacks its file, its source or its label"),
        ("nih/00000000_000.jpg", "nih/00000000_009.jpg", "E_PAIR"),
        ("nih/00000000_000.jpg", "nih/00000000_001.jpg", "E_DUPLICATE_ID"),
        ("nih/00000000_000.jpg", "../other-films/nih/00000000_000.jpg", "no path below the folder"),
    ):
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(DataError, match=code):
            ChestFilms(films).samples("val")
