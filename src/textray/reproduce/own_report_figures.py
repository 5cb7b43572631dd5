"""Figures 4 and 5 of SGSeg (Ye, Meng, Li, Feng, Kim, MICCAI 2024): what a network wrote, and where it looked.

Figure 4 sets the mask that a network drew by its own report beside the ground truth, and both reports beside each
other; words that one of them has and the other has not are marked. Figure 5 shows film, ground truth, attention map and
the map over the film. Which images the paper shows is told for Figure 4 only (two, by name); here they are named by id
or drawn by a seed, never by their scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textray import registry
from textray.data.base import Sample, check_split, open_reader
from textray.errors import UsageError
from textray.explain.subject import dice
from textray.inference.bundle import Bundle
from textray.inference.own_report import written
from textray.inference.predictor import Predictor
from textray.io.page import (
    FAINT,
    INK,
    Colour,
    Page,
    Picture,
    fit,
    line_height,
    project,
    ramp,
    shrink,
    text_width,
    wrap,
)
from textray.io.write import check_writable, render_overlay
from textray.records import Image, Zones
from textray.reproduce.catalogue import Order
from textray.reproduce.figures import CONVENTION, choose, facts, open_case, read_methods, save
from textray.text.report import sentence

DATA = "qata_cov19"
_PANEL, _GAP, _MARGIN, _SIZE = 224, 6, 16, 14
_MARK: Colour = (200, 40, 40)
_NOTHING = "(nothing found to write; segmented without a report)"

Marked = list[tuple[str, bool]]
"""Words of a sentence, each with whether it is marked."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """One case.

    Attributes:
        sample: The case.
        image: Its film.
        truth: Its ground truth, ``(H, W)`` bool.
        mask: What the network drew by its own report, ``(H, W)`` bool.
        zones: What it wrote, by image side.
        attention: Where it looked, ``(H, W)`` float32, not negative; ``None`` where it does not tell.
    """

    sample: Sample
    image: Image
    truth: NDArray[np.bool_]
    mask: NDArray[np.bool_]
    zones: Zones
    attention: NDArray[np.float32] | None


def run(order: Order) -> int:
    """Draw a figure: ``<name>.png`` and ``<name>.json`` in the folder of the results, and nowhere else.

    Returns:
        The exit code, 0.

    Raises:
        UsageError: If a root or a case is not there, or the bundle writes no report or tells no attention.
        DataError: If a mask does not fit its image.
    """
    if DATA not in order.roots:
        raise UsageError(f"{order.name} needs the folder of {DATA}", do=f"Add --root {DATA}=DIR")
    predictor = open_writer(order)
    needs_attention = order.name == "sgseg-fig5"
    if needs_attention and not predictor.tells_attention:
        raise UsageError(
            f"{predictor.bundle.name} does not tell where it looks",
            expected="a bundle with an attention map, as textray export writes of a network such as sgseg",
        )
    samples = open_reader(DATA, order.roots[DATA]).samples(check_split(order.split))
    cases = choose(samples, order.cases, count=order.count)
    check_writable(order.out)
    rows = []
    for sample in cases:
        order.tell(f"{sample.image_id}")
        rows.append(_segment(sample, predictor))
    picture = draw_attention(rows) if needs_attention else draw_reports(rows)
    values = {
        **facts(order, DATA),
        "model": predictor.bundle.describe(),
        "cases": [_attention_values(row, predictor) if needs_attention else _report_values(row) for row in rows],
    }
    save(order, picture, values)
    return 0


def open_writer(order: Order) -> Predictor:
    """The one network that a figure is of, ready to write its own reports.

    Raises:
        UsageError: If more than one is named, a text is asked for, or it writes no report.
    """
    methods = read_methods(order.models)[: 1 if not order.models else None]
    if len(methods) > 1 or (order.models and methods[0].text == "none"):
        raise UsageError(
            f"{order.name} shows one network with its own report",
            came=", ".join(order.models),
            expected="one --model LABEL=BUNDLE",
        )
    predictor = Predictor(Bundle.load(methods[0].bundle), threads=order.threads)
    if not predictor.bundle.writes_report:
        raise UsageError(
            f"{predictor.bundle.name} writes no report of its own",
            expected="a bundle of a network such as sgseg",
            do="Name one with --model LABEL=BUNDLE",
        )
    return predictor


def _segment(sample: Sample, predictor: Predictor) -> Shown:
    image, truth = open_case(sample)
    found = predictor.infer(predictor.preprocess.apply(image)[None], [Predictor.WRITE])
    probability, thresholds = found.zone_probability, predictor.bundle.zone_thresholds
    if probability is None or thresholds is None:
        raise UsageError(f"the graph of {predictor.bundle.name} tells no zones", do="Export its checkpoint again")
    attention = None
    if found.attention is not None:
        attention = predictor.preprocess.restore_coarse(found.attention[0, 0], image.grid)
    mask = predictor.preprocess.restore(found.probability[0], image.grid) >= predictor.threshold
    zones = written(probability[0], thresholds)
    return Shown(sample=sample, image=image, truth=truth, mask=mask, zones=zones, attention=attention)


def mark(first: str, second: str) -> tuple[Marked, Marked]:
    """The words of two sentences, those marked that the other lacks at their place; commas and case do not count."""
    words = first.split(), second.split()
    bare = [[word.strip(".,").lower() for word in side] for side in words]
    marks = [[True] * len(side) for side in words]
    for block in SequenceMatcher(None, bare[0], bare[1], autojunk=False).get_matching_blocks():
        for k in range(block.size):
            marks[0][block.a + k] = marks[1][block.b + k] = False
    return list(zip(words[0], marks[0], strict=True)), list(zip(words[1], marks[1], strict=True))


def sentences(row: Shown) -> tuple[Marked, Marked]:
    """The network's report and the case's caption, words that differ marked; both by the sides of the caption."""
    own, true = sentence(row.zones) if row.zones else _NOTHING, row.sample.report.text or "(no caption)"
    if not row.zones or row.sample.report.text is None:
        return [(word, False) for word in own.split()], [(word, False) for word in true.split()]
    return mark(own, true)


def draw_reports(rows: Sequence[Shown]) -> Picture:
    """Lay out Figure 4: film, segmentation, ground truth, the network's report, the caption."""
    titles = ("image", "segmentation", "ground truth", "report of the network", "caption")
    notes = (
        "Yellow is found, red is missed, green is wrong. Words that differ are red and underlined. "
        f"{CONVENTION[registry.dataset(DATA).laterality]} The network's report is told by the same sides."
    )
    page, lefts, y = _begin(rows, titles, notes)
    for row in rows:
        size = fit(row.image.grid.shape, _PANEL)
        for left, overlay in zip(
            lefts,
            (
                render_overlay(row.image.pixels, np.zeros_like(row.truth)),
                render_overlay(row.image.pixels, row.mask, row.truth),
                render_overlay(row.image.pixels, row.truth, row.truth),
            ),
            strict=False,
        ):
            page.paste(left, y, shrink(overlay, size))
        for left, words in zip(lefts[3:], sentences(row), strict=True):
            _write(page, left, y, words)
        _caption(page, lefts[0], y + size[0], row)
        y += size[0] + line_height(12) + 14
    return page.picture


def draw_attention(rows: Sequence[Shown]) -> Picture:
    """Lay out Figure 5: film, ground truth, attention map, the map over the film."""
    titles = ("image", "ground truth", "attention map", "projected")
    notes = (
        "Attention that the network gave to each place to tell the zones of its report; of each film from its lowest "
        "value (dark) to its highest (light). It tells where the network looked, not where a lesion is."
    )
    page, lefts, y = _begin(rows, titles, notes)
    for row in rows:
        size = fit(row.image.grid.shape, _PANEL)
        attention = np.zeros(row.truth.shape, np.float32) if row.attention is None else row.attention
        span = float(attention.max() - attention.min())
        level = (attention - attention.min()) / span if span > 0 else np.zeros_like(attention)
        for left, panel in zip(
            lefts,
            (
                render_overlay(row.image.pixels, np.zeros_like(row.truth)),
                render_overlay(row.image.pixels, row.truth, row.truth),
                ramp(level),
                project(row.image.pixels, attention),
            ),
            strict=True,
        ):
            page.paste(left, y, shrink(panel, size))
        _caption(page, lefts[0], y + size[0], row)
        y += size[0] + line_height(12) + 14
    return page.picture


def _begin(rows: Sequence[Shown], titles: Sequence[str], note: str) -> tuple[Page, list[int], int]:
    """A page with its titles and, at its foot, its note; the left edge of each column, and where the first row goes."""
    width = 2 * _MARGIN + len(titles) * _PANEL + (len(titles) - 1) * _GAP
    lines = wrap(note, 12, width - 2 * _MARGIN)
    top = _MARGIN + line_height(_SIZE) + 6
    under = sum(fit(row.image.grid.shape, _PANEL)[0] + line_height(12) + 14 for row in rows)
    page = Page(width, top + under + len(lines) * line_height(12) + _MARGIN)
    lefts = [_MARGIN + column * (_PANEL + _GAP) for column in range(len(titles))]
    for left, title in zip(lefts, titles, strict=True):
        page.text(left, _MARGIN, title, _SIZE)
    page.lines(_MARGIN, top + under, lines, 12, colour=FAINT)
    return page, lefts, top


def _caption(page: Page, left: int, top: int, row: Shown) -> None:
    page.text(left, top + 2, f"{row.sample.image_id}  Dice {dice(row.mask, row.truth):.3f}", 12, colour=FAINT)


def _write(page: Page, left: int, top: int, words: Marked) -> None:
    """Write words into a column; marked ones in colour and underlined."""
    x, space = left, text_width(" ", _SIZE)
    for word, marked in words:
        wide = text_width(word, _SIZE)
        if x > left and x + wide > left + _PANEL - _GAP:
            x, top = left, top + line_height(_SIZE)
        page.text(x, top, word, _SIZE, colour=_MARK if marked else INK)
        if marked:
            page.rule([(x, top + line_height(_SIZE) - 2), (x + wide, top + line_height(_SIZE) - 2)], _MARK)
        x += wide + space


def _report_values(row: Shown) -> dict[str, Any]:
    own, true = sentences(row)
    return {
        **_case_values(row),
        "report": sentence(row.zones) if row.zones else None,
        "caption": row.sample.report.text,
        "convention": registry.dataset(DATA).laterality,
        "differs": {
            "report": [word for word, marked in own if marked],
            "caption": [word for word, marked in true if marked],
        },
        "zones_viewer": {"report": row.zones.index, "caption": row.sample.report.zones.index},
    }


def _attention_values(row: Shown, predictor: Predictor) -> dict[str, Any]:
    attention = np.zeros(row.truth.shape, np.float32) if row.attention is None else row.attention
    total = float(attention.sum())
    return {
        **_case_values(row),
        "attention_in_truth": round(float(attention[row.truth].sum()) / total, 6) if total > 0 else None,
        "truth_share": round(float(row.truth.mean()), 6),
        "size": list(predictor.preprocess.size),
    }


def _case_values(row: Shown) -> dict[str, Any]:
    return {
        "id": row.sample.image_id,
        "split": row.sample.split,
        "dice": round(dice(row.mask, row.truth), 6),
    }
