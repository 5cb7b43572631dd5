"""Files below a folder with reasons for those left out, and file names that any file system accepts."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from textray.io.write import is_own_picture

IMAGE_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".dcm", ".dicom", ".dic", ".tif", ".tiff", ".bmp", ".jp2", ".j2k",
    ".gif", ".webp", ".nii",
)  # fmt: skip
"""Ends of names of pictures; names of results go without them."""

_LONGEST = 200  # bytes of a name: 255 is what file systems take, less the longest suffix, a clash mark and a stage name
_FORBIDDEN = set('<>:"/\\|?*')


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A path below a folder that was left out, and why."""

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
    """Regular files at any depth, sorted; hidden files are left out, and each folder is entered once, by a link too.

    ``left_out`` receives paths that cannot be read, are no regular file, lead in a circle, or by ``is_own`` are results
    of TextRay. The folder ``skip`` is not entered.
    """
    entered: set[tuple[int, int]] = set()
    open_folders: list[tuple[tuple[int, int], Iterator[Path]]] = []

    def enter(folder: Path) -> None:
        try:
            place = _place(folder)
            if place not in entered:
                names = sorted(path.name for path in folder.iterdir())
                entered.add(place)
                open_folders.append((place, (folder / name for name in names)))
            elif any(place == above for above, _ in open_folders):
                reason = "the link leads back to a folder above"
                left_out.append(LeftOut(path=folder, code="W_LINK_LOOP", reason=reason))
        except OSError as error:
            left_out.append(_unreadable(folder, error))

    if skip is not None and skip.exists():
        entered.add(_place(skip))
    enter(folder)
    while open_folders:  # no recursion, for folders as deep as a file system has them
        path = next(open_folders[-1][1], None)
        if path is None:
            open_folders.pop()
        elif path.name.startswith("."):
            continue
        elif os.path.isdir(path):  # noqa: PTH112 -- False where it cannot be read, for which `unfit` gives the reason
            enter(path)
        elif (fault := unfit(path, is_own)) is None:
            yield path
        else:
            left_out.append(fault)


def _place(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def regular(path: Path, largest: int | None = None) -> int:
    """Size in bytes of a regular file, found before it is opened: a pipe would block, and a device never end.

    Raises:
        OSError: If it is not there, no regular file, or larger than ``largest`` bytes.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    if largest is not None and status.st_size > largest:
        raise OSError(errno.EFBIG, f"{status.st_size} bytes, more than {largest}")
    return status.st_size


def sha256(path: Path) -> str:
    """SHA-256 of a regular file; `OSError` as of `regular`."""
    regular(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def joint_sha256(hashes: Iterable[str]) -> str:
    """One hash of several files, whatever their order; of one file its own."""
    first, *others = sorted(hashes)
    return hashlib.sha256("".join([first, *others]).encode()).hexdigest() if others else first


def _unreadable(path: Path, error: OSError) -> LeftOut:
    return LeftOut(path=path, code="W_UNREADABLE", reason=error.strerror or type(error).__name__)


def unfit(path: Path, is_own: Callable[[Path], bool] = is_own_picture) -> LeftOut | None:
    """Reason to leave out a file, ``None`` for none."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return _unreadable(path, error)
    if not stat.S_ISREG(mode):
        return LeftOut(path=path, code="W_NOT_IMAGE", reason="not a regular file")
    if is_own(path):
        return LeftOut(path=path, code="W_OWN_RESULT", reason="a result of this tool")
    return None


def stem(name: str) -> str:
    """Name of a result for a file name: without image suffix, valid on any file system and printable.

    A changed name gets a mark of eight hexadecimal digits, so that two odd names stay distinct.
    """
    name = name[:-3] if name.lower().endswith(".nii.gz") else name
    end = Path(name).suffix
    base = name.removesuffix(end) if end.lower() in IMAGE_SUFFIXES else name
    safe = "".join("_" if c in _FORBIDDEN or not c.isprintable() or 0xD800 <= ord(c) < 0xE000 else c for c in base)
    safe = safe.strip(" .") or "_"
    safe = "_" + safe[1:] if safe.startswith("-") else safe
    short = safe.encode()[:_LONGEST].decode("utf-8", "ignore")
    return base if short == base else f"{short}-{mark(name)}"


def mark(path: str | Path) -> str:
    """Eight hexadecimal digits that distinguish paths."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:8]


def plain_text(text: str) -> str:
    """A text as valid Unicode; lone surrogates (from odd file names and clipboards) are escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def plain_path(path: str | Path) -> str:
    """A path as valid Unicode."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
