"""Attention of the film over the words, level by level.

The network runs once in torch, on the bank's own features. Hooks keep what goes into the attention from image tokens
to text tokens, its weights are computed once more from that, and the hooks are taken away again. Of a network that can
write its own report that is the attention of its segmenter, to the sentence that it is given here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from textray.building import load_network
from textray.errors import UsageError
from textray.explain.tokens import Tokens
from textray.inference.bundle import Bundle
from textray.inference.runtime import sigmoid
from textray.models.base import Network
from textray.models.mmi_unet import ImageTextMatching
from textray.nn.attention import MultiHeadAttention
from textray.nn.decoder import GuideLayer, TokenMixer


@dataclass(frozen=True, kw_only=True, eq=False)
class Level:
    """Attention of one level.

    Attributes:
        name: Name of the module, such as ``matching.0``; the finest level of a part comes first.
        weights: ``(L', h, w)`` float32, mean over heads: what share of its attention each image token gives to each
            token of the sentence. Sums to one over L'.
        covers: Share of the map's height and width that lies on the picture: a map with an odd side is padded by one
            row or column before it is halved.
        slots: ``(S, h, w)`` where the network attends to mixtures of tokens instead of tokens, else ``None``.
            ``weights`` are then shared out from them by the size of the mixing weights, which is an approximation.
    """

    name: str
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
    """What went into the attention of one level; its map was halved or its tokens mixed before."""

    name: str
    attention: MultiHeadAttention
    halved: bool
    mixer: TokenMixer | None = None
    size: tuple[int, int] = (0, 0)
    inputs: dict[str, Any] = field(default_factory=dict)

    def level(self, real: Tensor) -> Level:
        """The attention over the real tokens, of which ``real`` ``(L,)`` bool tells."""
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


class AttentionReader:
    """A bundle's network in torch, whose attention over the words can be read.

    Args:
        bundle: A bundle whose network matches image and text, or is guided by a text.

    Raises:
        UsageError: If the network has no attention from image tokens to words.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.network: Network = load_network(bundle)
        check_readable(self.network, bundle)

    def read(self, pixels: NDArray[np.float32], tokens: Tokens) -> tuple[list[Level], NDArray[np.float32]]:
        """Run the network and read its attention.

        Args:
            pixels: ``(C, h, w)`` float32, as `Preprocess.apply` gives it.
            tokens: The sentence.

        Returns:
            The levels from fine to coarse, and the probabilities ``(h, w)`` that the network gave.
        """
        levels, logits = read_levels(
            self.network,
            torch.from_numpy(pixels)[None],
            torch.from_numpy(tokens.features)[None],
            torch.from_numpy(tokens.mask)[None],
        )
        return levels, sigmoid(logits[0, 0].numpy())


def check_readable(network: nn.Module, bundle: Bundle) -> None:
    """Refuse a network whose attention over words cannot be read.

    Raises:
        UsageError: If it has neither image-text matching nor guide layers of the paper forms.
    """
    if next(_attentions(network), None) is None:
        raise UsageError(
            f"the attention of {bundle.model} in its {bundle.form!r} form cannot be read word by word",
            expected="mmi_unet, mmi_unet_gd or guide_decoder in the 'paper' form, alone or inside sgseg",
            do="'textray explain zones' works with every model that reads text",
        )


@torch.no_grad()
def read_levels(
    network: nn.Module, image: Tensor, text_features: Tensor, text_mask: Tensor
) -> tuple[list[Level], Tensor]:
    """Run a network on one film and give the attention of each level.

    Args:
        network: A network with image-text matching, in evaluation mode.
        image: ``(1, C, H, W)``.
        text_features: ``(1, L, D)``.
        text_mask: ``(1, L)``, non-zero at L' real tokens, at least one.

    Returns:
        The levels, and the logits ``(1, 1, H, W)``.
    """
    with _watched(network) as seen:
        logits = network(image, text_features, text_mask).logits
    return [one.level(text_mask[0] > 0) for one in seen], logits


def _attentions(network: nn.Module) -> Iterator[tuple[nn.Module, _Seen]]:
    """The modules that let a film look at a text, each with an empty note of what goes into its attention."""
    for name, module in network.named_modules():
        if isinstance(module, ImageTextMatching):
            yield module, _Seen(name=name, attention=module.image.cross_attention, halved=True)
        elif isinstance(module, GuideLayer):
            yield module, _Seen(name=name, attention=module.cross_attention, halved=False, mixer=module.text)


@contextmanager
def _watched(network: nn.Module) -> Iterator[list[_Seen]]:
    """Keep what the attentions of each level are given while the network runs; no hook stays behind."""
    seen, handles = [], []
    for module, one in _attentions(network):
        seen.append(one)
        handles.append(module.register_forward_pre_hook(_size_hook(one)))
        handles.append(one.attention.register_forward_pre_hook(_input_hook(one)))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _size_hook(one: _Seen) -> Any:  # noqa: ANN401 -- torch's hooks
    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        one.size = (inputs[0].shape[2], inputs[0].shape[3])

    return keep


def _input_hook(one: _Seen) -> Any:  # noqa: ANN401 -- torch's hooks
    def keep(_: nn.Module, inputs: tuple[Tensor | None, ...]) -> None:
        names = ("query", "memory", "memory_mask")
        one.inputs = dict(zip(names, inputs, strict=False))

    return keep
