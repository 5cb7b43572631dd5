"""The command doctor: what it lists, and that a machine which computes other masks is not passed."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from textray.commands import doctor
from textray.inference import bundle
from textray.inference.inputs import demo_film

RECORD = os.environ.get("TEXTRAY_RECORD_GOLDEN") == "1"


@pytest.fixture
def weights():
    if bundle.DEFAULT_WEIGHTS not in bundle.inside():
        pytest.skip("the weights are not inside this installation")
    return bundle.Bundle.load(bundle.DEFAULT_WEIGHTS)


@pytest.fixture
def film():
    path = demo_film()
    if path is None:
        pytest.skip("the demo film is not installed")
    return path


def test_the_stored_mask_is_of_the_weights_inside(weights, film):
    """Run with TEXTRAY_RECORD_GOLDEN=1 where the weights were changed."""
    if RECORD:
        from textray.inference.segmenter import Predictor

        mask = Predictor(weights).segment(film).mask
        (Path(doctor.__file__).parent / doctor.ANSWER).write_text(doctor.answer_of(weights.sha256, mask))
    sha256, mask = doctor.stored_answer()
    assert sha256 == weights.sha256
    assert 0.01 < mask.mean() < 0.9


def test_a_machine_is_looked_at(weights, film, cli, tmp_path, monkeypatch):
    monkeypatch.setenv("TEXTRAY_CACHE", str(tmp_path / "cache"))
    done = cli("doctor", "--out", tmp_path / "deep" / "out", "--json")
    found = json.loads(done.out)
    assert done.code == 0, done.err
    assert found["demo"]["dice"] >= 0.999
    assert found["threads"]["used"] >= 1
    assert found["provider"]["used"] in found["provider"]["available"]
    assert found["disk"]["cache"]["folder"] == str(tmp_path / "cache")
    assert found["disk"]["results"]["free_mb"] > 0
    assert found["disk"]["results"]["writable"]
    assert {"train", "demo"} <= found["extras"].keys()
    assert not (tmp_path / "deep").exists()  # nothing is written
    for unit in found["memory_mb"].values():
        assert unit is None or unit > 0


@pytest.fixture
def tried(monkeypatch, tiny_bundle):
    """Let the tiny weights be those inside, and a mask the stored one: ``tried(change)``; returns the mask."""
    from textray.inference.segmenter import Predictor

    def prepare(film, change=lambda mask: mask, sha256=None):
        monkeypatch.setattr(bundle, "WEIGHTS_FOLDER", tiny_bundle.parent)
        monkeypatch.setattr(bundle, "DEFAULT_WEIGHTS", tiny_bundle.name)
        whole = bundle.Bundle.load(tiny_bundle.name)
        mask = Predictor(whole).segment(film).mask
        assert mask.any()
        answer = (sha256 or whole.sha256, change(mask.copy()))
        monkeypatch.setattr(doctor, "stored_answer", lambda: answer)

    return prepare


def test_other_masks_are_an_error_with_a_remedy(tried, film, cli):
    tried(film)
    assert cli("doctor").code == 0
    tried(film, lambda mask: np.roll(mask, 60, axis=1))
    done = cli("doctor")
    assert done.code == 1
    assert "WRONG" in done.out
    assert "error E_MACHINE: This machine computes other masks" in done.err
    assert "Reinstall" in done.err


def test_what_cannot_be_tried_is_said(tried, film, cli, monkeypatch):
    tried(film, sha256="0" * 64)
    done = cli("doctor")
    assert (done.code, "W_NOT_TRIED" in done.err) == (0, True)
    assert "of other weights" in done.out
    monkeypatch.setattr("textray.inference.inputs.demo_film", lambda: None)
    done = cli("doctor")
    assert (done.code, "pip install 'textray[demo]'" in done.err) == (0, True)


def test_little_room_is_warned_of(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "_demo", lambda: {"ok": True, "dice": 1.0, "seconds": 0.0})
    monkeypatch.setattr(doctor, "_memory", lambda: {"total": 2000, "available": 200})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 5 << 20})())
    found = doctor.examine(tmp_path)
    assert [problem["code"] for problem in found["problems"]] == ["W_DISK", "W_DISK", "W_MEMORY"]
    assert all(problem["do"] for problem in found["problems"])
    assert found["ok"]
