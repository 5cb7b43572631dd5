"""Markdown tables of evaluation summaries: no score in a README or a card is typed by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textray.errors import UsageError
from textray.metrics.intervals import Interval, bootstrap, paired_difference
from textray.metrics.segmentation import SCORES, Floats, case_columns, check_protocol
from textray.metrics.text import TextScorer
from textray.metrics.zones import zone_summary
from textray.records import Report, Zones
from textray.text.zones import write

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
        summaries: What `textray.evaluate.segmentation.evaluate` returned, or ``summary.json`` read back.
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


# The page of a grounding evaluation.

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
    lines = _grounding_row(["row", "phrases", *head, *(f"`{name}`" for name in _POINTS)])
    lines += _grounding_row(["---", "---:", *("---:" for _ in (*head, *_POINTS))])
    for row, by_range in summary["rows"].items():
        first = by_range[ranges[0]]
        cells = [cell(by_range[how]["scores"][name]) for how in ranges for name in _OVERLAP]
        lines += _grounding_row([row, str(first["cases"]), *cells, *(cell(first["scores"][name]) for name in _POINTS)])
    lines += ["", *(f"- `{row}`: {words}." for row, words in summary["meanings"].items())]
    lines += [f"- `{row}`: not computed: {words}." for row, words in summary["not_computed"].items()]
    lines += ["", "IoU and Dice are means over classes, then over the thresholds "]
    lines[-1] += ", ".join(map(str, summary["protocol"]["thresholds"])) + " (`map > t`)."
    lines += [f"`{how}`: {_RANGES[how]}." for how in ranges]
    if len(ranges) > 1:
        lines += [f"Never compare a score under `{ranges[0]}` with one under `{ranges[1]}`."]
    lines += ["`full` marks everything whatever the range. A map below `mean_mask` has not localized; one that is not"]
    lines += ["above `mean_phrase` may have read its phrase, but nothing shows that it looked at the picture."]
    return [*lines, "", _grounding_provenance(summary)]


def _paired_lines(summary: Mapping[str, Any]) -> list[str]:
    ranges = summary["normalisations"]
    head = [f"{how}: `{name}`" for how in ranges for name in _OVERLAP]
    lines = ["## The network minus controls and floors", ""]
    lines += [*_grounding_row(["", "phrases", *head]), *_grounding_row(["---", "---:", *("---:" for _ in head)])]
    for pair, first in summary["paired"][ranges[0]].items():
        cells = [cell(summary["paired"][how][pair][name]) for how in ranges for name in _OVERLAP]
        lines += _grounding_row([pair, str(first["cases"]), *cells])
    return [*lines, "", "On the same phrases, with the same draws of patients for both."]


def _threshold_lines(summary: Mapping[str, Any]) -> list[str]:
    lines = ["## By threshold", ""]
    ticks = [str(t) for t in summary["protocol"]["thresholds"]]
    lines += _grounding_row(
        ["row", "range", *(f"IoU / Dice > {t}" for t in ticks), "best single threshold", "marks nothing"]
    )
    lines += _grounding_row(["---", "---", *("---:" for _ in ticks), "---:", "---"])
    for row, by_range in summary["rows"].items():
        for how, found in by_range.items():
            cells = [_pair(found["thresholds"][t]) for t in ticks]
            best = found["best_threshold"]
            nothing = ", ".join(f"{n} > {t}" for t, n in found["marks_nothing"].items() if n)
            lines += _grounding_row([row, how, *cells, f"{_pair(best)} > {best['threshold']}", nothing or "–"])
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
    lines += _grounding_row(["row", "score", *(f"{label} ({count})" for label, count in summary["classes"].items())])
    lines += _grounding_row(["---", "---", *("---:" for _ in summary["classes"])])
    for row, by_range in summary["rows"].items():
        found = by_range[how]["classes"]
        for name in (*_OVERLAP, "cnr_signed", "pointing"):
            lines += _grounding_row(
                [row, f"`{name}`", *(cell(found.get(label, {}).get(name)) for label in summary["classes"])]
            )
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


def _grounding_provenance(summary: Mapping[str, Any]) -> str:
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


def _grounding_row(cells: Sequence[str]) -> list[str]:
    return ["| " + " | ".join(cells) + " |"]


# The reports that a network wrote itself.


def report_summary(
    written: Sequence[Zones | None],
    captions: Sequence[Report],
    counts: NDArray[np.int64],
    groups: Sequence[str],
    scorer: TextScorer,
    *,
    without: NDArray[np.int64] | None = None,
) -> dict[str, Any]:
    """Everything that a summary says of the written reports.

    A report is written in the convention of the caption that it is compared with; for the patient's sides that of the
    usual film. Where the network found nothing, its report is "no infection.". Captions that affirm or deny no zone
    have nothing to compare with and are left out of ``zones`` and ``text``.

    Args:
        written: Zones of ``N`` reports, ``None`` where the network found none and worked without text.
        captions: What the data set says of the ``N`` images.
        counts: ``(N, 4)`` tp, fp, fn, tn of the masks.
        groups: ``N`` labels; images with the same label are drawn together.
        scorer: Measures of words.
        without: ``(N, 4)`` counts of the masks that the network drew of the same images without any report; ``None``
            where that was not measured.

    Returns:
        ``used`` (``images`` and ``share`` with a sentence), ``scores_where_used`` (every score of masks on those alone,
        ``None`` without one), ``none_where_used`` (the same of ``without``) and ``paired_where_used`` (the first minus
        the second, of the main scores), ``images_without_caption``, ``zones`` and ``text`` as `zone_summary` and
        `TextScorer.summary` give them, ``None`` without captions.

    Raises:
        ShapeError: If lengths differ.
        UsageError: If there is no image.
    """
    used = [i for i, zones in enumerate(written) if zones]
    hits = np.array([[bool(zones), 1] for zones in written], dtype=np.float64)
    summary: dict[str, Any] = {
        "used": {"images": len(used), "share": bootstrap(hits, groups, {"share": _share})["share"].to_dict()},
        "scores_where_used": None,
        "none_where_used": None,
        "paired_where_used": None,
    }
    if used:
        own, those = case_columns(counts[used]), [groups[i] for i in used]
        summary["scores_where_used"] = _dicts(bootstrap(own, those, SCORES))
        if without is not None:
            silent = case_columns(without[used])
            summary["none_where_used"] = _dicts(bootstrap(silent, those, SCORES))
            differences = paired_difference(silent, own, those, {name: SCORES[name] for name in HEADLINE})
            summary["paired_where_used"] = _dicts(differences)
    told = [i for i, caption in enumerate(captions) if _says_zones(caption)]
    summary |= {"images_without_caption": len(captions) - len(told), "zones": None, "text": None}
    if told:
        reports = [written[i] or Zones() for i in told]
        true = [captions[i] for i in told]
        those = [groups[i] for i in told]
        summary["zones"] = zone_summary(reports, [caption.zones for caption in true], those)
        words = [write(zones, laterality=caption.laterality) for zones, caption in zip(reports, true, strict=True)]
        summary["text"] = scorer.summary(words, [caption.text or "" for caption in true], those)
    return summary


def _says_zones(caption: Report) -> bool:
    """There are words, and they affirm or deny a zone."""
    return caption.text is not None and caption.zones.mentioned


def _dicts(found: Mapping[str, Interval]) -> dict[str, dict[str, float | None]]:
    return {name: interval.to_dict() for name, interval in found.items()}


def _share(totals: Floats) -> Floats:
    share: Floats = totals[..., 0] / totals[..., 1]
    return share
