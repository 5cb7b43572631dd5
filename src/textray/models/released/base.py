"""What the released forms share: one size, a text for every image, and weights that nothing reads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from textray.errors import ShapeError
from textray.models.base import Network
from textray.nn.image_encoder import ImageEncoder

SIZE = (224, 224)
"""Height and width that the released codes run at."""


@dataclass(frozen=True, kw_only=True)
class ReleasedConfig:
    """What every released form on a ConvNeXt can be told; the defaults are the authors'.

    Attributes:
        trunk: timm's name of a ConvNeXt; the tag says which pretrained weights are meant.
        trunk_weights: Where its pretrained tensors come from when training starts: a ``.safetensors`` file,
            ``package:NAME``, or ``hub``. ``None`` starts at random; published checkpoints hold their own.
        text_width: Width D of the text features.
    """

    trunk: str = "convnext_tiny.fb_in22k"
    trunk_weights: str | None = None
    text_width: int = 768


class ReleasedForm(Network):
    """Base of the released forms: one size, and a text for every image.

    Args:
        size_multiple: What every side of an image would be a multiple of, were there more sizes than one.
        text_width: Width D of the text features.
        tokens: The one number of text tokens L that it takes, ``None`` where any will do.
    """

    def __init__(self, *, size_multiple: int, text_width: int, tokens: int | None = None) -> None:
        super().__init__(in_channels=3, size_multiple=size_multiple, text_width=text_width, needs_text=True)
        self.tokens = tokens

    def check_image(self, image: Tensor) -> None:
        """Refuse any image but ``(B, 3, 224, 224)``.

        Raises:
            ShapeError: If it has another shape.
        """
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

        Args:
            image: ``(B, C, H, W)``, for the batch size.
            features: ``(B, L, D)`` of all tokens, padding too.
            mask: ``(B, L)``, non-zero at real tokens; it only tells text from no text.

        Returns:
            Features and a bool mask, unchanged.

        Raises:
            ShapeError: If an image has no text, or a shape does not fit.
        """
        if features is None:
            raise self._silent("none for the whole batch")
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
            raise self._silent(f"no text in rows {(~real.any(1)).nonzero().flatten().tolist()}")
        return features, real

    def _silent(self, came: str) -> ShapeError:
        """Error for an image without a text."""
        return ShapeError(
            f"released forms need a text for every image, and {type(self).__name__} is one",
            came=came,
            expected="token features of a report, and a text_mask with a non-zero entry in each row",
            do="Give each image a report, or use the paper form, which runs without",
        )


class ReleasedNetwork(ReleasedForm):
    """Base of the released forms on a ConvNeXt.

    Args:
        config: Trunk and width of the text.
        tokens: The one number of text tokens L that it takes, ``None`` where any will do.
    """

    def __init__(self, config: ReleasedConfig, *, tokens: int | None = None) -> None:
        super().__init__(size_multiple=32, text_width=config.text_width, tokens=tokens)
        self.trunk = ImageEncoder(config.trunk, weights=config.trunk_weights)
        width = config.text_width
        # Published checkpoints carry these, and count them, but nothing reads what they say.
        self.final_norm = nn.LayerNorm(self.trunk.channels[3])
        self.text_head = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width), nn.GELU(), nn.Linear(width, width))
