"""Bad and odd pictures through `textray segment`: the right mask or a named refusal, and nothing half-written."""

import hashlib
import io
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage
from PIL import ImageOps
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import decoders
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    RLELossless,
)

TOP = 4095
EXIF_ORIENTATION = 0x0112


@pytest.fixture
def run(cli, tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *args: cli("segment", *args, "--model", tiny_bundle, "--threads", "1")


@pytest.fixture
def refused(run, tmp_path):
    """Give a named file to the command; assert its refusal by ``code`` and that the summary is all that is written."""

    def refuse(data: bytes, name: str, code: str) -> str:
        (tmp_path / name).write_bytes(data)
        result = run(name)
        assert result.code == 3, result.err
        assert f"error {code}: {name}: " in result.err
        assert "Traceback" not in result.err
        assert result.out == ""
        assert [path.name for path in (tmp_path / "textray-out").iterdir()] == ["run.json"]
        (row,) = record("textray-out/run.json")["items"]
        assert (row["status"], row["code"], row["outputs"]) == ("failed", code, {})
        assert (tmp_path / name).read_bytes() == data
        return result.err

    return refuse


@pytest.fixture
def mask_of(run, tmp_path):
    """The mask that the command writes for a file's bytes; it must be neither empty nor full."""

    def segment(data: bytes, name: str) -> np.ndarray:
        (tmp_path / name).write_bytes(data)
        out = hashlib.sha256(data + name.encode()).hexdigest()[:12]
        result = run(name, "--out", out)
        assert result.code == 0, result.err
        (path,) = (tmp_path / out).glob("*.mask.png")
        with PILImage.open(path) as picture:
            mask = np.asarray(picture)
        assert set(np.unique(mask)) == {0, 255}
        (told,) = (tmp_path / out).glob("*.mask.png")
        segment.record = record(str(told).removesuffix(".mask.png") + ".json")
        return mask

    return segment


def record(path):
    return json.loads(Path(path).read_bytes())


def levels(height=90, width=70):
    """12-bit levels, 0 to 4095, with a bright spot in the upper left."""
    rows, columns = np.mgrid[:height, :width] / np.array([height, width]).reshape(2, 1, 1)
    spot = np.exp(-((rows - 0.3) ** 2 + (columns - 0.25) ** 2) / 0.02) + 0.1 * rows
    return np.rint((spot - spot.min()) / np.ptp(spot) * TOP).astype(np.uint16)


def film_dataset(pixels, *, drop=(), **tags):
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = ComputedRadiographyImageStorage, "1.2.3.4"
    ds.Modality, ds.PatientOrientation, ds.PixelSpacing = "CR", ["L", "F"], [0.2, 0.3]
    ds.Rows, ds.Columns = pixels.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.PixelData = pixels.astype("<u2").tobytes()
    ds["PixelData"].VR = "OW"
    for keyword, value in tags.items():
        setattr(ds, keyword, value)
    for keyword in drop:
        delattr(ds, keyword)
    return ds


def to_bytes(ds, *, preamble=True, implicit=False):
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # values that no correct writer would write are meant
        if preamble:
            ds.save_as(buffer, enforce_file_format=True)
        else:
            del ds.file_meta
            ds.save_as(buffer, implicit_vr=implicit, little_endian=True)
    return buffer.getvalue()


def dicom(pixels=None, *, drop=(), **tags):
    return to_bytes(film_dataset(levels() if pixels is None else pixels, drop=drop, **tags))


def raster(pixels, kind="PNG", **options):
    buffer = io.BytesIO()
    picture = pixels if isinstance(pixels, PILImage.Image) else PILImage.fromarray(pixels)
    picture.save(buffer, format=kind, **options)
    return buffer.getvalue()


def eight_bits():
    return (levels() >> 4).astype(np.uint8)


# ---- A: DICOM


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"WindowCenter": 2048, "WindowWidth": 4096},
        {"WindowCenter": 1500, "WindowWidth": 1000, "mirror": True},
        {"RescaleSlope": 1, "RescaleIntercept": 0},
    ],
    ids=["percentiles", "full window", "narrow window", "rescale"],
)
def test_a01_monochrome1_gives_the_mask_of_its_twin(mask_of, tags):
    tags = dict(tags)
    inverse = dict(tags)
    if tags.pop("mirror", False):
        inverse = {"WindowCenter": TOP - tags["WindowCenter"] + 1, "WindowWidth": tags["WindowWidth"]}
    twin = mask_of(dicom(**tags), "two.dcm")
    mask = mask_of(dicom(TOP - levels(), PhotometricInterpretation="MONOCHROME1", **inverse), "one.dcm")
    np.testing.assert_array_equal(mask, twin)
    assert mask_of.record["input"]["reader"]["inverted"] is True


@pytest.mark.parametrize("keyword", ["Rows", "Columns", "BitsStored", "BitsAllocated"])
@pytest.mark.parametrize("fault", ["missing", "zero", "empty"])
def test_a03_a_missing_or_zero_size_tag_is_named(refused, keyword, fault):
    data = dicom(drop=[keyword]) if fault == "missing" else dicom(**{keyword: 0 if fault == "zero" else None})
    assert f"tag {keyword} " in refused(data, "film.dcm", "E_DICOM_TAG")


@pytest.mark.parametrize(
    ("modality", "sop_class"),
    [
        ("SR", "1.2.840.10008.5.1.4.1.1.88.11"),
        ("KO", "1.2.840.10008.5.1.4.1.1.88.59"),
        ("PR", "1.2.840.10008.5.1.4.1.1.11.1"),
        ("RTSTRUCT", "1.2.840.10008.5.1.4.1.1.481.3"),
        ("SEG", "1.2.840.10008.5.1.4.1.1.66.4"),
    ],
)
@pytest.mark.parametrize("name", ["object.dcm", "object"])
def test_a04_objects_without_pixels_are_skipped_in_a_folder_and_refused_by_name(
    run, film, tmp_path, modality, sop_class, name
):
    ds = film_dataset(levels(), Modality=modality, SOPClassUID=sop_class)
    for keyword in ("Rows", "Columns", "PixelData"):
        delattr(ds, keyword)
    film(tmp_path / "in/a.png")
    (tmp_path / "in" / name).write_bytes(to_bytes(ds))
    below = run("in")
    assert below.code == 0
    assert f"skipped W_NOT_IMAGE: in/{name}: " in below.err
    assert record("textray-out/run.json")["counts"] == {"done": 1, "finished": 0, "skipped": 1, "failed": 0}
    named = run(f"in/{name}", "--out", "named")
    assert named.code == 3
    assert f"error W_NOT_IMAGE: in/{name}: " in named.err
    assert [path.name for path in (tmp_path / "named").iterdir()] == ["run.json"]


@pytest.mark.parametrize("name", ["film.dcm", "FILM.DCM", "film", "film.png", "film.txt", "1.2.840.7"])
@pytest.mark.parametrize("form", ["preamble", "bare explicit", "bare implicit"])
def test_a05_a_film_is_known_by_its_content(mask_of, name, form):
    twin = mask_of(dicom(), "twin.dcm")
    data = to_bytes(film_dataset(levels()), preamble=form == "preamble", implicit=form == "bare implicit")
    np.testing.assert_array_equal(mask_of(data, name), twin)
    assert mask_of.record["input"]["reader"]["format"] == "dicom"


@pytest.mark.parametrize("name", ["film.dcm", "film.jpg", "film", "film.JPEG", "film.txt"])
def test_a05_a_png_is_known_by_its_content(mask_of, name):
    data = raster(eight_bits())
    np.testing.assert_array_equal(mask_of(data, name), mask_of(data, "twin.png"))


def test_a05_films_without_an_extension_are_found_in_a_folder(run, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/IM0001").write_bytes(dicom())
    (tmp_path / "in/IM0002.DCM").write_bytes(to_bytes(film_dataset(levels()), preamble=False))
    assert run("in").code == 0
    assert record("textray-out/run.json")["counts"]["done"] == 2
    masks = [(tmp_path / f"textray-out/IM000{i}.mask.png").read_bytes() for i in (1, 2)]
    assert masks[0] == masks[1]


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEG2000Lossless])
def test_a07_a_missing_decoder_names_its_extra(refused, monkeypatch, syntax):
    for decoder in (decoders.JPEGLosslessSV1Decoder, decoders.JPEG2000LosslessDecoder):
        monkeypatch.setattr(decoder, "_available", {})
    ds = film_dataset(levels())
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    told = refused(to_bytes(ds), "film.dcm", "E_DECODER")
    assert "pip install 'textray[dicom]'" in told
    assert syntax.name in told


@pytest.mark.parametrize("cut", [1, 2, 3, 101, 6000, 12000], ids=lambda n: f"{n} bytes short")
@pytest.mark.parametrize("form", ["preamble", "bare explicit", "bare implicit"])
def test_a08_cut_off_pixel_data_gives_no_mask(refused, cut, form):
    data = to_bytes(film_dataset(levels()), preamble=form == "preamble", implicit=form == "bare implicit")
    refused(data[:-cut], "film.dcm", "E_TRUNCATED")


@pytest.mark.parametrize("share", [0.5, 0.999])
def test_a08_pixel_data_shorter_than_its_tags_say_gives_no_mask(refused, share):
    pixels = levels().tobytes()
    refused(dicom(PixelData=pixels[: int(len(pixels) * share) // 2 * 2]), "film.dcm", "E_TRUNCATED")


def test_a08_a_file_that_ends_in_its_header_gives_no_mask(refused):
    data = dicom()
    refused(data[: data.index(b"CR") + 2], "film.dcm", "E_TRUNCATED")


def compressed():
    ds = film_dataset(levels())
    ds.compress(RLELossless, generate_instance_uid=False)
    return to_bytes(ds)


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a08_a_cut_off_fragment_gives_no_mask(refused, share):
    data = compressed()
    refused(data[: int(len(data) * share)], "film.dcm", "E_TRUNCATED")


def test_a08_a_corrupt_fragment_gives_no_mask(refused):
    ds = dcmread(io.BytesIO(compressed()))
    ds.PixelData = encapsulate([b"\x02\x00\x00\x00" + b"\x7f" * 400])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    refused(to_bytes(ds), "film.dcm", "E_TRUNCATED")


def test_a08_a_wrong_offset_table_gives_the_whole_mask_or_none(run, mask_of, tmp_path):
    twin = mask_of(dicom(), "twin.dcm")
    data = compressed()
    table = b"\xfe\xff\x00\xe0\x04\x00\x00\x00\x00\x00\x00\x00"
    at = data.index(b"\xfe\xff\x00\xe0")
    length = int.from_bytes(data[at + 4 : at + 8], "little")
    wrong = data[:at] + table[:8] + (77777).to_bytes(4, "little") + data[at + 8 + length :]
    (tmp_path / "wrong.dcm").write_bytes(wrong)
    result = run("wrong.dcm", "--out", "out")
    if result.code == 0:
        with PILImage.open(tmp_path / "out/wrong.mask.png") as picture:
            np.testing.assert_array_equal(np.asarray(picture), twin)
    else:
        assert result.code == 3
        assert "error E_TRUNCATED: wrong.dcm" in result.err
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["run.json"]


@pytest.mark.parametrize(
    "tags",
    [
        {"PixelSpacing": [0, 0]},
        {"PixelSpacing": [0.2, 0]},
        {"PixelSpacing": None},
        {"drop": ["PixelSpacing"]},
        {"PixelSpacing": [0, 0], "ImagerPixelSpacing": [0.15, 0.15]},
        {"drop": ["PixelSpacing"], "ImagerPixelSpacing": [0.15, 0.15]},
    ],
)
def test_a21_without_a_spacing_areas_are_in_pixels_only(run, tmp_path, tags):
    (tmp_path / "film.dcm").write_bytes(dicom(**tags))
    result = run("film.dcm")
    assert result.code == 0
    assert "warning W_UNCALIBRATED: film.dcm" in result.err
    found = record("textray-out/film.json")
    assert found["grid"]["spacing_mm"] is None
    assert found["lesion"]["pixels"] > 0
    assert found["lesion"]["mm2"] is None
    assert all(zone["mm2"] is None for zone in found["lesion"]["zones"].values())


def test_a21_with_a_spacing_areas_are_in_mm2(run, tmp_path):
    (tmp_path / "film.dcm").write_bytes(dicom())
    result = run("film.dcm")
    assert "W_UNCALIBRATED" not in result.err
    found = record("textray-out/film.json")["lesion"]
    assert found["mm2"] == pytest.approx(found["pixels"] * 0.2 * 0.3, abs=0.01)


# ---- B: PNG and JPEG


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9, 0.995])
def test_b01_a_truncated_picture_is_refused_and_never_filled(refused, kind, share):
    noise = np.random.default_rng(0).integers(0, 40, (90, 70), dtype=np.uint8)
    data = raster(np.maximum(eight_bits(), noise), kind)
    refused(data[: int(len(data) * share)], f"film.{kind.lower()}", "E_TRUNCATED")


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_b02_the_mask_lies_on_the_displayed_picture(mask_of, kind, orientation):
    exif = PILImage.Exif()
    exif[EXIF_ORIENTATION] = orientation
    data = raster(eight_bits(), kind, exif=exif)
    with PILImage.open(io.BytesIO(data)) as picture:
        shown = np.asarray(ImageOps.exif_transpose(picture))
    assert shown.shape == ((70, 90) if orientation >= 5 else (90, 70))
    mask = mask_of(data, f"turned.{kind.lower()}")
    grid = mask_of.record["grid"]
    np.testing.assert_array_equal(mask, mask_of(raster(shown), "shown.png"))
    assert grid["transform"] == f"exif-{orientation}"
    assert f"exif-{orientation}" in grid["displayed"]
    assert (grid["height"], grid["width"]) == mask.shape


def test_b03_sixteen_bits_are_neither_clipped_nor_cut_to_bytes(mask_of):
    twin = mask_of(raster(eight_bits()), "eight.png")
    np.testing.assert_array_equal(mask_of(raster(eight_bits().astype(np.uint16) * 257), "sixteen.png"), twin)
    assert mask_of.record["input"]["reader"]["bits"] == 16
    above = (20000 + eight_bits().astype(np.uint16) * 100).astype(np.uint16)  # clipped at 255 it would be constant
    np.testing.assert_array_equal(mask_of(raster(above), "above.png"), twin)


def test_b03_one_bit_uses_its_own_range(mask_of):
    spot = eight_bits() > 100
    mask = mask_of(raster(PILImage.fromarray(spot)), "one.png")
    assert mask_of.record["input"]["reader"]["bits"] == 1
    np.testing.assert_array_equal(mask, mask_of(raster(spot.astype(np.uint8) * 255), "eight.png"))


@pytest.mark.parametrize("name", ["film.tif", "film.png"])
def test_b03_a_float_tiff_is_refused_by_its_kind(refused, name):
    assert "a TIFF picture" in refused(raster(eight_bits().astype(np.float32) / 255, "TIFF"), name, "E_FORMAT")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "an empty file"),
        (b"just a note\n", "text"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "an HTML page"),
        (b"\n <html><head></head></html>", "an HTML page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "an XML document"),
        (b"PK\x03\x04" + bytes(60), "a zip archive"),
    ],
)
@pytest.mark.parametrize("name", ["film.png", "film.jpg", "film.dcm"])
def test_b07_what_is_no_picture_is_refused_by_what_it_is(refused, data, kind, name):
    assert kind in refused(data, name, "E_FORMAT")


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (raster(np.zeros((90, 70), np.uint8)), "zero.png"),
        (raster(np.full((90, 70), 255, np.uint8)), "max.png"),
        (raster(np.full((90, 70), 65535, np.uint16)), "max16.png"),
        (raster(PILImage.new("1", (70, 90), 1)), "max1.png"),
        (raster(np.full((90, 70, 3), 128, np.uint8)), "grey.png"),
        (raster(np.zeros((90, 70), np.uint8), "JPEG"), "zero.jpg"),
        (raster(np.full((90, 70), 255, np.uint8), "JPEG"), "max.jpg"),
        (dicom(np.zeros((90, 70), np.uint16)), "zero.dcm"),
        (dicom(np.full((90, 70), TOP, np.uint16)), "max.dcm"),
        (dicom(np.full((90, 70), 7, np.uint16), PhotometricInterpretation="MONOCHROME1"), "one.dcm"),
        (dicom(np.full((90, 70), 7, np.uint16), WindowCenter=7, WindowWidth=1), "windowed.dcm"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_b08_a_constant_picture_is_refused(refused, data, name):
    refused(data, name, "E_CONSTANT")


def test_one_bad_film_among_good_ones_is_the_only_one_without_a_result(run, tmp_path):
    (tmp_path / "in").mkdir()
    for name, data in {
        "a.dcm": dicom(),
        "b.dcm": dicom()[:-3],
        "c.png": raster(np.zeros((90, 70), np.uint8)),
        "d.png": raster(eight_bits()),
        "e.jpg": b"<html>",
    }.items():
        (tmp_path / "in" / name).write_bytes(data)
    result = run("in", "--json")
    assert result.code == 3
    assert {row["input"]: (row["status"], row["code"]) for row in result.rows if row["type"] == "result"} == {
        "in/a.dcm": ("done", ""),
        "in/b.dcm": ("failed", "E_TRUNCATED"),
        "in/c.png": ("failed", "E_CONSTANT"),
        "in/d.png": ("done", ""),
        "in/e.jpg": ("failed", "E_FORMAT"),
    }
    assert sorted(path.name for path in (tmp_path / "textray-out").iterdir()) == [
        "a.json", "a.mask.png", "a.overlay.png", "d.json", "d.mask.png", "d.overlay.png", "run.json",
    ]  # fmt: skip


def test_no_identifier_of_a_film_gets_into_anything_that_is_written(run, tmp_path):
    planted = ["PLANTED^JANE", "PID4711", "19331224", "ACC0815", "DRPLANTED", "Planted Hospital", "1.2.826.77.1"]
    keywords = (
        "PatientName", "PatientID", "PatientBirthDate", "AccessionNumber", "ReferringPhysicianName", "InstitutionName",
        "StudyInstanceUID", "StudyDescription", "ImageComments", "PatientComments",
    )  # fmt: skip
    tags = dict(zip(keywords, [*planted, "Planted words", "Planted words", "Planted words"], strict=True))
    (tmp_path / "good.dcm").write_bytes(dicom(**tags))
    (tmp_path / "cut.dcm").write_bytes(dicom(**tags)[:-3])
    (tmp_path / "tag.dcm").write_bytes(dicom(**tags, PhotometricInterpretation="PLANTED", ViewPosition="PLANTED"))
    (tmp_path / "odd.dcm").write_bytes(dicom(**tags, Modality="PLANTED", ViewPosition="PLANTED"))
    (tmp_path / "frames.dcm").write_bytes(dicom(**tags).replace(b"CS\x02\x00CR", b"CS\x02\x00\xff\xfe"))
    (tmp_path / "window.dcm").write_bytes(dicom(**tags, WindowCenterWidthExplanation="PLANTED"))
    result = run(*sorted(path.name for path in tmp_path.glob("*.dcm")), "--json", "--text", "left base")
    assert result.code == 3
    written = [path for path in (tmp_path / "textray-out").rglob("*") if path.is_file()]
    assert len(written) > 6
    for words in [*planted, "PLANTED", "Planted"]:
        assert words not in result.out + result.err
        for path in written:
            assert words.encode() not in path.read_bytes(), path
            assert words not in path.name
