"""Results and summaries that are there before a run: whole ones stay, others are made again, foreign ones are kept."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from textray.inference.segmenter import Predictor
from textray.io.write import node

RESULT = ["a.json", "a.mask.png", "a.overlay.png"]


def record(path):
    return json.loads(Path(path).read_bytes())


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in Path(folder).glob("*.png")}


# ---- changed later


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def edit(path, old, new):
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))


@pytest.mark.parametrize(
    "change",
    [
        lambda out: cut(out / "a.mask.png"),
        lambda out: shutil.copy(out / "b.mask.png", out / "a.mask.png"),
        lambda out: shutil.copy(out / "b.overlay.png", out / "a.overlay.png"),
        lambda out: (out / "a.overlay.png").unlink(),
        lambda out: cut(out / "a.json"),
        lambda out: edit(out / "a.json", '"pixels": ', '"pixels": 1'),
        lambda out: edit(out / "a.json", '"warnings"', '"warned"'),
        lambda out: edit(out / "a.json", '"files"', '"hashes"'),
        lambda out: edit(out / "a.json", '"a.mask.png": "', '"a.mask.png": "0'),
    ],
    ids=[
        "cut mask",
        "other mask",
        "other overlay",
        "no overlay",
        "cut",
        "edited",
        "no part",
        "no hashes",
        "other hash",
    ],
)
def test_what_was_changed_later_is_not_finished(run, film, tmp_path, change):
    for i, name in enumerate("ab"):
        film(tmp_path / f"{name}.png", seed=i, spot=(0.3, 0.2 + 0.5 * i))
    assert run("a.png", "b.png", "--out", "out").code == 0
    whole = hashes(tmp_path / "out")
    change(tmp_path / "out")
    assert "1 done, 1 finished" in run("a.png", "b.png", "--out", "out").err
    assert hashes(tmp_path / "out") == whole
    assert "2 finished" in run("a.png", "b.png", "--out", "out").err


@pytest.mark.parametrize("command", [("ground", "--phrase", "left lung"), ("explain", "zones", "--text", "left base")])
def test_maps_and_explanations_changed_later_are_not_finished(
    cli, film, tmp_path, tiny_bundle, grounding_bundle, command
):
    model = grounding_bundle if command[0] == "ground" else tiny_bundle
    words = [*command, film(tmp_path / "a.png"), "--model", model, "--out", tmp_path / "out"]
    assert cli(*words).code == 0
    assert "1 finished" in cli(*words).err
    files = [path for path in (tmp_path / "out").iterdir() if path.suffix != ".json"]
    assert files
    for path in files:
        path.write_bytes(path.read_bytes() + b"\0")
        assert "1 done" in cli(*words).err


# ---- E17: an earlier result, and a run that fails


@pytest.mark.parametrize(
    ("content", "spelling"), [(None, "a.png"), (b"", "./a.png"), (b"<html>", "../{0.name}/a.png"), (b"", "{0}/a.png")]
)
def test_e17_the_old_result_is_gone_however_the_file_is_named(run, film, tmp_path, content, spelling):
    film(tmp_path / "a.png")
    assert run("a.png").code == 0
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:-20] if content is None else content)
    assert run(spelling.format(tmp_path)).code == 3
    assert names(tmp_path / "textray-out") == ["run.json"]


@pytest.mark.skipif(sys.platform == "win32", reason="pipes are POSIX")
@pytest.mark.parametrize("become", [lambda path: path.symlink_to("nothing"), os.mkfifo], ids=["broken link", "pipe"])
def test_e17_a_file_that_became_something_else_takes_its_result_along_without_a_hang(run, film, tmp_path, become):
    film(tmp_path / "in/a.png")
    assert run("in/a.png", "--out", "out").code == 0
    (tmp_path / "in/a.png").unlink()
    become(tmp_path / "in/a.png")
    result = run("in/a.png", "--out", "out")
    assert result.code == 3
    assert "error E_READ: in/a.png" in result.err
    assert names(tmp_path / "out") == ["run.json"]


def test_e17_another_files_result_stays(run, film, tmp_path):
    film(tmp_path / "one/a.png")
    assert run("one/a.png").code == 0
    before = (tmp_path / "textray-out/a.mask.png").read_bytes()
    (tmp_path / "two").mkdir()
    (tmp_path / "two/a.png").write_bytes(b"")
    assert run("two/a.png").code == 3
    assert (tmp_path / "textray-out/a.mask.png").read_bytes() == before


def test_e17_strict_text_that_fails_takes_the_old_result_away(run, film, tmp_path):
    film(tmp_path / "a.png")
    assert run("a.png").code == 0
    assert run("a.png", "--text", "Hello World", "--strict-text").code == 3
    assert [path.name for path in (tmp_path / "textray-out").iterdir()] == ["run.json"]


@pytest.mark.parametrize("without", ["lesion", "text", "warnings", "input"])
def test_a_record_that_lacks_a_part_is_of_no_finished_result(run, film, tmp_path, without):
    film(tmp_path / "a.png")
    assert run("a.png").code == 0
    record = tmp_path / "textray-out" / "a.json"
    whole = json.loads(record.read_bytes())
    for damage in (None, 3, [3]):
        record.write_text(json.dumps(whole | {without: damage}))
        again = run("a.png")
        assert (again.code, "E_INTERNAL" in again.err) == (0, False)
        if without != "input":
            assert "1 done" in again.err
            assert json.loads(record.read_bytes()).keys() == whole.keys()


# ---- files of others


@pytest.mark.parametrize("content", ["good", "bad"])
def test_pictures_of_the_user_are_neither_overwritten_nor_removed(run, film, tmp_path, content):
    film(tmp_path / "a.png")
    if content == "bad":
        (tmp_path / "a.png").write_bytes(b"")
    truth = film(tmp_path / "out/a.mask.png", spot=(0.8, 0.8)).read_bytes()
    for _ in range(2):
        assert run("a.png", "--out", "out").code == (0 if content == "good" else 3)
        assert (tmp_path / "out/a.mask.png").read_bytes() == truth
    assert len(names(tmp_path / "out")) == (5 if content == "good" else 2)


def test_masks_of_this_tool_are_not_taken_for_films(run, film, tmp_path):
    film(tmp_path / "in/a.png")
    assert run("in", "--out", "out").code == 0
    shutil.copy(tmp_path / "out/a.mask.png", tmp_path / "in/copied.mask.png")
    shutil.copy(tmp_path / "out/a.overlay.png", tmp_path / "in/copied.overlay.png")
    result = run("in", "--out", "again")
    assert result.code == 0
    assert result.err.count("skipped W_OWN_RESULT") == 2
    assert record(tmp_path / "again/run.json")["counts"]["done"] == 1


@pytest.mark.parametrize("content", [b"", b"mine", b'{"schema": "other/1"}', b'{"schema": "textray.record/1"}', None])
def test_a_summary_of_somebody_else_is_not_replaced(run, film, tmp_path, monkeypatch, content):
    film(tmp_path / "a.png")
    place = tmp_path / "out/run.json"
    place.parent.mkdir()
    place.mkdir() if content is None else place.write_bytes(content)
    monkeypatch.setattr(Predictor, "segment", lambda *_, **__: pytest.fail("inference was started"))
    result = run("a.png", "--out", "out")
    assert result.code == 2
    assert "error E_OUTPUT: out/run.json is no summary of this command, so it is not overwritten" in result.err
    assert [path.name for path in place.parent.iterdir()] == ["run.json"]
    assert content is None or place.read_bytes() == content


def test_a_summary_of_another_command_is_not_replaced(cli, film, tmp_path, tiny_bundle, grounding_bundle):
    commands = [("segment", tiny_bundle), ("explain zones --text base", tiny_bundle)]
    commands.append(("ground --phrase left", grounding_bundle))
    for number, (first, model) in enumerate(commands):
        words = [film(tmp_path / "a.png"), "--out", tmp_path / str(number)]
        assert cli(*first.split(), *words, "--model", model).code == 0
        before = (tmp_path / str(number) / "run.json").read_bytes()
        for second, other in commands[:number] + commands[number + 1 :]:
            result = cli(*second.split(), *words, "--model", other)
            assert (result.code, "error E_OUTPUT" in result.err, "--out" in result.err) == (2, True, True)
        assert (tmp_path / str(number) / "run.json").read_bytes() == before
        assert "1 finished" in cli(*first.split(), *words, "--model", model).err


@pytest.mark.parametrize("rest", [b'{\n  "schema": "textray.run/1",\n  "tex', b'{"schema": "textray.run/1"}'])
def test_a_damaged_summary_of_this_command_is_replaced(run, film, tmp_path, rest):
    film(tmp_path / "a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/run.json").write_bytes(rest)
    assert run("a.png", "--out", "out").code == 0
    assert record(tmp_path / "out/run.json")["status"] == "done"


def gone():
    """Number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.skipif(sys.platform == "win32", reason="processes are asked on POSIX only")
@pytest.mark.parametrize(
    ("process", "age", "found"),
    [
        (lambda: f"{node()}-{os.getppid()}", 0, "out/run-3.json"),
        (lambda: f"{node()}-{gone()}", 0, "out/run.json"),
        (lambda: "0123abcd-1", 60, "out/run-3.json"),
        (lambda: "0123abcd-1", 7200, "out/run.json"),
    ],
    ids=["alive", "killed", "of another machine", "of another machine, long ago"],
)
def test_e08_a_summary_of_a_run_at_work_is_left_to_it(run, film, tmp_path, process, age, found):
    film(tmp_path / "a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/run-2.json").write_text("mine")
    summary = tmp_path / "out/run.json"
    summary.write_text(json.dumps({"schema": "textray.run/1", "status": "running", "process": process()}))
    before = summary.stat().st_mtime - age
    os.utime(summary, (before, before))
    result = run("a.png", "--out", "out")
    assert result.code == 0
    assert f"1 done. Summary: {found}" in result.err
    assert record(tmp_path / found)["status"] == "done"
    assert "process" not in record(tmp_path / found)
    assert record(summary)["status"] == ("done" if found == "out/run.json" else "running")
    assert (tmp_path / "out/run-2.json").read_text() == "mine"
