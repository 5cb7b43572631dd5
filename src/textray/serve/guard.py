"""Guard: the outermost part of the server, which every request passes.

It checks Host, Origin and token, counts bytes and seconds, adds the headers of security, and answers for whatever fails
inside. There are no cookies, so a page of another site cannot act for a user.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from textray.errors import TextRayError
from textray.serve.limits import Limits
from textray.serve.problems import of_error, of_status

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_HEADER_BYTES = 16 << 10
_PROTECTED = ("/api/", "/openapi.json")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
ANY_ADDRESS = ("0.0.0.0", "::")


@dataclass(frozen=True, kw_only=True)
class Access:
    """Who may ask, and under which address.

    Attributes:
        token: That each request to the API carries.
        names: Host names of the server.
        https: True if browsers reach it by HTTPS, through a proxy or not.
        any_address: True if it listens on all addresses of the machine; then IP addresses are host names too.
    """

    token: str
    names: frozenset[str] = frozenset(_LOOPBACK)
    https: bool = False
    any_address: bool = False

    def is_token(self, given: str) -> bool:
        """Compare in constant time, whatever the lengths."""
        digests = (hashlib.sha256(word.encode("utf-8", "surrogateescape")).digest() for word in (given, self.token))
        return hmac.compare_digest(*digests)

    def is_host(self, header: str) -> bool:
        """True for a Host header that names this server; a name of another site points here by DNS only."""
        name, _, port = header.rpartition(":") if not header.endswith("]") else (header, "", "")
        name = (name if port.isdecimal() else header).removeprefix("[").removesuffix("]").lower()
        if name in self.names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.any_address

    def is_origin(self, header: str, host: str) -> bool:
        """True for an Origin header of our own pages."""
        return header == f"{'https' if self.https else 'http'}://{host}"


class Guard:
    """ASGI middleware; see the module."""

    def __init__(self, app: ASGIApp, access: Access, limits: Limits) -> None:
        self.app, self.access, self.limits = app, access, limits
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        started = False

        async def answer(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                given = {name.lower() for name, _ in message.get("headers", ())}
                more = [(k.lower().encode(), v.encode()) for k, v in HEADERS.items() if k.lower().encode() not in given]
                message = {**message, "headers": [*message.get("headers", ()), *more]}
            await send(message)

        self._running += 1
        try:
            async with asyncio.timeout(self.limits.request_seconds):
                try:
                    bounded = self._admit(scope, receive)
                    if self._running > self.limits.requests and scope["path"] != "/live":
                        await _drain(bounded)
                        raise _busy()
                    await self.app(scope, bounded, answer)
                except ClientDisconnect:
                    return
                except HTTPException as error:
                    if not started:
                        await of_status(error.status_code, error.headers)(scope, receive, answer)
                except TextRayError as error:
                    if not started:
                        await of_error(error)(scope, receive, answer)
        except TimeoutError:
            if not started:
                what = "the request took too long"
                await of_error(TextRayError(what, code="E_SLOW"))(scope, receive, answer)
        except Exception as error:
            log.error("unexpected %s", type(error).__name__)  # its words may quote anything
            if not started:
                await of_error(error)(scope, receive, answer)
        finally:
            self._running -= 1

    def _admit(self, scope: Scope, receive: Receive) -> Receive:
        """Check the header of a request; gives its body, which ends with an error where it is too large."""
        if sum(len(key) + len(value) for key, value in scope["headers"]) > _HEADER_BYTES:
            raise HTTPException(431)
        headers = _Headers(scope)
        host = headers.one("host")
        if host is None or not self.access.is_host(host):
            do = "Open the address that the server printed, or name this one with --name"
            raise TextRayError("this server has another name", do=do, code="E_HOST")
        origin = headers.one("origin", absent="")
        if origin != "" and (origin is None or not self.access.is_origin(origin, host)):
            raise TextRayError("a page of another site must not use this server", code="E_ORIGIN")
        if scope["path"].startswith(_PROTECTED):
            scheme, _, token = (headers.one("authorization") or "").partition(" ")
            if scheme.lower() != "bearer" or not self.access.is_token(token.strip()):
                expected = "the header Authorization: Bearer TOKEN, with the token that the server printed"
                raise TextRayError("the token is missing or wrong", expected=expected, code="E_UNAUTHORISED")
        upload = scope["path"] == "/api/films" and scope["method"] == "POST"
        most = self.limits.film_bytes if upload else self.limits.json_bytes
        length = headers.one("content-length", absent="0")
        if length is not None and length.isdecimal() and len(length) < 20 and int(length) > most:
            raise _too_large(most)
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > most:
                raise HTTPException(413)  # which the framework lets pass
            return message

        return counted


class _Headers:
    def __init__(self, scope: Scope) -> None:
        self._all = scope["headers"]

    def one(self, name: str, *, absent: str | None = None) -> str | None:
        """The value of a header; ``None`` where it is there twice."""
        values = [value.decode("latin-1") for key, value in self._all if key == name.encode()]
        return absent if not values else values[0] if len(values) == 1 else None


def _too_large(most: int) -> TextRayError:
    return TextRayError("the body is too large", expected=f"at most {most} bytes", code="E_TOO_LARGE")


def _busy() -> TextRayError:
    return TextRayError("the server is busy", do="Try again in a few seconds", code="E_BUSY")


async def _drain(receive: Receive) -> None:
    """Take a body and forget it: a client that still sends would not read the answer."""
    while (await receive()).get("more_body", False):
        pass
