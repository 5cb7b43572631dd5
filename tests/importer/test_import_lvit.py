"""LViT's published checkpoints, of films and of pictures in colour, as random ones in their layout."""

import json

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from PIL import Image as PILImage

import textray
from textray.errors import InputError
from textray.export import published
from textray.export.conventions import CONVENTIONS, word_vectors
from textray.inference.bundle import Bundle
from textray.models.released.keys import own_name
from textray.models.released.lvit import ReleasedLViT
from textray.nn.bert import load_text_encoder
from textray.text.zones import bank_sentences

TEXT = "bilateral pulmonary infection, two infected areas, upper left lung and lower right lung."


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
    filled = word_vectors(encoder, "no infection.")  # two words: seven are missing
    longer = encoder.encode("no infection." + 7 * " EOF XXX")
    assert filled.shape == (10, 768)
    assert torch.equal(filled, longer[1:11])
    features, mask = CONVENTIONS["lvit"].encode(encoder, CONVENTIONS["lvit"].texts)
    assert features.shape == (64, 10, 768)
    assert mask.all()
    assert torch.equal(features[0], filled)


def test_a_word_in_pieces_is_one_vector(uncased_folder):
    """Eight words are filled once, nine are not; what even so is too short ends in zeros."""
    encoder = load_text_encoder("bert_uncased", folder=uncased_folder, max_tokens=25)
    text = "unilateral pulmonary infection, one infected area, upper left lung."
    whole, found = encoder.encode(text), word_vectors(encoder, text)
    assert torch.allclose(found[0], whole[1:5].mean(0), atol=1e-6)
    assert torch.equal(found[1:], whole[5:14])
    eight = "Unilateral pulmonary infection, one infected area, upper left"
    assert torch.allclose(word_vectors(encoder, eight)[1:], encoder.encode(f"{eight} EOF XXX")[5:14])
    nine = "one two three four five six infected areas lung"
    found = word_vectors(encoder, nine)
    assert torch.equal(found[:9], encoder.encode(nine)[1:10])
    assert not found[9].any()
    assert word_vectors(encoder, " ".join(["unilateral"] * 9)).shape == (10, 768)


def test_lvit_is_told_of_another_vocabulary(uncased_folder):
    encoder = load_text_encoder("bert_uncased", folder=uncased_folder, max_tokens=32)
    (notice,) = published._notices(encoder, CONVENTIONS["lvit"])
    assert notice["code"] == "W_VOCABULARY"
    assert "the word the as number 1996" in notice["text"]
    encoder.tokenizer.token_to_id = {"the": 1996}.get
    assert published._notices(encoder, CONVENTIONS["lvit"]) == []


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
    state, path, out = published_state("lvit"), tmp_path / "lvit.pth", tmp_path / "bundle"
    torch.save({"epoch": 3, "state_dict": state, "best_model": True, "model": "LViT"}, path)
    report = published.import_checkpoint("lvit", path, out, text_encoder_folder=uncased_folder)
    assert set(report["mapped"]) == set(state)
    assert (report["text_encoder"], report["dropped"], report["facts"]) == ("folder", [], {"epoch": 3})
    bundle = Bundle.load(out)
    assert (bundle.model, bundle.form, bundle.text_encoder, bundle.tokens) == ("lvit", "released", "bert_uncased", 10)
    settings = bundle.preprocess
    assert (settings.size, settings.normalise, settings.transpose) == ((224, 224), "unit", False)
    own = textray.load_network(bundle).state_dict()
    for theirs, ours in report["mapped"].items():
        torch.testing.assert_close(own[ours], state[theirs], atol=2e-3, rtol=1e-3, msg=theirs)
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "first 10 words" in card
    assert "swapped" not in card
    encoder = load_text_encoder("bert_uncased", folder=uncased_folder, max_tokens=32)
    features = bundle.text_bank().features[bank_sentences().index(TEXT)]
    np.testing.assert_allclose(features, word_vectors(encoder, TEXT).numpy(), atol=4e-3)


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
        ("lvit", ("--data", "rsna", "--root", tissue), "lvit with monuseg"),
        ("mmi_unet", ("--data", "monuseg", "--root", tissue), "lvit with monuseg"),
        ("lvit", ("--data", "monuseg"), "--root"),
        ("lvit", ("--root", tissue), "--data NAME"),
        ("lvit", ("--data", "monusegg", "--root", tissue), "monuseg"),
    ):
        refused = cli("import", name, *words, *more)
        assert (refused.code, told in refused.err) == (2, True), refused.err
    assert not (tmp_path / "o").exists()
