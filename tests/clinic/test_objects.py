"""SEG, SR and overlay of films, read back with pydicom and highdicom."""

import numpy as np
import pytest
from highdicom.seg import segread
from highdicom.sr import srread

from textray.errors import InputError, ShapeError
from textray.inference.inputs import demo_film
from textray.io.dicom import read_dicom
from textray.io.dicom_header import from_picture, prepare
from textray.io.read import from_array

from .conftest import CAPTURE, DIGITAL

CAPTURED = {"SOPClassUID": CAPTURE, "Modality": "OT", "ConversionType": "WSD"}
KINDS = {
    "CR": {},
    "DX": {"SOPClassUID": DIGITAL, "Modality": "DX"},
    "MG": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.2", "Modality": "MG"},
    "SC": CAPTURED,
    "uncalibrated": {"PixelSpacing": [0, 0]},
    "Japanese": {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": "Yamada^Tarou=山田^太郎"},
}


def all_items(ds, name):
    """Items of a content tree whose concept has this code."""
    found = []
    for item in ds.get("ContentSequence", []):
        concept = item.get("ConceptNameCodeSequence")
        if concept and concept[0].CodeValue == name:
            found.append(item)
        found += all_items(item, name)
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("plane", ["nominal", "none"])
def test_a30_a_mask_comes_back_bit_for_bit(kind, plane, studied, built, mask_of, opened, tmp_path):
    levels = np.random.default_rng(3).integers(0, 4096, (91, 67), np.uint16)
    mask = mask_of(levels.shape)
    data = studied(levels, **KINDS[kind])
    objects = built(data, mask, plane=plane)
    ds = opened(objects["seg"])
    np.testing.assert_array_equal(ds.pixel_array.astype(bool), mask)
    (tmp_path / "a.dcm").write_bytes(objects["seg"])
    read = segread(tmp_path / "a.dcm")
    np.testing.assert_array_equal(read.pixel_array.squeeze().astype(bool), mask)
    film = opened(data)
    for kind_of in objects.values():
        other = opened(kind_of)
        assert other.StudyInstanceUID == film.StudyInstanceUID
        assert other.PatientID == film.PatientID
        assert str(other.PatientName) == str(film.PatientName)
        assert other.Manufacturer == "TextRay"
    assert ds.ReferencedSeriesSequence[0].SeriesInstanceUID == film.SeriesInstanceUID
    frame, shared = ds.PerFrameFunctionalGroupsSequence[0], ds.SharedFunctionalGroupsSequence[0]
    source = frame.get("DerivationImageSequence") or shared.DerivationImageSequence
    assert source[0].SourceImageSequence[0].ReferencedSOPInstanceUID == film.SOPInstanceUID
    assert ("PlaneOrientationSequence" in shared) == (plane == "nominal")
    assert "FrameOfReferenceUID" not in ds


def test_the_real_film_and_its_mask(built, mask_of, opened):
    pytest.importorskip("data_store")
    data = demo_film().read_bytes()
    image = read_dicom(data)
    mask = mask_of(image.grid.shape)
    objects = built(data, mask, letters=("R", "L"))
    np.testing.assert_array_equal(opened(objects["seg"]).pixel_array.astype(bool), mask)
    overlay = opened(objects["sc"])
    assert max(overlay.Rows, overlay.Columns) == 1024
    assert overlay.SourceImageSequence[0].ReferencedSOPInstanceUID == opened(data).SOPInstanceUID


def test_areas_are_mm2_only_where_the_film_is_calibrated(studied, built, mask_of, opened, levels):
    mask = mask_of(levels.shape)
    for tags, unit, each in (
        ({}, "mm2", 0.2 * 0.3),
        ({"PixelSpacing": [0, 0]}, "{pixels}", 1),
        ({"PixelSpacing": None, "ImagerPixelSpacing": [0.1, 0.1]}, "{pixels}", 1),
    ):
        report = opened(built(studied(levels, **tags), mask)["sr"])
        area = all_items(report, "42798000")[0].MeasuredValueSequence[0]
        assert area.MeasurementUnitsCodeSequence[0].CodeValue == unit
        assert float(area.NumericValue) == pytest.approx(mask.sum() * each)
        assert not all_items(report, "111026")  # the placeholder of the spacing is out again


def test_the_report_points_at_the_seg_and_outlines_the_largest_parts(studied, built, opened, levels, tmp_path):
    mask = np.zeros(levels.shape, bool)
    for i in range(12):
        mask[i * 7 : i * 7 + 4, i * 2 : i * 2 + 3 + i] = True
    objects = built(studied(levels), mask, side="both", lungs={"left": 0.25, "right": 0.5}, side_known=True)
    report, seg = opened(objects["sr"]), opened(objects["seg"])
    (tmp_path / "a.dcm").write_bytes(objects["sr"])
    groups = srread(tmp_path / "a.dcm").content.get_planar_roi_measurement_groups()
    assert len(groups) == 11
    assert groups[0].reference_type.value == "121214"
    assert all_items(report, "121214")[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == seg.SOPInstanceUID
    lines = [group.roi.value for group in groups[1:]]
    assert all((line[0] == line[-1]).all() and line.min() >= 0 for line in lines)
    assert all((line[:, 0] <= mask.shape[1]).all() and (line[:, 1] <= mask.shape[0]).all() for line in lines)
    assert [float(item.MeasuredValueSequence[0].NumericValue) for item in all_items(report, "AFFECTED")] == [25, 50]
    assert (report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag) == (
        "COMPLETE", "UNVERIFIED", "PRELIMINARY",
    )  # fmt: skip
    names = [item.TextValue for item in all_items(report, "112039")]
    assert names[1] == "TextRay lesions, part 1 of 12"


def test_a29_an_empty_mask_is_no_finding_and_no_seg(studied, built, opened, finding_of, levels):
    empty = np.zeros(levels.shape, bool)
    objects = built(studied(levels), empty)
    assert set(objects) == {"sr", "sc"}
    (summary,) = all_items(opened(objects["sr"]), "111017")
    assert summary.ConceptCodeSequence[0].CodeValue == "111241"
    from textray.io.dicom_seg import seg

    with pytest.raises(ShapeError):
        seg(prepare(studied(levels)), finding_of(empty))


def test_the_same_result_has_the_same_bytes_and_another_other_uids(studied, built, mask_of, opened, levels):
    mask, data = mask_of(levels.shape), studied(levels)
    first, second, other = built(data, mask), built(data, mask), built(data, mask, key="other words")
    assert first == second
    for kind, content in first.items():
        one, two = opened(content), opened(other[kind])
        assert one.SOPInstanceUID != two.SOPInstanceUID
        assert one.SeriesInstanceUID != two.SeriesInstanceUID
        assert len(one.SOPInstanceUID) <= 64
        assert content[:128] == bytes(128)


@pytest.mark.parametrize(
    ("drop", "code"),
    [("StudyInstanceUID", "E_NO_STUDY"), ("SeriesInstanceUID", "E_NO_STUDY"), ("SOPClassUID", "E_SEG_SOURCE")],
)
def test_a_film_without_a_study_is_refused(drop, code, studied, levels):
    with pytest.raises(InputError) as caught:
        prepare(studied(levels, drop=[drop], preamble=False))
    assert caught.value.code == code


@pytest.mark.parametrize("uid", ["", "no uid", "1.2..3", "1.2.840.10008.5.1.4.1.1.12.1"])
def test_odd_uids_and_other_classes_are_refused(uid, studied, levels):
    key = "SOPClassUID" if uid.startswith("1.2.840") else "StudyInstanceUID"
    with pytest.raises(InputError) as caught:
        prepare(studied(levels, **{key: uid}))
    assert caught.value.code == ("E_SEG_SOURCE" if key == "SOPClassUID" else "E_NO_STUDY")


def test_several_frames_and_other_film_classes_are_refused(studied, levels):
    for tags, code in (
        ({"NumberOfFrames": 2}, "E_MULTIFRAME"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.12.2", "Modality": "RF"}, "E_SEG_SOURCE"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "Modality": "CT"}, "E_SEG_SOURCE"),
        ({"SOPClassUID": "1.2.3.4.private"}, "E_SEG_SOURCE"),
    ):
        with pytest.raises(InputError) as caught:
            prepare(studied(levels, **tags))
        assert caught.value.code == code
        assert "private" not in str(caught.value)


@pytest.mark.parametrize(
    ("tags", "named"),
    [
        ({"PatientSex": "X"}, "PatientSex"),
        ({"PatientSex": "f"}, "PatientSex"),
        ({"PatientBirthDate": "unknown"}, "PatientBirthDate"),
        ({"StudyDate": "20249999"}, "StudyDate"),
        ({"StudyTime": "99:99"}, "StudyTime"),
        ({"PatientName": "DOE JOHN"}, None),
        ({"PatientSize": "9.87"}, None),
        ({"StudyID": "x" * 30, "AccessionNumber": "y" * 30}, None),
        ({"PatientAge": "many years"}, None),
        ({"PatientOrientation": ["A", "Q"]}, None),
        ({"PatientOrientation": "L"}, None),
        ({"Manufacturer": "z" * 90}, None),
        ({"SpecificCharacterSet": "ISO_IR 999", "PatientName": "Ä^Ö"}, None),
        ({"FrameOfReferenceUID": "1.2.9", "ImagePositionPatient": [1, 2]}, None),
        ({"ImageOrientationPatient": [1, 0, 0], "SliceThickness": 3}, None),
    ],
)
@pytest.mark.filterwarnings("error")
def test_odd_values_give_objects_and_quote_nothing(tags, named, studied, built, mask_of, levels, capfd, caplog):
    data = studied(levels, **tags).replace(b"9.87", b"tall")
    caplog.clear()
    assert len(built(data, mask_of(levels.shape))) == 3
    codes = [notice.text for notice in prepare(data).notices]
    assert [named in text for text in codes] == ([True] if named else [])
    said = capfd.readouterr()
    for value in (text for text in map(str, tags.values()) if len(text) > 1):
        assert value not in said.out + said.err + caplog.text + "".join(codes)


@pytest.mark.parametrize("empty", [True, False])
def test_films_with_little_in_them_give_objects(empty, studied, built, mask_of, opened, levels):
    names = ("StudyID", "StudyDate", "StudyTime", "AccessionNumber", "PatientSex", "ReferringPhysicianName")
    names += ("PatientName", "PatientID", "PatientBirthDate", "PatientOrientation", "PixelSpacing", "ViewPosition")
    tags = dict.fromkeys(names, "") if empty else {"drop": names}
    for content in built(studied(levels, **tags), mask_of(levels.shape)).values():
        ds = opened(content)
        assert ds.PatientName == ""
        assert ds.InstanceCreationDate == "19700101"


def test_nothing_else_of_the_header_goes_into_the_objects(studied, built, mask_of, levels):
    tags = {"InstitutionName": "PLANTED1", "ImageComments": "PLANTED2", "OperatorsName": "PLANTED3"}
    tags |= {"PatientAddress": "PLANTED4", "StationName": "PLANTED5", "PatientComments": "PLANTED6"}
    for content in built(studied(levels, **tags), mask_of(levels.shape)).values():
        assert b"PLANTED" not in content


def test_deidentified_objects_keep_uids_only(studied, finding_of, mask_of, opened, levels, patient):
    from textray.io.dicom_seg import seg

    film = prepare(studied(levels, StudyDescription="CHEST OF JANE"), deidentified=True)
    content = seg(film, finding_of(mask_of(levels.shape)))
    assert not [word for word in (*patient, "JANE", "20240102") if word.encode() in content]
    assert opened(content).StudyInstanceUID == "1.2.3.4"


def test_words_of_a_person_lose_their_control_characters_only(studied, built, mask_of, opened, levels):
    report = opened(built(studied(levels), mask_of(levels.shape), text="Lungs:\r\n\x1b[31mクリア\0 clear")["sr"])
    words = [item.TextValue for item in all_items(report, "111002")]
    assert "Text: Lungs: [31mクリア  clear" in words


def test_a_bare_film_gets_uids_and_a_copy(studied, dicom, opened, levels):
    data = dicom(levels)
    film = prepare(data, make_uids=True)
    copy = opened(film.copy)
    assert (
        copy.StudyInstanceUID == film.header.StudyInstanceUID == prepare(data, make_uids=True).header.StudyInstanceUID
    )
    assert copy.SOPInstanceUID == opened(data).SOPInstanceUID
    np.testing.assert_array_equal(copy.pixel_array, levels)
    assert prepare(film.copy).header.StudyInstanceUID == copy.StudyInstanceUID
    assert prepare(studied(levels), make_uids=True).copy is None


def test_a_de_identified_copy_holds_no_text(dicom, levels, patient):
    film = prepare(dicom(levels, ImageComments="JANE"), make_uids=True, deidentified=True)
    assert not [word for word in (*patient, "JANE") if word.encode() in film.copy]
    np.testing.assert_allclose(read_dicom(film.copy).pixels, read_dicom(dicom(levels)).pixels)


def test_a_picture_becomes_a_secondary_capture(opened, levels):
    image = from_array(levels)
    film = from_picture(image)
    again = read_dicom(film.copy)
    assert again.grid.shape == image.grid.shape
    assert opened(film.copy).PatientID == ""
    np.testing.assert_array_equal(opened(film.copy).pixel_array, levels)


def test_overlays_are_not_read_as_films(studied, built, mask_of, levels):
    for content in built(studied(levels), mask_of(levels.shape)).values():
        with pytest.raises(InputError) as caught:
            read_dicom(content)
        assert caught.value.code == "W_NOT_IMAGE"
