"""The command line `textray`.

Exit codes: 0 done, 1 crash, 2 usage, 3 some files refused, 130 interrupted, 143 ended by SIGTERM. Nothing heavy is
imported here: each command imports what it needs when it runs, so that ``textray --help`` answers at once.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from textray import __version__
from textray.commands import doctor, explain, ground, info, research, segment, serve
from textray.commands.console import LogLines, note, say
from textray.errors import TextRayError, disk_fault

app = typer.Typer(
    name="textray",
    help="Finds lesions in chest images with the help of language. Not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("segment")(segment.segment)
app.command("report")(segment.report)
app.command("ground")(ground.ground)
app.command("serve")(serve.serve)
app.command("info")(info.info)
app.command("demo")(segment.demo)
app.command("doctor")(doctor.doctor)
app.add_typer(research.data, name="data")
# Lightning parses all arguments of train, --help too.
app.command(
    "train",
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)(research.train)
app.command("evaluate")(research.evaluate)
app.command("export")(research.export)
app.command("import")(research.import_)
app.command("reproduce")(research.reproduce)
app.add_typer(explain.app, name="explain")


def _version(wanted: bool) -> None:
    if wanted:
        say(f"textray {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Finds lesions in chest images with the help of language. Not a medical device."""


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line, by default with the arguments of the process, and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal without Unicode must not stop a run
    if logging.lastResort is not None:  # prints the warnings of a process without other handlers
        logging.lastResort.setFormatter(LogLines())
    try:
        app(args=None if args is None else list(args), prog_name="textray")
    except TextRayError as error:
        note(f"error {error.code}: {error}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if (full := disk_fault(error)) is not None:
            try:
                sys.stdout.flush()
            except OSError:
                sys.stdout.close()  # else Python tries once more at its end, and fails with a code of its own
            note(f"error {full.code}: {full}")
            sys.exit(full.exit_code)
        if os.environ.get("TEXTRAY_TRACEBACK") == "1":
            raise
        note(f"error E_INTERNAL: unexpected {type(error).__name__}: {str(error)[:300]}")
        note("This is a defect of TextRay; with TEXTRAY_TRACEBACK=1 it shows where.")
        sys.exit(1)
