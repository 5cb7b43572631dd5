"""`textray ground`: where in a film a phrase is true."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from textray.commands.console import note, note_warnings, shown, work_through
from textray.commands.segment import CONVENTION, AsJson, Inputs, Model, Out, Overwrite, Side, Threads, Whose
from textray.errors import UsageError

if TYPE_CHECKING:
    from textray.inference.run import FileResult


class Stretch(StrEnum):
    """How a map is scaled before the threshold."""

    MINMAX = "minmax"
    NONE = "none"


def ground(
    inputs: Inputs,
    phrase: Annotated[
        list[str] | None, typer.Option(help="Any words to look for; may be repeated, for every input.")
    ] = None,
    table: Annotated[Path | None, typer.Option(help="CSV of phrases instead: image,phrase[,laterality].")] = None,
    laterality: Whose = Side.PATIENT,
    threshold: Annotated[
        float | None, typer.Option(help="Also write a mask of the pixels above this value, -1 to below 1.")
    ] = None,
    normalise: Annotated[
        Stretch | None,
        typer.Option(
            help="Before the threshold: minmax stretches each map to [-1, 1], none takes the cosine itself.",
            show_default="minmax",
        ),
    ] = None,
    sigma: Annotated[float, typer.Option(help="Width of the smoothing in cells of the map; 0 for none.")] = 1.5,
    model: Model = None,
    out: Out = Path("textray-out"),
    threads: Threads = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Show where phrases are true: writes a map, a picture and a record of each input, and run.json.

    A map is high where the phrase fits best; it does not show whether the finding is present at all.
    What an earlier run finished is skipped. A file that is refused is listed with its reason, and the rest goes on.
    Exit codes: 0 done, 1 crash, 2 usage, 3 some files refused.
    """
    from textray.inference.bundle import GroundingBundle
    from textray.inference.ground_run import Grounding, PhraseTable, plan_grounding
    from textray.inference.localizer import Localizer
    from textray.records import Laterality

    if normalise is not None and threshold is None:
        raise UsageError(
            "--normalise is for the threshold, and there is none",
            came=normalise.value,
            do="Add --threshold, or leave it out",
        )
    todo = plan_grounding(
        inputs,
        out,
        phrases=phrase or (),
        table=None if table is None else PhraseTable.read(table),
        laterality=Laterality(laterality.value),
        sigma=sigma,
        threshold=threshold,
        normalise=(normalise or Stretch.MINMAX).value,
        overwrite=overwrite,
    )
    note_warnings(todo.notices)
    run = Grounding(Localizer(GroundingBundle.load(model), threads), todo)
    for side in todo.sides:
        note(CONVENTION[side])
    raise typer.Exit(work_through(run, "ground", _lines, as_json=as_json))


def _lines(result: FileResult) -> list[str]:
    earlier = " (finished by an earlier run)" if result.status == "finished" else ""
    lines = []
    for one in result.details["phrases"]:
        peak, number = one["peak"], one["number"]
        turned = "" if one["told"] == one["phrase"] else f', read as "{one["told"]}"'
        lines.append(
            f'{shown(result.path)}: "{one["phrase"]}"{turned}: peak {peak["value"]:.3f} at row '
            f"{peak['row']}, column {peak['column']}{earlier} -> {shown(result.outputs[f'picture.{number}'])}"
        )
    return lines
