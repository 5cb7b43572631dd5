"""The JSON record of one prediction: input, text, weights, settings and result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textray import __version__
from textray.errors import ShapeError
from textray.inference import own_report
from textray.inference.bundle import Bundle
from textray.inference.film import NOTHING_SEEN, Film, Lungs
from textray.inference.own_report import Steering, TextFree
from textray.io.files import plain_path, plain_text
from textray.records import (
    LEVELS,
    SIDES,
    ZONE_NAMES,
    Grid,
    Image,
    Laterality,
    Notice,
    Prediction,
    Report,
    Volume,
    Zones,
    ZoneSplit,
    ZoneState,
)
from textray.text.cleaning import clean, is_blank
from textray.text.zones import sentence, write

SCHEMA = "textray.record/1"


def settings(
    bundle: Bundle,
    *,
    laterality: Laterality,
    strict_text: bool,
    text_free: TextFree | None = None,
    edit: str | None = None,
    presence_threshold: float | None = None,
) -> dict[str, Any]:
    """Everything besides picture, text and weights that can change a result.

    ``text_free`` is the prompt of a film without words, and ``presence_threshold`` the probability from which a film is
    said to show a lesion, ``None`` for those of the bundle.
    """
    # Only of weights that write reports, so that the keys of other results stay as they were.
    report = {"text_free": text_free or bundle.text_free, "edit": None if edit is None else clean(edit)}
    least = bundle.bounds.threshold if presence_threshold is None and bundle.bounds is not None else presence_threshold
    return {
        "textray": __version__,
        "threshold": bundle.threshold,
        "laterality": str(laterality),
        "strict_text": strict_text,
        "preprocess": bundle.preprocess.to_dict(),
        **(report if bundle.writes_report else {}),
        **({} if bundle.bounds is None else {"presence_threshold": least}),
    }


def digest(values: Mapping[str, Any]) -> str:
    """SHA-256 of JSON values, whatever order their keys come in."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


ZONES_MEAN = (
    "Names of zones here are sides of the picture as one looks at it: 'left' is the viewer's left, on the standard "
    "film the patient's right, whatever convention the words had."
)
"""A note in each record, so that nobody takes its zones for the patient's."""


def key(input_sha256: str, bundle: Bundle, text: str | None, settings: Mapping[str, Any]) -> str:
    """Hash of input, model, text and settings: results with the same key are the same."""
    text = None if text is None or is_blank(text) else clean(text)
    return digest({"input": input_sha256, "bundle": bundle.sha256, "text": text, "settings": dict(settings)})


def zone_areas(mask: NDArray[np.bool_], grid: Grid, split: ZoneSplit) -> dict[str, dict[str, Any]]:
    """Area of a mask ``(H, W)`` in each zone by name, as of `area`; shares are of the mask, 0 for an empty one.

    A pixel belongs to the zone that its centre lies in; one right at a line belongs to the right or lower zone.
    """
    total = int(mask.sum())
    return {name: area(part, grid, whole=total) for name, part in zone_parts(mask, grid, split)}


def zone_parts(
    values: NDArray[np.bool_] | NDArray[np.float32], grid: Grid, split: ZoneSplit
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Name of each zone of pixels, and the values ``(H, W)`` in it; zones are those of `zone_areas`."""
    if values.shape != grid.shape:
        raise ShapeError("mask and grid differ", came=values.shape, expected=grid.shape)
    heights = (np.arange(grid.height) + 0.5) / grid.height
    middle = int(np.searchsorted((np.arange(grid.width) + 0.5) / grid.width, split.column))
    for side, columns, rows in zip(SIDES, (slice(middle), slice(middle, None)), split.rows, strict=True):
        ends = [0, *np.searchsorted(heights, rows), grid.height]
        for i, name in enumerate(LEVELS):
            yield f"{side} {name}", values[ends[i] : ends[i + 1], columns]


def clear_denied(mask: NDArray[np.bool_], zones: Zones, grid: Grid, split: ZoneSplit) -> None:
    """Take the zones that words deny from a mask ``(H, W)``, unless they deny all: the network alone judges that."""
    states = dict(zip(ZONE_NAMES, zones.states, strict=True))
    if any(state is not ZoneState.ABSENT for state in zones.states):
        for name, part in zone_parts(mask, grid, split):
            if states[name] is ZoneState.ABSENT:
                part[:] = False


def zone_split(bundle: Bundle, lungs: Lungs | None) -> ZoneSplit:
    """Where zones of pixels meet: they follow the lungs, where the network finds lungs."""
    return bundle.zone_split if lungs is None else lungs.split(bundle.zone_rows)


def build(
    image: Image,
    bundle: Bundle,
    steering: Steering,
    used_settings: Mapping[str, Any],
    mask: NDArray[np.bool_],
    probability: Mapping[str, float | None],
    seconds: Mapping[str, float],
    seen: Film = NOTHING_SEEN,
) -> dict[str, Any]:
    """Build the record of a prediction from the result of `settings`, mask ``(H, W)``, `figures` and the times.

    ``seen`` is what the network says of the film as a whole.
    """
    split = zone_split(bundle, seen.lungs)
    grid, generated = image.grid, steering.generated
    return {
        "schema": SCHEMA,
        "textray": __version__,
        "key": key(image.sha256, bundle, steering.text, used_settings),
        **film(image),
        "model": bundle.describe(),
        "zones_mean": ZONES_MEAN,
        "text": _text(steering, grid),
        **({} if generated is None else {"own_report": own_report.describe(generated, steering, grid)}),
        "lesion": {**area(mask, grid), "zones": zone_areas(mask, grid, split)},
        **seen.describe(),
        "probability": {"threshold": bundle.threshold, **probability},
        "warnings": notice_rows([*_notices(image, bundle, steering), *seen.notices()]),
        "settings": dict(used_settings),
        "settings_sha256": digest(used_settings),
        "seconds": {phase: round(value, 4) for phase, value in seconds.items()},
    }


def figures(probability: NDArray[np.float32], mask: NDArray[np.bool_]) -> dict[str, float | None]:
    """Figures of a probability ``(H, W)`` for a record; ``mean_inside`` is inside its mask."""
    return {
        "max": round(float(probability.max()), 6),
        "mean": round(float(probability.mean()), 6),
        "mean_inside": round(float(probability[mask].mean()), 6) if mask.any() else None,
    }


def build_volume(
    volume: Volume,
    mask: NDArray[np.bool_],
    slices: Sequence[Mapping[str, Any]],
    shown: Prediction,
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """Build the one record of a volume from its mask ``(slices, H, W)``, the records of its slices, and the shown one.

    Slices are counted from the feet, from 0.
    """
    base, described = shown.record, film(shown.image)
    described["input"]["reader"] = dict(volume.info)
    described["grid"] |= {"slices": len(mask), "step_mm": volume.step_mm, "affine": volume.affine.tolist()}
    areas, count = mask.sum((1, 2)).tolist(), int(mask.sum())
    each = volume.grid.pixel_area_mm2
    inside = [area * one["probability"]["mean_inside"] for area, one in zip(areas, slices, strict=True) if area]
    return {
        **{name: base[name] for name in ("schema", "textray", "key")},
        **described,
        **{name: base[name] for name in ("model", "zones_mean", "text")},
        "lesion": {
            "voxels": count,
            "share": round(count / mask.size, 6),
            "ml": None if each is None else round(count * each * volume.step_mm / 1000, 3),
            "slices": {str(number): area for number, area in enumerate(areas) if area},
            "shown_slice": shown.image.info["slice"],
        },
        "probability": {
            "threshold": base["probability"]["threshold"],
            "max": max(one["probability"]["max"] for one in slices),
            "mean": round(sum(one["probability"]["mean"] for one in slices) / len(slices), 6),
            "mean_inside": round(sum(inside) / count, 6) if count else None,
        },
        "warnings": [*notice_rows(volume.notices), *_of_slices(slices, {one.code for one in volume.notices})],
        **{name: base[name] for name in ("settings", "settings_sha256")},
        "seconds": {
            phase: round(seconds.get(phase, 0) + sum(one["seconds"][phase] for one in slices), 4)
            for phase in base["seconds"]
        },
    }


def _of_slices(slices: Sequence[Mapping[str, Any]], known: set[str]) -> list[dict[str, str]]:
    """Warnings of slices, each code once, with the number of slices that have it."""
    found: dict[str, list[dict[str, str]]] = {}
    for one in slices:
        for row in one["warnings"]:
            found.setdefault(row["code"], []).append(row)
    return [
        rows[0]
        if len(rows) >= len(slices)
        else {**rows[0], "text": f"In {len(rows)} slices, as here: {rows[0]['text']}"}
        for code, rows in found.items()
        if code not in known
    ]


def _notices(image: Image, bundle: Bundle, steering: Steering) -> list[Notice]:
    """Warnings about picture, words and own report: of those with one code the words' first, the picture's last."""
    words = steering.words.notices
    others = without(own_report.notices(steering, image.grid), words)
    notices = [*without(image.notices, [*words, *others]), *words, *others]
    if steering.words.zones and bundle.text_encoder is None:
        text = f"{bundle.name} reads no text; the words changed nothing."
        notices.append(Notice(code="W_TEXT_NOT_READ", text=text, remedy="Name a model that reads text with --model."))
    return notices


def without(notices: Iterable[Notice], others: Iterable[Notice]) -> list[Notice]:
    """Notices whose codes none of the others has, which are more exact."""
    codes = {notice.code for notice in others}
    return [notice for notice in notices if notice.code not in codes]


def film(image: Image) -> dict[str, Any]:
    """A picture for records: ``input`` and ``grid``."""
    grid = image.grid
    return {
        "input": {
            "path": None if image.source is None else plain_path(image.source),
            "sha256": image.sha256,
            "reader": dict(image.info),
        },
        "grid": {
            "height": grid.height,
            "width": grid.width,
            "spacing_mm": None if grid.spacing_mm is None else list(grid.spacing_mm),
            "orientation": None if grid.orientation is None else list(grid.orientation),
            "transform": grid.transform,
            "displayed": "as stored" if not grid.transform else f"turned by {grid.transform}; the mask lies on that",
        },
    }


def notice_rows(notices: Iterable[Notice]) -> list[dict[str, str]]:
    """Warnings as JSON rows, each once."""
    return [
        {"code": notice.code, "text": plain_text(notice.text), "remedy": notice.remedy}
        for notice in dict.fromkeys(notices)
    ]


def describe_report(report: Report) -> dict[str, Any]:
    """What is understood of a report without a film, as JSON values; zones are the viewer's."""
    whose = report.laterality
    return {
        "laterality": str(whose),
        "sides_from": report.sides_from,
        "zones": {name: str(state) for name, state in zip(ZONE_NAMES, report.zones.states, strict=True)},
        "sentence": {
            "viewer": sentence(report.zones) if report.zones else None,
            str(whose): write(report.zones, laterality=whose) if report.zones else None,
        },
        "unused_words": [plain_text(word) for word in report.unused],
        "stated_count": report.stated_count,
        "warnings": notice_rows(report.notices),
    }


def _text(steering: Steering, grid: Grid) -> dict[str, Any]:
    words, report, mode = steering.words, steering.report, steering.mode
    used: dict[str, str | None] | None = None
    if report is not None and report.free:
        used = {"viewer": report.text}
    elif report is not None:
        used = own_report.sentences(report.zones, grid, words.laterality if mode == "given" else Laterality.PATIENT)
    shown = words if report is None else report
    return {
        "mode": mode,
        "given": None if steering.text is None or is_blank(steering.text) else plain_text(steering.text),
        "laterality": str(words.laterality),
        "sides_from": words.sides_from,
        "film_sides_from": grid.sides_from,
        "zones": {name: str(state) for name, state in zip(ZONE_NAMES, shown.zones.states, strict=True)},
        "used": used,
        **({"edit": None if words.text is None else plain_text(words.text)} if mode == "edited" else {}),
        "unused_words": [plain_text(word) for word in words.unused],
        "stated_count": words.stated_count,
    }


def area(mask: NDArray[np.bool_], grid: Grid, *, whole: int | None = None) -> dict[str, Any]:
    """Area of a mask: ``pixels``, ``share`` of ``whole`` or the picture, ``mm2`` (``None`` if uncalibrated)."""
    pixels, each = int(mask.sum()), grid.pixel_area_mm2
    whole = grid.height * grid.width if whole is None else whole
    return {
        "pixels": pixels,
        "share": round(pixels / whole, 6) if whole else 0.0,
        "mm2": None if each is None else round(pixels * each, 2),
    }
