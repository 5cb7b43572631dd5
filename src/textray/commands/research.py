"""Commands for researchers: data check, train and export."""

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


def export(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="Checkpoint of textray train.")],
    out: Annotated[Path, typer.Option(help="Folder of the bundle.")],
    samples: Annotated[Path | None, typer.Option(help="Folder of images for the parity check.")] = None,
    scores: Annotated[
        list[Path] | None,
        typer.Option(help="summary.json of textray evaluate, for the model card (grounding: summary.md); repeatable."),
    ] = None,
    text_encoder: Annotated[Path | None, typer.Option(help="Folder of the frozen text encoder.")] = None,
    text_free: Annotated[
        Free | None, typer.Option(help="What runs without a text shall do with a network that writes its own report.")
    ] = None,
    average: Annotated[
        list[Path] | None,
        typer.Option(metavar="CKPT", help="Further stage of the same training: take the mean weights; repeatable."),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Probability from which a pixel is lesion; 0.5 where none is given.")
    ] = None,
) -> None:
    """Write a bundle from a checkpoint; fails unless ONNX and torch agree."""
    if registry.load("textray.trained:task_of")(checkpoint) == "grounding":
        if text_encoder is not None or text_free is not None or threshold is not None:
            raise UsageError(
                "--text-encoder, --text-free and --threshold are of networks that segment",
                came="a checkpoint of a grounding network",
            )
        ground = registry.load("textray.export_grounding:export_grounding")
        ground(checkpoint, out, samples=samples, scores=scores or (), average=average or ())
        note(f"Bundle: {shown(out)}")
        return
    run = registry.load("textray.export:export")
    run(
        checkpoint,
        out,
        samples=samples,
        scores=scores or (),
        text_encoder_folder=text_encoder,
        text_free=None if text_free is None else text_free.value,
        average=average or (),
        threshold=0.5 if threshold is None else threshold,
    )
    note(f"Bundle: {shown(out)}")
