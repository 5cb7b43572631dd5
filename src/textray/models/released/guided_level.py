"""A level of the decoder of the authors' released code for LanGuideMedSeg, guided by the text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from textray.nn.attention import raster_sines
from textray.nn.decoder import GuidedUpBlock

TOKENS = 24
"""Text tokens that the levels mix: neither more nor fewer."""


class GuideLayer(nn.Module):
    """Lets the tokens of a map attend to each other, then to the text.

    Args:
        channels: Channels C of the map.
        side: Height and width of the map.
        slots: Text slots that the tokens are mixed to.
        text_width: Width D of the text.
        scale: Initial value of the learnable scale of what the text adds.
    """

    image_positions: Tensor
    text_positions: Tensor

    def __init__(self, channels: int, *, side: int, slots: int, text_width: int, scale: float) -> None:
        super().__init__()
        self.mix_tokens = nn.Conv1d(TOKENS, slots, 1)
        self.project_text = nn.Linear(text_width, channels)
        self.self_in_norm = nn.LayerNorm(channels)
        self.self_attention = nn.MultiheadAttention(channels, 1, batch_first=True)
        self.self_out_norm = nn.LayerNorm(channels)
        self.cross_in_norm = nn.LayerNorm(channels)
        self.cross_attention = nn.MultiheadAttention(channels, 4, batch_first=True)
        self.cross_out_norm = nn.LayerNorm(channels)
        self.scale = nn.Parameter(torch.tensor(float(scale)))
        self.register_buffer("image_positions", raster_sines(torch.empty(1, side * side, channels)), persistent=False)
        self.register_buffer("text_positions", raster_sines(torch.empty(1, slots, channels)), persistent=False)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        """``(B, C, h, w)`` and ``(B, 24, D)`` to ``(B, C, h, w)``."""
        slots = F.leaky_relu(self.project_text(F.gelu(self.mix_tokens(text))))  # (B, slots, C)
        tokens = x.flatten(2).transpose(1, 2)  # (B, h*w, C)
        u = self.self_in_norm(tokens)
        placed = u + self.image_positions
        attended = self.self_attention(placed, placed, u, need_weights=False)[0]
        tokens = tokens + self.self_out_norm(attended)
        placed = self.cross_in_norm(tokens) + self.image_positions
        told = self.cross_attention(placed, slots + self.text_positions, slots, need_weights=False)[0]
        tokens = tokens + self.scale * self.cross_out_norm(told)
        return tokens.transpose(1, 2).reshape(x.shape)


class GuidedLevel(nn.Module):
    """A guide layer and the up block after it.

    Args:
        deeper: Channels of the map that comes in.
        channels: Channels of the skip, and out.
        side: Height and width of the map that comes in.
        slots: Text slots.
        text_width: Width D of the text.
        scale: Initial value of the text's scale.
    """

    def __init__(self, deeper: int, channels: int, *, side: int, slots: int, text_width: int, scale: float) -> None:
        super().__init__()
        self.guide = GuideLayer(deeper, side=side, slots=slots, text_width=text_width, scale=scale)
        self.up = GuidedUpBlock(deeper, channels, channels)

    def forward(self, deeper: Tensor, skip: Tensor, text: Tensor) -> Tensor:
        """``(B, deeper, h, w)``, ``(B, C, 2h, 2w)`` and ``(B, 24, D)`` to ``(B, C, 2h, 2w)``."""
        return self.up(self.guide(deeper, text), skip)


class GuidedLevels(nn.ModuleList):
    """The three levels for maps at 1/8, 1/16 and 1/32 of 224 x 224, finest first.

    Args:
        channels: Channels of the trunk's four stages.
        text_width: Width D of the text.
        scale: Initial value of each level's scale.
    """

    def __init__(self, channels: tuple[int, ...], *, text_width: int, scale: float) -> None:
        super().__init__(
            GuidedLevel(channels[s + 1], channels[s], side=side, slots=slots, text_width=text_width, scale=scale)
            for s, (side, slots) in enumerate(((28, 9), (14, 12), (7, TOKENS)))
        )

    def forward(self, maps: Sequence[Tensor], text: Tensor) -> Tensor:
        """Decode four maps, finest first, with a text ``(B, 24, D)``: ``(B, C, 56, 56)``."""
        decoded = maps[3]
        for level in (2, 1, 0):
            decoded = self[level](decoded, maps[level], text)
        return decoded
