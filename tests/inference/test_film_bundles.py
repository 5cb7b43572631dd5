"""Weights that judge films and are damaged, or of which config and graph differ."""

import numpy as np
import pytest

import textray
from textray.errors import BundleError, ShapeError, TextRayError
from textray.inference.bundle import Bundle

BOUNDS = {"threshold": 0.5, "clear_above": 0.6, "zone_free_below": 0.3, "zone_ill_above": 0.7}


@pytest.mark.parametrize(
    "presence",
    [
        {name: value for name, value in BOUNDS.items() if name != "clear_above"},
        BOUNDS | {"more": 0.5},
        {},
        [0.5, 0.6, 0.3, 0.7],
        0.5,
        BOUNDS | {"threshold": float("nan")},
        BOUNDS | {"clear_above": float("inf")},
        BOUNDS | {"zone_free_below": -0.1},
        BOUNDS | {"zone_ill_above": 1.5},
    ],
    ids=["missing", "unknown", "empty", "list", "number", "NaN", "infinity", "negative", "above one"],
)
def test_other_bounds_are_refused(changed, film_bundle, presence):
    with pytest.raises(BundleError, match=r"zones\.presence of the bundle is wrong"):
        Bundle.load(changed(film_bundle, zones={"presence": presence}))


@pytest.mark.parametrize("value", ["high", None, [0.5]])
def test_bounds_that_are_no_numbers_are_refused(changed, film_bundle, value):
    with pytest.raises(BundleError, match="not laid out"):
        Bundle.load(changed(film_bundle, zones={"presence": BOUNDS | {"threshold": value}}))


def test_bounds_are_read_shown_and_part_of_the_identity(changed, film_bundle):
    bundle = Bundle.load(film_bundle)
    assert vars(bundle.bounds) == BOUNDS == bundle.describe()["presence"]
    assert Bundle.load(changed(film_bundle, zones={"presence": BOUNDS | {"threshold": 0.4}})).sha256 != bundle.sha256


@pytest.mark.parametrize("missing", ["float[B,1] presence, ", "float[B,6] zone_logits, "])
def test_a_graph_that_judges_no_film_is_refused_if_the_config_says_so(make_film_bundle, tmp_path, missing):
    make_film_bundle(tmp_path / "bundle", change=(missing, ""), zone_thresholds=None, text_free=None)
    with pytest.raises(BundleError, match=r"judges whether films show a lesion.*outputs presence and zone_logits"):
        textray.load(tmp_path / "bundle", threads=1)


def test_presence_without_bounds_is_not_used(make_film_bundle, tmp_path):
    make_film_bundle(tmp_path / "bundle", bounds=None)
    model = textray.load(tmp_path / "bundle", threads=1)
    prediction = model.segment(noise())
    assert "finding" not in prediction.record
    assert "presence_threshold" not in prediction.record["settings"]
    assert model.presence_threshold() is None


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (("lungs = Add (steep, sides)", "lungs = Concat <axis=1> (steep, steep, steep)"), ShapeError, "lungs have"),
        (("lungs = Add (steep, sides)", "lungs = Identity (steep)"), ShapeError, "lungs have another shape"),
        (("presence = Sub (any_log, any_log_not)", "presence = Log (any_log)"), TextRayError, "presence that are not"),
        (("presence = Sub (any_log, any_log_not)", "presence = Identity (zone_logits)"), ShapeError, "presence have"),
    ],
    ids=["three lungs", "one lung", "presence NaN", "presence by zone"],
)
def test_outputs_of_other_shapes_or_without_numbers_are_refused(make_film_bundle, tmp_path, change, error, match):
    make_film_bundle(tmp_path / "bundle", change=change)
    with pytest.raises(error, match=match):
        textray.load(tmp_path / "bundle", threads=1).segment(noise())


def test_such_weights_fail_each_film_and_not_the_run(make_film_bundle, cli, film, tmp_path):
    change = ("presence = Sub (any_log, any_log_not)", "presence = Log (any_log)")
    make_film_bundle(tmp_path / "bundle", change=change)
    for name in ("a", "b"):
        film(tmp_path / f"in/{name}.png")
    result = cli("segment", tmp_path / "in", "--model", tmp_path / "bundle", "--out", tmp_path / "out", "--json")
    assert result.code == 3
    assert [row["code"] for row in result.rows if row["type"] == "result"] == ["E_NETWORK"] * 2


def test_an_input_that_is_unknown_is_refused(make_film_bundle, tmp_path):
    make_film_bundle(tmp_path / "bundle", change=("denied", "refuted"))
    with pytest.raises(BundleError, match=r"another signature.*refuted.*optionally, denied"):
        textray.load(tmp_path / "bundle", threads=1)


def noise():
    return np.random.default_rng(0).uniform(size=(64, 64)).astype(np.float32)
