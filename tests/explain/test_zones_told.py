"""Counterfactuals: which runs, their sides, and the numbers of each zone, on a graph whose answer follows the zones."""

import numpy as np
import pytest

from textray.explain.run import Explaining
from textray.explain.zones import ZonesExplainer, counterfactuals
from textray.inference.bundle import Bundle
from textray.inference.segment_run import plan
from textray.inference.segmenter import Predictor
from textray.io.read import from_array
from textray.records import ZONE_NAMES, Laterality, Zones, ZoneState

LEFT_LOWER = Zones.from_present([0, 0, 1, 0, 0, 0])


def explain(folder, text, laterality="patient", orientation=None):
    predictor = Predictor(Bundle.load(folder), threads=1)
    pixels = np.random.default_rng(0).random((80, 60), dtype=np.float32) * 0.1
    image = from_array(pixels, orientation=orientation)
    return ZonesExplainer().explain(predictor, predictor.segment(image, text, laterality)).values


def shares(case):
    return {name: zone["share_of_picture"] for name, zone in case["zones"].items() if zone["share_of_picture"] > 0.02}


def test_each_zone_comes_and_goes_once():
    told = dict(counterfactuals(LEFT_LOWER))
    assert list(told)[:3] == ["given", "none", "mirrored"]
    assert told["mirrored"].present == (0, 0, 0, 0, 0, 1)
    assert list(told)[3:] == [f"with {name}" for name in ZONE_NAMES if name != "left lower"]
    assert len({zones.index for zones in told.values()}) == len(told)
    both = dict(counterfactuals(Zones.from_present([0, 0, 1, 0, 0, 1])))
    assert "mirrored" not in both  # it would say the same
    assert both["without right lower"].present == (0, 0, 1, 0, 0, 0)
    denied = (*both["without right lower"].states[:5], ZoneState.ABSENT)
    told = dict(counterfactuals(Zones(denied)))
    assert told["given"].states == denied
    assert told["mirrored"].states == denied[3:] + denied[:3]
    assert told["with right lower"].present == (0, 0, 1, 0, 0, 1), "what is named is no longer denied"
    assert not told["none"].mentioned
    alone = dict(counterfactuals(Zones()))
    assert list(alone) == ["none", *(f"with {name}" for name in ZONE_NAMES)]


def test_patients_words_move_the_mask_to_the_other_side_of_the_picture(tiny_bundle):
    found = explain(tiny_bundle, "left base")
    cases = {case["name"]: case for case in found["cases"]}
    assert found["given"]["present"] == ["right lower"]
    assert "lower right lung" in found["given"]["viewer"]
    assert "lower left lung" in found["given"]["patient"]
    assert set(shares(cases["given"])) == {"right lower"}
    assert set(shares(cases["mirrored"])) == {"left lower"}
    assert set(shares(cases["with left upper"])) == {"left upper", "right lower"}
    assert shares(cases["given"])["right lower"] == pytest.approx(0.225, abs=0.04)
    assert cases["given"]["dice_with_compared"] == 1
    assert cases["mirrored"]["dice_with_compared"] < 0.01
    changes = {name: zone["mean_probability_change"] for name, zone in cases["mirrored"]["zones"].items()}
    assert changes["right lower"] < -0.4 < 0.4 < changes["left lower"]


def test_viewers_words_and_a_film_turned_round(tiny_bundle):
    assert explain(tiny_bundle, "left base", "viewer")["given"]["present"] == ["left lower"]
    turned = explain(tiny_bundle, "left base", orientation=("R", "F"))["given"]
    assert turned["present"] == ["left lower"]
    assert turned["viewer"] == turned["patient"]
    lateral = explain(tiny_bundle, "bibasal opacity", orientation=("A", "F"))
    assert lateral["cases"][1]["told"]["patient"] is None


def test_without_words_each_zone_is_told_alone(tiny_bundle):
    found = explain(tiny_bundle, None)
    assert found["compared_with"] == "none"
    assert [case["told"]["bank_row"] for case in found["cases"]] == [None, 1, 2, 4, 8, 16, 32]


def test_a_network_that_needs_words_is_never_told_nothing(tiny_bundle, monkeypatch):
    monkeypatch.setattr(Bundle, "needs_text", property(lambda _: True))
    assert "none" not in {case["name"] for case in explain(tiny_bundle, "left base")["cases"]}


def test_pages_grow_with_their_film(tiny_bundle, film, tmp_path):
    predictor = Predictor(Bundle.load(tiny_bundle), threads=1)
    for name, shape in {"flat": (30, 300), "tall": (300, 30)}.items():
        todo = plan([film(tmp_path / f"{name}.png", shape=shape)], tmp_path / "out", laterality=Laterality.VIEWER)
        assert Explaining(predictor, todo, ZonesExplainer()).run() == 0


def test_what_words_deny_is_told_to_the_network_in_each_run(film_bundle):
    """The graph marks what is bright, less the zones that are denied."""
    predictor = Predictor(Bundle.load(film_bundle), threads=1)
    bright = from_array(np.full((128, 128), 0.9, np.float32) * np.random.default_rng(0).uniform(0.9, 1, (128, 128)))
    prediction = predictor.segment(bright, "no opacity in the left lung", "viewer")
    found = ZonesExplainer().explain(predictor, prediction).values
    cases = {case["name"]: case for case in found["cases"]}
    left = {name for name in ZONE_NAMES if name.startswith("left")}
    assert set(found["given"]["denied"]) == left
    assert set(shares(cases["given"])) == set(ZONE_NAMES) - left
    assert set(shares(cases["mirrored"])) == left
    assert set(shares(cases["none"])) == set(ZONE_NAMES)
    assert set(shares(cases["with left upper"])) == {*ZONE_NAMES} - left | {"left upper"}
