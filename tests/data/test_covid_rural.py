"""COVID Rural on a small copy in the published layouts of its two sources, made without code of the reader."""

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from textray.data.base import open_reader
from textray.data.boxes import truth
from textray.data.covid_rural import COVIDRural
from textray.errors import DataError, LayoutError, UsageError
from textray.io.read import read

COPIED, ARCHIVED, EMPTY = (
    "COVID-19-AR-16406488_12-15-2011-XR", "COVID-19-AR-16434409_03-01-2012-XR", "COVID-19-AR-16434409_03-04-2012-XR",
)  # fmt: skip


def write_mask(root, name, size=(40, 48), lesion=True):
    mask = np.zeros(size, np.uint8)
    mask[10:20, 5:15] = lesion  # 0 and 1, as published
    (root / "covid_rural_annot" / "pngs_masks").mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(root / "covid_rural_annot" / "pngs_masks" / f"{name}.png")


def write_dicom(path, size=(40, 48), modality="CR"):
    film = Dataset()
    film.file_meta = FileMetaDataset()
    film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film.file_meta.MediaStorageSOPClassUID = film.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    film.file_meta.MediaStorageSOPInstanceUID = film.SOPInstanceUID = generate_uid()
    film.Modality, film.PhotometricInterpretation, film.SamplesPerPixel = modality, "MONOCHROME2", 1
    film.Rows, film.Columns = size
    film.BitsAllocated, film.BitsStored, film.HighBit, film.PixelRepresentation = 16, 12, 11, 0
    film.PixelData = np.random.default_rng(len(str(path))).integers(0, 4095, size, np.uint16).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    film.save_as(path, enforce_file_format=True)


def study(root, folder="03-01-2012-XR CHEST AP PORTABLE-12345"):
    return root / "COVID-19-AR" / "COVID-19-AR-16434409" / folder / "1.000000-AP-1"


@pytest.fixture
def rural(tmp_path):
    for name in (COPIED, ARCHIVED):
        write_mask(tmp_path, name)
    write_mask(tmp_path, EMPTY, lesion=False)
    copies = tmp_path / "covid_rural_annot" / "jpgs"
    copies.mkdir()
    Image.linear_gradient("L").resize((48, 40)).save(copies / f"{COPIED}.jpg")
    write_dicom(study(tmp_path) / "1-1.dcm")
    write_dicom(study(tmp_path, "03-01-2012-CT CHEST-777") / "1-1.dcm", modality="CT")  # same day and size
    write_dicom(study(tmp_path, "03-04-2012-XR CHEST-888") / "1-1.dcm")  # another day
    return tmp_path


def test_masks_find_their_films(rural):
    found = open_reader("covid_rural", rural).phrases("test")
    assert [one.image_id for one in found] == [COPIED, ARCHIVED]
    assert [one.patient_id for one in found] == ["16406488", "16434409"]
    assert [one.image_path.suffix for one in found] == [".jpg", ".dcm"]
    assert "03-01-2012-XR" in str(found[1].image_path)
    assert {one.phrase for one in found} == {"Findings suggesting pneumonia."}
    for one in found:
        shape = read(one.image_path).grid.shape
        mask = truth(one, shape)
        assert shape == (40, 48)
        assert mask[10:20, 5:15].all()
        assert mask.sum() == 100


def test_an_empty_mask_is_left_out_and_named(rural):
    (problem,) = COVIDRural(rural).check().problems
    assert (problem.code, EMPTY in problem.path) == ("W_MASK_EMPTY", True)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda root: write_dicom(study(root) / "1-2.dcm"), "W_AMBIGUOUS"),
        (lambda root: write_dicom(study(root) / "1-1.dcm", size=(41, 48)), "W_MASK_SIZE"),
        (lambda root: (study(root) / "1-1.dcm").unlink(), "W_NO_IMAGE"),
        (lambda root: (study(root) / "1-1.dcm").write_bytes(b"no film"), "W_NO_IMAGE"),
    ],
    ids=["two", "size", "missing", "broken"],
)
def test_no_film_is_guessed(rural, change, code):
    change(rural)
    assert [one.image_id for one in open_reader("covid_rural", rural).phrases("test")] == [COPIED]
    assert [p.code for p in COVIDRural(rural).check().problems if ARCHIVED in p.path] == [code]


def test_a_mask_of_another_name_is_refused(rural):
    write_mask(rural, "patient_1")
    with pytest.raises(DataError, match="E_ID"):
        open_reader("covid_rural", rural).phrases("test")


def test_only_test(rural):
    with pytest.raises(UsageError, match="test alone"):
        open_reader("covid_rural", rural).phrases("train")


def test_masks_alone_or_nothing_are_refused(tmp_path):
    with pytest.raises(LayoutError, match="no pngs_masks"):
        open_reader("covid_rural", tmp_path)
    write_mask(tmp_path, COPIED)
    with pytest.raises(LayoutError, match="no film of covid_rural"):
        open_reader("covid_rural", tmp_path).phrases("test")
