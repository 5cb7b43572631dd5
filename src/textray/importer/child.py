"""The process that reads a checkpoint: ``python -m textray.importer.child FILE FOLDER``.

It writes the tensors of ``state_dict`` to ``FOLDER/tensors.safetensors`` and what it says to ``FOLDER/told.json``.
Its memory, time and files are limited, and an audit hook ends it where anything tries to start a program, to reach the
network, or to change a file outside of that folder: a second wall behind `textray.importer.inert`, which never gives a
pickle anything to run.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import struct
import sys
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from textray.errors import InputError
from textray.importer.container import Container, open_container
from textray.importer.inert import TensorView, refuse

TENSORS, TOLD = "tensors.safetensors", "told.json"
MOST_MEMORY = 2**32
MOST_OUTPUT = 2**33
MOST_SECONDS = 900
_MOST_GROWTH = 4  # tensors may share bytes in the file, not here; tied weights at most double it
_MOST_TENSORS = 100_000
_LONGEST_NAME = 512
_FACTS = ("epoch", "global_step", "pytorch-lightning_version")
# "pickle.find_class" is raised where a pickle's name is truly looked up, which the inert unpickler never does.
_FORBIDDEN = (
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.startfile", "subprocess.", "socket.", "pty.",
    "pickle.find_class", "ctypes.", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.truncate",
    "os.chmod", "os.chown", "os.kill", "shutil.",
)  # fmt: skip
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_NUMPY = {"F32": "f4", "F64": "f8", "F16": "f2", "BF16": "u2", "I64": "i8", "I32": "i4", "I16": "i2"}


def read(path: Path, folder: Path) -> dict[str, Any]:
    """Read a checkpoint and write its tensors.

    Returns:
        ``skipped``: names of objects that were not read; ``other``: entries of ``state_dict`` that are no tensors;
        ``facts``: plain values that say where it comes from.

    Raises:
        InputError: If it is no checkpoint, cut off, damaged, or lies about sizes.
    """
    with path.open("rb") as file:
        return _read(file, folder)


def _read(file: IO[bytes], folder: Path) -> dict[str, Any]:
    skipped: set[str] = set()
    container = open_container(file, skipped)
    root = container.root if isinstance(container.root, dict) else {}
    state = root.get("state_dict")
    if not isinstance(state, dict):
        refuse("the checkpoint holds no state_dict")
    tensors = {name: value for name, value in state.items() if isinstance(value, TensorView)}
    if not tensors or len(state) > _MOST_TENSORS:
        refuse("the checkpoint's state_dict holds no tensors, or too many", len(state))
    if not all(isinstance(name, str) and len(name) <= _LONGEST_NAME and name.isprintable() for name in state):
        refuse("the checkpoint's state_dict has names that are no names of tensors")
    if sum(view.nbytes for view in tensors.values()) > min(MOST_OUTPUT, _MOST_GROWTH * file.seek(0, io.SEEK_END)):
        refuse("the checkpoint's tensors are too large for its file", code="E_SIZE")
    _write(container, tensors, folder / TENSORS)
    facts = {key: _fact(root.get(key)) for key in _FACTS}
    return {
        "skipped": sorted(skipped),
        "other": sorted(name for name in state if name not in tensors),
        "facts": {key: value for key, value in facts.items() if value is not None},
    }


def _fact(value: object) -> int | str | None:
    if type(value) is int and 0 <= value < 2**53:
        return value
    return value[:50] if type(value) is str and value[:50].isprintable() else None


def _write(container: Container, tensors: dict[str, TensorView], path: Path) -> None:
    """Write a safetensors file tensor by tensor, so that the memory holds one storage at a time."""
    header, end = {}, 0
    for name, view in tensors.items():
        start, end = end, end + view.nbytes
        header[name] = {"dtype": view.storage.kind.dtype, "shape": view.shape, "data_offsets": (start, end)}
    if "__metadata__" in header:
        refuse("the checkpoint's state_dict has names that are no names of tensors")
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        for view in tensors.values():
            file.write(_elements(container, view).tobytes())


def _elements(container: Container, view: TensorView) -> NDArray[Any]:
    dtype = np.dtype(_NUMPY.get(view.storage.kind.dtype, "u1")).newbyteorder(">" if container.big_endian else "<")
    if not math.prod(view.shape):
        return np.empty(0, dtype)
    flat = np.frombuffer(container.read(view.storage), dtype)
    if not view.inside or flat.size != view.storage.numel:  # what follows would read outside of the bytes
        refuse("a tensor of the checkpoint lies outside of its storage")
    strides = [step * dtype.itemsize for step in view.stride]
    found = np.lib.stride_tricks.as_strided(flat[view.offset :], view.shape, strides, writeable=False)
    return found.astype(dtype.newbyteorder("<"))


def _limit() -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limits; the time limit of the parent holds there too
        return
    for kind, most in (
        (resource.RLIMIT_AS, MOST_MEMORY),
        (resource.RLIMIT_CPU, MOST_SECONDS),
        (resource.RLIMIT_FSIZE, MOST_OUTPUT + 2**26),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
        with contextlib.suppress(ValueError, OSError):  # macOS refuses a limit of the address space
            resource.setrlimit(kind, (wanted, wanted))


def _build_wall(folder: str) -> None:
    """End this process where it does what no reading of a checkpoint does."""
    sys.dont_write_bytecode = True  # a module imported late must not count as writing
    inside = Path(os.path.abspath(folder))  # noqa: PTH100 -- links keep their names

    def forbid(event: str, args: tuple[Any, ...]) -> None:
        if event.startswith(_FORBIDDEN) or (event == "open" and args[2] & _WRITES and not _below(args[0], inside)):
            os._exit(70)

    sys.addaudithook(forbid)


def _below(path: object, folder: Path) -> bool:
    return isinstance(path, str) and Path(os.path.abspath(path)).parent == folder  # noqa: PTH100 -- as above


def main(source: str, folder: str) -> int:
    """Read ``source`` into ``folder``; returns the exit code, 0 or 3."""
    _limit()
    _build_wall(folder)
    try:
        told, code = read(Path(source), Path(folder)), 0
    except InputError as error:
        came = None if error.came is None else f"{error.came}"
        told = {"refused": {"code": error.code, "what": error.what, "came": came, "do": error.do}}
        code = error.exit_code
    except MemoryError:
        told, code = {"refused": {"code": "E_SIZE", "what": "the checkpoint needs too much memory", "came": None}}, 3
    except OSError as error:
        with contextlib.suppress(OSError):
            (Path(folder) / TENSORS).write_bytes(b"")  # on a full disk the answer needs its place
        told, code = {"refused": {"code": "E_DISK", "what": "reading failed", "came": error.strerror}}, 1
    (Path(folder) / TOLD).write_text(json.dumps(told), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
