r"""UCTransNet, a U-Net whose four skips read each other channel by channel.

Source: Wang et al.: UCTransNet: Rethinking the Skip Connections in U-Net from a Channel-wise Perspective with
Transformer, AAAI 2022. Written from the paper; its code has no licence and was not read.

The idea: maps :math:`E_i` of the four encoder levels are cut to the same number of patches, tokens :math:`T_i`, and
joined to :math:`T_\Sigma`. Channels of a level attend all channels of all levels (CCT)::

    CA_i = softmax(norm(Q_i^T K / sqrt(C_Sigma))) V^T,   Q_i = T_i W_Qi,  K = T_Sigma W_K,  V = T_Sigma W_V

with a mean over heads, then a feed-forward layer. In the decoder the skip O is weighed by channel (CCA):
``O * sigmoid(L1 mean(O) + L2 mean(D))``, D the upsampled deeper level.

Shapes at 224 x 224 with width 64: encoder as in U-Net (`textray.models.baselines.unet`); tokens 196x64, 196x128,
196x256, 196x512, together 196x960; skips and decoder as U-Net's.

Differences from the paper: none known in the network; what it does not say (layer norms before attention and
feed-forward, no bias in the projections, maps added to what is made of their tokens, upsampling without parameters) is
chosen so that the size comes to the 66.43 M that are known of its code. Logits of one class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from textray.models.base import Network, Output
from textray.nn.blocks import ConvNormAct, DoubleConv
from textray.nn.vision_transformer import PatchEmbedding

PATCHES = (16, 8, 4, 2)
"""Side of a patch of each level, in places of its map: 16 pixels each."""


@dataclass(frozen=True, kw_only=True)
class UCTransNetConfig:
    """Sizes of a UCTransNet.

    Attributes:
        in_channels: Channels of the image.
        width: Channels of the first level.
        size: Height and width in pixels that positions are learned for; they are resized for other images.
        depth: Layers of the channel transformer.
        heads: Heads of its attention, each as wide as the tokens.
        expansion: Hidden width of its feed-forward layers, as a multiple.
        dropout: Share of tokens' numbers, attention weights and hidden units that are dropped in training.
    """

    in_channels: int = 3
    width: int = 64
    size: tuple[int, int] = (224, 224)
    depth: int = 4
    heads: int = 4
    expansion: int = 4
    dropout: float = 0.1


class ChannelCrossAttention(nn.Module):
    """Channels of each of several token sets attend the channels of all of them."""

    def __init__(self, channels: Sequence[int], heads: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, nn.Dropout(dropout)
        total = sum(channels)
        self.query = nn.ModuleList(nn.Linear(c, heads * c, bias=False) for c in channels)
        self.key = nn.Linear(total, heads * total, bias=False)
        self.value = nn.Linear(total, heads * total, bias=False)
        self.output = nn.ModuleList(nn.Linear(c, c, bias=False) for c in channels)

    def forward(self, tokens: Sequence[Tensor], together: Tensor) -> list[Tensor]:
        """Token sets ``(B, N, C_i)`` and all of them ``(B, N, sum C_i)`` to sets of the same shapes."""
        key, value = self._split(self.key(together)), self._split(self.value(together))  # (B, heads, N, sum)
        mixed = []
        for level, query, output in zip(tokens, self.query, self.output, strict=True):
            scores = (
                self._split(query(level)).transpose(2, 3) @ key / math.sqrt(together.shape[2])
            )  # (B, heads, C_i, sum)
            weights = self.dropout(F.instance_norm(scores).softmax(3))
            found = (weights @ value.transpose(2, 3)).mean(1)  # (B, C_i, N)
            mixed.append(output(found.transpose(1, 2)))
        return mixed

    def _split(self, tokens: Tensor) -> Tensor:
        """``(B, N, heads * C)`` to ``(B, heads, N, C)``."""
        return tokens.reshape(*tokens.shape[:2], self.heads, -1).transpose(1, 2)


class ChannelTransformerLayer(nn.Module):
    """Channel-wise cross attention, then a feed-forward layer for each set; normalised before and added after."""

    def __init__(self, channels: Sequence[int], config: UCTransNetConfig) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(c) for c in channels)
        self.norm_together = nn.LayerNorm(sum(channels))
        self.attention = ChannelCrossAttention(channels, config.heads, dropout=config.dropout)
        self.feed = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(c),
                nn.Linear(c, config.expansion * c),
                nn.GELU(),
                nn.Dropout(config.dropout),
                nn.Linear(config.expansion * c, c),
                nn.Dropout(config.dropout),
            )
            for c in channels
        )

    def forward(self, tokens: list[Tensor]) -> list[Tensor]:
        """Token sets ``(B, N, C_i)`` to the same shapes."""
        normed = [norm(level) for norm, level in zip(self.norms, tokens, strict=True)]
        mixed = self.attention(normed, self.norm_together(torch.cat(tokens, 2)))
        tokens = [level + found for level, found in zip(tokens, mixed, strict=True)]
        return [level + feed(level) for level, feed in zip(tokens, self.feed, strict=True)]


class GatedUp(nn.Module):
    """A level of the decoder: upsampled twice, joined with the skip weighed by channel, two convolutions."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.of_skip, self.of_deeper = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.mix = DoubleConv(2 * channels, outputs)

    def gate(self, skip: Tensor, deeper: Tensor) -> Tensor:
        """Weigh the channels of a skip; both ``(B, C, H, W)``."""
        weight = torch.sigmoid(self.of_skip(skip.mean((2, 3))) + self.of_deeper(deeper.mean((2, 3))))  # (B, C)
        return skip * weight[..., None, None]

    def forward(self, deeper: Tensor, skip: Tensor) -> Tensor:
        """``(B, C, h, w)`` and ``(B, C, 2h, 2w)`` to ``(B, outputs, 2h, 2w)``."""
        larger = F.interpolate(deeper, scale_factor=2.0)
        return self.mix(torch.cat([self.gate(skip, larger), larger], 1))


class UCTransNet(Network):
    """UCTransNet that takes an image and ignores a report."""

    def __init__(self, config: UCTransNetConfig = UCTransNetConfig()) -> None:
        super().__init__(in_channels=config.in_channels, size_multiple=16, text_width=None)
        self.config = config
        w = config.width
        channels = (w, 2 * w, 4 * w, 8 * w)
        grid = (config.size[0] // 16, config.size[1] // 16)
        self.first = ConvNormAct(config.in_channels, w)
        self.down = nn.ModuleList(DoubleConv(a, b) for a, b in pairwise((*channels, 8 * w)))
        self.embed = nn.ModuleList(
            PatchEmbedding(c, patch, grid, dropout=config.dropout) for c, patch in zip(channels, PATCHES, strict=True)
        )
        self.layers = nn.ModuleList(ChannelTransformerLayer(channels, config) for _ in range(config.depth))
        self.norms = nn.ModuleList(nn.LayerNorm(c) for c in channels)
        self.restore = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, c, 1), nn.BatchNorm2d(c), nn.ReLU(inplace=True)) for c in channels
        )
        self.up = nn.ModuleList(GatedUp(c, out) for c, out in pairwise((8 * w, 4 * w, 2 * w, w, w)))
        self.head = nn.Conv2d(w, 1, 1)

    def forward(self, image: Tensor, text_features: Tensor | None = None, text_mask: Tensor | None = None) -> Output:
        """Segment images; the text is ignored. See `Network`."""
        self.check_image(image)
        maps = [self.first(image)]
        for down in self.down:
            maps.append(down(F.max_pool2d(maps[-1], 2)))
        decoded = maps.pop()
        skips = self.cross(maps)
        for up in self.up:
            decoded = up(decoded, skips.pop())
        return Output(self.head(decoded))

    def cross(self, maps: list[Tensor]) -> list[Tensor]:
        """Let the levels' maps ``(B, C_i, h_i, w_i)`` read each other; the same shapes."""
        tokens = [embed(found) for embed, found in zip(self.embed, maps, strict=True)]
        for layer in self.layers:
            tokens = layer(tokens)
        skips = []
        for level, norm, restore, found, patch in zip(tokens, self.norms, self.restore, maps, PATCHES, strict=True):
            grid = (found.shape[2] // patch, found.shape[3] // patch)
            places = norm(level).transpose(1, 2).reshape(found.shape[0], -1, *grid)
            skips.append(found + restore(F.interpolate(places, scale_factor=float(patch))))
        return skips
