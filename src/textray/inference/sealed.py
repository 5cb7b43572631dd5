"""What bundles of every task are: a folder whose files are held against its config, strictly and before any is used."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from textray.errors import BundleError
from textray.inference.bundle_files import (
    CONFIG,
    FORMAT,
    Task,
    check_files,
    identity,
    list_files,
    parse_json,
    read_config,
    read_file,
    read_verified,
)
from textray.preprocess import Preprocess

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """A verified bundle of any task.

    Attributes:
        folder: Where it lies.
        name: Its own name.
        version: Version of the weights.
        model: Registry name of the network.
        form: Which form of it.
        model_config: Fields of the network's config dataclass.
        preprocess: From a picture to the network's input and back.
        provenance: Data, epoch, terms and whatever else the exporter noted.
        files: Size and SHA-256 of each file but the config.
        sha256: Hash of what decides a result. The card and the licence are not in it, so scores measured before they
            were written down in the card are still its own.
    """

    folder: Path
    name: str
    version: str
    model: str
    form: str
    model_config: dict[str, Any]
    preprocess: Preprocess
    provenance: dict[str, Any]
    files: dict[str, dict[str, Any]]
    sha256: str

    @property
    def size_bytes(self) -> int:
        """Size of all files but the config."""
        return sum(int(entry["bytes"]) for entry in self.files.values())

    def read(self, name: str) -> bytes:
        """Bytes of one of the bundle's files, verified again while they are read."""
        return read_verified(self.folder, name, self.files[name])


def open_sealed(folder: Path, task: Task, read: Callable[[Path, dict[str, Any]], T]) -> T:
    """Read the bundle in a folder.

    Args:
        folder: Where it lies.
        task: What its weights must be for.
        read: Makes the bundle from folder and config; what it trips over in the config becomes a `BundleError`.

    Raises:
        BundleError: If a file is missing, cut off or altered, or the weights are for another task.
    """
    config = read_config(folder, task)
    try:
        return read(folder, config)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(
            f"{CONFIG} of bundle {folder.name} is not laid out as expected",
            came=f"{type(error).__name__}: {error}",
            do="Export the checkpoint again with: textray export",
        ) from error


def read_sealed(
    folder: Path, config: Mapping[str, Any], *, keys: Collection[str], files: Sequence[str], decides: Sequence[str]
) -> Sealed:
    """Verify the files of a bundle, and read what its config says whatever the task.

    Args:
        folder: Where it lies.
        config: What its config holds.
        keys: The very keys that the config must have.
        files: Names of the files that it must list.
        decides: Keys that decide a result beside the files.

    Raises:
        BundleError: If a key or file is missing or more, a file is altered, or the sizes of the input contradict.
    """
    if set(config) != set(keys):
        missing, more = sorted(set(keys) - set(config)), sorted(set(config) - set(keys))
        raise BundleError(f"{CONFIG} of bundle {folder.name} has other keys", came=f"missing {missing}, unknown {more}")
    check_files(folder, config["files"], files)
    preprocess = read_preprocess(folder)
    announced = tuple(config["input"][key] for key in ("height", "width", "channels"))
    if announced != (*preprocess.size, preprocess.channels):
        raise BundleError(
            f"bundle {folder.name} contradicts itself",
            came=f"input {announced} in {CONFIG}",
            expected=f"{(*preprocess.size, preprocess.channels)} as in preprocess.json",
        )
    return Sealed(
        folder=folder,
        name=str(config["name"]),
        version=str(config["version"]),
        model=str(config["model"]["name"]),
        form=str(config["model"]["form"]),
        model_config=dict(config["model"]["config"]),
        preprocess=preprocess,
        provenance=dict(config["provenance"]),
        files={name: dict(entry) for name, entry in config["files"].items()},
        sha256=identity(config, decides),
    )


def read_preprocess(folder: Path) -> Preprocess:
    """From a picture to the network's input, as a bundle says it."""
    return Preprocess.from_dict(parse_json(read_file(folder, "preprocess.json"), "preprocess.json"))


def sealed_config(
    folder: Path,
    *,
    name: str,
    version: str,
    model: str,
    form: str,
    model_config: Mapping[str, Any],
    provenance: Mapping[str, Any],
    files: Sequence[str],
) -> dict[str, Any]:
    """What the config of a bundle says whatever the task; the other files are in place.

    Raises:
        BundleError: If a file is missing.
    """
    preprocess = read_preprocess(folder)
    return {
        "format": FORMAT,
        "name": name,
        "version": version,
        "model": {"name": model, "form": form, "config": dict(model_config)},
        "input": {"height": preprocess.size[0], "width": preprocess.size[1], "channels": preprocess.channels},
        "provenance": dict(provenance),
        "files": list_files(folder, files),
    }
