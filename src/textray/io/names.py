"""Names of files: pictures by their suffix, names that any file system takes, and paths as valid Unicode."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

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
