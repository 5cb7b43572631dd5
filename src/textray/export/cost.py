"""Cost of a network: its parameters, and the multiplications of one image and one report.

Everything is built on torch's meta device: shapes without numbers, so that a measurement reads no weights and takes a
second. Each figure carries the convention it was counted by, since published tables mix several.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertForMaskedLM

from textray import registry
from textray.inference.bundle import Bundle
from textray.models.base import Network
from textray.models.build import build
from textray.models.released.base import FusionBlock
from textray.nn.bert import SIZES, load_text_encoder
from textray.registry import FormRow

SIZE, TOKENS = (224, 224), 24
"""Of the image and of the report where a network takes any; a bundle has its own."""
_ENCODERS = {"lvit": "bert_uncased"}  # the other papers have CXR-BERT; a bundle names its own
_PROJECTION = 128  # width of CXR-BERT's projection head


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Size of a network and cost of one image.

    Attributes:
        trainable: Parameters, like ``live``, ``total``, ``text_encoder_parameters`` and ``no_report_token``.
        gmacs: 10^9 multiply-accumulates, like the other ``gmacs_*``; ``None`` if the figure does not exist.
        text_encoder: ``None`` for a network that reads no text; ``tokens`` of the report are 0 then.
        size: Height and width of the image, in pixels.
        convention: For each figure, what it is and how it was counted (`_conventions`).
    """

    form: str
    trainable: int
    live: int
    total: int
    gmacs: float
    gmacs_needed: float | None
    gmacs_text: float | None
    gmacs_text_with_mlm_head: float | None
    text_encoder: str | None
    text_encoder_parameters: int
    no_report_token: int
    size: tuple[int, int]
    channels: int
    tokens: int
    convention: dict[str, str]


def cost_of_model(name: str, form: str = "paper") -> Cost:
    """Measure a form of a network of the registry at its default configuration.

    Raises:
        UsageError: If there is no such network or form.
    """
    row = registry.model(name).form(form)
    return _measure(row, {}, row.size or SIZE, row.tokens or TOKENS, _ENCODERS.get(name, "cxr_bert"))


def cost_of_bundle(bundle: Bundle) -> Cost:
    """Measure the network of a bundle at the bundle's own configuration, size, text length and encoder.

    Raises:
        UsageError: If this version has no such network or form.
    """
    row = registry.model(bundle.model).form(bundle.form)
    return _measure(row, bundle.model_config, bundle.preprocess.size, bundle.tokens, bundle.text_encoder)


def _measure(
    row: FormRow, config: Mapping[str, Any], size: tuple[int, int], tokens: int, encoder_name: str | None
) -> Cost:
    with torch.device("meta"):
        network = build(row, config).eval()
        inputs = [torch.empty(1, network.in_channels, *size)]
        if network.text_width is None:
            encoder_name, tokens = None, 0
        else:
            inputs.append(torch.empty(1, tokens, network.text_width))
        encoder = nn.ModuleDict() if encoder_name is None else encoder_skeleton(encoder_name)
        ids = torch.empty(1, tokens, dtype=torch.long)
    parts = dict(encoder.items())
    trunk, masked = parts.get("trunk"), parts.get("masked_lm")
    sizes = {name: p.numel() for name, p in network.named_parameters()}
    trainable = {name for name, p in network.named_parameters() if p.requires_grad and name != "no_report"}
    live = live_names(network, inputs) & trainable
    gmacs, needed = _gmacs(network, *inputs), None
    if _compute_unread(network):
        gmacs, needed = _gmacs(network, *inputs), gmacs
    beside = sum(p.numel() for p in encoder.parameters())
    return Cost(
        form=row.name,
        trainable=sum(sizes[name] for name in trainable),
        live=sum(sizes[name] for name in live),
        total=sum(sizes.values()) + beside,
        gmacs=gmacs,
        gmacs_needed=needed,
        gmacs_text=None if trunk is None else _gmacs(trunk, ids),
        gmacs_text_with_mlm_head=None if masked is None else _gmacs(masked, ids),
        text_encoder=encoder_name,
        text_encoder_parameters=beside,
        no_report_token=sizes.get("no_report", 0),
        size=size,
        channels=network.in_channels,
        tokens=tokens,
        convention=_conventions(
            encoder_name, has_heads=masked is not None, token="no_report" in sizes, unread=needed is not None
        ),
    )


def live_names(network: Network, inputs: list[Tensor]) -> set[str]:
    """Names of the parameters that a step of training reaches: a real backward pass from every output."""
    scores = [score for score in network(*inputs) if isinstance(score, Tensor)]
    torch.autograd.backward([score.sum() for score in scores])
    names = {name for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad(set_to_none=True)
    return names


def _compute_unread(network: Network) -> bool:
    """Make a released form compute the texts that nothing reads, as the authors' code does; true if there are any."""
    blocks = [part for part in network.modules() if isinstance(part, FusionBlock)]

    def hook(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, {**kwargs, "text_out": True}

    for block in blocks:
        block.register_forward_pre_hook(hook, with_kwargs=True)
    return bool(blocks)


def encoder_skeleton(name: str) -> nn.ModuleDict:
    """Build a text encoder of its published size, for counting only; nothing is read from disk or network.

    It has a ``trunk``, which the networks read; for CXR-BERT also ``masked_lm``, the trunk with its language-model
    head, and ``projection``, the other published head.
    """
    if registry.text_encoder(name).hub is None:  # made by a seed, which a device of shapes has not
        with torch.device("cpu"):
            return nn.ModuleDict({"trunk": load_text_encoder(name).trunk.to("meta")})
    config = SIZES[name].config(attn_implementation="sdpa")
    masked = BertForMaskedLM(config)
    if name != "cxr_bert":
        return nn.ModuleDict({"trunk": masked.bert})
    width = config.hidden_size
    projection = nn.Sequential(
        nn.Linear(width, _PROJECTION), nn.LayerNorm(_PROJECTION), nn.Linear(_PROJECTION, _PROJECTION)
    )
    return nn.ModuleDict({"trunk": masked.bert, "masked_lm": masked, "projection": projection})


def _gmacs(module: nn.Module, *inputs: Tensor) -> float:
    """10^9 multiply-accumulates of one call: half of the operations that torch counts."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        module(*inputs)
    return counter.get_total_flops() / 2e9


def _conventions(encoder: str | None, *, has_heads: bool, token: bool, unread: bool) -> dict[str, str]:
    """How each figure of this network was counted, in the order in which they are shown."""
    beside = ", without the learned no-report token" if token else ""
    frozen = "" if encoder is None else "; the text encoder is frozen and not among them"
    heads = "with its language-model and projection heads, as published" if has_heads else "its trunk only"
    how = {
        "trainable": f"parameters that a training changes{beside}{frozen}",
        "live": "trainable parameters that get a gradient in one step, found by a backward pass",
        "total": "all parameters of the network"
        + ("; it has no text encoder" if encoder is None else f" and of the frozen text encoder {encoder} ({heads})"),
        "gmacs": "10^9 multiply-accumulates of one image, batch 1: half of what torch.utils.flop_counter counts "
        "(convolutions, matrix products, attention; not norms, activations, pooling, resizing)"
        + ("" if encoder is None else "; without the text encoder"),
    }
    if unread:
        how["gmacs"] += "; with the texts that the authors' code computes and nothing reads"
        how["gmacs_needed"] = "the same without the texts that nothing reads, which TextRay does not compute"
    if encoder is None:
        return {**how, "gmacs_text": "none: the network reads no text"}
    how["gmacs_text"] = (
        f"the same counter on the trunk of {encoder} for one report, without its language-model head; once for each "
        "distinct report, and not at all where a bundle's text bank is used"
    )
    if has_heads:
        how["gmacs_text_with_mlm_head"] = (
            f"the same with the language-model head of {encoder}, which the authors' code runs and nothing reads"
        )
    return how
