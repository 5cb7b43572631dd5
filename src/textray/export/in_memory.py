"""A network in memory as a `Predictor`, for loops of one's own: `textray.predictor`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch

from textray import registry
from textray.errors import UsageError
from textray.export.parity import parity_pictures
from textray.export.segmenter import check_threshold, write_bundle
from textray.inference.bank import distinct
from textray.inference.bundle import Bundle
from textray.inference.segmenter import Predictor
from textray.models.base import Network
from textray.nn.bert import TextEncoder
from textray.preprocess import Preprocess
from textray.training.checkpoints import round_to_half


@dataclass(frozen=True, kw_only=True)
class HeldBundle(Bundle):
    """A bundle in memory: its folder is gone."""

    contents: Mapping[str, bytes] = field(repr=False)  # of each file by name

    def read(self, name: str) -> bytes:
        """Bytes of one of the files."""
        return self.contents[name]


def hold(
    network: Network,
    *,
    preprocess: Preprocess,
    text_encoder: TextEncoder | None,
    captions: Sequence[str],
    threshold: float,
    threads: int | None,
) -> Predictor:
    """Export a network into a folder that is gone afterwards, and open it, as `textray.predictor` says."""
    check_threshold(threshold)
    name, form = _check(network, preprocess, text_encoder)
    rounded = deepcopy(network)  # a training may go on with the network itself
    round_to_half(rounded)
    facts = {
        "network": name,
        "form": form,
        "config": asdict(cast(Any, network).config),
        "version": version("textray"),
        "data": {"captions": list(distinct(captions))},
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / name
        folder.mkdir()
        bundle = write_bundle(
            folder,
            rounded,
            facts,
            preprocess,
            text_encoder,
            card=f"# {name}\n\nA network in memory, of a loop that TextRay does not know.\n",
            terms="Those of the data that it was trained on, and of the weights that it started from.",
            threshold=threshold,
            pictures=parity_pictures(None, preprocess),
        )
        contents = {file: bundle.read(file) for file in bundle.files}
    return Predictor(HeldBundle(**vars(bundle), contents=contents), threads=threads)


def _check(network: Network, preprocess: Preprocess, text_encoder: TextEncoder | None) -> tuple[str, str]:
    """Refuse what cannot become a predictor; give the registry name and form of the network."""
    kind, found = type(network).__name__, registry.form_of(type(network))
    known = [row.name for row in registry.MODELS.values() if row.task == "segmentation"]
    if found is None or found[0] not in known:
        raise UsageError(
            f"{kind} is no segmentation network of TextRay",
            expected=f"a network of textray.models that is one of {', '.join(known)}",
            do="Give the network itself, not what wraps it; a grounding network is used after textray export",
        )
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.device.type != "cpu" or (tensor.is_floating_point() and tensor.dtype != torch.float32):
            raise UsageError(
                f"{kind} is not on the CPU in single precision",
                came=f"{tensor.dtype} on {tensor.device}",
                do="Give network.cpu().float()",
            )
    if any(module.training for module in network.modules()):
        raise UsageError(f"{kind} is in training mode, where dropout and norms are random", do="Give network.eval()")
    if getattr(text_encoder, "width", None) != network.text_width:
        given = f"{text_encoder.name} of width {text_encoder.width}" if isinstance(text_encoder, TextEncoder) else None
        raise UsageError(
            f"the text encoder is not that of {kind}",
            came=given or repr(text_encoder),
            expected="None: it reads no text" if network.text_width is None else f"one of width {network.text_width}",
            do="Give the one that it was trained with, as textray.nn.bert.load_text_encoder builds it",
        )
    network.check_image(torch.empty(1, preprocess.channels, *preprocess.size))
    return found
