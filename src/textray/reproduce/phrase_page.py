"""Pages of tables that are scored by maps of phrases: trained rows, and weights as they are.

``table.md`` is for the eye, ``table.csv`` has a line for each row of maps under each range.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from textray import __version__, registry
from textray.evaluate.maps import CONTROLS
from textray.evaluate.maps import FLOORS as FLOOR_MAPS
from textray.evaluate.maps import Row as Maps
from textray.evaluate.page import cell, grid
from textray.reproduce import FLOORS, Order
from textray.reproduce.compare import PHRASE_STATISTICS, Answer, Cases, compare, mean_and_range, read_phrases
from textray.reproduce.page import (
    Content,
    Row,
    Score,
    columns,
    commit_of,
    csv_text,
    document,
    listed,
    made,
    state_words,
    times,
)
from textray.reproduce.plan import SPLIT, JobResult, State, WeightsResult
from textray.reproduce.tables import Block, Budget, Question, Table, WeightsTable

SCORES = ("iou", "dice", "cnr", "cnr_signed", "pointing")
_OVERLAP, _POINTS = ("iou", "dice"), ("cnr_signed", "pointing")  # by range; the same under each range
_SHOWN = (*_OVERLAP, *_POINTS)
_FIELDS = (
    "row", "label", "data", "split", "phrases", "state", "reason", "seed", "maps", "normalise", "cases",
    *(f"{name}{part}" for name in SCORES for part in ("", "_low", "_high")),
    "best_threshold", "best_iou", "best_dice", "mode", "local_unit", "sentences", "targets",
    "images_fit", "size", "map", "steps", "epochs", "best_epoch", "parameters", "bundle_bytes",
    "train_seconds", "evaluate_seconds", "settings", "commit", "command",
)  # fmt: skip
_WEIGHTS_FIELDS = (
    "label", "data", "phrases", "maps", "normalise", "class", "state", "reason", "protocol", "cases",
    *(f"{name}{part}" for name in _SHOWN for part in ("", "_low", "_high")),
    "best_threshold", "best_iou", "best_dice", "weights", "ids", "command",
)  # fmt: skip
_ABOVE = {
    Maps.MEAN_PHRASE: "above the text-only floor (`mean_phrase`)",
    Maps.MEAN_MASK: "above the mean training mask",
    Maps.CENTRE: "above the centre",
    Maps.MIRRORED: "above its own map of the mirrored phrase",
}
PAPER = "the grounding paper"
CLASSES = (
    "Pneumonia", "Pneumothorax", "Consolidation", "Atelectasis", "Edema", "Cardiomegaly", "Lung Opacity",
    "Pleural Effusion",
)  # fmt: skip
"""Classes of MS-CXR in the order of the grounding paper's Tables 2 and 3."""
_OUR_PROTOCOL, _THEIR_PROTOCOL = "thresholds 0.1 to 0.5", "MedKLIP's own"
_UNKNOWN_PROTOCOL = "as printed, origin not told"


def markdown(table: Table, budget: Budget, results: Sequence[JobResult], order: Order) -> str:
    """The whole ``table.md`` of trained rows; folders of the command are placeholders."""
    lines = [line for data in table.data for line in _section(table, data, [r for r in results if r.data == data])]
    notes = [*table.texts.notes, *table.notes]
    return document(table.title, lines, made(table, budget, results, order, _data_words), notes)


def csv_table(table: Table, results: Sequence[JobResult]) -> str:
    """The whole ``table.csv`` of trained rows: a line for each row of maps of each training under each range."""
    return csv_text(_FIELDS, _values(results))


def _data_words(done: Sequence[Content]) -> list[str]:
    """Size of the networks, then what was learnt from and scored, for each kind of phrases."""
    first, most = done[0], max(result["bundle_bytes"] for result in done)
    lines = [
        f", map {listed(times(r['map']) for r in done)} cells; {listed(r['parameters'] for r in done)} parameters, "
        f"bundles of {most / 1e6:.1f} MB at most"
    ]
    for kind, scores in first["scores"].items():
        protocol = scores["protocol"]
        lines.append(
            f"{first['data']}, {kind}: learnt from `fit` ({first['images']['fit']:,} images), selected on `inner` "
            f"({first['images']['inner']:,}), scored on `{first['split']}`, ids `{scores['data']['ids_sha256'][:12]}`; "
            f"smoothing {protocol['sigma']} cells, grid {times(protocol['grid'])}, training masks behind "
            f"the floors: {protocol['training_masks'] or 'none'}."
        )
    return lines


@dataclass(frozen=True, kw_only=True)
class MapsLine:
    """A row of maps: of a network, a floor or a control.

    Attributes:
        label: What the table calls whose maps they are.
        maps: What they are.
        state: What became of the row, where it is a network's.
        scores: Range → scores; one for each seed.
    """

    label: str
    maps: Maps
    state: str = ""
    scores: Sequence[Mapping[str, Any]] = ()


def _mapsgrid(
    lines: Sequence[MapsLine], ranges: Sequence[str], show: Callable[[list[Score]], str], printed: Row | None = None
) -> list[str]:
    """Scores of rows of maps under each range; the paper's IoU and Dice beside them where they are given."""
    head = [f"{how}: `{name}`" for how in ranges for name in _OVERLAP] + [f"`{name}`" for name in _POINTS if ranges]
    head += [f"{how}: best threshold, IoU / Dice" for how in ranges]
    rows = []
    extra: list[str] = []
    if printed is not None:
        extra = ["printed `iou`", "printed `dice`"]
        rows.append([PAPER, "–", "printed", *printed, *["–"] * len(head)])
    for line in lines:
        cells = ["–"] * len(head)
        if line.scores:
            cells = [show([s[how]["scores"][name] for s in line.scores]) for how in ranges for name in _OVERLAP]
            cells += [show([s[ranges[0]]["scores"][name] for s in line.scores]) for name in _POINTS]
            cells += [_best([s[how]["best_threshold"] for s in line.scores]) for how in ranges]
        rows.append([line.label, f"`{line.maps}`", line.state, *["–"] * len(extra), *cells])
    return grid(["row", "maps", "state", *extra, *head], rows, "lll")


def _best(best: Sequence[Mapping[str, float | None]]) -> str:
    """IoU and Dice at the best single threshold."""
    means = [mean_and_range([value for b in best if (value := b[name]) is not None])[0] for name in _OVERLAP]
    pair = " / ".join("–" if mean != mean else f"{mean:.3f}" for mean in means)
    return f"{pair} > " + ", ".join(dict.fromkeys(f"{b['threshold']:g}" for b in best))


def _over_seeds(scores: Sequence[Score]) -> str:
    """Mean over seeds, with the lowest and highest."""
    values = [value for score in scores if (value := score["value"]) is not None]
    mean, low, high = mean_and_range(values)
    return f"{mean:.3f}" + (f" ({low:.3f}–{high:.3f})" if len(values) > 1 else "") if values else "–"


def _meanings(summaries: Iterable[Mapping[str, Any]]) -> list[str]:
    """What the rows of maps are, and why some are missing."""
    words: dict[str, str] = {}
    for summary in summaries:
        words |= summary["meanings"]
        words |= {maps: f"not computed: {why}" for maps, why in summary["not_computed"].items()}
    return [f"- `{maps}`: {meaning}." for maps, meaning in words.items()]


def _section(table: Table, data: str, results: Sequence[JobResult]) -> list[str]:
    """Rows, questions and seeds of one data set, for each kind of phrases."""
    title = registry.dataset(data).title
    kinds = list(dict.fromkeys(kind for result in results for kind in result.scores))
    lines: list[str] = []
    for kind in kinds:
        done = [result for result in results if kind in result.scores]
        first = done[0].scores[kind]
        ranges = list(first["normalisations"])
        lines += [f"## {title}: phrases of kind `{kind}`", ""]
        lines += [
            f"Scored on `{(done[0].result or {})['split']}`: {first['phrases']:,} phrases on {first['images']:,} "
            f"images of {first['patients']} patients. Mean over seeds, and the lowest and highest seed.",
            "",
        ]
        lines += [*_mapsgrid(_trained_lines(table, kind, results), ranges, _over_seeds), "", *_meanings([first]), ""]
        lines += [f"### Questions: `{kind}`", "", table.texts.questions, ""]
        lines += [*_questions(table, kind, ranges, done), ""]
        lines += [f"### Each seed: `{kind}`", "", "The network's own maps, with the 95 % interval over patients.", ""]
        lines += [*_seeds(kind, ranges, done), ""]
    if not kinds:
        rows = [[row.label, state_words([r for r in results if r.row == row])] for row in table.rows]
        lines += [f"## {title}", "", *grid(["row", "state"], rows, "ll"), ""]
    return lines


def _trained_lines(table: Table, kind: str, results: Sequence[JobResult]) -> list[MapsLine]:
    """Networks first, then floors, then controls."""
    networks: list[MapsLine] = []
    floors: list[MapsLine] = []
    controls: list[MapsLine] = []
    for row in table.rows:
        of_row = [result for result in results if result.row == row]
        scores = [result.scores[kind]["rows"] for result in of_row if kind in result.scores]
        shown = [by_maps[Maps.MODEL] for by_maps in scores]
        networks.append(MapsLine(label=row.label, maps=Maps.MODEL, state=state_words(of_row), scores=shown))
        for maps in (Maps.SIDED, *CONTROLS):
            seen = [by_maps[maps] for by_maps in scores if maps in by_maps]
            controls += [MapsLine(label=row.label, maps=maps, scores=seen)] if seen else []
        if not floors:
            floors = [
                MapsLine(label="floor", maps=m, scores=[scores[0][m]]) for m in FLOOR_MAPS if scores and m in scores[0]
            ]
    return [*networks, *floors, *controls]


def _questions(table: Table, kind: str, ranges: Sequence[str], done: Sequence[JobResult]) -> list[str]:
    """Between rows, then of each network against floors and its own map of the mirrored phrase."""

    def cases(row: str, maps: Maps, how: str) -> dict[int, Cases]:
        seen = {
            int(result.seed or 0): read_phrases(result.folder / "scores" / kind, maps, how)
            for result in done
            if result.row.name == row and result.folder is not None
        }
        return {seed: by_phrase for seed, by_phrase in seen.items() if by_phrase}

    answers: list[tuple[str, Answer]] = []
    for question in table.questions:
        for how in ranges:
            first, second = (cases(name, Maps.MODEL, how) for name in (question.first, question.second))
            answers.append((how, compare(question, first, second, PHRASE_STATISTICS)))
    for row in table.rows:
        if any(result.row == row for result in done):
            for maps, words in _ABOVE.items():
                question = Question(words=f"Is {row.label} {words}?", first=str(maps), second=row.name)
                for how in ranges:
                    first, second = (cases(row.name, side, how) for side in (maps, Maps.MODEL))
                    answers.append((how, compare(question, first, second, PHRASE_STATISTICS)))
    rows = []
    for how, answer in answers:
        cells = [answer.question.words, how]
        for name in PHRASE_STATISTICS:
            difference = answer.differences.get(name)
            cells += ["–" if difference is None else f"{difference:+.3f}", answer.words(name)]
        rows.append([*cells, ", ".join(f"{d:+.3f}" for d in answer.by_seed.get("dice", ()))])
    head = ["question", "range", "`iou`", "answer", "`dice`", "answer", "each seed (`dice`)"]
    return grid(head, rows, "llrlrlr")


def _seeds(kind: str, ranges: Sequence[str], done: Sequence[JobResult]) -> list[str]:
    head = [f"{how}: `{name}`" for how in ranges for name in _OVERLAP]
    rows = []
    for result in done:
        content, scores = result.result or {}, result.scores[kind]
        network = scores["rows"][Maps.MODEL]
        shown = [network[how]["scores"][name] for how in ranges for name in _OVERLAP]
        shown.append(network[ranges[0]]["scores"]["pointing"])
        cells = [result.row.label, str(result.seed), f"{content['images']['fit']:,}", f"{content['steps']:,}"]
        cells += [f"{s['value']:.3f} [{s['low']:.3f}, {s['high']:.3f}]" for s in shown]
        rows.append([*cells, f"{content['train_seconds']:.0f} s", f"{scores['seconds']:.0f} s"])
    return grid(["row", "seed", "training images", "steps", *head, "`pointing`", "training", "scoring"], rows, "l")


def _values(results: Sequence[JobResult]) -> Iterator[dict[str, Any]]:
    """Lines of ``table.csv``: each row of maps of each training under each range; floors once."""
    with_floors: set[tuple[str, str]] = set()
    for result in results:
        row, content = result.row, result.result
        values = {"row": row.name, "label": row.label, "data": result.data, "state": str(result.state),
                  "reason": result.reason, "seed": "" if result.seed is None else result.seed}  # fmt: skip
        if content is None:
            yield values
            continue
        values |= {key: content[key] for key in _FIELDS if key in content}
        values |= {"images_fit": content["images"]["fit"], "commit": commit_of(content)}
        values |= {key: times(content[key]) for key in ("size", "map")}
        for kind, scores in result.scores.items():
            for maps, by_range in scores["rows"].items():
                is_floor = maps in FLOOR_MAPS
                if is_floor and (result.data, kind) in with_floors:
                    continue
                about = {"row": maps, "label": "floor", "data": result.data, "split": content["split"],
                         "state": str(result.state)} if is_floor else values  # fmt: skip
                for line in _map_values(by_range, SCORES):
                    yield about | {"phrases": kind, "maps": maps} | line
            with_floors.add((result.data, kind))


def _map_values(by_range: Mapping[str, Any], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Scores of one row of maps: under each range, whole and then, where they are asked for, by class."""
    for how, scores in by_range.items():
        best = {f"best_{name}": scores["best_threshold"][name] for name in ("threshold", *_OVERLAP)}
        yield {"normalise": how, "cases": scores["cases"]} | best | __all_columns(scores["scores"], names)
        if names == _SHOWN:
            for label, of_class in scores["classes"].items():
                yield {"normalise": how, "class": label} | __all_columns(of_class, names)


def __all_columns(scores: Mapping[str, Score], names: Sequence[str]) -> dict[str, Any]:
    return {key: value for name in names for key, value in columns(name, scores[name]).items()}


def weights_markdown(table: WeightsTable, results: Sequence[WeightsResult], order: Order) -> str:
    """The whole ``table.md`` of weights; folders of the command are placeholders."""
    lines = []
    for block in table.blocks:
        lines += _block(table, block, [result for result in results if result.data == block.data])
    made = [f"Command: `{order.scoring_command}`", f"TextRay {__version__}."]
    for label, summary in ((r.label, r.summary) for r in results if r.summary is not None):
        model, data = summary["model"], summary["data"]
        weights = "" if model is None else f" ({model['name']} {model['version']}, `{model['sha256'][:12]}`)"
        made.append(
            f"{label}{weights}, {data['name']} `{data['split']}`, {data['kind']}: {summary['phrases']:,} phrases "
            f"(ids `{data['ids_sha256'][:12]}`), {commit_of(summary)}; [low, high]: {summary['estimator']}."
        )
    return document(table.title, lines, made, table.notes)


def weights_csv(table: WeightsTable, results: Sequence[WeightsResult]) -> str:
    """The whole ``table.csv`` of weights: printed rows, then all rows of maps under each range, whole and by class."""
    lines = _printed_values(table)
    for result in results:
        about = {"label": result.label, "data": result.data, "phrases": result.kind, "state": str(result.state),
                 "reason": result.reason}  # fmt: skip
        if result.summary is None:
            lines.append(about)
            continue
        model = result.summary["model"]
        about |= {"protocol": _OUR_PROTOCOL, "weights": "" if model is None else model["sha256"]}
        about |= {"ids": result.summary["data"]["ids_sha256"], "command": result.summary["command"]}
        for maps, by_range in result.summary["rows"].items():
            lines += [about | {"maps": maps} | line for line in _map_values(by_range, _SHOWN)]
    return csv_text(_WEIGHTS_FIELDS, lines)


def _printed_values(table: WeightsTable) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for label, by_data in table.printed.items():
        theirs = _THEIR_PROTOCOL if table.by_class is None else _UNKNOWN_PROTOCOL
        about: dict[str, Any] = {"maps": "printed", "state": "printed", "label": label}
        about["protocol"] = _OUR_PROTOCOL if label == PAPER else theirs
        for data, values in by_data.items():
            if table.by_class is None:
                lines.append(about | {"data": data} | dict(zip(_OVERLAP, values, strict=True)))
            else:
                classes = zip((*CLASSES, ""), values, strict=True)
                lines += [about | {"data": data, "class": name, table.by_class: value} for name, value in classes]
    return lines


def _block(table: WeightsTable, block: Block, results: Sequence[WeightsResult]) -> list[str]:
    """One data set: its phrases, scores beside the printed ones, differences, and what the rows are."""
    absent = [result for result in results if result.state in (State.NOT_THERE, State.NO_ROOT)]
    lines = [f"## {block.title}", ""]
    lines += [line for result in absent for line in (f"Not scored: {_state(result)}. Printed rows only.", "")]
    for place, kind in enumerate(dict.fromkeys(result.kind for result in results)):
        rows = [result for result in results if result.kind == kind and result not in absent]
        summaries = [result.summary for result in rows if result.summary is not None]
        ranges = list(summaries[0]["normalisations"]) if summaries else []
        if summaries:
            lines += _asked(summaries[0], kind)
        if table.by_class is None:
            printed = [f"{value:.3f}" for value in table.printed[PAPER][block.data]]
            lines += [f"### Protocol: {_OUR_PROTOCOL}", "", *_overview(rows, ranges, printed), ""]
        else:
            shown = {label: values[block.data] for label, values in table.printed.items() if place == 0}
            for how in ranges or ["minmax"]:
                of_kind = (f", {kind}" if kind else "") + (f", `{how}`" if rows else "")
                lines += [f"### {table.by_class.title()} by class{of_kind}", ""]
                lines += [*_by_class(rows, how, table.by_class, shown), ""]
            if rows:
                lines += [f"### All measures, {kind}", "", *_overview(rows, ranges, None), ""]
        lines += _differences(rows)
        meanings = _meanings(summaries)
        lines += [*meanings, ""] if meanings else []
    if table.by_class is None:
        lines += [f"### Protocol: {_THEIR_PROTOCOL}", "", table.baselines, ""]
        others = [(label, values[block.data]) for label, values in table.printed.items() if label != PAPER]
        rows_of_others = [[label, *(f"{value:.3f}" for value in values)] for label, values in others]
        lines += [*grid(["method", "printed `iou`", "printed `dice`"], rows_of_others, "l"), ""]
    return lines


def _asked(summary: Mapping[str, Any], kind: str) -> list[str]:
    frequent = "; ".join(f"“{phrase}”" for phrase in summary["wordings"]["most_frequent"])
    words = "the data set's own sentences" if kind == "phrase" else frequent
    count = f"{summary['phrases']:,} on {summary['images']:,} images"
    return [f"Phrases of kind `{kind}` on `{SPLIT}`: {count}. Asked: {words}.", ""]


def _weights_lines(results: Sequence[WeightsResult]) -> list[MapsLine]:
    """Weights first, then floors, then controls."""
    floors_alone = [result for result in results if result.label == FLOORS]
    models = [result for result in results if result.label != FLOORS]
    lines = [MapsLine(label=m.label, maps=Maps.MODEL, state=_state(m), scores=_maps_of(m, Maps.MODEL)) for m in models]
    lines += [
        MapsLine(label="floors", maps=Maps.FULL, state=_state(result))
        for result in floors_alone
        if result.summary is None
    ]
    seen: dict[Maps, list[Sequence[Mapping[str, Any]]]] = {}
    for result in (*floors_alone, *models):
        for floor in FLOOR_MAPS:
            scores = _maps_of(result, floor)
            if scores and scores not in seen.setdefault(floor, []):
                # The grid of a network that pads films is another, and so are floors on it.
                label = f"floor, on the grid of {result.label}" if seen[floor] else "floor"
                seen[floor].append(scores)
                lines.append(MapsLine(label=label, maps=floor, scores=scores))
    for result in models:
        for control in (Maps.SIDED, *CONTROLS):
            if scores := _maps_of(result, control):
                lines.append(MapsLine(label=result.label, maps=control, scores=scores))
    return lines


def _maps_of(result: WeightsResult, maps: Maps) -> list[Mapping[str, Any]]:
    rows = (result.summary or {}).get("rows", {})
    return [rows[maps]] if maps in rows else []


def _overview(results: Sequence[WeightsResult], ranges: Sequence[str], printed: Row | None) -> list[str]:
    return _mapsgrid(_weights_lines(results), ranges, lambda scores: cell(scores[0]), printed)


def _by_class(
    results: Sequence[WeightsResult], how: str, score: str, printed: Mapping[str, Sequence[float]]
) -> list[str]:
    rows = [[label, "–", "printed", *(f"{value:.3f}" for value in values)] for label, values in printed.items()]
    classes = next((result.summary["classes"] for result in results if result.summary is not None), ())
    for line in _weights_lines(results):
        cells = ["–"] * (len(CLASSES) + 1)
        if line.scores:
            scores = line.scores[0][how]
            # A set of one class has no scores by class: they are those of the whole.
            by_class = scores["classes"] or {next(iter(classes), ""): scores["scores"]}
            cells = [cell(by_class.get(name, {}).get(score)) for name in CLASSES] + [cell(scores["scores"][score])]
        rows.append([line.label, f"`{line.maps}`", line.state.partition(":")[0], *cells])  # the reason stands below
    return grid(["row", "maps", "state", *CLASSES, "mean"], rows, "lll")


def _differences(results: Sequence[WeightsResult]) -> list[str]:
    """Each network minus each floor and control, on the same phrases."""
    models = [(r.label, r.summary) for r in results if r.summary is not None and r.label != FLOORS]
    if not models:
        return []
    ranges = list(models[0][1]["normalisations"])
    rows = []
    for label, summary in models:
        paired = summary["paired"]
        for pair, first in paired[ranges[0]].items():
            cells = [cell(paired[how][pair][name]) for how in ranges for name in _OVERLAP]
            rows.append([label, f"`{pair.removeprefix(f'{Maps.MODEL} - ')}`", str(first["cases"]), *cells])
    head = ["row", "minus", "phrases", *(f"{how}: `{name}`" for how in ranges for name in _OVERLAP)]
    lines = ["### Weights minus floors and controls", "", *grid(head, rows, "ll"), ""]
    return [*lines, "On the same phrases, with the same draws of patients for both.", ""]


def _state(result: WeightsResult) -> str:
    return (f"{result.state}: {result.reason}" if result.reason else str(result.state)).replace("|", "\\|")
