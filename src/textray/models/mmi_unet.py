r"""MMI-UNet: image and report are matched inside the encoder.

Source: Bui, Le, Choo: Visual-Textual Matching Attention for Lesion Segmentation in Chest Images, MICCAI 2024.

The idea: after each stage of an image trunk an image-text matching module (ITM) lets image tokens and report tokens
attend to themselves and to each other. Its image output goes back into the trunk and, through channel attention, to a
plain U-Net decoder; its text output goes on to the next stage.

Stages are numbered s = 1..4 from fine to coarse (the paper numbers its features the other way round, which clashes with
its own recursion of T). Shapes in the paper's configuration, 224 x 224, ConvNeXt-T, L text tokens of width 768:

    ============  =======================================================  =====================================
    part          operation                                                output for s = 1, 2, 3, 4
    ============  =======================================================  =====================================
    trunk         ConvNeXt-T, stage by stage                               96x56², 192x28², 384x14², 768x7²
    ITM reduce    Conv 2x2 stride 2, Linear D to C, LN                     784, 196, 49, 16 tokens; L tokens
    ITM attend    self (both), cross (both), FFN, LN after each            the same
    ITM restore   ConvT 2x2 stride 2; Linear C to D                        as the trunk's; L x 768
    decoder s<4   ReLU(BN(Conv3x3([ECA(skip); ConvT(D of s+1)])))          96x56², 192x28², 384x14²
    head          subpixel upsampling by 4, Conv 1x1                       1x224² logits
    ============  =======================================================  =====================================

Differences from the paper: where it names none (heads, FFN width, dropout, activation, kernel of ECA, operator of
the head) the values are those of the specification; the sigmoid is left to the caller; without a report a learned token
stands in for it; odd maps are padded by replication before the 2 x 2 reduction and cropped after; the text tail of the
last ITM is left out, since nothing reads it. Four options, off by default, go past the paper: ``skip: sum`` hands
F + F^ITM to the decoder, ``positions: sine`` tells image tokens their place, ``zone_head`` and ``lungs`` add tasks.

Differences from the authors' released code, which departs from their paper: keys and values of the cross-attention are
self-attended; each residual counts once (stage s+1 reads F + F^ITM, text enters as T + T^ITM); padding tokens are never
attended; the last row and column of an odd map take part; ECA stands on the skips; logits, not probabilities, so that
the cross-entropy of the loss is not zero; any size that is a multiple of 32 and any number of tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from textray.models.base import Network, Output
from textray.nn.attention import FeedForward, MultiHeadAttention, heads_for, sine_positions
from textray.nn.blocks import ConvNormAct, EfficientChannelAttention, PyramidHead, SubpixelHead, UpBlock
from textray.nn.image_encoder import ImageEncoder


@dataclass(frozen=True, kw_only=True)
class MatchingConfig:
    """Sizes of an encoder that matches image and report; the defaults are the paper's configuration.

    Attributes:
        trunk: timm's name of the image trunk, with its tag.
        trunk_weights: Its pretrained tensors, see `textray.nn.image_encoder.read_trunk`; ``None`` for random ones.
        in_channels: Channels of the image.
        text_width: Width D of the text features.
        most_heads: Heads of an attention are the largest divisor of its width up to this.
        ffn_width: Hidden width of the feed-forward layers, the same at every stage.
        dropout: Dropout of attention and feed-forward layers.
        decoder_channels: Channels of decoder levels 1, 2, 3; ``None`` takes the trunk's.
        skip: What the decoder reads of a stage: ``itm`` (the paper) F^ITM, ``sum`` F + F^ITM.
        positions: ``none`` (the paper): image tokens know their place only from the trunk's padding; ``sine``: fixed
            two-dimensional sines are added to them before they attend, so that words of place can find places.
        zone_head: Also tell the six zones from the last stage's output, for an auxiliary loss; not in the paper.
    """

    trunk: str = "convnext_tiny.fb_in22k"
    trunk_weights: str | None = None
    in_channels: int = 3
    text_width: int = 768
    most_heads: int = 8
    ffn_width: int = 128
    dropout: float = 0.1
    decoder_channels: tuple[int, int, int] | None = None
    skip: Literal["itm", "sum"] = "itm"
    positions: Literal["none", "sine"] = "none"
    zone_head: bool = False


@dataclass(frozen=True, kw_only=True)
class MMIUNetConfig(MatchingConfig):
    """Sizes of an MMI-UNet; the kernel of its channel attention follows ECA-Net's rule (5, 5, 3 here).

    Attributes:
        lungs: Also find the left and the right lung, by image side, from what the decoder reads; not in the paper.
    """

    lungs: bool = False


class MatchingBranch(nn.Module):
    """Half of an ITM module, for one modality: self-attention, cross-attention, feed-forward, added and normalised."""

    def __init__(self, width: int, config: MatchingConfig) -> None:
        super().__init__()
        heads = heads_for(width, config.most_heads)
        self.self_attention = MultiHeadAttention(width, heads, dropout=config.dropout)
        self.self_norm = nn.LayerNorm(width)
        self.cross_attention = MultiHeadAttention(width, heads, dropout=config.dropout)
        self.cross_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, config.ffn_width, dropout=config.dropout)
        self.feed_norm = nn.LayerNorm(width)

    def attend(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """LN(MHSA(x) + x), ``(B, N, C)``."""
        return self.self_norm(self.self_attention(tokens, tokens, mask) + tokens)

    def match(self, tokens: Tensor, other: Tensor, other_mask: Tensor | None = None) -> Tensor:
        """LN(MHCA(q = x, kv = other) + x), then LN(FFN(x) + x), ``(B, N, C)``."""
        crossed = self.cross_norm(self.cross_attention(tokens, other, other_mask) + tokens)
        return self.feed_norm(self.feed_forward(crossed) + crossed)


class ImageTextMatching(nn.Module):
    """The ITM module of Fig. 1 (b); of the ``last`` stage nothing reads the text output: it is not built."""

    def __init__(self, channels: int, config: MatchingConfig, *, last: bool) -> None:
        super().__init__()
        self.positions = config.positions
        self.reduce_image = nn.Conv2d(channels, channels, 2, stride=2, bias=False)
        self.reduce_text = nn.Linear(config.text_width, channels)
        self.image_norm = nn.LayerNorm(channels)
        self.text_norm = nn.LayerNorm(channels)
        self.image = MatchingBranch(channels, config)
        self.text = MatchingBranch(channels, config)
        self.restore_image = nn.ConvTranspose2d(channels, channels, 2, stride=2, bias=False)
        self.restore_text = None if last else nn.Linear(channels, config.text_width)
        if last:
            del self.text.cross_attention, self.text.cross_norm, self.text.feed_forward, self.text.feed_norm
        for conv in (self.reduce_image, self.restore_image):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out")
        for linear in (self.reduce_text, self.restore_text):
            if linear is not None:
                nn.init.normal_(linear.weight, std=0.02)
                nn.init.zeros_(linear.bias)

    def forward(self, image: Tensor, text: Tensor, text_mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """Match a stage's map F_s with the report: F_s^ITM ``(B, C, h, w)`` and T_s^ITM ``(B, L, D)``.

        ``text`` is T + T^ITM of the stage before, ``text_mask`` ``(B, L)`` true at real tokens. The last stage has no
        T_s^ITM.
        """
        height, width = image.shape[2:]
        if height % 2:  # replicate the last row and column so that they take part
            image = torch.cat([image, image[:, :, -1:]], 2)
        if width % 2:
            image = torch.cat([image, image[:, :, :, -1:]], 3)
        reduced = self.reduce_image(image)  # (B, C, h/2, w/2)
        tokens = self.image_norm(reduced.flatten(2).transpose(1, 2))  # (B, h/2*w/2, C), F_s^c
        if self.positions == "sine":
            tokens = tokens + sine_positions(reduced)
        f = self.image.attend(tokens)  # F_s^sa
        t = self.text.attend(self.text_norm(self.reduce_text(text)), text_mask)  # (B, L, C), T_s^sa
        matched = self.image.match(f, t, text_mask).transpose(1, 2).reshape(reduced.shape)
        image_out = self.restore_image(matched)[:, :, :height, :width]  # (B, C, h, w)
        text_out = None if self.restore_text is None else self.restore_text(self.text.match(t, f))
        return image_out, text_out


class DecoderLevel(UpBlock):
    """A decoder block of Fig. 1 (c): ReLU(BN(Conv3x3([ECA(skip); ConvT(deeper)])))."""

    def __init__(self, deeper: int, skip: int, channels: int) -> None:
        upsample = nn.ConvTranspose2d(deeper, channels, 2, stride=2)
        super().__init__(upsample, EfficientChannelAttention(skip), ConvNormAct(skip + channels, channels))


class MatchingNetwork(Network):
    """The encoder of Fig. 1 (a), which MMI-UNet and its variants share: a trunk with an ITM module after each stage.

    Raises:
        UsageError: If the trunk is of a family that cannot be run stage by stage.
    """

    def __init__(self, config: MatchingConfig, *, most_tokens: int | None = None) -> None:
        super().__init__(
            in_channels=config.in_channels, size_multiple=32, text_width=config.text_width, most_tokens=most_tokens
        )
        self.config, self.tells_zones = config, config.zone_head
        self.trunk = ImageEncoder(config.trunk, in_channels=config.in_channels, weights=config.trunk_weights)
        self.matching = nn.ModuleList(
            ImageTextMatching(c, config, last=s == 3) for s, c in enumerate(self.trunk.channels)
        )

    def encode(self, image: Tensor, text_features: Tensor | None, text_mask: Tensor | None) -> list[Tensor]:
        """Run the trunk, matching each stage's map with the report or, without one, with the no-report token.

        Returns:
            What the decoder reads of stages 1 to 4: F_s^ITM or, with ``skip: sum``, F_s + F_s^ITM.

        Raises:
            ShapeError: If a shape does not fit.
        """
        self.check_image(image)
        report, mask = self.read_text(image, text_features, text_mask)
        features, recursed = image, report  # T_0^ITM = 0
        skips = []
        for stage, matching in zip(self.trunk.stages, self.matching, strict=True):
            features = stage(features)  # F_s
            matched, text = matching(features, recursed, mask)  # F_s^ITM, T_s^ITM
            features = features + matched  # what stage s+1 reads
            skips.append(matched if self.config.skip == "itm" else features)
            if text is not None:
                recursed = report + text
        return skips


class MMIUNet(MatchingNetwork):
    """MMI-UNet in its paper form.

    The default sizes are the paper's: 51,836,134 trainable parameters besides the no-report token.

    Raises:
        UsageError: If the trunk is of a family that cannot be run stage by stage, or a size is impossible.
    """

    def __init__(self, config: MMIUNetConfig = MMIUNetConfig()) -> None:
        super().__init__(config)
        channels = self.trunk.channels
        widths = (*(config.decoder_channels or channels[:3]), channels[3])
        self.decoder = nn.ModuleList(DecoderLevel(widths[s + 1], channels[s], widths[s]) for s in range(3))
        self.head = SubpixelHead(widths[0], factor=4)
        self.zone_head = nn.Linear(channels[3], 6) if config.zone_head else None
        self.lung_head = PyramidHead(channels, 2) if config.lungs else None
        self.tells_lungs = config.lungs

    def forward(self, image: Tensor, text_features: Tensor | None = None, text_mask: Tensor | None = None) -> Output:
        """Segment images, see `Network`; with such heads also zone logits ``(B, 6)`` and lungs ``(B, 2, H/4, W/4)``."""
        skips = self.encode(image, text_features, text_mask)
        decoded = skips[3]  # D_4
        for level in (2, 1, 0):
            decoded = self.decoder[level](decoded, skips[level])
        zones = None if self.zone_head is None else self.zone_head(skips[3].mean((2, 3)))
        lungs = None if self.lung_head is None else self.lung_head(skips)
        return Output(self.head(decoded), zone_logits=zones, lungs=lungs)
