"""Comparisons of rows read the cases of one evaluation only."""

import json
from types import SimpleNamespace

import pytest

from textray.errors import DataError
from textray.reproduce.compare import compare
from textray.reproduce.plan import Comparison
from textray.reproduce.runner import State

TABLE = "image,patient,mode,zones,tp,fp,fn,tn,dice,iou,truth_empty,prediction_empty\n"


def entry(folder, name, hits):
    scores = folder / name / "scores"
    scores.mkdir(parents=True)
    (scores / "summary.json").write_text("{}")
    (scores / "cases.csv").write_text(TABLE + f"a,,none,,{hits},1,1,1,0.5,0.3,0,0\nb,,none,,{hits},1,1,1,0.5,0.3,0,0\n")
    row = SimpleNamespace(name=name, mode="none")
    return SimpleNamespace(row=row, data="phantom", state=State.DONE, folder=folder / name, seed=0)


def test_cases_of_another_run_are_not_compared(tmp_path):
    entries = [entry(tmp_path, "one", 1), entry(tmp_path, "two", 3)]
    question = Comparison(question="Is two better?", first="one", second="two")
    found = compare(question, entries, "phantom").differences["dice_pooled"]
    assert found.value == pytest.approx(6 / 8 - 2 / 4)
    told = {"files": {"cases.csv": "0" * 64}}
    (tmp_path / "two" / "scores" / "summary.json").write_text(json.dumps(told))
    with pytest.raises(DataError, match="different evaluations"):
        compare(question, entries, "phantom")
