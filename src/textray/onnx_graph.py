"""From a torch module to an ONNX graph."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

_OPSET = 18


def write_onnx(
    module: nn.Module,
    example: tuple[Tensor, ...],
    path: Path,
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic: tuple[dict[int, Any], ...],
    optimize: bool = True,
) -> None:
    """Write a module as an ONNX graph, without the exporter's notes: those name folders of this machine.

    Args:
        module: What to write; it is put into evaluation mode.
        example: Tensors that it is traced with.
        path: The file.
        inputs: Names of its inputs.
        outputs: Names of its outputs.
        dynamic: Of each input the axes of free length.
        optimize: Let the exporter simplify the graph, which folds norms into kernels; else the runtime does so.
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
            optimize=optimize,
            verbose=False,
        )
    written = onnx.load(path)
    del written.metadata_props[:]
    for function in written.functions:
        del function.metadata_props[:]
        _forget(function)
    _forget(written.graph)
    onnx.save(written, path)


def _forget(graph: onnx.GraphProto | onnx.FunctionProto) -> None:
    """Delete the notes of a graph, its values and its nodes, and of the graphs inside these."""
    values = [*graph.value_info]
    if isinstance(graph, onnx.GraphProto):
        del graph.metadata_props[:]
        values += [*graph.input, *graph.output, *graph.initializer]
    for value in values:
        del value.metadata_props[:]
    for node in graph.node:
        del node.metadata_props[:]
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
