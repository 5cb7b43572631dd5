"""Segmentation objects (BINARY SEG) of projection films and CT series."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from highdicom import (
    AlgorithmIdentificationSequence,
    PixelMeasuresSequence,
    PlaneOrientationSequence,
    PlanePositionSequence,
)
from highdicom.color import CIELabColor
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from textray.errors import ShapeError
from textray.io import dicom_codes as codes
from textray.io.dicom_header import Film, Finding, equipment, finish, identity, make_uid, writing

KIND, NUMBER = "seg", 9901
_CYAN = CIELabColor(78.0, -30.0, -33.0)  # the colour of overlays
Plane = Literal["nominal", "none"]


@writing
def seg(film: Film, finding: Finding, *, plane: Plane = "nominal") -> bytes:
    r"""Build the SEG of a mask that is not empty: one segment, one frame, on the film's own rows and columns.

    A projection film has no plane in space. Viewers refuse a SEG without one, so it gets a ``nominal`` one, which
    ContentDescription says: rows to 1\0\0, columns to 0\1\0, no frame of reference.

    Raises:
        ShapeError: If the mask does not lie on the film's grid.
        InputError: ``E_DICOM_WRITE`` if the film's header does not allow it.
    """
    header, mask = film.header, finding.mask
    if mask.shape != (header.Rows, header.Columns) or mask.dtype != np.bool_ or not mask.any():
        expected = f"({header.Rows}, {header.Columns}), not empty"
        raise ShapeError("no SEG of this mask", came=mask.shape, expected=expected)
    uncalibrated = "" if film.spacing_mm else "; pixels are not calibrated"
    note = f"Plane is nominal{uncalibrated}. Research only." if plane == "nominal" else "Research only."
    ds = _segmentation([film], finding, note)
    ds.PatientOrientation = header.PatientOrientation
    if plane == "nominal":
        shared, frame = ds.SharedFunctionalGroupsSequence[0], ds.PerFrameFunctionalGroupsSequence[0]
        shared.PlaneOrientationSequence = PlaneOrientationSequence("PATIENT", (1, 0, 0, 0, 1, 0))
        shared.PixelMeasuresSequence = PixelMeasuresSequence(film.spacing_mm or (1, 1), slice_thickness=1)
        frame.PlanePositionSequence = PlanePositionSequence("PATIENT", (0, 0, 0))
    return finish(ds, film, "TextRay lesions")


@writing
def series_seg(films: Sequence[Film], finding: Finding) -> bytes:
    """Build the SEG of a mask of a CT series, ``(slices, rows, columns)`` in the order of its films.

    Slices without lesion have no frame.

    Raises:
        ShapeError: If the mask does not lie on the slices, or is empty.
        InputError: ``E_DICOM_WRITE`` if the slices' headers do not allow it.
    """
    header, mask = films[0].header, finding.mask
    if mask.shape != (len(films), header.Rows, header.Columns) or mask.dtype != np.bool_ or not mask.any():
        expected = f"({len(films)}, {header.Rows}, {header.Columns}), not empty"
        raise ShapeError("no SEG of this mask", came=mask.shape, expected=expected)
    return finish(_segmentation(films, finding, "Research only."), films[0], "TextRay lesions")


def _segmentation(films: Sequence[Film], finding: Finding, note: str) -> Segmentation:
    film = films[0]
    day, clock = film.created
    segment = SegmentDescription(
        segment_number=1,
        segment_label="Lesion",
        segmented_property_category=codes.ABNORMAL,
        segmented_property_type=codes.LESION,
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name=f"TextRay {finding.weights[0]}",
            version=finding.weights[1],
            family=codes.INTELLIGENCE,
            source="TextRay",
        ),
        tracking_id="TextRay lesions",
        tracking_uid=tracking_uid(film, finding),
        anatomic_regions=[codes.LUNG],
        display_color=_CYAN,
    )
    if finding.side is not None:
        modifier = Dataset()
        side = codes.SIDES[finding.side]
        modifier.CodeValue, modifier.CodingSchemeDesignator, modifier.CodeMeaning = side.value, side[1], side.meaning
        segment.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = Items([modifier])
    return Segmentation(
        source_images=[film.header for film in films],
        pixel_array=finding.mask,
        segmentation_type="BINARY",
        segment_descriptions=[segment],
        content_label="LESION",
        content_description=note,
        content_date=day,
        content_time=clock,
        specific_character_set="ISO_IR 192",
        omit_empty_frames=True,
        **equipment(finding),
        **identity(KIND, NUMBER, film, finding),
    )


def tracking_uid(film: Film, finding: Finding, part: int = 0) -> str:
    """Tracking UID of the whole lesion, or of one of its parts, the same in SEG and SR."""
    return make_uid("tracking", film.header.SOPInstanceUID, finding.key, str(part))
