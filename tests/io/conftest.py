"""One asymmetric phantom, written as every kind of file: the readers must agree on it."""

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    generate_uid,
)

from textray.errors import InputError
from textray.io.dicom import read_dicom

SYNTAXES = {
    "explicit": ExplicitVRLittleEndian,
    "implicit": ImplicitVRLittleEndian,
    "big endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
}
PATIENT = ("DOE^JANE", "PID-4711", "19331224")


def phantom_levels(height=90, width=70, top=4095):
    """Unsigned levels that use the whole of 0..top and look different turned, flipped or transposed."""
    y, x = np.mgrid[:height, :width] / np.array([height - 1, width - 1]).reshape(2, 1, 1)
    values = 0.6 * y + 0.3 * x + 0.1 * (((y - 0.3) / 0.2) ** 2 + ((x - 0.7) / 0.15) ** 2 < 1)
    values = (values - values.min()) / np.ptp(values)
    return np.rint(values * top).astype(np.uint16)


def build_dicom(levels, **options):
    """As `build_film`, where pydicom's warnings of values that no correct writer would write are meant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return build_film(levels, **options)


def build_film(levels, *, syntax="explicit", preamble=True, drop=(), **tags):
    """Bytes of a CR film of ``levels``; ``tags`` replace or add elements, ``drop`` removes them."""
    little = syntax != "big endian"
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = ComputedRadiographyImageStorage, generate_uid(entropy_srcs=["textray"])
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = PATIENT
    ds.Modality, ds.ViewPosition, ds.PatientOrientation = "CR", "PA", ["L", "F"]
    ds.PixelSpacing = [0.2, 0.3]
    ds.Rows, ds.Columns = levels.shape[:2]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelData = levels.astype(
        f"{'<' if little else '>'}{'i' if levels.dtype.kind == 'i' else 'u'}{levels.itemsize}"
    ).tobytes()
    ds["PixelData"].VR = "OW"
    for keyword, value in tags.items():
        setattr(ds, keyword, value)
    for keyword in drop:
        delattr(ds, keyword)
    buffer = io.BytesIO()
    if preamble:
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = SYNTAXES[syntax]
        ds.save_as(buffer, enforce_file_format=True)
    else:
        ds.save_as(buffer, implicit_vr=syntax == "implicit", little_endian=little)
    return buffer.getvalue()


def build_raster(levels, kind="PNG", **options):
    buffer = io.BytesIO()
    PILImage.fromarray(levels).save(buffer, format=kind, **options)
    return buffer.getvalue()


@pytest.fixture
def levels():
    return phantom_levels()


@pytest.fixture
def dicom():
    return build_dicom


@pytest.fixture
def raster():
    return build_raster


@pytest.fixture
def patient():
    return PATIENT


@pytest.fixture
def put(tmp_path):
    def write(data, name="film") -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


@pytest.fixture(scope="session")
def real_film():
    """The film that the package pydicom-data ships; never over a network."""
    store = pytest.importorskip("data_store", reason="pydicom-data is not installed")
    return Path(store.__file__).parent / "data" / "RG1_UNCR.dcm"


@pytest.fixture(scope="session")
def refused():
    """Ask for the refusal of DICOM bytes: ``refused(data, code)`` gives the message."""

    def ask(data, code):
        with pytest.raises(InputError) as caught:
            read_dicom(data)
        assert caught.value.code == code, str(caught.value)
        return str(caught.value)

    return ask


@pytest.fixture(scope="session")
def raw_text():
    """Put a text into DICOM bytes that no correct writer would write, in place of as many nines."""

    def put_in(data, text):
        nines = b"9" * len(text)
        assert data.count(nines) == 1
        return data.replace(nines, text)

    return put_in
