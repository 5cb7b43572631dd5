"""The levels of GuideDecoder again, in NumPy and slowly, beside the modules."""

import math

import numpy as np
import pytest
import torch
from numpy_layers import (
    agree,
    attention,
    batch_norm,
    conv_3x3,
    gelu,
    layer_norm,
    linear,
    numbers,
    randomised,
    transposed_2x2,
)

from textray.nn.attention import raster_sines
from textray.nn.decoder import GuidedDecoder, GuidedUpBlock, GuideLayer, TokenMixer

WIDTH, TOKENS, MIXED = 10, 7, 4


# --- one image's arithmetic; tokens are rows -------------------------------------------------------------------------


def leaky(x):
    return np.where(x > 0, x, 0.01 * x)


def sines(length, width):
    """PE[p, 2i] = sin(p e^(-2i ln(10000) / C)), PE[p, 2i + 1] = cos of the same."""
    out = np.zeros((length, width))
    for p in range(length):
        for c in range(width):
            angle = p * math.exp(-2 * (c // 2) * math.log(10000) / width)
            out[p, c] = math.cos(angle) if c % 2 else math.sin(angle)
    return out


def mixed(text, real, p, name=""):
    """LeakyReLU(W(GELU(M T + b))) with T zero at padding and at slots that the text does not reach."""
    m, b = p[f"{name}mix.weight"], p[f"{name}mix.bias"]
    slots = np.zeros((m.shape[1], text.shape[1]))
    for token in range(len(text)):
        if real[token]:
            slots[token] = text[token]
    return leaky(linear(gelu(m @ slots + b[:, None]), p, f"{name}project"))


def guide(image, text, real, p, heads):
    """Map of one image ``(C, h, w)``, guided; the map itself where no token is real."""
    if not real.any():
        return image
    x = image.reshape(len(image), -1).T  # row by row
    t, places = mixed(text, real, p, "text."), sines(image[0].size, len(image))
    u = layer_norm(x, p, "self_norm")
    x = x + layer_norm(attention(u + places, u + places, u, 1, p, "self_attention"), p, "self_output_norm")
    w = layer_norm(x, p, "cross_norm")
    crossed = attention(w + places, t + sines(*t.shape), t, heads, p, "cross_attention")
    x = x + p["scale"] * layer_norm(crossed, p, "cross_output_norm")
    return x.T.reshape(image.shape)


def up(deeper, skip, p, name=""):
    x = np.concatenate([transposed_2x2(deeper, p[f"{name}upsample.weight"]), skip])
    for conv, norm in ((0, 1), (3, 4)):
        x = leaky(batch_norm(conv_3x3(x, p[f"{name}mix.{conv}.weight"]), p, f"{name}mix.{norm}"))
    return x


# --- beside the modules ----------------------------------------------------------------------------------------------


@pytest.fixture
def texts():
    """Five tokens of seven slots: one text fills all five, one has two tokens, one has none."""
    text = np.random.default_rng(5).normal(size=(3, 5, WIDTH))
    real = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]], bool)
    return text, real


@pytest.mark.parametrize(("length", "width"), [(1, 4), (9, 10), (784, 6), (5, 7)])
def test_sines(length, width):
    found = raster_sines(torch.zeros(2, length, width, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(found, sines(length, width), atol=1e-9)


def test_sines_in_half_precision_are_rounded_last():
    found = raster_sines(torch.zeros(1, 3136, 8, dtype=torch.bfloat16))
    assert found.dtype == torch.bfloat16
    np.testing.assert_allclose(found.float().numpy(), sines(3136, 8), atol=5e-3)


def test_token_mixer(texts):
    module = randomised(TokenMixer(TOKENS, MIXED, text_width=WIDTH, width=8))
    agree(module, lambda text, real: mixed(text, real, numbers(module)), *texts)


@pytest.mark.parametrize(("channels", "heads"), [(12, 4), (9, 3)], ids=["4 heads", "3 heads"])
@pytest.mark.parametrize("size", [(2, 4), (3, 5), (1, 1)], ids=str)
def test_guide_layer(channels, heads, size, texts):
    module = randomised(GuideLayer(channels, tokens=TOKENS, mixed=MIXED, text_width=WIDTH, scale=0.5))
    assert module.cross_attention.heads == heads
    assert module.self_attention.heads == 1
    image = np.random.default_rng(0).normal(size=(3, channels, *size))
    found = agree(module, lambda *row: guide(*row, numbers(module), heads), image, *texts)
    assert np.abs(found[0] - image[0]).max() > 0.1


def test_up_block():
    module = randomised(GuidedUpBlock(6, 8, 4))
    rng = np.random.default_rng(2)
    given = rng.normal(size=(2, 6, 2, 3)), rng.normal(size=(2, 8, 4, 6))
    found = agree(module, lambda deeper, skip: up(deeper, skip, numbers(module)), *given)
    assert found.min() < 0 < found.max()  # both sides of the leaky ReLU


@pytest.mark.parametrize("with_text", [True, False], ids=["text", "text-free"])
def test_decoder(with_text, texts):
    """Guide before up, coarse to fine, each level with its own number of mixed tokens."""
    decoder = GuidedDecoder(
        (4, 6, 8, 12), (4, 8, 6), text_width=WIDTH, tokens=TOKENS, mixed_tokens=(5, 3, 2), scale=1.0
    )
    module = randomised(decoder)
    rng = np.random.default_rng(4)
    maps = [rng.normal(size=(3, c, 16 // 2**s, 8 // 2**s)) for s, c in enumerate((4, 6, 8, 12))]
    text, real = texts
    given = (torch.from_numpy(text), torch.from_numpy(real)) if with_text else None
    with torch.no_grad():
        found = module([torch.from_numpy(m) for m in maps], given).numpy()
    p = numbers(module)
    assert [p[f"guides.{s}.text.mix.bias"].size for s in (2, 1, 0)] == [5, 3, 2]
    for row in range(3):
        x = maps[3][row]
        for s, heads in ((2, 4), (1, 3), (0, 4)):
            own = {k.removeprefix(f"guides.{s}."): v for k, v in p.items() if k.startswith(f"guides.{s}.")}
            x = guide(x, text[row], real[row] & with_text, own, heads)
            x = up(x, maps[s][row], p, f"ups.{s}.")
        np.testing.assert_allclose(found[row], x, atol=1e-9)
