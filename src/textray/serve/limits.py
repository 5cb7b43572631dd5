"""Limits of the server, with their defaults."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from textray.inference.worker import MOST_WORDS


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a server accepts and keeps.

    Attributes:
        film_bytes: Of an uploaded film.
        json_bytes: Of any other body.
        words: Of a report.
        header_seconds: Until the whole header of a request is there; also how long an idle connection stays open.
        silence_seconds: Without a byte of a body that is not complete.
        request_seconds: Of a whole request.
        job_seconds: Of the work on a film.
        requests: At the same time; ``/live`` is answered beyond.
        connections: Open at the same time, at most; more are closed at once.
        waiting: Jobs that wait for a worker; further ones get 429.
        films: Kept at the same time; the one that nobody used for longest goes first.
        results: Kept at the same time, likewise.
        stored_bytes: Of all kept films.
        keep_seconds: Until a film that nobody uses goes, with its results.
        drain_seconds: That running requests get after SIGTERM.
    """

    film_bytes: int = 64 << 20
    json_bytes: int = 64 << 10
    words: int = MOST_WORDS
    header_seconds: float = 5.0
    silence_seconds: float = 10.0
    request_seconds: float = 120.0
    job_seconds: float = 60.0
    requests: int = 64
    connections: int = 256
    waiting: int = 16
    films: int = 200
    results: int = 500
    stored_bytes: int = 2 << 30
    keep_seconds: float = 1800.0
    drain_seconds: float = 10.0

    def to_dict(self) -> dict[str, float]:
        """The limits by name."""
        return asdict(self)
