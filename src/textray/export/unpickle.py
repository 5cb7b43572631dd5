"""Reader of published checkpoints, which are pickles: torch's restricted unpickler in a process of its own.

A pickle is a program that may call any function by name. ``torch.load(weights_only=True)`` calls a few of torch's own
and refuses a file that names another. Here such a name stands for an inert `Placeholder`, so that a foreign
configuration is skipped and not run. The process, ``python -m textray.export.unpickle FILE FOLDER``, writes two files
to the folder. Its memory, time and output are limited, and an audit hook ends it where anything starts a program,
reaches the network, or changes a file elsewhere: a second wall, which no file should reach.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from textray.errors import DiskError, InputError, TextRayError, UsageError

TENSORS, TOLD = "tensors.safetensors", "told.json"
LARGEST, MOST_MEMORY, MOST_OUTPUT, MOST_SECONDS = 2**34, 2**32, 2**33, 900
_LARGEST_PICKLE = 2**25  # real ones have some hundred kB; torch takes up to two seconds a MB
_MOST_GROWTH = 4  # tensors may share bytes in the file, not here; tied weights at most double it
_MOST_TENSORS, _MOST_NAMES, _LONGEST = 100_000, 1000, 200
_FACTS = ("epoch", "global_step", "pytorch-lightning_version")
_SYSTEM = ("os", "posix", "nt", "sys")  # modules of which torch allows nothing, under any name
_DTYPES = {torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.bool,
           torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8}  # fmt: skip
_FORBIDDEN = (  # "pickle.find_class" is raised where Python's own unpickler looks a name up
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.startfile", "subprocess.", "socket.", "pty.",
    "pickle.find_class", "ctypes.", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.truncate",
    "os.chmod", "os.chown", "os.kill", "shutil.",
)  # fmt: skip
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_AGAIN = "Download it again"
_RESAVE = "If you trust its authors, save it again in a current torch: torch.save(torch.load(path), new)"


@dataclass(frozen=True, kw_only=True)
class Published:
    """A checkpoint that was read.

    Attributes:
        name: The file's, on one line whatever the file is called.
        tensors: Safetensors file with the tensors of its ``state_dict``, by their published names.
        skipped: Names of classes and functions in it that were neither imported nor run.
        other: Entries of its ``state_dict`` that are no tensors.
        facts: Epoch, step and Lightning's version, where it says them.
    """

    name: str
    tensors: Path
    skipped: tuple[str, ...]
    other: tuple[str, ...]
    facts: dict[str, Any]
    sha256: str
    nbytes: int


def read_published(path: str | Path, folder: Path) -> Published:
    """Read a checkpoint in a process of its own, which writes to an empty folder, without running anything in it.

    Raises:
        UsageError: If there is no such file, or it cannot be read.
        InputError: If it is no checkpoint, or refused for what it does or claims.
        DiskError: If the disk fails or is full.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError("no such checkpoint", came=path, expected="a checkpoint file as its authors published it")
    if (nbytes := path.stat().st_size) > LARGEST:
        raise InputError("the checkpoint is too large", came=nbytes, expected=f"<= {LARGEST} bytes", code="E_SIZE")
    try:
        str(path.absolute()).encode()
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except UnicodeEncodeError as error:
        raise UsageError("torch reads no file of such a name", came=ascii(str(path)), do="Rename it") from error
    except OSError as error:
        raise UsageError(f"{path.name} cannot be read", came=error.strerror) from error
    try:
        done = subprocess.run(
            # -P: a file in the present folder must not stand in for a module
            [sys.executable, "-P", "-m", __name__, os.path.abspath(path), os.path.abspath(folder)],  # noqa: PTH100 -- links keep their names
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=MOST_SECONDS,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(
            f"{path.name} could not be read in time", came=f"{MOST_SECONDS} s", expected="seconds", code="E_SIZE"
        ) from error
    try:
        told: dict[str, Any] = json.loads((folder / TOLD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"the process that reads {path.name} ended without an answer",
            came=f"exit code {done.returncode}",
            expected="a checkpoint as its authors published it",
            do="Download it again; if it comes from elsewhere, do not use it",
        ) from error
    if refused := told.get("refused"):
        kind = DiskError if refused["code"] == "E_DISK" else InputError
        raise kind(f"{path.name}: {refused.pop('what')}", **refused)
    return Published(
        name="".join(c if c.isprintable() else "?" for c in path.name),
        tensors=folder / TENSORS,
        skipped=tuple(told["skipped"]),
        other=tuple(told["other"]),
        facts=dict(told["facts"]),
        sha256=sha256,
        nbytes=nbytes,
    )


class _Container(type):
    """Type of `Placeholder`: equal to `dict`, since torch asks by ``==`` whether items may be set in an object.

    Without it files with a foreign dictionary are refused: MMI-UNet's and GuideDecoder's hold one, their configuration.
    """

    def __eq__(cls, other: object) -> bool:
        return other is cls or other is dict

    __hash__ = type.__hash__


class Placeholder(metaclass=_Container):
    """Object of a class or function that is not imported; whatever is done to it does nothing."""

    __slots__ = ()

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass


def read(path: Path, folder: Path) -> dict[str, Any]:
    """Read a checkpoint and write its tensors, the work of the process; the other values are as in `Published`.

    Raises:
        InputError: If it is no checkpoint, cut off, damaged, names a function of the system, or lies about sizes.
        DiskError: If the tensors cannot be written.
    """
    sizes = _check_archive(path)
    root, skipped = _load(path)
    state = root.get("state_dict")
    if not isinstance(state, dict):
        _refuse("the checkpoint holds no state_dict")
    state = dict(dict.items(state))  # a pickle can give an ordered dictionary other methods, and a tensor too
    tensors = {name: Tensor.detach(value) for name, value in state.items() if _is_plain(value)}
    if not tensors or len(state) > _MOST_TENSORS:
        _refuse("the checkpoint's state_dict holds no tensors, or too many", len(state))
    if "__metadata__" in state or not all(
        isinstance(name, str) and len(name) <= _LONGEST and name.isprintable() for name in state
    ):
        _refuse("the checkpoint's state_dict has names that are no names of tensors")
    if sum(value.nbytes for value in tensors.values()) > min(MOST_OUTPUT, _MOST_GROWTH * path.stat().st_size):
        _refuse("the checkpoint's tensors are too large for its file", code="E_SIZE")
    for name, value in tensors.items():
        if (held := value.untyped_storage().nbytes()) not in sizes or value.nbytes > held:
            _refuse("a tensor of the checkpoint has another storage than announced", name)
    try:
        save_file({k: v.clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}, folder / TENSORS)
    except (SafetensorError, OSError) as error:
        raise DiskError("its tensors could not be written", came=f"{error}"[:_LONGEST]) from error
    facts = {key: fact for key in _FACTS if (fact := _fact(root.get(key))) is not None}
    return {"skipped": skipped, "other": sorted(state.keys() - tensors.keys()), "facts": facts}


def _refuse(what: str, came: object = None, *, do: str = _AGAIN, code: str = "E_FORMAT") -> NoReturn:
    raise InputError(what, came=came, expected="a checkpoint as torch.save writes it", do=do, code=code)


def _check_archive(path: Path) -> set[int]:
    """Refuse what is no whole checkpoint by its content; returns the sizes of its entries."""
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(b"\x80\x02\x8a\x0a") or head[257:262] == b"ustar":
        _refuse("the checkpoint has a form of before 2020, which is not read", do=_RESAVE)
    if not head.startswith(b"PK\x03\x04"):
        _refuse("the file is no checkpoint", _kind(head))
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            pickles = [entry.file_size for entry in entries if entry.filename.rpartition("/")[2] == "data.pkl"]
            if any(entry.filename.endswith("/constants.pkl") for entry in entries):
                _refuse("the file is a TorchScript archive, which holds a program, and no checkpoint")
            if len(pickles) != 1:
                _refuse("the file is a zip archive, but no checkpoint", f"{len(pickles)} entries data.pkl")
            if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries):
                _refuse("the checkpoint's entries are compressed or encrypted, which torch never does")
            if sum(entry.file_size for entry in entries) > path.stat().st_size or pickles[0] > _LARGEST_PICKLE:
                _refuse("an entry of the checkpoint has an impossible size", code="E_SIZE")
            if (damaged := archive.testzip()) is not None:
                _refuse("the checkpoint is damaged", damaged[:_LONGEST], code="E_TRUNCATED")
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError, struct.error) as error:
        _refuse("the checkpoint is cut off or damaged", str(error)[:_LONGEST], code="E_TRUNCATED")
    return {entry.file_size for entry in entries}


def _kind(head: bytes) -> str:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "an empty file"
    if text.startswith((b"<!doctype html", b"<html", b"<?xml", b"<head")):
        return "an HTML page"
    if text.startswith((b"version https://git-lfs", b"<")):
        return "a text that stands in for the file"
    if head[:1] == b"\x80":
        return "a bare pickle"
    return "a text" if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head) else "unknown bytes"


def _load(path: Path) -> tuple[dict[Any, Any], list[str]]:
    """The checkpoint's dictionary, its tensors mapped from the file, and the names of foreign objects."""
    try:
        names = sorted(get_unsafe_globals_in_checkpoint(path))
        if system := [name for name in names if name.partition(".")[0] in _SYSTEM]:
            do = "Do not use it: it was made to run a program where it is opened"
            _refuse("the checkpoint's pickle names a function of the operating system", system[0][:_LONGEST], do=do)
        if len(names) > _MOST_NAMES:
            _refuse("the checkpoint's pickle names too many classes and functions", len(names))
        with safe_globals([(Placeholder, name) for name in names]):
            # mapped: only tensors that are used are read, and no claim reaches memory outside of the file
            root = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (InputError, MemoryError):
        raise
    except EOFError:
        _refuse("the checkpoint's pickle is cut off", code="E_TRUNCATED")
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to say
        why = str(error).rpartition("WeightsUnpickler error: ")[2].strip().partition("\n")[0][:_LONGEST]
        if "allocate memory" in str(error):
            raise MemoryError from error
        if isinstance(error, pickle.UnpicklingError):
            what = "does what no checkpoint does, or is not of torch.save's own protocol 2"
            _refuse(f"the checkpoint's pickle {what}", why, do=f"{_AGAIN}. {_RESAVE}")
        if isinstance(error, RuntimeError):
            _refuse("a tensor of the checkpoint lies outside of its storage, or has none", why)
        _refuse("the checkpoint's pickle cannot be read", why or type(error).__name__)
    return dict(dict.items(root)) if isinstance(root, dict) else {}, [name[:_LONGEST] for name in names]


def _is_plain(value: Any) -> bool:  # noqa: ANN401 -- anything that a pickle holds
    """True for a tensor of numbers in memory; the others that torch rebuilds (sparse, quantised, nested) are none."""
    return (
        type(value) in (Tensor, torch.nn.Parameter)
        and (value.layout, value.device.type, value.is_nested) == (torch.strided, "cpu", False)
        and value.dtype in _DTYPES
    )


def _fact(value: object) -> int | str | None:
    if type(value) is int and 0 <= value < 2**53:
        return value
    return value[:50] if type(value) is str and value[:50].isprintable() else None


def _build_walls(nbytes: int, folder: str) -> None:
    """Limit this process, and end it where it does what no reading of a checkpoint of ``nbytes`` does."""
    if sys.platform != "win32":  # which has no such limits; the time limit of the parent holds there too
        import resource

        for kind, most in (
            (resource.RLIMIT_DATA, MOST_MEMORY + nbytes),  # RLIMIT_AS would count torch's libraries
            (resource.RLIMIT_CPU, MOST_SECONDS),
            (resource.RLIMIT_FSIZE, MOST_OUTPUT + 2**26),
            (resource.RLIMIT_CORE, 0),
        ):
            with suppress(ValueError, OSError):  # a stricter limit stays; macOS refuses one of memory
                resource.setrlimit(kind, (most, resource.getrlimit(kind)[1]))
    sys.dont_write_bytecode = True  # a module imported late must not count as writing
    inside = os.path.abspath(folder)  # noqa: PTH100 -- links keep their names

    def forbid(event: str, args: tuple[Any, ...]) -> None:
        if event.startswith(_FORBIDDEN) or (event == "open" and args[2] & _WRITES and not is_inside(args[0])):
            os._exit(70)

    def is_inside(path: object) -> bool:
        return isinstance(path, str) and os.path.dirname(os.path.abspath(path)) == inside  # noqa: PTH100, PTH120

    sys.addaudithook(forbid)


def main(source: str, folder: str) -> int:
    """Read ``source`` into ``folder`` as a process of its own; returns the exit code, 0, 1 or 3."""
    _build_walls(Path(source).stat().st_size, folder)
    error: TextRayError | None = None
    try:
        told = read(Path(source), Path(folder))
    except TextRayError as caught:
        error = caught
    except MemoryError:
        error = InputError("the checkpoint needs too much memory", do=_AGAIN, code="E_SIZE")
    except OSError as caught:
        error = DiskError("it could not be read to the end", came=caught.strerror)
    if error is not None:
        told = {"refused": {key: getattr(error, key) for key in ("what", "came", "expected", "do", "code")}}
        with suppress(OSError):
            (Path(folder) / TENSORS).write_bytes(b"")  # on a full disk the answer needs its place
    (Path(folder) / TOLD).write_text(json.dumps(told), encoding="utf-8")
    return 0 if error is None else error.exit_code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
