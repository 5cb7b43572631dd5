"""Faults of text, weights and running, through the command line: exit code, message code, nothing half-written."""

import json
import subprocess
import sys

import pytest

from textray.inference.segmenter import Predictor

pytestmark = pytest.mark.usefixtures("real_fsync")  # what survives a crash is asked


@pytest.fixture
def run(cli, tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *args: cli("segment", *args, "--model", tiny_bundle, "--threads", "1")


def record(path):
    return json.loads(path.read_bytes())


def left_over(folder):
    return [path.name for path in folder.rglob(".textray-*")] if folder.exists() else []


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from textray.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
main(sys.argv[2:])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="resource limits are POSIX")
@pytest.mark.parametrize("limit", [0, 300, 8000])
def test_e01_a_full_disk_leaves_the_old_result_whole(run, film, tmp_path, tiny_bundle, limit):
    film(tmp_path / "a.png", shape=(200, 160))
    assert run("a.png").code == 0
    out = tmp_path / "textray-out"
    results = ("a.mask.png", "a.overlay.png", "a.json")
    before = {name: (out / name).read_bytes() for name in results}
    assert len(before["a.overlay.png"]) > 8000
    command = [sys.executable, "-c", LIMITED, str(limit), "segment", "a.png", "--model", str(tiny_bundle)]
    done = subprocess.run(
        [*command, "--text", "left base", "--threads", "1"], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert done.returncode == 1
    assert "error E_DISK" in done.stderr
    assert "Traceback" not in done.stderr
    assert {name: (out / name).read_bytes() for name in results} == before
    assert left_over(out) == []


@pytest.mark.parametrize("out", ["file", "file/below"])
def test_e02_an_output_that_is_a_file_fails_before_inference(run, film, tmp_path, monkeypatch, out):
    film(tmp_path / "a.png")
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr(Predictor, "segment", lambda *_, **__: pytest.fail("inference was started"))
    result = run("a.png", "--out", out)
    assert result.code == 2
    assert "error E_OUTPUT" in result.err
    assert (tmp_path / "file").read_text() == "mine"


def test_e17_strict_text_that_fails_takes_the_old_result_away(run, film, tmp_path):
    film(tmp_path / "a.png")
    assert run("a.png").code == 0
    assert run("a.png", "--text", "Hello World", "--strict-text").code == 3
    assert [path.name for path in (tmp_path / "textray-out").iterdir()] == ["run.json"]


def test_e08_two_runs_in_one_folder_both_end_well(film, tmp_path, tiny_bundle):
    for i in range(8):
        film(tmp_path / f"in/{i}.png", seed=i)
    command = [sys.executable, "-c", "from textray.cli import main; main()", "segment", "in", "--out", "out"]
    runs = [
        subprocess.Popen(
            [*command, "--model", str(tiny_bundle), "--threads", "1"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in runs:
        _, told = process.communicate(timeout=120)
        assert process.returncode == 0, told
    out = tmp_path / "out"
    assert record(out / "run.json")["status"] == "done"
    assert len(list(out.glob("[0-9].json"))) == len(list(out.glob("*.mask.png"))) == 8
    assert left_over(out) == []


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
