"""MMI-UNet as the authors' released code computes it.

Paper: Bui, Le, Choo, "Visual-Textual Matching Attention for Lesion Segmentation in Chest Images", MICCAI 2024.
`textray.models.mmi_unet` is the paper's own form; this one exists so that published checkpoints mean the same here.

Shapes at 224 x 224 with ConvNeXt-T, L text tokens of width 768:

    stage s         1           2           3           4
    trunk           96 x 56^2   192 x 28^2  384 x 14^2  768 x 7^2
    image tokens    784 x 96    196 x 192   49 x 384    9 x 768      Conv 2x2 stride 2, LayerNorm
    text tokens     L x 96      L x 192     L x 384     L x 768      Linear, LayerNorm
    decoder         96 x 56^2   192 x 28^2  384 x 14^2               [ConvT; skip], Conv 3x3, BatchNorm, ReLU
    head            1 x 224^2                                        pixel shuffle by 4

Differs from the paper: cross-attention reads the other modality before its self-attention; the map and the text each
count themselves again at every stage (stage s+1 reads 2 F_s + delta_s); at stage 4 the last row and column neither take
part nor change; no channel attention on the skips; padding tokens are attended; 224 x 224 only; never without a text.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from textray.models.base import Output
from textray.models.released.base import FusionBlock, ReleasedConfig, ReleasedNetwork
from textray.nn.blocks import ConvNormAct, SubpixelHead


@dataclass(frozen=True, kw_only=True)
class ReleasedMMIUNetConfig(ReleasedConfig):
    """Options of the released MMI-UNet, with the dropout of its fusion blocks; the defaults are the authors'."""

    dropout: float = 0.1


class DecoderLevel(nn.Module):
    """ReLU(BN(Conv3x3([ConvT(deeper); skip])))."""

    def __init__(self, deeper: int, channels: int) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose2d(deeper, channels, 2, stride=2)
        self.mix = ConvNormAct(2 * channels, channels)

    def forward(self, deeper: Tensor, skip: Tensor) -> Tensor:
        """``(B, deeper, h, w)`` and ``(B, C, 2h, 2w)`` to ``(B, C, 2h, 2w)``."""
        return self.mix(torch.cat([self.upsample(deeper), skip], 1))


class ReleasedMMIUNet(ReleasedNetwork):
    """MMI-UNet in its released form: 56,174,682 trainable parameters, 49,472,217 of which do anything."""

    dead = ("final_norm.", "classifier.", "text_head.", "fusion.3.text.", "fusion.3.restore_text.")

    def __init__(self, config: ReleasedMMIUNetConfig = ReleasedMMIUNetConfig()) -> None:
        super().__init__(config)
        self.config = config
        channels = self.trunk.channels
        self.classifier = nn.Linear(channels[3], 1)
        self.fusion = nn.ModuleList(
            FusionBlock(c, config.text_width, dropout=config.dropout, odd=s == 3) for s, c in enumerate(channels)
        )
        self.decoder = nn.ModuleList(DecoderLevel(channels[s + 1], channels[s]) for s in range(3))
        self.head = SubpixelHead(channels[0], factor=4)

    def forward(self, image: Tensor, text_features: Tensor | None = None, text_mask: Tensor | None = None) -> Output:
        """Segment images, steered by their reports; see `ReleasedForm`."""
        self.check_image(image)
        report, _ = self.read_text(image, text_features, text_mask)
        features, recursed = image, report
        skips = []
        for s, (stage, fusion) in enumerate(zip(self.trunk.stages, self.fusion, strict=True)):
            features = stage(features)  # F_s
            fused, text = fusion(features, recursed, text_out=s < 3)  # F_s + delta_s, t + its delta
            skips.append(fused)
            features = fused + features  # the map counts twice
            recursed = report + text  # and the text once more at each stage
        decoded = skips[3]
        for level in (2, 1, 0):
            decoded = self.decoder[level](decoded, skips[level])
        return Output(self.head(decoded))
