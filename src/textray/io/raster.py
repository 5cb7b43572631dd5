"""PNG, JPEG, TIFF, BMP and JPEG 2000 bytes to an array with its true range: nothing is clipped, guessed or filled in.

The limits of size and content here hold for every reader.
"""

from __future__ import annotations

import io
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image as PILImage

from textray.errors import InputError
from textray.io.levels import Levels, distribution, share, stacked, strips
from textray.records import Notice, Pixels

JPEG_SIGNATURE = b"\xff\xd8\xff"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
TIFF_SIGNATURES = (b"II*\x00", b"MM\x00*")
JPEG2000_SIGNATURES = (b"\x00\x00\x00\x0cjP  ", b"\xff\x4f\xff\x51")
KINDS = {"png": "PNG", "jpeg": "JPEG", "tiff": "TIFF", "bmp": "BMP", "jpeg2000": "JPEG2000"}
"""Kinds of pictures that are read, and their names in Pillow."""

MAX_FILE_BYTES = 1 << 30
MAX_PIXELS = 8192 * 8192
"""Most pixels of one picture: 256 MiB as float32, twice the largest detector."""
MIN_SIDE = 16
MAX_ASPECT = 10

_EXIF_ORIENTATION = 0x0112
_SIXTEEN_BIT_MODES = ("I;16", "I;16B", "I;16L", "I")
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
_BMP_HEADERS = frozenset((12, 40, 52, 56, 64, 108, 124))
_CHANNEL_TOLERANCE = 2  # grey levels of 255: the effect of colour conversion in a JPEG on a grey film
LOSSLESS, LS = "a lossless JPEG", "a JPEG-LS picture"
_SOF = {0xC0: None, 0xC1: None, 0xC2: None, 0xC3: LOSSLESS, 0xCB: LOSSLESS, 0xF7: LS}
_SOF |= dict.fromkeys((0xC5, 0xC6, 0xC7), "a hierarchical JPEG") | dict.fromkeys((0xC9, 0xCA), "an arithmetic JPEG")
_PROGRESSIVE, _SOS, _EOI = 0xC2, 0xDA, 0xD9
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # inside: a stuffed zero, restart markers, 0xFF as filling
_AFTER_SCAN_LS = re.compile(rb"\xff[^\x00-\x7f\xd0-\xd7\xff]")  # JPEG-LS stuffs a bit
_NO_FILLING = re.compile(rb"[^\xff]")
_COEFFICIENTS = 64
_HARMLESS = re.compile(r"colou?r|Invalid SOS parameters|: \d{1,2} extraneous bytes", re.IGNORECASE)
"""Words of libjpeg about streams of odd writers whose pixels are whole."""
_MOST_TINTED = 64  # levels of 255 by which the channels of a tinted film differ
_TINT_NOISE, _MOST_STRAY = 8, 1e-4  # levels of 255 off the tint, and share of such pixels
_MOST_SCANS, _MOST_SCANNED = 100, 1 << 30  # of a progressive JPEG, and pixels of all together: each takes as long
_MOST_CHUNKS = 200_000
_BINS = 4096
_STRAY = 2e-5  # share of the pixels below which a bin counts as empty
_FAR, _FAR_MASS = 2, 0.4  # widths of the film's own range
_MOST_FEW = 0.005  # share of the pixels that moves no percentile of a film
_FEW, _FLAT = 0.25, 4  # levels of a far mass, as a share of the film's, and its pixels for each: it has no texture
_FEW_LEVELS, _LEAST_FILM = 4, 0.1  # levels beside the first, and share of the pixels, that a film has at least
_LOCK = threading.RLock()
_MOST = f"at most {MAX_PIXELS} pixels"


@contextmanager
def silent_warnings() -> Iterator[None]:
    """Suppress Python's warnings; one thread at a time, since they are a setting of the process."""
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def check_size(height: int, width: int, *, whole_film: bool = True) -> None:
    """Refuse a size that no chest image has (``E_SIZE``), from the header, before any pixel is decoded."""
    came = f"{height} x {width} pixels"
    if height * width > MAX_PIXELS:
        raise _size_error("too large", came, _MOST)
    if whole_film and min(height, width) < MIN_SIDE:
        raise _size_error("too small", came, f"at least {MIN_SIDE} on each side")
    if whole_film and max(height, width) > MAX_ASPECT * min(height, width):
        raise _size_error("too narrow", came, f"sides of at most 1 to {MAX_ASPECT}")


def _size_error(fault: str, came: str | None, expected: str) -> InputError:
    do = "Reduce it." if fault == "too large" else None
    return InputError(f"the picture is {fault}", came=came, expected=expected, do=do, code="E_SIZE")


def check_content(pixels: NDArray[Any]) -> None:
    """Refuse pixels that are not finite (``E_FORMAT``), or all equal (``E_CONSTANT``)."""
    low, high = pixels.min(), pixels.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError("the picture holds NaN or infinity", expected="finite pixels", do="Replace them first.")
    if low == high:
        what, came, do = "the picture is constant", f"{low} in each pixel", "Export it again."
        raise InputError(what, came=came, expected="a film", do=do, code="E_CONSTANT")


def refused_kind(kind: str) -> InputError:
    """Refusal of bytes of a kind that is not read."""
    what, do = "the file is not a picture that TextRay reads", "Convert it to one of these."
    return InputError(what, came=kind, expected="PNG, JPEG, TIFF, BMP, JPEG 2000 or DICOM", do=do)


def body_range(values: NDArray[Any], often: NDArray[np.int64] | None = None) -> tuple[float, float]:
    """Lowest and highest value of the film itself: masses of values far above or below the others are left out.

    Padding without a tag and markers at the top of a type leave a gap in the histogram. The side of it with more levels
    is the film. The other is far if the gap is more than twice as wide as the film's range, or, for a mass of few
    levels that moves a percentile of the film, 0.4 times as wide. ``often`` is how often each value occurs, else once.
    """
    low, high = float(values.min()), float(values.max())
    if values.dtype == np.float32 and high - low < _BINS * np.spacing(np.float32(max(abs(low), abs(high)))):
        values = values.astype(np.float64)  # so close together float32 has fewer levels than bins
    ends = (np.float64(low), np.float64(high))
    counts, edges = np.histogram(values, bins=_BINS, range=ends, weights=often)
    whole = counts.sum()
    used = np.flatnonzero(counts > _STRAY * whole)  # edges of a marker may have any level
    first, last = 0, len(used) - 1
    while first < last:
        for cut in first + np.argsort(-np.diff(used[first : last + 1]), kind="stable"):
            kept = (first, cut) if cut - first >= last - cut - 1 else (cut + 1, last)
            gap, span = used[cut + 1] - used[cut], used[kept[1]] - used[kept[0]]
            mass = whole - counts[used[kept[0]] : used[kept[1]] + 1].sum()
            film = kept[1] - kept[0] >= _FEW_LEVELS and mass <= (1 - _LEAST_FILM) * whole
            few = last - first - (kept[1] - kept[0]) <= min(_FEW * (kept[1] - kept[0]), mass / _FLAT)
            if film and gap > span * (_FAR_MASS if few and mass > _MOST_FEW * whole else _FAR):
                first, last = kept
                break
        else:
            break
    return (low if first == 0 else float(edges[used[first]])), (
        high if last == len(used) - 1 else float(edges[used[last] + 1])
    )


def without_far_values(film: Pixels) -> tuple[Pixels, dict[str, Any]]:
    """A film clipped to `body_range`, and the share of pixels that were, for the record."""
    values, counts = distribution(film)
    low, high = body_range(values, counts)
    if low <= values.min() and values.max() <= high:
        return film, {}
    facts = {"left_out": {"padding": 0.0, "far_values": share((values < low) | (values > high), counts)}}
    if isinstance(film, Levels):
        return replace(film, table=np.clip(film.table, low, high)), facts
    return np.clip(film[:], low, high), facts


@dataclass(frozen=True, kw_only=True, eq=False)
class Raster:
    """A decoded picture, upright: ``levels`` ``(H, W)`` or ``(H, W, 3)``, unsigned integers as stored."""

    levels: NDArray[Any]
    top: int  # largest level of the file's type: 1, 255 or 65535
    opacity: NDArray[np.uint8] | None  # (H, W), none if all pixels are opaque
    transform: str  # "exif-6" and so on if the stored pixels were turned or flipped, else empty
    info: dict[str, Any]
    notices: tuple[Notice, ...]


def kind_of(data: bytes) -> str | None:
    """Kind of a picture, of `KINDS`, by its first bytes; ``None`` for anything else."""
    if data.startswith(PNG_SIGNATURE):
        return "png"
    if data.startswith(JPEG_SIGNATURE):
        return "jpeg"
    if data.startswith(TIFF_SIGNATURES):
        return "tiff"
    if data.startswith(JPEG2000_SIGNATURES):
        return "jpeg2000"
    is_bmp = data.startswith(b"BM") and int.from_bytes(data[14:18], "little") in _BMP_HEADERS
    return "bmp" if is_bmp else None


def decode(data: bytes, *, whole_film: bool = True) -> Raster:
    """Decode the bytes of a picture of `KINDS` and turn the picture upright by its EXIF orientation.

    Smaller and narrower pictures, such as masks, are allowed unless it is a ``whole_film``.

    Raises:
        InputError: ``E_TRUNCATED`` where the file is cut off or damaged, ``E_SIZE``, ``E_MULTIFRAME`` for an animation
            or several pages, ``E_FORMAT`` for samples of a TIFF that are not unsigned with at most 16 bits,
            ``E_COLOR`` for colour spaces that are none of grey, RGB and palette.
    """
    kind = KINDS[kind_of(data) or "jpeg"]
    if kind == "JPEG2000" and not _jpeg2000_is_whole(data):
        raise _damaged("JPEG 2000")
    if kind == "JPEG":
        _check_jpeg(data)
    elif kind == "PNG":
        _check_chunks(data)
    with silent_warnings():  # of sizes that are refused below, and of odd EXIF data
        try:
            if kind == "PNG":
                with PILImage.open(io.BytesIO(data), formats=(kind,)) as probe:
                    probe.verify()  # checks each chunk's sum and that the end is there
            picture = PILImage.open(io.BytesIO(data), formats=(kind,))
            check_size(picture.height, picture.width, whole_film=whole_film)
            if kind != "JPEG" and getattr(picture, "n_frames", 1) > 1:
                words = "is an animation" if kind == "PNG" else "has several pages"
                raise InputError(f"the {kind} {words}", expected="one picture", code="E_MULTIFRAME")
            return _convert(picture, kind)
        except PILImage.DecompressionBombError:
            raise _size_error("too large", None, _MOST) from None
        except InputError:
            raise
        except Exception as error:  # OSError, SyntaxError, ValueError, struct.error, zlib.error, ...
            raise _damaged(kind) from error


def to_pixels(raster: Raster, *, color: bool) -> tuple[Pixels, tuple[Notice, ...]]:
    """Levels as pixels in [0, 1]: grey ``(H, W)`` or, if asked for, colour ``(H, W, 3)``, in which grey is repeated.

    Transparent pixels are refused (``E_COLOR``) and, where grey is asked for, colours.
    """
    levels = raster.levels
    if raster.opacity is not None:
        raise InputError(
            "the picture has transparent pixels",
            came=f"{int((raster.opacity < 255).sum())} of {raster.opacity.size} pixels",
            expected="an opaque picture",
            do="Flatten it first.",
            code="E_COLOR",
        )
    if levels.ndim == 3 and not color:
        return grey_from_channels(levels, raster.top)
    if not color:
        return full_range(levels, raster.top), ()
    if levels.ndim == 2:
        levels = np.repeat(levels[..., None], 3, axis=2)
    return np.divide(levels, np.float32(raster.top), dtype=np.float32), ()


def full_range(levels: NDArray[Any], top: int) -> Levels:
    """Levels ``(H, W)`` of a type whose largest level, ``top``, is white."""
    return Levels.of(levels, np.divide(np.arange(top + 1), np.float32(top), dtype=np.float32))


def is_grey(pixels: NDArray[np.float32]) -> bool:
    """True if the channels of ``(H, W, 3)`` float32 in [0, 1] are equal, as in a grey picture stored in colour."""
    return float((pixels.max(axis=2) - pixels.min(axis=2)).max()) * 255 <= _CHANNEL_TOLERANCE


def grey_from_channels(levels: NDArray[Any], top: int) -> tuple[Levels, tuple[Notice, ...]]:
    """``(H, W, 3)`` levels of at most 16 bits as ``(H, W)`` of their sums; a warning if the film is tinted.

    Channels that differ by at most two levels of 255 are grey. A tint is a colour for each level of grey, as scanners
    make it; anything else is colour and refused (``E_COLOR``).
    """
    sums = np.empty(levels.shape[:2], np.uint16 if 3 * top < 1 << 16 else np.uint32)
    spread = 0
    for rows in strips(levels.shape):
        part = levels[rows]
        sums[rows] = part.sum(axis=2, dtype=np.uint32)
        spread = max(spread, int((part.max(axis=2) - part.min(axis=2)).max()))
    grey = full_range(sums, 3 * top)
    if spread * 255 <= _CHANNEL_TOLERANCE * top:
        return grey, ()
    if spread * 255 <= _MOST_TINTED * top and _is_tint(levels, grey, top):
        text = "The film is tinted; its three channels are averaged."
        return grey, (Notice(code="W_TINTED", text=text, remedy="Nothing, if the film was scanned in colour."),)
    raise InputError(
        "the picture is in colour",
        came=f"channels that differ by up to {spread} of {top}",
        expected="a grey film, or RGB with equal channels",
        do="Export the film itself, not a screenshot or an annotated copy.",
        code="E_COLOR",
    )


def _is_tint(levels: NDArray[Any], grey: Pixels, top: int) -> bool:
    """True if each channel follows from the mean of the three, but for noise."""

    def shades(rows: slice) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        return np.rint(grey[rows] * 255).astype(np.intp).ravel(), levels[rows].reshape(-1, 3).T * np.float32(255 / top)

    sums, stray = np.zeros((3, 256)), np.zeros(3)
    counts = np.zeros(256)
    for rows in strips(levels.shape):
        bins, channels = shades(rows)
        counts += np.bincount(bins, minlength=256)
        sums += [np.bincount(bins, weights=channel, minlength=256) for channel in channels]
    mean = sums / np.maximum(counts, 1)
    for rows in strips(levels.shape):
        bins, channels = shades(rows)
        stray += (np.abs(channels - mean[:, bins]) > _TINT_NOISE).sum(axis=1)
    return bool((stray / counts.sum() <= _MOST_STRAY).all())


def upright(levels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn stored rows and columns ``(H, W, ...)`` to the displayed picture of an EXIF orientation 1 to 8."""
    if orientation >= 5:
        levels = levels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        levels = levels[::-1]
    if orientation in (2, 3, 6, 7):
        levels = levels[:, ::-1]
    return np.ascontiguousarray(levels)


def _check_jpeg(data: bytes) -> None:
    """Refuse a JPEG of a kind that is not read, with more scans than any film has, or that is not whole."""
    stream = jpeg_layout(data)
    if stream.kind is not None:
        raise refused_kind(stream.kind)
    if stream.scans > _MOST_SCANS or stream.scans * stream.height * stream.width > _MOST_SCANNED:
        came = f"{stream.scans} scans of {stream.height} x {stream.width} pixels"
        raise _size_error("too large", came, "a few scans")
    if not stream.complete or not jpeg_is_whole(data):
        raise _damaged("JPEG")


def _check_chunks(data: bytes) -> None:
    """Refuse a PNG of more chunks than any writer makes, which takes long to read."""
    at = len(PNG_SIGNATURE)
    for _ in range(_MOST_CHUNKS):
        if at + 12 > len(data) or data[at + 4 : at + 8] == b"IEND":
            return
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    raise _size_error("too large", f"more than {_MOST_CHUNKS} chunks", "a few")


def _convert(picture: PILImage.Image, kind: str) -> Raster:
    stored_mode = picture.mode
    turned = _orientation(picture) if kind == "TIFF" else None  # Pillow turns a TIFF upright while it is loaded
    inverted = kind == "TIFF" and _is_white_zero(picture)
    picture.load()
    orientation, notices = turned or _orientation(picture)
    left = 1 if turned else orientation
    info: dict[str, Any] = {"format": kind.lower(), "mode": stored_mode, "exif_orientation": orientation}
    opacity: NDArray[np.uint8] | None = None
    if picture.mode in _SIXTEEN_BIT_MODES:
        levels, top = _array(picture).astype(np.uint16, copy=False), 65535
        levels = 65535 - levels if inverted else levels
        if isinstance(clear := picture.info.get("transparency"), int) and (levels == clear).any():
            opacity = np.where(levels == clear, np.uint8(0), np.uint8(255))
    else:
        has_opacity = "transparency" in picture.info or picture.mode in ("LA", "PA", "RGBA")
        if picture.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
            raise InputError(
                "the picture has an unknown colour space", came=picture.mode, expected="grey or RGB", code="E_COLOR"
            )
        if has_opacity:
            rgba = _array(picture, "RGBA")
            levels, opacity = rgba[..., :3], rgba[..., 3]
            levels = levels[..., 0] if picture.mode in ("1", "L", "LA") else levels
            opacity = opacity if opacity.min() < 255 else None
        else:
            levels = _array(picture, {"P": "RGB", "1": "L"}.get(picture.mode))
            levels = np.minimum(levels, 1) if picture.mode == "1" else levels
        top = 1 if picture.mode == "1" and not has_opacity else 255
    picture.close()  # its memory
    info["bits"] = {1: 1, 255: 8, 65535: 16}[top]
    return Raster(
        levels=upright(levels, left),
        top=top,
        opacity=None if opacity is None else upright(opacity, left),
        transform="" if orientation == 1 else f"exif-{orientation}",
        info=info,
        notices=notices,
    )


def _array(picture: PILImage.Image, mode: str | None = None) -> NDArray[Any]:
    """A picture, in another mode, as an array: in strips, since Pillow makes two copies of what it hands over."""
    shape = picture.height, picture.width
    parts = (picture.crop((0, rows.start, shape[1], rows.stop)).convert(mode) for rows in strips(shape))
    return stacked(map(np.asarray, parts), shape[0])


def _is_white_zero(picture: PILImage.Image) -> bool:
    """True for a TIFF of 16 bits in which 0 is white, which Pillow does not turn; odd samples are refused."""
    tags: Any = getattr(picture, "tag_v2", {})
    bits, formats = (np.atleast_1d(tags.get(tag, 1)) for tag in (_BITS, _SAMPLE_FORMAT))
    if bits.max() > 16 or (formats != 1).any():
        came = f"{bits.max()} bits, sample format {formats.max()}"
        what, expected = "the TIFF has samples of another kind", "unsigned integers of at most 16 bits"
        raise InputError(what, came=came, expected=expected, do="Export it with 8 or 16 bits.")
    if tags.get(_PHOTOMETRIC, 1) != 0 or bits.max() <= 8:
        return False
    if bits.max() != 16:
        raise InputError("the TIFF has inverted samples of an odd size", came=f"{bits.max()} bits", expected="16 bits")
    return True


def _orientation(picture: PILImage.Image) -> tuple[int, tuple[Notice, ...]]:
    try:
        value = picture.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # EXIF is free-form bytes: any error, and the picture itself is fine
        value = None
    if isinstance(value, int) and 1 <= value <= 8:
        return value, ()
    text = "The EXIF orientation cannot be read, so the stored pixels are taken as upright."
    return 1, (Notice(code="W_EXIF", text=text, remedy="Look at the overlay: the film should stand upright."),)


def _damaged(kind: str) -> InputError:
    what, do = f"the {kind} is cut off or damaged", "Copy or export it again."
    return InputError(what, expected="a complete file", do=do, code="E_TRUNCATED")


def _jpeg2000_is_whole(data: bytes) -> bool:
    """True if the tile parts of a JPEG 2000 follow each other up to its end, which its decoder does not ask for."""
    at = 0
    while data.startswith(JPEG2000_SIGNATURES[0]) and data[at + 4 : at + 8] != b"jp2c":
        length = int.from_bytes(data[at : at + 4], "big")
        if length < 8 or at + length > len(data):
            return False
        at += length
    if at:
        at += 16 if data[at : at + 4] == b"\x00\x00\x00\x01" else 8
    at += 2  # the start of the code stream
    while at + 2 <= len(data):
        marker, length = data[at : at + 2], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == b"\xff\xd9":
            return True
        if marker == b"\xff\x90":  # a tile part; one without a length goes up to the end
            length = int.from_bytes(data[at + 6 : at + 10], "big") or data.rfind(b"\xff\xd9") - at
            at += length
        elif marker[0] == 0xFF:
            at += 2 + length
        if marker[0] != 0xFF or length < 2:
            return False
    return False


@dataclass(kw_only=True)
class JpegLayout:
    """What the markers of a JPEG tell; ``kind`` names one that is not read (lossless, 12 bits and so on)."""

    height: int = 0
    width: int = 0
    kind: str | None = None
    scans: int = 0
    complete: bool = False  # it has its end, and a progressive one all of its scans


def jpeg_layout(data: bytes) -> JpegLayout:
    """Layout of a JPEG stream, as far as its markers can be followed."""
    found, at = JpegLayout(), 2
    missing: dict[tuple[int, int], int] = {}  # bits to come, by component and coefficient, in a progressive JPEG
    while data[at : at + 1] == b"\xff" and (after := _NO_FILLING.search(data, at)):
        at = after.start() - 1  # any number of 0xFF may stand before a marker
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == _EOI:
            found.complete = found.scans > 0 and not any(missing.values())
            break
        body = data[at + 4 : at + 2 + length]
        at += 2 + length
        if marker in _SOF and len(body) >= 6:
            found.height, found.width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
            found.kind = _SOF[marker] or (f"a JPEG of {body[0]} bits" if body[0] != 8 else None)
            if marker == _PROGRESSIVE:
                missing = {(component, k): 1 for component in body[6::3] for k in range(_COEFFICIENTS)}
        elif marker == _SOS and len(body) >= 6:
            found.scans += 1
            first, last, bits = body[-3:]
            for component in body[1:-3:2]:
                for k in range(first, last + 1):
                    if (component, k) in missing:
                        missing[component, k] = bits & 15
            end = (_AFTER_SCAN_LS if found.kind == LS else _AFTER_SCAN).search(data, at)
            at = len(data) if end is None else end.start()
    return found


def jpeg_is_whole(data: bytes) -> bool:
    """False if libjpeg finds the pixels damaged: a hole, rubbish, or an end that comes too early."""
    try:
        simplejpeg.decode_jpeg(data, "GRAY", min_factor=8, strict=True)
    except ValueError as error:
        return bool(_HARMLESS.search(str(error)))
    return True
