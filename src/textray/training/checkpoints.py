"""Checkpoints: atomic writing, reading, and trainings that start from them."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from safetensors import SafetensorError
from safetensors.torch import load, load_file
from torch import Tensor, nn

from textray import registry
from textray.data.studies import RECORDED_AS
from textray.errors import UsageError
from textray.inference import bundle
from textray.inference.bundle import BaseBundle
from textray.io.files import regular
from textray.io.write import sync_folder, temporary
from textray.models.base import Network
from textray.models.build import build, read_config
from textray.models.self_guided import SelfGuided

logger = logging.getLogger(__name__)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint under a temporary name, flushes it to disk, then renames it."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:  # noqa: ANN401 -- Lightning's signature
        """Write ``checkpoint`` to ``path``; a file that was there stays whole until the new one is."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = temporary(target.parent)  # what a kill leaves goes before the next training of the folder
        try:
            with part.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
            sync_folder(target.parent)
        finally:
            part.unlink(missing_ok=True)


def last_checkpoint(folder: Path) -> Path | None:
    """Checkpoint to resume from: ``last.ckpt``, which is written at each epoch's end, or ``None``.

    A file that a dying disk cut off is passed over with a warning; then the newest of the others serves.

    Raises:
        UsageError: If there are files, and none of them can be read: a training from the start would replace them.
    """
    found = sorted(folder.glob("*.ckpt"), key=lambda p: (p.name == "last.ckpt", p.stat().st_mtime), reverse=True)
    for path in found:
        try:
            _open(path, mmap=True)
        except UsageError as error:
            logger.warning("W_CHECKPOINT: %s cannot be read (%s); trying another", path, error.came)
        else:
            return path
    if found:
        raise UsageError(
            f"no checkpoint in {folder} can be read",
            came=", ".join(path.name for path in found),
            do="Name another --out, or start again with --fresh, which moves them away",
        )
    return None


# Start from earlier trainings.

BUNDLED = "model.safetensors"
"""File of a bundle's tensors."""


def begin(network: Network, initial: str | Sequence[str] | None) -> None:
    """Read the tensors that a training starts from into a network.

    Without ``initial`` they are the pretrained ones of its trunks, where its config names any. A checkpoint, a bundle's
    folder, or weights inside the package by name give the whole network, as far as they have the tensors; no pretrained
    ones are read. Of one or more ``PART=CHECKPOINT``, such as ``segmenter=mmi.ckpt``, see `start_part`; only parts that
    are not named read pretrained tensors. Beside a whole checkpoint they replace its parts.

    Raises:
        UsageError: If a checkpoint is missing or does not fit, or one part is named twice.
    """
    named = named_parts(initial)
    parts = dict(named)
    if len(parts) != len(named):
        raise UsageError(
            "a training starts from one whole checkpoint at most, and each part from one",
            came=", ".join(initial or ()),
        )
    whole = parts.pop(None, None)
    if whole is not None:
        start_from(network, whole)
    elif not parts:
        network.load_pretrained()
    else:
        for name, child in network.named_children():
            if name not in parts and hasattr(child, "load_pretrained"):
                cast(Any, child).load_pretrained()
    for part, path in parts.items():
        start_part(network, str(part), path)


def named_parts(initial: str | Sequence[str] | None) -> list[tuple[str | None, Path]]:
    """Part and checkpoint of each ``PART=CHECKPOINT``; a path alone, even one with a ``=`` in it, has no part.

    The name of weights inside the package stands for their folder, as everywhere.
    """
    named: list[tuple[str | None, Path]] = []
    for item in [initial] if isinstance(initial, str) else initial or ():
        part, equals, path = item.partition("=")
        if not equals or not part.replace(".", "_").isidentifier():
            part, path = "", item
        named.append((part or None, bundle.WEIGHTS_FOLDER / path if path in bundle.inside() else Path(path)))
    return named


def start_of(initial: str | Sequence[str] | None) -> list[dict[str, Any]]:
    """Weights that a training starts from, and those that they started from: name, data and terms of each.

    The terms hold for what comes of the training too.
    """
    found: list[dict[str, Any]] = []
    for _, path in named_parts(initial):
        if (path / BUNDLED).is_file():
            whole = bundle.load_any(path)
            facts, about = whole.provenance, {"name": whole.name, "sha256": whole.sha256}
        else:
            facts, about = facts_of(path), {"name": path.name}
        data, terms = facts.get("data"), facts.get("terms")
        name = data.get("name") if isinstance(data, dict) else None
        if terms is None:
            terms = registry.dataset(name).terms if name in registry.DATASETS else ""
        found += [about | {"data": name, "terms": terms}, *facts.get("start", ())]
    return found


def start_from(network: Network, path: Path) -> None:
    """Copy the tensors of an earlier training's network; what the checkpoint lacks keeps its random start.

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
    ours = module.state_dict()
    tensors = {name: value for name, value in tensors.items() if name in ours or not name.startswith("zone_head.")}
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
        try:
            tensors = load_file(path / BUNDLED)
        except (OSError, SafetensorError) as error:
            raise UsageError(f"{path.name} is not a readable bundle", came=type(error).__name__) from error
        return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    if not path.is_file():
        raise UsageError(
            "no checkpoint to start from",
            came=path,
            expected=f"a checkpoint, a bundle's folder, or weights inside: {', '.join(bundle.inside())}",
            do="Run the training before it, or set model.initial",
        )
    _, tensors = _open(path)
    if not tensors:
        raise UsageError(f"{path.name} holds no network", expected="a checkpoint of textray train")
    return tensors


def _open(path: Path, *, mmap: bool = False) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Facts of a checkpoint, none in a foreign one, and the tensors of its network by their own names.

    Raises:
        UsageError: If the file is cut off, damaged, or no checkpoint, or holds more than tensors and plain values.
    """
    prefix = "network."
    state: Any = None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        facts, tensors = dict(state.get("textray", {})), dict(state["state_dict"])
        ours = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        if not all(isinstance(value, Tensor) and value.layout == torch.strided for value in ours.values()):
            raise TypeError
    except Exception as error:  # torch raises many kinds for half files and for foreign ones
        raise _unreadable(path, state, error) from error
    if not ours and tensors:
        raise _unreadable(path, state, None)
    return facts, ours


def _unreadable(path: Path, state: object, error: Exception | None) -> UsageError:
    """The error for a file that is no checkpoint of `textray train`, as far as its kind is known."""
    authors = "If its authors published it: textray import NAME FILE --out FOLDER"
    came, do = type(error).__name__, "Copy it again, or name another"
    if isinstance(state, dict) and "state_dict" in state:
        came, do = "the checkpoint of another program", authors
    elif isinstance(state, dict) and state and all(isinstance(value, Tensor) for value in state.values()):
        came, do = f"a plain state dict of {len(state)} tensors, which does not say of what network", authors
    elif isinstance(state, Tensor):
        came, do = "a tensor", "Name a checkpoint"
    elif path.is_file() and (kind := _foreign(path)) is not None:
        came, do = kind
    elif isinstance(error, UnpicklingError):
        came = "Python objects, such as a whole module, which are not read because they could run code"
        do = f"Save its state_dict with torch.save. {authors}"
    return UsageError(
        f"{path.name} is not a readable checkpoint of textray train",
        came=came,
        expected="a .ckpt file of textray train",
        do=do,
    )


def _foreign(path: Path) -> tuple[str, str] | None:
    """What a file is that torch did not write, and what to do; ``None`` where that is not known."""
    with path.open("rb") as file:
        head = file.read(16)
    if not head:
        return "an empty file", "Copy it again"
    if head[8:9] == b"{":
        return "a file of safetensors", "Name the folder of the bundle that it belongs to"
    if head[:2] == b"PK" or head[:1] == b"\x80":  # what torch writes
        return None
    return "a file of another kind", "Name a .ckpt file, a bundle's folder, or weights inside by name"


def facts_of(path: Path) -> dict[str, Any]:
    """Facts in a checkpoint beside its tensors; none for a bundle's folder or a missing file."""
    return _open(path, mmap=True)[0] if path.is_file() else {}


def _copy(module: nn.Module, given: dict[str, Tensor], path: Path) -> list[str]:
    """Copy tensors by name; return the names that were not given."""
    ours = module.state_dict()
    wrong = sorted(name for name in given if name not in ours or ours[name].shape != given[name].shape)
    if wrong:
        raise UsageError(f"{path.name} is of another network", came=", ".join(wrong[:5]), expected="its own tensors")
    missing, _ = module.load_state_dict(given, strict=False)
    return sorted(missing)


# Checkpoints of a finished training.

RUN_FILE = "run.json"
_LARGEST_FACTS = 2**22
_SAME = ("network", "form", "config", "text_encoder", "max_tokens", "vocabulary", "aggregation", "most_pieces")
_SAME_DATA = ("name", "preprocess", "captions", "sentences", RECORDED_AS)


def read_checkpoint(path: str | Path, *others: str | Path) -> tuple[dict[str, Any], Network]:
    """Read a checkpoint of `textray train`: its facts, and its network in evaluation mode, rounded to half precision.

    Only tensors and plain values are read; a file with anything else in it is refused. With others of the same network,
    in stages of one training, the network has the mean of their weights and of the statistics of their norms (Izmailov
    et al., UAI 2018, who average along one training); the facts are the first one's, those of the others ``averaged``.

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


def load_network(source: str | Path | BaseBundle) -> Network:
    """Build the network of a checkpoint or a bundle, as `textray.load_network` says."""
    if not isinstance(source, BaseBundle) and (Path(source).suffix == ".ckpt" or Path(source).is_file()):
        facts, tensors = _read(source)
        place, name, form, config = Path(source), facts["network"], facts["form"], facts["config"]
    else:
        found = source if isinstance(source, BaseBundle) else bundle.load_any(source)
        place, name, form, config = found.folder, found.model, found.form, found.model_config
        tensors = load(found.read(BUNDLED))
    network = build(registry.model(name).form(form), config)
    if missing := _copy(network, tensors, place):
        raise UsageError(f"{place.name} does not hold the whole {name}", came=f"nothing for {', '.join(missing[:5])}")
    return network.eval()


def task_of(path: str | Path) -> str:
    """Task of a checkpoint's network; ``segmentation`` where the file does not say, or is none."""
    try:
        return str(registry.model(facts_of(Path(path))["network"]).task)
    except Exception:  # reading it whole says what is wrong with it
        return "segmentation"


def _read(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Facts and tensors of the network, floating ones in double precision."""
    path = Path(path)
    if not path.is_file():
        raise UsageError("no such checkpoint", came=path, expected="a .ckpt file of textray train")
    facts, ours = _open(path)
    if not facts or ("network" in facts and not {"form", "config"} <= facts.keys()):
        raise UsageError(
            f"{path.name} is not a readable checkpoint of textray train",
            came=f"facts {sorted(facts)}"[:200],
            expected="what textray train writes",
        )
    if "network" not in facts:
        raise UsageError(
            f"{path.name} is of a network that was not trained to segment",
            expected="the checkpoint of a segmentation",
            do="Start one from it with model.initial, and export that",
        )
    known = _read_run(next((place for place in run_files(path) if os.path.lexists(place)), path.with_name(RUN_FILE)))
    facts |= {"recipe": known.get("recipe"), "git": known.get("git")}
    initial = any(str(word).startswith("--model.initial") for word in known.get("arguments", ()))
    facts["started"] = bool(facts.get("started", initial))  # older checkpoints leave it to the run's arguments
    return facts, {k: v.double() if v.is_floating_point() else v for k, v in ours.items()}


def run_files(checkpoint: Path) -> tuple[Path, Path]:
    """Where the facts of a checkpoint's training are: beside checkpoints that ``--fresh`` moved, else above them."""
    return checkpoint.with_name(RUN_FILE), checkpoint.parent.parent / RUN_FILE


def run_facts(path: Path) -> dict[str, Any] | None:
    """Facts that `textray train` wrote into a run's folder; ``None`` for a file that is damaged or another's."""
    try:
        regular(path, _LARGEST_FACTS)
        known = json.loads(path.read_bytes())
        return dict(known) if isinstance(known["recipe"], list) and isinstance(known["arguments"], list) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _read_run(path: Path) -> dict[str, Any]:
    if not os.path.lexists(path):
        return {}
    if (known := run_facts(path)) is None:
        logger.warning("W_RUN_FILE: %s is damaged or of another command; recipe and commit stay unknown", path)
    return known or {}


def _refuse_other(path: Path, first: dict[str, Any], other: dict[str, Any]) -> None:
    """Refuse a checkpoint of another network or other data than the first."""
    for ours_of, theirs_of, keys in ((first, other, _SAME), (first["data"], other["data"], _SAME_DATA)):
        for key in keys:
            ours, theirs = (facts.get(key) for facts in (ours_of, theirs_of))
            if key == "config":  # older checkpoints hold fields that are gone, and lack new ones
                form = registry.model(first["network"]).form(first["form"])
                ours, theirs = (asdict(read_config(form, config or {})) for config in (ours, theirs))
            ours, theirs = (json.loads(json.dumps(value)) for value in (ours, theirs))  # no tuples
            if ours != theirs:
                raise UsageError(
                    f"{path.name} cannot be averaged with the first checkpoint: their {key} differ",
                    came=str(theirs)[:200],
                    expected=str(ours)[:200],
                    do="Average stages of one training of one network",
                )


def halved(network: Network) -> dict[str, Tensor]:
    """Matrices and kernels in half precision; biases and statistics of norms stay as they are.

    Statistics may be out of the range of half precision, and they take no space.
    """
    return {k: v.half() if v.is_floating_point() and v.ndim > 1 else v for k, v in network.state_dict().items()}


def round_to_half(network: Network) -> None:
    """Round a network to the values of `halved`, in its own precision."""
    ours = network.state_dict()
    network.load_state_dict({key: value.to(ours[key].dtype) for key, value in halved(network).items()})
