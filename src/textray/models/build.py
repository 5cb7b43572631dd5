"""Networks from names: built with random weights from a configuration, or with those of a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, cast, get_args, get_type_hints

from textray import registry
from textray.errors import UsageError
from textray.models.base import Network
from textray.registry import FormRow

_DROPPED: dict[str, dict[str, object]] = {
    "MMIUNetConfig": {"eca_kernel": None},
    "SentenceGroundingConfig": {"fuse": False, "tiles": 1, "agg_piece": "sum"},
    "SGSegConfig": {"guide_gradient": False},
    "SGSegSimpleConfig": {"guide_gradient": False},
}
"""Fields that configs no longer have, by class: older checkpoints and bundles hold them, at the value that is left."""


def build(form: FormRow, config: Mapping[str, Any]) -> Network:
    """Build a network with random weights from its registry row and the fields of its config, as JSON gives them.

    Raises:
        UsageError: If a field is unknown, or one that has fields of its own is something else.
    """
    network: Network = registry.load(form.path)(read_config(form, config))
    return network


def read_config(form: FormRow, config: Mapping[str, Any]) -> Any:  # noqa: ANN401 -- the dataclass that a row names
    """The config of a network from the fields of a checkpoint or bundle, older ones too; raises as `build` does."""
    kind = registry.load(form.config)
    unknown: dict[str, list[str]] = {}
    made = _read(kind, config, "", unknown)
    if unknown:
        came = [prefix + name for prefix, names in unknown.items() for name in names]
        known = [prefix + name for prefix in unknown for name in _kinds(kind, prefix)]
        raise UsageError(f"unknown fields for {form.path}", came=sorted(came), expected=sorted(known))
    return made


def _read(kind: type[Any], config: Mapping[str, Any], prefix: str, unknown: dict[str, list[str]]) -> Any:  # noqa: ANN401 -- the dataclass that a row names
    """Make a dataclass from a mapping: lists become tuples, mappings the dataclasses of their fields.

    Names that it and the dataclasses in it lack are added to ``unknown`` by the prefix of where they stand, such as
    ``locator.``; the result is then ``None``.
    """
    inner, dropped = _kinds(kind), _DROPPED.get(kind.__name__, {})
    config = {name: value for name, value in config.items() if name not in dropped or value != dropped[name]}
    if strange := [name for name in config if name not in inner]:
        unknown[prefix] = strange
    values: dict[str, Any] = {}
    for name, value in config.items():
        part = inner.get(name)
        if part is None or value is None:
            values[name] = tuple(value) if isinstance(value, list) else value
        elif isinstance(value, Mapping):
            values[name] = _read(part, value, f"{prefix}{name}.", unknown)
        else:
            raise UsageError(
                f"the field {prefix}{name} has fields of its own", came=value, expected=sorted(_kinds(part))
            )
    return None if unknown else kind(**values)


def _kinds(kind: type[Any], prefix: str = "") -> dict[str, type[Any] | None]:
    """Fields of a dataclass, or of the one at ``prefix`` in it, each with the dataclass in it, if any."""
    hints = get_type_hints(kind)
    kinds: dict[str, type[Any] | None] = {}
    for field in fields(kind):
        choices = [choice for choice in (hints[field.name], *get_args(hints[field.name])) if is_dataclass(choice)]
        kinds[field.name] = cast(type[Any], choices[0]) if choices else None
    first, _, rest = prefix.partition(".")
    part = kinds.get(first)
    return _kinds(part, rest) if part is not None else kinds
