"""Rows that are really trained: killed, gone on with, exported, scored, written."""

import csv
import json
from dataclasses import replace

import pytest

pytest.importorskip("lightning")
from lightning.pytorch.callbacks import Timer

from textray.reproduce import Order, runner
from textray.reproduce.tables import Budget, Question, Table, TableRow, read_tables

# A training in this process says what a user sees on the standard error; pytest would make errors of it.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

LVIT = """\
data: {size: [32, 32], normalise: percentile, augment: light, batch_size: 8, workers: 0}
model:
  text_encoder: tiny
  network:
    class_path: textray.models.lvit.LViT
    init_args:
      config: {channels: 8, size: [32, 32], text_width: 32}
"""
SEMI = "{task: semi_supervised, model: {beta: 0.5}}"
GROUNDING = """\
task: grounding
data: {size: [64, 64], normalise: percentile, augment: none, batch_size: 4, limit: 8, workers: 0}
model:
  lr: 1.0e-3
  network:
    class_path: textray.models.sentence_grounding.SentenceGrounding
    init_args:
      config:
        trunk: efficientnet_lite0
        enlarge: null
        width: 16
        text:
          encoder: own
          last_layers: 1
          own: {pieces: 512, width: 16, layers: 1, heads: 2, feed_forward: 32}
"""
TEACHER = TableRow(name="teacher", label="Teacher", model="lvit", fraction=0.25, length=0.5, teaches=True)
PUPIL = TableRow(
    name="pupil", label="Pupil", model="lvit", labelled=0.25, teacher=TEACHER, arguments=("--model.lv_weight=0",)
)


class Killed(BaseException):
    """What no handler of errors catches, as a kill."""


@pytest.fixture
def budget(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXTRAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("sys.argv", ["textray"])
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    paths = {}
    for name, text in (("lvit", LVIT), ("sentence_grounding", GROUNDING), ("semi", SEMI)):
        paths[name] = str(tmp_path / f"{name}.yaml")
        (tmp_path / f"{name}.yaml").write_text(text)
    return Budget(name="trial", words="a trial.", networks=paths, epochs=2, semi=(paths.pop("semi"),))


def table(like, *rows, data):
    question = Question(words="Is the second better?", first=rows[0].name, second=rows[-1].name)
    return Table(
        name="trial", title="Trial", texts=read_tables()[like].texts, rows=rows, data=(data,), questions=(question,)
    )


def page_of(order):
    with (order.out / "trial-trial/table.csv").open(newline="") as file:
        return (order.out / "trial-trial/table.md").read_text(), list(csv.DictReader(file))


def test_a_row_that_is_cut_off_goes_on_at_its_last_whole_epoch_from_the_same_teacher(budget, tmp_path, monkeypatch):
    begun, lines = [], []

    def start(self, trainer, pl_module):
        begun.append(trainer.current_epoch)

    def die(self, trainer, *args, **kwargs):
        if "masks25pct" in trainer.default_root_dir and trainer.current_epoch == 1 and len(begun) == 3:
            raise Killed

    monkeypatch.setattr(Timer, "on_train_epoch_start", start)
    monkeypatch.setattr(Timer, "on_train_batch_end", die)
    order = Order(name="trial", out=tmp_path / "out", seeds=1, threads=1, tell=lines.append)
    whole = table("lvit-ablation", PUPIL, TEACHER, data="phantom")
    with pytest.raises(Killed):
        runner.make(whole, budget, order)
    assert not list(order.out.rglob("result.json"))
    assert runner.make(whole, budget, order) == 0, lines
    assert begun == [0, 0, 1, 1], "the teacher's, and the row's second one again"
    page, (pupil, teacher) = page_of(order)
    assert (pupil["state"], teacher["state"]) == ("done", "done")
    assert (pupil["epochs"], pupil["labelled"], pupil["split"]) == ("2", "0.25", "test")
    assert int(pupil["images_fit"]) > 2 * int(teacher["images_fit"])
    assert pupil["steps_before"] == teacher["steps"]
    assert "&&" in pupil["command"]
    assert "CHECKPOINT" in pupil["command"]
    assert float(pupil["train_seconds"]) > 0
    for row in (pupil, teacher):
        dice = float(row["dice_pooled"])
        assert float(row["iou_pooled"]) == pytest.approx(dice / (2 - dice), abs=1e-9)
        assert float(row["dice_pooled_low"]) <= dice <= float(row["dice_pooled_high"])
        assert int(row["trainable"]) > 1000
        assert float(row["gmacs"]) > 0
    assert str(order.out) not in page + (order.out / "trial-trial/table.csv").read_text()
    assert "Is the second better? | –" not in page
    facts = [json.loads(path.read_text())["provenance"]["data"] for path in order.out.rglob("bundle/config.json")]
    assert len({about["labelled"]["ids_sha256"] for about in facts}) == 1, "both saw the same masks"
    assert [path.parents[2].name.split("-seed")[0] for path in order.out.rglob("*.ckpt")] == [
        "lvit-phantom-oracle-25pct"
    ]
    assert not list(order.out.rglob("pseudo_labels"))


def test_rows_of_maps_stand_beside_floors_and_controls_and_a_bad_one_ends_no_other(budget, qata, tmp_path):
    lines = []
    word = TableRow(
        name="word", label="word", model="sentence_grounding", length=0.5, arguments=("--model.local_unit=word",)
    )
    broken = replace(word, name="broken", label="broken", arguments=("--data.paraphrase=2",))
    order = Order(name="trial", out=tmp_path / "out", seeds=1, threads=1, roots={"qata_cov19": qata}, tell=lines.append)
    whole = table("grounding-qata", broken, word, data="qata_cov19")
    assert runner.make(whole, budget, order) == 3, lines
    page, values = page_of(order)
    assert {row["row"]: row["state"] for row in values if row["seed"]} == {"broken": "failed", "word": "done"}
    assert "data.paraphrase" in next(row["reason"] for row in values if row["row"] == "broken")
    rows = {(row["row"], row["maps"], row["phrases"], row["normalise"]): row for row in values}
    assert len(rows) == len(values), "floors are listed once"
    for kind in ("caption", "clause"):
        for how in ("minmax", "none"):
            assert all(float(rows[m, m, kind, how]["iou"]) > 0 for m in ("mean_mask", "mean_phrase", "centre", "full"))
            assert {("word", m, kind, how) for m in ("model", "mirrored", "shuffled", "random_heads")} <= set(rows)
    network = rows["word", "model", "caption", "minmax"]
    assert (network["local_unit"], network["images_fit"], network["split"]) == ("word", "8", "val")
    (home,) = (path for path in (order.out / "rows").iterdir() if network["settings"].startswith(path.name[-8:]))
    summary = json.loads((home / "scores/caption/summary.json").read_text())
    assert float(network["dice"]) == summary["rows"]["model"]["minmax"]["scores"]["dice"]["value"]
    assert "| Is word above the mean training mask? | none | " in page
    assert "| Is word above the mean training mask? | none | – " not in page
    assert "Is broken above" not in page
    assert "| broken | `model` | failed: " in page
    assert str(order.out) not in page
    assert str(qata) not in page
    assert not list(order.out.rglob("*.ckpt"))
