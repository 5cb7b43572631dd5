"""The command that turns a published checkpoint into a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from textray import registry
from textray.commands.console import note, printable, say, say_json, shown

_SHOWN = 8


def import_(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Network, such as mmi_unet.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Checkpoint as the network's authors published it.")],
    out: Annotated[Path, typer.Option(help="Folder of the bundle.")],
    text_encoder: Annotated[
        Path | None, typer.Option(help="Folder with vocab.txt and config.json of the text encoder.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Data set in colour that it was learnt from, such as monuseg; else films.")
    ] = None,
    root: Annotated[Path | None, typer.Option(help="Folder of that data set; its captions go into the bundle.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON on the standard output.")] = False,
) -> None:
    """Write a bundle from a checkpoint that a network's authors published.

    The file is read in a process of its own that runs nothing of it. Exit codes: 0 done, 2 usage, 3 file refused.
    """
    run = registry.load("textray.importer.convert:import_checkpoint")
    report = run(name, file, out, text_encoder_folder=text_encoder, data=data, root=root)
    if as_json:
        say_json(report)
    else:
        say(f"mapped:  {len(report['mapped'])} tensors of the network, text encoder from the {report['text_encoder']}")
        for kind in ("dropped", "skipped"):
            more = ", ..." if len(report[kind]) > _SHOWN else ""
            say(f"{kind}: {len(report[kind])} {printable(', '.join(report[kind][:_SHOWN]))}{more}".rstrip())
    for notice in report["notices"]:
        note(f"warning {notice['code']}: {notice['text']} {notice['remedy']}")
    note(f"Bundle: {shown(out)}")
