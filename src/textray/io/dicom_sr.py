"""Structured reports (Comprehensive SR, TID 1500) of projection films."""

from __future__ import annotations

import re

from highdicom.sr import (
    AlgorithmIdentification,
    ComprehensiveSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    GraphicTypeValues,
    ImageRegion,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    ReferencedSegmentationFrame,
    SourceImageForMeasurementGroup,
    SourceImageForRegion,
    SourceImageForSegmentation,
    TrackingIdentifier,
)
from highdicom.sr.templates import Template
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.sr.codedict import codes as dictionary

from textray import __version__
from textray.io import dicom_codes as codes
from textray.io.dicom_header import Film, Finding, equipment, finish, identity, make_uid, writing
from textray.io.dicom_seg import tracking_uid
from textray.io.outlines import Part, outline, parts

KIND, NUMBER = "sr", 9902
_MOST_PARTS = 10
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


@writing
def sr(film: Film, finding: Finding, seg: bytes | None = None, *, text: str | None = None) -> bytes:
    """Build the preliminary, unverified report of a result: area, place, and outlines of the largest parts.

    Args:
        film: The film.
        finding: The result; an empty mask is reported as no finding.
        seg: The SEG of the result, which the report points at; ``None`` without one.
        text: Words of a person that go in as they are, without control characters.

    Raises:
        InputError: ``E_DICOM_WRITE`` if the film's header does not allow it.
    """
    day, clock = film.created
    image = _for_library(film)
    algorithm = AlgorithmIdentification(
        name=f"TextRay {finding.weights[0]}",
        version=finding.weights[1],
        parameters=[*finding.parameters, *([] if text is None else [f"Text: {_CONTROL.sub(' ', text)}"])],
        family=codes.INTELLIGENCE,
        manufacturer="TextRay",
    )
    found, count = parts(finding.mask, _MOST_PARTS)
    segment = None if seg is None else dcmread(DicomBytesIO(seg), stop_before_pixels=True)
    groups = [_whole(film, finding, segment, algorithm)]
    groups += [_part(film, finding, part, number, count) for number, part in enumerate(found, 1)]
    device = DeviceObserverIdentifyingAttributes(
        uid=make_uid("device", __version__),
        name="TextRay",
        manufacturer_name="TextRay",
        model_name=" ".join(finding.weights),
        serial_number=finding.weights_sha256[:12],
    )
    observer = ObserverContext(observer_type=dictionary.DCM.Device, observer_identifying_attributes=device)
    report = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=observer),
        procedure_reported=codes.RADIOGRAPH,
        imaging_measurements=groups,
        referenced_images=[image],
    )
    _remove_placeholders(report[0], film)
    ds = ComprehensiveSR(
        evidence=[film.header] if segment is None else [film.header, segment],
        content=report[0],
        is_complete=True,
        is_final=False,
        is_verified=False,
        content_date=day,
        content_time=clock,
        specific_character_set="ISO_IR 192",
        **equipment(finding),
        **identity(KIND, NUMBER, film, finding),
    )
    return finish(ds, film, "TextRay lesions, preliminary")


def _whole(film: Film, finding: Finding, segment: Dataset | None, algorithm: AlgorithmIdentification) -> Template:
    """The group of the mask as a whole; of an empty one that says that nothing was found."""
    header, empty = film.header, not finding.mask.any()
    tracking = TrackingIdentifier(uid=tracking_uid(film, finding), identifier="TextRay lesions")
    sites = None if empty else [_site(finding)]
    measurements = [_area(film, int(finding.mask.sum()))]
    for side, share in finding.lungs.items():
        measurements.append(
            Measurement(
                name=codes.AFFECTED[None if finding.side_known else side],
                value=round(share * 100, 2),
                unit=codes.PERCENT,
                finding_sites=[FindingSite(codes.LUNG, codes.SIDES[side] if finding.side_known else None)],
            )
        )
    summary = [QualitativeEvaluation(codes.SUMMARY, codes.NO_FINDINGS if empty else codes.FINDINGS)]
    if segment is None or empty:
        return MeasurementsAndQualitativeEvaluations(
            tracking_identifier=tracking,
            finding_type=None if empty else codes.LESION,
            finding_sites=sites,
            algorithm_id=algorithm,
            measurements=measurements,
            qualitative_evaluations=summary,
            source_images=[SourceImageForMeasurementGroup(header.SOPClassUID, header.SOPInstanceUID)],
        )
    reference = ReferencedSegmentationFrame(
        segment.SOPClassUID,
        segment.SOPInstanceUID,
        frame_number=1,
        segment_number=1,
        source_image=SourceImageForSegmentation(header.SOPClassUID, header.SOPInstanceUID),
    )
    # The standard forbids both numbers in one reference, and highdicom's reader asks for the segment.
    del reference[0].ReferencedSOPSequence[0].ReferencedFrameNumber
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracking,
        referenced_segment=reference,
        finding_type=codes.LESION,
        finding_sites=sites,
        algorithm_id=algorithm,
        measurements=measurements,
        qualitative_evaluations=summary,
    )


def _part(film: Film, finding: Finding, part: Part, number: int, count: int) -> Template:
    header = film.header
    region = ImageRegion(
        GraphicTypeValues.POLYLINE,
        outline(part),
        SourceImageForRegion(header.SOPClassUID, header.SOPInstanceUID),
    )
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=tracking_uid(film, finding, number), identifier=f"TextRay lesions, part {number} of {count}"
        ),
        referenced_region=region,
        finding_type=codes.LESION,
        finding_sites=[FindingSite(codes.LUNG)],
        measurements=[_area(film, part.pixels)],
    )


def _site(finding: Finding) -> FindingSite:
    return FindingSite(
        codes.LUNG,
        None if finding.side is None else codes.SIDES[finding.side],
        None if finding.level is None else codes.LEVELS[finding.level],
    )


def _area(film: Film, pixels: int) -> Measurement:
    if film.spacing_mm is None:
        return Measurement(name=codes.AREA, value=pixels, unit=codes.PIXELS)
    value = round(pixels * film.spacing_mm[0] * film.spacing_mm[1], 2)
    return Measurement(name=codes.AREA, value=value, unit=codes.SQUARE_MM)


def _for_library(film: Film) -> Dataset:
    """The header with what highdicom asks of a film for the image library; `_remove_placeholders` removes it again."""
    image = Dataset()
    image.update(film.header)
    image.ImagerPixelSpacing = [1, 1]
    if not image.PatientOrientation:
        image.PatientOrientation = ["L", "F"]
    return image


def _remove_placeholders(item: Dataset, film: Film) -> None:
    invented = {"HorizontalPixelSpacing", "VerticalPixelSpacing"}
    if not film.header.PatientOrientation:
        invented |= {"PatientOrientationRow", "PatientOrientationColumn"}
    values = {getattr(dictionary.DCM, name).value for name in invented}
    stack = [item]
    while stack:
        below = stack.pop().get("ContentSequence")
        if below is None:
            continue
        for index in reversed(range(len(below))):
            name = below[index].get("ConceptNameCodeSequence")
            if name and name[0].get("CodeValue") in values:
                del below[index]
            else:
                stack.append(below[index])
