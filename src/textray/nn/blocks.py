"""Convolutional blocks that more than one network uses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from textray.errors import UsageError


class EfficientChannelAttention(nn.Module):
    """Weights each channel by a sigmoid over its neighbours' means (Wang et al., ECA-Net, CVPR 2020, Eq. 9).

    The kernel is ``|(log2 C + 1) / 2|`` wide, to the next odd number (Eq. 12): 5, 5, 3 for 384, 192, 96 channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = int(abs((math.log2(channels) + 1) / 2)) | 1
        self.mix = nn.Conv1d(1, 1, width, padding=width // 2, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        weights = self.mix(features.mean((2, 3)).unsqueeze(1))  # (B, 1, C)
        return features * torch.sigmoid(weights).transpose(1, 2).unsqueeze(3)  # (B, C, 1, 1)


class ConvNormAct(nn.Sequential):
    """Conv 3x3 with bias, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class DoubleConv(nn.Sequential):
    """Two Conv-BN-ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(ConvNormAct(inputs, outputs), ConvNormAct(outputs, outputs))


class UpBlock(nn.Module):
    """``mix([attention(skip); upsample(deeper)])``, a level of a decoder."""

    def __init__(self, upsample: nn.Module, attention: nn.Module, mix: nn.Module) -> None:
        super().__init__()
        self.upsample, self.attention, self.mix = upsample, attention, mix

    def forward(self, deeper: Tensor, skip: Tensor) -> Tensor:
        """``(B, deeper, h, w)`` and ``(B, skip, 2h, 2w)`` to ``(B, channels, 2h, 2w)``."""
        return self.mix(torch.cat([self.attention(skip), self.upsample(deeper)], 1))


class SubpixelHead(nn.Module):
    """Upsamples by pixel shuffle and reads one logit per pixel.

    Conv 3x3 to ``C / 4 * factor**2`` channels, pixel shuffle to ``C / 4``, an average over ``factor`` x ``factor``
    pixels (against checkerboards), Conv 1x1.

    Raises:
        UsageError: If the channels cannot be divided by 4.
    """

    def __init__(self, channels: int, *, factor: int = 4) -> None:
        super().__init__()
        if channels % 4:
            raise UsageError("the head needs a multiple of 4 channels", came=channels, do="Change decoder_channels")
        inner = channels // 4
        self.factor = factor
        self.expand = nn.Conv2d(channels, inner * factor**2, 3, padding=1)
        self.read = nn.Conv2d(inner, 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, h, w)`` to logits ``(B, 1, h * factor, w * factor)``."""
        shuffled = F.pixel_shuffle(self.expand(features), self.factor)  # (B, C/4, H, W)
        pad = self.factor - 1
        smooth = F.avg_pool2d(F.pad(shuffled, (pad, 0, pad, 0)), self.factor, stride=1)  # zeros left and above
        return self.read(smooth)


# Pixel-level attention (PLAM) of Li et al., LViT, IEEE TMI 2023.

Gate = Literal["none", "sigmoid"]
"""What stands between the weight of a pixel and the pixel: nothing, as in the paper's figure, or a sigmoid."""


class PyramidHead(nn.Module):
    """Reads ``outputs`` logits a place of the finest of several maps, each half as fine as the one before.

    Conv 1x1 of each map to ``width`` channels; from the coarsest on, Conv 3x3 and ReLU, upsampled and added to the next
    (a feature pyramid, Lin et al., CVPR 2017); Conv 1x1.
    """

    def __init__(self, channels: Sequence[int], outputs: int, *, width: int = 32) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(of_map, width, 1) for of_map in channels)
        self.mix = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in channels)
        self.read = nn.Conv2d(width, outputs, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps ``(B, C_s, h / 2^s, w / 2^s)``, s from 0, to ``(B, outputs, h, w)``."""
        mixed = None
        for level in reversed(range(len(maps))):
            here = self.lateral[level](maps[level])
            if mixed is not None:
                here = here + F.interpolate(mixed, scale_factor=2.0, mode="bilinear", align_corners=False)
            mixed = F.relu(self.mix[level](here))
        return cast(Tensor, self.read(mixed))


class PixelLevelAttention(nn.Module):
    r"""Weighs each pixel of a map by what its channels say on average and at most.

    ::

        a = mean_c ReLU(W_a x);   m = max_c ReLU(W_m x);   x' = x * gate(MLP([a, m, a + m]))

    The two pools run over the channels of each pixel, so the weight is one number a pixel. Without a sigmoid it has no
    bounds and may change the sign of what it weighs.
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
