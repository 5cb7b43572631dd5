"""Commands for readers of images: segment, demo and report."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from textray.commands.console import note, note_warnings, say, say_json, shown, work_through
from textray.errors import UsageError

if TYPE_CHECKING:
    from textray.inference.run import FileResult
    from textray.inference.segment_run import Plan

_OUT = Path("textray-out")


class Free(StrEnum):
    """Prompt of a film without words."""

    GENERATED = "generated"
    NONE = "none"


class Plane(StrEnum):
    """Plane of the SEG of a projection film."""

    NOMINAL = "nominal"
    NONE = "none"


class Side(StrEnum):
    """Whose left and right the words mean."""

    PATIENT = "patient"
    VIEWER = "viewer"


Model = Annotated[str | None, typer.Option(help="Weights inside the package by name, or a bundle folder.")]
Out = Annotated[Path, typer.Option(help="Folder of the results.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads of the network; by default one for each processor.")]
Whose = Annotated[Side, typer.Option(help="Whose left and right the words mean.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on the standard output.")]
Inputs = Annotated[
    list[str], typer.Argument(help="Images (DICOM, PNG, JPEG, TIFF, BMP, JPEG 2000), folders or patterns.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Work again on what is finished.")]
StrictText = Annotated[bool, typer.Option("--strict-text", help="Refuse words that name no zone.")]


def segment(
    inputs: Inputs,
    text: Annotated[str | None, typer.Option(help="Report, or any words that name places; for every input.")] = None,
    text_file: Annotated[Path | None, typer.Option(help="File that holds such a report.")] = None,
    texts: Annotated[Path | None, typer.Option(help="CSV of reports: image,text[,laterality].")] = None,
    laterality: Whose = Side.PATIENT,
    strict_text: StrictText = False,
    text_free: Annotated[
        Free | None,
        typer.Option(help="What films without words get: a report that the network writes, or none."),
    ] = None,
    edit: Annotated[
        str | None,
        typer.Option(metavar="SENTENCE", help="A whole sentence in place of the report that the network writes."),
    ] = None,
    presence_threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Probability of a lesion below which the mask is empty; 0 never empties it."),
    ] = None,
    strict_input: Annotated[
        bool,
        typer.Option(
            "--strict-input", help="Refuse pictures in which no lungs are found, and CT volumes without sides."
        ),
    ] = False,
    dicom: Annotated[
        str | None,
        typer.Option(metavar="KINDS", help="DICOM objects of the film's study: seg,sr,overlay or all."),
    ] = None,
    seg_plane: Annotated[
        Plane, typer.Option(help="Plane of a SEG: a nominal one, which viewers need, or none.")
    ] = Plane.NOMINAL,
    make_uids: Annotated[
        bool, typer.Option("--make-uids", help="Make UIDs for films without a study, and write copies of these films.")
    ] = False,
    deidentified: Annotated[
        bool, typer.Option("--deidentified", help="Leave patient and study text out of DICOM objects.")
    ] = False,
    sr_text: Annotated[bool, typer.Option("--sr-text", help="Put the given report into the SR.")] = False,
    model: Model = None,
    out: Out = _OUT,
    threads: Threads = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Find lesions: writes mask, overlay and record of each input, and run.json.

    A CT (a NIfTI file, or a folder of slices) needs weights that know CT.
    What an earlier run finished is skipped. A file that is refused is listed with its reason, and the rest goes on.
    Exit codes: 0 done, 1 crash, 2 usage, 3 some files refused.
    """
    from textray.inference.segment_run import plan
    from textray.records import DicomOut, Laterality
    from textray.text.tables import TextTable, read_report

    given = {"--text": text, "--text-file": text_file, "--texts": texts}
    if len(named := [name for name, value in given.items() if value is not None]) > 1:
        raise UsageError(f"both {' and '.join(named)} were given", expected="one of them")
    if text_file is not None:
        text, notices = read_report(text_file)
        note_warnings(notices)
    objects = None
    if dicom is not None:
        objects = DicomOut(
            kinds=DicomOut.parse(dicom),
            plane=seg_plane.value,
            make_uids=make_uids,
            deidentified=deidentified,
            sr_text=sr_text,
        )
    elif seg_plane is not Plane.NOMINAL or make_uids or deidentified or sr_text:
        raise UsageError("an option of DICOM objects needs --dicom", expected="--dicom seg,sr,overlay or all")
    todo = plan(
        inputs,
        out,
        text=text,
        texts=None if texts is None else TextTable.read(texts),
        laterality=Laterality(laterality.value),
        strict_text=strict_text,
        overwrite=overwrite,
        text_free=None if text_free is None else text_free.value,
        edit=edit,
        presence_threshold=presence_threshold,
        strict_input=strict_input,
        dicom=objects,
    )
    note_warnings(todo.notices)
    code, _ = _run(todo, model, threads, as_json=as_json)
    raise typer.Exit(code)


def demo(out: Out = _OUT, model: Model = None, threads: Threads = None) -> None:
    """Segment a real chest film that the package pydicom-data brings; needs no network."""
    from textray.inference.inputs import DEMO_FILM, DEMO_PACKAGE, demo_film
    from textray.inference.results import read_record
    from textray.inference.segment_run import plan

    film = demo_film()
    if film is None:
        raise UsageError(
            f"the demo needs the film {DEMO_FILM} of the Python package {DEMO_PACKAGE}, which is not installed",
            do="Install it with: pip install 'textray[demo]'",
        )
    note(f"Film: {shown(film)}")
    code, results = _run(plan([film], out, overwrite=True), model, threads, as_json=False)
    written = results[-1].outputs if code == 0 else {}
    record = read_record(written["record"]) if written else None
    if record is not None:
        for kind, path in written.items():
            say(f"{kind + ':':11}{shown(path)}")
        own = record.get("own_report") or {}
        sentences = [(side, text) for side, text in sorted((own.get("sentence") or {}).items()) if text]
        if sentences and not own["used"]:  # the patient's sides, or else the viewer's
            side, text = sentences[0]
            say(f"Its own report, which segment --text-free generated uses ({side}'s sides): {text}")
        for line in (*_film_lines(record), *_zone_table(record)):
            say(line)
        note("Not a medical device: for research only.")
    raise typer.Exit(code)


def report(
    text: Annotated[str, typer.Argument(help="Report, or any words that name places.")],
    laterality: Whose = Side.PATIENT,
    as_json: AsJson = False,
) -> None:
    """Show what is understood of a report: zones, the sentence that the network is given, and unused words."""
    from textray.inference.record import describe_report
    from textray.text.zones import parse

    understood = parse(text, laterality=laterality.value)
    values = describe_report(understood)
    if as_json:
        say_json(values)
        return
    say(CONVENTION[laterality.value])
    say("zones by image side (viewer's left and right):")
    for name, state in values["zones"].items():
        say(f"  {name:14}{state}")
    used, written = values["sentence"]["viewer"], values["sentence"][laterality.value]
    say(f"sentence, viewer's sides: {used or 'none; the network works from the picture alone'}")
    if laterality is Side.PATIENT and written:
        say(f"sentence, patient's sides: {written}")
    if understood.unused:
        say("words that changed nothing: " + ", ".join(understood.unused))
    note_warnings(understood.notices)


CONVENTION: dict[str, str] = {
    "patient": "Left and right in the words are the patient's (on the standard film the patient's left is the viewer's "
    "right); --laterality viewer changes that.",
    "viewer": "Left and right in the words are the viewer's, as in the picture.",
    "unknown": "Left and right in the words are of unknown convention and taken as the viewer's.",
}


_CAPTIONS = "These weights know captions, which textray info lists; left and right in them are the picture's."


def _run(todo: Plan, model: str | None, threads: int | None, *, as_json: bool) -> tuple[int, list[FileResult]]:
    """Work through a plan with a progress bar; returns the exit code and the result of each input."""
    import textray
    from textray.inference.segment_run import Segmenting

    run = Segmenting(textray.load(model, threads=threads), todo)
    for side in todo.sides:
        note(_CAPTIONS if run.predictor.bundle.captions else CONVENTION[side])
    return work_through(run, "segment", _lines, as_json=as_json), run.results


def _lines(result: FileResult) -> list[str]:
    share, mode, written = (result.details.get(key) for key in ("share", "text_mode", "written"))
    earlier = ", finished by an earlier run" if result.status == "finished" else ""
    earlier += f": {written}" if written else ""
    presence, unused = result.details.get("presence"), result.details.get("unused")
    seen = "" if presence is None else f"; any lesion: {presence:.0%}"
    whole = "CT" if result.outputs["mask"].suffix == ".gz" else "picture"
    return [
        f"{shown(result.path)}: {share or 0:.1%} of the {whole} is lesion (text: {mode}{earlier}{seen}) -> "
        f"{shown(result.outputs['mask'])}",
        *([f"{shown(result.path)}: words that changed nothing: {unused}"] if unused else []),
    ]


def _film_lines(record: dict[str, Any]) -> list[str]:
    """What the network says of the film as a whole, where it says anything."""
    from textray.inference.own_report import finding
    from textray.records import SIDES

    lines, film, lungs = finding(record), record.get("finding"), record.get("lungs")
    if film is not None and film["lesion"]:
        lines.append(f"Probability of any lesion in this film: {film['probability']:.1%}")
    if lungs is not None:
        shares = [f"{side} {_share(lungs[side]['affected'])}" for side in SIDES]
        lines.append(f"Affected share of each lung (viewer's sides): {', '.join(shares)}")
    return lines


def _share(affected: float | None) -> str:
    return "not found" if affected is None else f"{affected:.1%}"


def _zone_table(record: dict[str, Any]) -> list[str]:
    zones = record["lesion"]["zones"]
    unit = "pixels" if record["lesion"]["mm2"] is None else "mm2"
    whole, left, right = ("lungs", "left", "right") if "lungs" in record else ("picture", "left half", "right half")
    lines = [
        f"Lesion by zone of the {whole} ({unit}, share of the lesion):",
        f"{'':8}{left:>22}{right:>22}   (viewer's sides)",
    ]
    for level in ("upper", "middle", "lower"):
        cells = (zones[f"{side} {level}"] for side in ("left", "right"))
        lines.append(f"{level:8}" + "".join(f"{cell[unit]:>14} {cell['share']:>6.1%}" for cell in cells))
    return lines
