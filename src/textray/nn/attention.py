"""Attention between the tokens of an image and the tokens of a report."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from textray.errors import ShapeError


def heads_for(width: int, most: int = 8) -> int:
    """Return the largest number of heads up to ``most`` that divides ``width``."""
    return next(heads for heads in range(most, 0, -1) if width % heads == 0)


def sine_positions(features: Tensor) -> Tensor:
    """Fixed sines ``(1, h * w, C)`` of the places of a map ``(B, C, h, w)``, half of the channels for rows.

    Sines and cosines of Vaswani et al., NeurIPS 2017, section 3.5, in each direction, over the place as a share of the
    map's height and width times 32, so that a place has the same code at every resolution.

    Raises:
        ShapeError: If C is no multiple of 4.
    """
    channels, height, width = features.shape[1:]
    if channels % 4:
        raise ShapeError("positions need a multiple of 4 channels", came=channels, expected="4, 8, 12, ...")
    quarter = channels // 4
    rates = torch.exp(torch.arange(quarter, device=features.device) * (-math.log(100.0) / quarter))  # (C/4,)
    codes = []
    for length in (height, width):
        place = (torch.arange(length, device=features.device) + 0.5) / length * 32
        angle = place[:, None] * rates  # (length, C/4)
        codes.append(torch.cat([angle.sin(), angle.cos()], 1))  # (length, C/2)
    rows = codes[0][:, None].expand(height, width, -1)
    columns = codes[1][None].expand(height, width, -1)
    return torch.cat([rows, columns], 2).reshape(1, height * width, channels).to(features.dtype)


def raster_sines(tokens: Tensor) -> Tensor:
    """Fixed sines ``(N, C)`` of the place of each of the tokens ``(B, N, C)`` in its row.

    Vaswani et al., NeurIPS 2017, section 3.5: channel 2i of token p is ``sin(p * 10000^(-2i / C))``, channel 2i + 1 the
    cosine. Computed anew at each length, so there is nothing to learn and no longest length.
    """
    length, width = tokens.shape[1:]
    exact = torch.promote_types(tokens.dtype, torch.float32)  # half precision cannot count to 3,136 tokens
    place = torch.arange(length, dtype=exact, device=tokens.device)
    even = torch.arange(0, width, 2, dtype=exact, device=tokens.device)
    angle = place[:, None] * torch.exp(even * (-math.log(10_000.0) / width))  # (N, ceil(C / 2))
    return torch.stack([angle.sin(), angle.cos()], 2).flatten(1)[:, :width].to(tokens.dtype)


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention with several heads (Vaswani et al., NeurIPS 2017, Eq. 1).

    Query, key and value projections start as Xavier, the output projection as N(0, 0.02), biases as zero. Heads divide
    the width; dropout is of attention weights.
    """

    def __init__(self, width: int, heads: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        for layer in (self.query, self.key, self.value):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.output.weight, std=0.02)
        nn.init.zeros_(self.output.bias)

    def forward(
        self, query: Tensor, memory: Tensor, memory_mask: Tensor | None = None, *, value: Tensor | None = None
    ) -> Tensor:
        """Let a query ``(B, N, C)`` look at a memory ``(B, M, C)``: ``(B, N, C)``.

        The mask ``(B, M)`` is true where a token may be attended. The memory is keys and, without ``value``
        ``(B, M, C)``, values: these differ where only keys carry their positions.
        """
        q, k = self._split(self.query(query)), self._split(self.key(memory))
        v = self._split(self.value(memory if value is None else value))
        mask = None if memory_mask is None else memory_mask[:, None, None, :]  # (B, 1, 1, M)
        dropout = self.dropout if self.training else 0.0
        if q.dtype is torch.bfloat16 and q.device.type == "cpu":  # whose kernel is slower than that of single precision
            with torch.autocast("cpu", enabled=False):
                q, k, v = q.float(), k.float(), v.float()
                mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        # mixed is (B, heads, N, C/heads)
        return self.output(mixed.transpose(1, 2).flatten(2))  # (B, N, C)

    def weights(self, query: Tensor, memory: Tensor, memory_mask: Tensor | None = None) -> Tensor:
        """How much each query looks at each token of the memory, before any dropout: ``(B, heads, N, M)``.

        It sums to one over M and is zero at tokens that may not be attended.
        """
        q, k = self._split(self.query(query)), self._split(self.key(memory))
        scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[3])  # (B, heads, N, M)
        if memory_mask is not None:
            scores = scores.masked_fill(~memory_mask[:, None, None, :], -math.inf)
        return scores.softmax(3)

    def _split(self, tokens: Tensor) -> Tensor:
        """``(B, N, C)`` to ``(B, heads, N, C/heads)``."""
        batch, length, width = tokens.shape
        return tokens.reshape(batch, length, self.heads, width // self.heads).transpose(1, 2)


class FeedForward(nn.Module):
    """Two linear layers with ReLU between, N(0, 0.02) at the start; dropout is of hidden and of output units."""

    def __init__(self, width: int, hidden: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.expand = nn.Linear(width, hidden)
        self.reduce = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)
        for layer in (self.expand, self.reduce):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """``(B, N, C)`` to ``(B, N, C)``."""
        return self.dropout(self.reduce(self.dropout(F.relu(self.expand(tokens)))))
