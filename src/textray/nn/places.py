"""Places of a film as an amount times a place, and parts of a text summed up to units."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from textray.nn.attention import sine_positions

POSITIONS = 32
"""Channels of the sines of a position."""
_LEAST = 1e-6
"""Added before a root, whose slope at zero is infinite."""


class AmountTimesPlace(nn.Module):
    """Vectors of places in two factors, ``amount(features) * place(position)``.

    The amount, one number above zero, depends on the features at a place and around it alone; it is the root of a
    softplus, so that the mean of a film rises with the area more than with the brightest point. The place, a softmax
    over D - 1 directions and none, depends on row and column alone, the same for every film; none has one half at
    first, or what no text names would lie in directions of other texts. So a film's vector, the mean of its places,
    says where the amount lies, and features can be matched with a text only by an amount where the text says. A network
    that is free to mix the two also finds the *healthy* lung, which says as well as the ill one which side is ill.

    Features are first brought to one scale, channel by channel: some channels of a trunk are many times as strong as
    others. Past the paper of sentence grounding. The last number of each vector is the constant ``quiet``, in which no
    text points. The width D of the common space, at least 2, is also that of both hidden layers.
    """

    def __init__(self, channels: int, width: int, *, quiet: float) -> None:
        super().__init__()
        self.quiet = quiet
        self.amount = nn.Sequential(
            nn.BatchNorm2d(channels, affine=False),
            nn.Conv2d(channels, width, 1),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1, padding_mode="replicate", groups=width),
            nn.Conv2d(width, width, 1),
            nn.GELU(),
            nn.Conv2d(width, 1, 1),
        )
        self.where = nn.Sequential(nn.Conv2d(POSITIONS, width, 1), nn.GELU(), nn.Conv2d(width, width, 1))
        last = cast(nn.Conv2d, self.where[2])
        with torch.no_grad():
            cast(Tensor, last.bias)[-1] += math.log(width - 1)  # as much of none as of all the others

    def forward(self, features: Tensor) -> Tensor:
        """Vectors ``(B, D, h, w)``, none below zero, of features ``(B, C, h, w)``."""
        amount = (F.softplus(self.amount(features)) + _LEAST).sqrt()  # (B, 1, h, w)
        where = self.where(position_sines(features)).softmax(1)[:, :-1]  # (1, D-1, h, w), without none
        return torch.cat([amount * where, torch.full_like(amount, self.quiet)], 1)


def position_sines(places: Tensor) -> Tensor:
    """Fixed sines of row and column ``(1, POSITIONS, h, w)`` for places ``(B, C, h, w)``."""
    height, width = places.shape[2:]
    sines = sine_positions(places[:1, :1].expand(-1, POSITIONS, -1, -1))  # (1, h*w, P)
    return sines.transpose(1, 2).view(1, POSITIONS, height, width)


# Parts of a text summed up to units: pieces to words, words to sentences.


def gather(parts: Tensor, owner: Tensor, *, mean: bool) -> tuple[Tensor, Tensor]:
    """Sum or average parts ``(B, N, D)`` by the number of the unit that they belong to, ``(B, N)``; negative for none.

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
    owner = word.new_full((word.shape[0], units + 1), -1)
    # Pieces of no word go to a column that is cut off.
    return owner.scatter(1, torch.where(word >= 0, word, units), sentence)[:, :units]
