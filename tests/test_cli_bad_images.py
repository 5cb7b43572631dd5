"""Bad and odd pictures through `textray segment`: the right mask or a named refusal, and nothing half-written.

`tests/io` has all variants of them, and `tests/golden` a folder of bad files.
"""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage
from PIL import ImageOps


def record(path):
    return json.loads(Path(path).read_bytes())


def test_objects_without_pixels_are_skipped_in_a_folder_and_refused_by_name(run, film, tmp_path, dicom, levels):
    film(tmp_path / "in/a.png")
    tags = {"Modality": "SR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11"}
    (tmp_path / "in/object").write_bytes(dicom(levels, drop=["Rows", "Columns", "PixelData"], **tags))
    below = run("in")
    assert below.code == 0
    assert "skipped W_NOT_IMAGE: in/object: " in below.err
    assert record("textray-out/run.json")["counts"] == {"done": 1, "finished": 0, "skipped": 1, "failed": 0}
    named = run("in/object", "--out", "named")
    assert named.code == 3
    assert "error W_NOT_IMAGE: in/object: " in named.err
    assert [path.name for path in (tmp_path / "named").iterdir()] == ["run.json"]


@pytest.mark.parametrize(("kind", "orientation"), [("JPEG", 6), ("PNG", 4), ("PNG", 7)])
def test_the_mask_lies_on_the_displayed_picture(run, tmp_path, raster, levels, kind, orientation):
    data = raster((levels >> 4).astype(np.uint8), kind, orientation=orientation)
    with PILImage.open(io.BytesIO(data)) as picture:
        shown = np.asarray(ImageOps.exif_transpose(picture))
    (tmp_path / "turned").write_bytes(data)
    (tmp_path / "shown").write_bytes(raster(shown))
    assert run("turned", "shown").code == 0
    masks = [(tmp_path / f"textray-out/{name}.mask.png").read_bytes() for name in ("turned", "shown")]
    assert masks[0] == masks[1]
    with PILImage.open(io.BytesIO(masks[0])) as mask:
        assert set(np.unique(np.asarray(mask))) == {0, 255}
    grid = record("textray-out/turned.json")["grid"]
    assert grid["transform"] == f"exif-{orientation}"
    assert f"exif-{orientation}" in grid["displayed"]
    assert (grid["height"], grid["width"]) == shown.shape


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
