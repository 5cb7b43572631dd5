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


def rgba(mask, channel):
    """A mask in one channel of black, or as the opacity of white."""
    planes = np.full((*mask.shape, 4), 255, np.uint8)
    planes[..., :3] *= channel == 3
    planes[..., channel] = mask * 255
    return planes


def palette(mask):
    picture = PILImage.fromarray(mask.astype(np.uint8))
    picture.putpalette([0, 0, 0, 0, 0, 200])
    return picture


@pytest.mark.parametrize(
    "stored",
    [
        lambda mask: mask,
        lambda mask: mask.astype(np.uint16) * 65535,
        lambda mask: rgba(mask, 0),
        lambda mask: rgba(mask, 2)[..., :3],
        lambda mask: rgba(mask, 3),
        palette,
    ],
    ids=["one bit", "sixteen", "red", "blue", "opacity", "palette"],
)
def test_a_mask_is_the_same_however_it_is_stored(mask, put, raster, stored):
    np.testing.assert_array_equal(read_mask(put(raster(stored(mask)))), mask)


def test_a_turned_mask_is_read_upright_and_a_written_one_comes_back(mask, put, raster, tmp_path):
    turned = put(raster(mask.astype(np.uint8) * 255, orientation=6))
    np.testing.assert_array_equal(read_mask(turned), np.rot90(mask, -1))
    write_mask(tmp_path / "m.png", mask)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), mask)


def test_a_jpeg_mask_keeps_its_shape_and_an_empty_one_may_be_noisy(put, raster):
    mask = np.zeros((64, 64), bool)
    mask[16:40, 24:56] = True
    np.testing.assert_array_equal(read_mask(put(raster(mask.astype(np.uint8) * 255, "JPEG", quality=60))), mask)
    noise = np.random.default_rng(0).integers(0, 6, (40, 40)).astype(np.uint8)
    assert not read_mask(put(raster(noise, "JPEG"))).any()


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


def test_what_is_no_picture_is_refused(put, dicom, levels):
    for data in (b"", b"text", dicom(levels)):
        with pytest.raises(InputError, match="PNG"):
            read_mask(put(data))
