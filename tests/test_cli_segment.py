"""`textray segment` as a user runs it, on a bundle whose answer is known."""

import hashlib
import json
import os

import numpy as np
import pytest
from PIL import Image as PILImage


def record(path):
    return json.loads(path.read_bytes())


def test_one_film_gives_mask_overlay_record_and_summary(run, film, tmp_path):
    film(tmp_path / "chest.png")
    before = hashlib.sha256((tmp_path / "chest.png").read_bytes()).hexdigest()
    result = run("chest.png")
    out = tmp_path / "textray-out"
    assert result.code == 0
    files = sorted(path.name for path in out.iterdir())
    assert files == ["chest.json", "chest.mask.png", "chest.overlay.png", "run.json"]
    with PILImage.open(out / "chest.mask.png") as picture:
        mask = np.asarray(picture)
    assert mask.shape == (100, 80)
    assert set(np.unique(mask)) == {0, 255}
    assert mask[25, 20] == 255
    found = record(out / "chest.json")
    assert found["input"]["sha256"] == before == hashlib.sha256((tmp_path / "chest.png").read_bytes()).hexdigest()
    assert found["lesion"]["pixels"] == (mask > 0).sum()
    summary = record(out / "run.json")
    assert summary["status"] == "done"
    assert summary["counts"] == {"done": 1, "finished": 0, "skipped": 0, "failed": 0}
    assert "chest.mask.png" in result.out
    assert "patient's" not in result.err  # no words, so no convention of words


def test_a_second_run_skips_exactly_what_is_the_same(run, film, tmp_path):
    for i in range(3):
        film(tmp_path / f"in/{i}.png", seed=i)
    assert run("in").code == 0
    stamp = (tmp_path / "textray-out/0.mask.png").stat().st_mtime_ns

    again = run("in")
    assert "3 finished by an earlier run" in again.err
    assert (tmp_path / "textray-out/0.mask.png").stat().st_mtime_ns == stamp
    film(tmp_path / "in/1.png", seed=9)
    assert "1 done, 2 finished" in run("in").err
    assert "3 done" in run("in", "--text", "left base").err
    assert "3 done" in run("in", "--text", "left base", "--laterality", "viewer").err
    assert "3 finished" in run("in", "--text", " left base\u200b ", "--laterality", "viewer").err
    assert "3 done" in run("in", "--text", "left base", "--laterality", "viewer", "--overwrite").err


def test_another_model_is_another_result(cli, tiny_bundle, make_bundle, film, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    film(tmp_path / "a.png")
    make_bundle(tmp_path / "other", threshold=0.9)
    assert "1 done" in cli("segment", "a.png", "--model", tiny_bundle).err
    assert "1 done" in cli("segment", "a.png", "--model", tmp_path / "other").err


def test_another_file_of_the_same_name_does_not_replace_a_result(run, film, tmp_path):
    film(tmp_path / "one/a.png")
    film(tmp_path / "two/a.png", seed=5)
    run("one/a.png")
    first = (tmp_path / "textray-out/a.json").read_bytes()
    assert run("two/a.png").code == 0
    assert (tmp_path / "textray-out/a.json").read_bytes() == first
    (marked,) = (tmp_path / "textray-out").glob("a-*.json")
    assert record(marked)["input"]["path"] == "two/a.png"
    assert "1 finished" in run("two/a.png").err


def test_json_lines_are_all_there_is_on_the_standard_output(run, film, tmp_path):
    film(tmp_path / "in/deep/a.png")
    (tmp_path / "in/notes.png").write_bytes(b"")
    result = run("in", "--json", "--text", "left base")
    assert len(result.out.splitlines()) == len(result.rows) == 3
    done, failed, summary = result.rows
    assert (done["status"], done["outputs"]["mask"]) == ("done", "textray-out/deep/a.mask.png")  # mirrors the tree
    assert done["text_mode"] == "given"
    assert done["warnings"][0]["code"] == "W_SIDES_ASSUMED"
    assert done["warnings"][0]["remedy"]
    assert (failed["status"], failed["code"]) == ("failed", "E_FORMAT")
    assert summary == {"type": "run", "exit_code": 3, "counts": summary["counts"], "run": "textray-out/run.json"}
    assert summary["counts"] == {"done": 1, "finished": 0, "skipped": 0, "failed": 1}


def test_a_table_gives_each_picture_its_words(run, film, tmp_path):
    for name in ("a", "b", "c"):
        film(tmp_path / f"in/{name}.png")
    rows = "a.png;left base;;;\nb.png;left base;viewer\nz.png;x;\n"  # spreadsheets pad rows
    (tmp_path / "texts.csv").write_text("image;text;laterality\n" + rows)
    result = run("in", "--texts", "texts.csv")
    assert result.code == 0
    assert "W_UNKNOWN_IMAGE" in result.err
    assert "z.png" in result.err
    found = {name: record(tmp_path / f"textray-out/{name}.json")["text"] for name in ("a", "b", "c")}
    assert found["a"]["zones"]["right lower"] == "present"
    assert found["b"]["zones"]["left lower"] == "present"
    assert found["c"]["mode"] == "none"
    assert "the patient's" in result.err
    assert "the viewer's" in result.err


def test_odd_names_work_and_stay_in_the_record(run, film, tmp_path):
    folder = tmp_path / "in"
    names = ["two words.png", "new\nline.png", "-rf.png", "🫁.png", "é" * 125 + ".png", os.fsdecode(b"caf\xe9.png")]
    for i, name in enumerate(names):
        film(folder / name, seed=i)
    result = run("in", "--json")
    assert result.code == 0
    assert len(result.rows) == len(names) + 1
    rows = [row for row in result.rows if row["type"] == "result"]
    assert "in/new\nline.png" in [row["input"] for row in rows]
    for row in rows:
        assert record(tmp_path / row["outputs"]["record"])["input"]["path"] == row["input"]
        assert row["outputs"]["mask"].isprintable()
    assert "in/new\\nline.png" in run("in").out


# Weights that write their own report


@pytest.fixture
def write(cli, film, writing_bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    film(tmp_path / "chest.png")
    return lambda *args: cli("segment", "chest.png", "--model", writing_bundle, "--out", "out", "--threads", "1", *args)


def test_results_of_another_correction_are_not_taken_for_finished(write, tmp_path):
    def statuses(*args):
        return [row["status"] for row in write("--json", *args).rows if row["type"] == "result"]

    assert statuses() == ["done"]
    assert statuses() == ["finished"]
    assert statuses("--edit", "left lower") == ["done"]
    assert statuses("--edit", "left lower") == ["finished"]
    assert statuses("--edit", "left middle") == ["done"]
    assert statuses("--edit", "left middle", "--laterality", "viewer") == ["done"]
    assert statuses("--text-free", "none") == ["done"]
    assert statuses("--text-free", "none") == ["finished"]
    (tmp_path / "out/chest.report-attention.png").unlink()
    assert statuses("--text-free", "none") == ["done"]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("--edit", "left upper -right lower"), "a plus or a dash"),
        (("--edit", "left lower", "--texts", "texts.csv"), "both reports and a correction"),
    ],
)
def test_a_correction_that_cannot_be_made_is_refused_at_once(write, tmp_path, args, told):
    (tmp_path / "texts.csv").write_text("image,text\nchest.png,left base\n")
    result = write(*args)
    assert result.code == 2
    assert told in result.err
    assert not (tmp_path / "out").exists()


def test_a_picture_of_a_users_own_is_not_overwritten_by_the_attention(write, film, tmp_path):
    own = film(tmp_path / "out/chest.report-attention.png", seed=1).read_bytes()
    assert write().code == 0
    assert (tmp_path / "out/chest.report-attention.png").read_bytes() == own
    assert len(list((tmp_path / "out").glob("chest-*.json"))) == 1
