"""`textray serve`: a page and an API on this machine."""

from __future__ import annotations

import logging
import os
import secrets
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from textray.commands.console import note
from textray.commands.segment import Model
from textray.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from textray.serve.limits import Limits

_VARIABLE = "TEXTRAY_TOKEN"
_SHORTEST = 16  # characters of a token that somebody gives
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8750,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token of the API; without, $TEXTRAY_TOKEN or a new one.")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate for HTTPS, a PEM file.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key, a PEM file.")] = None,
    behind_proxy: Annotated[
        bool, typer.Option("--behind-proxy", help="A proxy on the way to browsers speaks HTTPS.")
    ] = False,
    name: Annotated[
        list[str] | None, typer.Option(help="Further host name by which browsers reach the server; may be repeated.")
    ] = None,
    model: Model = None,
    ground_model: Annotated[str | None, typer.Option(help="Weights for phrases, likewise.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="Processes that work on films; by default one for each processor.")
    ] = None,
    limit: Annotated[
        list[str] | None, typer.Option(metavar="NAME=NUMBER", help="Change a limit; the start prints them all.")
    ] = None,
) -> None:
    """Show films, masks and words in a browser, and offer the same as an API.

    Prints an address with the token, without which nothing is answered. Ends with exit code 0 after SIGTERM.
    Needs the extra serve.
    """
    for package in ("fastapi", "uvicorn"):
        if find_spec(package) is None:
            raise UsageError(
                f"textray serve needs the Python package {package}, which is not installed",
                do="Install it with: pip install 'textray[serve]'",
            )
    from textray.inference.bundle import Bundle, GroundingBundle
    from textray.inference.runtime import default_threads
    from textray.inference.worker import Pool
    from textray.serve import server
    from textray.serve.app import create
    from textray.serve.guard import ANY_ADDRESS, Access

    token, new = _token(token_file)
    certificate = _certificate(tls_cert, tls_key)
    if host not in _LOOPBACK and (new or not (certificate or behind_proxy)):
        raise UsageError(
            "the server would be open to the network",
            came=f"--host {host}",
            expected=f"a token that you choose (--token-file or ${_VARIABLE}), and --tls-cert with --tls-key or "
            "--behind-proxy",
            do="Add them, or leave --host out",
        )
    limits = _limits(limit or [])
    Bundle.load(model), GroundingBundle.load(ground_model)  # damaged weights are refused before anything starts
    for noisy in ("asyncio", "uvicorn", "fastapi"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)  # their words quote requests
    try:
        listener = server.listen(host, port)
    except OSError as error:
        came = f"{host}, port {port}: {error.strerror}"
        raise UsageError("the server cannot listen there", came=came, do="Name another --port or --host") from error
    access = Access(
        token=token,
        names=frozenset({*_LOOPBACK, host.lower(), *(word.lower() for word in name or ())}),
        https=certificate is not None or behind_proxy,
        any_address=host in ANY_ADDRESS,
    )
    pool = Pool(workers or default_threads(), segmenter=model, localizer=ground_model, seconds=limits.job_seconds)
    shown = (name or [host])[0]
    shown = f"[{shown}]" if ":" in shown else shown
    scheme = "https" if certificate else "http"

    def began() -> None:
        address = f"https://{shown}" if behind_proxy else f"{scheme}://{shown}:{listener.getsockname()[1]}"
        note(f"Page: {address}/" + (f"#key={token}" if new else "   (it asks for your token)"))
        note("Limits: " + ", ".join(f"{key} {value}" for key, value in limits.to_dict().items()))
        note("Research only. Not for diagnosis.")

    try:
        server.run(create(pool, access, limits), listener, limits, certificate=certificate, began=began)
    finally:
        pool.close()


def _token(file: Path | None) -> tuple[str, bool]:
    """The token, and whether it is a new one."""
    given = os.environ.pop(_VARIABLE, None)  # no child inherits it
    if file is not None:
        try:
            given = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeError) as error:
            what = "the file of the token cannot be read"
            raise UsageError(what, came=getattr(error, "strerror", None) or "bytes that are no text") from error
    if given is None:
        return secrets.token_urlsafe(24), True
    if len(given) < _SHORTEST or not given.isascii() or not given.isprintable() or " " in given:
        raise UsageError(
            "the token is too weak",
            came=f"{len(given)} characters",
            expected=f"at least {_SHORTEST} letters and digits, without blanks",
            do="Make one with: python -c 'import secrets; print(secrets.token_urlsafe(24))'",
        )
    return given, False


def _certificate(certificate: Path | None, key: Path | None) -> tuple[Path, Path] | None:
    if certificate is None and key is None:
        return None
    if certificate is None or key is None or not certificate.is_file() or not key.is_file():
        raise UsageError("HTTPS needs two files", expected="--tls-cert FILE and --tls-key FILE")
    return certificate, key


def _limits(given: list[str]) -> Limits:
    from textray.serve.limits import Limits

    limits = Limits()
    for words in given:
        name, _, number = words.partition("=")
        if name not in limits.to_dict():
            raise unknown_name("limit", name, limits.to_dict())
        kind = type(getattr(limits, name))
        try:
            value = kind(number)
        except ValueError:
            value = 0
        if not 0 < value < 1e12:
            raise UsageError(f"the limit {name} is wrong", came=number, expected="a number above 0")
        limits = replace(limits, **{name: value})
    return limits
