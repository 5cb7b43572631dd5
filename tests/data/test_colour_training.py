"""Colour and free captions on their way from the files to a batch."""

import math

import numpy as np
import pytest
import torch

from textray.augment import Augment, can_flip, flip
from textray.data.cache import PixelCache
from textray.data.monuseg import MoNuSeg
from textray.data.segmentation import SegmentationData
from textray.errors import InputError, UsageError
from textray.io.read import from_array
from textray.preprocess import Preprocess
from textray.records import Grid, Image, Report, Zones
from textray.text.cleaning import swap_sides

COLOUR = Preprocess(size=(24, 20), normalise="unit", colour=True)


def caption(text):
    return Report(zones=Zones(), text=text, free=True)


def planes():
    """Three planes that have nothing in common."""
    rows, columns = np.mgrid[:24, :20]
    return np.stack([rows / 23, columns / 19, (rows + columns) % 2 * 0.5], axis=-1).astype(np.float32)


def test_each_network_refuses_the_other_kind_of_picture():
    grid = Grid(height=24, width=20)
    coloured, film = Image(pixels=planes(), grid=grid), Image(pixels=planes()[..., 0], grid=grid)
    stored = Image(pixels=np.repeat(planes()[..., :1], 3, axis=-1), grid=grid)
    COLOUR.check_colour(coloured)
    Preprocess(size=(24, 20)).check_colour(film)
    for way, image in ((COLOUR, film), (COLOUR, stored), (Preprocess(size=(24, 20)), coloured)):
        with pytest.raises(InputError) as caught:
            way.check_colour(image)
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
        alone, alone_mask, _ = augment(
            np.ascontiguousarray(planes()[..., c]), mask, caption(None), np.random.default_rng(3)
        )
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
    pixels, mask = planes(), planes()[..., 0] > 0.5
    assert can_flip(caption(text)) is (mirrored is not None)
    if mirrored is None:
        with pytest.raises(UsageError):
            flip(pixels, mask, caption(text))
        return
    turned, turned_mask, report = flip(pixels, mask, caption(text))
    assert report.text == mirrored
    assert report.free
    np.testing.assert_array_equal(turned, pixels[:, ::-1])
    np.testing.assert_array_equal(turned_mask, mask[:, ::-1])


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
    assert not batch["zones"].any()


def test_reports_drop_out_and_flips_take_the_words_along(monuseg, tmp_path):
    module = data(monuseg, tmp_path, report_dropout=0.5)
    module.sets["fit"].augment = Augment(flip_p=1.0)
    texts, plain = [], data(monuseg, tmp_path)
    for epoch in range(6):
        for index in range(len(module.sets["fit"])):
            flipped, before = module.sets["fit"][(epoch, index)], plain.sets["fit"][(epoch, index)]
            torch.testing.assert_close(flipped["image"], before["image"].flip(-1))
            torch.testing.assert_close(flipped["mask"], before["mask"].flip(-1))
            assert flipped["text"] in (None, swap_sides(before["text"] or ""))
            texts.append(flipped["text"])
    share = texts.count(None) / len(texts)
    assert math.isclose(share, 0.5, abs_tol=0.2)


def test_a_checkpoint_keeps_the_captions_of_all_parts(monuseg, tmp_path):
    known = data(monuseg, tmp_path).describe()
    assert known["captions"] == sorted({s.report.text for s in MoNuSeg(monuseg).samples("train")})
    assert known["preprocess"]["colour"] is True


@pytest.mark.parametrize("option", [{"report_withheld": 0.1}, {"labels": "clusters"}])
def test_what_needs_zones_is_refused(monuseg, tmp_path, option):
    with pytest.raises(UsageError, match="name no zones"):
        data(monuseg, tmp_path, **option)
