"""QaTa-COV19 v2: its cut and caption policies, and `data check`; faults of a copy are in `tests/faults/test_d.py`."""

import json
import shutil
from importlib.resources import files

import numpy as np
import pytest
from PIL import Image

from textray.data.base import draw_patients, fingerprint
from textray.data.qata_cov19 import QaTaCOV19, patient_of
from textray.errors import DataError, LayoutError, UsageError
from textray.records import Laterality

LEFT = (True, False, False, False, False, False)
IMAGES, MASKS, TABLE = "Train Set/Images", "Train Set/Ground-truths", "prompt/train.csv"


def table(root, part="train"):
    return root / "prompt" / f"{part}.csv"


def edit(root, old, new):
    text = table(root).read_bytes().decode()
    assert old in text
    table(root).write_bytes(text.replace(old, new, 1).encode())


def ids(root, split, **options):
    return [s.image_id for s in QaTaCOV19(root, **options).samples(split)]


def test_first_four_fifths_of_the_rows_are_train_and_the_rest_val(qata):
    (qata / IMAGES / "._covid_1.png").write_bytes(b"x")  # hidden files and other kinds are ignored
    (qata / IMAGES / "Thumbs.db").write_bytes(b"x")
    rows = [line.split(",")[0][len("mask_") : -len(".png")] for line in table(qata).read_text().splitlines()[1:]]
    assert ids(qata, "train") == rows[:40]
    assert ids(qata, "val") == rows[40:]
    for key in ("mask_COVID_1.PNG", "mask_covid_1"):  # keys match without extension and whatever their case
        edit(qata, "mask_covid_1.png", key)
        assert ids(qata, "train") == rows[:40]
        edit(qata, key, "mask_covid_1.png")
    assert len(ids(qata, "test")) == 6


def test_a_sample_has_files_patient_and_zones_by_viewer(qata):
    sample = QaTaCOV19(qata).samples("val")[0]
    assert sample.image_path == qata / "Train Set/Images" / f"{sample.image_id}.png"
    assert sample.mask_path == qata / "Train Set/Ground-truths" / f"mask_{sample.image_id}.png"
    assert sample.patient_id == "sub-S20000"
    assert sample.report.zones.present == LEFT
    assert sample.report.laterality is Laterality.VIEWER
    assert sample.split == "val"


def test_inner_and_fit_part_train_by_patients(qata):
    reader = QaTaCOV19(qata)
    inner, fit, train = (reader.samples(s) for s in ("inner", "fit", "train"))
    assert sorted(s.image_id for s in inner + fit) == sorted(s.image_id for s in train)
    assert not {s.patient_id for s in inner} & {s.patient_id for s in fit}
    assert None not in {s.patient_id for s in inner}
    assert len({s.patient_id for s in inner}) == 2  # 10 % of 18 patients
    assert sum(s.patient_id is None for s in fit) == 5


def test_parts_not_asked_for_may_be_missing(qata):
    shutil.rmtree(qata / "Test Set")
    table(qata, "test").unlink()
    assert len(ids(qata, "train")) == 40
    with pytest.raises(LayoutError, match=r'no images under "Test Set/Images".*2,113.*docs/datasets/qata_cov19.md'):
        ids(qata, "test")
    assert "test part: not present" in QaTaCOV19(qata).check().lines()


def test_the_test_part_does_alone_and_root_may_be_the_parent(qata):
    shutil.rmtree(qata / "Train Set")
    table(qata).unlink()
    assert len(ids(qata.parent, "test")) == len(ids(qata, "test")) == 6
    with pytest.raises(LayoutError, match="no images"):
        ids(qata, "inner")
    shutil.rmtree(qata / "Test Set")
    with pytest.raises(LayoutError, match='neither "Train Set" nor "Test Set"'):
        QaTaCOV19(qata)


def test_unknown_split_and_policy_list_the_valid_ones(qata):
    with pytest.raises(UsageError, match="inner"):
        QaTaCOV19(qata).samples("dev")
    with pytest.raises(UsageError, match="text-free"):
        QaTaCOV19(qata, missing_captions="guess")


def test_a_patient_on_both_sides_is_refused_by_id(qata):
    for path in (qata / "Train Set").rglob("*sub-S20000_ses-E0_*"):
        path.rename(path.with_name(path.name.replace("sub-S20000_ses-E0_", "sub-S10000_ses-E77_")))
    edit(qata, "sub-S20000_ses-E0_", "sub-S10000_ses-E77_")
    with pytest.raises(DataError, match="sub-S10000"):
        ids(qata, "fit")
    assert "E_PATIENT_LEAK" in {p.code for p in QaTaCOV19(qata).check().problems}


@pytest.mark.parametrize("words", ["", "NaN", "lung bad"])
def test_caption_policy_for_unusable_captions(qata, words, caplog):
    whole = "unilateral pulmonary infection, one infected area, lower right lung."
    edit(qata, f'mask_covid_2.png,"{whole}"', f"mask_covid_2.png,{words}")
    with pytest.raises(DataError, match="covid_2"):
        ids(qata, "train")
    assert "covid_2" not in ids(qata, "train", missing_captions="skip")
    assert "covid_2" in caplog.text
    kept = {s.image_id: s.report for s in QaTaCOV19(qata, missing_captions="text-free").samples("train")}
    assert kept["covid_2"].text is None
    assert not kept["covid_2"].zones
    assert len(ids(qata, "val", missing_captions="skip")) == 10


def test_image_without_a_row_stays_with_its_patient_and_a_row_without_one_is_left_out(qata):
    name = "sub-S20001_ses-E2_run-1_bp-chest_vp-pa_cr"
    lines = [line for line in table(qata).read_text().splitlines() if name not in line]
    table(qata).write_text("\n".join(lines))
    assert name in ids(qata, "val", missing_captions="text-free")
    assert name not in ids(qata, "train", missing_captions="text-free")
    assert name not in ids(qata, "val", missing_captions="skip")
    table(qata).write_text("\n".join([*lines, 'mask_sub-S29999_ses-E1.png,"no infection."']))
    assert len(ids(qata, "train", missing_captions="skip")) + len(ids(qata, "val", missing_captions="skip")) == 49


def test_patients_are_drawn_alike_on_every_machine():
    patients = [f"sub-S{i}" for i in range(100)]
    drawn = draw_patients(reversed(patients), 0.1, 0)
    assert drawn == draw_patients(patients * 2, 0.1, 0)
    assert drawn == {f"sub-S{number}" for number in (7, 28, 31, 55, 66, 68, 69, 74, 82, 99)}
    assert drawn != draw_patients(patients, 0.1, 1)
    assert fingerprint(["a", "b"]) == fingerprint(["b", "a"]) != fingerprint(["ab"])


@pytest.mark.parametrize(
    ("name", "patient"),
    [("sub-S08047_ses-E18100_x", "sub-S08047"), ("sub-S1", "sub-S1"), ("covid_12", None), ("sub-X1_a", None)],
)
def test_patient_in_the_name(name, patient):
    assert patient_of(name) == patient


def test_real_counts_and_fingerprints(real_qata):
    reader = QaTaCOV19(real_qata.parent)
    samples = {split: reader.samples(split) for split in ("train", "val", "inner", "fit")}
    assert {split: len(found) for split, found in samples.items()} == {
        "train": 5716, "val": 1429, "inner": 221, "fit": 5492,
    }  # fmt: skip
    patients = {split: {s.patient_id for s in found} - {None} for split, found in samples.items()}
    assert {split: len(found) for split, found in patients.items()} == {
        "train": 809, "val": 847, "inner": 81, "fit": 728,
    }  # fmt: skip
    assert sum(s.patient_id is None for s in samples["train"]) == 2951
    assert all(s.patient_id for s in samples["val"])
    published = json.loads(files("textray").joinpath("data/splits/qata_cov19.json").read_text())
    for split in ("train", "val"):
        assert fingerprint(s.image_id for s in samples[split]) == published[split]["ids_sha256"]
        assert len(samples[split]) == published[split]["rows"]
    zones = [sum(s.report.zones.present[i] for s in samples["train"]) for i in range(6)]
    assert zones == [2765, 3013, 4832, 2402, 2586, 4978]


def test_published_table_in_another_order_is_cut_alike(real_qata, tmp_path):
    copy = tmp_path / "QaTa-COV19-v2"
    (copy / "prompt").mkdir(parents=True)
    (copy / "Train Set").symlink_to(real_qata / "Train Set")
    head, *rows = (real_qata / "prompt/train.csv").read_text().splitlines()
    (copy / "prompt/train.csv").write_text("\n".join([head, *reversed(rows)]))
    assert ids(copy, "val") == ids(real_qata, "val")


# ---- data check


def test_a_good_copy_is_ok_counted_and_left_as_it_is_and_many_warnings_are_cut_but_counted(qata):
    before = {p: p.stat().st_mtime_ns for p in qata.rglob("*")}
    result = QaTaCOV19(qata).check()
    assert result.ok
    assert result.counts["split train"] == "40 images, 18 known patients"
    assert result.counts["train sizes"] == "24 x 20: 50"
    lines = result.lines()
    assert "train images: 50 (published: 7145)" in lines
    assert lines[-1] == "0 errors, 0 warnings"
    assert {p: p.stat().st_mtime_ns for p in qata.rglob("*")} == before
    for path in sorted((qata / MASKS).iterdir())[:7]:
        Image.fromarray(np.zeros((24, 20), np.uint8)).save(path)
    lines = QaTaCOV19(qata).check().lines(limit=3)
    assert "W_MASK_EMPTY (7)" in lines
    assert "  ... and 4 more" in lines
    assert lines[-1] == "0 errors, 7 warnings"


@pytest.mark.slow
def test_real_copy_is_clean(real_qata):
    result = QaTaCOV19(real_qata).check()
    known = {"W_CAPTION_WORDS", "W_CAPTION_BLANK", "W_PICTURE_LEAK", "W_SAME_PICTURE"}
    assert result.ok
    assert {problem.code for problem in result.problems} <= known
    assert result.counts["train images"] == "7145 (published: 7145)"
