"""MoNuSeg in LViT's folders, and the way of its colours and free captions from the files to a batch."""

import shutil
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image as PILImage

from textray.augment import Augment, can_flip, flip
from textray.data.base import open_reader
from textray.data.cache import PixelCache
from textray.data.folders import header_size
from textray.data.monuseg import MoNuSeg, patient_of
from textray.data.segmentation import SegmentationData
from textray.errors import DataError, InputError, LayoutError, UsageError
from textray.io.read import from_array, read_mask
from textray.preprocess import Preprocess
from textray.records import Grid, Image, Laterality, Report, Zones
from textray.text.cleaning import swap_sides

COLOUR = Preprocess(size=(24, 20), normalise="unit", colour=True)


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
    captions = {sample.report.text for sample in MoNuSeg(monuseg).samples("train")}
    assert MoNuSeg(monuseg).known_captions() == tuple(sorted(captions))


@pytest.mark.parametrize("suffix", [".tif", ".jpg"])
def test_a_header_has_the_size_as_displayed(tmp_path, suffix):
    path = tmp_path / f"turned{suffix}"
    picture = PILImage.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8))
    exif = PILImage.Exif()
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
    samples = open_reader("monuseg", monuseg, missing_captions="text-free").samples("train")
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


def test_check_finds_grey_pictures(monuseg):
    assert codes(monuseg) == set()
    path = monuseg / "Train_Folder/img/TCGA-AA-0000-01Z-00-DX1.png"
    with PILImage.open(path) as picture:
        picture.convert("L").convert("RGB").save(path)
    assert codes(monuseg) == {"E_COLOR"}


def test_check_counts_whether_words_and_pictures_agree_on_the_side(monuseg):
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
    assert not result.problems
    assert len(reader.known_captions()) == 11
    assert [len(reader.samples(split)) for split in ("train", "val", "inner", "fit")] == [24, 6, 4, 20]
    assert result.counts["captions that name the left"] == "4 of 4 have their nuclei further left"
    assert result.counts["captions that name the right"] == "6 of 7 have their nuclei further right"
    pixels = COLOUR.apply(COLOUR.read(reader.samples("fit")[0].image_path))
    assert pixels.shape == (3, 24, 20)
    assert np.ptp(pixels.mean(axis=(1, 2))) > 0.1, "its channels differ"


def caption(text):
    return Report(zones=Zones(), text=text, free=True)


def planes():
    """Three planes that have nothing in common."""
    rows, columns = np.mgrid[:24, :20]
    return np.stack([rows / 23, columns / 19, (rows + columns) % 2 * 0.5], axis=-1).astype(np.float32)


def test_each_network_refuses_the_other_kind_of_picture():
    grid = Grid(height=24, width=20)
    coloured, film = Image(film=planes(), grid=grid), Image(film=planes()[..., 0], grid=grid)
    stored = Image(film=np.repeat(planes()[..., :1], 3, axis=-1), grid=grid)
    COLOUR.check(coloured)
    Preprocess(size=(24, 20)).check(film)
    for way, image in ((COLOUR, film), (COLOUR, stored), (Preprocess(size=(24, 20)), coloured)):
        with pytest.raises(InputError) as caught:
            way.check(image)
        assert caught.value.code == "E_COLOR"


def test_an_array_in_colour_keeps_its_colours():
    levels = (planes() * 255).astype(np.uint8)
    levels = np.kron(levels, np.ones((2, 2, 1), np.uint8))  # large enough to be a picture
    np.testing.assert_allclose(COLOUR.from_array(levels).pixels, levels / 255, atol=1e-6)
    with pytest.raises(InputError):
        from_array(levels)


def test_the_cache_holds_colours(monuseg, tmp_path):
    samples = MoNuSeg(monuseg).samples("test")
    cache = PixelCache(samples, COLOUR, folder=tmp_path)
    again = PixelCache(samples, COLOUR, folder=tmp_path)  # from the finished files
    for i, sample in enumerate(samples):
        wanted = COLOUR.resize(COLOUR.read(sample.image_path).pixels)
        assert cache.image(i).shape == (24, 20, 3)
        np.testing.assert_allclose(cache.image(i), wanted, atol=1 / 65535)
        np.testing.assert_array_equal(cache.image(i), again.image(i))


@pytest.mark.parametrize(
    "settings",
    [
        {"geometry_p": 1.0, "rotate_degrees": 20.0, "scale": (0.8, 1.3), "shift": 0.1, "fill": "edge"},
        {"geometry_p": 1.0, "scale": (1.1, 1.2), "bicubic": True},
        {"blur_p": 1.0, "blur_pixels": 2.0},
        {"border_p": 1.0, "border": 0.3},
    ],
)
def test_each_channel_changes_as_a_film_of_its_own_would(settings):
    augment = Augment(**settings)
    mask = planes()[..., 2] > 0.2
    together, moved, _ = augment(planes(), mask, caption(None), np.random.default_rng(3))
    for c in range(3):
        alone, alone_mask, _ = augment(planes()[..., c], mask, caption(None), np.random.default_rng(3))
        np.testing.assert_array_equal(together[..., c], alone)
        np.testing.assert_array_equal(moved, alone_mask)


@pytest.mark.parametrize(
    ("text", "mirrored"),
    [
        ("The nuclei density in the upper left is high.", "The nuclei density in the upper right is high."),
        ("Right and LEFT.", "Left and RIGHT."),
        ("The nuclei are evenly distributed.", "The nuclei are evenly distributed."),
        ("The leftmost nuclei are dense.", None),
        ("Copyright of the nuclei", None),
    ],
)
def test_left_and_right_are_exchanged_where_the_words_allow(text, mirrored):
    assert swap_sides(text) == mirrored
    assert can_flip(caption(text)) is (mirrored is not None)
    if mirrored is not None:
        turned, _, report = flip(planes(), planes()[..., 0] > 0.5, caption(text))
        assert report == caption(mirrored)
        np.testing.assert_array_equal(turned, planes()[:, ::-1])


def data(root, cache, **options):
    module = SegmentationData(
        data="monuseg", root=str(root), size=(32, 32), normalise="unit", augment="none", batch_size=4, workers=0,
        cache=str(cache), **options,
    )  # fmt: skip
    module.setup("fit")
    return module


def test_a_batch_is_in_colour_and_brings_the_captions_themselves(monuseg, tmp_path):
    module = data(monuseg, tmp_path)
    samples = {s.image_id: s for s in MoNuSeg(monuseg).samples("fit")}
    batch = next(iter(module.train_dataloader()))
    assert batch["image"].shape == (4, 3, 32, 32)
    spread = (batch["image"].amax(1) - batch["image"].amin(1)).mean()
    assert spread > 0.2, "pink and purple, not grey"
    assert batch["text"] == [samples[name].report.text for name in batch["image_id"]]
    assert batch["zones"].isnan().all(), "captions that name no zone leave the zones unknown"
    known = module.describe()
    assert known["captions"] == sorted({s.report.text for s in MoNuSeg(monuseg).samples("train")})
    assert known["preprocess"]["colour"] is True


def test_reports_drop_out_and_flips_take_the_words_along(monuseg, tmp_path):
    module = data(monuseg, tmp_path, report_dropout=0.5)
    module.sets["fit"].augment = Augment(flip_p=1.0)
    texts, plain = [], data(monuseg, tmp_path)
    for key in product(range(6), range(len(module.sets["fit"]))):
        flipped, before = module.sets["fit"][key], plain.sets["fit"][key]
        torch.testing.assert_close(flipped["image"], before["image"].flip(-1))
        torch.testing.assert_close(flipped["mask"], before["mask"].flip(-1))
        assert flipped["text"] in (None, swap_sides(before["text"]))
        texts.append(flipped["text"])
    assert 0.3 < texts.count(None) / len(texts) < 0.7


@pytest.mark.parametrize("option", [{"report_withheld": 0.1}, {"report_denied": 0.1}, {"labels": "clusters"}])
def test_what_needs_zones_is_refused(monuseg, tmp_path, option):
    with pytest.raises(UsageError, match="name no zones"):
        data(monuseg, tmp_path, **option)
