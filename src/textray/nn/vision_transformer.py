"""Parts of LViT's transformer branch: patches of a map as tokens, blocks over them, convolutions along them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from textray.errors import UsageError


class SelfAttention(nn.Module):
    """Scaled dot-product attention of tokens to each other (Vaswani et al., NeurIPS 2017, Eq. 1).

    Queries, keys and values come from one projection, in this order.

    Raises:
        UsageError: If ``heads`` does not divide ``width``.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise UsageError(
                "heads of an attention must divide its width", came=f"{heads} heads, width {width}", do="Change heads"
            )
        self.heads = heads
        self.project_in = nn.Linear(width, 3 * width)
        self.project_out = nn.Linear(width, width)
        for layer in (self.project_in, self.project_out):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """``(B, N, C)`` to ``(B, N, C)``."""
        batch, length, width = tokens.shape
        split = self.project_in(tokens).reshape(batch, length, 3, self.heads, width // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, N, C/heads) each
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.project_out(mixed.transpose(1, 2).flatten(2))


class TransformerBlock(nn.Module):
    """Self-attention, then two linear layers; each normalised before and added after.

    Differs from the usual block (Dosovitskiy et al., ICLR 2021): a GELU also stands behind the second linear layer, as
    in LViT. Between the two, tokens are ``expansion`` times wider; dropout is of hidden and of output units.
    """

    def __init__(self, width: int, heads: int, *, expansion: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads)
        self.feed_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, expansion * width)
        self.reduce = nn.Linear(expansion * width, width)
        self.dropout = nn.Dropout(dropout)
        for layer in (self.expand, self.reduce):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """``(B, N, C)`` to ``(B, N, C)``."""
        tokens = tokens + self.attention(self.attention_norm(tokens))
        hidden = self.dropout(F.gelu(self.expand(self.feed_norm(tokens))))
        return tokens + self.dropout(F.gelu(self.reduce(hidden)))


def regrid(tokens: Tensor, grid: tuple[int, int], wanted: tuple[int, int]) -> Tensor:
    """Bring tokens ``(B, h * w, C)``, row by row on a grid, to another grid, bilinearly; on the same one, unchanged."""
    if grid == wanted:
        return tokens
    places = tokens.transpose(1, 2).reshape(tokens.shape[0], -1, *grid)  # (B, C, h, w)
    return F.interpolate(places, size=wanted, mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)


class PatchEmbedding(nn.Module):
    """Patches of a map as tokens of as many channels, with positions.

    These are learned for a grid of patches along height and width, and resized with a map of another size.
    """

    def __init__(self, channels: int, patch: int, grid: tuple[int, int], *, dropout: float = 0.0) -> None:
        super().__init__()
        self.grid = grid
        self.project = nn.Conv2d(channels, channels, patch, stride=patch)
        self.positions = nn.Parameter(torch.empty(1, grid[0] * grid[1], channels))
        self.dropout = nn.Dropout(dropout)
        nn.init.trunc_normal_(self.positions, std=0.02)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, h * patch, w * patch)`` to ``(B, h * w, C)``."""
        patches = self.project(features)  # (B, C, h, w)
        grid = (patches.shape[2], patches.shape[3])
        tokens = patches.flatten(2).transpose(1, 2)  # (B, h*w, C)
        return self.dropout(tokens + regrid(self.positions, self.grid, grid))


class TokenConvNormAct(nn.Sequential):
    """Conv of kernel 3 with bias, batch normalisation, ReLU, all along one axis: ``(B, inputs, n)``."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.Conv1d(inputs, outputs, 3, padding=1), nn.BatchNorm1d(outputs), nn.ReLU(inplace=True))
