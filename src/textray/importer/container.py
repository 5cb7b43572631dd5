"""Files that torch.save writes: a zip archive with an entry a storage."""

from __future__ import annotations

import io
import struct
import zipfile
from typing import IO

from textray.importer.inert import Storage, load, refuse

_LARGEST_PICKLE = 2**27
_ZIP = b"PK\x03\x04"
_BEFORE_2020 = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # pickle of the number that such files begin with


class Container:
    """An opened checkpoint.

    Args:
        file: The opened file.
        skipped: Names of what is not read are added here.

    Attributes:
        root: What the pickle holds, inert.
        big_endian: True where numbers have their highest byte first.
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
        """Bytes of a storage, exactly as many as its elements take."""
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


def open_container(file: IO[bytes], skipped: set[str]) -> Container:
    """Open a checkpoint by its content; the file stays open as long as storages are to be read.

    Raises:
        InputError: If it is none, of the form of before 2020, cut off, or damaged.
    """
    head = file.read(512)
    if head.startswith(_ZIP):
        return Container(file, skipped)
    if head.startswith(_BEFORE_2020):
        refuse(
            "the checkpoint has the form of before torch 1.6 (2020), which is not read",
            do="If you trust its source, load it in a current torch and save it again with torch.save",
        )
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
