"""Half precision on a processor: what is faster must not be another network."""

from copy import deepcopy

import pytest
import torch
from torch.nn import functional as F

pytest.importorskip("lightning")
from textray.models.mmi_unet import MMIUNet, MMIUNetConfig
from textray.nn.attention import MultiHeadAttention
from textray.training.task import suit_half

SIZES = {"trunk": "efficientnet_lite0", "text_width": 8, "decoder_channels": (8, 12, 16), "ffn_width": 16}


@pytest.fixture(scope="module")
def networks():
    """A network as it is, its norms used to what it sees, and a copy that is made fast."""
    torch.manual_seed(0)
    plain = MMIUNet(MMIUNetConfig(**SIZES, dropout=0.0))
    for module in plain.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        plain.train()(*inputs())
    fast = deepcopy(plain)
    suit_half(fast)
    return plain.eval(), fast.eval()


def inputs():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, 64, 64, generator=generator), torch.randn(2, 5, 8, generator=generator)


def gradients(network, half):
    network.zero_grad()
    target = torch.zeros(2, 1, 64, 64)
    target[:, :, 20:40, 10:30] = 1
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        logits = network(*inputs()).logits
    F.binary_cross_entropy_with_logits(logits.float(), target).backward()
    return logits.detach().float(), {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


def test_outputs_and_gradients_are_near_those_of_single_precision(networks):
    """As near as those of half precision without it; deep inside a network at random neither is very near."""
    plain, fast = networks
    ordinary = deepcopy(plain)
    (wanted, slopes), (found, halves) = gradients(plain, half=False), gradients(fast, half=True)
    assert (found - wanted).abs().max() < 0.05 * wanted.abs().max()
    assert halves.keys() == slopes.keys()
    assert all(slope.dtype == torch.float32 and slope.isfinite().all() for slope in halves.values())

    def likeness(given, part=""):
        one, other = (
            torch.cat([g[name].flatten() for name in slopes if name.startswith(part)]) for g in (slopes, given)
        )
        return F.cosine_similarity(one, other, dim=0)

    assert likeness(halves, "head.") > 0.99
    assert likeness(halves) > likeness(gradients(ordinary, half=True)[1]) - 0.05


def test_without_half_precision_nothing_changes_but_the_order_in_memory(networks):
    plain, fast = networks
    with torch.no_grad():
        torch.testing.assert_close(fast(*inputs()).logits, plain(*inputs()).logits, rtol=1e-4, atol=1e-4)
    assert fast.state_dict().keys() == plain.state_dict().keys()
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in fast.state_dict().items())


def test_a_copy_runs_with_its_own_weights(networks):
    """A running mean of the weights is a copy of the whole network."""
    again = deepcopy(networks[1])
    with torch.no_grad():
        before = networks[1](*inputs()).logits
        for parameter in again.parameters():
            parameter.zero_()
        assert not again(*inputs()).logits.any()
        assert torch.equal(networks[1](*inputs()).logits, before)


def test_depthwise_layers_run_in_single_precision(networks):
    layers = [m for m in networks[1].modules() if isinstance(m, torch.nn.Conv2d) and m.groups > 1]
    assert layers
    image = torch.randn(1, layers[0].in_channels, 16, 16).bfloat16()
    single = torch.nn.Conv2d.forward(layers[0], image.float())
    with torch.autocast("cpu", torch.bfloat16):
        found = layers[0](image)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, single.bfloat16())


def test_attention_is_near_that_of_single_precision():
    torch.manual_seed(0)
    attention = MultiHeadAttention(16, 4).eval()
    query, memory, mask = torch.randn(2, 7, 16), torch.randn(2, 5, 16), torch.ones(2, 5, dtype=torch.bool)
    mask[1, 2:] = False
    with torch.no_grad():
        wanted = attention(query, memory, mask)
        with torch.autocast("cpu", torch.bfloat16):
            found = attention(query, memory, mask)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), wanted, rtol=0.02, atol=0.02)
