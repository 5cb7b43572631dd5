"""Decoder process: compressed DICOM frames are decoded in a child with limits of memory and time.

The child (`textray.io.child`) is started at the first frame and anew after a crash. It sends numbers only.
"""

from __future__ import annotations

import atexit
import io
import os
import re
import struct
import warnings
from typing import Any

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

from textray.io.child import Child, ChildError, Message, serve
from textray.io.raster import JPEG_SIGNATURE, LOSSLESS, LS, JpegLayout, jpeg_is_whole, jpeg_layout

SECONDS, SECONDS_A_MEGAPIXEL = 5.0, 1.5
"""Time limit of a frame, and what its size adds; the environment variable ``TEXTRAY_DECODE_SECONDS`` sets another."""
_MEMORY = 1280 << 20  # bytes that the child may take beyond what its libraries take
_AS_STORED = {"correct_unused_bits": False, "apply_jls_sign_correction": False, "apply_j2k_sign_correction": False}
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
    order = {"syntax": str(syntax), "as_stored": as_stored, "tags": tags}
    try:
        head, body = _CHILD.ask(seconds(tags["rows"], tags["columns"]), order, data)
    except ChildError as error:
        raise UndecodableError(error.reason) from None
    if "refused" in head:
        raise UndecodableError(head["refused"])
    return np.frombuffer(body, head["type"]).reshape(head["shape"]), head["decoder"]


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


def _answer(order: dict[str, Any], data: bytes) -> Message:
    try:
        frame, name = _decode(data, UID(order["syntax"]), order["as_stored"], order["tags"])
    except UndecodableError as error:
        return {"refused": error.reason}, b""
    except MemoryError:
        return {"refused": "memory"}, b""
    head = {"shape": frame.shape, "type": frame.dtype.str, "decoder": name}
    return head, np.ascontiguousarray(frame).data.cast("B")


def _serve() -> None:
    """Decode until the standard input ends: the child's whole life."""
    serve(_answer, _MEMORY)


_CHILD = Child("from textray.io.decoder import _serve; _serve()")
atexit.register(_CHILD.stop)
