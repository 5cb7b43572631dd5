"""Zones withheld and denied in training, so that a network heeds what a report leaves out and what it denies.

QaTa's captions never contradict the pixels, so a network may find every lesion by itself and ignore the words. Here the
words name only some of the zones, and the mask holds only these: without the words the mask cannot be predicted.
Denials are learnt the same way: what they name is taken from the mask.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from textray.records import Laterality, Report, Zones, ZoneState
from textray.text.zones import sentence

REACH = ((0.0, 0.38), (0.37, 0.59), (0.47, 1.0))
"""Heights that lesions reach on a side that is named upper, middle or lower alone, as shares of the image's height.

They overlap, for captions divide lungs, not images. Set by hand near the medians of QaTa-COV19's training part that
``benchmarks/caption_heights.py`` prints: one lesion named upper ends at 0.37, middle reaches from 0.39 to 0.60, lower
begins at 0.45 (at 0.48 without its outermost 5 %).
"""


def drop_zones(
    mask: NDArray[np.bool_], report: Report, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], Report] | None:
    """Drop some of a report's zones, and with them what lies there of the mask.

    One time in two a whole side is dropped, else any of the zones. A side that is no longer named loses the lesions
    whose centres lie on its half of the image; a side that is still named keeps what lies at the heights (`REACH`) of
    the zones it is still named with. Nothing changes on a side none of whose zones were dropped.

    The mask, ``(H, W)`` bool, is as read (not turned or shifted yet). ``None`` where the report names one zone at most,
    its sides are not known, or nothing of the mask would be left.
    """
    named = [zone for zone, present in enumerate(report.zones.present) if present]
    if report.laterality is Laterality.UNKNOWN or len(named) < 2:
        return None
    sides = {zone // 3 for zone in named}
    if len(sides) == 2 and rng.random() < 0.5:
        dropped = rng.integers(2)
        gone = {zone for zone in named if zone // 3 == dropped}
    else:
        gone = {int(zone) for zone in rng.choice(named, size=rng.integers(1, len(named)), replace=False)}
    lesions, count = ndimage.label(mask, np.ones((3, 3)))
    centres = ndimage.center_of_mass(mask, lesions, range(1, count + 1))
    of_side = np.array([0, *(1 if column >= mask.shape[1] / 2 else 0 for _, column in centres)])[lesions]  # (H, W)
    kept = mask.copy()
    for side in {zone // 3 for zone in gone}:
        rows = np.zeros(mask.shape[0], np.bool_)
        for level, (top, end) in enumerate(REACH):
            zone = side * 3 + level
            if zone in named and zone not in gone:
                rows[round(top * mask.shape[0]) : round(end * mask.shape[0])] = True
        kept &= (of_side != side) | rows[:, None]
    if not kept.any():
        return None
    zones = Zones.from_present(zone in named and zone not in gone for zone in range(6))
    return kept, replace(report.with_zones(zones), text=sentence(zones))


def deny_zones(
    mask: NDArray[np.bool_], report: Report, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], Report] | None:
    """Deny some zones: healthy ones, sick ones with what lies there of the mask, or all.

    Of sick zones those are chosen that `drop_zones` takes; what is left is said in words two times in three. ``mask``
    ``(H, W)`` and result are as there, ``None`` where the sides are unknown. The report without words has no text.
    """
    if report.laterality is Laterality.UNKNOWN:
        return None
    healthy = [zone for zone, present in enumerate(report.zones.present) if not present]
    draw = rng.random()
    dropped = drop_zones(mask, report, rng) if draw < 0.5 else None
    if dropped is not None:
        kept, left = dropped
        gone = {zone for zone, still in enumerate(left.zones.present) if report.zones.present[zone] and not still}
        gone |= {zone for zone in healthy if rng.random() < 0.3}
        return kept, deny(left if rng.random() < 2 / 3 else replace(left, text=None, zones=Zones()), gone)
    if draw > 0.85 or not healthy:
        return np.zeros_like(mask), deny(replace(report, text=None, zones=Zones()), range(6))
    some = rng.choice(healthy, size=rng.integers(1, len(healthy) + 1), replace=False)
    return mask, deny(report, {int(zone) for zone in some})


def deny(report: Report, zones: Collection[int]) -> Report:
    """A report that also denies zones, by their places in `textray.records.ZONE_NAMES`."""
    states = (ZoneState.ABSENT if zone in zones else state for zone, state in enumerate(report.zones.states))
    return replace(report, zones=Zones(tuple(states)))


def drop_from_label(label: Zones, whole: Zones, left: Zones) -> Zones:
    """Take from a label what was dropped from its report: those zones, and every zone of a side no longer named.

    The label need not name the ``whole`` report's zones; ``left`` are those of the report that are left.
    """
    gone = {
        zone for zone, (was, still) in enumerate(zip(whole.present, left.present, strict=True)) if was and not still
    }
    unnamed = {zone // 3 for zone in gone if not any(left.present[zone // 3 * 3 : zone // 3 * 3 + 3])}
    return Zones.from_present(
        present and zone not in gone and zone // 3 not in unnamed for zone, present in enumerate(label.present)
    )
