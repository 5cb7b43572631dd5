"""GuideDecoder (LanGuideMedSeg) as the authors' released code computes it.

Paper: Zhong et al., "Ariadne's Thread: Using Text Prompts to Improve Segmentation of Infected Areas from Chest X-ray
Images", MICCAI 2023. The image runs through a plain trunk; at each decoder level the map attends to the text.

Shapes at 224 x 224 with ConvNeXt-T, 24 text tokens of width 768:

    level     map          image tokens   text slots   out
    1/32      768 x 7^2    49 x 768       24 x 768     384 x 14^2
    1/16      384 x 14^2   196 x 384      12 x 384     192 x 28^2
    1/8       192 x 28^2   784 x 192      9 x 192      96 x 56^2
    head      96 x 56^2                                1 x 224^2     pixel shuffle by 4

Padding tokens are mixed with the words; 24 tokens and 224 x 224 only; never without a text.
`textray.models.guide_decoder` is the form to train.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from textray.models.base import Output
from textray.models.released.base import TOKENS, GuidedLevels, ReleasedConfig, ReleasedNetwork
from textray.nn.blocks import SubpixelHead


@dataclass(frozen=True, kw_only=True)
class ReleasedGuideDecoderConfig(ReleasedConfig):
    """Options of the released GuideDecoder; the defaults are the authors'.

    Attributes:
        scale: Initial value of what the text is scaled by at each level.
    """

    trunk: str = "convnext_tiny.fb_in1k"
    scale: float = 1.421


class ReleasedGuideDecoder(ReleasedNetwork):
    """GuideDecoder in its released form: 43,951,393 trainable parameters, 42,176,545 of which do anything."""

    dead = ("final_norm.", "image_head.", "text_head.")

    def __init__(self, config: ReleasedGuideDecoderConfig = ReleasedGuideDecoderConfig()) -> None:
        super().__init__(config, tokens=TOKENS)
        self.config = config
        channels = self.trunk.channels
        self.image_head = nn.Linear(channels[3], config.text_width)
        self.decoder = GuidedLevels(channels, text_width=config.text_width, scale=config.scale)
        self.head = SubpixelHead(channels[0], factor=4)

    def forward(self, image: Tensor, text_features: Tensor | None = None, text_mask: Tensor | None = None) -> Output:
        """Segment images, guided by their reports; see `ReleasedForm`."""
        self.check_image(image)
        report, _ = self.read_text(image, text_features, text_mask)
        return Output(self.head(self.decoder(self.trunk(image), report)))
