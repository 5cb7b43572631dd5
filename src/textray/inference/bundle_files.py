"""What bundles of every task are: files read with a limit, hashed, and held against the config."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from textray.errors import BundleError, OutputError
from textray.inference.bank import BANK
from textray.preprocess import Preprocess

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
FORMAT = 1
"""Version of the layout of bundles; one of another is refused."""

Task = Literal["segmentation", "grounding"]
COMMANDS: dict[Task, str] = {"segmentation": "segment", "grounding": "ground"}
"""Which command uses the weights of a task."""

# Largest size of each file in bytes: a bundle is data from elsewhere, and a wrong file must not fill the memory.
LARGEST = {
    CONFIG: 2**20,
    "preprocess.json": 2**16,
    "README.md": 2**22,
    "LICENSE": 2**20,
    BANK: 2**28,
    "model.onnx": 2**31,
    WEIGHTS: 2**32,
    "image.onnx": 2**31,
    "text.onnx": 2**31,
    "vocab.txt": 2**24,
}
_ABOUT = ("preprocess.json", "README.md", "LICENSE")
GROUNDING_FILES = (*_ABOUT, "vocab.txt", "image.onnx", "text.onnx", WEIGHTS)
"""Names of all files of a grounding bundle but the config."""
_AGAIN = "Copy or download the whole bundle again"


def expected_files(text_encoder: str | None) -> tuple[str, ...]:
    """Names of all files of a segmentation bundle but the config; the text bank only where the network reads text."""
    return (*_ABOUT, *(() if text_encoder is None else (BANK,)), "model.onnx", WEIGHTS)


def task_of(config: Mapping[str, Any]) -> object:
    """What the weights of a config do; configs of segmentation do not say."""
    return config.get("task", "segmentation")


def read_config(folder: Path, task: Task) -> dict[str, Any]:
    """Read the config of a bundle of this task and format.

    Raises:
        BundleError: If it is of another one.
    """
    config = parse_json(read_file(folder, CONFIG), CONFIG)
    found = task_of(config)
    if found != task:
        other = next((command for name, command in COMMANDS.items() if name == found), None)
        raise BundleError(
            f"the weights of {folder.name} are for another task",
            came=str(found)[:40],
            expected=task,
            do=f"Use them with: textray {other}; to score them: textray evaluate --task {found}"
            if other
            else f"Name weights for textray {COMMANDS[task]}",
        )
    if config.get("format") != FORMAT:
        raise BundleError(
            f"bundle {folder.name} has another format version",
            came=config.get("format"),
            expected=FORMAT,
            do="Use the TextRay version that wrote it, or export the checkpoint again with: textray export",
        )
    return config


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write the config, the last file of a bundle; raises `OutputError` where it cannot."""
    try:
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{folder / CONFIG} cannot be written", came=error.strerror) from error


def list_files(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Size and hash of files, as the config announces them."""
    found = {name: digest(folder, name) for name in names}
    return {name: {"bytes": size, "sha256": sha256} for name, (size, sha256) in found.items()}


def check_files(folder: Path, files: Mapping[str, Any], expected: Sequence[str]) -> None:
    """Hold the files of a folder against those that its config announces.

    Raises:
        BundleError: If the config announces others, or one differs.
    """
    if set(files) != set(expected):
        raise BundleError(
            f"bundle {folder.name} lists other files", came=sorted(files), expected=", ".join(sorted(expected))
        )
    for name in expected:
        compare(folder, name, files[name], *digest(folder, name))


def read_verified(folder: Path, name: str, entry: Mapping[str, Any]) -> bytes:
    """Bytes of one file, held against its entry in the config while they are read."""
    data = read_file(folder, name)
    compare(folder, name, entry, len(data), hashlib.sha256(data).hexdigest())
    return data


def identity(config: Mapping[str, Any], keys: Iterable[str]) -> str:
    """SHA-256 of what decides a result: these keys of the config, and all files but the card and the licence."""
    files = {name: entry["sha256"] for name, entry in config["files"].items() if name not in {"README.md", "LICENSE"}}
    decides = {"files": files, **{key: config[key] for key in keys}}
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _size(folder: Path, name: str) -> int:
    try:
        size = (folder / name).stat().st_size
    except OSError as error:
        raise BundleError(f"bundle {folder.name} lacks {name}", came=error.strerror, do=_AGAIN) from error
    if size > LARGEST[name]:
        raise BundleError(
            f"{name} of bundle {folder.name} is too large", came=size, expected=f"<= {LARGEST[name]} bytes"
        )
    return size


def read_file(folder: Path, name: str) -> bytes:
    """Bytes of one file.

    Raises:
        BundleError: If it is missing, too large or unreadable.
    """
    _size(folder, name)
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise BundleError(f"{name} of bundle {folder.name} cannot be read", came=error.strerror) from error


def digest(folder: Path, name: str) -> tuple[int, str]:
    """Size in bytes and SHA-256 of one file, which need not fit into memory; raises as `read_file` does."""
    size = _size(folder, name)
    try:
        with (folder / name).open("rb") as file:
            return size, hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"{name} of bundle {folder.name} cannot be read", came=error.strerror) from error


def compare(folder: Path, name: str, entry: Mapping[str, Any], size: int, digest: str) -> None:
    """Compare a file's size and hash with its entry in the config.

    Raises:
        BundleError: If one differs.
    """
    if size != entry["bytes"]:
        kind = "cut off" if size < int(entry["bytes"]) else "altered"
        came, expected = f"{size} bytes", f"{entry['bytes']} bytes"
    elif digest != entry["sha256"]:
        kind, came, expected = "altered", f"SHA-256 {digest[:12]}...", f"{str(entry['sha256'])[:12]}..."
    else:
        return
    raise BundleError(
        f"{name} of bundle {folder.name} is {kind}",
        came=came,
        expected=expected,
        do=_AGAIN,
    )


def parse_json(raw: bytes, name: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        BundleError: If it is something else.
    """
    try:
        values = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{name} is not JSON", came=type(error).__name__, do=_AGAIN) from error
    if not isinstance(values, dict):
        raise BundleError(f"{name} is not a JSON object", came=type(values).__name__)
    return values


# What bundles of every task are: a folder whose files are held against its config, strictly and before any is used.

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
