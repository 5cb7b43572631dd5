"""Bad and odd pictures through `textray segment`: the right mask or a named refusal, and nothing half-written.

One case for each kind of fault and each exit; `tests/io` asks the reader about all of their forms.
"""

import hashlib
import io
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage
from PIL import ImageOps
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import decoders
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
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


def test_a01_monochrome1_gives_the_mask_of_its_twin(mask_of):
    twin = mask_of(dicom(WindowCenter=1500, WindowWidth=1000), "two.dcm")
    inverse = {"WindowCenter": TOP - 1500 + 1, "WindowWidth": 1000}
    mask = mask_of(dicom(TOP - levels(), PhotometricInterpretation="MONOCHROME1", **inverse), "one.dcm")
    np.testing.assert_array_equal(mask, twin)
    assert mask_of.record["input"]["reader"]["inverted"] is True


def test_a03_a_missing_tag_is_named(refused):
    assert "tag Rows " in refused(dicom(drop=["Rows"]), "film.dcm", "E_DICOM_TAG")


@pytest.mark.parametrize("name", ["object.dcm", "object"])
def test_a04_objects_without_pixels_are_skipped_in_a_folder_and_refused_by_name(run, film, tmp_path, name):
    ds = film_dataset(levels(), Modality="SR", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11")
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


@pytest.mark.parametrize(
    ("name", "form"), [("film.png", "preamble"), ("film", "bare explicit"), ("1.2.840.7", "bare implicit")]
)
def test_a05_a_film_is_known_by_its_content(mask_of, name, form):
    twin = mask_of(dicom(), "twin.dcm")
    data = to_bytes(film_dataset(levels()), preamble=form == "preamble", implicit=form == "bare implicit")
    np.testing.assert_array_equal(mask_of(data, name), twin)
    assert mask_of.record["input"]["reader"]["format"] == "dicom"


@pytest.mark.parametrize("name", ["film.dcm", "film"])
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


def test_a07_a_missing_decoder_names_its_extra(refused, monkeypatch):
    monkeypatch.setattr(decoders.JPEG2000LosslessDecoder, "_available", {})
    ds = film_dataset(levels())
    ds.file_meta.TransferSyntaxUID = JPEG2000Lossless
    ds.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    told = refused(to_bytes(ds), "film.dcm", "E_DECODER")
    assert "pip install 'textray[dicom]'" in told
    assert JPEG2000Lossless.name in told


def test_a08_cut_off_pixel_data_gives_no_mask(refused):
    refused(dicom()[:-1], "film.dcm", "E_TRUNCATED")


def test_a21_without_a_spacing_areas_are_in_pixels_only(run, tmp_path):
    (tmp_path / "film.dcm").write_bytes(dicom(PixelSpacing=[0, 0]))
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


@pytest.mark.parametrize(("kind", "share"), [("PNG", 0.5), ("JPEG", 0.995)])
def test_b01_a_truncated_picture_is_refused_and_never_filled(refused, kind, share):
    noise = np.random.default_rng(0).integers(0, 40, (90, 70), dtype=np.uint8)
    data = raster(np.maximum(eight_bits(), noise), kind)
    refused(data[: int(len(data) * share)], f"film.{kind.lower()}", "E_TRUNCATED")


@pytest.mark.parametrize(("kind", "orientation"), [("PNG", 3), ("JPEG", 6)])
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


def test_b07_what_is_no_picture_is_refused_by_what_it_is(refused):
    data = b"<!DOCTYPE html><html><body>404</body></html>"
    assert "an HTML page" in refused(data, "film.dcm", "E_FORMAT")


def test_b08_a_constant_picture_is_refused(refused):
    refused(raster(np.full((90, 70), 255, np.uint8)), "max.png", "E_CONSTANT")


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
