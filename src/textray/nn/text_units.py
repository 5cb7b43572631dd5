"""From parts of a text to the units that they make up: pieces to words, words to sentences."""

from __future__ import annotations

import torch
from torch import Tensor


def gather(parts: Tensor, owner: Tensor, *, mean: bool) -> tuple[Tensor, Tensor]:
    """Sum or average parts by what they belong to.

    Args:
        parts: ``(B, N, D)``.
        owner: Number of the unit that each part belongs to, ``(B, N)`` int64; negative where to none.
        mean: Average, else sum.

    Returns:
        Units ``(B, U, D)``, zeros where there is none, and a bool mask ``(B, U)``; U is the largest number plus one,
        and at least 1.
    """
    batch, _, width = parts.shape
    units = int(owner.max().clamp(min=0)) + 1
    real = owner >= 0
    row = torch.arange(batch, device=owner.device)[:, None] * units + owner  # (B, N), place in the flat table
    flat = row[real]
    sums = parts.new_zeros(batch * units, width).index_add(0, flat, parts[real])
    counts = parts.new_zeros(batch * units).index_add(0, flat, torch.ones_like(flat, dtype=parts.dtype))
    if mean:
        sums = sums / counts.clamp(min=1)[:, None]
    return sums.view(batch, units, width), (counts > 0).view(batch, units)


def owners(word: Tensor, sentence: Tensor) -> Tensor:
    """Sentence of each word, ``(B, W)`` int64, -1 where there is no word, from those of the pieces ``(B, L)``."""
    units = int(word.max().clamp(min=0)) + 1
    found = word.new_full((word.shape[0], units + 1), -1)
    # Pieces of no word go to a column that is cut off.
    return found.scatter(1, torch.where(word >= 0, word, units), sentence)[:, :units]
