"""Output of the commands: results on the standard output, everything else on the standard error.

Everything passes through `printable` here, also what the package logs, so that no name or text of a file steers a
terminal.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from textray.inference.run import FileResult, Run
    from textray.records import Notice


def printable(text: str) -> str:
    """Text without anything that steers a terminal or breaks a line; such characters are shown escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def shown(path: str | Path) -> str:
    """A path for the eye."""
    return printable(os.fspath(path))


def say(text: str = "") -> None:
    """Print a line of a result."""
    typer.echo(printable(text))


def say_json(values: object) -> None:
    """Print JSON on one line."""
    typer.echo(json.dumps(values))


def note(text: str) -> None:
    """Print a line that is no result."""
    typer.echo(printable(text), err=True)


class LogLines(logging.Formatter):
    """Messages of a log as the lines of `note`."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 -- logging's name
        """The message."""
        return printable(super().formatMessage(record))


def note_warnings(notices: Iterable[Notice]) -> None:
    """Print warnings that are no result of one file."""
    for notice in notices:
        note(_warning(notice.code, notice.text, notice.remedy))


def _warning(code: str, text: str, remedy: str, where: str = "") -> str:
    return f"warning {code}: {where}{text} {remedy}".rstrip()


class _Ended(BaseException):
    """A signal that asks the process to end."""

    def __init__(self, number: int) -> None:
        self.number = number


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM, and SIGHUP of a closed terminal, stop the work as Ctrl-C does, so that its summary says so."""

    def end(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second one must not stop the writing of the summary
        raise _Ended(number)

    names = ("SIGTERM", "SIGHUP") if threading.current_thread() is threading.main_thread() else ()
    caught = [number for name in names if (number := getattr(signal, name, None))]  # Windows has no SIGHUP
    caught = [number for number in caught if signal.getsignal(number) is signal.SIG_DFL]  # nohup ignores SIGHUP
    for number in caught:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in caught:
            signal.signal(number, signal.SIG_DFL)


def work_through(
    run: Run, title: str, lines: Callable[[FileResult], list[str]], *, as_json: bool, **labels: str
) -> int:
    """Work through a run under a progress bar; returns the exit code, 130 after Ctrl-C, 143 after SIGTERM.

    ``lines`` makes the lines to print for a finished input; ``labels`` go into the JSON line about the run.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    screen = Console(stderr=True, highlight=False)
    bar = Progress(
        *(TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()),
        console=screen,
        transient=True,
        disable=not screen.is_terminal,
        redirect_stdout=False,  # else results would be printed on the standard error while the bar is shown
        redirect_stderr=False,
    )

    def above_bar(text: str) -> None:
        screen.print(printable(text), markup=False, soft_wrap=True)

    # Where results and bar share one terminal, a line has to be printed around the bar.
    print_line = above_bar if screen.is_terminal and sys.stdout.isatty() and not as_json else say
    remark = above_bar if screen.is_terminal else note
    shown_warnings: set[tuple[str, str]] = set()
    repeated: Counter[str] = Counter()  # files with a warning that is shown for another file already

    def show(result: FileResult) -> None:
        path = shown(result.path)
        if as_json:
            say_json({"type": "result", **result.to_dict()})
        if result.status in ("failed", "skipped"):
            word = "error" if result.status == "failed" else "skipped"
            remark(f"{word} {result.code}: {path}: {result.reason}")
            return
        before = [w["code"] for w in result.warnings if (w["code"], w["text"]) in shown_warnings]
        repeated.update(dict.fromkeys(before, 1))  # once a file, in the order of its record
        for warning in result.warnings:
            if (warning["code"], warning["text"]) not in shown_warnings:
                shown_warnings.add((warning["code"], warning["text"]))
                remark(_warning(**warning, where=f"{path}: "))
        if not as_json:
            for line in lines(result):
                print_line(line)

    try:
        with _ended_by_signals(), bar:
            task = bar.add_task(title, total=len(run.plan.items))

            def on_result(result: FileResult) -> None:
                show(result)
                bar.advance(task)

            for result in run.results:
                show(result)
            code = run.run(on_result)
    except (KeyboardInterrupt, _Ended) as stop:
        note("Interrupted. The same command goes on where this one stopped.")
        return 128 + (stop.number if isinstance(stop, _Ended) else signal.SIGINT)
    for warning, files in repeated.items():
        note(f"warning {warning}: also of {files} more {'file' if files == 1 else 'files'}; see their records.")
    counts, summary = run.counts, shown(run.summary)
    if as_json:
        say_json({"type": "run", **labels, "exit_code": code, "counts": counts, "run": summary})
    words = {"done": "done", "finished": "finished by an earlier run", "skipped": "skipped", "failed": "failed"}
    by_status = ", ".join(f"{counts[status]} {word}" for status, word in words.items() if counts[status])
    note(f"{by_status or 'nothing to do'}. Summary: {summary}")
    return code
