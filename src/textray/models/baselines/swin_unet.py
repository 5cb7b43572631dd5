"""Swin-Unet, a U-Net of Swin Transformer blocks without convolutions in its levels.

Source: Cao et al.: Swin-Unet: Unet-like Pure Transformer for Medical Image Segmentation, ECCV Workshops 2022. Encoder
and blocks are timm's.

The idea: a Swin Transformer reduces the image in four stages; the decoder mirrors it, and a linear layer that
rearranges its channels to places (patch expanding) takes the part of upsampling.

Shapes at 224 x 224, as height, width, channels: 56²x96, 28²x192, 14²x384, 7²x768; expanded and joined with the skip
14²x384, 28²x192, 56²x96; expanded by four 224²x96; 1x224².

Differences from the paper: the encoder has Swin-T's six blocks in the third stage, so that its published weights fit,
where the paper's has two; decoder stages start at random, the paper copies the encoder's; logits of one class.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import torch
from timm.models.swin_transformer import SwinTransformerStage
from torch import Tensor, nn

from textray.models.base import Network, Output
from textray.nn.swin import SwinSizes, SwinTrunk


@dataclass(frozen=True, kw_only=True)
class SwinUNetConfig:
    """Sizes of a Swin-Unet.

    Attributes:
        in_channels: Channels of the image.
        trunk: Sizes of the encoder, and where its weights come from.
        decoder_depth: Blocks of each stage of the decoder.
    """

    in_channels: int = 3
    trunk: SwinSizes = field(default_factory=SwinSizes)
    decoder_depth: int = 2


class PatchExpand(nn.Module):
    """Expands each place to ``factor`` x ``factor`` ones of ``outputs`` channels: linear, then layer norm."""

    def __init__(self, channels: int, outputs: int, *, factor: int) -> None:
        super().__init__()
        self.factor, self.outputs = factor, outputs
        self.expand = nn.Linear(channels, outputs * factor**2, bias=False)
        self.norm = nn.LayerNorm(outputs)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, h, w, C)`` to ``(B, h * factor, w * factor, outputs)``."""
        batch, height, width, _ = features.shape
        f = self.factor
        parts = self.expand(features).reshape(batch, height, width, f, f, self.outputs)
        return self.norm(parts.permute(0, 1, 3, 2, 4, 5).reshape(batch, height * f, width * f, self.outputs))


class SwinUNet(Network):
    """Swin-Unet that takes an image and ignores a report."""

    def __init__(self, config: SwinUNetConfig = SwinUNetConfig()) -> None:
        super().__init__(in_channels=config.in_channels, size_multiple=32, text_width=None)
        self.config = config
        self.trunk = SwinTrunk(config.trunk, in_channels=config.in_channels)
        levels = list(pairwise(self.trunk.channels[::-1]))
        self.expand = nn.ModuleList(PatchExpand(deeper, skip, factor=2) for deeper, skip in levels)
        self.join = nn.ModuleList(nn.Linear(2 * skip, skip) for _, skip in levels)
        grids = [tuple(side // stride for side in config.trunk.size) for stride in (16, 8, 4)]
        self.blocks = nn.ModuleList(
            SwinTransformerStage(
                skip,
                skip,
                grid,
                config.decoder_depth,
                downsample=False,
                num_heads=heads,
                window_size=config.trunk.window,
                dynamic_mask=True,
                drop_path=config.trunk.drop_path,
            )
            for (_, skip), grid, heads in zip(levels, grids, config.trunk.heads[-2::-1], strict=True)
        )
        width = config.trunk.width
        self.norm = nn.LayerNorm(width)
        self.finest = PatchExpand(width, width, factor=4)
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, image: Tensor, text_features: Tensor | None = None, text_mask: Tensor | None = None) -> Output:
        """Segment images; the text is ignored. See `Network`."""
        self.check_image(image)
        maps = [self.trunk.stage(0, self.trunk.embed(image))]
        for stage in (1, 2, 3):
            maps.append(self.trunk.stage(stage, maps[-1]))
        decoded = self.trunk.norm(maps.pop())  # (B, h, w, C)
        for expand, join, blocks in zip(self.expand, self.join, self.blocks, strict=True):
            decoded = blocks(join(torch.cat([expand(decoded), maps.pop()], 3)))
        decoded = self.finest(self.norm(decoded))  # (B, H, W, C)
        return Output(self.head(decoded.permute(0, 3, 1, 2)))
