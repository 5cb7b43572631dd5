"""Objects before independent judges: dicom3tools (validity), dcmtk and dcmqi (readers)."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from textray.inference.inputs import demo_film

from .test_objects import KINDS

pytestmark = pytest.mark.clinic

NAMES = ("StudyID", "StudyDate", "StudyTime", "AccessionNumber", "PatientSex", "ReferringPhysicianName", "PatientName")
NAMES += ("PatientID", "PatientBirthDate", "PatientOrientation", "PixelSpacing", "ViewPosition")
FILMS = {**KINDS, "little": {"drop": NAMES}, "empty": dict.fromkeys(NAMES, "")}


REAL = ("RG1", "RG3")
"""Films of pydicom-data: a chest whose rows run to the patient's left, and a leg whose rows run to the right."""


@pytest.fixture
def judge():
    """Code and words of a program; where it is not installed the test is skipped, or fails if judges are required."""

    def run(name, *arguments):
        program = shutil.which(name)
        if program is None and os.environ.get("TEXTRAY_JUDGES") == "required":
            pytest.fail(f"{name} is not installed")
        if program is None:
            pytest.skip(f"{name} is not installed")
        done = subprocess.run(
            [program, *map(str, arguments)], capture_output=True, text=True, errors="replace", timeout=120
        )
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.fixture
def films(studied):
    levels = np.random.default_rng(3).integers(0, 4096, (91, 67), np.uint16)

    def get(name):
        if name in REAL:
            return demo_film().with_name(f"{name}_UNCR.dcm").read_bytes()
        return studied(levels, **FILMS[name])

    return get


@pytest.fixture
def written(films, built, mask_of, opened, tmp_path):
    """Files of a film and its objects by kind, and the mask: ``written(name, empty=False)``."""

    def write(name, *, empty=False, **options):
        data = films(name)
        ds = opened(data)
        mask = np.zeros((ds.Rows, ds.Columns), bool) if empty else mask_of((ds.Rows, ds.Columns))
        objects = built(data, mask, side="right", level="lower", lungs={"left": 0.1}, side_known=True, **options)
        files = {kind: tmp_path / f"{kind}.dcm" for kind in ("film", *objects)}
        for kind, content in {"film": data, **objects}.items():
            files[kind].write_bytes(content)
        return files, mask

    return write


@pytest.mark.parametrize("name", [*REAL, *FILMS])
@pytest.mark.parametrize("empty", [False, True])
def test_dciodvfy_finds_no_error(name, empty, judge, written):
    files, _ = written(name, empty=empty, text="opacity, 不透明")
    for kind in sorted(set(files) - {"film"}):
        _, words = judge("dciodvfy", files[kind])
        assert [line for line in words.splitlines() if line.startswith("Error")] == [], kind


@pytest.mark.parametrize("name", REAL)
def test_dcentvfy_finds_one_patient_and_study(name, judge, written):
    files, _ = written(name)
    _, alone = judge("dcentvfy", files["film"])
    _, words = judge("dcentvfy", *files.values())
    found = [line for line in words.splitlines() if line.strip() and line not in alone]
    # A report states the accession number in its request too, which this judge takes for another entity.
    assert [line for line in found if "AccessionNumber" not in line] == []


def test_dcmtk_reads_the_report(judge, written):
    files, _ = written("DX")
    code, words = judge("dsrdump", files["sr"])
    assert code == 0
    assert "PRELIMINARY" in words
    assert "Lower zone of lung" in words


@pytest.mark.parametrize("name", [*REAL, "DX", "SC"])
@pytest.mark.parametrize("reader", ["gdcmraw", "dcmdump"])
def test_a30_gdcm_and_dcmtk_read_the_mask_bit_for_bit(name, reader, judge, written, tmp_path):
    files, mask = written(name)
    (tmp_path / "raw").mkdir()
    options = ["-i", files["seg"], "-o", tmp_path / "raw/x"]
    code, words = judge(reader, *(["+W", tmp_path / "raw", files["seg"]] if reader == "dcmdump" else options))
    assert code == 0, words
    (raw,) = (tmp_path / "raw").iterdir()
    bits = np.unpackbits(np.frombuffer(raw.read_bytes(), np.uint8), bitorder="little", count=mask.size)
    np.testing.assert_array_equal(bits.reshape(mask.shape) > 0, mask)


@pytest.mark.parametrize("name", [*REAL, "DX", "SC"])
def test_dcmqi_reads_the_mask_voxel_by_voxel(name, judge, written, tmp_path):
    files, mask = written(name)
    options = {"--inputDICOM": files["seg"], "--outputDirectory": tmp_path, "--outputType": "nii", "--prefix": "x"}
    code, words = judge("segimage2itkimage", *[part for pair in options.items() for part in pair])
    assert code == 0, words
    nibabel = pytest.importorskip("nibabel")
    (found,) = tmp_path.glob("x*.nii*")
    values = np.asarray(nibabel.load(found).dataobj).squeeze().T > 0
    np.testing.assert_array_equal(values, mask)


def test_dcmqi_reads_the_report(judge, written, tmp_path):
    files, _ = written("DX")
    code, words = judge("tid1500reader", "--inputDICOM", files["sr"], "--outputMetadata", tmp_path / "report.json")
    assert code == 0, words
    assert "Lesion" in (tmp_path / "report.json").read_text()


@pytest.fixture
def series(finding_of, tmp_path):
    """The real CT series inside pydicom, a mask of it ``(slices, rows, columns)``, and the file of its SEG."""
    from pydicom.data import get_testdata_files

    from textray.io.ct_series import read_volume
    from textray.io.dicom_header import prepare
    from textray.io.dicom_seg import series_seg

    volume = read_volume([Path(path) for path in get_testdata_files("dicomdirtests/98892001/CT5N/*")])
    shape = volume.hu.shape[::-1]
    mask = np.random.default_rng(5).random(shape) > 0.7
    mask[2] = False
    mask[0, 0, 0] = mask[0, 0, -1] = mask[-1, -1, 0] = True
    films = [prepare(path.read_bytes(), slice_of_ct=True) for path in volume.slices]
    seg = tmp_path / "seg.dcm"
    seg.write_bytes(series_seg(films, finding_of(mask)))
    return volume, mask, seg


def test_dciodvfy_finds_no_error_in_the_seg_of_a_series(judge, series):
    _, words = judge("dciodvfy", series[2])
    assert [line for line in words.splitlines() if line.startswith("Error")] == []


def test_a30_dcmqi_reads_the_mask_of_a_series_where_it_lies(judge, series, tmp_path):
    from textray.io.nifti import mask_bytes

    nibabel = pytest.importorskip("nibabel")
    volume, mask, seg = series
    options = {"--inputDICOM": seg, "--outputDirectory": tmp_path, "--outputType": "nii", "--prefix": "x"}
    code, words = judge("segimage2itkimage", *[part for pair in options.items() for part in pair])
    assert code == 0, words
    (path,) = tmp_path.glob("x*.nii*")
    theirs = nibabel.as_closest_canonical(nibabel.load(path))
    (tmp_path / "ours.nii.gz").write_bytes(mask_bytes(volume, volume.to_slices(mask.transpose(2, 1, 0))))
    ours = nibabel.as_closest_canonical(nibabel.load(tmp_path / "ours.nii.gz"))
    np.testing.assert_array_equal(np.asarray(theirs.dataobj) > 0, np.asarray(ours.dataobj) > 0)
    np.testing.assert_allclose(theirs.affine, ours.affine, atol=1e-3)
