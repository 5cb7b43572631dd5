"""Attention U-Net, a U-Net whose skips are gated by the deeper level.

Source: Oktay et al.: Attention U-Net: Learning Where to Look for the Pancreas, MIDL 2018. The network is MONAI's
`AttentionUnet`.

The idea: each place of a skip is weighed by ``sigmoid(psi(ReLU(W_x x + W_g g)))`` (Eq. 1), where g is the upsampled
deeper level.

Shapes at 224 x 224 with width 64: 64x224², 128x112², 256x56², 512x28², 1024x14²; back up; 1x224².

Differences from the paper, MONAI's: levels are halved by strided convolutions; g is upsampled before the gate, not x
reduced; batch normalisation stands in the gate; a single convolution with instance normalisation and PReLU joins a
level; no deep supervision; logits of one class.
"""

from __future__ import annotations

from dataclasses import dataclass

from monai.networks.nets import AttentionUnet
from torch import Tensor

from textray.models.base import Network, Output


@dataclass(frozen=True, kw_only=True)
class AttentionUNetConfig:
    """Sizes of an Attention U-Net: channels of the image, and of the first level."""

    in_channels: int = 3
    width: int = 64


class AttentionUNet(Network):
    """Attention U-Net that takes an image and ignores a report."""

    def __init__(self, config: AttentionUNetConfig = AttentionUNetConfig()) -> None:
        super().__init__(in_channels=config.in_channels, size_multiple=16, text_width=None)
        self.config = config
        channels = tuple(config.width * 2**level for level in range(5))
        self.gated = AttentionUnet(2, config.in_channels, 1, channels, strides=(2, 2, 2, 2))

    def forward(self, image: Tensor, text_features: Tensor | None = None, text_mask: Tensor | None = None) -> Output:
        """Segment images; the text is ignored. See `Network`."""
        self.check_image(image)
        return Output(self.gated(image))
