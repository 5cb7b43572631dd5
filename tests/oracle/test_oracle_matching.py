"""The equations of MMI-UNet again, in NumPy and slowly, beside the modules.

Written from section 2 of Bui, Le, Choo (MICCAI 2024) and from the ECA-Net paper.
"""

import numpy as np
import pytest
import torch
from numpy_layers import agree, attention, batch_norm, conv_3x3, layer_norm, linear, numbers, randomised, transposed_2x2

from textray.models.mmi_unet import DecoderLevel, ImageTextMatching, MMIUNetConfig
from textray.nn.blocks import EfficientChannelAttention, PyramidHead

WIDTH, TOKENS = 10, 5


# --- one image's arithmetic; tokens are rows -------------------------------------------------------------------------


def feed_forward(x, p, name):
    return linear(np.maximum(linear(x, p, f"{name}.expand"), 0), p, f"{name}.reduce")


def conv_2x2(x, kernel):
    """Stride 2, ``(C, 2h, 2w)`` with ``(O, C, 2, 2)`` to ``(O, h, w)``."""
    out = np.zeros((len(kernel), x.shape[1] // 2, x.shape[2] // 2))
    for i in range(out.shape[1]):
        for j in range(out.shape[2]):
            out[:, i, j] = np.tensordot(kernel, x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2], 3)
    return out


def channel_attention(x, kernel):
    """ECA: a sigmoid over each channel's neighbourhood of means, times the channel."""
    means, reach = x.mean((1, 2)), len(kernel) // 2
    out = np.empty_like(x)
    for c in range(len(x)):
        near = [means[c + o] if 0 <= c + o < len(x) else 0.0 for o in range(-reach, reach + 1)]
        out[c] = x[c] / (1 + np.exp(-np.dot(kernel, near)))
    return out


def matching(image, text, allowed, p, heads, *, last=False):
    """F^ITM and T^ITM of one image ``(C, h, w)`` and its text ``(L, D)``, equations of section 2.1."""
    height, width = image.shape[1:]
    even = np.pad(image, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
    reduced = conv_2x2(even, p["reduce_image.weight"])
    f_c = layer_norm(reduced.reshape(len(reduced), -1).T, p, "image_norm")
    t = layer_norm(linear(text, p, "reduce_text"), p, "text_norm")
    f_sa = layer_norm(attention(f_c, f_c, f_c, heads, p, "image.self_attention") + f_c, p, "image.self_norm")
    t_sa = layer_norm(attention(t, t, t, heads, p, "text.self_attention", allowed) + t, p, "text.self_norm")
    crossed = attention(f_sa, t_sa, t_sa, heads, p, "image.cross_attention", allowed)
    f_ca = layer_norm(crossed + f_sa, p, "image.cross_norm")
    f_out = layer_norm(feed_forward(f_ca, p, "image.feed_forward") + f_ca, p, "image.feed_norm")
    f_itm = transposed_2x2(f_out.T.reshape(reduced.shape), p["restore_image.weight"])[:, :height, :width]
    if last:
        return f_itm, None
    t_ca = layer_norm(attention(t_sa, f_sa, f_sa, heads, p, "text.cross_attention") + t_sa, p, "text.cross_norm")
    t_out = layer_norm(feed_forward(t_ca, p, "text.feed_forward") + t_ca, p, "text.feed_norm")
    return f_itm, linear(t_out, p, "restore_text")


# --- beside the modules ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", [False, True], ids=["with text tail", "last stage"])
@pytest.mark.parametrize("size", [(4, 6), (5, 7), (1, 1)], ids=str)
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
    weights = numbers(module)["mix.weight"][0, 0]
    features = np.random.default_rng(1).normal(size=(2, channels, 3, 5))
    agree(module, lambda x: channel_attention(x, weights), features, atol=1e-12)


def test_channel_attention_kernel_rule():
    """|(log2 C + 1) / 2| odd: by the paper's own values and at the edges of the rule."""
    found = [EfficientChannelAttention(c).mix.kernel_size[0] for c in (384, 192, 96, 64, 256, 512, 2)]
    assert found == [5, 5, 3, 3, 5, 5, 1]


def test_decoder_level():
    module = randomised(DecoderLevel(6, 8, 4))
    rng, p = np.random.default_rng(2), numbers(module)

    def level(deeper, skip):
        gated = channel_attention(skip, p["attention.mix.weight"][0, 0])
        raised = transposed_2x2(deeper, p["upsample.weight"], p["upsample.bias"])
        mixed = conv_3x3(np.concatenate([gated, raised]), p["mix.0.weight"], p["mix.0.bias"])
        return np.maximum(batch_norm(mixed, p, "mix.1"), 0)

    found = agree(module, level, rng.normal(size=(2, 6, 2, 3)), rng.normal(size=(2, 8, 4, 6)))
    assert found.max() > 0


def doubled(x):
    """``(C, h, w)`` to twice the height and width, linear between the centres of the pixels."""
    for axis in (1, 2):
        x = np.moveaxis(x, axis, 0)
        last = len(x) - 1
        ways = [(i, i + side) for i in range(last + 1) for side in (-1, 1)]
        x = np.stack([0.75 * x[near] + 0.25 * x[min(max(far, 0), last)] for near, far in ways])
        x = np.moveaxis(x, 0, axis)
    return x


def test_pyramid_head():
    module = randomised(PyramidHead([3, 5, 4], 2, width=6))
    rng, p = np.random.default_rng(3), numbers(module)
    maps = [rng.normal(size=(2, channels, 8 >> s, 12 >> s)) for s, channels in enumerate((3, 5, 4))]

    def conv_1x1(x, name):
        return np.tensordot(p[f"{name}.weight"][:, :, 0, 0], x, 1) + p[f"{name}.bias"][:, None, None]

    with torch.no_grad():
        found = module([torch.from_numpy(features) for features in maps]).numpy()
    for image in range(2):
        mixed = None
        for s in (2, 1, 0):
            here = conv_1x1(maps[s][image], f"lateral.{s}") + (0 if mixed is None else doubled(mixed))
            mixed = np.maximum(conv_3x3(here, p[f"mix.{s}.weight"], p[f"mix.{s}.bias"]), 0)
        np.testing.assert_allclose(found[image], conv_1x1(mixed, "read"), atol=1e-9)
