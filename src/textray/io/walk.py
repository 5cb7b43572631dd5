"""Files below a folder, in order, and what was left out and why."""

from __future__ import annotations

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
