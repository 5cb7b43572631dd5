"""`textray explain` as a user runs it, on good and bad inputs."""

import builtins
import hashlib
import json

import numpy as np
import pytest
from PIL import Image as PILImage


@pytest.fixture
def run(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda kind, *args: cli("explain", kind, *args, "--threads", "1")


def record(path):
    return json.loads(path.read_bytes())


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("kind", ["attention", "words", "zones"])
def test_a_picture_and_a_record_of_each_kind(kind, run, deciding, film, tmp_path):
    film(tmp_path / "chest.png")
    before = hashlib.sha256((tmp_path / "chest.png").read_bytes()).hexdigest()
    result = run(kind, "chest.png", "--text", "left base", "--model", deciding.folder)
    assert result.code == 0
    assert files(tmp_path / "textray-out") == [f"chest.{kind}.json", f"chest.{kind}.png", "run.json"]
    summary = record(tmp_path / "textray-out/run.json")
    assert (summary["schema"], summary["status"], summary["settings"]["explain"]["kind"]) == (
        "textray.explain-run/1", "done", kind,
    )  # fmt: skip
    found = record(tmp_path / f"textray-out/chest.{kind}.json")
    assert found["kind"] == kind
    assert found["input"]["sha256"] == before == hashlib.sha256((tmp_path / "chest.png").read_bytes()).hexdigest()
    assert found["convention"]["zones"] == "viewer"
    assert found["convention"]["words_given"] == "patient"
    assert found["text"]["used"]["viewer"].endswith("lower right lung.")
    assert found["text"]["used"]["patient"].endswith("lower left lung.")
    assert found[kind]["meaning"]
    with PILImage.open(tmp_path / f"textray-out/chest.{kind}.png") as picture:
        assert picture.mode == "RGB"
        assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 100
    assert "the patient's" in result.err
    assert "viewer's left and right" in result.err
    assert "W_SIDES_ASSUMED" in result.err


@pytest.mark.parametrize("text", [(), ("--text", "a cough")])
def test_without_places_nothing_is_told_even_where_the_network_could_write(run, writing_bundle, film, tmp_path, text):
    film(tmp_path / "chest.png")
    result = run("zones", "chest.png", *text, "--model", writing_bundle)
    assert (result.code, "W_NO_ZONE" in result.err) == (0, text != ())
    found = record(tmp_path / "textray-out/chest.zones.json")
    assert (found["text"]["mode"], found["convention"]["words_given"]) == ("none", "none")
    assert found["zones"]["compared_with"] == "none"


def test_attention_of_the_record_is_by_token_and_place(run, deciding, film, tmp_path):
    film(tmp_path / "chest.png")
    args = ("chest.png", "--text", "left base", "--laterality", "viewer", "--model", deciding.folder)
    assert run("attention", *args, "--columns", "all", "--out", "all").code == 0
    assert run("attention", *args, "--out", "places").code == 0
    found = record(tmp_path / "all/chest.attention.json")["attention"]
    assert [(x["name"], x["height"], x["width"]) for x in found["levels"]] == [
        ("matching.0", 8, 8), ("matching.1", 4, 4), ("matching.2", 2, 2), ("matching.3", 1, 1),
    ]  # fmt: skip
    for level in found["levels"]:
        maps = np.array(level["maps"])
        assert maps.shape == (len(found["tokens"]), level["height"], level["width"])
        np.testing.assert_allclose(maps.sum(0), 1, atol=1e-4)
    sizes = []
    for name in ("all", "places"):
        with PILImage.open(tmp_path / name / "chest.attention.png") as picture:
            sizes.append(picture.width)
    assert sizes[0] > sizes[1]


def test_a_guided_decoder_says_that_slots_are_no_words(run, guided, film, tmp_path):
    film(tmp_path / "chest.png")
    assert run("attention", "chest.png", "--text", "left base", "--model", guided.folder).code == 0
    levels = record(tmp_path / "textray-out/chest.attention.json")["attention"]["levels"]
    assert {level["attends_to"] for level in levels} == {"slots"}
    assert [len(level["slots"]) for level in levels] == [9, 12, 24]


def test_what_is_finished_is_not_done_again(run, tiny_bundle, film, tmp_path):
    film(tmp_path / "chest.png")
    args = ("zones", "chest.png", "--model", tiny_bundle, "--json")

    def statuses(*more):
        return [row["status"] for row in run(*args, *more).rows if row["type"] == "result"]

    assert statuses("--text", "left base") == ["done"]
    assert statuses("--text", "left base") == ["finished"]
    assert statuses("--text", "left base", "--laterality", "viewer") == ["done"]
    (tmp_path / "textray-out/chest.zones.png").unlink()
    assert statuses("--text", "left base", "--laterality", "viewer") == ["done"]
    assert files(tmp_path / "textray-out") == ["chest.zones.json", "chest.zones.png", "run.json"]


def test_a_folder_goes_on_past_bad_files_and_leaves_its_own_pages_out(run, cli, tiny_bundle, film, tmp_path):
    film(tmp_path / "in/a.png")
    (tmp_path / "in/bad.png").write_text("<html>not found</html>")
    (tmp_path / "in/notes.txt").write_text("a note")
    result = run("zones", "in", "--model", tiny_bundle, "--out", "out", "--json")
    assert result.code == 3
    assert "error E_FORMAT: in/bad.png" in result.err
    assert result.rows[-1]["counts"] == {"done": 1, "finished": 0, "skipped": 1, "failed": 1}
    assert result.rows[-1]["kind"] == "zones"
    again = cli("segment", "out", "--model", tiny_bundle, "--out", "masks", "--threads", "1", "--json")
    assert not [row for row in again.rows if row.get("status") == "done"]  # a page is no film


def test_a_refused_film_keeps_no_earlier_page(run, tiny_bundle, film, tmp_path):
    film(tmp_path / "chest.png")
    assert run("zones", "chest.png", "--model", tiny_bundle).code == 0
    (tmp_path / "chest.png").write_bytes(b"")
    assert run("zones", "chest.png", "--model", tiny_bundle).code == 3
    assert files(tmp_path / "textray-out") == ["run.json"]


@pytest.mark.parametrize(
    ("args", "code", "word"),
    [
        (("attention", "chest.png", "--text", "a cough"), 3, "E_NO_ZONE"),
        (("words", "chest.png", "--text", "no infection"), 3, "E_NO_ZONE"),
        (("zones", "chest.png", "--text", "a cough", "--strict-text"), 3, "E_NO_ZONE"),
        (("attention", "chest.png"), 2, "--text"),
    ],
)
def test_bad_words_and_arguments(args, code, word, run, deciding, film, tmp_path):
    film(tmp_path / "chest.png")
    result = run(*args, "--model", deciding.folder)
    assert result.code == code
    assert word in result.err
    assert [path.name for path in tmp_path.glob("textray-out/*")] == ["run.json"] * (code == 3)


def test_a_network_that_reads_no_text_is_refused(run, make_bundle, film, tmp_path):
    film(tmp_path / "chest.png")
    make_bundle(tmp_path / "mute", reads_text=False)
    result = run("words", "chest.png", "--text", "left base", "--model", "mute")
    assert result.code == 2
    assert "reads no text" in result.err


def test_without_the_text_encoder_it_says_what_to_install(run, tiny_bundle, film, tmp_path, monkeypatch):
    film(tmp_path / "chest.png")
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
        return real(name, *args, **kwargs)

    monkeypatch.delitem(__import__("sys").modules, "textray.explain.attention", raising=False)
    monkeypatch.setattr(builtins, "__import__", missing)
    result = run("attention", "chest.png", "--text", "left base", "--model", tiny_bundle)
    assert result.code == 2
    assert "pip install 'textray[train]'" in result.err
