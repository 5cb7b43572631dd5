"""From a torch module to an ONNX graph, and from that to one whose weights lie beside it, once for all graphs."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper
from onnxscript.optimizer import optimize
from safetensors.torch import save_file
from torch import Tensor, nn

from textray.inference.bundle_files import WEIGHTS
from textray.models.base import Network
from textray.training.checkpoints import halved

_OPSET = 18


def write_onnx(
    module: nn.Module,
    example: tuple[Tensor, ...],
    path: Path,
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic: tuple[dict[int, Any], ...],
) -> None:
    """Write a module as an ONNX graph, without the exporter's notes: those name folders of this machine.

    The graph is simplified but for its weights, which keep names and values: the runtime folds norms into kernels.
    ``example`` are tensors that the module is traced with, ``dynamic`` of each input the axes of free length.
    """
    with warnings.catch_warnings(), _silent("onnxscript"):
        warnings.simplefilter("ignore")  # remarks of the exporter about its own parts; parity is checked after
        torch.onnx.export(
            module.eval(),
            example,
            str(path),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=dynamic,
            opset_version=_OPSET,
            dynamo=True,
            external_data=False,
            optimize=False,
            verbose=False,
        )
        written = onnx.load(path)
        weights = _take(written.graph, module.state_dict())
        # Nothing is folded into what is fed.
        written.graph.input.extend(helper.make_tensor_value_info(w.name, w.data_type, w.dims) for w in weights)
        written = optimize(written)
        del written.graph.input[len(inputs) :]
        written.graph.initializer.extend(weights)
    del written.metadata_props[:]
    for part in (written.graph, *written.functions):
        _forget(part)
    onnx.save(written, path)


def store_weights(network: Network, folder: Path) -> None:
    """Write a network's weights, and take them from the graphs in that folder, which then name the file's hash."""
    tensors = {name: tensor.contiguous() for name, tensor in halved(network).items()}
    save_file(tensors, str(folder / WEIGHTS))
    held = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    for path in folder.glob("*.onnx"):
        model = onnx.load(path)
        _take(model.graph, {f"network.{name}" for name in tensors})
        helper.set_model_props(model, {"weights": held})
        onnx.save(model, path)


def _take(graph: onnx.GraphProto, names: Container[str]) -> list[TensorProto]:
    """Take the initializers of these names out of a graph, as far as they are single precision."""
    held = graph.initializer
    places = [i for i, t in enumerate(held) if t.name in names and t.data_type == TensorProto.FLOAT]
    return [held.pop(i) for i in reversed(places)]


def _forget(graph: onnx.GraphProto | onnx.FunctionProto) -> None:
    """Delete the notes of a graph, its values and its nodes, and of the graphs inside these."""
    noted: list[Any] = [graph, *graph.value_info, *graph.node]
    if isinstance(graph, onnx.GraphProto):
        noted += [*graph.input, *graph.output, *graph.initializer]
    for part in noted:
        del part.metadata_props[:]
    for node in graph.node:
        node.doc_string = ""
        for attribute in node.attribute:
            for inner in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                _forget(inner)


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """Let a library's logger tell errors only: it would warn a user of what no user can change."""
    log = logging.getLogger(name)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
