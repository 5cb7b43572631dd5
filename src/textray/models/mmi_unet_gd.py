r"""MMI-UNet with GuideDecoder: the report is matched inside the encoder and guides the decoder too.

Source: Bui, Le, Choo: Visual-Textual Matching Attention for Lesion Segmentation in Chest Images, MICCAI 2024, Table 2:
GuideDecoder "by replacing the encoder features with enhanced visual ones from the Image-Text Matching (ITM) module".

The idea: the encoder of `textray.models.mmi_unet`, unchanged, and the decoder of `textray.models.guide_decoder`, which
reads F_s^ITM as its four maps and T, the report as it was encoded, at each level.

Shapes in the paper's configuration, 224 x 224, ConvNeXt-T, up to 24 text tokens of width 768:

    ============  =======================================================  =====================================
    part          operation                                                output for s = 1, 2, 3, 4
    ============  =======================================================  =====================================
    trunk, ITM    as in MMI-UNet, with feedback and recursion of the text  96x56², 192x28², 384x14², 768x7²
    guide s<4     24 tokens mixed to 9, 12, 24; self- and cross-attention  192x28², 384x14², 768x7²
    up s<4        ConvT 2x2, join F_s^ITM, 2 x (Conv 3x3, BN, LeakyReLU)   96x56², 192x28², 384x14²
    head          subpixel upsampling by 4, Conv 1x1                       1x224² logits
    ============  =======================================================  =====================================

Differences from the paper: those of both parts; without a report the no-report token stands in inside the encoder and
the guide layers are off.

Differences from the authors' released code, which departs from their paper: the trunk reads what the ITM modules make
of its maps (there it runs alone) and the report is recursed from stage to stage (there each ITM reads the original T
and its text output is lost); the maps are F^ITM, not F + F^ITM; parameters that nothing reads are left out; and what
differs in either part.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from textray.models.base import Output
from textray.models.mmi_unet import MatchingConfig, MatchingNetwork
from textray.nn.blocks import SubpixelHead
from textray.nn.decoder import GuidedDecoder


@dataclass(frozen=True, kw_only=True)
class MMIUNetGDConfig(MatchingConfig):
    """Sizes of an MMI-UNet with GuideDecoder: those of its encoder (`MatchingConfig`), and its decoder's own.

    Attributes:
        tokens: Most tokens of a text, padding included; the decoder fills shorter ones up with zeros.
        mixed_tokens: Tokens that decoder levels 3, 2, 1 (coarse to fine) mix them into.
        scale: Initial value of the learned weight of the text at each level of the decoder.
    """

    tokens: int = 24
    mixed_tokens: tuple[int, int, int] = (24, 12, 9)
    scale: float = 0.01


class MMIUNetGD(MatchingNetwork):
    """MMI-UNet with GuideDecoder in its paper form.

    The default sizes are the paper's: 60,827,265 trainable parameters besides the no-report token.

    Raises:
        UsageError: If the trunk is of a family that cannot be run stage by stage, or a size is impossible.
    """

    def __init__(self, config: MMIUNetGDConfig = MMIUNetGDConfig()) -> None:
        super().__init__(config, most_tokens=config.tokens)
        self.decoder = GuidedDecoder(
            self.trunk.channels,
            config.decoder_channels,
            text_width=config.text_width,
            tokens=config.tokens,
            mixed_tokens=config.mixed_tokens,
            scale=config.scale,
        )
        self.head = SubpixelHead(self.decoder.channels, factor=4)
        self.zone_head = nn.Linear(self.trunk.channels[3], 6) if config.zone_head else None

    def forward(self, image: Tensor, text_features: Tensor | None = None, text_mask: Tensor | None = None) -> Output:
        """Segment images, see `Network`; with a zone head, zone logits ``(B, 6)`` too."""
        skips = self.encode(image, text_features, text_mask)
        text = None
        if text_features is not None:
            text = text_features, self.check_text(image, text_features, text_mask)
        decoded = self.decoder(skips, text)
        zones = None if self.zone_head is None else self.zone_head(skips[3].mean((2, 3)))
        return Output(self.head(decoded), zone_logits=zones)
