"""Figure 3 of the grounding paper (Yang et al., arXiv:2401.01524): film, truth, and where methods find a phrase.

The figure shows films with boxes of MS-CXR beside the maps of several methods. Which films, the paper does not say;
here they are named by id or drawn by a seed, never by their scores, of any data set that says where a phrase is true.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textray import registry
from textray.data.base import naming, open_reader
from textray.data.exclusion import refuse_unless_excluded
from textray.data.phrases import PhraseSample, phrases, truth
from textray.errors import UsageError
from textray.inference.ground_picture import cross
from textray.inference.grounding_bundle import GroundingBundle
from textray.inference.grounding_cases import GRID, evaluation_grid
from textray.inference.localizer import Localization, Localizer
from textray.io.page import FAINT, Page, Picture, fit, heat, line_height, thumbnail, wrap
from textray.io.write import FOUND, check_writable, outline
from textray.metrics.grounding import THRESHOLDS, MapScore, score
from textray.metrics.score_map import SIGMA, enlarge, normalise, smooth
from textray.records import Image
from textray.reproduce.catalogue import Order
from textray.reproduce.figures import CONVENTION, SEED, facts, save
from textray.reproduce.grounding_tables import Model, read_models

_PANEL, _GAP, _MARGIN, _SIZE, _LEAST_WIDTH = 224, 6, 16, 14, 620
_LINE = 2  # pixels of the outline of a truth


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """One row: a phrase of a film with what each method found.

    Attributes:
        sample: The phrase.
        image: Its film.
        truth: Where it is true, ``(H, W)`` bool.
        found: Of each method.
        scores: Of each method, on the grid and in the range of an evaluation (`minmax`).
    """

    sample: PhraseSample
    image: Image
    truth: NDArray[np.bool_]
    found: tuple[Localization, ...]
    scores: tuple[MapScore, ...]


def run(order: Order) -> int:
    """Draw the figure: ``<name>.png`` and ``<name>.json`` in the folder of the results, and nowhere else.

    Returns:
        The exit code, 0.

    Raises:
        UsageError: If a root, a method or a case is not there, or weights must not be shown on this data set.
        DataError: If truth and film do not fit each other.
        InputError: If the sides of a phrase cannot be turned to those that a method was taught.
    """
    able = sorted(name for name, row in registry.DATASETS.items() if row.phrase_kinds)
    if len(order.roots) != 1 or not set(order.roots) <= set(able):
        raise UsageError(
            f"{order.name} is of one data set that says where phrases are true",
            came=", ".join(order.roots) or "no --root",
            expected="one of " + ", ".join(able),
            do="Add --root qata_cov19=DIR",
        )
    ((data, root),) = order.roots.items()
    kind = registry.dataset(data).phrase_kinds[0]
    cases = choose(phrases(data, order.split, root=root, kind=kind), order.cases, count=order.count)
    methods = read_models(order.models) or (Model(label="weights inside", bundle=GroundingBundle.load()),)
    reader = open_reader(data, root)
    localizers = []
    for method in methods:
        if method.bundle is not None:
            refuse_unless_excluded(reader, method.bundle.provenance, data)
            localizers.append(Localizer(method.bundle, threads=order.threads))
    check_writable(order.out)
    rows = []
    for sample in cases:
        order.tell(f"{sample.image_id}")
        rows.append(_locate(sample, localizers))
    labels = [method.label for method in methods]
    values = {
        **facts(order, data),
        "phrases": kind,
        "methods": [
            {"label": label, "model": localizer.bundle.describe()}
            for label, localizer in zip(labels, localizers, strict=True)
        ],
        "cases": [_case_values(row, labels) for row in rows],
    }
    save(order, draw(rows, labels, data), values)
    return 0


def choose(samples: Sequence[PhraseSample], ids: Sequence[str], *, count: int) -> list[PhraseSample]:
    """Every phrase of the films named, or phrases drawn by the seed: other words and another patient each if possible.

    Raises:
        UsageError: If a film is not in the split.
    """
    if ids:
        missing = sorted(set(ids) - {sample.image_id for sample in samples})
        if missing:
            raise UsageError(
                "a case is not in the split",
                came=", ".join(missing[:5]),
                expected=f"ids such as {samples[0].image_id if samples else 'none: the split is empty'}",
                do="Name the split with --split",
            )
        return [sample for name in dict.fromkeys(ids) for sample in samples if sample.image_id == name]
    drawn = sorted(
        samples, key=lambda s: hashlib.sha256(f"{SEED}:{s.image_id}\t{s.phrase}\t{s.label}".encode()).hexdigest()
    )
    chosen: list[PhraseSample] = []
    for fresh in (True, False):  # first those that add variety, then whatever comes
        for sample in drawn:
            if len(chosen) == count:
                return chosen
            words, groups = {s.phrase for s in chosen}, {s.group for s in chosen}
            adds = sample.phrase not in words and sample.group not in groups
            if adds or not (fresh or sample in chosen):
                chosen.append(sample)
    return chosen


def draw(rows: Sequence[Shown], labels: Sequence[str], data: str) -> Picture:
    """Lay out the figure: film, truth and the map of each method side by side, the phrase under each row."""
    columns = 2 + len(labels)
    width = max(2 * _MARGIN + columns * _PANEL + (columns - 1) * _GAP, _LEAST_WIDTH)
    titles = [wrap(title, _SIZE, _PANEL) for title in ("film", "where it is true", *labels)]
    panels = [fit(row.image.grid.shape, _PANEL) for row in rows]
    captions = [wrap(f'"{row.sample.phrase}"', _SIZE, width - 2 * _MARGIN) for row in rows]
    legend = [
        "Colours run from the lowest to the highest cosine of each map: the same colour is not the same cosine.",
        "Line: where the phrase is true. Cross: the highest value.",
        "Dice: mean over the thresholds 0.1 to 0.5 of the map stretched to [-1, 1].",
        _sides(rows, data),
    ]
    under = [line for text in legend for line in wrap(text, 12, width - 2 * _MARGIN)]
    top = _MARGIN + max(len(title) for title in titles) * line_height(_SIZE) + 6
    told = [[_told(*pair) for pair in zip(row.found, row.scores, strict=True)] for row in rows]
    belows = [max(len(lines) for lines in of_row) * line_height(12) + 6 for of_row in told]
    height = top + len(under) * line_height(12) + 2 * _MARGIN
    height += sum(
        panel[0] + below + len(caption) * line_height(_SIZE) + 14
        for panel, below, caption in zip(panels, belows, captions, strict=True)
    )
    page = Page(width, height)
    lefts = [_MARGIN + column * (_PANEL + _GAP) for column in range(columns)]
    for left, title in zip(lefts, titles, strict=True):
        page.lines(left, _MARGIN, title, _SIZE)
    y = top
    for row, panel, of_row, below, caption in zip(rows, panels, told, belows, captions, strict=True):
        for left, picture in zip(lefts, _pictures(row, panel), strict=True):
            page.paste(left, y, picture)
        for left, lines in zip(lefts[2:], of_row, strict=True):
            page.lines(left, y + panel[0] + 2, lines, 12, colour=FAINT)
        y = page.lines(_MARGIN, y + panel[0] + below, caption, _SIZE) + 14
    page.lines(_MARGIN, y + 4, under, 12, colour=FAINT)
    return page.picture


def _pictures(row: Shown, size: tuple[int, int]) -> list[Picture]:
    """The panels of a row, all of one size."""
    film = thumbnail(row.image.pixels, size)
    line = outline(enlarge(row.truth.astype(np.float32), size) >= 0.5, _LINE)
    plain = np.asarray(np.rint(film), np.uint8)
    true = plain.copy()
    true[line] = FOUND
    pictures = [plain, true]
    for found in row.found:
        values = enlarge(found.map, size)
        low, high = float(found.map.min()), float(found.map.max())
        level = np.clip((values - low) / (high - low), 0, 1) if high > low else np.zeros_like(values)
        picture = heat(film, level)
        picture[line] = FOUND
        panel = Page(size[1], size[0])
        panel.paste(0, 0, picture)
        cross(panel, found.peak, row.image.grid, size)
        pictures.append(panel.picture)
    return pictures


def _told(found: Localization, scored: MapScore) -> list[str]:
    """Two lines under a map."""
    low, high = float(found.map.min()), float(found.map.max())
    return [f"Dice {_over_thresholds(scored)[1]:.3f}, cosine {low:.2f} to {high:.2f}"] + (
        ["sides turned for the network"] if found.told != found.phrase.phrase else []
    )


def _sides(rows: Sequence[Shown], data: str) -> str:
    words = CONVENTION[registry.dataset(data).laterality].replace("captions", "phrases")
    if registry.dataset(data).laterality != "patient":
        return words
    unsure = any(row.image.grid.sides_from == "assumed" for row in rows)
    return words + (" The patient's left is taken to be the viewer's right where a file does not tell." * unsure)


def _locate(sample: PhraseSample, localizers: Sequence[Localizer]) -> Shown:
    found, scores = [], []
    image: Image | None = None
    for localizer in localizers:
        grid = evaluation_grid(localizer.preprocess)
        image = naming(sample.image_path, grid.read) if image is None else image
        (one,) = localizer.locate(image, [sample.phrase], laterality=sample.laterality)
        cosines = localizer.maps(localizer.preprocess.apply(image)[None], localizer.embed([one.told]))[0, 0]
        on_grid = normalise(enlarge(smooth(cosines, SIGMA), GRID), "minmax")
        scores.append(score(on_grid, grid.resize_mask(truth(sample, image.grid.shape))))
        found.append(one)
    if image is None:
        raise UsageError("a figure needs weights", do="Add --model LABEL=BUNDLE")
    return Shown(
        sample=sample, image=image, truth=truth(sample, image.grid.shape), found=tuple(found), scores=tuple(scores)
    )


def _over_thresholds(scored: MapScore) -> tuple[float, float]:
    """Mean IoU and Dice, as in a table."""
    pairs = [scored.at(t) for t in THRESHOLDS]
    return float(np.mean([pair[0] for pair in pairs])), float(np.mean([pair[1] for pair in pairs]))


def _case_values(row: Shown, labels: Sequence[str]) -> dict[str, Any]:
    return {
        "id": row.sample.image_id,
        "split": row.sample.split,
        "phrase": row.sample.phrase,
        "laterality": str(row.sample.laterality),
        "sides_from": row.image.grid.sides_from,
        "label": row.sample.label,
        "found": {
            label: {
                "told": found.told,
                "peak": list(found.peak),
                "peak_inside": bool(row.truth[found.peak]),
                "lowest": round(float(found.map.min()), 6),
                "highest": round(float(found.map.max()), 6),
                **dict(zip(("iou", "dice"), (round(v, 6) for v in _over_thresholds(scored)), strict=True)),
            }
            for label, found, scored in zip(labels, row.found, row.scores, strict=True)
        },
    }
