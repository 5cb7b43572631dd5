"""Base of the released forms: one size, a text for every image, and parts of two networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from textray.errors import ShapeError
from textray.models.base import Network
from textray.nn.attention import FeedForward, heads_for, raster_sines
from textray.nn.decoder import GuidedUpBlock
from textray.nn.image_encoder import ImageEncoder

SIZE = (224, 224)
"""Height and width that the released codes run at."""


@dataclass(frozen=True, kw_only=True)
class ReleasedConfig:
    """Options of every released form on a ConvNeXt; the defaults are the authors'.

    Attributes:
        trunk: timm's name of a ConvNeXt; the tag says which pretrained weights are meant.
        trunk_weights: Its pretrained tensors, see `textray.nn.image_encoder.read_trunk`; ``None`` for random ones.
        text_width: Width D of the text features.
    """

    trunk: str = "convnext_tiny.fb_in22k"
    trunk_weights: str | None = None
    text_width: int = 768


class ReleasedForm(Network):
    """Base of the released forms: one size, and a text for every image.

    They take images ``(B, 3, 224, 224)``, with rows and columns swapped as the published weights expect (LViT: in
    [0, 1], blue first where the picture is in colour), and features of all tokens, padding too; a row of the mask only
    says whether there is a text. They raise `ShapeError` for another size, for an image without a text, and for another
    number of text tokens than ``tokens``, where that is fixed.
    """

    def __init__(self, *, size_multiple: int, text_width: int, tokens: int | None = None) -> None:
        super().__init__(in_channels=3, size_multiple=size_multiple, text_width=text_width, needs_text=True)
        self.tokens = tokens

    def check_image(self, image: Tensor) -> None:
        """Refuse any image but ``(B, 3, 224, 224)``."""
        super().check_image(image)
        if tuple(image.shape[2:]) != SIZE:
            raise ShapeError(
                f"{type(self).__name__} cannot run on this image: released forms know one size",
                came=tuple(image.shape),
                expected=f"(B, 3, {SIZE[0]}, {SIZE[1]})",
                do="Resize it with textray.preprocess.Preprocess, or use the paper form, which takes other sizes",
            )

    def read_text(self, image: Tensor, features: Tensor | None, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Check the text: there must be one for every image, padding included, since padding is attended.

        Returns features and mask, now bool, unchanged.

        Raises:
            ShapeError: If an image has no text, or a shape does not fit.
        """
        if features is None:
            raise self._no_text("none for the whole batch")
        if self.tokens is not None and features.ndim == 3 and features.shape[1] != self.tokens:
            raise ShapeError(
                f"{type(self).__name__} mixes exactly {self.tokens} text tokens",
                came=tuple(features.shape),
                expected=f"(B, {self.tokens}, {self.text_width})",
                do=f"Encode reports with max_tokens={self.tokens}, padded to it, or use the paper form",
            )
        real = self.check_text(image, features, mask)
        # A traced network (an exported graph) cannot look at values: who runs the graph must.
        if not torch.compiler.is_compiling() and not real.is_meta and not bool(real.any(1).all()):
            raise self._no_text(f"no text in rows {(~real.any(1)).nonzero().flatten().tolist()}")
        return features, real

    def _no_text(self, came: str) -> ShapeError:
        """Error for an image without a text."""
        return ShapeError(
            f"released forms need a text for every image, and {type(self).__name__} is one",
            came=came,
            expected="token features of a report, and a text_mask with a non-zero entry in each row",
            do="Give each image a report, or use the paper form, which runs without",
        )


class ReleasedNetwork(ReleasedForm):
    """Base of the released forms on a ConvNeXt."""

    def __init__(self, config: ReleasedConfig, *, tokens: int | None = None) -> None:
        super().__init__(size_multiple=32, text_width=config.text_width, tokens=tokens)
        self.trunk = ImageEncoder(config.trunk, weights=config.trunk_weights)
        width = config.text_width
        # Published checkpoints carry these, and count them, but nothing reads what they say.
        self.final_norm = nn.LayerNorm(self.trunk.channels[3])
        self.text_head = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width), nn.GELU(), nn.Linear(width, width))


# The fusion block of the authors' released code for MMI-UNet.

FFN_WIDTH = 128
"""Hidden width of the feed-forward layers, the same at every stage."""


class FusionBranch(nn.Module):
    """A(x, y): self-attention of x, attention of x to y, feed-forward; each added and normalised.

    Differs from the paper: y is the other modality before its own self-attention.
    """

    def __init__(self, width: int, *, dropout: float) -> None:
        super().__init__()
        heads = heads_for(width)
        self.self_attention = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.self_norm = nn.LayerNorm(width)
        self.cross_attention = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.cross_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, FFN_WIDTH, dropout=dropout)
        self.feed_norm = nn.LayerNorm(width)
        for attention in (self.self_attention, self.cross_attention):  # in_proj keeps torch's Xavier
            nn.init.normal_(attention.out_proj.weight, std=0.02)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """``(B, N, C)`` and ``(B, M, C)`` to ``(B, N, C)``."""
        x = self.self_norm(x + self.self_attention(x, x, x, need_weights=False)[0])
        x = self.cross_norm(x + self.cross_attention(x, y, y, need_weights=False)[0])
        return self.feed_norm(x + self.feed_forward(x))


class FusionBlock(nn.Module):
    """Fuses a stage's map with the text; both keep their size and are added to what they were.

    Of a map with ``odd`` sides the last row and column are neither read nor changed.
    """

    def __init__(self, channels: int, text_width: int, *, dropout: float, odd: bool) -> None:
        super().__init__()
        self.reduce_image = nn.Conv2d(channels, channels, 2, stride=2, bias=False)
        self.reduce_text = nn.Linear(text_width, channels)
        self.image_norm = nn.LayerNorm(channels)
        self.text_norm = nn.LayerNorm(channels)
        self.image = FusionBranch(channels, dropout=dropout)
        self.text = FusionBranch(channels, dropout=dropout)
        self.restore_image = nn.ConvTranspose2d(
            channels, channels, 2, stride=2, output_padding=1 if odd else 0, bias=False
        )
        self.restore_text = nn.Linear(channels, text_width)
        for conv in (self.reduce_image, self.restore_image):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out")
        for linear in (self.reduce_text, self.restore_text):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, image: Tensor, text: Tensor, *, text_out: bool) -> tuple[Tensor, Tensor]:
        """Fuse F_s ``(B, C, h, w)`` and t ``(B, L, D)`` to F_s + ConvT(v') and t + Linear(u').

        Without ``text_out`` nothing reads the second, and t comes back as it is.
        """
        reduced = self.reduce_image(image)  # (B, C, h//2, w//2)
        v = self.image_norm(reduced.flatten(2).transpose(1, 2))  # (B, h//2*w//2, C)
        u = self.text_norm(self.reduce_text(text))  # (B, L, C)
        fused = self.image(v, u).transpose(1, 2).reshape(reduced.shape)  # (B, C, h//2, w//2)
        image_out = image + self.restore_image(fused)
        return image_out, text + self.restore_text(self.text(u, v)) if text_out else text


# A level of the decoder of the authors' released code for LanGuideMedSeg, guided by the text.

TOKENS = 24
"""Text tokens that the levels mix: neither more nor fewer."""


class GuideLayer(nn.Module):
    """Lets the tokens of a map of ``side`` x ``side`` attend to each other, then to the text, mixed to ``slots``.

    What the text adds is multiplied by a learned number, at first ``scale``.
    """

    image_positions: Tensor
    text_positions: Tensor

    def __init__(self, channels: int, *, side: int, slots: int, text_width: int, scale: float) -> None:
        super().__init__()
        self.mix_tokens = nn.Conv1d(TOKENS, slots, 1)
        self.project_text = nn.Linear(text_width, channels)
        self.self_in_norm = nn.LayerNorm(channels)
        self.self_attention = nn.MultiheadAttention(channels, 1, batch_first=True)
        self.self_out_norm = nn.LayerNorm(channels)
        self.cross_in_norm = nn.LayerNorm(channels)
        self.cross_attention = nn.MultiheadAttention(channels, 4, batch_first=True)
        self.cross_out_norm = nn.LayerNorm(channels)
        self.scale = nn.Parameter(torch.tensor(float(scale)))
        self.register_buffer("image_positions", raster_sines(torch.empty(1, side * side, channels)), persistent=False)
        self.register_buffer("text_positions", raster_sines(torch.empty(1, slots, channels)), persistent=False)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        """``(B, C, h, w)`` and ``(B, 24, D)`` to ``(B, C, h, w)``."""
        slots = F.leaky_relu(self.project_text(F.gelu(self.mix_tokens(text))))  # (B, slots, C)
        tokens = x.flatten(2).transpose(1, 2)  # (B, h*w, C)
        u = self.self_in_norm(tokens)
        placed = u + self.image_positions
        attended = self.self_attention(placed, placed, u, need_weights=False)[0]
        tokens = tokens + self.self_out_norm(attended)
        placed = self.cross_in_norm(tokens) + self.image_positions
        crossed = self.cross_attention(placed, slots + self.text_positions, slots, need_weights=False)[0]
        tokens = tokens + self.scale * self.cross_out_norm(crossed)
        return tokens.transpose(1, 2).reshape(x.shape)


class GuidedLevel(nn.Module):
    """A guide layer and the up block after it."""

    def __init__(self, deeper: int, channels: int, *, side: int, slots: int, text_width: int, scale: float) -> None:
        super().__init__()
        self.guide = GuideLayer(deeper, side=side, slots=slots, text_width=text_width, scale=scale)
        self.up = GuidedUpBlock(deeper, channels, channels)

    def forward(self, deeper: Tensor, skip: Tensor, text: Tensor) -> Tensor:
        """``(B, deeper, h, w)``, ``(B, C, 2h, 2w)`` and ``(B, 24, D)`` to ``(B, C, 2h, 2w)``."""
        return self.up(self.guide(deeper, text), skip)


class GuidedLevels(nn.ModuleList):
    """The three levels for maps at 1/8, 1/16 and 1/32 of 224 x 224, finest first."""

    def __init__(self, channels: tuple[int, ...], *, text_width: int, scale: float) -> None:
        super().__init__(
            GuidedLevel(channels[s + 1], channels[s], side=side, slots=slots, text_width=text_width, scale=scale)
            for s, (side, slots) in enumerate(((28, 9), (14, 12), (7, TOKENS)))
        )

    def forward(self, maps: Sequence[Tensor], text: Tensor) -> Tensor:
        """Decode four maps, finest first, with a text ``(B, 24, D)``: ``(B, C, 56, 56)``."""
        decoded = maps[3]
        for level in (2, 1, 0):
            decoded = self[level](decoded, maps[level], text)
        return decoded
