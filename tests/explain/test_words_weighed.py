"""Weights of words: attention adds up, and leaving out finds the one token that decides."""

from dataclasses import replace

import numpy as np
import pytest

from textray.explain.words import WordsExplainer
from textray.inference.segmenter import Predictor
from textray.io.read import from_array


@pytest.fixture(scope="module")
def explained(deciding):
    predictor = Predictor(deciding, threads=1)
    image = from_array(np.random.default_rng(0).random((70, 90), dtype=np.float32))
    prediction = predictor.segment(image, "left lower zone", "viewer")
    return WordsExplainer(deciding, threads=1).explain(predictor, prediction)


def test_attention_adds_up_over_tokens(explained):
    rows = explained.values["tokens"]
    assert sum(row["attention"] for row in rows) == pytest.approx(1, abs=1e-4)
    assert np.sum([row["attention_by_level"] for row in rows], axis=0) == pytest.approx([1] * 4, abs=1e-4)
    assert [row["token"] for row in rows if row["place"]] == ["lower", "left"]


def test_leaving_out_finds_the_token_that_decides(explained):
    rows = explained.values["tokens"]
    assert [i for i, row in enumerate(rows) if row["dice_with_whole"] < 1] == [5]
    assert rows[5]["dice_with_whole"] == 0
    assert rows[5]["area_change"] == pytest.approx(-0.5)
    assert rows[5]["probability_change"] == pytest.approx(0.5 * (1 / (1 + np.exp(-4)) - 1 / (1 + np.exp(4))), abs=1e-4)
    assert all(row["probability_change"] == 0 for i, row in enumerate(rows) if i != 5)


def test_groups_are_left_out_as_one(explained):
    groups = {row["left_out"]: row["dice_with_whole"] for row in explained.values["groups"]}
    assert groups == {"all words of place": 1, "the whole sentence": 0}


def test_without_a_word_a_network_that_could_write_its_own_report_is_told_not_to(deciding, monkeypatch):
    predictor, explainer = Predictor(deciding, threads=1), WordsExplainer(deciding, threads=1)
    explainer._runtime.bundle = replace(deciding, zone_thresholds=(0.5,) * 6)
    prediction = predictor.segment(np.random.default_rng(0).random((70, 90), dtype=np.float32), "left lower zone")
    masks, real = [], explainer._runtime.run
    monkeypatch.setattr(explainer._runtime, "run", lambda i, f, mask, d: (masks.append(mask), real(i, f, mask, d))[1])
    explainer.explain(predictor, prediction)
    rows = np.concatenate(masks)
    assert (rows[-1] == -1).all()
    assert rows[:-1].min() == 0
    assert rows[:-1].any(1).all()
