"""The vectorised bootstrap against a slow one that draws groups and concatenates cases."""

import math

import numpy as np
import pytest

from textray.errors import ShapeError, UsageError
from textray.metrics import intervals
from textray.metrics.intervals import bootstrap, bootstrap_auc, paired_difference, to_dicts
from textray.metrics.segmentation import SCORES, case_columns


def make_cases(seed, n=40):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 50, (n, 4))
    counts[rng.random(n) < 0.1, :3] = 0
    groups = [f"p{k}" for k in rng.integers(0, 12, n)]
    return counts, groups


@pytest.fixture
def few(monkeypatch):
    """Fewer draws, as many as the slow bootstrap can take."""
    monkeypatch.setattr(intervals, "DRAWS", 150)


def slow_draws(counts, groups, name):
    """Draw by draw and group by group, the cases of drawn groups in one list, the score computed on that list."""
    labels = sorted(set(groups))
    rng = np.random.default_rng(intervals.SEED)
    for _ in range(150):
        often = rng.multinomial(len(labels), [1 / len(labels)] * len(labels))
        drawn = []
        for label, times in zip(labels, often, strict=True):
            members = [row for row, group in zip(counts.tolist(), groups, strict=True) if group == label]
            drawn += members * int(times)
        yield float(SCORES[name](case_columns(np.array(drawn)).sum(axis=0)))


@pytest.mark.parametrize("name", ["dice_pooled", "iou_per_image", "dice_per_lesion_image", "accuracy_pooled"])
def test_bootstrap_and_paired_difference_equal_the_slow_ones(name, few):
    first, groups = make_cases(1)
    second, _ = make_cases(2)
    columns, statistic = [case_columns(counts) for counts in (first, second)], {name: SCORES[name]}
    totals = [float(SCORES[name](of_run.sum(axis=0))) for of_run in columns]
    slow = [np.array(list(slow_draws(counts, groups, name))) for counts in (first, second)]
    alone, paired = bootstrap(columns[0], groups, statistic)[name], paired_difference(*columns, groups, statistic)[name]
    for fast, value, drawn in ((alone, totals[0], slow[0]), (paired, totals[1] - totals[0], slow[1] - slow[0])):
        assert fast.value == pytest.approx(value)
        assert (fast.low, fast.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))


def test_seed_fixes_the_interval_and_neither_chunks_nor_the_order_of_cases_change_it(monkeypatch):
    counts, groups = make_cases(6)
    order = np.random.default_rng(0).permutation(len(counts))
    first = bootstrap(case_columns(counts), groups, SCORES)
    assert first == bootstrap(case_columns(counts), groups, SCORES)
    turned = bootstrap(case_columns(counts[order]), [groups[i] for i in order], SCORES)
    monkeypatch.setattr(intervals, "_WEIGHTS_AT_ONCE", 37)
    chunked = bootstrap(case_columns(counts), groups, SCORES)
    for name, interval in first.items():
        assert vars(chunked[name]) == pytest.approx(vars(interval))
        assert vars(turned[name]) == pytest.approx(vars(interval))
    monkeypatch.setattr(intervals, "SEED", 1)
    assert first != bootstrap(case_columns(counts), groups, SCORES)


def test_undefined_scores_become_null_and_undefined_draws_are_left_out():
    empty = np.tile([0, 0, 0, 9], (3, 1))
    found = to_dicts(bootstrap(case_columns(empty), list("abc"), SCORES))
    assert found["dice_per_image"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert found["dice_per_lesion_image"] == {"value": None, "low": None, "high": None}
    some = np.vstack([empty, [[3, 1, 1, 4]]])  # many draws hold no lesion at all
    defined = bootstrap(case_columns(some), list("abcd"), SCORES)["dice_per_lesion_image"]
    assert (defined.low, defined.high) == pytest.approx((0.75, 0.75))


def test_wrong_arguments_are_refused():
    with pytest.raises(ShapeError, match="group label"):
        bootstrap(np.ones((2, 8)), ["a"], SCORES)
    with pytest.raises(UsageError, match="without cases"):
        bootstrap(np.zeros((0, 8)), [], SCORES)
    with pytest.raises(ShapeError, match="same cases"):
        paired_difference(np.ones((2, 8)), np.ones((3, 8)), ["a", "b"], SCORES)


def test_a_thousand_draws_of_many_groups_are_vectorised(monkeypatch):
    """No Python code runs per case: the number of calls of a score does not grow with the cases."""
    calls = []

    def counted(totals):
        calls.append(totals.shape)
        return SCORES["dice_pooled"](totals)

    counts = np.random.default_rng(0).integers(0, 50, (3000, 4))
    bootstrap(case_columns(counts), [str(i) for i in range(3000)], {"dice": counted})
    assert calls == [(8,), (1000, 8)]
    assert not math.isnan(bootstrap(case_columns(counts), ["a"] * 3000, {"dice": counted})["dice"].low)


def slow_auc(scores, truth):
    """Pair by pair; a tie counts half."""
    sick = [score for score, positive in zip(scores, truth, strict=True) if positive]
    normal = [score for score, positive in zip(scores, truth, strict=True) if not positive]
    wins = [(a > b) + (a == b) / 2 for a in sick for b in normal]
    return sum(wins) / len(wins) if wins else math.nan


@pytest.mark.parametrize("levels", [3, 1000])
def test_the_area_under_the_curve_equals_the_slow_one(levels, few):
    rng = np.random.default_rng(levels)
    truth, groups = rng.random(40) < 0.4, [f"p{k}" for k in rng.integers(0, 12, 40)]
    scores = rng.integers(0, levels, 40) + truth * levels / 4  # of three levels most are ties
    found = bootstrap_auc(scores.tolist(), truth.tolist(), groups)
    assert found.value == pytest.approx(slow_auc(scores, truth))
    labels, draws = sorted(set(groups)), np.random.default_rng(intervals.SEED)
    drawn = []
    for _ in range(150):
        often = dict(zip(labels, draws.multinomial(len(labels), [1 / len(labels)] * len(labels)), strict=True))
        rows = [i for i, group in enumerate(groups) for _ in range(often[group])]
        drawn.append(slow_auc(scores[rows], truth[rows]))
    assert (found.low, found.high) == pytest.approx(tuple(np.nanquantile(drawn, [0.025, 0.975])))


def test_areas_that_are_known():
    assert bootstrap_auc([0.1, 0.2, 0.3, 0.4], [False, False, True, True], list("abcd")).value == 1
    assert bootstrap_auc([0.1, 0.2, 0.3, 0.4], [True, True, False, False], list("abcd")).value == 0
    assert vars(bootstrap_auc([0.5] * 4, [True, False, True, False], list("aabb"))) == {
        "value": 0.5,
        "low": 0.5,
        "high": 0.5,
    }
    assert bootstrap_auc([1, 2, 2, 3], [False, True, False, True], list("abcd")).value == 0.875
    for truth in ([True, True], [False, False]):
        assert to_dicts({0: bootstrap_auc([0.1, 0.2], truth, ["a", "b"])})[0] == dict.fromkeys(("value", "low", "high"))
    with pytest.raises(UsageError, match="no interval without cases"):
        bootstrap_auc([], [], [])
    with pytest.raises(ShapeError, match="scores, truth and groups differ"):
        bootstrap_auc([0.1, 0.2], [True, False], ["a"])
