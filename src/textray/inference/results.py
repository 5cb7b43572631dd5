"""The files of one result: their names, writing them as one, and removing those of an earlier run."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from textray.errors import DiskError, OutputError, TextRayError
from textray.inference.own_report import caption
from textray.inference.record import SCHEMA, digest
from textray.io import write as disk
from textray.io.dicom_header import is_own_object
from textray.io.files import regular, sha256, stem
from textray.io.nifti import is_own_mask, mask_bytes
from textray.io.page import project
from textray.records import DicomOut, Prediction, VolumePrediction

if sys.platform != "win32":
    import fcntl

SUFFIXES = {
    "mask": ".mask.png",
    "overlay": ".overlay.png",
    "attention": ".report-attention.png",
    "film": ".film.dcm",
    "seg": ".seg.dcm",
    "sr": ".sr.dcm",
    "sc": ".sc.dcm",
    "record": ".json",
}
"""What is appended to a result's name, by kind; the attention only where a network tells where it looked to write its
report, DICOM objects only where they are asked for. The record comes last: where it is, the result is complete."""
VOLUME_MASK = ".mask.nii.gz"
OBJECTS = ("film", "seg", "sr", "sc")
EXPLAINED_SUFFIXES = (".attention.png", ".words.png", ".zones.png")
GROUND_SCHEMA = "textray.ground/1"
GROUND_RECORD = ".ground.json"
GROUND_FILE = re.compile(r"(?P<name>.+)\.\d{1,3}\.ground\.(?:npy|png|mask\.png)")
"""Names of the maps, pictures and masks that `textray ground` writes, by phrase."""

LARGEST_RECORD = 2**22
_RUNNING = re.compile(rb'"status": "running",\s*"process": "(?P<node>[0-9a-f]{8})-(?P<process>\d{1,9})"')
_LONGEST_SILENCE = 3600.0  # seconds between two writings of a summary
_HEAD = re.compile(rb'\{\s*"schema":\s*"([\w./-]+)"')


def paths(
    folder: Path, name: str, *, attention: bool, objects: Iterable[str] = (), volume: bool = False
) -> dict[str, Path]:
    """The files of the result ``name`` in ``folder``, by kind: three, with the attention four, and DICOM objects.

    The mask of a ``volume`` is a NIfTI file.
    """
    left_out = {*OBJECTS, "attention"} - {*objects, *(["attention"] if attention and not volume else [])}
    suffixes = SUFFIXES | ({"mask": VOLUME_MASK} if volume else {})
    return {kind: folder / f"{name}{suffix}" for kind, suffix in suffixes.items() if kind not in left_out}


def read_record(path: Path, schema: str = SCHEMA, *, largest: int = LARGEST_RECORD) -> dict[str, Any] | None:
    """A record of a schema that this tool wrote, ``None`` where there is none, or something else, or a larger file."""
    try:
        regular(path, largest)
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) and values.get("schema") == schema else None


def schema_of(path: Path) -> str:
    """The schema that a JSON file of this tool begins with, damaged or not; nothing for another file."""
    try:
        regular(path)
        with path.open("rb") as file:
            found = _HEAD.match(file.read(256))
    except OSError:
        return ""
    return "" if found is None else found[1].decode()


def remove(folder: Path, name: str) -> None:
    """Remove the files of a result, the record first, so that no rest can pose as a result."""
    for path in (*reversed(paths(folder, name, attention=False).values()), *_additional(folder, name)):
        path.unlink(missing_ok=True)


def write_record(path: Path, values: Mapping[str, Any], places: Mapping[str, Path]) -> None:
    """Write the record of a result whose other files lie beside ``path``.

    ``outputs`` are their names by kind, and ``files`` the SHA-256 of each by its name, under the name of the record
    that of its own other values; `is_whole` compares them.
    """
    names = {kind: place.name for kind, place in places.items()}
    whole = json.loads(disk.json_text({**values, "outputs": names}))
    files = {name: sha256(path.with_name(name)) for name in names.values() if name != path.name}
    disk.write_json(path, {**whole, "files": {**files, path.name: digest(whole)}})


def is_whole(values: Mapping[str, Any], places: Mapping[str, Path]) -> bool:
    """True if a record is as it was written, and so is each file of its result."""
    files, own = values.get("files"), places["record"].name
    rest = {key: value for key, value in values.items() if key != "files"}
    if not isinstance(files, dict) or set(files) != {path.name for path in places.values()}:
        return False
    try:
        return files[own] == digest(rest) and all(
            files[path.name] == sha256(path) for path in places.values() if path.name != own
        )
    except OSError:
        return False


def save(prediction: Prediction | VolumePrediction, folder: Path, dicom: DicomOut | None = None) -> dict[str, Path]:
    """Write a result under the name of the picture's file, or ``array``; behind `Prediction.save`. Gives its files."""
    volume = isinstance(prediction, VolumePrediction)
    film = _film(prediction)
    source, attention = film.image.source, film.look is not None
    objects: dict[str, bytes] = {}
    if dicom is not None:
        from textray.inference import dicom_out

        objects, values = dicom_out.build(prediction, dicom)
        prediction = replace(prediction, record=values)
    disk.check_writable(folder)
    name = stem(source.name) if source is not None else "array"
    places = paths(folder, name, attention=attention, objects=objects, volume=volume)
    write(prediction, places, objects=objects)
    return places


class NameTakenError(Exception):
    """Another run has given the name of a result to another input since it was chosen."""


def _film(prediction: Prediction | VolumePrediction) -> Prediction:
    """The film, or the slice of a volume, that the overlay shows."""
    return prediction.shown if isinstance(prediction, VolumePrediction) else prediction


def write(
    prediction: Prediction | VolumePrediction,
    places: Mapping[str, Path],
    claim: Callable[[], None] = lambda: None,
    *,
    objects: Mapping[str, bytes] | None = None,
) -> None:
    """Write mask, overlay, DICOM ``objects`` and record into a folder that is there, all of them or none.

    They are written beside their places first and then renamed, so a full disk leaves an earlier result as it was;
    ``claim`` is the last to object, see `write_together`.
    """
    film = _film(prediction)
    look, pixels, lines = film.look, film.image.film, caption(film.record)
    writers: dict[str, Callable[[Path], None]] = {
        "mask": lambda path: disk.write_mask(path, film.mask),
        "overlay": lambda path: disk.write_overlay(path, pixels, film.mask, caption=lines),
        "record": lambda path: write_record(path, prediction.record, places),
    }
    if isinstance(prediction, VolumePrediction):
        volume, mask = prediction.volume, prediction.mask
        writers["mask"] = lambda path: disk.atomic_write(path, mask_bytes(volume, mask))
        number = film.image.info["slice"] + 1
        lines = [f"Slice {number} of {len(mask)}, counted and seen from the feet.", *lines]
    elif look is not None:
        writers["attention"] = lambda path: disk.write_picture(path, project(pixels, look()))
    for kind, data in (objects or {}).items():
        writers[kind] = partial(disk.atomic_write, data=data)
    # What only an earlier run with other weights or options wrote goes.
    write_together(places, writers, lambda: _additional(places["record"].parent, places["record"].stem), claim)


def _additional(folder: Path, name: str) -> list[Path]:
    """What an earlier run wrote beside what every result has, but nothing that a user gave these names."""
    found = (folder / f"{name}{end}" for end in (VOLUME_MASK, *map(SUFFIXES.get, ("mask", "attention", *OBJECTS))))
    return [path for path in found if is_own(path)]


def is_own(path: Path) -> bool:
    """True for a picture, a DICOM object or a mask of a volume that this tool wrote, whatever its name."""
    known = {".dcm": is_own_object, ".gz": is_own_mask}
    return known.get(path.suffix, disk.is_own_picture)(path)


def write_together(
    final: Mapping[str, Path],
    writers: Mapping[str, Callable[[Path], None]],
    earlier: Callable[[], Iterable[Path]] = tuple,
    claim: Callable[[], None] = lambda: None,
) -> None:
    """Write files of one folder that is there, all of them or none, in the order of ``final``.

    The last makes the result complete; an earlier one of its name goes first, and then the other files of an
    ``earlier`` result. While files change names, no other process does so in the folder; ``claim`` is called then, and
    what it raises leaves everything as it was.

    Raises:
        OutputError: If the folder cannot be written to.
        DiskError: If the disk is full.
    """
    places = list(final.values())
    folder = places[0].parent
    stage = disk.temporary(folder, "stage")
    try:
        try:
            stage.mkdir(mode=0o700)
            for kind, path in final.items():
                writers[kind](stage / path.name)
            with alone(folder):
                claim()
                left = [path for path in earlier() if path not in places]
                for path in (places[-1], *left):
                    path.unlink(missing_ok=True)
                for path in places:
                    (stage / path.name).replace(path)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    except OSError as error:
        raise write_failure(folder, error) from error
    except BaseException:  # an interrupt may have stopped the removal, too
        clean(folder)
        raise


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other processes from changing names of results in a folder that is there.

    A file system without locks lets them; then `is_whole` finds what they mixed.
    """
    if sys.platform == "win32":
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def write_failure(folder: Path, error: OSError) -> TextRayError:
    """The error to raise where writing into a folder failed."""
    if error.errno in disk.DISK_ERRORS:
        do = "Free some space and run the same command again"
        return DiskError("the disk is full or failed", came=error.strerror, do=do)
    return OutputError(f"{folder} cannot be written to", came=error.strerror, do="Name another folder with --out")


def at_work(summary: Path) -> bool:
    """True for the summary of a run whose process is alive; one of another machine counts for an hour."""
    try:
        regular(summary)
        with summary.open("rb") as file:
            running = _RUNNING.search(file.read(512))
        if running is None:
            return False
        if os.name != "posix" or running["node"].decode() != disk.node():
            return time.time() - summary.stat().st_mtime < _LONGEST_SILENCE
    except OSError:
        return False
    process = int(running["process"])
    return process != os.getpid() and _alive(process)


def clean(folder: Path) -> None:
    """Remove what killed runs on this machine, or interrupts in this thread, left half-written in ``folder``."""
    own = [str(os.getpid()), str(threading.get_ident())]
    for left in folder.glob(f".textray-*-{disk.node()}-*"):
        worker = left.name.split(f"-{disk.node()}-", 1)[1].split("-")[:2]
        if not worker[0].isdecimal() or (worker != own and _alive(int(worker[0]))):
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
