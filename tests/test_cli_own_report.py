"""`textray segment` with weights that write their own report."""

import json

import numpy as np
import pytest
from PIL import Image as PILImage


@pytest.fixture
def picture(tmp_path):
    """A picture whose upper left is bright."""
    path = tmp_path / "in" / "chest.png"
    path.parent.mkdir()
    pixels = np.zeros((96, 72), np.uint8)
    pixels[:36, :36] = 200
    PILImage.fromarray(pixels).save(path)
    return path


@pytest.fixture
def segment(cli, picture, writing_bundle, tmp_path):
    def run(*args):
        return cli("segment", picture, "--model", writing_bundle, "--out", tmp_path / "out", "--threads", "1", *args)

    return run


def record(tmp_path):
    return json.loads((tmp_path / "out" / "chest.json").read_text())


def test_the_written_sentence_is_told_on_the_terminal_and_in_the_files(segment, tmp_path):
    result = segment()
    assert result.code == 0
    sentence = "unilateral pulmonary infection, one infected area, upper right lung. (patient's sides)"
    assert f"text: generated: {sentence}" in result.out
    assert "warning W_GENERATED" in result.err
    ends = ["json", "mask.png", "overlay.png", "report-attention.png"]
    files = [*(f"chest.{end}" for end in ends), "run.json"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == files
    assert record(tmp_path)["outputs"]["attention"] == "chest.report-attention.png"
    row = json.loads((tmp_path / "out" / "run.json").read_text())["items"][0]
    assert row["text_mode"] == "generated"
    assert row["written"] == sentence


@pytest.mark.parametrize(
    ("args", "used"),
    [
        (("--edit", "left lower and right upper"), "lower left lung and upper right lung"),
        (("--edit", "opacity in the left lower zone", "--laterality", "viewer"), "lower right lung"),
    ],
)
def test_a_correction_by_the_patients_or_the_viewers_words(segment, tmp_path, args, used):
    result = segment(*args)
    assert result.code == 0
    text = record(tmp_path)["text"]
    assert text["mode"] == "edited"
    assert text["used"]["patient"].endswith(f", {used}.")
    assert "Left and right in the words are the" in result.err


def test_results_of_another_correction_are_not_taken_for_finished(segment, tmp_path):
    def statuses(*args):
        return [row["status"] for row in segment("--json", *args).rows if row["type"] == "result"]

    assert statuses() == ["done"]
    assert statuses() == ["finished"]
    assert statuses("--edit", "left lower") == ["done"]
    assert statuses("--edit", "left lower") == ["finished"]
    assert statuses("--edit", "left middle") == ["done"]
    assert statuses("--edit", "left middle", "--laterality", "viewer") == ["done"]
    assert statuses("--text-free", "none") == ["done"]
    assert statuses("--text-free", "none") == ["finished"]
    (tmp_path / "out" / "chest.report-attention.png").unlink()
    assert statuses("--text-free", "none") == ["done"]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("--edit", "left lower", "--text", "left base"), "the report that the network writes"),
        (("--edit", "left upper -right lower"), "a plus or a dash"),
        (("--edit", "left lower", "--texts", "texts.csv"), "both reports and a correction"),
    ],
)
def test_a_correction_that_cannot_be_made_is_refused_at_once(segment, tmp_path, monkeypatch, args, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts.csv").write_text("image,text\nchest.png,left base\n")
    result = segment(*args)
    assert result.code == 2
    assert told in result.err
    assert not (tmp_path / "out").exists()


def test_weights_that_write_none_say_so(cli, picture, tiny_bundle, tmp_path):
    result = cli("segment", picture, "--model", tiny_bundle, "--out", tmp_path / "out", "--text-free", "generated")
    assert result.code == 2
    assert "writes no report" in result.err
    assert not list((tmp_path / "out").glob("chest*"))


def test_a_picture_of_a_users_own_is_not_overwritten_by_the_attention(segment, tmp_path):
    (tmp_path / "out").mkdir()
    own = tmp_path / "out" / "chest.report-attention.png"
    PILImage.fromarray(np.zeros((4, 4), np.uint8)).save(own)
    before = own.read_bytes()
    assert segment().code == 0
    assert own.read_bytes() == before
    assert len(list((tmp_path / "out").glob("chest-*.json"))) == 1


def test_results_are_no_input_of_a_later_run(segment, cli, writing_bundle, tmp_path):
    segment()
    again = cli("segment", tmp_path / "out", "--model", writing_bundle, "--out", tmp_path / "more")
    assert "W_OWN_RESULT" in again.err
    assert not list((tmp_path / "more").glob("chest*"))
