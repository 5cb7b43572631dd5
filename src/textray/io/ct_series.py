"""CT series: the DICOM slices of one series as one volume, sorted by their places in the patient.

No patient identifier or UID of a file gets into a `Volume`, a message or a log; places are in mm along the series.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from textray.errors import InputError
from textray.io.dicom import dataset, guarded, looks_like_dicom, transfer_syntax
from textray.io.dicom_pixels import PixelTags, hounsfield, numbers, tag_error, truncated, value, words
from textray.io.files import joint_sha256, regular
from textray.io.nifti import MAX_VOXELS, is_nifti_file, read_nifti, require, volume_of
from textray.io.raster import MAX_FILE_BYTES
from textray.records import Notice, Volume

_EVEN = 0.01  # of the step between slices, by which steps may differ
_STRAIGHT = 0.01  # of the length of a series, by which its slices may lie beside its normal
_UNIT = 1e-3  # rounding of direction cosines
_PARALLEL = 0.01  # difference between direction cosines of parallel slices
_MOST_NAMED = 3


def read_volume(source: str | Path | Sequence[Path]) -> Volume:
    """Read a CT in HU: a NIfTI file, a folder of one series, or the files of one series.

    Raises:
        InputError: As `textray.io.nifti.read_nifti` and `read_series`.
        UsageError: If nibabel is not installed.
    """
    require()
    if isinstance(source, str | Path):
        path = Path(source)
        if not path.is_dir():
            return read_nifti(path) if is_nifti_file(path) else read_series([path])
        source = sorted(child for child in path.iterdir() if child.is_file() and not child.name.startswith("."))
    paths = list(source)
    return read_nifti(paths[0]) if len(paths) == 1 and is_nifti_file(paths[0]) else read_series(paths)


def series_of(path: Path) -> tuple[str, ...] | None:
    """What slices of one series share, for comparison only: the series and its directions; ``None`` for no CT slice.

    The word ``LOCALIZER`` alone stands for an overview of a series, which is no slice of it.
    """
    try:
        regular(path, MAX_FILE_BYTES)
        with path.open("rb") as stream:
            if not looks_like_dicom(stream.read(1024)):
                return None
            stream.seek(0)
            return _series(io.BytesIO(stream.read()))
    except (OSError, InputError):  # which its reader reports
        return None


@guarded
def _series(stream: io.BytesIO) -> tuple[str, ...] | None:
    ds, _ = dataset(stream, pixels=False)
    if words(ds, "Modality") != ("CT",):
        return None
    if "LOCALIZER" in words(ds, "ImageType"):
        return ("LOCALIZER",)
    directions = numbers(ds, "ImageOrientationPatient") or ()
    return (*words(ds, "SeriesInstanceUID"), *(f"{cosine + 0:.2f}" for cosine in np.round(directions, 2)))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Slice:
    path: Path
    sha256: str
    hu: NDArray[np.float32]  # (rows, columns)
    spacing: tuple[float, ...]  # between rows, between columns
    thickness: float
    axes: NDArray[np.float64]  # (2, 3): along rows, along columns
    place: NDArray[np.float64]  # (3,), centre of the first pixel
    notices: tuple[Notice, ...]


def read_series(paths: Sequence[Path]) -> Volume:
    """Read the slices of one CT series, in any order, as one volume.

    Raises:
        InputError: ``E_SERIES_GAP``, ``E_SERIES_DUPLICATE``, ``E_SERIES_MIXED``, ``E_SERIES_TILT``, which name places;
            ``E_NOT_A_CT``; ``E_SIZE``, ``E_CONSTANT`` and those of a slice, as `textray.io.dicom.read_dicom` has.
    """
    slices: list[_Slice] = []
    for path in paths:
        slices.append(_read(path))
        if slices[-1].hu.shape != slices[0].hu.shape:
            raise _mixed("sizes")
        if len(paths) * slices[0].hu.size > MAX_VOXELS:
            what, came = "the series is too large", f"{len(paths)} slices"
            raise InputError(what, came=came, expected=f"at most {MAX_VOXELS} voxels", code="E_SIZE")
    first = slices[0]
    if not all(np.allclose(one.spacing, first.spacing, rtol=1e-4) for one in slices):
        raise _mixed("spacings")
    if not all(np.allclose(one.axes, first.axes, atol=_PARALLEL) for one in slices):
        raise _mixed("directions")
    normal = np.cross(*first.axes)
    slices.sort(key=lambda one: float(normal @ one.place))
    step = _step(slices, normal)
    affine = np.eye(4)
    affine[:3, 0] = first.axes[0] * first.spacing[1]
    affine[:3, 1] = first.axes[1] * first.spacing[0]
    affine[:3, 2] = normal * step
    affine[:3, 3] = slices[0].place
    affine[:2] *= -1  # DICOM's axes run to left and back, an affine's to right and front
    return volume_of(
        np.stack([one.hu for one in slices]).transpose(2, 1, 0),
        affine,
        slices=tuple(one.path for one in slices),
        source=first.path if len(slices) == 1 else first.path.parent,
        sha256=joint_sha256(one.sha256 for one in slices),
        info={"format": "ct series", "slices": len(slices)},
        notices=tuple(dict.fromkeys(notice for one in slices for notice in one.notices)),
    )


def _mixed(what: str) -> InputError:
    do = "Give each series as a folder of its own."
    return InputError(f"the slices have different {what}", expected="one series", do=do, code="E_SERIES_MIXED")


def _step(slices: Sequence[_Slice], normal: NDArray[np.float64]) -> float:
    """Distance between slices that are sorted along a normal; refused where they are no even stack."""
    if len(slices) == 1:
        return slices[0].thickness
    places = np.array([one.place for one in slices])
    along = places @ normal
    steps = np.diff(along)
    step = float(np.median(steps))
    if len(close := np.flatnonzero(steps <= max(_EVEN * step, 1e-3))):
        raise _uneven("has several slices at one place", "E_SERIES_DUPLICATE", along, close, "one slice at each place")
    if len(wide := np.flatnonzero(np.abs(steps - step) > _EVEN * step)):
        expected = f"steps of {step:.4g} mm"
        raise _uneven("is not even, slices are missing or lie between", "E_SERIES_GAP", along, wide, expected)
    beside = np.linalg.norm(places - places[0] - np.outer(along - along[0], normal), axis=1).max()
    if beside > _STRAIGHT * (along[-1] - along[0]):
        raise InputError(
            "the slices of the series are not stacked along their normal",
            came=f"{beside:.4g} mm beside it",
            expected="a series without tilt of the gantry",
            do="Reformat the series first.",
            code="E_SERIES_TILT",
        )
    return float(along[-1] - along[0]) / (len(slices) - 1)


def _uneven(what: str, code: str, along: NDArray[np.float64], wrong: NDArray[np.intp], expected: str) -> InputError:
    named = [f"{along[i]:.1f} and {along[i + 1]:.1f} mm" for i in wrong[:_MOST_NAMED]]
    more = f" and {len(wrong) - _MOST_NAMED} more" if len(wrong) > _MOST_NAMED else ""
    came = f"between {', '.join(named)} along it{more}"
    return InputError(
        f"the series {what}", came=came, expected=expected, do="Export the whole series again.", code=code
    )


def _read(path: Path) -> _Slice:
    try:
        regular(path, MAX_FILE_BYTES)
        data = path.read_bytes()
    except OSError as error:
        raise InputError("a slice of the series cannot be read", came=error.strerror, code="E_READ") from error
    return _slice(data, path)


@guarded
def _slice(data: bytes, path: Path) -> _Slice:
    ds, _ = dataset(io.BytesIO(data), pixels=True)
    if words(ds, "Modality") != ("CT",):
        what, expected = "the series holds a picture that is no CT", "slices of one CT series"
        raise InputError(what, expected=expected, code="E_NOT_A_CT")
    tags = PixelTags.of(ds)
    if "PixelData" not in ds or not value(ds, "PixelData"):
        raise truncated("the DICOM file ends before its pixel data does", None)
    spacing = _numbers(ds, "PixelSpacing", 2)
    axes = np.array(_numbers(ds, "ImageOrientationPatient", 6)).reshape(2, 3)
    if min(spacing) <= 0:
        raise tag_error("PixelSpacing", "a number that is not positive", "two positive numbers")
    if np.abs(axes @ axes.T - np.eye(2)).max() > _UNIT:
        raise tag_error("ImageOrientationPatient", "other directions", "two unit vectors at right angles")
    hu, notices = hounsfield(ds, tags, transfer_syntax(ds))
    thickness = numbers(ds, "SliceThickness")
    return _Slice(
        path=path,
        sha256=hashlib.sha256(data).hexdigest(),
        hu=hu,
        spacing=spacing,
        thickness=thickness[0] if thickness is not None and thickness[0] > 0 else 1.0,
        axes=axes,
        place=np.array(_numbers(ds, "ImagePositionPatient", 3)),
        notices=notices,
    )


def _numbers(ds: Dataset, keyword: str, count: int) -> tuple[float, ...]:
    found = numbers(ds, keyword)
    if found is None or len(found) != count:
        raise tag_error(keyword, None if found is None else f"{len(found)} numbers", f"{count} numbers")
    return found
