"""DICOM files that are no film, contradict themselves, are cut off, or need a decoder that is not there."""

import io

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as PILImage
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.pixels import decoders
from pydicom.uid import (
    BasicTextSRStorage,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    RLELossless,
    SegmentationStorage,
)

from textray.errors import TextRayError
from textray.io.dicom import looks_like_dicom, read_dicom


@pytest.mark.parametrize(
    ("sop_class", "modality"),
    [
        (BasicTextSRStorage, "SR"),
        (SegmentationStorage, "SEG"),
    ],
)
@pytest.mark.parametrize("pixels", [True, False])
def test_what_is_no_picture_says_so(levels, dicom, sop_class, modality, pixels, refused):
    drop = [] if pixels else ["PixelData", "Rows", "Columns"]
    assert "not a picture" in refused(dicom(levels, SOPClassUID=sop_class, Modality=modality, drop=drop), "W_NOT_IMAGE")
    refused(dicom(levels, SOPClassUID="1.2.3.4", Modality=modality, drop=drop), "W_NOT_IMAGE")


SIZES = ["Rows", "Columns", "BitsAllocated", "BitsStored", "SamplesPerPixel"]
WRONG = {
    "E_DICOM_TAG": [
        *({keyword: 0} for keyword in SIZES),
        *({keyword: None} for keyword in (*SIZES, "PixelRepresentation", "PhotometricInterpretation")),
        {"BitsStored": 17},
        {"BitsAllocated": 1},
        {"BitsAllocated": 12},
        {"HighBit": 5},
        {"HighBit": 16},
        {"PixelRepresentation": 2},
        {"SamplesPerPixel": 3},
        {"PhotometricInterpretation": "HSV"},
        {"NumberOfFrames": 0},
    ],
    "E_SIZE": [{"Rows": 65535, "Columns": 65535}, {"Rows": 9000, "Columns": 8000}, {"Rows": 1}],
    "E_MULTIFRAME": [{"NumberOfFrames": 2}],
}


@pytest.mark.parametrize(("code", "tags"), [(code, tags) for code, rows in WRONG.items() for tags in rows])
def test_wrong_tags_are_refused_before_the_pixels(levels, dicom, code, tags, refused):
    keyword, value = next(iter(tags.items()))
    message = refused(dicom(levels, **tags), code)
    if code == "E_DICOM_TAG":
        assert keyword in message
        if value is None:
            assert keyword in refused(dicom(levels, drop=[keyword]), code)


def test_a_constant_film_is_refused(levels, dicom, refused):
    for level in (0, 4095):
        refused(dicom(np.full_like(levels, level)), "E_CONSTANT")
    refused(dicom(np.full_like(levels, 7), WindowCenter=7, WindowWidth=1), "E_CONSTANT")
    refused(dicom(np.full_like(levels, 7), PhotometricInterpretation="MONOCHROME1"), "E_CONSTANT")


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.9, 1, 2, 3])
@pytest.mark.parametrize("form", [("explicit", True), ("implicit", True), ("big endian", True), ("explicit", False)])
def test_a_cut_off_file_is_refused(levels, dicom, cut, form, refused):
    data = dicom(levels, syntax=form[0], preamble=form[1])
    refused(data[: int(len(data) * cut) if cut < 1 else -cut], "E_TRUNCATED")


def test_pixel_data_that_is_missing_or_shorter_than_its_tags_is_refused(levels, dicom, refused):
    data = dicom(levels)
    refused(data[: data.index(b"\xe0\x7f\x10\x00")], "E_TRUNCATED")
    refused(data[: data.index(b"CR") + 2], "E_TRUNCATED")
    for length in (levels.nbytes // 4 * 2, levels.nbytes - 2):
        refused(dicom(levels, PixelData=levels.tobytes()[:length]), "E_TRUNCATED")


def test_a_syntax_that_is_deflated_or_unknown_is_refused(levels, dicom, refused):
    refused(dicom(levels, syntax="deflated"), "E_DECODER")
    refused(dicom(levels).replace(b"1.2.840.10008.1.2.1\x00", b"1.2.840.10008.1.2.7\x00"), "E_DECODER")


def compressed(data, syntax, payload=None):
    """The film in another transfer syntax: of a payload, else as pydicom compresses it."""
    ds = dcmread(io.BytesIO(data))
    if payload is None:
        ds.compress(syntax, generate_instance_uid=False)
    else:
        ds.file_meta.TransferSyntaxUID = syntax
        ds.PixelData = encapsulate([payload])
        ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    buffer = io.BytesIO()
    ds.save_as(buffer)
    return buffer.getvalue()


def test_rle_is_the_same_film_and_its_damage_is_refused(levels, dicom, refused):
    data = compressed(dicom(levels), RLELossless)
    expected = read_dicom(dicom(levels)).pixels
    np.testing.assert_array_equal(read_dicom(data).pixels, expected)
    for share in (0.5, 0.9):
        refused(data[: int(len(data) * share)], "E_TRUNCATED")
    refused(compressed(dicom(levels), RLELossless, b"\x02\x00\x00\x00" + b"\x7f" * 400), "E_TRUNCATED")
    at = data.index(b"\xfe\xff\x00\xe0")  # the table of offsets, here one that points behind the end
    length = int.from_bytes(data[at + 4 : at + 8], "little")
    table = b"\xfe\xff\x00\xe0\x04\x00\x00\x00" + (77777).to_bytes(4, "little")
    shown = read_dicom(data[:at] + table + data[at + 8 + length :])
    np.testing.assert_array_equal(shown.pixels, expected)


def test_jpeg2000_of_another_size_is_refused(levels, dicom, refused):
    buffer = io.BytesIO()
    PILImage.fromarray((levels[:64, :64] >> 4).astype(np.uint8)).save(buffer, "JPEG2000")
    refused(compressed(dicom(levels), JPEG2000Lossless, buffer.getvalue()), "E_TRUNCATED")


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEG2000Lossless])
def test_a_missing_decoder_is_named_with_its_extra(levels, dicom, syntax, monkeypatch, refused):
    for decoder in (decoders.JPEGLosslessSV1Decoder, decoders.JPEG2000LosslessDecoder):
        monkeypatch.setattr(decoder, "_available", {})
    message = refused(compressed(dicom(levels), syntax, b"\xff\xd8\xff\xd9"), "E_DECODER")
    assert "pip install 'textray[dicom]'" in message
    assert syntax.name in message


def test_twelve_bit_jpeg_needs_more_than_pillow(levels, dicom, monkeypatch, refused):
    decoder = decoders.JPEGExtended12BitDecoder
    monkeypatch.setattr(decoder, "_available", {k: v for k, v in decoder._available.items() if k == "pillow"})
    monkeypatch.setattr(decoder, "_unavailable", {"gdcm": ("gdcm>=3.0.10",)})
    refused(compressed(dicom(levels), JPEGExtended12Bit, b"\xff\xd8\xff\xd9"), "E_DECODER")


def test_bytes_that_only_look_like_dicom_are_refused(refused):
    assert looks_like_dicom(b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100")
    assert looks_like_dicom(b"II*\x00" + bytes(124) + b"DICM")  # a preamble may hold anything
    assert not looks_like_dicom(b"\x08\x00")
    refused(b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100", "E_FORMAT")


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 100_000), new=st.binary(min_size=1, max_size=12), preamble=st.booleans())
def test_damaged_files_are_read_or_refused(at, new, preamble, levels, dicom):
    data = bytearray(
        dicom(levels, preamble=preamble, WindowCenter=2048, WindowWidth=4096, RescaleSlope=1, RescaleIntercept=0)
    )
    header = data.index(b"\xe0\x7f\x10\x00") + 12
    at %= header
    data[at : at + len(new)] = new
    try:
        image = read_dicom(bytes(data))
    except TextRayError:
        return
    assert image.pixels.dtype == np.float32
    assert np.isfinite(image.pixels).all()
    assert image.pixels.min() >= 0
    assert image.pixels.max() <= 1
