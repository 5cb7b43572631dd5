"""Networks that need a report: films without one are refused, and evaluations too; `info` shows the need."""

import json
from dataclasses import replace

import numpy as np
import pytest

import textray
from textray import registry
from textray.data.phantom import Phantom
from textray.errors import InputError


@pytest.fixture(autouse=True)
def needy(monkeypatch):
    """Let the registry say that the network of the tiny bundle needs a text."""
    row = registry.MODELS["mmi_unet"]
    forms = tuple(replace(form, needs_text=True) for form in row.forms)
    monkeypatch.setitem(registry.MODELS, "mmi_unet", replace(row, forms=forms))


@pytest.mark.parametrize("text", [None, " ", "Hello World", "no infection.", "the right lower zone is clear"])
def test_a_film_without_a_text_that_names_lesions_is_refused(tiny_bundle, text):
    predictor = textray.load(tiny_bundle, threads=1)
    grey = np.linspace(0, 1, 90 * 70, dtype=np.float32).reshape(90, 70)
    with pytest.raises(InputError, match="cannot work without a report") as caught:
        predictor.segment(grey, text)
    assert caught.value.code == "E_NO_TEXT"
    assert predictor.segment(grey, "right lower zone").mask.any()
    with pytest.raises(InputError, match="cannot work without"):
        predictor.predict_batch(np.zeros((2, 3, 64, 64), np.float32), [5, None])


def test_a_batch_goes_on_past_films_without_a_text(cli, film, tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "c"):
        film(tmp_path / f"in/{name}.png")
    (tmp_path / "t.csv").write_text("image,text\na.png,left base\nb.png,no infection.\n")
    result = cli("segment", "in", "--texts", "t.csv", "--model", tiny_bundle, "--threads", "1")
    assert result.code == 3
    assert "error E_NO_TEXT: in/b.png" in result.err
    assert "error E_NO_TEXT: in/c.png" in result.err
    assert sorted(path.name for path in (tmp_path / "textray-out").glob("*.mask.png")) == ["a.mask.png"]


def test_an_evaluation_refuses_to_go_without_text_and_images_whose_caption_names_nothing(cli, tiny_bundle, tmp_path):
    root = Phantom(n=20, size=(48, 61), seed=3).write(tmp_path / "data")
    words = ("evaluate", "--data", "qata_cov19", "--root", root, "--model", tiny_bundle, "--threads", "1")
    refused = cli(*words, "--text-mode", "none", "--out", tmp_path / "o1")
    assert refused.code == 2
    assert "needs a text" in refused.err
    assert not (tmp_path / "o1").exists()
    modes = ("--text-mode", "oracle", "--text-mode", "shuffled")
    done = cli(*words, *modes, "--limit", "4", "--out", tmp_path / "o2")
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "o2/summary.json").read_text())["images"] == 4
    table = next(root.rglob("test.csv"))
    lines = table.read_text().splitlines()
    lines[1] = f"{lines[1].partition(',')[0]},no infection."
    table.write_text("\n".join(lines) + "\n")
    refused = cli(*words, "--text-mode", "oracle", "--split", "test", "--out", tmp_path / "o3")
    assert refused.code == 3
    assert "E_NO_TEXT" in refused.err


def test_info_shows_form_and_need(cli, tiny_bundle):
    assert json.loads(cli("info", tiny_bundle, "--json").out)["needs_text"] is True
    shown = cli("info", tiny_bundle).out
    assert "form: paper" in shown
    assert "needs_text: yes" in shown
