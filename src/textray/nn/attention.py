"""Attention between the tokens of an image and the tokens of a report."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


def heads_for(width: int, most: int = 8) -> int:
    """Return the largest number of heads up to ``most`` that divides ``width``."""
    return next(heads for heads in range(most, 0, -1) if width % heads == 0)


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention with several heads (Vaswani et al., NeurIPS 2017, Eq. 1).

    Query, key and value projections start as Xavier, the output projection as N(0, 0.02), biases as zero.

    Args:
        width: Width of queries, keys and values.
        heads: Number of heads; must divide ``width``.
        dropout: Share of attention weights dropped in training.
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

    def forward(self, query: Tensor, memory: Tensor, memory_mask: Tensor | None = None) -> Tensor:
        """Let ``query`` look at ``memory``.

        Args:
            query: ``(B, N, C)``.
            memory: ``(B, M, C)``, keys and values alike.
            memory_mask: ``(B, M)`` bool, true where a token may be attended; ``None`` for all.

        Returns:
            ``(B, N, C)``.
        """
        q, k, v = self._split(self.query(query)), self._split(self.key(memory)), self._split(self.value(memory))
        mask = None if memory_mask is None else memory_mask[:, None, None, :]  # (B, 1, 1, M)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)  # (B, heads, N, C/heads)
        return self.output(mixed.transpose(1, 2).flatten(2))  # (B, N, C)

    def _split(self, tokens: Tensor) -> Tensor:
        """``(B, N, C)`` to ``(B, heads, N, C/heads)``."""
        batch, length, width = tokens.shape
        return tokens.reshape(batch, length, self.heads, width // self.heads).transpose(1, 2)


class FeedForward(nn.Module):
    """Two linear layers with ReLU between, N(0, 0.02) at the start.

    Args:
        width: Width in and out.
        hidden: Width between.
        dropout: Share of hidden and of output units dropped in training.
    """

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
