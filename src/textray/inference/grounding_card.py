"""The model card that a grounding bundle carries, written from what the training recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from textray import registry
from textray.inference.phrase_notices import PLACES_ONLY

_LIMITS = (
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
        *(f"- {limit}" for limit in (*_LIMITS, *(_PLACES if _places_only(seen) else ()), *data.limits)),
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
