"""Films of several places with labels and lungs: splits by patient, and one mask of lungs as two."""

import numpy as np
import pytest
from PIL import Image

from textray.data.base import SPLITS, open_reader
from textray.data.chest_films import ChestFilms
from textray.data.lungs import split_lungs
from textray.errors import DataError, UsageError


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
    mask = np.asarray(Image.open(ill.lungs_path))
    assert np.array_equal(left | right, mask & (np.arange(48)[:, None] > 2)), "without the speck"
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


# ---- faulty copies, and data check


def row(old, new):
    def spoil(root):
        text = (root / "films.csv").read_text()
        assert old in text
        (root / "films.csv").write_text(text.replace(old, new, 1))

    return spoil


FIRST, LUNGS = "nih/00000000_000.jpg", "lungs/CHNCXR_0001_1.png"


def lungs(change):
    return lambda root: Image.fromarray(change(np.asarray(Image.open(root / LUNGS)) * np.uint8(255))).save(root / LUNGS)


FAULTS = {
    "a film that is missing": (lambda root: (root / FIRST).unlink(), "films.csv", "E_PAIR"),
    "a mask of lungs that is missing": (lambda root: (root / LUNGS).unlink(), "films.csv", "E_PAIR"),
    "a blank label": (row(f"{FIRST},nih,normal", f"{FIRST},nih,"), "films.csv", "E_ROW"),
    "no source": (row(f"{FIRST},nih", f"{FIRST},"), "films.csv", "E_ROW"),
    "a path that leads out": (row(FIRST, f"../other-films/{FIRST}"), "films.csv", "E_ROW"),
    "an absolute path": (row(FIRST, "/etc/hostname"), "films.csv", "E_ROW"),
    "two rows for one film": (row("nih/00000000_001.jpg", FIRST), "films.csv", "E_DUPLICATE_ID"),
    "lungs of another size": (lungs(lambda levels: levels[::2]), LUNGS, "E_MASK_SIZE"),
    "a lung without the other": (lungs(lambda levels: levels * (np.arange(40) < 20)), LUNGS, "W_LUNGS"),
    "no lung": (lungs(np.zeros_like), LUNGS, "W_LUNGS"),
    "a film that is cut off": (lambda root: (root / FIRST).write_bytes(b"\xff\xd8\xff\xe0"), FIRST, "E_TRUNCATED"),
    "a film that is none": (lambda root: (root / FIRST).write_bytes(b"<html>"), FIRST, "E_FORMAT"),
    "lungs that are no picture": (lambda root: (root / LUNGS).write_bytes(b"<html>"), LUNGS, "E_FORMAT"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_listed_and_an_error_in_the_table_is_refused(films, fault):
    spoil, where, code = FAULTS[fault]
    spoil(films)
    result = ChestFilms(films).check()
    assert [(p.code, p.path) for p in result.problems] == [(code, where)], result.lines()
    assert result.ok is code.startswith("W_")
    if code in ("E_PAIR", "E_ROW", "E_DUPLICATE_ID"):
        with pytest.raises(DataError, match=code):
            ChestFilms(films).samples("val")


def test_lungs_of_another_size_are_refused_where_they_are_needed(films):
    for path in (films / "lungs").iterdir():
        Image.fromarray(np.eye(9, dtype=bool)).save(path)
    with pytest.raises(DataError, match="E_MASK_SIZE"):
        ChestFilms(films).samples("train")


@pytest.mark.parametrize("first_line", ["name,source,label,lungs", "file,source,lungs", ""])
def test_a_table_with_other_columns_is_refused(cli, films, first_line):
    table = films / "films.csv"
    table.write_text("\n".join([first_line, *table.read_text().splitlines()[1:]]))
    found = cli("data", "check", "chest_films", films)
    assert found.code == 3
    assert "films.csv lacks the column" in found.err
    table.unlink()
    assert "no films.csv in" in cli("data", "check", "chest_films", films).err


def test_more_films_of_a_patient_stay_on_its_side(films):
    """Whatever their labels: a patient is never cut in two."""
    table = films / "films.csv"
    lines = table.read_text().splitlines()
    for number in range(20):
        (films / f"nih/{number:08d}_009.jpg").write_bytes((films / FIRST).read_bytes())
        lines.append(f"nih/{number:08d}_009.jpg,nih,{('pneumonia', 'Normal')[number % 2]},")
    table.write_text("\n".join(lines))
    reader = ChestFilms(films)
    patients = [{s.patient_id for s in reader.samples(split)} for split in ("fit", "inner", "val", "test")]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 50
    assert {s.finding for s in reader.samples("train") if s.image_id.endswith("_009")} == {True, False}


def test_the_same_picture_twice_is_named_within_and_across_splits(films):
    reader = ChestFilms(films)
    first, second, *_ = (sample for sample in reader.samples("train") if sample.source == "nih")
    held = next(sample for sample in reader.samples("test") if sample.source == "nih")
    for copy in (second, held):
        copy.image_path.write_bytes(first.image_path.read_bytes())
    result = reader.check()
    assert result.ok
    assert sorted(p.code for p in result.problems) == ["W_PICTURE_LEAK", "W_SAME_PICTURE"]
    assert all(first.image_path.name in p.path + p.message for p in result.problems)


def test_check_counts(cli, films):
    found = cli("data", "check", "chest_films", films)
    assert found.code == 0
    for line in (
        "source nih: 40 films of 20 patients (20 normal, 20 pneumonia), 0 with lungs",
        "source montgomery: 10 films of 10 patients (5 normal, 5 tuberculosis), 10 with lungs",
        "sizes: 48 x 40: 70",
        "0 errors, 0 warnings",
    ):
        assert line in found.out


def test_real_films(real_films):
    reader = ChestFilms(real_films)
    parts = {split: reader.samples(split) for split in SPLITS}
    assert {split: (len(found), len({s.group for s in found})) for split, found in parts.items()} == {
        "train": (1264, 1037), "val": (198, 149), "test": (338, 296), "inner": (123, 104), "fit": (1141, 933),
    }  # fmt: skip
    assert sum(s.finding is False for split in ("train", "val", "test") for s in parts[split]) == 906
    areas = [s.read_lungs().mean(axis=(1, 2)) for s in parts["val"] if s.lungs_path]
    assert len(areas) == 68
    assert min(map(min, areas)) > 0.03
