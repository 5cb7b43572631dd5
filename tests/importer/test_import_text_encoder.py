"""The folder of a text encoder: what does not fit is refused or told."""

import shutil

import pytest

pytest.importorskip("torch")
import torch

from textray.errors import BundleError
from textray.export import published
from textray.export.conventions import CONVENTIONS
from textray.nn.bert import assemble, load_text_encoder

TEXT = "bilateral pulmonary infection, two infected areas, upper left lung and lower right lung."


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw.replace(b"[CLS]\n", b""), r"no vocabulary"),
        (lambda raw: raw.replace(b"[UNK]\n", b""), r"none of \[UNK\]"),
        (lambda raw: b"", r"no vocabulary"),
        (lambda raw: raw + b"more\n", r"more words than its config"),
        (lambda raw: b"\x80\x02\xff\xfe" * 20, "no vocabulary"),
    ],
)
def test_a_wrong_vocabulary_is_refused(tmp_path, encoder_folder, encoder_state, change, message):
    shutil.copytree(encoder_folder, tmp_path / "bert")
    (tmp_path / "bert/vocab.txt").write_bytes(change((encoder_folder / "vocab.txt").read_bytes()))
    with pytest.raises(BundleError, match=message):
        assemble("cxr_bert", tmp_path / "bert", encoder_state, max_tokens=24)


def test_a_vocabulary_that_is_cut_off_is_refused(tmp_path, encoder_folder, encoder_state):
    shutil.copytree(encoder_folder, tmp_path / "bert")
    whole = (encoder_folder / "vocab.txt").read_text().splitlines()
    (tmp_path / "bert/vocab.txt").write_text("\n".join(whole[:-8]))
    encoder = assemble("cxr_bert", tmp_path / "bert", encoder_state, max_tokens=24)
    with pytest.raises(BundleError, match=r"lacks words of 6\d of the 64 texts"):
        published._check_encoder(encoder, CONVENTIONS["mmi_unet"])


def test_an_encoder_of_another_width_is_refused():
    with pytest.raises(BundleError, match=r"another width.*Got 32.*Expected 768"):
        published._check_encoder(load_text_encoder("tiny"), CONVENTIONS["mmi_unet"])


def test_a_vocabulary_of_general_english_is_told(encoder_folder, encoder_state):
    encoder = assemble("cxr_bert", encoder_folder, encoder_state, max_tokens=24)
    assert [notice["code"] for notice in published._notices(encoder, CONVENTIONS["mmi_unet"])] == ["W_VOCABULARY"]
    encoder.tokenizer.add_tokens(["pneumothorax"])
    assert published._notices(encoder, CONVENTIONS["mmi_unet"]) == []


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
