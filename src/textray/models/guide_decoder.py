r"""GuideDecoder: a report guides the decoder.

Source: Zhong, Xu, Liang, Chen, Wu: Ariadne's Thread: Using Text Prompts to Improve Segmentation of Infected Areas from
Chest X-ray Images, MICCAI 2023 (LanGuideMedSeg). The baseline of MMI-UNet (MICCAI 2024) and the decoder of SGSeg.

The idea: image and text are encoded apart. Each decoder level first lets the places of its map look at each other and
at the tokens of the text, which are mixed into fewer the finer the level is; then it goes up as a U-Net does.

Shapes in the paper's configuration, 224 x 224, ConvNeXt-T, up to 24 text tokens of width 768:

    ============  =======================================================  ===========================
    part          operation                                                output for s = 1, 2, 3, 4
    ============  =======================================================  ===========================
    trunk         ConvNeXt-T                                               96x56², 192x28², 384x14², 768x7²
    text s<4      zero pads, mix tokens, GELU, Linear D to C, LeakyReLU    9x192, 12x384, 24x768
    guide s<4     self-attention (1 head), cross-attention (4 heads)       192x28², 384x14², 768x7²
    up s<4        ConvT 2x2, join the skip, 2 x (Conv 3x3, BN, LeakyReLU)  96x56², 192x28², 384x14²
    head          subpixel upsampling by 4, Conv 1x1                       1x224² logits
    ============  =======================================================  ===========================

Differences from the paper: it prints no equations, the levels are those of the specification; logits leave the network;
without a report the guide layers are off; the trunk is by default the one of MMI-UNet, so that the two compare.

Differences from the authors' released code: padding is zeroed before tokens are mixed; any size that is a multiple of
32 and any configured text length; sines are computed, not kept as parameters; two projection heads and a norm that
nothing reads are left out; logits, so that the cross-entropy of the loss is not zero.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from textray.models.base import Network, Output
from textray.nn.blocks import SubpixelHead
from textray.nn.decoder import GuidedDecoder
from textray.nn.image_encoder import ImageEncoder


@dataclass(frozen=True, kw_only=True)
class GuideDecoderConfig:
    """Sizes of a GuideDecoder; the defaults are the paper's configuration.

    Attributes:
        trunk: timm's name of the image trunk, with its tag. The authors use ``convnext_tiny.fb_in1k``.
        trunk_weights: Its pretrained tensors, see `textray.nn.image_encoder.read_trunk`; ``None`` for random ones.
        in_channels: Channels of the image.
        text_width: Width D of the text features.
        tokens: Most tokens of a text, padding included; shorter ones are filled up with zeros.
        mixed_tokens: Tokens that decoder levels 3, 2, 1 (coarse to fine) mix them into.
        scale: Initial value of the learned weight of the text at each level: 1.421 in the authors' own code, 0.01 in
            the copies of it inside MMI-UNet and SGSeg.
        decoder_channels: Channels of decoder levels 1, 2, 3; ``None`` takes the trunk's.
    """

    trunk: str = "convnext_tiny.fb_in22k"
    trunk_weights: str | None = None
    in_channels: int = 3
    text_width: int = 768
    tokens: int = 24
    mixed_tokens: tuple[int, int, int] = (24, 12, 9)
    scale: float = 1.421
    decoder_channels: tuple[int, int, int] | None = None


class GuideDecoder(Network):
    """GuideDecoder in its paper form; the default sizes are the paper's: 42,176,545 trainable parameters.

    Raises:
        UsageError: If the trunk is of a family that cannot be cut into stages, or a size is impossible.
    """

    def __init__(self, config: GuideDecoderConfig = GuideDecoderConfig()) -> None:
        super().__init__(
            in_channels=config.in_channels,
            size_multiple=32,
            text_width=config.text_width,
            most_tokens=config.tokens,
            no_report=False,
        )
        self.config = config
        self.trunk = ImageEncoder(config.trunk, in_channels=config.in_channels, weights=config.trunk_weights)
        self.decoder = GuidedDecoder(
            self.trunk.channels,
            config.decoder_channels,
            text_width=config.text_width,
            tokens=config.tokens,
            mixed_tokens=config.mixed_tokens,
            scale=config.scale,
        )
        self.head = SubpixelHead(self.decoder.channels, factor=4)

    def forward(self, image: Tensor, text_features: Tensor | None = None, text_mask: Tensor | None = None) -> Output:
        """Segment images, guided by their reports where there are any; see `Network`."""
        self.check_image(image)
        text = None
        if text_features is not None:
            text = text_features, self.check_text(image, text_features, text_mask)
        return Output(self.head(self.decoder(self.trunk(image), text)))
