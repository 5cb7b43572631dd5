"""What the commands say: results on the standard output, everything else on the standard error."""

from __future__ import annotations

import json
import os
from pathlib import Path

import typer


def printable(text: str) -> str:
    """Text without anything that steers a terminal or breaks a line; such characters are shown escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def shown(path: str | Path) -> str:
    """A path for the eye."""
    return printable(os.fspath(path))


def say(text: str = "") -> None:
    """Print a line of a result."""
    typer.echo(text)


def say_json(values: object) -> None:
    """Print JSON on one line."""
    typer.echo(json.dumps(values))


def note(text: str) -> None:
    """Print a line that is no result."""
    typer.echo(text, err=True)
