"""CT slices through the commands: scored by either cut, and learnt from by a share of the volumes."""

import json

import pytest

from textray.data.base import fingerprint, keep_share
from textray.data.mosmed_plus import MosMedPlus


@pytest.mark.parametrize("split_by", ["slice", "volume"])
def test_an_evaluation_says_its_cut(mosmed, cli, tiny_bundle, tmp_path, split_by):
    root, out = mosmed("kaggle"), tmp_path / "scores"
    more = [] if split_by == "slice" else ["--split-by", split_by]
    words = ["--data", "mosmed_plus", "--root", root, "--split", "test", "--model", tiny_bundle, "--out", out, *more]
    result = cli("evaluate", *words)
    assert result.code == 0, result.err
    summary = json.loads((out / "summary.json").read_text())
    reader = MosMedPlus(root, split_by=split_by)
    assert summary["data"]["split_by"] == split_by
    assert summary["data"]["laterality"] == "unknown"
    assert summary["data"]["ids_sha256"] == fingerprint(sample.image_id for sample in reader.samples("test"))
    assert summary["images"] == len(reader.samples("test"))
    assert ("--split-by volume" in summary["command"]) == (split_by == "volume")
    page = (out / "summary.md").read_text()
    assert "W_SIDES_UNKNOWN" in page
    assert f"mosmed_plus test (cut by {split_by})" in page


def test_a_wrong_cut_is_a_wrong_usage(mosmed, cli, tiny_bundle, tmp_path):
    words = ["--data", "mosmed_plus", "--root", mosmed("kaggle"), "--model", tiny_bundle, "--out", tmp_path / "scores"]
    result = cli("evaluate", *words, "--split-by", "patient")
    assert result.code == 2
    assert "slice, volume" in result.err
    assert not (tmp_path / "scores").exists()


def test_a_training_learns_from_a_share_of_the_volumes(mosmed, tmp_path):
    mosmed("kaggle")
    module = pytest.importorskip("textray.data.segmentation")
    data = module.SegmentationData(
        "mosmed_plus", root=tmp_path / "kaggle", split_by="volume", train_fraction=0.25, size=(32, 32), workers=0
    )
    data.setup("fit")
    facts = data.describe()
    assert (facts["split_by"], facts["train_fraction"], facts["fraction_seed"]) == ("volume", 0.25, 0)
    assert facts["laterality"] == "unknown"
    reader = MosMedPlus(tmp_path / "kaggle", split_by="volume")
    kept = keep_share(reader.samples("fit"), 0.25, seed=0)
    assert facts["images"] == {"fit": len(kept), "inner": len(reader.samples("inner"))}
    assert facts["groups"] == {"fit": len({sample.group for sample in kept}), "inner": 1}
    assert len(kept) < len(reader.samples("fit")) / 2
