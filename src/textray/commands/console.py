"""What the commands say: results on the standard output, everything else on the standard error."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from textray.inference.run import Outcome, Run


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


# A run over many files at the terminal: a bar, one line for each result, refusals and warnings beside.

R = TypeVar("R", bound="Outcome")


def work_through(
    run: Run[R], title: str, total: int, out: Path, lines: Callable[[R], list[str]], *, as_json: bool
) -> int:
    """Work through a run with a progress bar.

    Args:
        run: What to do.
        title: What the bar says.
        total: Number of files to work on.
        out: Folder of the summary.
        lines: What is told of a finished input.
        as_json: Tell JSON instead.

    Returns:
        The exit code, 130 where it was interrupted.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from textray.inference.inputs import RUN_FILE

    screen = Console(stderr=True, highlight=False)
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(
        *columns,
        console=screen,
        transient=True,
        disable=not screen.is_terminal,
        redirect_stdout=False,  # else results would be printed on the standard error while the bar is shown
        redirect_stderr=False,
    )

    def above_bar(text: str) -> None:
        screen.print(text, markup=False, soft_wrap=True)

    # Where results and bar share one terminal, a line has to be printed around the bar.
    result = above_bar if screen.is_terminal and sys.stdout.isatty() and not as_json else say
    remark = above_bar if screen.is_terminal else note
    told: set[tuple[str, str]] = set()
    more: Counter[str] = Counter()  # files with a warning that another one has told in the same words

    def tell(row: R) -> None:
        path = shown(row.path)
        if as_json:
            say_json({"type": "result", **row.to_dict()})
        if row.status in ("failed", "skipped"):
            word = "error" if row.status == "failed" else "skipped"
            remark(f"{word} {row.code}: {path}: {printable(row.reason)}")
            return
        more.update({w["code"] for w in row.warnings if (w["code"], w["text"]) in told})
        for warning in row.warnings:
            if (warning["code"], warning["text"]) not in told:
                told.add((warning["code"], warning["text"]))
                remark(f"warning {warning['code']}: {path}: {printable(warning['text'])} {warning['remedy']}".rstrip())
        if not as_json:
            for line in lines(row):
                result(line)

    try:
        with bar:
            task = bar.add_task(title, total=total)

            def on_row(row: R) -> None:
                tell(row)
                bar.advance(task)

            for row in run.rows:
                tell(row)
            code = run.run(on_row)
    except KeyboardInterrupt:
        note("Interrupted. The same command goes on where this one stopped.")
        return 130
    for repeated, files in more.items():
        note(f"warning {repeated}: also of {files} more {'file' if files == 1 else 'files'}; their records tell.")
    counts = run.counts
    if as_json:
        say_json({"type": "run", "exit_code": code, "counts": counts, "run": shown(out / RUN_FILE)})
    words = {"done": "done", "finished": "finished by an earlier run", "skipped": "skipped", "failed": "failed"}
    told_counts = ", ".join(f"{counts[status]} {word}" for status, word in words.items() if counts[status])
    note(f"{told_counts or 'nothing to do'}. Summary: {shown(out / RUN_FILE)}")
    return code
