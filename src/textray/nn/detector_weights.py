"""Published RT-DETR tensors, read into transformers' model."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from textray.errors import BundleError

logger = logging.getLogger(__name__)

FILE = "model.safetensors"
LEAST = 0.9
"""Least share of the detector's tensors that must have changed by reading published ones."""
_RENAMED = (  # what transformers 5 has renamed, as published: both sides are brought to the published names
    (re.compile(r"(layers\.\d+)\.mlp\.(fc[12])\."), r"\1.\2."),
    (re.compile(r"\bself_attn\.o_proj\."), "self_attn.out_proj."),
    (re.compile(r"^encoder\.aifi\."), "encoder.encoder."),
)


def published_name(name: str) -> str:
    """Name of a tensor of ``RTDetrModel`` in published files, without their leading ``model.``."""
    name = name.removeprefix("model.")
    for pattern, old in _RENAMED:
        name = pattern.sub(old, name)
    return name


def load_detector(detector: nn.Module, source: str) -> None:
    """Copy the tensors of a published detector; heads that tell boxes and classes at the end are left out.

    Args:
        detector: transformers' ``RTDetrModel``, changed in place.
        source: A ``.safetensors`` file, or a folder with ``model.safetensors``.

    Raises:
        BundleError: If there is no such file, a tensor is missing or of another shape, or too few have changed.
    """
    given = {published_name(name): value for name, value in _read(Path(source)).items()}
    # Some files count the batches that a normalisation has seen, some don't; the number means nothing here.
    own = {k: v for k, v in detector.state_dict().items() if not k.endswith("num_batches_tracked")}
    names = {name: published_name(name) for name in own}
    missing = [theirs for theirs in names.values() if theirs not in given]
    if missing:
        raise BundleError(
            f"tensors of the detector are missing in {source}",
            came=f"{len(given)} tensors",
            expected=", ".join(missing[:5]),
            do="Name a published RT-DETR with the trunk and the sizes of the configuration",
        )
    for name, theirs in names.items():
        if own[name].shape != given[theirs].shape:
            raise BundleError(
                f"tensor {theirs!r} of {source} does not fit the detector",
                came=tuple(given[theirs].shape),
                expected=tuple(own[name].shape),
                do="Set trunk, width, layers, heads, ffn and expansion as the published detector has them",
            )
    changed = [name for name, theirs in names.items() if not torch.equal(own[name], _like(given[theirs], own[name]))]
    if len(changed) < LEAST * len(own):
        raise BundleError(
            f"reading {source} changes too little of the detector",
            came=f"{len(changed)} of {len(own)} tensors",
            expected=f"more than {LEAST:.0%}",
            do="Name the weights of a trained detector, and read them once",
        )
    with torch.no_grad():
        for name, theirs in names.items():
            own[name].copy_(given[theirs])
    logger.info("detector weights of %s: %d of %d tensors changed", source, len(changed), len(own))


def _like(value: Tensor, other: Tensor) -> Tensor:
    return value.to(other.dtype)


def _read(path: Path) -> dict[str, Tensor]:
    """Tensors of a file or of a folder's file."""
    file = path / FILE if path.is_dir() else path
    if not file.is_file() or file.suffix != ".safetensors":
        raise BundleError(
            "no detector weights to read", came=path, expected=f"a .safetensors file, or a folder with {FILE}"
        )
    try:
        return load_file(file)
    except SafetensorError as error:
        raise BundleError("the detector weights cannot be read", came=f"{file}: {error}") from error
