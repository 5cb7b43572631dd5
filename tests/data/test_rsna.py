"""RSNA Pneumonia on a small copy in its published layout, made without code of the reader."""

import io

import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, SecondaryCaptureImageStorage, generate_uid

from textray.data.base import open_reader
from textray.data.boxes import truth
from textray.data.rsna import RSNA
from textray.errors import DataError, LayoutError, UsageError
from textray.io.read import read

FILMS = {  # boxes of a film as the labels have them
    "0004cfab": [],
    "00436515": [(264.0, 152.0, 213.0, 379.0), (562.0, 152.0, 256.0, 453.0)],
    "00704310": [(323.0, 577.0, 160.0, 104.0)],
    "c1f6b555": [],
    "0100515c": [(100.0, 100.0, 200.0, 200.0), (200.0, 200.0, 200.0, 200.0)],
    "00313ee0": [(10.0, 10.0, 50.0, 60.0)],
}
LISTED = ["c1f6b555", "0100515c", "00436515"]


def write_dicom(path, size=64):
    """Secondary capture, 8 bit, JPEG baseline, as the challenge has them."""
    picture = io.BytesIO()
    Image.linear_gradient("L").resize((size, size)).save(picture, "JPEG")
    film = Dataset()
    film.file_meta = FileMetaDataset()
    film.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    film.file_meta.MediaStorageSOPClassUID = film.SOPClassUID = SecondaryCaptureImageStorage
    film.file_meta.MediaStorageSOPInstanceUID = film.SOPInstanceUID = generate_uid()
    film.PatientID, film.Modality, film.ViewPosition, film.BodyPartExamined = path.stem, "CR", "PA", "CHEST"
    film.PhotometricInterpretation, film.SamplesPerPixel = "MONOCHROME2", 1
    film.Rows = film.Columns = size
    film.BitsAllocated = film.BitsStored = 8
    film.HighBit, film.PixelRepresentation = 7, 0
    film.PixelSpacing = [0.139, 0.139]
    film.PixelData = encapsulate([picture.getvalue()])
    film["PixelData"].is_undefined_length = True
    film.save_as(path, enforce_file_format=True)


def write_list(root, names, boxes=FILMS):
    lines = ["ID,img_path,boxes,classes"]
    for name in names:
        listed = "|".join(";".join(map(str, box)) for box in boxes[name]) or "nan"
        lines.append(f"{name},/mnt/elsewhere/1.2.276.0.{len(name)}.dcm,{listed},{int(bool(boxes[name]))}")
    (root / "test.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture
def rsna(tmp_path):
    root = tmp_path / "rsna-pneumonia-detection-challenge"
    (root / "stage_2_train_images").mkdir(parents=True)
    labels, classes = ["patientId,x,y,width,height,Target"], ["patientId,class"]
    for name, boxes in FILMS.items():
        labels += [f"{name},{x},{y},{w},{h},1" for x, y, w, h in boxes] or [f"{name},,,,,0"]
        classes += [f"{name},{'Lung Opacity' if boxes else 'Normal'}"] * max(1, len(boxes))
        write_dicom(root / "stage_2_train_images" / f"{name}.dcm")
    (root / "stage_2_train_labels.csv").write_text("\r\n".join(labels))
    (root / "stage_2_detailed_class_info.csv").write_text("\n".join(classes))
    write_list(root, LISTED)
    return tmp_path


def folder(root):
    return root / "rsna-pneumonia-detection-challenge"


def change_labels(root, old, new):
    path = folder(root) / "stage_2_train_labels.csv"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))


def test_films_with_boxes_are_asked_once(rsna):
    found = open_reader("rsna", rsna).phrases("test")
    assert [(p.image_id, len(p.boxes)) for p in found] == [("00436515", 2), ("0100515c", 2)]
    assert {(p.phrase, p.label) for p in found} == {("Findings suggesting pneumonia.", "Pneumonia")}
    assert found[1].group == "0100515c"
    assert truth(found[1], (1024, 1024)).sum() == 40000 + 40000 - 10000
    assert read(found[1].image_path).grid.shape == (64, 64)
    assert truth(found[1], (64, 64))[7:18, 7:18].any()


def test_train_is_what_the_list_leaves(rsna):
    assert [p.image_id for p in open_reader("rsna", rsna).phrases("train")] == ["00704310", "00313ee0"]
    parts = {split: {p.image_id for p in open_reader("rsna", rsna).phrases(split)} for split in ("inner", "fit")}
    assert len(parts["inner"]) == len(parts["fit"]) == 1
    assert parts["inner"] | parts["fit"] == {"00704310", "00313ee0"}
    with pytest.raises(UsageError, match="has no val"):
        open_reader("rsna", rsna).phrases("val")


def test_another_list_of_films_may_be_given(rsna, tmp_path):
    own = tmp_path / "own.csv"
    own.write_text("patientId,x\n00704310,1\n00436515,1\n00436515,2\n")
    assert [p.image_id for p in RSNA(rsna, test_list=own).phrases("test")] == ["00436515", "00704310"]
    own.write_text("film\n00704310\n")
    with pytest.raises(DataError, match="lacks the column ID or patientId"):
        RSNA(rsna, test_list=own).phrases("test")


def test_no_list_no_split(rsna):
    (folder(rsna) / "test.csv").unlink()
    with pytest.raises(LayoutError, match="no list of test films"):
        open_reader("rsna", rsna).phrases("test")
    assert RSNA(rsna).check().counts["list of test films"] == "not present"


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("0004cfab,,,,,0", "0004cfab,,,,,1", "E_ROW"),
        ("0004cfab,,,,,0", "0004cfab,1,2,3,4,0", "E_ROW"),
        ("0004cfab,,,,,0", "0004cfab,,,,,", "E_ROW"),
        ("c1f6b555,,,,,0", "00704310,,,,,0", "E_ROW"),
        ("323.0,577.0,160.0", "323.0,577.0,-160.0", "E_BOX"),
        ("323.0,577.0,160.0", "900.0,577.0,160.0", "W_BOX_CUT"),
    ],
)
def test_broken_rows_are_found_and_named(rsna, old, new, code):
    change_labels(rsna, old, new)
    assert any(p.code == code and p.message.startswith("row ") for p in RSNA(rsna).check().problems)
    if code.startswith("E_"):
        with pytest.raises(DataError, match=code):
            open_reader("rsna", rsna).phrases("train")


def test_a_list_that_disagrees_is_listed(rsna):
    write_list(folder(rsna), LISTED, {**FILMS, "0100515c": FILMS["0100515c"][:1]})
    (problem,) = RSNA(rsna).check().problems
    assert (problem.code, problem.fatal) == ("W_LIST_BOXES", False)
    assert "row 3" in problem.message
    assert len(open_reader("rsna", rsna).phrases("test")[1].boxes) == 2
    write_list(folder(rsna), [*LISTED, "c1f6b555", "feedbeef"], {**FILMS, "feedbeef": []})
    assert [p.code for p in RSNA(rsna).check().problems] == ["E_LIST", "E_DUPLICATE_ID"]


def test_films_that_are_missing_or_twice_are_named(rsna):
    images = folder(rsna) / "stage_2_train_images"
    (images / "00436515.dcm").unlink()
    with pytest.raises(DataError, match=r"00436515\.dcm is labelled and not there"):
        open_reader("rsna", rsna).phrases("test")
    assert len(open_reader("rsna", rsna).phrases("train")) == 2
    Image.new("L", (64, 48)).save(images / "00436515.png")
    Image.new("L", (64, 64)).save(images / "0004cfab.png")
    assert [p.code for p in RSNA(rsna).check().problems] == ["E_SAME_STEM", "E_SIZE"]


def test_check_counts(rsna):
    result = RSNA(rsna).check()
    assert result.problems == ()
    assert result.counts["films with boxes"] == "4 (published: 6012)"
    assert result.counts["test"] == "2 films with boxes (MedKLIP's: 1218)"
    assert result.counts["class Lung Opacity"] == 4


def test_other_folders_and_other_uses_are_refused(rsna, tmp_path):
    with pytest.raises(LayoutError, match="stage_2_train_labels"):
        RSNA(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="class"):
        open_reader("rsna", rsna).phrases("test", kind="phrase")
