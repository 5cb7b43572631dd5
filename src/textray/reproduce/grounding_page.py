"""Pages of a table of grounding networks: ``table.md`` for the eye, ``table.csv`` with a line for each row of maps."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from textray import __version__, registry
from textray.inference.grounding_cases import CONTROLS, FLOORS
from textray.inference.grounding_cases import Row as Asked
from textray.reproduce.compare import RULE, Answer, mean_and_range
from textray.reproduce.grounding_compare import STATISTICS, against, between
from textray.reproduce.page import commit_of, listed, markdown_row, size_of, state_words
from textray.reproduce.plan import Budget, Table
from textray.reproduce.runner import Entry

SCORES = ("iou", "dice", "cnr", "cnr_signed", "pointing")
_OVERLAP, _POINTS = ("iou", "dice"), ("cnr_signed", "pointing")  # by range; the same under each range
_FIELDS = (
    "row", "label", "data", "split", "phrases", "state", "reason", "seed", "maps", "normalise", "cases",
    *(f"{name}{part}" for name in SCORES for part in ("", "_low", "_high")),
    "best_threshold", "best_iou", "best_dice", "mode", "local_unit", "sentences", "targets",
    "images_fit", "size", "map", "steps", "epochs", "best_epoch", "parameters", "bundle_bytes",
    "train_seconds", "evaluate_seconds", "settings", "commit", "command",
)  # fmt: skip
_ABOVE = {
    Asked.MEAN_PHRASE: "above the text-only floor (`mean_phrase`)",
    Asked.MEAN_MASK: "above the mean training mask",
    Asked.CENTRE: "above the centre",
    Asked.MIRRORED: "above its own map of the mirrored phrase",
}
_NOTES = (
    "Learnt from films and captions of the training part; no mask was read in learning or in selecting, which is by "
    "the loss on its inner part. Masks of the training part are in two floors only, `mean_mask` and `mean_phrase`.",
    "Rows differ in what places of the film are compared with: `word`, `sentence` (each comma clause of the caption) "
    "or `report` (the mean of the sentences). `released` has the local loss of the authors' code, whose scores are "
    "five times as large, at the rate of the other rows. The row of the caption as one sentence differs by more "
    "than that where the recipe tells random parts of captions: one sentence has no parts, so it is always told whole.",
    "IoU and Dice are means over the thresholds 0.1, 0.2 … 0.5 (`map > t`). `minmax`: each map is stretched to [-1, 1] "
    "first, as in the authors' code, so it always marks something. `none`: cosines as they are, as in their article. "
    "Never compare a score under one with a score under the other.",
    "A map below `mean_mask` has not localized. One that is not above `mean_phrase`, the mean training mask of the "
    "same words, may have read its phrase, but nothing shows that it looked at the picture.",
    "Under `none` the thresholds cut cosines of a network, but shares of training films of a mean mask and the height "
    "of a Gaussian in the middle: whether a row is above a floor is better asked under `minmax`.",
    "`mirrored` is to be read beside `model_sided`, the network on the same phrases.",
    "The best single threshold is chosen on the very phrases that are scored: an upper bound, not a result.",
    "Captions of QaTa-COV19 were written from the masks: they are places in words, not reports of a reader who has "
    "not seen the mask, and every film has lesions. Nothing here says what a phrase that is not true would mark, and "
    "nothing can be set beside Tables 1 to 3 of the paper.",
)


def markdown(table: Table, budget: Budget, entries: Sequence[Entry], *, seeds: int, command: str) -> str:
    """The whole ``table.md``; see `textray.reproduce.page.markdown`."""
    lines = [f"# {table.title}", ""]
    for data in table.data:
        own = [entry for entry in entries if entry.data == data]
        done = [entry for entry in own if entry.result is not None]
        title = registry.dataset(data).title
        kinds = list(dict.fromkeys(kind for entry in done for kind in _scores(entry)))
        for kind in kinds:
            lines += [f"## {title}: phrases of kind `{kind}`", "", *_section(table, kind, own), ""]
            lines += [f"### Questions: `{kind}`", "", *_answers(table, kind, own), ""]
            lines += [f"### Each seed: `{kind}`", "", *_seeds(kind, done), ""]
        if not kinds:
            lines += [f"## {title}", "", *markdown_row(["row", "state"]), *markdown_row(["---", "---"])]
            for row in table.rows:
                lines += markdown_row([row.label, state_words([e for e in own if e.row is row])])
            lines.append("")
    lines += ["## How it was made", "", f"- Command: `{command}`", f"- Budget `{budget.name}`: {budget.words}"]
    lines += [f"- {line}" for line in _provenance(entries, seeds)]
    return "\n".join([*lines, "", "## How to read it", "", *(f"- {note}" for note in (*_NOTES, *table.notes))]) + "\n"


def csv_table(table: Table, entries: Sequence[Entry]) -> str:
    """The whole ``table.csv``: each row of maps of each training under each range; floors once."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _FIELDS, lineterminator="\n", restval="")
    writer.writeheader()
    told: set[tuple[str, str]] = set()
    for entry in entries:
        row, result = entry.row, entry.result
        seed = "" if entry.seed is None else entry.seed
        values = {"row": row.name, "label": row.label, "data": entry.data, "state": str(entry.state),
                  "reason": entry.reason, "seed": seed}  # fmt: skip
        if result is None:
            writer.writerow(values)
            continue
        values |= {key: result[key] for key in _FIELDS if key in result and key not in ("size", "map")}
        values |= {"images_fit": result["images"]["fit"], "size": size_of(result), "commit": commit_of(result)}
        values |= {"map": "×".join(map(str, result["map"]))}
        for kind, found in _scores(entry).items():
            for maps, by_range in found["rows"].items():
                is_floor = maps in map(str, FLOORS)
                if is_floor and (entry.data, kind) in told:
                    continue
                about = {"row": maps, "label": "floor", "data": entry.data, "split": result["split"],
                         "state": str(entry.state)} if is_floor else values  # fmt: skip
                for how, scores in by_range.items():
                    line = about | {"phrases": kind, "maps": maps, "normalise": how}
                    writer.writerow(line | _score_columns(scores))
            told.add((entry.data, kind))
    return text.getvalue()


def _score_columns(found: Mapping[str, Any]) -> dict[str, Any]:
    best = found["best_threshold"]
    values = {"cases": found["cases"], "best_threshold": best["threshold"], "best_iou": best["iou"],
              "best_dice": best["dice"]}  # fmt: skip
    for name in SCORES:
        score = found["scores"][name]
        values |= {name: score["value"], f"{name}_low": score["low"], f"{name}_high": score["high"]}
    return values


def _scores(entry: Entry) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (entry.result or {}).get("scores", {})
    return found


def _ranges(entries: Sequence[Entry], kind: str) -> list[str]:
    return list(next(_scores(entry)[kind]["normalisations"] for entry in entries if kind in _scores(entry)))


def _section(table: Table, kind: str, entries: Sequence[Entry]) -> list[str]:
    done = [entry for entry in entries if kind in _scores(entry)]
    first = _scores(done[0])[kind]
    ranges, split = _ranges(done, kind), (done[0].result or {})["split"]
    lines = [
        f"Scored on `{split}`: {first['phrases']:,} phrases on {first['images']:,} images of {first['patients']} "
        "patients. Mean over seeds, and the lowest and highest seed.",
        "",
    ]
    head = [f"{how}: `{name}`" for how in ranges for name in _OVERLAP]
    best = [f"{how}: best threshold, IoU / Dice" for how in ranges]
    head = ["row", "maps", "state", *head, *(f"`{name}`" for name in _POINTS), *best]
    lines += markdown_row(head) + markdown_row(["---"] * 3 + ["---:"] * (len(head) - 3))
    by_row = {row.name: [entry for entry in entries if entry.row is row] for row in table.rows}
    for row in table.rows:
        lines += _line(row.label, Asked.MODEL, state_words(by_row[row.name]), by_row[row.name], kind, ranges)
    for floor in FLOORS:
        if str(floor) in first["rows"]:
            lines += _line("floor", floor, "", done[:1], kind, ranges)
    for row in table.rows:
        for control in (Asked.SIDED, *CONTROLS):
            if any(
                kind in _scores(entry) and str(control) in _scores(entry)[kind]["rows"] for entry in by_row[row.name]
            ):
                lines += _line(row.label, control, "", by_row[row.name], kind, ranges)
    lines += ["", *(f"- `{asked}`: {words}." for asked, words in first["meanings"].items())]
    return lines + [f"- `{asked}`: not computed: {words}." for asked, words in first["not_computed"].items()]


def _line(
    label: str, asked: Asked, state: str, entries: Sequence[Entry], kind: str, ranges: Sequence[str]
) -> list[str]:
    """One line of the table: what maps of a row score, over its seeds."""
    found = [_scores(entry)[kind]["rows"].get(str(asked)) for entry in entries if kind in _scores(entry)]
    found = [by_range for by_range in found if by_range is not None]
    cells = [_mean_cell([by_range[how]["scores"][name] for by_range in found]) for how in ranges for name in _OVERLAP]
    cells += [_mean_cell([by_range[ranges[0]]["scores"][name] for by_range in found]) for name in _POINTS]
    for how in ranges:
        best = [by_range[how]["best_threshold"] for by_range in found]
        means = [mean_and_range([b[name] for b in best if b[name] is not None])[0] for name in _OVERLAP]
        at = ", ".join(dict.fromkeys(f"{b['threshold']:g}" for b in best))
        cells.append(f"{means[0]:.3f} / {means[1]:.3f} > {at}" if best else "–")
    return markdown_row([label, f"`{asked}`", state, *cells])


def _mean_cell(scores: Sequence[Mapping[str, float | None]]) -> str:
    """Mean over seeds, with the lowest and highest."""
    values = [value for score in scores if (value := score["value"]) is not None]
    mean, low, high = mean_and_range(values)
    return f"{mean:.3f}" + (f" ({low:.3f}–{high:.3f})" if len(values) > 1 else "") if values else "–"


def _answers(table: Table, kind: str, entries: Sequence[Entry]) -> list[str]:
    done = [entry for entry in entries if kind in _scores(entry)]
    lines = ["Differences with the 95 % interval over patients, both on the same phrases and draws, all seeds"]
    lines += [f"{RULE}.", ""]
    lines += markdown_row(["question", "range", "`iou`", "answer", "`dice`", "answer", "each seed (`dice`)"])
    lines += markdown_row(["---", "---", "---:", "---", "---:", "---", "---:"])
    ranges = _ranges(done, kind)
    answers: list[tuple[str, Answer]] = []
    for comparison in table.comparisons:
        answers += [(how, between(comparison, entries, kind, how)) for how in ranges]
    for row in table.rows:
        if any(entry.row is row for entry in done):
            for other, words in _ABOVE.items():
                question = f"Is {row.label} {words}?"
                answers += [(how, against(row, other, question, entries, kind, how)) for how in ranges]
    for how, answer in answers:
        cells = [answer.comparison.question, how]
        for name in STATISTICS:
            found = answer.differences.get(name)
            cells += ["–" if found is None else f"{found:+.3f}", answer.words(name)]
        lines += markdown_row([*cells, ", ".join(f"{d:+.3f}" for d in answer.by_seed.get("dice", ()))])
    return lines


def _seeds(kind: str, done: Sequence[Entry]) -> list[str]:
    ranges = _ranges(done, kind)
    head = [f"{how}: `{name}`" for how in ranges for name in _OVERLAP]
    lines = ["The network's own maps, with the 95 % interval over patients.", ""]
    lines += markdown_row(["row", "seed", "training images", "steps", *head, "`pointing`", "training", "scoring"])
    lines += markdown_row(["---", *["---:"] * (len(head) + 6)])
    for entry in done:
        result: Mapping[str, Any] = entry.result or {}
        own = _scores(entry)[kind]["rows"][str(Asked.MODEL)]
        scores = [own[how]["scores"][name] for how in ranges for name in _OVERLAP]
        scores.append(own[ranges[0]]["scores"]["pointing"])
        cells = [entry.row.label, str(entry.seed), f"{result['images']['fit']:,}", f"{result['steps']:,}"]
        cells += [f"{s['value']:.3f} [{s['low']:.3f}, {s['high']:.3f}]" for s in scores]
        lines += markdown_row([*cells, f"{result['train_seconds']:.0f} s", f"{_scores(entry)[kind]['seconds']:.0f} s"])
    return lines


def _provenance(entries: Sequence[Entry], seeds: int) -> list[str]:
    results = [entry.result for entry in entries if entry.result is not None]
    lines = [f"Seeds: {', '.join(map(str, range(seeds)))}."]
    if not results:
        return [*lines, f"TextRay {__version__}; no row is measured yet."]
    first = results[0]
    sizes, maps = ({"×".join(map(str, result[key])) for result in results} for key in ("size", "map"))
    parameters, most = sorted({r["parameters"] for r in results}), max(r["bundle_bytes"] for r in results)
    lines.append(
        f"Optimiser steps of a row: {listed(sorted({r['steps'] for r in results}))}; input {listed(sorted(sizes))} px, "
        f"map {listed(sorted(maps))} cells; {listed(parameters)} parameters, bundles of {most / 1e6:.1f} MB at most."
    )
    for kind, found in first["scores"].items():
        protocol = found["protocol"]
        lines.append(
            f"{first['data']}, {kind}: learnt from `fit` ({first['images']['fit']:,} images), selected on `inner` "
            f"({first['images']['inner']:,}), scored on `{first['split']}`, ids `{found['data']['ids_sha256'][:12]}`; "
            f"smoothing {protocol['sigma']} cells, grid {'×'.join(map(str, protocol['grid']))}, training masks behind "
            f"the floors: {protocol['training_masks'] or 'none'}."
        )
    lines.append(f"Code: TextRay {__version__}, {', '.join(dict.fromkeys(commit_of(r) for r in results))}.")
    packages = {f"{name} {number}" for result in results for name, number in result["versions"].items()}
    lines.append(f"Versions: {', '.join(sorted(packages))}.")
    lines.append(f"Intervals: {next(iter(first['scores'].values()))['estimator']}.")
    minutes = sum(result["train_seconds"] + result["evaluate_seconds"] for result in results) / 60
    return [*lines, f"Time: {minutes:.0f} minutes for {len(results)} trainings and their scores."]
