"""The command evaluate: masks of a segmenter, or maps of phrases, against what experts drew."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from textray.commands.console import note, say, shown
from textray.errors import UsageError


class Task(StrEnum):
    """What is scored."""

    SEGMENTATION = "segmentation"
    GROUNDING = "grounding"


def evaluate(
    name: Annotated[str, typer.Option("--data", help="Data set, such as qata_cov19.")],
    task: Annotated[Task, typer.Option(help="Masks of a segmenter, or maps of phrases.")] = Task.SEGMENTATION,
    text_mode: Annotated[
        list[str] | None,
        typer.Option(
            help="oracle, none, shuffled or generated; may be repeated.",
            show_default="oracle and none, as far as it can",
        ),
    ] = None,
    root: Annotated[Path | None, typer.Option(help="Folder of the data set.")] = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "val",
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("textray-out"),
    model: Annotated[str | None, typer.Option(help="Weights inside by name, or a bundle folder.")] = None,
    captions: Annotated[str, typer.Option(help="Missing captions: error, skip or text-free.")] = "error",
    split_by: Annotated[str | None, typer.Option(help="How the data are cut, such as slice or volume.")] = None,
    limit: Annotated[
        int | None, typer.Option(help="Score only so many images (phrases), spread over the split.")
    ] = None,
    sides: Annotated[bool, typer.Option("--sides", help="Also measure left-right sensitivity.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the network.")] = None,
    phrases: Annotated[
        str | None, typer.Option(help="Grounding: which words are asked: caption, clause, phrase or class.")
    ] = None,
    normalise: Annotated[
        list[str] | None,
        typer.Option(help="Grounding: minmax, none or clamp; may be repeated.", show_default="minmax, none"),
    ] = None,
    sigma: Annotated[
        float | None, typer.Option(help="Grounding: smoothing in cells of the map.", show_default="1.5")
    ] = None,
    margin: Annotated[
        int | None, typer.Option(help="Grounding: border left out of every measure, of 224 pixels.", show_default="0")
    ] = None,
    empty_prediction: Annotated[
        str | None,
        typer.Option(help="Grounding: a threshold that marks nothing scores zero, or skip it.", show_default="zero"),
    ] = None,
    per_box: Annotated[bool, typer.Option("--per-box", help="Grounding: contrast of each box by itself.")] = False,
    floors_only: Annotated[
        bool, typer.Option("--floors-only", help="Grounding: no network, only what each must beat.")
    ] = False,
) -> None:
    """Score weights on a split of a data set: cases.csv, summary.json and summary.md."""
    of_grounding = {
        "--phrases": phrases is not None,
        "--normalise": bool(normalise),
        "--sigma": sigma is not None,
        "--margin": margin is not None,
        "--empty-prediction": empty_prediction is not None,
        "--per-box": per_box,
        "--floors-only": floors_only,
    }
    if task is Task.GROUNDING:
        _refuse({"--text-mode": bool(text_mode), "--sides": sides, "--captions": captions != "error"}, task)
        from textray.evaluate_grounding import evaluate as score_phrases
        from textray.metrics.score_map import SIGMA

        with _progress() as progress:
            score_phrases(
                data=name,
                root=root,
                split=split,
                out=out,
                model=model,
                floors_only=floors_only,
                kind=phrases,
                normalise=normalise or ("minmax", "none"),
                sigma=SIGMA if sigma is None else sigma,
                margin=margin or 0,
                empty_prediction=empty_prediction or "zero",
                per_box=per_box,
                split_by=split_by,
                threads=threads,
                limit=limit,
                progress=progress,
            )
    else:
        _refuse(of_grounding, task)
        from textray.evaluate import evaluate as score_masks

        with _progress() as progress:
            score_masks(
                data=name,
                root=root,
                split=split,
                text_modes=text_mode or (),
                out=out,
                model=model,
                captions=captions,
                split_by=split_by,
                threads=threads,
                limit=limit,
                sides=sides,
                progress=progress,
            )
    say((out / "summary.md").read_text(encoding="utf-8").rstrip())
    note(f"Results: {shown(out)}")


def _refuse(given: Mapping[str, bool], task: Task) -> None:
    """Refuse options of the other task: they would be ignored, and a table would not say so."""
    named = [option for option, used in given.items() if used]
    if named:
        raise UsageError(
            f"these options are not of task {task}",
            came=", ".join(named),
            do="Leave them out, or name the other --task",
        )


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    from rich.console import Console
    from rich.progress import Progress

    screen = Console(stderr=True)
    with Progress(console=screen, transient=True, disable=not screen.is_terminal, redirect_stdout=False) as bar:
        task = bar.add_task("evaluate", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
