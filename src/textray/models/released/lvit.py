"""LViT as the authors' released code computes it.

Paper: Li et al., "LViT: Language meets Vision Transformer in Medical Image Segmentation", IEEE TMI 2023.
`textray.models.lvit` is the paper's own form and has the table of shapes; this one exists so that published checkpoints
mean the same here.

Differs from the paper's form: 224 x 224 and 10 token vectors only, all of which count as words; never without a text;
10,025,312 parameters are carried and counted that nothing reads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from textray.models.base import Output
from textray.models.lvit import POOLINGS, DoubleU, LViTConfig
from textray.models.released.base import SIZE, ReleasedForm
from textray.nn.blocks import PixelLevelAttention
from textray.nn.vision_transformer import PatchEmbedding, TokenConvNormAct

TOKENS = 10
"""Token vectors of a text: neither more nor fewer."""


@dataclass(frozen=True, kw_only=True)
class ReleasedLViTConfig:
    """Options of the released LViT, see `LViTConfig`; the defaults are the authors'."""

    channels: int = 64
    text_width: int = 768
    dropout: float = 0.1

    @property
    def sizes(self) -> LViTConfig:
        """The same as sizes of the paper's form."""
        return LViTConfig(
            channels=self.channels, size=SIZE, text_width=self.text_width, tokens=TOKENS, dropout=self.dropout
        )


class UnreadParts(nn.Module):
    """Parts of published checkpoints that nothing reads."""

    def __init__(self, sizes: LViTConfig) -> None:
        super().__init__()
        self.down = nn.ModuleList(self._transformer(sizes, s, up=False) for s in range(4))
        self.up = nn.ModuleList(self._transformer(sizes, s, up=True) for s in range(4))
        self.sigmoids = nn.ModuleList(nn.Conv2d(c, c, 1) for c in sizes.widths)
        self.weighed = nn.ModuleList(
            nn.ModuleDict({"attention": PixelLevelAttention(c), "sigmoid": nn.Conv2d(c, c, 1)}) for c in sizes.widths
        )

    @staticmethod
    def _transformer(sizes: LViTConfig, s: int, *, up: bool) -> nn.ModuleDict:
        c, places = sizes.widths[s], sizes.grid[0] * sizes.grid[1]
        parts: dict[str, nn.Module] = {"norm": nn.LayerNorm(c), "head": nn.Linear(c, 1)}
        if up:
            parts["embed"] = PatchEmbedding(c, sizes.patches[s], sizes.grid)
        if up or s == 0:
            parts["halve"] = TokenConvNormAct(c, c // 2)
        if not up or s == 3:
            parts["merge"] = TokenConvNormAct(2 * c, c)
        if up or s:
            parts["spread"] = TokenConvNormAct(sizes.tokens, places)
        return nn.ModuleDict(parts)


class ReleasedLViT(ReleasedForm):
    """LViT in its released form: 39,933,345 trainable parameters, 29,908,033 of which do anything."""

    dead = ("unread.",)

    def __init__(self, config: ReleasedLViTConfig = ReleasedLViTConfig()) -> None:
        super().__init__(size_multiple=POOLINGS, text_width=config.text_width, tokens=TOKENS)
        self.config = config
        self.body = DoubleU(config.sizes)
        self.unread = UnreadParts(config.sizes)

    def forward(self, image: Tensor, text_features: Tensor | None = None, text_mask: Tensor | None = None) -> Output:
        """Segment images, steered by their reports; see `ReleasedForm`."""
        self.check_image(image)
        report, real = self.read_text(image, text_features, text_mask)
        return Output(self.body(image, report, torch.ones_like(real)))
