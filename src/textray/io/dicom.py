"""DICOM files: films and other objects, their pixels, spacing and sides.

No patient identifier, UID or free text of a file gets into an `Image`, a message or a log.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, BinaryIO, ParamSpec, TypeVar

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from textray.errors import InputError, TextRayError
from textray.io.dicom_header import MANUFACTURER
from textray.io.dicom_pixels import (
    MONOCHROME,
    PixelTags,
    integer,
    known_word,
    numbers,
    quiet,
    shown,
    tag_error,
    truncated,
    value,
    words,
)
from textray.io.levels import distribution
from textray.io.quality import film_notices
from textray.io.raster import check_content
from textray.records import Grid, Image, Notice, Pixels

_VRS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()
)
_MODALITIES = frozenset(
    ("CR", "DX", "DR", "RF", "XA", "RG", "PX", "IO", "MG", "CT", "MR", "PT", "NM", "US", "SC", "OT")
)
_VIEWS = frozenset(("AP", "PA", "LL", "RL", "LLD", "RLD", "LLO", "RLO"))
_FRONTAL_VIEWS = frozenset(("AP", "PA"))
_CHEST_PARTS = frozenset(
    ("CHEST", "THORAX", "LUNG", "LUNGS", "TORAX", "PORT CHEST", "CHEST_TO_ABDOMEN", "CHESTABDOMEN")
)
_FILM_MODALITIES = frozenset(("CR", "DX", "DR", "RF", "RG", "SC", "OT", "XA"))
_FILM_CLASSES = re.compile(r"X-Ray|Radiography|Secondary Capture|Radiofluoroscopic")
_NOT_FRONTAL = re.compile(r"\b(?:LAT|LATERAL|LL|RL|LLD|RLD|LLO|RLO|[RL][AP]O|OBL|OBLIQUE|DECUB\w*|LORDOTIC|AXIAL)\b")
_FRONTAL = re.compile(r"\b(?:AP|PA|FRONTAL)\b")
_OTHER_PART = re.compile(
    r"\b(?:HANDS?|WRIST|ELBOW|SHOULDER|HUMERUS|FOREARM|FINGER|FOOT|FEET|ANKLE|KNEES?|HIPS?|FEMUR|PELVIS|LEG|ABDOMEN|SKULL|"
    r"NECK|BREAST|[CTL][ -]?SPINE|LSPINE|TEETH|DENTAL)\b"
)
_CHEST = re.compile(r"\b(?:CHEST|THORA\w+|LUNGS?|CXR|RIBS?)\b")
_NO_PICTURES = frozenset(("SEG", "SR", "KO", "PR", "RTSTRUCT", "RTPLAN", "RTDOSE", "RTRECORD", "REG", "FID", "ECG"))
_DEFLATED = re.compile(rb"\x02\x00\x10\x00.{4,8}1\.2\.840\.10008\.1\.2\.1\.99", re.DOTALL)
"""The transfer syntax of a deflated data set, whatever the VR and wherever in the meta group: pydicom would inflate it
without a limit."""
_ITEM = b"\xfe\xff\x00\xe0"
_MOST_ITEMS = 20_000
_DIRECTIONS = re.compile(r"[LRAPHF]{1,3}")
_HEAD = 2**20
_KEYS = (Tag("SOPInstanceUID"), Tag("AccessionNumber"))
P = ParamSpec("P")
T = TypeVar("T")

_SIDES_ASSUMED = Notice(
    code="W_SIDES_ASSUMED",
    text="The file does not say its sides; the standard film is assumed: patient's left on the viewer's right.",
    remedy="Check the side marker on the film.",
)
_SIDES_UNDEFINED = Notice(
    code="W_SIDES_UNDEFINED",
    text="The film's rows run neither to the patient's left nor right, so left and right have no place on it.",
    remedy="Use a frontal film, or words by viewer's side.",
)
_NOT_UPRIGHT = Notice(
    code="W_NOT_UPRIGHT",
    text="The picture's columns do not run to the patient's feet, so its top is not where upper zones lie.",
    remedy="Turn the film upright; words for upper, middle and lower mean the picture's own heights.",
)


def looks_like_dicom(data: bytes) -> bool:
    """True for a DICOM preamble, and for bytes that start with a plausible element of group 0002 or 0008."""
    if data[128:132] == b"DICM":
        return True
    little, big = data[:2] in (b"\x02\x00", b"\x08\x00"), data[:2] in (b"\x00\x02", b"\x00\x08")
    if len(data) < 16 or not (little or big):
        return False
    if data[4:6] in _VRS:
        return True
    return data[:2] == b"\x08\x00" and data[3] <= 0x30 and int.from_bytes(data[4:8], "little") <= len(data) - 8


def guarded(read: Callable[P, T]) -> Callable[P, T]:
    """Turn the errors of pydicom in a reader into one that quotes nothing of the file."""

    @wraps(read)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        with quiet():
            try:
                return read(*args, **kwargs)
            except TextRayError:
                raise
            except Exception:  # of any kind, for any bytes
                pass
        # Outside the handler, so that no traceback contains pydicom's words, which may quote the file.
        what, do = "the DICOM file is damaged", "Fetch it again."
        raise InputError(what, expected="a readable file", do=do, code="E_DICOM_TAG")

    return guarded


@guarded
def read_dicom(data: bytes, *, source: Path | None = None) -> Image:
    """Read one single-frame film from the bytes of a file, whose path is kept as ``source``.

    ``pixels`` are as a viewer shows them first, see `textray.io.dicom_pixels.shown`; ``info["window"]`` names the
    window. ``grid.spacing_mm`` is PixelSpacing where it is positive; ImagerPixelSpacing lies in the plane of the
    detector and is only recorded.

    Raises:
        InputError: ``W_NOT_IMAGE`` for an object that is not a picture; ``E_DICOM_TAG``, ``E_TRUNCATED``,
            ``E_DECODER``, ``E_MULTIFRAME``, ``E_COLOR``, ``E_SIZE``, ``E_CONSTANT``, ``E_FORMAT``.
    """
    ds, name = dataset(io.BytesIO(data), pixels=True)
    if "PixelData" not in ds or not value(ds, "PixelData"):
        raise _ends_early(name or None) if name or "Rows" in ds else _no_picture("an object without pixel data")
    tags = PixelTags.of(ds)
    syntax = transfer_syntax(ds)
    film, facts, notices = shown(ds, tags, syntax)
    check_content(distribution(film)[0])
    spacing, spacing_notices = _spacing(ds)
    orientation, side_notices = _orientation(ds)
    imager = numbers(ds, "ImagerPixelSpacing")
    info: dict[str, Any] = {
        "format": "dicom",
        "modality": known_word(ds, "Modality", _MODALITIES),
        "view": known_word(ds, "ViewPosition", _VIEWS),
        "photometric": tags.photometric,
        "inverted": tags.photometric == MONOCHROME[0],
        "bits": tags.stored,
        "transfer_syntax": syntax.name,
        **facts,
        "spacing_from": None if spacing is None else "PixelSpacing",
        "imager_spacing_mm": imager if imager is not None and len(imager) == 2 and min(imager) > 0 else None,
    }
    return Image(
        film=film,
        grid=Grid(height=tags.rows, width=tags.columns, spacing_mm=spacing, orientation=orientation),
        source=source,
        sha256=hashlib.sha256(data).hexdigest(),
        info=info,
        notices=notices + _notices(ds, film, side_notices) + spacing_notices,
    )


@guarded
def dataset_bytes(ds: Dataset) -> bytes:
    """Bytes of the file that a data set in memory makes."""
    stream = io.BytesIO()
    whole = getattr(getattr(ds, "file_meta", None), "TransferSyntaxUID", None) is not None
    ds.save_as(stream, enforce_file_format=whole, **({} if whole else {"implicit_vr": True, "little_endian": True}))
    return stream.getvalue()


@guarded
def read_dicom_grid(stream: BinaryIO) -> Grid:
    """Read size and orientation of a film without its pixels; raises as `read_dicom` for the elements before them."""
    ds, name = dataset(stream, pixels=False)
    rows, columns = (integer(ds, keyword) for keyword in ("Rows", "Columns"))
    if not rows or not columns:
        raise _ends_early(name) if name else _no_picture("an object without rows and columns")
    return Grid(height=rows, width=columns, orientation=_orientation(ds)[0])


@guarded
def read_dicom_keys(stream: BinaryIO) -> tuple[str, ...]:
    """Read SOP Instance UID and accession number, the first elements of a file; they are not for messages."""
    head = stream.read(_HEAD)  # pydicom sees no more, and so no transfer syntax that stands behind it
    if _DEFLATED.search(head):
        return ()
    ds = read_partial(io.BytesIO(head), lambda tag, *_: tag > _KEYS[1], force=True, specific_tags=[*_KEYS])
    return tuple(str(element.value).strip() for element in ds if element.value)


def dataset(stream: BinaryIO, *, pixels: bool) -> tuple[Dataset, str]:
    """Elements of a file and name of its class; an object that is not a film is refused."""
    data = stream.read()
    if _DEFLATED.search(data):
        what, do = "the DICOM file is deflated as a whole", "Convert it to Explicit VR Little Endian."
        raise InputError(what, expected="another transfer syntax", do=do, code="E_DECODER")
    if (items := data.count(_ITEM)) > _MOST_ITEMS:
        what, expected = "the DICOM file has more items than a film", f"at most {_MOST_ITEMS}"
        raise InputError(what, came=items, expected=expected, do="Export it again.", code="E_SIZE")
    stream.seek(0)
    ds = dcmread(stream, force=True, stop_before_pixels=not pixels)
    return ds, _require_film(ds, preamble=data[128:132] == b"DICM")


def _require_film(ds: Dataset, *, preamble: bool) -> str:
    """Refuse an object that is not a film by the elements before its pixels; return the name of its class, if any."""
    name = ""
    if uid := words(ds, "SOPClassUID"):
        name = UID(uid[0]).name
        name = "" if name == uid[0] else name  # a private class has no name
    if not name and not any(keyword in ds for keyword in ("SOPClassUID", "Modality", "Rows", "PixelData")):
        if not preamble:
            came = "bytes that only start like DICOM"
            raise InputError("the file is not a picture that TextRay reads", came=came, expected="DICOM")
        if len(ds) == 0:  # pydicom drops all elements where the last one, of compressed pixels, has no end
            raise _ends_early(None)
    modality = known_word(ds, "Modality", _NO_PICTURES)
    if (name and "Image Storage" not in name) or modality:
        raise _no_picture(name or f"an object of modality {modality}")
    if words(ds, "Manufacturer") == (MANUFACTURER.upper(),):
        raise _no_picture("an overlay that TextRay wrote")
    return name


def _ends_early(came: str | None) -> InputError:
    return truncated("the DICOM file ends before its pixel data does", came)


def _no_picture(came: str) -> InputError:
    return InputError(
        "the DICOM object is not a picture", came=came, expected="a film", do="It is skipped.", code="W_NOT_IMAGE"
    )


def transfer_syntax(ds: Dataset) -> UID:
    """Compression of a file's pixels: as its meta group names it, else as it was read."""
    named = words(getattr(ds, "file_meta", Dataset()), "TransferSyntaxUID")
    if named:
        syntax = UID(named[0])
        if syntax.type != "Transfer Syntax":
            raise InputError("the transfer syntax is unknown", expected="one of the DICOM standard", code="E_DECODER")
        return syntax
    if ds["PixelData"].is_undefined_length:
        raise tag_error("TransferSyntaxUID", None, "the name of the compression")
    implicit, little = ds.original_encoding
    syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    ds.file_meta.TransferSyntaxUID = syntax  # pydicom's own decoders ask for it
    return syntax


def _notices(ds: Dataset, film: Pixels, sides: tuple[Notice, ...]) -> tuple[Notice, ...]:
    """Warnings about the film as a whole; what is no frontal chest film by its tags is not asked to be turned."""
    other = _other_than_frontal_chest(ds)
    found = (*film_notices(film), *sides)
    if other:
        text = f"The tags say that this is no frontal chest film: {other}."
        remedy = "Use frontal chest films; the mask of this one means nothing."
        found = (Notice(code="W_NOT_FRONTAL_CHEST", text=text, remedy=remedy), *found)
        return tuple(one for one in found if one.code != _NOT_UPRIGHT.code)
    return tuple({one.code: one for one in found}.values())


def _other_than_frontal_chest(ds: Dataset) -> str:
    """What the tags name instead of a frontal chest film, in known words only; empty if nothing."""
    modality, part = known_word(ds, "Modality", _MODALITIES), words(ds, "BodyPartExamined")
    if modality is not None and modality not in _FILM_MODALITIES:
        return f"Modality is {modality}"
    if part and part[0] and part[0] not in _CHEST_PARTS:
        return "BodyPartExamined is another part than the chest"
    kind = UID((words(ds, "SOPClassUID") or ("",))[0]).name
    if "Image Storage" in kind and ("Mammography" in kind or not _FILM_CLASSES.search(kind)):
        return f"it is of {kind}"
    view = known_word(ds, "ViewPosition", _VIEWS)
    if view is not None and view not in _FRONTAL_VIEWS:
        return f"ViewPosition is {view}"
    coded, anatomy = (_meaning(ds, keyword) for keyword in ("ViewCodeSequence", "AnatomicRegionSequence"))
    described = " ".join((*words(ds, "SeriesDescription"), *words(ds, "ProtocolName"))).replace("_", " ")
    position = " ".join(words(ds, "ViewPosition")).replace("_", " ")
    # What names the view best decides; a series may be described as "PA and lateral".
    said = next((text for text in (position, coded, described) if text), "")
    if _NOT_FRONTAL.search(said) and not _FRONTAL.search(said):
        return "its view or description names another view"
    named = " ".join((anatomy, described, *words(ds, "StudyDescription")))
    if not part and _OTHER_PART.search(named) and not _CHEST.search(named):
        return "its anatomic region or description names another part than the chest"
    return ""


def _meaning(ds: Dataset, keyword: str) -> str:
    """Meaning of the first code of a sequence, in capitals; it is not for messages."""
    items = value(ds, keyword)
    return " ".join(words(items[0], "CodeMeaning")) if items else ""


def _spacing(ds: Dataset) -> tuple[tuple[float, float] | None, tuple[Notice, ...]]:
    spacing = numbers(ds, "PixelSpacing")
    if spacing is not None and len(spacing) == 2 and min(spacing) > 0:
        return (spacing[0], spacing[1]), ()
    if "PixelSpacing" in ds:
        reason = "PixelSpacing is zero or not valid"
    elif "ImagerPixelSpacing" in ds:
        reason = "only the detector's spacing is given, not the patient's"
    else:
        reason = "there is no PixelSpacing"
    text = f"The film is uncalibrated ({reason}), so areas are in pixels."
    return None, (Notice(code="W_UNCALIBRATED", text=text, remedy="Nothing, unless you need mm²: calibrate the film."),)


def _orientation(ds: Dataset) -> tuple[tuple[str, str] | None, tuple[Notice, ...]]:
    letters = words(ds, "PatientOrientation")
    orientation = letters if len(letters) == 2 and all(_DIRECTIONS.fullmatch(part) for part in letters) else None
    if orientation is None:
        orientation = _from_cosines(numbers(ds, "ImageOrientationPatient"))
    if orientation is None:
        return None, (_SIDES_ASSUMED,)
    if orientation[0][0] not in "LR":
        return orientation, (_SIDES_UNDEFINED,)
    return orientation, () if orientation[1][0] == "F" else (_NOT_UPRIGHT,)


def _from_cosines(cosines: tuple[float, ...] | None) -> tuple[str, str] | None:
    """Main directions of rows and columns from ImageOrientationPatient, whose axes run to left, back and head."""
    if cosines is None or len(cosines) != 6:
        return None
    letters = []
    for axis in (cosines[:3], cosines[3:]):
        main = max(range(3), key=lambda i: abs(axis[i]))
        if axis[main] == 0:
            return None
        letters.append("LPH"[main] if axis[main] > 0 else "RAF"[main])
    return letters[0], letters[1]
