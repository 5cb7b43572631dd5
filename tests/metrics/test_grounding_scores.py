"""Maps against boxes and masks: printed golden values, slow oracles, and what must not change a score."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from textray.errors import ShapeError, UsageError
from textray.metrics import intervals
from textray.metrics.grounding import (
    NORMALISATIONS,
    SCAN,
    SCORES,
    THRESHOLDS,
    best_threshold,
    case_columns,
    class_statistics,
    contrast,
    enlarge,
    normalise,
    one_of,
    overlap,
    pointing,
    score,
    skipped,
    smooth,
    statistics,
    threshold_table,
)

MAP = np.array(
    [[-0.4, -0.1, 0, 0.05], [-0.2, 0.15, 0.35, 0.25], [-0.1, 0.45, 0.80, 0.55], [-0.3, 0.10, 0.30, 0.20]], np.float64
)
MASK = np.zeros((4, 4), bool)
MASK[1:, 2:] = True
MASK_BIG = np.zeros((9, 11), bool)
MASK_BIG[2:6, 3:8] = True
GOLDEN = {
    "none": ((0.750000, 0.714286, 0.428571, 0.285714, 0.333333), (0.857143, 0.833333, 0.600000, 0.444444, 0.500000)),
    "minmax": ((0.571429, 0.428571, 0.285714, 0.285714, 0.333333), (0.727273, 0.600000, 0.444444, 0.444444, 0.500000)),
}
"""IoU and Dice at `THRESHOLDS`."""


def noise(seed, shape=(9, 11)):
    return np.random.default_rng(seed).uniform(-1, 1, shape)


def whole(cases, labels, **options):
    columns, classes = case_columns(cases, labels, **options)
    totals = columns.sum(axis=0)
    return {name: float(value(totals)) for name, value in statistics(len(classes)).items()}, totals, classes


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("how", GOLDEN)
def test_golden_values(how, dtype):
    found = score(normalise(MAP.astype(dtype), how), MASK)
    iou, dice = GOLDEN[how]
    assert [found.at(t)[0] for t in THRESHOLDS] == pytest.approx(iou, abs=1e-6)
    assert [found.at(t)[1] for t in THRESHOLDS] == pytest.approx(dice, abs=1e-6)
    assert found.cnr_signed == pytest.approx(1.428086, abs=1e-5)
    assert found.pointing == 1
    scores, _, _ = whole([found], ["one"])
    assert (scores["iou"], scores["dice"]) == pytest.approx((np.mean(iou), np.mean(dice)), abs=1e-6)


def test_overlap_equals_counting_at_every_threshold():
    values, truth = noise(1), noise(2) > 0.3
    iou, dice, marked = overlap(values, truth)
    for at, threshold in enumerate(SCAN):
        prediction = values > threshold
        assert iou[at] == (prediction & truth).sum() / (prediction | truth).sum()
        assert dice[at] == 2 * (prediction & truth).sum() / (prediction.sum() + truth.sum())
        assert marked[at] == prediction.any()


def test_flipping_map_and_mask_together_and_stretching_change_nothing():
    values, truth = noise(3), noise(4) > 0.3
    one, other = score(values, truth), score(values[:, ::-1], truth[:, ::-1])
    assert (one.iou, one.dice, one.pointing) == (other.iou, other.dice, other.pointing)
    assert one.cnr_signed == pytest.approx(other.cnr_signed)
    assert contrast(3 * values + 7, truth) == pytest.approx(contrast(values, truth))
    assert contrast(-values, truth) == pytest.approx(-contrast(values, truth))
    stretched = normalise(values, "minmax")
    assert (stretched.min(), stretched.max()) == (-1, 1)
    assert np.allclose(normalise(5 * values - 2, "minmax"), stretched)


def test_a_constant_map_points_nowhere():
    flat = np.full((4, 4), 0.7)
    assert not normalise(flat, "minmax").any()
    found = score(normalise(flat, "minmax"), MASK)
    assert not any(found.at(t)[1] for t in THRESHOLDS)
    assert math.isnan(found.cnr_signed)
    assert found.pointing == pytest.approx(MASK.mean())  # a tie counts by share
    scores, _, _ = whole([found], ["one"])
    assert math.isnan(scores["cnr"])
    assert scores["iou"] == 0


def test_clamp_removes_what_is_negative_and_the_peak_is_pointed_at():
    assert normalise(MAP, "clamp").min() == 0
    assert score(normalise(MAP, "clamp"), MASK).at(0.1) == score(MAP, MASK).at(0.1)
    assert (pointing(MAP, MASK), pointing(-MAP, MASK)) == (1, 0)
    with pytest.raises(UsageError, match="one of minmax, none, clamp"):
        one_of(NORMALISATIONS, "softmax", "normalisation of maps")


def test_contrast_per_box_is_the_mean_over_boxes_against_what_is_outside_all():
    values = noise(5)
    boxes = np.zeros((2, 9, 11), bool)
    boxes[0, 1:3, 1:4], boxes[1, 5:8, 6:9] = True, True
    outside = values[~boxes.any(axis=0)]
    expected = [(values[box].mean() - outside.mean()) / math.sqrt(values[box].var() + outside.var()) for box in boxes]
    assert contrast(values, boxes.any(axis=0), list(boxes)) == pytest.approx(np.mean(expected))
    assert contrast(values, boxes[0], [boxes[0]]) == pytest.approx(contrast(values, boxes[0]))


def test_classes_are_averaged_before_their_mean():
    right, wrong = score(np.where(MASK, 0.9, -0.9), MASK), score(np.where(MASK, -0.9, 0.9), MASK)
    scores, totals, classes = whole([right, right, right, wrong], ["b", "b", "b", "a"])
    assert classes == ("a", "b")
    assert scores["iou"] == scores["dice"] == scores["pointing"] == 0.5  # over cases it would be 0.75
    assert [float(class_statistics(i)["dice"](totals)) for i in range(2)] == [0, 1]
    assert threshold_table(totals, 2)["0.3"] == {"iou": 0.5, "dice": 0.5}


def test_a_threshold_that_marks_nothing_scores_zero_or_is_left_out_and_is_counted():
    quiet = score(np.where(MASK, 0.25, -0.5), MASK)  # marks nothing from 0.3 on
    assert whole([quiet], ["one"])[0]["dice"] == pytest.approx(2 / 5)
    assert whole([quiet], ["one"], empty_prediction="skip")[0]["dice"] == 1
    assert skipped([quiet, quiet]) == {"0.1": 0, "0.2": 0, "0.3": 2, "0.4": 2, "0.5": 2}
    with pytest.raises(UsageError, match="one of zero, skip"):
        case_columns([quiet], ["one"], empty_prediction="ignore")


def test_best_threshold_is_one_that_was_scanned():
    _, totals, _ = whole([score(np.where(MASK, 0.12, 0.02), MASK)], ["one"])
    best = best_threshold(totals, 1)
    assert best["dice"] == best["iou"] == 1
    assert 0.02 <= best["threshold"] < 0.12


def test_intervals_draw_over_groups_with_a_class_missing_in_some_draws():
    cases = [score(noise(i), MASK_BIG) for i in range(6)]
    columns, classes = case_columns(cases, ["a", "b", "b", "b", "b", "b"])
    found = intervals.bootstrap(columns, [str(i) for i in range(6)], statistics(len(classes)))
    assert set(found) == set(SCORES)
    for interval in found.values():
        assert interval.low <= interval.value <= interval.high


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(ShapeError, match="nothing is true"):
        score(MAP, np.zeros((4, 4), bool))
    with pytest.raises(ShapeError, match="one grid"):
        score(MAP, np.ones((4, 5), bool))
    assert math.isnan(contrast(MAP, np.ones((4, 4), bool)))
    with pytest.raises(ShapeError, match="one class for each case"):
        case_columns([], ["a"])


@pytest.mark.parametrize(("shape", "sigma"), [((14, 14), 0.6), ((14, 14), 1.5), ((2, 5), 1.5)])
def test_smoothing_equals_scipy(shape, sigma):
    maps = np.stack([noise(6, shape), noise(7, shape)])
    found = smooth(maps, sigma)
    for one, other in zip(found, maps, strict=True):
        assert np.allclose(one, ndimage.gaussian_filter(other, sigma), atol=1e-6)
    assert np.allclose(smooth(maps, 0), maps)
    with pytest.raises(UsageError, match="smoothing"):
        smooth(maps, -1)


def test_enlarging_equals_torch_with_its_corners_not_aligned():
    small = noise(8, (7, 5)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(small)[None, None], size=(56, 45), mode="bilinear", align_corners=False
    )[0, 0]
    assert np.allclose(enlarge(small, (56, 45)), expected.numpy(), atol=1e-5)
