"""NIfTI volumes in, and masks of volumes out on the affine, codes and units of their file.

nibabel's affine maps a voxel (i, j, k) of the file to millimetres to the patient's right, front and head (RAS+).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import logging
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from textray.errors import InputError, TextRayError, UsageError
from textray.io.files import regular
from textray.io.raster import MAX_FILE_BYTES, check_size
from textray.records import Grid, Notice, Volume

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

NIFTI: Final = "a NIfTI volume"
MAX_VOXELS = 1 << 28
"""Most voxels of a volume: 1 GiB as float32, a thousand slices of 512 x 512."""
MOST_OBLIQUE = 10.0
"""Angle in degrees between the axes of a volume and the patient's, from which a warning says so."""
_HEAD = 1024  # bytes that hold either header
_LEAST_UPRIGHT = 0.1  # of a volume of its axes' lengths: below it they nearly lie in one plane
_AIR = -500.0  # HU that every CT of a chest falls below
_DESCRIPTION = b"TextRay mask"
_GEOMETRY = (
    "pixdim", "xyzt_units", "qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
    "sform_code", "srow_x", "srow_y", "srow_z",
)  # fmt: skip
_ASSUMED = Notice(
    code="W_SIDES_ASSUMED",
    text="The volume does not say where it lies in the patient (both codes are 0), so its sides are assumed.",
    remedy="Check the sides on the overlay; --strict-input refuses such volumes.",
)
_CONTRADICTION = Notice(
    code="W_SIDES_CONTRADICT",
    text="The two ways in which the volume says where it lies (sform, qform) name other sides; the sform counts.",
    remedy="Check the sides on the overlay.",
)
_NO_AIR = Notice(
    code="W_NOT_HOUNSFIELD",
    text=f"No voxel is below {_AIR:g}, so this may be no CT in Hounsfield units, and its mask may be wrong.",
    remedy="Give the CT in Hounsfield units, in which air is -1000.",
)


def require() -> None:
    """Refuse to go on without the library that reads and writes volumes."""
    if find_spec("nibabel") is None:
        raise UsageError(
            "CT volumes need the Python package nibabel, which is not installed",
            do="Install it with: pip install 'textray[nifti]'",
        )


def is_nifti(data: bytes) -> bool:
    """True for the first bytes of a NIfTI file, compressed with gzip or not, whatever its name."""
    head = _inflated_head(data)
    return head[344:347] in (b"n+1", b"ni1") or head[4:7] in (b"n+2", b"ni2")


def _inflated_head(data: bytes) -> bytes:
    if not data.startswith(b"\x1f\x8b"):
        return data[:_HEAD]
    try:
        return zlib.decompressobj(wbits=31).decompress(data, _HEAD)
    except zlib.error:
        return b""


def is_nifti_file(path: Path) -> bool:
    """True for a path that leads to a NIfTI file."""
    return is_nifti(_file_head(path))


def is_own_mask(path: Path) -> bool:
    """True for a mask of a volume that TextRay wrote, whatever its name."""
    return _inflated_head(_file_head(path))[148:228].startswith(_DESCRIPTION)


def _file_head(path: Path) -> bytes:
    try:
        regular(path)
        with path.open("rb") as file:
            return file.read(_HEAD)
    except OSError:
        return b""


def read_nifti(path: Path) -> Volume:
    """Read a volume in HU from a NIfTI file: two or three axes, or further ones of length 1.

    Raises:
        InputError: ``E_AFFINE`` where the file does not place its voxels, ``E_MULTIFRAME`` for more than one volume,
            ``E_COLOR``, ``E_SIZE``, ``E_TRUNCATED``, ``E_FORMAT``, ``E_CONSTANT``, ``E_READ``.
    """
    try:
        regular(path, MAX_FILE_BYTES)
        data = path.read_bytes()
    except OSError as error:
        raise InputError("the volume cannot be read", came=error.strerror, code="E_READ") from error
    import nibabel

    with _quiet(), np.errstate(all="ignore"):
        try:
            head = _inflated_head(data)
            large = head[4:7] in (b"n+2", b"ni2")
            kind = nibabel.nifti2.Nifti2Image if large else nibabel.nifti1.Nifti1Image
            header = kind.header_class.from_fileobj(io.BytesIO(head), check=False)
            size = _declared(header, head[4:8] if large else head[344:348])
            _check_place(header)
            whole = _whole(data, size)
            image = kind.from_bytes(whole)
            array, affine = image.get_fdata(dtype=np.float32, caching="unchanged"), image.affine
        except TextRayError:
            raise
        except Exception:  # of many kinds in nibabel, for damaged headers
            array = None
    if array is None:
        raise _damaged()
    codes = {"qform_code": int(image.header["qform_code"]), "sform_code": int(image.header["sform_code"])}
    known = max(codes.values()) > 0
    notices = [] if known else [_ASSUMED]
    if min(codes.values()) > 0 and _directions(image.get_qform()) != _directions(image.get_sform()):
        notices.append(_CONTRADICTION)
    shape = (*array.shape[:3], 1)[:3]
    return volume_of(
        array.reshape(shape),
        np.asarray(affine, np.float64),
        header=image.header,
        known=known,
        source=path,
        sha256=hashlib.sha256(data).hexdigest(),
        info={"format": "nifti", "type": image.get_data_dtype().name, **codes},
        notices=tuple(notices),
    )


def volume_of(
    array: NDArray[np.float32],
    affine: NDArray[np.float64],
    *,
    header: Nifti1Header | None = None,
    known: bool = True,
    slices: tuple[Path, ...] = (),
    source: Path,
    sha256: str,
    info: dict[str, Any],
    notices: tuple[Notice, ...] = (),
) -> Volume:
    """Turn voxels ``(I, J, K)`` in HU, whose axes an affine places, to the usual view of slices.

    ``known`` is false where the file does not say its sides.
    """
    if not np.isfinite(affine).all():
        raise _no_place("an affine with NaN or infinity")
    lengths = np.sqrt((affine[:3, :3] ** 2).sum(0))
    if lengths.min() <= 0 or abs(np.linalg.det(affine[:3, :3])) < _LEAST_UPRIGHT * lengths.prod():
        raise _no_place("axes in one plane")
    from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

    turn = ornt_transform(io_orientation(affine), axcodes2ornt(("L", "P", "S"))).astype(int)
    order = np.argsort(turn[:, 0])  # for each of left, back and head the axis of the file
    cosines = np.abs(affine[:3, :3] / lengths)[range(3), order]
    angle = math.degrees(math.acos(min(1.0, float(cosines.min()))))
    if angle > MOST_OBLIQUE:
        text = f"The volume lies {angle:.0f} degrees askew in the patient; its slices follow its own axes."
        notices = (*notices, Notice(code="W_OBLIQUE", text=text, remedy="Look at the overlay before you use the mask."))
    low, high = (float(array.min()), float(array.max()))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError("the volume holds NaN or infinity", expected="finite HU", do="Replace them first.")
    if low == high:
        raise InputError("the volume is constant", came=f"{low:g} in each voxel", expected="a CT", code="E_CONSTANT")
    if low > _AIR:
        notices = (*notices, _NO_AIR)
    spacing = [float(length) for length in lengths[order]]
    height, width = array.shape[order[1]], array.shape[order[0]]
    check_size(height, width)
    orientation = ("L", "P") if known else None
    return Volume(
        hu=array,
        turn=tuple((int(axis), int(sign)) for axis, sign in turn),
        affine=affine,
        grid=Grid(height=height, width=width, spacing_mm=(spacing[1], spacing[0]), orientation=orientation),
        step_mm=spacing[2],
        header=header,
        slices=slices,
        source=source,
        sha256=sha256,
        info=info,
        notices=notices,
    )


def mask_bytes(volume: Volume, mask: NDArray[np.bool_]) -> bytes:
    """Bytes of a ``.nii.gz`` of a mask ``(K, H, W)`` in the axes of the volume's file; values 0 and 1, uint8.

    Affine, codes and units are those of the file; its texts and extensions stay behind. The same mask gives the same
    bytes.
    """
    import nibabel

    values = volume.to_file_axes(mask).astype(np.uint8)
    with _quiet():
        if volume.header is None:  # from DICOM: the scanner's own axes, in mm
            image = nibabel.nifti1.Nifti1Image(values, volume.affine)
            image.header.set_xyzt_units("mm")
            image.set_qform(volume.affine, code=1)
            image.set_sform(volume.affine, code=1)
        else:
            header = type(volume.header)(endianness=volume.header.endianness)
            header.set_data_dtype(np.uint8)
            header.set_data_shape(volume.header.get_data_shape())
            for name in _GEOMETRY:
                header[name] = volume.header[name]
            large = isinstance(header, nibabel.nifti2.Nifti2Header)
            kind = nibabel.nifti2.Nifti2Image if large else nibabel.nifti1.Nifti1Image
            image = kind(values.reshape(header.get_data_shape()), None, header)
        image.header["descrip"] = _DESCRIPTION
        return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)


def _declared(header: Nifti1Header, magic: bytes) -> int:
    """Bytes of the file that a header declares; one that TextRay does not read is refused before they are read."""
    if magic[:3] in (b"ni1", b"ni2"):
        what, do = "the NIfTI file is one of a pair", "Convert the pair to one .nii file."
        raise InputError(what, came="a header without its image", expected="header and image in one file", do=do)
    count = int(header["dim"][0])
    dims = [int(size) for size in header["dim"][1 : 1 + count]]
    if not 1 <= count <= 7 or min(dims) < 1:
        raise _damaged()
    came = " x ".join(map(str, dims))
    if count < 2 or math.prod(dims[3:]) > 1:
        what, do = "the NIfTI file is not one volume", "Give each volume as a file of its own."
        raise InputError(what, came=came, expected="two or three axes", do=do, code="E_MULTIFRAME")
    if math.prod(dims) > MAX_VOXELS:
        what, expected = "the volume is too large", f"at most {MAX_VOXELS} voxels"
        raise InputError(what, came=came, expected=expected, do="Reduce it.", code="E_SIZE")
    kind = header.get_data_dtype()
    if kind.names is not None:
        raise InputError("the volume is coloured", came="RGB voxels", expected="HU", code="E_COLOR")
    if kind.kind not in "iuf":
        raise InputError("the type of the volume's voxels is wrong", came=kind.name, expected="integers or fractions")
    offset = float(header.get_data_offset())
    if not 0 <= offset <= MAX_FILE_BYTES:
        raise _damaged()
    return int(offset) + math.prod(dims) * int(kind.itemsize)


def _whole(data: bytes, size: int) -> bytes:
    """The first ``size`` bytes of a file, inflated if it is compressed, and never more."""
    if data.startswith(b"\x1f\x8b"):
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
            data = stream.read(size)
            stream.read(1)  # at the end the checksum is compared
    if len(data) < size:
        raise _damaged()
    return data


def _check_place(header: Nifti1Header) -> None:
    """Refuse an affine without lengths, which nibabel would replace by ones of 1, and one with an odd rotation."""
    try:
        axes = header.get_best_affine()[:3, :3]
    except Exception:  # of a rotation that is none
        raise _no_place("a rotation that is none") from None
    if not axes.any(0).all():
        raise _no_place("axes of no length")


def _directions(affine: NDArray[np.float64]) -> tuple[str, ...]:
    from nibabel.orientations import aff2axcodes

    return tuple(map(str, aff2axcodes(affine)))


def _damaged() -> InputError:
    what, do = "the NIfTI file is cut off or damaged", "Fetch it again."
    return InputError(what, expected="a whole header and as many voxels as it says", do=do, code="E_TRUNCATED")


def _no_place(came: str) -> InputError:
    return InputError(
        "the volume does not say where its voxels lie",
        came=came,
        expected="an affine with three axes",
        do="Write the volume again from its DICOM series",
        code="E_AFFINE",
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress nibabel's words about odd headers, which may quote them."""
    log = logging.getLogger("nibabel.global")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before
