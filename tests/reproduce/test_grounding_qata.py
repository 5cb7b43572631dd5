"""The table of grounding networks: trained without masks, scored beside floors and controls, gone on with."""

import csv
import json
from dataclasses import replace

import pytest

pytest.importorskip("lightning")
from textray.errors import UsageError
from textray.reproduce import fit, trainings
from textray.reproduce.catalogue import Order
from textray.reproduce.grounding_compare import between, read_cases
from textray.reproduce.grounding_page import csv_table
from textray.reproduce.grounding_qata import BUDGETS, TABLES, run_of
from textray.reproduce.plan import Budget, Comparison, Row, Table
from textray.reproduce.runner import Entry, State
from textray.reproduce.trainings import merged, open_source, plan_job

pytestmark = pytest.mark.filterwarnings("ignore")  # a training in this process says what a user sees

RECIPE = """\
task: grounding
data:
  size: [64, 64]
  normalise: percentile
  augment: none
  batch_size: 4
  limit: 8
  workers: 0
model:
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
  lr: 1.0e-3
"""
SENTENCE = Row(name="sentence", label="sentence", model="sentence_grounding")
WORD = Row(name="word", label="word", model="sentence_grounding", arguments=("--model.local_unit=word",))
BROKEN = Row(name="broken", label="broken", model="sentence_grounding", arguments=("--data.paraphrase=2",))
QUESTION = Comparison(question="Is sentence better than word?", first="word", second="sentence")


def table(*rows):
    return Table(name="trial", title="Trial", rows=rows, data=("qata_cov19",), comparisons=(QUESTION,))


@pytest.fixture
def budgets(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["textray"])
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(RECIPE)
    return {
        "small": Budget(
            name="small", words="a trial.", recipes=(), networks={"sentence_grounding": str(recipe)}, epochs=1
        )
    }


@pytest.mark.slow
def test_a_row_is_trained_exported_and_scored(budgets, qata, tmp_path):
    order = Order(name="trial", out=tmp_path / "out", seeds=1, threads=1, roots={"qata_cov19": qata}, tell=print)
    assert run_of(table(WORD), budgets, order) == 0
    (home,) = (order.out / "rows").iterdir()
    result = json.loads((home / "result.json").read_text())
    assert (result["local_unit"], result["mode"], result["images"]["fit"]) == ("word", "paper", 8)
    assert set(result["scores"]) == {"caption", "clause"}
    assert result["parameters"] > 1000
    assert not list(order.out.rglob("*.ckpt"))


def test_rows_are_made_once_beside_floors_and_controls_and_a_bad_one_ends_no_other(budgets, qata, tmp_path, quick_rows):
    made, told, quick_rows.refused = quick_rows.made, [], "--data.paraphrase=2"
    order = Order(name="trial", out=tmp_path / "out", seeds=1, threads=1, roots={"qata_cov19": qata}, tell=told.append)
    whole = table(SENTENCE, BROKEN, WORD)
    assert run_of(whole, budgets, order) == 3, told
    assert len(made) == 3
    assert sum("--model.local_unit=word" in words for words in made) == 1
    with (order.out / "trial-small" / "table.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    states = {line["row"]: line["state"] for line in lines if line["seed"]}
    assert states == {"sentence": "done", "broken": "failed", "word": "done"}
    assert "data.paraphrase" in next(line["reason"] for line in lines if line["row"] == "broken")
    rows = {(line["row"], line["maps"], line["phrases"], line["normalise"]): line for line in lines}
    assert len(rows) == len(lines), "floors are told once"
    for kind in ("caption", "clause"):
        for how in ("minmax", "none"):
            for floor in ("mean_mask", "mean_phrase", "centre", "full"):
                assert float(rows[floor, floor, kind, how]["iou"]) > 0
            for maps in ("model", "mirrored", "shuffled", "random_heads"):
                assert {"word", "sentence"} == {r for r, m, k, h in rows if (m, k, h) == (maps, kind, how)}
    own = rows["word", "model", "caption", "minmax"]
    assert (own["local_unit"], own["images_fit"], own["split"]) == ("word", "8", "val")

    (home,) = (path for path in (order.out / "rows").iterdir() if own["settings"].startswith(path.name[-8:]))
    summary = json.loads((home / "scores/caption/summary.json").read_text())
    assert float(own["dice"]) == summary["rows"]["model"]["minmax"]["scores"]["dice"]["value"]
    cases = read_cases(home / "scores/caption")
    found = [case[2] for case in cases["model", "minmax"].values()]
    assert sum(found) / len(found) == pytest.approx(float(own["dice"]), abs=1e-5)
    page = (order.out / "trial-small" / "table.md").read_text()
    assert "| Is sentence better than word? | minmax | " in page
    assert "| Is sentence better than word? | minmax | – " not in page
    assert "| Is word above the mean training mask? | none | " in page
    assert "Is broken above" not in page
    assert "| broken | `model` | failed: " in page
    assert str(order.out) not in page
    assert str(qata) not in page
    assert not list(order.out.rglob("*.ckpt"))

    again = table(SENTENCE, WORD)
    assert run_of(again, budgets, order) == 0
    assert len(made) == 3, "nothing is made again"
    entries = [
        Entry(row=row, data="qata_cov19", seed=0, state=State.DONE, folder=home, result={}) for row in (SENTENCE, WORD)
    ]
    answer = between(QUESTION, entries, "caption", "none")
    assert answer.by_seed["dice"] == (0.0,), "a row and itself"
    assert answer.verdict("dice") == "not told apart"


def test_rows_differ_in_what_they_are_named_for_and_each_is_a_training_of_its_own(qata, monkeypatch):
    monkeypatch.setattr(trainings, "__version__", "0.1.0")
    source = open_source("qata_cov19", qata)
    found = TABLES["grounding-qata"]
    for budget in BUDGETS.values():
        rows = [row for row in found.rows if (row.recipe or row.model) in budget.networks]
        assert [row.name for row in found.rows if row not in rows] == (["places"] if budget.name == "full" else [])
        jobs = [plan_job(row, source, 0, budget) for row in rows]
        assert len({job.hash for job in jobs}) == len(jobs)
        assert all(f"-{job.row.name}-" in job.folder for job in jobs)
        if budget.name == "small":  # the recipe of the weights inside, at the others' pixels
            own = merged(jobs.pop().recipes)
            assert own["model"]["contrast"] == "sigmoid"
            assert own["data"]["sentence_sampling"] == "one_zone"
            assert own["data"]["size"] == [128, 128]
        shared = set(jobs[0].words)
        for job in jobs:
            assert len([word for word in job.words if word not in shared]) == len(job.row.arguments)
            assert len(job.row.arguments) <= 1
            assert set(job.row.modes) == {"oracle"}
        tree = merged(jobs[0].recipes)
        assert tree["task"] == "grounding"
        assert tree["model"]["targets"] in ("entailed", "identical_text"), "captions repeat"
        for key, paper in (("match", "cosine"), ("contrast", "softmax"), ("global_weight", 1.0)):
            assert tree["model"].get(key, paper) == paper
        assert tree["data"].get("sentence_sampling", "all") == "all"
    names = {row.name for row in found.rows}
    assert {name for c in found.comparisons for name in (c.first, c.second)} == names
    assert merged(plan_job(found.rows[0], source, 0, BUDGETS["small"]).recipes)["data"]["size"] == [128, 128]


def test_a_text_encoder_folder_is_that_of_the_network_that_learns(qata, tmp_path):
    source = open_source("qata_cov19", qata)
    job = plan_job(TABLES["grounding-qata"].rows[0], source, 0, BUDGETS["full"])
    options = fit.Options(out=tmp_path, text_encoder=tmp_path / "bert", tell=print)
    assert f"--model.network.init_args.config.text.weights={tmp_path / 'bert'}" in fit._folders(job, options)


def test_a_wrong_budget_or_row_is_told_before_anything_is_read(tmp_path):
    order = Order(name="grounding-qata", out=tmp_path, budget="huge")
    with pytest.raises(UsageError, match="huge"):
        run_of(TABLES["grounding-qata"], BUDGETS, order)
    with pytest.raises(UsageError, match="sentenc"):
        run_of(TABLES["grounding-qata"], BUDGETS, replace(order, budget="small", rows=("sentenc",)))


def test_a_row_that_is_not_made_has_one_line():
    entry = Entry(row=SENTENCE, data="qata_cov19", seed=None, state=State.NO_ROOT)
    (line,) = csv.DictReader(csv_table(table(SENTENCE), [entry]).splitlines())
    assert (line["row"], line["state"], line["iou"]) == ("sentence", "no --root given", "")
