"""LViT: counts, levels, sizes, the way of the text, options."""

import pytest
import torch

from textray.errors import UsageError
from textray.models.lvit import LViT, LViTConfig
from textray.nn.blocks import PixelLevelAttention
from textray.nn.vision_transformer import PatchEmbedding, regrid

WIDTH = 8


def small(**changes):
    torch.manual_seed(0)
    settings = {"channels": 8, "size": (32, 48), "text_width": WIDTH, "tokens": 6, **changes}
    return LViT(LViTConfig(**settings)).eval()


@pytest.mark.parametrize(("tokens", "count"), [(10, 29_908_033), (24, 29_916_265)])
def test_parameters(tokens, count):
    with torch.device("meta"):  # sizes without memory
        network = LViT(LViTConfig(tokens=tokens))
    sizes = {name: p.numel() for name, p in network.named_parameters()}
    assert sizes.pop("no_report") == 768
    assert sum(sizes.values()) == count


def test_tables_are_resized_with_the_image():
    table = torch.arange(6.0).reshape(1, 6, 1)  # a slope along the rows of a grid of 2 x 3
    assert regrid(table, (2, 3), (2, 3)) is table
    finer = regrid(table, (2, 3), (4, 3)).reshape(4, 3)
    torch.testing.assert_close(finer[:, 0], torch.tensor([0.0, 0.75, 2.25, 3.0]))
    embedding = PatchEmbedding(4, 2, (2, 3))
    with torch.no_grad():
        embedding.positions.fill_(1.5)
        found = embedding(torch.zeros(1, 4, 10, 2)) - embedding.project.bias
    torch.testing.assert_close(found, torch.full((1, 5, 4), 1.5))


def test_pixel_level_attention_starts_as_a_plain_skip():
    module = PixelLevelAttention(8)
    given = torch.randn(2, 8, 8, 8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(module(given), given, rtol=0.2, atol=1e-6)


def test_skips_can_be_plain_and_depth_stacks_blocks():
    for options, attentions, depth in (({}, 4, 1), ({"plam": False, "depth": 3}, 0, 3)):
        network = small(**options)
        assert sum(isinstance(m, PixelLevelAttention) for m in network.modules()) == attentions
        assert {len(blocks) for blocks in (*network.body.down_blocks, *network.body.up_blocks)} == {depth}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patches": (16, 8, 4, 4)}, r"same places at each level.*\(16, 8, 4, 4\)"),
        ({"patches": (16, 8, 4)}, "four sides"),
        ({"size": (40, 48)}, r"whole patches.*\(40, 48\).*multiples of 16"),
        ({"gate": "tanh"}, "unknown gate of PLAM.*'tanh'.*none or sigmoid"),
        ({"tokens": 0}, "needs slots"),
        ({"depth": 0}, "needs slots and blocks"),
        ({"heads": 3}, "3 heads, width 8"),
    ],
)
def test_impossible_sizes_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        small(**changes)


def test_patches_may_be_smaller_than_the_poolings():
    network = small(patches=(8, 4, 2, 1))
    assert network.size_multiple == 16
    assert network.body.embed[0].positions.shape == (1, 24, 8)
    assert small(patches=(32, 16, 8, 4), size=(32, 64)).size_multiple == 32
