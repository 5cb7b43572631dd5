"""LViT's tables: rows that share a training, rows with a teacher before their own, and steps that are the same."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

pytest.importorskip("lightning")
from textray.reproduce import fit, tables
from textray.reproduce.catalogue import REPRODUCTIONS, Order
from textray.reproduce.lvit_tables import MONUSEG_BUDGETS, QATA_BUDGETS, TABLES
from textray.reproduce.page import markdown
from textray.reproduce.plan import Budget, Comparison, Row, Table
from textray.reproduce.runner import Entry, State
from textray.reproduce.trainings import Source, merged, open_source, plan_job
from textray.training import cli as training

pytestmark = pytest.mark.filterwarnings("ignore")  # a training in this process says what a user sees

SHARED = """\
data:
  size: [32, 32]
  normalise: percentile
  augment: light
  batch_size: 8
  workers: 0
model:
  text_encoder: tiny
"""
LVIT = """\
model:
  network:
    class_path: textray.models.lvit.LViT
    init_args:
      config: {channels: 8, size: [32, 32], text_width: 32}
"""
SEMI = """\
task: semi_supervised
model:
  beta: 0.5
"""
TEACHER = Row(name="teacher", label="Teacher", model="lvit", fraction=0.25, length=0.5, teaches=True)
EPI = Row(
    name="epi", label="EPI", model="lvit", labelled=0.25, teacher=TEACHER, arguments=("--model.lv_weight=0",),
    more_seeds=1,
)  # fmt: skip
LV = replace(EPI, name="lv", label="EPI + LV", arguments=())
IDS = {"fit": "a", "inner": "b", "val": "c"}
QATA = Source(name="qata_cov19", root=Path("x"), split="val", ids=IDS, images={"fit": 5160, "inner": 556, "val": 1429})
MONUSEG = Source(name="monuseg", root=Path("x"), split="val", ids=IDS, images={"fit": 20, "inner": 4, "val": 6})
PLANS = [(name, QATA, budget) for name in ("lvit-qata", "lvit-ablation") for budget in QATA_BUDGETS.values()]
PLANS += [("lvit-monuseg", MONUSEG, budget) for budget in MONUSEG_BUDGETS.values()]
SMALL = QATA_BUDGETS["small"]


class Parsed(Exception):  # noqa: N818 -- carries a result, not a failure
    """The configuration, before anything of it is built."""


class ParseOnly(training.TrainCLI):
    def instantiate_classes(self):
        raise Parsed(self.parser.dump(self.config, skip_none=False))


@pytest.fixture
def parse(monkeypatch, tmp_path):
    """What `textray train` would build from these arguments: ``parse(words) -> dict``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["textray"])
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")

    def run(words):
        with monkeypatch.context() as patch:
            patch.setattr(training, "TrainCLI", ParseOnly)
            with pytest.raises(Parsed) as found:
                training.main(list(words))
        return yaml.safe_load(found.value.args[0])

    return run


@pytest.fixture
def budget(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["textray"])
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    paths = {}
    for name, text in (("shared", SHARED), ("lvit", LVIT), ("semi", SEMI)):
        paths[name] = tmp_path / f"{name}.yaml"
        paths[name].write_text(text)
    return Budget(
        name="trial",
        words="a trial.",
        recipes=(str(paths["shared"]),),
        networks={"lvit": str(paths["lvit"])},
        epochs=2,
        semi=(str(paths["semi"]),),
    )


def row_of(name, table="lvit-ablation"):
    (found,) = [row for row in TABLES[table].rows if row.name == name]
    return found


def table(*rows, comparisons=()):
    return Table(name="trial", title="Trial", rows=rows, data=("phantom",), comparisons=comparisons)


@pytest.mark.parametrize(("name", "source", "budget"), PLANS, ids=lambda value: getattr(value, "name", str(value)))
def test_every_row_is_planned_as_textray_trains_it(name, source, budget, parse):
    seen = {}
    for row in TABLES[name].rows:
        job = plan_job(row, source, 1, budget)
        if job.hash in seen:
            continue
        found = parse(job.words)
        seen[job.hash] = row.name
        network = found["model"]["network"]
        assert network["class_path"].endswith(".LViT" if row.model == "lvit" else ".UNet")
        assert found["data"]["data"] == source.name
        if row.model == "lvit":
            assert network["init_args"]["config"]["size"] == found["data"]["size"]
            assert network["init_args"]["config"]["tokens"] >= found["model"]["max_tokens"]
        assert found["task"] == ("semi_supervised" if row.labelled < 1 else "segmentation")
        assert found["data"].get("labelled_fraction", 1) == row.labelled
        assert found["data"]["fraction_seed"] == (1 if min(row.fraction, row.labelled) < 1 else 0)
        for key in ("beta", "epi", "lv_weight"):
            assert (key in found["model"]) == (row.labelled < 1)
    assert name in REPRODUCTIONS


def test_names_labels_and_questions_fit_together():
    for found in TABLES.values():
        names = [row.name for row in found.rows]
        assert len(names) == len(set(names))
        assert {name for c in found.comparisons for name in (c.first, c.second)} <= set(names)
        assert {row.printed for row in found.rows if row.printed} >= {row.label for row in found.printed} - {"UNet"}
    printed = TABLES["lvit-qata"].printed_row(row_of("lvit", "lvit-qata"))
    assert str(printed.scores["qata_cov19"]) == "83.66 / 75.11"
    assert not TABLES["lvit-monuseg"].printed, "no IoU of it is known, so nothing is printed beside ours"


def test_tables_share_rows():
    shared = [plan_job(row_of(name, "lvit-qata"), QATA, 0, SMALL).hash for name in ("lvit", "without_text", "unet")]
    assert shared[:2] == [plan_job(row_of(name), QATA, 0, SMALL).hash for name in ("lvit", "without_text")]
    assert plan_job(row_of("small"), QATA, 0, SMALL).hash == shared[0]
    assert plan_job(row_of("base"), QATA, 0, QATA_BUDGETS["full"]).hash == (
        plan_job(row_of("lvit"), QATA, 0, QATA_BUDGETS["full"]).hash
    )
    compared = {row.name: row for row in tables.TABLES["mmi-unet-table1"].rows}
    assert [plan_job(compared[name], QATA, 0, tables.BUDGETS["small"]).hash for name in ("lvit", "unet")] == [
        shared[0], shared[2]
    ]  # fmt: skip
    every = {row.name: plan_job(row, QATA, 0, SMALL).hash for row in TABLES["lvit-ablation"].rows}
    assert len(set(every.values())) == len(every) - 1, "only small and LViT's own row are one"


def test_sizes_keep_their_ratio_and_rows_their_steps():
    for budget in QATA_BUDGETS.values():
        channels = [
            merged((budget.networks[f"lvit_{size}"],))["model"]["network"].get("init_args", {}).get("config", {})
            for size in ("tiny", "small", "base")
        ]
        tiny, small, base = (config.get("channels", 64) for config in channels)
        assert (small, base) == (2 * tiny, 4 * tiny)
    steps = {}
    for row in TABLES["lvit-ablation"].rows:
        job = plan_job(row, QATA, 0, SMALL)
        steps[row.name] = job.steps + (job.before.steps if job.before else 0)
    alone = steps.pop("teacher_25")
    assert max(steps.values()) - min(steps.values()) <= 10, steps
    assert alone < 0.5 * steps["lvit"]


def test_rows_that_learn_from_the_same_masks_have_one_teacher_and_it_is_a_row():
    jobs = {row.name: plan_job(row, QATA, 2, SMALL) for row in TABLES["lvit-ablation"].rows}
    taught = [job for job in jobs.values() if job.row.teacher is not None]
    assert {job.before.hash for job in taught} == {jobs["teacher_25"].hash}
    assert len({job.hash for job in taught}) == 3
    assert {job.settings["before"] for job in taught} == {jobs["teacher_25"].hash}
    assert "--data.train_fraction=0.25" in jobs["teacher_25"].words
    assert "--data.fraction_seed=2" in jobs["teacher_25"].words
    longer = replace(TABLES["lvit-ablation"].rows[0], teacher=replace(jobs["teacher_25"].row, length=1.0))
    assert plan_job(longer, QATA, 2, SMALL).hash != plan_job(replace(longer, teacher=None), QATA, 2, SMALL).hash


def test_rows_may_have_more_seeds_than_the_others_or_less():
    assert list(EPI.seeds_of(range(2))) == [0, 1, 2]
    assert list(TEACHER.seeds_of(range(2))) == [0, 1]
    assert list(replace(TEACHER, more_seeds=-1).seeds_of(range(2))) == [0]
    assert list(replace(TEACHER, more_seeds=-1).seeds_of(range(1))) == [0]


def test_a_teacher_is_trained_once_and_what_starts_from_it_goes_on_after_a_kill(
    budget, tmp_path, monkeypatch, quick_rows
):
    class Killed(BaseException):
        """What no handler of errors catches, as a kill."""

    told, made, train = [], quick_rows.made, quick_rows.train

    def die_once(words, threads):
        if len(made) == 1:
            made.append(list(words))
            raise Killed
        train(words, threads)

    monkeypatch.setattr(fit, "_train", die_once)
    order = Order(name="trial", out=tmp_path / "out", seeds=1, threads=1, tell=told.append)
    question = Comparison(question="Does LV help?", first="epi", second="lv")
    taught = replace(EPI, more_seeds=0)
    whole = table(taught, replace(LV, more_seeds=0), TEACHER, comparisons=(question,))
    with pytest.raises(Killed):
        tables.make(whole, budget, order)
    assert tables.make(whole, budget, order) == 0, told
    teacher, cut, resumed, lv = made
    assert "--data.train_fraction=0.25" in teacher
    assert {"--task=semi_supervised", "--data.labelled_fraction=0.25"} <= set(resumed)
    assert {word for word in teacher if "fraction_seed" in word} == {word for word in lv if "fraction_seed" in word}
    assert cut == resumed
    (first,), (second,) = ([w for w in words if w.startswith("--model.teacher=")] for words in (resumed, lv))
    assert first == second
    with (order.out / "trial-trial" / "table.csv").open(newline="") as file:
        rows = {row["row"]: row for row in csv.DictReader(file)}
    assert {name: row["state"] for name, row in rows.items()} == dict.fromkeys(("epi", "lv", "teacher"), "done")
    assert rows["epi"]["labelled"] == "0.25"
    assert int(rows["epi"]["images_fit"]) > 2 * int(rows["teacher"]["images_fit"])
    assert rows["epi"]["steps_before"] == rows["lv"]["steps_before"] == rows["teacher"]["steps"]
    assert "&&" in rows["epi"]["command"]
    assert "CHECKPOINT" in rows["epi"]["command"]
    for row in rows.values():
        assert 0 <= float(row["dice_pooled"]) <= 1
        assert 0 <= float(row["iou_per_image"]) <= 1
    page = (order.out / "trial-trial" / "table.md").read_text()
    assert str(order.out) not in page + (order.out / "trial-trial" / "table.csv").read_text()
    assert "Does LV help? | –" not in page
    assert "leaves 0 out and every seed agrees.\nThe interval tells what other patients would change" in page
    assert [path.name for path in order.out.rglob("*.ckpt")] == ["best.ckpt"], "the teacher's, for other rows"
    assert not list(order.out.rglob("pseudo_labels"))

    assert tables.make(table(replace(LV, more_seeds=0, name="x"), TEACHER), budget, order) == 0
    assert len(made) == 4, "nothing is made again"


def test_a_page_names_the_seeds_of_rows_that_have_others(budget):
    source = open_source("phantom", None)
    rows = [(row, seed) for row in (TEACHER, EPI) for seed in row.seeds_of(range(2))]
    entries = [entry_of(plan_job(row, source, seed, budget)) for row, seed in rows]
    page = markdown(table(TEACHER, EPI), budget, entries, seeds=2, command="")
    assert "Seeds: 0, 1; EPI: 0, 1, 2." in page


def entry_of(job):
    """An entry of a training that is not made yet."""
    return Entry(row=job.row, data=job.data, seed=job.seed, state=State.NOT_RUN)
