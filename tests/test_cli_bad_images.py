"""Bad and odd pictures through `textray segment`: the right mask or a named refusal, and nothing half-written.

`tests/io` has all variants of them, and `tests/golden` a folder of bad files.
"""

import hashlib
import io
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image as PILImage
from PIL import ImageOps


@pytest.fixture
def mask_of(run, tmp_path):
    """Mask that the command writes for a file's bytes, neither empty nor full; ``.record`` is its record."""

    def segment(data: bytes, name: str) -> np.ndarray:
        (tmp_path / name).write_bytes(data)
        out = hashlib.sha256(data + name.encode()).hexdigest()[:12]
        result = run(name, "--out", out)
        assert result.code == 0, result.err
        (path,) = (tmp_path / out).glob("*.mask.png")
        with PILImage.open(path) as picture:
            mask = np.asarray(picture)
        assert set(np.unique(mask)) == {0, 255}
        segment.record = record(str(path).removesuffix(".mask.png") + ".json")
        return mask

    return segment


def record(path):
    return json.loads(Path(path).read_bytes())


@pytest.fixture
def eight(levels):
    return (levels >> 4).astype(np.uint8)


REFUSED = {
    "missing tag": (lambda m: m.dicom(m.levels, drop=["Rows"]), "film.dcm", "E_DICOM_TAG", "tag Rows "),
    "deflated": (lambda m: m.dicom(m.levels, syntax="deflated"), "film.dcm", "E_DECODER", "deflated"),
    "cut DICOM": (lambda m: m.dicom(m.levels)[:-3], "film.dcm", "E_TRUNCATED", "pixel data"),
    "cut JPEG": (lambda m: m.raster(m.noise, "JPEG")[:-40], "film.jpeg", "E_TRUNCATED", "JPEG"),
    "two frames": (lambda m: m.dicom(m.levels, NumberOfFrames=2), "film.dcm", "E_MULTIFRAME", "2 frames"),
    "constant DICOM": (lambda m: m.dicom(m.levels * 0 + 7), "a.dcm", "E_CONSTANT", "constant"),
    "float TIFF": (lambda m: m.raster(m.noise.astype(np.float32), "TIFF"), "a.png", "E_FORMAT", "a TIFF picture"),
    "HTML": (lambda m: b"\n <html><head></head></html>", "film.dcm", "E_FORMAT", "an HTML page"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_a_refused_file_leaves_the_summary_only(run, tmp_path, dicom, raster, levels, fault):
    make, name, code, words = REFUSED[fault]
    noise = np.random.default_rng(0).integers(0, 255, levels.shape, dtype=np.uint8)
    data = make(SimpleNamespace(dicom=dicom, raster=raster, levels=levels, noise=noise))
    (tmp_path / name).write_bytes(data)
    result = run(name)
    assert result.code == 3, result.err
    assert f"error {code}: {name}: " in result.err
    assert words in result.err
    assert "Traceback" not in result.err
    assert result.out == ""
    assert [path.name for path in (tmp_path / "textray-out").iterdir()] == ["run.json"]
    (row,) = record("textray-out/run.json")["items"]
    assert (row["status"], row["code"], row["outputs"]) == ("failed", code, {})
    assert (tmp_path / name).read_bytes() == data


@pytest.mark.parametrize("name", ["object.dcm", "object"])
def test_objects_without_pixels_are_skipped_in_a_folder_and_refused_by_name(run, film, tmp_path, dicom, levels, name):
    film(tmp_path / "in/a.png")
    tags = {"Modality": "SR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11"}
    (tmp_path / "in" / name).write_bytes(dicom(levels, drop=["Rows", "Columns", "PixelData"], **tags))
    below = run("in")
    assert below.code == 0
    assert f"skipped W_NOT_IMAGE: in/{name}: " in below.err
    assert record("textray-out/run.json")["counts"] == {"done": 1, "finished": 0, "skipped": 1, "failed": 0}
    named = run(f"in/{name}", "--out", "named")
    assert named.code == 3
    assert f"error W_NOT_IMAGE: in/{name}: " in named.err
    assert [path.name for path in (tmp_path / "named").iterdir()] == ["run.json"]


def test_films_without_an_extension_are_found_in_a_folder(run, tmp_path, dicom, levels):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/IM0001").write_bytes(dicom(levels))
    (tmp_path / "in/IM0002.DCM").write_bytes(dicom(levels, preamble=False))
    assert run("in").code == 0
    assert record("textray-out/run.json")["counts"]["done"] == 2
    masks = [(tmp_path / f"textray-out/IM000{i}.mask.png").read_bytes() for i in (1, 2)]
    assert masks[0] == masks[1]


def test_monochrome1_gives_the_mask_of_its_twin(mask_of, dicom, levels):
    twin = mask_of(dicom(levels), "two.dcm")
    mask = mask_of(dicom(4095 - levels, PhotometricInterpretation="MONOCHROME1"), "one.dcm")
    np.testing.assert_array_equal(mask, twin)
    assert mask_of.record["input"]["reader"]["inverted"] is True


@pytest.mark.parametrize(("kind", "orientation"), [("JPEG", 6), ("PNG", 4), ("PNG", 7)])
def test_the_mask_lies_on_the_displayed_picture(mask_of, raster, eight, kind, orientation):
    data = raster(eight, kind, orientation=orientation)
    with PILImage.open(io.BytesIO(data)) as picture:
        shown = np.asarray(ImageOps.exif_transpose(picture))
    mask = mask_of(data, f"turned.{kind.lower()}")
    grid = mask_of.record["grid"]
    np.testing.assert_array_equal(mask, mask_of(raster(shown), "shown.png"))
    assert grid["transform"] == f"exif-{orientation}"
    assert f"exif-{orientation}" in grid["displayed"]
    assert (grid["height"], grid["width"]) == mask.shape


@pytest.mark.parametrize(
    ("bits", "stored", "twin"),
    [
        (16, lambda eight: eight.astype(np.uint16) * 257, lambda eight: eight),
        (16, lambda eight: 20000 + eight.astype(np.uint16) * 100, lambda eight: eight),  # constant if clipped at 255
        (1, lambda eight: PILImage.fromarray(eight > 100), lambda eight: (eight > 100).astype(np.uint8) * 255),
    ],
    ids=["sixteen", "bright sixteen", "one"],
)
def test_other_depths_use_their_own_range(mask_of, raster, eight, bits, stored, twin):
    mask = mask_of(raster(stored(eight)), "film.png")
    assert mask_of.record["input"]["reader"]["bits"] == bits
    np.testing.assert_array_equal(mask, mask_of(raster(twin(eight)), "eight.png"))


def test_no_identifier_of_a_film_gets_into_anything_that_is_written(run, tmp_path, dicom, levels):
    planted = ["PLANTED^JANE", "PID4711", "19331224", "ACC0815", "DRPLANTED", "Planted Hospital", "1.2.826.77.1"]
    keywords = (
        "PatientName", "PatientID", "PatientBirthDate", "AccessionNumber", "ReferringPhysicianName", "InstitutionName",
        "StudyInstanceUID", "StudyDescription", "ImageComments", "PatientComments",
    )  # fmt: skip
    tags = dict(zip(keywords, [*planted, "Planted words", "Planted words", "Planted words"], strict=True))
    good = dicom(levels, **tags)
    for name, data in {
        "good": good,
        "cut": good[:-3],
        "tag": dicom(levels, **tags, PhotometricInterpretation="PLANTED", ViewPosition="PLANTED"),
        "odd": dicom(levels, **tags | {"Modality": "PLANTED", "ViewPosition": "PLANTED"}),
        "frames": good.replace(b"CS\x02\x00CR", b"CS\x02\x00\xff\xfe"),
        "window": dicom(levels, **tags, WindowCenterWidthExplanation="PLANTED"),
    }.items():
        (tmp_path / f"{name}.dcm").write_bytes(data)
    result = run(*sorted(path.name for path in tmp_path.glob("*.dcm")), "--json", "--text", "left base")
    assert result.code == 3
    written = [path for path in (tmp_path / "textray-out").rglob("*") if path.is_file()]
    assert len(written) > 6
    for words in [*planted, "PLANTED", "Planted"]:
        assert words not in result.out + result.err
        for path in written:
            assert words.encode() not in path.read_bytes(), path
            assert words not in path.name
