"""Layers in NumPy, slowly and one image at a time, for the oracles: maps are ``(C, h, w)``, tokens are rows.

Everything in double precision, so that agreement to 1e-9 leaves no room for another formula. ``p`` are the tensors of a
module by name.
"""

import math

import numpy as np
import torch


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


def agree(module, reference, *given, atol=1e-9):
    """Assert that a module makes of each row of its inputs what a reference does; gives what the module made."""
    with torch.no_grad():
        found = module(*(torch.from_numpy(x) for x in given)).numpy()
    for row, one in enumerate(found):
        np.testing.assert_allclose(one, reference(*(x[row] for x in given)), atol=atol)
    return found


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    powers = np.exp(x - np.max(x))
    return powers / powers.sum()


def linear(x, p, name):
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def layer_norm(x, p, name):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]


def batch_norm(x, p, name):
    """Statistics as kept; the first axis is that of channels."""
    shape = (-1, *[1] * (x.ndim - 1))
    mean, var, weight, bias = (
        p[f"{name}.{key}"].reshape(shape) for key in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / np.sqrt(var + 1e-5) * weight + bias


def gelu(x):
    return np.array([v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x.ravel()]).reshape(x.shape)


def attention(query, key, value, heads, p, name, allowed=None):
    """Attention(Q, K, V) = softmax(Q K^T / sqrt(d)) V, head by head, place by place."""
    q, k, v = (linear(x, p, f"{name}.{part}") for x, part in ((query, "query"), (key, "key"), (value, "value")))
    width = q.shape[1] // heads
    out = np.zeros_like(q)
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        for i in range(len(q)):
            scores = np.array([q[i, part] @ k[j, part] / math.sqrt(width) for j in range(len(k))])
            out[i, part] = softmax(scores if allowed is None else np.where(allowed, scores, -np.inf)) @ v[:, part]
    return linear(out, p, f"{name}.output")


def transposed_2x2(x, kernel, bias=0.0):
    """Stride 2, ``(C, h, w)`` with ``(C, O, 2, 2)`` to ``(O, 2h, 2w)``."""
    out = np.zeros((kernel.shape[1], 2 * x.shape[1], 2 * x.shape[2]))
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            out[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2] = np.tensordot(x[:, i, j], kernel, 1)
    return out + np.reshape(bias, (-1, 1, 1))


def conv_3x3(x, kernel, bias=0.0):
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    out = np.zeros((len(kernel), *x.shape[1:]))
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            out[:, i, j] = np.tensordot(kernel, padded[:, i : i + 3, j : j + 3], 3)
    return out + np.reshape(bias, (-1, 1, 1))
