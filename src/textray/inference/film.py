"""What a network says of a film as a whole: whether it shows a lesion, where the lungs are, whether a report fits it.

Presence and zones come from the image alone, whatever the words say; lungs may move a little with the words. Weights
without these outputs say nothing of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage
from PIL import ImageFilter

from textray.errors import BundleError
from textray.preprocess import Preprocess
from textray.records import LEVELS, SIDES, ZONE_NAMES, Grid, Notice, Report, Zones, ZoneSplit, ZoneState

SMALL = 256
"""Longest side of the grid that lungs are measured on."""
LEAST_LUNG = 0.015
"""Smallest lung, as a share of the picture."""
OUTSIDE = 0.1
"""Share of a mask outside both lungs from which a warning says so."""
NOT_A_CHEST = "W_NOT_A_CHEST"
_BOX = ("top", "end", "left", "right")
_MARGIN = 0.03  # of the picture's longer side by which lungs are widened before that


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Probabilities at which weights judge a film, in ``zones.presence`` of a bundle's config.

    Attributes:
        threshold: Of any lesion, from which a film is said to show one.
        clear_above: Of any lesion, from which words that call every zone clear contradict the film.
        zone_free_below: Of a lesion in a zone, below which words that name the zone contradict the film.
        zone_ill_above: Of a lesion in a zone, from which words that deny one there contradict the film.
    """

    threshold: float
    clear_above: float
    zone_free_below: float
    zone_ill_above: float

    def least(self, words: Report | None) -> float:
        """Probability from which a film that these words describe is said to show a lesion.

        Words that call it clear agree with the film up to ``clear_above``; beyond it they contradict.
        """
        return self.clear_above if words is not None and calls_clear(words) else self.threshold


def read_bounds(zones: Mapping[str, Any]) -> Bounds | None:
    """Bounds from ``zones`` of a bundle's config, ``None`` if it has none; wrong ones are refused."""
    given = zones.get("presence")
    if given is None:
        return None
    names = [field.name for field in fields(Bounds)]
    if not isinstance(given, Mapping) or set(given) != set(names):
        raise BundleError("zones.presence of the bundle is wrong", came=given, expected=", ".join(names))
    bounds = Bounds(**{name: float(given[name]) for name in names})
    if not all(math.isfinite(value) and 0 <= value <= 1 for value in asdict(bounds).values()):
        raise BundleError("zones.presence of the bundle is wrong", came=dict(given), expected="numbers in [0, 1]")
    return bounds


@dataclass(frozen=True, kw_only=True, eq=False)
class Lungs:
    """Both lungs, by image side, on a grid of at most `SMALL` pixels a side."""

    planes: NDArray[np.bool_]  # (2, h, w), at the image's left, at its right

    @property
    def found(self) -> tuple[bool, ...]:
        """For each side, whether there is a lung."""
        return tuple(float(plane.mean()) >= LEAST_LUNG for plane in self.planes)

    def split(self, otherwise: tuple[float, float]) -> ZoneSplit:
        """Zones of pixels that follow the lungs: thirds of each one's height, parted halfway between both.

        A lung that is not found has the heights of the other one; without any they are ``otherwise``.
        """
        left, right = (_extent(plane) if there else None for plane, there in zip(self.planes, self.found, strict=True))
        thirds = [
            None if one is None else (one[0] + (one[1] - one[0]) / 3, one[0] + (one[1] - one[0]) * 2 / 3)
            for one in (left, right)
        ]
        known = next((rows for rows in thirds if rows is not None), otherwise)
        column = 0.5 if left is None or right is None else (left[3] + right[2]) / 2
        return ZoneSplit(column=column, rows=(thirds[0] or known, thirds[1] or known))

    def affected(self, mask: NDArray[np.bool_]) -> dict[str, Any]:
        """Share of each lung, and of its thirds, that a mask ``(h, w)`` on the lungs' grid covers; for a record."""
        described: dict[str, Any] = {}
        for side, plane, there in zip(SIDES, self.planes, self.found, strict=True):
            extent = _extent(plane)
            top, end = extent[:2] if there else (0.0, 1.0)
            level = np.clip(np.floor((_middles(len(plane)) - top) / max(end - top, 1e-6) * 3), 0, 2)
            shares = {name: _share(mask[level == i], plane[level == i]) for i, name in enumerate(LEVELS)}
            described[side] = {
                "found": there,
                "share_of_picture": round(float(plane.mean()), 6),
                "box": dict(zip(_BOX, (round(edge, 4) for edge in extent), strict=True)) if there else None,
                "affected": _share(mask, plane) if there else None,
                "zones": shares if there else None,
            }
        return described

    def outside(self, mask: NDArray[np.bool_]) -> float:
        """Share of a mask ``(h, w)`` that lies outside both lungs and a margin around them; 0 for an empty one."""
        reach = 2 * max(1, round(_MARGIN * max(mask.shape))) + 1
        picture = PILImage.fromarray(self.planes.any(0).astype(np.uint8) * 255)
        inside = np.asarray(picture.filter(ImageFilter.MaxFilter(reach))) > 0
        return 0.0 if not mask.any() else float((mask & ~inside).sum() / mask.sum())


def find_lungs(probability: NDArray[np.float32], preprocess: Preprocess, grid: Grid) -> Lungs:
    """Lungs from the network's map ``(2, h', w')`` in [0, 1], in the frame of a film's grid."""
    small = small_grid(grid)
    return Lungs(planes=np.stack([preprocess.restore_coarse(plane, small) >= 0.5 for plane in probability]))


def small_grid(grid: Grid) -> Grid:
    """A grid of the same frame with at most `SMALL` pixels a side."""
    scale = min(1.0, SMALL / max(grid.shape))
    return Grid(height=max(1, round(grid.height * scale)), width=max(1, round(grid.width * scale)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Film:
    """What a network says of a film; ``None`` where it says nothing."""

    presence: float | None = None  # probability that it shows any lesion
    threshold: float | None = None  # from which that is said
    emptied: bool = False  # the mask is empty because of it
    empty: bool = False  # no pixel of the mask is lesion
    zones: NDArray[np.float32] | None = None  # (6,), probability of a lesion in each zone
    lungs: Lungs | None = None
    mask: NDArray[np.bool_] | None = None  # the result on the lungs' grid
    conflicts: tuple[str, ...] = ()  # what words and film say differently

    @property
    def shows_lesion(self) -> bool | None:
        """Whether the film is said to show a lesion."""
        return None if self.presence is None or self.threshold is None else self.presence >= self.threshold

    def describe(self) -> dict[str, Any]:
        """Parts of a record."""
        described: dict[str, Any] = {}
        if self.presence is not None and self.threshold is not None:
            described["finding"] = {
                "lesion": self.shows_lesion,
                "probability": round(self.presence, 4),
                "threshold": round(self.threshold, 4),
                "zones": None if self.zones is None else _by_zone(self.zones),
                "conflicts": list(self.conflicts),
            }
        if self.lungs is not None and self.mask is not None:
            described["lungs"] = {
                **self.lungs.affected(self.mask),
                "lesion_outside": round(self.lungs.outside(self.mask), 4),
            }
        return described

    def notices(self) -> list[Notice]:
        """Warnings for the reader of a result."""
        found = []
        if self.emptied:
            found.append(
                Notice(
                    code="W_NO_LESION_SEEN",
                    text=f"The network sees no lesion in this film (probability {self.presence:.3f}, threshold "
                    f"{self.threshold:.3f}), so the mask is empty; this does not say that the film is clear.",
                    remedy="Look at the film; a lower --presence-threshold shows what the network would mark.",
                )
            )
        elif self.empty:
            found.append(
                Notice(
                    code="W_EMPTY_MASK",
                    text="No pixel of this film reaches the threshold, so the mask is empty; this does not say that "
                    "the film is clear.",
                    remedy="Look at the film: is it a whole frontal chest film, upright, with its full contrast?",
                )
            )
        if self.conflicts:
            found.append(
                Notice(
                    code="W_REPORT_CONFLICT",
                    text=f"The report and what the network finds without it do not fit: {'; '.join(self.conflicts)}.",
                    remedy="Check that the report belongs to this film, and whose left and right it means.",
                )
            )
        if self.lungs is not None and not any(self.lungs.found):
            found.append(
                Notice(
                    code=NOT_A_CHEST,
                    text="The network finds no lungs, so this may be no frontal chest film.",
                    remedy="Look at the picture; --strict-input refuses pictures without lungs.",
                )
            )
        elif self.lungs is not None and self.mask is not None and (share := self.lungs.outside(self.mask)) > OUTSIDE:
            found.append(
                Notice(
                    code="W_OUTSIDE_LUNGS",
                    text=f"{share:.0%} of the mask lies outside the lungs that the network finds.",
                    remedy="Look at the overlay before you use the mask.",
                )
            )
        return found


NOTHING_SEEN = Film()
"""Of weights that say nothing of a film as a whole."""


def conflicts(
    words: Report, zones: NDArray[np.float32] | None, presence: float | None, bounds: Bounds | None
) -> tuple[str, ...]:
    """What a person's words and the film, read without them, say differently; sides are the viewer's."""
    if bounds is None or zones is None or presence is None or words.free:
        return ()
    film = f"any lesion in the film {presence:.2f}"
    said = []
    for name, state, probability in zip(ZONE_NAMES, words.zones.states, zones.tolist(), strict=True):
        if state is ZoneState.PRESENT and probability < bounds.zone_free_below:
            said.append(f"it names a lesion in the {name} zone (viewer's side; probability {probability:.2f}, {film})")
        elif state is ZoneState.ABSENT and probability >= bounds.zone_ill_above and presence >= bounds.clear_above:
            said.append(f"it denies one in the {name} zone (viewer's side; probability {probability:.2f}, {film})")
    if calls_clear(words) and presence >= bounds.clear_above:
        return (f"it denies every lesion (probability of {film})",)
    return tuple(said)


def calls_clear(words: Report) -> bool:
    """True for words that deny a lesion in every zone."""
    return all(state is ZoneState.ABSENT for state in words.zones.states)


def fit(words: Report, zones: NDArray[np.floating]) -> float:
    """How well zones named by words fit probabilities of zones ``(6,)``: mean log-likelihood, at most 0."""
    p = np.clip(np.asarray(zones, np.float64), 1e-4, 1 - 1e-4)
    return float(np.where(words.zones.present, np.log(p), np.log(1 - p)).mean())


def _by_zone(values: NDArray[np.float32]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in zip(ZONE_NAMES, values.tolist(), strict=True)}


def _extent(plane: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """Top, end, left and right end of a lung as shares of the picture, without its outermost 2 % of pixels."""
    rows, columns = (np.cumsum(plane.sum(axis)) / max(plane.sum(), 1) for axis in (1, 0))
    ends = (np.searchsorted(rows, 0.02), np.searchsorted(rows, 0.98) + 1)
    sides = (np.searchsorted(columns, 0.02), np.searchsorted(columns, 0.98) + 1)
    return tuple(float(n / len(rows)) for n in ends) + tuple(float(n / len(columns)) for n in sides)  # type: ignore[return-value]


def _middles(count: int) -> NDArray[np.float64]:
    return (np.arange(count) + 0.5) / count


def _share(mask: NDArray[np.bool_], whole: NDArray[np.bool_]) -> float:
    return round(float((mask & whole).sum() / whole.sum()), 4) if whole.any() else 0.0


def denied(zones: Zones) -> NDArray[np.float32]:
    """What a network hears of a denial: 1 at each zone that words deny, ``(6,)``.

    It hears nothing of words that deny some zones and name none: weights trained here take those for a denial of all.
    `textray.inference.record.clear_denied` takes such zones from the mask.
    """
    absent = [state is ZoneState.ABSENT for state in zones.states]
    return np.array(absent if zones or all(absent) else [False] * len(absent), np.float32)
