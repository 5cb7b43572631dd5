"""`textray segment --dicom` as a user runs it."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image as PILImage
from pydicom import dcmread

import textray
from textray.errors import InputError, UsageError

from .test_objects import all_items


@pytest.fixture
def film_file(studied, levels, tmp_path):
    """A film of a study in a file: ``film_file(name, **tags) -> path``."""

    def write(name="in/chest.dcm", **tags):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(studied(levels, **tags))
        return path

    return write


def record(path):
    return json.loads(path.read_bytes())


def test_a_folder_gives_objects_counts_them_and_resumes(run, film_file, tmp_path):
    for i in range(2):
        film_file(f"in/{i}.dcm", SOPInstanceUID=f"1.2.3.{i}")
    result = run("in", "--dicom", "all", "--text", "opacity in the right lower zone")
    assert result.code == 0, result.err
    out = tmp_path / "textray-out"
    assert sorted(path.name for path in out.glob("0.*.dcm")) == ["0.sc.dcm", "0.seg.dcm", "0.sr.dcm"]
    summary = record(out / "run.json")
    assert summary["objects"] == {"film": 0, "seg": 2, "sr": 2, "sc": 2}
    with PILImage.open(out / "0.mask.png") as picture:
        mask = np.asarray(picture) > 0
    seg = dcmread(out / "0.seg.dcm")
    np.testing.assert_array_equal(seg.pixel_array.astype(bool), mask)
    before = (out / "0.seg.dcm").read_bytes()
    assert "2 finished" in run("in", "--dicom", "all", "--text", "opacity in the right lower zone").err
    (out / "0.seg.dcm").unlink()
    assert "1 done, 1 finished" in run("in", "--dicom", "all", "--text", "opacity in the right lower zone").err
    assert (out / "0.seg.dcm").read_bytes() == before
    assert "2 done" in run("in").err  # objects of an earlier run do not fit any longer
    assert not list(out.glob("*.dcm"))


@pytest.mark.parametrize(
    ("orientation", "side", "image_half"), [(["L", "F"], "right", 0), (["R", "F"], "right", 1), (None, None, 0)]
)
def test_sides_are_the_patients_and_only_where_the_tag_tells(run, film_file, tmp_path, orientation, side, image_half):
    film_file(PatientOrientation=orientation)
    assert run("in/chest.dcm", "--dicom", "seg,sr", "--text", "right lower zone").code == 0
    out = tmp_path / "textray-out"
    mask = dcmread(out / "chest.seg.dcm").pixel_array
    half = mask.shape[1] // 2
    assert (mask[:, :half].sum() < mask[:, half:].sum()) == image_half
    described = record(out / "chest.json")["dicom"]
    codes = {"right": b"24028007", "left": b"7771000", "both": b"51440002"}
    seg, report = ((out / f"chest.{kind}.dcm").read_bytes() for kind in ("seg", "sr"))
    assert described["side"] in (side, "both" if side else None)
    for name, code in codes.items():
        assert (code in seg) == (code in report) == (name == described["side"])
    assert (described["side_reason"] is None) == (side is not None)


@pytest.mark.parametrize(("name", "image_half"), [("RG1", 0), ("RG3", 1)])
def test_sides_of_real_films_are_the_patients(run, name, image_half, tmp_path):
    """The rows of RG1 run to the patient's left, those of RG3 to the right."""
    from textray.inference.inputs import demo_film

    pytest.importorskip("data_store")
    film = demo_film().with_name(f"{name}_UNCR.dcm")
    assert run(film, "--dicom", "seg,sr", "--text", "right lung").code == 0
    out = tmp_path / "textray-out"
    mask = dcmread(out / f"{name}_UNCR.seg.dcm").pixel_array
    half = mask.shape[1] // 2
    assert (mask[:, :half].sum() < mask[:, half:].sum()) == image_half
    described = record(out / f"{name}_UNCR.json")["dicom"]
    codes = {"right": b"24028007", "both": b"51440002"}
    assert codes[described["side"]] in (out / f"{name}_UNCR.sr.dcm").read_bytes()


def test_pictures_and_bare_films_are_refused_and_made_a_study_on_request(run, film, dicom, levels, tmp_path):
    film(tmp_path / "in/a.png")
    (tmp_path / "in/b.dcm").write_bytes(dicom(levels))
    result = run("in", "--dicom", "all")
    assert result.code == 3
    assert result.err.count("E_NO_STUDY") == 2
    assert run("in", "--dicom", "all", "--make-uids").code == 0
    out = tmp_path / "textray-out"
    for name in "ab":
        copy, report, seg = (dcmread(out / f"{name}.{kind}.dcm") for kind in ("film", "sr", "seg"))
        assert copy.StudyInstanceUID == report.StudyInstanceUID == seg.StudyInstanceUID
        reference = seg.ReferencedSeriesSequence[0]
        assert reference.SeriesInstanceUID == copy.SeriesInstanceUID
        assert reference.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == copy.SOPInstanceUID
        assert (copy.Rows, copy.Columns) == (seg.Rows, seg.Columns)
    assert record(out / "a.json")["dicom"]["uids"] == "made from the hash of the file"


def test_own_objects_in_a_folder_are_left_out(run, film_file, tmp_path):
    film_file()
    run("in/chest.dcm", "--dicom", "all", "--out", "in")
    (tmp_path / "in/chest.json").unlink()
    result = run("in", "--out", "other")
    assert result.code == 0
    counts = record(tmp_path / "other/run.json")["counts"]
    assert counts["done"] == 1
    assert counts["failed"] == 0


def test_a_users_own_objects_are_not_overwritten(run, film_file, studied, levels, tmp_path):
    film_file()
    own = tmp_path / "textray-out/chest.seg.dcm"
    own.parent.mkdir()
    own.write_bytes(studied(levels))
    assert run("in/chest.dcm", "--dicom", "seg").code == 0
    assert own.read_bytes() == studied(levels)
    assert len(list(own.parent.glob("chest-*.seg.dcm"))) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--dicom", "seg,pdf"], "'pdf'"),
        (["--dicom", ""], "''"),
        (["--make-uids"], "--dicom"),
        (["--sr-text"], "--dicom"),
        (["--seg-plane", "none"], "--dicom"),
    ],
)
def test_wrong_options_end_at_once(run, film_file, options, words):
    film_file()
    result = run("in/chest.dcm", *options)
    assert result.code == 2
    assert words in result.err


def test_without_highdicom_the_command_names_the_extra(run, film_file, monkeypatch):
    from textray.inference import dicom_out

    film_file()
    monkeypatch.setattr(dicom_out, "find_spec", lambda name: None)
    result = run("in/chest.dcm", "--dicom", "seg")
    assert result.code == 2
    assert "textray[dicom]" in result.err


def test_planted_values_are_on_no_stream(run, film_file, tmp_path, caplog):
    planted = {"PatientName": "ZZNAME^ZZGIVEN", "PatientID": "ZZID", "AccessionNumber": "ZZACC", "StudyID": "ZZSTUDY"}
    planted |= {"PatientBirthDate": "ZZBIRTH", "PatientSex": "ZZSEX", "StudyDescription": "ZZDESC"}
    planted |= {"ReferringPhysicianName": "ZZDOCTOR", "StudyTime": "ZZTIME"}
    film_file(**planted)
    film_file("in/bad.dcm", **planted, StudyInstanceUID="ZZUID")
    caplog.clear()
    caplog.set_level("DEBUG")
    result = run("in", "--dicom", "all", "--sr-text", "--text", "right base, seen by ZZWRITER")
    assert result.code == 3
    out = tmp_path / "textray-out"
    said = result.out + result.err + caplog.text + (out / "run.json").read_text()
    assert "W_HEADER_VALUE" in said
    assert "W_SR_TEXT" in said
    assert "ZZ" not in said + "".join(path.name for path in out.iterdir())
    assert "ZZ" not in (out / "chest.json").read_text().replace("ZZWRITER", "")
    assert b"ZZNAME" in (out / "chest.sr.dcm").read_bytes()
    assert b"ZZWRITER" in (out / "chest.sr.dcm").read_bytes()


def test_saving_from_python(tiny_bundle, film_file, studied, levels, tmp_path):
    model = textray.load(tiny_bundle, threads=1)
    prediction = model.segment(film_file(), "right base")
    places = prediction.save(tmp_path / "out", dicom="seg,sr")
    assert list(places) == ["mask", "overlay", "seg", "sr", "record"]
    again = prediction.save(tmp_path / "again", dicom=textray.DicomOut(kinds=("seg", "sr")))
    assert places["sr"].read_bytes() == again["sr"].read_bytes()
    assert record(places["record"])["files"].keys() == {path.name for path in places.values()}
    with pytest.raises(UsageError, match="overlay"):
        prediction.save(tmp_path / "out", dicom="png")
    with pytest.raises(InputError, match="path"):
        model.segment(studied(levels)).save(tmp_path / "out", dicom="seg")
    film_file(SOPInstanceUID="1.2.9")
    with pytest.raises(InputError, match="changed"):
        prediction.save(tmp_path / "out", dicom="seg")


@pytest.mark.parametrize(
    ("orientation", "codes"),
    [(["L", "F"], [b"24028007", b"7771000"]), (["R", "F"], [b"7771000", b"24028007"]), (None, [])],
)
def test_the_share_of_each_lung_is_the_patients(tiny_bundle, film_file, tmp_path, orientation, codes):
    """The first share is that of the lung at the viewer's left."""
    prediction = textray.load(tiny_bundle, threads=1).segment(film_file(PatientOrientation=orientation), "both bases")
    lungs = {"left": {"affected": 0.25}, "right": {"affected": 0.5}, "lesion_outside": 0.0}
    prediction = replace(prediction, record={**prediction.record, "lungs": lungs})
    report = dcmread(prediction.save(tmp_path / "out", dicom="sr")["sr"])
    found = all_items(report, "AFFECTED")
    assert [float(item.MeasuredValueSequence[0].NumericValue) for item in found] == ([25, 50] if codes else [])
    sites = [all_items(item, "272741003")[0].ConceptCodeSequence[0].CodeValue.encode() for item in found]
    assert sites == codes
    views = [len(all_items(report, f"AFFECTED_VIEW_{side}")) for side in "LR"]
    assert views == ([0, 0] if codes else [1, 1])
