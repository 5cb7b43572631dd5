"""SGSeg's tables: rows that share a training, rows with a training before their own, and hashes that stay."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("lightning")
from textray.reproduce import fit, tables, trainings
from textray.reproduce.catalogue import Order
from textray.reproduce.page import SCORES, csv_table, markdown
from textray.reproduce.plan import Budget, Comparison, Row, Table
from textray.reproduce.printed import SGSEG_TABLE_2, PrintedRow, Protocol, Scores
from textray.reproduce.runner import Entry, State
from textray.reproduce.sgseg_tables import BUDGETS, TABLES
from textray.reproduce.trainings import Source, merged, open_source, plan_job

pytestmark = pytest.mark.filterwarnings("ignore")  # a training in this process says what a user sees

SHARED = """\
data:
  size: [64, 64]
  normalise: percentile
  augment: sgseg
  batch_size: 4
  limit: 8
  workers: 0
model:
  text_encoder: tiny
  max_tokens: 40
"""
DECODER = (
    "{trunk: efficientnet_lite0, text_width: 32, tokens: 40, decoder_channels: [8, 8, 8], mixed_tokens: [4, 4, 4]}"
)
ALONE = f"""\
model:
  network:
    class_path: textray.models.guide_decoder.GuideDecoder
    init_args:
      config: {DECODER}
"""
SGSEG = f"""\
model:
  network:
    class_path: textray.models.sgseg.SGSegSimple
    init_args:
      config:
        locator: {{trunk: efficientnet_lite0, width: 8}}
        guide_decoder: {DECODER}
        tokens: 40
  zone_weight: 1.0
"""
WRITES = Row(name="writes", label="Writes", model="sgseg_simple", text="generated", printed="Full Text")
TOLD = Row(name="told", label="Told", model="sgseg_simple", text="generated", scored="oracle", printed="Full Text")
CLIP = Row(name="clip", label="CLIP", model="guide_decoder", text="none", before="contrastive")
ALONE_ROW = Row(name="alone", label="Alone", model="guide_decoder", text="none")
PRINTED = PrintedRow(label="Full Text", scores={"phantom": SGSEG_TABLE_2[-1].scores["qata_cov19"]})
QATA = Source(
    name="qata_cov19",
    root=Path("x"),
    split="val",
    ids={"fit": "a", "inner": "b", "val": "c"},
    images={"fit": 5160, "inner": 556, "val": 1429},
)


@pytest.fixture
def budget(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["textray"])
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    paths = {}
    for name, text in (("shared", SHARED), ("guide_decoder", ALONE), ("sgseg_simple", SGSEG)):
        paths[name] = tmp_path / f"{name}.yaml"
        paths[name].write_text(text)
    return Budget(
        name="trial",
        words="a trial.",
        recipes=(str(paths["shared"]),),
        networks={name: str(paths[name]) for name in ("guide_decoder", "sgseg_simple")},
        epochs=1,
    )


def table(*rows, comparisons=()):
    return Table(name="trial", title="Trial", rows=rows, printed=(PRINTED,), data=("phantom",), comparisons=comparisons)


@pytest.mark.parametrize(
    ("budget", "name", "row", "seed", "start"),
    [
        ("small", "mmi-unet-table2", "mmi_unet", 0, "bf426430883a80367997f0ea"),
        ("small", "mmi-unet-table2", "mmi_unet_gd", 1, "74a240289fc70e3072770af3"),
        ("small", "mmi-unet-table3", "mmi_unet-15", 0, "2b1d0886786597223780cab2"),
        ("small", "mmi-unet-table3", "mmi_unet-without-text", 0, "81225619082b306922e70190"),
        ("full", "mmi-unet-table1", "unet", 0, "73c923d79107a37eca23fccaa714"),
        ("small", "sgseg-table2", "lerg", 0, "96835a17f0a8b882290029b6"),
        ("small", "sgseg-table2", "clip", 1, "de6615cd38bdc911a7f52fc8"),
        ("full", "sgseg-table2", "soft_zones", 0, "fb42dabf321ce9d3d3a2acbe"),
    ],
)
def test_rows_that_were_made_before_are_found_again(budget, name, row, seed, start, monkeypatch):
    """Hours of training hang on these; another hash means another recipe, never another way to write it down."""
    monkeypatch.setattr(trainings, "__version__", "0.1.0")
    known, budgets = (TABLES, BUDGETS) if name in TABLES else (tables.TABLES, tables.BUDGETS)
    (found,) = [r for r in known[name].rows if r.name == row]
    job = plan_job(found, QATA, seed, budgets[budget])
    assert job.hash.startswith(start)
    assert job.folder.endswith(f"seed{seed}-{start[:8]}")


def test_two_modes_of_one_training_are_one_row_and_a_stage_is_part_of_the_hash(budget):
    source = open_source("phantom", None)
    writes, told = (plan_job(row, source, 0, budget) for row in (WRITES, TOLD))
    assert (writes.hash, writes.folder) == (told.hash, told.folder)
    assert (WRITES.mode, TOLD.mode, TOLD.learnt) == ("generated", "oracle", "generated")
    clip, alone = (plan_job(row, source, 0, budget) for row in (CLIP, ALONE_ROW))
    assert alone.before is None
    assert clip.hash != alone.hash
    assert clip.before.folder.startswith("contrastive-guide_decoder-phantom-seed0-")
    longer = plan_job(CLIP, source, 0, replace(budget, epochs_before=3))
    assert longer.before.hash != clip.before.hash
    assert longer.hash != clip.hash
    changed = plan_job(replace(WRITES, arguments=("--data.labels=clusters",)), source, 0, budget)
    assert changed.hash != writes.hash


def test_stages_are_made_once_and_weights_are_scored_in_every_mode(budget, tmp_path, quick_rows):
    told, made = [], quick_rows.made
    order = Order(name="trial", out=tmp_path / "out", seeds=1, threads=1, tell=told.append)
    question = Comparison(question="Does the caption help?", first="writes", second="told")
    whole = table(CLIP, WRITES, TOLD, comparisons=(question,))
    assert tables.make(whole, budget, order) == 0, told
    stage, clip, writes = made
    assert "2 trainings, 0 of them done" in told[0]
    assert "--task=contrastive" in stage
    (start,) = [word for word in clip if word.startswith("--model.initial=")]
    assert "contrastive-guide_decoder-phantom-seed0" in start
    assert not any(word.startswith("--model.initial") for word in writes)
    with (order.out / "trial-trial" / "table.csv").open(newline="") as file:
        rows = {row["row"]: row for row in csv.DictReader(file)}
    assert {name: (row["state"], row["text_mode"]) for name, row in rows.items()} == {
        "clip": ("done", "none"),
        "writes": ("done", "generated"),
        "told": ("done", "oracle"),
    }
    assert rows["writes"]["settings"] == rows["told"]["settings"]
    assert 0 <= float(rows["writes"]["sentence_share"]) <= 1
    assert rows["told"]["sentence_share"] == rows["clip"]["sentence_share"] == ""
    assert (rows["clip"]["steps_before"], rows["writes"]["steps_before"]) == ("2", "0")
    assert "&&" in rows["clip"]["command"]
    (home,) = (order.out / "rows").glob("sgseg_simple-*")
    result = json.loads((home / "result.json").read_text())
    assert set(result["other_scores"]) == {"oracle", "none"}
    for name, scores in (("writes", result["scores"]), ("told", result["other_scores"]["oracle"])):
        assert float(rows[name]["dice_pooled"]) == scores["dice_pooled"]["value"]
        assert float(rows[name]["accuracy_pooled"]) == scores["accuracy_pooled"]["value"]
    page = (order.out / "trial-trial" / "table.md").read_text()
    assert "97.3 / 89.0 / 79.7" in page
    assert "Full Text: 97.3 / 89.0 / 79.7, J 0.48 points below" in page
    assert "Does the caption help? | –" not in page
    assert str(order.out) not in page + (order.out / "trial-trial" / "table.csv").read_text()
    kept = sorted(path.parents[2].name.split("-")[0] for path in order.out.rglob("*.ckpt"))
    assert kept == ["contrastive"]

    assert tables.make(whole, budget, order) == 0
    assert len(made) == 3
    (home,) = (order.out / "rows").glob("guide_decoder-*")
    (home / "result.json").unlink()
    assert tables.make(whole, budget, order) == 0
    assert len(made) == 4, "the row again, the stage not"
    assert made[3] == clip


def test_packages_for_sentences_are_asked_for_before_the_training(budget, tmp_path, monkeypatch):
    def missing():
        raise fit.UsageError("a package is missing")

    monkeypatch.setattr("textray.reproduce.runner.TextScorer", missing)
    order = Order(name="trial", out=tmp_path / "out", seeds=1, tell=lambda line: None)
    with pytest.raises(fit.UsageError, match="a package is missing"):
        tables.make(table(WRITES), budget, order)
    assert not list((tmp_path / "out").rglob("run"))


def test_results_of_earlier_versions_are_read():
    score = {"value": 0.5, "low": 0.4, "high": 0.6}
    scores = {name: score | ({"value": 1 / 3} if name.startswith("iou") else {}) for name in SCORES}
    result = {
        "text_mode": "none", "split": "test", "images": {"fit": 8, "inner": 2, "test": 9}, "patients": 9,
        "scores": scores | {"accuracy_pooled": score}, "trainable": 1, "gmacs": 1.0, "train_seconds": 1.0,
        "evaluate_seconds": 1.0, "steps": 2, "epochs": 1, "best_epoch": 1, "size": [32, 32], "ids_sha256": "0",
        "git": None, "versions": {}, "estimator": "none", "data": "phantom", "settings": "0", "command": "",
    }  # fmt: skip
    entry = Entry(row=ALONE_ROW, data="phantom", seed=0, state=State.DONE, result=result)
    (row,) = csv.DictReader(csv_table(table(ALONE_ROW), [entry]).splitlines())
    assert (row["dice_pooled"], row["accuracy_pooled"], row["steps_before"]) == ("0.5", "0.5", "0")
    page = markdown(table(ALONE_ROW), BUDGETS["small"], [entry], seeds=1, command="")
    assert "`accuracy_pooled`" in page
    assert "with a sentence" not in page
    assert "accuracy" not in markdown(
        replace(table(ALONE_ROW), printed=()), BUDGETS["small"], [entry], seeds=1, command=""
    )


def test_every_row_has_its_recipe_and_its_place():
    for found in TABLES.values():
        names = [row.name for row in found.rows]
        assert len(names) == len(set(names))
        assert {name for c in found.comparisons for name in (c.first, c.second)} <= set(names)
        assert [row.label for row in found.printed] == [row.printed for row in found.rows if row.printed]
        for row in found.rows:
            assert row.mode in row.modes
            for budget in BUDGETS.values():
                if row.exists and (row.model != "lvit" or budget.name == "small"):
                    recipe = merged((budget.networks[row.recipe or row.model],))
                    wanted = {
                        "guide_decoder": "GuideDecoder",
                        "sgseg": "SGSeg",
                        "sgseg_simple": "SGSegSimple",
                        "lvit": "LViT",
                    }
                    path = recipe["model"]["network"]["class_path"]
                    assert path.split(".")[-1] == wanted.get(row.model, "UNet")
    modes = {row.name: row.mode for row in TABLES["sgseg-table2"].rows}
    assert [modes[n] for n in ("without_text", "clip", "simple", "lerg", "full_text", "silent")] == [
        "none", "none", "generated", "generated", "oracle", "none"
    ]  # fmt: skip


def test_the_segmenter_of_every_row_is_the_same():
    for budget in BUDGETS.values():
        alone = merged((budget.networks["guide_decoder"],))["model"]["network"]["init_args"]["config"]
        for name in ("sgseg", "sgseg_simple"):
            config = merged((budget.networks[name],))["model"]["network"]["init_args"]["config"]
            assert config["guide_decoder"] == alone


def test_two_printed_rows_of_the_ablation_cannot_be():
    found = {row.label: row.scores["qata_cov19"].protocol for row in SGSEG_TABLE_2}
    assert [label for label, protocol in found.items() if protocol is Protocol.IMPOSSIBLE] == [
        "Without Text", "Full Text"
    ]  # fmt: skip
    assert found["Vision-language pre-training (CLIP)"] is Protocol.POOLED
    assert Scores(dice=87.4, iou=77.8, decimals=1).protocol is Protocol.UNCLEAR
