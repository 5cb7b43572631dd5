r"""TGANet, a network whose decoder is weighed by words for what it thinks the image shows.

Source: Tomar et al.: TGANet: Text-guided Attention for Improved Polyp Segmentation, MICCAI 2022.

The idea: heads on the encoder classify the image (for polyps: one or many; small, medium or large). Each class has a
word; the words' embeddings, each times the probability of its class, are the text that weighs the channels of every
level of the decoder. On chest films the classes are how many of the six zones are affected and whether one lung or both
are. They follow from the probabilities of the zones, which are independent of each other here, so that the network's
zone head, and its loss on the zones of the caption, is all there is to learn.

Shapes at 224 x 224: trunk 256x56², 512x28², 1024x14², 2048x7²; each enhanced to 64 channels; zones 6, classes 7 + 3,
text 300; decoder 64x28² and 64x56² beside 64x14²; joined 64x56²; 1x224².

Differences from the paper: the classes; embeddings start at random instead of from byte pairs; attention after the
dilated convolutions is over channels only; the decoder has three levels below the head. The caption teaches the zones
and is not read.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from textray.models.base import Network, Output
from textray.nn.blocks import ConvNormAct, DoubleConv, EfficientChannelAttention, SubpixelHead
from textray.nn.image_encoder import ImageEncoder

COUNTS, SIDES = 7, 3
"""Classes: 0 to 6 affected zones; no lung, one, both."""


@dataclass(frozen=True, kw_only=True)
class TGANetConfig:
    """Sizes of a TGANet.

    Attributes:
        in_channels: Channels of the image.
        trunk: timm's name of the image trunk, with its tag.
        trunk_weights: Its pretrained tensors, see `textray.nn.image_encoder.read_trunk`; ``None`` for random ones.
        width: Channels of each level of the decoder, a multiple of 4.
        dilations: Of the convolutions that look at a stage's map side by side.
        label_width: Width of a word's embedding.
    """

    in_channels: int = 3
    trunk: str = "resnet50.tv_in1k"
    trunk_weights: str | None = None
    width: int = 64
    dilations: tuple[int, ...] = (1, 6, 12, 18)
    label_width: int = 300


def class_probabilities(zones: Tensor) -> Tensor:
    """Probabilities ``(B, 10)`` of 0 to 6 zones, then of no lung, one, both, from those of six independent zones.

    The zones ``(B, 6)`` are three of the lung at the image's left, then three of the other.
    """
    counts = torch.ones_like(zones[:, :1])  # (B, 1): none of no zones, surely
    for zone in zones.unbind(1):
        more, fewer = F.pad(counts, (1, 0)), F.pad(counts, (0, 1))
        counts = more * zone[:, None] + fewer * (1 - zone[:, None])
    left, right = 1 - (1 - zones[:, :3]).prod(1), 1 - (1 - zones[:, 3:]).prod(1)
    none, both = (1 - left) * (1 - right), left * right
    return torch.cat([counts, torch.stack([none, 1 - none - both, both], 1)], 1)


class Enhancement(nn.Module):
    """Dilated convolutions side by side, joined and weighed by channel."""

    def __init__(self, channels: int, width: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, width, 3, padding=dilation, dilation=dilation),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            )
            for dilation in dilations
        )
        self.join = ConvNormAct(width * len(dilations), width)
        self.attention = EfficientChannelAttention(width)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, channels, h, w)`` to ``(B, width, h, w)``."""
        return self.attention(self.join(torch.cat([branch(features) for branch in self.branches], 1)))


class TGANet(Network):
    """TGANet on zones; it takes an image and ignores a report, from which its zone head may learn."""

    tells_zones = True

    def __init__(self, config: TGANetConfig = TGANetConfig()) -> None:
        super().__init__(in_channels=config.in_channels, size_multiple=32, text_width=None)
        self.config = config
        self.trunk = ImageEncoder(config.trunk, in_channels=config.in_channels, weights=config.trunk_weights)
        w = config.width
        self.enhance = nn.ModuleList(Enhancement(c, w, config.dilations) for c in self.trunk.channels)
        self.zone_head = nn.Linear(self.trunk.channels[-1], 6)
        self.words = nn.Parameter(torch.randn(COUNTS + SIDES, config.label_width))
        self.label = nn.ModuleList(nn.Linear(2 * config.label_width, w) for _ in range(3))
        self.mix = nn.ModuleList(DoubleConv(2 * w, w) for _ in range(3))
        self.join = ConvNormAct(3 * w, w)
        self.head = SubpixelHead(w)

    def forward(self, image: Tensor, text_features: Tensor | None = None, text_mask: Tensor | None = None) -> Output:
        """Segment images; the text is ignored. See `Network`. The output has zone logits ``(B, 6)``."""
        self.check_image(image)
        maps = self.trunk(image)
        zones = self.zone_head(maps[-1].mean((2, 3)))
        chance = class_probabilities(zones.sigmoid())  # (B, 10)
        counts, sides = chance[:, :COUNTS] @ self.words[:COUNTS], chance[:, COUNTS:] @ self.words[COUNTS:]
        text = torch.cat([counts, sides], 1)  # (B, 2 * label_width)
        *skips, decoded = [enhance(found) for enhance, found in zip(self.enhance, maps, strict=True)]
        levels = []
        for label, mix in zip(self.label, self.mix, strict=True):
            larger = F.interpolate(decoded, scale_factor=2.0, mode="bilinear", align_corners=False)
            weight = torch.sigmoid(label(text))[..., None, None]  # (B, w, 1, 1)
            decoded = mix(torch.cat([larger, skips.pop()], 1)) * weight
            levels.append(decoded)
        size = decoded.shape[2:]
        same = [F.interpolate(found, size, mode="bilinear", align_corners=False) for found in levels]
        return Output(self.head(self.join(torch.cat(same, 1))), zone_logits=zones)
