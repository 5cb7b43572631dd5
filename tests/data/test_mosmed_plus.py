"""MosMedData+ in its three layouts: both cuts, what is refused, that nothing is flipped, and its `data check`."""

import json
import shutil
from functools import partial

import numpy as np
import pytest
from PIL import Image

from textray.data.base import fingerprint, keep_share, open_reader
from textray.data.mosmed_plus import MosMedPlus, cut_volumes, volume_of
from textray.errors import DataError, LayoutError, UsageError
from textray.io.read import read, read_mask
from textray.records import Laterality

LAYOUTS = ("kaggle", "lvit", "csv")
LEFT = "unilateral pulmonary infection, one infected area, upper left lung."
RIGHT = "unilateral pulmonary infection, one infected area, lower right lung."
KAGGLE = {
    "train": "Train_text_MosMedData+ 1.xlsx",
    "val": "Val_text_MosMedData+ 1.xlsx",
    "test": "Test_text_MosMedData+.xlsx",
}


def ids(root, split, **options):
    return [s.image_id for s in MosMedPlus(root, **options).samples(split)]


def as_csv(root, change=lambda text: text):
    """Turn Kaggle's train table into a csv, changed."""
    import openpyxl

    old = root / KAGGLE["train"]
    rows = list(openpyxl.load_workbook(old).active.iter_rows(values_only=True))
    old.unlink()
    text = change("\r\n".join(f'{name},"{words}"' if i else f"{name},{words}" for i, (name, words) in enumerate(rows)))
    (root / "Train_text_MosMedData+ 1(in).csv").write_text(text, newline="")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_tables_cut_it_and_a_sample_has_files_volume_and_words_as_written(mosmed, layout):
    root = mosmed(layout)
    found = {split: ids(root, split) for split in ("train", "val", "test")}
    assert {split: len(names) for split, names in found.items()} == {"train": 40, "val": 5, "test": 5}
    assert found["val"][0] == "Morozov_study_0003_20"  # the ninth slice
    assert found["train"][:3] == ["Morozov_study_0001_20", "Morozov_study_0001_21", "Morozov_study_0001_22"]
    assert found == {split: ids(root.parent, split) for split in found}, "the folder around it does as well"
    sample = next(s for s in MosMedPlus(root).samples("test") if s.image_id.startswith("Jun_coronacases"))
    assert sample.patient_id == "jun_coronacases_case2"
    assert sample.report.laterality is Laterality.UNKNOWN
    assert sample.report.zones.present == (False,) * 5 + (True,)
    assert "lower right lung" in (sample.report.text or "")
    assert [notice.code for notice in sample.report.notices] == ["W_SIDES_UNKNOWN"]
    mask = read_mask(sample.mask_path)
    assert mask.shape == read(sample.image_path).pixels.shape == (40, 36)
    assert mask.sum() == 42  # of one channel of three
    assert mask[20:, 18:].sum() == 42


def test_volumes_of_the_published_names():
    for name in ("Jun_radiopaedia_10_85902_3_case12_107", "Jun_radiopaedia_10_85902_1_case11_9"):
        assert volume_of(name) == "jun_radiopaedia_10", "two series of one patient"
    assert volume_of("Jun_radiopaedia_4_85506_1_case19_107") == "jun_radiopaedia_4"
    assert volume_of("Jun_coronacases_case1_128") == "jun_coronacases_case1"
    assert volume_of("Morozov_study_0255_24") == "morozov_study_0255"
    assert volume_of("bjorke_8") is None


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_cut_by_volume_parts_no_volume(mosmed, layout):
    reader = MosMedPlus(mosmed(layout), split_by="volume")
    volumes = {split: {s.patient_id for s in reader.samples(split)} - {None} for split in ("train", "val", "test")}
    assert len(set().union(*volumes.values())) == 7 + 3 + 3
    assert {split: len(found) for split, found in volumes.items()} == {"train": 7, "val": 3, "test": 3}
    for split in ("val", "test"):  # one of each source
        assert len({volume.split("_")[1 if volume.startswith("jun") else 0] for volume in volumes[split]}) == 3
    train = [s.image_id for s in reader.samples("train")]
    assert sum(name.startswith("bjorke") for name in train) == 5
    assert sum(len(reader.samples(split)) for split in volumes) == 50


def test_the_cut_by_volume_is_the_same_everywhere_and_recorded(mosmed):
    first, second = mosmed("kaggle"), mosmed("csv")
    found = ids(first, "test", split_by="volume")
    assert set(found) == set(ids(second, "test", split_by="volume"))
    assert set(found) != set(ids(first, "test", split_by="volume", seed=1))
    assert [s.image_id for s in open_reader("mosmed_plus", first, split_by="volume").samples("test")] == found
    for door in (MosMedPlus, partial(open_reader, "mosmed_plus")):
        with pytest.raises(UsageError, match="slice, volume"):
            door(first, split_by="patient")
    cut = cut_volumes([f"morozov_study_{n:04d}" for n in range(50)] + [f"jun_coronacases_case{n}" for n in range(10)])
    assert [list(cut.values()).count(part) for part in ("train", "val", "test")] == [48, 6, 6]
    assert set(cut_volumes(["a_case1", "a_case2"]).values()) == {"train"}


def test_a_part_that_is_not_asked_for_may_be_missing(mosmed):
    root = mosmed("lvit")
    whole = ids(root, "train")
    shutil.rmtree(root / "Test_Folder")
    assert ids(root, "train") == whole
    with pytest.raises(LayoutError, match="no test part"):
        ids(root, "test")
    with pytest.raises(LayoutError, match="train, val, test"):
        ids(root, "train", split_by="volume")
    kaggle = mosmed("kaggle")
    (kaggle / KAGGLE["test"]).unlink()
    assert ids(kaggle, "train") == whole


@pytest.mark.parametrize("layout", LAYOUTS)
def test_names_of_folders_count_whatever_their_case(mosmed, layout):
    root = mosmed(layout)
    whole = ids(root, "train")
    for path in sorted(root.rglob("*"), reverse=True):
        if path.is_dir():
            path.rename(path.with_name(path.name.upper()))
    assert ids(root, "train") == whole


def test_tables_may_lie_elsewhere_and_circulate_as_csv(mosmed):
    root = mosmed("kaggle")
    whole = {split: ids(root, split) for split in KAGGLE}
    as_csv(root, lambda text: "\ufeff" + text.replace(",", ";", 1).replace('.png,"', '.png;"'))
    (root / "text_annotations").mkdir()
    for split in ("val", "test"):
        (root / KAGGLE[split]).rename(root / "text_annotations" / KAGGLE[split])
    assert {split: ids(root, split) for split in KAGGLE} == whole
    (root / "archive").mkdir()
    for name in ("frames", "masks"):
        (root / name).rename(root / "archive" / name)
    assert {split: ids(root, split) for split in KAGGLE} == whole


def test_what_is_no_layout_is_refused(mosmed, tmp_path):
    for root in (tmp_path / "nothing", tmp_path):
        with pytest.raises(LayoutError, match="docs/datasets/mosmed_plus"):
            MosMedPlus(root)
    root = mosmed("kaggle")
    twin = shutil.copy(root / KAGGLE["val"], root / "Val_text_MosMedData.xlsx")
    with pytest.raises(LayoutError, match=r"Val_text_MosMedData\+ 1\.xlsx and Val_text_MosMedData\.xlsx"):
        MosMedPlus(root)
    twin.unlink()
    mosmed("lvit")
    with pytest.raises(LayoutError, match="several data sets"):
        MosMedPlus(tmp_path)
    for name in KAGGLE.values():
        (root / name).unlink()
    with pytest.raises(LayoutError, match="no caption table"):
        MosMedPlus(root)


def test_a_slice_without_caption_is_kept_without_sides_or_left_out(mosmed):
    root = mosmed("kaggle")
    whole = ids(root, "train")
    as_csv(root, lambda text: text.replace(f',"{LEFT}"', ",", 1).replace(RIGHT, RIGHT.upper(), 1))
    with pytest.raises(DataError, match=r"E_CAPTION_BLANK \(1\)"):
        ids(root, "train")
    assert ids(root, "train", missing_captions="skip") == whole[1:]
    kept = MosMedPlus(root, missing_captions="text-free").samples("train")
    assert [s.image_id for s in kept] == whole
    assert (kept[0].report.text, kept[0].report.laterality) == (None, Laterality.UNKNOWN)
    assert kept[1].report.zones.present[5], "capitals are an irregular form that is understood"


def test_a_slice_in_two_parts_is_refused(mosmed):
    root = mosmed("csv")
    table = root / "prompt/val.csv"
    table.write_text(table.read_text() + "mask_morozov_study_0001_20.png,no infection.\n")
    for name in ("Images/Morozov_study_0001_20.png", "GTs/mask_Morozov_study_0001_20.png"):
        shutil.copy(root / "Train" / name, root / "Val" / name)
    with pytest.raises(DataError, match=r"E_DUPLICATE_ID.*row 2 of prompt/train.csv already"):
        ids(root, "train")


def test_a_training_reads_the_sides_as_written_flips_nothing_and_keeps_volumes_whole(mosmed, tmp_path):
    module = pytest.importorskip("textray.data.segmentation")
    root = mosmed("kaggle")
    data = module.SegmentationData(
        data="mosmed_plus", root=str(root), size=(32, 32), augment="strong", report_withheld=1.0, train_fraction=0.25,
        split_by="volume", workers=0, batch_size=4, cache=str(tmp_path / "cache"),
    )  # fmt: skip
    data.setup("fit")
    for epoch in range(3):
        for index, sample in enumerate(data.sets["fit"].samples):
            assert data.sets["fit"][epoch, index]["text"] == sample.report.text
    facts, reader = data.describe(), MosMedPlus(root, split_by="volume")
    assert (facts["laterality"], facts["split_by"], facts["train_fraction"]) == ("unknown", "volume", 0.25)
    kept = keep_share(reader.samples("fit"), 0.25, seed=0)
    assert facts["images"] == {"fit": len(kept), "inner": len(reader.samples("inner"))}
    assert facts["groups"] == {"fit": len({sample.group for sample in kept}), "inner": 1}
    assert len(kept) < len(reader.samples("fit")) / 2


@pytest.mark.parametrize("split_by", ["slice", "volume"])
def test_an_evaluation_says_its_cut(mosmed, cli, tiny_bundle, tmp_path, split_by):
    root, out = mosmed("kaggle"), tmp_path / "scores"
    words = ["--data", "mosmed_plus", "--root", root, "--split", "test", "--model", tiny_bundle, "--out", out]
    wrong = cli("evaluate", *words, "--split-by", "patient")
    assert wrong.code == 2
    assert "slice, volume" in wrong.err
    assert not out.exists()
    result = cli("evaluate", *words, *([] if split_by == "slice" else ["--split-by", split_by]))
    assert result.code == 0, result.err
    summary = json.loads((out / "summary.json").read_text())
    samples = MosMedPlus(root, split_by=split_by).samples("test")
    assert (summary["data"]["split_by"], summary["data"]["laterality"]) == (split_by, "unknown")
    assert summary["data"]["ids_sha256"] == fingerprint(sample.image_id for sample in samples)
    assert summary["images"] == len(samples)
    assert ("--split-by volume" in summary["command"]) == (split_by == "volume")
    page = (out / "summary.md").read_text()
    assert "W_SIDES_UNKNOWN" in page
    assert f"mosmed_plus test (cut by {split_by})" in page


# ---- data check


def codes(result, name):
    return {p.code for p in result.problems if name in p.path or name in p.message}


@pytest.mark.parametrize(("layout", "name"), [("kaggle", "Kaggle"), ("lvit", "LViT"), ("csv", "csv")])
def test_a_good_copy_is_counted_and_its_leak_listed(mosmed, layout, name):
    result = MosMedPlus(mosmed(layout)).check()
    assert result.ok
    assert {p.code for p in result.problems} == {"W_COUNT", "W_VOLUME_LEAK", "W_MASK_MODE", "W_MASK_VALUES"}
    counts = result.counts
    assert counts["layout"] == name
    assert (counts["images"], counts["masks"]) == (50, 50)
    assert counts["train captions"] == "40 (published: 2183)"
    assert sum(p.code == "W_COUNT" for p in result.problems) == 3
    assert str(counts["cut by slice, test"]).startswith("5 slices of 4 volumes, 1 of no known volume, ids ")
    samples = MosMedPlus(mosmed(layout), split_by="volume").samples("test")
    assert str(counts["cut by volume, test"]).endswith(fingerprint(sample.image_id for sample in samples)[:12])
    assert counts["volumes in several parts of the cut by slice"] == "5 of 13"
    assert counts["val slices whose volume is in train"] == "4 of 5"
    assert "5 of 13 volumes" in next(p.message for p in result.problems if p.code == "W_VOLUME_LEAK")


def test_no_leak_no_warning(mosmed):
    root = mosmed("csv")
    for part in ("Val", "Test"):
        for path in (root / part).rglob("*.png"):
            path.unlink()
        (root / f"prompt/{part.lower()}.csv").write_text("Image,Description\n")
    result = MosMedPlus(root).check()
    assert result.counts["volumes in several parts of the cut by slice"] == "0 of 13"
    assert "W_VOLUME_LEAK" not in {p.code for p in result.problems}


def test_sources_are_counted_with_heights_and_sides(mosmed):
    counts = MosMedPlus(mosmed("kaggle")).check().counts
    morozov, flipped = str(counts["source morozov"]), str(counts["source jun_radiopaedia"])
    assert "24 slices" in morozov
    assert "12 of 12 named left only lie in the image's left half" in morozov
    assert "0 of 12 named right only lie in the image's left half" in morozov
    assert "upside down" in flipped
    assert "upside down" not in morozov
    assert str(counts["source bjorke"]).startswith("5 slices")


def test_coloured_slices_and_those_of_no_part_are_errors(mosmed):
    root = mosmed("kaggle")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(root / "frames/bjorke_0.png")
    for folder in ("frames", "masks"):
        (root / folder / "Morozov_study_0001_20.png").rename(root / folder / "stray_1.png")
    result = MosMedPlus(root).check()
    assert "E_COLOR" in codes(result, "frames/bjorke_0")
    assert codes(result, "stray_1") == {"E_CAPTION_MISSING"}
    assert codes(result, "Morozov_study_0001_20") == {"E_CAPTION_EXTRA"}
