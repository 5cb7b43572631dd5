"""Losses of segmentation again, in NumPy: the supervised ones, and LViT's LV loss from a text to a number."""

import math

import numpy as np
import pytest
import torch
from numpy_layers import sigmoid

from textray.errors import UsageError
from textray.nn.bert import load_text_encoder
from textray.training.losses import CaptionBank, DiceCELoss, lv_loss, schematic_bank


def dice_only(logits, target):
    """Mean over images of 1 - (2 sum p y + e) / (sum p + sum y + e)."""
    dice = []
    for z, y in zip(logits, target, strict=True):
        p = sigmoid(z)
        dice.append(1 - (2 * (p * y).sum() + 1e-5) / (p.sum() + y.sum() + 1e-5))
    return np.mean(dice)


def dice_ce(logits, target):
    """That, plus the mean over pixels of -log p(y)."""
    return dice_only(logits, target) + np.mean(-np.log(np.where(target == 1, sigmoid(logits), sigmoid(-logits))))


def lvit_wdbce(logits, target):
    dice = []
    for z, t in zip(logits, target, strict=True):
        p, t = 0.5 * sigmoid(z), 0.5 * t
        dice.append(1 - (2 * (p * t).sum() + 1e-5) / ((p**2).sum() + (t**2).sum() + 1e-5))
    halves = []
    for kind in (1, 0):
        chosen = logits[target == kind]
        entropy = [-math.log(sigmoid(z) if kind else sigmoid(-z)) for z in chosen]
        halves.append(np.mean(entropy) if entropy else 0.0)
    return 0.5 * np.mean(dice) + 0.5 * (0.5 * halves[0] + 0.5 * halves[1])


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 1.0], ids=["no lesion", "small", "large", "all lesion"])
@pytest.mark.parametrize("slow", [dice_only, dice_ce, lvit_wdbce], ids=lambda slow: slow.__name__)
def test_supervised(slow, share):
    rng = np.random.default_rng(4)
    logits, target = 3 * rng.normal(size=(3, 1, 5, 4)), (rng.random((3, 1, 5, 4)) < share).astype(float)
    found = DiceCELoss(slow.__name__)(torch.from_numpy(logits), torch.from_numpy(target)).item()
    assert found == pytest.approx(slow(logits, target), abs=1e-9)


@pytest.fixture(scope="module")
def encoder():
    return load_text_encoder("tiny", max_tokens=24)


CAPTIONS = ["one infected area, upper left lung", "two infected areas, lower right lung", "bilateral infection"]


def masked_mean(encoder, text):
    features, mask = encoder([text])
    kept = features[0].double().numpy()[mask[0].numpy()]
    mean = kept.sum(0) / len(kept)
    return mean / math.sqrt((mean**2).sum())


def test_lv_from_the_texts_on(encoder):
    rng = np.random.default_rng(0)
    masks = rng.random((3, 6, 7)) < 0.4
    bank = CaptionBank(CAPTIONS, masks, encoder)
    texts = ["one infected area, upper left lung", "infected areas right", "an infection of both"]
    logits = rng.normal(size=(3, 1, 6, 7))
    losses = []
    for text, z in zip(texts, logits, strict=True):
        similarity = [float(masked_mean(encoder, text) @ masked_mean(encoder, caption)) for caption in CAPTIONS]
        best = max(range(3), key=lambda index: similarity[index])
        assert bank.nearest(text) == best
        p, m = sigmoid(z).ravel(), masks[best].astype(float).ravel()
        losses.append(1 - (p * m).sum() / (math.sqrt((p**2).sum()) * math.sqrt((m**2).sum())))
    given = torch.from_numpy(np.stack([bank.mask(text) for text in texts])[:, None]).double()
    values = torch.from_numpy(logits).requires_grad_()
    loss = lv_loss(values, given)
    assert loss.item() == pytest.approx(np.mean(losses), abs=1e-7)
    loss.backward()
    assert values.grad.abs().min() > 0


def test_of_equal_captions_the_first_counts(encoder):
    bank = CaptionBank([CAPTIONS[1], CAPTIONS[0], CAPTIONS[0].upper()], np.zeros((3, 2, 2), bool), encoder)
    assert bank.nearest(CAPTIONS[0]) == 1
    assert bank.nearest(CAPTIONS[1]) == 0


def test_an_empty_mask_teaches_nothing():
    logits = torch.randn(2, 1, 4, 4, requires_grad=True)
    loss = lv_loss(logits, torch.zeros(2, 1, 4, 4))
    loss.backward()
    assert loss.item() == 1
    assert not logits.grad.any()


def test_schematic_masks_lie_in_their_zones(encoder):
    bank = schematic_bank((64, 64), encoder)
    assert len(bank.captions) == 63

    def mask(words):
        return bank.masks[bank.captions.index(words)]

    upper_left = mask("unilateral pulmonary infection, one infected area, upper left lung.")
    assert upper_left[: int(64 * 0.375), :32].any()
    assert not upper_left[24:].any()
    assert not upper_left[:, 32:].any()
    whole = mask("unilateral pulmonary infection, three infected areas, upper middle lower left lung.")
    middle = mask("unilateral pulmonary infection, one infected area, middle left lung.")
    np.testing.assert_array_equal(whole | middle, whole)
    assert whole.sum() > 2.5 * middle.sum()


def test_schematic_masks_are_swapped_with_the_pictures(encoder):
    upright, swapped = schematic_bank((64, 48), encoder), schematic_bank((48, 64), encoder, transpose=True)
    assert swapped.masks.shape == (63, 48, 64)
    np.testing.assert_array_equal(swapped.masks, upright.masks.swapaxes(1, 2))


def test_a_bank_needs_captions(encoder):
    with pytest.raises(UsageError, match="no caption with a mask"):
        CaptionBank([], np.zeros((0, 2, 2), bool), encoder)
