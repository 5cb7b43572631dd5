"""The network of nnU-Net, without the planning, training and inference around it.

Source: Isensee et al.: nnU-Net, Nature Methods 2021. The layers are those of MONAI's `DynUNet`: two convolutions a
level, each with instance normalisation and leaky ReLU, strided ones on the way down, transposed ones on the way up, and
logits at all levels of the decoder but the two coarsest (deep supervision), which a training learns from as well.

Shapes at 224 x 224: 32x224², 64x112², 128x56², 256x28², 512x14², 512x7²; back up; 1x224², and in training 1x112²,
1x56², 1x28² as well, enlarged.

Differences from the paper: sizes are given, not planned from the data; one class; no resampling, no ensemble, no
mirrored copies, and TextRay's loss, schedule and augmentation. What nnU-Net as a whole reaches is another question.
"""

from __future__ import annotations

from dataclasses import dataclass

from monai.networks.nets import DynUNet
from torch import Tensor, nn
from torch.nn import functional as F

from textray.errors import ShapeError
from textray.models.base import Network, Output


@dataclass(frozen=True, kw_only=True)
class NNUNetConfig:
    """Sizes of nnU-Net's network.

    Attributes:
        in_channels: Channels of the image.
        width: Channels of the first level; each further one has twice as many, at most 16 times as many.
        levels: Levels, 4 to 6; the coarsest must have more than one place.
    """

    in_channels: int = 3
    width: int = 32
    levels: int = 6


class NNUNet(Network):
    """nnU-Net's network; it takes an image and ignores a report."""

    def __init__(self, config: NNUNetConfig = NNUNetConfig()) -> None:
        super().__init__(in_channels=config.in_channels, size_multiple=32, text_width=None)
        self.config = config
        strides = (1, *[2] * (config.levels - 1))
        net = DynUNet(
            2,
            config.in_channels,
            1,
            kernel_size=[3] * config.levels,
            strides=strides,
            upsample_kernel_size=strides[1:],
            filters=[config.width * 2 ** min(level, 4) for level in range(config.levels)],
            deep_supervision=True,
            deep_supr_num=config.levels - 3,
        )
        # Its parts and not itself: it holds each twice, which a file of tensors cannot.
        self.down = nn.ModuleList([net.input_block, *net.downsamples, net.bottleneck])
        self.up, self.deep, self.head = net.upsamples, net.deep_supervision_heads, net.output_block

    def forward(self, image: Tensor, text_features: Tensor | None = None, text_mask: Tensor | None = None) -> Output:
        """Segment images; the text is ignored. See `Network`.

        Raises:
            ShapeError: Also if the coarsest level would be a single place, whose norm would erase it.
        """
        self.check_image(image)
        least = 2**self.config.levels
        if max(image.shape[2:]) < least:
            raise ShapeError(
                f"NNUNet with {self.config.levels} levels cannot run on this image",
                came=tuple(image.shape),
                expected=f"height or width of at least {least}",
                do="Resize it with textray.preprocess.Preprocess, or lower levels",
            )
        skips: list[Tensor] = []
        maps: list[Tensor] = []
        for down in self.down:
            skips.append(down(skips[-1] if skips else image))
        decoded = skips.pop()
        for up in self.up:
            decoded = up(decoded, skips.pop())
            maps.append(decoded)
        if not self.training:
            return Output(self.head(decoded))
        coarser = maps[-2::-1]  # finest first; the coarsest have no head
        deep = (F.interpolate(head(found), image.shape[2:]) for head, found in zip(self.deep, coarser, strict=False))
        return Output(self.head(decoded), deep=tuple(deep))
