"""The model card of an imported bundle: where its weights come from, and what is not known of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textray import registry
from textray.importer.convention import Convention

TERMS = (
    "The weights were published by the authors of the network, not by TextRay, and are theirs: the terms are those "
    "under which they published the checkpoint. Which images they were learnt from, and under which terms those may be "
    "used, the checkpoint does not say. Research use at most."
)


def card(name: str, report: Mapping[str, Any], parameters: int, convention: Convention) -> str:
    """Write the card.

    Args:
        name: Name of the bundle.
        report: What `textray.importer.convert.import_checkpoint` reports, ``mapped`` as a number.
        parameters: Number of the network's parameters.
        convention: What the network expects of film and report.

    Returns:
        Markdown.
    """
    row, file = registry.model(report["model"]), report["file"]
    facts = ", ".join(f"{key} {value}" for key, value in report["facts"].items()) or "nothing"
    dropped, skipped = len(report["dropped"]), len(report["skipped"])
    if convention.captions:
        texts = f"{len(convention.captions)} captions of {report['data']}"
        needs = "a text that is one of the captions which `textray info` lists"
        limits = [f"- {limit}" for limit in registry.dataset(report["data"]).limits]
    else:
        texts, needs = "the 64 zone sentences", "a report that names at least one zone"
        films = "if on QaTa-COV19 or MosMedData+, it has seen only COVID-19"
        limits = [f"- What it was trained on is not known to TextRay; {films}."]
    lines = [
        f"# {name}",
        "",
        f"Weights of `{row.name}` in its {report['form']} form ({row.paper}), as their authors published them, brought "
        f"to TextRay by `textray import`. {parameters:,} parameters.",
        "",
        "## Where they come from",
        "",
        f"- File `{file['name']}`, {file['bytes']:,} bytes, SHA-256 `{file['sha256']}`.",
        f"- The file says of itself: {facts}.",
        f"- {report['mapped']} tensors were taken, {dropped} have no use here (heads of the language model, tables "
        f"that are computed), {skipped} kinds of foreign objects were skipped unread.",
        f"- The text encoder's weights come from the {report['text_encoder']}; its features of {texts} "
        f"are in the bundle: {convention.told_text}.",
        "- Matrices and kernels are rounded to half precision.",
        "",
        "## How it is used",
        "",
        f"- {convention.told_film}",
        f"- It cannot work without {needs}.",
        "",
        "## Scores",
        "",
        "Not measured here. Run `textray evaluate --text-mode oracle` on this bundle.",
        "",
        "## Limits",
        "",
        "- For research. Not a medical device; not for diagnosis, triage or treatment.",
        "- Probabilities are not calibrated.",
        *limits,
        "",
        "## Terms",
        "",
        TERMS,
    ]
    return "\n".join(lines) + "\n"
