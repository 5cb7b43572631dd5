"""Pages of tables of weights that are scored as they are, beside the numbers of the grounding paper.

``table.md`` is for the eye, ``table.csv`` has a line for each row of maps under each range, whole and by class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from textray import __version__
from textray.evaluate.maps import Row as Maps
from textray.evaluate.page import OVERLAP, SAME_DRAWS, cell, grid, meanings, overlap_heads, pair_rows
from textray.reproduce import FLOORS, Order, page
from textray.reproduce.plan import SPLIT, State, WeightsResult
from textray.reproduce.tables import Block, WeightsTable

_SCORES = (*OVERLAP, *page.POINTS)
_FIELDS = (
    "label", "data", "phrases", "maps", "normalise", "class", "state", "reason", "protocol", "cases",
    *(f"{name}{part}" for name in _SCORES for part in ("", "_low", "_high")),
    "best_threshold", "best_iou", "best_dice", "weights", "ids", "command",
)  # fmt: skip
PAPER = "the grounding paper"
CLASSES = (
    "Pneumonia", "Pneumothorax", "Consolidation", "Atelectasis", "Edema", "Cardiomegaly", "Lung Opacity",
    "Pleural Effusion",
)  # fmt: skip
"""Classes of MS-CXR in the order of the grounding paper's Tables 2 and 3."""
_OUR_PROTOCOL, _THEIR_PROTOCOL = "thresholds 0.1 to 0.5", "MedKLIP's own"
_UNKNOWN_PROTOCOL = "as printed, origin not told"


def markdown(table: WeightsTable, results: Sequence[WeightsResult], order: Order) -> str:
    """The whole ``table.md``; folders of the command are placeholders."""
    blocks = [b for block in table.blocks for b in _block(table, block, [r for r in results if r.data == block.data])]
    made = [f"Command: `{order.command(trains=False)}`", f"TextRay {__version__}."]
    for label, summary in ((r.label, r.summary) for r in results if r.summary is not None):
        model, data = summary["model"], summary["data"]
        weights = "" if model is None else f" ({model['name']} {model['version']}, `{model['sha256'][:12]}`)"
        made.append(
            f"{label}{weights}, {data['name']} `{data['split']}`, {data['kind']}: {summary['phrases']:,} phrases "
            f"(ids `{data['ids_sha256'][:12]}`), {page.commit_of(summary)}; [low, high]: {summary['estimator']}."
        )
    return page.document(table.title, blocks, made, table.notes)


def csv_table(table: WeightsTable, results: Sequence[WeightsResult]) -> str:
    """The whole ``table.csv``: printed rows, then all rows of maps under each range, whole and by class."""
    lines = _printed_values(table)
    for result in results:
        about = {"label": result.label, "data": result.data, "phrases": result.kind, "state": str(result.state),
                 "reason": result.reason}  # fmt: skip
        if (summary := result.summary) is None:
            lines.append(about)
            continue
        weights = "" if summary["model"] is None else summary["model"]["sha256"]
        about |= {"protocol": _OUR_PROTOCOL, "weights": weights, "ids": summary["data"]["ids_sha256"],
                  "command": summary["command"]}  # fmt: skip
        lines += [about | line for line in page.map_values(summary["rows"], _SCORES, by_class=True)]
    return page.csv_text(_FIELDS, lines)


def _printed_values(table: WeightsTable) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for label, by_data in table.printed.items():
        theirs = _THEIR_PROTOCOL if table.by_class is None else _UNKNOWN_PROTOCOL
        about: dict[str, Any] = {"maps": "printed", "state": "printed", "label": label}
        about["protocol"] = _OUR_PROTOCOL if label == PAPER else theirs
        for data, values in by_data.items():
            if table.by_class is None:
                lines.append(about | {"data": data} | dict(zip(OVERLAP, values, strict=True)))
            else:
                classes = zip((*CLASSES, ""), values, strict=True)
                lines += [about | {"data": data, "class": name, table.by_class: value} for name, value in classes]
    return lines


def _block(table: WeightsTable, block: Block, results: Sequence[WeightsResult]) -> list[str]:
    """One data set: its phrases, scores beside the printed ones, differences, and what the rows are."""
    absent = [result for result in results if result.state in (State.NOT_AVAILABLE, State.NO_ROOT)]
    printed = {label: [f"{v:.3f}" for v in values[block.data]] for label, values in table.printed.items()}
    blocks = [f"## {block.title}"]
    blocks += [f"Not scored: {page.state_words([result])}. Printed rows only." for result in absent]
    for place, kind in enumerate(dict.fromkeys(result.kind for result in results)):
        rows = [result for result in results if result.kind == kind and result not in absent]
        summaries = [result.summary for result in rows if result.summary is not None]
        ranges = list(summaries[0]["normalisations"]) if summaries else []
        scored = [page.Scored(r.label, page.state_words([r]), [r.summary["rows"]] if r.summary else []) for r in rows]
        lines = page.maps_lines(scored, sorted(scored, key=lambda s: s.label != FLOORS))  # the floors' scores first
        blocks += [_phrases(summaries[0], kind)] if summaries else []
        if table.by_class is None:
            beside = (PAPER, *printed[PAPER])
            blocks += [f"### Protocol: {_OUR_PROTOCOL}", page.maps_table(lines, ranges, lambda s: cell(s[0]), beside)]
        else:
            for how in ranges or ["minmax"]:
                of_kind = (f", {kind}" if kind else "") + (f", `{how}`" if rows else "")
                blocks.append(f"### {table.by_class.title()} by class{of_kind}")
                theirs = [[label, "–", "printed", *values] for label, values in printed.items() if place == 0]
                names = next((summary["classes"] for summary in summaries), ())
                cells = [_class_cells(line, how, table.by_class, next(iter(names), "")) for line in lines]
                blocks.append(grid(["row", "maps", "state", *CLASSES, "mean"], theirs + cells, "lll"))
            if rows:
                blocks += [f"### All measures, {kind}", page.maps_table(lines, ranges, lambda s: cell(s[0]))]
        blocks += [*_differences(rows), meanings(summaries)]
    if table.by_class is None:
        others = [[label, *values] for label, values in printed.items() if label != PAPER]
        head = ["method", "printed `iou`", "printed `dice`"]
        blocks += [f"### Protocol: {_THEIR_PROTOCOL}", table.baselines, grid(head, others, "l")]
    return blocks


def _phrases(summary: page.Content, kind: str) -> str:
    frequent = "; ".join(f"“{phrase}”" for phrase in summary["wordings"]["most_frequent"])
    words = "the data set's own sentences" if kind == "phrase" else frequent
    count = f"{summary['phrases']:,} on {summary['images']:,} images"
    return f"Phrases of kind `{kind}` on `{SPLIT}`: {count}. Asked: {words}."


def _class_cells(line: page.MapsLine, how: str, score: str, only: str) -> list[str]:
    """A row of maps by class; a set of one class has no scores by class: they are those of the whole."""
    cells = ["–"] * (len(CLASSES) + 1)
    if line.scores:
        scores = line.scores[0][how]
        by_class = scores["classes"] or {only: scores["scores"]}
        cells = [cell(by_class.get(name, {}).get(score)) for name in CLASSES] + [cell(scores["scores"][score])]
    return [line.label, f"`{line.maps}`", line.state.partition(":")[0], *cells]  # the reason stands below


def _differences(results: Sequence[WeightsResult]) -> list[str]:
    """Each network minus each floor and control, on the same phrases."""
    models = [(r.label, r.summary) for r in results if r.summary is not None and r.label != FLOORS]
    if not models:
        return []
    rows = [
        [label, f"`{pair.removeprefix(f'{Maps.MODEL} - ')}`", *cells]
        for label, summary in models
        for pair, *cells in pair_rows(summary)
    ]
    head = ["row", "minus", "phrases", *overlap_heads(models[0][1]["normalisations"])]
    return ["### Weights minus floors and controls", grid(head, rows, "ll"), SAME_DRAWS]
