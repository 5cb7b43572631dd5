"""U-Net++, a U-Net whose skips pass through nested convolutions.

Source: Zhou et al.: UNet++: A Nested U-Net Architecture for Medical Image Segmentation, DLMIA 2018. The network is
MONAI's `BasicUNetPlusPlus` with batch normalisation and ReLU.

The idea: level i of the encoder reaches the decoder through columns j = 1, 2, ...; ``x[i, j]`` is two convolutions of
all ``x[i, 0..j-1]`` beside the upsampled ``x[i+1, j-1]``. The mask is read from ``x[0, 4]``.

Shapes at 224 x 224 with width 32: ``x[0, j]`` 32x224², ``x[1, j]`` 64x112², ``x[2, j]`` 128x56², ``x[3, j]`` 256x28²,
``x[4, 0]`` 512x14²; 1x224².

Differences from the paper: no deep supervision, so the heads of ``x[0, 1]`` to ``x[0, 3]`` are left out; transposed
convolutions halve the channels from the third level up; logits of one class.
"""

from __future__ import annotations

from dataclasses import dataclass

from monai.networks.nets import BasicUNetPlusPlus
from torch import Tensor, nn

from textray.models.base import Network, Output


@dataclass(frozen=True, kw_only=True)
class UNetPlusPlusConfig:
    """Sizes of a U-Net++: channels of the image, and of the first level."""

    in_channels: int = 3
    width: int = 32


class UNetPlusPlus(Network):
    """U-Net++ that takes an image and ignores a report."""

    def __init__(self, config: UNetPlusPlusConfig = UNetPlusPlusConfig()) -> None:
        super().__init__(in_channels=config.in_channels, size_multiple=16, text_width=None)
        self.config = config
        w = config.width
        self.nested = BasicUNetPlusPlus(
            2, config.in_channels, 1, (w, 2 * w, 4 * w, 8 * w, 16 * w, w), act="relu", norm="batch"
        )
        for column in (1, 2, 3):  # heads of deep supervision, which it would run for nothing
            setattr(self.nested, f"final_conv_0_{column}", nn.Identity())

    def forward(self, image: Tensor, text_features: Tensor | None = None, text_mask: Tensor | None = None) -> Output:
        """Segment images; the text is ignored. See `Network`."""
        self.check_image(image)
        return Output(self.nested(image)[0])
