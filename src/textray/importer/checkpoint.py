"""A published checkpoint, read by a child process; here only its safetensors and its JSON are looked at."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textray.errors import DiskError, InputError, UsageError
from textray.importer.child import MOST_SECONDS, TENSORS, TOLD

LARGEST = 2**34
"""Bytes that a checkpoint may have."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """What was read of a checkpoint.

    Attributes:
        name: The file's, on one line and valid Unicode whatever the file is called.
        tensors: Safetensors file with the tensors of its ``state_dict``, by their published names.
        skipped: Names of classes and functions in it that were neither imported nor run.
        other: Entries of its ``state_dict`` that are no tensors.
        facts: Epoch, step and Lightning's version, where it says them.
        sha256: Of the file.
        nbytes: Of the file.
    """

    name: str
    tensors: Path
    skipped: tuple[str, ...]
    other: tuple[str, ...]
    facts: dict[str, Any]
    sha256: str
    nbytes: int


def read_published(path: str | Path, folder: Path, *, seconds: float = MOST_SECONDS) -> Published:
    """Read a checkpoint without running anything in it.

    Args:
        path: A file that torch.save of torch 1.6 (2020) or newer wrote.
        folder: An empty folder for what the child writes.
        seconds: Time after which the child is ended.

    Raises:
        UsageError: If there is no such file, or it cannot be read.
        InputError: If it is no checkpoint, or refused for what it does or claims.
        DiskError: If the disk fails or is full.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError("no such checkpoint", came=path, expected="a checkpoint file as its authors published it")
    try:
        path.open("rb").close()
    except OSError as error:
        raise UsageError(f"{path.name} cannot be read", came=error.strerror) from error
    if path.stat().st_size > LARGEST:
        raise InputError(
            "the checkpoint is too large", came=path.stat().st_size, expected=f"<= {LARGEST} bytes", code="E_SIZE"
        )
    try:
        # -P: a file in the present folder must not stand in for a module
        done = subprocess.run(
            [sys.executable, "-P", "-m", "textray.importer.child", os.path.abspath(path), os.path.abspath(folder)],  # noqa: PTH100 -- links keep their names
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=seconds,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(
            f"{path.name} could not be read in time", came=f"{seconds:.0f} s", expected="seconds", code="E_SIZE"
        ) from error
    told = _told(folder / TOLD, path.name, done.returncode)
    if "refused" in told and told["refused"]["code"] == "E_DISK":
        raise DiskError(
            f"{path.name} could not be read to the end, or its tensors not written", came=told["refused"]["came"]
        )
    if "refused" in told:
        raise InputError(
            f"{path.name}: {told['refused']['what']}",
            came=told["refused"]["came"],
            expected="a checkpoint as its authors published it",
            do=told["refused"]["do"],
            code=told["refused"]["code"],
        )
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Published(
        name="".join(c if c.isprintable() else "?" for c in path.name),
        tensors=folder / TENSORS,
        skipped=tuple(told["skipped"]),
        other=tuple(told["other"]),
        facts=dict(told["facts"]),
        sha256=sha256,
        nbytes=path.stat().st_size,
    )


def _told(path: Path, name: str, code: int) -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {"skipped": [], "other": [], "facts": {}} | told
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"the process that reads {name} ended without an answer",
            came=f"exit code {code}",
            expected="a checkpoint as its authors published it",
            do="Download it again; if it comes from elsewhere, do not use it",
        ) from error
