"""What tests of DICOM objects share."""

import io

import numpy as np
import pytest
from pydicom import dcmread

pytest.importorskip("highdicom")

STUDY = {
    "StudyInstanceUID": "1.2.3.4",
    "SeriesInstanceUID": "1.2.3.4.5",
    "StudyID": "S1",
    "StudyDate": "20240102",
    "StudyTime": "101112",
    "AccessionNumber": "A1",
    "PatientSex": "F",
    "ReferringPhysicianName": "",
}
DIGITAL = "1.2.840.10008.5.1.4.1.1.1.1"
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@pytest.fixture(scope="session")
def studied(dicom):
    """Bytes of a film that belongs to a study: ``studied(levels, **tags)``."""
    return lambda levels, **tags: dicom(levels, **STUDY | tags)


@pytest.fixture
def mask_of():
    """An asymmetric random mask with three corner pixels: ``mask_of(shape, seed=0)``."""

    def draw(shape, seed=0):
        mask = np.zeros(shape, bool)
        top, left = shape[0] // 3, shape[1] // 5
        mask[top:-5, left : 2 * left + 3] = (
            np.random.default_rng(seed).random(mask[top:-5, left : 2 * left + 3].shape) > 0.4
        )
        mask[0, 0] = mask[0, -1] = mask[-1, 0] = True
        return mask

    return draw


@pytest.fixture
def finding_of():
    """A finding: ``finding_of(mask, **changes)``."""
    from textray.io.dicom_header import Finding

    def build(mask, **changes):
        values = {"mask": mask, "lungs": {}, "weights": ("tiny", "0"), "weights_sha256": "ab" * 32, "key": "k"}
        return Finding(**values | changes)

    return build


@pytest.fixture
def built(finding_of):
    """Bytes of the three objects by kind: ``built(film bytes, mask, **changes of the finding)``."""
    from textray.io.dicom_header import prepare
    from textray.io.dicom_sc import sc
    from textray.io.dicom_seg import seg
    from textray.io.dicom_sr import sr

    def build(data, mask, *, plane="nominal", letters=None, text=None, **changes):
        film, finding = prepare(data), finding_of(mask, **changes)
        pixels = np.linspace(0, 1, mask.size, dtype=np.float32).reshape(mask.shape)
        found = {"seg": seg(film, finding, plane=plane)} if mask.any() else {}
        return found | {
            "sr": sr(film, finding, found.get("seg"), text=text),
            "sc": sc(film, finding, pixels, letters),
        }

    return build


@pytest.fixture
def opened():
    """A data set of bytes."""
    return lambda data: dcmread(io.BytesIO(data))
