"""Server: uvicorn around the application, with time-outs of slow clients and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from textray.serve.limits import Limits

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.types import ASGIApp

_LOOK_SECONDS = 0.5  # between two looks at a connection


class Protocol(H11Protocol):
    """uvicorn's protocol, which has no time-outs while it reads; this one closes connections that keep it waiting."""

    def __init__(self, *args: Any, limits: Limits, **options: Any) -> None:  # noqa: ANN401 -- uvicorn's own
        super().__init__(*args, **options)
        self.limits = limits
        self._since = 0.0  # the last byte, or while a header comes the end of the answer before
        self._look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close a connection beyond the limit, and watch the others."""
        super().connection_made(transport)  # type: ignore[arg-type]
        if len(self.connections) > self.limits.connections:
            transport.abort()  # type: ignore[attr-defined]
            return
        self._since = self.loop.time()
        self._look = self.loop.call_later(_LOOK_SECONDS, self._watch)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the watch."""
        if self._look is not None:
            self._look.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Note when bytes of a body come; those of a header do not lengthen its time."""
        if self._served:
            self._since = self.loop.time()
        super().data_received(data)

    def on_response_complete(self) -> None:
        """Begin the time of the next header."""
        self._since = self.loop.time()
        super().on_response_complete()

    @property
    def _served(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _watch(self) -> None:
        now, limits = self.loop.time(), self.limits
        if not self._served:
            late = now - self._since > limits.header_seconds
        else:
            wanting = self.cycle.more_body and not self.flow.read_paused
            late = wanting and now - self._since > limits.silence_seconds
        if late:
            self.transport.abort()
            return
        self._look = self.loop.call_later(_LOOK_SECONDS, self._watch)


class _Server(uvicorn.Server):
    """A server that ends with exit code 0 after SIGTERM; uvicorn would raise the signal again."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._end) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end(self, number: int, _: object) -> None:
        self.force_exit = self.should_exit  # the second signal does not wait
        self.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; `OSError` if the address is not ours or taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=128)


def run(
    app: ASGIApp,
    listener: socket.socket,
    limits: Limits,
    *,
    certificate: tuple[Path, Path] | None = None,
    began: Callable[[], None] = lambda: None,
) -> None:
    """Serve until SIGTERM or SIGINT; requests that run get time to end.

    Args:
        app: From `textray.serve.app.create`.
        listener: From `listen`; closed at the end.
        limits: Of time and number.
        certificate: Files of a certificate and its key, for HTTPS.
        began: Called once requests are answered.
    """
    config = uvicorn.Config(
        app,
        http=partial(Protocol, limits=limits),  # type: ignore[arg-type]
        loop="asyncio",
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="critical",  # its warnings quote requests
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=int(limits.header_seconds),
        timeout_graceful_shutdown=int(limits.drain_seconds),
        h11_max_incomplete_event_size=16 << 10,
        ssl_certfile=None if certificate is None else certificate[0],
        ssl_keyfile=None if certificate is None else str(certificate[1]),
    )
    server = _Server(config)
    began()
    server.run(sockets=[listener])
