"""The equations of MMI-UNet again, in NumPy and slowly, beside the modules.

Written from section 2 of Bui, Le, Choo (MICCAI 2024) and from the ECA-Net paper; everything in double precision, so
that agreement to 1e-9 leaves no room for another formula.
"""

import math

import numpy as np
import pytest
import torch

from textray.models.mmi_unet import DecoderLevel, ImageTextMatching, MMIUNetConfig
from textray.nn.blocks import EfficientChannelAttention, eca_kernel

WIDTH, TOKENS = 10, 5


def numbers(module):
    """Tensors of a module by name, as NumPy."""
    return {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}


def randomised(module, seed=3):
    """Make every parameter and statistic of a module matter."""
    generator = torch.Generator().manual_seed(seed)
    module.double().eval()
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
                tensor.copy_(noise.abs() + 0.5 if name.endswith("running_var") else 0.4 * noise)
    return module


# --- one image's arithmetic; tokens are rows -------------------------------------------------------------------------


def linear(x, p, name):
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def layer_norm(x, p, name):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]


def attention(query, memory, heads, p, name, allowed=None):
    """Attention(Q, K, V) = softmax(Q K^T / sqrt(d)) V, head by head, place by place."""
    q, k, v = (linear(x, p, f"{name}.{part}") for x, part in ((query, "query"), (memory, "key"), (memory, "value")))
    width = q.shape[1] // heads
    out = np.zeros_like(q)
    for head in range(heads):
        own = slice(head * width, (head + 1) * width)
        for i in range(len(q)):
            scores = np.array([q[i, own] @ k[j, own] / math.sqrt(width) for j in range(len(k))])
            weights = np.exp(scores - scores.max())
            if allowed is not None:
                weights = weights * allowed
            out[i, own] = (weights / weights.sum()) @ v[:, own]
    return linear(out, p, f"{name}.output")


def feed_forward(x, p, name):
    return linear(np.maximum(linear(x, p, f"{name}.expand"), 0), p, f"{name}.reduce")


def conv_2x2(x, kernel):
    """Stride 2, ``(C, 2h, 2w)`` with ``(O, C, 2, 2)`` to ``(O, h, w)``."""
    out = np.zeros((len(kernel), x.shape[1] // 2, x.shape[2] // 2))
    for i in range(out.shape[1]):
        for j in range(out.shape[2]):
            out[:, i, j] = np.tensordot(kernel, x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2], 3)
    return out


def transposed_2x2(x, kernel, bias=0.0):
    """Stride 2, ``(C, h, w)`` with ``(C, O, 2, 2)`` to ``(O, 2h, 2w)``."""
    out = np.zeros((kernel.shape[1], 2 * x.shape[1], 2 * x.shape[2]))
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            out[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2] = np.tensordot(x[:, i, j], kernel, 1)
    return out + np.reshape(bias, (-1, 1, 1))


def conv_3x3(x, kernel, bias):
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    out = np.zeros((len(kernel), *x.shape[1:]))
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            out[:, i, j] = np.tensordot(kernel, padded[:, i : i + 3, j : j + 3], 3) + bias
    return out


def channel_attention(x, kernel):
    """ECA: a sigmoid over each channel's neighbourhood of means, times the channel."""
    means, reach = x.mean((1, 2)), len(kernel) // 2
    out = np.empty_like(x)
    for c in range(len(x)):
        near = [means[c + o] if 0 <= c + o < len(x) else 0.0 for o in range(-reach, reach + 1)]
        out[c] = x[c] / (1 + math.exp(-float(np.dot(kernel, near))))
    return out


def matching(image, text, allowed, p, heads, *, last=False):
    """F^ITM and T^ITM of one image ``(C, h, w)`` and its text ``(L, D)``, equations of section 2.1."""
    height, width = image.shape[1:]
    even = np.pad(image, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
    reduced = conv_2x2(even, p["reduce_image.weight"])
    f_c = layer_norm(reduced.reshape(len(reduced), -1).T, p, "image_norm")
    t = layer_norm(linear(text, p, "reduce_text"), p, "text_norm")
    f_sa = layer_norm(attention(f_c, f_c, heads, p, "image.self_attention") + f_c, p, "image.self_norm")
    t_sa = layer_norm(attention(t, t, heads, p, "text.self_attention", allowed) + t, p, "text.self_norm")
    f_ca = layer_norm(attention(f_sa, t_sa, heads, p, "image.cross_attention", allowed) + f_sa, p, "image.cross_norm")
    f_out = layer_norm(feed_forward(f_ca, p, "image.feed_forward") + f_ca, p, "image.feed_norm")
    f_itm = transposed_2x2(f_out.T.reshape(reduced.shape), p["restore_image.weight"])[:, :height, :width]
    if last:
        return f_itm, None
    t_ca = layer_norm(attention(t_sa, f_sa, heads, p, "text.cross_attention") + t_sa, p, "text.cross_norm")
    t_out = layer_norm(feed_forward(t_ca, p, "text.feed_forward") + t_ca, p, "text.feed_norm")
    return f_itm, linear(t_out, p, "restore_text")


# --- beside the modules ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", [False, True], ids=["with text tail", "last stage"])
@pytest.mark.parametrize("size", [(4, 6), (5, 7), (3, 4)], ids=str)
@pytest.mark.parametrize("channels", [12, 16], ids=["6 heads", "8 heads"])
def test_matching(channels, size, last):
    config = MMIUNetConfig(text_width=WIDTH, ffn_width=7)
    module = randomised(ImageTextMatching(channels, config, last=last))
    rng = np.random.default_rng(0)
    image, text = rng.normal(size=(2, channels, *size)), rng.normal(size=(2, TOKENS, WIDTH))
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]], bool)
    with torch.no_grad():
        found, words = module(torch.from_numpy(image), torch.from_numpy(text), torch.from_numpy(mask))
    for row in range(2):
        heads = {12: 6, 16: 8}[channels]
        f_itm, t_itm = matching(image[row], text[row], mask[row], numbers(module), heads, last=last)
        np.testing.assert_allclose(found[row].numpy(), f_itm, atol=1e-9)
        if last:
            assert words is None
        else:
            np.testing.assert_allclose(words[row].numpy(), t_itm, atol=1e-9)


@pytest.mark.parametrize("channels", [16, 128])
def test_channel_attention(channels):
    module = randomised(EfficientChannelAttention(channels))
    features = np.random.default_rng(1).normal(size=(2, channels, 3, 5))
    with torch.no_grad():
        found = module(torch.from_numpy(features)).numpy()
    weights = numbers(module)["mix.weight"][0, 0]
    np.testing.assert_allclose(found, [channel_attention(x, weights) for x in features], atol=1e-12)


def test_channel_attention_kernel_rule():
    """|(log2 C + 1) / 2| odd: by the paper's own values and at the edges of the rule."""
    assert [eca_kernel(c) for c in (384, 192, 96, 64, 256, 512, 2)] == [5, 5, 3, 3, 5, 5, 1]


def test_decoder_level():
    module = randomised(DecoderLevel(6, 8, 4))
    rng = np.random.default_rng(2)
    deeper, skip = rng.normal(size=(2, 6, 2, 3)), rng.normal(size=(2, 8, 4, 6))
    with torch.no_grad():
        found = module(torch.from_numpy(deeper), torch.from_numpy(skip)).numpy()
    p = numbers(module)
    for row in range(2):
        gated = channel_attention(skip[row], p["attention.mix.weight"][0, 0])
        raised = transposed_2x2(deeper[row], p["upsample.weight"], p["upsample.bias"])
        mixed = conv_3x3(np.concatenate([gated, raised]), p["mix.0.weight"], p["mix.0.bias"])
        per_channel = {k: p[f"mix.1.{k}"][:, None, None] for k in ("running_mean", "running_var", "weight", "bias")}
        normed = (mixed - per_channel["running_mean"]) / np.sqrt(per_channel["running_var"] + 1e-5)
        wanted = np.maximum(normed * per_channel["weight"] + per_channel["bias"], 0)
        np.testing.assert_allclose(found[row], wanted, atol=1e-9)
        assert wanted.max() > 0
