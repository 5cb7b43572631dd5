"""Coarser logits that a network gives beside its own: what they add to the loss of a training."""

from dataclasses import dataclass

import pytest
import torch

pytest.importorskip("lightning")
from textray.models.base import Network, Output
from textray.training.losses import DiceCELoss
from textray.training.segmentation import SegmentationTask


@dataclass(frozen=True)
class _Config:
    pass


class Levels(Network):
    """Gives the image's channels as logits: the first as its own, the others as those of coarser levels."""

    def __init__(self):
        super().__init__(in_channels=3, size_multiple=1, text_width=None)
        self.config, self.scale = _Config(), torch.nn.Parameter(torch.ones(()))

    def forward(self, image, text_features=None, text_mask=None):
        finest, *deep = (image * self.scale).split(1, dim=1)
        return Output(finest, deep=tuple(deep) if self.training else None)


def test_each_level_weighs_half_of_the_one_before_and_learns_from_true_masks_only(monkeypatch):
    task = SegmentationTask(Levels(), text_encoder=None)
    monkeypatch.setattr(task, "log_train", lambda *_: None)
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(3, 3, 8, 8, generator=generator)
    mask = (torch.rand(3, 1, 8, 8, generator=generator) > 0.5).float()
    labelled = torch.tensor([True, True, False])
    batch = {
        "image": image, "mask": mask, "labelled": labelled, "image_id": ["a", "b", "c"], "text": [None] * 3,
        "denied": torch.zeros(3, 6),
    }  # fmt: skip
    loss = DiceCELoss("dice_ce")
    each = [loss(image[:2, level, None], mask[:2], None) for level in range(3)]
    wanted = (each[0] + 0.5 * each[1] + 0.25 * each[2]) / 1.75
    torch.testing.assert_close(task.training_step(batch, 0), wanted)
    task.eval()
    torch.testing.assert_close(task.training_step(batch, 0), each[0])
