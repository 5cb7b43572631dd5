"""A: DICOM films."""

import io
import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLSLossless, RLELossless

FULL = {"WindowCenter": 2048, "WindowWidth": 4096}


def clean(tools):
    return tools.dicom(tools.levels, **FULL)


def compressed(data, syntax, payload=None, count=1):
    ds = pydicom.dcmread(io.BytesIO(data))
    if payload is None:
        ds.compress(syntax, generate_instance_uid=False)
        payload = next(pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=1))
    ds.file_meta.TransferSyntaxUID, ds.PixelData = syntax, encapsulate([payload] * count)
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    stream = io.BytesIO()
    ds.save_as(stream)
    return stream.getvalue()


def coloured(tools, change):
    levels = np.repeat(tools.eight[..., None], 3, axis=2)
    change(levels)
    tags = {"PhotometricInterpretation": "RGB", "PlanarConfiguration": 0, "BitsAllocated": 8, "BitsStored": 8}
    return tools.dicom(levels, SamplesPerPixel=3, HighBit=7, **tags)


def eight_bits(tools, **tags):
    return tools.dicom(tools.eight, BitsAllocated=8, BitsStored=8, HighBit=7, **tags)


def palette(tools):
    tags, levels = {}, (np.arange(256) * 257).astype("<u2").tobytes()
    for name in ("Red", "Green", "Blue"):
        tags[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        tags[f"{name}PaletteColorLookupTableData"] = levels
    return eight_bits(tools, PhotometricInterpretation="PALETTE COLOR", **tags)


def luminance(tools):
    levels = np.dstack([tools.eight, np.full_like(tools.eight, 128), np.full_like(tools.eight, 128)])
    tags = {"PhotometricInterpretation": "YBR_FULL", "PlanarConfiguration": 0, "BitsAllocated": 8, "BitsStored": 8}
    return tools.dicom(levels, SamplesPerPixel=3, HighBit=7, **tags)


def nested(tools):
    """A film before whose pixels stand 10,000 items, each inside the one before."""
    depth = 10_000
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + struct.pack("<HH2sHI", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF)
    ends = b"\xfe\xff\xdd\xe0\0\0\0\0" + b"\xfe\xff\x0d\xe0\0\0\0\0"
    sequence = struct.pack("<HH2sHI", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF) + item * depth + ends * depth + ends[:8]
    data = clean(tools)
    at = data.index(b"\xe0\x7f\x10\x00")
    return data[:at] + sequence + data[at:]


def deflated(tools, header):
    """A deflated data set whose transfer syntax stands in the meta group in another way than usual."""
    data = tools.dicom(tools.levels, syntax="deflated")
    at = data.index(b"\x02\x00\x10\x00UI") + 4
    length = int.from_bytes(data[at + 2 : at + 4], "little")
    return data[:at] + header(length) + data[at + 4 :]


def flat_table():
    item = pydicom.Dataset()
    item.add_new(0x00283002, "US", [4096, 0, 12])
    item.add_new(0x00283006, "US", [7] * 4096)
    return item


def marked(tools, *values):
    """A film with a marker of each value in its first rows."""
    levels = tools.levels.copy()
    for place, value in enumerate(values):
        levels[3 * place : 3 * place + 3] = value
    return tools.dicom(levels, BitsStored=16, HighBit=15)


def many_items(tools):
    """A film before whose pixels stand 16 MB of empty items."""
    data = clean(tools)
    at = data.index(b"\xe0\x7f\x10\x00")
    sequence = struct.pack("<HH2sHI", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF)
    return data[:at] + sequence + b"\xfe\xff\x00\xe0\0\0\0\0" * 2_000_000 + b"\xfe\xff\xdd\xe0\0\0\0\0" + data[at:]


def directory(tools):
    record = pydicom.Dataset()
    record.DirectoryRecordType, record.ReferencedFileID = "IMAGE", ["UP", "UP", "SECRET"]
    tags = {"SOPClassUID": pydicom.uid.MediaStorageDirectoryStorage, "DirectoryRecordSequence": [record]}
    data = tools.dicom(tools.levels, drop=["Rows", "Columns", "PixelData", "Modality"], **tags)
    return data.replace(rb"UP\UP", rb"..\..")


CASES = [
    (
        "A01",
        "MONOCHROME1",
        lambda t: t.dicom(4095 - t.levels, PhotometricInterpretation="MONOCHROME1", **FULL),
        {"same_as": clean},
    ),
    (
        "A02",
        "no PhotometricInterpretation",
        lambda t: t.dicom(t.levels, drop=["PhotometricInterpretation"]),
        {"codes": ("E_DICOM_TAG",), "exit": 3},
    ),
    ("A03a", "no Rows", lambda t: t.dicom(t.levels, drop=["Rows"]), {"codes": ("E_DICOM_TAG",), "exit": 3}),
    ("A03b", "BitsStored 0", lambda t: t.dicom(t.levels, BitsStored=0), {"codes": ("E_DICOM_TAG",), "exit": 3}),
    (
        "A04",
        "a structured report",
        lambda t: t.dicom(
            t.levels, drop=["Rows", "Columns", "PixelData"], Modality="SR", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11"
        ),
        {"codes": ("W_NOT_IMAGE",), "exit": 3},
    ),
    ("A05a", "no preamble, no suffix", lambda t: t.dicom(t.levels, preamble=False, **FULL), {"same_as": clean}),
    ("A06a", "RLE", lambda t: compressed(clean(t), RLELossless), {"same_as": clean}),
    ("A06b", "big endian", lambda t: t.dicom(t.levels, syntax="big endian", **FULL), {"same_as": clean}),
    (
        "A07",
        "a compression that nothing decodes",
        lambda t: compressed(clean(t), pydicom.uid.MPEG2MPML, b"\0\0\1\xb3" + bytes(96)),
        {"codes": ("E_DECODER",), "exit": 3},
    ),
    ("A08a", "cut off in the pixels", lambda t: clean(t)[:-500], {"codes": ("E_TRUNCATED",), "exit": 3}),
    (
        "A08b",
        "damaged RLE",
        lambda t: compressed(clean(t), RLELossless, b"\x02\0\0\0" + b"\x7f" * 400),
        {"codes": ("E_TRUNCATED",), "exit": 3},
    ),
    (
        "A08c",
        "JPEG-LS of rubbish",
        lambda t: compressed(clean(t), JPEGLSLossless, b"\xff\xd8\xff\xf7" + bytes(200)),
        {"exit": 3},
    ),
    (
        "A08d",
        "RLE that is called JPEG-LS",
        lambda t: compressed(clean(t), RLELossless).replace(RLELossless.encode(), b"1.2.840.10008.1.2.4.80"),
        {"exit": 3},
    ),
    (
        "A09a",
        "two frames",
        lambda t: t.dicom(np.concatenate([t.levels, t.levels]), Rows=90, NumberOfFrames=2),
        {"codes": ("E_MULTIFRAME",), "exit": 3},
    ),
    (
        "A09b",
        "two frames without NumberOfFrames",
        lambda t: t.dicom(np.concatenate([t.levels, t.levels]), Rows=90),
        {"codes": ("E_MULTIFRAME",), "exit": 3},
    ),
    (
        "A09c",
        "two compressed frames without NumberOfFrames",
        lambda t: compressed(clean(t), RLELossless, count=2),
        {"codes": ("E_MULTIFRAME",), "exit": 3},
    ),
    (
        "A10a",
        "12 bits in the upper part of 16, rubbish below",
        lambda t: t.dicom(t.levels << 4 | 5, HighBit=15, **FULL),
        {"same_as": clean},
    ),
    (
        "A10b",
        "the same in RLE",
        lambda t: compressed(t.dicom(t.levels << 4 | 5, HighBit=15, **FULL), RLELossless),
        {"same_as": clean},
    ),
    (
        "A10c",
        "signed, 12 of 16 bits",
        lambda t: t.dicom(
            ((t.levels.astype(np.int16) - 2048) & 0xFFF).astype(np.uint16),
            PixelRepresentation=1,
            WindowCenter=0,
            WindowWidth=4096,
        ),
        {"same_as": clean},
    ),
    ("A10d", "an overlay in bit 15", lambda t: t.dicom(t.levels | 1 << 15, **FULL), {"same_as": clean}),
    (
        "A10e",
        "BitsStored 10 for values of 12 bits",
        lambda t: t.dicom(t.levels, BitsStored=10, HighBit=9),
        {"codes": ("W_BITS",)},
    ),
    (
        "A10f",
        "PixelRepresentation 1 for values without sign",
        lambda t: t.dicom(t.levels, PixelRepresentation=1),
        {"codes": ("W_BITS",)},
    ),
    (
        "A11a",
        "rescaled, windowed after it",
        lambda t: t.dicom(t.levels, RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=3096, WindowWidth=8192),
        {"same_as": clean},
    ),
    (
        "A11b",
        "a window of another modality",
        lambda t: t.dicom(t.levels, WindowCenter=40, WindowWidth=400),
        {"same_as": lambda t: t.dicom(t.levels), "codes": ("W_WINDOW",)},
    ),
    (
        "A11c",
        "a window a million times as wide as the film",
        lambda t: t.dicom(t.levels, WindowCenter=0, WindowWidth=1e9),
        {"same_as": lambda t: t.dicom(t.levels), "codes": ("W_WINDOW",)},
    ),
    (
        "A11d",
        "a modality table of one level",
        lambda t: t.dicom(t.levels, ModalityLUTSequence=[flat_table()]),
        {"codes": ("E_CONSTANT",), "exit": 3},
    ),
    (
        "A12a",
        "window of width 0",
        lambda t: t.dicom(t.levels, WindowCenter=40, WindowWidth=0),
        {"same_as": lambda t: t.dicom(t.levels), "codes": ("W_WINDOW",)},
    ),
    (
        "A12b",
        "negative width",
        lambda t: t.dicom(t.levels, WindowCenter=40, WindowWidth=-9),
        {"same_as": lambda t: t.dicom(t.levels), "codes": ("W_WINDOW",)},
    ),
    (
        "A13a",
        "RGB with equal channels",
        lambda t: coloured(t, lambda levels: None),
        {"same_as": lambda t: t.raster(t.eight)},
    ),
    (
        "A13b",
        "RGB with a red mark",
        lambda t: coloured(t, lambda levels: levels.__setitem__((slice(20, 40), slice(20, 40), 0), 255)),
        {"codes": ("E_COLOR",), "exit": 3},
    ),
    ("A14a", "a palette of greys", palette, {"same_as": lambda t: t.raster(t.eight)}),
    ("A14b", "luminance without colour", luminance, {"same_as": lambda t: t.raster(t.eight)}),
    (
        "A16a",
        "lateral view",
        lambda t: t.dicom(t.levels, ViewPosition="LL", **FULL),
        {"same_as": clean, "codes": ("W_NOT_FRONTAL_CHEST",)},
    ),
    ("A16b", "decubitus", lambda t: t.dicom(t.levels, ViewPosition="RLD", **FULL), {"codes": ("W_NOT_FRONTAL_CHEST",)}),
    (
        "A17a",
        "a hand",
        lambda t: t.dicom(t.levels, BodyPartExamined="HAND", **FULL),
        {"codes": ("W_NOT_FRONTAL_CHEST",)},
    ),
    (
        "A16c",
        "a lateral view in a description",
        lambda t: t.dicom(t.levels, ViewPosition="", SeriesDescription="Chest lateral", **FULL),
        {"codes": ("W_NOT_FRONTAL_CHEST",)},
    ),
    ("A17b", "a mammogram", lambda t: t.dicom(t.levels, Modality="MG", **FULL), {"codes": ("W_NOT_FRONTAL_CHEST",)}),
    (
        "A18a",
        "columns toward the head",
        lambda t: t.dicom(t.levels, PatientOrientation=["L", "H"], **FULL),
        {"codes": ("W_NOT_UPRIGHT",)},
    ),
    (
        "A18b",
        "mirrored: rows toward the right",
        lambda t: t.dicom(t.levels, PatientOrientation=["R", "F"], **FULL),
        {"same_as": clean},
    ),
    (
        "A19",
        "65,535 rows and columns, few bytes",
        lambda t: t.dicom(t.levels, Rows=65535, Columns=65535),
        {"codes": ("E_SIZE",), "exit": 3},
    ),
    (
        "A20",
        "deflated as a whole",
        lambda t: t.dicom(t.levels, syntax="deflated"),
        {"codes": ("E_DECODER",), "exit": 3},
    ),
    (
        "A21",
        "only ImagerPixelSpacing",
        lambda t: t.dicom(t.levels, drop=["PixelSpacing"], ImagerPixelSpacing=[0.1, 0.1], **FULL),
        {"same_as": clean, "codes": ("W_UNCALIBRATED",)},
    ),
    (
        "A22",
        "pixels that are not square",
        lambda t: t.dicom(t.levels, PixelSpacing=[0.2, 0.9], **FULL),
        {"same_as": clean},
    ),
    (
        "A23",
        "a name in a character set that is none",
        lambda t: t.dicom(t.levels, SpecificCharacterSet="ISO_IR 999", **FULL),
        {"same_as": clean},
    ),
    ("A24", "10,000 nested items", nested, {"exit": 3}),
    (
        "A26",
        "a DICOMDIR that names a file outside of its folder",
        directory,
        {"codes": ("W_NOT_IMAGE",), "exit": 3},
    ),
    ("A27", "a preamble that is a program", lambda t: b"MZ" + b"\x90" * 126 + clean(t)[128:], {"same_as": clean}),
    (
        "A31a",
        "padding far above the film, by tag",
        lambda t: t.dicom(
            np.where(np.arange(90)[:, None] < 9, 65535, t.levels).astype(np.uint16),
            BitsStored=16,
            HighBit=15,
            PixelPaddingValue=65535,
        ),
        {
            "same_as": lambda t: t.dicom(
                np.where(np.arange(90)[:, None] < 9, 0, t.levels).astype(np.uint16),
                BitsStored=16,
                HighBit=15,
                PixelPaddingValue=0,
            )
        },
    ),
    (
        "A31b",
        "a padding value that no pixel has",
        lambda t: t.dicom(t.levels, BitsStored=12, PixelPaddingValue=9999, **FULL),
        {"same_as": clean},
    ),
    (
        "A31c",
        "markers of two values far above the film, without a tag",
        lambda t: marked(t, 20_000, 40_000),
        {"same_as": lambda t: marked(t, 60_000, 60_000)},
    ),
    (
        "A20b",
        "deflated, its transfer syntax in implicit VR",
        lambda t: deflated(t, lambda length: struct.pack("<I", length)),
        {"exit": 3, "codes": ("E_DECODER",)},
    ),
    (
        "A20c",
        "deflated, its transfer syntax of VR UN",
        lambda t: deflated(t, lambda length: b"UN\0\0" + struct.pack("<I", length)),
        {"exit": 3, "codes": ("E_DECODER",)},
    ),
    ("A24b", "16 MB of empty items", many_items, {"exit": 3, "codes": ("E_SIZE",)}),
]


@pytest.mark.parametrize(("make", "answer"), [case[2:] for case in CASES], ids=[case[0] for case in CASES])
def test_a(make, answer, attempt):
    attempt(make, **answer)


def test_a25_films_that_share_an_identifier_are_both_read(cli, tiny_bundle, tmp_path, monkeypatch, dicom, levels):
    monkeypatch.chdir(tmp_path)
    for name, pixels in (("a", levels), ("b", levels[::-1].copy())):
        Path(name).write_bytes(dicom(pixels, SOPInstanceUID="1.2.3", **FULL))
    assert cli("segment", "a", "b", "--model", tiny_bundle, "--threads", "1").code == 0
    assert Path("textray-out/a.mask.png").read_bytes() != Path("textray-out/b.mask.png").read_bytes()
