"""DICOM pixel data to shown grey levels: stored values, modality values, window, polarity (PS3.3 C.11, C.7.6.3).

pydicom converts the value of an element at its first use, and then raises or warns with the value in its words. Values
may identify a patient, so its warnings, log lines and exceptions never leave this package: a bad value is ``None``.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, get_decoder, pixel_array
from pydicom.uid import UID, JPEG2000TransferSyntaxes

from textray.errors import InputError
from textray.io.decoder import UndecodableError, decode, frames, seconds
from textray.io.levels import Levels, count, percentiles, share
from textray.io.raster import body_range, check_content, check_size, grey_from_channels, silent_warnings
from textray.records import Notice

MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
PERCENTILES = (0.5, 99.5)
"""Range of a film without a usable window."""
_LEAST_FILM = 0.1  # share of a film that padding leaves; with less its tag is wrong
_MOST_SATURATED = 0.5  # share of a film that a window may turn black or white
_BLACK = 0.002
_LEAST_SHOWN = 1 / 64  # share of the range from black to white that the film takes at least
_AIR = -1000.0  # HU
_MOST_JUMPS = 0.005  # share of neighbours in a row that may differ by half of the range
_BITS = Notice(
    code="W_BITS",
    text="The film's values jump as if they were cut: BitsStored, HighBit or PixelRepresentation is wrong.",
    remedy="Look at the overlay; export the film again.",
)
_DAMAGED = "the DICOM pixel data is cut off or damaged"
_CAME = {
    "damaged": "pixel data that does not decode",
    "size": "pixel data of another size than the tags say",
    "crashed": "pixel data at which the decoder crashes",
    "memory": "pixel data that takes too much memory to decode",
}


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress pydicom's warnings and log lines; one thread at a time, since both are settings of the process."""
    log = logging.getLogger("pydicom")
    with silent_warnings():
        before, log.disabled = log.disabled, True
        try:
            yield
        finally:
            log.disabled = before


def _raw(ds: Dataset, keyword: str) -> Any:  # noqa: ANN401 -- whatever the element holds
    content = ds.get(keyword)
    return None if content is None or content == "" else content


def value(ds: Dataset, keyword: str) -> Any:  # noqa: ANN401 -- whatever the element holds
    """Value of an element, ``None`` if it is absent, empty, or cannot be converted."""
    try:
        return _raw(ds, keyword)
    except Exception:  # of many kinds in pydicom
        return None


def numbers(ds: Dataset, keyword: str) -> tuple[float, ...] | None:
    """Numbers of an element, ``None`` if it is absent or any of them is not finite."""
    content = value(ds, keyword)
    try:
        parts = [float(content)] if isinstance(content, int | float | str) else [float(part) for part in content]
    except (TypeError, ValueError, OverflowError):
        return None
    return tuple(parts) if parts and all(math.isfinite(part) for part in parts) else None


def integer(ds: Dataset, keyword: str) -> int | None:
    """The one integer of an element, ``None`` if it has none."""
    parts = numbers(ds, keyword)
    return int(parts[0]) if parts is not None and len(parts) == 1 and parts[0] == int(parts[0]) else None


def words(ds: Dataset, keyword: str) -> tuple[str, ...]:
    """Strings of an element in capitals, without blanks around; empty if it is absent."""
    content = value(ds, keyword)
    try:
        parts = [content] if isinstance(content, str) else list(content)
    except TypeError:
        return ()
    return tuple(str(part).strip().upper() for part in parts)


def known_word(ds: Dataset, keyword: str, known: frozenset[str]) -> str | None:
    """The one string of an element if it is in ``known``, so that no free text gets into a record."""
    parts = words(ds, keyword)
    return parts[0] if len(parts) == 1 and parts[0] in known else None


def tag_error(keyword: str, came: object, expected: object) -> InputError:
    """Refusal of a file for one element; ``came`` must not be free text of the file."""
    what = f"the DICOM tag {keyword} is missing or wrong"
    return InputError(what, came=came, expected=expected, do="Export it again.", code="E_DICOM_TAG")


def truncated(what: str, came: str | None) -> InputError:
    """Refusal of a file whose pixel data is not complete."""
    do = "Fetch the file again."
    return InputError(what, came=came, expected="complete pixel data", do=do, code="E_TRUNCATED")


def multi_frame(came: str) -> InputError:
    """Refusal of a file with more than one frame."""
    return InputError("the DICOM file is multi-frame", came=came, expected="one frame", code="E_MULTIFRAME")


def _given(ds: Dataset, keyword: str) -> bool:
    """True for an element with a value, readable or not."""
    try:
        return _raw(ds, keyword) is not None
    except Exception:  # its value cannot be converted
        return True


def _number(ds: Dataset, keyword: str, default: float) -> float:
    parts = numbers(ds, keyword)
    if parts is None and _given(ds, keyword):
        raise tag_error(keyword, "no finite number", "one number")
    return default if parts is None else parts[0]


def _positive(ds: Dataset, keyword: str) -> int:
    number = integer(ds, keyword)
    if number is None or number < 1:
        raise tag_error(keyword, number, "a positive number")
    return number


@dataclass(frozen=True, kw_only=True)
class PixelTags:
    """Layout of the pixel data, from checked elements."""

    rows: int
    columns: int
    samples: int
    allocated: int
    stored: int
    high_bit: int
    signed: bool
    photometric: str

    @classmethod
    def of(cls, ds: Dataset) -> PixelTags:
        """Read and check the elements before memory of their size is allocated."""
        rows, columns = (_positive(ds, keyword) for keyword in ("Rows", "Columns"))
        check_size(rows, columns)
        if "NumberOfFrames" in ds and value(ds, "NumberOfFrames") is not None:
            count = integer(ds, "NumberOfFrames")
            if count is None or count < 1:
                raise tag_error("NumberOfFrames", count, "a positive number, or no tag")
            if count > 1:
                raise multi_frame(f"{count} frames")
        photometric = words(ds, "PhotometricInterpretation")
        known = MONOCHROME + COLOUR
        if len(photometric) != 1 or photometric[0] not in known:
            raise tag_error("PhotometricInterpretation", "another value" if photometric else None, ", ".join(known))
        samples = integer(ds, "SamplesPerPixel")
        expected = 1 if photometric[0] in (*MONOCHROME, "PALETTE COLOR") else 3
        if samples != expected:
            raise tag_error("SamplesPerPixel", samples, f"{expected} for {photometric[0]}")
        allocated = _positive(ds, "BitsAllocated")
        if allocated not in ((8, 16, 32) if expected == 1 else (8, 16)):
            raise tag_error("BitsAllocated", allocated, "8 or 16, or 32 for one grey channel")
        stored = _positive(ds, "BitsStored")
        if stored > allocated:
            raise tag_error("BitsStored", stored, f"at most BitsAllocated, {allocated}")
        high_bit = integer(ds, "HighBit") if "HighBit" in ds else stored - 1
        if high_bit is None or not stored - 1 <= high_bit < allocated:
            raise tag_error("HighBit", high_bit, f"{stored - 1} to {allocated - 1}")
        signed = integer(ds, "PixelRepresentation")
        if signed not in (0, 1):
            raise tag_error("PixelRepresentation", signed, "0 or 1")
        return cls(
            rows=rows,
            columns=columns,
            samples=samples,
            allocated=allocated,
            stored=stored,
            high_bit=high_bit,
            signed=signed == 1,
            photometric=photometric[0],
        )


def shown(ds: Dataset, tags: PixelTags, syntax: UID) -> tuple[Levels, dict[str, Any], tuple[Notice, ...]]:
    """Pixels ``(H, W)`` in [0, 1] as a viewer shows them first, bright dense; facts for the record; warnings.

    The order: stored values by BitsStored, HighBit and sign; modality LUT or rescale; the first VOI LUT, else the first
    window, else the percentiles 0.5 and 99.5, each only if it shows most of the film; then MONOCHROME1 is inverted,
    once. Padding (PixelPaddingValue) and values far from all others count in no range; padding is drawn as air.
    It is computed once for each value that occurs.
    """
    samples, decoder = _decode(ds, tags, syntax)
    facts: dict[str, Any] = {} if decoder is None else {"decoder": decoder}
    if tags.photometric == "PALETTE COLOR":
        colours = apply_color_lut(_stored_values(samples, tags), ds)
        film, tint = grey_from_channels(colours, int(np.iinfo(colours.dtype).max))
        return film, facts | {"window": {"from": "palette"}}, tint
    if tags.photometric in COLOUR:
        top = 2**tags.stored - 1
        film, tint = grey_from_channels(np.minimum(samples, top) if samples.max() > top else samples, top)
        return film, facts | {"window": {"from": "full range"}}, tint
    levels, kinds = _levels(samples, tags)
    counts = count(levels, len(kinds))
    used = np.flatnonzero(counts)
    stored, often = kinds[used], counts[used]
    check_content(stored)
    padding = _padding(ds, tags, stored, often)
    values, ignored = _modality(ds, stored, often)
    check_content(values)
    low, high = body_range(values[~padding], often[~padding])
    body = ~padding & (values >= low) & (values <= high)
    pixels, window, notices = _voi(ds, values, body, often, ignored)
    if tags.photometric == "MONOCHROME1":
        np.subtract(np.float32(1), pixels, out=pixels)
    pixels[padding] = 0
    if not body.all():
        facts["left_out"] = {
            "padding": 1 - share(~padding, often),
            "far_values": share(~body & ~padding, often),
        }
    if _wraps(samples, tags):
        notices += (_BITS,)
    table = np.zeros(len(kinds), np.float32)
    table[used] = pixels
    return Levels(levels, table, counts), facts | {"window": window}, notices


def _levels(samples: NDArray[Any], tags: PixelTags) -> tuple[NDArray[Any], NDArray[Any]]:
    """Levels ``(H, W)`` of a film, and the stored value of each: samples of up to 16 bits are levels themselves."""
    if tags.allocated <= 16:
        levels = samples.astype(f"u{tags.allocated // 8}", copy=False)
        return levels, _stored_values(np.arange(1 << tags.allocated), tags)
    kinds, places = np.unique(_stored_values(samples, tags), return_inverse=True)
    return places.reshape(samples.shape).astype(np.uint32), kinds


def hounsfield(ds: Dataset, tags: PixelTags, syntax: UID) -> tuple[NDArray[np.float32], tuple[Notice, ...]]:
    """Values ``(H, W)`` of a CT slice in HU, and warnings; padding is air."""
    if tags.photometric != "MONOCHROME2":
        raise tag_error("PhotometricInterpretation", tags.photometric, "MONOCHROME2 for a CT")
    if numbers(ds, "RescaleSlope") is None or numbers(ds, "RescaleIntercept") is None:
        raise tag_error("RescaleSlope or RescaleIntercept", None, "a number each, which make HU")
    samples, _ = _decode(ds, tags, syntax)
    levels, kinds = _levels(samples, tags)
    counts = count(levels, len(kinds))
    used = np.flatnonzero(counts)
    values, _ = _modality(ds, kinds[used], counts[used])
    values[_padding(ds, tags, kinds[used], counts[used])] = _AIR
    table = np.zeros(len(kinds), np.float32)
    table[used] = values
    return table[levels], (_BITS,) if _wraps(samples, tags) else ()


def _padding(ds: Dataset, tags: PixelTags, stored: NDArray[Any], often: NDArray[np.int64]) -> NDArray[np.bool_]:
    """For each stored value, if PixelPaddingValue, up to PixelPaddingRangeLimit, calls it padding; if film is left."""
    none = np.zeros(len(stored), np.bool_)
    first = integer(ds, "PixelPaddingValue")
    if first is None:
        return none
    last = integer(ds, "PixelPaddingRangeLimit")
    ends = [end % (1 << tags.allocated) for end in (first, first if last is None else last)]
    low, high = sorted(_stored_values(np.array(ends), tags).tolist())
    padding: NDArray[np.bool_] = (stored >= low) & (stored <= high)
    rest = stored[~padding]
    return padding if share(~padding, often) >= _LEAST_FILM and rest.min() < rest.max() else none


def _decode(ds: Dataset, tags: PixelTags, syntax: UID) -> tuple[NDArray[Any], str | None]:
    """Words of BitsAllocated ``(H, W)``, or colours ``(H, W, 3)``, and the name of the decoder of a compressed film."""
    if syntax.is_encapsulated:
        return _decompress(ds, tags, syntax)
    channels = 2 if tags.photometric == "YBR_FULL_422" else tags.samples
    needed = tags.rows * tags.columns * channels * tags.allocated // 8
    if len(ds.PixelData) < needed:
        raise truncated(_DAMAGED, f"{len(ds.PixelData)} of {needed} bytes")
    if len(ds.PixelData) >= 2 * needed:
        raise multi_frame(f"pixel data of {len(ds.PixelData) // needed} frames")
    if tags.samples == 3:
        return np.asarray(pixel_array(ds)), None
    data = bytes(ds.PixelData)
    if tags.allocated == 8 and not syntax.is_little_endian and ds["PixelData"].VR == "OW":
        data = np.frombuffer(data[: len(data) // 2 * 2], np.uint8).reshape(-1, 2)[:, ::-1].tobytes()
    order = "<" if syntax.is_little_endian else ">"
    samples = np.frombuffer(data, f"{order}u{tags.allocated // 8}", count=tags.rows * tags.columns)
    return samples.reshape(tags.rows, tags.columns), None


def _stored_values(samples: NDArray[Any], tags: PixelTags) -> NDArray[Any]:
    """Values of words of BitsAllocated by BitsStored, HighBit and sign, whatever decoded them."""
    # Other bits may hold overlays or rubbish: shift up to cut them off above, down again with sign.
    values: NDArray[Any] = samples.astype(f"u{tags.allocated // 8}")
    values = values << values.dtype.type(tags.allocated - 1 - tags.high_bit)
    if tags.signed:
        values = values.view(f"i{tags.allocated // 8}")
    return np.asarray(values >> values.dtype.type(tags.allocated - tags.stored))


def _wraps(samples: NDArray[Any], tags: PixelTags) -> bool:
    """True if the values by the tags jump between neighbours where those by other bits, or another sign, do not."""
    samples = samples[:: max(1, tags.rows // 512)]

    def jumps(tags: PixelTags) -> float:
        values = _stored_values(samples, tags).astype(np.int64)
        return float((np.abs(np.diff(values)) >= limit).mean())

    limit = 1 << (tags.stored - 1)
    found = jumps(tags)
    if found <= _MOST_JUMPS:
        return False
    whole = replace(tags, stored=tags.allocated, high_bit=tags.allocated - 1)
    others = [replace(layout, signed=signed) for layout in (tags, whole) for signed in (False, True)]
    return min(jumps(other) for other in others) < found / 4


def _decompress(ds: Dataset, tags: PixelTags, syntax: UID) -> tuple[NDArray[Any], str]:
    try:
        library = get_decoder(syntax)
    except NotImplementedError:
        raise _no_decoder(syntax, installable=False) from None
    if not library.is_available:
        raise _no_decoder(syntax, installable=True)
    data = bytes(ds.PixelData)
    if (found := frames(data)) > 1:
        raise multi_frame(f"pixel data of {found} frames")
    layout = {"planar_configuration": integer(ds, "PlanarConfiguration") or 0} if tags.samples > 1 else {}
    try:
        frame, decoder = decode(
            data,
            syntax,
            as_stored=tags.samples == 1,
            rows=tags.rows,
            columns=tags.columns,
            samples_per_pixel=tags.samples,
            photometric_interpretation=tags.photometric,
            bits_allocated=tags.allocated,
            bits_stored=tags.stored,
            pixel_representation=int(tags.signed),
            **layout,
        )
    except UndecodableError as error:
        unsure = error.reason == "damaged" and syntax in JPEG2000TransferSyntaxes and library.missing_dependencies
        if error.reason == "unsupported" or unsure:  # Pillow calls what it cannot read damaged
            raise _no_decoder(syntax, installable=bool(library.missing_dependencies)) from None
        if error.reason == "kind":
            what, expected = "the film is compressed in another way than its transfer syntax says", syntax.name
            raise InputError(what, expected=expected, do="Export it again.", code="E_DECODER") from None
        if error.reason == "slow":
            limit = f"{seconds(tags.rows, tags.columns):.3g} seconds"
            do = "Convert the film to Explicit VR Little Endian, or set TEXTRAY_DECODE_SECONDS."
            raise InputError("the film takes too long to decode", expected=limit, do=do, code="E_DECODER") from None
        raise truncated(_DAMAGED, _CAME[error.reason]) from None
    if frame.shape[:2] != (tags.rows, tags.columns):
        raise truncated(_DAMAGED, _CAME["size"])
    return frame, decoder


def _no_decoder(syntax: UID, *, installable: bool) -> InputError:
    convert = "Convert the film to Explicit VR Little Endian, for example with dcmtk's dcmdjpeg."
    return InputError(
        f"nothing installed decodes this {syntax.name}",
        expected="a compression that a decoder of pydicom reads",
        do="Install more decoders with: pip install 'textray[dicom]'" if installable else convert,
        code="E_DECODER",
    )


def _modality(ds: Dataset, stored: NDArray[Any], often: NDArray[np.int64]) -> tuple[NDArray[np.float32], list[str]]:
    """Modality values of stored ones, and the names of what was ignored."""
    if value(ds, "ModalityLUTSequence"):
        table = _Table.of(ds, "ModalityLUTSequence")
        if table is None:
            raise tag_error("ModalityLUTSequence", None, "a table of 8 to 16 bits")
        values = stored.astype(np.float32)
        if table.covers(values, often):
            return table.look_up(values), []
        return values, ["modality LUT"]
    if "RescaleSlope" in ds or "RescaleIntercept" in ds:
        slope, intercept = _number(ds, "RescaleSlope", 1.0), _number(ds, "RescaleIntercept", 0.0)
        if slope == 0:
            raise tag_error("RescaleSlope", 0, "another number")
        return stored.astype(np.float32) * np.float32(slope) + np.float32(intercept), []
    return stored.astype(np.float32), []


def _voi(
    ds: Dataset, values: NDArray[np.float32], body: NDArray[np.bool_], often: NDArray[np.int64], ignored: list[str]
) -> tuple[NDArray[np.float32], dict[str, Any], tuple[Notice, ...]]:
    """Pixels in [0, 1] of values by the first step that shows most of the film, whose own values are ``body``."""
    low, high = (float(level) for level in percentiles(values[body], often[body], PERCENTILES))
    between = body & (values > low) & (values < high)
    inside, counts = values[between], often[between]
    if value(ds, "VOILUTSequence"):
        table = _Table.of(ds, "VOILUTSequence")
        if table is not None and table.covers(inside, counts):
            pixels = table.look_up(values) / np.float32(table.top)
            if pixels.min() < pixels.max() and _shows(table.look_up(inside) / np.float32(table.top), counts):
                return pixels, {"from": "voi lut"}, _ignored(ignored)
        ignored = [*ignored, "VOI LUT"]
    if _given(ds, "WindowCenter") or _given(ds, "WindowWidth"):
        window = _Window.of_film(ds)
        if window is not None and _shows(window.apply(inside), counts):
            pixels = window.apply(values)
            if pixels.min() < pixels.max():
                return pixels, {"from": "window", **asdict(window)}, _ignored(ignored)
        ignored = [*ignored, "window"]
    if not low < high:  # more than 99 % of one level: show the whole range
        low, high = float(values[body].min()), float(values[body].max())
    pixels = values - np.float32(low)
    pixels /= np.float32(high - low)
    return np.clip(pixels, 0, 1, out=pixels), {"from": "percentiles", "low": low, "high": high}, _ignored(ignored)


def _shows(inside: NDArray[np.float32], counts: NDArray[np.int64]) -> bool:
    """False if the film's values between its extremes are shown as one grey, or most of them as black or white."""
    saturated = (inside <= _BLACK) | (inside >= 1 - _BLACK)
    if inside.size == 0:
        return True
    return share(saturated, counts) <= _MOST_SATURATED and float(np.ptp(inside)) >= _LEAST_SHOWN


@dataclass(frozen=True, kw_only=True)
class _Window:
    """The first window of a film (C.11.2.1.2 and C.11.2.1.3)."""

    center: float
    width: float
    function: str
    of: int

    @classmethod
    def of_film(cls, ds: Dataset) -> _Window | None:
        """The window, ``None`` where it is not valid."""
        centers, widths = numbers(ds, "WindowCenter"), numbers(ds, "WindowWidth")
        function = (words(ds, "VOILUTFunction") or ("LINEAR",))[0]
        if centers is None or widths is None or function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
            return None
        if widths[0] <= 0 or (function == "LINEAR" and widths[0] < 1):
            return None
        return cls(center=centers[0], width=widths[0], function=function, of=len(centers))

    def apply(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Values to [0, 1]."""
        center, width = self.center, self.width
        if self.function == "SIGMOID":
            power = np.clip(np.float32(-4 / width) * (values - np.float32(center)), -80, 80)
            return np.asarray(np.float32(1) / (np.float32(1) + np.exp(power)))
        if self.function == "LINEAR":
            center, width = center - 0.5, width - 1
        if width == 0:
            return np.asarray(values > center, np.float32)
        shown = values - np.float32(center)
        shown /= np.float32(width)
        shown += np.float32(0.5)
        return np.clip(shown, 0, 1, out=shown)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Table:
    """A lookup table of C.11.1 or C.11.2: its entries, the input of the first, and its largest output."""

    entries: NDArray[np.float32]
    first: int
    top: int

    @classmethod
    def of(cls, ds: Dataset, keyword: str) -> _Table | None:
        try:
            item = ds[keyword].value[0]
            count, first, bits = (int(part) for part in item.LUTDescriptor)
            data, count = item.LUTData, count or 1 << 16
            if isinstance(data, bytes):
                wide = len(data) >= 2 * count
                order = "<" if ds.original_encoding[1] is not False else ">"
                data = np.frombuffer(data, f"{order}u2" if wide else "u1", count=count)
            entries = np.asarray(data, np.float32)
        except Exception:  # a table that cannot be read is none
            return None
        if not 8 <= bits <= 16 or entries.shape != (count,) or entries.max() >= 1 << bits:
            return None
        return cls(entries=entries, first=first, top=(1 << bits) - 1)

    def covers(self, values: NDArray[np.float32], counts: NDArray[np.int64]) -> bool:
        """True if the table has an entry of its own for at least half of the pixels with these values."""
        inside = (values >= self.first) & (values < self.first + len(self.entries))
        return inside.size == 0 or share(inside, counts) >= 1 - _MOST_SATURATED

    def look_up(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map values; those outside the table take its first or last entry."""
        rows = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1).astype(np.intp)
        return np.asarray(self.entries[rows], np.float32)


def _ignored(what: list[str]) -> tuple[Notice, ...]:
    if not what:
        return ()
    text = f"The file's {' and '.join(what)} cannot be used and was ignored."
    return (Notice(code="W_WINDOW", text=text, remedy="Look at the overlay; export the film with a valid window."),)
