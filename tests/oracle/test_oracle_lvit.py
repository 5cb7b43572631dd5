"""LViT again, in NumPy and slowly, beside the modules: PLAM, a block, the way of the text, the network as a whole."""

import math

import numpy as np
import pytest
from numpy_layers import agree, batch_norm, conv_3x3, gelu, layer_norm, linear, numbers, randomised, sigmoid, softmax

from textray.models.lvit import LViT, LViTConfig
from textray.nn.blocks import PixelLevelAttention
from textray.nn.vision_transformer import TransformerBlock

CONFIG = LViTConfig(
    channels=4, patches=(8, 4, 2, 1), size=(16, 32), text_width=10, tokens=5, heads=2, expansion=2, dropout=0.5
)
GRID = (2, 4)


def drawn(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape)


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
            out[:, i, j] = x[:, i, j] * (sigmoid(weight) if gate == "sigmoid" else weight)
    return out


def block(x, heads, p, name=""):
    width = x.shape[1]
    q, k, v = np.split(linear(layer_norm(x, p, f"{name}attention_norm"), p, f"{name}attention.project_in"), 3, axis=1)
    mixed, d = np.zeros_like(x), width // heads
    for head in range(heads):
        own = slice(head * d, (head + 1) * d)
        for i in range(len(x)):
            mixed[i, own] = softmax([q[i, own] @ k[j, own] / math.sqrt(d) for j in range(len(x))]) @ v[:, own]
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
    module = randomised(PixelLevelAttention(6, gate=gate))
    agree(module, lambda x: plam(x, numbers(module), gate=gate), drawn(2, 6, 3, 5))


def test_a_transformer_block():
    module = randomised(TransformerBlock(12, 3, expansion=2, dropout=0.5))
    agree(module, lambda x: block(x, 3, numbers(module)), drawn(2, 7, 12))


@pytest.fixture(scope="module")
def network():
    return randomised(LViT(CONFIG))


def test_the_way_of_the_text(network):
    text, real = drawn(2, 5, 10), np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]) > 0
    agree(lambda *given: network.body.text(*given, GRID), lambda *row: spread(*row, numbers(network)), text, real)


def test_the_network(network):
    p, mask = numbers(network), np.array([[1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]])

    def reference(image, text, real):
        if not real.any():  # without a report
            text, real = p["no_report"][None], np.ones(1)
        return lvit(image, text, real, p)

    given = drawn(3, 3, 16, 32), drawn(3, 4, 10, seed=2), mask
    wanted = np.abs(reference(*(x[0] for x in given))).max()
    agree(lambda *given: network(*given).logits, reference, *given, atol=1e-9 * wanted)
