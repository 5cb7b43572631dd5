"""A table's bookkeeping, with rows that a fake makes: what is made, listed, waited for, gone on with and written."""

import csv
import io
import json
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("lightning")
from textray import registry
from textray.errors import DiskError, OutputError, UsageError
from textray.metrics.segmentation import SCORES, case_columns
from textray.reproduce import Order, runner
from textray.reproduce.plan import FAILURE, RESULT, home_of, open_source, plan_job
from textray.reproduce.runner import make
from textray.reproduce.tables import Budget, PrintedRow, Question, Scores, Table, TableRow, read_tables

BUDGET = Budget(
    name="trial",
    words="a trial.",
    networks=dict.fromkeys(("mmi_unet", "unet", "lvit", "sgseg", "guide_decoder"), "model/mmi_unet"),
    epochs=1,
)
WORDS = TableRow(name="words", label="MMI-UNet", model="mmi_unet", printed="MMI-UNet")
WORDLESS = TableRow(name="wordless", label="MMI-UNet, no text", model="mmi_unet", text="none")
PLAIN = TableRow(name="plain", label="UNet", model="unet", printed="UNet")
ABSENT = TableRow(name="absent", label="nnUNet", model="unwritten", printed="nnUNet")
WRITES = TableRow(name="writes", label="Writes", model="sgseg", text="generated", printed="Full Text")
CAPTIONED = replace(WRITES, name="captioned", label="Captioned", scored="oracle")
TEACHER = TableRow(name="teacher", label="Teacher", model="lvit", fraction=0.25, teaches=True)
PUPIL = TableRow(name="pupil", label="Pupil", model="lvit", labelled=0.25, teacher=TEACHER, more_seeds=1)
CLIP = TableRow(name="clip", label="CLIP", model="guide_decoder", text="none", before="contrastive")
PRINTED = tuple(
    PrintedRow(label=label, scores={"phantom": Scores.parse(text)})
    for label, text in (("MMI-UNet", "90.88 / 83.28"), ("UNet", "79.02 / 69.46"), ("nnUNet", "80.42 / 70.81"))
)
QUESTION = Question(words="Do words help?", first="wordless", second="words")


def table(*rows, data=("phantom",), questions=(), printed=PRINTED):
    texts = read_tables()["mmi-unet-table1"].texts
    return Table(name="trial", title="Trial", texts=texts, rows=rows, printed=printed, data=data, questions=questions)


@pytest.fixture
def lines():
    """Lines of progress of `order`."""
    return []


@pytest.fixture
def order(tmp_path, lines):
    return Order(name="trial", out=tmp_path / "out", seeds=1, threads=1, tell=lines.append)


class Fake:
    """Makes rows as `runner.attempt_job` leaves them, in no time; counts them, and fails those named."""

    def __init__(self):
        self.made, self.failing = [], ()

    def __call__(self, job, order):
        self.made.append(job.row.name)
        home = home_of(order.out, job)
        (home / FAILURE).unlink(missing_ok=True)
        if job.row.name in self.failing:
            (home / FAILURE).write_text(json.dumps({"reason": "E_DATA: bro|ken"}))
            return "failed (E_DATA: bro|ken)"
        rng, lines, modes = np.random.default_rng(int(job.hash[:8], 16)), [], {}
        for mode in job.row.modes:
            counts = rng.integers(1, 400, (9, 4))
            lines += [f"im{i},p{i // 2},{mode},,{','.join(map(str, c))},0,0,0,0" for i, c in enumerate(counts)]
            sums = case_columns(counts.astype(np.int64)).sum(axis=0)
            modes[mode] = {n: {"value": float(f(sums)), "low": 0.1, "high": 0.9} for n, f in SCORES.items()}
        (home / "scores").mkdir(exist_ok=True)
        head = "image,patient,mode,zones,tp,fp,fn,tn,dice,iou,truth_empty,prediction_empty"
        (home / "scores/cases.csv").write_text("\n".join([head, *lines]) + "\n")
        (home / "scores/summary.json").write_text("{}")
        scores = modes.pop(job.row.training_mode)
        result = {
            "settings": job.hash, "data": job.source.name, "split": "test", "ids_sha256": "ab" * 32, "patients": 5,
            "text_mode": job.row.training_mode, "images": {"fit": 8, "inner": 2, "test": 9}, "size": [32, 32],
            "scores": scores, "other_scores": modes, "sentences": {"value": 0.5, "low": 0.4, "high": 0.6},
            "estimator": "none", "trainable": 1234, "gmacs": 1.0, "epochs": 1, "best_epoch": 0, "steps": 2,
            "train_seconds": 60.0, "evaluate_seconds": 1.0, "command": job.command, "git": None,
            "versions": {"numpy": "1"},
        }  # fmt: skip  # `steps_before` is missing, as in results of earlier versions
        (home / RESULT).write_text(json.dumps(result))
        return "done"


@pytest.fixture
def fake(monkeypatch):
    """A `Fake` in place of the trainings."""
    rows = Fake()
    monkeypatch.setattr(runner, "attempt_job", rows)
    return rows


def page_of(order):
    folder = order.out / "trial-trial"
    with io.StringIO((folder / "table.csv").read_text(), newline="") as file:
        return (folder / "table.md").read_text(), list(csv.DictReader(file))


def test_rows_are_made_listed_and_not_made_again(order, lines, fake):
    whole = table(WORDS, WORDLESS, ABSENT, data=("phantom", "qata_cov19"), questions=(QUESTION,))
    assert make(whole, BUDGET, order) == 0
    assert lines[0] == "trial: 2 trainings, 0 of them done"
    assert lines[1:3] == [
        "1 of 2: MMI-UNet, phantom, text oracle, seed 0 ...",
        "1 of 2: MMI-UNet, phantom, text oracle, seed 0: done after 0.0 minutes",
    ]
    page, rows = page_of(order)
    assert [(r["row"], r["data"], r["state"]) for r in rows] == [
        ("words", "phantom", "done"),
        ("wordless", "phantom", "done"),
        ("absent", "phantom", "not there yet"),
        ("words", "qata_cov19", "no --root given"),
        ("wordless", "qata_cov19", "no --root given"),
        ("absent", "qata_cov19", "not there yet"),
    ]
    words, wordless, absent = rows[:3]
    assert (words["text_mode"], wordless["text_mode"]) == ("oracle", "none")
    assert (words["printed_protocol"], absent["printed_protocol"]) == ("pooled", "per image")
    assert (words["steps"], words["steps_before"], words["images_fit"], words["split"]) == ("2", "0", "8", "test")
    assert "| 90.88 / 83.28 | pooled |" in page
    assert "| 80.42 / 70.81 | per image (J is +3.56 from D/(2−D)) |" in page
    assert "no network unwritten" in page
    assert "| Do words help? | –" not in page
    assert "leaves 0 out and every seed agrees.\nThe interval tells what other patients would change" in page
    assert "with a sentence" not in page
    assert "accuracy" not in page
    assert str(order.out) not in page

    assert make(whole, BUDGET, order) == 0  # nothing is left to do
    assert len(fake.made) == 2
    (spoilt,) = (order.out / "rows").glob("*oracle*")
    (spoilt / RESULT).write_text("{")
    assert make(whole, BUDGET, order) == 0
    assert fake.made == ["words", "wordless", "words"]
    assert page_of(order) == (page, rows)


@pytest.mark.parametrize("name", ["table.md", "table.csv"])
def test_a_file_of_somebody_else_is_no_table_to_replace_and_nothing_is_trained(order, fake, name):
    folder = order.out / "trial-trial"
    folder.mkdir(parents=True)
    (folder / name).write_text("mine")
    with pytest.raises(OutputError, match=f"{name} is of no table of textray reproduce, so it is not overwritten"):
        make(table(WORDS), BUDGET, order)
    assert fake.made == []
    assert [path.read_text() for path in folder.iterdir()] == ["mine"]


def test_a_full_disk_leaves_the_table_before(order, fake, monkeypatch):
    assert make(table(WORDS), BUDGET, order) == 0
    before = page_of(order)

    def full(path, data):
        if path.suffix == ".md":
            raise DiskError("the disk is full")
        real(path, data)

    real = runner.atomic_write
    with monkeypatch.context() as patch:
        patch.setattr(runner, "atomic_write", full)
        with pytest.raises(DiskError):
            make(table(WORDS, WORDLESS), BUDGET, order)
    assert page_of(order) == before
    assert make(table(WORDS, WORDLESS), BUDGET, order) == 0
    assert page_of(order) != before


def test_only_rows_that_are_named_are_made_and_a_failing_one_again_when_asked_again(order, lines, fake):
    assert make(table(WORDS, PLAIN), BUDGET, replace(order, out=order.out / "some", rows=("plain",))) == 0
    page, rows = page_of(replace(order, out=order.out / "some"))
    assert fake.made == ["plain"]
    assert {r["row"]: r["state"] for r in rows} == {"words": "not run", "plain": "done"}
    assert "--rows plain" in page

    fake.failing = ("plain",)
    assert make(table(PLAIN, WORDS), BUDGET, order) == 3
    page, rows = page_of(order)
    assert [(r["state"], r["reason"]) for r in rows] == [("failed", "E_DATA: bro|ken"), ("done", "")]
    assert "| failed: E_DATA: bro\\|ken |" in page
    assert lines[-1].endswith("table.md; 1 trainings failed")
    fake.failing = ()
    assert make(table(PLAIN, WORDS), BUDGET, order) == 0
    assert fake.made == ["plain", "plain", "words", "plain"]


def test_an_error_of_a_row_becomes_its_reason(order, monkeypatch):
    monkeypatch.setattr(runner, "_train", lambda words, threads: 1 / 0)
    assert make(table(PLAIN), BUDGET, order) == 3
    assert page_of(order)[1][0]["reason"] == "ZeroDivisionError: division by zero"


def test_two_modes_are_one_training_and_their_own_columns(order, lines, fake, monkeypatch):
    full_text = replace(PRINTED[0], label="Full Text", scores={"phantom": Scores.parse("97.3 / 89.0 / 79.7")})
    question = Question(words="Do captions help?", first="writes", second="captioned")
    monkeypatch.setattr(runner, "TextScorer", lambda: None)
    assert make(table(WRITES, CAPTIONED, questions=(question,), printed=(full_text,)), BUDGET, order) == 0
    assert "1 trainings, 0 of them done" in lines[0]
    page, (writes, captioned) = page_of(order)
    assert (writes["text_mode"], captioned["text_mode"]) == ("generated", "oracle")
    assert writes["settings"] == captioned["settings"]
    assert (writes["sentence_share"], captioned["sentence_share"]) == ("0.5", "")
    assert writes["dice_pooled"] != captioned["dice_pooled"]
    assert "| 97.3 / 89.0 / 79.7 |" in page
    assert "`accuracy_pooled`" in page
    assert "Full Text: 97.3 / 89.0 / 79.7, J 0.48 points below" in page
    assert "Do captions help? | –" not in page
    assert "minutes for 1 trainings" in page


def test_packages_for_sentences_are_asked_for_before_the_training(order, fake, monkeypatch):
    monkeypatch.setattr(runner, "TextScorer", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make(table(WRITES), BUDGET, order)
    assert not fake.made


def test_a_page_names_the_seeds_of_rows_that_have_others(order, fake):
    fake.failing = ("teacher",)
    make(table(TEACHER, PUPIL), BUDGET, replace(order, seeds=2))
    page, rows = page_of(order)
    assert [(r["row"], r["seed"]) for r in rows] == [*[("teacher", s) for s in "01"], *[("pupil", s) for s in "012"]]
    assert "Seeds: 0, 1; Pupil: 0, 1, 2." in page


@pytest.mark.parametrize("cuts", [("slice", "volume"), ()])
def test_slices_of_one_volume_on_both_sides_are_named(cuts, order, fake, monkeypatch):
    monkeypatch.setitem(registry.DATASETS, "phantom", replace(registry.DATASETS["phantom"], protocols=cuts))
    make(table(PLAIN), BUDGET, order)
    assert ("Cut by slice, as published" in page_of(order)[0]) == bool(cuts)


def test_two_commands_share_the_rows(order, lines, fake, monkeypatch):
    """Each makes what the other does not; the one that is done first waits and then writes the whole table."""
    at_work, end, makers = threading.Event(), threading.Event(), []

    def attempt(job, of):
        if of is not order:
            at_work.set()
            assert end.wait(30)
        makers.append(of is order)
        return fake(job, of)

    monkeypatch.setattr(runner, "attempt_job", attempt)
    other = threading.Thread(target=make, args=(table(WORDS), BUDGET, replace(order, tell=print)))
    other.start()
    assert at_work.wait(30)
    threading.Thread(target=lambda: (time.sleep(0.3), end.set())).start()
    assert make(table(WORDS, PLAIN), BUDGET, order) == 0
    other.join()
    assert (fake.made, makers) == (["plain", "words"], [True, False])
    assert any("seed 0: another command makes it or what it starts from; waiting ..." in line for line in lines)
    assert [row["state"] for row in page_of(order)[1]] == ["done", "done"]


def test_a_row_whose_command_was_cut_off_is_made_by_the_one_that_waits(order, fake):
    job = plan_job(PLAIN, open_source("phantom", None), 0, BUDGET)
    with (
        runner.locked(home_of(order.out, job), wait=False) as held,
        runner.locked(home_of(order.out, job), wait=False) as again,
    ):
        assert (held, again) == (True, False)
        waits = threading.Thread(target=make, args=(table(PLAIN), BUDGET, order))
        waits.start()
        time.sleep(0.3)
        assert not fake.made
    waits.join(30)
    assert fake.made == ["plain"]


def test_a_row_waits_for_the_teacher_that_another_command_makes(order, fake):
    pupil = replace(PUPIL, more_seeds=0)
    teacher = plan_job(pupil, open_source("phantom", None), 0, BUDGET).before
    with runner.locked(home_of(order.out, teacher), wait=True):
        assert make(table(pupil, PLAIN), BUDGET, order) == 0
    assert fake.made == ["plain", "pupil"]


def test_wrong_names_are_refused_before_anything_is_trained(order, fake, tmp_path):
    for change, words in (
        ({"rows": ("wrods",)}, r"unknown row 'wrods'.*words"),
        ({"roots": {"qata_cov19": tmp_path}}, "no data set qata_cov19"),
        ({"seeds": 0}, "a table needs seeds"),
    ):
        with pytest.raises(UsageError, match=words):
            make(table(WORDS), BUDGET, replace(order, **change))
    with pytest.raises(UsageError, match="no data to train on"):
        make(table(WORDS, data=("qata_cov19",)), BUDGET, order)
    with pytest.raises(UsageError, match="unknown budget 'huge'"):
        runner.run(replace(order, name="grounding-qata", budget="huge"))
    assert not fake.made


def test_the_command_lists_what_it_knows(cli, tmp_path):
    wrong = cli("reproduce", "mmi-unet-table4", "--out", tmp_path)
    assert wrong.code == 2
    assert all(name in wrong.err for name in read_tables())
    for words in (("--root", "qata_cov19"), ("--root", "qata=x"), ("--budget", "large"), ("--jobs", "2")):
        assert cli("reproduce", "mmi-unet-table2", *words, "--out", tmp_path / "out").code == 2
    missing = cli("reproduce", "mmi-unet-table2", "--root", f"qata_cov19={tmp_path}", "--out", tmp_path / "out")
    assert missing.code == 2
    assert "E_LAYOUT" in missing.err


def trained(monkeypatch, epochs=3):
    """Replace the training by one that leaves checkpoints; a list of what was trained, as words."""
    words_of = []

    def train(words, threads):
        words_of.append(list(words))
        folder = runner.Path(words[-1]) / "checkpoints"
        folder.mkdir(parents=True)
        timer = {"time_elapsed": {"train": 12.345}}
        torch.save({"epoch": epochs - 1, "global_step": 9, "callbacks": {"Timer": timer}}, folder / "last.ckpt")
        (folder / "best.ckpt").touch()
        (folder.parent / "pseudo_labels").mkdir()

    monkeypatch.setattr(runner, "_train", train)
    return words_of


@pytest.mark.parametrize("row", [PUPIL, CLIP], ids=lambda row: row.name)
def test_what_comes_before_a_row_is_trained_once_and_keeps_its_best_checkpoint(row, order, monkeypatch):
    words = trained(monkeypatch)
    monkeypatch.setattr(runner, "_score_masks", lambda job, trained, before, order: {"steps_before": before.steps})
    source = open_source("phantom", None)
    rows = [row, replace(row, name="x", arguments=("--model.lr=1",))]
    jobs = [plan_job(row, source, 0, BUDGET) for row in rows]
    for job in jobs:
        with runner.locked(home_of(order.out, job), wait=True):
            runner.run_job(job, order)
    assert len(words) == 3
    before = jobs[0].before
    best = home_of(order.out, before) / "run/checkpoints/best.ckpt"
    start = f"--model.teacher={best.resolve()}" if row is PUPIL else f'--model.initial=["trunk={best.resolve()}"]'
    assert not any("--model.teacher" in word or "--model.initial" in word for word in words[0])
    assert all(start in made for made in words[1:])
    assert list(order.out.rglob("*.ckpt")) == [best]
    assert not list(order.out.rglob("pseudo_labels"))
    result = json.loads((home_of(order.out, jobs[0]) / RESULT).read_text())
    assert (result["epochs"], result["steps"], result["steps_before"]) == (3, 9, 9)
    seconds = 12.3 if row is PUPIL else 24.7  # a teacher's seconds stand in its own row
    assert result["train_seconds"] == pytest.approx(seconds, abs=0.051)
    (home_of(order.out, jobs[0]) / RESULT).unlink()
    runner.run_job(jobs[0], order)
    assert len(words) == 4, "the row again, what comes before it not"


def test_lengths_that_earlier_versions_wrote_are_read(order, monkeypatch):
    words = trained(monkeypatch)
    job = plan_job(PLAIN, open_source("phantom", None), 0, BUDGET)
    home = home_of(order.out, job)
    (home / "run/checkpoints").mkdir(parents=True)
    (home / "run/checkpoints/best.ckpt").touch()
    (home / "trained.json").write_text(json.dumps({"seconds": {"0": 1.5, "1": 2.5}, "steps": 7}))
    trained_before = runner.fit(job, order)
    assert (trained_before.epochs, trained_before.steps, trained_before.seconds) == (2, 7, 4.0)
    assert not words


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (SystemExit(1), KeyboardInterrupt),  # Lightning after Ctrl+C
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Terminated. "), KeyboardInterrupt),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), RuntimeError),
        (SystemExit(2), UsageError),
    ],
)
def test_who_ends_a_training_from_outside_ends_the_table(monkeypatch, raised, expected):
    def train(words):
        raise raised

    monkeypatch.setattr(runner.training, "main", train)
    with pytest.raises(expected):
        runner._train(["--config", "x"], None)
