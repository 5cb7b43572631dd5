"""Comparisons of rows read the cases of one evaluation only."""

import json
from types import SimpleNamespace

import pytest

from textray.errors import DataError
from textray.reproduce.compare import Verdict, compare
from textray.reproduce.plan import Comparison
from textray.reproduce.runner import State

TABLE = "image,patient,mode,zones,tp,fp,fn,tn,dice,iou,truth_empty,prediction_empty\n"


def entry(folder, name, hits, *, seed=0, images="ab"):
    folder = folder / f"{name}-{seed}"
    scores = folder / "scores"
    scores.mkdir(parents=True)
    (scores / "summary.json").write_text("{}")
    lines = [f"{image},,none,,{hits},1,1,1,0.5,0.3,0,0\n" for image in images]
    (scores / "cases.csv").write_text(TABLE + "".join(lines))
    row = SimpleNamespace(name=name, mode="none")
    return SimpleNamespace(row=row, data="phantom", state=State.DONE, folder=folder, seed=seed)


def test_cases_of_another_run_are_not_compared(tmp_path):
    entries = [entry(tmp_path, "one", 1), entry(tmp_path, "two", 3)]
    question = Comparison(question="Is two better?", first="one", second="two")
    found = compare(question, entries, "phantom").differences["dice_pooled"]
    assert found.value == pytest.approx(6 / 8 - 2 / 4)
    told = {"files": {"cases.csv": "0" * 64}}
    (tmp_path / "two-0" / "scores" / "summary.json").write_text(json.dumps(told))
    with pytest.raises(DataError, match="different evaluations"):
        compare(question, entries, "phantom")


def test_rows_of_other_images_are_not_compared(tmp_path):
    entries = [entry(tmp_path, "one", 1), entry(tmp_path, "two", 3, images="ac")]
    with pytest.raises(DataError, match="one and two were scored on other images"):
        compare(Comparison(question="Is two better?", first="one", second="two"), entries, "phantom")


def test_better_by_one_seed_says_so(tmp_path):
    question = Comparison(question="Is two better?", first="one", second="two")
    entries = [entry(tmp_path, "one", 1), entry(tmp_path, "two", 3)]
    alone = compare(question, entries, "phantom")
    assert (alone.words("dice_pooled"), alone.verdict("dice_pooled")) == ("better, one seed", Verdict.BETTER)
    entries += [entry(tmp_path, "one", 1, seed=1), entry(tmp_path, "two", 3, seed=1)]
    assert compare(question, entries, "phantom").words("dice_pooled") == "better"
    entries += [entry(tmp_path, "one", 2, seed=2), entry(tmp_path, "two", 1, seed=2)]
    assert compare(question, entries, "phantom").words("dice_pooled") == "not told apart"  # a seed says otherwise
    assert compare(question, entries[:1], "phantom").words("dice_pooled") == "rows are missing"
