"""DICOM objects of a result: SEG, SR and overlay, as parts of the film's own study."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from textray.errors import InputError, UsageError
from textray.inference import record
from textray.io.dicom_header import Film, Finding, from_picture, no_study, prepare
from textray.io.files import joint_sha256
from textray.records import LEVELS, SIDES, DicomOut, Grid, Notice, Prediction, VolumePrediction

if TYPE_CHECKING:
    from textray.records import Image

_LEAST = 0.05
"""Share of the mask from which a side or a zone counts as affected: a few pixels across a line name no second one."""
_SR_TEXT = Notice(
    code="W_SR_TEXT",
    text="The given report is in the SR as it is, and may name a person.",
    remedy="Leave out --sr-text, or check the words.",
)

_SEG_ONLY = Notice(
    code="W_SEG_ONLY",
    text="Of the DICOM objects a CT gets the SEG only.",
    remedy="Ask for --dicom seg.",
)


def require() -> None:
    """Refuse to go on without the library that writes the objects."""
    if find_spec("highdicom") is None:
        raise UsageError(
            "DICOM objects need the Python package highdicom, which is not installed",
            do="Install it with: pip install 'textray[dicom]'",
        )


def key(result: str, options: DicomOut | None) -> str:
    """Key of a result with its objects; without objects that of the result."""
    return result if options is None else record.digest({"result": result, "dicom": asdict(options)})


def build(prediction: Prediction | VolumePrediction, options: DicomOut) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Build the files of the objects by kind (``film``, ``seg``, ``sr``, ``sc``), and the record that names them.

    The header is read from the film's file again, since a `Prediction` holds nothing of the patient. A CT series gets a
    SEG only.

    Raises:
        InputError: ``E_NO_STUDY`` for a picture without a study, ``E_SEG_SOURCE``, ``E_MULTIFRAME``,
            ``E_DICOM_WRITE``, ``E_NO_FRAME`` for a CT without FrameOfReferenceUID, or ``E_READ`` if the file has
            changed.
        UsageError: If highdicom is not installed.
    """
    require()
    if isinstance(prediction, VolumePrediction):
        return _build_volume(prediction, options)
    from textray.io.dicom_sc import sc
    from textray.io.dicom_seg import seg
    from textray.io.dicom_sr import sr

    image, values = prediction.image, prediction.record
    film = _film(image, options)
    found = _finding(prediction, key(values["key"], options))
    given = values["text"]["given"] if options.sr_text else None
    files: dict[str, bytes] = {} if film.copy is None else {"film": film.copy}
    if "seg" in options.kinds and prediction.mask.any():
        files["seg"] = seg(film, found, plane=options.plane)
    if "sr" in options.kinds:
        files["sr"] = sr(film, found, files.get("seg"), text=given)
    if "overlay" in options.kinds:
        files["sc"] = sc(film, found, image.film, _letters(image.grid))
    notices = [*film.notices, *([] if given is None else [_SR_TEXT])]
    reason = None if "seg" in files else "empty mask" if "seg" in options.kinds else "not asked for"
    described = {
        "written": list(files),
        "seg_reason": reason,
        "plane": options.plane,
        "side": found.side,
        "side_reason": None if found.side_known else f"the sides of the film are {image.grid.sides_from}",
        "uids": "the film's" if film.copy is None else "made from the hash of the file",
        "deidentified": options.deidentified,
        "sr_text": given is not None,
    }
    changed = {
        "key": found.key,
        "dicom": described,
        "warnings": [*values["warnings"], *record.notice_rows(notices)],
    }
    return files, {**values, **changed}


def _build_volume(prediction: VolumePrediction, options: DicomOut) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The SEG of a CT series, whose frames are those of its slices that hold lesion, and the record that names it."""
    from textray.io.dicom_seg import series_seg

    volume, values = prediction.volume, prediction.record
    if not volume.slices:
        raise InputError(
            "a NIfTI volume belongs to no study, so no object can point at it",
            expected="a CT series of DICOM files",
            do="Leave out --dicom; the mask is written as NIfTI",
            code="E_NO_STUDY",
        )
    datas = [_read(path) for path in volume.slices]
    if joint_sha256(hashlib.sha256(data).hexdigest() for data in datas) != volume.sha256:
        raise _changed()
    films = [prepare(data, deidentified=options.deidentified, slice_of_ct=True) for data in datas]
    model, result = values["model"], key(values["key"], options)
    frames = volume.to_file_axes(prediction.mask).transpose(2, 1, 0)
    found = Finding(
        mask=np.ascontiguousarray(frames),
        lungs={},
        weights=(model["name"], model["version"]),
        weights_sha256=model["sha256"],
        key=result,
    )
    asked, empty = "seg" in options.kinds, not frames.any()
    files = {"seg": series_seg(films, found)} if asked and not empty else {}
    notices = [*films[0].notices, *([] if options.kinds == ("seg",) else [_SEG_ONLY])]
    described = {
        "written": list(files),
        "seg_reason": "not asked for" if not asked else "empty mask" if empty else None,
        "deidentified": options.deidentified,
    }
    return files, {
        **values,
        "key": result,
        "dicom": described,
        "warnings": [*values["warnings"], *record.notice_rows(notices)],
    }


def _film(image: Image, options: DicomOut) -> Film:
    if image.info.get("format") != "dicom":
        if not options.make_uids:
            raise no_study()
        return from_picture(image)
    if image.source is None:
        raise InputError(
            "the film was not given as a file, so its header cannot be read again",
            expected="the path of a DICOM file",
            do="Give segment() the path",
            code="E_NO_STUDY",
        )
    data = _read(image.source)
    if hashlib.sha256(data).hexdigest() != image.sha256:
        raise _changed()
    return prepare(data, make_uids=options.make_uids, deidentified=options.deidentified)


def _changed() -> InputError:
    return InputError("the film has changed since it was segmented", do="Segment it again.", code="E_READ")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError("the film cannot be read again", came=error.strerror, code="E_READ") from error


def _finding(prediction: Prediction, result: str) -> Finding:
    values, grid = prediction.record, prediction.grid
    known = grid.sides_from == "tag"
    model, zones = values["model"], values["lesion"]["zones"]
    sides = [side for side in SIDES if sum(zones[f"{side} {level}"]["share"] for level in LEVELS) >= _LEAST]
    levels = [level for level in LEVELS if sum(zones[f"{side} {level}"]["share"] for side in SIDES) >= _LEAST]
    upright = grid.orientation is not None and grid.orientation[1][:1] == "F"
    one = len(levels) == len(sides) == 1 and known and upright
    lungs: Mapping[str, Any] = values.get("lungs") or {}
    shares = {side: lungs[side]["affected"] for side in SIDES if lungs and lungs[side]["affected"] is not None}
    return Finding(
        mask=prediction.mask,
        side=None if not known or not sides else "both" if len(sides) == 2 else _patients(sides[0], grid),
        level=levels[0] if one else None,
        lungs={_patients(side, grid) if known else side: share for side, share in shares.items()},
        side_known=known,
        weights=(model["name"], model["version"]),
        weights_sha256=model["sha256"],
        parameters=(
            f"Weights SHA-256: {model['sha256']}",
            f"Threshold: {values['probability']['threshold']}",
            f"Text mode: {values['text']['mode']}",
            f"Sides of the film: {grid.sides_from}",
        ),
        key=result,
    )


def _patients(side: str, grid: Grid) -> str:
    """The patient's side at a side of the picture."""
    return side if not grid.mirrored else SIDES[1 - SIDES.index(side)]


def _letters(grid: Grid) -> tuple[str, str] | None:
    """Letters of the patient's sides at the picture's left and right, where its tag tells them."""
    if grid.sides_from != "tag":
        return None
    left, right = (_patients(side, grid)[0].upper() for side in SIDES)
    return left, right
