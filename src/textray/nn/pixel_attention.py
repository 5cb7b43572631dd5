"""Pixel-level attention (PLAM) of Li et al., LViT, IEEE TMI 2023."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Gate = Literal["none", "sigmoid"]
"""What stands between the weight of a pixel and the pixel: nothing, as in the paper's figure, or a sigmoid."""


class PixelLevelAttention(nn.Module):
    r"""Weighs each pixel of a map by what its channels say on average and at most.

    ::

        a = mean_c ReLU(W_a x);   m = max_c ReLU(W_m x);   x' = x * gate(MLP([a, m, a + m]))

    The two pools run over the channels of each pixel, so the weight is one number a pixel. Without a sigmoid it has no
    bounds and may change the sign of what it weighs.

    Args:
        channels: Channels of the map.
        gate: ``none`` (the paper's figure) or ``sigmoid``.
    """

    HIDDEN = 6

    def __init__(self, channels: int, *, gate: Gate = "none") -> None:
        super().__init__()
        self.gate = gate
        self.average = nn.Conv2d(channels, channels, 1, bias=False)
        self.largest = nn.Conv2d(channels, channels, 1, bias=False)
        last = nn.Linear(self.HIDDEN, 1)
        self.mix = nn.Sequential(nn.Linear(3, self.HIDDEN), nn.ReLU(inplace=True), last)
        nn.init.normal_(last.weight, std=0.02)
        nn.init.ones_(last.bias)  # starts as a plain skip, with every pixel weighed by about one

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        average = F.relu(self.average(features)).mean(1)  # (B, H, W)
        largest = F.relu(self.largest(features)).amax(1)
        weight = self.mix(torch.stack([average, largest, average + largest], 3))  # (B, H, W, 1)
        weight = weight.permute(0, 3, 1, 2)  # (B, 1, H, W)
        return features * (weight.sigmoid() if self.gate == "sigmoid" else weight)
