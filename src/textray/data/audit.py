"""Captions against masks: sides and zones that are named and empty, or marked and not named.

A zone of pixels is marked if the mask has any pixel there. Zones of pixels are parts of the image, those of captions
parts of the lungs, which lie higher or lower from film to film: for one film a difference is a hint, and over many it
tells one wording of captions from another. Sides are surer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from textray import registry
from textray.data.base import BOTH, Counts, Sample, open_reader
from textray.errors import LayoutError, UsageError
from textray.records import LEVELS, ZONE_NAMES, ZONE_ROWS

Six = tuple[bool, ...]
"""A truth for each zone, in the order of `ZONE_NAMES`."""

FIELDS = ("image", "split", "captions", "zones_named", "zones_marked", "named_but_empty", "marked_but_not_named")
"""Columns of the table."""


@dataclass(frozen=True, kw_only=True)
class CaptionCase:
    """One caption of an image: the zones that it names, and those that the mask marks."""

    image_id: str
    split: str
    captions: str  # their wording, empty for a data set with one only
    named: Six
    marked: Six

    @property
    def empty(self) -> Six:
        """Zones that are named and empty."""
        return tuple(n and not m for n, m in zip(self.named, self.marked, strict=True))

    @property
    def missed(self) -> Six:
        """Zones that are marked and not named."""
        return tuple(m and not n for n, m in zip(self.named, self.marked, strict=True))

    @property
    def by_side(self) -> CaptionCase:
        """The same of the two sides, each in the place of its three zones."""
        named, marked = (tuple(np.repeat([any(z[:3]), any(z[3:])], 3).tolist()) for z in (self.named, self.marked))
        return replace(self, named=named, marked=marked)

    @property
    def wrong(self) -> int:
        """Number of zones that are named and empty, or marked and not named."""
        return sum(self.empty) + sum(self.missed)

    @property
    def line(self) -> tuple[str, ...]:
        """Cells of the table, zones by name."""
        zones = ("; ".join(compress(ZONE_NAMES, z)) for z in (self.named, self.marked, self.empty, self.missed))
        return (self.image_id, self.split, self.captions, *zones)


def audit(name: str, root: str | Path) -> list[CaptionCase]:
    """Compare caption and mask of every image of a data set, in each wording of the captions that is on disk.

    Captions that are blank or not understood are left out, and named in the log.

    Raises:
        UsageError: If the data set has no masks, or no captions that name zones.
        LayoutError: If no part of it is there.
        DataError: If files do not pair up, or a mask cannot be read.
    """
    row = registry.dataset(name)
    if not (row.masks and row.checkable and row.captions == "zones"):
        rows = (row for row in registry.DATASETS.values() if row.masks and row.checkable and row.captions == "zones")
        raise UsageError(
            f"data set {name} has no captions of zones to compare with masks on disk",
            expected="one of " + ", ".join(row.name for row in rows),
        )
    wordings = row.wordings or ("",)
    cases: list[CaptionCase] = []
    for sample in _samples(name, root, row.splits, bool(row.wordings)):
        marked = marked_zones(sample.read_mask())
        for wording, report in zip(wordings, (sample.report, *sample.also), strict=False):
            if report.zones.mentioned:
                place = {"image_id": sample.image_id, "split": str(sample.split), "captions": wording}
                cases.append(CaptionCase(**place, named=tuple(report.zones.present), marked=marked))
    return cases


def _samples(name: str, root: str | Path, splits: Sequence[str], worded: bool) -> Iterator[Sample]:
    """Samples of every part on disk, with all wordings of their captions where they are there."""
    readers = [
        open_reader(name, root, captions=captions, missing_captions="text-free")
        for captions in ((BOTH, None) if worded else (None,))
    ]
    absent: LayoutError | None = None
    found = False
    for split in splits:
        for reader in readers:
            try:
                samples = reader.samples(split)
            except LayoutError as error:  # a part, or a wording of it, that is not on disk
                absent = error
                continue
            found = True
            yield from samples
            break
    if not found and absent is not None:
        raise absent


def marked_zones(mask: NDArray[np.bool_]) -> Six:
    """Zones of pixels in which a mask, ``(H, W)``, has any pixel."""
    height, width = mask.shape
    level = np.searchsorted(ZONE_ROWS, (np.arange(height) + 0.5) / height, side="right")
    right = (np.arange(width) + 0.5) / width >= 0.5
    sides = (~right, right)
    return tuple(bool(mask[np.ix_(level == place, side)].any()) for side in sides for place in range(len(LEVELS)))


def count(cases: Sequence[CaptionCase]) -> dict[str, Counts]:
    """Numbers of images by wording of the captions, and under ``compared`` where two wordings differ."""
    counts: dict[str, Counts] = {}
    for wording in dict.fromkeys(case.captions for case in cases):
        found = [case for case in cases if case.captions == wording]
        sides = [case.by_side for case in found]
        counts[wording] = {
            "images with a caption": len(found),
            "a side is named and empty": sum(any(case.empty) for case in sides),
            "a side is marked and not named": sum(any(case.missed) for case in sides),
            "both sides agree": sum(not case.wrong for case in sides),
            "a zone is named and empty": sum(any(case.empty) for case in found),
            "a zone is marked and not named": sum(any(case.missed) for case in found),
            "all six zones agree": sum(not case.wrong for case in found),
        }
    if len(counts) == 2:
        counts["compared"] = _compare(cases, *counts)
    return counts


def _compare(cases: Sequence[CaptionCase], first: str, second: str) -> Counts:
    """Where two wordings name other zones or sides, and which of them the mask agrees with."""
    by_wording = ({(c.split, c.image_id): c for c in cases if c.captions == wording} for wording in (first, second))
    ours, theirs = by_wording
    pairs = [(ours[key], theirs[key]) for key in ours if key in theirs]
    differing = [(one, other) for one, other in pairs if one.named != other.named]
    sides = [(one.by_side, other.by_side) for one, other in differing]
    sides = [(one, other) for one, other in sides if one.named != other.named]
    zones = [
        (named, marked)
        for one, other in differing
        for named, another, marked in zip(one.named, other.named, one.marked, strict=True)
        if named != another
    ]
    right = sum(named == marked for named, marked in zones)
    return {
        "images with both": len(pairs),
        "images whose zones differ": len(differing),
        f"of these, {first} agrees in more zones": sum(one.wrong < other.wrong for one, other in differing),
        f"of these, {second} agrees in more zones": sum(one.wrong > other.wrong for one, other in differing),
        "zones that one of them names": len(zones),
        f"of these, the mask agrees with {first}": right,
        f"of these, the mask agrees with {second}": len(zones) - right,
        "images whose sides differ": len(sides),
        f"of these, the mask agrees with {first} only": sum(
            not one.wrong and bool(other.wrong) for one, other in sides
        ),
        f"of these, the mask agrees with {second} only": sum(
            bool(one.wrong) and not other.wrong for one, other in sides
        ),
    }


def lines(counts: dict[str, Counts]) -> list[str]:
    """Lines to print: the wordings side by side, then where they differ."""
    columns = {wording: found for wording, found in counts.items() if wording != "compared"}
    labels = list(next(iter(columns.values()), {}))
    wide = max(map(len, labels), default=0)
    shown = ["".join([" " * wide, *(f"{wording:>10}" for wording in columns)]).rstrip()] if any(columns) else []
    shown += ["".join([f"{label:<{wide}}", *(f"{found[label]:>10}" for found in columns.values())]) for label in labels]
    return shown + [f"{label}: {value}" for label, value in counts.get("compared", {}).items()]
