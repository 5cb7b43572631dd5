"""The command info: versions, extras, models, data sets, text encoders and weights."""

from __future__ import annotations

import platform
import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from textray import __version__, registry
from textray.commands.console import say, say_json
from textray.commands.segment import AsJson
from textray.errors import TextRayError, UsageError, unknown_name

_ONE_LINE = 80
"""Longest list, in characters, that is shown in one line."""


def info(
    name: Annotated[
        str | None, typer.Argument(help="Model, data set, text encoder, weights, or bundle folder.")
    ] = None,
    as_json: AsJson = False,
    form: Annotated[str | None, typer.Option(help="Form of a model: paper or released.")] = None,
    cost: Annotated[
        bool, typer.Option("--cost", help="Also its parameters and multiplications (needs torch).")
    ] = False,
) -> None:
    """Show versions, installed extras, models, data sets and weights; or one of them by name."""
    if name is None and (form is not None or cost):
        raise UsageError("--form and --cost tell of one network", do="Name a model or weights")
    values = _everything() if name is None else _one(name, form)
    if name is not None and cost:
        values["cost"] = _cost(name, values["kind"], form)
    if as_json:
        say_json(values)
        return
    for line in _lines(values):
        say(line)


def _everything() -> dict[str, Any]:
    from textray.inference.bundle import inside

    return {
        "textray": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "extras": extras(),
        "models": {name: asdict(row) for name, row in registry.MODELS.items()},
        "datasets": {name: asdict(row) for name, row in registry.DATASETS.items()},
        "text_encoders": {name: asdict(row) for name, row in registry.TEXT_ENCODERS.items()},
        "weights": {name: _weights(name) for name in inside()},
    }


def _one(name: str, form: str | None) -> dict[str, Any]:
    from textray.inference.bundle import inside, load_any

    if form is not None and name not in registry.MODELS:
        raise UsageError("only a model has forms", came=name, expected=", ".join(registry.MODELS))
    for kind, rows in (
        ("model", registry.MODELS),
        ("dataset", registry.DATASETS),
        ("text_encoder", registry.TEXT_ENCODERS),
    ):
        if name in rows:
            values = {"kind": kind, **asdict(rows[name])}
            return values if form is None else {**values, "form": asdict(registry.model(name).form(form))}
    if name in inside() or Path(name).is_dir():
        bundle = load_any(name)
        return {
            "kind": "weights",
            **bundle.describe(),
            "model_config": bundle.model_config,
            "preprocess": bundle.preprocess.to_dict(),
            "provenance": bundle.provenance,
            "files": bundle.files,
        }
    raise unknown_name(
        "name", name, [*registry.MODELS, *registry.DATASETS, *registry.TEXT_ENCODERS, *inside(), "a bundle folder"]
    )


def _cost(name: str, kind: str, form: str | None) -> dict[str, Any]:
    """Cost of a network; loads torch."""
    from textray.inference.bundle import Bundle

    if kind == "model":
        cost = registry.load("textray.export.cost:cost_of_model")(name, form or registry.model(name).forms[0].name)
    elif kind == "weights":
        cost = registry.load("textray.export.cost:cost_of_bundle")(Bundle.load(name))
    else:
        raise UsageError(f"a {kind.replace('_', ' ')} has no cost", came=name, do="Name a model or weights")
    return asdict(cost)


def _weights(name: str) -> dict[str, Any]:
    from textray.inference.bundle import load_any

    try:
        return load_any(name).describe()
    except TextRayError as error:
        return {"name": name, "code": error.code, "error": str(error)}


def extras() -> dict[str, dict[str, Any]]:
    """For each extra of the package, which of its requirements are not installed; nothing is imported."""
    from importlib.metadata import PackageNotFoundError, requires, version

    found: dict[str, dict[str, Any]] = {}
    try:
        requirements = requires("textray") or []
    except PackageNotFoundError:  # run from a plain checkout
        requirements = []
    for requirement in requirements:
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", requirement)
        package = re.match(r"[\w.-]+", requirement)
        if extra is None or package is None or package[0] == "textray":
            continue
        state = found.setdefault(extra[1], {"installed": True, "missing": []})
        try:
            version(package[0])
        except PackageNotFoundError:
            state["installed"] = False
            state["missing"].append(package[0])
    return found


def _lines(values: dict[str, Any]) -> list[str]:
    if "extras" not in values:
        below = ("cost", "captions")  # have words of their own
        lines = [line for key, value in values.items() if key not in below for line in _shown(key, value)]
        if values["kind"] == "weights" and "captions" in values:
            lines += ["captions that --text may be:", *(f"  {caption}" for caption in values["captions"])]
        elif "captions" in values:
            lines.append(f"captions: {values['captions']}")
        return lines + (_cost_lines(values["cost"]) if "cost" in values else [])
    lines = [f"textray {values['textray']}, Python {values['python']}, {values['system']}", "", "extras:"]
    for extra, state in values["extras"].items():
        lines.append(f"  {extra:20}" + ("installed" if state["installed"] else "lacks " + ", ".join(state["missing"])))
    lines.append("models:")
    lines += [f"  {name:20}{row['task']}, reads {' and '.join(row['reads'])}" for name, row in values["models"].items()]
    lines.append("data sets:")
    lines += [f"  {name:20}{row['title']}" for name, row in values["datasets"].items()]
    lines.append("text encoders:")
    lines += [f"  {name:20}width {row['width']}" for name, row in values["text_encoders"].items()]
    lines.append("weights inside:")
    for name, row in values["weights"].items():
        about = row.get("error") or f"{row['model']}, {row['bytes'] / 1e6:.1f} MB, {row['sha256'][:12]}"
        lines.append(f"  {name:26}{about}")
    if not values["weights"]:
        lines.append("  none")
    return lines


def _shown(key: str, value: object) -> list[str]:
    """A value by its name: one line, or what it holds in further, indented ones."""
    if isinstance(value, dict) and value:
        return [f"{key}:", *(f"  {line}" for name, part in value.items() for line in _shown(str(name), part))]
    if not isinstance(value, (list, tuple)):
        if isinstance(value, bool):
            value = "yes" if value else "no"
        return [f"{key}: {'none' if value in (None, '', {}) else value}"]
    nested = any(isinstance(part, (dict, list, tuple)) for part in value)
    if not nested and len(line := ", ".join(map(str, value))) < _ONE_LINE:
        return [f"{key}: {line or 'none'}"]
    lines = [f"{key}:"]
    for part in value:
        if isinstance(part, dict):
            inner = [line for name, inside in part.items() for line in _shown(str(name), inside)]
            lines += [f"  {'-' if i == 0 else ' '} {line}" for i, line in enumerate(inner)]
        else:
            lines.append(f"  - {', '.join(map(str, part)) if isinstance(part, (list, tuple)) else part}")
    return lines


def _cost_lines(cost: dict[str, Any]) -> list[str]:
    """Each figure with the convention it was counted by."""
    height, width = cost["size"]
    read = f", {cost['tokens']} text tokens" if cost["text_encoder"] else ""
    lines = [f"cost of the {cost['form']} form, one image {cost['channels']} x {height} x {width}{read}:"]
    return lines + [f"  {key:26}{_figure(cost[key]):>13}  {how}" for key, how in cost["convention"].items()]


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.2f} G"
