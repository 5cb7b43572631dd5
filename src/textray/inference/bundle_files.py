"""Files of a bundle: read with a limit, hashed, and compared with what the config announces."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from textray.errors import BundleError
from textray.inference.text_bank import BANK

CONFIG = "config.json"

# Largest size of each file in bytes: a bundle is data from elsewhere, and a wrong file must not fill the memory.
LARGEST = {
    CONFIG: 2**20,
    "preprocess.json": 2**16,
    "README.md": 2**22,
    "LICENSE": 2**20,
    BANK: 2**28,
    "model.onnx": 2**31,
    "model.safetensors": 2**32,
}
_AGAIN = "Copy or download the whole bundle again"


def expected_files(text_encoder: str | None) -> tuple[str, ...]:
    """Names of all files but the config; the text bank only where the network reads text."""
    return tuple(name for name in LARGEST if name != CONFIG and (name != BANK or text_encoder is not None))


def _size(folder: Path, name: str) -> int:
    try:
        size = (folder / name).stat().st_size
    except OSError as error:
        raise BundleError(f"bundle {folder.name} lacks {name}", came=error.strerror, do=_AGAIN) from error
    if size > LARGEST[name]:
        raise BundleError(
            f"{name} of bundle {folder.name} is too large", came=size, expected=f"<= {LARGEST[name]} bytes"
        )
    return size


def read_file(folder: Path, name: str) -> bytes:
    """Bytes of one file.

    Raises:
        BundleError: If it is missing, too large or unreadable.
    """
    _size(folder, name)
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise BundleError(f"{name} of bundle {folder.name} cannot be read", came=error.strerror) from error


def digest(folder: Path, name: str) -> tuple[int, str]:
    """Size in bytes and SHA-256 of one file, which need not fit into memory; raises as `read_file` does."""
    size = _size(folder, name)
    try:
        with (folder / name).open("rb") as file:
            return size, hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"{name} of bundle {folder.name} cannot be read", came=error.strerror) from error


def compare(folder: Path, name: str, entry: Mapping[str, Any], size: int, digest: str) -> None:
    """Compare a file's size and hash with its entry in the config.

    Raises:
        BundleError: If one differs.
    """
    if size != entry["bytes"]:
        kind = "cut off" if size < int(entry["bytes"]) else "altered"
        came, expected = f"{size} bytes", f"{entry['bytes']} bytes"
    elif digest != entry["sha256"]:
        kind, came, expected = "altered", f"SHA-256 {digest[:12]}...", f"{str(entry['sha256'])[:12]}..."
    else:
        return
    raise BundleError(
        f"{name} of bundle {folder.name} is {kind}",
        came=came,
        expected=expected,
        do=_AGAIN,
    )


def parse_json(raw: bytes, name: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        BundleError: If it is something else.
    """
    try:
        values = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{name} is not JSON", came=type(error).__name__, do=_AGAIN) from error
    if not isinstance(values, dict):
        raise BundleError(f"{name} is not a JSON object", came=type(values).__name__)
    return values
