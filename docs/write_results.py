"""Write the results table of the README: scores of the weights inside, and those that papers print.

    python docs/write_results.py

Scores come from the summaries of `textray evaluate` in `docs/results/qata-test`, printed ones from
`configs/reproduce/tables.yaml`. A printed Dice stands in the column of the averaging that its IoU fits.
"""

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from textray.evaluate.page import cell, grid
from textray.reproduce.compare import Protocol, protocol_of
from textray.reproduce.tables import Scores, Table, read_tables

START, END = "<!-- results -->", "<!-- /results -->"
WIDTH = 120
DOCS = Path(__file__).resolve().parent
SUMMARIES = DOCS / "results" / "qata-test"
DATA = "qata_cov19"
LINES = (
    ("qata-test-original-captions", "oracle", "caption, original wording"),
    ("qata-test-sgseg-captions", "oracle", "caption, revised wording"),
    ("qata-test-sgseg-captions", "none", "none"),
    ("qata-test-sgseg-captions", "generated", "own report"),
    ("qata-test-sgseg-captions", "shuffled", "shuffled caption"),
)
"""Summary, text mode and its words of each line of the weights inside."""
PRINTED = {
    "mmi-unet-table1": ("mmi_unet", "guide_decoder", "lvit", "unet"),
    "sgseg-table1": ("sgseg", "guide_decoder"),
}
"""Rows of papers' tables, by table."""
COLUMNS = {"dice_pooled": "Dice, pooled", "dice_per_image": "Dice, per image"}
TEXTS = {"oracle": "caption", "none": "none", "generated": "own report"}


def printed_rows() -> Iterator[tuple[str, str, Scores]]:
    """Method, text and printed scores of the papers' rows."""
    for name, chosen in PRINTED.items():
        table = read_tables()[name]
        assert isinstance(table, Table)
        rows = {row.name: row for row in table.rows}
        for row in (rows[key] for key in chosen):
            printed = table.printed_row(row)
            assert printed is not None, f"{row.name} of {name} has no printed row"
            yield row.label, TEXTS[row.mode], printed.scores[DATA]


def printed_cells(scores: Scores) -> list[str]:
    """A printed Dice as pooled and per image: in the column whose averaging its IoU fits, else as unclear."""
    dice = f"{scores.dice / 100:.{scores.decimals + 2}f}"
    protocol = protocol_of(scores)
    if protocol is Protocol.IMPOSSIBLE:
        raise SystemExit(f"no masks have the printed scores {scores}")
    if protocol is Protocol.PER_IMAGE:
        return ["–", dice]
    return [dice if protocol is Protocol.POOLED else f"{dice} (unclear)", "–"]


def provenance(summaries: dict[str, dict[str, Any]]) -> str:
    """Where our scores come from, in one sentence; the summaries must agree in all but their captions."""
    facts = {
        (
            f"`{summary['command'].partition(' --text-mode')[0]}`",
            f"commit `{summary['git']['commit'][:12]}`",
            f"weights `{summary['model']['name']}` (`{summary['model']['sha256'][:12]}`)",
            f"{summary['images']:,} images of {summary['patients']:,} patients",
            f"[low, high]: {summary['estimator'].partition(';')[0]}",
        )
        for summary in summaries.values()
    }
    if len(facts) != 1:
        raise SystemExit(f"the summaries are not of one run: {facts}")
    files = " and ".join(f"[{name}](docs/results/{SUMMARIES.name}/{name}.md)" for name in summaries)
    return f"{'; '.join(facts.pop())}; captions and full commands: {files}."


def results() -> str:
    """The table and what stands below it, ending with a line break."""
    summaries = {
        name: json.loads((SUMMARIES / f"{name}.json").read_text(encoding="utf-8"))
        for name in dict.fromkeys(name for name, *_ in LINES)
    }
    ours = []
    for name, mode, text in LINES:
        scores = summaries[name]["modes"][mode]
        ours.append([f"`{summaries[name]['model']['name']}`", text, *(cell(scores[column]) for column in COLUMNS)])
    papers = [[f"{method}, printed", text, *printed_cells(scores)] for method, text, scores in printed_rows()]
    note = "Printed: the papers' own numbers, in the column to whose averaging their IoU fits; "
    note += "unclear: it fits neither exactly."
    table = grid(["method", "text", *COLUMNS.values()], [*ours, *papers], "ll")
    return "\n".join([table, "", *wrapped(f"{provenance(summaries)} {note}"), ""])


def wrapped(text: str) -> list[str]:
    """Lines of at most `WIDTH` characters; code and links stay on one line."""
    parts = "`".join(part.replace(" ", "\0") if i % 2 else part for i, part in enumerate(text.split("`")))
    lines = textwrap.wrap(parts, WIDTH, break_long_words=False, break_on_hyphens=False)
    return [line.replace("\0", " ") for line in lines]


def fill(page: str, text: str) -> str:
    """Put a text between the markers of a page."""
    before, start, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise SystemExit(f"the page has no {START} ... {END}")
    return f"{before}{START}\n{text}{END}{after}"


def main() -> None:
    """Change the README beside this folder."""
    readme = DOCS.parent / "README.md"
    readme.write_text(fill(readme.read_text(encoding="utf-8"), results()), encoding="utf-8")


if __name__ == "__main__":
    main()
