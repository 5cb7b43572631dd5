"""Model cards of bundles, written from what the training or the import recorded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from textray import registry
from textray.data.base import trained_without_report
from textray.evaluate.page import film_sections, report_lines, results_table, side_lines
from textray.inference.localizer import PLACES_ONLY

if TYPE_CHECKING:
    from textray.export.conventions import Convention

_RESEARCH = "For research. Not a medical device; not for diagnosis, triage or treatment."
_NOT_CALIBRATED = "Probabilities are not calibrated."
_TEXT_LIMITS = (
    "Wrong words move the mask: see the left-right sensitivity above, where it was measured.",
    "Words act through the six zones only (left and right, upper, middle, lower). Size, number, kind and certainty of "
    "findings in a text change nothing.",
)
_CAPTION_LIMIT = "Words act where they are one of the captions that `textray info` lists; any other text is no text."
_GROUNDING_LIMITS = (
    _RESEARCH,
    "A map says where in the film a phrase is likest, not whether the finding is there: every phrase has a peak, also "
    'one that is not true of the film, and one that denies ("no effusion").',
    "Cosines are no probabilities, and those of two phrases or two films need not mean the same.",
    "The map has as many cells as stated above; what is smaller than a cell cannot be separated from its neighbours.",
    "Words outside of the vocabulary are cut into letters, which may mean anything; `textray ground` names them "
    "(`W_UNKNOWN_WORD`).",
)
_PLACES = (
    "It was trained on words of places only: the name of a finding beside a place changes little, and a phrase that "
    "names no place may light up anything (`W_NO_PLACE`).",
    "The peak may lie on the side that the phrase does not name (`W_PEAK_OTHER_SIDE`), and denials are not understood "
    "(`W_DENIED`).",
)
_SIDES = {
    "viewer": "Left and right in the training texts were the viewer's. `textray ground` turns the patient's to them.",
    "patient": "Left and right in the training texts were the patient's, on films that lie as usual. `textray ground` "
    "turns the words about any other film, and the viewer's, to what they would be on such a one.",
    "unknown": "It is not known whose left and right the training texts meant: do not rely on sides.",
}
IMPORTED_TERMS = (
    "The weights were published by the authors of the network, not by TextRay, and are theirs: the terms are those "
    "under which they published the checkpoint. Which images they were trained on, and under which terms those may be "
    "used, the checkpoint does not say. Research use at most."
)


def segmenter_card(
    name: str,
    facts: Mapping[str, Any],
    *,
    parameters: int,
    threshold: float = 0.5,
    terms: str,
    summaries: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Write the model card of a segmenter from the facts of its checkpoint, as Markdown.

    ``threshold`` is the probability from which a pixel is lesion, ``terms`` what the weights may be used for, and
    ``summaries`` are results of `textray evaluate` on this network.
    """
    model, seen, encoder = registry.model(facts["network"]), facts["data"], facts["text_encoder"]
    data = registry.dataset(seen["name"])
    of_films = [summary for summary in summaries if summary.get("task") == "films"]
    of_masks = [summary for summary in summaries if summary.get("task") != "films"]
    beside = registry.dataset(seen["beside"]) if seen.get("beside") else None
    limits = (*data.limits, *(data.alone if beside is None else beside.limits))
    scores = [results_table(of_masks).rstrip("\n")] if of_masks else []
    scores += ["\n".join(["", *section]) for summary in of_films for section in film_sections(summary)[1:]]
    for summary in of_masks:
        sections = [report_lines(summary["report"])] if summary.get("report") else []
        sections += [side_lines(summary["sides"])] if summary.get("sides") else []
        scores += ["\n".join(["", *("#" + line if line.startswith("#") else line for line in s)]) for s in sections]
    text_limits = () if encoder is None else (_CAPTION_LIMIT,) if seen.get("captions") else _TEXT_LIMITS
    averaged = ", ".join(f"epoch {other['epoch']} of {other['max_epochs']}" for other in facts.get("averaged", ()))
    training = [
        f"Data: {data.title} (`{data.name}`), {_images_of_set(seen):,} images to learn from and "
        f"{_images_of_set(seen, 'inner'):,} of other patients to select with. Card of the data: `{data.card}`.",
        f"Sides in its texts: {data.laterality}. Image: {_size(seen)} px, normalisation "
        f"`{seen['preprocess']['normalise']}`, augmentation `{seen['augment']}`.",
        *([] if beside is None else [_beside(seen, beside)]),
        *_masks(seen),
        *(["Reads no text."] if encoder is None else _texts(facts)),
        *_origin(facts),
        f"Epoch {facts['epoch']} of {facts['max_epochs']}, seed {seen['seed']}, TextRay {facts['version']}.",
    ]
    if facts.get("started"):
        names = [f"`{one['name']}` ({_title(one['data'])})" for one in facts.get("start", ())]
        named = f": {', '.join(names)}" if names else ""
        training += [f"It started from the weights of an earlier training{named}; the facts above are of the last one."]
    if averaged:
        training += [f"Weights: the mean of this checkpoint and of {len(facts['averaged'])} more ({averaged})."]
    if threshold != 0.5:
        training += [f"A pixel is lesion from a probability of {threshold:g} on."]
    missing = "Not measured. Run `textray evaluate` on this bundle and export again with `--scores summary.json`."
    return _card(
        name,
        f"Weights of `{model.name}` ({model.paper}) for TextRay, {parameters:,} parameters.",
        {
            "What it was trained on": _items(training),
            "Configuration": _items(f"`{key}`: {value}" for key, value in facts["config"].items()),
            "Scores": scores or [missing],
            "Limits": _items((_RESEARCH, _NOT_CALIBRATED, *text_limits, *limits)),
            "Terms": [terms],
        },
    )


def _title(name: str | None) -> str:
    """The title of a data set, as far as it is known."""
    return registry.dataset(name).title if name in registry.DATASETS else "unknown data"


def _beside(seen: Mapping[str, Any], beside: registry.DatasetRow) -> str:
    """What a network learned from a second data set, whose lesions nobody has drawn."""
    return (
        f"Beside it: {beside.title} (`{beside.name}`), {seen.get('beside_images', {}).get('fit', 0):,} images, "
        f"{seen['beside_share']:.0%} of each batch: normal films as empty "
        "masks, sick films for their presence alone, lungs where they are drawn. Normal and sick films come as often "
        f"within each source. Card: `{beside.card}`."
    )


def grounder_card(
    name: str,
    facts: Mapping[str, Any],
    *,
    parameters: int,
    map_size: tuple[int, int],
    terms: str,
    summaries: Sequence[str] = (),
) -> str:
    """Write the model card of a grounding network, as Markdown; ``map_size`` is in cells.

    ``summaries`` are pages of `textray evaluate --task grounding` on this network; else as `segmenter_card`.
    """
    model, seen = registry.model(facts["network"]), facts["data"]
    data = registry.dataset(seen["name"])
    losses = [
        f"{key} `{facts[key]}`" for key in ("mode", "targets", "local_unit", "match", "contrast") if facts.get(key)
    ]
    sampling = [
        f"{key} `{seen[key]}`" for key in ("sentence_sampling", "paraphrase", "augment") if seen.get(key) is not None
    ]
    training = [
        f"Data: {data.title} (`{data.name}`), {seen['images'].get('fit', 0):,} films with their texts to learn from "
        f"and {seen['images'].get('inner', 0):,} held out; no mask and no box. Card of the data: `{data.card}`.",
        _SIDES[str(seen["laterality"])],
        f"Texts as sentences: `{seen['sentences']}`; a phrase is cut the same way. Vocabulary: "
        f"{len(facts['vocabulary']):,} word pieces.",
        *([f"In training: {', '.join(sampling)}."] if sampling else []),
        f"Image: {_size(seen)} px, map: {map_size[0]}×{map_size[1]} cells.",
        *([f"Losses: {', '.join(losses)}."] if losses else []),
    ]
    if left_out := seen.get("excluded_patients"):
        training += [f"Patients left out of the training: {left_out['count']:,}, list {left_out['sha256'][:12]}."]
    if recipe := " ".join(f"--config {word}" for word in facts.get("recipe") or ()):
        training += [f"Recipe: `textray train {recipe} --data.root DIR`."]
    training += [
        f"Epoch {facts['epoch']} of {facts['max_epochs']}, seed {seen.get('seed')}, TextRay {facts['version']}."
    ]
    if "averaged" in facts:
        training += [f"Weights: the mean of this checkpoint and of {len(facts['averaged'])} more."]
    if facts.get("started"):
        training += ["It started from the weights of an earlier training."]
    places = _PLACES if seen.get("sentence_sampling") in PLACES_ONLY else ()
    missing = "Not measured. Run `textray evaluate --task grounding` on this bundle."
    return _card(
        name,
        f"Weights of `{model.name}` ({model.paper}) for `textray ground`, {parameters:,} parameters: where in a film a "
        "phrase is true.",
        {
            "What it was trained on": _items(training),
            "Configuration": _items(f"`{key}`: {value}" for key, value in facts["config"].items()),
            "Scores": ["\n\n".join(summaries) or missing],
            "Limits": _items((*_GROUNDING_LIMITS, *places, *data.alone, *data.limits)),
            "Terms": [terms],
        },
    )


def imported_card(name: str, report: Mapping[str, Any], *, parameters: int, convention: Convention) -> str:
    """Write the model card of an imported bundle: where its weights come from, and what is not known of them.

    ``report`` is that of `textray.export.published.import_checkpoint`, ``mapped`` as a number.
    """
    model, file = registry.model(report["model"]), report["file"]
    facts = ", ".join(f"{key} {value}" for key, value in report["facts"].items()) or "nothing"
    if convention.captions:
        texts = f"{len(convention.captions)} captions of {report['data']}"
        needs = "a text that is one of the captions which `textray info` lists"
        known = registry.dataset(report["data"])
        limits = (*known.alone, *known.limits)
    else:
        texts, needs = "the 64 zone sentences", "a report that names at least one zone"
        films = "if on QaTa-COV19 or MosMedData+, it has seen only COVID-19"
        limits = (f"What it was trained on is not known to TextRay; {films}.",)
    origin = (
        f"File `{file['name']}`, {file['bytes']:,} bytes, SHA-256 `{file['sha256']}`.",
        f"The file states: {facts}.",
        f"{report['mapped']} tensors were taken, {len(report['dropped'])} have no use here (heads of the language "
        f"model, tables that are computed), {len(report['skipped'])} kinds of foreign objects were skipped unread.",
        f"The text encoder's weights come from the {report['text_encoder']}; its features of {texts} are in the "
        f"bundle: {convention.card_text}.",
        "Matrices and kernels are rounded to half precision.",
    )
    return _card(
        name,
        f"Weights of `{model.name}` in its {report['form']} form ({model.paper}), as their authors published them, "
        f"brought to TextRay by `textray import`. {parameters:,} parameters.",
        {
            "Where they come from": _items(origin),
            "How it is used": _items((convention.card_film, f"It cannot work without {needs}.")),
            "Scores": ["Not measured here. Run `textray evaluate --text-mode oracle` on this bundle."],
            "Limits": _items((_RESEARCH, _NOT_CALIBRATED, *limits)),
            "Terms": [IMPORTED_TERMS],
        },
    )


def _card(name: str, first: str, sections: Mapping[str, Sequence[str]]) -> str:
    lines = [f"# {name}", "", first]
    for title, content in sections.items():
        lines += ["", f"## {title}", "", *content]
    return "\n".join(lines) + "\n"


def _items(facts: Iterable[str]) -> list[str]:
    return [f"- {fact}" for fact in facts]


def _size(seen: Mapping[str, Any]) -> str:
    return "×".join(str(n) for n in seen["preprocess"]["size"])


def _images_of_set(seen: Mapping[str, Any], split: str = "fit") -> int:
    """Images of a split of the data set itself."""
    unlabelled = seen.get("unlabelled", {}).get("images", 0) if split == "fit" else 0
    return int(seen["images"].get(split, 0)) - int(unlabelled) - int(seen.get("beside_images", {}).get(split, 0))


def _origin(facts: Mapping[str, Any]) -> list[str]:
    """Recipe and commit of the training, if the run recorded them."""
    lines = []
    if facts.get("recipe"):
        words = " ".join(f"--config {name}" for name in facts["recipe"])
        words += " --data.root DIR" + (" --model.initial CHECKPOINT" if facts.get("started") else "")
        if facts.get("semi_supervised"):
            words += " --task semi_supervised --model.teacher CHECKPOINT"
            words += " --data.unlabelled DIR" if facts["data"].get("unlabelled") else ""
        lines.append(f"Recipe: `textray train {words}`.")
    if git := facts.get("git"):
        changed = ", with local changes" if git["changed"] else ""
        lines.append(f"Code of the training: commit `{git['commit'][:12]}`{changed}.")
    return lines


def _masks(seen: Mapping[str, Any]) -> list[str]:
    """How many images had masks, if not all of them, and which images have none."""
    images, labelled, others = _images_of_set(seen), seen.get("labelled", {}).get("images"), seen.get("unlabelled")
    lines = []
    if labelled is not None and labelled < images:
        lines = [f"Masks: those of {labelled:,} of these images; pseudo-labels for the others, at first a teacher's."]
    if others:
        sided = others["with_text"] and not seen.get("captions")
        sides = f" (sides in it: {others['laterality']}, unless its table states them)" if sided else ""
        lines += [
            f"Pictures without masks of the trainer's own: {others['images']:,}, labelled by pseudo-labels; "
            f"{others['with_text']:,} with a report{sides}."
        ]
    return lines


def _texts(facts: Mapping[str, Any]) -> list[str]:
    """How the network was trained to read text."""
    seen = facts["data"]
    texts = f"{len(seen['captions'])} captions" if seen.get("captions") else "the 64 zone sentences"
    use = "so the network works with a report and with none"
    without = seen.get("without_text", {}).get("fit", 0)
    if without and not seen["report_dropout"]:
        use = f"and {without} films came without one, " + use
    if trained_without_report(facts) is False:
        replaced = "and its own took their place, " if seen["report_dropout"] else ""
        use = replaced + "so the network knows no film without a report: what it does without one was not trained"
    lines = [f"Reports were withheld from {seen['report_dropout']:.0%} of the training samples, {use}."]
    if withheld := seen.get("report_withheld", 0):
        last = seen.get("report_withheld_last", withheld)
        share = f"{withheld:.0%}" + (f" (falling to {last:.0%} in the last epoch)" if last != withheld else "")
        lines.append(
            f"From {share} of the films with two zones or more some zones were withheld, in the report "
            "and in the mask to be found alike, so that the words decide."
        )
    return [*lines, f"Text encoder: `{facts['text_encoder']}`, frozen; its features of {texts} are in the bundle."]
