"""What `textray info NAME --cost` tells: against counts by hand, and against what is known of whole networks."""

import json
import math
import re
import struct
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from textray import registry
from textray.export.cost import _gmacs, cost_of_bundle, cost_of_model, encoder_skeleton, live_names
from textray.inference.bundle import Bundle, inside
from textray.models.base import Network, Output
from textray.nn.attention import MultiHeadAttention

PAGE = Path(__file__).resolve().parent.parent / "docs" / "how-to" / "cost.md"
CXR_BERT = 109_629_498
UNCASED = 108_891_648  # trunk of BERT-base
QUICK = {("mmi_unet", "released"), ("lvit", "released"), ("unet", "paper")}


def figures_of_page():
    """Name, form and figures of each network on the page; those that take long are slow."""
    found = re.findall(r"^\| `(\w+)` \| (\w+) \|((?: [\d,.]+ \|){4})", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(found) == 22
    return [
        pytest.param(name, form, figures.strip(" |").split(" | "), id=f"{name}-{form}", marks=marks)
        for name, form, figures in found
        for marks in [() if (name, form) in QUICK else pytest.mark.slow]
    ]


@cache
def measured(name, form):
    return cost_of_model(name, form)


@pytest.mark.parametrize(("name", "form", "figures"), figures_of_page())
def test_figures_of_whole_networks(name, form, figures):
    cost = measured(name, form)
    assert [f"{cost.trainable:,}", f"{cost.live:,}", f"{cost.total:,}", f"{cost.gmacs:.2f}"] == figures
    beside = {None: 0, "cxr_bert": CXR_BERT, "bert_uncased": UNCASED}[cost.text_encoder]
    assert cost.total == cost.trainable + cost.no_report_token + beside
    if name == "lvit":
        assert (cost.text_encoder, cost.gmacs_text_with_mlm_head) == ("bert_uncased", None)
        assert (cost.tokens, round(cost.gmacs_text, 2)) == ((10, 0.85) if form == "released" else (24, 2.05))
    elif cost.text_encoder:
        assert (cost.text_encoder, cost.tokens) == ("cxr_bert", 24)
        assert (round(cost.gmacs_text, 2), round(cost.gmacs_text_with_mlm_head, 2)) == (2.05, 2.63)
    else:
        assert (cost.gmacs_text, cost.gmacs_text_with_mlm_head, cost.tokens) == (None, None, 0)
    assert {"trainable", "live", "total", "gmacs", "gmacs_text"} <= set(cost.convention)
    assert ("gmacs_needed" in cost.convention) == (cost.gmacs_needed is not None)


def test_what_a_released_form_computes_for_nothing():
    cost = measured("mmi_unet", "released")
    # Stage 4's text branch: attentions' projections and products, feed-forward, restored width; 24 and 9 tokens.
    width, text, image = 768, 24, 9
    projections = 6 * text * width**2 + 2 * image * width**2
    products = 2 * width * (text * text + text * image)
    rest = text * (2 * width * 128 + width * width)
    assert cost.gmacs - cost.gmacs_needed == pytest.approx((projections + products + rest) / 1e9, rel=1e-9)


def test_dead_parameters_are_those_that_a_released_form_names():
    with torch.device("meta"):
        network = registry.load(registry.model("guide_decoder").form("released").path)().eval()
        live = live_names(network, [torch.empty(1, 3, 224, 224), torch.empty(1, 24, 768)])
    silent = {name for name, _ in network.named_parameters()} - live
    assert silent == {name for name, _ in network.named_parameters() if name.startswith(network.dead)}
    assert silent


class Half(Network):
    """Two convolutions, of which one is not read."""

    def __init__(self):
        super().__init__(in_channels=3, size_multiple=1, text_width=None)
        self.read, self.unread = nn.Conv2d(3, 1, 3, padding=1), nn.Conv2d(3, 1, 1)

    def forward(self, image, text_features=None, text_mask=None):
        self.unread(image)
        return Output(self.read(image))


def test_a_parameter_that_runs_but_is_not_read_is_not_live():
    network = Half()
    assert live_names(network, [torch.zeros(1, 3, 4, 4)]) == {"read.weight", "read.bias"}
    assert all(p.grad is None for p in network.parameters())


def test_published_size_of_cxr_bert():
    with torch.device("meta"):
        encoder = encoder_skeleton("cxr_bert")
    count = sum(p.numel() for p in encoder.parameters())
    assert count == CXR_BERT
    heads = 768 * 768 + 3 * 768 + 30_522 + 768 * 128 + 128 + 2 * 128 + 128 * 128 + 128  # the decoder is tied
    assert sum(p.numel() for p in encoder["trunk"].parameters()) == count - heads


@pytest.mark.parametrize("name", [row for row in registry.TEXT_ENCODERS if row != "cxr_bert"])
def test_other_encoders_are_trunks_of_their_width(name):
    with torch.device("meta"):
        encoder = encoder_skeleton(name)
    assert list(encoder) == ["trunk"]
    assert encoder["trunk"].config.hidden_size == registry.text_encoder(name).width
    assert {p.device.type for p in encoder.parameters()} == {"meta"}


def test_attention_counts_in_full():
    """Four projections and two products, whatever kernel would run them."""
    with torch.device("meta"):
        x = torch.empty(1, 5, 8)
        ours = _gmacs(MultiHeadAttention(8, 2).eval(), x, x)
        torchs = _gmacs(nn.MultiheadAttention(8, 4, batch_first=True).eval(), x, x, x, None, False)  # without weights
    assert ours * 1e9 == torchs * 1e9 == 4 * 5 * 64 + 2 * 25 * 8


def test_a_bundle_is_measured_as_it_is():
    if "sgseg_lite" not in inside():
        pytest.skip("no weights inside this checkout")
    bundle = Bundle.load("sgseg_lite")
    cost = cost_of_bundle(bundle)
    assert (cost.size, cost.tokens, cost.text_encoder) == (bundle.preprocess.size, bundle.tokens, bundle.text_encoder)
    raw = bundle.read("model.safetensors")
    header = json.loads(raw[8 : 8 + struct.unpack("<Q", raw[:8])[0]])
    # No parameters: statistics, the sentences' table, thresholds, bounds; frozen: the choice of the detector's queries.
    others = r"__metadata__|running_|num_batches|^bank_|^thresholds|^bounds|enc_(output|score_head|bbox_head)"
    kept = {k: v for k, v in header.items() if not re.search(others, k)}
    stored = sum(math.prod(v["shape"]) for v in kept.values())
    assert stored == cost.trainable + cost.no_report_token
    assert cost.live == cost.trainable
    assert cost.gmacs < 1.3
    assert cost.gmacs_text_with_mlm_head is None


def test_info_tells_the_cost_with_its_conventions(cli):
    (row,) = cli("info", "unet", "--cost", "--json").rows
    cost = row["cost"]
    assert cost["trainable"] == cost["live"] == cost["total"] == 14_751_873
    assert cost["gmacs"] == pytest.approx(22.645833728)
    assert cost["gmacs_text"] is None
    assert (cost["size"], cost["tokens"], cost["form"]) == ([224, 224], 0, "paper")
    (row,) = cli("info", "mmi_unet", "--form", "released", "--json").rows
    assert (row["form"]["name"], row["form"]["size"], "cost" in row) == ("released", [224, 224], False)
    text = cli("info", "unet", "--cost").out
    for key, how in cost["convention"].items():
        assert re.search(rf"^  {key} .*{re.escape(how)}$", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("--cost",), "Name a model or weights"),
        (("--form", "released"), "Name a model or weights"),
        (("phantom", "--cost"), "a dataset has no cost"),
        (("minilm", "--cost"), "a text encoder has no cost"),
        (("unet", "--cost", "--form", "released"), "unknown form of unet 'released'"),
        (("unet", "--form", "releasd"), "unknown form of unet 'releasd'"),
        (("minilm", "--form", "paper"), "only a model has forms"),
        (("mmi_unett", "--cost"), "Did you mean 'mmi_unet'"),
    ],
    ids=" ".join,
)
def test_info_refuses_what_has_no_cost(cli, args, told):
    result = cli("info", *args)
    assert result.code == 2
    assert told in result.err


def test_without_torch_the_extra_is_named():
    code = "import sys; sys.modules['torch'] = None; from textray.cli import main; main(sys.argv[1:])"
    for args, exit_code in ((("info", "unet"), 0), (("info", "unet", "--cost"), 2)):
        done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=False)
        assert done.returncode == exit_code, done.stderr
    assert "pip install 'textray[train]'" in done.stderr
