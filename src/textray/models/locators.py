"""What tells the zones of a film: LERG, and the pooled classifier that stands in its place."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from textray.errors import UsageError
from textray.models.self_guided import ZONES, Locator
from textray.nn.detector import STRIDES, Aggregator, Detector, LERGConfig, splat
from textray.nn.image_encoder import ImageEncoder


@dataclass(frozen=True, kw_only=True)
class PooledConfig:
    """Sizes of a pooled classifier.

    Attributes:
        trunk: timm's name of the image trunk, with its tag.
        trunk_weights: Where the trunk's pretrained tensors come from (see `textray.nn.image_encoder.read_trunk`), or
            ``None`` for random ones.
        width: Channels that the last map is brought to before it is pooled; ``None`` pools it as it is.
    """

    trunk: str = "resnet50.a1_in1k"
    trunk_weights: str | None = None
    width: int | None = None


class LERG(Locator):
    """Localization-enhanced report generation: a detector's object queries, aggregated into zones.

    Its attention map stands on the detector's finest grid, ``(B, 1, H/8, W/8)``: the aggregator's weight of each query,
    spread over the places that the query samples in the last layer. No gradient comes out of the map.

    Args:
        config: Sizes; with the defaults 41,787,174 trainable parameters.
        in_channels: Channels of the image.

    Raises:
        UsageError: If a size is impossible.
    """

    def __init__(self, config: LERGConfig, *, in_channels: int = 3) -> None:
        super().__init__(size_multiple=32)
        self.detector = Detector(config, in_channels=in_channels)
        self.aggregator = Aggregator(config.width, config.aggregate)

    @property
    def trunk(self) -> nn.Module:
        """The detector's image trunk."""
        return self.detector.rt_detr.backbone

    def load_pretrained(self) -> None:
        """Read the trunk's or the whole detector's pretrained tensors, if the configuration names any."""
        self.detector.load_pretrained()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Tell the zones: logits ``(B, 6)`` and map ``(B, 1, H/8, W/8)``."""
        objects, places, shares = self.detector(image)
        logits, weights = self.aggregator(objects)
        shares = (weights.detach()[..., None] * shares).flatten(1)  # (B, Q * N)
        size = image.shape[2] // STRIDES[0], image.shape[3] // STRIDES[0]
        return logits, splat(places.flatten(1, 2), shares, size)


class PooledLocator(Locator):
    """An image trunk, the mean of its last map, a linear layer: what the authors' released code has for LERG.

    Since the mean and the linear layer may change places, each place of the last map has zone logits of its own. The
    attention map ``(B, 1, H/32, W/32)`` is a softmax over the places of those, each zone counting by its probability.

    Args:
        config: Sizes.
        in_channels: Channels of the image.

    Raises:
        UsageError: If the trunk is of a family that cannot be cut into stages, or the width is impossible.
    """

    def __init__(self, config: PooledConfig, *, in_channels: int = 3) -> None:
        super().__init__(size_multiple=32)
        self.trunk = ImageEncoder(config.trunk, in_channels=in_channels, weights=config.trunk_weights)
        channels = self.trunk.channels[3]
        if config.width is not None and config.width < 1:
            raise UsageError("a pooled classifier cannot have this width", came=config.width, expected="1 or more")
        self.widen: nn.Module = nn.Identity()
        if config.width is not None:
            norm = nn.BatchNorm2d(config.width)
            self.widen = nn.Sequential(nn.Conv2d(channels, config.width, 1, bias=False), norm, nn.ReLU(inplace=True))
        self.classifier = nn.Linear(config.width or channels, ZONES)

    def load_pretrained(self) -> None:
        """Read the trunk's pretrained tensors, if the configuration names any."""
        self.trunk.load_pretrained()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Tell the zones: logits ``(B, 6)`` and map ``(B, 1, H/32, W/32)``."""
        features = self.widen(self.trunk(image)[3])  # (B, C, h, w)
        logits = self.classifier(features.mean((2, 3)))
        with torch.no_grad():  # for showing only
            weight = torch.sigmoid(logits) @ self.classifier.weight  # (B, C)
            evidence = (weight[:, None] @ features.flatten(2)).softmax(2)  # (B, 1, h*w)
        return logits, evidence.unflatten(2, features.shape[2:])
