"""DICOM files that are no film, contradict themselves, are cut off, or need a decoder that is not there."""

import contextlib
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
    GrayscaleSoftcopyPresentationStateStorage,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    KeyObjectSelectionDocumentStorage,
    RLELossless,
    RTStructureSetStorage,
    SegmentationStorage,
)

from textray.errors import InputError, TextRayError
from textray.io.dicom import looks_like_dicom, read_dicom
from textray.io.read import read

FULL = {"WindowCenter": 2048, "WindowWidth": 4096}  # shows 0..4095 as it is


@pytest.mark.parametrize(
    ("sop_class", "modality"),
    [
        (BasicTextSRStorage, "SR"),
        (KeyObjectSelectionDocumentStorage, "KO"),
        (GrayscaleSoftcopyPresentationStateStorage, "PR"),
        (RTStructureSetStorage, "RTSTRUCT"),
        (SegmentationStorage, "SEG"),
    ],
)
@pytest.mark.parametrize("pixels", [True, False])
def test_what_is_no_picture_says_so(levels, dicom, sop_class, modality, pixels, refused):
    drop = [] if pixels else ["PixelData", "Rows", "Columns"]
    assert "not a picture" in refused(dicom(levels, SOPClassUID=sop_class, Modality=modality, drop=drop), "W_NOT_IMAGE")
    refused(dicom(levels, SOPClassUID="1.2.3.4", Modality=modality, drop=drop), "W_NOT_IMAGE")


SIZES = ["Rows", "Columns", "BitsAllocated", "BitsStored", "SamplesPerPixel"]


@pytest.mark.parametrize("keyword", [*SIZES, "PixelRepresentation", "PhotometricInterpretation"])
def test_a_missing_or_empty_tag_is_named(levels, dicom, keyword, refused):
    assert keyword in refused(dicom(levels, drop=[keyword]), "E_DICOM_TAG")
    assert keyword in refused(dicom(levels, **{keyword: None}), "E_DICOM_TAG")


@pytest.mark.parametrize("keyword", SIZES)
def test_a_zero_tag_is_named(levels, dicom, keyword, refused):
    assert keyword in refused(dicom(levels, **{keyword: 0}), "E_DICOM_TAG")


@pytest.mark.parametrize(
    "tags",
    [
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
)
def test_contradictory_tags_are_named(levels, dicom, tags, refused):
    assert next(iter(tags)) in refused(dicom(levels, **tags), "E_DICOM_TAG")


@pytest.mark.parametrize("tags", [{"Rows": 65535, "Columns": 65535}, {"Rows": 9000, "Columns": 8000}, {"Rows": 1}])
def test_a_declared_size_is_refused_before_the_pixels(levels, dicom, tags, refused):
    refused(dicom(levels, **tags), "E_SIZE")


def test_multi_frame_is_refused(levels, dicom, refused):
    refused(dicom(levels, NumberOfFrames=2), "E_MULTIFRAME")


def test_a_constant_film_is_refused(levels, dicom, refused):
    for level in (0, 4095):
        refused(dicom(np.full_like(levels, level)), "E_CONSTANT")
    refused(dicom(np.full_like(levels, 7), PhotometricInterpretation="MONOCHROME1"), "E_CONSTANT")
    refused(dicom(np.full_like(levels, 7), WindowCenter=7, WindowWidth=1), "E_CONSTANT")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.9999])
@pytest.mark.parametrize("syntax", ["explicit", "implicit", "big endian"])
def test_a_cut_off_file_is_refused(levels, dicom, share, syntax, refused):
    data = dicom(levels, syntax=syntax)
    refused(data[: int(len(data) * share)], "E_TRUNCATED")


@pytest.mark.parametrize("cut", [1, 2, 3, 101, 6000, 12000], ids=lambda n: f"{n} bytes short")
@pytest.mark.parametrize(("syntax", "preamble"), [("explicit", True), ("explicit", False), ("implicit", False)])
def test_cut_off_pixel_data_are_refused(levels, dicom, cut, syntax, preamble, refused):
    refused(dicom(levels, syntax=syntax, preamble=preamble)[:-cut], "E_TRUNCATED")


@pytest.mark.parametrize("share", [0.5, 0.999])
def test_pixel_data_shorter_than_the_tags_say_are_refused(levels, dicom, share, refused):
    pixels = levels.tobytes()
    refused(dicom(levels, PixelData=pixels[: int(len(pixels) * share) // 2 * 2]), "E_TRUNCATED")


def test_a_file_cut_off_before_its_pixels_is_refused(levels, dicom, refused):
    data = dicom(levels)
    for end in (data.index(b"\xe0\x7f\x10\x00"), data.index(b"CS\x02\x00CR") + 6):
        refused(data[:end], "E_TRUNCATED")


def test_a_deflated_file_is_refused_before_it_is_inflated(levels, dicom, refused):
    refused(dicom(levels, syntax="deflated"), "E_DECODER")


def compressed(levels, dicom, syntax, payload):
    ds = dcmread(io.BytesIO(dicom(levels, **FULL)))
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate([payload])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    buffer = io.BytesIO()
    ds.save_as(buffer)
    return buffer.getvalue()


def test_rle_is_the_same_film_and_its_damage_is_refused(levels, dicom, refused):
    ds = dcmread(io.BytesIO(dicom(levels, **FULL)))
    ds.compress(RLELossless, generate_instance_uid=False)
    buffer = io.BytesIO()
    ds.save_as(buffer)
    np.testing.assert_array_equal(read_dicom(buffer.getvalue()).pixels, read_dicom(dicom(levels, **FULL)).pixels)
    for share in (0.5, 0.9):
        refused(buffer.getvalue()[: int(len(buffer.getvalue()) * share)], "E_TRUNCATED")


def test_a_corrupt_fragment_is_refused(levels, dicom, refused):
    refused(compressed(levels, dicom, RLELossless, b"\x02\x00\x00\x00" + b"\x7f" * 400), "E_TRUNCATED")


def test_a_wrong_offset_table_gives_the_whole_film_or_none(levels, dicom):
    ds = dcmread(io.BytesIO(dicom(levels, **FULL)))
    ds.compress(RLELossless, generate_instance_uid=False)
    buffer = io.BytesIO()
    ds.save_as(buffer)
    data = buffer.getvalue()
    at = data.index(b"\xfe\xff\x00\xe0")
    length = int.from_bytes(data[at + 4 : at + 8], "little")
    table = b"\xfe\xff\x00\xe0\x04\x00\x00\x00" + (77777).to_bytes(4, "little")
    wrong = data[:at] + table + data[at + 8 + length :]
    with contextlib.suppress(InputError):
        np.testing.assert_array_equal(read_dicom(wrong).pixels, read_dicom(dicom(levels, **FULL)).pixels)


def test_jpeg2000_of_another_size_is_refused(levels, dicom, refused):
    buffer = io.BytesIO()
    PILImage.fromarray((levels[:64, :64] >> 4).astype(np.uint8)).save(buffer, "JPEG2000")
    refused(compressed(levels, dicom, JPEG2000Lossless, buffer.getvalue()), "E_TRUNCATED")


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEG2000Lossless])
def test_a_missing_decoder_is_named_with_its_extra(levels, dicom, syntax, monkeypatch, refused):
    for decoder in (decoders.JPEGLosslessSV1Decoder, decoders.JPEG2000LosslessDecoder):
        monkeypatch.setattr(decoder, "_available", {})
    message = refused(compressed(levels, dicom, syntax, b"\xff\xd8\xff\xd9"), "E_DECODER")
    assert "pip install 'textray[dicom]'" in message
    assert syntax.name in message


def test_twelve_bit_jpeg_needs_more_than_pillow(levels, dicom, monkeypatch, refused):
    decoder = decoders.JPEGExtended12BitDecoder
    monkeypatch.setattr(decoder, "_available", {k: v for k, v in decoder._available.items() if k == "pillow"})
    monkeypatch.setattr(decoder, "_unavailable", {"gdcm": ("gdcm>=3.0.10",)})
    refused(compressed(levels, dicom, JPEGExtended12Bit, b"\xff\xd8\xff\xd9"), "E_DECODER")


def test_an_unknown_transfer_syntax_is_refused(levels, dicom, refused):
    data = dicom(levels).replace(b"1.2.840.10008.1.2.1\x00", b"1.2.840.10008.1.2.7\x00")
    refused(data, "E_DECODER")


def test_bytes_that_only_look_like_dicom_are_refused(put):
    assert looks_like_dicom(b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100")
    assert not looks_like_dicom(b"\x08\x00")
    with pytest.raises(InputError) as caught:
        read(put(b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100"))
    assert caught.value.code == "E_FORMAT"


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


@settings(deadline=None, max_examples=60)
@given(data=st.binary(max_size=600))
def test_garbage_behind_a_preamble_is_refused(data):
    with pytest.raises(TextRayError):
        read_dicom(bytes(128) + b"DICM" + data)
