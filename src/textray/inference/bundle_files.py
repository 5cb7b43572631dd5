"""Files of a bundle: read with a limit of size, compared with the hashes in the config, and the config itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal

from textray.errors import BundleError
from textray.inference.bank import BANK
from textray.io.files import regular
from textray.preprocess import Preprocess

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
FORMAT = 1
"""Version of the layout of bundles; one of another is refused."""
Task = Literal["segmentation", "grounding"]
COMMANDS: dict[Task, str] = {"segmentation": "segment", "grounding": "ground"}
"""Command that uses the weights of a task."""
# Largest size of each file in bytes: a bundle is data from elsewhere, and a wrong file must not fill the memory.
LARGEST = {
    CONFIG: 2**20,
    "preprocess.json": 2**16,
    "README.md": 2**22,
    "LICENSE": 2**20,
    BANK: 2**28,
    "model.onnx": 2**31,
    WEIGHTS: 2**32,
    "image.onnx": 2**31,
    "text.onnx": 2**31,
    "vocab.txt": 2**24,
}
_ABOUT = ("preprocess.json", "README.md", "LICENSE")
GROUNDING_FILES = (*_ABOUT, "vocab.txt", "image.onnx", "text.onnx", WEIGHTS)
"""Names of all files of a grounding bundle except the config."""
_AGAIN = "Copy or download the whole bundle again"


def segmenter_files(text_encoder: str | None) -> tuple[str, ...]:
    """Names of all files of a segmenter's bundle except the config; the text bank only if the network reads text."""
    return (*_ABOUT, *(() if text_encoder is None else (BANK,)), "model.onnx", WEIGHTS)


def list_files(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Size and hash of files, as the config lists them."""
    digests = {name: digest(folder, name) for name in names}
    return {name: {"bytes": size, "sha256": sha256} for name, (size, sha256) in digests.items()}


@contextmanager
def _opened(folder: Path, name: str) -> Iterator[tuple[BufferedReader, int]]:
    """One file, not too large, and its size in bytes."""
    try:
        size = regular(folder / name)
    except OSError as error:
        missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
        what = f"bundle {folder.name} lacks {name}" if missing else f"{name} of bundle {folder.name} cannot be read"
        raise BundleError(what, came=error.strerror, do=_AGAIN) from error
    if size > LARGEST[name]:
        what = f"{name} of bundle {folder.name} is too large"
        raise BundleError(what, came=size, expected=f"<= {LARGEST[name]} bytes")
    try:
        with (folder / name).open("rb") as file:
            yield file, size
    except OSError as error:
        raise BundleError(f"{name} of bundle {folder.name} cannot be read", came=error.strerror) from error


def read_file(folder: Path, name: str) -> bytes:
    """Bytes of one file; refused if it is missing, too large or unreadable."""
    with _opened(folder, name) as (file, _):
        return file.read()


def digest(folder: Path, name: str) -> tuple[int, str]:
    """Size in bytes and SHA-256 of one file, which need not fit into memory; refused as by `read_file`."""
    with _opened(folder, name) as (file, size):
        return size, hashlib.file_digest(file, "sha256").hexdigest()


def compare(folder: Path, name: str, listed: Mapping[str, Any], size: int, digest: str) -> None:
    """Refuse a file whose size or hash is not that in the config."""
    if size != listed["bytes"]:
        kind = "cut off" if size < int(listed["bytes"]) else "altered"
        came, expected = f"{size} bytes", f"{listed['bytes']} bytes"
    elif digest != listed["sha256"]:
        kind, came, expected = "altered", f"SHA-256 {digest[:12]}...", f"{str(listed['sha256'])[:12]}..."
    else:
        return
    raise BundleError(f"{name} of bundle {folder.name} is {kind}", came=came, expected=expected, do=_AGAIN)


def check_files(folder: Path, listed: Mapping[str, Any], expected: Sequence[str]) -> None:
    """Refuse a folder whose config lists other files than expected, or one that differs."""
    if set(listed) != set(expected):
        what = f"bundle {folder.name} lists other files"
        raise BundleError(what, came=sorted(listed), expected=", ".join(sorted(expected)))
    for name in expected:
        compare(folder, name, listed[name], *digest(folder, name))


def parse_json(raw: bytes, name: str) -> dict[str, Any]:
    """Read a JSON object; refuse anything else."""
    try:
        values = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{name} is not JSON", came=type(error).__name__, do=_AGAIN) from error
    if not isinstance(values, dict):
        raise BundleError(f"{name} is not a JSON object", came=type(values).__name__)
    return values


def read_config(folder: Path, task: Task) -> dict[str, Any]:
    """Read the config of a bundle; refuse one of another task or format."""
    config = parse_json(read_file(folder, CONFIG), CONFIG)
    other_task = config.get("task", "segmentation")  # configs of segmentation leave it out
    if other_task != task:
        command = next((command for name, command in COMMANDS.items() if name == other_task), None)
        raise BundleError(
            f"the weights of {folder.name} are for another task",
            came=str(other_task)[:40],
            expected=task,
            do=f"Use them with: textray {command}; to score them: textray evaluate --task {other_task}"
            if command
            else f"Name weights for textray {COMMANDS[task]}",
        )
    if config.get("format") != FORMAT:
        raise BundleError(
            f"bundle {folder.name} has another format version",
            came=config.get("format"),
            expected=FORMAT,
            do="Use the TextRay version that wrote it, or export the checkpoint again with: textray export",
        )
    return config


def read_preprocess(folder: Path) -> Preprocess:
    """The preprocessing of a bundle; raises as `read_file` does."""
    return Preprocess.from_dict(parse_json(read_file(folder, "preprocess.json"), "preprocess.json"))


def identity(config: Mapping[str, Any], keys: frozenset[str]) -> str:
    """SHA-256 of what decides a result: these keys of the config, and all files but the card and the licence."""
    files = {name: listed["sha256"] for name, listed in config["files"].items() if name not in {"README.md", "LICENSE"}}
    decides = {"files": files, **{key: config[key] for key in keys}}
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
