"""`textray import` as a user runs it, on a random checkpoint in the published layout."""

import io
import json
import shutil
from unittest.mock import Mock

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from PIL import Image as PILImage
from safetensors.numpy import load_file
from torch.nn import functional as F

import textray
from textray.data.phantom import Phantom
from textray.export import published
from textray.inference.bundle import Bundle
from textray.inference.inputs import demo_film
from textray.io.read import from_array, read
from textray.models.released.keys import text_encoder_prefix
from textray.nn.bert import assemble
from textray.text.zones import bank_sentences

TEXT = "bilateral pulmonary infection, two infected areas, upper left lung and lower right lung."


@pytest.fixture(scope="module")
def imported(tmp_path_factory, published_state, encoder_folder, runs):
    """Folder of a bundle made of a random MMI-UNet, its report, and the checkpoint's tensors."""
    place = tmp_path_factory.mktemp("import")
    state, attack = published_state("mmi_unet"), runs(eval, f"open({str(place / 'marker')!r}, 'w').close()")
    torch.save({"epoch": 7, "state_dict": state, "hyper_parameters": attack}, place / "mmi.ckpt")
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
    own = textray.load_network(bundle).state_dict()
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
    row = bank_sentences().index(TEXT)
    bank = load_file(imported[0] / "text_bank.safetensors")
    features = torch.from_numpy(bank["features"][row : row + 1].astype(np.float32))
    with torch.inference_mode():
        logits = textray.load_network(predictor.bundle)(image, features, torch.ones(1, 24)).logits
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
    with PILImage.open(next((tmp_path / "out").rglob("*.mask.png"))) as picture:
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


def as_saved(state):
    """Bytes of a checkpoint of these tensors."""
    buffer = io.BytesIO()
    torch.save({"state_dict": state}, buffer)
    return buffer.getvalue()


@pytest.fixture
def refuse(cli, tmp_path, encoder_folder):
    """Import a file of this content, which must be refused: ``refuse(content, code, *words) ."""

    def run(content, code, *words, name="mmi_unet", folder=encoder_folder, out="o"):
        (tmp_path / "a.ckpt").write_bytes(content)
        option = () if folder is None else ("--text-encoder", folder)
        refused = cli("import", name, tmp_path / "a.ckpt", "--out", tmp_path / out, *option)
        assert refused.code == code
        for word in words:
            assert word in refused.err

    return run


@pytest.mark.parametrize(
    ("name", "content", "code", "words"),
    [
        ("mmi_unet", b"<html>sign in</html>", 3, ["error E_FORMAT: a.ckpt"]),
        ("mmi_unet", b"PK\x03\x04" + bytes(60), 3, ["error E_TRUNCATED: a.ckpt"]),
        (
            "guide_decoder",
            as_saved({"model.conv.weight": torch.zeros(3)}),
            3,
            ["error E_KEYS", "1 unknown: model.conv"],
        ),
        ("unet", b"PK", 2, ["error E_USAGE"]),
    ],
    ids=["page", "cut off", "another network", "never published"],
)
def test_a_bad_file_is_refused_and_leaves_nothing(refuse, tmp_path, name, content, code, words):
    refuse(content, code, *words, name=name)
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]


def test_a_text_encoder_that_is_not_named_is_asked_for(refuse, tmp_path):
    refuse(b"PK", 2, "error E_USAGE", "carries no vocabulary", folder=None)
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]


@pytest.mark.parametrize("name", ["vocab.txt", "config.json"])
def test_a_folder_that_lacks_a_file_is_refused_before_the_checkpoint_is_read(refuse, bert, name):
    (bert / name).unlink()
    refuse(b"no checkpoint at all", 2, "error E_BUNDLE", f"has no {name}", folder=bert)


def test_a_folder_that_holds_no_bundle_is_not_replaced(refuse, tmp_path, bert):
    """Neither anybody's files nor the text encoder's, which has files of a bundle's names."""
    (tmp_path / "only").mkdir()
    shutil.copy(bert / "config.json", tmp_path / "only")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    held = {"bert": ["config.json", "vocab.txt"], "only": ["config.json"], "mine": ["notes.txt"]}
    for out, names in held.items():
        refuse(b"PK", 2, "error E_OUTPUT", folder=bert, out=out)
        assert sorted(path.name for path in (tmp_path / out).iterdir()) == names


@pytest.mark.parametrize("out", [".", "..", "new/.."])
def test_a_folder_without_a_name_of_its_own_is_refused(cli, tmp_path, encoder_folder, monkeypatch, out):
    (tmp_path / "deep/empty").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep/empty")
    refused = cli("import", "mmi_unet", tmp_path / "a.ckpt", "--out", out, "--text-encoder", encoder_folder)
    assert refused.code == 2
    assert "error E_OUTPUT" in refused.err
    assert "no name" in refused.err
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]


def test_what_was_mapped_dropped_and_skipped_is_said(cli, tmp_path, monkeypatch):
    report = {"mapped": {"model.a": "a", "model.b": "b"}, "text_encoder": "checkpoint", "dropped": []}
    report["skipped"] = [f"name{i}\x1b[2J" for i in range(9)]
    report["notices"] = [{"code": "W_VOCABULARY", "text": "Strange.", "remedy": "Look."}]
    run = Mock(return_value=report)
    monkeypatch.setattr(published, "import_checkpoint", run)
    words = ("import", "mmi_unet", tmp_path / "a.ckpt", "--out", tmp_path / "o", "--text-encoder", tmp_path)
    told = cli(*words)
    assert told.code == 0
    options = {"text_encoder_folder": tmp_path, "data": None, "root": None}
    run.assert_called_once_with("mmi_unet", tmp_path / "a.ckpt", tmp_path / "o", **options)
    mapped, dropped, skipped = told.out.splitlines()
    assert mapped == "mapped:  2 tensors of the network, text encoder from the checkpoint"
    assert dropped == "dropped: 0"
    assert skipped.startswith("skipped: 9 name0\\x1b[2J, ")
    assert skipped.endswith("name7\\x1b[2J, ...")
    assert told.err.splitlines() == ["warning W_VOCABULARY: Strange. Look.", f"Bundle: {tmp_path / 'o'}"]
    as_json = cli(*words, "--json")
    assert json.loads(as_json.out) == report
    assert as_json.err == told.err


def test_an_imported_network_knows_the_captions_that_it_has_learnt_and_the_revised_ones(tmp_path):
    root = Phantom(n=20, size=(48, 61), seed=3).write(tmp_path / "data")
    revised = published._convention("mmi_unet", "qata_cov19", root).captions
    assert revised, "the original wording may be missing"
    table = next(root.rglob("prompt/train.csv"))
    head, first, *rows = table.read_text().splitlines()
    original = "Bilateral pulmonary infection, six infected areas, all left lung and all right lung."
    lines = [head, f'{first.split(",")[0]},"{original}"', *rows]
    table.with_stem("train_original").write_text("\n".join(lines))
    assert set(published._convention("mmi_unet", "qata_cov19", root).captions) == {*revised, original}
