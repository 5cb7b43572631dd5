"""Files below a folder, in order, what was left out and why, and names that any file system takes."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from textray.io.write import is_own_picture


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A path below a folder that was not looked at, and the reason."""

    path: Path
    code: str
    reason: str


def walk(
    folder: Path,
    left_out: list[LeftOut],
    *,
    skip: Path | None = None,
    is_own: Callable[[Path], bool] = is_own_picture,
) -> Iterator[Path]:
    """Regular files at any depth, sorted; links are followed unless they lead in a circle, hidden ones left out.

    Args:
        folder: Where to begin.
        left_out: What cannot be read, is no regular file or is a result of this tool is added.
        skip: A folder that is not entered, resolved.
        is_own: Tells results of this tool.
    """
    return _walk(folder, left_out, skip, is_own, frozenset())


def _walk(
    folder: Path,
    left_out: list[LeftOut],
    skip: Path | None,
    is_own: Callable[[Path], bool],
    above: frozenset[tuple[int, int]],
) -> Iterator[Path]:
    try:
        status = folder.stat()
        place = (status.st_dev, status.st_ino)
        if place in above:
            left_out.append(LeftOut(path=folder, code="W_LINK_LOOP", reason="the link leads back to a folder above"))
            return
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        left_out.append(LeftOut(path=folder, code="W_UNREADABLE", reason=error.strerror or type(error).__name__))
        return
    for name in names:
        path = folder / name
        if name.startswith("."):
            continue
        try:
            is_folder = stat.S_ISDIR(path.stat().st_mode)
        except OSError:
            is_folder = False  # `unfit` says why
        if is_folder:
            if skip is None or path.resolve() != skip:
                yield from _walk(path, left_out, skip, is_own, above | {place})
            continue
        reason = unfit(path, is_own)
        if reason is None:
            yield path
        else:
            left_out.append(reason)


def unfit(path: Path, is_own: Callable[[Path], bool] = is_own_picture) -> LeftOut | None:
    """Why a file is not to be looked at, ``None`` where it is."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return LeftOut(path=path, code="W_UNREADABLE", reason=error.strerror or type(error).__name__)
    if not stat.S_ISREG(mode):
        return LeftOut(path=path, code="W_NOT_IMAGE", reason="not a regular file")
    if is_own(path):
        return LeftOut(path=path, code="W_OWN_RESULT", reason="a result of this tool")
    return None


# Names of files: pictures by their suffix, names that any file system takes, and paths as valid Unicode.

IMAGE_SUFFIXES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".dcm",
    ".dicom",
    ".dic",
    ".tif",
    ".tiff",
    ".bmp",
    ".gif",
    ".webp",
)
"""Ends of names that claim to be a picture; they are cut off for the result's name."""

_LONGEST = 200  # bytes of a name: 255 is what file systems take, less the longest suffix, a clash mark and a stage name
_FORBIDDEN = set('<>:"/\\|?*')


def stem(name: str) -> str:
    """Name of a result for a file name: no image suffix, nothing that a file system or a terminal stumbles over.

    A name that had to be changed gets a mark of eight hexadecimal digits, so that two odd names stay two.
    """
    end = Path(name).suffix
    base = name.removesuffix(end) if end.lower() in IMAGE_SUFFIXES else name
    safe = "".join("_" if c in _FORBIDDEN or not c.isprintable() or 0xD800 <= ord(c) < 0xE000 else c for c in base)
    safe = safe.strip(" .") or "_"
    safe = "_" + safe[1:] if safe.startswith("-") else safe
    short = safe.encode()[:_LONGEST].decode("utf-8", "ignore")
    return base if short == base else f"{short}-{mark(name)}"


def mark(path: str | Path) -> str:
    """Eight hexadecimal digits that tell two paths apart."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:8]


def plain_text(text: str) -> str:
    """The same text where it is valid Unicode; lone surrogates (from odd file names and clipboards) are escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def plain_path(path: str | Path) -> str:
    """A path as given, as valid Unicode."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
