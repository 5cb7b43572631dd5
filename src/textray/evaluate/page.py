"""Markdown pages and tables of evaluation summaries: no score in a README or a card is typed by hand."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from textray.errors import UsageError
from textray.metrics.segmentation import SCORES, check_protocol

HEADLINE = ("dice_pooled", "iou_pooled", "dice_per_image", "iou_per_image")
_MODE_WARNING = (
    "A caption (`oracle`) holds the position of the very lesions to be found, so a score without its text mode means "
    "nothing."
)
NONE_NOT_TRAINED = (
    "the training of this network left no report out, so this is not the score of one trained without text"
)
"""What a score in text mode ``none`` of such a network must not be read without."""
_SIDES_UNKNOWN = (
    "`W_SIDES_UNKNOWN`: it is not known whose left and right the captions of this data set mean; they were used as "
    "written."
)
_SIDES = {
    "share_true_pooled": "named area, true text",
    "share_mirrored_pooled": "named area, mirrored text",
    "share_true_per_image": "mean share of a film, true text",
    "share_mirrored_per_image": "mean share of a film, mirrored text",
    "moved_films": "films that moved",
}
_ESTIMATORS = """\
`*_pooled` counts every pixel of the set once; `*_per_image` is the mean over images (both masks empty: 1,
one empty: 0); `*_per_lesion_image` leaves out the images where both are empty."""
SAME_DRAWS = "On the same phrases, with the same draws of patients for both."
OVERLAP = ("iou", "dice")
_POINTS = ("cnr", "cnr_signed", "pointing")
_RANGES = {
    "minmax": "each map is stretched to [-1, 1] first, so it always marks something and never says that there is none",
    "none": "the map as it is, cosines for a network",
    "clamp": "negative values made 0",
}

Summary = Mapping[str, Any]
Score = Mapping[str, float | None] | None


def cell(score: Score) -> str:
    """``value [low, high]`` with four decimals; a dash where the score is not defined."""
    if score is None or score["value"] is None:
        return "–"
    if score["low"] is None or score["high"] is None:
        return f"{score['value']:.4f}"
    return f"{score['value']:.4f} [{score['low']:.4f}, {score['high']:.4f}]"


def grid(head: Sequence[str], rows: Iterable[Sequence[str]], align: str = "l") -> str:
    """A Markdown table; ``align`` has ``l`` or ``r`` for each column, and ``r`` for those that it leaves out."""
    rule = ["---" if side == "l" else "---:" for side in align.ljust(len(head), "r")]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))


def data_words(data: Mapping[str, Any]) -> str:
    """Data set, split, cut and wording of the captions of a summary; older ones know no wordings."""
    cut = f" (cut by {data['split_by']})" if data.get("split_by") else ""
    return f"{data['name']} {data['split']}{cut}" + (f", {data['captions']} captions" if data.get("captions") else "")


def summary_page(summary: Summary) -> str:
    """The whole ``summary.md`` of an evaluation of either task, from what ``summary.json`` holds."""
    of_task = {"grounding": phrase_sections, "films": film_sections}.get(summary.get("task", ""), _mask_sections)
    sections = of_task(summary)
    if summary.get("files"):
        files = [f"- `{name}`, SHA-256 `{sha256}`" for name, sha256 in summary["files"].items()]
        sections.append(["## Files of this run", "", *files])
    return "\n".join("\n".join([*section, ""]) for section in sections)


def provenance(summary: Summary) -> str:
    """Command, commit, weights, data and estimator of a summary, in one line."""
    git, model, data = summary.get("git"), summary["model"], summary["data"]
    commit = f"commit `{git['commit'][:12]}`{' with local changes' if git['changed'] else ''}" if git else "no commit"
    weights = "no network" if model is None else f"model {model['name']} {model['version']} (`{model['sha256'][:12]}`)"
    if summary.get("task") == "grounding":
        scored = (
            f"; {data_words(data)}, phrases of kind {data['kind']}: {summary['phrases']} on {summary['images']} images"
        )
    else:
        scored = (
            f", input {'×'.join(map(str, summary['size']))} px, threshold {summary['threshold']}, scored on each "
            f"image's own grid; {summary['images']} images"
        )
    return (
        f"`{summary['command']}` at {commit}, TextRay {summary['textray']}; {weights}{scored} of "
        f"{summary['patients']} patients ({summary['images_without_patient']} images without a patient), "
        f"ids `{data['ids_sha256'][:12]}`; [low, high]: {summary['estimator']}, seed {summary['seed']}."
    )


# Whole films.

_FILM_COLUMNS = {
    "presence_auc": "AUC of presence",
    "unmarked": "normal, unmarked",
    "unmarked_denied": "the same, lesions denied",
    "area": "area marked in normal",
    "marked_sick": "sick, marked",
    "lung_left": "Dice, lung at the image's left",
    "lung_right": "at its right",
}


def film_sections(summary: Summary) -> list[list[str]]:
    """Sections of an evaluation of whole films; the first is its title."""
    sources = summary["sources"]
    rows = [
        [name, str(scores["normal"]), str(scores["sick"]), *(cell(scores[column]) for column in _FILM_COLUMNS)]
        for name, scores in sources.items()
    ]
    table = grid(["source", "normal films", "sick films", *_FILM_COLUMNS.values()], rows)
    meaning = (
        "A film is marked where its mask holds any pixel. AUC: the chance that a sick film of the source has a higher "
        "probability of a lesion than a normal one; that of all sources together also tells sources apart. Lesions "
        'denied: with the words "The lungs are clear."'
    )
    return [["# Whole films", "", meaning], [table], [provenance(summary)]]


# Masks of lesions.


def results_table(summaries: Sequence[Summary]) -> str:
    """Markdown table with one line for each model and text mode, and below it where the numbers come from.

    A summary is what `textray.evaluate.segmentation.evaluate` returned, or ``summary.json`` read back.

    Raises:
        UsageError: If there is no summary.
        TextRayError: If a Dice and an IoU cannot belong to the same masks.
    """
    if not summaries:
        raise UsageError("no table without summaries", came="none", expected="one or more")
    rows, notes = [], []
    for summary in summaries:
        data = data_words(summary["data"])
        for mode, values in summary["modes"].items():
            check_protocol({n: math.nan if v["value"] is None else v["value"] for n, v in values.items()})
            shown = (cell(values.get(name)) for name in HEADLINE)
            rows.append([summary["model"]["name"], data, mode, str(summary["images"]), *shown])
        notes.append(provenance(summary))
        if "none" in summary["modes"] and summary.get("learnt_without_report") is False:
            notes.append(
                f"`W_NONE_NOT_LEARNT`: text mode `none` of model {summary['model']['name']}: {NONE_NOT_TRAINED}."
            )
    table = grid(["model", "data", "text mode", "images", *(f"`{name}`" for name in HEADLINE)], rows, "lll")
    return "\n".join([table, "", *dict.fromkeys(notes), "", _MODE_WARNING, ""])


def report_lines(report: Summary) -> list[str]:
    """Section on the reports that the model wrote: the summary's ``report``, as Markdown lines."""
    used, zones, text = report["used"], report["zones"], report["text"]
    lines = [
        "## Own reports",
        "",
        f"A sentence was written and used on {used['images']} images: {cell(used['share'])}.",
        "On the others the model found no zone to name, and worked without text.",
    ]
    if where_used := report["scores_where_used"]:
        without, paired = report.get("none_where_used"), report.get("paired_where_used")  # older summaries lack them
        columns, head = [where_used], ["score", "images with a sentence alone"]
        if without is not None:
            columns += [without, paired or {}]
            head = ["score, images with a sentence alone", "generated", "none, the same images", "generated - none"]
        lines += ["", grid(head, ([f"`{n}`", *(cell(column.get(n)) for column in columns)] for n in where_used))]
    if zones is None:
        return [*lines, "", "No image has a caption to compare the reports with."]
    rates = ("accuracy", "precision", "recall", "f1")
    lines += [
        "",
        f"Zones of the report against those of the caption, {zones['images']} images",
        f"({report['images_without_caption']} without a caption that names or denies a zone are left out):",
        "",
        grid(["zone", *rates], ([zone, *(cell(zones[rate][zone]) for rate in rates)] for zone in zones["accuracy"])),
        "",
        f"All six zones right: {cell(zones['exact_match'])}.",
    ]
    for kind, words in (("never_named", "named by no caption"), ("never_written", "written into no report")):
        lines += [f"Zones {words}: {', '.join(zones[kind])}."] if zones[kind] else []
    scores = ([f"`{name}`", cell(score)] for name, score in text["scores"].items())
    lines += ["", grid(["words of the report against those of the caption", ""], scores)]
    return [*lines, "", *(f"- `{name}`: {words}" for name, words in text["signatures"].items())]


def side_lines(sides: Mapping[str, Summary]) -> list[str]:
    """Section on left-right sensitivity: what `textray.metrics.sides.side_summary` returned, as Markdown lines."""
    rows = [
        ["films", *(str(values["films"]) for values in sides.values())],
        ["of these without area", *(str(values["films_without_area"]) for values in sides.values())],
        *([f"{words} (`{n}`)", *(cell(values.get(n)) for values in sides.values())] for n, words in _SIDES.items()),
    ]
    return [
        "## Left-right sensitivity",
        "",
        grid(["", *sides], rows),
        "",
        "Each film is segmented with its own zones and with the mirrored ones, its pixels untouched. Unilateral: share",
        "of the predicted area on the half that the given text names. Bilateral: of the predicted area in zones that",
        "only one of the two texts names, the share in those that the given text names. Moved: above one half under",
        "the mirrored text. Films whose zones equal their mirror image cannot tell and are left out.",
    ]


def _fit_lines(fit: Summary) -> list[str]:
    return [
        "## Captions that fit the film",
        "",
        f"AUC {cell(fit['auc'])}, {fit['images']} images: the chance that the caption of an image fits the zones that",
        "the network sees in it, without a text, better than a shuffled caption fits those of its image.",
    ]


def _mask_sections(summary: Summary) -> list[list[str]]:
    modes, empty = summary["modes"], summary["empty"]
    kinds = {"truth": "empty truth", "prediction": "empty prediction", "both": "both empty"}
    counts = [[words, *(str(found[kind]) for found in empty.values())] for kind, words in kinds.items()]
    counts.append(["no text given", *(str(n) for n in summary["images_without_text"].values())])
    scores = ([f"`{name}`", *(cell(values.get(name)) for values in modes.values())] for name in SCORES)
    sections = [
        ["# Evaluation"],
        [results_table([summary]).rstrip("\n")],
        ["## All scores", "", grid(["score", *modes], scores)],
        [_ESTIMATORS],
        ["## Empty masks and missing texts", "", grid(["images with", *modes], counts)],
    ]
    if summary["data"].get("laterality") == "unknown":
        sections.append([_SIDES_UNKNOWN])
    sections.append(["## Text modes", "", *(f"- `{mode}`: {words}" for mode, words in summary["text_modes"].items())])
    if summary.get("report"):
        sections.append(report_lines(summary["report"]))
    if paired := summary.get("paired"):
        rows = ([pair, *(cell(scores.get(name)) for name in HEADLINE)] for pair, scores in paired.items())
        table = grid(["", *(f"`{name}`" for name in HEADLINE)], rows)
        note = "First mode minus second on the same images, with the same draws of patients for both."
        sections.append(["## Differences of text modes", "", table, "", note])
    if summary.get("fit"):
        sections.append(_fit_lines(summary["fit"]))
    if summary.get("sides"):
        sections.append(side_lines(summary["sides"]))
    return sections


# Maps of phrases.


def phrase_sections(summary: Summary) -> list[list[str]]:
    """Sections of the page of a grounding evaluation."""
    sections = [[f"# Grounding: phrases of kind {summary['data']['kind']}"], _phrase_lines(summary)]
    if any(summary["paired"].values()):
        table = grid(["", "phrases", *overlap_heads(summary["normalisations"])], pair_rows(summary))
        sections.append(["## The network minus controls and floors", "", table, "", SAME_DRAWS])
    sections.append(_threshold_lines(summary))
    if len(summary["classes"]) > 1:
        sections.append(_class_lines(summary))
    return [*sections, _protocol_lines(summary)]


def _phrase_lines(summary: Summary) -> list[str]:
    ranges = summary["normalisations"]
    rows = []
    for name, by_range in summary["rows"].items():
        first = by_range[ranges[0]]
        rows.append([name, str(first["cases"]), *overlaps(by_range[how]["scores"] for how in ranges)])
        rows[-1] += [cell(first["scores"][score]) for score in _POINTS]
    head = [*overlap_heads(ranges), *(f"`{name}`" for name in _POINTS)]
    lines = [grid(["row", "phrases", *head], rows), "", meanings([summary])]
    thresholds = ", ".join(map(str, summary["protocol"]["thresholds"]))
    lines += ["", f"IoU and Dice are means over classes, then over the thresholds {thresholds} (`map > t`)."]
    lines += [f"`{how}`: {_RANGES[how]}." for how in ranges]
    if len(ranges) > 1:
        lines += [f"Never compare a score under `{ranges[0]}` with one under `{ranges[1]}`."]
    return [
        *lines,
        "`full` marks everything whatever the range. A map below `mean_mask` has not localized; one that is not",
        "above `mean_phrase` may have read its phrase, but nothing shows that it looked at the picture.",
        "",
        provenance(summary),
    ]


def pair_rows(summary: Summary) -> list[list[str]]:
    """Name, phrases and `overlaps` of each difference of two rows of maps."""
    ranges, paired = summary["normalisations"], summary["paired"]
    return [
        [pair, str(first["cases"]), *overlaps(paired[how][pair] for how in ranges)]
        for pair, first in paired[ranges[0]].items()
    ]


def meanings(summaries: Iterable[Summary]) -> str:
    """What the rows of maps are, and why some are missing."""
    words: dict[str, str] = {}
    for summary in summaries:
        words |= summary["meanings"]
        words |= {row: f"not computed: {why}" for row, why in summary["not_computed"].items()}
    return "\n".join(f"- `{row}`: {meaning}." for row, meaning in words.items())


def overlap_heads(ranges: Sequence[str]) -> list[str]:
    """Heads of the columns of `overlaps`."""
    return [f"{how}: `{name}`" for how in ranges for name in OVERLAP]


def overlaps(of_ranges: Iterable[Mapping[str, Score]]) -> list[str]:
    """IoU and Dice under each range."""
    return [cell(scores[name]) for scores in of_ranges for name in OVERLAP]


def _threshold_lines(summary: Summary) -> list[str]:
    ticks = [str(t) for t in summary["protocol"]["thresholds"]]
    rows = []
    for name, by_range in summary["rows"].items():
        for how, scores in by_range.items():
            best = scores["best_threshold"]
            nothing = ", ".join(f"{n} > {t}" for t, n in scores["marks_nothing"].items() if n)
            pairs = (_pair(scores["thresholds"][t]) for t in ticks)
            rows.append([name, how, *pairs, f"{_pair(best)} > {best['threshold']}", nothing or "–"])
    head = ["row", "range", *(f"IoU / Dice > {t}" for t in ticks), "best single threshold", "marks nothing"]
    return [
        "## By threshold",
        "",
        grid(head, rows, "ll" + "r" * (len(ticks) + 1) + "l"),
        "",
        "The best single threshold is that of the highest Dice among -0.95, -0.90 … 0.95, chosen on the very phrases",
        "that are scored here: an upper bound, not a result. Marks nothing: phrases whose maps it leaves empty;",
        f"they score {'0 there' if summary['protocol']['empty_prediction'] == 'zero' else 'nothing there (left out)'}.",
    ]


def _class_lines(summary: Summary) -> list[str]:
    how, classes = summary["normalisations"][0], summary["classes"]
    rows = (
        [row, f"`{name}`", *(cell(by_range[how]["classes"].get(label, {}).get(name)) for label in classes)]
        for row, by_range in summary["rows"].items()
        for name in (*OVERLAP, "cnr_signed", "pointing")
    )
    head = ["row", "score", *(f"{label} ({count})" for label, count in classes.items())]
    return [f"## By class ({how})", "", grid(head, rows, "ll")]


def _protocol_lines(summary: Summary) -> list[str]:
    protocol, wordings, left = summary["protocol"], summary["wordings"], summary["left_out"]
    boxes = "each box by itself against what is outside of all, then the mean" if protocol["per_box"] else "all of it"
    lines = [
        "## Protocol",
        "",
        f"- Maps smoothed by a Gaussian of {protocol['sigma']} cells, enlarged to "
        f"{' x '.join(map(str, protocol['grid']))} pixels; truth by nearest",
        f"  neighbour to the same grid, boxes of a phrase joined; border left out: {protocol['margin']} pixels.",
        f"- Contrast (`cnr`) of the truth as: {boxes}. `pointing`: the highest pixel lies inside the truth.",
        f"- Training masks behind the mean masks: {protocol['training_masks'] or 'none'}.",
    ]
    if protocol["training_masks_scored"]:
        lines += [
            "  The split is part of train, so they hold the very masks that are scored: these two floors are too high."
        ]
    lines += [
        f"- Left out of every row: {left['empty_truth']} phrases with nothing true on the grid, "
        f"{left['sides_not_turned']} whose sides cannot be turned to those that the network knows.",
        f"- {wordings['different']} different phrases{'; the most frequent:' if wordings['most_frequent'] else '.'}",
    ]
    return lines + [f"  - {count} × `{phrase}`" for phrase, count in wordings["most_frequent"].items()]


def _pair(scores: Mapping[str, float | None]) -> str:
    values = (scores["iou"], scores["dice"])
    return " / ".join("–" if value is None or value != value else f"{value:.3f}" for value in values)
