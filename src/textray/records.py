"""Records that the parts exchange: frozen, NumPy only.

`Grid` (place of pixels), `Image` (a file that was read), `Zones` and `Report` (content of a text, by image side) and
`Prediction` (the result). A picture's `Grid` answers all questions about its geometry.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from textray.errors import ShapeError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

SIDES = ("left", "right")
LEVELS = ("upper", "middle", "lower")
ZONE_NAMES = tuple(f"{side} {level}" for side in SIDES for level in LEVELS)
"""Order of the six zones everywhere: left upper, middle, lower, right upper, middle, lower; viewer's sides."""
ZONE_ROWS = (0.375, 0.55)
"""Zones of pixels: image halves, and heights split at these shares of the image."""


DICOM_KINDS = ("seg", "sr", "overlay")
"""DICOM objects that a result can have."""


@dataclass(frozen=True, kw_only=True)
class ZoneSplit:
    """Where zones of pixels meet: a column between both sides, and two rows of each, as shares of the image."""

    column: float = 0.5
    rows: tuple[tuple[float, float], tuple[float, float]] = (ZONE_ROWS, ZONE_ROWS)


class Laterality(StrEnum):
    """Whose left and right a text means."""

    VIEWER = "viewer"
    PATIENT = "patient"
    UNKNOWN = "unknown"


class ZoneState(StrEnum):
    """Statement of a report about one zone."""

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
        height: Number of rows.
        width: Number of columns.
        spacing_mm: Distance between rows and between columns, ``None`` where uncalibrated.
        orientation: Directions of rows and columns, in DICOM letters: ``("L", "F")`` is the standard film, whose
            rows run to the patient's left and whose columns run to the feet; ``None`` for a file without them.
        transform: Change of the stored pixels before this grid, such as ``"exif-6"``; empty for none.
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
        """Area of one pixel in mm², ``None`` where uncalibrated."""
        return None if self.spacing_mm is None else self.spacing_mm[0] * self.spacing_mm[1]

    @property
    def sides_from(self) -> str:
        """Source of the film's sides: ``"tag"``, ``"assumed"`` (no tag, standard film) or ``"undefined"``."""
        if self.orientation is None:
            return "assumed"
        return "tag" if self.orientation[0][:1] in {"L", "R"} else "undefined"

    @property
    def mirrored(self) -> bool:
        """True where the patient's left lies on the viewer's right, as on the standard film."""
        return self.orientation is None or self.orientation[0][:1] != "R"


class Pixels(Protocol):
    """Pixels ``(H, W)`` or ``(H, W, 3)`` float32, an array or not: a part of them is an array."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, columns and, in colour, channels."""

    @property
    def T(self) -> Pixels:  # noqa: N802 -- as of an array
        """The same with rows and columns exchanged."""

    def __getitem__(self, index: Any, /) -> NDArray[np.float32]:  # noqa: ANN401 -- what an array takes
        """The pixels of some rows, or of another index of an array."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Image:
    """A picture as read, before any resizing.

    Attributes:
        film: The pixels as they are stored, which may take less memory than an array.
        grid: Of the pixels.
        source: Its file, ``None`` for an array.
        sha256: Hash of the bytes of the file or array.
        info: Decisions of the reader (format, bit depth, photometric, window), without patient identifiers.
        notices: Warnings of the reader.
    """

    film: Pixels
    grid: Grid
    source: Path | None = None
    sha256: str = ""
    info: dict[str, Any] = field(default_factory=dict)
    notices: tuple[Notice, ...] = ()

    def __post_init__(self) -> None:
        if len(self.film.shape) not in (2, 3) or self.film.shape[:2] != self.grid.shape:
            expected = f"{self.grid.shape} or {self.grid.shape}+(3,)"
            raise ShapeError("pixels and grid differ", came=self.film.shape, expected=expected)

    @cached_property
    def pixels(self) -> NDArray[np.float32]:
        """``(H, W)`` float32 in [0, 1], bright is dense (bone white); ``(H, W, 3)`` RGB for colour data."""
        return self.film[:]


@dataclass(frozen=True)
class Zones:
    """State of the six zones, by image side (viewer's left first), in the order of `ZONE_NAMES`."""

    states: tuple[ZoneState, ...] = (ZoneState.UNMENTIONED,) * 6

    def __post_init__(self) -> None:
        if len(self.states) != len(ZONE_NAMES):
            raise ShapeError("a report has six zones", came=len(self.states), expected=6)

    @classmethod
    def from_present(cls, present: Iterable[bool | int]) -> Zones:
        """Build from six flags: present (true) or not mentioned (false)."""
        return cls(tuple(ZoneState.PRESENT if p else ZoneState.UNMENTIONED for p in present))

    @classmethod
    def from_index(cls, index: int) -> Zones:
        """Build from a row 0..63 of the text bank; see `index`."""
        return cls.from_present(index >> bit & 1 for bit in range(6))

    @property
    def present(self) -> tuple[bool, ...]:
        """For each zone, whether it is present."""
        return tuple(s is ZoneState.PRESENT for s in self.states)

    @property
    def mentioned(self) -> bool:
        """True if any zone is present or absent."""
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
    """Content of a text, by image side whatever convention the words use.

    Attributes:
        zones: By image side.
        text: The words as given, ``None`` for none.
        laterality: The convention of ``text``.
        sides_from: Source of the film's sides when ``text`` was read: ``"words"`` for viewer and unknown laterality,
            which need no film, else `Grid.sides_from`.
        unused: Words of the text that changed nothing, lower case, in order.
        stated_count: Number of infected areas that the text states; zones are counted from the places.
        free: True for a caption without zones that is used as it is, such as one about microscopy.
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
        """The same report about other zones, without the text, which does not fit them."""
        return replace(self, zones=zones, text=None, laterality=Laterality.VIEWER, sides_from="words", unused=())


@dataclass(frozen=True, kw_only=True)
class DicomOut:
    """DICOM objects to write beside a result, and how.

    Attributes:
        kinds: Of ``"seg"``, ``"sr"`` and ``"overlay"``.
        plane: The plane of a SEG of a projection film, which has none: a ``"nominal"`` one, which viewers need, or
            ``"none"``.
        make_uids: Make UIDs for a film that belongs to no study, and write a copy of the film with them.
        deidentified: Leave out the text of patient and study; UIDs stay.
        sr_text: Put the given report into the SR as it is.
    """

    kinds: tuple[str, ...] = DICOM_KINDS
    plane: Literal["nominal", "none"] = "nominal"
    make_uids: bool = False
    deidentified: bool = False
    sr_text: bool = False

    def __post_init__(self) -> None:
        wrong = [kind for kind in self.kinds if kind not in DICOM_KINDS]
        if wrong or not self.kinds:
            came = ", ".join(map(repr, wrong)) or "nothing"
            raise UsageError("unknown DICOM object", came=came, expected=f"some of {','.join(DICOM_KINDS)}, or all")
        if self.plane not in ("nominal", "none"):
            raise UsageError("unknown plane of a SEG", came=self.plane, expected="nominal or none")

    @classmethod
    def parse(cls, words: str) -> tuple[str, ...]:
        """Kinds from words: ``"seg,sr"`` or ``"all"``, in the order in which they are written."""
        asked = [word.strip().lower() for word in words.split(",")]
        kinds = DICOM_KINDS if asked == ["all"] else tuple(sorted(set(asked), key=[*DICOM_KINDS, *asked].index))
        return cls(kinds=kinds).kinds


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """A mask on the grid of its film, and how it was computed.

    Attributes:
        mask: ``(H, W)`` bool, true inside lesions, native grid.
        report: The report that the network read, ``None`` for a run without text.
        image: The picture that was segmented.
        record: The JSON record: hashes, model, zones, text mode, areas, warnings.
        restore: Gives the rows of ``probability``, some after the other, so that nobody needs to hold it.
        look: As ``restore``, of ``attention``, ``None`` for networks without one.
        saver: Function that `save` calls, since this module does not write files.
    """

    mask: NDArray[np.bool_]
    report: Report | None
    image: Image
    record: dict[str, Any]
    restore: Callable[[], Iterable[NDArray[np.float32]]]
    look: Callable[[], Iterable[NDArray[np.float32]]] | None = None
    saver: Callable[[Prediction, Path, DicomOut | None], dict[str, Path]] | None = field(default=None, repr=False)

    def save(self, folder: str | Path, *, dicom: str | DicomOut | None = None) -> dict[str, Path]:
        """Write mask, overlay and JSON record; return the paths by kind.

        Args:
            folder: Where to; it is made if it does not exist.
            dicom: DICOM objects to write as well: ``"seg,sr"``, ``"all"``, or a `DicomOut` with more choices.

        Raises:
            UsageError: If the prediction has no saver, or highdicom is missing for ``dicom``.
            OutputError: If the folder is not writable.
            InputError: If no DICOM object can be written for the film, such as ``E_NO_STUDY``.
        """
        if self.saver is None:
            raise UsageError("this prediction has no saver", do="Use textray.io.write directly.")
        options = DicomOut(kinds=DicomOut.parse(dicom)) if isinstance(dicom, str) else dicom
        return self.saver(self, Path(folder), options)

    @cached_property
    def probability(self) -> NDArray[np.float32]:
        """``(H, W)`` float32 in [0, 1], native grid; computed when it is first asked for."""
        return np.concatenate([*self.restore()])

    @cached_property
    def attention(self) -> NDArray[np.float32] | None:
        """Attention of a network that writes reports, as it looked for zones; ``None`` for other networks.

        ``(H, W)`` float32, not negative, native grid; computed when it is first asked for.
        """
        return None if self.look is None else np.concatenate([*self.look()])

    @property
    def grid(self) -> Grid:
        """Grid of ``mask`` and ``probability``."""
        return self.image.grid


@dataclass(frozen=True, kw_only=True, eq=False)
class Volume:
    """A CT as read, in the axes of its file, and the way to slices in the usual view and back.

    Attributes:
        hu: ``(I, J, K)`` float32, Hounsfield units, in the axes of the file.
        turn: For each axis of the file, the one of left, back and head (0, 1, 2) that it follows, and 1 or -1.
        affine: ``(4, 4)``, from voxels of the file to mm to the patient's right, front and head (RAS+).
        grid: Of each slice in the usual view: rows run to the patient's left, columns to the back.
        step_mm: Distance between slices.
        header: Header of a NIfTI file, ``None`` for a DICOM series.
        slices: Files of a DICOM series in the order of the last axis, empty for a NIfTI file.
        source: The file, or the folder of the series.
        sha256: Hash of the bytes of all files.
        info: Decisions of the reader, without patient identifiers.
        notices: Warnings of the reader.
    """

    hu: NDArray[np.float32]
    turn: tuple[tuple[int, int], ...]
    affine: NDArray[np.float64]
    grid: Grid
    step_mm: float
    header: Any = None
    slices: tuple[Path, ...] = ()
    source: Path | None = None
    sha256: str = ""
    info: dict[str, Any] = field(default_factory=dict)
    notices: tuple[Notice, ...] = ()

    def to_slices(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values ``(I, J, K)`` in the axes of the file as slices ``(slices, H, W)`` from the feet to the head."""
        flipped = np.flip(values, self._flips())
        return flipped.transpose([self._axis(place) for place in (2, 1, 0)])

    def to_file_axes(self, values: NDArray[Any]) -> NDArray[Any]:
        """The way back: slices ``(slices, H, W)`` in the axes of the file, ``(I, J, K)``."""
        turned = values.transpose([2 - place for place, _ in self.turn])
        return np.flip(turned, self._flips())

    def images(self, window: tuple[float, float]) -> Iterator[Image]:
        """The slices in the usual view, in [0, 1] over a window in HU."""
        low, high = window
        for number, hu in enumerate(self.to_slices(self.hu)):
            pixels = np.clip((hu - np.float32(low)) / np.float32(high - low), 0, 1, dtype=np.float32)
            info = {"format": "volume", "slice": number}
            yield Image(film=pixels, grid=self.grid, source=self.source, sha256=self.sha256, info=info)

    def _flips(self) -> tuple[int, ...]:
        return tuple(axis for axis, (_, sign) in enumerate(self.turn) if sign < 0)

    def _axis(self, place: int) -> int:
        return next(axis for axis, (follows, _) in enumerate(self.turn) if follows == place)


@dataclass(frozen=True, kw_only=True, eq=False)
class VolumePrediction:
    """A mask on the grid of a CT, and how it was computed slice by slice.

    Attributes:
        mask: ``(slices, H, W)`` bool in the usual view, true inside lesions; `Volume.to_file_axes` turns it.
        volume: The CT that was segmented.
        record: The one JSON record of the volume.
        shown: Result of the slice with the largest lesion, which the overlay shows.
        saver: Function that `save` calls.
    """

    mask: NDArray[np.bool_]
    volume: Volume
    record: dict[str, Any]
    shown: Prediction
    saver: Callable[[VolumePrediction, Path, DicomOut | None], dict[str, Path]] = field(repr=False)

    def save(self, folder: str | Path, *, dicom: str | DicomOut | None = None) -> dict[str, Path]:
        """Write the mask as NIfTI, the overlay of one slice and the JSON record, as `Prediction.save` does.

        Of the DICOM objects a CT series gets the SEG only.
        """
        options = DicomOut(kinds=DicomOut.parse(dicom)) if isinstance(dicom, str) else dicom
        return self.saver(self, Path(folder), options)
