"""The frame of every export: a scratch folder that takes the place of a bundle only once it is complete."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from textray.errors import BundleError, OutputError
from textray.export.onnx import store_weights
from textray.inference.bundle_files import CONFIG, LARGEST, parse_json, read_file
from textray.models.base import Network
from textray.preprocess import Preprocess


@contextmanager
def bundle_folder(out: Path) -> Iterator[Path]:
    """A scratch folder of the same name, which replaces ``out`` at the end unless the block raises.

    Raises:
        OutputError: If ``out`` holds something that is no bundle.
    """
    check_out(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        folder = Path(scratch) / out.name
        folder.mkdir()
        yield folder
        for path in folder.iterdir():
            path.chmod(0o644)  # safetensors writes files that only their owner can read
        swap(folder, out)


def write_common(folder: Path, network: Network, preprocess: Preprocess, *, card: str, terms: str) -> None:
    """Write what bundles of both tasks hold, when the graphs are in place: weights, preprocessing, card and licence."""
    store_weights(network, folder)
    licence = (
        f"The weights in this folder ({folder.name}) have their own terms; TextRay's code is Apache-2.0.\n\n{terms}\n"
    )
    settings = json.dumps(preprocess.to_dict(), indent=2) + "\n"
    for name, text in {"preprocess.json": settings, "README.md": card, "LICENSE": licence}.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")


def about(folder: Path, facts: Mapping[str, Any], *provenance: str, **more: object) -> dict[str, Any]:
    """What a bundle states about its weights, from the facts of a checkpoint.

    ``provenance`` are the keys of facts that its provenance holds, if they are there; ``more`` is further provenance.
    """
    return {
        "name": folder.name,
        "version": version("textray"),
        "model": facts["network"],
        "form": facts["form"],
        "model_config": facts["config"],
        "provenance": {key: facts[key] for key in provenance if key in facts} | {"textray": facts["version"]} | more,
    }


def check_out(out: Path) -> None:
    """Refuse a folder that a bundle must not replace.

    Raises:
        OutputError: If ``out`` holds something that is no bundle, or more than one, or its name gives the bundle none.
    """
    if out.name in {"", ".."}:
        raise OutputError("the export folder gives the bundle no name", came=out, expected="a folder such as my-bundle")
    if not out.exists():
        return
    names = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    others = [name for name in names if name not in LARGEST]
    # A language model's folder has a config.json and a README.md too, so these names alone prove nothing.
    if not out.is_dir() or others or (names and not _is_config(out / CONFIG)):
        raise OutputError(
            "the export folder holds something else",
            came=f"{out} with {', '.join(others[:3])}" if others else out,
            expected="a new, an empty or a bundle's folder",
        )


def _is_config(path: Path) -> bool:
    """True for the config of a bundle, of whichever format version."""
    try:
        return {"format", "model", "files"} <= parse_json(read_file(path.parent, path.name), path.name).keys()
    except BundleError:
        return False


def swap(folder: Path, out: Path) -> None:
    """Put a finished folder in place of an older one; a reader sees the one or the other."""
    if not out.exists():
        folder.rename(out)
        return
    old = folder.with_name(f"{folder.name}-old")
    out.rename(old)
    try:
        folder.rename(out)
    except OSError:
        old.rename(out)
        raise
    shutil.rmtree(old)
    os.sync()
