"""Networks that write their own report, through the exporter and out again."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from textray.errors import BundleError, UsageError
from textray.export import frame
from textray.export import segmenter as module
from textray.inference.bank import Prompt
from textray.inference.runtime import Runtime
from textray.inference.segmenter import Predictor
from textray.io.read import from_array
from textray.models.base import Network, Output
from textray.models.self_guided import Located, Locator, SelfGuided
from textray.preprocess import Preprocess
from textray.training import checkpoints

SIZE, TOKENS, WIDTH = 32, 4, 6


class TinyLocator(Locator):
    """Brightness of six bands, and where it lies."""

    def __init__(self):
        super().__init__(size_multiple=8, width=1)
        self.trunk = nn.Identity()
        self.scale = nn.Parameter(torch.tensor(3.0))

    def load_pretrained(self):
        pass

    def forward(self, image):
        grey = image.mean(1, keepdim=True)  # (B, 1, H, W)
        halves = [
            half.unflatten(2, (3, 10)).mean((1, 3, 4))
            for half in (grey[..., :16][:, :, :30], grey[..., 16:][:, :, :30])
        ]
        coarse = F.avg_pool2d(grey, 8)
        return Located(self.scale * torch.cat(halves, 1), coarse.flatten(1).softmax(1).view_as(coarse))


class TinySegmenter(Network):
    """Brightness plus what the tokens say."""

    def __init__(self):
        super().__init__(in_channels=3, size_multiple=8, text_width=WIDTH)
        self.steer = nn.Linear(WIDTH, 1)

    def forward(self, image, text_features=None, text_mask=None):
        features, mask = self.read_text(image, text_features, text_mask)
        told = (self.steer(features)[..., 0] * mask).sum(1)[:, None, None, None]
        return Output(image.mean(1, keepdim=True) + told)


class TinyGuided(SelfGuided):
    def __init__(self, **options):
        super().__init__(TinyLocator(), TinySegmenter(), tokens=TOKENS, **{"zone_tokens": False} | options)


def bank():
    """Each sentence begins with a token of its own bits; its length differs."""
    bits = (torch.arange(64)[:, None] >> torch.arange(6) & 1).float() + 0.01
    features = bits[:, None] * torch.linspace(1, 0.3, 3)[None, :, None]
    mask = torch.ones(64, 3)
    mask[::2, 2] = 0
    return features, mask


def encoder(name, *_, **__):
    def encode(sentences, attend_padding):
        return bank()

    encode.name = name
    return encode


GRAPHS = {}


@pytest.fixture(autouse=True)
def write_once(monkeypatch):
    """Write the graph of equal networks once, which is most of these tests."""
    write = module.write_graph

    def kept(network, path, *rest):
        state = b"".join(value.numpy().tobytes() for value in network.state_dict().values())
        key = (type(network), network.training, state, repr(rest))
        if key not in GRAPHS:
            write(network, path, *rest)
            GRAPHS[key] = path.read_bytes()
        path.write_bytes(GRAPHS[key])

    monkeypatch.setattr(module, "write_graph", kept)


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """Write a checkpoint of a network; the registry and the encoder are told of it."""
    monkeypatch.setattr(module, "load_text_encoder", encoder)

    def write(network):
        config = {"zone_tokens": network.zone_tokens} if isinstance(network, SelfGuided) else {}
        monkeypatch.setattr(checkpoints, "build", lambda row, config: type(network)(**config))
        state = {f"network.{name}": value.clone() for name, value in network.state_dict().items()}
        facts = {
            "version": "0", "network": "mmi_unet", "form": "paper", "config": config,
            "text_encoder": "minilm", "max_tokens": TOKENS,
            "data": {
                "name": "phantom", "preprocess": Preprocess(size=(SIZE, SIZE)).to_dict(), "images": {},
                "augment": "none", "report_dropout": 0.0, "seed": 0,
            },
            "epoch": 1, "max_epochs": 1, "self_guided": 0.25,
        }  # fmt: skip
        path = tmp_path / "guided.ckpt"
        torch.save({"textray": facts, "state_dict": state}, path)
        return path

    return write


@pytest.fixture
def refuse(checkpoint, tmp_path):
    """Export a network, which must be refused and leave nothing: ``refuse(network, match)``."""

    def run(network, match):
        with pytest.raises(BundleError, match=match):
            module.export(checkpoint(network), tmp_path / "bad")
        assert not (tmp_path / "bad").exists()

    return run


def guided(**options):
    torch.manual_seed(0)
    network = TinyGuided(**options).eval()
    network.set_bank(*bank())
    network.set_thresholds(torch.tensor([0.5, 0.6, 0.3, 0.5, 0.55, 0.45]))
    with torch.no_grad():
        network.segmenter.steer.weight.uniform_(0.2, 0.6)
    return network


@pytest.mark.parametrize("zone_tokens", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_network_that_writes_is_carried_whole(checkpoint, tmp_path, zone_tokens):
    network = guided(zone_tokens=zone_tokens)
    bundle = module.export(checkpoint(network), tmp_path / "guided")
    assert bundle.writes_report
    assert bundle.text_free == "generated"
    assert bundle.provenance["self_guided"] == 0.25
    np.testing.assert_allclose(bundle.zone_thresholds, [0.5, 0.6, 0.3, 0.5, 0.55, 0.45], atol=1e-7)
    assert bundle.tokens == TOKENS  # as many as the network carries
    np.testing.assert_array_equal(bundle.text_bank().features, network.bank_features.half().float())
    np.testing.assert_array_equal(bundle.text_bank().mask, network.bank_mask.float())

    predictor = Predictor(bundle, threads=1)
    pixels = np.zeros((SIZE, SIZE), np.float32)
    pixels[:12, :16] = 1
    image = predictor.preprocess.apply(from_array(pixels))[None]
    given = torch.from_numpy(bundle.text_bank().features), torch.from_numpy(bundle.text_bank().mask)
    for row, text in (
        (None, (torch.zeros(1, TOKENS, WIDTH), torch.zeros(1, TOKENS))),
        (Prompt.NO_REPORT, (torch.zeros(1, TOKENS, WIDTH), -torch.ones(1, TOKENS))),
        (9, (given[0][9:10], given[1][9:10])),
    ):
        found = predictor.infer(image, [row])
        with torch.inference_mode():
            wanted = network(torch.from_numpy(image), *text)
        np.testing.assert_allclose(found.probability[0], wanted.logits.sigmoid()[0, 0].numpy(), atol=2e-3)
        np.testing.assert_allclose(found.zone_probability, wanted.zone_logits.sigmoid().numpy(), atol=2e-3)
        np.testing.assert_allclose(found.attention, wanted.attention[0].numpy(), atol=1e-3)
    assert predictor.segment(pixels).record["own_report"]["zones"]["left upper"]["written"]
    assert str(Path(module.__file__).parent).encode() not in bundle.read("model.onnx"), "no folder of this machine"


def test_threshold_and_runs_without_a_text_can_be_chosen(checkpoint, tmp_path):
    path = checkpoint(guided())
    bundle = module.export(path, tmp_path / "chosen", threshold=0.6, text_free="none", hounsfield=(-1000.0, 400.0))
    assert bundle.preprocess.hounsfield == (-1000, 400)
    assert (bundle.threshold, bundle.text_free, bundle.writes_report) == (0.6, "none", True)
    assert "from a probability of 0.6 on" in (tmp_path / "chosen" / "README.md").read_text()
    config = json.loads((tmp_path / "chosen" / "config.json").read_text())
    assert (config["format"], config["text"]["free"]) == (1, "none")
    plain = module.export(path, tmp_path / "plain")
    assert (plain.threshold, plain.sha256 != bundle.sha256) == (0.5, True)
    assert "from a probability" not in (tmp_path / "plain" / "README.md").read_text()
    with pytest.raises(UsageError, match="threshold is wrong"):
        module.export(path, tmp_path / "none", threshold=1.0)
    assert not (tmp_path / "none").exists()


def test_a_network_that_writes_none_cannot_be_asked_to(checkpoint, tmp_path):
    path = checkpoint(TinySegmenter())
    with pytest.raises(UsageError, match="writes no report"):
        module.export(path, tmp_path / "plain", text_free="generated")
    assert not module.export(path, tmp_path / "plain").writes_report
    config = json.loads((tmp_path / "plain" / "config.json").read_text())
    assert "thresholds" not in config["zones"]
    assert "free" not in config["text"]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("bank_features", lambda values: values[5, 1].add_(0.05)),
        ("bank_mask", lambda values: values[5, 1].zero_()),
        ("bank_mask", lambda values: values.zero_()),
    ],
)
def test_sentences_of_another_encoder_are_refused(refuse, name, change):
    network = guided()
    change(getattr(network, name))
    refuse(network, "not those of its text encoder")


def test_sentences_in_half_precision_are_the_same(checkpoint, tmp_path):
    network = guided()
    network.bank_features.copy_(network.bank_features.half())
    assert module.export(checkpoint(network), tmp_path / "good").writes_report


@pytest.mark.slow
def test_pictures_that_cannot_tell_the_written_zones_prove_nothing(refuse):
    network = guided()
    with torch.no_grad():
        network.locator.scale.zero_()  # every zone has probability 0.5, the threshold of two of them
    refuse(network, "could not be checked")


OTHERS = {
    "zone scores": lambda network: network.locator.scale.mul_(1.2),
    "thresholds": lambda network: network.thresholds.fill_(1.0),
    "sentences": lambda network: network.bank_features.add_(network.bank_mask[..., None] * 0.3),
}


@pytest.mark.slow
@pytest.mark.parametrize("other", OTHERS)
def test_a_graph_that_writes_something_else_does_not_pass(refuse, monkeypatch, other):
    """Each change is seen by a run without a text, or by the zones, only; the masks of given texts stay the same."""
    write, store, kept = module.write_graph, frame.store_weights, {}

    def changed(network, *rest):
        kept.update({name: value.clone() for name, value in network.state_dict().items()})
        with torch.no_grad():
            OTHERS[other](network)
        write(network, *rest)

    def stored(network, folder):
        store(network, folder)
        network.load_state_dict(kept)

    monkeypatch.setattr(module, "write_graph", changed)
    monkeypatch.setattr(frame, "store_weights", stored)
    refuse(guided(), r"disagree|other zones")


@pytest.mark.parametrize("output", ["logits", "zone_logits", "attention"])
def test_a_graph_that_gives_nan_does_not_pass(refuse, monkeypatch, output):
    run, pictures = Runtime.run, []

    def broken(runtime, *given):
        outputs = {name: values.copy() for name, values in run(runtime, *given).items()}
        if not pictures:  # of the first run alone: later ones must not hide it
            outputs[output][0, ..., -1] = np.nan
        pictures.append(given)
        return outputs

    monkeypatch.setattr(Runtime, "run", broken)
    refuse(guided(), "disagree")
