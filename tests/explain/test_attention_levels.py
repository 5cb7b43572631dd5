"""Attention of each level: shapes, sums, places, and a network that is left as it was."""

import numpy as np
import pytest
import torch

import textray
from textray.errors import BundleError, UsageError
from textray.explain.attention import AttentionReader, Level, read_levels
from textray.models.mmi_unet import MMIUNet, MMIUNetConfig
from textray.models.mmi_unet_gd import MMIUNetGD, MMIUNetGDConfig
from textray.models.self_guided import PooledConfig
from textray.models.sgseg import SGSegSimple, SGSegSimpleConfig
from textray.records import Zones

ZONES = Zones.from_present([0, 0, 1, 0, 1, 0])
WIDTH, REAL = 8, 3


def small(**changes):
    torch.manual_seed(0)
    return MMIUNet(MMIUNetConfig(trunk="convnext_atto", text_width=WIDTH, **changes)).eval()


def given(height=96, width=64):
    draw = torch.Generator().manual_seed(1)
    mask = torch.tensor([[1.0] * REAL + [0.0] * 2])
    return torch.randn(1, 3, height, width, generator=draw), torch.randn(1, 5, WIDTH, generator=draw), mask


def hooks(network):
    return [hook for m in network.modules() for hook in (*m._forward_pre_hooks.values(), *m._forward_hooks.values())]


def test_every_level_gives_one_map_for_each_real_token():
    levels, logits = read_levels(small(), *given())
    assert [level.name for level in levels] == [f"matching.{i}" for i in range(4)]
    # 96 x 64 gives maps of 24 x 16, 12 x 8, 6 x 4 and 3 x 2, halved; the odd 3 is padded to 4
    assert [level.weights.shape for level in levels] == [(REAL, 12, 8), (REAL, 6, 4), (REAL, 3, 2), (REAL, 2, 1)]
    assert [level.covers for level in levels] == [(1, 1), (1, 1), (1, 1), (0.75, 1)]
    assert logits.shape == (1, 1, 96, 64)
    for level in levels:
        np.testing.assert_allclose(level.weights.sum(0), 1, rtol=1e-5)


def test_reading_changes_neither_the_answer_nor_the_network():
    network, inputs = small(), given()
    with torch.no_grad():
        before = network(*inputs).logits
    assert torch.equal(read_levels(network, *inputs)[1], before)
    assert hooks(network) == []
    with pytest.raises(Exception, match="cannot run"):
        read_levels(network, torch.zeros(1, 3, 33, 32), *inputs[1:])
    assert hooks(network) == []


def test_weights_are_those_of_the_forward_pass_at_their_place():
    """One place of one level by hand: the softmax of query and key, mean over heads, row by row."""
    network, inputs = small(positions="sine"), given()
    seen = []
    module = network.matching[1].image.cross_attention
    with torch.no_grad(), module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs)):
        network(*inputs)
        query, memory, _ = seen[0]
        q, k = module.query(query)[0].numpy(), module.key(memory)[0].numpy()
    row, column, heads = 4, 1, module.heads
    place = q[row * 4 + column].reshape(heads, -1)
    keys = k[:REAL].reshape(REAL, heads, -1)
    scores = np.einsum("hc,lhc->hl", place, keys) / np.sqrt(place.shape[1])
    wanted = (np.exp(scores) / np.exp(scores).sum(1, keepdims=True)).mean(0)
    level = read_levels(network, *inputs)[0][1]
    np.testing.assert_allclose(level.weights[:, row, column], wanted, rtol=1e-4)


def test_spreading_keeps_places_and_cuts_the_padding():
    weights = np.zeros((1, 2, 2), np.float32)
    weights[0, 0, 1] = 1  # upper right
    whole = Level(name="x", weights=weights).spread((4, 6))
    assert whole[0].tolist() == [[0, 0, 0, 1, 1, 1]] * 2 + [[0] * 6] * 2
    cut = Level(name="x", weights=weights, covers=(0.75, 1.0)).spread((6, 4))
    assert cut[0, :, 3].tolist() == [1, 1, 1, 1, 0, 0]


def test_guide_layers_are_read_beside_the_matching():
    torch.manual_seed(0)
    network = MMIUNetGD(MMIUNetGDConfig(trunk="convnext_atto", text_width=WIDTH, tokens=6, mixed_tokens=(6, 4, 2)))
    levels = read_levels(network.eval(), *given())[0]
    slots = [None if level.slots is None else len(level.slots) for level in levels]
    assert slots == [None] * 4 + [2, 4, 6]
    for level in levels:
        assert level.weights.shape[0] == REAL
        np.testing.assert_allclose(level.weights.sum(0), 1, rtol=1e-5)
    assert hooks(network) == []


def test_slots_are_shared_out_by_the_size_of_the_mixing_weights(guided):
    network = textray.load_network(guided)
    tokens = AttentionReader(guided).tokens(ZONES)
    with torch.no_grad():
        for guide in network.decoder.guides:
            guide.text.mix.weight.zero_()
            guide.text.mix.weight[:, 3] = -2.0  # every slot is made of the fourth token
    levels = read_levels(
        network, torch.zeros(1, 3, 64, 64), torch.tensor(tokens.features)[None], torch.tensor(tokens.mask)[None]
    )[0]
    for level in levels:
        np.testing.assert_allclose(level.weights[3], 1, rtol=1e-5)


def test_tokens_are_those_of_the_bank(deciding):
    tokens = AttentionReader(deciding).tokens(ZONES)
    assert tokens.names[0] == "[CLS]"
    assert tokens.names[-1] == "[SEP]"
    assert len(tokens.names) == tokens.mask.sum()
    assert [tokens.names[i] for i in tokens.places] == ["lower", "left", "middle", "right"]
    assert tokens.labels.count("lung") == 1
    assert "lung (2)" in tokens.labels
    bank = deciding.text_bank()
    assert np.array_equal(tokens.features, bank.features[ZONES.index])


def test_a_bank_of_another_encoder_is_refused(deciding):
    reader = AttentionReader(deciding)
    row = reader._bank.features[ZONES.index]
    row[[1, 2]] = row[[2, 1]]  # two columns changed places: their words would be wrong
    with pytest.raises(BundleError, match="not computed by this text encoder"):
        reader.tokens(ZONES)


def test_a_network_without_words_is_refused(tmp_path, make_bundle, monkeypatch):
    bundle = make_bundle(tmp_path / "mute", reads_text=False)
    monkeypatch.setattr("textray.explain.attention.load_network", lambda _: torch.nn.Linear(1, 1))
    with pytest.raises(UsageError, match="cannot be read word by word"):
        AttentionReader(bundle)


@pytest.mark.parametrize("zone_tokens", [False, True])
def test_a_network_that_writes_reports_is_read_through_its_segmenter(zone_tokens):
    torch.manual_seed(0)
    segmenter = MMIUNetConfig(trunk="convnext_atto", text_width=WIDTH)
    locator = PooledConfig(trunk="convnext_atto")
    config = SGSegSimpleConfig(
        locator=locator, guide_decoder=None, mmi_unet=segmenter, tokens=7, zone_tokens=zone_tokens
    )
    network = SGSegSimple(config).eval()
    levels, logits = read_levels(network, *given())
    alone, without_locator = read_levels(network.segmenter, *given())
    assert [level.name for level in levels] == [f"segmenter.{level.name}" for level in alone]
    for level, other in zip(levels, alone, strict=True):
        np.testing.assert_allclose(level.weights, other.weights, atol=1e-6)
        np.testing.assert_allclose(level.weights.sum(0), 1, rtol=1e-5)
    torch.testing.assert_close(logits, without_locator)
