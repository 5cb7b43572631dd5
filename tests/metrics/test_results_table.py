"""Tables: every number with its interval and where it comes from, and no impossible pair."""

import copy

import pytest

from textray.errors import TextRayError, UsageError
from textray.evaluate.page import cell, results_table, summary_page
from textray.metrics.segmentation import SCORES

INTERVAL = {"value": 0.5, "low": 0.4, "high": 0.6}
SCORE = {name: dict(INTERVAL) for name in SCORES} | {
    name: {"value": 1 / 3, "low": 0.25, "high": 0.43} for name in SCORES if name.startswith("iou")
}
SUMMARY = {
    "textray": "0.1.0",
    "model": {"name": "tiny", "version": "1", "sha256": "ab" * 32},
    "data": {"name": "qata_cov19", "split": "val", "ids_sha256": "cd" * 32, "limit": None},
    "size": [224, 192],
    "threshold": 0.5,
    "command": "textray evaluate --data qata_cov19",
    "git": {"commit": "0123456789abcdef", "changed": True},
    "images": 1429,
    "patients": 600,
    "images_without_patient": 3,
    "images_without_text": {"oracle": 2, "none": 1429},
    "estimator": "percentile bootstrap",
    "seed": 20240,
    "text_modes": {"oracle": "own caption", "none": "no text"},
    "modes": {"oracle": SCORE, "none": SCORE},
    "empty": {"oracle": {"truth": 1, "prediction": 2, "both": 0}, "none": {"truth": 1, "prediction": 77, "both": 1}},
}


def rows(table):
    return [[c.strip() for c in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("|")]


def test_each_mode_is_a_row_with_value_and_bounds():
    header, _, oracle, none = rows(results_table([SUMMARY]))
    assert header == [
        "model", "data", "text mode", "images", "`dice_pooled`", "`iou_pooled`", "`dice_per_image`", "`iou_per_image`",
    ]  # fmt: skip
    assert oracle[:5] == ["tiny", "qata_cov19 val", "oracle", "1429", "0.5000 [0.4000, 0.6000]"]
    assert none[2] == "none"


def test_provenance_stands_below_the_table():
    text = results_table([SUMMARY])
    for fact in (
        "textray evaluate --data qata_cov19", "0123456789ab", "with local changes", "abababababab", "cdcdcdcdcdcd",
        "224×192", "1429 images of 600 patients", "3 images without a patient", "percentile bootstrap", "20240",
        "score without its text mode",
    ):  # fmt: skip
        assert fact in text


def test_two_summaries_make_one_table():
    other = copy.deepcopy(SUMMARY)
    other["model"]["name"] = "other"
    assert [row[0] for row in rows(results_table([SUMMARY, other]))[2:]] == ["tiny", "tiny", "other", "other"]


def test_a_table_that_mixes_estimators_is_refused():
    mixed = copy.deepcopy(SUMMARY)
    mixed["modes"]["none"]["iou_pooled"]["value"] = 0.30
    with pytest.raises(TextRayError, match="cannot belong to the same masks"):
        results_table([mixed])


def test_undefined_scores_are_dashes():
    assert cell({"value": None, "low": None, "high": None}) == "–"
    assert cell(None) == "–"
    assert cell({"value": 0.5, "low": None, "high": None}) == "0.5000"


def test_tables_of_nothing_or_of_unknown_scores_are_refused():
    with pytest.raises(UsageError, match="without summaries"):
        results_table([])
    with pytest.raises(UsageError, match="unknown score 'dice'"):
        results_table([SUMMARY], ("dice",))


def test_the_page_holds_every_score_and_the_empty_masks():
    page = summary_page(SUMMARY)
    for name in SCORES:
        assert f"| `{name}` |" in page
    assert "| empty prediction | 2 | 77 |" in page
    assert "| no text given | 2 | 1429 |" in page
    assert "Left-right" not in page


def test_a_score_without_text_of_a_network_that_never_went_without_says_so():
    named = "`W_NONE_NOT_LEARNT`: text mode `none` of model tiny: the training of this network left no report out"
    assert named in results_table([SUMMARY | {"learnt_without_report": False}])
    for learnt in (True, None):
        assert "W_NONE_NOT_LEARNT" not in results_table([SUMMARY | {"learnt_without_report": learnt}])
    only = {"learnt_without_report": False, "modes": {"oracle": SCORE}}
    assert "W_NONE_NOT_LEARNT" not in results_table([SUMMARY | only])


def test_the_page_tells_left_right_sensitivity_where_measured():
    sides = {
        "unilateral": {"films": 9, "films_without_area": 1, "moved_films": INTERVAL},
        "bilateral": {"films": 0, "films_without_area": 0},
    }
    page = summary_page(SUMMARY | {"sides": sides})
    assert "| films | 9 | 0 |" in page
    assert "| films that moved (`moved_films`) | 0.5000 [0.4000, 0.6000] | – |" in page
