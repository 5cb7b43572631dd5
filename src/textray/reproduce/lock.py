"""One run at a time in a folder. The system lets go of the lock when its process ends, however it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from textray.errors import UsageError
from textray.io.write import check_writable

NAME = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder, which is made if needed.

    Raises:
        UsageError: If another process holds it.
        OutputError: If it cannot be written to.
    """
    check_writable(folder)
    try:
        with FileLock(folder / NAME, blocking=False):
            yield
    except Timeout as error:
        raise UsageError(
            "another run is at work in the results' folder",
            came=folder,
            do="Wait for it, or name another folder with --out",
        ) from error
