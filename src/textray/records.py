"""The records that travel between the parts: frozen, NumPy only.

`Grid` (where pixels lie), `Image` (a read file), `Zones` and `Report` (what the words say, by image side) and
`Prediction` (what comes back). Everything that can be asked of a picture's geometry is asked of its `Grid`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from textray.errors import ShapeError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SIDES = ("left", "right")
LEVELS = ("upper", "middle", "lower")
ZONE_NAMES = tuple(f"{side} {level}" for side in SIDES for level in LEVELS)
"""Order of the six zones everywhere: left upper, middle, lower, right upper, middle, lower; viewer's sides."""
ZONE_ROWS = (0.375, 0.55)
"""Zones of pixels: image halves, and heights split at these shares of the image."""


class Laterality(StrEnum):
    """Whose left and right a text means."""

    VIEWER = "viewer"
    PATIENT = "patient"
    UNKNOWN = "unknown"


class ZoneState(StrEnum):
    """What a report says of one zone."""

    PRESENT = "present"
    ABSENT = "absent"
    UNMENTIONED = "unmentioned"


@dataclass(frozen=True, kw_only=True)
class Notice:
    """A warning with a stable code (``W_...``), one plain sentence and one remedy."""

    code: str
    text: str
    remedy: str = ""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Size, spacing and orientation of a picture's pixels.

    Attributes:
        height: Rows.
        width: Columns.
        spacing_mm: Distance between rows and between columns, or ``None`` where uncalibrated.
        orientation: Where rows and columns run to, in DICOM letters: ``("L", "F")`` is the usual frontal film, whose
            rows run to the patient's left and whose columns run to the feet; ``None`` where the file does not say.
        transform: What was done to the stored pixels before this grid, such as ``"exif-6"``; empty if nothing.
    """

    height: int
    width: int
    spacing_mm: tuple[float, float] | None = None
    orientation: tuple[str, str] | None = None
    transform: str = ""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.height, self.width

    @property
    def pixel_area_mm2(self) -> float | None:
        """Area of one pixel in mm², or ``None`` where uncalibrated."""
        return None if self.spacing_mm is None else self.spacing_mm[0] * self.spacing_mm[1]

    @property
    def sides_from(self) -> str:
        """How the film's sides are known: ``"tag"``, ``"assumed"`` (no tag, usual film) or ``"undefined"``."""
        if self.orientation is None:
            return "assumed"
        return "tag" if self.orientation[0][:1] in {"L", "R"} else "undefined"

    @property
    def mirrored(self) -> bool:
        """True where the patient's left lies on the viewer's right, as on the usual film."""
        return self.orientation is None or self.orientation[0][:1] != "R"


@dataclass(frozen=True, kw_only=True, eq=False)
class Image:
    """A picture as read, before any resizing.

    Attributes:
        pixels: ``(H, W)`` float32 in [0, 1], bright is dense (bone white); ``(H, W, 3)`` RGB for colour data.
        grid: Where the pixels lie.
        source: The file it came from, ``None`` for an array.
        sha256: Hash of the file's bytes (of the array's bytes for an array).
        info: What the reader decided (format, bit depth, photometric, window), without patient identifiers.
        notices: Warnings of the reader.
    """

    pixels: NDArray[np.float32]
    grid: Grid
    source: Path | None = None
    sha256: str = ""
    info: dict[str, Any] = field(default_factory=dict)
    notices: tuple[Notice, ...] = ()

    def __post_init__(self) -> None:
        if self.pixels.ndim not in (2, 3) or self.pixels.shape[:2] != self.grid.shape:
            raise ShapeError(
                "pixels and grid differ",
                came=self.pixels.shape,
                expected=f"{self.grid.shape} or {self.grid.shape}+(3,)",
            )


@dataclass(frozen=True)
class Zones:
    """State of the six zones, by image side (viewer's left first), in the order of `ZONE_NAMES`."""

    states: tuple[ZoneState, ...] = (ZoneState.UNMENTIONED,) * 6

    def __post_init__(self) -> None:
        if len(self.states) != len(ZONE_NAMES):
            raise ShapeError("a report has six zones", came=len(self.states), expected=6)

    @classmethod
    def from_present(cls, present: Iterable[bool | int]) -> Zones:
        """Zones named as infected (true) and not mentioned (false), six of them."""
        return cls(tuple(ZoneState.PRESENT if p else ZoneState.UNMENTIONED for p in present))

    @classmethod
    def from_index(cls, index: int) -> Zones:
        """Row 0..63 of the text bank back to zones; see `index`."""
        return cls.from_present(index >> bit & 1 for bit in range(6))

    @property
    def present(self) -> tuple[bool, ...]:
        """Six booleans: the zone is said to be infected."""
        return tuple(s is ZoneState.PRESENT for s in self.states)

    @property
    def mentioned(self) -> bool:
        """True where something is said of a zone, if only that it is not infected."""
        return any(s is not ZoneState.UNMENTIONED for s in self.states)

    @property
    def index(self) -> int:
        """Row in the text bank: bit ``i`` set where zone ``i`` is present; 0 is "no infection."."""
        return sum(1 << i for i, p in enumerate(self.present) if p)

    def mirror(self) -> Zones:
        """Swap left and right, as a horizontal flip of the picture does."""
        return Zones(self.states[3:] + self.states[:3])

    def __bool__(self) -> bool:
        return any(self.present)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a text says, stored by image side whatever convention the words used.

    Attributes:
        zones: Six zones by image side.
        text: The words as given, ``None`` where there were none.
        laterality: The convention of ``text``.
        sides_from: How the film's sides were known when ``text`` was read: ``"words"`` for viewer and unknown
            laterality (no film needed), else `Grid.sides_from`.
        unused: Words of the text that changed nothing, lower case, in order.
        stated_count: The number of infected areas that the text states, if it does; zones are counted from the places.
        free: True for a caption that tells no zones and is taken as its words stand, such as one about microscopy.
        notices: Warnings of the parser, such as ``W_NO_ZONE``.
    """

    zones: Zones
    text: str | None = None
    laterality: Laterality = Laterality.VIEWER
    sides_from: str = "words"
    unused: tuple[str, ...] = ()
    stated_count: int | None = None
    free: bool = False
    notices: tuple[Notice, ...] = ()

    def with_zones(self, zones: Zones) -> Report:
        """The same report about other zones (the raw text is dropped, since it no longer tells them)."""
        return replace(self, zones=zones, text=None, laterality=Laterality.VIEWER, sides_from="words", unused=())


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """A mask on the grid of the file it came from, and how it came about.

    Attributes:
        mask: ``(H, W)`` bool, true inside lesions, native grid.
        probability: ``(H, W)`` float32 in [0, 1], native grid.
        report: The report that steered the network, ``None`` for a text-free run.
        image: The picture that was segmented.
        record: The JSON record: hashes, model, zones, text mode, areas, warnings.
        attention: Where a network that writes reports looked to tell the zones: ``(H, W)`` float32, not negative,
            native grid; ``None`` where it does not tell.
        saver: What `save` calls; given by the code that made the prediction, since records know nothing of files.
    """

    mask: NDArray[np.bool_]
    probability: NDArray[np.float32]
    report: Report | None
    image: Image
    record: dict[str, Any]
    attention: NDArray[np.float32] | None = None
    saver: Callable[[Prediction, Path], dict[str, Path]] | None = field(default=None, repr=False)

    def save(self, folder: str | Path) -> dict[str, Path]:
        """Write mask, overlay and JSON record into ``folder``; return the paths by kind.

        Raises:
            UsageError: If the prediction was built by hand and has no saver.
            OutputError: If the folder cannot be written to.
        """
        if self.saver is None:
            raise UsageError("this prediction does not know how to save itself", do="Use textray.io.write directly.")
        return self.saver(self, Path(folder))

    @property
    def grid(self) -> Grid:
        """Grid of ``mask`` and ``probability``."""
        return self.image.grid
