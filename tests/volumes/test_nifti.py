"""`textray segment` on NIfTI volumes."""

import gzip
import json
import struct

import numpy as np
import pytest

import textray
from textray.errors import InputError, UsageError

from .conftest import ORIENTATIONS, SHAPE, STEP

nibabel = pytest.importorskip("nibabel")


def record(path):
    return json.loads(path.read_bytes())


@pytest.mark.parametrize("axes", ORIENTATIONS)
def test_the_mask_returns_on_its_own_affine_in_each_of_48_orientations(
    axes, nifti, ct_model, phantom, places, tmp_path
):
    image = nifti(axes)
    nibabel.save(image, tmp_path / "ct.nii")
    prediction = ct_model.segment_volume(tmp_path / "ct.nii")
    mask = nibabel.load(prediction.save(tmp_path / "out")["mask"])
    np.testing.assert_array_equal(mask.affine, image.affine)
    assert mask.shape == image.shape
    np.testing.assert_array_equal(np.asarray(mask.dataobj), np.asarray(image.dataobj) > 0)
    reference = nifti("LPS")
    np.testing.assert_allclose(
        places(np.asarray(mask.dataobj), mask.affine), places(phantom > 0, reference.affine), atol=1e-3
    )
    assert nibabel.aff2axcodes(mask.affine) == tuple(axes)
    np.testing.assert_array_equal(prediction.mask, (phantom > 0).transpose(2, 1, 0))


@pytest.mark.parametrize("axes", ["LPS", "RAS", "SLA", "PIR"])
@pytest.mark.parametrize(("words", "sign"), [("right base", 1), ("left base", -1)])
def test_words_mean_the_patients_sides(axes, words, sign, nifti, reading_ct_bundle, places, tmp_path):
    nibabel.save(nifti(axes), tmp_path / "ct.nii.gz")
    prediction = textray.load(reading_ct_bundle, threads=1).segment_volume(tmp_path / "ct.nii.gz", words)
    mask = nibabel.load(prediction.save(tmp_path / "out")["mask"])
    found = places(np.asarray(mask.dataobj), mask.affine)  # to the right in RAS
    middle = nifti("LPS").affine[0] @ [(SHAPE[0] - 1) / 2, 0, 0, 1]
    assert len(found)
    assert (sign * (found[:, 0] - middle) > 0).all()
    assert prediction.record["text"]["film_sides_from"] == "tag"


def test_a_run_writes_mask_overlay_and_one_record_and_resumes(run_ct, nifti, phantom, tmp_path):
    image = nifti("RAS", codes=(0, 2), kind=nibabel.Nifti2Image)
    image.header["descrip"] = b"ZZNAME"
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"ZZCOMMENT"))
    (tmp_path / "in").mkdir()
    nibabel.save(image, tmp_path / "in/chest.nii.gz")
    result = run_ct("in")
    assert result.code == 0, result.err
    out = tmp_path / "textray-out"
    assert sorted(path.name for path in out.iterdir()) == [
        "chest.json", "chest.mask.nii.gz", "chest.overlay.png", "run.json",
    ]  # fmt: skip
    mask = nibabel.load(out / "chest.mask.nii.gz")
    assert isinstance(mask, nibabel.Nifti2Image)
    assert mask.get_data_dtype() == np.uint8
    assert (int(mask.header["qform_code"]), int(mask.header["sform_code"])) == (0, 2)
    assert mask.header.get_xyzt_units() == ("mm", "sec")
    assert b"ZZ" not in gzip.decompress((out / "chest.mask.nii.gz").read_bytes())
    values = record(out / "chest.json")
    count = int((phantom > 0).sum())
    assert values["lesion"]["voxels"] == count
    assert values["lesion"]["ml"] == round(count * np.prod(STEP) / 1000, 3)
    assert values["lesion"]["slices"] == {"2": 8, "5": 15, "6": 14, "7": 15}
    assert values["lesion"]["shown_slice"] == 5
    assert values["grid"]["slices"] == SHAPE[2]
    assert values["grid"]["step_mm"] == STEP[2]
    assert "1 finished" in run_ct("in").err
    (out / "chest.mask.nii.gz").write_bytes(b"changed")
    assert "1 done" in run_ct("in").err
    assert "1 done" in run_ct("in", "--overwrite").err
    assert "4 skipped" in run_ct("textray-out", "--out", "again").err  # its own results are no inputs


def test_two_runs_write_the_same_bytes(run_ct, nifti, tmp_path):
    nibabel.save(nifti(), tmp_path / "ct.nii")
    for out in ("a", "b"):
        assert run_ct("ct.nii", "--out", out).code == 0
    assert (tmp_path / "a/ct.mask.nii.gz").read_bytes() == (tmp_path / "b/ct.mask.nii.gz").read_bytes()


@pytest.mark.parametrize("packed", [False, True])
def test_what_is_compressed_is_told_by_content(packed, run_ct, nifti, tmp_path):
    data = nifti().to_bytes()
    (tmp_path / ("ct.nii" if packed else "ct.nii.gz")).write_bytes(gzip.compress(data) if packed else data)
    assert run_ct("ct.nii" if packed else "ct.nii.gz").code == 0


@pytest.mark.parametrize("extra", [(), (1,), (1, 1)])
def test_axes_of_length_one_are_kept(extra, nifti, ct_model, phantom, tmp_path):
    image = nifti()
    image = nibabel.Nifti1Image(np.asarray(image.dataobj).reshape(*SHAPE, *extra), image.affine)
    nibabel.save(image, tmp_path / "ct.nii")
    places = ct_model.segment_volume(tmp_path / "ct.nii").save(tmp_path / "out")
    assert nibabel.load(places["mask"]).shape == (*SHAPE, *extra)


def test_a_file_of_two_axes_is_one_slice(nifti, ct_model, phantom, tmp_path):
    image = nibabel.Nifti1Image(phantom[:, :, 6], nifti().affine)
    nibabel.save(image, tmp_path / "ct.nii")
    places = ct_model.segment_volume(tmp_path / "ct.nii").save(tmp_path / "out")
    np.testing.assert_array_equal(np.asarray(nibabel.load(places["mask"]).dataobj), phantom[:, :, 6] > 0)


def test_big_endian_files_stay_so(nifti, ct_model, phantom, tmp_path):
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    nibabel.save(nibabel.Nifti1Image(phantom, nifti().affine, header), tmp_path / "ct.nii")
    mask = nibabel.load(ct_model.segment_volume(tmp_path / "ct.nii").save(tmp_path / "out")["mask"])
    assert mask.header.endianness == ">"
    np.testing.assert_array_equal(np.asarray(mask.dataobj), phantom > 0)


@pytest.mark.parametrize(("slope", "intercept"), [(2.0, -50.0), (-1.0, 10.0)])
def test_b17_hounsfield_units_follow_slope_and_intercept(slope, intercept, nifti, phantom, ct_model, tmp_path):
    image = nifti()
    stored = np.rint((phantom - intercept) / slope).astype(np.int16)
    image = nibabel.Nifti1Image(stored, image.affine)
    data = bytearray(image.to_bytes())
    data[112:120] = struct.pack("<ff", slope, intercept)
    (tmp_path / "ct.nii").write_bytes(bytes(data))
    prediction = ct_model.segment_volume(tmp_path / "ct.nii")
    np.testing.assert_array_equal(prediction.mask, (phantom > 0).transpose(2, 1, 0))


@pytest.mark.parametrize("slope", [0.0, float("nan")])
def test_b17_no_slope_is_one(slope, nifti, phantom, ct_model, change_header, tmp_path):
    (tmp_path / "ct.nii").write_bytes(change_header(nifti(), (112, struct.pack("<f", slope))))
    prediction = ct_model.segment_volume(tmp_path / "ct.nii")
    np.testing.assert_array_equal(prediction.mask, (phantom > 0).transpose(2, 1, 0))


def warned(prediction):
    return [row["code"] for row in prediction.record["warnings"]]


def test_sides_without_a_code_are_assumed_and_refused_if_asked(run_ct, nifti, ct_model, tmp_path):
    nibabel.save(nifti(codes=(0, 0)), tmp_path / "ct.nii")
    prediction = ct_model.segment_volume(tmp_path / "ct.nii")
    assert "W_SIDES_ASSUMED" in warned(prediction)
    assert prediction.volume.grid.sides_from == "assumed"
    assert run_ct("ct.nii").code == 0
    assert "E_SIDES_ASSUMED" in (strict := run_ct("ct.nii", "--strict-input")).err
    assert strict.code == 3
    nibabel.save(nifti(), tmp_path / "known.nii")
    assert run_ct("known.nii", "--strict-input").code == 0


def test_oblique_contradicting_and_unscaled_volumes_are_warned_of(nifti, ct_model, phantom, tmp_path):
    model = ct_model

    def warnings_of(image):
        nibabel.save(image, tmp_path / "ct.nii")
        return [code for code in warned(model.segment_volume(tmp_path / "ct.nii")) if code != "W_EMPTY_MASK"]

    def turned(degrees):
        angle = np.radians(degrees)
        turn = np.eye(4)
        turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        return nibabel.Nifti1Image(phantom, turn @ nifti().affine)

    assert warnings_of(turned(8)) == []
    assert warnings_of(turned(12)) == ["W_OBLIQUE"]
    assert warnings_of(turned(45)) == ["W_OBLIQUE"]
    image = nifti()
    image.set_qform(np.diag([-1, 1, 1, 1]) @ image.affine, 1)
    image.set_sform(nifti().affine, 1)
    assert warnings_of(image) == ["W_SIDES_CONTRADICT"]
    assert warnings_of(nifti(hu=(phantom + 1024).astype(np.uint16))) == ["W_NOT_HOUNSFIELD"]


def dims(*sizes):
    return 40, struct.pack("<8h", *sizes, *[1] * (8 - len(sizes)))


QFORM_ONLY, SFORM_ONLY = (252, struct.pack("<hh", 1, 0)), (252, struct.pack("<hh", 0, 1))
NAN = struct.pack("<f", float("nan"))
BAD = {
    "zero affine": ([SFORM_ONLY, (280, bytes(48))], "E_AFFINE"),
    "affine in one plane": ([SFORM_ONLY, (280, struct.pack("<4f", 1, 0, 0, 0) * 3)], "E_AFFINE"),
    "affine with NaN": ([SFORM_ONLY, (280, NAN)], "E_AFFINE"),
    "rotation that is none": ([QFORM_ONLY, (256, struct.pack("<3f", 9, 9, 9))], "E_AFFINE"),
    "rotation with NaN": ([QFORM_ONLY, (256, NAN * 3)], "E_AFFINE"),
    "no size and no codes": ([(252, bytes(4)), (80, bytes(12))], "E_AFFINE"),
    "intercept without end": ([(112, struct.pack("<ff", 1, float("inf")))], "E_TRUNCATED"),
    "30,000 voxels a side": ([dims(3, 30000, 30000, 30000)], "E_SIZE"),
    "an axis of length 0": ([dims(3, 40, 0, 9)], "E_TRUNCATED"),
    "a negative axis": ([dims(3, 40, -48, 9)], "E_TRUNCATED"),
    "nine axes": ([dims(9, 40, 48, 9)], "E_TRUNCATED"),
    "one axis": ([dims(1, 17280)], "E_MULTIFRAME"),
    "two volumes": ([dims(4, 20, 48, 9, 2)], "E_MULTIFRAME"),
    "more voxels than bytes": ([dims(3, 40, 48, 10)], "E_TRUNCATED"),
    "slices of 9 pixels": ([dims(3, 40, 9, 48)], "E_SIZE"),
    "an unknown type": ([(70, struct.pack("<h", 4444))], "E_TRUNCATED"),
    "an impossible offset": ([(108, struct.pack("<f", 1e30))], "E_TRUNCATED"),
    "complex": ([(70, struct.pack("<hh", 32, 64)), dims(3, 20, 24, 9)], "E_FORMAT"),
    "RGB": ([(70, struct.pack("<hh", 128, 24))], "E_COLOR"),
    "one of a pair": ([(344, b"ni1\0")], "E_FORMAT"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_headers_have_their_codes(name, run_ct, nifti, change_header, tmp_path):
    changes, code = BAD[name]
    good = nifti()
    (tmp_path / "in").mkdir()
    (tmp_path / "in/bad.nii").write_bytes(change_header(good, *changes))
    nibabel.save(good, tmp_path / "in/good.nii")
    result = run_ct("in")
    assert result.code == 3
    rows = {row["input"]: row for row in record(tmp_path / "textray-out/run.json")["items"]}
    assert (rows["in/bad.nii"]["status"], rows["in/bad.nii"]["code"]) == ("failed", code), rows["in/bad.nii"]
    assert rows["in/good.nii"]["status"] == "done"
    assert "Traceback" not in result.err


@pytest.mark.parametrize("where", [30, 0.1, 0.5, -1])
@pytest.mark.parametrize("packed", [False, True])
def test_what_is_cut_off_is_refused(where, packed, run_ct, nifti, tmp_path):
    data = nifti().to_bytes()
    data = gzip.compress(data) if packed else data
    data = data[: int(where * len(data)) if isinstance(where, float) else where]
    (tmp_path / "ct.nii").write_bytes(data)
    result = run_ct("ct.nii")
    assert result.code == 3
    assert "E_TRUNCATED" in result.err or "E_FORMAT" in result.err


def test_a_gzip_that_swells_is_refused_before_it_does(run_ct, nifti, change_header, tmp_path):
    head = change_header(nifti(), dims(3, 2000, 1000, 1000))[:352]
    (tmp_path / "ct.nii.gz").write_bytes(gzip.compress(head + bytes(1 << 24)))
    assert "E_SIZE" in run_ct("ct.nii.gz").err
    honest = gzip.compress(nifti().to_bytes() + bytes(1 << 26))
    (tmp_path / "tail.nii.gz").write_bytes(honest)
    assert run_ct("tail.nii.gz").code == 0


def test_a_damaged_checksum_is_refused(run_ct, nifti, tmp_path):
    data = bytearray(gzip.compress(nifti().to_bytes()))
    data[-6] ^= 1
    (tmp_path / "ct.nii.gz").write_bytes(bytes(data))
    assert "E_TRUNCATED" in run_ct("ct.nii.gz").err


@pytest.mark.parametrize(("value", "code"), [(float("nan"), "E_FORMAT"), (None, "E_CONSTANT")])
def test_voxels_without_content_are_refused(value, code, run_ct, nifti, phantom, tmp_path):
    hu = phantom.astype(np.float32)
    hu[0, 0, 0] = np.nan
    hu = np.zeros_like(hu) if value is None else hu
    nibabel.save(nifti(hu=hu), tmp_path / "ct.nii")
    assert code in run_ct("ct.nii").err


def test_weights_for_films_refuse_a_volume_and_say_so(run, nifti, film, tmp_path):
    (tmp_path / "in").mkdir()
    nibabel.save(nifti(), tmp_path / "in/ct.nii.gz")
    film(tmp_path / "in/chest.png")
    result = run("in")
    assert result.code == 3
    assert "E_NOT_A_FILM" in result.err
    assert "those inside the package know films only" in result.err
    assert "1 done" in result.err
    model = textray.load(threads=1)
    with pytest.raises(InputError, match="know films only"):
        model.segment_volume(tmp_path / "in/ct.nii.gz")


def test_weights_for_ct_refuse_dicom_films(run_ct, dicom, levels, tmp_path):
    (tmp_path / "film.dcm").write_bytes(dicom(levels))
    result = run_ct("film.dcm")
    assert result.code == 3
    assert "E_NOT_A_CT" in result.err


def test_a_volume_has_no_study(run_ct, nifti, tmp_path):
    pytest.importorskip("highdicom")
    nibabel.save(nifti(), tmp_path / "ct.nii")
    assert "E_NO_STUDY" in run_ct("ct.nii", "--dicom", "seg", "--make-uids").err


def test_without_nibabel_the_command_names_the_extra(run_ct, nifti, monkeypatch, tmp_path):
    from textray.io import nifti as module

    nibabel.save(nifti(), tmp_path / "ct.nii")
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    result = run_ct("ct.nii")
    assert result.code == 2
    assert "textray[nifti]" in result.err


def test_planted_values_are_on_no_stream(run_ct, nifti, change_header, tmp_path, caplog):
    caplog.set_level("DEBUG")
    (tmp_path / "in").mkdir()
    texts = [(148, b"ZZDESCRIPTION"), (228, b"ZZAUX"), (328, b"ZZINTENT"), (4, b"ZZTYPE"), (14, b"ZZDB")]
    (tmp_path / "in/good.nii").write_bytes(change_header(nifti(), *texts))
    (tmp_path / "in/bad.nii").write_bytes(change_header(nifti(), *texts, dims(3, 40, -48, 9)))
    result = run_ct("in")
    assert result.code == 3
    out = tmp_path / "textray-out"
    said = result.out + result.err + caplog.text + (out / "run.json").read_text() + (out / "good.json").read_text()
    assert "ZZ" not in said
    assert b"ZZ" not in gzip.decompress((out / "good.mask.nii.gz").read_bytes())


def test_the_window_of_weights_is_checked():
    from textray.errors import BundleError
    from textray.preprocess import Preprocess

    way = Preprocess(size=(8, 8), hounsfield=(-1000.0, 400.0))
    assert Preprocess.from_dict(way.to_dict()) == way
    assert "hounsfield" not in Preprocess(size=(8, 8)).to_dict()
    for wrong in ((400.0, -1000.0), (0.0, float("nan")), (1.0,)):
        with pytest.raises(UsageError, match="window"):
            Preprocess(size=(8, 8), hounsfield=wrong)
    for wrong in ("ab", [0], [True, 2], 5):
        with pytest.raises(BundleError):
            Preprocess.from_dict(way.to_dict() | {"hounsfield": wrong})
