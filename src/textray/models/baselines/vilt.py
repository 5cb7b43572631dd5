"""ViLT as a segmenter: one transformer over the tokens of the report and the patches of the image.

Source: Kim, Son, Kim: ViLT: Vision-and-Language Transformer Without Convolution or Region Supervision, ICML 2021. The
blocks are transformers' `ViltEncoder`, with the names of ``dandelin/vilt-b32-mlm``.

The idea: words and patches of 32 x 32 pixels are the tokens of one sequence, so every block mixes them. The patches'
tokens after each quarter of the blocks become maps; a decoder enlarges them beside a shallow stem of convolutions.

Shapes at 224 x 224, L tokens of the report: sequence L + 1 + 49 tokens of 768; four maps 768x7², joined 256x7²; stem
32x112², 32x56², 64x28², 128x14²; decoder 128x14², 64x28², 32x56², 32x112²; 1x224².

Differences from the paper: ViLT segments nothing, decoder and stem are TextRay's. Words come from the frozen text
encoder through a linear layer instead of ViLT's own table. All patches are read; the paper draws 200 of them. Without a
report the learned token stands for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

import torch
from torch import Tensor, nn
from transformers import ViltConfig
from transformers.models.vilt.modeling_vilt import ViltEncoder

from textray.models.base import Network, Output
from textray.nn.blocks import ConvNormAct
from textray.nn.decoder import PlainDecoder
from textray.nn.image_encoder import load_named, read_trunk
from textray.nn.vision_transformer import regrid

PATCH = 32
_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "patch.": "vilt.embeddings.patch_embeddings.projection.",
        "first": "vilt.embeddings.cls_token",
        "positions": "vilt.embeddings.position_embeddings",
        "kinds.": "vilt.embeddings.token_type_embeddings.",
        "encoder.": "vilt.encoder.",
        "norm.": "vilt.layernorm.",
    }
)
"""Start of the trunk's tensors, and of their published names."""


@dataclass(frozen=True, kw_only=True)
class ViLTConfig:
    """Sizes of a segmenter on ViLT; the defaults are ViLT-B/32's.

    Attributes:
        in_channels: Channels of the image.
        trunk_weights: A ``.safetensors`` file with published tensors; ``None`` for random ones.
        size: Height and width in pixels that positions are learned for; they are resized for other images.
        text_width: Width D of a token of the report.
        width: Width of a token of the sequence.
        depth: Blocks, a multiple of 4; maps are taken after each quarter.
        heads: Heads of an attention.
        decoder_channels: Channels at strides 2, 4, 8, 16 and 32, of the decoder and of the stem.
    """

    in_channels: int = 3
    trunk_weights: str | None = None
    size: tuple[int, int] = (384, 384)
    text_width: int = 768
    width: int = 768
    depth: int = 12
    heads: int = 12
    decoder_channels: tuple[int, int, int, int, int] = (32, 32, 64, 128, 256)


class ViLTTrunk(nn.Module):
    """ViLT without its table of words."""

    def __init__(self, config: ViLTConfig) -> None:
        super().__init__()
        self.weights, self.grid = config.trunk_weights, (config.size[0] // PATCH, config.size[1] // PATCH)
        self.after = [config.depth * quarter // 4 for quarter in (1, 2, 3, 4)]
        w = config.width
        self.patch = nn.Conv2d(config.in_channels, w, PATCH, stride=PATCH)
        self.first = nn.Parameter(torch.randn(1, 1, w) * 0.02)
        self.positions = nn.Parameter(torch.randn(1, self.grid[0] * self.grid[1] + 1, w) * 0.02)
        self.kinds = nn.Embedding(2, w)  # of words, of patches
        self.encoder = ViltEncoder(
            ViltConfig(
                hidden_size=w, num_hidden_layers=config.depth, num_attention_heads=config.heads, intermediate_size=4 * w
            )
        )
        self.norm = nn.LayerNorm(w, eps=1e-12)

    def load_pretrained(self) -> None:
        """Read the pretrained tensors, if any are named."""
        if self.weights is not None:
            load_named(self, read_trunk(self.weights, "vilt"), source=self.weights, published=_published)

    def forward(self, image: Tensor, words: Tensor, mask: Tensor) -> list[Tensor]:
        """Maps ``(B, width, H / 32, W / 32)``, the shallowest first; words ``(B, L, width)`` where the mask is true."""
        patches = self.patch(image)  # (B, C, h, w)
        grid = (patches.shape[2], patches.shape[3])
        batch, count = image.shape[0], grid[0] * grid[1]
        tokens = patches.flatten(2).transpose(1, 2) + regrid(self.positions[:, 1:], self.grid, grid)
        first = (self.first + self.positions[:, :1]).expand(batch, -1, -1)
        kinds = self.kinds.weight
        sequence = torch.cat([words + kinds[0], first + kinds[1], tokens + kinds[1]], 1)  # (B, L + 1 + h*w, C)
        seen = torch.cat([mask, mask.new_ones(batch, 1 + count)], 1)
        barred = torch.zeros_like(seen, dtype=sequence.dtype).masked_fill(~seen, torch.finfo(sequence.dtype).min)
        hidden = self.encoder(sequence, barred[:, None, None], output_hidden_states=True).hidden_states
        taken = [hidden[block][:, -count:] for block in self.after]
        taken[-1] = self.norm(taken[-1])
        return [found.transpose(1, 2).reshape(batch, -1, *grid) for found in taken]


def _published(name: str) -> str:
    start = next(start for start in _NAMES if name.startswith(start))
    return _NAMES[start] + name.removeprefix(start)


class ViLT(Network):
    """A segmenter on ViLT."""

    def __init__(self, config: ViLTConfig = ViLTConfig()) -> None:
        super().__init__(in_channels=config.in_channels, size_multiple=PATCH, text_width=config.text_width)
        self.config = config
        self.trunk = ViLTTrunk(config)
        self.read = nn.Sequential(nn.Linear(config.text_width, config.width), nn.LayerNorm(config.width))
        *widths, last = config.decoder_channels
        self.stem = nn.ModuleList(
            nn.Sequential(ConvNormAct(a, b), nn.MaxPool2d(2)) for a, b in pairwise((config.in_channels, *widths))
        )
        self.deepest = ConvNormAct(4 * config.width, last)
        self.decoder = PlainDecoder(config.decoder_channels, widths)
        self.finest = nn.ConvTranspose2d(widths[0], widths[0], 2, stride=2)
        self.head = nn.Conv2d(widths[0], 1, 3, padding=1)

    def forward(self, image: Tensor, text_features: Tensor | None = None, text_mask: Tensor | None = None) -> Output:
        """Segment images with their reports. See `Network`."""
        self.check_image(image)
        words, mask = self.read_text(image, text_features, text_mask)
        maps, features = [], image
        for level in self.stem:
            features = level(features)
            maps.append(features)
        read = self.read(torch.where(mask[..., None], words, torch.zeros_like(words)))
        deepest = self.deepest(torch.cat(self.trunk(image, read, mask), 1))
        return Output(self.head(self.finest(self.decoder([*maps, deepest]))))
