"""Store: the films of a server for as long as somebody uses them, and their results.

Films lie under random names in a private folder, which goes with the server. Names of files never reach it.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
import tempfile
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from textray.errors import InputError, TextRayError
from textray.inference.record import digest
from textray.serve.limits import Limits


@dataclass(kw_only=True, eq=False)
class StoredFilm:
    """A film that was read."""

    id: str
    path: Path
    size: int  # in bytes
    sha256: str
    facts: dict[str, Any]
    used: float
    results: dict[str, str] = field(default_factory=dict)  # ids by request


@dataclass(kw_only=True, eq=False)
class StoredResult:
    """A result: its record and mask, and the request from which a worker makes its other files."""

    id: str
    film: StoredFilm
    request: dict[str, Any]
    record: dict[str, Any]
    mask: bytes


@dataclass(kw_only=True, eq=False)
class Upload:
    """A file that has come whole."""

    path: Path
    size: int
    sha256: str


class Store:
    """See the module. Only the server's own thread uses it."""

    def __init__(self, limits: Limits, clock: Any = time.monotonic) -> None:  # noqa: ANN401 -- a function without arguments
        self.limits, self._clock = limits, clock
        self.folder = Path(tempfile.mkdtemp(prefix="textray-serve-"))  # for this user alone
        self._films: OrderedDict[str, StoredFilm] = OrderedDict()  # the last used one at the end
        self._results: OrderedDict[str, StoredResult] = OrderedDict()
        self._coming = 0  # bytes of uploads

    @asynccontextmanager
    async def receive(self, body: AsyncIterator[bytes]) -> AsyncIterator[Upload]:
        """Write a body to a file, which goes unless `keep` takes it.

        Raises:
            TextRayError: ``E_BUSY`` if there is no room even without all kept films.
            InputError: If the body is empty.
        """
        path, size, hashed = self.folder / secrets.token_hex(12), 0, hashlib.sha256()
        try:
            with path.open("xb") as file:
                async for part in body:
                    self._coming += len(part)
                    size += len(part)
                    self._make_room()
                    hashed.update(part)
                    file.write(part)
            if not size:
                raise InputError("the body is empty", expected="the bytes of a film", code="E_FORMAT")
            yield Upload(path=path, size=size, sha256=hashed.hexdigest())
        finally:
            self._coming -= size
            if not any(film.path == path for film in self._films.values()):
                path.unlink(missing_ok=True)

    def known(self, sha256: str) -> StoredFilm | None:
        """The film of these bytes, if it is kept."""
        found = next((film for film in self._films.values() if film.sha256 == sha256), None)
        return found and self.film(found.id)

    def keep(self, upload: Upload, facts: dict[str, Any]) -> StoredFilm:
        """Keep a film that a worker has read."""
        film = StoredFilm(
            id=secrets.token_urlsafe(12),
            path=upload.path,
            size=upload.size,
            sha256=upload.sha256,
            facts=facts,
            used=self._clock(),
        )
        self._films[film.id] = film
        self._make_room()
        return film

    def film(self, name: str) -> StoredFilm:
        """A film by its id, from now on the last used one; raises ``E_NOT_FOUND``."""
        self.sweep()
        if name not in self._films:
            raise _nothing("film")
        self._films.move_to_end(name)
        self._films[name].used = self._clock()
        return self._films[name]

    def result_of(self, film: StoredFilm, request: dict[str, Any]) -> StoredResult | None:
        """The result of an earlier request for the same."""
        name = film.results.get(digest(request))
        return None if name is None else self._results.get(name)

    def keep_result(
        self, film: StoredFilm, request: dict[str, Any], record: dict[str, Any], mask: bytes
    ) -> StoredResult:
        """Keep a result of a film."""
        result = StoredResult(id=secrets.token_urlsafe(12), film=film, request=request, record=record, mask=mask)
        if film.id in self._films:  # it may have gone since
            self._results[result.id] = result
            film.results[digest(request)] = result.id
        while len(self._results) > self.limits.results:
            self._results.popitem(last=False)
        return result

    def result(self, name: str) -> StoredResult:
        """A result by its id; raises ``E_NOT_FOUND``."""
        self.sweep()
        if name not in self._results:
            raise _nothing("result")
        self._results.move_to_end(name)
        self.film(self._results[name].film.id)
        return self._results[name]

    def remove(self, film: StoredFilm) -> None:
        """Remove a film and its results."""
        self._films.pop(film.id, None)
        film.path.unlink(missing_ok=True)
        for name in film.results.values():
            self._results.pop(name, None)

    def sweep(self) -> None:
        """Remove what nobody has used for long."""
        while self._films and self._clock() - (oldest := next(iter(self._films.values()))).used > (
            self.limits.keep_seconds
        ):
            self.remove(oldest)

    def close(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _make_room(self) -> None:
        while len(self._films) > self.limits.films or self._bytes() > self.limits.stored_bytes:
            if not self._films:
                raise TextRayError("the server has no room for this film", do="Try again later", code="E_BUSY")
            self.remove(next(iter(self._films.values())))

    def _bytes(self) -> int:
        return self._coming + sum(film.size for film in self._films.values())


def _nothing(kind: str) -> InputError:
    what = f"there is no {kind} of this id"
    return InputError(what, do="Send the film again; the server forgets what nobody uses", code="E_NOT_FOUND")
