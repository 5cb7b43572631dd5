"""The report that a network writes itself: what a bundle says of it, and which zones it names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from textray.errors import BundleError, InputError
from textray.records import ZONE_NAMES, Grid, Laterality, Notice, Report, Zones
from textray.text import report as report_text

TextFree = Literal["generated", "none"]
"""What a run without a text does: the network writes its own report, or works from the picture alone."""
TextMode = Literal["given", "generated", "edited", "none"]
"""Which report steered the network: given words, its own, its own as a person corrected it, or none."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OwnReport:
    """What a network wrote about a film, or would have written.

    Attributes:
        zones: The zones that reach their thresholds, by image side.
        probability: Of a lesion in each zone, ``(6,)`` float32 in [0, 1], by image side.
        thresholds: Six probabilities.
        silent: The network was told to write none.
        denied: It was so because of a person's report that denies lesions and names no place that has one.
        attention: Share of the network's attention on each zone of pixels by its name, ``None`` where it has none.
    """

    zones: Zones
    probability: NDArray[np.float32]
    thresholds: tuple[float, ...]
    silent: bool = False
    denied: bool = False
    attention: Mapping[str, float] | None = None

    @property
    def report(self) -> Report | None:
        """The report, ``None`` where nothing was found to write."""
        if not self.zones:
            return None
        return Report(zones=self.zones, text=report_text.sentence(self.zones), laterality=Laterality.VIEWER)


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


def sentences(zones: Zones, grid: Grid) -> dict[str, str | None] | None:
    """The sentence of zones by the viewer's and by the patient's sides, ``None`` without a zone.

    The patient's is ``None`` where the film's sides are undefined and the sentence names one.
    """
    if not zones:
        return None
    try:
        patient = report_text.write(zones, laterality=Laterality.PATIENT, grid=grid)
    except InputError:
        patient = None
    return {"viewer": report_text.sentence(zones), "patient": patient}


def describe(own: OwnReport, grid: Grid, mode: TextMode, steering: Report | None) -> dict[str, Any]:
    """What a record says of the network's own report, used or not; arguments as in `textray.inference.record.build`."""
    attention = own.attention
    found = zip(ZONE_NAMES, own.probability.tolist(), own.thresholds, own.zones.present, strict=True)
    return {
        "sentence": sentences(own.zones, grid),
        "used": mode == "generated",
        "silent": own.silent,
        "denied": own.denied,
        "meaning": _meaning(own, mode, steering),
        "zones": {
            name: {
                "probability": round(probability, 4),
                "threshold": round(threshold, 4),
                "written": present,
                "attention_share": None if attention is None else round(attention[name], 4),
            }
            for name, probability, threshold, present in found
        },
    }


def notices(own: OwnReport, grid: Grid, mode: TextMode, steering: Report | None) -> list[Notice]:
    """What a reader of the result must be told of a report that no person gave, and of a person's correction of it."""
    if mode == "none" and not own.silent:
        return [_NOTHING_WRITTEN]
    if mode not in ("generated", "edited"):
        return []
    told = [_GENERATED] if mode == "generated" else []
    shown = [own.zones] if steering is None else [own.zones, steering.zones]
    if any(zones.present != zones.mirror().present for zones in shown):
        told += {"undefined": [_UNDEFINED], "assumed": [_ASSUMED]}.get(grid.sides_from, [])
    return told


def caption(record: Mapping[str, Any]) -> list[str]:
    """Lines beneath an overlay: the report that steered the network, where a network wrote it.

    Args:
        record: Of the prediction.

    Returns:
        No line where the report of a person steered the network or none was wanted, or where the weights write none.
    """
    text, own = record["text"], record.get("own_report")
    if own is None or text["mode"] == "given":
        return []
    if text["mode"] == "none":
        if own["denied"]:
            return ["The report that a person gave names no zone with a lesion; the film was read without a report."]
        return [] if own["silent"] else [own["meaning"]]
    if text["used"] is None:
        return ["A person's correction left no zone in the network's report; the film was read without a report."]
    author = "Written by the network, not by a person"
    if text["mode"] == "edited":
        author = "Written by the network, corrected by a person"
    patient, viewer = text["used"]["patient"], text["used"]["viewer"]
    if patient is None:
        return [f"{author} (left and right are the viewer's, as in this picture):", viewer]
    assumed = ", as on the usual film" if text["film_sides_from"] == "assumed" else ""
    return [f"{author} (left is the patient's left{assumed}):", patient]


_GENERATED = Notice(
    code="W_GENERATED",
    text="The report that steered the network was written by the network, not by a person.",
    remedy="Read it in the record; correct it with --edit, or give a report with --text.",
)
_NOTHING_WRITTEN = Notice(
    code="W_NOTHING_WRITTEN",
    text="The network found nothing to write and read the film without a report; this does not say that it is clear.",
    remedy="Give a report with --text, if there is one.",
)
_ASSUMED = Notice(
    code="W_SIDES_ASSUMED",
    text="The film does not say which side is the patient's left; the written report takes the usual one, on the "
    "viewer's right.",
    remedy="Check the picture; the record also has the report by the viewer's sides.",
)
_UNDEFINED = Notice(
    code="W_SIDES_UNDEFINED",
    text="The film's rows run to neither side of the patient; the written report is told by the viewer's sides only.",
    remedy="Read left and right as in the picture.",
)


def _meaning(own: OwnReport, mode: TextMode, steering: Report | None) -> str:
    if mode == "generated":
        return "The network wrote this report from the film and was steered by it; no person did."
    if mode == "edited" and steering is None:
        return "The network wrote this from the film; a person's correction left no zone, so it went without a report."
    if mode == "edited":
        return "The network wrote this from the film; the report that steered it was corrected by a person."
    if mode == "given":
        return "The network was given a report; this is what it would have written from the film."
    if own.denied:
        return (
            "A person's report names no zone with a lesion, so the network went without a report; this is what it "
            "would have written from the film."
        )
    if own.silent:
        return "The network was not asked for a report; this is what it would have written from the film."
    return "The network found nothing to write about this film; this does not say that it is clear."
