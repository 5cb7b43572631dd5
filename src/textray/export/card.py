"""The model card and the terms that a bundle carries, written from what the training recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from textray import registry
from textray.data.base import trained_without_report
from textray.evaluate.page import report_lines, results_table, side_lines
from textray.inference.localizer import PLACES_ONLY

_LIMITS = (
    "For research. Not a medical device; not for diagnosis, triage or treatment.",
    "Probabilities are not calibrated.",
)
_TEXT_LIMITS = (
    "Wrong words move the mask: see the left-right sensitivity above, where it was measured.",
    "Words act through the six zones only (left and right, upper, middle, lower). Size, number, kind and certainty of "
    "findings in a text change nothing.",
)
_CAPTION_LIMIT = "Words act where they are one of the captions that `textray info` lists; any other text is no text."


def card(
    name: str, facts: Mapping[str, Any], parameters: int, terms: str, summaries: Sequence[Mapping[str, Any]]
) -> str:
    """Write the model card of a bundle.

    Args:
        name: Name of the bundle.
        facts: What the checkpoint says of its training.
        parameters: Number of the network's parameters.
        terms: What the weights may be used for.
        summaries: Results of `textray evaluate` on this network; may be empty.

    Returns:
        Markdown.
    """
    row = registry.model(facts["network"])
    data = registry.dataset(facts["data"]["name"])
    seen = facts["data"]
    size = "×".join(str(n) for n in seen["preprocess"]["size"])
    lines = [
        f"# {name}",
        "",
        f"Weights of `{row.name}` ({row.paper}) for TextRay, {parameters:,} parameters.",
        "",
        "## What it was trained on",
        "",
        f"- Data: {data.title} (`{data.name}`), {_own_images(seen):,} images to learn from and "
        f"{seen['images'].get('inner', 0):,} of other patients to select with. Card of the data: `{data.card}`.",
        f"- Sides in its texts: {data.laterality}. Image: {size} px, normalisation "
        f"`{seen['preprocess']['normalise']}`, augmentation `{seen['augment']}`.",
        *_mask_lines(facts),
        *_text_lines(facts),
        *_origin(facts),
        f"- Epoch {facts['epoch']} of {facts['max_epochs']}, seed {seen['seed']}, TextRay {facts['version']}.",
        *_start_lines(facts),
        *_average_lines(facts),
        *_threshold_lines(facts),
        "",
        "## Configuration",
        "",
        *(f"- `{key}`: {value}" for key, value in facts["config"].items()),
        "",
        "## Scores",
        "",
    ]
    if summaries:
        lines += [results_table(summaries)]
        for summary in summaries:
            sections = [report_lines(summary["report"])] if summary.get("report") else []
            sections += [side_lines(summary["sides"])] if summary.get("sides") else []
            for section in sections:
                lines += ["#" + line if line.startswith("#") else line for line in section] + [""]
    else:
        lines += [
            "Not measured. Run `textray evaluate` on this bundle and export again with `--scores summary.json`.",
            "",
        ]
    text_limits = (_CAPTION_LIMIT,) if seen.get("captions") else _TEXT_LIMITS
    limits = (*_LIMITS, *(text_limits if facts["text_encoder"] else ()), *data.limits)
    lines += ["## Limits", "", *(f"- {limit}" for limit in limits), "", "## Terms", "", terms]
    return "\n".join(lines) + "\n"


def _origin(facts: Mapping[str, Any]) -> list[str]:
    """Recipe and commit of the training, where the run recorded them."""
    lines = []
    if facts.get("recipe"):
        words = " ".join(f"--config {name}" for name in facts["recipe"])
        words += " --data.root DIR" + (" --model.initial CHECKPOINT" if facts.get("started") else "")
        if facts.get("semi_supervised"):
            words += " --task semi_supervised --model.teacher CHECKPOINT"
            words += " --data.unlabelled DIR" if facts["data"].get("unlabelled") else ""
        lines.append(f"- Recipe: `textray train {words}`.")
    if facts.get("git"):
        changed = ", with local changes" if facts["git"]["changed"] else ""
        lines.append(f"- Code of the training: commit `{facts['git']['commit'][:12]}`{changed}.")
    return lines


def _start_lines(facts: Mapping[str, Any]) -> list[str]:
    """That there was a training before, which the facts do not describe."""
    if not facts.get("started"):
        return []
    return ["- It started from the weights of an earlier training; what is said above is of the last one."]


def _average_lines(facts: Mapping[str, Any]) -> list[str]:
    """The other stages whose weights went into the mean."""
    others = facts.get("averaged", ())
    if not others:
        return []
    epochs = ", ".join(f"epoch {other['epoch']} of {other['max_epochs']}" for other in others)
    return [f"- Weights: the mean of this checkpoint and of {len(others)} more ({epochs})."]


def _threshold_lines(facts: Mapping[str, Any]) -> list[str]:
    """From which probability on a pixel is lesion, where that is not one half."""
    threshold = facts.get("threshold", 0.5)
    return [] if threshold == 0.5 else [f"- A pixel is lesion from a probability of {threshold:g} on."]


def _mask_lines(facts: Mapping[str, Any]) -> list[str]:
    """How many masks were seen, where not all of them were, and which images have none."""
    seen = facts["data"]
    images, labelled, others = _own_images(seen), seen.get("labelled", {}).get("images"), seen.get("unlabelled")
    lines = []
    if others:
        sided = others["with_text"] and not seen.get("captions")
        sides = f" (sides in it: {others['laterality']}, unless its table said)" if sided else ""
        lines = [
            f"- Pictures without masks of the trainer's own: {others['images']:,}, taught by pseudo-labels; "
            f"{others['with_text']:,} with a report{sides}."
        ]
    if labelled is None or labelled == images:
        return lines
    masks = f"- Masks: those of {labelled:,} of these images; others taught by pseudo-labels, at first a teacher's."
    return [masks, *lines]


def _own_images(seen: Mapping[str, Any]) -> int:
    """Images of the data set itself that were learnt from."""
    return int(seen["images"].get("fit", 0)) - int(seen.get("unlabelled", {}).get("images", 0))


def _text_lines(facts: Mapping[str, Any]) -> list[str]:
    """How the network came to read text, if it reads any."""
    if facts["text_encoder"] is None:
        return ["- Reads no text."]
    seen = facts["data"]
    told = f"{len(seen['captions'])} captions" if seen.get("captions") else "the 64 zone sentences"
    use = "so the network works with a report and with none"
    without = seen.get("without_text", {}).get("fit", 0)
    if without and not seen["report_dropout"]:
        use = f"and {without} films came without one, " + use
    if trained_without_report(facts) is False:
        own = "and its own took their place, " if seen["report_dropout"] else ""
        use = own + "so the network knows no film without a report: what it does without one was not learnt"
    withheld = seen.get("report_withheld", 0)
    last = seen.get("report_withheld_last", withheld)
    share = f"{withheld:.0%}" + (f" (falling to {last:.0%} in the last epoch)" if last != withheld else "")
    return [
        f"- Reports were withheld from {seen['report_dropout']:.0%} of the training samples, {use}.",
        *(
            [
                f"- From {share} of the films with two zones or more some zones were withheld, in the report "
                "and in the mask to be found alike, so that the words decide."
            ]
            if withheld
            else []
        ),
        f"- Text encoder: `{facts['text_encoder']}`, frozen; its features of {told} are in the bundle.",
    ]


def licence(name: str, terms: str) -> str:
    """Text of the bundle's LICENSE file."""
    return f"The weights in this folder ({name}) have their own terms; TextRay's code is Apache-2.0.\n\n{terms}\n"


# The model card that a grounding bundle carries, written from what the training recorded.

_GROUNDING_LIMITS = (
    "For research. Not a medical device; not for diagnosis, triage or treatment.",
    "A map says where in the film a phrase is likest, not whether the finding is there: every phrase has a peak, also "
    'one that is not true of the film, and one that denies ("no effusion").',
    "Cosines are no probabilities, and those of two phrases or two films need not mean the same.",
    "The map has as many cells as said above; what is smaller than a cell cannot be told from its neighbours.",
    "Words outside of the vocabulary are cut into letters, which may mean anything; `textray ground` names them "
    "(`W_UNKNOWN_WORD`).",
)
_PLACES = (
    "It learnt words of places only: the name of a finding beside a place changes little, and a phrase that names no "
    "place may light up anything (`W_NO_PLACE`).",
    "The peak may lie on the side that was not asked for (`W_PEAK_OTHER_SIDE`), and denials are not understood "
    "(`W_DENIED`).",
)
_SIDES = {
    "viewer": "Left and right in the training texts were the viewer's. `textray ground` turns the patient's to them.",
    "patient": "Left and right in the training texts were the patient's, on films that lie as usual. `textray ground` "
    "turns the words about any other film, and the viewer's, to what they would be on such a one.",
    "unknown": "Nobody has said whose left and right the training texts meant: do not rely on sides.",
}


def grounding_card(
    name: str,
    facts: Mapping[str, Any],
    *,
    parameters: int,
    map_size: tuple[int, int],
    terms: str,
    summaries: Sequence[str] = (),
) -> str:
    """Write the model card of a grounding bundle.

    Args:
        name: Name of the bundle.
        facts: What the checkpoint says of its training.
        parameters: Number of the network's parameters.
        map_size: Cells of a map.
        terms: What the weights may be used for.
        summaries: Tables of `textray evaluate --task grounding` on this network, as Markdown; may be empty.

    Returns:
        Markdown.
    """
    row, seen = registry.model(facts["network"]), facts["data"]
    data = registry.dataset(seen["name"])
    size = "×".join(str(n) for n in seen["preprocess"]["size"])
    left_out = seen.get("excluded_patients")
    options = ", ".join(
        f"{key} `{facts[key]}`" for key in ("mode", "targets", "local_unit", "match", "contrast") if facts.get(key)
    )
    recipe = " ".join(f"--config {word}" for word in facts.get("recipe") or ())
    lines = [
        f"# {name}",
        "",
        f"Weights of `{row.name}` ({row.paper}) for `textray ground`, {parameters:,} parameters: where in a film a "
        "phrase is true.",
        "",
        "## What it was trained on",
        "",
        f"- Data: {data.title} (`{data.name}`), {seen['images'].get('fit', 0):,} films with their texts to learn from "
        f"and {seen['images'].get('inner', 0):,} held out; no mask and no box. Card of the data: `{data.card}`.",
        f"- {_SIDES[str(seen['laterality'])]}",
        f"- Texts as sentences: `{seen['sentences']}`; a phrase is cut the same way. Vocabulary: "
        f"{len(facts['vocabulary']):,} word pieces.",
        *_sampling_lines(seen),
        f"- Image: {size} px, map: {map_size[0]}×{map_size[1]} cells.",
        *([f"- Losses: {options}."] if options else []),
        *(
            [f"- Patients left out of the training: {left_out['count']:,}, list {left_out['sha256'][:12]}."]
            if left_out
            else []
        ),
        *([f"- Recipe: `textray train {recipe} --data.root DIR`."] if recipe else []),
        f"- Epoch {facts['epoch']} of {facts['max_epochs']}, seed {seen.get('seed')}, TextRay {facts['version']}.",
        *(
            [f"- Weights: the mean of this checkpoint and of {len(facts['averaged'])} more."]
            if "averaged" in facts
            else []
        ),
        *(["- It started from the weights of an earlier training."] if facts.get("started") else []),
        "",
        "## Configuration",
        "",
        *(f"- `{key}`: {value}" for key, value in facts["config"].items()),
        "",
        "## Scores",
        "",
        "\n\n".join(summaries) or "Not measured. Run `textray evaluate --task grounding` on this bundle.",
        "",
        "## Limits",
        "",
        *(f"- {limit}" for limit in (*_GROUNDING_LIMITS, *(_PLACES if _places_only(seen) else ()), *data.limits)),
        "",
        "## Terms",
        "",
        terms,
    ]
    return "\n".join(lines) + "\n"


def _places_only(seen: Mapping[str, Any]) -> bool:
    return seen.get("sentence_sampling") in PLACES_ONLY


def _sampling_lines(seen: Mapping[str, Any]) -> list[str]:
    """How texts and films were varied, where the checkpoint says so."""
    told = [(key, seen[key]) for key in ("sentence_sampling", "paraphrase", "augment") if seen.get(key) is not None]
    return [f"- In training: {', '.join(f'{key} `{value}`' for key, value in told)}."] if told else []
