"""Figures of the papers: films beside truth, masks, maps, reports; one painter for all.

* MMI-UNet (Bui, Le, Choo, MICCAI 2024), Figures 2 and 3, and SGSeg (Ye, Meng, Li, Feng, Kim, MICCAI 2024), Figure 3:
  cases by methods. Yellow is a true positive, red a false negative, green a false positive.
* SGSeg, Figure 4: the mask that a network draws by its own report, and that report beside the caption, words that
  differ marked. Figure 5: its attention map.
* The grounding paper (Yang et al., arXiv:2401.01524), Figure 3: where methods find a phrase.

The papers mostly do not name their images. Images are named by id or drawn by a seed, never chosen by scores.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from textray import __version__, registry
from textray.data.base import Sample, check_split, naming, open_reader
from textray.data.boxes import truth
from textray.data.studies import refuse_unless_excluded
from textray.errors import UsageError
from textray.evaluate.cases import open_case, prompt_of, text_of
from textray.evaluate.maps import GRID, evaluation_grid
from textray.explain.run import dice
from textray.inference.bank import Prompt
from textray.inference.bundle import Bundle, GroundingBundle
from textray.inference.ground_picture import cross
from textray.inference.localizer import Localization, Localizer
from textray.inference.own_report import written
from textray.inference.results import schema_of, write_together
from textray.inference.segmenter import Inference, Predictor
from textray.io import write
from textray.io.page import Page, Picture, fit, heat, project, ramp, shrink, thumbnail
from textray.io.read import read
from textray.metrics.grounding import SIGMA, THRESHOLDS, MapScore, enlarge, normalise, score, smooth
from textray.records import Image, Zones
from textray.reproduce import Order, TextMode, read_models, read_pairs
from textray.reproduce.paint import MARGIN, PANEL, Band, Marked, Sheet, paint
from textray.text.zones import sentence

SCHEMA = "textray.figure/1"
SEED = 0
MASK_FIGURES = {"mmi-unet-fig2": "qata_cov19", "mmi-unet-fig3": "mosmed_plus", "sgseg-fig3": "qata_cov19"}
"""Figures of cases by methods, and the data set that each shows."""
REPORT_DATA = "qata_cov19"
"""Data set of SGSeg's Figures 4 and 5."""
CONVENTION = {
    "viewer": "Left and right in the captions are the viewer's, the sides of the picture.",
    "patient": "Left and right in the captions are the patient's.",
    "unknown": "Whose left and right the captions mean is not known.",
}
_LEGEND = (
    ("true positive", write.TRUE_POSITIVE),
    ("false negative", write.FALSE_NEGATIVE),
    ("false positive", write.FALSE_POSITIVE),
)
_OUTLINE = 2  # pixels of the line around a truth
Mask = NDArray[np.bool_]
_SUFFIXES: dict[str, TextMode] = {"@none": "none", "@generated": "generated"}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure of one data set before its cases are drawn: a sheet without rows, a record without cases."""

    data: str
    cases: Sequence[Sample]
    draw: Callable[[Sample], tuple[Band, dict[str, Any]]]
    sheet: Sheet
    facts: Mapping[str, Any]


def run(order: Order) -> int:
    """Draw a figure: ``<name>.png`` and ``<name>.json`` in the folder of the results, and nowhere else; exit code 0.

    Raises:
        UsageError: If a root, a method or a case does not exist, or weights cannot or must not be shown.
        DataError: If truth and film do not fit each other.
        OutputError: If a file of somebody else has one of the names.
        InputError: If the sides of a phrase cannot be turned to those that a network knows.
    """
    figures = dict.fromkeys(MASK_FIGURES, _mask_figure) | {"grounding-fig3": _phrase_figure}
    figure = figures.get(order.name, _report_figure)(order)
    write.check_writable(order.out)
    places = {end: order.out / f"{order.name}.{end}" for end in ("png", "json")}
    write.refuse_other(places["png"], write.is_own_picture, "figure")
    write.refuse_other(places["json"], lambda path: schema_of(path) == SCHEMA, "figure")
    bands, records = [], []
    for sample in figure.cases:
        order.tell(sample.image_id)
        band, record = figure.draw(sample)
        bands.append(band)
        records.append({"id": sample.image_id, "split": sample.split, **record})
    foot, laterality = list(figure.sheet.foot), registry.dataset(figure.data).laterality
    if laterality == "patient" and any(record.get("sides_from") == "assumed" for record in records):
        foot[-1] += " The patient's left is taken to be the viewer's right where a file does not tell."
    picture = paint(replace(figure.sheet, bands=bands, foot=foot))
    values = {
        "schema": SCHEMA,
        "name": order.name,
        "textray": __version__,
        "data": {"name": figure.data, "split": order.split, "laterality": laterality},
        "cases_chosen": "by id" if order.cases else f"by seed {SEED}",
        **figure.facts,
        "cases": records,
    }
    write_together(
        places,
        {"png": lambda path: write.write_picture(path, picture), "json": lambda path: write.write_json(path, values)},
    )
    order.tell(f"{order.name}: {places['png']}, {places['json']}")
    return 0


def choose(samples: Sequence[Sample], ids: Sequence[str], *, count: int) -> list[Sample]:
    """Cases of the images named, in that order, or drawn by the seed: other zones or words and another patient each.

    An image that is not in the split is a `UsageError`.
    """
    if ids:
        missing = [name for name in ids if name not in {sample.image_id for sample in samples}]
        if missing:
            raise UsageError(
                "a case is not in the split",
                came=", ".join(missing[:5]),
                expected=f"ids such as {samples[0].image_id if samples else 'none: the split is empty'}",
                do="Name the split with --split",
            )
        return [sample for name in dict.fromkeys(ids) for sample in samples if sample.image_id == name]
    drawn = sorted(samples, key=_number)
    chosen: list[Sample] = []  # first those that add variety, then any
    seen: set[object] = set()
    for sample in drawn:
        adds = {sample.group, (sample.phrase or sample.report.zones.index,)}
        if not adds & seen:
            chosen.append(sample)
            seen |= adds
    return (chosen + [sample for sample in drawn if sample not in chosen])[:count]


def _number(sample: Sample) -> str:
    """A number of the sample that only the seed and its name decide."""
    words = f"\t{sample.phrase}\t{sample.label}" if sample.phrase else ""
    return hashlib.sha256(f"{SEED}:{sample.image_id}{words}".encode()).hexdigest()


def _choose_images(order: Order, data: str) -> list[Sample]:
    if data not in order.roots:
        raise UsageError(f"{order.name} needs the folder of {data}", do=f"Add --root {data}=DIR")
    samples = open_reader(data, order.roots[data]).samples(check_split(order.split))
    return choose(samples, order.cases, count=order.count)


def _sides(data: str) -> str:
    return CONVENTION[registry.dataset(data).laterality]


def _overlays(image: Image, *masks: tuple[Mask, Mask | None]) -> list[Picture]:
    """The film, then the film under each mask, coloured by its truth where that is given."""
    size = fit(image.grid.shape, PANEL)
    nothing = np.zeros(image.grid.shape, np.bool_)
    return [shrink(write.render_overlay(image.film, *pair), size) for pair in ((nothing, None), *masks)]


class Method(NamedTuple):
    """One column of masks: its label, weights by name or folder (``None``: the default ones), and their text mode."""

    label: str
    bundle: str | None
    text: TextMode = "oracle"


DEFAULT_METHODS = (
    Method("weights inside, told the caption", None),
    Method("weights inside, told nothing", None, "none"),
)
_OWN_REPORT = Method("weights inside, told their own report", None, "generated")


def read_methods(words: Sequence[str]) -> tuple[Method, ...]:
    """Read methods from words such as ``MMI-UNet=FOLDER``, ``no text=FOLDER@none`` or ``SGSeg=FOLDER@generated``.

    No word gives `DEFAULT_METHODS`.

    Raises:
        UsageError: If a word is not LABEL=BUNDLE, or two have one label.
    """
    expected = "LABEL=BUNDLE, LABEL=BUNDLE@none for no text, or LABEL=BUNDLE@generated for its own report"
    methods = []
    for label, bundle in read_pairs(words, expected).items():
        suffix = next((end for end in _SUFFIXES if bundle.endswith(end)), "")
        if bundle == suffix:
            raise UsageError("a method has no weights", came=f"{label}={bundle}", expected=expected)
        methods.append(Method(label, bundle.removesuffix(suffix), _SUFFIXES.get(suffix, "oracle")))
    return tuple(methods) or DEFAULT_METHODS


def _mask_figure(order: Order) -> Figure:
    """Film, ground truth and the mask of each method; the caption under each row."""
    data = MASK_FIGURES[order.name]
    cases = _choose_images(order, data)
    methods = read_methods(order.models)
    if not order.models and order.name.startswith("sgseg") and Bundle.load().writes_report:
        methods = (*methods, _OWN_REPORT)
    networks = {method.label: _open_network(method, order) for method in methods}

    def draw(sample: Sample) -> tuple[Band, dict[str, Any]]:
        image, mask = open_case(sample, read)
        masks = {}
        for label, (predictor, text) in networks.items():
            prompt = prompt_of(text_of(sample.report) if text == "oracle" else None, predictor)
            masks[label] = _segment(image, predictor, Prompt.OWN_REPORT if text == "generated" else prompt)[0]
        scores = {label: dice(drawn, mask) for label, drawn in masks.items()}
        panels = _overlays(image, *((drawn, mask) for drawn in (mask, *masks.values())))
        under = [[], [], *([f"Dice {value:.3f}"] for value in scores.values())]
        record = {
            "caption": sample.report.text,
            "zones_viewer": sample.report.zones.index,
            "dice": {label: round(value, 6) for label, value in scores.items()},
        }
        return Band(panels=panels, under=under, caption=sample.report.text or "(no caption)"), record

    described = [
        {"label": label, "text": text, "model": predictor.bundle.describe()}
        for label, (predictor, text) in networks.items()
    ]
    sheet = Sheet(titles=["image", "ground truth", *networks], foot=[_sides(data)], legend=_LEGEND, foot_gap=24)
    return Figure(data=data, cases=cases, draw=draw, sheet=sheet, facts={"methods": described})


def _segment(image: Image, predictor: Predictor, prompt: int | Prompt) -> tuple[Mask, Inference]:
    """The mask that a network draws, and what else it gives."""
    output = predictor.infer(predictor.preprocess.apply(image)[None], [prompt])
    mask = predictor.preprocess.restore(output.probability[0], image.grid) >= predictor.threshold
    return np.asarray(mask), output


def _open_network(method: Method, order: Order) -> tuple[Predictor, TextMode]:
    """Network of a method and its text mode: ``none`` where it reads no text, whatever the method says."""
    predictor = Predictor(Bundle.load(method.bundle), threads=order.threads)
    if method.text == "generated" and not predictor.bundle.writes_report:
        raise UsageError(
            f"{predictor.bundle.name} writes no report of its own",
            came=f"{method.label}: @generated",
            expected="a bundle of a network such as sgseg",
            do="Name one with --model LABEL=BUNDLE",
        )
    return predictor, "none" if predictor.bundle.text_encoder is None else method.text


def _report_figure(order: Order) -> Figure:
    """Figure 4: film, segmentation, truth, report, caption. Figure 5: film, truth, attention map, map over film."""
    cases = _choose_images(order, REPORT_DATA)
    predictor = _open_writer(order)
    attends = order.name == "sgseg-fig5"
    if attends and not predictor.tells_attention:
        raise UsageError(
            f"{predictor.bundle.name} has no attention map",
            expected="a bundle that textray export writes of a network such as sgseg",
        )

    def draw(sample: Sample) -> tuple[Band, dict[str, Any]]:
        image, mask = open_case(sample, read)
        drawn, output = _segment(image, predictor, Prompt.OWN_REPORT)
        zones, value = _zones(output, predictor.bundle), dice(drawn, mask)
        record: dict[str, Any] = {"dice": round(value, 6)}
        columns: list[Marked] = []
        if attends:
            attention = np.zeros(mask.shape, np.float32)
            if output.attention is not None:
                attention = predictor.preprocess.restore_coarse(output.attention[0, 0], image.grid)
            panels, facts = _attention_panels(image, mask, attention)
            record |= {**facts, "size": list(predictor.preprocess.size)}
        else:
            panels = _overlays(image, (drawn, mask), (mask, mask))
            columns, facts = _sentences(sample, zones)
            record |= facts
        return Band(panels=panels, under=[[f"{sample.image_id}  Dice {value:.3f}"]], columns=columns), record

    titles = ["image", "segmentation", "ground truth", "report of the network", "caption"]
    note = "Yellow is found, red is missed, green is wrong. Words that differ are red and underlined. "
    note += f"{_sides(REPORT_DATA)} The network's report is told by the same sides."
    if attends:
        titles = ["image", "ground truth", "attention map", "projected"]
        note = "Attention that the network gave to each place to tell the zones of its report; of each film from its "
        note += "lowest value (dark) to its highest (light). It tells where the network looked, not where a lesion is."
    return Figure(
        data=REPORT_DATA,
        cases=cases,
        draw=draw,
        sheet=Sheet(titles=titles, foot=[note], least_width=0, under_gap=0, foot_gap=0, end=MARGIN),
        facts={"model": predictor.bundle.describe()},
    )


def _open_writer(order: Order) -> Predictor:
    """The one network of a figure, ready to write its own reports."""
    methods = read_methods(order.models)[: 1 if not order.models else None]
    if len(methods) > 1 or (order.models and methods[0].text == "none"):
        raise UsageError(
            f"{order.name} shows one network with its own report",
            came=", ".join(order.models),
            expected="one --model LABEL=BUNDLE",
        )
    return _open_network(methods[0]._replace(text="generated"), order)[0]


def _zones(output: Inference, bundle: Bundle) -> Zones:
    """The zones of a network's report, by image side."""
    if output.zone_probability is None or bundle.zone_thresholds is None:
        raise UsageError(f"the graph of {bundle.name} has no zones", do="Export its checkpoint again")
    return written(output.zone_probability[0], bundle.zone_thresholds)


def mark(first: str, second: str) -> tuple[Marked, Marked]:
    """The words of two sentences, those marked that the other lacks at their place; commas and case do not count."""
    words = first.split(), second.split()
    bare = [[word.strip(".,").lower() for word in side] for side in words]
    marks = [[True] * len(side) for side in words]
    for block in SequenceMatcher(None, bare[0], bare[1], autojunk=False).get_matching_blocks():
        for k in range(block.size):
            marks[0][block.a + k] = marks[1][block.b + k] = False
    return list(zip(words[0], marks[0], strict=True)), list(zip(words[1], marks[1], strict=True))


def _sentences(sample: Sample, zones: Zones) -> tuple[list[Marked], dict[str, Any]]:
    """The network's report and the case's caption, words that differ marked; both by the sides of the caption."""
    report = sentence(zones) if zones else "(nothing found to write; segmented without a report)"
    caption = sample.report.text or "(no caption)"
    columns = [[(word, False) for word in text.split()] for text in (report, caption)]
    if zones and sample.report.text is not None:
        columns = list(mark(report, caption))
    differs = ([word for word, marked in column if marked] for column in columns)
    record = {
        "report": sentence(zones) if zones else None,
        "caption": sample.report.text,
        "convention": registry.dataset(REPORT_DATA).laterality,
        "differs": dict(zip(("report", "caption"), differs, strict=True)),
        "zones_viewer": {"report": zones.index, "caption": sample.report.zones.index},
    }
    return columns, record


def _attention_panels(image: Image, mask: Mask, attention: NDArray[np.float32]) -> tuple[list[Picture], dict[str, Any]]:
    """Film, ground truth, attention map from its lowest to its highest value, and the map over the film."""
    total = float(attention.sum())
    record = {
        "attention_in_truth": round(float(attention[mask].sum()) / total, 6) if total > 0 else None,
        "truth_share": round(float(mask.mean()), 6),
    }
    size = fit(image.grid.shape, PANEL)
    maps = (ramp(_level(attention, attention)), project(image.film, [attention]))
    return _overlays(image, (mask, mask)) + [shrink(picture, size) for picture in maps], record


def _level(values: NDArray[np.float32], of: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values from 0 at the lowest of a map to 1 at its highest; 0 where it is flat."""
    low, high = float(of.min()), float(of.max())
    return np.clip((values - low) / (high - low), 0, 1) if high > low else np.zeros_like(values)


def _phrase_figure(order: Order) -> Figure:
    """Film, where a phrase is true, and the map of each method; the phrase under each row."""
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
    reader = open_reader(data, root)
    cases = choose(reader.phrases(order.split, kind=kind), order.cases, count=order.count)
    bundles = read_models(order.models) or {"weights inside": GroundingBundle.load()}
    for bundle in bundles.values():
        refuse_unless_excluded(reader, bundle.provenance, data)
    localizers = {label: Localizer(bundle, threads=order.threads) for label, bundle in bundles.items()}
    grid = evaluation_grid(next(iter(localizers.values())).preprocess)

    def draw(sample: Sample) -> tuple[Band, dict[str, Any]]:
        image = naming(sample.image_path, grid.read)
        mask = truth(sample, image.grid.shape)
        maps = {label: _locate(sample, image, localizer) for label, localizer in localizers.items()}
        panels = _map_panels(image, mask, [place for place, _ in maps.values()])
        facts = {label: _map_facts(mask, *pair) for label, pair in maps.items()}
        record = {
            "phrase": sample.phrase,
            "laterality": str(sample.laterality),
            "sides_from": image.grid.sides_from,
            "label": sample.label,
            "found": {label: values for label, (values, _) in facts.items()},
        }
        under = [[], [], *(lines for _, lines in facts.values())]
        return Band(panels=panels, under=under, caption=f'"{sample.phrase}"'), record

    foot = [
        "Colours run from the lowest to the highest cosine of each map: the same colour is not the same cosine.",
        "Line: where the phrase is true. Cross: the highest value.",
        "Dice: mean over the thresholds 0.1 to 0.5 of the map stretched to [-1, 1].",
        _sides(data).replace("captions", "phrases"),
    ]
    described = [{"label": label, "model": localizer.bundle.describe()} for label, localizer in localizers.items()]
    sheet = Sheet(titles=["film", "where it is true", *localizers], foot=foot, under_gap=6)
    return Figure(data=data, cases=cases, draw=draw, sheet=sheet, facts={"phrases": kind, "methods": described})


def _locate(sample: Sample, image: Image, localizer: Localizer) -> tuple[Localization, MapScore]:
    """Where a method finds the phrase, and its score on the grid and in the range of an evaluation (`minmax`)."""
    grid = evaluation_grid(localizer.preprocess)
    (place,) = localizer.locate(image, [sample.phrase], laterality=sample.laterality)
    cosines = localizer.maps(localizer.preprocess.apply(image)[None], localizer.embed([place.told]))[0, 0]
    on_grid = normalise(enlarge(smooth(cosines, SIGMA), GRID), "minmax")
    return place, score(on_grid, grid.resize_mask(truth(sample, image.grid.shape)))


def _map_panels(image: Image, mask: Mask, maps: Sequence[Localization]) -> list[Picture]:
    size = fit(image.grid.shape, PANEL)
    film = thumbnail(image.film, size)
    line = write.outline(enlarge(mask.astype(np.float32), size) >= 0.5, _OUTLINE)
    plain = np.asarray(np.rint(film), np.uint8)
    outlined = plain.copy()
    outlined[line] = write.FOUND
    panels = [plain, outlined]
    for place in maps:
        picture = heat(film, _level(enlarge(place.map, size), place.map))
        picture[line] = write.FOUND
        panel = Page(size[1], size[0])
        panel.paste(0, 0, picture)
        cross(panel, place.peak, image.grid, size)
        panels.append(panel.picture)
    return panels


def _map_facts(mask: Mask, place: Localization, scored: MapScore) -> tuple[dict[str, Any], list[str]]:
    """What the record has of a map, and the lines under it; IoU and Dice are means over the thresholds of a table."""
    iou, value = np.mean([scored.at(threshold) for threshold in THRESHOLDS], axis=0)
    low, high = float(place.map.min()), float(place.map.max())
    facts = {
        "told": place.told,
        "peak": list(place.peak),
        "peak_inside": bool(mask[place.peak]),
        "lowest": round(low, 6),
        "highest": round(high, 6),
        "iou": round(float(iou), 6),
        "dice": round(float(value), 6),
    }
    turned = ["sides turned for the network"] if place.told != place.phrase.phrase else []
    return facts, [f"Dice {value:.3f}, cosine {low:.2f} to {high:.2f}", *turned]
