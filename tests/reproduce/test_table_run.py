"""Tables on the phantom: trained, cut off, gone on with, scored, written."""

import csv
import json

import pytest

pytest.importorskip("lightning")
from textray.errors import UsageError
from textray.reproduce import fit, runner
from textray.reproduce.catalogue import Order
from textray.reproduce.clock import EpochClock, read_clock
from textray.reproduce.lock import locked
from textray.reproduce.page import SCORES, markdown
from textray.reproduce.plan import Budget, Comparison, Row, Table
from textray.reproduce.printed import PrintedRow, Scores
from textray.reproduce.runner import Entry
from textray.reproduce.tables import BUDGETS, TABLES, make
from textray.reproduce.trainings import open_source, plan_job

# A training in this process says what a user sees on the standard error; pytest would make errors of it.
pytestmark = pytest.mark.filterwarnings("ignore")

SHARED = """\
data:
  size: [32, 32]
  normalise: percentile
  augment: light
  batch_size: 4
  limit: 8
  workers: 0
model:
  text_encoder: tiny
"""
MMI = """\
model:
  network:
    class_path: textray.models.mmi_unet.MMIUNet
    init_args:
      config: {trunk: efficientnet_lite0, text_width: 32, decoder_channels: [8, 8, 8]}
"""
UNET = """\
model:
  network:
    class_path: textray.models.baselines.unet.UNet
    init_args:
      config: {width: 4}
  text_encoder: null
"""

WORDS = Row(name="words", label="MMI-UNet", model="mmi_unet", printed="MMI-UNet")
SILENT = Row(name="silent", label="MMI-UNet, no text", model="mmi_unet", text="none")
PLAIN = Row(name="plain", label="UNet", model="unet", printed="UNet")
ABSENT = Row(name="absent", label="nnUNet", model="nnunet", printed="nnUNet")
PRINTED = (
    PrintedRow(label="MMI-UNet", scores={"phantom": Scores(dice=90.88, iou=83.28)}),
    PrintedRow(label="UNet", scores={"phantom": Scores(dice=79.02, iou=69.46)}),
    PrintedRow(label="nnUNet", scores={"phantom": Scores(dice=80.42, iou=70.81)}),
)


class Killed(BaseException):
    """What no handler of errors catches, as a kill."""


def table(*rows, data=("phantom",), comparisons=()):
    return Table(name="trial", title="Trial", rows=rows, printed=PRINTED, data=data, comparisons=comparisons)


@pytest.fixture
def recipes(tmp_path, monkeypatch):
    """Budget of a trial: ``recipes(epochs=1, unet=UNET) -> Budget``."""
    monkeypatch.setattr("sys.argv", ["textray"])
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")

    def write(epochs=1, unet=UNET):
        paths = {}
        for name, text in (("shared", SHARED), ("mmi_unet", MMI), ("unet", unet)):
            paths[name] = tmp_path / f"{name}.yaml"
            paths[name].write_text(text)
        return Budget(
            name="trial",
            words="a trial.",
            recipes=(str(paths["shared"]),),
            networks={name: str(paths[name]) for name in ("mmi_unet", "unet")},
            epochs=epochs,
            warmup=0.5,
            most_repeats=4.0,
        )

    return write


@pytest.fixture
def order(tmp_path):
    told = []
    return Order(name="trial", out=tmp_path / "out", seeds=1, threads=1, tell=told.append), told


def test_rows_are_made_listed_and_not_made_again(recipes, order, quick_rows):
    order, told = order
    made = quick_rows.made
    question = Comparison(question="Do words help?", first="silent", second="words")
    whole = table(WORDS, SILENT, ABSENT, data=("phantom", "qata_cov19"), comparisons=(question,))
    assert make(whole, recipes(), order) == 0
    assert len(made) == 2
    assert any("1 of 2" in line for line in told)
    assert any("minutes remain" in line for line in told)
    page = (order.out / "trial-trial" / "table.md").read_text()
    with (order.out / "trial-trial" / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["row"], r["data"], r["state"]) for r in rows] == [
        ("words", "phantom", "done"),
        ("silent", "phantom", "done"),
        ("absent", "phantom", "not there yet"),
        ("words", "qata_cov19", "no --root given"),
        ("silent", "qata_cov19", "no --root given"),
        ("absent", "qata_cov19", "not there yet"),
    ]
    words, silent, absent = rows[:3]
    assert (words["text_mode"], silent["text_mode"]) == ("oracle", "none")
    dice, iou = float(words["dice_pooled"]), float(words["iou_pooled"])
    assert iou == pytest.approx(dice / (2 - dice), abs=1e-9)
    assert float(words["dice_pooled_low"]) <= dice <= float(words["dice_pooled_high"])
    assert (words["printed_protocol"], absent["printed_protocol"]) == ("pooled", "per image")
    assert (words["steps"], words["images_fit"], words["split"]) == ("2", "8", "test")
    assert int(words["trainable"]) > 1_000_000
    assert float(words["gmacs"]) > 0
    assert float(words["train_seconds"]) > 0
    assert "| 90.88 / 83.28 | pooled |" in page
    assert "| 80.42 / 70.81 | per image (J is +3.56 from D/(2−D)) |" in page
    assert "no --root given" in page
    assert "no network nnunet" in page
    assert "Do words help?" in page
    assert str(order.out) not in page + (order.out / "trial-trial" / "table.csv").read_text()
    settings = [word for word in made[1] if word.startswith(("--data.report", "--checkpoint", "--stopping"))]
    assert settings == [
        "--data.report_dropout=1.0",
        "--checkpoint.monitor=inner/dice_none",
        "--stopping.monitor=inner/dice_none",
        "--stopping.mode=max",
    ]
    homes = sorted((order.out / "rows").iterdir())
    assert [(home / "bundle" / "model.onnx").is_file() for home in homes] == [True, True]
    assert not list(order.out.rglob("*.ckpt"))

    assert make(whole, recipes(), order) == 0  # nothing is left to do
    assert len(made) == 2
    assert "2 of them done" in told[-2]
    (spoilt,) = [home for home in homes if "oracle" in home.name]
    (spoilt / "result.json").write_text("{")
    (spoilt / ".bundle-half").mkdir()
    assert make(whole, recipes(), order) == 0  # its checkpoints are gone, so it is made from the start
    assert len(made) == 3
    assert json.loads((spoilt / "result.json").read_text())["steps"] == 2
    assert not (spoilt / ".bundle-half").exists()


@pytest.mark.slow
def test_a_row_that_was_cut_off_goes_on_at_its_last_whole_epoch(recipes, order, monkeypatch):
    order, _ = order
    begun, end = [], EpochClock.on_train_epoch_end

    def start(self, trainer, pl_module):
        begun.append(trainer.current_epoch)
        self._started = 0.0

    def die(self, trainer, pl_module):
        if trainer.current_epoch == 1 and len(begun) == 2:
            raise Killed
        end(self, trainer, pl_module)

    monkeypatch.setattr(EpochClock, "on_train_epoch_start", start)
    monkeypatch.setattr(EpochClock, "on_train_epoch_end", die)
    with pytest.raises(Killed):
        make(table(PLAIN), recipes(epochs=3), order)
    (home,) = (order.out / "rows").iterdir()
    assert not (home / "result.json").exists()
    assert make(table(PLAIN), recipes(epochs=3), order) == 0
    assert begun == [0, 1, 1, 2]
    assert json.loads((home / "result.json").read_text())["epochs"] == 3
    assert sorted(read_clock(home / "run")["seconds"]) == ["0", "1", "2"]


def test_a_failing_row_is_listed_and_the_others_go_on(recipes, order, quick_rows):
    order, told = order
    budget, quick_rows.refused = recipes(), "/unet.yaml"
    assert make(table(PLAIN, WORDS), budget, order) == 3
    page = (order.out / "trial-trial" / "table.md").read_text()
    assert "failed" in page
    states = [line for line in page.splitlines() if line.startswith(("| UNet", "| MMI-UNet"))]
    assert "failed: " in states[0]
    assert "| done |" in states[1]
    assert any("failed (" in line for line in told)
    # Mended, only it is made, as another row where its recipe has changed.
    quick_rows.refused = "no such word"
    assert make(table(PLAIN, WORDS), recipes(unet=UNET.replace("width: 4", "width: 8")), order) == 0
    assert "1 of them done" in next(line for line in reversed(told) if "trainings, " in line)


def test_a_row_that_was_cut_off_is_asked_for_again_in_its_folder(recipes, order, quick_rows, monkeypatch):
    order, _ = order

    def die(words, threads):
        quick_rows.made.append(list(words))
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(fit, "_train", die)
        with pytest.raises(Killed):
            make(table(PLAIN), recipes(epochs=3), order)
    (home,) = (order.out / "rows").iterdir()
    assert not (home / "result.json").exists()
    assert not (home / "failure.json").exists()
    assert make(table(PLAIN), recipes(epochs=3), order) == 0
    first, second = quick_rows.made
    assert first == second
    assert json.loads((home / "result.json").read_text())["epochs"] == 3


def test_settings_that_matter_change_the_hash_and_folders_do_not(recipes, tmp_path):
    budget, source = recipes(), open_source("phantom", None)
    job = plan_job(WORDS, source, 0, budget)
    again = plan_job(Row(name="other", label="Other", model="mmi_unet"), source, 0, budget)
    assert job.hash == again.hash, "tables share a row whatever they call it"
    others = [
        plan_job(WORDS, source, 1, budget),
        plan_job(SILENT, source, 0, budget),
        plan_job(Row(name="x", label="x", model="mmi_unet", fraction=0.5), source, 0, budget),
        plan_job(WORDS, source, 0, recipes(epochs=2)),
    ]
    (tmp_path / "shared.yaml").write_text(SHARED.replace("[32, 32]", "[64, 64]"))
    others.append(plan_job(WORDS, source, 0, budget))
    assert len({job.hash, *(other.hash for other in others)}) == 6
    assert len({job.folder, *(other.folder for other in others)}) == 6


def test_part_of_the_data_is_seen_more_often_up_to_a_cap():
    small, full = BUDGETS["small"], BUDGETS["full"]
    assert [small.epochs_of(f) for f in (1.0, 0.5, 0.25, 0.15)] == [7, 14, 28, 28]
    assert {full.epochs_of(f) for f in (1.0, 0.15)} == {100}
    job = plan_job(Row(name="x", label="x", model="mmi_unet", fraction=0.15), open_source("phantom", None), 3, small)
    assert {"--data.train_fraction=0.15", "--data.fraction_seed=3", "--seed_everything=3"} <= set(job.arguments)


def test_another_form_is_not_trained_as_the_papers(recipes, order):
    order, _ = order
    released = Row(name="released", label="MMI-UNet, released", model="mmi_unet", form="released")
    assert released.exists
    (entry,) = runner.run_table(
        table(released), recipes(), roots={}, seeds=[0], rows=(), options=fit.Options(out=order.out, tell=order.tell)
    )
    assert (entry.state, entry.seed) == (runner.State.NOT_THERE, None)
    assert entry.reason == "no recipe for budget trial in form released"


def test_slices_of_one_volume_on_both_sides_are_told():
    score = {"value": 0.5, "low": 0.5, "high": 0.5}
    scores = {name: score | ({"value": 1 / 3} if name.startswith("iou") else {}) for name in SCORES}
    result = {
        "text_mode": "none", "split": "test", "images": {"fit": 8, "inner": 2, "test": 9}, "patients": 9,
        "scores": scores, "trainable": 1,
        "gmacs": 1.0, "train_seconds": 1.0, "evaluate_seconds": 1.0, "steps": 2, "size": [32, 32], "ids_sha256": "0",
        "git": None, "versions": {}, "estimator": "none",
    }  # fmt: skip
    for data, told in (("mosmed_plus", True), ("phantom", False)):
        entry = Entry(row=PLAIN, data=data, seed=0, state=runner.State.DONE, result=result | {"data": data})
        page = markdown(table(PLAIN, data=(data,)), BUDGETS["small"], [entry], seeds=1, command="")
        assert ("Cut by slice, as published" in page) == told
        assert "`skip: sum`" in page, "options past the paper stand on the page"


def test_every_printed_row_has_one_of_ours():
    for found in TABLES.values():
        beside = [found.printed_row(row) for row in found.rows if row.printed]
        assert None not in beside
        assert {row.label for row in beside} == {row.label for row in found.printed}
        names = [row.name for row in found.rows]
        assert len(names) == len(set(names))
        assert {name for c in found.comparisons for name in (c.first, c.second)} <= set(names)


def test_wrong_names_are_refused_before_anything_is_trained(recipes, order, tmp_path):
    order, _ = order
    with pytest.raises(UsageError, match=r"unknown row 'wrods'.*words"):
        make(table(WORDS), recipes(), Order(name="trial", out=order.out, rows=("wrods",)))
    with pytest.raises(UsageError, match="no data set qata_cov19"):
        make(table(WORDS), recipes(), Order(name="trial", out=order.out, roots={"qata_cov19": tmp_path}))
    with pytest.raises(UsageError, match="no data to train on"):
        make(table(WORDS, data=("qata_cov19",)), recipes(), order)


def test_two_runs_do_not_share_a_folder(recipes, order):
    order, _ = order
    with locked(order.out), pytest.raises(UsageError, match="another run"):
        make(table(ABSENT), recipes(), order)
    assert make(table(ABSENT), recipes(), order) == 0  # let go of


def test_the_command_lists_what_it_knows(cli, tmp_path):
    found = cli("reproduce", "mmi-unet-table4", "--out", tmp_path)
    assert found.code == 2
    assert all(name in found.err for name in TABLES)
    assert cli("reproduce", "mmi-unet-table2", "--root", "qata_cov19").code == 2
    assert cli("reproduce", "mmi-unet-table2", "--root", "qata=x").code == 2
    missing = cli("reproduce", "mmi-unet-table2", "--root", f"qata_cov19={tmp_path}", "--out", tmp_path / "out")
    assert missing.code == 2
    assert "E_LAYOUT" in missing.err
    assert cli("reproduce", "mmi-unet-table2", "--budget", "large", "--out", tmp_path / "out").code == 2
