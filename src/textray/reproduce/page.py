"""Pages of a table: ``table.md`` for the eye, ``table.csv`` with one line for each training.

This file holds what all pages share, and the pages of rows that are scored by masks; `textray.reproduce.phrase_page`
those of maps of phrases. The sentences are in ``tables.yaml``.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from textray import __version__, registry
from textray.evaluate.page import grid
from textray.metrics.segmentation import check_protocol
from textray.reproduce import Order
from textray.reproduce.compare import (
    MASK_STATISTICS,
    Protocol,
    compare_masks,
    gap,
    mean_and_range,
    protocol_of,
    read_masks,
)
from textray.reproduce.plan import JobResult, State
from textray.reproduce.tables import Budget, Table, TableRow

Score = Mapping[str, float | None]
"""Value, low and high end of its interval."""
Content = Mapping[str, Any]
"""Content of a ``result.json``."""
Row = Sequence[str]

SCORES = ("dice_pooled", "iou_pooled", "dice_per_image", "iou_per_image")
_ACCURACY = "accuracy_pooled"
_FIELDS = (
    "row", "label", "data", "split", "state", "reason", "seed", "text_mode", "fraction", "labelled", "model", "form",
    "images_fit", "images_scored", "size", "steps", "steps_before", "epochs", "best_epoch",
    *(f"{name}{part}" for name in (*SCORES, _ACCURACY, "sentence_share") for part in ("", "_low", "_high")),
    "trainable", "gmacs", "train_seconds", "evaluate_seconds",
    "printed_label", "printed_accuracy_percent", "printed_dice_percent", "printed_iou_percent",
    "printed_gap_points", "printed_protocol",
    "printed_parameters_millions", "printed_flops_g", "settings", "commit", "command",
)  # fmt: skip


def markdown(table: Table, budget: Budget, results: Sequence[JobResult], order: Order) -> str:
    """The whole ``table.md``; folders of the command are placeholders.

    Raises:
        TextRayError: If a Dice and an IoU of ours cannot belong to the same masks.
    """
    lines = [line for data in table.data for line in _section(table, data, [r for r in results if r.data == data])]
    notes = [*table.texts.notes, *_notes(table), *table.notes]
    return document(table.title, lines, made(table, budget, results, order, _data_words), notes)


def csv_table(table: Table, results: Sequence[JobResult]) -> str:
    """The whole ``table.csv``: a line for each training."""
    return csv_text(_FIELDS, (_values(table, result) for result in results))


def document(title: str, sections: Sequence[str], made: Sequence[str], notes: Sequence[str]) -> str:
    """A page: sections, how it was made, how to read it."""
    lines = [f"# {title}", "", *sections, "## How it was made", "", *(f"- {line}" for line in made), ""]
    return "\n".join([*lines, "## How to read it", "", *(f"- {note}" for note in notes)]) + "\n"


def csv_text(fields: Sequence[str], lines: Iterable[Mapping[str, Any]]) -> str:
    """A CSV file; what a line does not hold is left empty."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fields, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def state_words(results: Sequence[JobResult]) -> str:
    """What became of a row, over its seeds."""
    words = []
    for state in State:
        matching = [result for result in results if result.state is state]
        if not matching:
            continue
        seeds = [str(result.seed) for result in matching if result.seed is not None]
        some = f" (seed {', '.join(seeds)})" if seeds and len(matching) < len(results) else ""
        reasons = dict.fromkeys(result.reason for result in matching if result.reason)
        words.append(f"{state}{some}" + "".join(f": {reason}" for reason in reasons))
    return "; ".join(words).replace("|", "\\|")


def commit_of(result: Mapping[str, Any]) -> str:
    """Commit that a result was made at, and whether the checkout was changed."""
    git = result["git"]
    return f"commit {git['commit'][:12]}{' with local changes' if git['changed'] else ''}" if git else "no commit"


def times(values: Sequence[int]) -> str:
    """Sizes in words, such as 96×96."""
    return "×".join(map(str, values))


def listed(values: Iterable[Any]) -> str:
    """Different values one after the other, sorted, thousands apart."""
    return ", ".join(f"{value:,}" if isinstance(value, int) else str(value) for value in sorted(set(values)))


def made(
    table: Table,
    budget: Budget,
    results: Sequence[JobResult],
    order: Order,
    data_words: Callable[[Sequence[Content]], list[str]],
) -> list[str]:
    """How the rows were made: command, budget, seeds, steps, data, code, versions, intervals and time."""
    lines = [f"Command: `{order.training_command}`", f"Budget `{budget.name}`: {budget.words}"]
    seeds = range(order.seeds)
    others = {r.row.label: ", ".join(map(str, r.row.seeds_of(seeds))) for r in results if r.row.more_seeds}
    named = "".join(f"; {label}: {numbers}" for label, numbers in others.items())
    lines.append(f"Seeds: {', '.join(map(str, seeds))}{named}. {table.texts.seeds}".rstrip())
    # Rows that are one training in two modes have one result.
    done = list({str(r.folder): r.result for r in results if r.result is not None}.values())
    if not done:
        return [*lines, f"TextRay {__version__}; no row is measured yet."]
    steps, sizes = listed(r["steps"] for r in done), listed(times(r["size"]) for r in done)
    first, *others_words = data_words(done)
    lines += [f"Optimiser steps of a row: {steps}; input {sizes} px{first}.", *others_words]
    lines.append(f"Code: TextRay {__version__}, {', '.join(dict.fromkeys(map(commit_of, done)))}.")
    packages = {f"{name} {number}" for result in done for name, number in result["versions"].items()}
    lines.append(f"Versions: {', '.join(sorted(packages))}.")
    lines.append(f"Intervals: {done[0].get('estimator') or next(iter(done[0]['scores'].values()))['estimator']}.")
    minutes = sum(result["train_seconds"] + result["evaluate_seconds"] for result in done) / 60
    return [*lines, f"Time: {minutes:.0f} minutes for {len(done)} trainings and their scores."]


def _data_words(done: Sequence[Content]) -> list[str]:
    """Nothing more of the networks, then what was learnt from and scored."""
    lines = [""]
    for data in dict.fromkeys(result["data"] for result in done):
        of_data = [result for result in done if result["data"] == data]
        first = of_data[0]
        lines.append(
            f"{data}: learnt from `fit` ({listed(r['images']['fit'] for r in of_data)} images), selected on `inner` "
            f"({first['images']['inner']} images), scored on `{first['split']}`, ids `{first['ids_sha256'][:12]}`."
        )
    return lines


def _notes(table: Table) -> list[str]:
    """Notes that only some tables need."""
    notes = [table.texts.generated] if _writes(table) else []
    impossible = {
        row.label: scores
        for row in table.printed
        for scores in row.scores.values()
        if protocol_of(scores) is Protocol.IMPOSSIBLE
    }
    rows = "; ".join(f"{label}: {s}, J {-gap(s):.2f} points below" for label, s in impossible.items())
    return notes + ([table.texts.impossible.format(rows=rows)] if rows else [])


def _writes(table: Table) -> bool:
    """True where rows are scored with reports that networks write themselves."""
    return any(row.mode == "generated" for row in table.rows)


def _measures(table: Table) -> tuple[str, ...]:
    """The scores that a table shows; accuracy where the paper prints it."""
    prints = any(scores.accuracy is not None for row in table.printed for scores in row.scores.values())
    return (*SCORES, _ACCURACY) if prints else SCORES


def _section(table: Table, data: str, results: Sequence[JobResult]) -> list[str]:
    """Rows, seeds and questions of one data set."""
    title = registry.dataset(data).title if data in registry.DATASETS else data
    done = [result for result in results if result.result is not None]
    measures, sentence = [f"`{name}`" for name in _measures(table)], ["with a sentence"] * _writes(table)
    lines = [f"## {title}", ""]
    if done:
        first = done[0].result or {}
        lines += [
            f"Scored on `{first['split']}`: {first['images'][first['split']]} images of {first['patients']} patients, "
            "each on its own grid. In percent: mean over seeds, and the lowest and highest seed.",
            "",
        ]
        if registry.dataset(data).protocols[:1] == ("slice",):
            lines += [table.texts.by_slice, ""]
    printed = f"printed {'accuracy / ' * (_ACCURACY in _measures(table))}DSC / IoU"
    head = ["row", "text", "state", *measures, *sentence, "trainable", "GMACs", "training", "scoring", printed]
    rows = [_cells(table, row, data, [r for r in results if r.row == row]) for row in table.rows]
    lines += grid([*head, "printed protocol"], rows, "lll".ljust(len(head), "r") + "l")
    if done:
        lines += ["", f"### Each seed: {title}", "", "In percent, with the 95 % interval over patients.", ""]
        head = ["row", "text", "seed", "training images", "steps", *measures, *sentence]
        lines += grid(head, [_seed(table, result) for result in done], "ll")
        lines += _questions(table, results, title)
    return [*lines, ""]


def _cells(table: Table, row: TableRow, data: str, results: Sequence[JobResult]) -> list[str]:
    done = [result for result in results if result.result is not None]
    for result in done:
        check_protocol({name: result.scores[name]["value"] for name in SCORES})
    cells = [row.label, row.mode if row.exists else "–", state_words(results)]
    cells += [_percent([result.scores[name]["value"] for result in done]) for name in _measures(table)]
    if _writes(table):
        cells.append(_percent([result.sentences["value"] for result in done if result.sentences is not None]))
    if done:
        contents = [result.result or {} for result in done]
        cells += [f"{contents[0]['trainable']:,}", f"{contents[0]['gmacs']:.2f}"]
        for key in ("train_seconds", "evaluate_seconds"):
            cells.append(f"{mean_and_range([content[key] for content in contents])[0]:.0f} s")
    else:
        cells += ["–"] * 4
    printed = table.printed_row(row)
    scores = printed.scores.get(data) if printed is not None else None
    if scores is None:
        return [*cells, "–", "–"]
    protocol = protocol_of(scores)
    off = "" if protocol is Protocol.POOLED else f" (J is {gap(scores):+.2f} from D/(2−D))"
    return [*cells, str(scores), f"{protocol}{off}"]


def _percent(shares: Sequence[float]) -> str:
    """Mean over seeds in percent, with the lowest and highest."""
    mean, low, high = mean_and_range([100 * share for share in shares])
    spread = f" ({low:.2f}–{high:.2f})" if len(shares) > 1 else ""
    return f"{mean:.2f}{spread}" if shares else "–"


def _seed(table: Table, result: JobResult) -> list[str]:
    content = result.result or {}
    cells = [result.row.label, result.row.mode, str(result.seed)]
    cells += [f"{content['images']['fit']:,}", f"{content['steps']:,}"]
    for score in (*(result.scores[name] for name in _measures(table)), *[result.sentences] * _writes(table)):
        value, low, high = (100 * score[key] for key in ("value", "low", "high")) if score else (0, 0, 0)
        cells.append(f"{value:.2f} [{low:.2f}, {high:.2f}]" if score else "–")
    return cells


def _questions(table: Table, results: Sequence[JobResult], title: str) -> list[str]:
    if not table.questions:
        return []
    rows = []
    for question in table.questions:
        sides = [
            {
                int(result.seed or 0): read_masks(result.folder / "scores", result.row.mode)
                for result in results
                if result.row.name == name and result.state is State.DONE and result.folder is not None
            }
            for name in (question.first, question.second)
        ]
        answer = compare_masks(question, *sides)
        cells = [question.words]
        for name in MASK_STATISTICS:
            points = [100 * value for d in [answer.differences.get(name)] if d for value in (d.value, d.low, d.high)]
            cells += ["{:+.2f} [{:+.2f}, {:+.2f}]".format(*points) if points else "–", answer.words(name)]
        rows.append([*cells, ", ".join(f"{100 * d:+.2f}" for d in answer.by_seed.get("dice_pooled", ()))])
    paragraph = table.texts.questions.format(spread=_spread(results))
    head = ["question", "`dice_pooled`", "answer", "`dice_per_image`", "answer", "each seed (pooled)"]
    return ["", f"### Questions: {title}", "", paragraph, "", *grid(head, rows, "lrlrlr")]


def _spread(results: Sequence[JobResult]) -> str:
    """How much the seeds of one row differ, in words."""
    scores: dict[str, list[float]] = {}
    for result in results:
        if result.result is not None:
            scores.setdefault(result.row.name, []).append(100 * result.scores["dice_pooled"]["value"])
    apart = sorted(max(values) - min(values) for values in scores.values() if len(values) > 1)
    if not apart:
        return "each row here is a single one."
    return f"seeds of one row differ here by {apart[0]:.2f} to {apart[-1]:.2f} points of pooled Dice."


def _values(table: Table, result: JobResult) -> dict[str, Any]:
    """The line of one training in ``table.csv``."""
    row, content = result.row, result.result
    values: dict[str, Any] = {
        "row": row.name, "label": row.label, "data": result.data, "state": str(result.state), "reason": result.reason,
        "seed": "" if result.seed is None else result.seed, "text_mode": row.mode if row.exists else "",
        "fraction": row.fraction, "labelled": row.labelled, "model": row.model, "form": row.form,
    }  # fmt: skip
    printed = table.printed_row(row)
    if printed is not None:
        scores = printed.scores.get(result.data)
        values |= {"printed_label": printed.label, "printed_parameters_millions": printed.parameters,
                   "printed_flops_g": printed.flops}  # fmt: skip
        if scores is not None:
            for name in ("dice", "iou", "accuracy"):
                if (share := getattr(scores, name)) is not None:
                    values[f"printed_{name}_percent"] = f"{share:.{scores.decimals}f}"
            values |= {"printed_gap_points": f"{gap(scores):.2f}", "printed_protocol": str(protocol_of(scores))}
    if content is None:
        return values
    kept = ("split", "steps", "epochs", "best_epoch", "trainable", "gmacs", "train_seconds", "evaluate_seconds",
            "settings", "command")  # fmt: skip
    values |= {key: content[key] for key in kept}
    values |= {"images_fit": content["images"]["fit"], "images_scored": content["images"][content["split"]]}
    values |= {"size": times(content["size"]), "commit": commit_of(content)}
    values |= {"steps_before": content.get("steps_before", 0)}
    for name in (*SCORES, _ACCURACY):
        values |= columns(name, result.scores[name])
    return values | (columns("sentence_share", result.sentences) if result.sentences is not None else {})


def columns(name: str, score: Score) -> dict[str, Any]:
    """A score's three columns of a CSV file."""
    return {name: score["value"], f"{name}_low": score["low"], f"{name}_high": score["high"]}
