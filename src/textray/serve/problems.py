"""Errors as answers: problem+json (RFC 9457) in TextRay's own sentences, without paths and words of libraries."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Mapping
from http import HTTPStatus

from starlette.responses import Response

from textray.errors import BundleError, InputError, OutputError, TextRayError, UsageError

log = logging.getLogger(__name__)

RETRY_SECONDS = 2
"""Pause that busy answers ask for."""
_STATUS = {
    "E_FORMAT": 415,
    "E_NO_STUDY": 409,
    "E_NO_LESION": 409,
    "E_SEG_SOURCE": 409,
    "E_DICOM_WRITE": 409,
    "E_READ": 404,
    "E_NOT_FOUND": 404,
    "E_BUSY": 429,
    "E_TIMEOUT": 504,
    "E_UNAUTHORISED": 401,
    "E_ORIGIN": 403,
    "E_HOST": 421,
    "E_TOO_LARGE": 413,
    "E_SLOW": 408,
    "E_CONTENT": 415,
}
_SHOWN = {"E_WORKER_DIED", "E_TIMEOUT", *_STATUS} - {"E_READ"}
_WORDS = {
    400: "the request is not valid",
    404: "there is nothing at this address",
    405: "this address does not know this method",
    422: "the request has another form than the API's description says",
}


def problem(
    status: int, code: str, detail: str, *, headers: Mapping[str, str] | None = None, **more: object
) -> Response:
    """An answer with an error; its ``id`` is in the log too if the server is at fault."""
    name = secrets.token_hex(6)
    if status >= 500:
        log.error("problem %s: %s", name, code)
    title = HTTPStatus(status).phrase
    values = {"type": "about:blank", "title": title, "status": status, "code": code, "detail": detail, "id": name}
    retry = {"Retry-After": str(RETRY_SECONDS)} if status in (429, 503) else {}
    return Response(
        json.dumps({**values, **more}),
        status,
        headers={**retry, **(headers or {})},
        media_type="application/problem+json",
    )


def of_error(error: Exception) -> Response:
    """The answer for an error; the words of one that is not about the request stay inside."""
    if isinstance(error, TextRayError):
        asked = isinstance(error, InputError | UsageError) and not isinstance(error, BundleError | OutputError)
        status = _STATUS.get(error.code, 422 if asked else 500)
        if error.code == "E_READ":  # its words name a file
            return problem(status, "E_NOT_FOUND", "The film is not here any longer.")
        if asked or error.code in _SHOWN:
            headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
            return problem(status, error.code, _sentence(str(error)), headers=headers)
        return problem(status, error.code, "The server could not do this.")
    return problem(500, "E_INTERNAL", "The server could not do this.")


def of_status(status: int, headers: Mapping[str, str] | None = None, **more: object) -> Response:
    """The answer for a request that the framework refuses."""
    codes = {404: "E_NOT_FOUND", 405: "E_METHOD", 413: "E_TOO_LARGE", 422: "E_REQUEST", 400: "E_REQUEST"}
    detail = _sentence(_WORDS.get(status, HTTPStatus(status).description or HTTPStatus(status).phrase))
    return problem(status, codes.get(status, "E_HTTP"), detail, headers=headers, **more)


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:].rstrip(".") + "."
