"""Pictures without masks beside a data set: which files are taken, and what is understood of their reports."""

import logging

import numpy as np
import pytest
from PIL import Image as PILImage

from textray import registry
from textray.data.qata_cov19 import QaTaCOV19
from textray.data.unlabelled import unlabelled_samples
from textray.errors import DataError, InputError, LayoutError, UsageError
from textray.io.write import write_mask
from textray.records import Laterality

QATA, MONUSEG, MOSMED = (registry.dataset(name) for name in ("qata_cov19", "monuseg", "mosmed_plus"))
LEFT, RIGHT = (True, False, False, False, False, False), (False, False, False, True, False, False)


def write(path, kind="PNG"):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 256, (20, 16), dtype=np.uint8)
    with path.open("wb") as stream:
        PILImage.fromarray(pixels).save(stream, format=kind)


@pytest.fixture
def films(tmp_path):
    """Pictures ``a``, ``b`` (no suffix) and ``ward/c`` among what is none."""
    folder = tmp_path / "films"
    write(folder / "a.png")
    write(folder / "b", "JPEG")
    write(folder / "ward" / "c.jpg", "JPEG")
    write(folder / ".hidden" / "d.png")
    write(folder / "e.bmp", "BMP")
    (folder / "notes.txt").write_text("nothing to see")
    write_mask(folder / "a.mask.png", np.eye(8, dtype=bool))
    return folder


def table(tmp_path, text):
    path = tmp_path / "reports.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_pictures_are_known_by_their_content(films, caplog):
    with caplog.at_level(logging.INFO):
        found = unlabelled_samples(films, QATA)
    assert [sample.image_id for sample in found] == ["a.png", "b", "ward/c.jpg"]
    assert [sample.image_path for sample in found] == [films / sample.image_id for sample in found]
    assert all(sample.mask_path is None and sample.report.text is None for sample in found)
    assert {sample.split for sample in found} == {"fit"}
    assert len({sample.group for sample in found}) == 3  # nobody knows whose they are
    assert "3 files in" in caplog.text  # the text, the BMP and the mask
    assert "3 pictures without masks" in caplog.text
    with pytest.raises(DataError, match=r"a\.png has no mask"):
        found[0].read_mask()


def test_words_are_placed_by_whose_sides_they_mean(films, tmp_path):
    texts = table(
        tmp_path, "image,text,laterality\na,Opacity in the left upper lobe.,\nward/c.jpg,left upper opacity,viewer\n"
    )
    for given, a in ((Laterality.PATIENT, RIGHT), (Laterality.VIEWER, LEFT)):
        found = unlabelled_samples(films, QATA, texts=texts, laterality=given)
        reports = {sample.image_id: sample.report for sample in found}
        assert reports["a.png"].zones.present == a
        assert reports["ward/c.jpg"].zones.present == LEFT
        assert not reports["b"].zones.mentioned
    assert unlabelled_samples(films, QATA, texts=texts)[0].report.zones.present == RIGHT  # the patient's, as elsewhere


def test_sides_that_cannot_be_brought_together_are_refused(films, tmp_path):
    texts = table(tmp_path, "image,text\na,left upper opacity\n")
    with pytest.raises(UsageError, match=r"same sides.*unknown in line 2, viewer in qata_cov19"):
        unlabelled_samples(films, QATA, texts=texts, laterality=Laterality.UNKNOWN)
    with pytest.raises(UsageError, match=r"same sides.*patient in line 2, unknown in mosmed_plus"):
        unlabelled_samples(films, MOSMED, texts=texts)
    found = unlabelled_samples(films, MOSMED, texts=texts, laterality=Laterality.UNKNOWN)
    assert found[0].report.zones.present == LEFT


def test_what_a_table_cannot_tell_is_said(films, tmp_path, caplog):
    texts = table(tmp_path, "image,text\na,Large heart.\nb,No consolidation.\nward/c.jpg,left base\nz,left base\n")
    found = unlabelled_samples(films, QATA, texts=texts)
    assert "W_UNKNOWN_IMAGE: 1 rows" in caplog.text
    assert "W_NO_ZONE: texts of 2 pictures" in caplog.text
    assert "a.png, b" in caplog.text
    assert [bool(sample.report.zones) for sample in found] == [False, False, True]
    assert not found[0].report.zones.mentioned


def test_free_captions_are_those_of_the_data_set(films, tmp_path, caplog):
    texts = table(tmp_path, "image,text\na,Nuclei are dense.\nb,Nuclei sleep.\n")
    found = unlabelled_samples(films, MONUSEG, texts=texts, captions=("Nuclei are dense.",))
    assert [(sample.report.text, sample.report.free) for sample in found[:2]] == [
        ("Nuclei are dense.", True),
        (None, False),
    ]
    assert "1 texts of" in caplog.text


def test_pictures_of_the_data_set_are_refused(films, qata):
    """Those of every split that is there, the training's, the selecting and the test part."""
    reader = QaTaCOV19(qata)
    for split in ("fit", "inner", "val", "test"):
        taken = films / "ward" / f"{reader.samples(split)[0].image_id.upper()}.png"
        write(taken)
        with pytest.raises(DataError, match="have the names of pictures of qata_cov19") as caught:
            unlabelled_samples(films, QATA, known=reader)
        assert str(taken.relative_to(films)) in str(caught.value)
        taken.unlink()
    assert len(unlabelled_samples(films, QATA, known=reader)) == 3


def test_a_part_that_is_not_there_is_no_hindrance(films, qata):
    (qata / "Test Set").rename(qata / "elsewhere")
    assert len(unlabelled_samples(films, QATA, known=QaTaCOV19(qata))) == 3


def test_a_folder_must_hold_pictures(tmp_path):
    with pytest.raises(LayoutError, match="no folder"):
        unlabelled_samples(tmp_path / "nowhere", QATA)
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "a.png").write_text("not a picture")
    with pytest.raises(LayoutError, match="1 other files"):
        unlabelled_samples(tmp_path / "films", QATA)


def test_colour_takes_tiff(tmp_path):
    write(tmp_path / "films" / "a.tif", "TIFF")
    assert len(unlabelled_samples(tmp_path / "films", MONUSEG, colour=True)) == 1
    with pytest.raises(LayoutError):
        unlabelled_samples(tmp_path / "films", QATA)


def test_a_damaged_dicom_file_is_named(films, tmp_path):
    (films / "x.dcm").write_bytes(bytes(128) + b"DICM" + bytes(40))
    with pytest.raises(InputError, match=r"x\.dcm"):
        unlabelled_samples(films, QATA, texts=table(tmp_path, "image,text\nx,left base\n"))
