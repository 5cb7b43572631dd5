"""What the compared methods have of their own again, in NumPy and slowly."""

import math
from itertools import product

import numpy as np
import torch
from numpy_layers import agree, layer_norm, linear, numbers, randomised, sigmoid, softmax

from textray.models.baselines.clip import CLIPText, CLIPTextConfig
from textray.models.baselines.gloria import WordGate
from textray.models.baselines.lavt import PixelWordAttention
from textray.models.baselines.swin_unet import PatchExpand
from textray.models.baselines.tganet import class_probabilities
from textray.models.baselines.uctransnet import ChannelCrossAttention, GatedUp


def drawn(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape)


def test_patch_expanding():
    module = randomised(PatchExpand(6, 3, factor=2))
    p = numbers(module)

    def expanded(x):
        out = np.zeros((2 * x.shape[0], 2 * x.shape[1], 3))
        for i in range(x.shape[0]):
            for j in range(x.shape[1]):
                parts = (p["expand.weight"] @ x[i, j]).reshape(2, 2, 3)
                for down in range(2):
                    for right in range(2):
                        out[2 * i + down, 2 * j + right] = layer_norm(parts[down, right], p, "norm")
        return out

    agree(module, expanded, drawn(2, 3, 4, 6))


def test_channels_attend_channels():
    """A row of the scores is a channel of one level, a column one of all levels; a mean over heads."""
    channels, heads, places = (2, 3), 2, 4
    module = randomised(ChannelCrossAttention(channels, heads))
    p = numbers(module)
    tokens = [drawn(2, places, c, seed=c) for c in channels]
    together = drawn(2, places, 5, seed=9)
    with torch.no_grad():
        found = module([torch.from_numpy(t) for t in tokens], torch.from_numpy(together))
    for image in range(2):
        key, value = (together[image] @ p[f"{name}.weight"].T for name in ("key", "value"))
        for level, c in enumerate(channels):
            query = tokens[level][image] @ p[f"query.{level}.weight"].T
            total = np.zeros((c, places))
            for head in range(heads):
                q, k, v = query[:, head * c :][:, :c], key[:, head * 5 :][:, :5], value[:, head * 5 :][:, :5]
                scores = q.T @ k / math.sqrt(5)
                scores = (scores - scores.mean()) / np.sqrt(scores.var() + 1e-5)
                total += np.stack([softmax(line) for line in scores]) @ v.T
            wanted = (total / heads).T @ p[f"output.{level}.weight"].T
            np.testing.assert_allclose(found[level][image].numpy(), wanted, atol=1e-9)


def test_channel_gate():
    """sigmoid(L1 mean(O) + L2 mean(D)) weighs the channels of the skip."""
    module = randomised(GatedUp(4, 2))
    p = numbers(module)

    def gated(skip, deeper):
        of_skip = p["of_skip.weight"] @ skip.mean((1, 2)) + p["of_skip.bias"]
        of_deeper = p["of_deeper.weight"] @ deeper.mean((1, 2)) + p["of_deeper.bias"]
        return skip * sigmoid(of_skip + of_deeper)[:, None, None]

    module.forward = module.gate
    agree(module, gated, drawn(2, 4, 3, 5), drawn(2, 4, 3, 5, seed=2))


def test_words_weigh_places():
    """GLoRIA's attention for each word, a mean over the real ones, times the number of places."""
    module = randomised(WordGate(5, 4, width=3, temperature=0.25))
    p = numbers(module)

    def weighed(features, words, mask):
        places = np.tensordot(p["places.weight"][:, :, 0, 0], features, 1)  # (width, h, w)
        total, real = np.zeros(places[0].size), 0
        for word, counts in zip(words, mask, strict=True):
            if not counts:
                continue
            t = p["words.weight"] @ word
            cosines = [t @ v / np.linalg.norm(t) / np.linalg.norm(v) for v in places.reshape(3, -1).T]
            total, real = total + softmax(np.array(cosines) / 0.25), real + 1
        return (total / real * total.size).reshape(1, *features.shape[1:])

    mask = np.array([[True, True, True], [True, False, False]])
    found = agree(module, weighed, drawn(2, 5, 2, 3), drawn(2, 3, 4, seed=2), mask)
    np.testing.assert_allclose(found.mean((1, 2, 3)), 1)


def test_a_report_scales_and_shifts_the_deepest_map():
    config = CLIPTextConfig(size=(32, 32), width=8, depth=4, heads=2, text_width=5, decoder_channels=(4, 4, 6))
    module = randomised(CLIPText(config))
    p = numbers(module)

    def conditioned(features, words, mask):
        mean = words[mask].mean(0) if mask.any() else p["no_report"]
        scale, shift = np.split(p["film.weight"] @ mean + p["film.bias"], 2)
        return features * (1 + scale[:, None, None]) + shift[:, None, None]

    module.forward = module.condition
    mask = np.array([[True, True, False], [False, False, False]])
    agree(module, conditioned, drawn(2, 6, 2, 3), drawn(2, 3, 5, seed=2), mask)


def test_classes_of_zones():
    """Every one of the 64 sets of zones, with its probability."""
    zones = np.random.default_rng(0).uniform(size=(2, 6))
    found = class_probabilities(torch.from_numpy(zones)).numpy()
    for image, chances in enumerate(zones):
        counts, sides = np.zeros(7), np.zeros(3)
        for present in product((0, 1), repeat=6):
            chance = math.prod(c if here else 1 - c for c, here in zip(chances, present, strict=True))
            counts[sum(present)] += chance
            sides[any(present[:3]) + any(present[3:])] += chance
        np.testing.assert_allclose(found[image], [*counts, *sides], atol=1e-12)


def test_places_gather_words():
    """Pixel-word attention; without a word the gathered are 1."""
    module = randomised(PixelWordAttention(6, 4))
    p = numbers(module)

    def normed(x):
        return (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)

    def gathered(places, words, mask):
        q, k, v = normed(linear(places, p, "query")), linear(words, p, "key"), linear(words, p, "value")
        found = np.ones_like(places)
        if mask.any():
            for i in range(len(places)):
                scores = np.array([q[i] @ key / math.sqrt(6) for key in k])
                found[i] = softmax(np.where(mask, scores, -np.inf)) @ v
            found = normed(linear(found, p, "gathered"))
        mixed = np.maximum(linear(places, p, "mix"), 0) * found
        return np.maximum(linear(mixed, p, "output"), 0)

    mask = np.array([[True, True, False], [True, True, True], [False, False, False]])
    agree(module, gathered, drawn(3, 7, 6), drawn(3, 3, 4, seed=2), mask)
