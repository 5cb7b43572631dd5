r"""LAVT, a Swin Transformer that reads the report after each of its stages.

Source: Yang et al.: LAVT: Language-Aware Vision Transformer for Referring Image Segmentation, CVPR 2022. The Swin
Transformer is timm's.

The idea: after stage i each place gathers what the words say to it (pixel-word attention)::

    G = norm(W_w softmax(Q K^T / sqrt(C)) V),   Q = norm(W_q V_i),  K = W_k T,  V = W_v T
    F_i = ReLU(W_o (ReLU(W_m V_i) * G))

and a gate in [-1, 1] adds as much of it to what the next stage reads: :math:`E_i = V_i + S(F_i) F_i`. The
decoder joins F_4 to F_1.

Shapes at 224 x 224 with Swin-B: V_i, F_i and E_i 56²x128, 28²x256, 14²x512, 7²x1024; decoder 512x14², 512x28², 512x56²;
logits 1x56², enlarged to 1x224².

Differences from the paper: windows of 7 places, since images are 224 px (the paper: 12 at 480 px); words come from the
frozen text encoder; one class. Without a report G is 1: a learned token in its place would say the same to
every place, and the norm would make it 0, with which the decoder would read nothing at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from textray.models.base import Network, Output
from textray.nn.blocks import DoubleConv
from textray.nn.swin import SwinSizes, SwinTrunk

SWIN_B = SwinSizes(
    name="swin_base_patch4_window7_224.ms_in22k", width=128, depths=(2, 2, 18, 2), heads=(4, 8, 16, 32), drop_path=0.3
)


@dataclass(frozen=True, kw_only=True)
class LAVTConfig:
    """Sizes of a LAVT; the defaults are Swin-B's.

    Attributes:
        in_channels: Channels of the image.
        trunk: Sizes of the Swin Transformer, and where its weights come from.
        text_width: Width D of a token.
        decoder_channels: Channels of each level of the decoder.
    """

    in_channels: int = 3
    trunk: SwinSizes = field(default_factory=lambda: SWIN_B)
    text_width: int = 768
    decoder_channels: int = 512


def over_places(tokens: Tensor) -> Tensor:
    """Instance normalisation: mean 0 and variance 1 of each channel of ``(B, N, C)`` over its N places."""
    centred = tokens - tokens.mean(1, keepdim=True)
    return centred / torch.sqrt(centred.square().mean(1, keepdim=True) + 1e-5)


class PixelWordAttention(nn.Module):
    """What the words of a report say to each place of a stage."""

    def __init__(self, channels: int, text_width: int) -> None:
        super().__init__()
        self.query, self.mix = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.key, self.value = nn.Linear(text_width, channels), nn.Linear(text_width, channels)
        self.gathered, self.output = nn.Linear(channels, channels), nn.Linear(channels, channels)

    def forward(self, places: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        """Places ``(B, N, C)`` and words ``(B, L, D)``, read where ``(B, L)`` is true, to F_i ``(B, N, C)``."""
        given = mask.any(1)
        mask = mask | ~given[:, None]  # a softmax over nothing is no number
        scores = over_places(self.query(places)) @ self.key(words).transpose(1, 2) / math.sqrt(places.shape[2])
        weights = scores.masked_fill(~mask[:, None], -math.inf).softmax(2)  # (B, N, L)
        gathered = over_places(self.gathered(weights @ self.value(words)))  # (B, N, C), G
        gathered = torch.where(given[:, None, None], gathered, torch.ones_like(gathered))
        return F.relu(self.output(F.relu(self.mix(places)) * gathered))


class LAVT(Network):
    """LAVT; it runs without a report too."""

    def __init__(self, config: LAVTConfig = LAVTConfig()) -> None:
        super().__init__(
            in_channels=config.in_channels, size_multiple=32, text_width=config.text_width, no_report=False
        )
        self.config = config
        self.trunk = SwinTrunk(config.trunk, in_channels=config.in_channels, norm=False)
        channels, width = self.trunk.channels, config.decoder_channels
        self.attention = nn.ModuleList(PixelWordAttention(c, config.text_width) for c in channels)
        self.gate = nn.ModuleList(
            nn.Sequential(nn.Linear(c, c, bias=False), nn.ReLU(), nn.Linear(c, c, bias=False), nn.Tanh())
            for c in channels[:-1]
        )
        self.mix = nn.ModuleList(
            DoubleConv(deeper + skip, width)
            for deeper, skip in zip((channels[3], width, width), channels[2::-1], strict=True)
        )
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, image: Tensor, text_features: Tensor | None = None, text_mask: Tensor | None = None) -> Output:
        """Segment images with their reports. See `Network`."""
        self.check_image(image)
        if text_features is None:
            text_features = image.new_zeros(image.shape[0], 1, self.config.text_width)
            text_mask = image.new_zeros(image.shape[0], 1)
        mask = self.check_text(image, text_features, text_mask)
        words = torch.where(mask[..., None], text_features, torch.zeros_like(text_features))
        features, maps = self.trunk.embed(image), []  # (B, h, w, C)
        for stage, attention in enumerate(self.attention):
            features = self.trunk.stage(stage, features)
            batch, height, width, channels = features.shape
            found = attention(features.reshape(batch, height * width, channels), words, mask)
            found = found.reshape(features.shape)  # F_i
            maps.append(found.permute(0, 3, 1, 2))
            if stage < 3:
                features = features + self.gate[stage](found) * found
        decoded = maps.pop()
        for mix in self.mix:
            skip = maps.pop()
            larger = F.interpolate(decoded, skip.shape[2:], mode="bilinear", align_corners=False)
            decoded = mix(torch.cat([larger, skip], 1))
        return Output(F.interpolate(self.head(decoded), image.shape[2:], mode="bilinear", align_corners=False))
