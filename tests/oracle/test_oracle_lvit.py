"""LViT again, in NumPy and slowly, beside the modules: PLAM, a block, the way of the text, the network as a whole."""

import math

import numpy as np
import pytest
import torch
from numpy_layers import batch_norm, conv_3x3, gelu, layer_norm, linear, numbers, randomised

from textray.models.lvit import LViT, LViTConfig
from textray.nn.blocks import PixelLevelAttention
from textray.nn.vision_transformer import TransformerBlock

CONFIG = LViTConfig(
    channels=4, patches=(8, 4, 2, 1), size=(16, 32), text_width=10, tokens=5, heads=2, expansion=2, dropout=0.5
)
GRID = (2, 4)


def drawn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- one image's arithmetic; maps are (C, h, w), tokens are rows -----------------------------------------------------


def relu(x):
    return np.maximum(x, 0)


def conv_along(x, p, name):
    """Kernel 3 along the last axis of ``(C, n)``, zeros outside."""
    kernel, n = p[f"{name}.weight"], x.shape[1]
    framed = np.zeros((x.shape[0], n + 2))
    framed[:, 1:-1] = x
    return sum(kernel[:, :, k] @ framed[:, k : k + n] for k in range(3)) + p[f"{name}.bias"][:, None]


def cbr(x, p, name):
    return relu(batch_norm(conv_3x3(x, p[f"{name}.0.weight"], p[f"{name}.0.bias"]), p, f"{name}.1"))


def larger(x, factor):
    return x.repeat(factor, 1).repeat(factor, 2)


def plam(x, p, name="", gate="none"):
    out = np.zeros_like(x)
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            a = relu(p[f"{name}average.weight"][:, :, 0, 0] @ x[:, i, j]).mean()
            m = relu(p[f"{name}largest.weight"][:, :, 0, 0] @ x[:, i, j]).max()
            hidden = relu(linear(np.array([a, m, a + m]), p, f"{name}mix.0"))
            weight = linear(hidden, p, f"{name}mix.2")
            out[:, i, j] = x[:, i, j] * (1 / (1 + np.exp(-weight)) if gate == "sigmoid" else weight)
    return out


def block(x, heads, p, name=""):
    width = x.shape[1]
    q, k, v = np.split(linear(layer_norm(x, p, f"{name}attention_norm"), p, f"{name}attention.project_in"), 3, axis=1)
    mixed, d = np.zeros_like(x), width // heads
    for head in range(heads):
        own = slice(head * d, (head + 1) * d)
        for i in range(len(x)):
            weights = np.exp([q[i, own] @ k[j, own] / math.sqrt(d) for j in range(len(x))])
            mixed[i, own] = (weights / weights.sum()) @ v[:, own]
    u = x + linear(mixed, p, f"{name}attention.project_out")
    hidden = gelu(linear(layer_norm(u, p, f"{name}feed_norm"), p, f"{name}expand"))
    return u + gelu(linear(hidden, p, f"{name}reduce"))


def spread(text, real, p):
    """Tokens of one text ``(L, D)`` to places ``(N, C)``."""
    slots = np.zeros((text.shape[1], CONFIG.tokens))
    slots[:, : len(text)] = text.T
    known = np.zeros(CONFIG.tokens)
    known[: len(text)] = real
    slots = slots * known
    for step in range(4):
        slots = conv_along(slots, p, f"body.text.narrow.{step}") * known
    return relu(batch_norm(conv_along(slots.T, p, "body.text.spread.0"), p, "body.text.spread.1"))


def embed(x, s, p):
    kernel, patch = p[f"body.embed.{s}.project.weight"], CONFIG.patches[s]
    tokens = []
    for i in range(GRID[0]):
        for j in range(GRID[1]):
            square = x[:, i * patch : (i + 1) * patch, j * patch : (j + 1) * patch]
            tokens.append(np.tensordot(kernel, square, 3) + p[f"body.embed.{s}.project.bias"])
    return np.array(tokens) + p[f"body.embed.{s}.positions"][0]


def halve(x, p, name):
    return relu(batch_norm(conv_along(x.T, p, f"{name}.0"), p, f"{name}.1")).T


def lvit(image, text, real, p):
    x = [cbr(image, p, "body.first")]
    for s in range(4):
        pooled = x[-1].reshape(x[-1].shape[0], x[-1].shape[1] // 2, 2, x[-1].shape[2] // 2, 2).max((2, 4))
        x.append(cbr(cbr(pooled, p, f"body.down.{s}.0"), p, f"body.down.{s}.1"))
    y = [block(embed(x[0], 0, p) + spread(text, real, p), 2, p, "body.down_blocks.0.0.")]
    for s in (1, 2, 3):
        own = halve(block(embed(x[s], s, p), 2, p, f"body.down_blocks.{s}.0."), p, f"body.halve_down.{s - 1}")
        y.append(np.concatenate([own, y[-1]], 1))
    z = {3: block(y[3], 2, p, "body.up_blocks.3.0.")}
    for s in (2, 1, 0):
        z[s] = block(y[s], 2, p, f"body.up_blocks.{s}.0.") + halve(z[s + 1], p, f"body.halve_up.{s}")
    d = x[4]
    for s in (3, 2, 1, 0):
        places = larger(z[s].T.reshape(-1, *GRID), CONFIG.patches[s])
        read = np.tensordot(p[f"body.rebuild.{s}.conv.weight"][:, :, 0, 0], places, 1)
        read = read + p[f"body.rebuild.{s}.conv.bias"][:, None, None]
        skip = plam(x[s] + relu(batch_norm(read, p, f"body.rebuild.{s}.norm")), p, f"body.up.{s}.attention.")
        d = np.concatenate([skip, larger(d, 2)])
        d = cbr(cbr(d, p, f"body.up.{s}.mix.0"), p, f"body.up.{s}.mix.1")
    return np.tensordot(p["body.head.weight"][:, :, 0, 0], d, 1) + p["body.head.bias"][:, None, None]


# --- the modules beside it -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gate", ["none", "sigmoid"])
def test_pixel_level_attention(gate):
    module, x = randomised(PixelLevelAttention(6, gate=gate)), drawn(2, 6, 3, 5)
    with torch.no_grad():
        found = module(x).numpy()
    for row in range(2):
        np.testing.assert_allclose(found[row], plam(x[row].numpy(), numbers(module), gate=gate), atol=1e-9)


def test_a_transformer_block():
    module, x = randomised(TransformerBlock(12, 3, expansion=2, dropout=0.5)), drawn(2, 7, 12)
    with torch.no_grad():
        found = module(x).numpy()
    for row in range(2):
        np.testing.assert_allclose(found[row], block(x[row].numpy(), 3, numbers(module)), atol=1e-9)


@pytest.fixture(scope="module")
def network():
    return randomised(LViT(CONFIG))


def test_the_way_of_the_text(network):
    text, real = drawn(2, 5, 10), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]) > 0
    with torch.no_grad():
        found = network.body.text(text, real, GRID).numpy()
    for row in range(2):
        np.testing.assert_allclose(
            found[row], spread(text[row].numpy(), real[row].numpy(), numbers(network)), atol=1e-9
        )


def test_the_network(network):
    image, text = drawn(2, 3, 16, 32), drawn(2, 4, 10, seed=2)
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    with torch.no_grad():
        found = network(image, text, mask).logits.numpy()
    p = numbers(network)
    for row in range(2):
        wanted = lvit(image[row].numpy(), text[row].numpy(), mask[row].numpy(), p)
        np.testing.assert_allclose(found[row], wanted, atol=1e-9 * np.abs(wanted).max())


def test_the_network_without_a_report(network):
    image, p = drawn(1, 3, 16, 32), numbers(network)
    with torch.no_grad():
        found = network(image).logits.numpy()
    wanted = lvit(image[0].numpy(), p["no_report"][None], np.ones(1), p)
    np.testing.assert_allclose(found[0], wanted, atol=1e-9 * np.abs(wanted).max())
