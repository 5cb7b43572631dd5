"""DICOM films: twins agree, tags decide, levels are shown as pydicom shows them, and no identifier gets out."""

import io
import logging
import traceback
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.sequence import Sequence

from textray.errors import InputError, TextRayError
from textray.io.dicom import read_dicom, read_dicom_grid
from textray.io.read import read

FULL = {"WindowCenter": 2048, "WindowWidth": 4096}  # shows 0..4095 as it is


def codes(image):
    return [notice.code for notice in image.notices]


def raw_text(data, text):
    """Put a text into DICOM bytes that no correct writer would write, in place of as many nines."""
    assert data.count(b"9" * len(text)) == 1
    return data.replace(b"9" * len(text), text)


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


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"PixelSpacing": [0.2, 0]}, "zero"),
        ({"PixelSpacing": [-0.2, 0.2]}, "zero or not valid"),
        ({"PixelSpacing": [0.2]}, "not valid"),
        ({"PixelSpacing": None}, "not valid"),
        ({"drop": ["PixelSpacing"]}, "no PixelSpacing"),
        ({"drop": ["PixelSpacing"], "ImagerPixelSpacing": [0.1, 0.1]}, "detector"),
    ],
)
def test_without_a_positive_pixel_spacing_a_film_is_uncalibrated(levels, dicom, tags, words):
    image = read_dicom(dicom(levels, **tags))
    assert image.grid.spacing_mm is None
    assert image.grid.pixel_area_mm2 is None
    assert codes(image) == ["W_UNCALIBRATED"]
    good = read_dicom(dicom(levels))
    assert (good.grid.spacing_mm, good.info["spacing_from"], codes(good)) == ((0.2, 0.3), "PixelSpacing", [])
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
        ({"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}, ("L", "P"), True, ["W_NOT_UPRIGHT"]),
        ({"ImageOrientationPatient": [-1, 0, 0, 0, -1, 0]}, ("R", "A"), False, ["W_NOT_UPRIGHT"]),
        ({"PatientOrientation": ["R", "H"]}, ("R", "H"), False, ["W_NOT_UPRIGHT"]),
        ({"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]}, None, True, ["W_SIDES_ASSUMED"]),
    ],
)
def test_sides(levels, dicom, tags, orientation, mirrored, notices):
    tags = {"PatientOrientation": None} | tags
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


EIGHT = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}


def colour_tags(photometric="RGB"):
    return {"SamplesPerPixel": 3, "PhotometricInterpretation": photometric, "PlanarConfiguration": 0, **EIGHT}


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


def test_no_identifier_gets_out(levels, dicom, patient, caplog):
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
    caplog.clear()  # pydicom's lines while these were written
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        output = []
        for data in bad:
            try:
                image = read_dicom(data)
                output.append(repr((image.info, image.notices, image.grid)))
            except TextRayError as error:
                output.append("".join(traceback.format_exception(error)))
    assert caught == []
    assert not [planted for planted in (name, number, birth) if planted in "\n".join(output) + caplog.text]
    assert not logging.getLogger("pydicom").disabled


def table(levels, first, bits, **tags):
    item = Dataset()
    item.LUTDescriptor = [len(levels), first, bits]
    item["LUTDescriptor"].VR = "US" if first >= 0 else "SS"
    item.LUTData = [int(v) for v in levels]
    item["LUTData"].VR = "US"
    for keyword, value in tags.items():
        setattr(item, keyword, value)
    return Sequence([item])


@pytest.mark.parametrize("window", [FULL, {}, {"WindowCenter": 1500, "WindowWidth": 900}])
def test_monochrome1_is_inverted_once(levels, dicom, window):
    two = read_dicom(dicom(levels, **window))
    mirrored = {**window, "WindowCenter": 4096 - window["WindowCenter"]} if window else {}
    one = read_dicom(dicom(4095 - levels, PhotometricInterpretation="MONOCHROME1", **mirrored))
    np.testing.assert_allclose(one.pixels, two.pixels, atol=2e-3)
    assert one.info["inverted"]
    assert not two.info["inverted"]


def test_monochrome1_is_inverted_after_the_modality_lut(levels, dicom):
    plain = read_dicom(dicom(levels, PhotometricInterpretation="MONOCHROME1"))
    negative = read_dicom(dicom(levels, PhotometricInterpretation="MONOCHROME1", RescaleSlope=-2, RescaleIntercept=100))
    np.testing.assert_allclose(negative.pixels, 1 - plain.pixels, atol=1e-4)


def test_eight_bits_and_thirty_two(levels, dicom):
    eight = np.rint(levels / 4095 * 255).astype(np.uint8)
    swapped = eight.reshape(-1, 2)[:, ::-1].reshape(eight.shape)  # OW words
    for syntax, data in (("explicit", eight), ("big endian", swapped)):
        image = read_dicom(dicom(data, syntax=syntax, WindowCenter=128, WindowWidth=256, **EIGHT))
        np.testing.assert_allclose(image.pixels, eight / 255, atol=2e-3)
    wide = levels.astype(np.uint32) << 10
    image = read_dicom(dicom(wide, BitsAllocated=32, BitsStored=22, HighBit=21))
    np.testing.assert_allclose(image.pixels, read_dicom(dicom(levels)).pixels, atol=1e-4)


def test_bits_are_masked_and_signed_by_the_tags(levels, dicom):
    expected = read_dicom(dicom(levels, **FULL)).pixels
    rubbish = np.random.default_rng(0).integers(0, 16, levels.shape).astype(np.uint16)
    overlay_above = read_dicom(dicom(levels | rubbish << 12, **FULL))
    np.testing.assert_array_equal(overlay_above.pixels, expected)
    shifted = read_dicom(dicom(levels << 3 | rubbish >> 1, HighBit=14, **FULL))
    np.testing.assert_array_equal(shifted.pixels, expected)
    signed = (levels.astype(np.int16) - 2048) & 0x0FFF  # twelve bits of two's complement, the upper four clear
    tags = {"PixelRepresentation": 1, "WindowCenter": 0, "WindowWidth": 4096}
    np.testing.assert_allclose(read_dicom(dicom(signed.astype(np.uint16), **tags)).pixels, expected, atol=1e-6)


@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("center", [2200.5, [2500, 40]])
def test_window_functions_agree_with_pydicom(levels, dicom, function, center):
    tags = {"WindowCenter": center, "WindowWidth": [5000, 80] if isinstance(center, list) else 5000}
    tags |= {"RescaleSlope": 1.5, "RescaleIntercept": -300} | ({"VOILUTFunction": function} if function else {})
    data = dicom(levels, **tags)
    ds = dcmread(io.BytesIO(data))
    oracle = apply_voi_lut(apply_modality_lut(ds.pixel_array, ds), ds)
    low, high = (0 * 1.5 - 300, 4095 * 1.5 - 300)
    image = read_dicom(data)
    np.testing.assert_allclose(image.pixels, (oracle - low) / (high - low), atol=1e-5)
    assert image.info["window"]["from"] == "window"
    assert image.info["window"]["function"] == (function or "LINEAR")
    assert codes(image) == []


def test_lookup_tables_agree_with_pydicom_and_come_before_the_window(levels, dicom):
    curve = np.rint(4095 * np.linspace(0, 1, 3500) ** 2)
    data = dicom(levels, VOILUTSequence=table(curve, 300, 12), WindowCenter=10, WindowWidth=5)
    expected = apply_voi_lut(levels, dcmread(io.BytesIO(data))) / 4095
    np.testing.assert_allclose(read_dicom(data).pixels, expected, atol=1e-6)
    assert read_dicom(data).info["window"] == {"from": "voi lut"}
    curve = np.rint(65535 * np.sqrt(np.linspace(0, 1, 4096)))
    modality = table(curve, 0, 16, ModalityLUTType="US")
    data = dicom(levels, ModalityLUTSequence=modality, WindowCenter=32768, WindowWidth=65536)
    expected = apply_modality_lut(levels, dcmread(io.BytesIO(data))) / 65535
    np.testing.assert_allclose(read_dicom(data).pixels, expected, atol=1e-4)


def test_without_a_window_the_percentiles_are_shown(levels, dicom):
    image = read_dicom(dicom(levels))
    low, high = np.percentile(levels, (0.5, 99.5))
    np.testing.assert_allclose(image.pixels, np.clip((levels - low) / (high - low), 0, 1), atol=1e-5)
    assert image.info["window"] == {"from": "percentiles", "low": low, "high": high}
    assert codes(image) == codes(read_dicom(dicom(levels, WindowCenter=None, WindowWidth=None))) == []


@pytest.mark.parametrize(
    "tags",
    [
        {"WindowCenter": 2048, "WindowWidth": -5},
        {"WindowCenter": 2048, "WindowWidth": 0.5},
        {"WindowCenter": 2048},
        {"WindowWidth": 2048},
        {"WindowCenter": 50_000, "WindowWidth": 10},  # shows one level only
        {"WindowCenter": 2048, "WindowWidth": 4096, "VOILUTFunction": "MAGIC"},
        {"VOILUTSequence": table([1, 2, 3], 0, 99)},
    ],
)
def test_a_window_that_cannot_be_used_is_ignored_with_a_warning(levels, dicom, tags):
    image = read_dicom(dicom(levels, **tags))
    assert codes(image) == ["W_WINDOW"]
    np.testing.assert_array_equal(image.pixels, read_dicom(dicom(levels)).pixels)


@pytest.mark.parametrize("text", [b"NaN   ", b"inf   ", b"wide  ", b"\xff\xfe\x00abc"])
def test_a_window_of_text_is_ignored_with_a_warning(levels, dicom, text):
    image = read_dicom(raw_text(dicom(levels, WindowCenter=2048, WindowWidth="999999"), text))
    assert codes(image) == ["W_WINDOW"]
    assert image.info["window"]["from"] == "percentiles"


@pytest.mark.parametrize(
    "tags", [{"RescaleSlope": 0, "RescaleIntercept": 0}, {"ModalityLUTSequence": table([1, 2], 0, 40)}]
)
def test_a_broken_modality_step_refuses_the_file(levels, dicom, tags, refused):
    refused(dicom(levels, **tags), "E_DICOM_TAG")
    data = raw_text(dicom(levels, RescaleSlope="999999", RescaleIntercept=0), b"slope ")
    assert "RescaleSlope" in refused(data, "E_DICOM_TAG")


def test_the_real_film():
    store = pytest.importorskip("data_store", reason="pydicom-data is not installed")
    real_film = Path(store.__file__).parent / "data" / "RG1_UNCR.dcm"
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
    twin = read(real_film.with_name("RG1_J2KR.dcm"))
    np.testing.assert_array_equal(twin.pixels, image.pixels)
    assert "JPEG 2000" in twin.info["transfer_syntax"]


def test_every_file_that_pydicom_tests_with_is_read_or_refused():
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    paths = sorted(folder.glob("*.dcm"))
    if not paths:
        pytest.skip("this pydicom comes without its test files")
    verdicts = dict.fromkeys((path.name for path in paths), "read")
    for path in paths:
        try:
            pixels = read(path).pixels
            assert 0 <= pixels.min() < pixels.max() <= 1
        except TextRayError as error:
            verdicts[path.name] = error.code
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
