"""The page of a grounding evaluation: no score in a README or a card is typed by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from textray.metrics.table import cell

_OVERLAP = ("iou", "dice")
_POINTS = ("cnr", "cnr_signed", "pointing")
_RANGES = {
    "minmax": "each map is stretched to [-1, 1] first, so it always marks something and never says that there is none",
    "none": "the map as it is, cosines for a network",
    "clamp": "negative values made 0",
}


def grounding_page(summary: Mapping[str, Any]) -> str:
    """The whole ``summary.md`` of a grounding evaluation, from what ``summary.json`` holds."""
    title = f"# Grounding: phrases of kind {summary['data']['kind']}"
    lines = [title, "", *grounding_lines(summary)]
    if any(summary["paired"].values()):
        lines += ["", *_paired_lines(summary)]
    lines += ["", *_threshold_lines(summary)]
    if len(summary["classes"]) > 1:
        lines += ["", *_class_lines(summary)]
    lines += ["", *_protocol_lines(summary)]
    if summary.get("files"):
        lines += ["", "## Files of this run", ""]
        lines += [f"- `{name}`, SHA-256 `{sha256}`" for name, sha256 in summary["files"].items()]
    return "\n".join(lines) + "\n"


def grounding_lines(summary: Mapping[str, Any]) -> list[str]:
    """Table of all rows of one evaluation, what each row is, and where the numbers come from."""
    ranges = summary["normalisations"]
    head = [f"{how}: `{name}`" for how in ranges for name in _OVERLAP]
    lines = _row(["row", "phrases", *head, *(f"`{name}`" for name in _POINTS)])
    lines += _row(["---", "---:", *("---:" for _ in (*head, *_POINTS))])
    for row, by_range in summary["rows"].items():
        first = by_range[ranges[0]]
        cells = [cell(by_range[how]["scores"][name]) for how in ranges for name in _OVERLAP]
        lines += _row([row, str(first["cases"]), *cells, *(cell(first["scores"][name]) for name in _POINTS)])
    lines += ["", *(f"- `{row}`: {words}." for row, words in summary["meanings"].items())]
    lines += [f"- `{row}`: not computed: {words}." for row, words in summary["not_computed"].items()]
    lines += ["", "IoU and Dice are means over classes, then over the thresholds "]
    lines[-1] += ", ".join(map(str, summary["protocol"]["thresholds"])) + " (`map > t`)."
    lines += [f"`{how}`: {_RANGES[how]}." for how in ranges]
    if len(ranges) > 1:
        lines += [f"Never compare a score under `{ranges[0]}` with one under `{ranges[1]}`."]
    lines += ["`full` marks everything whatever the range. A map below `mean_mask` has not localized; one that is not"]
    lines += ["above `mean_phrase` may have read its phrase, but nothing shows that it looked at the picture."]
    return [*lines, "", _provenance(summary)]


def _paired_lines(summary: Mapping[str, Any]) -> list[str]:
    ranges = summary["normalisations"]
    head = [f"{how}: `{name}`" for how in ranges for name in _OVERLAP]
    lines = ["## The network minus controls and floors", ""]
    lines += [*_row(["", "phrases", *head]), *_row(["---", "---:", *("---:" for _ in head)])]
    for pair, first in summary["paired"][ranges[0]].items():
        cells = [cell(summary["paired"][how][pair][name]) for how in ranges for name in _OVERLAP]
        lines += _row([pair, str(first["cases"]), *cells])
    return [*lines, "", "On the same phrases, with the same draws of patients for both."]


def _threshold_lines(summary: Mapping[str, Any]) -> list[str]:
    lines = ["## By threshold", ""]
    ticks = [str(t) for t in summary["protocol"]["thresholds"]]
    lines += _row(["row", "range", *(f"IoU / Dice > {t}" for t in ticks), "best single threshold", "marks nothing"])
    lines += _row(["---", "---", *("---:" for _ in ticks), "---:", "---"])
    for row, by_range in summary["rows"].items():
        for how, found in by_range.items():
            cells = [_pair(found["thresholds"][t]) for t in ticks]
            best = found["best_threshold"]
            nothing = ", ".join(f"{n} > {t}" for t, n in found["marks_nothing"].items() if n)
            lines += _row([row, how, *cells, f"{_pair(best)} > {best['threshold']}", nothing or "–"])
    return [
        *lines,
        "",
        "The best single threshold is that of the highest Dice among -0.95, -0.90 … 0.95, chosen on the very phrases",
        "that are scored here: an upper bound, not a result. Marks nothing: phrases whose maps it leaves empty;",
        f"they score {'0 there' if summary['protocol']['empty_prediction'] == 'zero' else 'nothing there (left out)'}.",
    ]


def _class_lines(summary: Mapping[str, Any]) -> list[str]:
    how = summary["normalisations"][0]
    lines = [f"## By class ({how})", ""]
    lines += _row(["row", "score", *(f"{label} ({count})" for label, count in summary["classes"].items())])
    lines += _row(["---", "---", *("---:" for _ in summary["classes"])])
    for row, by_range in summary["rows"].items():
        found = by_range[how]["classes"]
        for name in (*_OVERLAP, "cnr_signed", "pointing"):
            lines += _row([row, f"`{name}`", *(cell(found.get(label, {}).get(name)) for label in summary["classes"])])
    return lines


def _protocol_lines(summary: Mapping[str, Any]) -> list[str]:
    protocol, wordings, left = summary["protocol"], summary["wordings"], summary["left_out"]
    contrast = (
        "each box by itself against what is outside of all, then the mean" if protocol["per_box"] else "all of it"
    )
    grid = " x ".join(map(str, protocol["grid"]))
    lines = ["## Protocol", ""]
    lines += [
        f"- Maps smoothed by a Gaussian of {protocol['sigma']} cells, enlarged to {grid} pixels; truth by nearest"
    ]
    lines += [f"  neighbour to the same grid, boxes of a phrase joined; border left out: {protocol['margin']} pixels."]
    lines += [f"- Contrast (`cnr`) of the truth as: {contrast}. `pointing`: the highest pixel lies inside the truth."]
    lines += [f"- Training masks behind the mean masks: {protocol['training_masks'] or 'none'}."]
    if protocol["training_masks_scored"]:
        lines += [
            "  The split is part of train, so they hold the very masks that are scored: these two floors are too high."
        ]
    lines += [
        f"- Left out of every row: {left['empty_truth']} phrases with nothing true on the grid, "
        f"{left['sides_not_turned']} whose sides cannot be turned to those that the network knows."
    ]
    lines += [
        f"- {wordings['different']} different phrases{'; the most frequent:' if wordings['most_frequent'] else '.'}"
    ]
    return lines + [f"  - {count} × `{phrase}`" for phrase, count in wordings["most_frequent"].items()]


def _provenance(summary: Mapping[str, Any]) -> str:
    git, model, data = summary.get("git"), summary["model"], summary["data"]
    commit = f"commit `{git['commit'][:12]}`{' with local changes' if git['changed'] else ''}" if git else "no commit"
    weights = "no network" if model is None else f"model {model['name']} {model['version']} (`{model['sha256'][:12]}`)"
    cut = f" (cut by {data['split_by']})" if data.get("split_by") else ""
    return (
        f"`{summary['command']}` at {commit}, TextRay {summary['textray']}; {weights}; {data['name']} "
        f"{data['split']}{cut}, phrases of kind {data['kind']}: {summary['phrases']} on {summary['images']} images "
        f"of {summary['patients']} patients ({summary['images_without_patient']} images without a patient), "
        f"ids `{data['ids_sha256'][:12]}`; [low, high]: {summary['estimator']}, seed {summary['seed']}."
    )


def _pair(found: Mapping[str, Any]) -> str:
    values = (found["iou"], found["dice"])
    return " / ".join("–" if value is None or value != value else f"{value:.3f}" for value in values)


def _row(cells: Sequence[str]) -> list[str]:
    return ["| " + " | ".join(cells) + " |"]
