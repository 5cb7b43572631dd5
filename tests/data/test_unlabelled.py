"""Pictures without masks beside a data set: which files are taken, and what is understood of their reports."""

import logging

import numpy as np
import pytest
from PIL import Image as PILImage
from pydicom.uid import BasicTextSRStorage

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
    write(folder / "e.gif", "GIF")
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
    assert all(sample.mask_path is None and sample.report.text is None for sample in found)
    assert {sample.split for sample in found} == {"fit"}
    assert len({sample.group for sample in found}) == 3  # nobody knows whose they are
    assert "3 files in" in caplog.text  # the text, the GIF and the mask
    with pytest.raises(DataError, match=r"a\.png has no mask"):
        found[0].read_mask()


def test_words_are_placed_by_whose_sides_they_mean(films, tmp_path):
    rows = "a,Opacity in the left upper lobe.,\nward/c.jpg,left upper opacity,viewer\n"
    texts = table(tmp_path, f"image,text,laterality\n{rows}")
    for given, a in ((Laterality.PATIENT, RIGHT), (Laterality.VIEWER, LEFT)):
        found = unlabelled_samples(films, QATA, texts=texts, laterality=given)
        reports = {sample.image_id: sample.report for sample in found}
        assert reports["a.png"].zones.present == a
        assert reports["ward/c.jpg"].zones.present == LEFT
        assert not reports["b"].zones.mentioned
    assert unlabelled_samples(films, QATA, texts=texts)[0].report.zones.present == RIGHT  # the patient's, as elsewhere


def test_one_sided_words_are_not_used_where_sides_are_unknown(films, tmp_path, caplog):
    """Two conventions that are unknown need not be the same one, so these words are dropped too."""
    texts = table(tmp_path, "image,text\na,left upper opacity\nb,bibasal consolidation\n")
    for row, side in ((QATA, Laterality.UNKNOWN), (MOSMED, Laterality.PATIENT), (MOSMED, Laterality.UNKNOWN)):
        caplog.clear()
        a, b, _ = unlabelled_samples(films, row, texts=texts, laterality=side)
        assert not a.report.zones.mentioned
        assert a.report.text is None
        assert b.report.zones.present == (False, False, True, False, False, True)
        assert "W_SIDES_UNKNOWN: 1 reports, of a.png" in caplog.text
    assert unlabelled_samples(films, QATA, texts=texts)[0].report.zones


def test_what_a_table_does_not_say_is_logged(films, tmp_path, caplog):
    texts = table(tmp_path, "image,text\na,Large heart.\nb,No consolidation.\nward/c.jpg,left base\nz,left base\n")
    found = unlabelled_samples(films, QATA, texts=texts)
    assert "3 of 3 pictures without masks have a report" in caplog.text
    assert "are the patient's" in caplog.text  # every door says whose sides it takes
    assert "W_UNKNOWN_IMAGE: 1 row of " in caplog.text
    assert "W_NO_ZONE: 1 reports, of a.png" in caplog.text
    assert "W_NEGATIVE: 1 reports, of b:" in caplog.text
    assert "W_SIDES_ASSUMED: 1 reports, of c.jpg" in caplog.text
    assert [bool(sample.report.zones) for sample in found] == [False, False, True]
    assert [sample.report.zones.mentioned for sample in found] == [False, True, True]


def test_rows_name_pictures_by_their_path_below_the_folder(tmp_path):
    folder = tmp_path / "films"
    for name in ("001.png", "x/001.png", "y/001.png"):
        write(folder / name)
    rows = "image,text\n001.png,left base\nx/001.png,left apex\ny/001.png,\n"
    root, x, y = unlabelled_samples(folder, QATA, texts=table(tmp_path, rows))
    assert root.report.zones.present == (False,) * 5 + (True,)
    assert x.report.zones.present == RIGHT
    assert not y.report.zones.mentioned
    with pytest.raises(UsageError, match="as much of the path"):
        unlabelled_samples(folder / "..", QATA, texts=table(tmp_path, "image,text\n001,left base\n"))


def test_free_captions_are_those_of_the_data_set(films, tmp_path, caplog):
    texts = table(tmp_path, "image,text\na,nuclei  are DENSE.\nb,Nuclei sleep.\n")
    found = unlabelled_samples(films, MONUSEG, texts=texts, captions=("Nuclei are dense.",))
    assert [sample.report.text for sample in found[:2]] == ["Nuclei are dense.", None]
    assert found[0].report.free
    assert "W_UNKNOWN_CAPTION: 1 reports" in caplog.text


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


def test_a_folder_must_hold_pictures(tmp_path):
    with pytest.raises(LayoutError, match="no folder"):
        unlabelled_samples(tmp_path / "nowhere", QATA)
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "a.png").write_text("not a picture")
    with pytest.raises(LayoutError, match="1 other files"):
        unlabelled_samples(tmp_path / "films", QATA)
    for name, kind in (("b.tif", "TIFF"), ("c.bmp", "BMP")):  # whatever `textray segment` reads
        write(tmp_path / "films" / name, kind)
    for row, colour in ((QATA, False), (MONUSEG, True)):
        assert len(unlabelled_samples(tmp_path / "films", row, colour=colour)) == 2


@pytest.fixture
def damaged(dicom, levels):
    """Bytes of a DICOM film without rows."""
    return dicom(levels, drop=("Rows", "PixelData"))


def test_damaged_dicom_files_are_all_named_and_no_films_left_out(films, dicom, levels, damaged, caplog):
    report = dicom(levels, drop=("Rows", "PixelData"), SOPClassUID=BasicTextSRStorage)
    (films / "report.dcm").write_bytes(report)
    assert len(unlabelled_samples(films, QATA)) == 3
    assert "4 files in" in caplog.text
    paths = [films / "x.dcm", films / "ward" / "x.dcm"]
    for path in paths:
        path.write_bytes(damaged)
    with pytest.raises(DataError, match="2 files cannot be used") as caught:
        unlabelled_samples(films, QATA)
    assert all(str(path) in str(caught.value) and f"{path}: " in caplog.text for path in paths)
    paths[0].unlink()
    with pytest.raises(InputError, match=str(paths[1])):
        unlabelled_samples(films, QATA)


def test_what_cannot_be_read_is_named_and_links_are_followed(films, tmp_path, caplog):
    (tmp_path / "elsewhere").mkdir()
    write(tmp_path / "elsewhere" / "d.png")
    (films / "link").symlink_to(tmp_path / "elsewhere")
    (films / "broken.png").symlink_to(tmp_path / "nowhere.png")
    (films / "ward" / "up").symlink_to(films)
    found = unlabelled_samples(films, QATA)
    assert [sample.image_id for sample in found] == ["a.png", "b", "link/d.png", "ward/c.jpg"]
    assert f"W_UNREADABLE {films / 'broken.png'}" in caplog.text
    assert f"W_LINK_LOOP {films / 'ward' / 'up'}" in caplog.text


def test_a_limit_looks_no_further(films, damaged):
    (films / "z.dcm").write_bytes(damaged)
    assert [sample.image_id for sample in unlabelled_samples(films, QATA, limit=2)] == ["a.png", "b"]


def test_a_part_that_is_faulty_or_not_there_is_no_hindrance(films, qata, caplog):
    prompts = qata / "prompt" / "test.csv"
    prompts.write_text("\n".join(prompts.read_text().splitlines()[:-1]))
    assert len(unlabelled_samples(films, QATA, known=QaTaCOV19(qata))) == 3
    assert "not compared with those of test" in caplog.text
    (qata / "Test Set").rename(qata / "elsewhere")
    assert len(unlabelled_samples(films, QATA, known=QaTaCOV19(qata))) == 3
