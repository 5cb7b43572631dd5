"""The header of a film, prepared for DICOM objects about it, and what such objects have in common.

Nothing of the film's header passes but what the lists here name. No value of it gets into a message, a log or a record.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from functools import wraps
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from textray import __version__
from textray.errors import InputError, TextRayError
from textray.io.dicom_pixels import integer, multi_frame, numbers, quiet, value, words
from textray.io.files import regular
from textray.io.levels import strips
from textray.records import Image, Notice

MANUFACTURER = "TextRay"
"""Manufacturer of the objects, by which readers know and skip them."""
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
CT = "1.2.840.10008.5.1.4.1.1.2"
SOURCES: Final = {
    "CR": "1.2.840.10008.5.1.4.1.1.1",
    "DX": "1.2.840.10008.5.1.4.1.1.1.1",
    "DX for processing": "1.2.840.10008.5.1.4.1.1.1.1.1",
    "MG": "1.2.840.10008.5.1.4.1.1.1.2",
    "MG for processing": "1.2.840.10008.5.1.4.1.1.1.2.1",
    "SC": SECONDARY_CAPTURE,
}
"""Storage classes of the films that objects are written for, by modality."""

_PATIENT = ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex")
_STUDY = ("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName", "StudyDescription")
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_EQUIPMENT = ("Manufacturer", "ManufacturerModelName")
_IMAGE = ("Modality", *_EQUIPMENT, "SamplesPerPixel", "PhotometricInterpretation", "BurnedInAnnotation")
_OPTIONAL = frozenset(("IssuerOfPatientID", "StudyDescription", "ManufacturerModelName", "BurnedInAnnotation"))
"""These may be absent; each other one becomes empty (type 2)."""
_DIRECTIONS = re.compile(r"[LRAPHF]{1,3}")
_TIME = re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?")
_NAMESPACE = uuid.UUID("6f1c3f3e-52a5-5d38-9d0c-5a9b8f6f6a51")
_EPOCH = ("19700101", "000000")
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, eq=False)
class Film:
    """A film that objects can be written for.

    Attributes:
        header: Its allowed elements, all of type 2 present, values that a writer would refuse empty.
        spacing_mm: PixelSpacing where it is positive, else ``None``.
        created: Date and time of all objects of this film: those of its study, or else fixed ones. With the time of the
            clock, the same result would have other bytes under the same UID.
        copy: Bytes of a copy of the film with the UIDs made for it, ``None`` for a film that brings its own.
        notices: Warnings, which name elements but no values.
    """

    header: Dataset
    spacing_mm: tuple[float, float] | None
    created: tuple[str, str]
    copy: bytes | None = None
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Finding:
    """A result, as the objects state it.

    Attributes:
        mask: ``(H, W)`` bool on the film's grid.
        side: The patient's side, ``"left"``, ``"right"`` or ``"both"``; ``None`` where the film does not tell.
        level: The one zone ``"upper"``, ``"middle"`` or ``"lower"`` that the lesion lies in; ``None`` for more.
        lungs: Affected share of each lung in [0, 1], by the patient's side, or by the viewer's where `side_known` is
            false; empty without lungs.
        side_known: True if the film's tag tells the patient's sides.
        weights: Name and version of the weights.
        weights_sha256: Hash of the weights.
        parameters: Settings in words, for the SR.
        key: Hash of everything that decides the result.
    """

    mask: NDArray[np.bool_]
    side: str | None = None
    level: str | None = None
    lungs: dict[str, float]
    side_known: bool = False
    weights: tuple[str, str]
    weights_sha256: str
    parameters: tuple[str, ...] = ()
    key: str

    @property
    def software(self) -> list[str]:
        """Versions of TextRay and of the weights, and the hash of the weights."""
        return [__version__, " ".join(self.weights)[:64], self.weights_sha256[:64]]


def writing(write: Callable[P, T]) -> Callable[P, T]:
    """Turn errors and words of DICOM libraries into one error that quotes nothing of the film."""

    @wraps(write)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        with _silent():
            try:
                return write(*args, **kwargs)
            except TextRayError:
                raise
            except Exception:  # of any kind; its words may quote the film
                pass
        what, do = "no DICOM object can be written for this film", "Check its header with a DICOM validator."
        raise InputError(what, expected="a header of the DICOM standard", do=do, code="E_DICOM_WRITE")

    return guarded


@contextmanager
def _silent() -> Iterator[None]:
    log = logging.getLogger("highdicom")
    before = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        with quiet():
            yield
    finally:
        log.setLevel(before)


def make_uid(*parts: str) -> str:
    """A UID from words: the same words give the same one."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, chr(0).join(parts)).int}"


@writing
def prepare(data: bytes, *, make_uids: bool = False, deidentified: bool = False, slice_of_ct: bool = False) -> Film:
    """Prepare the header of a film from the bytes of its DICOM file.

    Args:
        data: The file.
        make_uids: Make the UIDs that the film lacks, from the hash of the file, and a copy of the film that has them.
        deidentified: Leave out all text of patient and study; UIDs stay.
        slice_of_ct: It is a slice of a CT series, which has a place in space.

    Raises:
        InputError: ``E_NO_STUDY`` for a film without UIDs, ``E_SEG_SOURCE`` for a class that no objects are written
            for, ``E_MULTIFRAME``, ``E_NO_FRAME`` for a slice without FrameOfReferenceUID.
    """
    ds = dcmread(io.BytesIO(data), force=True, stop_before_pixels=not make_uids)
    missing = [keyword for keyword in _UIDS if not _uid(ds, keyword)]
    if missing and not make_uids:
        raise no_study()
    header = _header(ds, deidentified=deidentified)
    header.SOPClassUID = _storage_class(ds, (CT,) if slice_of_ct else tuple(SOURCES.values()), made=bool(missing))
    if (integer(ds, "NumberOfFrames") or 1) > 1:
        raise multi_frame(f"{integer(ds, 'NumberOfFrames')} frames")
    if slice_of_ct:
        _place(header, ds)
    digest = hashlib.sha256(data).hexdigest()
    for keyword in _UIDS:
        setattr(header, keyword, make_uid(keyword, digest) if keyword in missing else _uid(ds, keyword))
    notices = []
    for keyword in (*_PATIENT, *_STUDY):
        if keyword in header and not header[keyword].value and _given(ds, keyword) and not deidentified:
            text = f"The film's {keyword} is not valid, so it is empty in the objects."
            notices.append(Notice(code="W_HEADER_VALUE", text=text, remedy="Correct the film's header."))
    spacing = numbers(ds, "PixelSpacing")
    return Film(
        header=header,
        spacing_mm=(spacing[0], spacing[1]) if spacing and len(spacing) == 2 and min(spacing) > 0 else None,
        created=(header.StudyDate, header.StudyTime or _EPOCH[1]) if header.StudyDate else _EPOCH,
        copy=_copy(ds, header, deidentified=deidentified) if missing else None,
        notices=tuple(notices),
    )


@writing
def from_picture(image: Image) -> Film:
    """Make a Secondary Capture of a picture that never was DICOM, of a study of its own and without a patient."""
    if len(image.film.shape) != 2:
        raise InputError("no DICOM film is made of a colour picture", expected="a grey picture", code="E_COLOR")
    ds = Dataset()
    ds.SOPClassUID, ds.Modality, ds.ConversionType = SECONDARY_CAPTURE, "OT", "WSD"
    for keyword in _UIDS:
        setattr(ds, keyword, make_uid(keyword, image.sha256))
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = *image.grid.shape, 1, "MONOCHROME2"
    header = _header(ds, deidentified=True)
    header.SOPClassUID = SECONDARY_CAPTURE
    for keyword in _UIDS:
        setattr(header, keyword, ds[keyword].value)
    ds.update(header)
    ds.SeriesNumber, ds.InstanceNumber, ds.Laterality = 9900, 1, ""
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    film = image.film
    parts = (np.rint(film[rows] * 65535).astype("<u2") for rows in strips(film.shape))
    ds.PixelData = b"".join(part.tobytes() for part in parts)
    return Film(header=header, spacing_mm=image.grid.spacing_mm, created=_EPOCH, copy=to_bytes(ds))


def no_study() -> InputError:
    """Refusal of a film that no object can point at."""
    return InputError(
        "the film belongs to no study, so no object can point at it",
        expected="a DICOM file with StudyInstanceUID, SeriesInstanceUID and SOPInstanceUID",
        do="Use the film as the archive has it, or --make-uids, which also writes a copy of the film",
        code="E_NO_STUDY",
    )


def equipment(finding: Finding) -> dict[str, Any]:
    """Equipment of the objects, as highdicom's writers take it."""
    return {
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": " ".join(finding.weights)[:64],
        "software_versions": finding.software,
        "device_serial_number": finding.weights_sha256[:12],
    }


def identity(kind: str, number: int, film: Film, finding: Finding) -> dict[str, Any]:
    """Series and instance of an object, as highdicom's writers take them."""
    parts = (film.header.SOPInstanceUID, finding.key)
    return {
        "series_instance_uid": make_uid(f"{kind} series", *parts),
        "series_number": number,
        "sop_instance_uid": make_uid(kind, *parts),
        "instance_number": 1,
    }


def finish(ds: Dataset, film: Film, description: str) -> bytes:
    """Give an object its last elements, replace the current time and random UIDs in it, and return its bytes."""
    day, clock = film.created
    ds.SeriesDescription = description
    ds.StudyDescription = film.header.get("StudyDescription", "")
    if not ds.StudyDescription:
        del ds.StudyDescription
    if "IssuerOfPatientID" in film.header:
        ds.IssuerOfPatientID = film.header.IssuerOfPatientID
    organization = make_uid("dimensions", ds.SOPInstanceUID)
    for element in ds.iterall():
        if element.keyword in ("InstanceCreationDate", "ContentDate", "DateOfSecondaryCapture"):
            element.value = day
        elif element.keyword in ("InstanceCreationTime", "ContentTime", "TimeOfSecondaryCapture"):
            element.value = clock
        elif element.keyword in ("ContributionDateTime", "ObservationDateTime"):
            element.value = day + clock
        elif element.keyword == "DimensionOrganizationUID":
            element.value = organization
    return to_bytes(ds)


def to_bytes(ds: Dataset, syntax: UID = ExplicitVRLittleEndian) -> bytes:
    """Bytes of the file of an object: UTF-8, a zero preamble and TextRay's own meta group."""
    ds.SpecificCharacterSet = "ISO_IR 192"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    meta.TransferSyntaxUID, meta.ImplementationClassUID = syntax, UID(make_uid("implementation"))
    meta.ImplementationVersionName = f"TEXTRAY {__version__}"[:16]
    ds.file_meta = meta
    stream = io.BytesIO()
    dcmwrite(stream, ds, enforce_file_format=True)
    return stream.getvalue()


def is_own_object(path: Path) -> bool:
    """True for a DICOM object that TextRay wrote, whatever its name."""
    try:
        regular(path)
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError:
        return False
    own = str(make_uid("implementation")).encode()
    return head[128:132] == b"DICM" and own in head[:1024]


def _header(ds: Dataset, *, deidentified: bool) -> Dataset:
    header = Dataset()
    header.SpecificCharacterSet = "ISO_IR 192"
    header.Rows, header.Columns = integer(ds, "Rows") or 0, integer(ds, "Columns") or 0
    for keyword in (*_PATIENT, *_STUDY, *_IMAGE):
        hidden = deidentified and keyword not in _IMAGE
        found = None if hidden else _valid(ds, keyword)
        if found or keyword not in _OPTIONAL:
            setattr(header, keyword, found or None)
    letters = words(ds, "PatientOrientation")
    fit = len(letters) == 2 and all(_DIRECTIONS.fullmatch(part) for part in letters)
    header.PatientOrientation = list(letters) if fit else None
    return header


def _valid(ds: Dataset, keyword: str) -> Any:  # noqa: ANN401 -- whatever the element holds
    """Value of an element, ``None`` if it is absent or of a form that DICOM writers refuse."""
    content = value(ds, keyword)
    if content is None:
        return None
    text = str(content).strip()
    if keyword.endswith("Date"):
        try:
            date.fromisoformat(text)
        except ValueError:
            return None
        return text if re.fullmatch(r"\d{8}", text) else None
    if keyword.endswith("Time"):
        return text if _TIME.fullmatch(text) else None
    if keyword == "PatientSex":
        return text if text in ("M", "F", "O") else None
    if keyword == "BurnedInAnnotation":
        return text if text in ("YES", "NO") else None
    return content


def _given(ds: Dataset, keyword: str) -> bool:
    """True if a film has an element with any content, readable or not."""
    try:
        return keyword in ds and bool(str(ds[keyword].value).strip())
    except Exception:  # its value cannot be converted
        return True


def _uid(ds: Dataset, keyword: str) -> str:
    content = value(ds, keyword)
    return str(content) if isinstance(content, str) and content and UID(content).is_valid else ""


def _place(header: Dataset, ds: Dataset) -> None:
    """Give the header of a CT slice its place in space."""
    header.FrameOfReferenceUID = _uid(ds, "FrameOfReferenceUID")
    if not header.FrameOfReferenceUID:
        raise InputError(
            "the CT has no FrameOfReferenceUID, so no SEG can be written for it",
            expected="a series as the scanner wrote it",
            do="Leave out --dicom; the mask is written as NIfTI",
            code="E_NO_FRAME",
        )
    header.PositionReferenceIndicator = None
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        setattr(header, keyword, list(numbers(ds, keyword) or ()))
    header.SliceThickness = (numbers(ds, "SliceThickness") or (None,))[0]


def _storage_class(ds: Dataset, known: tuple[str, ...], *, made: bool) -> str:
    found = _uid(ds, "SOPClassUID")
    if not found and made:
        modality = words(ds, "Modality")
        return SOURCES.get(modality[0] if modality else "", SECONDARY_CAPTURE)
    if found not in known:
        raise InputError(
            "no DICOM objects are written for a film of this class",
            came=UID(found).name if UID(found).type == "SOP Class" else "a class without a name",
            expected="CT" if known == (CT,) else "CR, DX, MG or Secondary Capture, one frame",
            do="Leave out --dicom for it",
            code="E_SEG_SOURCE",
        )
    return found


def _copy(ds: Dataset, header: Dataset, *, deidentified: bool) -> bytes:
    """Bytes of a film as it is, with the UIDs of a prepared header; of a de-identified one header and pixels only."""
    syntax = words(getattr(ds, "file_meta", Dataset()), "TransferSyntaxUID")
    whole = Dataset()
    ds.decode()  # before the character set changes
    for element in ds:
        if not deidentified or element.tag.group in (0x0028, 0x7FE0):
            whole.add(element)
    for keyword in ("SOPClassUID", *_UIDS) if not deidentified else [element.keyword for element in header]:
        setattr(whole, keyword, header[keyword].value)
    for keyword in (*_PATIENT, *_STUDY, "SeriesNumber", "InstanceNumber"):
        if keyword not in whole and keyword not in _OPTIONAL:
            setattr(whole, keyword, None)
    if "Modality" not in whole or not whole.Modality:
        whole.Modality = "OT"
    if header.SOPClassUID == SECONDARY_CAPTURE and "ConversionType" not in whole:
        whole.ConversionType = "WSD"
    implicit, _ = ds.original_encoding
    plain = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    return to_bytes(whole, UID(syntax[0]) if syntax else plain)
