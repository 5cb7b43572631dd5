"""MIMIC-CXR-JPG on a small copy in its published layout, made without code of the reader."""

import gzip
import zipfile

import numpy as np
import pytest
from PIL import Image

from textray.data.base import open_reader
from textray.data.mimic_cxr import MIMICCXR
from textray.errors import DataError, LayoutError, UsageError
from textray.records import Laterality

REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___F with new left effusion  // eval pneumonia

 COMPARISON:  Chest radiograph ___

 FINDINGS:

 Small right pleural effusion is new.  The heart is
 normal in size.

 IMPRESSION:

 No pneumonia.
"""
SENTENCES = ("Small right pleural effusion is new.", "The heart is normal in size.", "No pneumonia.")
FILMS = [  # dicom_id's first digit, patient, study, view, split
    ("1", 10000032, 50414267, "PA", "train"),
    ("2", 10000032, 50414267, "LATERAL", "train"),
    ("3", 10000033, 50414268, "AP", "train"),
    ("4", 11000034, 50414269, "", "train"),
    ("5", 11000035, 50414270, "AP", "validate"),
    ("6", 12000036, 50414271, "PA", "test"),
    ("7", 10000037, 50414272, "AP", "train"),
]


def dicom_id(digit):
    return "-".join([digit * 8] * 5)


def write_table(root, name, lines):
    with gzip.open(root / f"mimic-cxr-2.0.0-{name}.csv.gz", "wt", newline="") as stream:
        stream.write("\n".join(lines) + "\n")


def write_tables(root, films=FILMS, split_of=None):
    rows = [f"{dicom_id(d)},{p},{s},CHEST (PA AND LAT),{view},3056,2544,21800506" for d, p, s, view, _ in films]
    header = "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate"
    write_table(root, "metadata", [header, *rows])
    parts = [f"{dicom_id(d)},{s},{p},{part}" for d, p, s, _, part in (split_of or films)]
    write_table(root, "split", ["dicom_id,study_id,subject_id,split", *parts])


def report_path(patient, study):
    return f"files/p{str(patient)[:2]}/p{patient}/s{study}.txt"


@pytest.fixture
def mimic(tmp_path):
    root = tmp_path / "mimic-cxr-jpg"
    root.mkdir()
    write_tables(root)
    for digit, patient, study, _, _ in FILMS[:-1]:  # the last is listed and not there
        path = root / f"files/p{str(patient)[:2]}/p{patient}/s{study}/{dicom_id(digit)}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(int(digit)).integers(0, 255, (32, 32), np.uint8)).save(path)
    with zipfile.ZipFile(root / "mimic-cxr-reports.zip", "w") as archive:
        for path in sorted({report_path(patient, study) for _, patient, study, _, _ in FILMS}):
            archive.writestr(path, REPORT)
    return root


def test_frontal_films_have_the_sentences_of_their_study(mimic):
    found = open_reader("mimic_cxr", mimic.parent).studies("train")
    assert [(one.image_id, one.patient_id) for one in found] == [
        (dicom_id("1"), "10000032"), (dicom_id("3"), "10000033"),
    ]  # fmt: skip
    assert {one.sentences for one in found} == {SENTENCES}
    assert {one.laterality for one in found} == {Laterality.PATIENT}
    assert all(one.image_path.is_file() for one in found)


def test_splits_are_the_published_ones(mimic):
    reader = open_reader("mimic_cxr", mimic)
    assert [one.image_id for one in reader.studies("val")] == [dicom_id("5")]
    assert [one.image_id for one in reader.studies("test")] == [dicom_id("6")]
    assert {one.patient_id for part in ("inner", "fit") for one in reader.studies(part)} == {"10000032", "10000033"}


def test_the_owners_sections_come_first(mimic):
    (mimic / "mimic_cxr_sectioned.csv").write_text(
        "study,impression,findings,last_paragraph,comparison\n"
        's50414267,"Left effusion,\nnew since then.",,,"None"\ns50414268,,,Old words are here.,\n'
    )
    found = open_reader("mimic_cxr", mimic).studies("train")
    assert [one.sentences for one in found] == [("Left effusion, new since then.",), ("Old words are here.",)]


def test_reports_may_lie_in_folders_beside(mimic):
    (mimic / "mimic-cxr-reports.zip").unlink()
    path = mimic.parent / "mimic-cxr" / report_path(10000033, 50414268)
    path.parent.mkdir(parents=True)
    path.write_text(REPORT)
    assert [one.image_id for one in open_reader("mimic_cxr", mimic).studies("train")] == [dicom_id("3")]


def test_what_is_left_out_is_counted(mimic, caplog):
    with zipfile.ZipFile(mimic / "mimic-cxr-reports.zip", "w") as archive:
        archive.writestr(report_path(10000032, 50414267), REPORT)
        archive.writestr(report_path(10000033, 50414268), " INDICATION:  ___F with cough.\n")
    assert [one.image_id for one in open_reader("mimic_cxr", mimic).studies("train")] == [dicom_id("1")]
    assert "1 films that are not there and 1 without a sentence are left out" in caplog.text
    codes = {(p.code, p.path.rsplit("/", 1)[1]) for p in MIMICCXR(mimic).check().problems}
    assert ("W_NO_TEXT", "s50414268.txt") in codes
    assert ("W_NO_IMAGE", f"{dicom_id('7')}.jpg") in codes


@pytest.mark.parametrize(
    ("films", "code"),
    [
        ([*FILMS, FILMS[0]], "E_DUPLICATE_ID"),
        ([*FILMS, ("8", 10000032, 50414299, "AP", "test")], "E_PATIENT_LEAK"),
        ([*FILMS, ("8", 10000032, 50414299, "AP", "all")], "E_ROW"),
        ([*FILMS, ("8", "p1", 50414299, "AP", "train")], "E_ROW"),
    ],
)
def test_tables_that_contradict_are_refused(mimic, films, code):
    write_tables(mimic, films)
    assert code in {p.code for p in MIMICCXR(mimic).check().problems}
    with pytest.raises(DataError, match=code):
        open_reader("mimic_cxr", mimic).studies("train")


def test_two_tables_must_agree_and_ids_may_be_decimals(mimic):
    write_tables(mimic, [(d, f"{p}.0", f"{s}.0", view, part) for d, p, s, view, part in FILMS])
    assert len(open_reader("mimic_cxr", mimic).studies("train")) == 2
    write_tables(mimic, FILMS, [(d, 10000099, s, view, part) for d, _, s, view, part in FILMS])
    with pytest.raises(DataError, match="another patient or study"):
        open_reader("mimic_cxr", mimic).studies("train")


def test_broken_and_missing_files_are_named(mimic):
    with pytest.raises(UsageError, match="split into sentences"):
        open_reader("mimic_cxr", mimic).studies("train", cut="clauses")
    packed = mimic / "mimic-cxr-2.0.0-metadata.csv.gz"
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"metadata\.csv cannot be read"):
        open_reader("mimic_cxr", mimic).studies("train")
    packed.unlink()
    with pytest.raises(LayoutError, match="no mimic-cxr-2"):
        open_reader("mimic_cxr", mimic.parent)


def test_no_report_at_all_is_refused(mimic):
    (mimic / "mimic-cxr-reports.zip").unlink()
    with pytest.raises(LayoutError, match="no film of train with a report"):
        open_reader("mimic_cxr", mimic).studies("train")
