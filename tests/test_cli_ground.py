"""`textray ground` as a user runs it: files of a result, sides, tables, resuming, refusals."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image as PILImage

from textray.inference.bundle import DEFAULT_GROUNDING_WEIGHTS, GroundingBundle, inside
from textray.inference.localizer import Localizer, named_sides, of_peak
from textray.records import Grid, Laterality
from textray.text.phrases import turn

PHRASE = ("--phrase", "opacity, left lung")
needs_weights = pytest.mark.skipif(DEFAULT_GROUNDING_WEIGHTS not in inside(), reason="no grounding weights inside")


@pytest.fixture
def run(cli, tmp_path, monkeypatch, grounding_bundle):
    monkeypatch.chdir(tmp_path)
    return lambda *args: cli("ground", *args, "--model", grounding_bundle, "--threads", "1")


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def record(path):
    return json.loads(path.read_bytes())


def side_of(values):
    middle = values.shape[1] // 2
    return "left" if values[:, :middle].mean() > values[:, -middle:].mean() else "right"


def test_map_picture_and_record_of_each_phrase(run, film, tmp_path):
    film(tmp_path / "chest.png")
    result = run("chest.png", *PHRASE, "--phrase", "bright lung")
    assert result.code == 0
    maps = [f"chest.{number}.ground.{end}" for number in (1, 2) for end in ("npy", "png")]
    assert files(tmp_path / "textray-out") == [*maps, "chest.ground.json", "run.json"]
    values = np.load(tmp_path / "textray-out/chest.1.ground.npy", allow_pickle=False)
    assert (values.shape, values.dtype) == ((100, 80), np.float32)
    found = record(tmp_path / "textray-out/chest.ground.json")
    first, second = found["phrases"]
    assert first["phrase"] == "opacity, left lung"
    assert (first["laterality"], first["viewer"], first["told"]) == ("patient", *["opacity, right lung"] * 2)
    assert side_of(values) == "right"  # the standard film is assumed: the patient's left is the viewer's right
    peak = first["peak"]
    assert values[peak["row"], peak["column"]] == values.max() == pytest.approx(peak["value"], abs=1e-6)
    assert peak["side"] == {"viewer": "right", "patient": "left"}
    assert (second["told"], second["mask"]) == ("bright lung", None)
    assert second["peak"]["row"] < 50
    assert second["peak"]["column"] < 40
    assert found["sides"] == {"taught": "viewer", "film_sides_from": "assumed", "patients_left": "right"}
    assert [warning["code"] for warning in found["warnings"]].count("W_SIDES_ASSUMED") == 1
    assert found["outputs"]["map.2"] == "chest.2.ground.npy"
    with PILImage.open(tmp_path / "textray-out/chest.1.ground.png") as picture:
        assert picture.mode == "RGB"
        assert picture.height > picture.width
    summary = record(tmp_path / "textray-out/run.json")
    assert (summary["schema"], summary["status"], summary["counts"]["done"]) == ("textray.ground-run/1", "done", 1)
    assert summary["model"]["name"] == "finder"
    assert "the patient's" in result.err
    assert 'read as "opacity, right lung"' in result.out


@pytest.mark.parametrize(
    ("laterality", "orientation", "side"),
    [("viewer", "L", "left"), ("viewer", "R", "left"), ("patient", "L", "right"), ("patient", "R", "left")],
)
def test_left_at_the_commands_door_by_the_films_own_tag(run, tmp_path, dicom, levels, laterality, orientation, side):
    (tmp_path / "film.dcm").write_bytes(dicom(levels, PatientOrientation=[orientation, "F"]))
    result = run("film.dcm", "--phrase", "left lung", "--laterality", laterality)
    assert result.code == 0, result.err
    found = record(tmp_path / "textray-out/film.ground.json")
    assert found["sides"]["film_sides_from"] == "tag"
    assert found["phrases"][0]["told"] == f"{side} lung"
    assert side_of(np.load(tmp_path / "textray-out/film.1.ground.npy")) == side
    assert found["phrases"][0]["peak"]["side"]["viewer"] == side


@needs_weights
@pytest.mark.parametrize("words", ["{side} lung", "lower {side} lung", "opacity in the {side} lower lobe"])
@pytest.mark.parametrize("orientation", ["L", "R"])
def test_the_weights_inside_look_where_the_patients_side_is(cli, tmp_path, monkeypatch, dicom, words, orientation):
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 4000, (90, 70)).astype(np.uint16)  # nothing brighter on one side
    (tmp_path / "film.dcm").write_bytes(dicom(noise, PatientOrientation=[orientation, "F"]))
    asked = [word for side in ("left", "right") for word in ("--phrase", words.format(side=side))]
    assert cli("ground", "film.dcm", *asked, "--threads", "1").code == 0
    found = record(tmp_path / "textray-out/film.ground.json")
    assert found["model"]["name"] == DEFAULT_GROUNDING_WEIGHTS
    for number, side in enumerate(("left", "right"), 1):
        seen = side if orientation == "R" else {"left": "right", "right": "left"}[side]
        assert found["phrases"][number - 1]["told"] == words.format(side=seen)
        assert side_of(np.load(tmp_path / f"textray-out/film.{number}.ground.npy")) == seen


@needs_weights
def test_the_weights_inside_are_small_scored_and_without_torch_or_folders():
    bundle = GroundingBundle.load()
    assert bundle.name == DEFAULT_GROUNDING_WEIGHTS
    assert bundle.size_bytes <= 30e6
    assert bundle.text.laterality == "viewer"
    card = bundle.read("README.md").decode()
    for row in ("mean_mask", "mean_phrase", "mirrored", "centre"):
        assert row in card
    for name in bundle.files:
        assert b"/work/" not in bundle.read(name)
        assert b"/home/" not in bundle.read(name)


def test_a_mask_is_what_lies_above_the_threshold(run, film, tmp_path):
    film(tmp_path / "chest.png")
    assert run("chest.png", "--phrase", "bright", "--threshold", "0.2", "--sigma", "0").code == 0
    values = np.load(tmp_path / "textray-out/chest.1.ground.npy")
    with PILImage.open(tmp_path / "textray-out/chest.1.ground.mask.png") as picture:
        mask = np.asarray(picture) > 0
    stretched = (values - values.min()) / (values.max() - values.min()) * 2 - 1
    np.testing.assert_array_equal(mask, stretched > 0.2)
    assert record(tmp_path / "textray-out/chest.ground.json")["phrases"][0]["mask"]["pixels"] == mask.sum()
    assert run("chest.png", "--phrase", "bright", "--threshold", "0.2", "--sigma", "0", "--normalise", "none").code == 0
    with PILImage.open(tmp_path / "textray-out/chest.1.ground.mask.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture) > 0, values > 0.2)


def test_what_is_finished_is_skipped_and_what_changed_is_not(run, film, tmp_path):
    film(tmp_path / "in/a/one.png")
    film(tmp_path / "in/two.png", seed=1)
    out = tmp_path / "textray-out"
    assert [row["status"] for row in run("in", *PHRASE, "--json").rows[:-1]] == ["done", "done"]
    assert {"a/one.1.ground.npy", "a/one.ground.json", "two.ground.json"} < set(files(out))
    before = (out / "two.ground.json").read_bytes()
    assert [row["status"] for row in run("in", *PHRASE, "--json").rows[:-1]] == ["finished", "finished"]
    assert (out / "two.ground.json").read_bytes() == before
    (out / "two.1.ground.npy").unlink()
    assert [row["status"] for row in run("in", *PHRASE, "--json").rows[:-1]] == ["finished", "done"]
    for changes in (("--sigma", "0"), ("--laterality", "viewer"), ("--overwrite",), ("--threshold", "0")):
        rows = run("in", *PHRASE, *changes, "--json").rows
        assert [row["status"] for row in rows[:-1]] == ["done", "done"], changes


def test_fewer_phrases_leave_no_old_files(run, film, tmp_path):
    film(tmp_path / "chest.png")
    run("chest.png", *PHRASE, "--phrase", "bright", "--threshold", "0.1")
    (tmp_path / "textray-out/chest.9.ground.npy").write_bytes(b"the user's own")
    assert run("chest.png", *PHRASE).code == 0
    kept = ["chest.1.ground.npy", "chest.1.ground.png", "chest.9.ground.npy", "chest.ground.json", "run.json"]
    assert files(tmp_path / "textray-out") == kept


def test_phrases_of_a_table(run, film, tmp_path):
    for name in ("one", "two", "three"):
        film(tmp_path / f"in/{name}.png")
    (tmp_path / "phrases.csv").write_text(
        "image;phrase;laterality\none.png;left lung;viewer\none;left lung;\nin/two.png;bright;\nfour.png;x y;\n",
        encoding="utf-8-sig",
    )
    result = run("in", "--table", "phrases.csv", "--json")  # one.png by two names
    assert result.code == 0
    rows = {row["input"].split("/")[-1]: row for row in result.rows[:-1]}
    assert [p["told"] for p in rows["one.png"]["phrases"]] == ["left lung", "right lung"]
    assert [p["told"] for p in rows["two.png"]["phrases"]] == ["bright"]
    assert (rows["three.png"]["status"], rows["three.png"]["code"]) == ("skipped", "W_NO_PHRASE")
    assert "W_UNKNOWN_IMAGE" in result.err
    assert "viewer's, as in the picture" in result.err
    assert "are the patient's" in result.err
    film(tmp_path / "in/deep/one.png")
    result = run("in", "--table", "phrases.csv")
    assert result.code == 2
    assert "not the only row or picture" in result.err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--phrase", "a b", "--table", "empty.csv"), "both phrases and a table"),
        (("--table", "empty.csv"), "names none of the inputs"),
        (("--table", "blank.csv"), "has no phrase"),
        (("--phrase", "a b", "--threshold", "nan"), "threshold is wrong"),
        (("--phrase", "a b", "--sigma", "-1"), "smoothing is wrong"),
        (("--phrase", "a b") * 21, "too many phrases"),
    ],
)
def test_a_wrong_command_is_refused_before_the_network_is_loaded(run, film, tmp_path, args, words, monkeypatch):
    monkeypatch.setattr(Localizer, "__init__", lambda *_: pytest.fail("the network was loaded"))
    film(tmp_path / "chest.png")
    (tmp_path / "empty.csv").write_text("image,phrase\nother.png,a b\n")
    (tmp_path / "blank.csv").write_text("image,phrase\nchest.png,\n")
    result = run("chest.png", *args)
    assert result.code == 2
    assert words in result.err
    assert not (tmp_path / "textray-out").exists()


def test_one_bad_file_never_ends_a_batch_and_loses_its_old_result(run, film, tmp_path):
    film(tmp_path / "in/bad.png")
    film(tmp_path / "in/good.png")
    (tmp_path / "in/notes.txt").write_text("nothing")
    assert run("in", *PHRASE).code == 0
    raw = (tmp_path / "in/bad.png").read_bytes()
    (tmp_path / "in/bad.png").write_bytes(raw[: len(raw) // 2])
    result = run("in", *PHRASE)
    assert result.code == 3
    assert "1 finished by an earlier run, 1 skipped, 1 failed" in result.err
    assert files(tmp_path / "textray-out") == ["good.1.ground.npy", "good.1.ground.png", "good.ground.json", "run.json"]
    summary = record(tmp_path / "textray-out/run.json")
    assert {row["status"] for row in summary["items"]} == {"failed", "finished", "skipped"}


def test_sides_that_cannot_be_turned_fail_the_film_and_say_why(run, film, tmp_path):
    film(tmp_path / "chest.png")
    result = run("chest.png", "--phrase", "leftmost opacity")
    assert result.code == 3
    assert "E_SIDES" in result.err
    assert run("chest.png", "--phrase", "leftmost opacity", "--laterality", "viewer").code == 0


def test_unknown_words_are_warned_of_once_for_each_text(run, film, tmp_path):
    film(tmp_path / "in/a.png")
    film(tmp_path / "in/b.png")
    result = run("in", "--phrase", "bright pneumothorax in the lung", "--phrase", "no opacity, left lung")
    assert result.code == 0
    assert result.err.count("'pneumothorax'") == 1
    assert "'the'" not in result.err
    found = record(tmp_path / "textray-out/a.ground.json")
    assert found["phrases"][0]["unknown_words"] == ["pneumothorax", "in", "the"]
    again = re.findall(r"warning (\w+): also of 1 more file; see their records\.", result.err)
    assert again == list(dict.fromkeys(warning["code"] for warning in found["warnings"]))
    assert len(again) == 3  # in the order of the record


def test_what_a_phrase_cannot_ask_is_told_in_record_and_picture(run, film, tmp_path):
    film(tmp_path / "chest.png")
    assert run("chest.png", "--phrase", "opacity", "--phrase", "no opacity in the left lung").code == 0
    found = [warning["code"] for warning in record(tmp_path / "textray-out/chest.ground.json")["warnings"]]
    assert found.count("W_DENIED") == 1
    assert "W_NO_PLACE" not in found, "these weights do not say that they know places only"
    heights = []
    for number in (1, 2):
        with PILImage.open(tmp_path / f"textray-out/chest.{number}.ground.png") as picture:
            heights.append(picture.height)
    assert heights[0] < heights[1], "the picture says so too"


@needs_weights
def test_weights_that_know_places_only_say_so(film, tmp_path):
    localizer = Localizer(GroundingBundle.load(), 1)
    film(tmp_path / "chest.png")
    image = localizer.preprocess.read(tmp_path / "chest.png")
    placed, bare = localizer.locate(image, ["opacity in the left lung", "opacity"], laterality="viewer")
    assert "W_NO_PLACE" not in [notice.code for notice in placed.notices]
    assert "W_NO_PLACE" in [notice.code for notice in bare.notices]


@pytest.mark.parametrize(
    ("phrase", "column", "warned"),
    [
        ("lower left lung", 10, False),
        ("lower left lung", 70, True),
        ("opacity in the right lung", 10, True),
        ("both lungs", 70, False),
        ("no opacity in the left lung", 70, False),
        ("bright", 70, False),
    ],
)
def test_a_peak_on_the_side_that_is_not_named_is_told(phrase, column, warned):
    grid = Grid(height=100, width=80)
    turned = turn(phrase, laterality=Laterality.VIEWER, network_laterality=Laterality.VIEWER, grid=grid)
    notices = of_peak(named_sides(turned.viewer), (5, column), grid)
    assert [notice.code for notice in notices] == ["W_PEAK_OTHER_SIDE"] * warned


def test_an_empty_mask_is_told(run, film, tmp_path):
    film(tmp_path / "chest.png")
    for threshold, empty in (("0.99", True), ("-0.99", False)):
        result = run("chest.png", *PHRASE, "--normalise", "none", "--threshold", threshold)
        assert result.code == 0, result.err
        assert ("W_NOTHING_MARKED" in result.err) is empty


def test_results_are_no_inputs_and_inputs_are_not_overwritten(run, film, tmp_path):
    film(tmp_path / "chest.png")
    assert run("chest.png", *PHRASE, "--threshold", "0.1", "--out", ".").code == 0
    result = run(".", *PHRASE, "--out", "other", "--json")
    assert [row["status"] for row in result.rows[:-1] if row["code"] == ""] == ["done"]
    own = {row["input"] for row in result.rows[:-1] if row["code"] == "W_OWN_RESULT"}
    ends = ("1.ground.npy", "1.ground.png", "1.ground.mask.png", "ground.json")
    assert own == {f"chest.{end}" for end in ends}
    # A film of the user's that is called like a result, in the folder of the results, stays.
    film(tmp_path / "own/x.1.ground.png")
    film(tmp_path / "own/x.png", seed=2)
    before = (tmp_path / "own/x.1.ground.png").read_bytes()
    assert run("own/x.png", *PHRASE, "--out", "own").code == 0
    assert (tmp_path / "own/x.1.ground.png").read_bytes() == before
    assert len([name for name in files(tmp_path / "own") if name.endswith(".ground.json")]) == 1


def test_the_command_needs_the_base_installation_only(grounding_bundle, film, tmp_path):
    film(tmp_path / "chest.png")
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'scipy', 'pandas', 'timm', 'onnx'])); "
        "from textray.cli import main; "
        f"main(['ground', 'chest.png', '--phrase', 'left', '--model', {os.fspath(grounding_bundle)!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
