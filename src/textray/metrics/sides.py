"""Left-right sensitivity: does the predicted area follow the side that the text names?

Each film is segmented twice, with the zones of its own caption and with the mirrored ones; the pixels stay as they are.
Only films whose zones differ from their mirror image count.

* Unilateral films name one lung. *Named area* is what is predicted on that lung's half of the image, *contested area*
  is all that is predicted.
* Bilateral films name both. *Named area* is what is predicted in zones that the given text names and its mirror image
  does not; *contested area* adds the zones that only the mirror image names. Zones that both name tell nothing.

The share of a film is named area / contested area, once under the true text and once under the mirrored text (then of
the zones that the mirrored text names). A film has *moved* where the share under the mirrored text is above one half. A
film without contested area has no share, and has not moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textray.errors import ShapeError
from textray.metrics.intervals import bootstrap, to_dicts
from textray.metrics.segmentation import Floats, Statistic, ratio, ratio_of
from textray.records import Zones

KINDS = ("unilateral", "bilateral")


@dataclass(frozen=True, kw_only=True)
class SideCase:
    """One film under the ``zones`` of its own caption and under their mirror image.

    The areas are predicted pixels in each of the six zones, in the order of `ZONE_NAMES`; ``group`` is the patient, or
    the film itself where the patient is not known.
    """

    zones: Zones
    true_areas: tuple[int, ...]
    mirrored_areas: tuple[int, ...]
    group: str

    def __post_init__(self) -> None:
        if len(self.true_areas) != 6 or len(self.mirrored_areas) != 6:
            came = (len(self.true_areas), len(self.mirrored_areas))
            raise ShapeError("a film has an area for each of six zones", came=came, expected="(6, 6)")

    @property
    def kind(self) -> str:
        """``"unilateral"`` where one lung is named, ``"bilateral"`` where both are."""
        left, right = any(self.zones.present[:3]), any(self.zones.present[3:])
        return "bilateral" if left and right else "unilateral"

    @property
    def named(self) -> NDArray[np.bool_]:
        """The zones, ``(6,)``, that count as named by the true text and not by the mirrored one."""
        present = np.array(self.zones.present, dtype=np.bool_)
        if self.kind == "unilateral":  # the whole half of the image
            return np.repeat([bool(present[:3].any()), bool(present[3:].any())], 3)
        only: NDArray[np.bool_] = present & ~np.roll(present, 3)  # rolling by three swaps the sides
        return only

    @property
    def areas(self) -> NDArray[np.int64]:
        """Named and contested area under the true text, then under the mirrored text, in pixels."""
        named, swapped = self.named, np.roll(self.named, 3)
        true, mirrored, contested = np.array(self.true_areas), np.array(self.mirrored_areas), named | swapped
        return np.array([part.sum() for part in (true[named], true[contested], mirrored[swapped], mirrored[contested])])

    @property
    def shares(self) -> Floats:
        """Named / contested area under the true and under the mirrored text, NaN without contested area."""
        return ratio(self.areas[::2].astype(np.float64), self.areas[1::2].astype(np.float64))

    @property
    def moved(self) -> bool:
        """Most of the contested area lies in the zones that the mirrored text names."""
        return bool(self.shares[1] > 0.5)


def can_tell(zones: Zones) -> bool:
    """True where the zones name something else than their mirror image."""
    return zones.index != zones.mirror().index


# Columns of a film: its four areas, its two shares (0 where undefined) each with a 1 where defined, moved, 1.
_STATISTICS: dict[str, Statistic] = {
    "share_true_pooled": ratio_of(0, 1),
    "share_mirrored_pooled": ratio_of(2, 3),
    "share_true_per_image": ratio_of(4, 5),
    "share_mirrored_per_image": ratio_of(6, 7),
    "moved_films": ratio_of(8, 9),
}


def _columns(case: SideCase) -> Floats:
    known = np.column_stack([np.nan_to_num(case.shares), ~np.isnan(case.shares)])
    return np.concatenate([case.areas, known.ravel(), [case.moved, 1]])


def side_summary(cases: Sequence[SideCase]) -> dict[str, dict[str, Any]]:
    """Shares with intervals by patient, for unilateral and for bilateral films, each of which `can_tell`.

    ``films_without_area`` are those without contested area under the mirrored text. Where a kind has a film, its
    scores are ``{value, low, high}`` in [0, 1].
    """
    summary: dict[str, dict[str, Any]] = {}
    for kind in KINDS:
        chosen = [case for case in cases if case.kind == kind]
        summary[kind] = {"films": len(chosen), "films_without_area": sum(int(c.areas[3] == 0) for c in chosen)}
        if chosen:
            columns = np.array([_columns(case) for case in chosen])
            summary[kind] |= to_dicts(bootstrap(columns, [case.group for case in chosen], _STATISTICS))
    return summary
