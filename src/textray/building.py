"""Networks from names: built with random weights from a configuration, or with those of a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from safetensors.torch import load

from textray import registry
from textray.errors import BundleError, UsageError
from textray.inference.bundle import Bundle
from textray.models.base import Network
from textray.rows import FormRow


def build(row: FormRow, config: Mapping[str, Any]) -> Network:
    """Build a network with random weights from its row and the fields of its config, as JSON gives them.

    Raises:
        UsageError: If a field is unknown.
    """
    kind = registry.load(row.config)
    known = {field.name for field in fields(kind)}
    if set(config) - known:
        raise UsageError(f"unknown fields for {row.path}", came=sorted(set(config) - known), expected=sorted(known))
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}
    network: Network = registry.load(row.path)(kind(**values))
    return network


def load_network(bundle: Bundle) -> Network:
    """Build the network of a bundle for torch, in evaluation mode, with the bundle's weights (half precision, widened).

    Raises:
        BundleError: If the tensors are not those of the network that the bundle names.
        UsageError: If this version has no such network or form.
    """
    network = build(registry.model(bundle.model).form(bundle.form), bundle.model_config)
    wanted = network.state_dict()
    given = load(bundle.read("model.safetensors"))
    wrong = sorted(k for k in wanted.keys() | given.keys() if k not in given or k not in wanted)
    wrong += [k for k in wanted.keys() & given.keys() if wanted[k].shape != given[k].shape]
    if wrong:
        raise BundleError(
            f"the weights of bundle {bundle.name} are not those of {bundle.model}",
            came=", ".join(wrong[:5]),
            expected=f"{len(wanted)} tensors by its own names",
        )
    network.load_state_dict({key: value.to(wanted[key].dtype) for key, value in given.items()})
    return network.eval()
