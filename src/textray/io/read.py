"""Readers of pictures, which know a file by its content and not by its name."""

from __future__ import annotations

import hashlib
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydicom.dataset import Dataset

from textray.errors import DataError, InputError
from textray.io import raster
from textray.io.dicom import dataset_bytes, looks_like_dicom, read_dicom, read_dicom_grid, read_dicom_keys
from textray.io.files import regular
from textray.io.levels import distribution
from textray.io.nifti import NIFTI, is_nifti
from textray.io.quality import film_notices
from textray.io.raster import MAX_FILE_BYTES, check_content, check_size
from textray.records import Grid, Image, Notice, Pixels

_SIGNATURES = (
    (b"GIF8", "a GIF picture"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a zip archive or office document"),
    (b"\x1f\x8b", "a gzip file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89HDF", "an HDF5 file"),
)
Source: TypeAlias = str | Path | bytes | BinaryIO | Dataset
_HTML = re.compile(rb"\s*(<!--.*?-->\s*)*<(!doctype html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
_ROUNDING = 1e-4  # how far outside of [0, 1] a scaled array may lie
_MASK_NOISE = 32  # levels of 255 below which a JPEG mask without a foreground counts as empty


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskFile:
    """A mask ``(H, W)``, true inside lesions, and its distance from a binary one; shares are of pixels, in [0, 1]."""

    mask: NDArray[np.bool_]
    threshold: float  # levels above it are foreground
    odd_share: float  # neither background nor full foreground
    foreground_share: float  # near 1 the mask may be inverted


def detect(data: bytes) -> str:
    """Kind of bytes: ``"dicom"``, one of `raster.KINDS`, or words for a kind that is not supported."""
    if looks_like_dicom(data):  # first: a DICOM preamble may itself look like a TIFF or a program
        return "dicom"
    if not data:
        return "an empty file"
    if (picture := raster.kind_of(data)) is not None:
        return picture
    if is_nifti(data):
        return NIFTI
    for signature, kind in _SIGNATURES:
        if data.startswith(signature):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "a WebP picture"
    head = data[:1024]
    if _HTML.match(head):
        return "an HTML page"
    if head.lstrip().startswith(b"<?xml"):
        return "an XML document"
    if not re.search(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]", head):
        return "text"
    return "bytes of an unknown kind"


def read(source: Source, *, color: bool = False) -> Image:
    """Read a film: a path, bytes or an open binary file (PNG, JPEG, TIFF, BMP, JPEG 2000, DICOM), or a pydicom Dataset.

    Pixels of a raster file are its levels over the largest level of its type (1, 255, 65535): a 16-bit file that uses
    only 12 bits stays dim, and `textray.preprocess` stretches it by its own percentiles. Pixels of a DICOM file are
    those of its window, see `textray.io.dicom.read_dicom`. ``color``, for microscopy, keeps the colours,
    ``(H, W, 3)``.

    Raises:
        InputError: If the file is refused, with code ``E_READ``, ``E_FORMAT``, ``E_TRUNCATED``, ``E_SIZE``,
            ``E_COLOR``, ``E_CONSTANT``, ``E_MULTIFRAME``, ``E_DICOM_TAG``, ``E_DECODER``, ``E_NOT_A_FILM`` for a
            NIfTI file, or ``W_NOT_IMAGE`` for a DICOM object that is not a picture.
    """
    path = Path(source) if isinstance(source, str | Path) else None
    data = _content(source) if path is None else _bytes(path)
    kind = detect(data)
    if kind == "dicom":
        return read_dicom(data, source=path)
    if kind == NIFTI:
        raise not_a_film(kind)
    if kind not in raster.KINDS:
        raise raster.refused_kind(kind)
    sha256 = hashlib.sha256(data).hexdigest()
    picture = raster.decode(data)
    del data  # its memory
    pixels, tint = raster.to_pixels(picture, color=color)
    film, facts, notices = _as_film(pixels, color=color)
    return Image(
        film=film,
        grid=Grid(height=film.shape[0], width=film.shape[1], transform=picture.transform),
        source=path,
        sha256=sha256,
        info=picture.info | facts,
        notices=picture.notices + tint + notices,
    )


def not_a_film(came: str) -> InputError:
    """Refusal of a CT where a film is expected."""
    return InputError(
        "a CT is no film",
        came=came,
        expected="a chest film",
        do="Segment it as a volume with weights that know CT; those inside the package know films only",
        code="E_NOT_A_FILM",
    )


def _as_film(pixels: Pixels, *, color: bool) -> tuple[Pixels, dict[str, Any], tuple[Notice, ...]]:
    """Pixels, grey ones without values far from all others; facts for the record, and warnings about the film."""
    check_content(distribution(pixels)[0])
    if color:
        return pixels, {}, ()
    film, facts = raster.without_far_values(pixels)
    return film, facts, film_notices(film)


def read_grid(path: str | Path) -> Grid | None:
    """Read size and orientation of a DICOM file without decoding it; what is damaged or no picture is refused.

    ``None`` for any other file, which has no information about sides, so the standard film is assumed.
    """
    try:
        with Path(path).open("rb") as stream:
            if not looks_like_dicom(stream.read(1024)):
                return None
            stream.seek(0)
            return read_dicom_grid(stream)
    except OSError as error:
        raise InputError("the file cannot be read", came=error.strerror, code="E_READ") from error


def read_keys(path: Path) -> tuple[str, ...]:
    """Read SOP Instance UID and accession number of a DICOM file, for tables that name films by them.

    Nothing for any other file, and for one that cannot be read.
    """
    try:
        regular(path, MAX_FILE_BYTES)
        with path.open("rb") as stream:
            if not looks_like_dicom(stream.read(1024)):
                return ()
            stream.seek(0)
            return read_dicom_keys(stream)
    except (OSError, InputError):
        return ()


def from_array(
    array: ArrayLike,
    *,
    spacing_mm: tuple[float, float] | None = None,
    orientation: tuple[str, str] | None = None,
    color: bool = False,
) -> Image:
    """Take a film from an array; its spacing and orientation are those of `Grid`.

    The array is ``(H, W)`` or ``(H, W, 3)`` with equal channels; bool, uint8 or uint16 over their full range, or
    floating point in [0, 1]. Bright is dense. ``color`` keeps ``(H, W, 3)``, RGB, whose channels may differ then.

    Raises:
        InputError: If the array is none of these, too small or large, constant, or not finite.
    """
    values = np.asarray(array)
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):  # a channel axis of one
        values = values[0] if values.shape[0] == 1 else values[..., 0]
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] != 3):
        raise InputError("the array is not a picture", came=f"shape {values.shape}", expected="(H, W) or (H, W, 3)")
    check_size(*values.shape[:2])
    real = np.issubdtype(values.dtype, np.floating)
    top = 1 if real else {"bool": 1, "uint8": 255, "uint16": 65535}.get(values.dtype.name)
    if top is None:
        expected = "bool, uint8, uint16, or floating point in [0, 1]"
        raise InputError("the array's type is wrong", came=values.dtype, expected=expected)
    if real:
        check_content(values)
        if values.min() < -_ROUNDING or values.max() > 1 + _ROUNDING:
            came = f"[{values.min():.9g}, {values.max():.9g}]"
            raise InputError("the array's range is wrong", came=came, expected="[0, 1]", do="Scale it first.")
        values = np.clip(values, 0, 1)
    pixels: Pixels
    tint: tuple[Notice, ...] = ()
    if values.ndim == 3 and not color:
        if real:
            values, top = np.rint(values * 65535).astype(np.uint16), 65535
        pixels, tint = raster.grey_from_channels(values, top)
    else:
        pixels = values.astype(np.float32) / np.float32(top)
    film, facts, notices = _as_film(pixels, color=color)
    if spacing_mm is not None and not all(np.isfinite(s) and s > 0 for s in spacing_mm):
        raise InputError("the spacing is wrong", came=spacing_mm, expected="two positive numbers of mm, or None")
    return Image(
        film=film,
        grid=Grid(height=film.shape[0], width=film.shape[1], spacing_mm=spacing_mm, orientation=orientation),
        sha256=hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest(),
        info={"format": "array", "type": np.asarray(array).dtype.name} | facts,
        notices=tint + notices,
    )


def read_mask(path: str | Path) -> NDArray[np.bool_]:
    """Read the mask of a PNG or JPEG, ``(H, W)`` bool, by the rule of `inspect_mask`."""
    return inspect_mask(path).mask


def inspect_mask(path: str | Path) -> MaskFile:
    """Read a mask by a declared rule, and measure how clean it is.

    Colours and palettes are reduced by their largest channel; transparent pixels are background. Two levels, 0 and any
    other, are background and foreground. Otherwise levels above half of the type's range are foreground.

    Raises:
        DataError: ``E_DATA`` if there are levels above 0 but none above the threshold, so that the rule would turn
            a labelled mask into an empty one.
        InputError: If the file is refused, as by `read`.
    """
    data = _bytes(Path(path))
    kind = detect(data)
    if kind not in ("png", "jpeg"):
        raise raster.refused_kind(kind)
    picture = raster.decode(data, whole_film=False)
    levels = picture.levels if picture.levels.ndim == 2 else picture.levels.max(axis=2)
    levels = np.where(picture.opacity > 127, levels, 0) if picture.opacity is not None else levels.astype(np.uint16)
    used = np.flatnonzero(np.bincount(levels.ravel(), minlength=1))
    high = int(used[-1])
    binary = kind == "png" and len(used) <= 2 and (len(used) == 1 or used[0] == 0)
    threshold = high / 2 if binary else picture.top / 2
    if 0 < high <= threshold and (kind == "png" or high >= _MASK_NOISE):
        raise DataError(
            "the mask's levels are ambiguous",
            came=f"{len(used)} levels from {used[0]} to {high}",
            expected=f"background 0 and foreground above {threshold:g}",
            do="Store it with two levels, 0 and 255.",
        )
    mask = levels > threshold
    full = high if binary else picture.top
    return MaskFile(
        mask=mask,
        threshold=threshold,
        odd_share=float(((levels != 0) & (levels != full)).mean()),
        foreground_share=float(mask.mean()),
    )


def _content(source: Source) -> bytes:
    """Bytes of a source that is no path."""
    if isinstance(source, Dataset):
        return dataset_bytes(source)
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
    elif hasattr(source, "read"):
        data = source.read(MAX_FILE_BYTES + 1)
    else:
        data = None
    if not isinstance(data, bytes):
        expected = "a path, bytes, a file opened in binary mode, or a pydicom Dataset"
        raise InputError("this is no film", came=type(source).__name__, expected=expected)
    if len(data) > MAX_FILE_BYTES:
        raise _too_large(len(data))
    return data


def _too_large(size: int) -> InputError:
    came, expected = f"{size} bytes", f"at most {MAX_FILE_BYTES}"
    return InputError("the file is too large", came=came, expected=expected, code="E_SIZE")


def _bytes(path: Path) -> bytes:
    try:
        status = path.stat()  # before it is opened: a pipe would block for ever
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, socket or device"
            raise InputError("this is not a file", came=kind, expected="a regular file", code="E_READ")
        if status.st_size > MAX_FILE_BYTES:
            raise _too_large(status.st_size)
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot read {path}", came=reason, do="Check name and permissions.", code="E_READ") from error
