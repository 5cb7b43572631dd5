"""Attention, positions, feed-forward and convolutional blocks beside torch's and MONAI's own."""

import math
import warnings

import pytest
import torch

from textray.errors import ShapeError, UsageError
from textray.nn.attention import FeedForward, MultiHeadAttention, heads_for, sine_positions
from textray.nn.blocks import SubpixelHead


@pytest.mark.parametrize(
    ("width", "most", "heads"),
    [(96, 8, 8), (768, 8, 8), (12, 8, 6), (20, 8, 5), (9, 8, 3), (7, 8, 7), (11, 8, 1), (96, 4, 4), (320, 6, 5)],
)
def test_heads_are_the_largest_divisor_up_to_a_limit(width, most, heads):
    assert heads_for(width, most) == heads


MASKS = pytest.mark.parametrize(
    "mask", [None, torch.tensor([[1, 1, 1, 1, 1], [1, 0, 1, 0, 0]]) > 0], ids=["all tokens", "padding"]
)


@MASKS
def test_attention_is_torchs(mask):
    torch.manual_seed(0)
    ours, theirs = MultiHeadAttention(12, 3), torch.nn.MultiheadAttention(12, 3, batch_first=True)
    parts = (ours.query, ours.key, ours.value)
    with torch.no_grad():
        for part in (*parts, ours.output):
            part.bias.normal_()
        theirs.in_proj_weight.copy_(torch.cat([p.weight for p in parts]))
        theirs.in_proj_bias.copy_(torch.cat([p.bias for p in parts]))
        theirs.out_proj.load_state_dict(ours.output.state_dict())
    query, memory, values = torch.randn(2, 4, 12), torch.randn(2, 5, 12), torch.randn(2, 5, 12)
    padding = None if mask is None else ~mask
    wanted = theirs(query, memory, memory, key_padding_mask=padding, need_weights=False)[0]
    torch.testing.assert_close(ours(query, memory, mask), wanted)
    other = theirs(query, memory, values, key_padding_mask=padding, need_weights=False)[0]
    torch.testing.assert_close(ours(query, memory, mask, value=values), other)
    assert not torch.allclose(wanted, other)


@MASKS
def test_weights_are_those_of_forward(mask):
    torch.manual_seed(0)
    attention = MultiHeadAttention(12, 3, dropout=0.5).eval()
    query, memory = torch.randn(2, 4, 12), torch.randn(2, 5, 12)
    weights = attention.weights(query, memory, mask)
    assert weights.shape == (2, 3, 4, 5)
    torch.testing.assert_close(weights.sum(3), torch.ones(2, 3, 4))
    if mask is not None:
        assert not weights[1, :, :, [1, 3, 4]].any()
    values = attention.value(memory).reshape(2, 5, 3, 4)  # heads of width 4
    mixed = torch.einsum("bhnm,bmhd->bnhd", weights, values).flatten(2)
    torch.testing.assert_close(attention.output(mixed), attention(query, memory, mask))
    attention.train()
    assert torch.equal(attention.weights(query, memory, mask), weights)  # whatever dropout would do


def test_linear_layers_start_as_the_specification_says():
    torch.manual_seed(0)
    attention, feed = MultiHeadAttention(256, 8), FeedForward(256, 128)
    for layer in (attention.output, feed.expand, feed.reduce):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
    for layer in (attention.query, attention.key, attention.value):  # Xavier, uniform within sqrt(6 / (in + out))
        bound = (6 / 512) ** 0.5
        assert 0.95 * bound < layer.weight.abs().max().item() <= bound
    biases = [p for m in (attention, feed) for n, p in m.named_parameters() if n.endswith("bias")]
    assert len(biases) == 6
    assert not any(b.any() for b in biases)


@pytest.mark.parametrize("factor", [2, 4])
def test_head_is_monais_subpixel_upsampling(factor):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside MONAI's own imports
        blocks = pytest.importorskip("monai.networks.blocks")
    torch.manual_seed(0)
    head = SubpixelHead(16, factor=factor)
    theirs = blocks.SubpixelUpsample(2, 16, 4, scale_factor=factor)
    theirs.conv_block.load_state_dict(head.expand.state_dict())
    features = torch.randn(2, 16, 3, 5)
    found = head(features)
    assert found.shape == (2, 1, 3 * factor, 5 * factor)
    torch.testing.assert_close(found, head.read(theirs(features)))
    with pytest.raises(UsageError, match=r"multiple of 4 channels.*Got 6.*decoder_channels"):
        SubpixelHead(6, factor=factor)


def test_codes_are_those_of_the_formula():
    codes = sine_positions(torch.zeros(1, 8, 2, 4)).reshape(2, 4, 8)
    for row in range(2):
        for column in range(4):
            wanted = []
            for place in ((row + 0.5) / 2 * 32, (column + 0.5) / 4 * 32):
                angles = [place * 100 ** (-i / 2) for i in range(2)]
                wanted += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            assert codes[row, column].tolist() == pytest.approx(wanted, abs=1e-4)

    with pytest.raises(ShapeError, match="multiple of 4"):
        sine_positions(torch.zeros(1, 6, 2, 2))


def test_every_place_has_its_own_code_and_left_is_not_right():
    codes = sine_positions(torch.zeros(1, 24, 10, 10))[0]
    distance = torch.cdist(codes, codes) + 10 * torch.eye(100)
    assert distance.min() > 0.05
