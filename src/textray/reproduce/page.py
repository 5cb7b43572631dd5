"""Pages of a reproduced table: ``table.md`` for the eye, ``table.csv`` with one line for each training."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Sequence
from typing import Any

from textray import __version__, registry
from textray.metrics.segmentation import check_protocol
from textray.reproduce.compare import RULE, compare, mean_and_range
from textray.reproduce.plan import Budget, Row, Table
from textray.reproduce.printed import Protocol
from textray.reproduce.runner import Entry, State

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
_NOTES = (
    "A row is trained, exported and scored with the command of its line in `table.csv`. What the paper trained longer, "
    "larger and on its own split is printed beside it, to show which way of averaging it can be compared with, not to "
    "be compared with digit by digit.",
    "`dice_pooled` and `iou_pooled` count every pixel of the split once and obey J = D / (2 − D); `dice_per_image` and "
    "`iou_per_image` are means over images. A printed pair is **pooled** where it obeys J = D / (2 − D) within the "
    "rounding of its digits, **per image** where J lies above, which only a mean over images can do, **unclear** where "
    "it lies above by more than rounding and by less than half a point, **impossible** where it lies below. Rows of "
    "different protocols cannot be compared with each other.",
    "Text `oracle`: trained and scored with the data set's captions, which were written from the masks and tell where "
    "the lesions are. Text `none`: trained and scored without a word.",
    "`trainable` leaves out the learned no-report token and the frozen text encoder. GMACs are 10⁹ "
    "multiply-accumulates of one image at the input size, counted by torch, without the text encoder. The papers' "
    "columns count otherwise.",
    "The checkpoint is selected on the inner part of the training set only, by pooled Dice in the text mode that the "
    "row is trained for.",
)
_SELF_GUIDED = (
    "Text `generated`: trained with the captions, by a network that learns to write a report of its own; scored with "
    "the reports that it writes, and without text where it finds nothing to write. `with a sentence` is the share of "
    "images that it wrote one for. Such a training is scored with the captions (`oracle`) and without a word (`none`) "
    "too: rows of these modes and its network are the same weights, and the seconds of its scoring are of all three.",
)

_BY_SLICE = (
    "Cut by slice, as published: slices of one volume lie in training and in what is scored, so these scores are "
    "partly scores of memory, and intervals over volumes do not tell how a new volume would fare."
)


def markdown(table: Table, budget: Budget, entries: Sequence[Entry], *, seeds: int, command: str) -> str:
    """The whole ``table.md``.

    Args:
        table: The table.
        budget: Its budget.
        entries: What became of its rows.
        seeds: How many seeds were asked for.
        command: The command line, folders by placeholders.

    Raises:
        TextRayError: If a Dice and an IoU of ours cannot belong to the same masks.
    """
    lines = [f"# {table.title}", ""]
    for data in table.data:
        lines += _section(table, data, [entry for entry in entries if entry.data == data])
    lines += ["## How it was made", "", f"- Command: `{command}`", f"- Budget `{budget.name}`: {budget.words}"]
    lines += [f"- {line}" for line in _provenance(entries, seeds)]
    notes = [*_NOTES, *(_SELF_GUIDED if _writes(table) else ()), *_impossible(table), *table.notes]
    lines += ["", "## How to read it", "", *(f"- {note}" for note in notes)]
    return "\n".join(lines) + "\n"


def command_line(name: str, roots: Sequence[str], budget: str, seeds: int, rows: Sequence[str]) -> str:
    """The command of a run; folders by placeholders, since a path may name persons."""
    words = ["textray", "reproduce", name, *(w for root in roots for w in ("--root", f"{root}=DIR"))]
    words += ["--budget", budget, "--seeds", str(seeds), *(word for row in rows for word in ("--rows", row))]
    return shlex.join([*words, "--out", "OUT"])


def csv_table(table: Table, entries: Sequence[Entry]) -> str:
    """The whole ``table.csv``: one line for each training, and one for each row that has none."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _FIELDS, lineterminator="\n", restval="")
    writer.writeheader()
    for entry in entries:
        writer.writerow(_csv_row(table, entry))
    return text.getvalue()


def _section(table: Table, data: str, entries: Sequence[Entry]) -> list[str]:
    title = registry.dataset(data).title if data in registry.DATASETS else data
    done = [entry for entry in entries if entry.result is not None]
    lines = [f"## {title}", ""]
    if done:
        first = done[0].result or {}
        lines += [
            f"Scored on `{first['split']}`: {first['images'][first['split']]} images of {first['patients']} patients, "
            "each on its own grid. In percent: mean over seeds, and the lowest and highest seed.",
            "",
        ]
        if registry.dataset(data).protocols[:1] == ("slice",):
            lines += [_BY_SLICE, ""]
    head = _head(table)
    lines += markdown_row(head) + markdown_row(["---"] * 3 + ["---:"] * (len(head) - 4) + ["---"])
    for row in table.rows:
        lines += markdown_row(_cells(table, row, data, [e for e in entries if e.row is row]))
    if done:
        lines += ["", f"### Each seed: {title}", "", "In percent, with the 95 % interval over patients.", ""]
        columns = [f"`{name}`" for name in _measures(table)] + ["with a sentence"] * _writes(table)
        lines += markdown_row(["row", "text", "seed", "training images", "steps", *columns])
        lines += markdown_row(["---"] * 2 + ["---:"] * (3 + len(columns)))
        lines += [line for entry in done for line in _seed_line(table, entry)]
        lines += _answers(table, data, entries, title)
    return [*lines, ""]


def _writes(table: Table) -> bool:
    """True where rows are scored with reports that networks write themselves."""
    return any(row.mode == "generated" for row in table.rows)


def _measures(table: Table) -> tuple[str, ...]:
    """The scores that a table shows; accuracy where the paper prints it."""
    prints = any(scores.accuracy is not None for row in table.printed for scores in row.scores.values())
    return (*SCORES, _ACCURACY) if prints else SCORES


def _head(table: Table) -> list[str]:
    measures = _measures(table)
    return [
        "row", "text", "state", *(f"`{name}`" for name in measures), *["with a sentence"] * _writes(table), "trainable",
        "GMACs", "training", "scoring", f"printed {'accuracy / ' * (_ACCURACY in measures)}DSC / IoU",
        "printed protocol",
    ]  # fmt: skip


def _impossible(table: Table) -> list[str]:
    """What to say of printed rows that no masks can have."""
    found = {
        row.label: scores
        for row in table.printed
        for scores in row.scores.values()
        if scores.protocol is Protocol.IMPOSSIBLE
    }
    if not found:
        return []
    rows = "; ".join(f"{label}: {scores}, J {-scores.gap:.2f} points below" for label, scores in found.items())
    return [
        "Printed rows with an IoU below D / (2 − D) by more than the rounding of their digits, which no set of "
        f"masks has under either way of averaging, so that nothing can be compared with them: {rows}."
    ]


def _cells(table: Table, row: Row, data: str, entries: Sequence[Entry]) -> list[str]:
    done = [entry for entry in entries if entry.result is not None]
    results = [entry.result for entry in done if entry.result is not None]
    for entry in done:
        check_protocol({name: entry.scores[name]["value"] for name in SCORES})
    cells = [row.label, row.mode if row.exists else "–", state_words(entries)]
    for name in _measures(table):
        cells.append(_mean_cell([entry.scores[name]["value"] for entry in done]))
    if _writes(table):
        cells.append(_mean_cell([entry.sentences["value"] for entry in done if entry.sentences is not None]))
    if results:
        cells += [f"{results[0]['trainable']:,}", f"{results[0]['gmacs']:.2f}"]
        for key in ("train_seconds", "evaluate_seconds"):
            cells.append(f"{mean_and_range([result[key] for result in results])[0]:.0f} s")
    else:
        cells += ["–"] * 4
    printed = table.printed_row(row)
    scores = printed.scores.get(data) if printed is not None else None
    if scores is None:
        return [*cells, "–", "–"]
    protocol = str(scores.protocol)
    if scores.protocol is not Protocol.POOLED:
        protocol += f" (J is {scores.gap:+.2f} from D/(2−D))"
    return [*cells, str(scores), protocol]


def _mean_cell(shares: Sequence[float]) -> str:
    """Mean over seeds in percent, with the lowest and highest."""
    mean, low, high = mean_and_range([100 * share for share in shares])
    spread = f" ({low:.2f}–{high:.2f})" if len(shares) > 1 else ""
    return f"{mean:.2f}{spread}" if shares else "–"


def state_words(entries: Sequence[Entry]) -> str:
    """What became of a row, over its seeds."""
    words = []
    for state in State:
        found = [entry for entry in entries if entry.state is state]
        if not found:
            continue
        seeds = [entry.seed for entry in found if entry.seed is not None]
        some = f" (seed {', '.join(map(str, seeds))})" if seeds and len(found) < len(entries) else ""
        reasons = dict.fromkeys(entry.reason for entry in found if entry.reason)
        words.append(f"{state}{some}" + "".join(f": {reason}" for reason in reasons))
    return "; ".join(words).replace("|", "\\|")


def _seed_line(table: Table, entry: Entry) -> list[str]:
    result = entry.result or {}
    cells = [entry.row.label, entry.row.mode, str(entry.seed), f"{result['images']['fit']:,}", f"{result['steps']:,}"]
    shown = [entry.scores[name] for name in _measures(table)] + [entry.sentences] * _writes(table)
    for score in shown:
        interval = f"{100 * score['value']:.2f} [{100 * score['low']:.2f}, {100 * score['high']:.2f}]" if score else "–"
        cells.append(interval)
    return markdown_row(cells)


def _answers(table: Table, data: str, entries: Sequence[Entry], title: str) -> list[str]:
    if not table.comparisons:
        return []
    lines = ["", f"### Questions: {title}", ""]
    lines += [
        "Differences in points of Dice with the 95 % interval over patients, both rows on the same draws, all seeds",
        f"{RULE}:",
        _spread(entries),
        "",
    ]
    lines += markdown_row(["question", "`dice_pooled`", "answer", "`dice_per_image`", "answer", "each seed (pooled)"])
    lines += markdown_row(["---", "---:", "---", "---:", "---", "---:"])
    for comparison in table.comparisons:
        answer = compare(comparison, entries, data)
        cells = [comparison.question]
        for name in ("dice_pooled", "dice_per_image"):
            found = answer.differences.get(name)
            shown = f"{100 * found.value:+.2f} [{100 * found.low:+.2f}, {100 * found.high:+.2f}]" if found else "–"
            cells += [shown, answer.words(name)]
        lines += markdown_row([*cells, ", ".join(f"{100 * d:+.2f}" for d in answer.by_seed.get("dice_pooled", ()))])
    return lines


def _spread(entries: Sequence[Entry]) -> str:
    """How much the seeds of one row differ, in words."""
    scores: dict[str, list[float]] = {}
    for entry in entries:
        if entry.result is not None:
            scores.setdefault(entry.row.name, []).append(100 * entry.scores["dice_pooled"]["value"])
    apart = sorted(max(values) - min(values) for values in scores.values() if len(values) > 1)
    if not apart:
        return "each row here is a single one."
    return f"seeds of one row differ here by {apart[0]:.2f} to {apart[-1]:.2f} points of pooled Dice."


def _provenance(entries: Sequence[Entry], seeds: int) -> list[str]:
    # Rows that are one training in two modes have one result.
    results = list({str(entry.folder): entry.result for entry in entries if entry.result is not None}.values())
    others = {e.row.label: e.row.seeds_of(range(seeds)) for e in entries if e.row.more_seeds}
    named = "".join(f"; {label}: {', '.join(map(str, own))}" for label, own in others.items())
    lines = [
        f"Seeds: {', '.join(map(str, range(seeds)))}{named}. A seed also chooses the patients of a share of the data."
    ]
    if not results:
        return [*lines, f"TextRay {__version__}; no row is measured yet."]
    steps = sorted({result["steps"] for result in results})
    lines.append(
        f"Optimiser steps of a row: {listed(steps)}; input {listed(sorted({size_of(r) for r in results}))} px."
    )
    for data in dict.fromkeys(result["data"] for result in results):
        first = next(result for result in results if result["data"] == data)
        rows = [result for result in results if result["data"] == data]
        learnt = listed(sorted({result["images"]["fit"] for result in rows}))
        lines.append(
            f"{data}: learnt from `fit` ({learnt} images), selected on `inner` ({first['images']['inner']} images), "
            f"scored on `{first['split']}`, ids `{first['ids_sha256'][:12]}`."
        )
    commits = dict.fromkeys(commit_of(result) for result in results)
    lines.append(f"Code: TextRay {__version__}, {', '.join(commits)}.")
    packages = {f"{name} {number}" for result in results for name, number in result["versions"].items()}
    lines.append(f"Versions: {', '.join(sorted(packages))}.")
    lines.append(f"Intervals: {results[0]['estimator']}.")
    minutes = sum(result["train_seconds"] + result["evaluate_seconds"] for result in results) / 60
    lines.append(f"Time: {minutes:.0f} minutes for {len(results)} trainings and their scores.")
    return lines


def _csv_row(table: Table, entry: Entry) -> dict[str, Any]:
    row, result = entry.row, entry.result
    values: dict[str, Any] = {
        "row": row.name, "label": row.label, "data": entry.data, "state": str(entry.state), "reason": entry.reason,
        "seed": "" if entry.seed is None else entry.seed, "text_mode": row.mode if row.exists else "",
        "fraction": row.fraction, "labelled": row.labelled, "model": row.model, "form": row.form,
    }  # fmt: skip
    printed = table.printed_row(row)
    if printed is not None:
        scores = printed.scores.get(entry.data)
        values |= {"printed_label": printed.label, "printed_parameters_millions": printed.parameters,
                   "printed_flops_g": printed.flops}  # fmt: skip
        if scores is not None:
            digits = scores.decimals
            values |= {"printed_dice_percent": f"{scores.dice:.{digits}f}",
                       "printed_iou_percent": f"{scores.iou:.{digits}f}",
                       "printed_gap_points": f"{scores.gap:.2f}", "printed_protocol": str(scores.protocol)}  # fmt: skip
            if scores.accuracy is not None:
                values["printed_accuracy_percent"] = f"{scores.accuracy:.{digits}f}"
    if result is None:
        return values
    kept = ("split", "steps", "epochs", "best_epoch", "trainable", "gmacs", "train_seconds", "evaluate_seconds",
            "settings", "command")  # fmt: skip
    values |= {key: result[key] for key in kept}
    values |= {"images_fit": result["images"]["fit"], "images_scored": result["images"][result["split"]]}
    values |= {"size": size_of(result), "commit": commit_of(result), "steps_before": result.get("steps_before", 0)}
    shown = {name: entry.scores[name] for name in (*SCORES, _ACCURACY)} | {"sentence_share": entry.sentences}
    for name, score in shown.items():
        if score is not None:
            values |= {name: score["value"], f"{name}_low": score["low"], f"{name}_high": score["high"]}
    return values


def commit_of(result: Any) -> str:  # noqa: ANN401 -- JSON
    """Commit that a result was made at, and whether the checkout was changed."""
    git = result["git"]
    return f"commit {git['commit'][:12]}{' with local changes' if git['changed'] else ''}" if git else "no commit"


def size_of(result: Any) -> str:  # noqa: ANN401 -- JSON
    """Size that a network reads, in words."""
    return "×".join(map(str, result["size"]))


def listed(values: Sequence[Any]) -> str:
    """Values one after the other, thousands apart."""
    return ", ".join(f"{value:,}" if isinstance(value, int) else str(value) for value in values)


def markdown_row(cells: Sequence[str]) -> list[str]:
    """One line of a Markdown table."""
    return ["| " + " | ".join(cells) + " |"]
