"""Decoder process: compressed DICOM frames are decoded in a child with limits of memory and time.

Libraries in C abort, hang or take all memory on damaged streams. The child keeps that away from the caller: it is
started at the first frame, answers one frame after the other, and is started anew after a crash. It sends numbers only.
"""

from __future__ import annotations

import atexit
import io
import json
import os
import re
import struct
import subprocess
import sys
import threading
import warnings
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import generate_fragments, parse_basic_offsets
from pydicom.pixels import get_decoder
from pydicom.pixels.utils import get_j2k_parameters
from pydicom.uid import (
    UID,
    JPEG2000TransferSyntaxes,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSTransferSyntaxes,
    RLELossless,
)

from textray.io.raster import JPEG_SIGNATURE, LOSSLESS, LS, JpegLayout, jpeg_is_whole, jpeg_layout

SECONDS, SECONDS_A_MEGAPIXEL = 5.0, 1.5
"""Time limit of a frame, and what its size adds; the environment variable ``TEXTRAY_DECODE_SECONDS`` sets another."""
_START_SECONDS = 60.0  # the child imports its libraries before its first frame
_MEMORY = 1280 << 20  # bytes that the child may take beyond what its libraries take
_AS_STORED = {"correct_unused_bits": False, "apply_jls_sign_correction": False, "apply_j2k_sign_correction": False}
_SIZE = struct.Struct("<IQ")
_START = "from textray.io.decoder import _serve; _serve()"
_HEAD = 1 << 12  # bytes that hold the header of a JPEG 2000 file
_REFUSALS = ("does not support", "cannot decode", "only supports", "are supported")  # words of pydicom's plugins
_EXCESS = re.compile(r"RLE segment .* (\d+) vs\. (\d+) bytes")  # words of pydicom's warning
_MOST_EXCESS = 16  # bytes of filling at the end of a segment
_FRAME_STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  ")


class UndecodableError(Exception):
    """A frame that was not decoded: ``reason`` is damaged, size, kind, unsupported, crashed, slow or memory."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def seconds(rows: int, columns: int) -> float:
    """Time limit of a frame of this size."""
    try:
        return max(float(os.environ["TEXTRAY_DECODE_SECONDS"]), 0.1)
    except (KeyError, ValueError):
        return SECONDS + SECONDS_A_MEGAPIXEL * rows * columns / 1e6


def frames(data: bytes) -> int:
    """Number of frames of encapsulated pixel data, as far as offsets and the starts of its fragments tell."""
    stream = io.BytesIO(data)
    offsets = parse_basic_offsets(stream)  # leaves the stream at the first fragment
    starts = sum(fragment.startswith(_FRAME_STARTS) for fragment in generate_fragments(stream))
    return int(max(len(offsets), starts, 1))


def decode(data: bytes, syntax: UID, *, as_stored: bool, **tags: Any) -> tuple[NDArray[Any], str]:  # noqa: ANN401
    """Decode the one frame of encapsulated pixel data in the child; also the name of the decoder.

    Args:
        data: Value of PixelData.
        syntax: Its transfer syntax.
        as_stored: Give each sample's word as the stream has it, without any rule of bits or sign.
        tags: Options of `pydicom.pixels.get_decoder`'s ``as_array``: rows, columns and so on.

    Raises:
        UndecodableError: If there is no picture.
    """
    return _CHILD.ask({"syntax": str(syntax), "as_stored": as_stored, "tags": tags}, data)


def _decode(data: bytes, syntax: UID, as_stored: bool, tags: dict[str, Any]) -> tuple[NDArray[Any], str]:
    """Decode with the first decoder that can, in this process."""
    stream = _codestream(data)
    if as_stored:  # so no library cuts or shifts: the tags that rule bits and sign are applied later, to all alike
        jpeg2000 = get_j2k_parameters(stream) if syntax in JPEG2000TransferSyntaxes else {}
        signed = int(jpeg2000.get("is_signed", False))
        tags |= {"bits_stored": tags["bits_allocated"], "pixel_representation": signed, **_AS_STORED}
    jpeg = jpeg_layout(stream) if stream.startswith(JPEG_SIGNATURE) else None
    size = (jpeg.height, jpeg.width) if jpeg is not None and jpeg.height else _jpeg2000_size(stream)
    if size is not None and size != (tags["rows"], tags["columns"]):
        raise UndecodableError("size")
    decoder = get_decoder(syntax)
    reason = "unsupported"
    for plugin in decoder.available_plugins:
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                frame, _ = decoder.as_array(
                    data,
                    raw=as_stored,
                    number_of_frames=1,
                    pixel_keyword="PixelData",
                    decoding_plugin=plugin,
                    **tags,
                )
        except MemoryError:
            reason = "memory"
        except Exception as error:  # of many kinds; pydicom keeps the plugin's words
            if not any(words in str(error) for words in _REFUSALS):
                reason = "damaged"
        else:
            if jpeg is not None and not (jpeg.complete and (jpeg.kind is not None or jpeg_is_whole(stream))):
                raise UndecodableError("damaged")
            excess = [_EXCESS.search(str(warning.message)) for warning in caught]
            if any(found and int(found[1]) - int(found[2]) > _MOST_EXCESS for found in excess):
                raise UndecodableError("damaged")
            return frame, plugin
    raise UndecodableError(reason if _is_of(syntax, stream, jpeg) else "kind")


def _is_of(syntax: UID, stream: bytes, jpeg: JpegLayout | None) -> bool:
    """False for a stream that is plainly of another compression than its transfer syntax says."""
    if jpeg is None:
        return _jpeg2000_size(stream) is None or syntax in JPEG2000TransferSyntaxes
    if jpeg.kind == LOSSLESS:
        return syntax in (JPEGLossless, JPEGLosslessSV1)
    if jpeg.kind == LS:
        return syntax in JPEGLSTransferSyntaxes
    return syntax not in (
        *JPEGLSTransferSyntaxes,
        *JPEG2000TransferSyntaxes,
        JPEGLossless,
        JPEGLosslessSV1,
        RLELossless,
    )


def _codestream(data: bytes) -> bytes:
    """The compressed bytes of the one frame."""
    stream = io.BytesIO(data)
    parse_basic_offsets(stream)
    return b"".join(generate_fragments(stream))


def _jpeg2000_size(stream: bytes) -> tuple[int, int] | None:
    """Height and width by the SIZ marker of a JPEG 2000 codestream; ``None`` for another stream."""
    at = stream.find(b"\xff\x4f\xff\x51", 0, _HEAD)
    if at < 0 or len(stream) < at + 24:
        return None
    right, bottom, left, top = struct.unpack(">4I", stream[at + 8 : at + 24])
    return bottom - top, right - left


def _serve() -> None:
    """Answer requests on the standard input until it ends: the child's whole life."""
    stdin, stdout = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # a library that prints must not write into an answer
    with suppress(ImportError, OSError):  # systems without these limits
        import resource

        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + _MEMORY, taken + _MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _send(stdout, {}, b"")  # ready
    while (request := _receive(stdin)) is not None:
        order, data = request
        try:
            frame, name = _decode(data, UID(order["syntax"]), order["as_stored"], order["tags"])
            answer = {"shape": frame.shape, "type": frame.dtype.str, "decoder": name}
            _send(stdout, answer, np.ascontiguousarray(frame).data.cast("B"))
        except UndecodableError as error:
            _send(stdout, {"refused": error.reason}, b"")
        except MemoryError:
            _send(stdout, {"refused": "memory"}, b"")


def _send(stream: IO[bytes], head: dict[str, Any], body: bytes | memoryview) -> None:
    words = json.dumps(head).encode()
    stream.write(_SIZE.pack(len(words), len(body)) + words)
    stream.write(body)
    stream.flush()


def _receive(stream: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    sizes = stream.read(_SIZE.size)
    if len(sizes) < _SIZE.size:
        return None
    head, body = _SIZE.unpack(sizes)
    words, content = stream.read(head), stream.read(body)
    return (json.loads(words), content) if len(words) == head and len(content) == body else None


@dataclass
class _Child:
    """The child of this process, one frame at a time."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    process: subprocess.Popen[bytes] | None = None
    owner: int = 0

    def ask(self, order: dict[str, Any], data: bytes) -> tuple[NDArray[Any], str]:
        """Send a frame and wait for its answer."""
        tags = order["tags"]
        with self.lock:
            if self.process is None or self.owner != os.getpid() or self.process.poll() is not None:
                self._start()
                self._wait(_START_SECONDS)
            head, body = self._wait(seconds(tags["rows"], tags["columns"]), order, data)
        if "refused" in head:
            raise UndecodableError(head["refused"])
        return np.frombuffer(body, head["type"]).reshape(head["shape"]), head["decoder"]

    def _start(self) -> None:
        paths = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", _START],  # -P: no module of the present folder, which may hold anything
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
        self.owner = os.getpid()

    def _wait(
        self, limit: float, order: dict[str, Any] | None = None, data: bytes = b""
    ) -> tuple[dict[str, Any], bytes]:
        """Answer to an order, or the first sign of life; without one the child is ended."""
        process, slow = self.process, threading.Event()
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None

        def end() -> None:
            slow.set()
            process.kill()

        timer, answer = threading.Timer(limit, end), None
        timer.start()
        try:
            if order is not None:
                _send(process.stdin, order, data)
            answer = _receive(process.stdout)
        except OSError:  # the pipe of a child that died
            pass
        finally:
            timer.cancel()
            if (
                answer is None or slow.is_set()
            ):  # also after an interrupt: a late answer must not be that of another film
                self.stop()
        if answer is None:
            raise UndecodableError("slow" if slow.is_set() else "crashed")
        return answer

    def stop(self) -> None:
        """End the child."""
        if self.process is not None and self.owner == os.getpid():
            self.process.kill()
            self.process.communicate()
        self.process = None


_CHILD = _Child()
atexit.register(_CHILD.stop)
