"""CT slices through the commands: scored by either cut, and learnt from by a share of the volumes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from textray.data.mosmed_plus import MosMedPlus
from textray.data.phantom_ct import PhantomCT


@pytest.mark.parametrize("split_by", ["slice", "volume"])
def test_an_evaluation_says_its_cut(
    mosmed: Callable[[str], Path], cli: Callable, tiny_bundle: Path, tmp_path: Path, split_by: str
) -> None:
    root, out = mosmed("kaggle"), tmp_path / "scores"
    more = [] if split_by == "slice" else ["--split-by", split_by]
    words = ["--data", "mosmed_plus", "--root", root, "--split", "test", "--model", tiny_bundle, "--out", out, *more]
    result = cli("evaluate", *words)
    assert result.code == 0, result.err
    summary = json.loads((out / "summary.json").read_text())
    reader = MosMedPlus(root, split_by=split_by)
    assert summary["data"]["split_by"] == split_by
    assert summary["data"]["laterality"] == "unknown"
    assert summary["data"]["ids_sha256"] == reader.fingerprint("test")
    assert summary["images"] == len(reader.samples("test"))
    assert ("--split-by volume" in summary["command"]) == (split_by == "volume")
    page = (out / "summary.md").read_text()
    assert "W_SIDES_UNKNOWN" in page
    assert f"mosmed_plus test (cut by {split_by})" in page


def test_a_wrong_cut_is_a_wrong_usage(cli: Callable, tiny_bundle: Path, tmp_path: Path) -> None:
    words = ["--data", "phantom_ct", "--model", tiny_bundle, "--out", tmp_path / "scores"]
    result = cli("evaluate", *words, "--split-by", "patient")
    assert result.code == 2
    assert "slice, volume" in result.err
    assert not (tmp_path / "scores").exists()


def test_a_training_learns_from_a_share_of_the_volumes(monkeypatch: pytest.MonkeyPatch) -> None:
    module = pytest.importorskip("textray.data.module")
    monkeypatch.setattr(PhantomCT.__init__, "__kwdefaults__", {**PhantomCT.__init__.__kwdefaults__, "size": (32, 32)})
    data = module.SegmentationData("phantom_ct", split_by="volume", train_fraction=0.25, size=(32, 32), workers=0)
    data.setup("fit")
    facts = data.describe()
    assert (facts["split_by"], facts["train_fraction"], facts["fraction_seed"]) == ("volume", 0.25, 0)
    assert facts["laterality"] == "unknown"
    assert facts["images"] == {"fit": 18, "inner": 6}  # a quarter of 22 volumes with 3 slices, 2 more select
    assert facts["groups"] == {"fit": 6, "inner": 2}
