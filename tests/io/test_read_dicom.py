"""DICOM films: twins agree, tags decide, and nothing of the patient gets out."""

import io
import logging
import traceback
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import dcmread

from textray.errors import InputError, TextRayError
from textray.io.dicom import read_dicom, read_dicom_grid
from textray.io.read import read

FULL = {"WindowCenter": 2048, "WindowWidth": 4096}  # shows 0..4095 as it is


def codes(image):
    return [notice.code for notice in image.notices]


@pytest.mark.parametrize("preamble", [True, False])
@pytest.mark.parametrize("syntax", ["explicit", "implicit", "big endian"])
def test_twins_of_every_kind_show_the_same_film(levels, dicom, raster, put, syntax, preamble):
    shown = read(put(dicom(levels, syntax=syntax, preamble=preamble, **FULL), "FILM.PNG"))
    np.testing.assert_allclose(shown.pixels, levels / 4095, atol=2e-4)
    assert shown.info["format"] == "dicom"
    sixteen = read(put(raster(np.rint(levels / 4095 * 65535).astype(np.uint16)), "a"))
    eight = read(put(raster(np.rint(levels / 4095 * 255).astype(np.uint8)), "b"))
    np.testing.assert_allclose(shown.pixels, sixteen.pixels, atol=4e-4)
    np.testing.assert_allclose(shown.pixels, eight.pixels, atol=0.5 / 255 + 2e-4)


def test_spacing_is_rows_then_columns(levels, dicom):
    image = read_dicom(dicom(levels))
    assert image.grid.spacing_mm == (0.2, 0.3)
    assert image.info["spacing_from"] == "PixelSpacing"
    assert codes(image) == []


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"PixelSpacing": [0, 0]}, "zero"),
        ({"PixelSpacing": [0.2, 0]}, "zero"),
        ({"PixelSpacing": [-0.2, 0.2]}, "zero or not valid"),
        ({"PixelSpacing": [0.2]}, "not valid"),
        ({"PixelSpacing": None}, "not valid"),
        ({}, "no PixelSpacing"),
        ({"ImagerPixelSpacing": [0.1, 0.1]}, "detector"),
        ({"PixelSpacing": [0, 0], "ImagerPixelSpacing": [0.1, 0.1]}, "zero"),
    ],
)
def test_without_a_positive_pixel_spacing_a_film_is_uncalibrated(levels, dicom, tags, words):
    image = read_dicom(
        dicom(levels, **tags) if "PixelSpacing" in tags else dicom(levels, drop=["PixelSpacing"], **tags)
    )
    assert image.grid.spacing_mm is None
    assert image.grid.pixel_area_mm2 is None
    assert codes(image) == ["W_UNCALIBRATED"]
    assert words in image.notices[0].text
    assert image.info["imager_spacing_mm"] == ((0.1, 0.1) if "ImagerPixelSpacing" in tags else None)


@pytest.mark.parametrize(
    ("tags", "orientation", "mirrored", "notices"),
    [
        ({"PatientOrientation": ["L", "F"]}, ("L", "F"), True, []),
        ({"PatientOrientation": ["R", "F"]}, ("R", "F"), False, []),
        ({"PatientOrientation": ["LP", "FL"]}, ("LP", "FL"), True, []),
        ({"PatientOrientation": ["A", "F"]}, ("A", "F"), True, ["W_SIDES_UNDEFINED"]),
        ({"PatientOrientation": None}, None, True, ["W_SIDES_ASSUMED"]),
        ({"PatientOrientation": "L"}, None, True, ["W_SIDES_ASSUMED"]),
        ({"PatientOrientation": ["X", "Y"]}, None, True, ["W_SIDES_ASSUMED"]),
        (
            {"PatientOrientation": None, "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
            ("L", "P"),
            True,
            ["W_NOT_UPRIGHT"],
        ),
        (
            {"PatientOrientation": None, "ImageOrientationPatient": [-1, 0, 0, 0, -1, 0]},
            ("R", "A"),
            False,
            ["W_NOT_UPRIGHT"],
        ),
        ({"PatientOrientation": ["R", "H"]}, ("R", "H"), False, ["W_NOT_UPRIGHT"]),
        ({"PatientOrientation": None, "ImageOrientationPatient": [0, 0, 0, 0, 0, 0]}, None, True, ["W_SIDES_ASSUMED"]),
    ],
)
def test_sides(levels, dicom, tags, orientation, mirrored, notices):
    image = read_dicom(dicom(levels, **tags))
    assert image.grid.orientation == orientation
    header = read_dicom_grid(io.BytesIO(dicom(levels, **tags)))  # without the pixels
    assert (header.shape, header.orientation) == (image.grid.shape, orientation)
    assert image.grid.mirrored is mirrored
    assert codes(image) == notices


def test_a_header_without_a_picture_is_refused(dicom, levels):
    for tags in ({"Rows": None}, {"Columns": 0}):
        with pytest.raises(InputError) as caught:
            read_dicom_grid(io.BytesIO(dicom(levels, **tags)))
        assert caught.value.code == "E_TRUNCATED"
    with pytest.raises(InputError) as caught:
        read_dicom_grid(io.BytesIO(dicom(levels, syntax="deflated")))
    assert caught.value.code == "E_DECODER"


def colour_tags(photometric="RGB"):
    return {
        "SamplesPerPixel": 3,
        "PhotometricInterpretation": photometric,
        "PlanarConfiguration": 0,
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
    }


def test_rgb_with_equal_channels_is_a_grey_film(levels, dicom, refused):
    grey = (levels >> 4).astype(np.uint8)
    image = read_dicom(dicom(np.repeat(grey[..., None], 3, axis=2), **colour_tags()))
    np.testing.assert_allclose(image.pixels, grey / 255, atol=1e-6)
    screenshot = np.stack([grey, grey[::-1], grey], axis=2)
    refused(dicom(screenshot, **colour_tags()), "E_COLOR")
    refused(dicom(np.repeat(grey[..., None], 2, axis=2), **colour_tags()), "E_TRUNCATED")
    wide = {"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}
    refused(dicom(screenshot.astype(np.uint32) << 24, **(colour_tags() | wide)), "E_DICOM_TAG")


def test_ybr_and_palette_are_converted(levels, dicom, refused):
    grey = (levels >> 4).astype(np.uint8)
    ybr = np.stack([grey, np.full_like(grey, 128), np.full_like(grey, 128)], axis=2)
    np.testing.assert_allclose(read_dicom(dicom(ybr, **colour_tags("YBR_FULL"))).pixels, grey / 255, atol=2e-2)
    ybr[..., 2] = 250
    refused(dicom(ybr, **colour_tags("YBR_FULL")), "E_COLOR")
    curve = (np.arange(255, -1, -1) * 257).astype("<u2")
    tags = colour_tags("PALETTE COLOR") | {"SamplesPerPixel": 1}
    for name in ("Red", "Green", "Blue"):
        tags[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        tags[f"{name}PaletteColorLookupTableData"] = curve.tobytes()
    np.testing.assert_allclose(read_dicom(dicom(grey, **tags)).pixels, 1 - grey / 255, atol=1e-3)


def test_no_identifier_gets_out(levels, dicom, patient, caplog, raw_text):
    """Planted in every kind of place, looked for in record, messages, tracebacks, logs and warnings."""
    name, number, birth = patient
    bad = [
        dicom(levels),
        dicom(levels, PhotometricInterpretation=name),
        dicom(levels, VOILUTFunction=name, **FULL),
        dicom(levels, PatientOrientation=[name, number]),
        dicom(levels, Modality=name, ViewPosition=number),
        dicom(levels, drop=["Rows"]),
        dicom(levels, SOPClassUID=number),
        raw_text(dicom(levels, NumberOfFrames="99999999"), name.encode()),
        raw_text(dicom(levels, WindowCenter="99999999", WindowWidth=5), name.encode()),
        raw_text(dicom(levels, PixelSpacing=["99999999", 1]), name.encode()),
        dicom(levels)[:700],
    ]
    caplog.clear()  # of what pydicom said while these were written
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        told = []
        for data in bad:
            try:
                image = read_dicom(data)
                told.append(repr((image.info, image.notices, image.grid)))
            except TextRayError as error:
                told.append("".join(traceback.format_exception(error)))
    assert caught == []
    everything = "\n".join(told) + caplog.text
    for planted in (name, number, birth):
        assert planted not in everything
    assert not logging.getLogger("pydicom").disabled


def test_the_real_film(real_film):
    image = read(real_film)
    ds = dcmread(real_film)
    stored = ds.pixel_array.astype(float)
    assert image.grid.shape == (1955, 1841)
    assert image.grid.spacing_mm is None  # it says 0\0
    assert image.grid.orientation == ("L", "F")
    assert codes(image) == ["W_UNCALIBRATED"]
    assert image.info["photometric"] == "MONOCHROME1"
    assert image.info["window"]["from"] == "window"
    expected = 1 - np.clip((stored - (15000 - 0.5)) / (30000 - 1) + 0.5, 0, 1)
    np.testing.assert_allclose(image.pixels, expected, atol=1e-5)
    assert image.source == real_film


def test_every_file_that_pydicom_tests_with_is_read_or_refused():
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    paths = sorted(folder.glob("*.dcm"))
    if not paths:
        pytest.skip("this pydicom comes without its test files")
    verdicts = {}
    for path in paths:
        try:
            image = read(path)
        except TextRayError as error:
            verdicts[path.name] = error.code
        else:
            verdicts[path.name] = "read"
            assert 0 <= image.pixels.min() < image.pixels.max() <= 1
    expected = {
        "MR_small.dcm": "read",
        "MR_small_bigendian.dcm": "read",
        "MR_small_implicit.dcm": "read",
        "MR_truncated.dcm": "E_TRUNCATED",
        "SC_rgb_rle_32bit.dcm": "E_DICOM_TAG",
        "SC_rgb_rle_2frame.dcm": "E_MULTIFRAME",
        "image_dfl.dcm": "E_DECODER",
        "liver_1frame.dcm": "W_NOT_IMAGE",
        "test-SR.dcm": "W_NOT_IMAGE",
        "ExplVR_BigEndNoMeta.dcm": "W_NOT_IMAGE",
    }
    assert {name: verdicts[name] for name in expected} == expected


def test_the_real_film_compressed_without_loss_is_the_same(real_film):
    twin = read(real_film.with_name("RG1_J2KR.dcm"))
    np.testing.assert_array_equal(twin.pixels, read(real_film).pixels)
    assert "JPEG 2000" in twin.info["transfer_syntax"]
