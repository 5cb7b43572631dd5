"""The files of one result: their names, writing them as one, and removing those of an earlier run."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from textray.errors import DiskError, OutputError, TextRayError
from textray.inference.own_report import caption
from textray.inference.record import SCHEMA
from textray.io import write as disk
from textray.io.files import stem
from textray.io.page import project
from textray.records import Prediction

SUFFIXES = {
    "mask": ".mask.png",
    "overlay": ".overlay.png",
    "attention": ".report-attention.png",
    "record": ".json",
}
"""What is appended to a result's name, by kind; the attention only where a network tells where it looked to write its
report. The record comes last: where it is, the result is complete."""
EXPLAINED_SUFFIXES = (".attention.png", ".words.png", ".zones.png")
GROUND_SCHEMA = "textray.ground/1"
GROUND_RECORD = ".ground.json"
GROUND_FILE = re.compile(r"(?P<name>.+)\.\d{1,3}\.ground\.(?:npy|png|mask\.png)")
"""Names of the maps, pictures and masks that `textray ground` writes, by phrase."""

LARGEST_RECORD = 2**22


def paths(folder: Path, name: str, *, attention: bool) -> dict[str, Path]:
    """The files of the result ``name`` in ``folder``, by kind: three, or with the attention four."""
    kinds = (kind for kind in SUFFIXES if attention or kind != "attention")
    return {kind: folder / f"{name}{SUFFIXES[kind]}" for kind in kinds}


def read_record(path: Path, schema: str = SCHEMA, *, largest: int = LARGEST_RECORD) -> dict[str, Any] | None:
    """A record of a schema that this tool wrote, ``None`` where there is none, or something else, or a larger file."""
    try:
        if path.stat().st_size > largest:
            return None
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) and values.get("schema") == schema else None


def remove(folder: Path, name: str) -> None:
    """Remove the files of a result, the record first, so that no rest can pose as a result."""
    for path in reversed(paths(folder, name, attention=False).values()):
        path.unlink(missing_ok=True)
    _remove_attention(folder, name)


def save(prediction: Prediction, folder: Path) -> dict[str, Path]:
    """Write a result under the name of the picture's file, or ``array``; behind `Prediction.save`. Gives its files."""
    source = prediction.image.source
    disk.check_writable(folder)
    name = stem(source.name) if source is not None else "array"
    places = paths(folder, name, attention=prediction.attention is not None)
    write(prediction, places)
    return places


def write(prediction: Prediction, places: Mapping[str, Path]) -> None:
    """Write mask, overlay and record into a folder that is there, all of them or none.

    They are written beside their places first and then renamed, so a full disk leaves an earlier result as it was.
    """
    attention, pixels = prediction.attention, prediction.image.pixels
    outputs = {kind: path.name for kind, path in places.items()}
    lines = caption(prediction.record)
    writers: dict[str, Callable[[Path], None]] = {
        "mask": lambda path: disk.write_mask(path, prediction.mask),
        "overlay": lambda path: disk.write_overlay(path, pixels, prediction.mask, caption=lines),
        "record": lambda path: disk.write_json(path, {**prediction.record, "outputs": outputs}),
    }
    if attention is None:  # of an earlier run with other weights
        _remove_attention(places["record"].parent, places["record"].stem)
    else:
        writers["attention"] = lambda path: disk.write_picture(path, project(pixels, attention))
    write_together(places, writers)


def _remove_attention(folder: Path, name: str) -> None:
    """Remove an earlier run's picture of the attention, but none that a user gave this name."""
    path = folder / f"{name}{SUFFIXES['attention']}"
    if disk.is_own_picture(path):
        path.unlink(missing_ok=True)


def write_together(final: Mapping[str, Path], writers: Mapping[str, Callable[[Path], None]]) -> None:
    """Write files of one folder that is there, all of them or none, in the order of ``final``.

    The last makes the result complete; an earlier one of its name goes first.

    Raises:
        OutputError: If the folder cannot be written to.
        DiskError: If the disk is full.
    """
    places = list(final.values())
    folder = places[0].parent
    try:
        stage = Path(tempfile.mkdtemp(prefix=f".textray-stage-{disk.node()}-{os.getpid()}-", dir=folder))
        try:
            for kind, path in final.items():
                writers[kind](stage / path.name)
            places[-1].unlink(missing_ok=True)
            for path in places:
                (stage / path.name).replace(path)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    except OSError as error:
        raise write_failure(folder, error) from error


def write_failure(folder: Path, error: OSError) -> TextRayError:
    """The error to raise where writing into a folder failed."""
    if error.errno in disk.DISK_ERRORS:
        do = "Free some space and run the same command again"
        return DiskError("the disk is full or failed", came=error.strerror, do=do)
    return OutputError(f"{folder} cannot be written to", came=error.strerror, do="Name another folder with --out")


def clean(folder: Path) -> None:
    """Remove what killed runs on this machine left half-written in ``folder``."""
    for left in folder.glob(f".textray-*-{disk.node()}-*"):
        process = left.name.split(f"-{disk.node()}-", 1)[1].split("-")[0]
        if not process.isdecimal() or _alive(int(process)):
            continue
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    if os.name != "posix":  # elsewhere signal 0 is not a question
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it runs as somebody else
        return True
    return True
