"""Files that torch.save writes: a zip archive with an entry a storage, or, before 2020, pickles in a row."""

from __future__ import annotations

import io
import struct
import zipfile
from typing import IO, Protocol

from textray.importer.inert import Storage, TensorView, load, refuse

_LARGEST_PICKLE = 2**27
_ZIP = b"PK\x03\x04"
_OLD_MAGIC = 0x1950A86A20F9469CFC6C
_OLD_PROTOCOL = 1001


class Container(Protocol):
    """An opened checkpoint.

    Attributes:
        root: What the pickle holds, inert.
        big_endian: True where numbers have their highest byte first.
    """

    root: object
    big_endian: bool

    def read(self, storage: Storage) -> bytes:
        """Bytes of a storage, exactly as many as its elements take."""
        ...


class ZipContainer:
    """The present form.

    Args:
        file: The opened file.
        skipped: Names of what is not read are added here.
    """

    def __init__(self, file: IO[bytes], skipped: set[str]) -> None:
        self._size = file.seek(0, io.SEEK_END)
        try:
            self._archive = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, EOFError) as error:
            refuse("the checkpoint is cut off or damaged", str(error)[:100], code="E_TRUNCATED")
        self._entries = {info.filename: info for info in self._archive.infolist()}
        pickles = [name for name in self._entries if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            refuse("the file is a zip archive, but no checkpoint", f"{len(pickles)} entries data.pkl")
        self._prefix = pickles[0].removesuffix("data.pkl")
        order = f"{self._prefix}byteorder"
        self.big_endian = order in self._entries and self._bytes(order, 16).strip() == b"big"
        self.root = load(io.BytesIO(self._bytes(pickles[0], _LARGEST_PICKLE)), skipped)

    def read(self, storage: Storage) -> bytes:
        """Bytes of a storage."""
        name, wanted = f"{self._prefix}data/{storage.key}", storage.numel * storage.kind.itemsize
        if name not in self._entries:
            refuse("the checkpoint lacks a storage that its tensors lie in", code="E_TRUNCATED")
        data = self._bytes(name, wanted)
        if len(data) != wanted:
            refuse("a storage of the checkpoint has another size than announced", f"{len(data)} of {wanted} bytes")
        return data

    def _bytes(self, name: str, most: int) -> bytes:
        info = self._entries[name]
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            refuse("the checkpoint's entries are compressed or encrypted, which torch never does")
        if info.file_size > most or info.header_offset + info.file_size > self._size:
            refuse("an entry of the checkpoint has an impossible size", f"{info.file_size} bytes", code="E_SIZE")
        try:
            with self._archive.open(info) as stream:
                return stream.read(most + 1)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError, struct.error) as error:
            refuse("the checkpoint is damaged", str(error)[:100], code="E_TRUNCATED")


class OldContainer:
    """The form of before 2020: magic number, protocol, system, content, keys of the storages, storages.

    Args:
        file: The opened file.
        skipped: Names of what is not read are added here.
    """

    def __init__(self, file: IO[bytes], skipped: set[str]) -> None:
        self._file, self._size = file, file.seek(0, io.SEEK_END)
        file.seek(0)
        if load(self._file, skipped) != _OLD_MAGIC or load(self._file, skipped) != _OLD_PROTOCOL:
            refuse("the file is a pickle, but no checkpoint")
        system = load(self._file, skipped)
        self.big_endian = isinstance(system, dict) and system.get("little_endian") is False
        self.root = load(self._file, skipped)
        keys = load(self._file, skipped)
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            refuse("the checkpoint has no list of storages")
        self._next, self._keys = self._file.tell(), keys
        self._places: dict[str, tuple[int, int]] = {}

    def read(self, storage: Storage) -> bytes:
        """Bytes of a storage."""
        if not self._places:
            self._places = _places(self._file, self._next, self._keys, self.big_endian, self.root)
        place = self._places.get(storage.key)
        wanted = storage.numel * storage.kind.itemsize
        if place is None or place[1] != storage.numel:
            refuse("a storage of the checkpoint has another size than announced")
        if place[0] + wanted > self._size:
            refuse("the checkpoint is cut off", f"{self._size} bytes", code="E_TRUNCATED")
        self._file.seek(place[0])
        return self._file.read(wanted)


def _places(file: IO[bytes], start: int, keys: list[str], big: bool, root: object) -> dict[str, tuple[int, int]]:
    """First byte and number of elements of each storage; sizes of elements come from the tensors that name it."""
    sizes: dict[str, int] = {}
    todo, seen = [root], set()
    while todo:
        item = todo.pop()
        if isinstance(item, TensorView):
            sizes[item.storage.key] = item.storage.kind.itemsize
        elif isinstance(item, dict | list | tuple) and id(item) not in seen:
            seen.add(id(item))
            todo.extend(item.values() if isinstance(item, dict) else item)
    found = {}
    for key in keys:
        file.seek(start)
        raw = file.read(8)
        if len(raw) < 8 or key not in sizes:
            break  # what comes after cannot be told; a tensor that needs it is refused
        numel = struct.unpack(">q" if big else "<q", raw)[0]
        if numel < 0:
            break
        found[key] = (start + 8, numel)
        start += 8 + numel * sizes[key]
    return found


def open_container(file: IO[bytes], skipped: set[str]) -> Container:
    """Open a checkpoint by its content; the file stays open as long as storages are to be read.

    Raises:
        InputError: If it is none, cut off, or damaged.
    """
    head = file.read(512)
    if head.startswith(_ZIP):
        return ZipContainer(file, skipped)
    if head.startswith(b"\x80\x02\x8a\x0a"):
        return OldContainer(file, skipped)
    return refuse("the file is no checkpoint", _kind(head))


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
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        return "a text"
    return "unknown bytes"
