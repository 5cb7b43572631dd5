"""From the checkpoint of a grounding training to a bundle that `textray ground` uses.

Film and phrase go through a graph each, so that one film serves many phrases. Weights lie beside both in half
precision and are widened when a graph is loaded: sums are in single precision, and the whole folder stays small.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from textray import registry
from textray.data.studies import RECORDED_AS
from textray.errors import UsageError
from textray.export.card import grounder_card
from textray.export.frame import about, bundle_folder, check_out, write_common
from textray.export.onnx import write_onnx
from textray.export.parity import accept, parity_pictures
from textray.inference.bundle import GroundingBundle, GroundingText, seal_grounding
from textray.inference.localizer import Localizer
from textray.models.sentence_grounding import SentenceGrounding
from textray.preprocess import Preprocess
from textray.records import Image, Laterality
from textray.text.tokens import Aggregation, pad
from textray.training.checkpoints import read_checkpoint

_PHRASES = (
    "Opacity.",
    "bilateral pulmonary infection, two infected areas, lower left lung and lower right lung.",
    "There is a small left pleural effusion. The heart is normal in size, and no pneumothorax is seen.",
)
"""Phrases of the parity check: one word, three clauses, two sentences, of different lengths."""
_PROVENANCE = (
    "data", "text_encoder", "mode", "targets", "local_unit", "match", "contrast", "epoch", "max_epochs", "recipe",
    "git", "averaged", "started",
)  # fmt: skip


def export_grounding(
    checkpoint: str | Path,
    out: str | Path,
    *,
    samples: str | Path | None = None,
    scores: Sequence[str | Path] = (),
    average: Sequence[str | Path] = (),
) -> GroundingBundle:
    """Write a grounding bundle from a checkpoint.

    The arguments are those of `textray.export.segmenter.export`, except that ``scores`` are ``summary.md`` files of
    `textray evaluate --task grounding`.

    Raises:
        UsageError: If a checkpoint is not of a grounding network, or a file is missing.
        OutputError: If ``out`` holds something that is no bundle.
        BundleError: If ONNX and torch disagree; nothing is written then.
    """
    out = Path(out)
    check_out(out)
    facts, network = read_checkpoint(checkpoint, *average)
    if not isinstance(network, SentenceGrounding) or not facts.get("vocabulary"):
        raise UsageError(
            f"{Path(checkpoint).name} is not of a grounding network",
            came=facts["network"],
            expected="a checkpoint of sentence_grounding",
        )
    preprocess = Preprocess.from_dict(facts["data"]["preprocess"])
    text = GroundingText(
        encoder=facts["text_encoder"],
        laterality=Laterality(facts["data"]["laterality"]),
        lower=bool(facts.get("lower", True)),
        most_pieces=int(facts["most_pieces"]),
        aggregation=Aggregation(**facts["aggregation"]),
        sentences=facts["data"]["sentences"],
    )
    pages = _pages(scores)
    pictures = parity_pictures(samples, preprocess)
    with torch.inference_mode():
        local = network.encode_image(torch.zeros(1, preprocess.channels, *preprocess.size)).local
    map_size = (int(local.shape[2]), int(local.shape[3]))
    terms = registry.dataset(facts["data"]["name"]).terms
    parameters = sum(p.numel() for p in network.parameters())
    card = grounder_card(out.name, facts, parameters=parameters, map_size=map_size, terms=terms, summaries=pages)
    excluded = {RECORDED_AS: facts["data"][RECORDED_AS]} if facts["data"].get(RECORDED_AS) else {}
    with bundle_folder(out) as folder:
        write_graphs(network, folder, preprocess, text.most_pieces)
        (folder / "vocab.txt").write_text("\n".join(facts["vocabulary"]) + "\n", encoding="utf-8", newline="\n")
        write_common(folder, network, preprocess, card=card, terms=terms)
        bundle = seal_grounding(
            folder,
            **about(folder, facts, *_PROVENANCE, **excluded, terms=terms),
            text=text,
            map_size=map_size,
            width=network.width,
        )
        check_grounding(bundle, network, pictures)
    return GroundingBundle.load(out)


def write_graphs(network: SentenceGrounding, folder: Path, preprocess: Preprocess, most_pieces: int) -> None:
    """Write ``image.onnx`` and ``text.onnx`` of a network in evaluation mode, for any number of films and phrases."""
    batch = torch.export.Dim("B", min=1, max=4096)
    write_onnx(
        _FilmGraph(network),
        (torch.zeros(2, preprocess.channels, *preprocess.size),),
        folder / "image.onnx",
        inputs=("image",),
        outputs=("local", "pooled"),
        dynamic=({0: batch},),
    )
    phrases, pieces = torch.export.Dim("K", min=1, max=4096), torch.export.Dim("L", min=3, max=max(most_pieces, 4))
    shape = (2, min(7, most_pieces))
    given = (torch.ones(shape, dtype=torch.int64), torch.ones(shape, dtype=torch.int64), torch.full(shape, 0.2))
    write_onnx(
        _PhraseGraph(network),
        given,
        folder / "text.onnx",
        inputs=("ids", "attention", "weights"),
        outputs=("phrases",),
        dynamic=tuple({0: phrases, 1: pieces} for _ in given),
    )


def check_grounding(bundle: GroundingBundle, network: SentenceGrounding, pictures: Sequence[Image]) -> None:
    """Compare the bundle's graphs with torch, through the code of `textray ground`: phrases, places and whole films.

    Raises:
        BundleError: If a cosine, or pooled features as a share of their length, differ by more than
            `textray.export.parity.PARITY`.
    """
    localizer = Localizer(bundle)
    batch = pad([localizer.read(phrase) for phrase in _PHRASES])
    tensors = [torch.from_numpy(part) for part in (batch.ids, batch.attention, batch.word, batch.sentence)]
    with torch.inference_mode():
        wanted = F.normalize(network.encode_text(*tensors).report, dim=1, eps=1e-8)
        vectors = localizer.embed(_PHRASES)
        alone = Localizer(bundle)  # which has not embedded them yet: a phrase must not depend on its neighbours
        differences = [_apart(vectors, wanted)]
        differences += [_apart(alone.embed([text])[0], vector) for text, vector in zip(_PHRASES, wanted, strict=True)]
        for picture in pictures:
            pixels = bundle.preprocess.apply(picture)[None]
            features = network.encode_image(torch.from_numpy(pixels))
            differences.append(_apart(localizer.maps(pixels, vectors), network(torch.from_numpy(pixels), wanted)))
            length = float(features.pooled.norm()) or 1.0
            differences.append(_apart(localizer.features(pixels).pooled, features.pooled) / length)
    accept(differences, f"over {len(pictures)} pictures")


class _Graph(nn.Module):
    def __init__(self, network: SentenceGrounding) -> None:
        super().__init__()
        self.network = network


class _FilmGraph(_Graph):
    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features = self.network.encode_image(image)
        return features.local, features.pooled


class _PhraseGraph(_Graph):
    def forward(self, ids: Tensor, attention: Tensor, weights: Tensor) -> Tensor:
        pieces = self.network.encode_pieces(ids, attention)  # (K, L, D)
        return F.normalize((weights[:, :, None] * pieces).sum(1), dim=1, eps=1e-8)


def _apart(values: NDArray[np.float32], wanted: Tensor) -> float:
    return float(np.abs(values - wanted.numpy()).max())


def _pages(scores: Sequence[str | Path]) -> list[str]:
    """Pages of evaluations, their headings two levels down."""
    pages = []
    for path in scores:
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path} cannot be read", came=type(error).__name__, expected="summary.md") from error
        pages.append("\n".join("##" + line if line.startswith("#") else line for line in text.strip().splitlines()))
    return pages
