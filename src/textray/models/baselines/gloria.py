r"""GLoRIA as a segmenter: a U-Net on a ResNet-50 whose maps are weighed by where the words of the report fit.

Source: Huang et al.: GLoRIA: A Multimodal Global-Local Representation Learning Framework, ICCV 2021.

The idea: words and places are compared in one space. For word t_i and place v_j of the third stage the attention is
:math:`a_{ij} = \mathrm{softmax}_j(\cos(t_i, v_j) / \tau)`. Its mean over the words, times the
number of places, is 1 where no place fits better than another; here it weighs all maps of the trunk before the decoder.

Shapes at 224 x 224: trunk 256x56², 512x28², 1024x14², 2048x7²; words and places 512 wide, attention 14²; decoder
256x14², 128x28², 64x56²; 1x224².

Differences from the paper: the paper segments nothing, and its authors segment with the trunk alone; the weighing is
TextRay's. The trunk learns from reports by ``task: contrastive``, the global loss alone, with a frozen text encoder.
Without a report the learned token is the only word.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from textray.models.base import Network, Output
from textray.nn.blocks import SubpixelHead
from textray.nn.decoder import PlainDecoder
from textray.nn.image_encoder import ImageEncoder


@dataclass(frozen=True, kw_only=True)
class GLoRIAConfig:
    """Sizes of a U-Net on a trunk, weighed by words.

    Attributes:
        in_channels: Channels of the image.
        trunk: timm's name of the image trunk, with its tag.
        trunk_weights: Its pretrained tensors, see `textray.nn.image_encoder.read_trunk`; ``None`` for random ones.
        text_width: Width D of a token.
        width: Width of the common space of words and places.
        temperature: What a cosine is divided by; the paper's is 0.25.
        decoder_channels: Channels of the decoder's levels, finest first; the first is a multiple of 4.
    """

    in_channels: int = 3
    trunk: str = "resnet50.tv_in1k"
    trunk_weights: str | None = None
    text_width: int = 768
    width: int = 512
    temperature: float = 0.25
    decoder_channels: tuple[int, int, int] = (64, 128, 256)


class WordGate(nn.Module):
    """Weighs the places of a map by how well the words of a report fit there, 1 on average."""

    def __init__(self, channels: int, text_width: int, *, width: int, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.places = nn.Conv2d(channels, width, 1, bias=False)
        self.words = nn.Linear(text_width, width, bias=False)

    def forward(self, features: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        """Weights ``(B, 1, h, w)`` of a map ``(B, C, h, w)``; words ``(B, L, D)`` count where ``(B, L)`` is true."""
        places = F.normalize(self.places(features).flatten(2), dim=1)  # (B, width, h*w)
        scores = F.normalize(self.words(words), dim=2) @ places / self.temperature  # (B, L, h*w)
        real = mask.to(scores.dtype)[..., None]  # (B, L, 1)
        fit = (scores.softmax(2) * real).sum(1) / real.sum(1)  # (B, h*w)
        return fit.reshape(features.shape[0], 1, *features.shape[2:]) * places.shape[2]


class GLoRIA(Network):
    """A U-Net on a trunk whose maps are weighed by the words of a report."""

    def __init__(self, config: GLoRIAConfig = GLoRIAConfig()) -> None:
        super().__init__(in_channels=config.in_channels, size_multiple=32, text_width=config.text_width)
        self.config = config
        self.trunk = ImageEncoder(config.trunk, in_channels=config.in_channels, weights=config.trunk_weights)
        self.gate = WordGate(
            self.trunk.channels[2], config.text_width, width=config.width, temperature=config.temperature
        )
        self.decoder = PlainDecoder(self.trunk.channels, config.decoder_channels)
        self.head = SubpixelHead(config.decoder_channels[0])

    def forward(self, image: Tensor, text_features: Tensor | None = None, text_mask: Tensor | None = None) -> Output:
        """Segment images with their reports. See `Network`."""
        self.check_image(image)
        words, mask = self.read_text(image, text_features, text_mask)
        maps = self.trunk(image)
        weight = self.gate(maps[2], torch.where(mask[..., None], words, torch.zeros_like(words)), mask)
        sizes = [found.shape[2:] for found in maps]
        weighed = [
            found * F.interpolate(weight, size, mode="bilinear", align_corners=False)
            for found, size in zip(maps, sizes, strict=True)
        ]
        return Output(self.head(self.decoder(weighed)))
