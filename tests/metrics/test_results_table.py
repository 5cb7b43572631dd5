"""Tables: every number with its interval and where it comes from, and no impossible pair."""

import copy
import importlib.util
import re
from pathlib import Path

import pytest

from textray.errors import TextRayError, UsageError
from textray.evaluate.page import cell, results_table, summary_page
from textray.inference.bundle import Bundle
from textray.metrics.segmentation import SCORES

ROOT = Path(__file__).parents[2]
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


def test_each_mode_of_each_summary_is_a_row_and_provenance_stands_below():
    text = results_table([SUMMARY, SUMMARY | {"model": SUMMARY["model"] | {"name": "other"}}])
    header, _, oracle, none, *others = rows(text)
    assert header[:4] == ["model", "data", "text mode", "images"]
    assert header[4:] == ["`dice_pooled`", "`iou_pooled`", "`dice_per_image`", "`iou_per_image`"]
    assert oracle[:5] == ["tiny", "qata_cov19 val", "oracle", "1429", "0.5000 [0.4000, 0.6000]"]
    assert none[2] == "none"
    assert [row[0] for row in others] == ["other", "other"]
    for fact in (
        "textray evaluate --data qata_cov19", "0123456789ab", "with local changes", "abababababab", "cdcdcdcdcdcd",
        "224×192", "1429 images of 600 patients", "3 images without a patient", "percentile bootstrap", "20240",
        "score without its text mode",
    ):  # fmt: skip
        assert fact in text


def test_a_table_of_nothing_or_that_mixes_estimators_is_refused():
    with pytest.raises(UsageError, match="without summaries"):
        results_table([])
    mixed = copy.deepcopy(SUMMARY)
    mixed["modes"]["none"]["iou_pooled"]["value"] = 0.30
    with pytest.raises(TextRayError, match="cannot belong to the same masks"):
        results_table([mixed])


def test_the_page_holds_every_score_the_empty_masks_and_left_right_sensitivity_where_measured():
    page = summary_page(SUMMARY)
    for name in SCORES:
        assert f"| `{name}` |" in page
    assert "| empty prediction | 2 | 77 |" in page
    assert "| no text given | 2 | 1429 |" in page
    assert "Left-right" not in page
    sides = {
        "unilateral": {"films": 9, "films_without_area": 1, "moved_films": INTERVAL},
        "bilateral": {"films": 0, "films_without_area": 0},
    }
    page = summary_page(SUMMARY | {"sides": sides})
    assert "| films | 9 | 0 |" in page
    assert "| films that moved (`moved_films`) | 0.5000 [0.4000, 0.6000] | – |" in page
    for value, shown in ((None, "–"), (0.5, "0.5000")):
        assert cell({"value": value, "low": None, "high": None}) == shown


def test_a_score_without_text_of_a_network_that_never_went_without_says_so():
    named = "`W_NONE_NOT_LEARNT`: text mode `none` of model tiny: the training of this network left no report out"
    assert named in results_table([SUMMARY | {"learnt_without_report": False}])
    for learnt in (True, None):
        assert "W_NONE_NOT_LEARNT" not in results_table([SUMMARY | {"learnt_without_report": learnt}])
    only = {"learnt_without_report": False, "modes": {"oracle": SCORE}}
    assert "W_NONE_NOT_LEARNT" not in results_table([SUMMARY | only])


@pytest.fixture(scope="module")
def script():
    """The script that writes the table of the README."""
    spec = importlib.util.spec_from_file_location("write_results", ROOT / "docs" / "write_results.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_holds_the_table_that_the_script_writes(script):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme == script.fill(readme, script.results()), "run: python docs/write_results.py"


def test_the_readme_says_whose_scores_it_has(script):
    text = script.results()
    name, sha256 = re.search(r"weights `(\w+)`\s\(`(\w+)`\)", text).groups()
    bundle = Bundle.load(name)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    same = bundle.provenance.get("same_numbers_as", bundle.sha256).startswith(sha256)
    assert same != ("These scores are of the weights before the present ones" in readme)
    assert max(map(len, text.splitlines())) <= script.WIDTH
    assert len(text.splitlines()) <= 22


def test_printed_scores_stand_in_the_column_that_their_iou_fits(script):
    printed = {row[0]: row[1:] for row in rows(script.results()) if row[0].endswith("printed")}
    assert printed["MMI-UNet, printed"] == ["caption", "0.9088", "–"]
    assert printed["LViT, printed"] == ["caption", "–", "0.8366"]
    assert printed["SGSeg, printed"] == ["own report", "0.874 (unclear)", "–"]
    with pytest.raises(SystemExit, match="no masks have"):
        script.printed_cells(script.Scores.parse("90.00 / 70.00"))


def test_a_page_without_markers_and_summaries_of_different_runs_are_refused(script):
    with pytest.raises(SystemExit, match="the page has no"):
        script.fill("# A page", "table")
    with pytest.raises(SystemExit, match="not of one run"):
        script.provenance({"one": SUMMARY, "two": SUMMARY | {"images": 5}})
