"""`textray segment` on CT series: folders of DICOM slices."""

import json

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_files

from textray.errors import InputError
from textray.io.ct_series import read_volume

from .conftest import SHAPE, STEP

nibabel = pytest.importorskip("nibabel")


def record(path):
    return json.loads(path.read_bytes())


def real(name):
    """A real series inside pydicom."""
    from pathlib import Path

    return sorted(map(Path, get_testdata_files(f"dicomdirtests/{name}/*")))


def test_a28_a_shuffled_series_is_one_volume(run_ct, ct_folder, phantom, nifti, places, film, tmp_path):
    ct_folder()
    film(tmp_path / "in/other/a.png")
    result = run_ct("in")
    assert result.code == 0, result.err
    assert "2 done" in result.err
    out = tmp_path / "textray-out/ct"
    assert sorted(path.name for path in out.iterdir()) == ["ct.json", "ct.mask.nii.gz", "ct.overlay.png"]
    mask = nibabel.load(out / "ct.mask.nii.gz")
    np.testing.assert_array_equal(np.asarray(mask.dataobj), phantom > 0)
    np.testing.assert_allclose(mask.affine, nifti("LPS").affine, atol=1e-4)
    assert mask.header.get_xyzt_units()[0] == "mm"
    values = record(out / "ct.json")
    assert values["input"]["path"] == "in/ct"
    assert values["input"]["reader"] == {"format": "ct series", "slices": SHAPE[2]}
    assert values["lesion"]["ml"] == round(int((phantom > 0).sum()) * np.prod(STEP) / 1000, 3)
    assert "2 finished" in run_ct("in").err
    slices = sorted((tmp_path / "in/ct").iterdir())
    slices[0].rename(slices[0].with_name("zz.dcm"))
    assert "2 finished" in run_ct("in").err  # names do not matter
    slices[3].unlink()
    assert "E_SERIES_GAP" in run_ct("in").err
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    ("cosines", "axes"),
    [
        ([1, 0, 0, 0, 1, 0], "LPS"),
        ([-1, 0, 0, 0, -1, 0], "RAS"),
        ([1, 0, 0, 0, 0, -1], "LIP"),
        ([0, 1, 0, 0, 0, -1], "PIR"),
        ([0, -1, 0, -1, 0, 0], "ARI"),
    ],
)
def test_planes_of_any_direction_come_back(cosines, axes, nifti, phantom, places, dicom, ct_model, tmp_path):
    image = nifti(axes)
    stored, affine = np.asarray(image.dataobj), image.affine
    paths = []
    for number in range(stored.shape[2]):
        place = affine @ [0, 0, number, 1] * [-1, -1, 1, 1]
        lengths = np.linalg.norm(affine[:3, :2], axis=0)
        tags = {
            "Modality": "CT", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "SeriesInstanceUID": "1.2",
            "ImageOrientationPatient": cosines, "ImagePositionPatient": list(place[:3]),
            "PixelSpacing": [float(lengths[1]), float(lengths[0])], "RescaleSlope": 1, "RescaleIntercept": -1024,
        }  # fmt: skip
        paths.append(tmp_path / f"{number}.dcm")
        wide = np.pad(stored[:, :, number].T + 1024, [(0, max(0, 16 - side)) for side in stored.shape[1::-1]])
        paths[-1].write_bytes(dicom(wide.astype(np.uint16), **tags))
    prediction = ct_model.segment_volume(paths[::-1])
    mask = nibabel.load(prediction.save(tmp_path / "out")["mask"])
    assert nibabel.aff2axcodes(mask.affine) == tuple(axes)
    found = places(np.asarray(mask.dataobj), mask.affine)
    np.testing.assert_allclose(found, places(phantom > 0, nifti("LPS").affine), atol=1e-3)


def test_a_folder_of_two_series_and_a_localizer_is_two_volumes(run_ct, ct_folder, ct_slices, levels, dicom, tmp_path):
    folder = ct_folder("in")
    for number, data in enumerate(ct_slices(SeriesInstanceUID="1.2.3.4.9", ImageOrientationPatient=[1, 0, 0, 0, 1, 0])):
        (folder / f"z{number}.dcm").write_bytes(data)
    overview = {"Modality": "CT", "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesInstanceUID": "1.2.3.4.7"}
    (folder / "overview.dcm").write_bytes(dicom(levels, **overview))
    result = run_ct("in")
    assert result.code == 0, result.err
    assert "2 done, 1 skipped" in result.err
    assert "W_LOCALIZER" in result.err
    assert "in/overview.dcm" in result.err
    names = sorted(path.name for path in (tmp_path / "textray-out").glob("*.mask.nii.gz"))
    assert names[1] == "in.mask.nii.gz"
    assert len(names) == 2


def test_words_of_a_table_may_name_any_slice(cli, reading_ct_bundle, ct_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ct_folder()
    (tmp_path / "texts.csv").write_text("image,text\n028.dcm,right base\n")
    result = cli("segment", "in", "--texts", "texts.csv", "--model", reading_ct_bundle, "--threads", "1")
    assert result.code == 0, result.err
    values = record(tmp_path / "textray-out/ct/ct.json")
    assert values["text"]["given"] == "right base"
    assert values["text"]["zones"]["left lower"] == "present"


def test_a_single_slice_is_a_volume(run_ct, ct_slices, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/one.dcm").write_bytes(ct_slices()[6])
    assert run_ct("in/one.dcm").code == 0
    values = record(tmp_path / "textray-out/one.json")
    assert values["grid"]["slices"] == 1
    assert values["grid"]["step_mm"] == STEP[2]
    assert values["lesion"]["voxels"] == 14


@pytest.mark.parametrize(
    ("tags", "codes"),
    [
        ({"PixelRepresentation": 1, "BitsStored": 16, "HighBit": 15, "RescaleIntercept": 0}, []),
        ({"PixelRepresentation": 1, "BitsStored": 12, "HighBit": 11, "RescaleIntercept": 0}, []),
        ({"RescaleSlope": 2, "RescaleIntercept": -1000, "PixelPaddingValue": 0}, []),
        ({"syntax": "implicit"}, []),
        ({"syntax": "big endian"}, []),
        ({"PixelRepresentation": 1, "BitsStored": 11, "HighBit": 10}, ["W_BITS"]),
    ],
)
def test_hounsfield_units_follow_the_tags(tags, codes, ct_slices, ct_folder, phantom):
    ramp = np.linspace(-1000, 1000, SHAPE[0])[:, None, None] // 2 * 2 + 10 * np.arange(SHAPE[2])
    hu = np.broadcast_to(ramp, SHAPE)
    volume = read_volume(ct_folder(slices=ct_slices(hu, **tags)))
    assert [notice.code for notice in volume.notices] == codes
    if not codes:
        np.testing.assert_allclose(volume.hu, hu, atol=1e-3)


def without(slices, *numbers):
    return [data for number, data in enumerate(slices) if number not in numbers]


def test_odd_series_are_refused_by_their_codes(ct_slices, ct_folder, phantom):
    whole = ct_slices()
    place = "ImagePositionPatient"
    tilted = [
        ct_slices(ImagePositionPatient=[-30, -44 + 0.3 * number, -100 + STEP[2] * number])[number]
        for number in range(SHAPE[2])
    ]
    near = ct_slices(**{place: [-30, -44, -100 + STEP[2] * 4 + 0.5]})[4]
    cases = {
        "gap": (without(whole, 3, 6), "E_SERIES_GAP", r"between -90.0 and -80.0 mm, -75.0 and -65.0 mm along it"),
        "duplicate": ([*whole, ct_slices(SOPInstanceUID="1.2")[2]], "E_SERIES_DUPLICATE", "-90.0"),
        "same file twice": ([*whole, whole[2]], "E_SERIES_DUPLICATE", "at one place"),
        "between": ([*whole, near], "E_SERIES_GAP", "-80.0 and -79.5"),
        "sizes": ([*without(whole, 1), ct_slices(phantom[:-1])[1]], "E_SERIES_MIXED", "different sizes"),
        "spacings": ([*without(whole, 1), ct_slices(PixelSpacing=[1, 1])[1]], "E_SERIES_MIXED", "different spacings"),
        "tilt": (tilted, "E_SERIES_TILT", "2.4 mm beside"),
        "no place": (ct_slices(drop=(place,)), "E_DICOM_TAG", place),
        "no directions": (ct_slices(drop=("ImageOrientationPatient",)), "E_DICOM_TAG", "Orientation"),
        "odd directions": (ct_slices(ImageOrientationPatient=[1, 0, 0, 1, 1, 0]), "E_DICOM_TAG", "right angles"),
        "no units": (ct_slices(drop=("RescaleIntercept",)), "E_DICOM_TAG", "RescaleIntercept"),
        "negative": (ct_slices(PhotometricInterpretation="MONOCHROME1"), "E_DICOM_TAG", "MONOCHROME2"),
        "no spacing": (ct_slices(PixelSpacing=[0, 0]), "E_DICOM_TAG", "PixelSpacing"),
        "no pixels": (ct_slices(drop=("PixelData",)), "E_TRUNCATED", "ends before"),
        "many frames": (ct_slices(NumberOfFrames=2), "E_MULTIFRAME", "2 frames"),
        "air": (ct_slices(np.full_like(phantom, -1000)), "E_CONSTANT", "-1000"),
    }  # fmt: skip
    for name, (slices, code, words) in cases.items():
        with pytest.raises(InputError, match=words) as refused:
            read_volume(ct_folder(f"odd/{name}", slices))
        assert refused.value.code == code, name


def test_one_odd_series_does_not_end_a_run(run_ct, ct_folder, ct_slices, tmp_path):
    ct_folder("in/good")
    ct_folder("in/odd", without(ct_slices(), 4))
    result = run_ct("in")
    assert result.code == 3
    assert "1 done, 1 failed" in result.err
    assert "E_SERIES_GAP" in result.err


def test_weights_for_films_refuse_ct_slices_and_say_so(run, ct_folder, tmp_path):
    ct_folder("in/ct")
    result = run("in")
    assert result.code == 3
    assert result.err.count("E_NOT_A_FILM") == SHAPE[2] - 1  # one is air alone, and refused for that
    assert "those inside the package know films only" in result.err
    assert not list((tmp_path / "textray-out").rglob("*.mask.*"))


def test_real_series_are_sorted_and_judged():
    volume = read_volume(real("98892001/CT5N"))
    assert volume.hu.shape[2] == 5
    assert volume.step_mm == pytest.approx(2.5)
    assert volume.grid.sides_from == "tag"
    first = [dcmread(path).ImagePositionPatient[2] for path in volume.slices]
    assert first == sorted(first)
    with pytest.raises(InputError, match=r"between -99\.5 and 103\.0 mm") as refused:
        read_volume(real("77654033/CT2"))
    assert refused.value.code == "E_SERIES_GAP"


def test_real_localizers_are_left_out(run_ct, tmp_path):
    result = run_ct(*real("98892001/CT2N"))
    assert result.code == 0
    assert "2 skipped" in result.err


@pytest.fixture
def seg_of(run_ct, tmp_path):
    """The SEG that a run writes for a folder: ``seg_of(folder, *options) -> path``."""
    pytest.importorskip("highdicom")

    def run(folder, *options):
        result = run_ct(folder, "--dicom", "seg", *options)
        assert result.code == 0, result.err
        (path,) = (tmp_path / "textray-out").rglob("*.seg.dcm")
        return path

    return run


def test_a30_the_seg_of_a_series_is_the_mask(seg_of, ct_folder, phantom):
    from highdicom.seg import segread

    seg = segread(seg_of(ct_folder()))
    assert seg.NumberOfFrames == 4  # slices without lesion have no frame
    assert seg.FrameOfReferenceUID == "1.2.3.4.8"
    assert seg.StudyInstanceUID == "1.2.3.4"
    uids = [f"1.2.3.9.{number}" for number in range(SHAPE[2])]
    values = seg.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True, combine_segments=True)
    np.testing.assert_array_equal(values, (phantom > 0).transpose(2, 1, 0))


def test_seg_only_counted_and_without_a_frame_refused(run_ct, ct_folder, phantom, ct_slices, tmp_path):
    pytest.importorskip("highdicom")
    ct_folder()
    result = run_ct("in", "--dicom", "all")
    assert result.code == 0
    assert "W_SEG_ONLY" in result.err
    out = tmp_path / "textray-out"
    assert record(out / "run.json")["objects"] == {"film": 0, "seg": 1, "sr": 0, "sc": 0}
    before = (out / "ct/ct.seg.dcm").read_bytes()
    assert "1 finished" in run_ct("in", "--dicom", "all").err
    assert "1 done" in run_ct("in", "--dicom", "all", "--overwrite").err
    assert (out / "ct/ct.seg.dcm").read_bytes() == before
    ct_folder("clear", ct_slices(np.minimum(phantom, -80)))
    assert run_ct("clear", "--dicom", "seg", "--out", "clear-out").code == 0
    assert record(tmp_path / "clear-out/clear.json")["dicom"]["seg_reason"] == "empty mask"
    ct_folder("frameless", ct_slices(drop=("FrameOfReferenceUID",)))
    assert "E_NO_FRAME" in run_ct("frameless", "--dicom", "seg", "--out", "f").err
    assert run_ct("frameless", "--out", "f").code == 0


def test_planted_values_of_a_series_are_on_no_stream(run_ct, ct_folder, ct_slices, tmp_path, caplog):
    pytest.importorskip("highdicom")
    caplog.set_level("DEBUG")
    planted = {"PatientName": "ZZNAME^ZZGIVEN", "PatientID": "ZZID", "AccessionNumber": "ZZACC", "StudyID": "ZZSTUDY"}
    planted |= {"PatientBirthDate": "ZZBIRTH", "PatientSex": "ZZSEX", "SeriesDescription": "ZZSERIES"}
    ct_folder("in/good", **planted)
    ct_folder("in/odd", without(ct_slices(**planted), 4))
    ct_folder("in/bad", ct_slices(**planted, StudyInstanceUID="ZZUID"))
    caplog.clear()
    result = run_ct("in", "--dicom", "all")
    assert result.code == 3
    out = tmp_path / "textray-out"
    said = result.out + result.err + caplog.text + (out / "run.json").read_text() + (out / "good/good.json").read_text()
    assert "ZZ" not in said
    assert b"ZZNAME" in (out / "good/good.seg.dcm").read_bytes()


def test_a_series_that_changed_gets_no_seg(ct_folder, ct_model, ct_slices, tmp_path):
    pytest.importorskip("highdicom")
    folder = ct_folder()
    prediction = ct_model.segment_volume(folder)
    assert list(prediction.save(tmp_path / "out", dicom="seg")) == ["mask", "overlay", "seg", "record"]
    ct_folder(PatientID="other")
    with pytest.raises(InputError, match="changed"):
        prediction.save(tmp_path / "out", dicom="seg")
