"""JPEG streams: their layout from the markers, and whether their pixels are whole. Pillow passes over such faults."""

from __future__ import annotations

import re
from dataclasses import dataclass

import simplejpeg

JPEG_SIGNATURE = b"\xff\xd8\xff"
_SOF = {0xC0: None, 0xC1: None, 0xC2: None, 0xC3: "a lossless JPEG", 0xCB: "a lossless JPEG", 0xF7: "a JPEG-LS picture"}
_SOF |= dict.fromkeys((0xC5, 0xC6, 0xC7), "a hierarchical JPEG") | dict.fromkeys((0xC9, 0xCA), "an arithmetic JPEG")
_PROGRESSIVE, _SOS, _EOI = 0xC2, 0xDA, 0xD9
_LS = 0xF7
_IN_SCAN = frozenset((0x00, *range(0xD0, 0xD8)))  # behind 0xFF inside a scan: a stuffed zero, restart markers
_IN_SCAN_LS = frozenset((*range(0x80), *range(0xD0, 0xD8)))  # JPEG-LS stuffs a bit
_COEFFICIENTS = 64
_HARMLESS = re.compile(r"colou?r|Invalid SOS parameters|: \d{1,2} extraneous bytes", re.IGNORECASE)
"""Words of libjpeg about streams of odd writers whose pixels are whole."""


@dataclass(kw_only=True)
class Layout:
    """What the markers of a JPEG tell; ``kind`` names one that is not read (lossless, 12 bits and so on)."""

    height: int = 0
    width: int = 0
    kind: str | None = None
    scans: int = 0
    complete: bool = False  # it has its end, and a progressive one all of its scans


def layout(data: bytes) -> Layout:
    """Layout of a JPEG stream, as far as its markers can be followed."""
    found, at = Layout(), 2
    missing: dict[tuple[int, int], int] = {}  # bits to come, by component and coefficient, in a progressive JPEG
    while at + 4 <= len(data) or data[at : at + 2] == bytes((0xFF, _EOI)):
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at] != 0xFF:
            break
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker == _EOI:
            found.complete = found.scans > 0 and not any(missing.values())
            break
        body = data[at + 4 : at + 2 + length]
        at += 2 + length
        if marker in _SOF and len(body) >= 6:
            found.height, found.width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
            found.kind = _SOF[marker] or (f"a JPEG of {body[0]} bits" if body[0] != 8 else None)
            if marker == _PROGRESSIVE:
                missing = {(component, k): 1 for component in body[6::3] for k in range(_COEFFICIENTS)}
        elif marker == _SOS and len(body) >= 6:
            found.scans += 1
            first, last, bits = body[-3:]
            for component in body[1:-3:2]:
                for k in range(first, last + 1):
                    if (component, k) in missing:
                        missing[component, k] = bits & 15
            at = _end_of_scan(data, at, _IN_SCAN_LS if found.kind == _SOF[_LS] else _IN_SCAN)
    return found


def _end_of_scan(data: bytes, at: int, inside: frozenset[int]) -> int:
    """Place of the marker behind the entropy-coded bytes from ``at``, in which 0xFF precedes ``inside``."""
    while (at := data.find(b"\xff", at)) >= 0 and data[at + 1 : at + 2] and data[at + 1] in inside:
        at += 2
    return len(data) if at < 0 else at


def whole(data: bytes) -> bool:
    """False if libjpeg finds the pixels damaged: a hole, rubbish, or an end that comes too early."""
    try:
        simplejpeg.decode_jpeg(data, "GRAY", min_factor=8, strict=True)
    except ValueError as error:
        return bool(_HARMLESS.search(str(error)))
    return True
