"""Inputs of a run: files, folders and patterns as a sorted list, and what is left out and why."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from importlib.metadata import PackageNotFoundError, distribution
from itertools import takewhile
from pathlib import Path

from textray.errors import OutputError, UsageError
from textray.inference import results
from textray.io.ct_series import series_of
from textray.io.files import LeftOut, mark, stem, unfit, walk
from textray.io.nifti import is_nifti_file
from textray.io.write import is_own_picture

RUN_FILE = "run.json"
DEMO_PACKAGE = "pydicom-data"
DEMO_FILM = "RG1_UNCR.dcm"
_MAGIC = set("*?[")


@dataclass(frozen=True, kw_only=True)
class Item:
    """One file or CT to work on, by the path that the user's words lead to, and the ``name`` of its results."""

    path: Path
    folder: Path  # of its results, relative to the output folder; mirrors the source tree
    name: str
    named: bool  # the user named the very file, no folder or pattern that led to it
    volume: tuple[Path, ...] = ()  # files of a CT: a NIfTI file, or the slices of a series, whose folder is the path

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of the item."""
        return self.volume or (self.path,)


def collect(inputs: Sequence[str | Path], out: Path) -> tuple[list[Item], list[LeftOut]]:
    """List the files that inputs stand for, each once, and give each a name of its own for its results.

    Folders are searched at any depth in sorted order, each once; hidden files, the output folder and this tool's own
    pictures are left out, links are followed unless they lead in a circle. Two files with the same result name in one
    folder part by a mark of eight hexadecimal digits, whatever their letters' case.

    Inputs are files, folders, or patterns with ``*``, ``?``, ``[...]`` and ``**``.

    Raises:
        UsageError: If an input does not exist or holds no file.
        OutputError: If results in ``out`` would overwrite an input.
    """
    if not inputs or not all(os.fspath(given) for given in inputs):  # "" would be the folder one stands in
        raise UsageError("no input was given", expected="files, folders or patterns")
    out_place = out.resolve()
    items: list[Item] = []
    left_out: list[LeftOut] = []
    seen: set[str] = set()
    taken: set[str] = set()
    for given in inputs:
        count = len(items) + len(left_out)
        for path, base, named in _expand(Path(given), out_place, left_out):
            place = os.path.realpath(path)
            if place in seen:
                count = -1  # a second mention is no mistake
                continue
            seen.add(place)
            folder = path.parent.relative_to(base)
            folder = Path() if ".." in folder.parts else folder
            name = stem(path.name)
            if str(folder / name).casefold() in taken or (folder == Path() and name.casefold() == Path(RUN_FILE).stem):
                name = f"{name}-{mark(path)}"
            taken.add(str(folder / name).casefold())
            items.append(Item(path=path, folder=folder, name=name, named=named))
        if count == len(items) + len(left_out):
            raise UsageError(f"no files in {given}", expected="a folder or a pattern that holds images")
    written = {str(out_place / RUN_FILE)}
    for item in items:
        written.update(map(str, results.paths(out_place / item.folder, item.name, attention=True).values()))
    if hit := sorted(seen & written):
        raise OutputError("the results would overwrite an input", came=hit[0], do="Name another folder with --out")
    return items, left_out


def with_volumes(items: Sequence[Item]) -> tuple[list[tuple[tuple[int, ...], Item]], list[LeftOut]]:
    """The items with the CT slices of each series as one, after the numbers of its files; and localizers.

    A series is what lies in one folder under one series UID, in the same directions.
    """
    joined: list[tuple[tuple[int, ...], Item]] = []
    localizers: list[LeftOut] = []
    found: dict[tuple[Path, tuple[str, ...]], list[int]] = {}
    for number, item in enumerate(items):
        nifti = is_nifti_file(item.path)
        series = None if nifti else series_of(item.path)
        if series is None:
            joined.append(((number,), replace(item, volume=(item.path,)) if nifti else item))
        elif series == ("LOCALIZER",):
            reason = "an overview (LOCALIZER) of a CT, no slice of it"
            localizers.append(LeftOut(path=item.path, code="W_LOCALIZER", reason=reason))
        else:
            found.setdefault((item.path.parent, series), []).append(number)
    taken = {str(item.folder / item.name).casefold() for _, item in joined}
    for numbers in found.values():
        first, paths = items[numbers[0]], tuple(items[number].path for number in numbers)
        path, name = (first.path.parent, "") if len(paths) > 1 else (first.path, first.name)
        name = name or stem(path.resolve().name) or "series"
        if str(first.folder / name).casefold() in taken:
            name = f"{name}-{mark(first.path)}"
        taken.add(str(first.folder / name).casefold())
        joined.append((tuple(numbers), replace(first, path=path, name=name, volume=paths)))
    return joined, localizers


def _expand(given: Path, out: Path, left_out: list[LeftOut]) -> Iterator[tuple[Path, Path, bool]]:
    """Paths of one input with the folder that their results' places are relative to."""
    if given.is_dir():
        if given.resolve() == out:
            raise OutputError("the output folder is an input itself", came=str(given), do="Name another one with --out")
        yield from ((path, given, False) for path in walk(given, left_out, skip=out, is_own=_is_own))
    elif os.path.lexists(given):
        yield given, given.parent, True
    elif _MAGIC & set(str(given)):
        base = Path(*takewhile(lambda part: not _MAGIC & set(part), given.parts[:-1]))
        if (
            "**" in given.parts
        ):  # `glob` calls itself for each folder, and enters those that link to each other for ever
            pattern, others = given.parts[len(base.parts) :], list[LeftOut]()
            fits = [path for path in walk(base, others, skip=out, is_own=_is_own) if _fits(path, base, pattern)]
            left_out += [one for one in others if _fits(one.path, base, pattern)]
            yield from ((path, base, False) for path in sorted(fits))
            return
        for match in sorted(glob.glob(str(given))):  # noqa: PTH207 -- takes absolute patterns as well
            path = Path(match)
            if path.is_dir():
                yield from ((inner, base, False) for inner in walk(path, left_out, skip=out, is_own=_is_own))
            elif not path.resolve().is_relative_to(out):
                if (reason := unfit(path, _is_own)) is None:
                    yield path, base, False
                else:
                    left_out.append(reason)
    else:
        raise UsageError(f"{given} does not exist", expected="a file, a folder or a pattern")


def _fits(path: Path, base: Path, pattern: Sequence[str]) -> bool:
    """True for a path below ``base`` that the parts of a pattern describe; ``**`` is any number of folders."""

    def fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
        if not pattern:
            return not parts
        if pattern[0] == "**":
            return any(fits(parts[first:], pattern[1:]) for first in range(len(parts) + 1))
        return bool(parts) and fnmatch(parts[0], pattern[0]) and fits(parts[1:], pattern[1:])

    return fits(path.relative_to(base).parts, pattern)


def _is_own(path: Path) -> bool:
    """True for a mask, an overlay, a map, an explanation or a DICOM object of this tool, and for its record."""
    ground = results.GROUND_FILE.fullmatch(path.name)
    if ground or path.name.endswith(results.GROUND_RECORD):
        place = path.with_name(ground["name"] + results.GROUND_RECORD) if ground else path
        return results.read_record(place, results.GROUND_SCHEMA) is not None or is_own_picture(path)
    if path.name.endswith(results.EXPLAINED_SUFFIXES):
        return is_own_picture(path)
    for suffix in (results.VOLUME_MASK, *results.SUFFIXES.values()):
        if path.name.endswith(suffix):
            record = path.with_name(path.name.removesuffix(suffix) + results.SUFFIXES["record"])
            return results.read_record(record) is not None or results.is_own(path)
    return False


def demo_film() -> Path | None:
    """Find the real chest film that the package `DEMO_PACKAGE` brings, ``None`` if it is not installed."""
    try:
        package = distribution(DEMO_PACKAGE)
    except PackageNotFoundError:
        return None
    paths = (Path(str(file.locate())) for file in package.files or () if file.name == DEMO_FILM)
    return next((path for path in paths if path.is_file()), None)
