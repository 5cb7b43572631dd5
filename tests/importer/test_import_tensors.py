"""Every tensor of a published checkpoint finds its place, and its text encoder's folder fits, or they are refused."""

import pytest

pytest.importorskip("torch")
import torch

from textray.errors import BundleError, InputError
from textray.export import published as convert
from textray.export.conventions import CONVENTIONS
from textray.export.unpickle import Published
from textray.models.released.keys import own_name, published
from textray.nn.bert import assemble, load_text_encoder

TEXT = "bilateral pulmonary infection, two infected areas, upper left lung and lower right lung."


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


def test_a_checkpoint_of_several_gpus_is_the_same_network(small, tmp_path):
    """Names that all begin with ``module.`` lose it; one that does not is no such checkpoint."""
    parallel = {f"module.{key}": value for key, value in small.items()}
    tensors, mapped = convert._sort("mmi_unet", fake(tmp_path, parallel))
    assert (tensors.keys(), mapped.keys()) == (small.keys(), small.keys())
    with pytest.raises(InputError, match="is not one of mmi_unet"):
        convert._sort("mmi_unet", fake(tmp_path, parallel | {"epoch": torch.ones(1)}))


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


def test_a_checkpoint_of_another_published_network_is_told_its_name(tmp_path):
    given = {key: torch.zeros(shape) for key, shape in published("guide_decoder").items()}
    with pytest.raises(InputError, match="It is a guide_decoder: name that"):
        convert._sort("mmi_unet", fake(tmp_path, given))


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
def test_a_wrong_vocabulary_is_refused(bert, encoder_state, change, message):
    (bert / "vocab.txt").write_bytes(change((bert / "vocab.txt").read_bytes()))
    with pytest.raises(BundleError, match=message):
        assemble("cxr_bert", bert, encoder_state, max_tokens=24)


def test_a_vocabulary_that_is_cut_off_is_refused(bert, encoder_state):
    whole = (bert / "vocab.txt").read_text().splitlines()
    (bert / "vocab.txt").write_text("\n".join(whole[:-8]))
    encoder = assemble("cxr_bert", bert, encoder_state, max_tokens=24)
    with pytest.raises(BundleError, match=r"lacks words of 6\d of the 64 texts"):
        convert._check_encoder(encoder, CONVENTIONS["mmi_unet"])


def test_an_encoder_of_another_width_is_refused():
    with pytest.raises(BundleError, match=r"another width.*Got 32.*Expected 768"):
        convert._check_encoder(load_text_encoder("tiny"), CONVENTIONS["mmi_unet"])


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
