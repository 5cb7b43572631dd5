"""The report that a network writes itself: what a bundle says of it, and which zones it names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from textray.errors import BundleError
from textray.records import ZONE_NAMES, Zones

TextFree = Literal["generated", "none"]
"""What a run without a text does: the network writes its own report, or works from the picture alone."""


def announced(zones: Mapping[str, Any], text: Mapping[str, Any] | None) -> tuple[tuple[float, ...] | None, TextFree]:
    """Read what a bundle's config says of the report that its network writes.

    Args:
        zones: The config's ``zones``, where ``thresholds`` may stand.
        text: The config's ``text``, where ``free`` may stand; ``None`` for a network that reads no text.

    Returns:
        Thresholds by zone, ``None`` where no report is written, and what a run without a text does.

    Raises:
        BundleError: If they are wrong, or contradict each other.
    """
    thresholds = zones.get("thresholds")
    free = None if text is None else text.get("free")
    if thresholds is None:
        if free not in (None, "none"):
            raise BundleError(
                "the bundle writes no report, but its config says that runs without a text have one",
                came=repr(free),
                expected="six zones.thresholds, or no text.free",
            )
        return None, "none"
    values = tuple(float(value) for value in thresholds)
    if text is None or len(values) != len(ZONE_NAMES) or not all(0 <= value <= 1 for value in values):
        raise BundleError(
            "thresholds of the zones are wrong",
            came=thresholds if text is not None else f"{thresholds} without a text bank",
            expected="six numbers in [0, 1], beside a text bank",
        )
    known: tuple[TextFree, ...] = get_args(TextFree)
    for one in known:
        if free == one or (free is None and one == "generated"):
            return values, one
    raise BundleError("text.free of the bundle is unknown", came=repr(free), expected=", ".join(known))


def written(probability: NDArray[np.float32], thresholds: Sequence[float]) -> Zones:
    """The zones that a network writes into its report: those that reach their thresholds.

    Args:
        probability: ``(6,)`` float32 in [0, 1], by image side.
        thresholds: Six, in the same order.
    """
    return Zones.from_present((probability >= np.asarray(thresholds, np.float32)).tolist())
