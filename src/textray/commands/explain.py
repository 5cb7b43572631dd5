"""`textray explain`: attention, weight of each word, and counterfactual zones of a film."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from textray import registry
from textray.commands.console import note, shown, work_through
from textray.commands.segment import CONVENTION, AsJson, Inputs, Model, Out, Overwrite, Side, StrictText, Threads, Whose

if TYPE_CHECKING:
    from collections.abc import Callable

    from textray.explain.run import Explainer
    from textray.inference.bundle import Bundle
    from textray.inference.run import FileResult

_OUT = Path("textray-out")

app = typer.Typer(help="Show what the network did with a film and its words.", no_args_is_help=True)


class Columns(StrEnum):
    """Which tokens get a column of their own."""

    PLACES = "places"
    ALL = "all"


Words = Annotated[str, typer.Option(help="Report, or any words that name places.")]
Encoder = Annotated[
    Path | None, typer.Option(help="Folder of the frozen text encoder, where it is not installed as a package.")
]


@app.command("attention")
def attention(
    inputs: Inputs,
    text: Words,
    laterality: Whose = Side.PATIENT,
    columns: Annotated[
        Columns, typer.Option(help="Draw the words of place and the most attended others, or all.")
    ] = Columns.PLACES,
    model: Model = None,
    text_encoder: Encoder = None,
    out: Out = _OUT,
    threads: Threads = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Show where on the film each word is looked at, level by level; writes a picture and a record."""
    make = partial(_explainer, "attention:AttentionExplainer", columns=columns.value, text_encoder=text_encoder)
    _run(make, inputs, text, laterality, model, out, threads, overwrite=overwrite, as_json=as_json)


@app.command("words")
def words(
    inputs: Inputs,
    text: Words,
    laterality: Whose = Side.PATIENT,
    model: Model = None,
    text_encoder: Encoder = None,
    out: Out = _OUT,
    threads: Threads = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Show what each word weighs, by attention and by leaving it out; writes a picture and a record."""
    make = partial(_explainer, "words:WordsExplainer", text_encoder=text_encoder, threads=threads)
    _run(make, inputs, text, laterality, model, out, threads, overwrite=overwrite, as_json=as_json)


@app.command("zones")
def zones(
    inputs: Inputs,
    text: Annotated[str | None, typer.Option(help="Report, or any words that name places.")] = None,
    laterality: Whose = Side.PATIENT,
    strict_text: StrictText = False,
    model: Model = None,
    out: Out = _OUT,
    threads: Threads = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Show what the mask would be if the words named other zones; writes a picture and a record. Needs no torch."""
    from textray.explain.zones import ZonesExplainer

    def make(_: Bundle) -> Explainer:
        return ZonesExplainer()

    _run(make, inputs, text, laterality, model, out, threads, overwrite=overwrite, as_json=as_json, strict=strict_text)


def _explainer(name: str, bundle: Bundle, **options: object) -> Explainer:
    """Load a class of `textray.explain`; what needs torch says so."""
    made: Explainer = registry.load(f"textray.explain.{name}")(bundle, **options)
    return made


def _run(
    make: Callable[[Bundle], Explainer],
    inputs: list[str],
    text: str | None,
    laterality: Side,
    model: str | None,
    out: Path,
    threads: int | None,
    *,
    overwrite: bool,
    as_json: bool,
    strict: bool = False,
) -> None:
    """Plan and explain; the convention of left and right is printed in any case."""
    from textray.explain.run import SIDES, Explaining, needs_words
    from textray.inference.bundle import Bundle
    from textray.inference.segment_run import plan
    from textray.inference.segmenter import Predictor
    from textray.records import Laterality

    bundle = Bundle.load(model)
    needs_words(bundle)
    given = Laterality(laterality.value)
    todo = plan(inputs, out, text=text, laterality=given, strict_text=strict, overwrite=overwrite)
    explainer = make(bundle)
    for side in todo.sides:
        note(CONVENTION[side])
    note(SIDES)
    run = Explaining(Predictor(bundle, threads=threads), todo, explainer)
    raise typer.Exit(work_through(run, "explain", _lines, as_json=as_json, kind=explainer.kind))


def _lines(result: FileResult) -> list[str]:
    earlier = " (finished by an earlier run)" if result.status == "finished" else ""
    return [f"{shown(result.path)}{earlier} -> {shown(result.outputs['picture'])}, {shown(result.outputs['record'])}"]
