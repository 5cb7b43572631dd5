"""Results on disk: mask, overlay and JSON record, each written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import platform
import re
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, takewhile
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage
from PIL.PngImagePlugin import PngInfo

from textray.errors import DiskError, OutputError, ShapeError, TextRayError
from textray.io.levels import in_pillow, stacked, strips
from textray.io.page import Colour, captions, display_range, in_colour, stretch
from textray.records import Pixels

FOUND: Colour = (0, 200, 255)
"""Cyan, for a mask without ground truth: distinct from the three below and from any grey."""
TRUE_POSITIVE: Colour = (255, 220, 0)
FALSE_NEGATIVE: Colour = (230, 30, 30)
FALSE_POSITIVE: Colour = (30, 200, 60)

_TINT = 0.3  # share of the colour inside an outline; the film must stay readable
_PIXELS_PER_OUTLINE = 500  # one pixel of outline for each so many pixels of the longer side
_SOFTWARE = ("Software", "TextRay")  # text chunk of every picture; right behind the header
DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


def atomic_write(path: str | Path, data: bytes | Callable[[BinaryIO], None]) -> None:
    """Write a file so that its name holds the old content or the new, never a part.

    The bytes, or what a function writes, go to a temporary name in the same folder, are flushed to the disk, and take
    the final name in one step.

    Raises:
        DiskError: If the disk is full or fails; the old file stays and the temporary one is removed.
        OutputError: If the folder is not writable.
    """
    path = Path(path)
    part = temporary(path.parent)  # a short name, since that of the file may have 255 bytes
    try:
        try:
            _write_through(part, data)
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise _explain(error, path) from error


def check_writable(folder: str | Path) -> Path:
    """Create an output folder and write a test file there, before any work is done; returns the folder.

    Raises:
        OutputError: If it is a file, lies below a file, or is read-only.
        DiskError: If the disk is full.
    """
    folder = Path(folder)
    probe = temporary(folder)
    try:
        missing = [*takewhile(lambda place: not place.is_dir(), (folder, *folder.parents))]
        for place in reversed(missing):  # `Path.mkdir` would call itself for each of them
            place.mkdir(exist_ok=True)
        try:
            _write_through(probe, b"textray")
            probe.unlink()
        except BaseException:
            probe.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _explain(error, folder) from error
    return folder


def refuse_other(path: Path, is_own: Callable[[Path], bool], of: str) -> None:
    """Refuse to replace a file of another program or person.

    Raises:
        OutputError: If there is a file of this name, and it is not ``of`` what will be written.
    """
    if os.path.lexists(path) and not is_own(path):
        raise OutputError(
            f"{path} is of no {of}, so it is not overwritten",
            came="another file",
            do="Name another folder with --out, or move the file away",
        )


def temporary(folder: Path, kind: str = "file") -> Path:
    """A new name that holds machine, process and thread.

    By these, a later run removes the files of a killed one, and an interrupted run its own.
    """
    return folder / f".textray-{kind}-{process()}-{threading.get_ident()}-{secrets.token_hex(4)}.tmp"


def process() -> str:
    """This machine and process: eight hexadecimal digits, and the number."""
    return f"{node()}-{os.getpid()}"


def node() -> str:
    """Eight hexadecimal digits of this machine, in the names of temporary files in shared folders."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def write_json(path: str | Path, obj: object) -> None:
    """Write a record as UTF-8 JSON; see `json_text`."""
    atomic_write(path, json_text(obj).encode())


def json_text(obj: object) -> str:
    """JSON of a record: keys in order, two spaces of indent, a newline at the end.

    NumPy scalars and paths become numbers and strings; NaN, infinity and what else has no JSON form are refused.
    """
    try:
        text = json.dumps(obj, ensure_ascii=False, allow_nan=False, indent=2, default=_plain)
    except (TypeError, ValueError) as error:
        what = f"the record cannot be written as JSON: {error}"
        raise TextRayError(what, expected="finite numbers and text") from error
    # A file name that is not UTF-8 reaches Python as lone surrogates; escaped, the file stays valid UTF-8.
    return re.sub("[\ud800-\udfff]", lambda match: f"\\u{ord(match[0]):04x}", text) + "\n"


def write_mask(path: str | Path, mask: NDArray[np.bool_]) -> None:
    """Write a mask ``(H, W)`` bool as an 8-bit grey PNG, 255 inside lesions and 0 outside."""
    _two_axes(mask, "mask")
    parts = (np.where(mask[rows], np.uint8(255), np.uint8(0)) for rows in strips(mask.shape))
    _write_png(path, in_pillow("L", mask.shape, parts), compress_level=6)


def write_overlay(
    path: str | Path,
    film: Pixels,
    mask: NDArray[np.bool_],
    truth: NDArray[np.bool_] | None = None,
    *,
    caption: Sequence[str] = (),
) -> None:
    """Write the picture of `overlay` as a PNG."""
    # Film noise hardly compresses: level 3 is three times faster than 6 for a few percent of size.
    _write_png(path, overlay(film, mask, truth, caption=caption), compress_level=3)


def overlay(
    film: Pixels, mask: NDArray[np.bool_], truth: NDArray[np.bool_] | None = None, *, caption: Sequence[str] = ()
) -> PILImage.Image:
    """The picture of `render_overlay` on the native grid, with a caption in a strip beneath it."""
    words = [captions(mask.shape[1], caption)] if caption else []
    shape = len(mask) + sum(map(len, words)), mask.shape[1]
    return in_pillow("RGB", shape, chain(_overlay(film, mask, truth), words))


def write_picture(path: str | Path, picture: NDArray[np.uint8]) -> None:
    """Write a drawn page ``(H, W, 3)`` uint8 as a PNG."""
    _write_png(path, PILImage.fromarray(picture), compress_level=6)


def is_own_picture(path: str | Path) -> bool:
    """True for a mask, an overlay or a page that this module wrote, whatever its name."""
    path = Path(path)
    try:
        if not path.is_file():  # a pipe would block
            return False
        with path.open("rb") as file:
            head = file.read(256)
    except OSError:
        return False
    return head.startswith(b"\x89PNG") and b"\0".join(word.encode() for word in _SOFTWARE) in head


def render_overlay(film: Pixels, mask: NDArray[np.bool_], truth: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
    """Draw a mask over its film, tinted and outlined: ``(H, W, 3)`` uint8, RGB.

    With ground truth: true positives yellow, false negatives red, false positives green, as in Fig. 2 of Bui et al.,
    MICCAI 2024, with the outlines of both masks. The film is ``(H, W)`` float32 in [0, 1] or ``(H, W, 3)``.
    """
    return stacked(_overlay(film, mask, truth), len(mask))


def _overlay(film: Pixels, mask: NDArray[np.bool_], truth: NDArray[np.bool_] | None) -> Iterator[NDArray[np.uint8]]:
    """The rows of `render_overlay`, strip by strip."""
    _two_axes(mask, "mask")
    for name, other in (("pixels", film), ("truth", truth)):
        if other is not None and other.shape[:2] != mask.shape:
            raise ShapeError(f"mask and {name} differ in size", came=other.shape, expected=mask.shape)
    width = max(1, round(max(mask.shape) / _PIXELS_PER_OUTLINE))
    shades = display_range(film)
    for rows in strips(mask.shape):
        canvas = in_colour(stretch(film[rows], shades))
        here, line = mask[rows], _outline(mask, width, rows)
        regions = [(here, FOUND)]
        if truth is not None:
            true, line = truth[rows], line | _outline(truth, width, rows)
            regions = [(here & true, TRUE_POSITIVE), (true & ~here, FALSE_NEGATIVE), (here & ~true, FALSE_POSITIVE)]
        for region, colour in regions:
            canvas[region] = canvas[region] * (1 - _TINT) + np.asarray(colour, np.float32) * _TINT
            canvas[region & line] = colour
        yield np.rint(canvas).astype(np.uint8)


def _outline(mask: NDArray[np.bool_], width: int, rows: slice) -> NDArray[np.bool_]:
    """Some rows of `outline`, which follow from them and the ``width`` above and below."""
    top = max(0, rows.start - width)
    return outline(mask[top : rows.stop + width], width)[rows.start - top : rows.stop - top]


def outline(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """The pixels of a mask that lie within ``width`` pixels of its border or of the picture's."""
    inner = np.pad(mask, width)
    for axis in (0, 1):
        eroded = inner.copy()
        for step in range(1, width + 1):  # rolled-in pixels come from the padding, which is false
            eroded &= np.roll(inner, step, axis) & np.roll(inner, -step, axis)
        inner = eroded
    return mask & ~inner[width:-width, width:-width]


def png(picture: PILImage.Image | NDArray[np.uint8], *, compress_level: int) -> bytes:
    """A picture, grey or RGB, as the bytes of a PNG; level 1 is fast, 9 is small."""
    buffer, chunks = io.BytesIO(), PngInfo()
    chunks.add_text(*_SOFTWARE)
    shown = PILImage.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    shown.save(buffer, format="PNG", compress_level=compress_level, pnginfo=chunks)
    return buffer.getvalue()


def _write_png(path: str | Path, picture: PILImage.Image, *, compress_level: int) -> None:
    chunks = PngInfo()
    chunks.add_text(*_SOFTWARE)
    atomic_write(path, partial(picture.save, format="PNG", compress_level=compress_level, pnginfo=chunks))


def _write_through(path: Path, data: bytes | Callable[[BinaryIO], None]) -> None:
    with path.open("xb") as file:
        if isinstance(data, bytes):
            file.write(data)
        else:
            data(file)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, so that a rename there survives a power loss; `OSError` if it fails."""
    if os.name != "posix":  # elsewhere a folder cannot be opened, and a rename is durable
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno in DISK_ERRORS:  # some network file systems cannot sync a folder, which is no failure
            raise
    finally:
        os.close(handle)


def _explain(error: OSError, path: Path) -> TextRayError:
    reason = error.strerror or type(error).__name__
    if error.errno in DISK_ERRORS:
        do = "Free some space or choose another --out, then run again."
        return DiskError(f"could not write {path}", came=reason, do=do)
    return OutputError(f"cannot write to {path}", came=reason, expected="a writable folder", do="Choose another --out.")


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _two_axes(values: NDArray[np.bool_], name: str) -> None:
    if values.ndim != 2 or values.dtype != np.bool_:
        raise ShapeError(f"{name} is not a mask", came=f"{values.shape} {values.dtype}", expected="(H, W) bool")
