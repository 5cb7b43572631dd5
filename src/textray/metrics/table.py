"""Markdown tables of evaluation summaries: no score in a README or a card is typed by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from textray.errors import UsageError
from textray.metrics.segmentation import SCORES, check_protocol

HEADLINE = ("dice_pooled", "iou_pooled", "dice_per_image", "iou_per_image")
_MODE_WARNING = (
    "A caption (`oracle`) holds the position of the very lesions to be found, so a score without its text mode means "
    "nothing."
)
NONE_NOT_LEARNT = (
    "the training of this network left no report out, so this is not the score of one trained without text"
)
"""What a score in text mode ``none`` of such a network must not be read without."""
_SIDES_UNKNOWN = (
    "`W_SIDES_UNKNOWN`: nobody has said whose left and right the captions of this data set mean; they were used as "
    "written."
)
_SIDES = {
    "share_true_pooled": "named area, true text",
    "share_mirrored_pooled": "named area, mirrored text",
    "share_true_per_image": "mean share of a film, true text",
    "share_mirrored_per_image": "mean share of a film, mirrored text",
    "moved_films": "films that moved",
}


def cell(score: Mapping[str, float | None] | None) -> str:
    """``value [low, high]`` with four decimals; a dash where the score is not defined."""
    if score is None or score["value"] is None:
        return "–"
    if score["low"] is None or score["high"] is None:
        return f"{score['value']:.4f}"
    return f"{score['value']:.4f} [{score['low']:.4f}, {score['high']:.4f}]"


def results_table(summaries: Sequence[Mapping[str, Any]], scores: Sequence[str] = HEADLINE) -> str:
    """Table with one row for each model and text mode, and below it where the numbers come from.

    Args:
        summaries: What `textray.evaluate.evaluate` returned, or ``summary.json`` read back.
        scores: Columns, names of `SCORES`.

    Returns:
        Markdown, ending with a line break.

    Raises:
        UsageError: If there is no summary, or a column is not a score.
        TextRayError: If a Dice and an IoU cannot belong to the same masks.
    """
    if not summaries:
        raise UsageError("no table without summaries", came="none", expected="one or more")
    wrong = [name for name in scores if name not in SCORES]
    if wrong:
        raise UsageError(f"unknown score {wrong[0]!r}", expected="one of " + ", ".join(SCORES))
    lines = _row(["model", "data", "text mode", "images", *(f"`{name}`" for name in scores)])
    lines += _row(["---", "---", "---", "---:", *("---:" for _ in scores)])
    for summary in summaries:
        for mode, values in summary["modes"].items():
            check_protocol({n: math.nan if v["value"] is None else v["value"] for n, v in values.items()})
            cut = summary["data"].get("split_by")
            data = f"{summary['data']['name']} {summary['data']['split']}{f' (cut by {cut})' if cut else ''}"
            lines += _row(
                [summary["model"]["name"], data, mode, str(summary["images"]), *(cell(values.get(n)) for n in scores)]
            )
    notes = dict.fromkeys(note for summary in summaries for note in (_provenance(summary), *_none_not_learnt(summary)))
    return "\n".join([*lines, "", *notes, "", _MODE_WARNING]) + "\n"


def summary_page(summary: Mapping[str, Any]) -> str:
    """The whole ``summary.md`` of an evaluation: headline table, all scores, and what else was measured."""
    modes = summary["modes"]
    lines = ["# Evaluation", "", results_table([summary])]
    lines += ["## All scores", "", *_row(["score", *modes]), *_row(["---", *("---:" for _ in modes)])]
    for name in SCORES:
        lines += _row([f"`{name}`", *(cell(values.get(name)) for values in modes.values())])
    lines += [
        "",
        "`*_pooled` counts every pixel of the set once; `*_per_image` is the mean over images (both masks empty: 1,",
        "one empty: 0); `*_per_lesion_image` leaves out the images where both are empty.",
        "",
        "## Empty masks and missing texts",
        "",
        *_row(["images with", *modes]),
        *_row(["---", *("---:" for _ in modes)]),
    ]
    for kind, words in (("truth", "empty truth"), ("prediction", "empty prediction"), ("both", "both empty")):
        lines += _row([words, *(str(counts[kind]) for counts in summary["empty"].values())])
    lines += _row(["no text given", *(str(n) for n in summary["images_without_text"].values())])
    if summary["data"].get("laterality") == "unknown":
        lines += ["", _SIDES_UNKNOWN]
    lines += ["", "## Text modes", "", *(f"- `{mode}`: {words}" for mode, words in summary["text_modes"].items())]
    if summary.get("report"):
        lines += ["", *report_lines(summary["report"])]
    if summary.get("paired"):
        lines += ["", *paired_lines(summary["paired"])]
    if summary.get("sides"):
        lines += ["", *side_lines(summary["sides"])]
    if summary.get("files"):
        lines += ["", "## Files of this run", ""]
        lines += [f"- `{name}`, SHA-256 `{sha256}`" for name, sha256 in summary["files"].items()]
    return "\n".join(lines) + "\n"


def report_lines(report: Mapping[str, Any]) -> list[str]:
    """Section on the reports that the model wrote itself: the summary's ``report``, as Markdown lines."""
    used = report["used"]
    lines = [
        "## Own reports",
        "",
        f"A sentence was written and used on {used['images']} images: {cell(used['share'])}.",
    ]
    lines += ["On the others the model found no zone to name, and worked without text."]
    if report["scores_where_used"]:
        lines += ["", *_where_used(report)]
    zones, text = report["zones"], report["text"]
    if zones is None:
        return [*lines, "", "No image has a caption to compare the reports with."]
    lines += ["", f"Zones of the report against those of the caption, {zones['images']} images"]
    lines += [f"({report['images_without_caption']} without a caption that names or denies a zone are left out):", ""]
    rates = ("accuracy", "precision", "recall", "f1")
    lines += [*_row(["zone", *rates]), *_row(["---", *("---:" for _ in rates)])]
    for of in zones["accuracy"]:
        lines += _row([of, *(cell(zones[rate][of]) for rate in rates)])
    lines += ["", f"All six zones right: {cell(zones['exact_match'])}."]
    for kind, words in (("never_named", "named by no caption"), ("never_written", "written into no report")):
        lines += [f"Zones {words}: {', '.join(zones[kind])}."] if zones[kind] else []
    lines += ["", *_row(["words of the report against those of the caption", ""]), *_row(["---", "---:"])]
    for name, score in text["scores"].items():
        lines += _row([f"`{name}`", cell(score)])
    return [*lines, "", *(f"- `{name}`: {words}" for name, words in text["signatures"].items())]


def _where_used(report: Mapping[str, Any]) -> list[str]:
    """Table of the scores on the images with a sentence, beside those of mode ``none`` there where it was measured."""
    own, silent = report["scores_where_used"], report.get("none_where_used")  # which older summaries lack
    differences: Mapping[str, Any] = report.get("paired_where_used") or {}
    if not silent:
        lines = [*_row(["score", "images with a sentence alone"]), *_row(["---", "---:"])]
        return lines + [line for name, score in own.items() for line in _row([f"`{name}`", cell(score)])]
    lines = _row(["score, images with a sentence alone", "generated", "none, the same images", "generated - none"])
    lines += _row(["---", "---:", "---:", "---:"])
    for name, score in own.items():
        lines += _row([f"`{name}`", cell(score), cell(silent[name]), cell(differences.get(name))])
    return lines


def paired_lines(paired: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Section on differences between text modes: the summary's ``paired``, as Markdown lines."""
    lines = ["## Differences of text modes", ""]
    lines += [*_row(["", *(f"`{name}`" for name in HEADLINE)]), *_row(["---", *("---:" for _ in HEADLINE)])]
    for pair, scores in paired.items():
        lines += _row([pair, *(cell(scores.get(name)) for name in HEADLINE)])
    return [*lines, "", "First mode minus second on the same images, with the same draws of patients for both."]


def side_lines(sides: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Section on left-right sensitivity: what `textray.metrics.sides.side_summary` returned, as Markdown lines."""
    lines = ["## Left-right sensitivity", ""]
    lines += [*_row(["", *sides]), *_row(["---", *("---:" for _ in sides)])]
    lines += _row(["films", *(str(values["films"]) for values in sides.values())])
    lines += _row(["of these without area", *(str(values["films_without_area"]) for values in sides.values())])
    for name, words in _SIDES.items():
        lines += _row([f"{words} (`{name}`)", *(cell(values.get(name)) for values in sides.values())])
    return [
        *lines,
        "",
        "Each film is segmented with its own zones and with the mirrored ones, its pixels untouched. Unilateral: share",
        "of the predicted area on the half that the given text names. Bilateral: of the predicted area in zones that",
        "only one of the two texts names, the share in those that the given text names. Moved: above one half under",
        "the mirrored text. Films whose zones equal their mirror image cannot tell and are left out.",
    ]


def _provenance(summary: Mapping[str, Any]) -> str:
    git = summary.get("git")
    commit = f"commit `{git['commit'][:12]}`{' with local changes' if git['changed'] else ''}" if git else "no commit"
    model, data, size = summary["model"], summary["data"], "×".join(map(str, summary["size"]))
    return (
        f"`{summary['command']}` at {commit}, TextRay {summary['textray']}; model {model['name']} {model['version']} "
        f"(`{model['sha256'][:12]}`), input {size} px, threshold {summary['threshold']}, "
        f"scored on each image's own grid; {summary['images']} images of {summary['patients']} patients "
        f"({summary['images_without_patient']} images without a patient), ids `{data['ids_sha256'][:12]}`; "
        f"[low, high]: {summary['estimator']}, seed {summary['seed']}."
    )


def _none_not_learnt(summary: Mapping[str, Any]) -> list[str]:
    if "none" not in summary["modes"] or summary.get("learnt_without_report") is not False:
        return []
    return [f"`W_NONE_NOT_LEARNT`: text mode `none` of model {summary['model']['name']}: {NONE_NOT_LEARNT}."]


def _row(cells: Sequence[str]) -> list[str]:
    return ["| " + " | ".join(cells) + " |"]
