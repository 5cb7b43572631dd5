"""A CT phantom as NIfTI and as DICOM slices, and weights of tests that know CT."""

import itertools

import numpy as np
import pytest

nibabel = pytest.importorskip("nibabel")

SHAPE = (40, 48, 9)  # voxels to left, back and head; each of another length
STEP = (1.5, 2.0, 5.0)
ORIENTATIONS = [
    "".join(code) for axes in itertools.permutations(("LR", "AP", "SI")) for code in itertools.product(*axes)
]
GRAPH = """(float[B,3,48,40] image) => (float[B,1,48,40] logits) {
    grey = ReduceMean <keepdims=1> (image, channel_axis)
    above = Sub (grey, half)
    logits = Mul (above, steep)
}"""


@pytest.fixture(scope="session")
def ct_bundle(make_bundle, make_graph, tmp_path_factory):
    """Folder of weights without text that mark what lies above 0 HU, pixel by pixel."""
    from textray.preprocess import Preprocess

    way = Preprocess(size=(48, 40), normalise="unit", hounsfield=(-1000.0, 1000.0))
    graph = make_graph(GRAPH, {"channel_axis": [1], "half": np.float32(0.5), "steep": np.float32(200)})
    folder = tmp_path_factory.mktemp("bundles") / "ct"
    return make_bundle(folder, name="ct", reads_text=False, preprocess=way, graph=graph).folder


@pytest.fixture(scope="session")
def ct_model(ct_bundle):
    """These weights, loaded."""
    import textray

    return textray.load(ct_bundle, threads=1)


@pytest.fixture(scope="session")
def reading_ct_bundle(make_bundle, tmp_path_factory):
    """Folder of weights that know CT and mark the zones of a text."""
    from textray.preprocess import Preprocess

    way = Preprocess(size=(64, 64), normalise="unit", hounsfield=(-1000.0, 1000.0))
    return make_bundle(tmp_path_factory.mktemp("bundles") / "reading", name="reading", preprocess=way).folder


@pytest.fixture
def run_ct(cli, ct_bundle, tmp_path, monkeypatch):
    """Run ``textray segment`` with the CT weights in ``tmp_path``."""
    monkeypatch.chdir(tmp_path)
    return lambda *args: cli("segment", *args, "--model", ct_bundle, "--threads", "1")


@pytest.fixture(scope="session")
def phantom():
    """HU ``(L, P, S)`` of a CT, int16: air, a body, and bright lesions at the patient's left, front and head."""
    hu = np.full(SHAPE, -1000, np.int16)
    hu[6:-6, 8:-8, 1:] = -80
    hu[28:33, 12:15, 5:8] = 120  # left, front, head
    hu[10:12, 30:34, 2] = 60  # right, back, feet; smaller
    hu[29, 13, 6] = -80
    return hu


@pytest.fixture(scope="session")
def places():
    """Centres of a mask's voxels in mm (RAS), sorted: ``places(mask, affine) -> (N, 3)``."""

    def find(mask, affine):
        found = np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]
        return found[np.lexsort(np.round(found, 3).T)]

    return find


@pytest.fixture(scope="session")
def nifti(phantom):
    """A NIfTI image of the phantom: ``nifti(codes="LPS", *, hu, codes=(1, 1), kind) -> image``."""

    def build(axes="LPS", *, hu=None, codes=(1, 1), kind=nibabel.Nifti1Image):
        affine = np.diag([-STEP[0], -STEP[1], STEP[2], 1.0])
        affine[:3, 3] = 30, 44, -100
        whole = kind(phantom if hu is None else hu, affine)
        turn = nibabel.orientations.ornt_transform(
            nibabel.orientations.axcodes2ornt("LPS"), nibabel.orientations.axcodes2ornt(axes)
        )
        image = whole.as_reoriented(turn)
        image = kind(np.asarray(image.dataobj), image.affine)
        image.set_qform(image.affine, codes[0])
        image.set_sform(image.affine, codes[1])
        image.header.set_xyzt_units("mm", "sec")
        return image

    return build


@pytest.fixture(scope="session")
def ct_slices(dicom, phantom):
    """Bytes of the phantom's axial DICOM slices from the feet: ``ct_slices(hu=None, **tags) -> [bytes]``."""

    def build(hu=None, drop=(), **tags):
        hu = phantom if hu is None else hu
        made = []
        for number in range(hu.shape[2]):
            given = {
                "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
                "SOPInstanceUID": f"1.2.3.9.{number}",
                "StudyInstanceUID": "1.2.3.4",
                "SeriesInstanceUID": "1.2.3.4.7",
                "FrameOfReferenceUID": "1.2.3.4.8",
                "Modality": "CT",
                "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
                "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
                "ImagePositionPatient": [-30, -44, -100 + STEP[2] * number],
                "PixelSpacing": [STEP[1], STEP[0]],
                "SliceThickness": STEP[2],
                "InstanceNumber": 99 - number,
                "RescaleSlope": 1,
                "RescaleIntercept": -1024,
                "PatientPosition": "HFS",
            } | tags  # fmt: skip
            stored = (hu[:, :, number].T - given["RescaleIntercept"]) / given["RescaleSlope"]
            kind = np.int16 if given.get("PixelRepresentation") else np.uint16
            made.append(dicom(np.rint(stored).astype(kind), drop=drop, **given))
        return made

    return build


@pytest.fixture
def ct_folder(ct_slices, tmp_path):
    """Write slices under shuffled names: ``ct_folder(name="in/ct", slices=None, **tags) -> folder``."""

    def write(name="in/ct", slices=None, **tags):
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        slices = ct_slices(**tags) if slices is None else slices
        for number, data in enumerate(slices):
            (folder / f"{number * 7 % 97:03d}.dcm").write_bytes(data)
        return folder

    return write


@pytest.fixture(scope="session")
def change_header():
    """Bytes of a NIfTI image with a field changed: ``change_header(image, offset, bytes) -> bytes``."""

    def change(image, *changes):
        data = bytearray(image.to_bytes())
        for offset, value in changes:
            data[offset : offset + len(value)] = value
        return bytes(data)

    return change


@pytest.fixture(scope="session")
def opened_mask():
    """A mask that was written: ``opened_mask(path or bytes) -> nibabel image``."""

    def read(source):
        if isinstance(source, bytes):
            return nibabel.Nifti1Image.from_bytes(source)
        return nibabel.load(source)

    return read
