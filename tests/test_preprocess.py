"""Pixels go to the network and maps come back: same place, same side, same range."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image as PILImage

from textray import preprocess
from textray.errors import BundleError, ShapeError, UsageError
from textray.preprocess import Preprocess
from textray.records import Grid, Image

SIDES = st.integers(24, 160)


def ellipse(height, width, row=0.25, column=0.7, rows=0.12, columns=0.18):
    """Mask of one ellipse in the upper right part: no flip, turn or transposition leaves it where it is."""
    y, x = np.mgrid[:height, :width]
    y, x = (y + 0.5) / height, (x + 0.5) / width
    return ((y - row) / rows) ** 2 + ((x - column) / columns) ** 2 <= 1


def centroid(weights):
    y, x = np.mgrid[: weights.shape[0], : weights.shape[1]]
    total = weights.sum()
    return (weights * y).sum() / total, (weights * x).sum() / total


def picture(pixels):
    return Image(film=pixels, grid=Grid(height=pixels.shape[0], width=pixels.shape[1]))


@settings(deadline=None, max_examples=40)
@given(
    height=SIDES, width=SIDES, h=SIDES, w=SIDES, letterbox=st.booleans(), transpose=st.booleans(), cubic=st.booleans()
)
def test_a_mask_returns_to_its_place(height, width, h, w, letterbox, transpose, cubic):
    mask = ellipse(height, width)
    grid = Grid(height=height, width=width)
    interpolation = "bicubic" if cubic else "bilinear"
    preprocess = Preprocess(size=(h, w), letterbox=letterbox, transpose=transpose, interpolation=interpolation)
    assume(min(preprocess.box(grid.shape)[2:]) >= 6)  # fewer rows show no shape
    back = preprocess.restore(preprocess.resize(mask.astype(np.float32)), grid)
    assert back.shape == (height, width)
    assert back.dtype == np.float32
    pixel = max(1.0, height / preprocess.box(grid.shape)[2], width / preprocess.box(grid.shape)[3])
    assert np.abs(np.subtract(centroid(back), centroid(mask))).max() < 0.5 * pixel
    again = back > 0.5
    overlap = 2 * (again & mask).sum() / (again.sum() + mask.sum())
    assert overlap > max(
        2 * (turned & mask).sum() / (turned.sum() + mask.sum()) for turned in (mask[::-1], mask[:, ::-1])
    )
    assert overlap > 0.6


@settings(deadline=None, max_examples=20)
@given(height=st.integers(2, 50), width=st.integers(2, 50), letterbox=st.booleans(), seed=st.integers(0, 9))
def test_the_same_size_is_exact_both_ways(height, width, letterbox, seed):
    pixels = np.random.default_rng(seed).random((height, width), dtype=np.float32)
    preprocess = Preprocess(size=(height, width), letterbox=letterbox)
    np.testing.assert_array_equal(preprocess.resize(pixels), pixels)
    np.testing.assert_array_equal(preprocess.restore(pixels, Grid(height=height, width=width)), pixels)
    np.testing.assert_array_equal(preprocess.resize_mask(pixels > 0.5), pixels > 0.5)


@settings(deadline=None, max_examples=20)
@given(height=SIDES, width=SIDES, letterbox=st.booleans(), transpose=st.booleans())
def test_mask_and_pixels_are_resized_alike(height, width, letterbox, transpose):
    mask = ellipse(height, width)
    preprocess = Preprocess(size=(96, 64), letterbox=letterbox, transpose=transpose)
    small = preprocess.resize_mask(mask)
    assert small.dtype == np.bool_
    by_pixels = preprocess.resize(mask.astype(np.float32))
    assert np.abs(np.subtract(centroid(small), centroid(by_pixels))).max() < 1


def test_transposed_input_has_rows_for_columns_and_comes_back():
    pixels = np.zeros((90, 60), np.float32)
    pixels[10:20, 40:55] = 1  # viewer's upper right
    preprocess = Preprocess(size=(60, 90), transpose=True)
    np.testing.assert_array_equal(preprocess.resize(pixels), pixels.T)
    np.testing.assert_array_equal(preprocess.resize_mask(pixels > 0.5), pixels.T > 0.5)
    np.testing.assert_array_equal(preprocess.restore(pixels.T, Grid(height=90, width=60)), pixels)
    square = Preprocess(size=(48, 48), transpose=True, normalise="zscore")
    row, column = centroid(square.apply(picture(pixels))[0] > 0)
    assert row > 32  # the viewer's right is at the bottom of what the network sees
    assert column < 16


@settings(deadline=None, max_examples=25)
@given(height=st.integers(1, 90), width=st.integers(1, 90), h=st.integers(1, 70), w=st.integers(1, 70))
def test_bicubic_is_torchs(height, width, h, w):
    torch = pytest.importorskip("torch")
    pixels = np.random.default_rng(height * width).random((height, width), dtype=np.float32)
    ours = Preprocess(size=(h, w), interpolation="bicubic").resize(pixels)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(pixels)[None, None], size=(h, w), mode="bicubic", align_corners=False, antialias=False
    )
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs[0, 0].numpy(), atol=2e-5)
    assert ours.min() >= -0.4454
    assert ours.max() <= 1.4454


def test_the_released_convention_is_what_monai_and_torch_compute():
    torch = pytest.importorskip("torch")
    pixels = np.random.default_rng(7).random((300, 251), dtype=np.float32)
    way = Preprocess(size=(224, 224), normalise="zscore", transpose=True, interpolation="bicubic")
    width_first = torch.from_numpy(np.ascontiguousarray(pixels.T))[None, None]
    resized = torch.nn.functional.interpolate(width_first, size=(224, 224), mode="bicubic", align_corners=False)[0]
    expected = ((resized - resized.mean()) / resized.std(correction=0)).numpy()
    found = way.apply(picture(pixels))
    assert found.shape == (3, 224, 224)
    for channel in found:
        np.testing.assert_allclose(channel, expected[0], atol=2e-4)


def test_letterbox_pads_with_black_and_shrinking_averages():
    resized = Preprocess(size=(64, 64), letterbox=True).resize(np.ones((50, 100), np.float32))
    assert np.all(resized[16:48] == 1)
    assert np.all(resized[:16] == 0)
    assert np.all(resized[48:] == 0)
    stripes = np.zeros((256, 256), np.float32)
    stripes[::2] = 1
    inner = Preprocess(size=(32, 32)).resize(stripes)[2:-2, 2:-2]
    assert 0.45 < inner.min() <= inner.max() < 0.55


def test_percentile_maps_the_content_to_minus_two_and_two():
    rng = np.random.default_rng(0)
    pixels = rng.uniform(0.2, 0.4, (64, 64)).astype(np.float32)
    pixels[0, 0], pixels[0, 1] = 0.0, 1.0  # a dead and a hot pixel must not set the range
    out = Preprocess(size=(64, 64)).apply(picture(pixels))
    assert out.shape == (3, 64, 64)
    assert out.dtype == np.float32
    assert out.min() == pytest.approx(-2)
    assert out.max() == pytest.approx(2)
    assert abs(np.median(out)) < 0.15
    low, high = np.percentile(pixels, (0.5, 99.5))
    expected = (np.clip(pixels, low, high) - low) / (high - low) * 4 - 2
    for channel in out:
        np.testing.assert_allclose(channel, expected, atol=1e-5)
    twelve_bits_in_sixteen = Preprocess(size=(64, 64)).apply(picture(pixels * np.float32(4095 / 65535)))
    np.testing.assert_allclose(twelve_bits_in_sixteen, out, atol=1e-4)


def test_zscore_unit_and_imagenet():
    pixels = np.random.default_rng(2).random((16, 16), dtype=np.float32)
    base = Preprocess(size=(16, 16), channels=1)
    zscore = replace(base, normalise="zscore").normalise_pixels(pixels)
    assert zscore.mean() == pytest.approx(0, abs=1e-5)
    assert zscore.std() == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(replace(base, normalise="unit").normalise_pixels(pixels), pixels[None])
    imagenet = Preprocess(size=(16, 16), normalise="imagenet").normalise_pixels(pixels)
    np.testing.assert_allclose(imagenet[0], (pixels - 0.485) / 0.229, atol=1e-5)
    np.testing.assert_allclose(imagenet[2], (pixels - 0.406) / 0.225, atol=1e-5)
    for normalise in ("percentile", "zscore"):  # a flat picture divides nothing by zero
        for value in (0.0, 0.5, 1.0):
            flat = np.full((16, 16), value, np.float32)
            assert not replace(base, normalise=normalise).normalise_pixels(flat).any()


def test_colour_pixels_keep_their_channels():
    pixels = np.random.default_rng(3).random((20, 30, 3), dtype=np.float32)
    preprocess = Preprocess(size=(16, 16), normalise="unit")
    out = preprocess.apply(picture(pixels))
    np.testing.assert_array_equal(out[1], preprocess.resize(pixels[..., 1]))
    with pytest.raises(ShapeError, match="colour"):
        Preprocess(size=(16, 16), channels=1).apply(picture(pixels))


def test_restore_stays_in_range_and_refuses_another_size():
    values = np.random.default_rng(4).integers(0, 2, (32, 32)).astype(np.float32)
    preprocess = Preprocess(size=(32, 32))
    back = preprocess.restore(values, Grid(height=101, width=77))
    assert back.min() >= 0
    assert back.max() <= 1
    with pytest.raises(ShapeError, match="network's size"):
        preprocess.restore(values[:-1], Grid(height=101, width=77))


def test_settings_survive_json_and_are_checked():
    preprocess = Preprocess(
        size=(224, 192), normalise="zscore", channels=1, letterbox=True, transpose=True, interpolation="bicubic"
    )
    stored = json.loads(json.dumps(preprocess.to_dict()))
    assert Preprocess.from_dict(stored) == preprocess
    for bad in (
        {},
        {**stored, "crop": 1},
        {**stored, "size": [224]},
        {**stored, "size": "224"},
        {**stored, "letterbox": 1},
        {**stored, "transpose": 0},
        {**stored, "interpolation": "nearest"},
        {key: value for key, value in stored.items() if key != "transpose"},
    ):
        with pytest.raises(BundleError, match="preprocess"):
            Preprocess.from_dict(bad)
    film, tissue = Preprocess(size=(24, 20)), Preprocess(size=(24, 20), colour=True)
    assert "colour" not in film.to_dict()
    assert tissue.to_dict()["colour"] is True
    assert [Preprocess.from_dict(way.to_dict()) for way in (film, tissue)] == [film, tissue]
    for wrong in ({"size": (0, 8)}, {"normalise": "minmax"}, {"channels": 2}, {"interpolation": "lanczos"}):
        with pytest.raises(UsageError, match="Expected"):
            Preprocess(**{"size": (8, 8)} | wrong)
    for needs_three in ({"normalise": "imagenet"}, {"colour": True}):
        with pytest.raises(UsageError, match="three channels"):
            Preprocess(size=(8, 8), channels=1, **needs_three)


@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e5])
def test_resizing_is_that_of_pillow_to_the_bit(factor):
    """Rows are added in strips, by the sums of Pillow's second pass."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        (height, width), shape = rng.integers(1, 200, 2), tuple(int(side) for side in rng.integers(1, 500, 2))
        values = (rng.random((height, width)) * factor).astype(np.float32)
        expected = np.asarray(PILImage.fromarray(values).resize(shape[::-1], PILImage.Resampling.BILINEAR))
        np.testing.assert_array_equal(preprocess._bilinear(values, shape), expected)
