r"""Contrastive pre-training of an image trunk on films and their reports, as CLIP does it.

An ablation row of SGSeg (Table 2: "pre-trained with CLIP and fine-tuned by uni-modal segmentation"); its network has no
such phase. The trunk's last map and the tokens of the frozen text encoder are each averaged, the tokens over the real
ones only; with v and t of unit length, a batch's scores are S = 10 V Tᵀ and its loss the mean of the cross-entropies of
S and Sᵀ against the identity.

Reports repeat: 63 sentences serve QaTa-COV19, so a batch holds some of them more than once. The loss keeps CLIP's
identity all the same. Because the text encoder is frozen, equal reports have equal scores, and the loss that counts all
of them as right is the very same number: in the direction to the text equal columns share whatever is given to them, in
the other one equal rows do.

Differences from the authors' released code: a phase is counted in epochs, where theirs ends after 20 batches; padding
takes no part in a mean; the text encoder is frozen.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from textray.data.batches import Batch
from textray.errors import UsageError
from textray.models.base import Network
from textray.models.baselines.clip import ViTTrunk
from textray.nn.image_encoder import ImageEncoder
from textray.training.task import Task

SCALE = 10.0
"""Factor of the cosines: a temperature of 0.1."""


def contrastive_loss(image: Tensor, text: Tensor) -> Tensor:
    """Symmetric InfoNCE of pairs, both ``(B, D)`` of any length: (CE(S, id) + CE(Sᵀ, id)) / 2, S = 10 cos(image, text).

    A mean over ``B``; log B where all pairs are alike.
    """
    scores = SCALE * F.normalize(image, dim=1) @ F.normalize(text, dim=1).T  # (B, B)
    right = torch.arange(len(scores), device=scores.device)
    return (F.cross_entropy(scores, right) + F.cross_entropy(scores.T, right)) / 2


def mean_tokens(features: Tensor, mask: Tensor) -> Tensor:
    """Mean of token features ``(B, L, D)`` over the real tokens of ``mask`` ``(B, L)``; zeros where there are none."""
    real = (mask > 0).to(features.dtype)[..., None]
    return (features * real).sum(1) / real.sum(1).clamp(min=1)


class ContrastiveTask(Task):
    """Trains the image trunk of a network to match films and reports.

    Its checkpoint starts a segmentation with ``model.initial: [trunk=CHECKPOINT]``. Logs ``train/loss`` and
    ``inner/loss``; samples without a report take no part.

    Args:
        network: The network whose trunk learns; the rest of it is not run.
        text_encoder: Registry name of the frozen text encoder.
        options: Those of `Task`, but for the two that are about parts.

    Raises:
        UsageError: If the network has no trunk of `textray.nn.image_encoder.ImageEncoder` or CLIP's.
    """

    selects = ("inner/loss", "min")
    exports = False

    def __init__(self, network: Network, text_encoder: str = "cxr_bert", **options: Any) -> None:  # noqa: ANN401 -- Task's
        super().__init__(network, text_encoder=text_encoder, trunk_lr_scale=1.0, freeze=(), **options)
        trunk = getattr(network, "trunk", None)
        if not isinstance(trunk, ImageEncoder | ViTTrunk):
            raise UsageError(
                "contrastive pre-training needs a network with one image trunk",
                came=type(network).__name__,
                expected="a network such as guide_decoder or mmi_unet",
            )
        channels, width = trunk.channels[-1], cast(Any, self.encoder).width
        # The paper's ConvNeXt-T is as wide as its text encoder, and nothing stands between them.
        self.projection = nn.Identity() if channels == width else nn.Linear(channels, width, bias=False)

    def forward(self, image: Tensor, texts: list[str | None]) -> tuple[Tensor, Tensor]:
        """Features ``(B, D)`` of images ``(B, C, H, W)`` and of their reports."""
        last = cast(Any, self.network).trunk(image)[-1]  # (B, C, h, w)
        features, mask = cast(Any, self.encoder)(texts)
        return self.projection(last.mean((2, 3))), mean_tokens(features, mask).to(image.device)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Loss of a batch."""
        loss = self._loss(batch)
        self.check_loss(loss, batch, index)
        self.log_train("loss", loss, len(batch["image_id"]))
        return loss

    def validation_step(self, batch: Batch, index: int) -> None:
        """Log the loss of a batch."""
        self.log("inner/loss", self._loss(batch), prog_bar=True, batch_size=len(batch["image_id"]), sync_dist=True)

    def _loss(self, batch: Batch) -> Tensor:
        image, text = self(batch["image"], batch["text"])
        given = torch.tensor([words is not None for words in batch["text"]], device=image.device)
        if not given.any():
            return image.sum() * 0  # still a loss with a gradient
        return contrastive_loss(image[given], text[given])

    def learning(self) -> list[torch.nn.Parameter]:
        """Those of the trunk and of the projection."""
        return [*cast(Any, self.network).trunk.parameters(), *self.projection.parameters()]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write whose trunk it is."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["textray"]["trunk"] = cast(Any, self.network).trunk.name
