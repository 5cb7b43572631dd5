"""The text encoder that learns: sizes, published files, sums of layers, what it refuses."""

import json

import pytest
import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertModel

from textray import registry
from textray.errors import BundleError, ShapeError, UsageError
from textray.nn import bert
from textray.nn.bert import SIZES, BertSizes, TextTrunk, TextTrunkConfig, load_text_encoder, published_vocabulary

SMALL = BertSizes(pieces=12, width=16, layers=3, heads=2, feed_forward=24, positions=20)
IDS = torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0]])
ATTENTION = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])


def small(**fields):
    torch.manual_seed(0)
    return TextTrunk(TextTrunkConfig(**{"encoder": "own", "own": SMALL, "last_layers": 2, **fields}))


def bio_clinical_bert(folder):
    """Random tensors of the sizes ``SMALL`` in the layout in which Bio_ClinicalBERT is published; the plain ones."""
    config = BertConfig(
        vocab_size=12, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=20,
    )  # fmt: skip
    torch.manual_seed(4)
    plain = BertModel(config, add_pooling_layer=False)
    tensors = {}
    for name, tensor in plain.state_dict().items():
        old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        if tensor.is_floating_point():
            tensors[f"bert.{old}"] = tensor.clone()
    tensors["bert.embeddings.position_ids"] = torch.arange(20)[None]
    tensors["bert.pooler.dense.weight"] = torch.zeros(16, 16)
    tensors["cls.predictions.transform.LayerNorm.gamma"] = torch.zeros(16)
    tensors["cls.seq_relationship.bias"] = torch.zeros(2)
    save_file(tensors, str(folder / "model.safetensors"))
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "left", "lung", "##s", "a", "b", "c", "d"]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    return plain.eval(), pieces


@pytest.fixture
def shrunk(monkeypatch, tmp_path):
    """Bio_ClinicalBERT in small: its folder, its plain trunk, its pieces."""
    monkeypatch.setattr(bert, "SIZES", {**SIZES, "bio_clinical_bert": SMALL})
    return tmp_path, *bio_clinical_bert(tmp_path)


def test_sizes_are_those_of_the_registry():
    assert set(SIZES) == set(registry.TEXT_ENCODERS)
    assert {name: sizes.width for name, sizes in SIZES.items()} == {
        name: row.width for name, row in registry.TEXT_ENCODERS.items()
    }


def test_bio_clinical_bert_is_read_from_its_published_layout(shrunk):
    folder, plain, _ = shrunk
    torch.manual_seed(8)
    trunk = TextTrunk(TextTrunkConfig(weights=str(folder), last_layers=2)).eval()
    with torch.no_grad():
        before = trunk(IDS, ATTENTION)
        trunk.load_pretrained()
        found = trunk(IDS, ATTENTION)
        states = plain(input_ids=IDS, attention_mask=ATTENTION, output_hidden_states=True).hidden_states
    assert not torch.allclose(before, found)
    torch.testing.assert_close(found, states[2] + states[3])


def test_published_weights_of_another_size_are_refused(shrunk, monkeypatch):
    monkeypatch.setattr(bert, "SIZES", {"bio_clinical_bert": BertSizes(pieces=12, width=8, layers=3, heads=2)})
    trunk = TextTrunk(TextTrunkConfig(weights=str(shrunk[0]), last_layers=2))
    with pytest.raises(BundleError, match="not this trunk's"):
        trunk.load_pretrained()


def test_a_broken_or_missing_file_is_refused(shrunk, tmp_path):
    trunk = TextTrunk(TextTrunkConfig(weights=str(shrunk[0]), last_layers=2))
    (shrunk[0] / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(BundleError, match="cannot be read"):
        trunk.load_pretrained()
    (shrunk[0] / "model.safetensors").unlink()
    with pytest.raises(BundleError, match=r"no model\.safetensors"):
        trunk.load_pretrained()


def test_the_vocabulary_is_in_the_order_of_the_rows(shrunk):
    folder, _, pieces = shrunk
    assert published_vocabulary("bio_clinical_bert", folder=folder) == tuple(pieces)
    rare = [*pieces[:-1], "\u2028"]  # a piece that is a line break to some
    (folder / "vocab.txt").write_text("\n".join(rare) + "\n", encoding="utf-8")
    assert published_vocabulary("bio_clinical_bert", folder=folder) == tuple(rare)
    (folder / "vocab.txt").write_text("\n".join(["x"] * 13))
    with pytest.raises(BundleError, match="not that of bio_clinical_bert"):
        published_vocabulary("bio_clinical_bert", folder=folder)


def test_tiny_is_the_frozen_one_with_gradients():
    trunk = TextTrunk(TextTrunkConfig(encoder="tiny", weights="published", last_layers=1)).eval()
    trunk.load_pretrained()
    frozen = load_text_encoder("tiny")
    ids = torch.tensor([frozen.tokens("left lung")])
    found = trunk(ids, torch.ones_like(ids))
    torch.testing.assert_close(found[0].detach(), frozen.encode("left lung"))
    assert found.requires_grad
    pieces = published_vocabulary("tiny")
    assert len(pieces) == SIZES["tiny"].pieces
    assert [pieces[i] for i in ids[0]] == ["[CLS]", "left", "lung", "[SEP]"]


def test_padding_changes_no_piece():
    trunk = small().eval()
    with torch.no_grad():
        alone = trunk(IDS[1:, :3], ATTENTION[1:, :3])
        together = trunk(IDS, ATTENTION)[1:, :3]
        other = IDS.clone()
        other[1, 3] = 9
        torch.testing.assert_close(together, alone)
        torch.testing.assert_close(trunk(other, ATTENTION)[1:, :3], alone)


def test_without_names_nothing_is_read():
    trunk = small()
    before = {name: tensor.clone() for name, tensor in trunk.state_dict().items()}
    trunk.load_pretrained()
    assert all(torch.equal(before[name], tensor) for name, tensor in trunk.state_dict().items())


def test_dropout_acts_in_training_only():
    trunk = small(dropout=0.5)
    assert not torch.equal(trunk(IDS, ATTENTION), trunk(IDS, ATTENTION))
    trunk.eval()
    assert torch.equal(trunk(IDS, ATTENTION), trunk(IDS, ATTENTION))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"last_layers": 4}, "text.last_layers of 1 to 3"),
        ({"last_layers": 0}, "text.last_layers of 1 to 3"),
        ({"own": BertSizes(width=10, heads=4, layers=3)}, "do not divide"),
        ({"weights": "published"}, "no published weights"),
        ({"encoder": "tiny_bert"}, "unknown text encoder"),
    ],
    ids=str,
)
def test_impossible_configurations_are_refused(fields, says):
    with pytest.raises(UsageError, match=says):
        small(**fields)


def test_pieces_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError, match="do not fit the text encoder"):
        small()(IDS, ATTENTION[:, :2])
    with pytest.raises(ShapeError, match="at most 20"):
        small()(torch.zeros(1, 21, dtype=torch.long), torch.ones(1, 21))
