"""Decoders of maps: levels that a report guides (Zhong et al., Ariadne's Thread, MICCAI 2023), and plain ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from textray.errors import UsageError
from textray.nn.attention import MultiHeadAttention, heads_for, raster_sines
from textray.nn.blocks import DoubleConv, UpBlock

SLOPE = 0.01
"""Slope of the leaky ReLUs below zero."""


class TokenMixer(nn.Module):
    """Turns the tokens of a text into a fixed number of mixed tokens of the level's width.

    ``LeakyReLU(W(GELU(M T + b)))``: M mixes along the tokens, W maps their width. After M no mixed token belongs to a
    word, so padding must be zero before it; a text shorter than ``tokens`` leaves the rest zero.
    """

    def __init__(self, tokens: int, mixed: int, *, text_width: int, width: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.mix = nn.Linear(tokens, mixed)
        self.project = nn.Linear(text_width, width)

    def forward(self, text: Tensor, text_mask: Tensor) -> Tensor:
        """``(B, L, D)`` to ``(B, mixed, C)``; what a text holds where the mask ``(B, L)`` is false is never read."""
        words = torch.where(text_mask[..., None], text, torch.zeros_like(text))
        slots = F.pad(words, (0, 0, 0, self.tokens - text.shape[1]))  # (B, tokens, D)
        mixed = F.gelu(self.mix(slots.transpose(1, 2))).transpose(1, 2)  # (B, mixed, D)
        return F.leaky_relu(self.project(mixed), SLOPE)


class GuideLayer(nn.Module):
    r"""Lets the places of a map look at each other and at the mixed tokens of a text.

    With t the mixed tokens, PE fixed sines and g a learned number, at first ``scale``::

        u = LN(x);   a = LN(MHA_1(q = u + PE, k = u + PE, v = u));       x'  = x + a
        w = LN(x');  c = LN(MHA_4(q = w + PE, k = t + PE, v = t));       x'' = x' + g c
    """

    def __init__(self, width: int, *, tokens: int, mixed: int, text_width: int, scale: float) -> None:
        super().__init__()
        self.text = TokenMixer(tokens, mixed, text_width=text_width, width=width)
        self.self_norm = nn.LayerNorm(width)
        self.self_attention = MultiHeadAttention(width, 1)
        self.self_output_norm = nn.LayerNorm(width)
        self.cross_norm = nn.LayerNorm(width)
        self.cross_attention = MultiHeadAttention(width, heads_for(width, 4))
        self.cross_output_norm = nn.LayerNorm(width)
        self.scale = nn.Parameter(torch.tensor(float(scale)))

    def forward(self, image: Tensor, text: Tensor, text_mask: Tensor) -> Tensor:
        """Guide maps ``(B, C, h, w)`` by texts ``(B, L, D)``; one whose row of the mask is false stays as it is."""
        x = image.flatten(2).transpose(1, 2)  # (B, h*w, C), row by row
        places = raster_sines(x)
        u = self.self_norm(x)
        x = x + self.self_output_norm(self.self_attention(u + places, u + places, value=u))
        w, t = self.cross_norm(x), self.text(text, text_mask)
        crossed = self.cross_attention(w + places, t + raster_sines(t), value=t)
        x = x + self.scale * self.cross_output_norm(crossed)
        guided = x.transpose(1, 2).reshape(image.shape)
        return torch.where(text_mask.any(1)[:, None, None, None], guided, image)


class GuidedUpBlock(nn.Module):
    """ConvT 2x2 of the deeper map, joined with the skip, twice Conv 3x3, batch norm, leaky ReLU, without biases."""

    def __init__(self, deeper: int, skip: int, channels: int) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose2d(deeper, channels, 2, stride=2, bias=False)
        self.mix = nn.Sequential(
            nn.Conv2d(channels + skip, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.LeakyReLU(SLOPE, inplace=True),
        )

    def forward(self, deeper: Tensor, skip: Tensor) -> Tensor:
        """``(B, deeper, h, w)`` and ``(B, skip, 2h, 2w)`` to ``(B, channels, 2h, 2w)``."""
        return self.mix(torch.cat([self.upsample(deeper), skip], 1))


class GuidedDecoder(nn.Module):
    """Three levels, from the coarsest map up to the finest: a guide layer, then an up block.

    Args:
        skips: Channels of the four maps, finest first.
        widths: Channels out of levels 1, 2 and 3, finest first; ``None`` takes those of the maps.
        text_width: Width D of a token.
        tokens: Most tokens of a text.
        mixed_tokens: Tokens that levels 3, 2 and 1 mix them into.
        scale: Initial value of each level's g.

    Attributes:
        channels: Channels out.

    Raises:
        UsageError: If a number of tokens or of levels is impossible.
    """

    def __init__(
        self,
        skips: tuple[int, ...],
        widths: tuple[int, int, int] | None = None,
        *,
        text_width: int,
        tokens: int,
        mixed_tokens: tuple[int, int, int],
        scale: float,
    ) -> None:
        super().__init__()
        if tokens < 1 or len(mixed_tokens) != 3 or min(mixed_tokens) < 1:
            raise UsageError(
                "a guided decoder cannot have these numbers of tokens",
                came=f"tokens {tokens}, mixed_tokens {tuple(mixed_tokens)}",
                expected="1 or more, and three numbers of 1 or more",
            )
        outputs = (*(widths or skips[:3]), skips[3])
        self.channels = outputs[0]
        self.guides = nn.ModuleList(
            GuideLayer(outputs[s + 1], tokens=tokens, mixed=mixed_tokens[2 - s], text_width=text_width, scale=scale)
            for s in range(3)
        )
        self.ups = nn.ModuleList(GuidedUpBlock(outputs[s + 1], skips[s], outputs[s]) for s in range(3))

    def forward(self, maps: Sequence[Tensor], text: tuple[Tensor, Tensor] | None) -> Tensor:
        """Decode four maps, each half as large as the one before: ``(B, channels, h, w)`` as large as the first.

        Without features ``(B, L, D)`` and mask ``(B, L)`` of a text the guide layers are off; a row of false switches
        them off for its image.
        """
        decoded = maps[3]
        for level in (2, 1, 0):
            if text is not None:
                decoded = self.guides[level](decoded, *text)
            decoded = self.ups[level](decoded, maps[level])
        return decoded


class PlainDecoder(nn.Module):
    """Levels without a report, from the coarsest map up: ConvT 2x2, joined with the skip, two convolutions.

    Args:
        skips: Channels of the maps, finest first; the last one is where it starts.
        widths: Channels out of its levels, finest first, one fewer than there are maps.
    """

    def __init__(self, skips: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        deeper = (*widths[1:], skips[-1])
        self.ups = nn.ModuleList(
            UpBlock(nn.ConvTranspose2d(below, out, 2, stride=2), nn.Identity(), DoubleConv(skip + out, out))
            for skip, out, below in zip(skips[:-1], widths, deeper, strict=True)
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Decode maps, each half as large as the one before: ``(B, widths[0], h, w)`` as large as the first."""
        decoded = maps[-1]
        for up, skip in zip(reversed(self.ups), reversed(maps[:-1]), strict=True):
            decoded = up(decoded, skip)
        return decoded
