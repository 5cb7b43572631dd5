"""What a training starts from: pretrained trunks, and networks or parts of them that earlier trainings have learnt."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from textray.errors import UsageError
from textray.models.base import Network
from textray.models.self_guided import SelfGuided

logger = logging.getLogger(__name__)

BUNDLED = "model.safetensors"
"""Where a bundle keeps its tensors."""


def begin(network: Network, initial: str | Sequence[str] | None) -> None:
    """Give a network the tensors that its training starts from.

    Args:
        network: Changed in place.
        initial: ``None``: the pretrained tensors of its trunks, where its config names any. A checkpoint, or a bundle's
            folder: that whole network, as far as it has the tensors; no pretrained ones are read. One or more of
            ``PART=CHECKPOINT``, such as ``segmenter=mmi.ckpt``: see `start_part`; only parts that are not named read
            pretrained tensors.

    Raises:
        UsageError: If a checkpoint is missing or does not fit, or whole checkpoints and parts are mixed.
    """
    named = [initial] if isinstance(initial, str) else list(initial or ())
    parts = dict(_part(item) for item in named)
    if None in parts and len(named) > 1:
        raise UsageError(
            "a training starts from one whole checkpoint or from parts",
            came=", ".join(named),
            expected="one checkpoint, or a list of PART=CHECKPOINT with each part once",
        )
    if len(parts) != len(named):
        raise UsageError("a part can start from one checkpoint only", came=", ".join(named))
    if not named:
        network.load_pretrained()
    elif None in parts:
        start_from(network, parts[None])
    else:
        for name, child in network.named_children():
            if name not in parts and hasattr(child, "load_pretrained"):
                cast(Any, child).load_pretrained()
        for part, path in parts.items():
            start_part(network, str(part), path)


def starts_part(part: str, initial: str | Sequence[str] | None) -> bool:
    """True where a start gives a part what an earlier training has learnt: by its name, or with the whole network."""
    named = [initial] if isinstance(initial, str) else list(initial or ())
    return any(_part(item)[0] in (None, part) for item in named)


def started_from(initial: str | Sequence[str] | None) -> list[Path]:
    """Checkpoints that a start names, whole or for parts."""
    return [_part(item)[1] for item in ([initial] if isinstance(initial, str) else list(initial or ()))]


def _part(item: str) -> tuple[str | None, Path]:
    """Part and checkpoint of ``PART=CHECKPOINT``; a path alone, even one with a ``=`` in it, has no part."""
    part, equals, path = item.partition("=")
    if not equals or not part.replace(".", "_").isidentifier():
        return None, Path(item)
    return part, Path(path)


def start_from(network: Network, path: Path) -> None:
    """Copy the tensors of an earlier training's network.

    Args:
        network: Changed in place; what the checkpoint lacks keeps its random start.
        path: Checkpoint of `textray train`.

    Raises:
        UsageError: If there is no such file, or it holds tensors that the network lacks or shapes otherwise.
    """
    missing = _copy(network, read_network(path), path)
    logger.info("starting from %s; at random: %s", path, ", ".join(missing) or "nothing")


def start_part(network: Network, part: str, path: Path) -> None:
    """Copy a part of a network from an earlier training, of the same network or of one that was that part.

    The checkpoint's tensors under the part's own name are taken; where it has none, those under the last words of the
    name; where it has none of these either, all of them. So ``segmenter=CKPT`` takes the segmenter of a self-guided
    network as well as the whole of an MMI-UNet, and ``segmenter.trunk=CKPT`` the trunk of a pre-training. A zone head
    that the part lacks is left out: it is there for a loss of its own, and no mask depends on it. The locator of a
    self-guided network brings the thresholds that its zones were chosen with, where the checkpoint has them.

    Args:
        network: Changed in place.
        part: Name of the part, dots between parts of parts.
        path: Checkpoint of `textray train`.

    Raises:
        UsageError: If the network has no such part, or the checkpoint does not hold it exactly.
    """
    module = find_part(network, part)
    tensors = read_network(path)
    thresholds = tensors.get("thresholds")
    words = part.split(".")
    for start in range(len(words)):
        prefix = ".".join(words[start:]) + "."
        inside = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        if inside:
            tensors = inside
            break
    own = module.state_dict()
    tensors = {name: value for name, value in tensors.items() if name in own or not name.startswith("zone_head.")}
    missing = _copy(module, tensors, path)
    if missing:
        raise UsageError(
            f"{path.name} does not hold the whole {part}",
            came=f"nothing for {', '.join(missing[:5])}",
            expected="every tensor of it",
        )
    if isinstance(network, SelfGuided) and module is network.locator and thresholds is not None:
        network.set_thresholds(thresholds)
    logger.info("%s starts from %s", part, path)


def find_part(network: nn.Module, part: str) -> nn.Module:
    """Return a network's part by name.

    Raises:
        UsageError: If it has none of that name; lists those it has.
    """
    try:
        return network.get_submodule(part)
    except AttributeError as error:
        raise UsageError(
            f"{type(network).__name__} has no part {part!r}",
            expected=", ".join(name for name, _ in network.named_children()),
        ) from error


def read_network(path: Path) -> dict[str, Tensor]:
    """Tensors of the network in a checkpoint of `textray train` or in a bundle's folder, by its own names.

    A bundle's are in half precision, and may be the mean of several checkpoints.

    Raises:
        UsageError: If there is no such file, or it holds no network.
    """
    if (path / BUNDLED).is_file():
        return {name: value.float() if value.is_floating_point() else value for name, value in _bundled(path).items()}
    if not path.is_file():
        raise UsageError(
            "no checkpoint to start from", came=path, do="Run the training before it, or set model.initial"
        )
    prefix = "network."
    state = torch.load(path, map_location="cpu", weights_only=True).get("state_dict", {})
    found = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    if not found:
        raise UsageError(f"{path.name} holds no network", expected="a checkpoint of textray train")
    return found


def facts_of(path: Path) -> dict[str, Any]:
    """What a checkpoint tells of itself beside its tensors; nothing for a bundle's folder or for no file."""
    if not path.is_file():
        return {}
    return dict(torch.load(path, map_location="cpu", weights_only=True, mmap=True).get("textray", {}))


def _bundled(folder: Path) -> dict[str, Tensor]:
    try:
        return load_file(folder / BUNDLED)
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{folder.name} is not a readable bundle", came=type(error).__name__) from error


def _copy(module: nn.Module, given: dict[str, Tensor], path: Path) -> list[str]:
    """Copy tensors by name; return the names that were not given.

    Raises:
        UsageError: If the module lacks one of the tensors, or has it in another shape.
    """
    own = module.state_dict()
    wrong = sorted(name for name in given if name not in own or own[name].shape != given[name].shape)
    if wrong:
        raise UsageError(f"{path.name} is of another network", came=", ".join(wrong[:5]), expected="its own tensors")
    missing, _ = module.load_state_dict(given, strict=False)
    return sorted(missing)
