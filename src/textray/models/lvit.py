r"""LViT: a U of convolutions that segments, and a U of transformers beside it that reads the report.

Source: Li et al.: LViT: Language meets Vision Transformer in Medical Image Segmentation, IEEE TMI 2023.

The idea: each level of the way down hands its map to a transformer, which works on patches of it; the report joins the
patches of the finest level, once. What the transformers make of it is added to the maps of the way down, and
pixel-level attention (PLAM) weighs these before they reach the way up.

Levels are numbered s = 1..4 from fine to coarse, x_5 is the bottom. Shapes at 224 x 224 with 64 channels, patches of
16, 8, 4, 2 pixels, so that each level has the same 196 of them, and L slots for tokens of width 768:

    =============  ====================================================  ============================
    part           operation                                             output for s = 1, 2, 3, 4
    =============  ====================================================  ============================
    x_1; x_s+1     Conv-BN-ReLU; max pool, 2 x Conv-BN-ReLU              64x224², 128x112², 256x56²,
                                                                         512x28², 512x14²
    text           four Conv along the tokens, 768-512-256-128-64; Conv  196 x 64
                   from L slots to 196 places, BN, ReLU
    y_1            Block(embed(x_1) + text)                              196 x 64
    y_s            [halve(Block(embed(x_s))); y_s-1]                     196 x 128, 256, 512
    z_4; z_s       Block(y_4); Block(y_s) + halve(z_s+1)                 196 x 64, 128, 256, 512
    x'_s           x_s + ReLU(BN(Conv1x1(nearest-upsample(z_s))))        as x_s
    up             2 x Conv-BN-ReLU of [PLAM(x'_s); nearest-upsample]    64x224², 64x112², 128x56²,
                                                                         256x28²
    head           Conv 1x1                                              1x224² logits
    =============  ====================================================  ============================

Differences from the paper: the article tells none of the sizes, so these, the GELU behind the second layer of the
blocks and the order of joining are those of the specification, which took them from the network's description; logits
leave the network; without a report a learned token stands in for it.

Differences from the authors' released code: as many token slots as are configured, 24 by default, instead of 10, into
which most captions do not fit; padding is zero before each convolution over the text, so nothing reads it; any size
that the patches divide, positions and text being resized where it is not the configured one; 10,025,312 parameters that
nothing reads are left out; a sigmoid on PLAM's weight and PLAM itself are options.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from textray.errors import UsageError
from textray.models.base import Network, Output
from textray.nn.blocks import ConvNormAct, DoubleConv, Gate, PixelLevelAttention, UpBlock
from textray.nn.vision_transformer import PatchEmbedding, TokenConvNormAct, TransformerBlock, regrid

POOLINGS = 16
"""How many times smaller the bottom of the U of convolutions is."""


@dataclass(frozen=True, kw_only=True)
class LViTConfig:
    """Sizes of an LViT; the defaults are those of the network whose size the tables print.

    Attributes:
        in_channels: Channels of the image.
        channels: Channels of the first level; the others have 2, 4, 8 and 8 times as many.
        patches: Sides of a patch at levels 1 to 4, in pixels of the level's map; each half of the one before, so that
            all levels have the same places.
        size: Height and width that positions and the way of the text are learned for, multiples of the first patch.
        text_width: Width D of the text features.
        tokens: Slots for tokens, padding included; a shorter text is filled up with zeros, a longer one refused.
        depth: Blocks of each transformer.
        heads: Heads of each attention; must divide the channels of every level.
        expansion: How many times wider tokens are inside the blocks' linear layers.
        dropout: Of embedded patches and of the blocks' linear layers.
        plam: False for plain skips, to measure what pixel-level attention does.
        gate: What PLAM's weight passes before it is used: nothing (the paper's figure) or a sigmoid.
    """

    in_channels: int = 3
    channels: int = 64
    patches: tuple[int, int, int, int] = (16, 8, 4, 2)
    size: tuple[int, int] = (224, 224)
    text_width: int = 768
    tokens: int = 24
    depth: int = 1
    heads: int = 8
    expansion: int = 4
    dropout: float = 0.1
    plam: bool = True
    gate: Gate = "none"

    @property
    def widths(self) -> tuple[int, int, int, int]:
        """Channels of levels 1 to 4."""
        return self.channels, 2 * self.channels, 4 * self.channels, 8 * self.channels

    @property
    def grid(self) -> tuple[int, int]:
        """Places along height and width at the configured size."""
        return self.size[0] // self.patches[0], self.size[1] // self.patches[0]

    def __post_init__(self) -> None:
        halved = len(self.patches) == 4 and all(a == 2 * b > 0 for a, b in pairwise(self.patches))
        if not halved:
            raise UsageError(
                "patches of LViT must have the same places at each level",
                came=self.patches,
                expected="four sides, each half of the one before, such as (16, 8, 4, 2)",
            )
        if len(self.size) != 2 or any(side <= 0 or side % self.patches[0] for side in self.size):
            raise UsageError(
                "the size of LViT must hold whole patches",
                came=self.size,
                expected=f"height and width, multiples of {self.patches[0]}",
                do="Change size or patches in the network's config",
            )
        if self.gate not in ("none", "sigmoid"):
            raise UsageError("unknown gate of PLAM", came=repr(self.gate), expected="none or sigmoid")
        if self.tokens < 1 or self.depth < 1:
            raise UsageError("LViT needs slots and blocks", came=f"tokens {self.tokens}, depth {self.depth}")


class TextToPlaces(nn.Module):
    """Brings a text to the places of the finest level: convolutions along its tokens, then from slots to places."""

    def __init__(self, config: LViTConfig) -> None:
        super().__init__()
        self.grid = config.grid
        widths = (config.text_width, *reversed(config.widths))
        self.narrow = nn.ModuleList(nn.Conv1d(a, b, 3, padding=1) for a, b in pairwise(widths))
        self.spread = TokenConvNormAct(config.tokens, self.grid[0] * self.grid[1])

    def forward(self, text: Tensor, mask: Tensor, grid: tuple[int, int]) -> Tensor:
        """Spread a text ``(B, L, D)`` over the rows and columns of a grid: ``(B, rows * columns, C of level 1)``.

        There are as many tokens as slots; what they hold where the mask ``(B, L)`` is false is never read.
        """
        real = mask[:, None]  # (B, 1, L)
        words = text.transpose(1, 2)  # (B, D, L)
        words = torch.where(real, words, torch.zeros_like(words))
        for conv in self.narrow:
            narrower = conv(words)  # a slot without a token gets the bias and the last token's share: out with both
            words = torch.where(real, narrower, torch.zeros_like(narrower))
        return regrid(self.spread(words.transpose(1, 2)), self.grid, grid)


class Rebuild(nn.Module):
    """Tokens as a map again: ReLU(BN(Conv1x1(nearest upsampling)))."""

    def __init__(self, channels: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.conv = nn.Conv2d(channels, channels, 1)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, places: Tensor) -> Tensor:
        """``(B, C, h, w)`` to ``(B, C, h * patch, w * patch)``."""
        # A function, since the counter of the papers' tables must not see this upsampling, as it did not see theirs.
        return F.relu(self.norm(self.conv(F.interpolate(places, scale_factor=float(self.patch)))))


class DoubleU(nn.Module):
    """The two U's of the paper's form and of the released one."""

    def __init__(self, config: LViTConfig) -> None:
        super().__init__()
        self.patch = config.patches[0]
        w, widths = config.channels, config.widths
        self.first = ConvNormAct(config.in_channels, w)
        self.down = nn.ModuleList(DoubleConv(a, b) for a, b in pairwise((*widths, widths[3])))
        self.text = TextToPlaces(config)
        self.embed = nn.ModuleList(
            PatchEmbedding(c, patch, config.grid, dropout=config.dropout)
            for c, patch in zip(widths, config.patches, strict=True)
        )
        self.down_blocks = nn.ModuleList(self._blocks(c, config) for c in widths)
        self.halve_down = nn.ModuleList(TokenConvNormAct(c, c // 2) for c in widths[1:])
        self.up_blocks = nn.ModuleList(self._blocks(c, config) for c in widths)
        self.halve_up = nn.ModuleList(TokenConvNormAct(c, c // 2) for c in widths[1:])
        self.rebuild = nn.ModuleList(Rebuild(c, patch) for c, patch in zip(widths, config.patches, strict=True))
        self.up = nn.ModuleList(
            UpBlock(
                nn.Upsample(scale_factor=2),
                PixelLevelAttention(c, gate=config.gate) if config.plam else nn.Identity(),
                DoubleConv(2 * c, out),
            )
            for out, c in pairwise((w, *widths))
        )
        self.head = nn.Conv2d(w, 1, 1)

    @staticmethod
    def _blocks(width: int, config: LViTConfig) -> nn.Sequential:
        return nn.Sequential(
            *(
                TransformerBlock(width, config.heads, expansion=config.expansion, dropout=config.dropout)
                for _ in range(config.depth)
            )
        )

    def forward(self, image: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """Logits ``(B, 1, H, W)`` of images and texts with as many tokens as there are slots, see `TextToPlaces`."""
        maps = [self.first(image)]  # x_1 to x_5
        for down in self.down:
            maps.append(down(F.max_pool2d(maps[-1], 2)))
        grid = (image.shape[2] // self.patch, image.shape[3] // self.patch)
        matched = self.match(maps[:4], self.text(text, mask, grid))  # z_1 to z_4
        decoded = maps[4]
        for s in (3, 2, 1, 0):
            places = matched[s].transpose(1, 2)  # (B, C, h*w)
            decoded = self.up[s](decoded, maps[s] + self.rebuild[s](places.reshape(*places.shape[:2], *grid)))
        return self.head(decoded)

    def match(self, maps: list[Tensor], text: Tensor) -> list[Tensor]:
        """Run the U of transformers on x_1 to x_4 and the text at each place, ``(B, N, C)``: z_1 to z_4."""
        tokens = self.down_blocks[0](self.embed[0](maps[0]) + text)
        down = [tokens]  # y_1 to y_4
        for s in (1, 2, 3):
            tokens = self.down_blocks[s](self.embed[s](maps[s])).transpose(1, 2)  # (B, C_s, N)
            down.append(torch.cat([self.halve_down[s - 1](tokens).transpose(1, 2), down[-1]], 2))
        up = [self.up_blocks[3](down[3])]
        for s in (2, 1, 0):
            deeper = self.halve_up[s](up[0].transpose(1, 2)).transpose(1, 2)  # (B, N, C_s)
            up.insert(0, self.up_blocks[s](down[s]) + deeper)
        return up


class LViT(Network):
    """LViT in its paper form.

    The default sizes give 29,916,265 trainable parameters besides the no-report token, with 10 token slots 29,908,033.

    Raises:
        UsageError: If the heads do not divide the channels.
    """

    def __init__(self, config: LViTConfig = LViTConfig()) -> None:
        super().__init__(
            in_channels=config.in_channels,
            size_multiple=math.lcm(POOLINGS, config.patches[0]),
            text_width=config.text_width,
            most_tokens=config.tokens,
        )
        self.config = config
        self.body = DoubleU(config)

    def forward(self, image: Tensor, text_features: Tensor | None = None, text_mask: Tensor | None = None) -> Output:
        """Segment images, steered by their reports where there are any; see `Network`."""
        self.check_image(image)
        text, mask = self.read_text(image, text_features, text_mask)
        more = self.config.tokens - text.shape[1]
        return Output(self.body(image, F.pad(text, (0, 0, 0, more)), F.pad(mask, (0, more), value=False)))
