"""Thresholds of the zones: the best F1 of each, unless films would be left without a sentence."""

import numpy as np
import pytest

from textray.training.self_guided import CANDIDATES, choose_thresholds, f1


def slow_f1(found, truth):
    hit = sum(bool(a and b) for a, b in zip(found, truth, strict=True))
    total = sum(map(bool, found)) + sum(map(bool, truth))
    return 2 * hit / total if total else 1.0


@pytest.mark.parametrize("seed", range(4))
def test_f1_is_the_slow_one(seed):
    rng = np.random.default_rng(seed)
    found, truth = rng.random((9, 5)) < 0.3, rng.random((9, 1)) < 0.3
    assert f1(found, truth) == pytest.approx([slow_f1(found[:, i], truth[:, 0]) for i in range(5)])


def test_each_zone_takes_its_best_f1_where_no_film_goes_without_a_sentence():
    rng = np.random.default_rng(0)
    truth = rng.random((80, 6)) < 0.4
    truth[:, 0] = True
    probability = np.clip(0.5 * truth * rng.random((80, 6)) + rng.random((80, 6)) * 0.5, 0, 1)
    probability[:, 0] = 0.99  # every film gets a sentence by this zone
    chosen = choose_thresholds(probability, truth)
    for zone in range(6):
        best = max(slow_f1(probability[:, zone] >= t, truth[:, zone]) for t in CANDIDATES)
        assert slow_f1(probability[:, zone] >= chosen[zone], truth[:, zone]) == pytest.approx(best)


def test_a_film_with_lesions_is_given_a_sentence_at_some_cost():
    # Zone 0 alone would be cut at 0.4, for an F1 of 1; a quarter of the films, ill elsewhere, would get no sentence.
    truth = np.zeros((40, 6), np.bool_)
    truth[:30, 0], truth[30:, 1] = True, True
    probability = np.full((40, 6), 0.01)
    probability[:30, 0], probability[30:, 0] = 0.41, 0.31
    probability[:, 1] = 0.01  # never above any candidate
    chosen = choose_thresholds(probability, truth)
    assert 0.02 <= chosen[0] <= 0.31
    assert (probability >= chosen).any(1).all()
    truth[30:] = False  # the same films without lesions may go without
    assert choose_thresholds(probability, truth)[0] == pytest.approx(0.32)
    assert choose_thresholds(probability, truth)[4] == pytest.approx(0.5), "no film has this zone"
