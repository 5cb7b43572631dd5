"""CLIP as a segmenter: a vision transformer and a decoder of convolutions, without a report or conditioned by one.

Source: Radford et al.: Learning Transferable Visual Models From Natural Language Supervision, ICML 2021; for the
condition Lüddecke, Ecker: Image Segmentation Using Text and Image Prompts (CLIPSeg), CVPR 2022. The transformer is
timm's.

The compared papers do not tell how they segment with CLIP. Both readings are here: `CLIP` reads the image alone,
`CLIPText` also scales and shifts the deepest map by the report (FiLM, as in CLIPSeg). In both the transformer may start
from CLIP's published tensors or from ``task: contrastive`` (`textray.training.contrastive`).

Shapes at 224 x 224: outputs of blocks 3, 6, 9, 12 as maps 768x14²; enlarged to 128x56² and 256x28², and 512x14²,
512x14²; joined 512x14², 256x28², 128x56²; 1x224².

Differences from the papers: CLIP segments nothing, the decoder is TextRay's; the condition is a linear map of the mean
token of the frozen text encoder, not CLIP's own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from timm.layers import QuickGELU
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from textray.models.base import Network, Output
from textray.nn.blocks import ConvNormAct, SubpixelHead
from textray.nn.decoder import PlainDecoder
from textray.nn.image_encoder import load_named, read_trunk


@dataclass(frozen=True, kw_only=True)
class CLIPConfig:
    """Sizes of a segmenter on CLIP's vision transformer; the defaults are ViT-B/16's.

    Attributes:
        in_channels: Channels of the image.
        trunk: timm's name of the published weights, with its tag.
        trunk_weights: Where they come from, see `textray.nn.image_encoder.read_trunk`; ``None`` for random ones.
        size: Height and width in pixels that positions are learned for; they are resized for other images.
        width: Width of a token.
        depth: Blocks, a multiple of 4; maps are taken after each quarter.
        heads: Heads of an attention.
        decoder_channels: Channels at strides 4, 8 and 16; the first is a multiple of 4.
    """

    in_channels: int = 3
    trunk: str = "vit_base_patch16_clip_224.openai"
    trunk_weights: str | None = None
    size: tuple[int, int] = (224, 224)
    width: int = 768
    depth: int = 12
    heads: int = 12
    decoder_channels: tuple[int, int, int] = (128, 256, 512)


@dataclass(frozen=True, kw_only=True)
class CLIPTextConfig(CLIPConfig):
    """The same, and the width D of a token of the report."""

    text_width: int = 768


class ViTTrunk(nn.Module):
    """CLIP's vision transformer as four maps of one size.

    Attributes:
        name: timm's name, with its tag.
        channels: Channels of the maps.
    """

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.name, self.weights, self.channels = config.trunk, config.trunk_weights, (config.width,) * 4
        self.after = [config.depth * quarter // 4 - 1 for quarter in (1, 2, 3, 4)]
        self.vit = VisionTransformer(
            img_size=config.size,
            patch_size=16,
            in_chans=config.in_channels,
            num_classes=0,
            global_pool="",
            embed_dim=config.width,
            depth=config.depth,
            num_heads=config.heads,
            pre_norm=True,
            final_norm=False,
            act_layer=QuickGELU,
            dynamic_img_size=True,
        )

    def load_pretrained(self) -> None:
        """Read the pretrained tensors, if any are named."""
        if self.weights is not None:
            load_named(self.vit, read_trunk(self.weights, self.name), source=self.weights)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Maps ``(B, width, H / 16, W / 16)`` of images ``(B, C, H, W)``, the shallowest first."""
        maps: list[Tensor] = self.vit.forward_intermediates(
            image, indices=self.after, norm=False, output_fmt="NCHW", intermediates_only=True
        )
        return maps


class CLIP(Network):
    """A segmenter on CLIP's vision transformer that takes an image and ignores a report."""

    def __init__(self, config: CLIPConfig = CLIPConfig()) -> None:
        text_width = config.text_width if isinstance(config, CLIPTextConfig) else None
        super().__init__(in_channels=config.in_channels, size_multiple=16, text_width=text_width)
        self.config = config
        self.trunk = ViTTrunk(config)
        four, eight, sixteen = config.decoder_channels
        self.to_four = nn.Sequential(
            nn.ConvTranspose2d(config.width, eight, 2, stride=2),
            nn.GELU(),
            nn.ConvTranspose2d(eight, four, 2, stride=2),
        )
        self.to_eight = nn.ConvTranspose2d(config.width, eight, 2, stride=2)
        self.deepest = ConvNormAct(2 * config.width, sixteen)
        self.decoder = PlainDecoder((four, eight, sixteen), (four, eight))
        self.head = SubpixelHead(four)

    def forward(self, image: Tensor, text_features: Tensor | None = None, text_mask: Tensor | None = None) -> Output:
        """Segment images; the text is ignored. See `Network`."""
        self.check_image(image)
        maps = self.trunk(image)
        deepest = self.condition(self.deepest(torch.cat(maps[2:], 1)), text_features, text_mask)
        return Output(self.head(self.decoder([self.to_four(maps[0]), self.to_eight(maps[1]), deepest])))

    def condition(self, deepest: Tensor, text_features: Tensor | None, text_mask: Tensor | None) -> Tensor:
        """Change the deepest map ``(B, C, h, w)`` by the report; here, leave it."""
        return deepest


class CLIPText(CLIP):
    """The same, conditioned by a report."""

    def __init__(self, config: CLIPTextConfig = CLIPTextConfig()) -> None:
        super().__init__(config)
        self.film = nn.Linear(config.text_width, 2 * config.decoder_channels[2])

    def condition(self, deepest: Tensor, text_features: Tensor | None, text_mask: Tensor | None) -> Tensor:
        """``deepest * (1 + scale) + shift``, both linear in the mean token of the report."""
        words, mask = self.read_text(deepest, text_features, text_mask)
        real = mask[..., None]  # (B, L, 1)
        mean = torch.where(real, words, torch.zeros_like(words)).sum(1) / real.sum(1)  # (B, D)
        scale, shift = self.film(mean)[..., None, None].chunk(2, 1)  # (B, C, 1, 1)
        return deepest * (1 + scale) + shift
