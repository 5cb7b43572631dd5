"""Overlays as Secondary Capture, for workstations that show nothing but pictures."""

from __future__ import annotations

import numpy as np
from highdicom.sc import SCImage
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from textray.io import dicom_codes as codes
from textray.io.dicom_header import Film, Finding, equipment, finish, identity, writing
from textray.io.page import LONGEST, PAPER, Page, fit, line_height, shrink, text_width
from textray.io.write import render_overlay
from textray.records import Pixels

KIND, NUMBER = "sc", 9903
_SMALLEST = 10  # pixels of the smallest readable letters


@writing
def sc(film: Film, finding: Finding, pixels: Pixels, letters: tuple[str, str] | None) -> bytes:
    """Build the overlay of a mask over its film ``(H, W)`` as a picture of the film's study, at most 1,024 pixels long.

    ``letters`` are the patient's sides at the picture's left and right, ``None`` where the film does not tell.
    """
    header, day, clock = film.header, *film.created
    ds = SCImage(
        pixel_array=draw(pixels, finding.mask, letters),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        study_instance_uid=header.StudyInstanceUID,
        patient_id=header.PatientID,
        patient_name=header.PatientName,
        patient_birth_date=header.PatientBirthDate,
        patient_sex=header.PatientSex,
        accession_number=header.AccessionNumber,
        study_id=header.StudyID,
        study_date=header.StudyDate,
        study_time=header.StudyTime,
        referring_physician_name=header.ReferringPhysicianName,
        patient_orientation=("L", "F"),  # highdicom asks for one; that of the film replaces it
        specific_character_set="ISO_IR 192",
        content_date=day,
        content_time=clock,
        **equipment(finding),
        **identity(KIND, NUMBER, film, finding),
    )
    ds.PatientOrientation, ds.Laterality = header.PatientOrientation, ""
    source = Dataset()
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator = codes.SOURCE.value, codes.SOURCE.scheme_designator
    purpose.CodeMeaning = codes.SOURCE.meaning
    source.PurposeOfReferenceCodeSequence = Sequence([purpose])
    ds.SourceImageSequence = Sequence([source])
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.DerivationDescription = "Lesions found by TextRay, tinted and outlined. Research only, not for diagnosis."
    ds.BurnedInAnnotation = header.get("BurnedInAnnotation") or "NO"
    return finish(ds, film, "TextRay overlay, not for diagnosis")


def draw(pixels: Pixels, mask: NDArray[np.bool_], letters: tuple[str, str] | None) -> NDArray[np.uint8]:
    """Draw the overlay with its warning and the side letters on it."""
    height, width = fit(mask.shape, min(max(mask.shape), LONGEST))
    page = Page(width, height)
    page.paste(0, 0, shrink(render_overlay(pixels, mask), (height, width)))
    size = max(_SMALLEST, width // 45)
    line = line_height(size) + 4
    words = "TextRay: research only, not for diagnosis." + ("" if mask.any() else " No lesion marked.")
    page.box(0, height - line, min(width, text_width(words, size) + 8), line, (0, 0, 0))
    page.text(4, height - line + 2, words, size, colour=PAPER)
    if letters is not None:
        page.text(6, 4, letters[0], 2 * size, colour=PAPER)
        page.text(width - 6, 4, letters[1], 2 * size, colour=PAPER, anchor="r")
    return page.picture
