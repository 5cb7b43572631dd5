"""Scores of zones against counts by hand and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from textray.errors import ShapeError, UsageError
from textray.metrics.zones import zone_summary
from textray.records import ZONE_NAMES, Zones


def zones_of(bits):
    return [Zones.from_present(row) for row in bits]


def test_scores_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    named = rng.random((40, 6)) < 0.5
    written = named ^ (rng.random((40, 6)) < 0.25)
    found = zone_summary(zones_of(written), zones_of(named), [str(i // 2) for i in range(40)])
    for name, score in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
        for zone, value in zip(ZONE_NAMES, score(named, written, average=None), strict=True):
            assert found[name][zone]["value"] == pytest.approx(value)
        for average in ("macro", "micro"):
            assert found[name][average]["value"] == pytest.approx(score(named, written, average=average))
    for z, zone in enumerate(ZONE_NAMES):
        assert found["accuracy"][zone]["value"] == pytest.approx(accuracy_score(named[:, z], written[:, z]))
    assert found["accuracy"]["macro"]["value"] == pytest.approx(accuracy_score(named.ravel(), written.ravel()))
    assert found["exact_match"]["value"] == pytest.approx(accuracy_score(named, written))
    assert found["images"] == 40
    assert found["never_named"] == found["never_written"] == []
    for score in ("accuracy", "f1"):
        assert found[score]["macro"]["low"] < found[score]["macro"]["value"] < found[score]["macro"]["high"]


def test_zones_that_nobody_names_are_left_out_and_zones_that_one_names_count_nothing():
    """Left upper: right once. Left middle: named, never written. Left lower: written, never named. Rest: neither."""
    written = np.array([[1, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]])
    named = np.array([[1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]])
    found = zone_summary(zones_of(written), zones_of(named), ["a", "b"])
    for name, score in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
        of = [found[name][zone]["value"] for zone in ZONE_NAMES]
        assert of == [1.0, 0.0, 0.0, None, None, None]
        kept = score(named[:, :3], written[:, :3], average="macro", zero_division=0)
        assert found[name]["macro"]["value"] == pytest.approx(kept) == pytest.approx(1 / 3)
        assert found[name]["micro"]["value"] == pytest.approx(0.5)
    assert found["accuracy"]["macro"]["value"] == pytest.approx((1 + 0.5 + 0.5 + 3) / 6)
    assert found["never_named"] == ["left lower", "right upper", "right middle", "right lower"]
    assert found["never_written"] == ["left middle", "right upper", "right middle", "right lower"]
    assert found["exact_match"]["value"] == 0.5


def test_films_without_any_zone_have_no_f1_and_reports_and_captions_must_be_pairs():
    found = zone_summary([Zones()] * 3, [Zones()] * 3, list("abc"))
    assert found["f1"]["macro"] == {"value": None, "low": None, "high": None}
    assert found["f1"]["micro"]["value"] is None
    assert found["exact_match"]["value"] == 1.0
    with pytest.raises(ShapeError, match="one caption for each report"):
        zone_summary([Zones()], [], ["a"])
    with pytest.raises(UsageError, match="no interval without cases"):
        zone_summary([], [], [])
