"""The files of one result: their names, writing them as one, and removing those of an earlier run."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from textray.errors import DiskError, OutputError, TextRayError
from textray.inference.own_report import caption
from textray.inference.record import SCHEMA
from textray.io.files import stem
from textray.io.page import project
from textray.io.write import check_writable, is_own_picture, node, write_json, write_mask, write_overlay, write_picture
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

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
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
    places = paths(folder, name, attention=False)
    places["record"].unlink(missing_ok=True)
    for path in places.values():
        path.unlink(missing_ok=True)
    _remove_attention(folder, name)


def save(prediction: Prediction, folder: Path) -> dict[str, Path]:
    """Write a result under the name of the picture's file, or ``array``; behind `Prediction.save`. Gives its files.

    Raises:
        OutputError: If the folder cannot be written to.
        DiskError: If the disk is full.
    """
    source = prediction.image.source
    check_writable(folder)
    name = stem(source.name) if source is not None else "array"
    places = paths(folder, name, attention=prediction.attention is not None)
    write(prediction, places)
    return places


def write(prediction: Prediction, places: Mapping[str, Path]) -> None:
    """Write mask, overlay and record into a folder that is there, all of them or none; raises as `save` does.

    They are written beside their places first and then renamed, so a full disk leaves an earlier result as it was.
    """
    attention, pixels = prediction.attention, prediction.image.pixels
    outputs = {kind: path.name for kind, path in places.items()}
    lines = caption(prediction.record)
    writers: dict[str, Callable[[Path], None]] = {
        "mask": lambda path: write_mask(path, prediction.mask),
        "overlay": lambda path: write_overlay(path, pixels, prediction.mask, caption=lines),
        "record": lambda path: write_json(path, {**prediction.record, "outputs": outputs}),
    }
    if attention is None:  # of an earlier run with other weights
        _remove_attention(places["record"].parent, places["record"].stem)
    else:
        writers["attention"] = lambda path: write_picture(path, project(pixels, attention))
    write_together(places, writers)


def _remove_attention(folder: Path, name: str) -> None:
    """Remove an earlier run's picture of the attention, but none that a user gave this name."""
    path = folder / f"{name}{SUFFIXES['attention']}"
    if is_own_picture(path):
        path.unlink(missing_ok=True)


def write_together(final: Mapping[str, Path], writers: Mapping[str, Callable[[Path], None]]) -> None:
    """Write files of one folder that is there, all of them or none, in the order of ``final``; raises as `save` does.

    The last makes the result complete; an earlier one of its name goes first.
    """
    places = list(final.values())
    with _staged(places[0].parent) as stage:
        for kind, path in final.items():
            writers[kind](stage / path.name)
        places[-1].unlink(missing_ok=True)
        for path in places:
            (stage / path.name).replace(path)


def write_summary(path: Path, values: object) -> None:
    """Write a JSON file in the same way, so that `clean` finds whatever a killed run leaves."""
    with _staged(path.parent) as stage:
        write_json(stage / path.name, values)
        (stage / path.name).replace(path)


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    try:
        stage = Path(tempfile.mkdtemp(prefix=f".textray-stage-{node()}-{os.getpid()}-", dir=folder))
        try:
            yield stage
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    except OSError as error:
        raise write_failure(folder, error) from error


def write_failure(folder: Path, error: OSError) -> TextRayError:
    """The error to raise where writing into a folder failed."""
    if error.errno in _FULL:
        do = "Free some space and run the same command again"
        return DiskError("the disk is full or failed", came=error.strerror, do=do)
    return OutputError(f"{folder} cannot be written to", came=error.strerror, do="Name another folder with --out")


def clean(folder: Path) -> None:
    """Remove what killed runs on this machine left half-written in ``folder``."""
    for left in folder.glob(f".textray-*-{node()}-*"):
        process = left.name.split(f"-{node()}-", 1)[1].split("-")[0]
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
