"""`textray import` as a user runs it, on a random checkpoint in the published layout."""

import json
import os
import shutil

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from PIL import Image as PILImage
from safetensors.numpy import load_file
from torch.nn import functional as F

import textray
from textray.building import load_network
from textray.data.phantom import Phantom
from textray.errors import BundleError, InputError
from textray.importer import convert
from textray.importer.checkpoint import Published
from textray.importer.convention import CONVENTIONS, word_vectors
from textray.inference.bundle import Bundle
from textray.inference.inputs import demo_film
from textray.io.read import from_array, read
from textray.models.released.keys import own_name, published, text_encoder_prefix
from textray.models.released.lvit import ReleasedLViT
from textray.nn.text_encoder import assemble, load_text_encoder
from textray.text.report import bank_sentences

TEXT = "bilateral pulmonary infection, two infected areas, upper left lung and lower right lung."


class Attack:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.fixture(scope="module")
def imported(tmp_path_factory, published_state, encoder_folder):
    """Folder of a bundle made of a random MMI-UNet, its report, and the checkpoint's tensors."""
    place = tmp_path_factory.mktemp("import")
    state = published_state("mmi_unet")
    torch.save({"epoch": 7, "state_dict": state, "hyper_parameters": Attack(place / "marker")}, place / "mmi.ckpt")
    report = convert.import_checkpoint(
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
    assert report["skipped"] == ["posix.system"]
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
    from PIL import Image as PILImage

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


@pytest.fixture(scope="module")
def uncased_folder(tmp_path_factory, encoder_folder, encoder_state):
    """Folder of a one-layer text encoder with its weights, and with the words that LViT's texts are filled up with."""
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("uncased")
    words = (encoder_folder / "vocab.txt").read_text().split()
    (folder / "vocab.txt").write_text("\n".join([*words, "eof", "xxx"]) + "\n")
    config = json.loads((encoder_folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": len(words) + 2}))
    table = "bert.embeddings.word_embeddings.weight"
    more = torch.randn(2, 768, generator=torch.Generator().manual_seed(1)) / 50
    save_file(encoder_state | {table: torch.cat([encoder_state[table], more])}, folder / "model.safetensors")
    return folder


def test_lvit_reads_the_first_ten_words_without_the_encoders_marks(uncased_folder):
    encoder = load_text_encoder("bert_uncased", folder=uncased_folder, max_tokens=32)
    whole = encoder.encode(TEXT)
    assert len(whole) == 16 + 2
    assert torch.equal(word_vectors(encoder, TEXT), whole[1:11])  # the encoder has read what is cut
    filled = word_vectors(encoder, "no infection.")
    longer = encoder.encode("no infection. EOF XXX EOF XXX EOF XXX EOF XXX")
    assert filled.shape == (10, 768)
    assert torch.equal(filled, longer[1:11])
    features, mask = CONVENTIONS["lvit"].bank(encoder, bank_sentences())
    assert features.shape == (64, 10, 768)
    assert mask.all()
    assert torch.equal(features[0], filled)


def test_lvit_is_told_of_another_vocabulary(uncased_folder):
    encoder = load_text_encoder("bert_uncased", folder=uncased_folder, max_tokens=32)
    (notice,) = convert._notices(encoder, CONVENTIONS["lvit"])
    assert notice["code"] == "W_VOCABULARY"
    assert "the word the as number 1996" in notice["text"]
    encoder.tokenizer.token_to_id = {"the": 1996}.get
    assert convert._notices(encoder, CONVENTIONS["lvit"]) == []


def test_lvit_needs_the_whole_text_encoder(cli, tmp_path, encoder_folder):
    (tmp_path / "a.pth").write_bytes(b"PK")
    words = ("import", "lvit", tmp_path / "a.pth", "--out", tmp_path / "o")
    refused = cli(*words)
    assert refused.code == 2
    assert "carries no text encoder" in refused.err
    assert "model.safetensors of google-bert/bert-base-uncased" in refused.err
    half = cli(*words, "--text-encoder", encoder_folder)
    assert half.code == 2
    assert "has no model.safetensors" in half.err


@pytest.mark.slow
def test_lvit_becomes_a_bundle(tmp_path, published_state, uncased_folder):
    state = published_state("lvit")
    torch.save({"epoch": 3, "state_dict": state, "best_model": True, "model": "LViT"}, tmp_path / "lvit.pth")
    report = convert.import_checkpoint(
        "lvit", tmp_path / "lvit.pth", tmp_path / "bundle", text_encoder_folder=uncased_folder
    )
    assert set(report["mapped"]) == set(state)
    assert (report["text_encoder"], report["dropped"], report["facts"]) == ("folder", [], {"epoch": 3})
    bundle = Bundle.load(tmp_path / "bundle")
    assert (bundle.model, bundle.form, bundle.text_encoder, bundle.tokens) == ("lvit", "released", "bert_uncased", 10)
    settings = bundle.preprocess
    assert (settings.size, settings.normalise, settings.transpose) == ((224, 224), "unit", False)
    own = load_network(bundle).state_dict()
    for theirs, ours in report["mapped"].items():
        torch.testing.assert_close(own[ours], state[theirs], atol=2e-3, rtol=1e-3, msg=theirs)
    card = (tmp_path / "bundle" / "README.md").read_text(encoding="utf-8")
    assert "first 10 words" in card
    assert "swapped" not in card
    pixels = np.random.default_rng(3).random((224, 224), dtype=np.float32)
    predictor = textray.load(tmp_path / "bundle", threads=1)
    found = predictor.segment(from_array(pixels), TEXT, laterality="viewer")
    row = next(i for i, sentence in enumerate(bank_sentences()) if sentence == TEXT)
    features = load_file(tmp_path / "bundle" / "text_bank.safetensors")["features"][row : row + 1]
    with torch.inference_mode():
        image = torch.from_numpy(from_array(pixels).pixels.copy()).expand(1, 3, 224, 224)
        logits = load_network(bundle)(image, torch.from_numpy(features.astype(np.float32)), torch.ones(1, 10)).logits
    np.testing.assert_allclose(found.probability, torch.sigmoid(logits)[0, 0].numpy(), atol=5e-3)


NUCLEI = ("No infected area.", "Two infected areas, lower left.")  # of words that the fake encoder knows


@pytest.fixture
def tissue(tmp_path):
    """Root of a data set in MoNuSeg's layout: two pictures, each with a caption."""
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(("Image", "Description"))
    folder = tmp_path / "MoNuSeg" / "Train_Folder"
    for place, caption in zip("AB", NUCLEI, strict=True):
        name = f"TCGA-{place * 2}-0001-01Z-00-DX1.png"
        for part, colour in (("img", (230, 150, 40)), ("labelcol", 255)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            PILImage.new("RGB" if part == "img" else "L", (40, 36), colour).save(folder / part / name)
        book.active.append((name, caption))
    book.save(folder / "Train_text.xlsx")
    return folder.parent


@pytest.mark.slow
def test_lvit_of_pictures_in_colour_becomes_a_bundle(cli, tmp_path, published_state, uncased_folder, tissue):
    """The bundle takes red first where the checkpoint took blue first, and knows the captions instead of zones."""
    state = published_state("lvit")
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "lvit.pth")
    words = ("import", "lvit", tmp_path / "lvit.pth", "--out", tmp_path / "bundle", "--text-encoder", uncased_folder)
    assert cli(*words, "--data", "monuseg", "--root", tissue).code == 0
    bundle = Bundle.load(tmp_path / "bundle")
    assert (bundle.preprocess.colour, bundle.captions) == (True, NUCLEI)
    pixels = np.random.default_rng(3).random((224, 224, 3), dtype=np.float32)
    predictor = textray.load(tmp_path / "bundle", threads=1)
    found = predictor.segment(pixels, NUCLEI[1].upper())
    encoder = load_text_encoder("bert_uncased", folder=uncased_folder, max_tokens=32)
    network = ReleasedLViT().eval()  # as its authors run it: blue first
    network.load_state_dict({own_name("lvit", theirs): value for theirs, value in state.items()})
    with torch.inference_mode():
        image = torch.from_numpy(found.image.pixels.copy()).permute(2, 0, 1)[None].flip(1)
        logits = network(image, word_vectors(encoder, NUCLEI[1])[None], torch.ones(1, 10)).logits
    np.testing.assert_allclose(found.probability, torch.sigmoid(logits)[0, 0].numpy(), atol=5e-3)
    with pytest.raises(InputError, match=r"cannot work without.*none of its captions.*textray info lists"):
        predictor.segment(pixels, "lower left")
    card = (tmp_path / "bundle" / "README.md").read_text(encoding="utf-8")
    assert "2 captions of monuseg" in card
    assert "useless on films" in card
    assert "zone" not in card
    assert "CC BY-NC-SA" in (tmp_path / "bundle" / "LICENSE").read_text(encoding="utf-8")
    told = json.loads(cli("info", tmp_path / "bundle", "--json").out)
    assert told["captions"] == list(NUCLEI)
    scored = cli("evaluate", "--model", tmp_path / "bundle", "--data", "monuseg", "--root", tissue, "--split", "train",
                 "--text-mode", "oracle", "--out", tmp_path / "scores")  # fmt: skip
    assert scored.code == 0, scored.err


def test_data_that_a_checkpoint_cannot_be_of_are_refused(cli, tmp_path, uncased_folder, tissue):
    (tmp_path / "a.pth").write_bytes(b"PK")
    words = (tmp_path / "a.pth", "--out", tmp_path / "o", "--text-encoder", uncased_folder)
    for name, more, told in (
        ("lvit", ("--data", "qata_cov19", "--root", tissue), "lvit with monuseg"),
        ("mmi_unet", ("--data", "monuseg", "--root", tissue), "lvit with monuseg"),
        ("lvit", ("--data", "monuseg"), "--root"),
        ("lvit", ("--root", tissue), "--data NAME"),
        ("lvit", ("--data", "monusegg", "--root", tissue), "monuseg"),
    ):
        refused = cli("import", name, *words, *more)
        assert (refused.code, told in refused.err) == (2, True), refused.err
    assert not (tmp_path / "o").exists()


def fake(tmp_path, tensors):
    """What a child would have read: tensors by published names."""
    from safetensors.torch import save_file

    save_file({key: value.contiguous() for key, value in tensors.items()}, tmp_path / "t.safetensors")
    return Published(
        name="a.ckpt", tensors=tmp_path / "t.safetensors", skipped=(), other=(), facts={}, sha256="", nbytes=0
    )


@pytest.fixture
def small(monkeypatch):
    """A published network of three tensors."""
    wanted = {"model.a.weight": (2, 3), "model.a.bias": (2,), "model.table.pe": (1, 4)}
    names = {"model.a.weight": "b.weight", "model.a.bias": "b.bias", "model.table.pe": None}
    monkeypatch.setattr(convert, "published", lambda name: wanted)
    monkeypatch.setattr(convert, "own_name", lambda name, key: names[key])
    return {key: torch.ones(shape) for key, shape in wanted.items()}


def test_tensors_are_sorted_by_name(small, tmp_path):
    tensors, mapped = convert._sort("mmi_unet", fake(tmp_path, small | {"model.text_encoder.model.x": torch.ones(1)}))
    assert mapped == {"model.a.weight": "b.weight", "model.a.bias": "b.bias", "model.table.pe": None}
    assert "model.text_encoder.model.x" in tensors


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model.a.bias": None}, r"1 missing: model\.a\.bias"),
        ({"model.c": torch.ones(1)}, r"1 unknown: model\.c"),
        ({"model.a.weight": torch.ones(3, 2)}, r"1 of another shape: model\.a\.weight \(3, 2\) for \(2, 3\)"),
        ({"model.a.weight": torch.full((2, 3), torch.nan)}, "not finite"),
        ({"model.a.weight": torch.full((2, 3), 1e9)}, "too large for half precision"),
    ],
)
def test_other_tensors_are_refused_by_name(small, tmp_path, change, told):
    given = {key: value for key, value in (small | change).items() if value is not None}
    with pytest.raises(InputError, match=told) as caught:
        convert._sort("mmi_unet", fake(tmp_path, given))
    assert (caught.value.code, caught.value.exit_code) == ("E_KEYS", 3)


def test_the_published_names_are_mapped_one_to_one():
    for name in CONVENTIONS:
        own = [own_name(name, key) for key in published(name)]
        kept = [key for key in own if key is not None]
        assert len(kept) == len(set(kept))


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
    ("content", "code"),
    [(b"<html>sign in</html>", "E_FORMAT"), (b"", "E_FORMAT"), (b"PK\x03\x04" + bytes(60), "E_TRUNCATED")],
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

    monkeypatch.setattr(convert, "import_checkpoint", run)
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


def test_a_checkpoint_of_another_published_network_is_told_its_name(tmp_path):
    given = {key: torch.zeros(shape) for key, shape in published("guide_decoder").items()}
    with pytest.raises(InputError, match="It is a guide_decoder: name that"):
        convert._sort("mmi_unet", fake(tmp_path, given))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda text: text.replace("[CLS]\n", ""), r"no vocabulary"),
        (lambda text: text.replace("[UNK]\n", ""), r"none of \[UNK\]"),
        (lambda text: "", r"no vocabulary"),
        (lambda text: text + "more\n", r"more words than its config"),
    ],
)
def test_a_wrong_vocabulary_is_refused(tmp_path, encoder_folder, encoder_state, change, told):
    shutil.copytree(encoder_folder, tmp_path / "bert")
    (tmp_path / "bert/vocab.txt").write_text(change((encoder_folder / "vocab.txt").read_text()))
    with pytest.raises(BundleError, match=told):
        assemble("cxr_bert", tmp_path / "bert", encoder_state, max_tokens=24)


def test_a_vocabulary_of_other_bytes_is_refused(tmp_path, encoder_folder, encoder_state):
    shutil.copytree(encoder_folder, tmp_path / "bert")
    (tmp_path / "bert/vocab.txt").write_bytes(b"\x80\x02\xff\xfe" * 20)
    with pytest.raises(BundleError, match="no vocabulary"):
        assemble("cxr_bert", tmp_path / "bert", encoder_state, max_tokens=24)


def test_a_vocabulary_that_is_cut_off_is_refused(tmp_path, encoder_folder, encoder_state):
    shutil.copytree(encoder_folder, tmp_path / "bert")
    whole = (encoder_folder / "vocab.txt").read_text().splitlines()
    (tmp_path / "bert/vocab.txt").write_text("\n".join(whole[:-8]))
    encoder = assemble("cxr_bert", tmp_path / "bert", encoder_state, max_tokens=24)
    with pytest.raises(BundleError, match=r"lacks words of 6\d of the 64 sentences"):
        convert._check_encoder(encoder, CONVENTIONS["mmi_unet"], bank_sentences())


def test_an_encoder_of_another_width_is_refused():
    with pytest.raises(BundleError, match=r"another width.*Got 32.*Expected 768"):
        convert._check_encoder(load_text_encoder("tiny"), CONVENTIONS["mmi_unet"], bank_sentences())


def test_a_vocabulary_of_general_english_is_told(encoder_folder, encoder_state):
    encoder = assemble("cxr_bert", encoder_folder, encoder_state, max_tokens=24)
    assert [notice["code"] for notice in convert._notices(encoder, CONVENTIONS["mmi_unet"])] == ["W_VOCABULARY"]
    encoder.tokenizer.add_tokens(["pneumothorax"])
    assert convert._notices(encoder, CONVENTIONS["mmi_unet"]) == []


def test_an_encoder_that_reads_too_few_tokens_is_refused(encoder_folder, encoder_state):
    with pytest.raises(BundleError, match=r"too few tokens.*Got 32"):
        assemble("cxr_bert", encoder_folder, encoder_state, max_tokens=33)


def test_two_names_of_one_tensor_are_refused(encoder_folder, encoder_state):
    name = "embeddings.word_embeddings.weight"
    double = encoder_state | {name: encoder_state[f"bert.{name}"] + 1}
    with pytest.raises(BundleError, match="are the same one"):
        assemble("cxr_bert", encoder_folder, double, max_tokens=24)


def test_padding_is_encoded_as_the_trunk_gives_it(encoder_folder, encoder_state):
    encoder = assemble("cxr_bert", encoder_folder, encoder_state, max_tokens=24)
    padded, attended = encoder([TEXT, None, "no infection."], attend_padding=True)
    assert attended.tolist() == [[True] * 24, [False] * 24, [True] * 24]
    padded = padded[[0, 2]]
    zeroed, real = encoder([TEXT, "no infection."])
    assert padded.shape == (2, 24, 768)
    torch.testing.assert_close(padded[real], zeroed[real], atol=1e-4, rtol=1e-4)
    assert padded[~real].abs().max() > 0.1
    assert zeroed[~real].abs().max() == 0
