"""Aggregation, the choice of a report, zone tokens, presence, denials and the attention map, in NumPy and slowly."""

import math

import numpy as np
import pytest
import torch
from numpy_layers import sigmoid, softmax

from textray.models.base import Network, Output
from textray.models.self_guided import LERG, Located, Locator, PooledConfig, PooledLocator, SelfGuided
from textray.nn.detector import Aggregator, LERGConfig, splat
from textray.records import Zones

QUERIES, WIDTH, TOKENS, TEXT = 11, 6, 5, 4


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("mode", ["one", "six", "mean"])
def test_aggregation(mode):
    torch.manual_seed(1)
    module = Aggregator(WIDTH, mode).double()
    objects = random(3, QUERIES, WIDTH)
    logits, weights = (found.detach().numpy() for found in module(objects))
    w, b = module.classifier.weight.detach().numpy(), module.classifier.bias.detach().numpy()
    for image in range(3):
        x = objects[image].numpy()
        shares = []
        for zone in range(6):
            if mode == "mean":
                share = np.full(QUERIES, 1 / QUERIES)
            else:
                q = module.query.detach().numpy()[zone if mode == "six" else 0]
                share = softmax([float(row @ q) for row in x])
            feature = sum(share[i] * x[i] for i in range(QUERIES))
            assert logits[image, zone] == pytest.approx(feature @ w[zone] + b[zone], abs=1e-9)
            shares.append(share)
        np.testing.assert_allclose(weights[image], np.mean(shares, 0), atol=1e-9)


def test_shares_are_spread_between_four_cells():
    height, width = 4, 5
    places = torch.rand(2, 30, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 1.6 - 0.3
    shares = random(2, 30, seed=4).abs()
    found = splat(places, shares, (height, width)).numpy()
    wanted = np.zeros((2, 1, height, width))
    for image in range(2):
        for (x, y), share in zip(places[image].tolist(), shares[image].tolist(), strict=True):
            column = min(max(x * width - 0.5, 0), width - 1)
            row = min(max(y * height - 0.5, 0), height - 1)
            for i in (math.floor(row), math.floor(row) + 1):
                for j in (math.floor(column), math.floor(column) + 1):
                    part = (1 - abs(row - i)) * (1 - abs(column - j))
                    if part > 0:
                        wanted[image, 0, i, j] += share * part
    np.testing.assert_allclose(found, wanted, atol=1e-9)
    np.testing.assert_allclose(found.sum((1, 2, 3)), shares.sum(1).numpy(), atol=1e-9)


class Told(Locator):
    """Gives the logits that it is made with."""

    def __init__(self, logits):
        super().__init__(size_multiple=1, width=1)
        self.logits, self.calls = logits, 0

    def forward(self, image):
        self.calls += 1
        return Located(self.logits)


class Reader(Network):
    """Keeps what it is given to read."""

    def __init__(self):
        super().__init__(in_channels=3, size_multiple=1, text_width=TEXT, no_report=False)
        self.read = None

    def forward(self, image, text_features=None, text_mask=None):
        self.read = text_features, text_mask
        return Output(image[:, :1])


def self_guided(logits, **options):
    torch.manual_seed(2)
    network = SelfGuided(Told(logits), Reader(), tokens=TOKENS, **{"zone_tokens": False, **options}).double()
    mask = torch.zeros(64, TOKENS - 1)
    for row in range(64):
        mask[row, : 1 + row % 4] = 1
    network.set_bank(random(64, TOKENS - 1, TEXT, seed=7), mask)
    return network


def test_rows_are_those_of_the_zones_at_their_thresholds():
    logits = random(40, 6, seed=5) * 2
    thresholds = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
    network = self_guided(logits)
    network.set_thresholds(thresholds)
    wanted = [
        Zones.from_present(sigmoid(z) >= float(t) for z, t in zip(row, thresholds, strict=True)).index
        for row in logits.tolist()
    ]
    assert len(set(wanted)) > 5
    assert network.write(logits).tolist() == wanted
    assert network.write(torch.full((1, 6), -20.0)).tolist() == [0]


@pytest.mark.parametrize("zone_tokens", [False, True])
def test_each_image_gets_its_report(zone_tokens):
    """In turn: a given report, a short one, its own, none asked for, and its own of no zone."""
    logits = random(5, 6, seed=6)
    logits[2] = torch.tensor([1.0, -1, -2, 3, -0.5, -4])  # zones 0 and 3
    logits[4] = -3
    network = self_guided(logits, zone_tokens=zone_tokens)
    given, mask = random(5, 3, TEXT, seed=8), torch.tensor([[1.0] * 3, [1, 0, 0], [0] * 3, [-1] * 3, [0] * 3])
    network(torch.zeros(5, 3, 4, 4).double(), given, mask)
    features, read = network.segmenter.read
    more = 6 if zone_tokens else 0
    assert features.shape == (5, TOKENS + more, TEXT)
    row = 1 + 8
    assert read.tolist() == [
        [True] * 3 + [False] * (2 + more),
        [True] + [False] * (4 + more),
        [True] * (1 + row % 4) + [False] * (4 - row % 4) + [True] * more,
        [False] * (5 + more),
        [False] * (5 + more),
    ]
    assert torch.equal(features[0, :3], given[0])
    assert torch.equal(features[1, 0], given[1, 0])
    assert torch.equal(features[2, : 1 + row % 4], network.bank_features[row, : 1 + row % 4])
    for zone in range(more):
        p = sigmoid(float(logits[2, zone]))
        wanted = p * network.zone_present[zone].detach().numpy() + (1 - p) * network.zone_absent[zone].detach().numpy()
        np.testing.assert_allclose(features[2, TOKENS + zone].detach().numpy(), wanted, atol=1e-9)
    assert network.locator.calls == 1
    network(torch.zeros(5, 3, 4, 4).double(), given, mask, located=Located(logits))
    assert network.locator.calls == 1
    assert all(torch.equal(one, other) for one, other in zip(network.segmenter.read, (features, read), strict=True))


def test_without_texts_every_report_is_its_own():
    logits = torch.tensor([[4.0] * 6, [-4.0] * 6]).double()
    network = self_guided(logits)
    network(torch.zeros(2, 3, 4, 4).double())
    features, read = network.segmenter.read
    assert read.sum(1).tolist() == [1 + 63 % 4, 0]
    assert torch.equal(features[0], network.bank_features[63])


def test_the_loss_of_the_mask_does_not_reach_the_locator():
    logits = torch.ones(1, 6, dtype=torch.float64, requires_grad=True)
    network = self_guided(logits, zone_tokens=True)
    network(torch.zeros(1, 3, 4, 4).double())
    network.segmenter.read[0].sum().backward()
    assert logits.grad is None
    assert network.zone_present.grad.any()


def test_presence_is_a_linear_layer_on_means_and_maxima_of_maps():
    """Of every channel the mean and the greatest value over all places; of a detector those of its three maps."""
    torch.manual_seed(4)
    lerg = LERGConfig(trunk="efficientnet_lite0", width=16, queries=30, layers=1, heads=2, ffn=16, size=(64, 32))
    pooled = PooledConfig(trunk="efficientnet_lite0", width=12)
    seen = torch.nn.functional.interpolate(image := random(2, 3, 64, 64, seed=9), (64, 32), mode="bilinear")
    for locator, maps_of in (
        (LERG(lerg), lambda locator: locator.detector.fuse(seen)),
        (PooledLocator(pooled), lambda locator: [locator.widen(locator.trunk(image)[3])]),
    ):
        network = SelfGuided(locator, Reader(), tokens=TOKENS, zone_tokens=False, presence=True).double().eval()
        network.segmenter.size_multiple = 1
        with torch.no_grad():
            found, maps = network(image), [found.numpy() for found in maps_of(locator)]
        weight, bias = network.presence.weight.detach().numpy()[0], network.presence.bias.detach().numpy()[0]
        assert found.presence.shape == (2, 1)
        for row in range(2):
            features = []
            for scale in maps:
                features += [np.mean(scale[row, channel]) for channel in range(scale.shape[1])]
                features += [np.max(scale[row, channel]) for channel in range(scale.shape[1])]
            assert len(features) == locator.width
            wanted = sum(w * x for w, x in zip(weight, features, strict=True)) + bias
            assert found.presence[row, 0].item() == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("zone_tokens", [False, True])
def test_denied_zones_are_six_more_tokens(zone_tokens):
    """Beside a given report, its own, and none, each with other denials; without denials nothing of them is read."""
    logits = torch.full((3, 6), 2.0).double()
    network = self_guided(logits, zone_tokens=zone_tokens, denial=True)
    image, given = torch.zeros(3, 3, 4, 4).double(), random(3, 2, TEXT, seed=8)
    mask = torch.tensor([[1.0, 1], [0, 0], [-1, -1]])
    denied = torch.tensor([[0, 0, 0, 0, 0, 1.0], [1, 0, 0, 1, 0, 0], [1] * 6])
    network(image, given, mask, denied)
    features, read = network.segmenter.read
    before = TOKENS + 6 * zone_tokens
    assert features.shape == (3, before + 6, TEXT)
    assert read[:, before:].tolist() == (denied > 0).tolist()
    assert read[2].sum() == 6, "without a report the denials alone are read"
    for row in range(3):
        np.testing.assert_array_equal(features[row, before:].detach().numpy(), network.zone_denied.detach().numpy())
    plain = self_guided(logits, zone_tokens=zone_tokens)
    state = network.state_dict()
    plain.load_state_dict({name: value for name, value in state.items() if name != "zone_denied"})
    plain(image, given, mask)
    for nothing in (None, torch.zeros(3, 6)):
        network(image, given, mask, nothing)
        features, read = network.segmenter.read
        assert torch.equal(features[:, :before], plain.segmenter.read[0])
        assert torch.equal(read[:, :before], plain.segmenter.read[1])
        assert not read[:, before:].any()
