"""From stored numbers to the grey levels that are shown: bits, modality step, window; as pydicom does."""

import io

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.sequence import Sequence

from textray.io.dicom import read_dicom

FULL = {"WindowCenter": 2048, "WindowWidth": 4096}  # shows 0..4095 as it is


def codes(image):
    return [notice.code for notice in image.notices]


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
    tags = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "WindowCenter": 128, "WindowWidth": 256}
    for syntax in ("explicit", "big endian"):
        data = eight.reshape(-1, 2)[:, ::-1].reshape(eight.shape) if syntax == "big endian" else eight  # OW words
        image = read_dicom(dicom(data, syntax=syntax, **tags))
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
@pytest.mark.parametrize("center", [1000.5, [1800, 40]])
def test_window_functions_agree_with_pydicom(levels, dicom, function, center):
    tags = {"WindowCenter": center, "WindowWidth": [1500, 80] if isinstance(center, list) else 1500}
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


def test_voi_lut_comes_before_the_window_and_agrees_with_pydicom(levels, dicom):
    curve = np.rint(4095 * np.linspace(0, 1, 3500) ** 2)
    data = dicom(levels, VOILUTSequence=table(curve, 300, 12), WindowCenter=10, WindowWidth=5)
    ds = dcmread(io.BytesIO(data))
    image = read_dicom(data)
    np.testing.assert_allclose(image.pixels, apply_voi_lut(ds.pixel_array, ds) / 4095, atol=1e-6)
    assert image.info["window"] == {"from": "voi lut"}


def test_modality_lut_agrees_with_pydicom(levels, dicom):
    curve = np.rint(65535 * np.sqrt(np.linspace(0, 1, 4096)))
    data = dicom(
        levels, ModalityLUTSequence=table(curve, 0, 16, ModalityLUTType="US"), WindowCenter=32768, WindowWidth=65536
    )
    ds = dcmread(io.BytesIO(data))
    np.testing.assert_allclose(read_dicom(data).pixels, apply_modality_lut(ds.pixel_array, ds) / 65535, atol=1e-4)


def test_without_a_window_the_percentiles_are_shown(levels, dicom):
    image = read_dicom(dicom(levels))
    low, high = np.percentile(levels, (0.5, 99.5))
    np.testing.assert_allclose(image.pixels, np.clip((levels - low) / (high - low), 0, 1), atol=1e-5)
    assert image.info["window"] == {"from": "percentiles", "low": low, "high": high}
    assert codes(image) == []


@pytest.mark.parametrize(
    "tags",
    [
        {"WindowCenter": 2048, "WindowWidth": 0},
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


@pytest.mark.parametrize("text", [b"NaN   ", b"inf   ", b"wide  ", b"1;5   ", b"\xff\xfe\x00abc"[:6]])
def test_a_window_of_text_is_ignored_with_a_warning(levels, dicom, text, raw_text):
    data = raw_text(dicom(levels, WindowCenter=2048, WindowWidth="999999"), text)
    image = read_dicom(data)
    assert codes(image) == ["W_WINDOW"]
    assert image.info["window"]["from"] == "percentiles"


def test_an_empty_window_is_no_window(levels, dicom):
    assert codes(read_dicom(dicom(levels, WindowCenter=None, WindowWidth=None))) == []


@pytest.mark.parametrize(
    "tags", [{"RescaleSlope": 0, "RescaleIntercept": 0}, {"ModalityLUTSequence": table([1, 2], 0, 40)}]
)
def test_a_broken_modality_step_refuses_the_file(levels, dicom, tags, refused):
    refused(dicom(levels, **tags), "E_DICOM_TAG")


def test_a_slope_of_text_refuses_the_file(levels, dicom, refused, raw_text):
    data = raw_text(dicom(levels, RescaleSlope="999999", RescaleIntercept=0), b"slope ")
    assert "RescaleSlope" in refused(data, "E_DICOM_TAG")
