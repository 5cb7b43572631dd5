"""Swin Transformer that runs stage by stage at any size, from timm's parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from timm.models.swin_transformer import SwinTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from textray.nn.image_encoder import load_named, read_trunk


@dataclass(frozen=True, kw_only=True)
class SwinSizes:
    """Sizes of a Swin Transformer (Liu et al., ICCV 2021); the defaults are those of Swin-T.

    Attributes:
        name: timm's name of the published weights, with its tag.
        weights: Where they come from, see `textray.nn.image_encoder.read_trunk`; ``None`` for random ones.
        width: Channels of the first stage; each further one has twice as many.
        depths: Blocks of each stage.
        heads: Heads of each stage.
        window: Height and width of a window, in places.
        size: Height and width in pixels that windows are laid out for; where a stage is smaller, so is its window.
        drop_path: Share of the deepest block's residuals that are dropped in training, growing evenly from 0.
    """

    name: str = "swin_tiny_patch4_window7_224.ms_in1k"
    weights: str | None = None
    width: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (3, 6, 12, 24)
    window: int = 7
    size: tuple[int, int] = (224, 224)
    drop_path: float = 0.1


class SwinTrunk(nn.Module):
    """Four stages of a Swin Transformer, to be called one after the other on maps ``(B, h, w, C)``.

    Attributes:
        channels: Channels after each stage, at strides 4, 8, 16, 32.
    """

    def __init__(self, sizes: SwinSizes, *, in_channels: int = 3, norm: bool = True) -> None:
        super().__init__()
        self.sizes = sizes
        self.swin = SwinTransformer(
            img_size=sizes.size,
            in_chans=in_channels,
            num_classes=0,
            global_pool="",
            embed_dim=sizes.width,
            depths=sizes.depths,
            num_heads=sizes.heads,
            window_size=sizes.window,
            strict_img_size=False,
            drop_path_rate=sizes.drop_path,
        )
        if not norm:
            self.swin.norm = nn.Identity()
        self.channels = tuple(sizes.width * 2**stage for stage in range(len(sizes.depths)))

    def load_pretrained(self) -> None:
        """Read the pretrained tensors, if any are named."""
        if self.sizes.weights is not None:
            published = checkpoint_filter_fn(read_trunk(self.sizes.weights, self.sizes.name), self.swin)
            load_named(self.swin, published, source=self.sizes.weights)

    def embed(self, image: Tensor) -> Tensor:
        """Patches of 4 x 4 pixels of images ``(B, C, H, W)``: ``(B, H / 4, W / 4, width)``."""
        return cast(Tensor, self.swin.patch_embed(image))

    def stage(self, number: int, features: Tensor) -> Tensor:
        """Run stage 0 to 3; those after the first halve height and width: ``(B, h, w, C)`` before and after."""
        return cast(Tensor, self.swin.layers[number](features))

    def norm(self, features: Tensor) -> Tensor:
        """Normalise the last stage's output; without ``norm``, leave it."""
        return cast(Tensor, self.swin.norm(features))
