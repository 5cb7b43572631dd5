"""`textray explain zones`: the same film with prompts of other zones, one zone more or less at a time.

Each case is a run of the bundle's own graph; nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textray.explain.run import MARGIN, Explanation, convention, describe_zones, dice, open_page
from textray.inference.bank import Prompt
from textray.inference.film import denied
from textray.inference.record import clear_denied, zone_areas, zone_parts
from textray.inference.segmenter import Predictor
from textray.io.page import FAINT, Page, Picture, fit, line_height, thumbnail, wrap
from textray.io.write import render_overlay
from textray.records import LEVELS, SIDES, ZONE_NAMES, Grid, Prediction, Zones, ZoneState

MEANING = (
    "Each panel is a run of the network on the same film with other zones in the prompt: the words cause all "
    "differences between panels. Words that are not true of the film are an experiment, not a second opinion."
)
_LEGEND = (
    "White lines: the zones of the picture. Below each panel: lesion in each zone as a share of the picture, and p, "
    "the mean probability in that zone."
)
_PANEL, _GAP, _COLUMNS = 270, 18, 3
_LINE: tuple[int, int, int] = (235, 235, 235)


@dataclass(frozen=True, kw_only=True, eq=False)
class ZoneRun:
    """One run of the network."""

    name: str  # "given", "none", "mirrored", "with left upper", "without left upper", ...
    zones: Zones  # of its prompt; none is no report
    probability: NDArray[np.float32]  # (h, w), at the network's size
    mask: NDArray[np.bool_]  # (H, W), on the film's grid
    mean: dict[str, float]  # of the probability in each zone of the picture, 0 for an empty zone


class ZonesExplainer:
    """Explains the effect of each zone of the prompt on the mask."""

    kind = "zones"
    needs_words = False

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}

    def explain(self, predictor: Predictor, prediction: Prediction) -> Explanation:
        """Segment one film again and again, with other zones each time."""
        given = Zones() if prediction.report is None else prediction.report.zones
        cases = [(name, zones) for name, zones in counterfactuals(given) if zones or not predictor.bundle.needs_text]
        pixels = predictor.preprocess.apply(prediction.image)[None]
        runs = [self._run(predictor, prediction, pixels, name, zones) for name, zones in cases]
        base = runs[0]
        values_of = [self._values(run, base, predictor, prediction) for run in runs]
        values = {
            "given": describe_zones(given, prediction.grid),
            "compared_with": base.name,
            "zone_rows": list(predictor.bundle.zone_rows),
            "cases": values_of,
            "meaning": MEANING,
        }
        return Explanation(values=values, picture=_draw(runs, values_of, predictor, prediction))

    @staticmethod
    def _run(
        predictor: Predictor, prediction: Prediction, pixels: NDArray[np.float32], name: str, zones: Zones
    ) -> ZoneRun:
        prompt = zones.index if zones else Prompt.NO_REPORT
        small = predictor.infer(pixels, [prompt], denied(zones)[None]).probability[0]
        restored = predictor.preprocess.restore(small, prediction.grid)
        parts = zone_parts(restored, prediction.grid, predictor.bundle.zone_split)
        mean = {name: float(part.copy().mean()) if part.size else 0.0 for name, part in parts}
        mask = restored >= predictor.threshold
        if predictor.reads_denial:
            clear_denied(mask, zones, prediction.grid, predictor.bundle.zone_split)
        return ZoneRun(name=name, zones=zones, probability=small, mask=mask, mean=mean)

    @staticmethod
    def _values(run: ZoneRun, base: ZoneRun, predictor: Predictor, prediction: Prediction) -> dict[str, Any]:
        areas = zone_areas(run.mask, prediction.grid, predictor.bundle.zone_split)
        whole = prediction.grid.height * prediction.grid.width
        return {
            "name": run.name,
            "told": describe_zones(run.zones, prediction.grid),
            "lesion_share": round(float(run.mask.mean()), 6),
            "dice_with_compared": round(dice(run.mask, base.mask), 6),
            "zones": {
                name: {
                    **areas[name],
                    "share_of_picture": round(areas[name]["pixels"] / whole, 6),
                    "mean_probability": round(run.mean[name], 6),
                    "mean_probability_change": round(run.mean[name] - base.mean[name], 6),
                }
                for name in ZONE_NAMES
            },
        }


def counterfactuals(given: Zones) -> Iterator[tuple[str, Zones]]:
    """Names and zones of the prompts, by image side: the given ones, none, the mirrored ones, each zone more or less.

    What would repeat an earlier run is left out: a film without words has none first, and each single zone.
    """
    cases = [("given", given)] if given.mentioned else []
    cases += [("none", Zones()), ("mirrored", given.mirror())]
    for i, name in enumerate(ZONE_NAMES):
        other = ZoneState.UNMENTIONED if given.present[i] else ZoneState.PRESENT
        states = (other if i == k else state for k, state in enumerate(given.states))
        cases.append((f"{'without' if given.present[i] else 'with'} {name}", Zones(tuple(states))))
    used = set()
    for name, zones in cases:
        if zones not in used:
            used.add(zones)
            yield name, zones


def _draw(runs: list[ZoneRun], cases: list[dict[str, Any]], predictor: Predictor, prediction: Prediction) -> Picture:
    height, width = fit(prediction.grid.shape, _PANEL)
    cell = max(width, _PANEL)
    page_width = 2 * MARGIN + _COLUMNS * cell + (_COLUMNS - 1) * _GAP
    title, notes = "The same film with other zones in the prompt", (convention(prediction)["text"], MEANING, _LEGEND)
    titles = [_title(run, prediction, cell) for run in runs]
    above = max(len(title) for title in titles) * line_height(13) + 22
    below = 5 * line_height(12) + 8
    rows = -(-len(runs) // _COLUMNS)
    page, top = open_page(page_width, title, notes, gap=10, below=rows * (above + height + below + _GAP))
    for i, (run, case) in enumerate(zip(runs, cases, strict=True)):
        x, y = MARGIN + i % _COLUMNS * (cell + _GAP), top + i // _COLUMNS * (above + height + below + _GAP)
        page.text(x, y, _NAMES.get(run.name, run.name + " (viewer's)"), 15)
        page.lines(x, y + 22, titles[i], 13)
        _film(page, x, y + above, run, predictor, prediction, (height, width))
        _table(page, x, y + above + height + 4, case)
    return page.picture


_NAMES = {"given": "as given", "none": "no text", "mirrored": "left and right swapped"}


def _title(run: ZoneRun, prediction: Prediction, width: int) -> list[str]:
    """The zones of a prompt in both conventions, short enough for a panel."""
    if not run.zones:
        return ["no text"]
    lines = wrap(f"viewer's {_short(run.zones)}", 13, width)
    if describe_zones(run.zones, prediction.grid)["patient"] is None:
        return [*lines, "patient's sides unknown"]
    swap = prediction.grid.mirrored and prediction.grid.sides_from != "undefined"
    return [*lines, *wrap(f"patient's {_short(run.zones.mirror() if swap else run.zones)}", 13, width)]


def _short(zones: Zones) -> str:
    """Such as "left upper, lower; right lower"."""
    parts = []
    for side, states in zip(SIDES, (zones.present[:3], zones.present[3:]), strict=True):
        levels = [name for name, present in zip(LEVELS, states, strict=True) if present]
        if levels:
            parts.append(f"{side} {', '.join(levels)}")
    return "; ".join(parts)


def _film(
    page: Page, left: int, top: int, run: ZoneRun, predictor: Predictor, prediction: Prediction, size: tuple[int, int]
) -> None:
    height, width = size
    small = predictor.preprocess.restore(run.probability, Grid(height=height, width=width)) >= predictor.threshold
    film = thumbnail(prediction.image.film, size).mean(2) / 255
    page.paste(left, top, render_overlay(np.asarray(film, np.float32), small))
    for share in predictor.bundle.zone_rows:
        page.rule([(left, top + round(share * height)), (left + width - 1, top + round(share * height))], _LINE)
    page.rule([(left + width // 2, top), (left + width // 2, top + height - 1)], _LINE)


def _table(page: Page, left: int, top: int, case: dict[str, Any]) -> None:
    """Area and mean probability of each zone of the picture below its panel."""
    zones = case["zones"]
    page.text(left, top, f"lesion {case['lesion_share']:.1%}, Dice with first {case['dice_with_compared']:.2f}", 12)
    y = top + line_height(12)
    page.text(left + 50, y, "viewer's left", 12, colour=FAINT)
    page.text(left + 160, y, "viewer's right", 12, colour=FAINT)
    for name in LEVELS:
        y += line_height(12)
        page.text(left, y, name, 12, colour=FAINT)
        for x, side in ((50, "left"), (160, "right")):
            one = zones[f"{side} {name}"]
            page.text(left + x, y, f"{one['share_of_picture']:.1%}, p {one['mean_probability']:.2f}", 12)
