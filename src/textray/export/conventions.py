"""How the authors' codes bring film and report to each network that can be imported, and its card."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from textray import registry
from textray.nn.bert import TextEncoder
from textray.preprocess import Preprocess
from textray.text.zones import bank_sentences

_SIZE = (224, 224)
_VECTORS = 10
_FILLING = " EOF XXX"

Bank = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class Convention:
    """What a published network expects of its input, and what of that is said in its card.

    Attributes:
        preprocess: From a film to its pixels.
        text_encoder: Registry name of the frozen text encoder.
        max_tokens: Longest text that this encoder reads, its marks included.
        encode: Features ``(K, L, D)`` and mask ``(K, L)`` of K texts as the network reads them.
        landmark: A word that the encoder's vocabulary holds whole, and others do not.
        landmark_id: Its number there, ``None`` where the word alone tells.
        needed: Files of the encoder's folder without which nothing can be done.
        no_folder: Why there must be such a folder.
        told_film: How films reach it, for the card.
        told_text: How reports reach it, for the card.
        blue_first: Weight that reads the picture, where checkpoints learnt on colour have been published, blue first;
            empty where there are none.
        captions: What the network is told in place of the zone sentences; empty where it is told those.
    """

    preprocess: Preprocess
    text_encoder: str
    max_tokens: int
    encode: Callable[[TextEncoder, Sequence[str]], Bank]
    landmark: str
    landmark_id: int | None = None
    needed: tuple[str, ...] = ("config.json", "vocab.txt")
    no_folder: str
    told_film: str
    told_text: str
    blue_first: str = ""
    captions: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """All that the network can be told, in the order of the bundle's bank."""
        return self.captions or tuple(bank_sentences())

    def knows(self, encoder: TextEncoder) -> bool:
        """True where an encoder's vocabulary is the one that the network learnt with, as far as one word can tell."""
        found = encoder.tokenizer.token_to_id(self.landmark)
        return found is not None and self.landmark_id in (None, found)

    def in_colour(self, captions: tuple[str, ...]) -> Convention:
        """The same for pictures in colour, red first, with captions; the weights are turned round, see `blue_first`."""
        return replace(
            self,
            captions=captions,
            preprocess=replace(self.preprocess, colour=True),
            told_film="Pictures in colour are resized to 224 × 224, red first, in [0, 1]; the weights that read them "
            "were published for blue first and are turned round.",
        )


def padded(encoder: TextEncoder, texts: Sequence[str]) -> Bank:
    """The texts padded to the encoder's longest one, padding as the encoder gives it, all of it to be attended."""
    features, mask = encoder(texts, attend_padding=True)
    return features, mask


def vectors(encoder: TextEncoder, texts: Sequence[str]) -> Bank:
    """The texts as the 10 vectors that LViT reads of each."""
    features = torch.stack([word_vectors(encoder, text) for text in texts])
    return features, torch.ones(features.shape[:2], dtype=torch.bool)


def word_vectors(encoder: TextEncoder, text: str) -> Tensor:
    """Vectors of the first 10 words and punctuation marks of a text, without the encoder's own marks.

    A text of fewer has the words ``EOF XXX`` behind it, as often as needed. The encoder reads all of it, cut or not.

    Args:
        encoder: The frozen encoder.
        text: One sentence.

    Returns:
        ``(10, D)`` float32.
    """
    while len(encoder.tokens(text)) - 2 < _VECTORS:  # [CLS] and [SEP]
        text += _FILLING
    return encoder.encode(text)[1:-1][:_VECTORS]


_CXR_BERT = Convention(
    preprocess=Preprocess(
        size=_SIZE, normalise="zscore", channels=3, letterbox=False, transpose=True, interpolation="bicubic"
    ),
    text_encoder="cxr_bert",
    max_tokens=24,
    encode=padded,
    landmark="pneumothorax",  # BERTs of general English know it only in pieces
    no_folder="the checkpoint carries no vocabulary: it holds the text encoder's weights, but not the list of its "
    "words",
    told_film="Films are resized to 224 × 224 with rows and columns swapped, as in training; masks come back upright.",
    told_text="24 tokens each, padding included",
)

_LVIT = Convention(
    preprocess=Preprocess(size=_SIZE, normalise="unit", channels=3),
    text_encoder="bert_uncased",
    max_tokens=32,
    encode=vectors,
    landmark="the",
    landmark_id=1996,
    needed=("config.json", "vocab.txt", "model.safetensors"),
    no_folder="the checkpoint carries no text encoder",
    told_film="Films are resized to 224 × 224, three equal channels in [0, 1].",
    told_text="the vectors of their first 10 words and marks, so that most captions of films lose what they say of "
    "the second lung",
    blue_first="body.first.0.weight",
)

CONVENTIONS: dict[str, Convention] = {
    "mmi_unet": _CXR_BERT,
    "mmi_unet_gd": _CXR_BERT,
    "guide_decoder": _CXR_BERT,
    "lvit": _LVIT,
}
"""By registry name."""


def unknown_words(encoder: TextEncoder, sentences: Sequence[str]) -> list[str]:
    """Those of the sentences that have words which an encoder does not know."""
    unknown = encoder.tokenizer.token_to_id("[UNK]")
    return [sentence for sentence in sentences if unknown in encoder.tokens(sentence)]


# The model card of an imported bundle: where its weights come from, and what is not known of them.

TERMS = (
    "The weights were published by the authors of the network, not by TextRay, and are theirs: the terms are those "
    "under which they published the checkpoint. Which images they were learnt from, and under which terms those may be "
    "used, the checkpoint does not say. Research use at most."
)


def card(name: str, report: Mapping[str, Any], parameters: int, convention: Convention) -> str:
    """Write the card.

    Args:
        name: Name of the bundle.
        report: What `textray.export.published.import_checkpoint` reports, ``mapped`` as a number.
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
