"""ConVIRT as a segmenter: a U-Net on a ResNet-50 that first learned which report belongs to which film.

Source: Zhang et al.: Contrastive Learning of Medical Visual Representations from Paired Images and Text, MLHC 2022.

The idea: image and report are brought into one space by a symmetric InfoNCE; then the image encoder starts a
segmentation that reads no text. The first phase is ``task: contrastive`` (`textray.training.contrastive`), whose
checkpoint the second starts from.

Shapes at 224 x 224: trunk 256x56², 512x28², 1024x14², 2048x7²; decoder 256x14², 128x28², 64x56²; 1x224².

Differences from the paper: the text encoder is frozen, both directions weigh the same (the paper: 0.75 and 0.25), the
projections are linear; the decoder is TextRay's, the paper segments nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from textray.models.base import Network, Output
from textray.nn.blocks import SubpixelHead
from textray.nn.decoder import PlainDecoder
from textray.nn.image_encoder import ImageEncoder


@dataclass(frozen=True, kw_only=True)
class ConVIRTConfig:
    """Sizes of a U-Net on a trunk.

    Attributes:
        in_channels: Channels of the image.
        trunk: timm's name of the image trunk, with its tag.
        trunk_weights: Its pretrained tensors, see `textray.nn.image_encoder.read_trunk`; ``None`` for random ones.
        decoder_channels: Channels of the decoder's levels, finest first; the first is a multiple of 4.
    """

    in_channels: int = 3
    trunk: str = "resnet50.tv_in1k"
    trunk_weights: str | None = None
    decoder_channels: tuple[int, int, int] = (64, 128, 256)


class ConVIRT(Network):
    """A U-Net on a trunk; it takes an image and ignores a report."""

    def __init__(self, config: ConVIRTConfig = ConVIRTConfig()) -> None:
        super().__init__(in_channels=config.in_channels, size_multiple=32, text_width=None)
        self.config = config
        self.trunk = ImageEncoder(config.trunk, in_channels=config.in_channels, weights=config.trunk_weights)
        self.decoder = PlainDecoder(self.trunk.channels, config.decoder_channels)
        self.head = SubpixelHead(config.decoder_channels[0])

    def forward(self, image: Tensor, text_features: Tensor | None = None, text_mask: Tensor | None = None) -> Output:
        """Segment images; the text is ignored. See `Network`."""
        self.check_image(image)
        return Output(self.head(self.decoder(self.trunk(image))))
