"""U-Net, the uni-modal reference of the papers.

Source: Ronneberger, Fischer, Brox: U-Net, MICCAI 2015, in the size that the compared papers use (14,751,873 parameters
with 3 channels in and width 64). The first level is a single Conv-BN-ReLU, every other one a double.

Shapes at 224 x 224: 64x224², 128x112², 256x56², 512x28², 512x14²; back up 256x28², 128x56², 64x112², 64x224²; 1x224².

Differences from the paper: padded convolutions with batch normalisation, transposed convolutions that keep their width,
a bottom of 512 channels, logits of one class.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from textray.models.base import Network, Output
from textray.nn.blocks import ConvNormAct, DoubleConv, UpBlock


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """Sizes of a U-Net: channels of the image, and of the first level."""

    in_channels: int = 3
    width: int = 64


class UNet(Network):
    """U-Net that takes an image and ignores a report."""

    def __init__(self, config: UNetConfig = UNetConfig()) -> None:
        super().__init__(in_channels=config.in_channels, size_multiple=16, text_width=None)
        self.config = config
        w = config.width
        self.first = ConvNormAct(config.in_channels, w)
        self.down = nn.ModuleList(DoubleConv(a, b) for a, b in pairwise((w, 2 * w, 4 * w, 8 * w, 8 * w)))
        self.up = nn.ModuleList(
            UpBlock(nn.ConvTranspose2d(c, c, 2, stride=2), nn.Identity(), DoubleConv(2 * c, out))
            for c, out in pairwise((8 * w, 4 * w, 2 * w, w, w))
        )
        self.head = nn.Conv2d(w, 1, 1)

    def forward(self, image: Tensor, text_features: Tensor | None = None, text_mask: Tensor | None = None) -> Output:
        """Segment images; the text is ignored. See `Network`."""
        self.check_image(image)
        maps = [self.first(image)]
        for down in self.down:
            maps.append(down(F.max_pool2d(maps[-1], 2)))
        decoded = maps.pop()
        for up in self.up:
            decoded = up(decoded, maps.pop())
        return Output(self.head(decoded))
