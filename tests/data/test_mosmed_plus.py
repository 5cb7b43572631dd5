"""MosMedData+ in its three layouts: both cuts, what is refused, and that nothing of it is flipped."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from textray.augment import Augment, can_flip
from textray.data.base import open_reader
from textray.data.mosmed_plus import MosMedPlus, cut_volumes, volume_of
from textray.data.zone_dropout import drop_zones
from textray.errors import DataError, LayoutError, UsageError
from textray.io.read import read, read_mask
from textray.records import Laterality

Fake = Callable[[str], Path]
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
    new = changed = root / "Train_text_MosMedData+ 1(in).csv"
    text = change("\r\n".join(f'{name},"{words}"' if i else f"{name},{words}" for i, (name, words) in enumerate(rows)))
    new.write_bytes(text if isinstance(text, bytes) else text.encode())
    return changed


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_tables_cut_it_and_nothing_cuts_again(mosmed, layout):
    root = mosmed(layout)
    found = {split: ids(root, split) for split in ("train", "val", "test")}
    assert {split: len(names) for split, names in found.items()} == {"train": 40, "val": 5, "test": 5}
    assert found["val"][0] == "Morozov_study_0003_20"  # the ninth slice
    assert found["train"][:3] == ["Morozov_study_0001_20", "Morozov_study_0001_21", "Morozov_study_0001_22"]
    assert found == {split: ids(root.parent, split) for split in found}, "the folder around it does as well"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_sample_tells_files_volume_and_words_as_written(mosmed, layout):
    root = mosmed(layout)
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


def test_levels_below_one_half_are_background(mosmed):
    samples = [s for s in MosMedPlus(mosmed("kaggle")).samples("train") if s.image_id.startswith("bjorke")]
    assert {int(read_mask(s.mask_path).sum()) for s in samples} == {36, 42}
    assert {s.patient_id for s in samples} == {None}


def test_volumes_of_the_published_names():
    for name in ("Jun_radiopaedia_10_85902_3_case12_107", "Jun_radiopaedia_10_85902_1_case11_9"):
        assert volume_of(name) == "jun_radiopaedia_10", "two series of one patient"
    assert volume_of("Jun_radiopaedia_4_85506_1_case19_107") == "jun_radiopaedia_4"
    assert volume_of("Jun_coronacases_case1_128") == "jun_coronacases_case1"
    assert volume_of("Morozov_study_0255_24") == "morozov_study_0255"
    assert volume_of("bjorke_8") is None


def test_inner_and_fit_part_train_by_volume(mosmed):
    root = mosmed("lvit")
    for protocol in ("slice", "volume"):
        reader = MosMedPlus(root, split_by=protocol)
        inner, fit = reader.samples("inner"), reader.samples("fit")
        assert sorted(s.image_id for s in inner + fit) == sorted(s.image_id for s in reader.samples("train"))
        volumes = {s.patient_id for s in inner}
        assert volumes
        assert not volumes & {s.patient_id for s in fit}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_cut_by_volume_parts_no_volume(mosmed, layout):
    reader = MosMedPlus(mosmed(layout), split_by="volume")
    volumes = {split: {s.patient_id for s in reader.samples(split)} - {None} for split in ("train", "val", "test")}
    assert not volumes["train"] & volumes["val"]
    assert not volumes["train"] & volumes["test"]
    assert not volumes["val"] & volumes["test"]
    assert {split: len(found) for split, found in volumes.items()} == {"train": 7, "val": 3, "test": 3}
    for split in ("val", "test"):  # one of each source
        assert len({volume.split("_")[1 if volume.startswith("jun") else 0] for volume in volumes[split]}) == 3
    train = [s.image_id for s in reader.samples("train")]
    assert sum(name.startswith("bjorke") for name in train) == 5
    assert sum(len(reader.samples(split)) for split in volumes) == 50


def test_the_cut_by_volume_is_the_same_everywhere_and_recorded(mosmed):
    first, second = (MosMedPlus(mosmed(layout), split_by="volume") for layout in ("kaggle", "csv"))
    found, same = ({sample.image_id for sample in reader.samples("test")} for reader in (first, second))
    assert found == same
    assert found != {s.image_id for s in MosMedPlus(first.root, split_by="volume", seed=1).samples("test")}
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
    as_csv(root, lambda text: ("\ufeff" + text.replace(",", ";", 1).replace('.png,"', '.png;"')).encode())
    (root / "text_annotations").mkdir()
    for split in ("val", "test"):
        (root / KAGGLE[split]).rename(root / "text_annotations" / KAGGLE[split])
    assert {split: ids(root, split) for split in KAGGLE} == whole
    (root / "archive").mkdir()
    for name in ("frames", "masks"):
        (root / name).rename(root / "archive" / name)
    assert {split: ids(root, split) for split in KAGGLE} == whole


def test_two_tables_for_one_part_are_refused(mosmed):
    root = mosmed("kaggle")
    shutil.copy(root / KAGGLE["val"], root / "Val_text_MosMedData.xlsx")
    with pytest.raises(LayoutError, match=r"Val_text_MosMedData\+ 1\.xlsx and Val_text_MosMedData\.xlsx"):
        MosMedPlus(root)


def test_what_is_no_layout_is_told(mosmed, tmp_path):
    for root in (tmp_path / "nothing", tmp_path):
        with pytest.raises(LayoutError, match="docs/datasets/mosmed_plus"):
            MosMedPlus(root)
    root = mosmed("kaggle")
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
    assert ids(root, "train", captions="skip") == whole[1:]
    kept = MosMedPlus(root, captions="text-free").samples("train")
    assert [s.image_id for s in kept] == whole
    assert (kept[0].report.text, kept[0].report.laterality) == (None, Laterality.UNKNOWN)
    assert kept[1].report.zones.present[5], "capitals are an irregular form that is understood"


def test_missing_files_and_extra_rows_are_refused(mosmed):
    root = mosmed("lvit")
    (root / "Train_Folder/labelcol/bjorke_0.png").unlink()
    with pytest.raises(DataError, match=r"E_PAIR.*bjorke_0\.png has no mask"):
        ids(root, "train")
    (root / "Train_Folder/img/bjorke_0.png").unlink()
    with pytest.raises(DataError, match=r"E_CAPTION_EXTRA.*bjorke_0"):
        ids(root, "train")
    assert len(ids(root, "train", captions="skip")) == 39


def test_a_slice_in_two_parts_is_refused(mosmed):
    root = mosmed("csv")
    table = root / "prompt/val.csv"
    table.write_text(table.read_text() + "mask_morozov_study_0001_20.png,no infection.\n")
    for kind, prefix in (("Images", ""), ("GTs", "mask_")):
        shutil.copy(
            root / "Train" / kind / f"{prefix}Morozov_study_0001_20.png",
            root / "Val" / kind / f"{prefix}Morozov_study_0001_20.png",
        )
    with pytest.raises(DataError, match=r"E_DUPLICATE_ID.*row 2 of prompt/train.csv already"):
        ids(root, "train")


def test_nothing_is_flipped_or_withheld(mosmed):
    rng = np.random.default_rng(0)
    for sample in MosMedPlus(mosmed("kaggle")).samples("train"):
        assert not can_flip(sample.report)
        pixels, mask = read(sample.image_path).pixels, read_mask(sample.mask_path)
        same, still, report = Augment(flip_p=1.0)(pixels, mask, sample.report, rng)
        np.testing.assert_array_equal(same, pixels)
        np.testing.assert_array_equal(still, mask)
        assert report is sample.report
        assert drop_zones(mask, sample.report, rng) is None


def test_the_door_knows_the_cuts(mosmed, tmp_path):
    root = mosmed("kaggle")
    by_volume = open_reader("mosmed_plus", root, split_by="volume").samples("test")
    assert [s.image_id for s in by_volume] == ids(root, "test", split_by="volume")
    with pytest.raises(UsageError, match="slice, volume"):
        open_reader("mosmed_plus", root, split_by="patient")
    with pytest.raises(UsageError, match="one cut only"):
        open_reader("qata_cov19", root, split_by="slice")
    with pytest.raises(UsageError, match="slice, volume"):
        MosMedPlus(root, split_by="patient")


def test_training_reads_the_sides_as_written_and_flips_nothing(mosmed, tmp_path):
    module = pytest.importorskip("textray.data.segmentation")
    data = module.SegmentationData(
        data="mosmed_plus", root=str(mosmed("kaggle")), size=(32, 32), augment="strong", report_withheld=1.0,
        split_by="volume", workers=0, batch_size=4, cache=str(tmp_path / "cache"),
    )  # fmt: skip
    data.setup("fit")
    for epoch in range(3):
        for index, sample in enumerate(data.sets["fit"].samples):
            assert data.sets["fit"][epoch, index]["text"] == sample.report.text
    facts = data.describe()
    assert (facts["laterality"], facts["split_by"]) == ("unknown", "volume")
