"""One run at a time in a folder. The system lets go of the lock when its process ends, however it ends."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

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
    with (folder / NAME).open("a+b") as file:
        try:
            _take(file)
        except OSError as error:
            raise UsageError(
                "another run is at work in the results' folder",
                came=folder,
                do="Wait for it, or name another folder with --out",
            ) from error
        yield


def _take(file: IO[bytes]) -> None:
    if sys.platform == "win32":
        import msvcrt

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
