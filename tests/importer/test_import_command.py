"""`textray import` as a user runs it, on a random checkpoint in the published layout."""

import json
import shutil

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from PIL import Image as PILImage
from safetensors.numpy import load_file
from torch.nn import functional as F

import textray
from textray.data.phantom import Phantom
from textray.explain.attention import load_network
from textray.export import published
from textray.inference.bundle import Bundle
from textray.inference.inputs import demo_film
from textray.io.read import from_array, read
from textray.models.released.keys import text_encoder_prefix
from textray.nn.bert import assemble
from textray.text.zones import bank_sentences

TEXT = "bilateral pulmonary infection, two infected areas, upper left lung and lower right lung."


class Attack:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return eval, (f"open({str(self.marker)!r}, 'w').close()",)


@pytest.fixture(scope="module")
def imported(tmp_path_factory, published_state, encoder_folder):
    """Folder of a bundle made of a random MMI-UNet, its report, and the checkpoint's tensors."""
    place = tmp_path_factory.mktemp("import")
    state = published_state("mmi_unet")
    torch.save({"epoch": 7, "state_dict": state, "hyper_parameters": Attack(place / "marker")}, place / "mmi.ckpt")
    report = published.import_checkpoint(
        "mmi_unet", place / "mmi.ckpt", place / "bundle", text_encoder_folder=encoder_folder
    )
    assert not (place / "marker").exists()
    return place / "bundle", report, state


@pytest.mark.slow
def test_every_tensor_finds_its_place_and_the_report_says_so(imported):
    folder, report, state = imported
    prefix = text_encoder_prefix("mmi_unet")
    assert set(report["mapped"]) == {key for key in state if not key.startswith(prefix)}
    assert report["dropped"] == [f"{prefix}cls.predictions.bias"]
    assert report["skipped"] == ["builtins.eval"]
    assert report["facts"] == {"epoch": 7}
    assert report["text_encoder"] == "checkpoint"
    bundle = Bundle.load(folder)
    assert bundle.needs_text
    assert (bundle.model, bundle.form, bundle.text_encoder) == ("mmi_unet", "released", "cxr_bert")
    assert bundle.provenance["imported"] == {k: v for k, v in report.items() if k != "bundle"} | {
        "mapped": len(report["mapped"])
    }
    own = load_network(bundle).state_dict()
    assert len(own) == len(report["mapped"])
    for theirs, ours in report["mapped"].items():
        torch.testing.assert_close(own[ours], state[theirs], atol=2e-3, rtol=1e-3, msg=theirs)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["bundle", "mmi.ckpt"]


@pytest.mark.slow
def test_the_text_bank_holds_padding_as_the_encoder_gives_it(imported, encoder_folder, encoder_state):
    bank = load_file(imported[0] / "text_bank.safetensors")
    assert bank["features"].shape == (64, 24, 768)
    assert bank["mask"].all()
    encoder = assemble("cxr_bert", encoder_folder, encoder_state, max_tokens=24)
    row, ids = 9, encoder.tokens(bank_sentences()[9])
    assert len(ids) < 24
    padded = torch.tensor([ids + [0] * (24 - len(ids))])
    wanted = encoder.trunk(input_ids=padded, attention_mask=(torch.arange(24) < len(ids)).long()[None])
    np.testing.assert_allclose(bank["features"][row], wanted.last_hidden_state[0].numpy(), atol=4e-3)
    assert np.abs(bank["features"][row, -1]).max() > 0.1


@pytest.mark.slow
def test_a_film_goes_in_transposed_and_its_mask_comes_out_upright(imported):
    predictor = textray.load(imported[0], threads=1)
    pixels = np.random.default_rng(3).random((300, 224), dtype=np.float32)
    found = predictor.segment(from_array(pixels), TEXT, laterality="viewer")
    assert found.mask.shape == (300, 224)
    width_first = F.interpolate(torch.from_numpy(pixels.T.copy())[None, None], size=(224, 224), mode="bicubic")
    image = ((width_first - width_first.mean()) / width_first.std(correction=0)).expand(1, 3, 224, 224)
    row = next(i for i, sentence in enumerate(bank_sentences()) if sentence == TEXT)
    bank = load_file(imported[0] / "text_bank.safetensors")
    features = torch.from_numpy(bank["features"][row : row + 1].astype(np.float32))
    with torch.inference_mode():
        logits = load_network(predictor.bundle)(image, features, torch.ones(1, 24)).logits
    upright = F.interpolate(torch.sigmoid(logits).transpose(2, 3), size=(300, 224), mode="bilinear")[0, 0].numpy()
    np.testing.assert_allclose(found.probability, upright, atol=5e-3)
    sideways = np.abs(found.probability[:224] - upright[:224].T).max()
    assert sideways > 0.05  # transposed it would be something else


@pytest.mark.slow
def test_it_segments_evaluates_and_tells_like_any_bundle(imported, cli, film, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = imported[0]
    chest = demo_film() or film(tmp_path / "chest.png")
    done = cli("segment", chest, "--model", folder, "--text", "left base", "--out", "out", "--threads", "2")
    assert done.code == 0, done.err
    mask = next((tmp_path / "out").rglob("*.mask.png"))

    with PILImage.open(mask) as picture:
        assert picture.size[::-1] == read(chest).grid.shape
    assert cli("segment", chest, "--model", folder, "--out", "out2", "--threads", "2").code == 3
    root = Phantom(n=20, size=(48, 61), seed=3).write(tmp_path / "data")
    words = ("evaluate", "--data", "qata_cov19", "--root", root, "--model", folder, "--limit", "2", "--threads", "2")
    scored = cli(*words, "--text-mode", "oracle", "--out", "scores")
    assert scored.code == 0, scored.err
    assert cli(*words, "--text-mode", "none", "--out", "scores2").code == 2
    told = json.loads(cli("info", folder, "--json").out)
    assert told["needs_text"] is True
    assert told["preprocess"]["transpose"] is True


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def test_without_a_vocabulary_it_is_refused_with_the_reason(cli, tmp_path):
    (tmp_path / "a.ckpt").write_bytes(b"PK")
    refused = cli("import", "mmi_unet", tmp_path / "a.ckpt", "--out", tmp_path / "out")
    assert refused.code == 2
    assert "error E_USAGE" in refused.err
    assert "carries no vocabulary" in refused.err
    assert left(tmp_path) == ["a.ckpt"]


@pytest.mark.parametrize(
    ("content", "code"), [(b"<html>sign in</html>", "E_FORMAT"), (b"PK\x03\x04" + bytes(60), "E_TRUNCATED")]
)
def test_a_bad_file_is_refused_and_leaves_nothing(cli, tmp_path, encoder_folder, content, code):
    (tmp_path / "a.ckpt").write_bytes(content)
    words = ("import", "mmi_unet", tmp_path / "a.ckpt", "--out", tmp_path / "out", "--text-encoder", encoder_folder)
    refused = cli(*words)
    assert refused.code == 3
    assert f"error {code}: a.ckpt" in refused.err
    assert left(tmp_path) == ["a.ckpt"]


def test_a_checkpoint_of_another_network_is_refused_and_leaves_nothing(cli, tmp_path, encoder_folder):
    torch.save({"state_dict": {"model.conv.weight": torch.zeros(3, 3)}}, tmp_path / "a.ckpt")
    refused = cli(
        "import", "guide_decoder", tmp_path / "a.ckpt", "--out", tmp_path / "out", "--text-encoder", encoder_folder
    )
    assert refused.code == 3
    assert "error E_KEYS" in refused.err
    assert "1 unknown: model.conv.weight" in refused.err
    assert left(tmp_path) == ["a.ckpt"]


def test_names_files_and_folders_are_checked_first(cli, tmp_path, encoder_folder):
    option = ("--text-encoder", encoder_folder)
    assert cli("import", "unet", tmp_path / "a.ckpt", "--out", tmp_path / "o", *option).code == 2
    missing = cli("import", "mmi_unet", tmp_path / "a.ckpt", "--out", tmp_path / "o", *option)
    assert missing.code == 2
    assert "no such checkpoint" in missing.err
    (tmp_path / "o").mkdir()
    (tmp_path / "o/mine.txt").write_text("mine")
    refused = cli("import", "mmi_unet", tmp_path / "a.ckpt", "--out", tmp_path / "o", *option)
    assert refused.code == 2
    assert "error E_OUTPUT" in refused.err
    assert (tmp_path / "o/mine.txt").read_text() == "mine"


def test_what_was_mapped_dropped_and_skipped_is_said(cli, tmp_path, monkeypatch):
    notice = {"code": "W_VOCABULARY", "text": "Strange.", "remedy": "Look."}
    report = {
        "mapped": {"model.a": "a", "model.b": "b"},
        "text_encoder": "checkpoint",
        "dropped": [],
        "skipped": [f"name{i}\x1b[2J" for i in range(9)],
        "notices": [notice],
    }
    asked = []

    def run(*args, **options):
        asked.append((args, options))
        return report

    monkeypatch.setattr(published, "import_checkpoint", run)
    words = ("import", "mmi_unet", tmp_path / "a.ckpt", "--out", tmp_path / "o", "--text-encoder", tmp_path)
    told = cli(*words)
    assert told.code == 0
    assert asked == [
        (
            ("mmi_unet", tmp_path / "a.ckpt", tmp_path / "o"),
            {"text_encoder_folder": tmp_path, "data": None, "root": None},
        )
    ]
    lines = told.out.splitlines()
    assert lines[0] == "mapped:  2 tensors of the network, text encoder from the checkpoint"
    assert lines[1] == "dropped: 0"
    assert lines[2].startswith("skipped: 9 name0\\x1b[2J, ")
    assert lines[2].endswith("name7\\x1b[2J, ...")
    assert told.err.splitlines() == ["warning W_VOCABULARY: Strange. Look.", f"Bundle: {tmp_path / 'o'}"]
    as_json = cli(*words, "--json")
    assert json.loads(as_json.out) == report
    assert as_json.err == told.err


@pytest.mark.parametrize("name", ["vocab.txt", "config.json"])
def test_a_folder_that_lacks_a_file_is_refused_before_the_checkpoint_is_read(cli, tmp_path, encoder_folder, name):
    (tmp_path / "a.ckpt").write_bytes(b"no checkpoint at all")
    shutil.copytree(encoder_folder, tmp_path / "bert")
    (tmp_path / "bert" / name).unlink()
    refused = cli(
        "import", "mmi_unet", tmp_path / "a.ckpt", "--out", tmp_path / "o", "--text-encoder", tmp_path / "bert"
    )
    assert refused.code == 2
    assert "error E_BUNDLE" in refused.err
    assert f"has no {name}" in refused.err


def test_the_text_encoders_folder_is_not_taken_for_an_old_bundle(cli, tmp_path, encoder_folder):
    (tmp_path / "a.ckpt").write_bytes(b"PK")
    shutil.copytree(encoder_folder, tmp_path / "bert")
    (tmp_path / "only").mkdir()
    shutil.copy(encoder_folder / "config.json", tmp_path / "only")
    words = ("import", "mmi_unet", tmp_path / "a.ckpt", "--text-encoder", tmp_path / "bert", "--out")
    for out in ("bert", "only"):
        refused = cli(*words, tmp_path / out)
        assert refused.code == 2
        assert "error E_OUTPUT" in refused.err
    assert left(tmp_path / "bert") == ["config.json", "vocab.txt"]
    assert left(tmp_path / "only") == ["config.json"]


@pytest.mark.parametrize("out", [".", "..", "new/.."])
def test_a_folder_without_a_name_of_its_own_is_refused(cli, tmp_path, encoder_folder, monkeypatch, out):
    (tmp_path / "deep/empty").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep/empty")
    refused = cli("import", "mmi_unet", tmp_path / "a.ckpt", "--out", out, "--text-encoder", encoder_folder)
    assert refused.code == 2
    assert "error E_OUTPUT" in refused.err
    assert "no name" in refused.err
    assert left(tmp_path) == ["deep"]
