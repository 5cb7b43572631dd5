"""A BERT that is trained: word pieces in, one feature for each, the sum of its last hidden layers.

The frozen encoders of `textray.nn.text_encoder` read whole sentences from published files. This one is part of a
network: it is built from sizes alone, so that a checkpoint or a bundle needs no other file, and reads published tensors
only when a training starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from textray import registry
from textray.errors import BundleError, ShapeError, UsageError
from textray.nn.text_encoder import find_folder, load_text_encoder, load_trunk, require_files

PUBLISHED = "published"
"""Value of ``weights``: the published tensors, where this machine has them."""


@dataclass(frozen=True, kw_only=True)
class BertSizes:
    """Sizes of a plain BERT.

    Attributes:
        pieces: Rows of the table of word pieces; a vocabulary may have fewer.
        width: Width of a token.
        layers: Transformer layers.
        heads: Heads of an attention; they divide the width.
        feed_forward: Hidden width of the feed-forward layers.
        positions: Longest text in pieces, [CLS] and [SEP] included.
    """

    pieces: int = 2048
    width: int = 128
    layers: int = 2
    heads: int = 4
    feed_forward: int = 512
    positions: int = 128


_BASE = BertSizes(pieces=30522, width=768, layers=12, heads=12, feed_forward=3072, positions=512)
SIZES: Mapping[str, BertSizes] = MappingProxyType(
    {
        "bio_clinical_bert": BertSizes(pieces=28996, width=768, layers=12, heads=12, feed_forward=3072, positions=512),
        "cxr_bert": _BASE,
        "bert_uncased": _BASE,
        "minilm": BertSizes(pieces=30522, width=384, layers=6, heads=12, feed_forward=1536, positions=512),
        "tiny": BertSizes(pieces=102, width=32, layers=2, heads=4, feed_forward=64, positions=512),
    }
)
"""Sizes of the published encoders, by registry name; ``own`` takes those of its configuration."""


@dataclass(frozen=True, kw_only=True)
class TextTrunkConfig:
    """Which BERT, and how it is read.

    Attributes:
        encoder: Registry name of a published encoder, or ``own`` for one of the sizes in ``own``.
        weights: Where its pretrained tensors come from: ``published`` for the published ones of this machine, else the
            folder that holds them; ``None`` for random ones. Read once, when a training starts.
        last_layers: Hidden layers that are summed, counted from the last one.
        dropout: Dropout of its layers and attentions, in training.
        own: Sizes of the encoder ``own``; the others have their own.
    """

    encoder: Literal["own", "bio_clinical_bert", "cxr_bert", "bert_uncased", "minilm", "tiny"] = "bio_clinical_bert"
    weights: str | None = None
    last_layers: int = 4
    dropout: float = 0.1
    own: BertSizes = BertSizes()

    @property
    def sizes(self) -> BertSizes:
        """Sizes of the encoder that is named."""
        return SIZES.get(self.encoder, self.own)


class TextTrunk(nn.Module):
    """A BERT without pooler, with gradients.

    Args:
        config: Which one.

    Attributes:
        width: Width of a feature.

    Raises:
        UsageError: If the encoder is unknown or a size is impossible.
    """

    def __init__(self, config: TextTrunkConfig) -> None:
        super().__init__()
        if config.encoder != "own":
            registry.text_encoder(config.encoder)
        elif config.weights is not None:
            raise UsageError(
                "a text encoder of sizes of our own has no published weights",
                came=config.weights,
                do="Leave text.weights out, or name a published encoder in text.encoder",
            )
        sizes = config.sizes
        if sizes.heads < 1 or sizes.width % sizes.heads:
            raise UsageError(
                "the heads of the text encoder do not divide its width", came=f"{sizes.heads} of {sizes.width}"
            )
        if not 1 <= config.last_layers <= sizes.layers:
            raise UsageError(
                f"the text encoder {config.encoder} has no such number of layers to sum",
                came=config.last_layers,
                expected=f"text.last_layers of 1 to {sizes.layers}",
            )
        self.config, self.width = config, sizes.width
        self.bert = BertModel(
            BertConfig(
                vocab_size=sizes.pieces,
                hidden_size=sizes.width,
                num_hidden_layers=sizes.layers,
                num_attention_heads=sizes.heads,
                intermediate_size=sizes.feed_forward,
                max_position_embeddings=sizes.positions,
                hidden_dropout_prob=config.dropout,
                attention_probs_dropout_prob=config.dropout,
            ),
            add_pooling_layer=False,
        )

    def load_pretrained(self) -> None:
        """Read the published tensors, if the configuration names any.

        Raises:
            UsageError: If they are not on this machine; it says how to get them.
            BundleError: If the files do not hold this trunk exactly.
        """
        name, weights = self.config.encoder, self.config.weights
        if weights is None:
            return
        row = registry.text_encoder(name)
        if row.hub is None:
            self.bert.load_state_dict(load_text_encoder(name).trunk.state_dict())
            return
        place = find_folder(row) if weights == PUBLISHED else Path(weights)
        require_files(place, "model.safetensors")
        try:
            tensors = load_file(place / "model.safetensors")
        except (SafetensorError, OSError) as error:
            raise BundleError(
                "the text encoder's model.safetensors cannot be read", came=f"{place}: {error}"
            ) from error
        load_trunk(self.bert, {key: value.float() for key, value in tensors.items()}, prefix=row.keys)

    def forward(self, ids: Tensor, attention: Tensor) -> Tensor:
        """Features of word pieces.

        Args:
            ids: Rows of the vocabulary, ``(B, L)`` int64.
            attention: ``(B, L)``, above zero at pieces, zero at padding.

        Returns:
            ``(B, L, width)``: the sum of the last hidden layers. What stands at padding means nothing.

        Raises:
            ShapeError: If the shapes differ or the text is too long.
        """
        most = self.config.sizes.positions
        if ids.ndim != 2 or ids.shape != attention.shape or ids.shape[1] > most:
            raise ShapeError(
                "the word pieces do not fit the text encoder",
                came=f"ids {tuple(ids.shape)}, attention {tuple(attention.shape)}",
                expected=f"twice (B, L) with L of at most {most}",
                do="Cut the text with most_pieces of textray.text.tokens",
            )
        states = self.bert(
            input_ids=ids, attention_mask=(attention > 0).long(), output_hidden_states=True
        ).hidden_states[-self.config.last_layers :]
        return torch.stack(states).sum(0)


def published_vocabulary(name: str, *, folder: str | Path | None = None) -> tuple[str, ...]:
    """Word pieces of a published text encoder, in the order of its rows.

    Args:
        name: Registry name.
        folder: Folder with its ``vocab.txt``; ``None`` looks for it on this machine.

    Raises:
        UsageError: If the name is unknown or the vocabulary is not on this machine; says how to get it.
        BundleError: If the file is no vocabulary of this encoder.
    """
    row = registry.text_encoder(name)
    if row.hub is None:
        rows: dict[str, int] = load_text_encoder(name).tokenizer.get_vocab()
        return tuple(sorted(rows, key=rows.__getitem__))
    place = Path(folder) if folder is not None else find_folder(row)
    require_files(place, "vocab.txt")
    # splitlines() would break at pieces that are rare line breaks themselves.
    pieces = tuple((place / "vocab.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n"))
    if len(pieces) > SIZES[name].pieces:
        raise BundleError(
            f"the vocabulary is not that of {name}", came=len(pieces), expected=f"at most {SIZES[name].pieces} pieces"
        )
    return pieces
