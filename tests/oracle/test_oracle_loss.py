"""Dice plus cross-entropy again, in plain Python over pixels."""

import math

import numpy as np
import pytest
import torch

from textray.training.losses import DiceCELoss


def dice_ce(logits, target, *, with_ce):
    """Mean over images of 1 - (2 sum p y + e) / (sum p + sum y + e), plus mean over pixels of -log p(y)."""
    dice, entropy = [], []
    for z, y in zip(logits, target, strict=True):
        overlap, sizes = 0.0, 0.0
        for score, truth in zip(z.ravel(), y.ravel(), strict=True):
            p = 1 / (1 + math.exp(-score))
            overlap += p * truth
            sizes += p + truth
            entropy.append(-math.log(p) if truth else -math.log(1 - p))
        dice.append(1 - (2 * overlap + 1e-5) / (sizes + 1e-5))
    return sum(dice) / len(dice) + (sum(entropy) / len(entropy) if with_ce else 0.0)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 1.0], ids=["no lesion", "small", "large", "all lesion"])
@pytest.mark.parametrize("parts", ["dice_ce", "dice_only"])
def test_loss(parts, share):
    rng = np.random.default_rng(4)
    logits, target = 3 * rng.normal(size=(3, 1, 5, 4)), (rng.random((3, 1, 5, 4)) < share).astype(float)
    found = DiceCELoss(parts)(torch.from_numpy(logits), torch.from_numpy(target)).item()
    assert found == pytest.approx(dice_ce(logits, target, with_ce=parts == "dice_ce"), abs=1e-9)
