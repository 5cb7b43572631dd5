"""Commands for researchers: data check, train, evaluate and export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from textray import registry
from textray.commands.console import note, printable, say, say_json, shown
from textray.commands.reader import Free
from textray.errors import DataError, UsageError

data = typer.Typer(help="Look at data sets on disk.", no_args_is_help=True)


@data.command("check")
def check(
    name: Annotated[str, typer.Argument(help="Data set, such as qata_cov19.")],
    root: Annotated[Path, typer.Argument(help="Its folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on the standard output.")] = False,
) -> None:
    """Check a data set's folder: files, captions, masks, patients. Exit code 3 where training would refuse it."""
    row = registry.dataset(name)
    if not row.checkable:
        raise UsageError(f"data set {name} has nothing on disk to check")
    found = registry.load(row.path)(root).check()
    if as_json:
        problems = [{"code": p.code, "path": p.path, "message": p.message} for p in found.problems]
        say_json({"name": found.name, "ok": found.ok, "counts": found.counts, "problems": problems})
    else:
        for line in found.lines():
            say(printable(line))
    raise typer.Exit(0 if found.ok else DataError.exit_code)


def train(context: typer.Context) -> None:
    """Train a network: textray train --config base.yaml --config data.yaml --config model.yaml ...

    All arguments go to Lightning's command line; --help lists them.
    """
    registry.load("textray.training.cli:main")(context.args)


def evaluate(
    name: Annotated[str, typer.Option("--data", help="Data set, such as qata_cov19.")],
    text_mode: Annotated[
        list[str], typer.Option(help="oracle, none, shuffled or generated; may be repeated.", show_default=True)
    ] = ["oracle", "none"],  # noqa: B006 -- typer copies it
    root: Annotated[Path | None, typer.Option(help="Folder of the data set.")] = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "val",
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("textray-out"),
    model: Annotated[str | None, typer.Option(help="Weights inside by name, or a bundle folder.")] = None,
    captions: Annotated[str, typer.Option(help="Missing captions: error, skip or text-free.")] = "error",
    split_by: Annotated[str | None, typer.Option(help="How CT data are cut: slice (as published) or volume.")] = None,
    limit: Annotated[int | None, typer.Option(help="Score only so many images, spread over the split.")] = None,
    sides: Annotated[bool, typer.Option("--sides", help="Also measure left-right sensitivity.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the network.")] = None,
) -> None:
    """Score weights on a split of a data set: cases.csv, summary.json and summary.md."""
    from rich.console import Console
    from rich.progress import Progress

    from textray.evaluate import evaluate as score

    screen = Console(stderr=True)
    with Progress(console=screen, transient=True, disable=not screen.is_terminal, redirect_stdout=False) as bar:
        task = bar.add_task("evaluate", total=None)
        score(
            data=name,
            root=root,
            split=split,
            text_modes=text_mode,
            out=out,
            model=model,
            captions=captions,
            split_by=split_by,
            threads=threads,
            limit=limit,
            sides=sides,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    say((out / "summary.md").read_text(encoding="utf-8").rstrip())
    note(f"Results: {shown(out)}")


def export(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="Checkpoint of textray train.")],
    out: Annotated[Path, typer.Option(help="Folder of the bundle.")],
    samples: Annotated[Path | None, typer.Option(help="Folder of images for the parity check.")] = None,
    scores: Annotated[
        list[Path] | None, typer.Option(help="summary.json of textray evaluate, for the model card; may be repeated.")
    ] = None,
    text_encoder: Annotated[Path | None, typer.Option(help="Folder of the frozen text encoder.")] = None,
    text_free: Annotated[
        Free | None, typer.Option(help="What runs without a text shall do with a network that writes its own report.")
    ] = None,
    average: Annotated[
        list[Path] | None,
        typer.Option(metavar="CKPT", help="Further stage of the same training: take the mean weights; repeatable."),
    ] = None,
) -> None:
    """Write a bundle from a checkpoint; fails unless ONNX and torch agree."""
    run = registry.load("textray.export:export")
    run(
        checkpoint,
        out,
        samples=samples,
        scores=scores or (),
        text_encoder_folder=text_encoder,
        text_free=None if text_free is None else text_free.value,
        average=average or (),
    )
    note(f"Bundle: {shown(out)}")
