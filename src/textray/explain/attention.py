"""Attention of the film over the words, level by level.

The network runs once in torch, on the bank's own features. Hooks keep what goes into the attention from image tokens
to text tokens, its weights are computed once more from that, and the hooks are taken away again. Of a network that can
write its own report that is the attention of its segmenter to the sentence of the prompt.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from textray import registry
from textray.errors import BundleError, UsageError
from textray.explain.run import MARGIN, Explanation, convention, describe_zones, open_page, zones_of
from textray.inference.bundle import Bundle
from textray.inference.film import denied
from textray.inference.runtime import sigmoid
from textray.inference.segmenter import Predictor
from textray.io.page import FAINT, Picture, fit, heat, shrink, thumbnail
from textray.io.write import render_overlay
from textray.models.mmi_unet import ImageTextMatching
from textray.nn.attention import MultiHeadAttention
from textray.nn.decoder import GuideLayer, TokenMixer
from textray.records import Grid, Prediction, Zones
from textray.text.zones import sentence
from textray.training.checkpoints import load_network


@dataclass(frozen=True, kw_only=True, eq=False)
class Level:
    """Attention of one level.

    Attributes:
        weights: ``(L', h, w)``, mean over heads: what share of its attention each image token gives to each token of
            the sentence. Sums to one over L', less what goes to zones that are denied.
        covers: Share of the map's height and width that lies on the picture: a map with an odd side is padded by one
            row or column before it is halved.
        slots: ``(S, h, w)`` where the network attends to mixtures of tokens instead of tokens. ``weights`` are then
            shared out from them by the size of the mixing weights, which is an approximation.
    """

    name: str  # of the module, such as "matching.0"; the finest level of a part comes first
    weights: NDArray[np.float32]
    covers: tuple[float, float] = (1.0, 1.0)
    slots: NDArray[np.float32] | None = None

    def spread(self, size: tuple[int, int]) -> NDArray[np.float32]:
        """The maps at the network's size, ``(L', H, W)``: each image token as the square of pixels it stands for."""
        rows, columns = (
            np.minimum(((np.arange(n) + 0.5) / n * share * cells).astype(int), cells - 1)
            for n, share, cells in zip(size, self.covers, self.weights.shape[1:], strict=True)
        )
        return self.weights[:, rows[:, None], columns[None]]


@dataclass
class _Seen:
    """Inputs of the attention of one level; its map was halved or its tokens mixed before."""

    name: str
    attention: MultiHeadAttention
    halved: bool
    mixer: TokenMixer | None = None
    size: tuple[int, int] = (0, 0)
    inputs: dict[str, Any] = field(default_factory=dict)

    def keep_size(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Hook of the module: height and width of its map."""
        self.size = (inputs[0].shape[2], inputs[0].shape[3])

    def keep_inputs(self, _: nn.Module, inputs: tuple[Tensor | None, ...]) -> None:
        """Hook of the attention: query, memory and mask."""
        self.inputs = dict(zip(("query", "memory", "memory_mask"), inputs, strict=False))

    def level(self, real: Tensor) -> Level:
        """The attention over the real tokens, those where ``real`` ``(L,)`` is true."""
        cells = tuple((side + 1) // 2 if self.halved else side for side in self.size)
        maps = self.attention.weights(**self.inputs).mean(1)[0].T.reshape(-1, *cells)  # (L or S, h, w)
        covers = (self.size[0] / (2 * cells[0]), self.size[1] / (2 * cells[1])) if self.halved else (1.0, 1.0)
        if self.mixer is None:
            # A self-guided network fills the text up, and no place looks at what it adds.
            return Level(name=self.name, weights=maps[: len(real)][real].float().numpy(), covers=covers)
        mixing = self.mixer.mix.weight[:, : len(real)][:, real].abs()  # (S, L')
        shares = mixing / mixing.sum(1, keepdim=True).clamp_min(torch.finfo(mixing.dtype).tiny)
        shared = torch.einsum("st,shw->thw", shares, maps)
        return Level(name=self.name, weights=shared.float().numpy(), covers=covers, slots=maps.float().numpy())


PLACES = frozenset({"left", "right", "upper", "middle", "lower"})
"""Words of the bank's sentences that tell where."""
_SAME = 0.99  # cosine from which a token feature of the encoder is that of the bank, which is kept in half precision


@dataclass(frozen=True, kw_only=True, eq=False)
class Tokens:
    """The sentence that a network is given, token by token."""

    zones: Zones  # by image side
    names: tuple[str, ...]  # the L' tokens in order, [CLS] and [SEP] included
    features: NDArray[np.float32]  # (L, D), the bank's row; zero behind the last token
    mask: NDArray[np.float32]  # (L,), 1 at the L' tokens

    @property
    def places(self) -> tuple[int, ...]:
        """Positions of the words that tell where."""
        return tuple(i for i, name in enumerate(self.names) if name in PLACES)

    @property
    def labels(self) -> tuple[str, ...]:
        """The tokens for the eye: a word that comes again is numbered."""
        labels = []
        for i, name in enumerate(self.names):
            count = self.names[: i + 1].count(name)
            labels.append(f"{name} ({count})" if count > 1 else name)
        return tuple(labels)


class AttentionReader:
    """A bundle's network in torch, whose attention over words can be read, and the text encoder that names the words.

    ``text_encoder`` is the folder of the bank's text encoder, where it is not installed as a package.

    Raises:
        UsageError: If the network has no attention from image tokens to words, or the encoder, or a package that it
            needs, is not installed.
    """

    def __init__(self, bundle: Bundle, text_encoder: str | Path | None = None) -> None:
        self.network = load_network(bundle)
        if next(_attentions(self.network), None) is None:
            raise UsageError(
                f"the attention of {bundle.model} in its {bundle.form!r} form cannot be read word by word",
                expected="mmi_unet, mmi_unet_gd or guide_decoder in the 'paper' form, alone or inside sgseg",
                do="'textray explain zones' works with every model that reads text",
            )
        bank = bundle.text_bank()
        if bank is None:
            raise BundleError(f"bundle {bundle.name} has no text bank")
        self._bundle, self._bank = bundle, bank
        load = registry.load("textray.nn.bert:load_text_encoder")
        self._encoder: Any = load(str(bundle.text_encoder), folder=text_encoder, max_tokens=bundle.tokens)

    def tokens(self, zones: Zones) -> Tokens:
        """Tokens of the sentence of zones, with the features that the bank holds.

        Raises:
            BundleError: If the encoder does not give the bank's features: its words would be put to wrong columns.
        """
        words = sentence(zones)
        row = zones.index
        features, mask = self._bank.features[row], self._bank.mask[row]
        names = tuple(self._encoder.tokenizer.id_to_token(i) for i in self._encoder.tokens(words))
        encoded = self._encoder.encode(words).numpy()
        real = features[mask > 0]
        if len(names) != len(real) or encoded.shape != real.shape or not _same(encoded, real):
            raise BundleError(
                f"the text bank of bundle {self._bundle.name} was not computed by this text encoder",
                came=f"{len(real)} tokens of width {real.shape[1]}, the encoder gives {encoded.shape}",
                expected=f"the features of {self._bundle.text_encoder}",
                do="Name the folder of the bank's own encoder with --text-encoder",
            )
        return Tokens(zones=zones, names=names, features=features, mask=mask)

    def read(self, pixels: NDArray[np.float32], tokens: Tokens) -> tuple[list[Level], NDArray[np.float32]]:
        """Levels of a film ``(C, h, w)``, as `Preprocess.apply` gives it, and the network's probability ``(h, w)``."""
        given = [torch.from_numpy(values)[None] for values in (pixels, tokens.features, tokens.mask)]
        if self.network.reads_denial:
            given.append(torch.from_numpy(denied(tokens.zones))[None])
        levels, logits = read_levels(self.network, *given)
        return levels, sigmoid(logits[0, 0].numpy())


@torch.no_grad()
def read_levels(
    network: nn.Module, image: Tensor, text_features: Tensor, text_mask: Tensor, *denied: Tensor
) -> tuple[list[Level], Tensor]:
    """Run a network in evaluation mode on one film, and give the attention of each level and the logits.

    The film is ``(1, C, H, W)``, the text ``(1, L, D)`` with a mask that is not zero at one or more real tokens, and
    the ``denied`` zones, for a network that reads them, ``(1, 6)``.
    """
    attentions = list(_attentions(network))
    with ExitStack() as hooks:  # none stays behind, whatever happens
        for module, one in attentions:
            hooks.enter_context(module.register_forward_pre_hook(one.keep_size))
            hooks.enter_context(one.attention.register_forward_pre_hook(one.keep_inputs))
        logits = network(image, text_features, text_mask, *denied).logits
    return [one.level(text_mask[0] > 0) for _, one in attentions], logits


def _attentions(network: nn.Module) -> Iterator[tuple[nn.Module, _Seen]]:
    """The modules in which a film attends to a text, each with an empty record of the inputs of its attention."""
    for name, module in network.named_modules():
        if isinstance(module, ImageTextMatching):
            yield module, _Seen(name=name, attention=module.image.cross_attention, halved=True)
        elif isinstance(module, GuideLayer):
            yield module, _Seen(name=name, attention=module.cross_attention, halved=False, mixer=module.text)


# The explanation: where on the film each word is looked at, a row for each level of the network.

Columns = Literal["places", "all"]

_PANEL, _GAP, _SCALE = 150, 6, 120
_LEAST_WIDTH = 900
_OTHERS = 2
MEANING = (
    "Attention tells where the network reads a word, not what the word changes in the mask; "
    "'textray explain words' and 'textray explain zones' measure that."
)
SLOTS = (
    "Rows named guides attend to mixtures of tokens, which are not words: their attention is shared out to the words "
    "by the size of the mixing weights, an approximation."
)
_SCALES = (
    "Mean over heads; one colour scale for the words of a row (the sum of the others has its own); even: what each "
    "would get if all got the same. " + MEANING
)


class AttentionExplainer:
    """Explains how a film attends to its words; refused as by `AttentionReader`.

    The columns ``places`` are the words that tell where, the two other tokens that are looked at most, and one for the
    rest; ``all`` are one for each token.
    """

    kind = "attention"
    needs_words = True

    def __init__(self, bundle: Bundle, *, columns: Columns = "places", text_encoder: Path | None = None) -> None:
        self.settings: dict[str, Any] = {"columns": columns}
        self._columns = columns
        self._reader = AttentionReader(bundle, text_encoder)

    def explain(self, predictor: Predictor, prediction: Prediction) -> Explanation:
        """Read the attention of one film and draw it."""
        tokens = self._reader.tokens(zones_of(prediction))
        pixels = predictor.preprocess.apply(prediction.image)
        levels, probability = self._reader.read(pixels, tokens)
        row = predictor.bank_row(prediction.report) if prediction.report is not None else None
        runtime = predictor.infer(pixels[None], [row], denied(tokens.zones)[None]).probability[0]
        values = {
            "sentence": describe_zones(tokens.zones, prediction.grid),
            "tokens": list(tokens.names),
            "levels": [_level_values(level) for level in levels],
            "torch_differs_by": round(float(np.abs(runtime - probability).max()), 5),
            "meaning": MEANING,
        }
        return Explanation(values=values, picture=self._draw(levels, tokens, predictor, prediction))

    def _draw(self, levels: list[Level], tokens: Tokens, predictor: Predictor, prediction: Prediction) -> Picture:
        received = np.mean([level.weights.mean((1, 2)) for level in levels], axis=0)
        columns = _columns(tokens, self._columns, received)
        height, width = fit(prediction.grid.shape, _PANEL)
        film = thumbnail(prediction.image.film, (height, width))
        masked = shrink(render_overlay(prediction.image.film, prediction.mask), (height, width))
        left = MARGIN + width + _GAP
        page_width = max(left + len(columns) * (width + _GAP) + _SCALE, _LEAST_WIDTH)
        notes = [convention(prediction)["text"], _SCALES]
        if any(level.slots is not None for level in levels):
            notes.append(SLOTS)
        title = "How much each place of the film attends to each word"
        sentence = describe_zones(tokens.zones, prediction.grid)
        space = 22 + len(levels) * (height + _GAP + 18) + MARGIN
        page, top = open_page(page_width, title, notes, sentence=sentence, gap=8, below=space)
        for c, (label, _) in enumerate(columns):
            page.text(left + c * (width + _GAP) + width // 2, top, label, 14, anchor="m")
        page.text(MARGIN + width // 2, top, "mask", 14, anchor="m")
        y = top + 22
        for level in levels:
            maps = predictor.preprocess.size
            spread = level.spread((maps[0], maps[1]))
            shares = [np.asarray(spread[list(positions)].sum(0), np.float32) for _, positions in columns]
            words = [share for share, (_, positions) in zip(shares, columns, strict=True) if len(positions) == 1]
            low, high = min(float(x.min()) for x in words), max(float(x.max()) for x in words)
            page.paste(MARGIN, y, masked)
            cells = level.weights.shape[1:]
            page.text(MARGIN, y + height + 1, f"{level.name}: {cells[0]} x {cells[1]}", 12, colour=FAINT)
            for c, share in enumerate(shares):
                x = left + c * (width + _GAP)
                small = predictor.preprocess.restore(share, Grid(height=height, width=width))
                first, last, below = low, high, f"mean {share.mean():.3f}"
                if len(columns[c][1]) > 1:  # a sum of many tokens has a scale of its own, which the numbers tell
                    first, last = float(small.min()), float(small.max())
                    below = f"{share.min():.2f} to {share.max():.2f}"
                page.paste(x, y, heat(film, (small - first) / max(last - first, 1e-9)))
                page.text(x, y + height + 1, below, 12, colour=FAINT)
            even = 1 / len(tokens.names)
            page.scale(left + len(columns) * (width + _GAP) + 6, y, height, low, high, (even, f"{even:.3f} even"))
            y += height + _GAP + 18
        return page.picture


def _columns(tokens: Tokens, which: Columns, received: NDArray[np.float32]) -> list[tuple[str, tuple[int, ...]]]:
    """Name of each column and the tokens that it adds up."""
    places = tuple(range(len(tokens.names)))
    if which == "places":
        others = sorted((i for i in places if i not in tokens.places), key=lambda i: -received[i])
        places = (*tokens.places, *others[:_OTHERS])
    columns: list[tuple[str, tuple[int, ...]]] = [(tokens.labels[i], (i,)) for i in places]
    rest = tuple(i for i in range(len(tokens.names)) if i not in places)
    return [*columns, (f"{len(rest)} other", rest)] if rest else columns


def _level_values(level: Level) -> dict[str, Any]:
    return {
        "name": level.name,
        "height": level.weights.shape[1],
        "width": level.weights.shape[2],
        "covers": list(level.covers),
        "attends_to": "tokens" if level.slots is None else "slots",
        "mean": [round(float(x), 6) for x in level.weights.mean((1, 2))],
        "maps": np.round(level.weights.astype(np.float64), 6).tolist(),
        "slots": None if level.slots is None else np.round(level.slots.astype(np.float64), 6).tolist(),
    }


def _same(first: NDArray[np.float32], second: NDArray[np.float32]) -> bool:
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return bool((np.sum(first * second, axis=1) >= _SAME * norms).all())
