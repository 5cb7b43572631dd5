"""Masks become bool by one declared rule, and never all empty by arithmetic."""

import numpy as np
import pytest
from PIL import Image as PILImage

from textray.errors import DataError, InputError
from textray.io.read import inspect_mask, read_mask
from textray.io.write import write_mask


@pytest.fixture
def mask():
    out = np.zeros((40, 30), bool)
    out[3:15, 10:28] = True
    return out


@pytest.mark.parametrize("value", [1, 100, 127, 128, 255])
def test_two_levels_are_background_and_foreground(mask, put, raster, value):
    found = inspect_mask(put(raster((mask * value).astype(np.uint8))))
    np.testing.assert_array_equal(found.mask, mask)
    assert found.mask.dtype == np.bool_
    assert found.odd_share == 0
    assert found.foreground_share == pytest.approx(mask.mean())


def test_a_written_mask_comes_back(mask, tmp_path):
    write_mask(tmp_path / "m.png", mask)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), mask)


@pytest.mark.parametrize("dtype", [bool, np.uint16])
def test_one_and_sixteen_bits(mask, put, raster, dtype):
    levels = mask if dtype is bool else mask.astype(np.uint16) * 65535
    np.testing.assert_array_equal(read_mask(put(raster(levels))), mask)


def test_grey_edges_are_cut_at_half_of_the_range_and_counted(mask, put, raster):
    levels = mask.astype(np.uint8) * 255
    levels[3, 10:28] = 127
    levels[14, 10:28] = 128
    found = inspect_mask(put(raster(levels)))
    expected = mask.copy()
    expected[3] = False
    np.testing.assert_array_equal(found.mask, expected)
    assert found.threshold == 127.5
    assert found.odd_share == pytest.approx(36 / mask.size)


def test_channels_are_reduced_by_the_largest(mask, put, raster):
    for channel in range(3):
        rgb = np.zeros((*mask.shape, 3), np.uint8)
        rgb[..., channel] = mask * 255
        np.testing.assert_array_equal(read_mask(put(raster(rgb))), mask)


def test_a_palette_counts_by_its_colours(mask, put, raster):
    picture = PILImage.fromarray(mask.astype(np.uint8))
    picture.putpalette([0, 0, 0, 0, 0, 200])
    np.testing.assert_array_equal(read_mask(put(raster(picture))), mask)


def test_transparent_pixels_are_background(mask, put, raster):
    rgba = np.full((*mask.shape, 4), 255, np.uint8)
    rgba[..., 3] = mask * 255
    np.testing.assert_array_equal(read_mask(put(raster(rgba))), mask)


def test_a_jpeg_mask_keeps_its_shape(put, raster):
    mask = np.zeros((64, 64), bool)
    mask[16:40, 24:56] = True
    found = inspect_mask(put(raster(mask.astype(np.uint8) * 255, "JPEG", quality=60)))
    np.testing.assert_array_equal(found.mask, mask)


def test_an_empty_jpeg_mask_with_noise_is_empty(put, raster):
    noise = np.random.default_rng(0).integers(0, 6, (40, 40)).astype(np.uint8)
    assert not read_mask(put(raster(noise, "JPEG"))).any()


@pytest.mark.parametrize("value", [0, 255])
def test_empty_and_full_masks_are_allowed(put, raster, value):
    found = inspect_mask(put(raster(np.full((20, 20), value, np.uint8))))
    assert found.mask.all() == (value > 0)
    assert found.foreground_share == (value > 0)


@pytest.mark.parametrize("values", [(0, 1, 2), (0, 50, 100), (10, 90)])
def test_labels_that_the_rule_would_wipe_out_are_refused(put, raster, values):
    levels = np.resize(np.array(values, np.uint8), (20, 20))
    with pytest.raises(DataError, match="ambiguous") as caught:
        read_mask(put(raster(levels)))
    assert caught.value.code == "E_DATA"


def test_exif_orientation_counts_for_masks_too(mask, put, raster):
    data = raster(mask.astype(np.uint8) * 255, orientation=6)
    np.testing.assert_array_equal(read_mask(put(data)), np.rot90(mask, -1))


def test_what_is_no_picture_is_refused(put, dicom, levels):
    for data in (b"", b"text", dicom(levels)):
        with pytest.raises(InputError, match="PNG"):
            read_mask(put(data))
