"""Commands for researchers: data check, train, evaluate, export, import and reproduce."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from textray import registry
from textray.commands.console import note, say, say_json, shown
from textray.commands.segment import AsJson, Free
from textray.errors import DataError, OutputError, UsageError

if TYPE_CHECKING:
    from textray.data.base import Reader

Wording = Annotated[
    str | None, typer.Option(help="Wording of the captions, such as original.", show_default="the data set's first")
]
data = typer.Typer(help="Look at data sets on disk.", no_args_is_help=True)


@data.command("check")
def check(
    name: Annotated[str, typer.Argument(help="Data set, such as qata_cov19.")],
    root: Annotated[Path, typer.Argument(help="Its folder.")],
    captions: Wording = None,
    show: Annotated[bool, typer.Option("--show", help="Also draw films with their masks, see --out.")] = False,
    out: Annotated[Path, typer.Option(help="Picture that --show draws, a PNG.")] = Path("contact-sheet.png"),
    as_json: AsJson = False,
) -> None:
    """Check a data set's folder: files, captions, masks, patients. Exit code 3 where training would refuse any."""
    row = registry.dataset(name)
    if not row.checkable:
        raise UsageError(f"data set {name} has nothing on disk to check")
    from textray.data.base import open_reader

    reader = open_reader(name, root, captions=captions)
    found = reader.check()
    if show:
        _draw_sheet(reader, out)
    if as_json:
        problems = [
            {"code": p.code, "path": p.path, "message": p.message} | ({"do": p.do} if p.do else {})
            for p in found.problems
        ]
        say_json({"name": found.name, "ok": found.ok, "counts": found.counts, "problems": problems})
    else:
        for line in found.lines():
            say(line)
    raise typer.Exit(0 if found.ok else DataError.exit_code)


def _draw_sheet(reader: Reader, out: Path) -> None:
    from textray.data.contact_sheet import contact_sheet
    from textray.io.write import is_own_picture, write_picture

    if out.exists() and not is_own_picture(out):
        raise OutputError(f"{shown(out)} is no picture of TextRay, so it is not replaced", do="Name another --out")
    write_picture(out, contact_sheet(reader.preview()))
    note(f"Films with their masks: {shown(out)}")


@data.command("init")
def init(
    root: Annotated[Path, typer.Argument(help="Folder of your own films.")],
) -> None:
    """Write dataset.yaml into a folder of your own, with what was found there and comments on what may be changed."""
    from textray.data.own_folder import OwnFolder
    from textray.data.own_settings import SETTINGS, propose, text_of
    from textray.io.write import atomic_write

    path = root / SETTINGS
    if path.exists():
        raise OutputError(f"{shown(path)} is there already", do="Edit it, or remove it first")
    settings = propose(root)
    counts = OwnFolder(root, settings=settings).survey_counts()
    atomic_write(path, text_of(settings, counts).encode())
    for name, value in counts.items():
        say(f"{name}: {value}")
    note(f"Settings: {shown(path)}; look at the folder with: textray data check folder {shown(root)} --show")


@data.command("audit")
def audit(
    name: Annotated[str, typer.Argument(help="Data set, such as qata_cov19.")],
    root: Annotated[Path, typer.Argument(help="Its folder.")],
    out: Annotated[Path, typer.Option(help="Table to write, a CSV file.")] = Path("caption-audit.csv"),
    as_json: AsJson = False,
) -> None:
    """Compare captions with masks: sides and zones that are named and empty, or marked and not named."""
    from textray.data import audit as audits
    from textray.evaluate.results import csv_table
    from textray.io.write import atomic_write, check_writable

    cases = audits.audit(name, root)
    head = ",".join(audits.FIELDS).encode()
    if out.exists() and not (out.is_file() and out.read_bytes()[: len(head)] == head):
        raise OutputError(
            f"{shown(out)} is no table of this command, so it is not overwritten", do="Name another --out"
        )
    check_writable(out.parent)
    atomic_write(out, csv_table(audits.FIELDS, (case.line for case in cases)))
    counts = audits.count(cases)
    if as_json:
        say_json({"name": name, "counts": counts})
    else:
        for line in audits.lines(counts):
            say(line)
    note(f"Table: {shown(out)}")


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
    hounsfield: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="LOW HIGH", help="Window in HU of the training's pictures, of a network that knows CT."),
    ] = None,
) -> None:
    """Write a bundle from a checkpoint; fails unless ONNX and torch agree."""
    if registry.load("textray.training.checkpoints:task_of")(checkpoint) == "grounding":
        if any(option is not None for option in (text_encoder, text_free, threshold, hounsfield)):
            raise UsageError(
                "--text-encoder, --text-free, --threshold and --hounsfield are of networks that segment",
                came="a checkpoint of a grounding network",
            )
        run = registry.load("textray.export.grounder:export_grounding")
        options: dict[str, Any] = {}
    else:
        run = registry.load("textray.export.segmenter:export")
        options = {
            "text_encoder_folder": text_encoder,
            "text_free": None if text_free is None else text_free.value,
            "threshold": 0.5 if threshold is None else threshold,
            "hounsfield": hounsfield,
        }
    run(checkpoint, out, samples=samples, scores=scores or (), average=average or (), **options)
    note(f"Bundle: {shown(out)}")


# The command evaluate.


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
    captions: Wording = None,
    missing_captions: Annotated[
        str, typer.Option(help="Images without a usable caption: error, skip or text-free.")
    ] = "error",
    split_by: Annotated[str | None, typer.Option(help="How the data are cut, such as slice or volume.")] = None,
    limit: Annotated[
        int | None, typer.Option(help="Score only so many images (phrases), spread over the split.")
    ] = None,
    sides: Annotated[bool, typer.Option("--sides", help="Also measure left-right sensitivity.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the network.")] = None,
    phrases: Annotated[
        str | None, typer.Option(help="Grounding: kind of phrases: caption, clause, phrase or class.")
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
    of_masks = _given(text_mode=text_mode, sides=sides)
    of_phrases = _given(
        phrases=phrases,
        normalise=normalise,
        sigma=sigma,
        margin=margin,
        empty_prediction=empty_prediction,
        per_box=per_box,
        floors_only=floors_only,
    )
    _refuse(of_masks if task is Task.GROUNDING else of_phrases, task)
    shared: dict[str, Any] = {
        "data": name,
        "root": root,
        "split": split,
        "out": out,
        "model": model,
        "captions": captions,
        "missing_captions": missing_captions,
        "split_by": split_by,
        "threads": threads,
        "limit": limit,
    }
    with _progress() as progress:
        if task is Task.GROUNDING:
            from textray.evaluate import grounding

            grounding.evaluate(grounding.PhraseEvaluation(**shared, **of_phrases), progress=progress)
        elif "films" in registry.dataset(name).tasks:
            from textray.evaluate import films

            _refuse(of_masks, "films")
            films.evaluate(films.FilmEvaluation(**shared), progress=progress)
        else:
            from textray.evaluate import segmentation

            segmentation.evaluate(segmentation.MaskEvaluation(**shared, **of_masks), progress=progress)
    for line in (out / "summary.md").read_text(encoding="utf-8").rstrip().split("\n"):
        say(line)
    note(f"Results: {shown(out)}")


def _given(**options: object) -> dict[str, Any]:
    """Options that the command line has, lists as tuples."""
    given = {name: value for name, value in options.items() if not (value is None or value is False or value == [])}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


def _refuse(options: Mapping[str, object], task: str) -> None:
    """Refuse options of the other task: they would be ignored, and a table would not say so."""
    if options:
        raise UsageError(
            f"these options are not of task {task}",
            came=", ".join(f"--{name.replace('_', '-')}" for name in options),
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


# The command import.

_SHOWN = 8


def import_(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Network, such as mmi_unet.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Checkpoint as the network's authors published it.")],
    out: Annotated[Path, typer.Option(help="Folder of the bundle.")],
    text_encoder: Annotated[
        Path | None, typer.Option(help="Folder with vocab.txt and config.json of the text encoder.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Data set whose captions the bundle knows as they stand, such as qata_cov19.")
    ] = None,
    root: Annotated[Path | None, typer.Option(help="Folder of that data set; its captions go into the bundle.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON on the standard output.")] = False,
) -> None:
    """Write a bundle from a checkpoint that a network's authors published.

    The file is read in a process of its own that runs nothing of it. Exit codes: 0 done, 2 usage, 3 file refused.
    """
    run = registry.load("textray.export.published:import_checkpoint")
    report = run(name, file, out, text_encoder_folder=text_encoder, data=data, root=root)
    if as_json:
        say_json(report)
    else:
        say(f"mapped:  {len(report['mapped'])} tensors of the network, text encoder from the {report['text_encoder']}")
        for kind in ("dropped", "skipped"):
            more = ", ..." if len(report[kind]) > _SHOWN else ""
            say(f"{kind}: {len(report[kind])} {', '.join(report[kind][:_SHOWN])}{more}".rstrip())
    for notice in report["notices"]:
        note(f"warning {notice['code']}: {notice['text']} {notice['remedy']}")
    note(f"Bundle: {shown(out)}")


# The command reproduce.


def reproduce(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Such as mmi-unet-table2; a wrong one lists the names.")],
    root: Annotated[
        list[str] | None,
        typer.Option(metavar="DATA=DIR", help="Folder of a data set, such as qata_cov19=DIR; may be repeated."),
    ] = None,
    budget: Annotated[
        str, typer.Option(help="full (the paper's configuration) or small (two hours a table on two CPU cores).")
    ] = "small",
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each row, with seeds 0, 1, ...")] = 2,
    out: Annotated[Path, typer.Option(help="Folder of the results; tables share finished rows in it.")] = Path(
        "textray-reproduced"
    ),
    rows: Annotated[list[str] | None, typer.Option(help="Only this row or method; may be repeated.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the networks.")] = None,
    keep_checkpoints: Annotated[
        bool, typer.Option("--keep-checkpoints", help="Keep the checkpoints of finished rows.")
    ] = False,
    text_encoder: Annotated[Path | None, typer.Option(help="Folder of the frozen text encoder.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL=BUNDLE",
            help="Figures: a method; with @none at its end it gets no text, with @generated its own report. "
            "grounding-table1|2|3: weights to score.",
        ),
    ] = None,
    cases: Annotated[list[str] | None, typer.Option(metavar="ID", help="Figures: an image; may be repeated.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Figures: how many images to draw, where none is named.")] = 4,
    split: Annotated[str, typer.Option(help="Figures: the split of the images.")] = "val",
) -> None:
    """Train and measure a paper's table or figure again; goes on where it was cut off."""
    from textray.reproduce import Order, read_roots, reproduction

    run = reproduction(name)
    order = Order(
        name=name,
        roots=read_roots(root or ()),
        out=out,
        budget=budget,
        seeds=seeds,
        rows=tuple(rows or ()),
        threads=threads,
        keep_checkpoints=keep_checkpoints,
        text_encoder=text_encoder,
        models=tuple(model or ()),
        cases=tuple(cases or ()),
        count=count,
        split=split,
        tell=note,
    )
    raise typer.Exit(run(order))
