"""The command that says what is here: versions, extras, models, data sets, text encoders and weights."""

from __future__ import annotations

import platform
import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from textray import __version__, registry
from textray.commands.console import say, say_json
from textray.errors import TextRayError, unknown_name


def info(
    name: Annotated[
        str | None, typer.Argument(help="Model, data set, text encoder, weights, or bundle folder.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on the standard output.")] = False,
) -> None:
    """Show versions, installed extras, models, data sets and weights; or one of them by name."""
    values = _everything() if name is None else _one(name)
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
        "extras": _extras(),
        "models": {name: asdict(row) for name, row in registry.MODELS.items()},
        "datasets": {name: asdict(row) for name, row in registry.DATASETS.items()},
        "text_encoders": {name: asdict(row) for name, row in registry.TEXT_ENCODERS.items()},
        "weights": {name: _weights(name) for name in inside()},
    }


def _one(name: str) -> dict[str, Any]:
    from textray.inference.bundle import Bundle, inside

    for kind, rows in (
        ("model", registry.MODELS),
        ("dataset", registry.DATASETS),
        ("text_encoder", registry.TEXT_ENCODERS),
    ):
        if name in rows:
            return {"kind": kind, **asdict(rows[name])}
    if name in inside() or Path(name).is_dir():
        bundle = Bundle.load(name)
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


def _weights(name: str) -> dict[str, Any]:
    from textray.inference.bundle import Bundle

    try:
        return Bundle.load(name).describe()
    except TextRayError as error:
        return {"name": name, "code": error.code, "error": str(error)}


def _extras() -> dict[str, dict[str, Any]]:
    """For each extra of the package, which of its requirements are not installed; nothing is imported."""
    from importlib.metadata import PackageNotFoundError, requires, version

    found: dict[str, dict[str, Any]] = {}
    try:
        rows = requires("textray") or []
    except PackageNotFoundError:  # run from a plain checkout
        rows = []
    for row in rows:
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", row)
        package = re.match(r"[\w.-]+", row)
        if extra is None or package is None or package[0] == "textray":
            continue
        entry = found.setdefault(extra[1], {"installed": True, "missing": []})
        try:
            version(package[0])
        except PackageNotFoundError:
            entry["installed"] = False
            entry["missing"].append(package[0])
    return found


def _lines(values: dict[str, Any]) -> list[str]:
    if "extras" not in values:
        return [f"{key}: {value}" for key, value in values.items()]
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
        told = row.get("error") or f"{row['model']}, {row['bytes'] / 1e6:.1f} MB, {row['sha256'][:12]}"
        lines.append(f"  {name:20}{told}")
    if not values["weights"]:
        lines.append("  none")
    return lines
