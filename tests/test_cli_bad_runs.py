"""Runs that go wrong, through `textray segment`: full disks, kills, signals, two runs in one folder."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from PIL import Image as PILImage

from textray.inference.segmenter import Predictor
from textray.io import write

RESULT = ["a.json", "a.mask.png", "a.overlay.png"]


def record(path):
    return json.loads(Path(path).read_bytes())


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def start(cwd, bundle, *args, before=""):
    """Start the command in a process of its own, as a shell does; ``before`` runs ahead of it."""
    code = f"import sys\n{before}\nfrom textray.cli import main\nmain(sys.argv[1:])"
    return subprocess.Popen(
        [sys.executable, "-c", code, "segment", *map(str, args), "--model", str(bundle), "--threads", "1"],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


# ---- E01: a full disk

FULL_DISK = """
import errno, os
import textray.io.write
real, room = os.fsync, [{room}]
def fsync(handle):
    room[0] -= 1
    if room[0] < 0:
        raise OSError(errno.{error}, os.strerror(errno.{error}))
    real(handle)
os.fsync = fsync
"""


LIMIT = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room}))"


@pytest.mark.skipif(sys.platform == "win32", reason="resource limits are POSIX")
@pytest.mark.parametrize(
    ("error", "room"), [("ENOSPC", 0), ("EDQUOT", 4), ("EIO", 5), ("ENOSPC", 8), ("limit", 0), ("limit", 2500)]
)
def test_e01_a_first_run_on_a_full_disk_leaves_nothing_half_written(film, tmp_path, tiny_bundle, error, room):
    for name in "ab":
        film(tmp_path / f"{name}.png", shape=(200, 160))
    before = (LIMIT if error == "limit" else FULL_DISK).format(room=room, error=error)
    process = start(tmp_path, tiny_bundle, "a.png", "b.png", "--out", "out", before=before)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert "error E_DISK" in err
    assert "Traceback" not in err
    found = [name for name in names(tmp_path / "out") if name != "run.json"]
    assert found == [] or (found == RESULT and error != "limit")  # whole results only
    assert not list((tmp_path / "out").glob(".textray-*"))
    for name in found:
        if name.endswith(".png"):
            with PILImage.open(tmp_path / "out" / name) as picture:
                picture.load()
    if (tmp_path / "out/run.json").exists() and error != "limit":
        assert record(tmp_path / "out/run.json")["status"] != "done"


@pytest.mark.skipif(sys.platform == "win32", reason="resource limits are POSIX")
@pytest.mark.parametrize("room", [0, 300, 8000])
def test_e01_a_full_disk_leaves_the_old_result_whole(run, film, tmp_path, tiny_bundle, room):
    film(tmp_path / "a.png", shape=(200, 160))
    assert run("a.png").code == 0
    out = tmp_path / "textray-out"
    before = {name: (out / name).read_bytes() for name in RESULT}
    assert len(before["a.overlay.png"]) > 8000
    process = start(tmp_path, tiny_bundle, "a.png", "--text", "left base", before=LIMIT.format(room=room))
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "error E_DISK" in err
    assert "Traceback" not in err
    assert {name: (out / name).read_bytes() for name in RESULT} == before
    assert not list(out.rglob(".textray-*"))


# ---- E02: an output folder that cannot be written to


@pytest.mark.parametrize("out", ["file", "file/below"])
def test_e02_an_output_that_is_a_file_fails_before_inference(run, film, tmp_path, monkeypatch, out):
    film(tmp_path / "a.png")
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr(Predictor, "segment", lambda *_, **__: pytest.fail("inference was started"))
    result = run("a.png", "--out", out)
    assert result.code == 2
    assert "error E_OUTPUT" in result.err
    assert (tmp_path / "file").read_text() == "mine"


# ---- E04: kill -9


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 30))])
def test_e04_a_kill_at_any_moment_leaves_whole_results_and_the_rest_is_done_later(
    run, film, tmp_path, tiny_bundle, seed
):
    count = 60
    for i in range(count):
        film(tmp_path / f"in/{i % 3}/{i:02}.png", shape=(200, 160), seed=i)
    out = tmp_path / "out"
    process = start(tmp_path, tiny_bundle, "in", "--out", "out")
    try:
        deadline = time.monotonic() + 60
        while not (out / "0").exists() and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(random.Random(seed).uniform(0, 0.3))
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    # One level down only: what lies deeper is a result that the kill found on its way to its place.
    finished = {path.relative_to(out).as_posix() for path in out.glob("[0-9]/[0-9][0-9].json")}
    for name in finished:
        base = str(out / name).removesuffix(".json")
        assert record(base + ".json")["grid"]["height"] == 200
        for kind in ("mask", "overlay"):
            with PILImage.open(f"{base}.{kind}.png") as picture:
                picture.load()
                assert picture.size == (160, 200)
    stamps = {name: (out / name).stat().st_mtime_ns for name in finished}

    assert run("in", "--out", "out").code == 0
    counts = record(out / "run.json")["counts"]
    assert counts == {"done": count - len(finished), "finished": len(finished), "skipped": 0, "failed": 0}
    assert {name: (out / name).stat().st_mtime_ns for name in finished} == stamps
    assert len(names(out)) == 3 * count + 1
    assert not list(out.rglob(".textray-*"))


def test_e04_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(run, film, tmp_path):
    film(tmp_path / "a.png")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    out = tmp_path / "out"
    out.mkdir()
    from textray.io.write import node

    left = [f".textray-file-{node()}-{gone.pid}-00.tmp", f".textray-stage-{node()}-{gone.pid}-x"]
    (out / left[0]).write_bytes(b"half")
    (out / left[1]).mkdir()
    alive = out / f".textray-file-{node()}-{os.getpid()}-00.tmp"
    alive.write_bytes(b"being written")
    assert run("a.png", "--out", "out").code == 0
    assert names(out) == sorted([alive.name, *RESULT, "run.json"])
    assert not (out / left[1]).exists()


# ---- E08: two runs


def test_e08_two_runs_in_one_folder_both_end_well(film, tmp_path, tiny_bundle):
    for i in range(8):
        film(tmp_path / f"in/{i}.png", seed=i)
    out = tmp_path / "out"
    for process in [start(tmp_path, tiny_bundle, "in", "--out", "out") for _ in range(2)]:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    assert record(out / "run.json")["status"] == "done"
    assert len(list(out.glob("[0-9].json"))) == len(list(out.glob("*.mask.png"))) == 8
    assert not list(out.rglob(".textray-*"))


SLOW_NAMES = """
import time
from pathlib import Path
real = Path.replace
def replace(self, target):
    if Path(target).suffix in (".png", ".json") and "stage" in str(self):
        time.sleep(0.05)
    return real(self, target)
Path.replace = replace
"""


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in Path(folder).glob("*.png")}


@pytest.mark.skipif(sys.platform == "win32", reason="folders have locks on POSIX only")
def test_two_runs_with_other_words_never_mix_record_and_mask(film, tmp_path, tiny_bundle):
    for i in range(4):
        film(tmp_path / f"in/{i}.png", seed=i)
    out, texts = tmp_path / "out", ("left base", "right apex")
    both = [start(tmp_path, tiny_bundle, "in", "--out", "out", "--text", t, before=SLOW_NAMES) for t in texts]
    for process in both:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    alone = {}
    for text in texts:
        process = start(tmp_path, tiny_bundle, "in", "--out", text, "--text", text)
        process.communicate(timeout=120)
        alone[text] = hashes(tmp_path / text)
    found = hashes(out)
    for i in range(4):
        of_film = record(out / f"{i}.json")
        for name in (f"{i}.mask.png", f"{i}.overlay.png"):
            assert found[name] == of_film["files"][name] == alone[of_film["text"]["given"]][name]


TOGETHER = """
import time
from pathlib import Path
from textray.inference.segmenter import Predictor
from textray.io import write
real = Predictor.segment
def segment(self, picture, *args, **options):
    Path("ready-" + Path(picture).parent.name).touch()
    while len(list(Path().glob("ready-*"))) < 2:
        time.sleep(0.01)
    return real(self, picture, *args, **options)
Predictor.segment = segment
"""


@pytest.mark.skipif(sys.platform == "win32", reason="folders have locks on POSIX only")
def test_e08_each_of_two_runs_has_a_summary(film, tmp_path, tiny_bundle):
    for folder in ("one", "two"):
        for seed in range(2):
            film(tmp_path / folder / f"{folder}{seed}.png", seed=seed)
    both = [start(tmp_path, tiny_bundle, name, "--out", "out", before=TOGETHER) for name in ("one", "two")]
    for process in both:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    summaries = [record(tmp_path / "out" / name) for name in ("run.json", "run-2.json")]
    assert [summary["status"] for summary in summaries] == ["done", "done"]
    inputs = [{item["input"] for item in summary["items"]} for summary in summaries]
    assert sorted(map(sorted, inputs)) == [["one/one0.png", "one/one1.png"], ["two/two0.png", "two/two1.png"]]


@pytest.mark.parametrize("broken", [False, True])
def test_two_runs_of_films_of_one_name_keep_both_results(film, tmp_path, tiny_bundle, broken):
    for seed, folder in enumerate(("one", "two")):
        film(tmp_path / folder / "a.png", seed=seed)
    if broken:
        (tmp_path / "two/a.png").write_bytes((tmp_path / "two/a.png").read_bytes()[:-20])
    both = [start(tmp_path, tiny_bundle, f"{name}/a.png", "--out", "out", before=TOGETHER) for name in ("one", "two")]
    for process, code in zip(both, (0, 3 if broken else 0), strict=True):
        _, err = process.communicate(timeout=120)
        assert process.returncode == code, err
    found = {}
    for path in (tmp_path / "out").glob("a*.json"):
        of_film = record(path)
        found[of_film["input"]["path"]] = of_film["files"].items() & hashes(tmp_path / "out").items()
    assert {name: len(files) for name, files in found.items()} == {"one/a.png": 2} | (
        {} if broken else {"two/a.png": 2}
    )


def test_a_full_disk_behind_the_standard_output_has_a_code():
    words = [sys.executable, "-c", "from textray.cli import main; main()", "info"]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=100)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[0].startswith("error E_DISK: the output cannot be written. Got No space left")
    assert len(ended.stderr.splitlines()) == 1


def test_an_unexpected_failure_of_one_file_does_not_end_the_run(run, film, tmp_path, monkeypatch):
    for name in "abc":
        film(tmp_path / f"{name}.png")
    real = Predictor.segment

    def broken(self, picture, *args, **options):
        if picture.name == "b.png":
            raise ZeroDivisionError("Jane Planted")
        return real(self, picture, *args, **options)

    monkeypatch.setattr(Predictor, "segment", broken)
    result = run("a.png", "b.png", "c.png")
    assert result.code == 3
    assert "error E_INTERNAL: b.png: unexpected ZeroDivisionError" in result.err
    assert "Planted" not in result.err + (tmp_path / "textray-out/run.json").read_text()
    assert record(tmp_path / "textray-out/run.json")["counts"]["done"] == 2


@pytest.mark.parametrize("command", [("segment",), ("explain", "zones")])
def test_an_interrupt_leaves_a_summary_and_130(cli, tiny_bundle, film, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    inputs = [film(tmp_path / f"{name}.png") for name in "abc"]
    real = Predictor.segment

    def interrupted(self, picture, *args, **options):
        if picture.name == "b.png":
            raise KeyboardInterrupt
        return real(self, picture, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Predictor, "segment", interrupted)
        assert cli(*command, *inputs, "--model", tiny_bundle).code == 130
    summary = record(tmp_path / "textray-out/run.json")
    assert (summary["status"], summary["counts"]["done"]) == ("interrupted", 1)
    assert "2 done, 1 finished" in cli(*command, *inputs, "--model", tiny_bundle).err


@pytest.mark.parametrize(
    ("owner", "method", "kind", "before"),
    [
        pytest.param(Path, "mkdir", "stage", False, id="the folder of a result is just made"),
        pytest.param(shutil, "rmtree", "stage", True, id="it is about to be removed"),
        pytest.param(Path, "unlink", "file", True, id="a test file is about to be removed"),
        pytest.param(Path, "replace", "file", True, id="a file is about to take its name"),
    ],
)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_an_interrupt_at_any_step_leaves_nothing_half_written(
    run, film, tmp_path, monkeypatch, at, owner, method, kind, before
):
    for name in "abc":
        film(tmp_path / f"in/{name}/{name}.png")
    real, seen = getattr(owner, method), []

    def interrupting(path, *args, **options):
        hit = Path(path).name.startswith(f".textray-{kind}-")
        seen.extend([path] * hit)
        stop = hit and len(seen) == at + 1
        if stop and before:
            raise KeyboardInterrupt
        value = real(path, *args, **options)
        if stop:
            raise KeyboardInterrupt
        return value

    other = tmp_path / f"out/.textray-stage-{write.process()}-{threading.get_ident() + 1}-00.tmp"
    other.mkdir(parents=True)
    with monkeypatch.context() as patched:
        patched.setattr(owner, method, interrupting)
        assert run("in", "--out", "out").code == 130
    assert len(seen) > at
    assert list((tmp_path / "out").rglob(".textray-*")) == [other]  # another thread writes it
    other.rmdir()
    assert run("in", "--out", "out").code == 0
    assert record(tmp_path / "out/run.json")["status"] == "done"


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_e05_a_signal_leaves_a_summary_and_its_code(run, film, tmp_path, tiny_bundle, name):
    for i in range(60):
        film(tmp_path / f"in/{i:02}.png", shape=(200, 160), seed=i)
    number = getattr(signal, name)
    process = start(tmp_path, tiny_bundle, "in", "--out", "out")
    deadline = time.monotonic() + 60
    while not (tmp_path / "out/02.json").exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Interrupted. The same command goes on where this one stopped." in err
    assert "Traceback" not in err
    summary = record(tmp_path / "out/run.json")
    assert summary["status"] == "interrupted"
    assert 1 <= summary["counts"]["done"] == len(summary["items"]) < 60
    assert not list((tmp_path / "out").rglob(".textray-*"))
    assert run("in", "--out", "out").code == 0
    assert record(tmp_path / "out/run.json")["status"] == "done"
