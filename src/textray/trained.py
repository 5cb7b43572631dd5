"""What a training left: the network of a checkpoint, or the mean of several, and the facts about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from textray import registry
from textray.building import build
from textray.data.exclusion import RECORDED_AS
from textray.errors import UsageError
from textray.models.base import Network

_PREFIX = "network."  # of the network's tensors among those of the task
_SAME = ("network", "form", "config", "text_encoder", "max_tokens", "vocabulary", "aggregation", "most_pieces")
_SAME_DATA = ("name", "preprocess", "captions", "sentences", RECORDED_AS)


def read_checkpoint(path: str | Path, *others: str | Path) -> tuple[dict[str, Any], Network]:
    """Read a checkpoint of `textray train`: its facts, and its network in evaluation mode, rounded to half precision.

    Only tensors and plain values are read; a file with anything else in it is refused.

    Args:
        path: The checkpoint.
        others: Further ones of the same network, in stages of one training: the network then has the mean of their
            weights and of the statistics of their norms (Izmailov et al., UAI 2018, who average along one training),
            and the facts are the first one's, with ``averaged``, what there is to know of the others.

    Raises:
        UsageError: If one is missing, cut off, not a checkpoint of TextRay, of a network that segments nothing yet, or
            does not go with the first.
    """
    facts, tensors = _read(path)
    for other in others:
        their_facts, theirs = _read(other)
        _refuse_other(Path(other), facts, their_facts)
        tensors = {key: value + theirs[key] if value.is_floating_point() else value for key, value in tensors.items()}
        kept = ("epoch", "max_epochs", "recipe", "git")
        facts.setdefault("averaged", []).append({key: their_facts[key] for key in kept})
    count = 1 + len(others)
    network = build(registry.model(facts["network"]).form(facts["form"]), facts["config"])
    network.load_state_dict({k: v / count if v.is_floating_point() else v for k, v in tensors.items()})
    round_to_half(network)
    return facts, network.eval()


def task_of(path: str | Path) -> str:
    """What the network of a checkpoint does; ``segmentation`` where the file does not say, or is none."""
    try:
        facts = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["textray"]
        return str(registry.model(facts["network"]).task)
    except Exception:  # whoever reads it whole says what is wrong with it
        return "segmentation"


def _read(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Facts and tensors of the network, floating ones in double precision."""
    if not Path(path).is_file():
        raise UsageError("no such checkpoint", came=path, expected="a .ckpt file of textray train")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        facts, tensors = dict(state["textray"]), state["state_dict"]
        found = {k.removeprefix(_PREFIX): v for k, v in tensors.items() if k.startswith(_PREFIX)}
        built = (facts["form"], facts["config"]) if "network" in facts else None
    except Exception as error:  # torch raises many kinds for half files and for foreign ones
        raise UsageError(
            f"{Path(path).name} is not a readable checkpoint of textray train", came=type(error).__name__
        ) from error
    if built is None:
        raise UsageError(
            f"{Path(path).name} is of a network that has not learnt to segment",
            expected="the checkpoint of a segmentation",
            do="Start one from it with model.initial, and export that",
        )
    run = Path(path).parent.parent / "run.json"  # what `textray train` wrote beside its checkpoints
    known = json.loads(run.read_text(encoding="utf-8")) if run.is_file() else {}
    facts |= {"recipe": known.get("recipe"), "git": known.get("git")}
    told = any(str(word).startswith("--model.initial") for word in known.get("arguments", ()))
    facts["started"] = bool(facts.get("started", told))  # older checkpoints leave it to the run's arguments
    return facts, {k: v.double() if v.is_floating_point() else v for k, v in found.items()}


def _refuse_other(path: Path, first: dict[str, Any], other: dict[str, Any]) -> None:
    """Refuse a checkpoint whose weights mean something else than those of the first."""
    for ours_of, theirs_of, keys in ((first, other, _SAME), (first["data"], other["data"], _SAME_DATA)):
        for key in keys:
            ours, theirs = _plain(ours_of.get(key)), _plain(theirs_of.get(key))
            if ours != theirs:
                raise UsageError(
                    f"{path.name} cannot be averaged with the first checkpoint: their {key} differ",
                    came=str(theirs)[:200],
                    expected=str(ours)[:200],
                    do="Average stages of one training of one network",
                )


def _plain(value: object) -> object:
    """As JSON has it, where a tuple is a list."""
    return json.loads(json.dumps(value))


def halved(network: Network) -> dict[str, Tensor]:
    """Matrices and kernels in half precision; biases and statistics of norms stay as they are.

    Statistics may be smaller or larger than half precision can tell, and they take no space.
    """
    return {k: v.half() if v.is_floating_point() and v.ndim > 1 else v for k, v in network.state_dict().items()}


def round_to_half(network: Network) -> None:
    """Give a network the numbers that `halved` can tell, in its own precision."""
    own = network.state_dict()
    network.load_state_dict({key: value.to(own[key].dtype) for key, value in halved(network).items()})
