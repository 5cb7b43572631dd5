"""Scores against slow oracles in plain Python, and against MONAI and torchmetrics."""

import math
from collections import Counter

import numpy as np
import pytest

from textray.errors import ShapeError, TextRayError
from textray.metrics.segmentation import SCORES, case_columns, check_protocol, count, empty_counts


def random_masks(seed, n=7, size=(9, 11), empty=()):
    """Pairs of overlapping blobs of noise; ``empty`` lists (case, which) pairs that are blanked."""
    rng = np.random.default_rng(seed)
    truth = rng.random((n, *size)) < rng.uniform(0.05, 0.6, (n, 1, 1))
    prediction = np.where(rng.random((n, *size)) < 0.7, truth, rng.random((n, *size)) < 0.3)
    for case, which in empty:
        (truth if which == "truth" else prediction)[case] = False
    return prediction, truth


def table(prediction, truth):
    counts = [count(p, t) for p, t in zip(prediction, truth, strict=True)]
    return np.array([[c.tp, c.fp, c.fn, c.tn] for c in counts])


def scores(prediction, truth):
    totals = case_columns(table(prediction, truth)).sum(axis=0)
    return {name: float(score(totals)) for name, score in SCORES.items()}


def slow_counts(prediction, truth):
    pairs = Counter(zip(prediction.ravel().tolist(), truth.ravel().tolist(), strict=True))
    return tuple(pairs[pair] for pair in ((True, True), (True, False), (False, True), (False, False)))


def slow_scores(prediction, truth):
    """The definitions once more, one case and one pixel at a time."""
    cases = [slow_counts(p, t) for p, t in zip(prediction, truth, strict=True)]
    tp, fp, fn, tn = (sum(case[k] for case in cases) for k in range(4))
    dice, iou, lesion_dice, lesion_iou = [], [], [], []
    for a, b, c, _ in cases:
        dice.append(2 * a / (2 * a + b + c) if a + b + c else 1.0)
        iou.append(a / (a + b + c) if a + b + c else 1.0)
        if a + b + c:
            lesion_dice.append(dice[-1])
            lesion_iou.append(iou[-1])
    return {
        "dice_pooled": 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 1.0,
        "iou_pooled": tp / (tp + fp + fn) if tp + fp + fn else 1.0,
        "accuracy_pooled": (tp + tn) / (tp + fp + fn + tn),
        "sensitivity_pooled": tp / (tp + fn) if tp + fn else float(fp == 0),
        "precision_pooled": tp / (tp + fp) if tp + fp else float(fn == 0),
        "dice_per_image": sum(dice) / len(dice),
        "iou_per_image": sum(iou) / len(iou),
        "dice_per_lesion_image": sum(lesion_dice) / len(lesion_dice) if lesion_dice else math.nan,
        "iou_per_lesion_image": sum(lesion_iou) / len(lesion_iou) if lesion_iou else math.nan,
    }


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "empty", [(), ((0, "truth"),), ((1, "prediction"),), ((0, "truth"), (0, "prediction"), (3, "truth"))]
)
def test_scores_equal_the_slow_oracle(seed, empty):
    prediction, truth = random_masks(seed, empty=empty)
    assert scores(prediction, truth) == pytest.approx(slow_scores(prediction, truth), abs=1e-12, nan_ok=True)


@pytest.mark.parametrize(
    ("prediction", "truth", "dice", "lesion"),
    [(False, False, 1.0, math.nan), (True, False, 0.0, 0.0), (False, True, 0.0, 0.0), (True, True, 1.0, 1.0)],
)
def test_empty_masks_follow_the_rule(prediction, truth, dice, lesion):
    found = scores(np.full((1, 4, 4), prediction), np.full((1, 4, 4), truth))
    for name in SCORES.keys() - {"accuracy_pooled"}:
        assert found[name] == pytest.approx(lesion if "lesion" in name else dice, abs=0, nan_ok=True)


def test_empty_masks_are_counted():
    masks = random_masks(0, n=4, empty=[(0, "truth"), (0, "prediction"), (1, "truth")])
    assert empty_counts(table(*masks)) == {"truth": 2, "prediction": 1, "both": 1}


@pytest.mark.parametrize("seed", range(20))
def test_dice_and_iou_are_tied_as_theory_says(seed):
    found = scores(*random_masks(seed, empty=[(seed % 7, "truth")]))
    assert found["iou_pooled"] == pytest.approx(found["dice_pooled"] / (2 - found["dice_pooled"]), abs=1e-12)
    assert found["iou_per_image"] >= found["dice_per_image"] / (2 - found["dice_per_image"]) - 1e-12
    check_protocol(found)


@pytest.mark.parametrize(
    ("kind", "dice", "iou"),
    [
        ("pooled", 0.8998, 0.85),  # a mean over images beside a pooled Dice
        ("pooled", 0.846, 0.725),  # Table 2 of SGSeg: below D/(2-D)
        ("per_image", 0.846, 0.725),
        ("per_lesion_image", 0.846, 0.725),
    ],
)
def test_impossible_pairs_are_refused(kind, dice, iou):
    with pytest.raises(TextRayError, match=r"cannot belong to the same masks.*D/\(2-D\)"):
        check_protocol({f"dice_{kind}": dice, f"iou_{kind}": iou})
    check_protocol({"dice_per_image": 0.8377, "iou_per_image": 0.7511, "dice_pooled": math.nan, "iou_pooled": 0.5})


def test_masks_and_counts_of_another_shape_are_refused():
    masks = np.zeros((3, 4), bool)
    for prediction, message in ((masks.T, "different grids"), (masks.astype(float), "bool")):
        with pytest.raises(ShapeError, match=message):
            count(prediction, masks)
    with pytest.raises(ShapeError, match="four columns"):
        case_columns(np.zeros((2, 3), np.int64))


def test_monai_agrees_on_the_scores_of_single_images():
    torch = pytest.importorskip("torch")
    metrics = pytest.importorskip("monai.metrics")
    prediction, truth = random_masks(3, empty=[(2, "prediction")])  # MONAI's rules for empty truth are settings
    tensors = [torch.from_numpy(m[:, None].astype(np.float32)) for m in (prediction, truth)]
    columns = case_columns(table(prediction, truth))
    dice = metrics.DiceMetric(include_background=True, reduction="none")(*tensors)
    iou = metrics.MeanIoU(include_background=True, reduction="none")(*tensors)
    np.testing.assert_allclose(columns[:, 4], dice[:, 0].numpy(), atol=1e-6)
    np.testing.assert_allclose(columns[:, 5], iou[:, 0].numpy(), atol=1e-6)
    assert scores(prediction, truth)["dice_per_image"] == pytest.approx(float(dice.mean()), abs=1e-6)
    assert scores(prediction, truth)["iou_per_image"] == pytest.approx(float(iou.mean()), abs=1e-6)


def test_torchmetrics_agrees_on_pooled_scores():
    torch = pytest.importorskip("torch")
    kinds = pytest.importorskip("torchmetrics.classification")
    prediction, truth = random_masks(4, empty=[(2, "prediction"), (5, "truth")])
    tensors = [torch.from_numpy(m.astype(np.int64)) for m in (prediction, truth)]
    found = scores(prediction, truth)
    for name, metric in (
        ("dice_pooled", kinds.BinaryF1Score()),
        ("iou_pooled", kinds.BinaryJaccardIndex()),
        ("accuracy_pooled", kinds.BinaryAccuracy()),
        ("sensitivity_pooled", kinds.BinaryRecall()),
        ("precision_pooled", kinds.BinaryPrecision()),
    ):
        for one_p, one_t in zip(*tensors, strict=True):  # accumulated, as a training loop does
            metric.update(one_p, one_t)
        assert found[name] == pytest.approx(float(metric.compute()), abs=1e-6), name
