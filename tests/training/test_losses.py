"""Dice and cross-entropy on logits, against MONAI and by hand."""

import warnings
from typing import get_args

import numpy as np
import pytest
import torch

from textray.errors import ShapeError
from textray.training.losses import DiceCELoss, LossParts, dice_loss, lung_loss, presence_loss, zone_loss


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(4, 1, 8, 12, generator=generator)
    target = (torch.rand(4, 1, 8, 12, generator=generator) > 0.7).float()
    target[3] = 0  # an image without a lesion
    return logits, target


def monai_dice_ce(*, smooth=1e-5, batch=False):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside MONAI's own imports
        losses = pytest.importorskip("monai.losses")
        return losses.DiceCELoss(sigmoid=True, smooth_nr=smooth, smooth_dr=smooth, batch=batch)


def test_equals_monai(pair):
    torch.testing.assert_close(DiceCELoss()(*pair), monai_dice_ce()(*pair))
    torch.testing.assert_close(DiceCELoss("pooled_dice_ce")(*pair), monai_dice_ce(batch=True)(*pair))


def test_pooled_each_pixel_weighs_the_same():
    target = torch.zeros(2, 1, 8, 8)
    target[0, :, :1, :3], target[1] = 1, 1
    logits = torch.where(target > 0, 50.0, -50.0)
    missed_small, missed_large = logits.clone(), logits.clone()
    missed_small[0], missed_large[1] = -50, -50
    small, large = (dice_loss(found, target, pooled=True) for found in (missed_small, missed_large))
    torch.testing.assert_close(small, torch.tensor(1 - 2 * 64 / (64 + 67)), atol=1e-4, rtol=0)
    torch.testing.assert_close(large, torch.tensor(1 - 2 * 3 / (3 + 67)), atol=1e-4, rtol=0)


def test_large_logits_stay_finite_and_other_shapes_are_refused(pair):
    logits = torch.full((1, 1, 2, 2), 1e4, requires_grad=True)
    loss = DiceCELoss()(logits, torch.zeros(1, 1, 2, 2))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    with pytest.raises(ShapeError, match=r"logits and target differ.*\(4, 8, 12\).*\(4, 1, 8, 12\)"):
        DiceCELoss()(pair[0], pair[1][:, 0])


def test_the_loss_of_zones_is_over_those_that_are_known():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 6, generator=generator, requires_grad=True)
    zones = (torch.rand(4, 6, generator=generator) > 0.5).float()
    x, y = logits.detach().double().numpy(), zones.double().numpy()
    each = np.maximum(x, 0) - x * y + np.log1p(np.exp(-np.abs(x)))
    assert zone_loss(logits, zones).item() == pytest.approx(each.mean(), rel=1e-6)
    some = zones.clone()
    some[[0, 2]] = torch.nan
    loss = zone_loss(logits, some)
    assert loss.item() == pytest.approx(each[[1, 3]].mean(), rel=1e-6)
    loss.backward()
    assert logits.grad.isfinite().all()
    assert not logits.grad[[0, 2]].any()
    nothing = zone_loss(logits, torch.full((4, 6), torch.nan))
    nothing.backward()
    assert nothing.item() == 0
    with pytest.raises(ShapeError):
        zone_loss(logits, zones[:2])


def entropy(x, y):
    return np.maximum(x, 0) - x * y + np.log1p(np.exp(-np.abs(x)))


def nothing_there(x):
    """Cross-entropy against nothing, and the marked area as a share of itself and half a percent of the image."""
    area = (1 / (1 + np.exp(-x))).mean((1, 2, 3))
    return float(entropy(x, 0).mean() + (area / (area + 0.005)).mean())


def test_presence_weighs_normal_and_sick_films_of_each_source_the_same():
    logits = torch.tensor([[2.0], [-1.0], [0.5], [3.0], [-2.0], [1.0], [9.0]], requires_grad=True)
    finding = torch.tensor([1, 1, 1, 0, 0, 1, torch.nan])
    source = ["", "", "", "nih", "nih", "nih", "nih"]
    each = entropy(logits.detach().numpy()[:, 0], finding.numpy())
    loss = presence_loss(logits, finding, source)
    assert loss.item() == pytest.approx((each[:3].mean() + each[3:5].mean() + each[5]) / 3, rel=1e-6)
    loss.backward()
    assert logits.grad[6] == 0
    assert logits.grad[:6].all()
    unknown = presence_loss(logits, torch.full((7,), torch.nan), source)
    unknown.backward()
    assert unknown.item() == 0


def test_lungs_are_learnt_where_they_are_known():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 2, 4, 5, generator=generator, requires_grad=True)
    lungs = torch.rand(3, 2, 4, 5, generator=generator)
    lungs[1] = torch.nan
    x, y = (part.detach().double().numpy()[[0, 2]].reshape(4, -1) for part in (logits, lungs))
    p = 1 / (1 + np.exp(-x))
    dice = 1 - (2 * (p * y).sum(1) + 1e-5) / (p.sum(1) + y.sum(1) + 1e-5)  # of each lung of each film
    loss = lung_loss(logits, lungs)
    assert loss.item() == pytest.approx(dice.mean() + entropy(x, y).mean(), rel=1e-5)
    loss.backward()
    assert logits.grad.isfinite().all()
    assert not logits.grad[1].any()
    nothing = lung_loss(logits, torch.full_like(lungs, torch.nan))
    nothing.backward()
    assert nothing.item() == 0
    with pytest.raises(ShapeError):
        lung_loss(logits, lungs[:, :1])


@pytest.mark.parametrize("parts", get_args(LossParts))
def test_images_without_a_lesion_pay_for_what_is_marked_where_so_asked(pair, parts):
    loss, (logits, target) = DiceCELoss(parts), pair
    assert torch.equal(loss(logits, target, torch.ones(4, dtype=torch.bool)), loss(logits, target))
    whole = target.flatten(1).any(1)
    assert whole.tolist() == [True, True, True, False]
    wanted = 0.75 * loss(logits[:3], target[:3]) + 0.25 * nothing_there(logits[3:].numpy())
    torch.testing.assert_close(loss(logits, target, whole), wanted, rtol=1e-5, atol=1e-6)
    empty = loss(logits, torch.zeros_like(target), torch.zeros(4, dtype=torch.bool))
    assert empty.item() == pytest.approx(nothing_there(logits.numpy()), rel=1e-5)
