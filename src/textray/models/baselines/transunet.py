"""TransUNet, a U-Net whose deepest level is a vision transformer.

Source: Chen et al.: TransUNet: Transformers Make Strong Encoders for Medical Image Segmentation, 2021. ResNet and
transformer are timm's, with the tensors of ``vit_base_r50_s16_224``.

The idea: three stages of a ResNet-50 reduce the image to a sixteenth, a ViT-B reads each place as a token, and a
decoder of convolutions (cascaded upsampler) joins the tokens with the ResNet's maps.

Shapes at 224 x 224: stem 64x112², stages 256x56², 512x28², 1024x14²; tokens 196x768; conv 512x14²; joined with the
skips 256x28², 128x56², 64x112²; 16x224²; 1x224².

Differences from the paper: a class token stands beside the places, as in the published weights, and is not read; logits
of one class.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import cast

from timm.layers import StdConv2dSame
from timm.models.resnetv2 import ResNetV2
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from textray.models.base import Network, Output
from textray.nn.blocks import ConvNormAct, DoubleConv, UpBlock
from textray.nn.image_encoder import load_named, read_trunk


@dataclass(frozen=True, kw_only=True)
class TransUNetConfig:
    """Sizes of a TransUNet; the defaults are R50-ViT-B/16's.

    Attributes:
        in_channels: Channels of the image.
        trunk: timm's name of the published weights, with its tag.
        trunk_weights: Where they come from, see `textray.nn.image_encoder.read_trunk`; ``None`` for random ones.
        size: Height and width in pixels that positions are learned for; they are resized for other images.
        layers: Blocks of the ResNet's stages.
        channels: Their channels, multiples of 128.
        width: Width of a token.
        depth: Blocks of the transformer.
        heads: Heads of an attention.
        decoder_channels: Channels of the decoder's levels; the first level reads twice the first of them.
    """

    in_channels: int = 3
    trunk: str = "vit_base_r50_s16_224.orig_in21k"
    trunk_weights: str | None = None
    size: tuple[int, int] = (224, 224)
    layers: tuple[int, int, int] = (3, 4, 9)
    channels: tuple[int, int, int] = (256, 512, 1024)
    width: int = 768
    depth: int = 12
    heads: int = 12
    decoder_channels: tuple[int, int, int, int] = (256, 128, 64, 16)


class HybridTrunk(nn.Module):
    """A ResNet, then a vision transformer over its places."""

    STEM = 64

    def __init__(self, config: TransUNetConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = ResNetV2(
            config.layers,
            config.channels,
            num_classes=0,
            in_chans=config.in_channels,
            global_pool="",
            preact=False,
            stem_type="same",
            conv_layer=partial(StdConv2dSame, eps=1e-8),
        )
        self.vit = VisionTransformer(
            img_size=(config.size[0] // 16, config.size[1] // 16),
            patch_size=1,
            in_chans=config.channels[-1],
            num_classes=0,
            global_pool="",
            embed_dim=config.width,
            depth=config.depth,
            num_heads=config.heads,
            dynamic_img_size=True,
        )

    def load_pretrained(self) -> None:
        """Read the pretrained tensors, if any are named."""
        source = self.config.trunk_weights
        if source is not None:
            state = read_trunk(source, self.config.trunk)
            load_named(self.backbone, state, source=source, published="patch_embed.backbone.{}".format)
            load_named(self.vit, state, source=source)

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Tokens of images ``(B, C, H, W)`` as a map ``(B, width, H / 16, W / 16)``; maps at strides 2, 4, 8."""
        features, maps = image, []
        for name, layer in self.backbone.stem.named_children():
            features = layer(features)
            if name == "norm":
                maps.append(features)
        for stage in self.backbone.stages:
            features = stage(features)
            maps.append(features)
        height, width = maps.pop().shape[2:]
        tokens = cast(Tensor, self.vit.forward_features(features))[:, 1:]  # (B, h*w, C), without the class token
        return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, height, width), maps


class TransUNet(Network):
    """TransUNet that takes an image and ignores a report."""

    def __init__(self, config: TransUNetConfig = TransUNetConfig()) -> None:
        super().__init__(in_channels=config.in_channels, size_multiple=16, text_width=None)
        self.config = config
        self.trunk = HybridTrunk(config)
        one, two, three, four = config.decoder_channels
        self.bottom = ConvNormAct(config.width, 2 * one)
        skips = (config.channels[1], config.channels[0], HybridTrunk.STEM)
        self.up = nn.ModuleList(
            UpBlock(nn.UpsamplingBilinear2d(scale_factor=2), nn.Identity(), DoubleConv(skip + deeper, out))
            for skip, deeper, out in zip(skips, (2 * one, one, two), (one, two, three), strict=True)
        )
        self.finest = nn.Sequential(nn.UpsamplingBilinear2d(scale_factor=2), DoubleConv(three, four))
        self.head = nn.Conv2d(four, 1, 3, padding=1)

    def forward(self, image: Tensor, text_features: Tensor | None = None, text_mask: Tensor | None = None) -> Output:
        """Segment images; the text is ignored. See `Network`."""
        self.check_image(image)
        tokens, maps = self.trunk(image)
        decoded = self.bottom(tokens)
        for up in self.up:
            decoded = up(decoded, maps.pop())
        return Output(self.head(self.finest(decoded)))
