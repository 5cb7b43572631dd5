"""The fusion block of the authors' released code for MMI-UNet."""

from __future__ import annotations

from torch import Tensor, nn

from textray.nn.attention import FeedForward, heads_for

FFN_WIDTH = 128
"""Hidden width of the feed-forward layers, the same at every stage."""


class FusionBranch(nn.Module):
    """A(x, y): self-attention of x, attention of x to y, feed-forward; each added and normalised.

    Differs from the paper: y is the other modality before its own self-attention.

    Args:
        width: Width C of the tokens.
        dropout: Share dropped in attentions and feed-forward layers while training.
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

    Args:
        channels: Channels C of the stage.
        text_width: Width D of the text.
        dropout: Of attentions and feed-forward layers.
        odd: True where the map has odd sides: its last row and column are then neither read nor changed.
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
        """Fuse.

        Args:
            image: F_s, ``(B, C, h, w)``.
            text: t, ``(B, L, D)``.
            text_out: False where nothing reads the text's output, which is then not computed.

        Returns:
            F_s + ConvT(v') ``(B, C, h, w)``, and t + Linear(u') ``(B, L, D)`` or, without ``text_out``, t.
        """
        reduced = self.reduce_image(image)  # (B, C, h//2, w//2)
        v = self.image_norm(reduced.flatten(2).transpose(1, 2))  # (B, h//2*w//2, C)
        u = self.text_norm(self.reduce_text(text))  # (B, L, C)
        fused = self.image(v, u).transpose(1, 2).reshape(reduced.shape)  # (B, C, h//2, w//2)
        image_out = image + self.restore_image(fused)
        return image_out, text + self.restore_text(self.text(u, v)) if text_out else text
