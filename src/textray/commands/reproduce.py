"""`textray reproduce`: a paper's table or figure again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from textray.commands.console import note, printable


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
            help="Figures: a method; with @none at its end it is told nothing, with @generated its own report. "
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
        tell=lambda line: note(printable(line)),
    )
    raise typer.Exit(run(order))
