"""Pages of Tables 1, 2 and 3 of the grounding paper: printed rows beside ours, a block for each protocol."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from textray import __version__
from textray.inference.grounding_cases import CONTROLS, FLOORS
from textray.inference.grounding_cases import Row as Asked
from textray.metrics.table import cell
from textray.reproduce.grounding_plan import FLOORS as FLOORS_LABEL
from textray.reproduce.grounding_plan import SPLIT, Block, GroundingTable, Scored
from textray.reproduce.grounding_printed import CLASSES, OWN, TABLE_1, TABLE_2, TABLE_3
from textray.reproduce.page import markdown_row
from textray.reproduce.runner import State

_OVERLAP, _POINTS = ("iou", "dice"), ("cnr_signed", "pointing")
_FIELDS = (
    "label", "data", "phrases", "maps", "normalise", "class", "state", "reason", "protocol", "cases",
    *(f"{name}{part}" for name in (*_OVERLAP, *_POINTS) for part in ("", "_low", "_high")),
    "best_threshold", "best_iou", "best_dice", "weights", "ids", "command",
)  # fmt: skip
_OURS, _THEIRS, _UNTOLD = "thresholds 0.1 to 0.5", "MedKLIP's own", "as printed, origin not told"
_BY_CLASS = {"dice": TABLE_2, "iou": TABLE_3}
_NOTES = (
    "Nothing is trained here. The paper learnt from 377,110 films of MIMIC-CXR; what weights of ours have learnt from "
    "stands in their own cards.",
    "IoU and Dice are means over phrases of a class, then over classes, then over the thresholds 0.1, 0.2 … 0.5 "
    "(`map > t`). `minmax` stretches each map to [-1, 1] first, as the authors' code does; `none` takes cosines as "
    "they are, as their article says. Which of the two was printed is not told, and the two are never compared with "
    "each other.",
    "The paper prints no spread, no seeds and no number of phrases.",
    "A map below `mean_mask`, the mean box or mask of the training part, or below `centre` where there is none, has "
    "not localized. Cardiomegaly is mostly anatomy: a mean box scores high there.",
    "The best single threshold is chosen on the very phrases that are scored: an upper bound, not a result.",
)
_BASELINES = (
    "The paper's rows of GLoRIA, BioViL and MedKLIP are, to three decimals, those of MedKLIP's own paper, which has "
    "one threshold of its own and other maps. They are no rows of the protocol above, and neither the paper's last "
    "row nor ours can be compared with them."
)


def markdown(table: GroundingTable, scored: Sequence[Scored], *, command: str) -> str:
    """The whole ``table.md``."""
    lines = [f"# {table.title}", ""]
    for block in table.blocks:
        lines += _block(table, block, [found for found in scored if found.data == block.data])
    lines += ["## How it was made", "", f"- Command: `{command}`", *(f"- {line}" for line in _provenance(scored))]
    return "\n".join([*lines, "", "## How to read it", "", *(f"- {note}" for note in _NOTES)]) + "\n"


def csv_table(table: GroundingTable, scored: Sequence[Scored]) -> str:
    """The whole ``table.csv``: printed rows, then every row of maps under every range, whole and by class."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _FIELDS, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(_printed_lines(table))
    for found in scored:
        about = {"label": found.label, "data": found.data, "phrases": found.kind, "state": str(found.state),
                 "reason": found.reason}  # fmt: skip
        if found.summary is None:
            writer.writerow(about)
            continue
        model = found.summary["model"]
        about |= {"protocol": _OURS, "weights": "" if model is None else model["sha256"]}
        about |= {"ids": found.summary["data"]["ids_sha256"], "command": found.summary["command"]}
        for maps, by_range in found.summary["rows"].items():
            for how, scores in by_range.items():
                line = about | {"maps": maps, "normalise": how}
                best = {f"best_{name}": scores["best_threshold"][name] for name in ("threshold", *_OVERLAP)}
                writer.writerow(line | {"cases": scores["cases"]} | best | _columns(scores["scores"]))
                for label, of_class in scores["classes"].items():
                    writer.writerow(line | {"class": label} | _columns(of_class))
    return text.getvalue()


def _columns(scores: Mapping[str, Mapping[str, float | None]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name in (*_OVERLAP, *_POINTS):
        values |= {name: scores[name]["value"], **{f"{name}_{end}": scores[name][end] for end in ("low", "high")}}
    return values


def _printed_lines(table: GroundingTable) -> list[dict[str, Any]]:
    about = {"maps": "printed", "state": "printed"}
    if table.by_class is None:
        return [
            about | {"label": label, "data": data, "iou": pair.iou, "dice": pair.dice,
                     "protocol": _OURS if label == OWN else _THEIRS}
            for label, scores in TABLE_1.items() for data, pair in scores.items()
        ]  # fmt: skip
    return [
        about | {"label": label, "data": "ms_cxr", "class": "" if name == "mean" else name, table.by_class: value,
                 "protocol": _OURS if label == OWN else _UNTOLD}
        for label, scores in _BY_CLASS[table.by_class].items() for name, value in scores.items()
    ]  # fmt: skip


def _block(table: GroundingTable, block: Block, scored: Sequence[Scored]) -> list[str]:
    lines = [f"## {block.title}", ""]
    absent = [found for found in scored if found.state in (State.NOT_THERE, State.NO_ROOT)]
    lines += [line for found in absent for line in (f"Not scored: {_state(found)}. Printed rows only.", "")]
    kinds = list(dict.fromkeys(found.kind for found in scored if found.kind))
    for place, kind in enumerate(kinds or [""]):
        own = [found for found in scored if found.kind == kind and found not in absent]
        lines += _phrases(own, kind)
        if table.by_class is None:
            lines += [f"### Protocol: {_OURS}", "", *_overview(own, _printed_pair(block)), ""]
        else:
            for how in _ranges(own) or ["minmax"]:
                shown = f", `{how}`" if own else ""
                lines += [f"### {table.by_class.title()} by class{f', {kind}' if kind else ''}{shown}", ""]
                printed = _BY_CLASS[table.by_class] if place == 0 else {}
                lines += [*_by_class(own, how, table.by_class, printed), ""]
            if own:
                lines += [f"### All measures, {kind}", "", *_overview(own, None), ""]
        lines += _differences(own)
        lines += _meanings(own)
    if table.by_class is None:
        lines += [f"### Protocol: {_THEIRS}", "", _BASELINES, ""]
        lines += markdown_row(["method", "printed `iou`", "printed `dice`"]) + markdown_row(["---", "---:", "---:"])
        for label, scores in TABLE_1.items():
            if label != OWN:
                pair = scores[block.data]
                lines += markdown_row([label, f"{pair.iou:.3f}", f"{pair.dice:.3f}"])
        lines.append("")
    return lines


def _phrases(own: Sequence[Scored], kind: str) -> list[str]:
    first = next((found.summary for found in own if found.summary is not None), None)
    if first is None:
        return []
    asked = "; ".join(f"“{phrase}”" for phrase in first["wordings"]["most_frequent"])
    words = "the data set's own sentences" if kind == "phrase" else asked
    return [
        f"Phrases of kind `{kind}` on `{SPLIT}`: {first['phrases']:,} on {first['images']:,} images. Asked: {words}.",
        "",
    ]


def _rows(own: Sequence[Scored]) -> list[tuple[str, Asked, str, Mapping[str, Any] | None]]:
    """Label, what it is, state and scores by range: weights first, then floors, then controls."""
    models = [found for found in own if found.label != FLOORS_LABEL]
    rows: list[tuple[str, Asked, str, Mapping[str, Any] | None]] = [
        (found.label, Asked.MODEL, _state(found), _of(found, Asked.MODEL)) for found in models
    ]
    told: dict[Asked, list[Mapping[str, Any]]] = {}
    for found in (*(f for f in own if f.label == FLOORS_LABEL), *models):
        if found.label == FLOORS_LABEL and found.summary is None:
            rows.append(("floors", Asked.FULL, _state(found), None))
        for floor in FLOORS:
            scores = _of(found, floor)
            if scores is not None and scores not in told.setdefault(floor, []):
                # The grid of a network that pads films is another, and so are floors on it.
                label = "floor" if not told[floor] else f"floor, on the grid of {found.label}"
                told[floor].append(scores)
                rows.append((label, floor, "", scores))
    for found in models:
        for control in (Asked.SIDED, *CONTROLS):
            if (scores := _of(found, control)) is not None:
                rows.append((found.label, control, "", scores))
    return rows


def _of(found: Scored, asked: Asked) -> Mapping[str, Any] | None:
    scores: Mapping[str, Any] | None = (found.summary or {}).get("rows", {}).get(str(asked))
    return scores


def _ranges(own: Sequence[Scored]) -> list[str]:
    return list(next((found.summary["normalisations"] for found in own if found.summary is not None), ()))


def _printed_pair(block: Block) -> tuple[float, float]:
    pair = TABLE_1[OWN][block.data]
    return pair.iou, pair.dice


def _overview(own: Sequence[Scored], printed: tuple[float, float] | None) -> list[str]:
    ranges = _ranges(own)
    head = [f"{how}: `{name}`" for how in ranges for name in _OVERLAP] + [f"`{name}`" for name in _POINTS if ranges]
    head += [f"{how}: best threshold, IoU / Dice" for how in ranges]
    extra = ["printed `iou`", "printed `dice`"] if printed is not None else []
    lines = markdown_row(["row", "maps", "state", *extra, *head])
    lines += markdown_row(["---"] * 3 + ["---:"] * (len(head) + len(extra)))
    if printed is not None:
        lines += markdown_row([OWN, "–", "printed", *(f"{value:.3f}" for value in printed), *["–"] * len(head)])
    for label, asked, state, by_range in _rows(own):
        cells = ["–"] * len(head)
        if by_range is not None:
            cells = [cell(by_range[how]["scores"][name]) for how in ranges for name in _OVERLAP]
            cells += [cell(by_range[ranges[0]]["scores"][name]) for name in _POINTS]
            for how in ranges:
                best = by_range[how]["best_threshold"]
                pair = " / ".join("–" if best[name] is None else f"{best[name]:.3f}" for name in _OVERLAP)
                cells.append(f"{pair} > {best['threshold']:g}")
        lines += markdown_row([label, f"`{asked}`", state, *["–"] * len(extra), *cells])
    return lines


def _by_class(own: Sequence[Scored], how: str, score: str, printed: Mapping[str, Mapping[str, float]]) -> list[str]:
    lines = markdown_row(["row", "maps", "state", *CLASSES, "mean"])
    lines += markdown_row(["---"] * 3 + ["---:"] * (len(CLASSES) + 1))
    for label, values in printed.items():
        lines += markdown_row([label, "–", "printed", *(f"{values[name]:.3f}" for name in (*CLASSES, "mean"))])
    for label, asked, state, by_range in _rows(own):
        cells = ["–"] * (len(CLASSES) + 1)
        if by_range is not None:
            found = by_range[how]
            # A set of one class has no scores by class: they are those of the whole.
            only = next(iter(_classes(own)), "") if not found["classes"] else ""
            cells = [cell(found["scores"][score] if name == only else found["classes"].get(name, {}).get(score))
                     for name in CLASSES]  # fmt: skip
            cells.append(cell(found["scores"][score]))
        lines += markdown_row([label, f"`{asked}`", state.partition(":")[0], *cells])  # the reason stands below
    return lines


def _classes(own: Sequence[Scored]) -> Sequence[str]:
    return list(next((found.summary["classes"] for found in own if found.summary is not None), ()))


def _differences(own: Sequence[Scored]) -> list[str]:
    """The network minus each floor and control, on the same phrases."""
    models = [found for found in own if found.summary is not None and found.label != FLOORS_LABEL]
    if not models:
        return []
    ranges = _ranges(models)
    head = [f"{how}: `{name}`" for how in ranges for name in _OVERLAP]
    lines = ["### Weights minus floors and controls", "", *markdown_row(["row", "minus", "phrases", *head])]
    lines += markdown_row(["---", "---", *["---:"] * (len(head) + 1)])
    for found in models:
        paired = (found.summary or {})["paired"]
        for pair, first in paired[ranges[0]].items():
            cells = [cell(paired[how][pair][name]) for how in ranges for name in _OVERLAP]
            other = pair.removeprefix(f"{Asked.MODEL} - ")
            lines += markdown_row([found.label, f"`{other}`", str(first["cases"]), *cells])
    return [*lines, "", "On the same phrases, with the same draws of patients for both.", ""]


def _meanings(own: Sequence[Scored]) -> list[str]:
    told: dict[str, str] = {}
    for found in own:
        summary = found.summary or {"meanings": {}, "not_computed": {}}
        told |= summary["meanings"]
        told |= {row: f"not computed: {words}" for row, words in summary["not_computed"].items()}
    return [*(f"- `{row}`: {words}." for row, words in told.items()), ""] if told else []


def _state(found: Scored) -> str:
    return (f"{found.state}: {found.reason}" if found.reason else str(found.state)).replace("|", "\\|")


def _provenance(scored: Sequence[Scored]) -> list[str]:
    lines = [f"TextRay {__version__}."]
    for found in scored:
        if found.summary is None:
            continue
        summary = found.summary
        git, model, data = summary["git"], summary["model"], summary["data"]
        commit = f"commit {git['commit'][:12]}{' with local changes' if git['changed'] else ''}" if git else "no commit"
        weights = "" if model is None else f" ({model['name']} {model['version']}, `{model['sha256'][:12]}`)"
        lines.append(
            f"{found.label}{weights}, {data['name']} `{data['split']}`, {data['kind']}: {summary['phrases']:,} phrases "
            f"(ids `{data['ids_sha256'][:12]}`), {commit}; [low, high]: {summary['estimator']}."
        )
    return lines
