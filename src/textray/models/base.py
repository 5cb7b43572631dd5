"""Base of all networks, and their output."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from textray.errors import ShapeError


class Output(NamedTuple):
    """Raw scores of a network; ``None`` where it does not compute them."""

    logits: Tensor  # (B, 1, H, W), any range; a sigmoid makes them lesion probabilities
    zone_logits: Tensor | None = None  # (B, 6), one per zone by image side
    similarity: Tensor | None = None  # (B, K, h, w), phrase against patch
    attention: tuple[Tensor, ...] | None = None  # one map (B, 1, h, w), of the locator of a self-guided network
    presence: Tensor | None = None  # (B, 1), that the film shows any lesion, from the image alone
    lungs: Tensor | None = None  # (B, 2, H/4, W/4), the lung at the image's left, then that at its right
    deep: tuple[Tensor, ...] | None = (
        None  # (B, 1, H, W) each, logits of coarser levels, finest first; in training only
    )


class Network(nn.Module):
    """Base of the segmentation networks: checks sizes, and lets a learned token stand in for a missing report.

    Networks are called with these, and return an `Output` with logits ``(B, 1, H, W)``:

    * ``image``: ``(B, C, H, W)`` float, normalised; H and W multiples of ``size_multiple``.
    * ``text_features``: T, ``(B, L, D)`` token features of the frozen encoder, L at most ``most_tokens``, or ``None``.
    * ``text_mask``: ``(B, L)``, whose row says which report an image gets. 1 at real tokens: the given one. Zeros: none
      is given, and the network writes its own where it can, else goes without. -1: none, and none is to be written.
      What is not above zero is no token, so for a network that writes no reports the last two are the same.

    They raise `ShapeError` if a shape does not fit.

    Args:
        in_channels: Channels of the image.
        size_multiple: Height and width must be multiples of this.
        text_width: Width D of the text features, ``None`` for a network that reads no text.
        needs_text: True for a network that cannot run without a report; it has no learned token.
        most_tokens: Longest text in tokens, padding included; ``None`` where any length will do.
        no_report: False for a network that runs without a report by other means than the learned token.

    Attributes:
        tells_zones: True for a network whose output has zone logits.
        tells_presence: True for one whose output has ``presence``.
        tells_lungs: True for one whose output has ``lungs``.
        reads_denial: True for one that is also called with ``denied`` ``(B, 6)``, above zero at zones that a person
            denies.
        outputs: Fields of its `Output` in an exported graph; those that are ``None`` are left out.
        dead: Prefixes of the parameters that no output depends on. A network has some only where published weights do.
    """

    tells_zones: bool = False
    tells_presence: bool = False
    tells_lungs: bool = False
    reads_denial: bool = False
    outputs: ClassVar[tuple[str, ...]] = ("logits",)
    dead: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        in_channels: int,
        size_multiple: int,
        text_width: int | None,
        needs_text: bool = False,
        most_tokens: int | None = None,
        no_report: bool = True,
    ) -> None:
        super().__init__()
        self.in_channels, self.size_multiple, self.text_width = in_channels, size_multiple, text_width
        self.needs_text, self.most_tokens = needs_text, most_tokens
        if text_width is not None and no_report and not needs_text:
            self.no_report = nn.Parameter(torch.randn(text_width) * 0.02)

    def load_pretrained(self) -> None:
        """Read the trunk's pretrained tensors, where there is a trunk and its configuration names any.

        A training calls this once, before its first epoch; a checkpoint or bundle holds its own tensors.
        """
        trunk = getattr(self, "trunk", None)
        if trunk is not None:
            trunk.load_pretrained()

    def check_image(self, image: Tensor) -> None:
        """Refuse an image of a shape that the network cannot run on.

        Raises:
            ShapeError: If it is not ``(B, in_channels, H, W)`` with sides that are multiples of ``size_multiple``.
        """
        m = self.size_multiple
        if image.ndim != 4 or image.shape[1] != self.in_channels or image.shape[2] % m or image.shape[3] % m:
            raise ShapeError(
                f"{type(self).__name__} cannot run on this image",
                came=tuple(image.shape),
                expected=f"(B, {self.in_channels}, H, W) with H and W multiples of {m}",
                do="Resize it with textray.preprocess.Preprocess",
            )

    def read_text(self, image: Tensor, features: Tensor | None, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Put the no-report token where an image has no text; the rest is as in `check_text`.

        Returns:
            Features ``(B, L, D)`` and a bool mask ``(B, L)`` with at least one true token a row.

        Raises:
            ShapeError: If the shapes do not fit each other or the configured width or length.
        """
        if features is None:
            batch = image.shape[0]
            return self.no_report.expand(batch, 1, -1), torch.ones(batch, 1, dtype=torch.bool, device=image.device)
        real = self.check_text(image, features, mask)
        empty = ~real.any(1, keepdim=True)  # (B, 1)
        first = torch.arange(real.shape[1], device=real.device)[None] == 0  # (1, L)
        return torch.where(empty[..., None], self.no_report, features), real | (empty & first)

    def check_text(self, image: Tensor, features: Tensor, mask: Tensor | None) -> Tensor:
        """Refuse a text of a shape that the network cannot read; return a bool mask ``(B, L)``, true at real tokens.

        Real are those where ``mask`` ``(B, L)`` is above zero, all without one; a row without any means no text. Only
        the size of the batch is taken from the image.

        Raises:
            ShapeError: If the shapes do not fit each other or the configured width or length.
        """
        if features.ndim != 3 or features.shape[0] != image.shape[0] or features.shape[2] != self.text_width:
            raise ShapeError(
                "text features do not fit",
                came=tuple(features.shape),
                expected=f"({image.shape[0]}, L, {self.text_width})",
                do="Encode the text with the encoder the network was configured for",
            )
        if self.most_tokens is not None and features.shape[1] > self.most_tokens:
            raise ShapeError(
                f"the text is too long for {type(self).__name__}",
                came=f"{features.shape[1]} tokens",
                expected=f"at most {self.most_tokens}, padding included",
                do="Encode it with max_tokens no larger, or build the network for longer texts",
            )
        if mask is None:
            return torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
        if mask.shape != features.shape[:2]:
            raise ShapeError("text mask does not fit", came=tuple(mask.shape), expected=tuple(features.shape[:2]))
        return mask > 0
