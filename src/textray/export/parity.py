"""Parity gate: the graph of a bundle and its torch network must agree on real pictures."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from textray.data.phantom import draw
from textray.errors import BundleError, TextRayError, UsageError
from textray.inference.bank import Prompt
from textray.inference.bundle import Bundle
from textray.inference.inputs import demo_film
from textray.inference.own_report import written
from textray.inference.runtime import Runtime, sigmoid
from textray.io.read import from_array, read
from textray.models.base import Network
from textray.models.self_guided import SelfGuided
from textray.preprocess import Preprocess
from textray.records import Image

logger = logging.getLogger(__name__)

PARITY = 1e-3
"""Largest difference in probability that ONNX and torch may show on any pixel and zone."""
_ROWS = (4, 36, 63)  # one zone, two, all six
_MOST_SAMPLES = 32
_OTHER_VERSION = "Try another version of torch or onnxruntime; the bundle was not written"


def check_parity(bundle: Bundle, network: Network, pictures: Sequence[Image]) -> None:
    """Compare the bundle's graph with torch, picture by picture, with text and, if it can do without, without.

    Of a network that writes its own report also the zones and the attention; and the zones that NumPy reads from the
    graph's scores must be those of the sentence that the graph wrote.

    Raises:
        BundleError: If a difference in probability, or in attention as a share of its peak, exceeds `PARITY`, the graph
            writes of other zones, or no picture shows whether it does.
    """
    runtime = Runtime(bundle)
    known = len(bundle.captions)
    rows = tuple(sorted({0, known // 2, known - 1})) if known else _ROWS
    prompts: list[int | Prompt] = [] if runtime.bank is None else [*rows]
    prompts += [] if bundle.needs_text else [Prompt.NO_REPORT]
    prompts += [Prompt.OWN_REPORT] if bundle.writes_report else []
    differences, routes = [], 0
    for picture in pictures:
        pixels = bundle.preprocess.apply(picture)[None]
        differences += [_compare(runtime, network, pixels, prompt) for prompt in prompts]
        if isinstance(network, SelfGuided):
            routes += _check_route(runtime, network, pixels)
    if isinstance(network, SelfGuided) and not routes:
        raise BundleError(
            "the reports that the graph writes could not be checked",
            came=f"{len(pictures)} pictures, each with a zone right at its threshold",
            expected="one picture or more whose zones are clear",
            do="Name other pictures with --samples",
        )
    accept(differences, f"in probability over {len(pictures)} pictures")


def accept(differences: Sequence[float], where: str) -> None:
    """Refuse a graph whose differences from torch exceed `PARITY`, or are no numbers."""
    difference = float(np.max(differences))  # unlike Python's max, it keeps NaN
    logger.info("parity: largest difference %.2e %s", difference, where)
    if not difference <= PARITY:
        raise BundleError(
            "ONNX and torch disagree",
            came=f"a difference of {difference:.2e} {where}",
            expected=f"at most {PARITY:.0e}",
            do=_OTHER_VERSION,
        )


def _compare(runtime: Runtime, network: Network, pixels: NDArray[np.float32], prompt: int | Prompt) -> float:
    """The largest difference between graph and network for one picture ``(1, C, h, w)`` and a prompt.

    A network that reads denials is told beside the prompt that one zone has no lesion.
    """
    text: tuple[NDArray[np.float32], ...] = runtime.encode([prompt])
    if network.reads_denial:
        text = (*text, np.eye(1, 6, 1, np.float32))
    outputs = runtime.run(pixels, *text)
    with torch.inference_mode():
        given = () if runtime.bank is None else tuple(map(torch.from_numpy, text))
        wanted = network(torch.from_numpy(pixels), *given)
    pairs = [(sigmoid(outputs["logits"]), sigmoid(wanted.logits.numpy()))]
    if "zone_logits" in outputs:
        pairs.append((sigmoid(outputs["zone_logits"]), sigmoid(wanted.zone_logits.numpy())))
    if "presence" in outputs:
        pairs.append((sigmoid(outputs["presence"]), sigmoid(wanted.presence.numpy())))
    if "lungs" in outputs:
        pairs.append((sigmoid(outputs["lungs"]), sigmoid(wanted.lungs.numpy())))
    if "attention" in outputs:
        peak = float(wanted.attention[0].max())
        pairs.append((outputs["attention"] / np.float32(peak), wanted.attention[0].numpy() / np.float32(peak)))
    if prompt is Prompt.OWN_REPORT and _is_torn(runtime.bundle, outputs["zone_logits"]):
        # Rounding decides which sentence is written, so the masks need not agree; only NaN is refused.
        pairs = [(one, one) for one, _ in pairs]
    return float(np.max([np.abs(one - other).max() for one, other in pairs]))


def _check_route(runtime: Runtime, network: SelfGuided, pixels: NDArray[np.float32]) -> bool:
    """Compare the report that the graph writes with the sentence that NumPy reads from its zones.

    False for a picture that shows nothing, since rounding decides which zones are written.
    """
    free = runtime.run(pixels, *runtime.encode([Prompt.OWN_REPORT]))
    if _is_torn(runtime.bundle, free["zone_logits"]):
        logger.info("a picture is not used for the check of written reports: a zone is right at its threshold")
        return False
    row = written(sigmoid(free["zone_logits"][0]), runtime.bundle.zone_thresholds or ()).index
    wanted = int(network.write(torch.from_numpy(free["zone_logits"]))[0])
    # Its own sentence comes with the probabilities of zones if the network has tokens for them.
    comparable = row == 0 or not network.zone_tokens
    steered = runtime.run(pixels, *runtime.encode([row or Prompt.NO_REPORT]))
    apart = float(np.abs(sigmoid(free["logits"]) - sigmoid(steered["logits"])).max()) if comparable else 0.0
    if row != wanted or not apart <= PARITY:
        raise BundleError(
            "the graph writes of other zones than its scores say",
            came=f"row {row} by its scores and thresholds, {wanted} by torch, masks {apart:.2e} apart",
            expected="the same row, and the same mask as with that row given",
            do=_OTHER_VERSION,
        )
    return True


def _is_torn(bundle: Bundle, zone_logits: NDArray[np.float32]) -> bool:
    """True if a zone is right at its threshold."""
    return bool((np.abs(sigmoid(zone_logits) - np.asarray(bundle.zone_thresholds)) < PARITY).any())


def parity_pictures(samples: str | Path | None, preprocess: Preprocess) -> list[Image]:
    """Pictures for the parity check: at most 32 of a folder, or phantoms and, if pydicom-data is there, its chest film.

    A network that reads colour gets pictures in colour, and of phantoms one for each channel.

    Raises:
        UsageError: If the folder holds none.
    """
    if samples is not None:
        pictures = []
        for path in sorted(p for p in Path(samples).rglob("*") if p.is_file())[: 4 * _MOST_SAMPLES]:
            try:
                pictures.append(preprocess.read(path))
            except TextRayError as error:
                logger.warning("%s: %s is not used for the parity check", error.code, path.name)
            if len(pictures) == _MOST_SAMPLES:
                break
        if not pictures:
            raise UsageError(
                "no pictures for the parity check", came=samples, expected="a folder with PNG, JPEG or DICOM"
            )
        return pictures
    if preprocess.colour:
        channels = ([draw(3 * seed + c, (301, 255))[0] for c in range(3)] for seed in range(3))
        return [preprocess.from_array(np.stack(planes, axis=-1)) for planes in channels]
    pictures = [from_array(draw(seed, (301, 255))[0]) for seed in range(3)]
    film = demo_film()
    return pictures if film is None else [*pictures, read(film)]
