"""Rows of a table made at once: in which order, with which result, and what is left when the command is killed."""

import csv
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("lightning")
from textray.errors import UsageError
from textray.reproduce import fit, workers
from textray.reproduce.catalogue import Order
from textray.reproduce.plan import Budget, Row, Table
from textray.reproduce.tables import make

RECIPE = """\
data:
  size: [32, 32]
  normalise: percentile
  batch_size: 4
  limit: 8
  workers: 0
model:
  network:
    class_path: textray.models.baselines.unet.UNet
    init_args:
      config: {width: 4}
  text_encoder: null
"""


def job(folder, before=None):
    before = before and SimpleNamespace(folder=before)
    row = SimpleNamespace(label=folder, learnt="none")
    return SimpleNamespace(folder=folder, before=before, row=row, data="phantom", seed=0, steps=10)


def options(tmp_path, jobs, tell=print):
    return fit.Options(out=tmp_path, threads=1, jobs=jobs, tell=tell)


def names(jobs):
    return [job.folder for job in jobs]


def test_no_two_rows_make_the_same_training_before_them(tmp_path):
    waiting = [job("a", before="trunk"), job("b", before="trunk"), job("c")]
    chosen = workers._ready(waiting, [], options(tmp_path, 3))
    assert names(chosen) == ["a", "c"]
    home = tmp_path / "rows/trunk"
    (home / "run/checkpoints").mkdir(parents=True)
    (home / "trained.json").write_text("{}")
    (home / "run/checkpoints/best.ckpt").touch()
    assert names(workers._ready(waiting[1:2], waiting[:1], options(tmp_path, 3))) == ["b"], "it is made now"


def test_a_row_waits_for_the_teacher_that_is_a_row(tmp_path):
    waiting = [job("teacher"), job("pupil", before="teacher"), job("other")]
    assert names(workers._ready(waiting, [], options(tmp_path, 2))) == ["teacher", "other"]
    assert workers._ready(waiting[1:], waiting[:1], options(tmp_path, 1)) == [], "there is room for one"


def test_one_at_a_time_keeps_the_order_and_tells_the_time_left(tmp_path):
    told, made = [], []

    def attempt(job, options):
        made.append(job.folder)
        return workers.DONE if job.folder == "a" else "failed (E_DATA: broken)"

    workers.run([job("a"), job("b"), job("c")], attempt, options(tmp_path, 1, told.append))
    assert made == ["a", "b", "c"]
    assert told[0] == "1 of 3: a, phantom, text none, seed 0 ..."
    assert "1 of 3: a, phantom, text none, seed 0: done after 0.0 minutes; about 0 minutes remain" in told
    assert told[-1].endswith("failed (E_DATA: broken) after 0.0 minutes")


SLEEPER = """\
import os, sys, time
from pathlib import Path
from types import SimpleNamespace
from textray.reproduce import fit, workers
from textray.reproduce.runner import attempt_job

def attempt(job, options):
    (options.out / f"{job.folder}.pid").write_text(str(os.getpid()))
    while job.folder == "killed":
        if (options.out / "b.pid").exists():  # both are at work
            os.kill(os.getpid(), 9)
        time.sleep(0.05)
    time.sleep(300)

if __name__ == "__main__":
    row = SimpleNamespace(label="x", learnt="none")
    jobs = [SimpleNamespace(folder=f, before=None, row=row, data="d", seed=0, steps=1) for f in sys.argv[2:]]
    try:
        workers.run(jobs, attempt, fit.Options(out=Path(sys.argv[1]), threads=1, jobs=2, tell=print))
    except Exception as error:
        print(error, flush=True)
        os._exit(7)
"""


def sleep_at_once(tmp_path, *folders):
    script = tmp_path / "sleeper.py"
    script.write_text(SLEEPER)
    words = [sys.executable, str(script), str(tmp_path), *folders]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are looked up in /proc")
def test_processes_end_with_the_command_that_was_killed(tmp_path):
    command = sleep_at_once(tmp_path, "a", "b")
    files = [tmp_path / "a.pid", tmp_path / "b.pid"]
    deadline = time.monotonic() + 300
    while not all(file.exists() and file.read_text() for file in files):
        assert time.monotonic() < deadline, "both begin"
        time.sleep(0.1)
    pids = [int(file.read_text()) for file in files]
    assert all(map(alive, pids))
    assert len(set(pids)) == 2
    command.send_signal(signal.SIGKILL)
    command.communicate()
    while any(map(alive, pids)):
        assert time.monotonic() < deadline, "nobody goes on writing into a folder that is not held"
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="a process is killed by a signal")
def test_a_process_that_is_killed_is_told_with_what_to_do(tmp_path):
    said, _ = sleep_at_once(tmp_path, "killed", "b").communicate(timeout=300)
    assert "ended without a word" in said
    assert "fewer --jobs" in said


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # a training in this process says what a user sees on the standard error
def test_rows_made_at_once_are_the_rows_made_in_turn(tmp_path, monkeypatch):
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    monkeypatch.setattr("sys.argv", ["textray"])
    recipe = tmp_path / "unet.yaml"
    recipe.write_text(RECIPE)
    budget = Budget(name="trial", words="a trial.", recipes=(), networks={"unet": str(recipe)}, epochs=1)
    rows = (Row(name="plain", label="UNet", model="unet"), Row(name="part", label="Half", model="unet", fraction=0.5))
    table = Table(name="trial", title="Trial", rows=rows, printed=(), data=("phantom",))
    told = []
    order = Order(name="trial", out=tmp_path / "at-once", seeds=1, threads=1, jobs=2, tell=told.append)
    assert make(table, budget, order) == 0
    assert [line.partition(":")[0] for line in told if line.endswith("...")] == ["1 of 2", "2 of 2"]
    assert make(table, budget, replace(order, out=tmp_path / "in-turn", jobs=1)) == 0
    scores = {}
    for out in ("at-once", "in-turn"):
        with (tmp_path / out / "trial-trial/table.csv").open(newline="") as file:
            scores[out] = [(row["row"], row["state"], row["dice_pooled"]) for row in csv.DictReader(file)]
    assert scores["at-once"] == scores["in-turn"]
    assert [state for _, state, _ in scores["at-once"]] == ["done", "done"]


def test_jobs_are_one_or_more(cli, tmp_path):
    found = cli("reproduce", "mmi-unet-table2", "--jobs", "0", "--out", tmp_path)
    assert found.code == UsageError.exit_code
