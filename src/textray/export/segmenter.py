"""From a training's checkpoint to a bundle: `textray export`.

The weights are rounded to half precision first and then written once, as safetensors that torch and the ONNX graph
share. Before the bundle takes its place its graph must agree with torch on real pictures, through the same
`textray.inference` code that a user runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from textray import registry
from textray.errors import BundleError, UsageError
from textray.evaluate.page import summary_page
from textray.export.card import segmenter_card
from textray.export.frame import about, bundle_folder, check_out, write_common
from textray.export.onnx import write_onnx
from textray.export.parity import check_parity, parity_pictures
from textray.inference import bank as known_captions
from textray.inference.bank import BANK
from textray.inference.bundle import Bundle, seal
from textray.inference.film import Bounds
from textray.inference.own_report import TextFree
from textray.inference.runtime import DENIED
from textray.models.base import Network, Output
from textray.models.self_guided import SelfGuided
from textray.nn.bert import TextEncoder, load_text_encoder
from textray.preprocess import Preprocess
from textray.records import ZONE_NAMES, Image
from textray.text.zones import bank_sentences
from textray.training.checkpoints import read_checkpoint

_SAME_BANK = 2e-3  # largest difference, as a share of the larger value: two steps of half precision
_PROVENANCE = (
    "data", "max_tokens", "epoch", "max_epochs", "recipe", "git", "self_guided", "semi_supervised", "averaged",
    "started", "start",
)  # fmt: skip


def export(
    checkpoint: str | Path,
    out: str | Path,
    *,
    samples: str | Path | None = None,
    scores: Sequence[str | Path] = (),
    text_encoder_folder: str | Path | None = None,
    text_free: TextFree | None = None,
    average: Sequence[str | Path] = (),
    threshold: float = 0.5,
    hounsfield: tuple[float, float] | None = None,
) -> Bundle:
    """Write a bundle from a checkpoint.

    Args:
        checkpoint: A ``.ckpt`` file that `textray train` wrote.
        out: Folder of the bundle; its name is the bundle's. An older bundle there is replaced at the end.
        samples: Folder of pictures for the parity check, see `textray.export.parity.parity_pictures`.
        scores: ``summary.json`` files of `textray evaluate`, for the model card.
        text_encoder_folder: Folder of the frozen text encoder, see `textray.nn.bert.load_text_encoder`.
        text_free: What a run without a text does with a network that can write its own report; ``None`` is
            ``generated``.
        average: Further checkpoints of the same network; the bundle holds the mean of all weights.
        threshold: Probability from which a pixel is lesion, in (0, 1).
        hounsfield: The window in HU that the pictures of the training showed, for a network that knows CT.

    Raises:
        UsageError: If the threshold or the window is wrong, a checkpoint is not TextRay's or of another network than
            the first, a file is missing, or a report is expected of a network that writes none.
        OutputError: If ``out`` holds something that is no bundle.
        BundleError: If ONNX and torch disagree, or the sentences that a network was trained with are not those of its
            text encoder; nothing is written then.
    """
    check_threshold(threshold)
    out = Path(out)
    check_out(out)
    facts, network = read_checkpoint(checkpoint, *average)
    if registry.model(facts["network"]).task != "segmentation":
        raise UsageError(
            f"{facts['network']} does not segment",
            expected="a segmentation network",
            do="Use textray.export.grounder.export_grounding, as textray export does",
        )
    writes = isinstance(network, SelfGuided)
    if text_free == "generated" and not writes:
        raise UsageError(
            f"{facts['network']} writes no report", expected="a network that writes one, or text_free none"
        )
    captions = known_captions.distinct(facts["data"].get("captions", ()))
    if captions and writes:
        raise UsageError(
            f"{facts['network']} writes reports of zones, and captions of {facts['data']['name']} name none",
            expected="a network that writes no report",
        )
    if captions:  # bank, card and provenance hold the same ones
        facts = {**facts, "data": {**facts["data"], "captions": list(captions)}}
    summaries = [_summary(path) for path in scores]
    preprocess = replace(Preprocess.from_dict(facts["data"]["preprocess"]), hounsfield=hounsfield)
    pictures = parity_pictures(samples, preprocess)
    terms = terms_of(facts)
    parameters = sum(p.numel() for p in network.parameters())
    card = segmenter_card(out.name, facts, parameters=parameters, threshold=threshold, terms=terms, summaries=summaries)
    with bundle_folder(out) as folder:
        encoder = None
        if facts["text_encoder"] is not None:
            encoder = load_text_encoder(
                facts["text_encoder"], folder=text_encoder_folder, max_tokens=facts["max_tokens"]
            )
        write_bundle(
            folder, network, facts, preprocess, encoder, card=card, terms=terms, threshold=threshold,
            text_free=text_free, pictures=pictures,
        )  # fmt: skip
    return Bundle.load(out)


def terms_of(facts: Mapping[str, Any]) -> str:
    """What weights may be used for: the terms of their data, and of the weights that their training started from."""
    terms = [registry.dataset(facts["data"][key]).terms for key in ("name", "beside") if facts["data"].get(key)]
    for start in facts.get("start", ()):
        if start["terms"] and start["terms"] not in " ".join(terms):
            terms.append(start["terms"])
    return " ".join(terms)


def write_bundle(
    folder: Path,
    network: Network,
    facts: Mapping[str, Any],
    preprocess: Preprocess,
    encoder: TextEncoder | None,
    *,
    card: str,
    terms: str,
    threshold: float,
    text_free: TextFree | None = None,
    pictures: Sequence[Image],
) -> Bundle:
    """Write a bundle into an empty folder of its name; else as `export`.

    ``facts`` are those of a checkpoint, ``encoder`` the text encoder that they name, and ``pictures`` those of the
    parity check. The network is in evaluation mode and rounded to half precision.
    """
    bank = None if encoder is None else write_bank(folder, facts, encoder, network)
    write_graph(network, folder / "model.onnx", preprocess, None if bank is None else bank[0].shape[1:])
    write_common(folder, network, preprocess, card=card, terms=terms)
    bundle = seal(
        folder,
        **about(folder, facts, *_PROVENANCE, terms=terms),
        threshold=threshold,
        text_encoder=None if encoder is None else encoder.name,
        zone_thresholds=network.thresholds.tolist() if isinstance(network, SelfGuided) else None,
        text_free=text_free if isinstance(network, SelfGuided) else None,
        captions=() if encoder is None else facts["data"].get("captions", ()),
        bounds=bounds_of(network),
    )
    check_parity(bundle, network, pictures)
    return bundle


def check_threshold(threshold: float) -> None:
    """Refuse a probability from which nothing or everything is lesion."""
    if not 0 < threshold < 1:
        raise UsageError("threshold is wrong", came=threshold, expected="a number in (0, 1)")


def bounds_of(network: Network) -> Bounds | None:
    """Bounds at which a network judges films, as its training chose them; ``None`` if it tells no presence."""
    if not network.tells_presence or not isinstance(network, SelfGuided):
        return None
    threshold, clear_above, free_below, ill_above = network.bounds.tolist()
    return Bounds(threshold=threshold, clear_above=clear_above, zone_free_below=free_below, zone_ill_above=ill_above)


def _summary(path: str | Path) -> dict[str, Any]:
    """Scores of an evaluation, as ``--scores`` names them."""
    try:
        summary = json.loads(Path(path).read_text(encoding="utf-8"))
        summary_page(summary)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            "scores cannot be read",
            came=f"{path}: {type(error).__name__}",
            expected="summary.json of textray evaluate",
        ) from error
    return dict(summary)


def write_graph(network: Network, path: Path, preprocess: Preprocess, text: Sequence[int] | None) -> None:
    """Write a network in evaluation mode as an ONNX graph with a free batch size.

    Its outputs are those of `textray.models.base.Network.outputs` that the network has. ``text`` is tokens L and width
    D of the text features, ``None`` for a network that reads none.
    """
    image = torch.zeros(2, preprocess.channels, *preprocess.size)
    inputs: tuple[Tensor, ...] = (image,)
    names = ["image"]
    if text is not None:
        inputs = (image, torch.zeros(2, *text), torch.ones(2, text[0]))
        names += ["text_features", "text_mask"]
    if network.reads_denial:
        inputs, names = (*inputs, torch.zeros(2, len(ZONE_NAMES))), [*names, DENIED]
    carried = _Carried(network)
    with torch.inference_mode():
        carried(*inputs)  # sets the names of the outputs
    batch = torch.export.Dim("B", min=1, max=4096)
    write_onnx(carried, inputs, path, inputs=names, outputs=carried.names, dynamic=tuple({0: batch} for _ in inputs))


class _Carried(nn.Module):
    """The part of a network's output that a graph carries; ``names`` are known once it has run."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.names: tuple[str, ...] = ("logits",)

    def forward(
        self,
        image: Tensor,
        text_features: Tensor | None = None,
        text_mask: Tensor | None = None,
        denied: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, ...]:
        more = () if denied is None else (denied,)
        output: Output = self.network(image, text_features, text_mask, *more)
        named = {name: value for name in self.network.outputs if (value := getattr(output, name)) is not None}
        self.names = tuple(named)
        found = tuple(value[0] if isinstance(value, tuple) else value for value in named.values())  # one map of several
        return found if len(found) > 1 else found[0]


def write_bank(
    folder: Path, facts: Mapping[str, Any], encoder: TextEncoder, network: Network | None = None
) -> tuple[Tensor, Tensor]:
    """Write the text bank, features of the 64 zone sentences or of free captions, as `save_bank` returns it."""
    form = registry.model(facts["network"]).form(facts["form"])
    features, mask = encoder(facts.get("data", {}).get("captions") or bank_sentences(), attend_padding=form.needs_text)
    longest = int(mask.sum(1).max())  # columns that are padding in every row carry nothing, unless they are attended
    features, mask = features[:, :longest].half(), mask[:, :longest]
    if isinstance(network, SelfGuided):
        features, mask = _carried_bank(network, features, mask)
    return save_bank(folder, features, mask)


def save_bank(folder: Path, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Write features ``(K, L, D)`` and mask ``(K, L)`` in half precision, and return what the runtime reads of them."""
    features = features.half().contiguous()
    save_file({"features": features, "mask": mask.to(torch.uint8).contiguous()}, str(folder / BANK))
    return features.float(), mask.float()


def _carried_bank(network: SelfGuided, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The sentences ``(64, L, D)`` that a network carries, which must be those ``(64, l, D)`` of the encoder."""
    carried, real = network.bank_features.detach().half(), network.bank_mask
    length = features.shape[1]
    same = length <= carried.shape[1] and features.shape[2] == carried.shape[2]
    same = same and torch.equal(real[:, :length], mask > 0) and not bool(real[:, length:].any())
    if same:
        wanted = features.float()[mask > 0]
        same = bool(((wanted - carried.float()[real]).abs() <= _SAME_BANK * wanted.abs().clamp(min=1)).all())
    if not same:
        raise BundleError(
            "the sentences that the network carries are not those of its text encoder",
            came=f"{tuple(carried.shape)} with {int(real.sum())} tokens",
            expected=f"{int((mask > 0).sum())} tokens within {_SAME_BANK} of the encoder's",
            do="Name the encoder it was trained with, or train it again. In a loop of your own, fill its bank before: "
            "network.set_bank(*encoder(bank_sentences()))",
        )
    return carried, real
