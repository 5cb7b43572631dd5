"""PNG, JPEG and TIFF: what is there is read with its true range; what is damaged or no film is refused by name."""

import hashlib
import io
import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as PILImage
from PIL import ImageFile, ImageOps

from textray.errors import InputError, TextRayError
from textray.io.read import from_array, read


def eight(levels):
    return np.rint(levels / levels.max() * 255).astype(np.uint8)


def test_sixteen_bits_keep_their_true_range(levels, raster, put):
    wide = (levels.astype(np.uint32) * 16).astype(np.uint16)
    image = read(put(raster(wide)))
    np.testing.assert_allclose(image.pixels, wide / 65535, atol=1e-6)
    assert len(np.unique(image.pixels)) > 256
    assert image.info["bits"] == 16
    dim = read(put(raster(levels)))  # 12 bits in 16 stay dim, and whole
    np.testing.assert_allclose(dim.pixels, levels / 65535, atol=1e-6)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA"])
def test_grey_modes_agree(levels, raster, put, mode):
    grey = eight(levels)
    image = read(put(raster(PILImage.fromarray(grey).convert(mode))))
    np.testing.assert_array_equal(image.pixels, (grey / 255).astype(np.float32))
    assert image.pixels.dtype == np.float32
    assert image.grid.shape == grey.shape
    assert image.grid.spacing_mm is None


def test_a_palette_is_looked_up_and_not_taken_for_levels(levels, raster, put):
    grey = eight(levels) // 64
    picture = PILImage.fromarray(grey)
    picture.putpalette([v for level in (10, 200, 90, 30) for v in (level,) * 3])
    expected = np.array([10, 200, 90, 30])[grey] / 255
    np.testing.assert_allclose(read(put(raster(picture))).pixels, expected, atol=1e-6)


def test_one_bit(levels, put, raster):
    bits = levels > 2000
    image = read(put(raster(bits)))
    np.testing.assert_array_equal(image.pixels, bits)
    assert image.info["bits"] == 1


def test_jpeg_is_read_and_the_suffix_means_nothing(levels, raster, put):
    grey = eight(levels)
    data = raster(grey, "JPEG", quality=95)
    image = read(put(data, "film.dcm"))
    assert np.abs(image.pixels - grey / 255).max() < 0.1
    assert image.info["format"] == "jpeg"
    assert image.sha256 == hashlib.sha256(data).hexdigest()
    colour_jpeg = raster(np.repeat(grey[..., None], 3, axis=2), "JPEG", quality=95)
    assert np.abs(read(put(colour_jpeg, "x")).pixels - image.pixels).max() < 0.03


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_orientation_is_applied_and_recorded(levels, raster, put, orientation, kind):
    data = raster(eight(levels), kind, orientation=orientation)
    with PILImage.open(io.BytesIO(data)) as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored)) / 255
    image = read(put(data))
    np.testing.assert_allclose(image.pixels, expected, atol=1e-6)
    assert image.grid.shape == expected.shape
    assert image.grid.transform == ("" if orientation == 1 else f"exif-{orientation}")
    assert image.info["exif_orientation"] == orientation


def test_an_unreadable_orientation_gives_a_notice(levels, raster, put):
    image = read(put(raster(eight(levels), orientation=17)))
    assert [notice.code for notice in image.notices] == ["W_EXIF"]
    assert image.grid.transform == ""


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize(("share", "lenient"), [(0.02, False), (0.3, True), (0.7, False), (0.95, True), (0.999, True)])
def test_a_truncated_file_is_refused_and_never_filled(kind, share, lenient, refused, raster, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)  # another library may have switched it
    noise = np.random.default_rng(0).integers(0, 255, (120, 100), np.uint8)
    data = raster(noise, kind)
    assert "cut off" in refused(data[: max(12, int(len(data) * share))], "E_TRUNCATED")


def test_a_flipped_bit_in_a_png_is_refused(levels, raster, refused):
    data = bytearray(raster(eight(levels)))
    data[len(data) // 2] ^= 0x10
    refused(bytes(data), "E_TRUNCATED")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "an empty file"),
        (b"patient was seen today\n", "text"),
        (b"  <!DOCTYPE html><html><body>404</body></html>", "an HTML page"),
        (b"<!-- gateway -->\n<html>", "an HTML page"),
        (b"<?xml version='1.0'?><a/>", "an XML document"),
        (b"BMI was 23, lungs clear\n", "text"),
        (b"RIFF\x00\x00\x00\x00WEBP" + bytes(40), "a WebP picture"),
        (bytes(range(1, 250)), "bytes of an unknown kind"),
    ],
)
def test_another_kind_of_file_is_refused_by_its_kind(data, words, refused):
    assert words in refused(data, "E_FORMAT")


@pytest.mark.parametrize(("level", "dtype"), [(0, np.uint8), (128, np.uint8), (255, np.uint8), (65535, np.uint16)])
def test_a_constant_picture_is_refused(level, dtype, raster, refused):
    refused(raster(np.full((64, 64), level, dtype)), "E_CONSTANT")
    with pytest.raises(InputError, match="constant"):
        from_array(np.full((64, 64), level, dtype))


def test_colour_is_refused_unless_asked_for(levels, raster, put, refused):
    rgb = np.stack([eight(levels), eight(levels)[::-1], eight(levels)], axis=2)
    path = put(raster(rgb))
    assert "colour" in refused(path, "E_COLOR")
    image = read(path, color=True)
    np.testing.assert_allclose(image.pixels, rgb / 255, atol=1e-6)
    assert image.grid.shape == rgb.shape[:2]
    grey = read(put(raster(eight(levels))), color=True)
    assert grey.pixels.shape == rgb.shape


def test_cmyk_transparency_and_animations_are_refused(levels, raster, refused):
    picture = PILImage.fromarray(eight(levels))
    refused(raster(picture.convert("CMYK"), "JPEG"), "E_COLOR")
    for mode, clear in (("LA", (9, 0)), ("RGBA", (9, 9, 9, 0))):
        converted = picture.convert(mode)
        converted.putpixel((3, 4), clear)
        message = refused(raster(converted), "E_COLOR")
        assert f"has transparent pixels. Got 1 of {levels.size} pixels. Expected an opaque picture." in message
    for dtype in (np.uint8, np.uint16):
        grey = eight(levels).astype(dtype)
        refused(raster(grey, transparency=int(grey[5, 5])), "E_COLOR")
    second = PILImage.fromarray(255 - eight(levels))
    refused(raster(picture, save_all=True, append_images=[second]), "E_MULTIFRAME")


def png_of_declared_size(width, height):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("width", "height"), [(60_000, 60_000), (12_000, 12_000), (8_193, 8_192), (1, 1), (15, 400), (20_000, 50)]
)
def test_sizes_that_no_film_has_are_refused_by_the_header(width, height, refused):
    refused(png_of_declared_size(width, height), "E_SIZE")


def test_what_is_no_file_is_refused_without_blocking(tmp_path, refused):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "absent.png", tmp_path / "a\0b"):
        refused(path, "E_READ")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    refused(tmp_path / "loop", "E_READ")


def test_an_array_is_read_as_the_file_of_it(levels, raster, put):
    grey = eight(levels)
    np.testing.assert_array_equal(from_array(grey).pixels, read(put(raster(grey))).pixels)
    np.testing.assert_array_equal(from_array(levels).pixels, read(put(raster(levels))).pixels)
    np.testing.assert_array_equal(from_array(np.repeat(grey[..., None], 3, 2)).pixels, from_array(grey).pixels)
    real = (levels / 4095).astype(np.float64)
    image = from_array(real, spacing_mm=(0.2, 0.3), orientation=("R", "F"))
    np.testing.assert_allclose(image.pixels, real, atol=1e-7)
    np.testing.assert_allclose(from_array(np.repeat(real[..., None], 3, 2)).pixels, real, atol=1e-4)
    assert image.grid.pixel_area_mm2 == pytest.approx(0.06)
    assert not image.grid.mirrored
    assert image.sha256 != from_array(real[::-1]).sha256


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((64, 64, 4)),
        np.linspace(0, 2, 4096).reshape(64, 64),
        np.linspace(-1, 1, 4096).reshape(64, 64),
        np.arange(4096).reshape(64, 64),
        np.full((64, 64), np.nan),
        np.where(np.eye(64) > 0, np.inf, 0.5),
        np.random.default_rng(0).random((64, 64, 3)),
        np.eye(8),
        np.zeros((64, 64), complex),
    ],
)
def test_arrays_that_are_no_film_are_refused(array):
    with pytest.raises(InputError):
        from_array(array)


@pytest.mark.parametrize("spacing", [(0, 0), (0.1, -1), (float("nan"), 1)])
def test_a_spacing_must_be_positive(spacing):
    with pytest.raises(InputError, match="spacing"):
        from_array(np.eye(32), spacing_mm=spacing)


SEEDS = [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", bytes(128) + b"DICM", b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100"]


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.sampled_from(SEEDS), rest=st.binary(max_size=400))
def test_garbage_is_refused_by_name(start, rest, put):
    with pytest.raises(TextRayError):
        read(put(start + rest))


@settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(["PNG", "JPEG"]), at=st.integers(0, 10_000), new=st.binary(min_size=1, max_size=8))
def test_a_damaged_picture_is_read_or_refused(kind, at, new, levels, raster, put):
    data = bytearray(raster(eight(levels), kind))
    at %= len(data)
    data[at : at + len(new)] = new
    try:
        image = read(put(bytes(data)))
    except TextRayError:
        return
    assert np.isfinite(image.pixels).all()
    assert image.pixels.min() >= 0
    assert image.pixels.max() <= 1


def coloured():
    rows, columns = np.mgrid[:40, :30]
    return PILImage.fromarray(np.stack([rows * 6, columns * 8, rows + columns], axis=-1).astype(np.uint8))


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate"])
def test_a_tiff_is_read_and_turned_upright_where_colour_is_wanted(put, raster, compression):
    image = read(put(raster(coloured(), "TIFF", compression=compression)), color=True)
    np.testing.assert_allclose(image.pixels, np.asarray(coloured()) / 255, atol=1e-6)
    assert image.info["format"] == "tiff"
    turned = coloured().transpose(PILImage.Transpose.ROTATE_90)  # upright when turned by 90 degrees clockwise
    image = read(put(raster(turned, "TIFF", compression=compression, tiffinfo={0x0112: 6})), color=True)
    np.testing.assert_allclose(image.pixels, np.asarray(coloured()) / 255, atol=1e-6)
    assert image.grid.transform == "exif-6"


def test_other_tiffs_are_refused_by_their_kind(raster, refused):
    pages = raster(coloured(), "TIFF", save_all=True, append_images=[coloured()])
    refused(pages, "E_MULTIFRAME", color=True)
    refused(raster(coloured(), "TIFF")[:2000], "E_TRUNCATED", color=True)
    refused(raster(coloured().convert("CMYK"), "TIFF"), "E_COLOR", color=True)


KINDS = {"TIFF": "tiff", "BMP": "bmp", "JPEG2000": "jpeg2000"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_grey_picture_of_another_kind_is_read(kind, levels, put, raster):
    image = read(put(raster(eight(levels), kind)))
    np.testing.assert_array_equal(image.pixels, eight(levels) / np.float32(255))
    assert image.info["format"] == KINDS[kind]
    assert image.info["bits"] == 8


@pytest.mark.parametrize("kind", ["TIFF", "JPEG2000"])
def test_sixteen_bits_are_kept(kind, levels, put, raster):
    image = read(put(raster(levels, kind)))
    np.testing.assert_array_equal(image.pixels, levels / np.float32(65535))
    assert image.info["bits"] == 16


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.97])
def test_a_cut_off_picture_of_another_kind_is_refused(kind, share, levels, raster, refused):
    data = raster(eight(levels), kind)
    refused(data[: max(20, int(len(data) * share))], "E_TRUNCATED")


def test_a_jpeg_2000_stream_without_a_box_is_read_and_its_tiles_are_counted(levels, put, raster, refused):
    data = raster(eight(levels), "JPEG2000", no_jp2=True, tile_size=(32, 32))
    np.testing.assert_array_equal(read(put(data)).pixels, eight(levels) / np.float32(255))
    refused(data[: len(data) // 2] + b"\xff\xd9", "E_TRUNCATED")


def test_a_tiff_whose_zero_is_white_is_turned(levels, put, raster):
    small = eight(levels)  # which Pillow turns as it writes, unlike 16 bits
    np.testing.assert_allclose(read(put(raster(small, "TIFF", tiffinfo={262: 0}))).pixels, small / 255, atol=1e-6)
    turned = read(put(raster(levels, "TIFF", tiffinfo={262: 0}))).pixels
    np.testing.assert_allclose(turned, 1 - levels / 65535, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_tiffs_of_other_samples_are_refused(dtype, levels, raster, refused):
    assert "samples" in refused(raster(levels.astype(dtype), "TIFF"), "E_FORMAT")
    assert "samples" in refused(raster(levels, "TIFF", tiffinfo={339: 2}), "E_FORMAT")


def test_several_pages_are_refused_by_name(levels, raster, refused):
    pages = [PILImage.fromarray(eight(levels)) for _ in range(2)]
    assert "several pages" in refused(raster(pages[0], "TIFF", save_all=True, append_images=pages[1:]), "E_MULTIFRAME")
