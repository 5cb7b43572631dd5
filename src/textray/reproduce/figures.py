"""Cases × methods: Figures 2 and 3 of the MMI-UNet paper (Bui, Le, Choo, MICCAI 2024), Figure 3 of SGSeg's.

The figures show films beside their ground truth and the masks of several methods: yellow is found, red is missed, green
is wrong. MMI-UNet's Figure 2 is of QaTa-COV19 with each case's caption, its Figure 3 of MosMedData+; SGSeg's Figure 3
(Ye, Meng, Li, Feng, Kim, MICCAI 2024) sets methods that are told nothing, or their own report, beside those that are
told the caption. Which images the papers show, they do not say; here they are named by id or drawn by a seed, never by
their scores.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from textray import __version__, registry
from textray.data.base import Sample, check_split, naming, open_reader
from textray.errors import DataError, UsageError
from textray.explain.subject import dice
from textray.inference.bundle import Bundle
from textray.inference.outputs import write_together
from textray.inference.predictor import Predictor
from textray.io.page import FAINT, Page, Picture, fit, line_height, shrink, wrap
from textray.io.read import read
from textray.io.write import (
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    TRUE_POSITIVE,
    check_writable,
    render_overlay,
    write_json,
    write_picture,
)
from textray.records import Image
from textray.reproduce.catalogue import Order

DATA = {"mmi-unet-fig2": "qata_cov19", "mmi-unet-fig3": "mosmed_plus", "sgseg-fig3": "qata_cov19"}
"""Name of each figure and the data set that it shows."""
SCHEMA = "textray.figure/1"
SEED = 0

_PANEL, _GAP, _MARGIN, _LEAST_WIDTH = 224, 6, 16, 620
Told = Literal["oracle", "none", "generated"]
_SUFFIXES: dict[str, Told] = {"@none": "none", "@generated": "generated"}
_LEGEND = (("true positive", TRUE_POSITIVE), ("false negative", FALSE_NEGATIVE), ("false positive", FALSE_POSITIVE))
CONVENTION = {
    "viewer": "Left and right in the captions are the viewer's, the sides of the picture.",
    "patient": "Left and right in the captions are the patient's.",
    "unknown": "Whose left and right the captions mean is not known.",
}


@dataclass(frozen=True, kw_only=True)
class Method:
    """One column of masks.

    Attributes:
        label: What the figure calls it.
        bundle: Name of weights inside the package, or a bundle folder; ``None`` for the default weights.
        text: ``oracle``: told the data set's own caption; ``none``: told nothing; ``generated``: told nothing, and to
            write its own report.
    """

    label: str
    bundle: str | None
    text: Told = "oracle"


DEFAULT_METHODS = (
    Method(label="weights inside, told the caption", bundle=None),
    Method(label="weights inside, told nothing", bundle=None, text="none"),
)
_OWN = Method(label="weights inside, told their own report", bundle=None, text="generated")


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """One row: a case with the mask of each method."""

    sample: Sample
    image: Image
    truth: NDArray[np.bool_]
    masks: tuple[NDArray[np.bool_], ...]


def run(order: Order) -> int:
    """Draw a figure: ``<name>.png`` and ``<name>.json`` in the folder of the results, and nowhere else.

    Returns:
        The exit code, 0.

    Raises:
        UsageError: If a root, a method or a case is not there.
        DataError: If a mask does not fit its image.
    """
    data = DATA[order.name]
    if data not in order.roots:
        raise UsageError(f"{order.name} needs the folder of {data}", do=f"Add --root {data}=DIR")
    methods = read_methods(order.models)
    if not order.models and order.name.startswith("sgseg") and Bundle.load().writes_report:
        methods = (*methods, _OWN)
    samples = open_reader(data, order.roots[data]).samples(check_split(order.split))
    cases = choose(samples, order.cases, count=order.count)
    check_writable(order.out)
    predictors = [Predictor(Bundle.load(method.bundle), threads=order.threads) for method in methods]
    told = [text_of(method, predictor) for method, predictor in zip(methods, predictors, strict=True)]
    rows = []
    for sample in cases:
        order.tell(f"{sample.image_id}")
        rows.append(_segment(sample, predictors, told))
    picture = draw(rows, methods, data)
    values = {
        **facts(order, data),
        "methods": [
            {"label": method.label, "text": text, "model": predictor.bundle.describe()}
            for method, text, predictor in zip(methods, told, predictors, strict=True)
        ],
        "cases": [_case_values(row, methods) for row in rows],
    }
    save(order, picture, values)
    return 0


def facts(order: Order, data: str) -> dict[str, Any]:
    """What the record of any figure says of itself and of its data."""
    return {
        "schema": SCHEMA,
        "name": order.name,
        "textray": __version__,
        "data": {"name": data, "split": order.split, "laterality": registry.dataset(data).laterality},
        "cases_chosen": "by id" if order.cases else f"by seed {SEED}",
    }


def save(order: Order, picture: Picture, values: dict[str, Any]) -> None:
    """Write a figure's picture and record, both or neither.

    Raises:
        OutputError: If the folder cannot be written to.
    """
    places = {kind: order.out / f"{order.name}.{end}" for kind, end in (("picture", "png"), ("record", "json"))}
    write_together(
        places,
        {"picture": lambda path: write_picture(path, picture), "record": lambda path: write_json(path, values)},
    )
    order.tell(f"{order.name}: {places['picture']}, {places['record']}")


def read_methods(words: Sequence[str]) -> tuple[Method, ...]:
    """Methods from words such as ``MMI-UNet=FOLDER``, ``no text=FOLDER@none`` or ``SGSeg=FOLDER@generated``.

    No word is `DEFAULT_METHODS`.

    Raises:
        UsageError: If a word is not LABEL=BUNDLE, or two have one label.
    """
    methods: list[Method] = []
    for word in words:
        label, equals, bundle = word.partition("=")
        suffix = next((end for end in _SUFFIXES if bundle.endswith(end)), "")
        text, bundle = _SUFFIXES.get(suffix, "oracle"), bundle.removesuffix(suffix)
        if not equals or not label.strip() or not bundle:
            raise UsageError(
                "a method is not understood",
                came=word,
                expected="LABEL=BUNDLE, LABEL=BUNDLE@none for no text, or LABEL=BUNDLE@generated for its own report",
            )
        if any(method.label == label.strip() for method in methods):
            raise UsageError(f"two methods are called {label.strip()!r}", do="Give each a label of its own")
        methods.append(Method(label=label.strip(), bundle=bundle, text=text))
    return tuple(methods) or DEFAULT_METHODS


def choose(samples: Sequence[Sample], ids: Sequence[str], *, count: int) -> list[Sample]:
    """Cases by id in the order given, or drawn by the seed: other zones and another patient each, while there are any.

    Raises:
        UsageError: If an id is not in the split.
    """
    if ids:
        known = {sample.image_id: sample for sample in samples}
        missing = [name for name in ids if name not in known]
        if missing:
            raise UsageError(
                "a case is not in the split",
                came=", ".join(missing[:5]),
                expected=f"ids such as {next(iter(known), 'none: the split is empty')}",
                do="Name the split with --split",
            )
        return [known[name] for name in dict.fromkeys(ids)]
    drawn = sorted(samples, key=lambda s: hashlib.sha256(f"{SEED}:{s.image_id}".encode()).hexdigest())
    chosen: list[Sample] = []
    for fresh in (True, False):  # first those that add variety, then whatever comes
        for sample in drawn:
            if len(chosen) == count:
                return chosen
            zones, groups = {s.report.zones.index for s in chosen}, {s.group for s in chosen}
            adds = sample.report.zones.index not in zones and sample.group not in groups
            if adds or not (fresh or sample in chosen):
                chosen.append(sample)
    return chosen


def draw(rows: Sequence[Shown], methods: Sequence[Method], data: str) -> Picture:
    """Lay out the figure: film, ground truth and each method side by side, the caption under each row."""
    panels = [fit(row.image.grid.shape, _PANEL) for row in rows]
    columns = 2 + len(methods)
    width = max(2 * _MARGIN + columns * _PANEL + (columns - 1) * _GAP, _LEAST_WIDTH)
    titles = [wrap(title, 14, _PANEL) for title in ("image", "ground truth", *(method.label for method in methods))]
    captions = [wrap(row.sample.report.text or "(no caption)", 14, width - 2 * _MARGIN) for row in rows]
    above = max(len(title) for title in titles) * line_height(14) + 6
    under = line_height(12) + 4
    height = _MARGIN + above + 2 * _MARGIN + 2 * line_height(12)
    height += sum(
        panel[0] + under + len(caption) * line_height(14) + 14 for panel, caption in zip(panels, captions, strict=True)
    )
    page = Page(width, height)
    lefts = [_MARGIN + c * (_PANEL + _GAP) for c in range(columns)]
    for left, title in zip(lefts, titles, strict=True):
        page.lines(left, _MARGIN, title, 14)
    y = _MARGIN + above
    for row, panel, caption in zip(rows, panels, captions, strict=True):
        nothing = np.zeros_like(row.truth)
        pictures = [
            render_overlay(row.image.pixels, nothing),
            *(render_overlay(row.image.pixels, mask, row.truth) for mask in (row.truth, *row.masks)),
        ]
        for left, picture in zip(lefts, pictures, strict=True):
            page.paste(left, y, shrink(picture, panel))
        for left, mask in zip(lefts[2:], row.masks, strict=True):
            page.text(left, y + panel[0] + 2, f"Dice {dice(mask, row.truth):.3f}", 12, colour=FAINT)
        y = page.lines(_MARGIN, y + panel[0] + under, caption, 14) + 14
    left = _MARGIN
    for name, colour in _LEGEND:
        page.box(left, y + 3, 12, 12, colour)
        page.text(left + 18, y, name, 13)
        left += 130
    page.text(_MARGIN, y + 24, CONVENTION[registry.dataset(data).laterality], 12, colour=FAINT)
    return page.picture


def open_case(sample: Sample) -> tuple[Image, NDArray[np.bool_]]:
    """Film and ground truth of a case.

    Raises:
        DataError: If they differ in size.
    """
    image, truth = naming(sample.image_path, read), sample.read_mask()
    if truth.shape != image.grid.shape:
        raise DataError(f"the mask of {sample.image_id} has another size", came=truth.shape, expected=image.grid.shape)
    return image, truth


def _segment(sample: Sample, predictors: Sequence[Predictor], told: Sequence[Told]) -> Shown:
    image, truth = open_case(sample)
    masks = []
    for predictor, text in zip(predictors, told, strict=True):
        values = predictor.predict_batch(predictor.preprocess.apply(image)[None], [_row(sample, predictor, text)])[0]
        masks.append(predictor.preprocess.restore(values, image.grid) >= predictor.threshold)
    return Shown(sample=sample, image=image, truth=truth, masks=tuple(masks))


def _row(sample: Sample, predictor: Predictor, text: Told) -> int:
    """What `Predictor.infer` takes for what a method is told."""
    if text == "generated":
        return Predictor.WRITE
    row = predictor.bank_row(sample.report) if text == "oracle" else None
    return Predictor.SILENT if row is None else row  # a caption without a zone is no text, as in an evaluation


def text_of(method: Method, predictor: Predictor) -> Told:
    """What a method is told: a network that reads no text is told nothing, whatever was asked.

    Raises:
        UsageError: If it is to write its own report and writes none.
    """
    if method.text == "generated" and not predictor.bundle.writes_report:
        raise UsageError(
            f"{predictor.bundle.name} writes no report of its own",
            came=f"{method.label}: @generated",
            expected="a bundle of a network such as sgseg",
        )
    return "none" if predictor.bundle.text_encoder is None else method.text


def _case_values(row: Shown, methods: Sequence[Method]) -> dict[str, Any]:
    return {
        "id": row.sample.image_id,
        "split": row.sample.split,
        "caption": row.sample.report.text,
        "zones_viewer": row.sample.report.zones.index,
        "dice": {m.label: round(dice(mask, row.truth), 6) for m, mask in zip(methods, row.masks, strict=True)},
    }
