"""MMI-UNet with GuideDecoder (Table 2 of its paper) as the authors' released code computes it.

Paper: Bui, Le, Choo, "Visual-Textual Matching Attention for Lesion Segmentation in Chest Images", MICCAI 2024.
Shapes: the fusion blocks' as in `textray.models.released.mmi_unet`, the decoder's as in
`textray.models.released.guide_decoder`.

Differs from the paper: the trunk runs alone, so nothing of the text is fed back to it; each fusion block reads the
original text, and what it makes of the text is not read; besides all that the two parts differ in.
`textray.models.mmi_unet_gd` is the paper's own form.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from textray.models.base import Output
from textray.models.released.base import TOKENS, FusionBlock, GuidedLevels, ReleasedConfig, ReleasedNetwork
from textray.nn.blocks import SubpixelHead


@dataclass(frozen=True, kw_only=True)
class ReleasedMMIUNetGDConfig(ReleasedConfig):
    """Options of the released MMI-UNet with GuideDecoder; the defaults are the authors'.

    Dropout is of the fusion blocks; ``scale`` is what the text is first multiplied by at each decoder level.
    """

    trunk: str = "convnext_tiny.fb_in1k"
    dropout: float = 0.1
    scale: float = 0.01


class ReleasedMMIUNetGD(ReleasedNetwork):
    """MMI-UNet with GuideDecoder in its released form.

    It has 65,755,649 trainable parameters, 56,214,177 of which do anything.
    """

    dead = (
        "final_norm.",
        "image_head.",
        "text_head.",
        *(f"fusion.{s}.{part}." for s in range(4) for part in ("text", "restore_text")),
    )

    def __init__(self, config: ReleasedMMIUNetGDConfig = ReleasedMMIUNetGDConfig()) -> None:
        super().__init__(config, tokens=TOKENS)
        self.config = config
        channels = self.trunk.channels
        self.image_head = nn.Linear(channels[3], config.text_width)
        self.fusion = nn.ModuleList(
            FusionBlock(c, config.text_width, dropout=config.dropout, odd=s == 3) for s, c in enumerate(channels)
        )
        self.decoder = GuidedLevels(channels, text_width=config.text_width, scale=config.scale)
        self.head = SubpixelHead(channels[0], factor=4)

    def forward(self, image: Tensor, text_features: Tensor | None = None, text_mask: Tensor | None = None) -> Output:
        """Segment images, steered by their reports; see `ReleasedForm`."""
        self.check_image(image)
        report, _ = self.read_text(image, text_features, text_mask)
        maps = self.trunk(image)
        fused = [block(f, report, text_out=False)[0] for block, f in zip(self.fusion, maps, strict=True)]
        return Output(self.head(self.decoder(fused, report)))
