"""Objects before independent judges: dicom3tools (validity), dcmtk and dcmqi (readers)."""

import shutil
import subprocess

import numpy as np
import pytest

from textray.inference.inputs import demo_film

from .test_objects import KINDS

pytestmark = pytest.mark.clinic

NAMES = ("StudyID", "StudyDate", "StudyTime", "AccessionNumber", "PatientSex", "ReferringPhysicianName", "PatientName")
NAMES += ("PatientID", "PatientBirthDate", "PatientOrientation", "PixelSpacing", "ViewPosition")
FILMS = {**KINDS, "little": {"drop": NAMES}, "empty": dict.fromkeys(NAMES, "")}


@pytest.fixture
def judge():
    """Words of a program, or a skipped test where it is not installed."""

    def run(name, *arguments):
        program = shutil.which(name)
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
        return demo_film().read_bytes() if name == "RG1" else studied(levels, **FILMS[name])

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


@pytest.mark.parametrize("name", ["RG1", *FILMS])
@pytest.mark.parametrize("empty", [False, True])
def test_dciodvfy_finds_no_error(name, empty, judge, written):
    files, _ = written(name, empty=empty, text="opacity, 不透明")
    for kind in sorted(set(files) - {"film"}):
        _, words = judge("dciodvfy", files[kind])
        assert [line for line in words.splitlines() if line.startswith("Error")] == [], kind


def test_dcentvfy_finds_one_patient_and_study(judge, written):
    files, _ = written("RG1")
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


@pytest.mark.parametrize("name", ["RG1", "DX", "SC"])
def test_dcmqi_reads_the_mask_voxel_by_voxel(name, judge, written, tmp_path):
    files, mask = written(name)
    options = {"--inputDICOM": files["seg"], "--outputDirectory": tmp_path, "--outputType": "nii", "--prefix": "x"}
    code, words = judge("segimage2itkimage", *[part for pair in options.items() for part in pair])
    assert code == 0, words
    nibabel = pytest.importorskip("nibabel")
    (found,) = tmp_path.glob("x*.nii*")
    values = np.asarray(nibabel.load(found).dataobj).squeeze().T > 0
    np.testing.assert_array_equal(values, mask)
