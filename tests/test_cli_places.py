"""Folders, names and paths of films: read once, matched by name, and described without a person."""

import json
import os
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

RESULT = ["a.json", "a.mask.png", "a.overlay.png"]


def record(path):
    return json.loads(Path(path).read_bytes())


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# ---- B14: folders and files that never end


@pytest.mark.skipif(sys.platform == "win32", reason="paths of this length are POSIX")
@pytest.mark.parametrize("given", ["in", "in/**/*.png"])
def test_b14_folders_may_be_very_deep(run, film, tmp_path, given):
    try:
        place = film(tmp_path / "a.png")
        folder = tmp_path / "in"
        for _ in range(1500):
            folder.mkdir()
            folder /= "d"
        place.rename(folder.parent / "a.png")
        assert run(given).code == 0
        (item,) = record(tmp_path / "textray-out/run.json")["items"]
        assert item["status"] == "done"
        assert (tmp_path / item["outputs"]["record"]).is_file()
    finally:  # Python's own removal calls itself for each folder
        subprocess.run(["rm", "-rf", tmp_path / "in", tmp_path / "textray-out"], check=True)


@pytest.mark.skipif(sys.platform == "win32", reason="pipes are POSIX")
@pytest.mark.parametrize("become", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"])
@pytest.mark.parametrize("name", ["README.md", "model.onnx", "preprocess.json"])
def test_b14_a_file_of_a_bundle_that_is_a_pipe_or_a_device_is_refused_at_once(
    cli, film, tmp_path, tiny_bundle, become, name
):
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    (bundle / name).unlink()
    become(bundle / name)
    result = cli("segment", film(tmp_path / "a.png"), "--model", bundle, "--out", tmp_path / "out")
    assert result.code == 2
    assert f"error E_BUNDLE: {name} of bundle bundle cannot be read. Got not a regular file." in result.err


@pytest.mark.skipif(sys.platform == "win32", reason="pipes are POSIX")
@pytest.mark.parametrize("name", ["a.json", "a.mask.png", "run.json"])
def test_b14_pipes_among_the_results_do_not_hang_a_run(run, film, tmp_path, name):
    film(tmp_path / "a.png")
    (tmp_path / "out").mkdir()
    os.mkfifo(tmp_path / "out" / name)
    assert run("a.png", "--out", "out").code == (2 if name == "run.json" else 0)
    assert (tmp_path / "out" / name).is_fifo()


# ---- names and places


def test_relative_and_absolute_paths_are_one_file(run, film, tmp_path):
    film(tmp_path / "in/a.png")
    assert run("in/a.png").code == 0
    for given in (tmp_path / "in/a.png", "in/../in/a.png", tmp_path / "in"):
        assert "1 finished" in run(given).err
    assert names(tmp_path / "textray-out") == [*RESULT, "run.json"]


@pytest.mark.parametrize(("form", "other"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_in_other_letters_work_and_match_their_row(run, film, tmp_path, form, other):
    name = unicodedata.normalize(form, "Thorax-Übersicht é 胸.png")
    film(tmp_path / "in" / name)
    (tmp_path / "texts.csv").write_text(f"image,text\n{unicodedata.normalize(other, name)},left base\n")
    result = run("in", "--texts", "texts.csv", "--json")
    assert result.code == 0
    assert "W_UNKNOWN_IMAGE" not in result.err
    assert result.rows[0]["input"] == f"in/{name}"
    assert result.rows[0]["text_mode"] == "given"


@pytest.mark.parametrize("row", ["a", "./in/a.png", "{}/in/a.png"])
def test_a_row_finds_its_film_by_any_path_and_first_by_that_given(run, film, tmp_path, row):
    film(tmp_path / "in/a.png")
    (tmp_path / "texts.csv").write_text(f"image,text\n{row.format(tmp_path)},left base\n")
    for folder in (tmp_path / "in", "in"):
        assert run(folder, "--texts", "texts.csv", "--json", "--overwrite").rows[0]["text_mode"] == "given"
    film(tmp_path / "a.png")
    (tmp_path / "texts.csv").write_text("image,text\na.png,left base\nin/a.png,right apex\n")
    assert run("a.png", "in", "--texts", "texts.csv").code == 0
    items = record("textray-out/run.json")["items"]
    given = {item["input"]: record(item["outputs"]["record"])["text"]["given"] for item in items}
    assert given == {"a.png": "left base", "in/a.png": "right apex"}


def test_the_summary_describes_the_run_and_no_person(run, film, tmp_path):
    film(tmp_path / "in/a.png")
    (tmp_path / "in/notes.txt").write_text("x")
    (tmp_path / "in/b.png").write_bytes(b"")
    assert run("in", "--text", "Jane Planted has an opacity in the left base", "--strict-text").code == 3
    found = record("textray-out/run.json")
    assert found["status"] == "done"
    assert found["inputs"] == 3
    assert found["counts"] == {"done": 1, "finished": 0, "skipped": 1, "failed": 1}
    assert found["model"]["name"] == "tiny"
    assert len(found["model"]["sha256"]) == 64
    assert found["settings"]["laterality"] == "patient"
    assert found["settings"]["strict_text"] is True
    assert {row["input"]: row["code"] for row in found["items"]} == {
        "in/a.png": "", "in/b.png": "E_FORMAT", "in/notes.txt": "W_NOT_IMAGE",
    }  # fmt: skip
    assert "Planted" not in Path("textray-out/run.json").read_text()
