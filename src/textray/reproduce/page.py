"""Pages of tables whose rows are trained: ``table.md`` for the eye, ``table.csv`` for the numbers.

Rows are scored by masks or by maps of phrases: two sets of columns, and one way to write them. The sentences and the
columns of ``table.csv`` are in ``tables.yaml``. `textray.reproduce.weights_page` has the tables of weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from textray import __version__, registry
from textray.evaluate import results as files
from textray.evaluate.maps import CONTROLS
from textray.evaluate.maps import FLOORS as FLOOR_MAPS
from textray.evaluate.maps import Row as Maps
from textray.evaluate.page import OVERLAP, grid, meanings, overlap_heads
from textray.metrics.intervals import DRAWS
from textray.metrics.segmentation import check_protocol
from textray.reproduce import FLOORS, Order, compare
from textray.reproduce.plan import JobResult, Result, State
from textray.reproduce.tables import Budget, PageTexts, Question, Table, TableRow

Score = Mapping[str, float | None]
"""Value, low and high end of its interval."""
Content = Mapping[str, Any]
"""Content of a ``result.json``, or of a ``summary.json``."""

MASK_SCORES = ("dice_pooled", "iou_pooled", "dice_per_image", "iou_per_image")
ACCURACY = "accuracy_pooled"
POINTS = ("cnr_signed", "pointing")  # the same under each range
MAP_SCORES = (*OVERLAP, "cnr", *POINTS)
_ABOVE = {
    Maps.MEAN_PHRASE: "above the text-only floor (`mean_phrase`)",
    Maps.MEAN_MASK: "above the mean training mask",
    Maps.CENTRE: "above the centre",
    Maps.MIRRORED: "above its own map of the mirrored phrase",
}


def markdown(table: Table, budget: Budget, results: Sequence[JobResult], order: Order) -> str:
    """The whole ``table.md``; a Dice and an IoU of ours that no masks can have are a `TextRayError`."""
    section = _mask_section if table.masks else _phrase_section
    blocks = [block for data in table.data for block in section(table, data, [r for r in results if r.data == data])]
    impossible = "; ".join(
        f"{row.label}: {scores}, J {-compare.gap(scores):.2f} points below"
        for row in table.printed
        for scores in row.scores.values()
        if compare.protocol_of(scores) is compare.Protocol.IMPOSSIBLE
    )
    notes = [*table.texts.notes, *[table.texts.generated] * _writes(table)]
    notes += [table.texts.impossible.format(rows=impossible)] if impossible else []
    return document(table.title, blocks, _made(table, budget, results, order), [*notes, *table.notes])


def csv_table(table: Table, results: Sequence[JobResult]) -> str:
    """The whole ``table.csv``: a line for each training; of maps, for each row of them under each range."""
    lines = (_mask_values(table, result) for result in results) if table.masks else _phrase_values(results)
    return csv_text(table.texts.fields, lines)


# What all pages share.


def document(title: str, blocks: Iterable[str], made: Iterable[str], notes: Iterable[str]) -> str:
    """A page: blocks with a blank line between them, how it was made, how to read it."""
    ends = [("## How it was made", made), ("## How to read it", notes)]
    tail = [text for head, lines in ends for text in (head, "\n".join(f"- {line}" for line in lines))]
    return "\n\n".join(block for block in (f"# {title}", *blocks, *tail) if block) + "\n"


def csv_text(fields: Sequence[str], lines: Iterable[Mapping[str, Any]]) -> str:
    """A CSV file; what a line does not hold is left empty, what is no field is left out."""
    return files.csv_table(fields, ([line.get(name, "") for name in fields] for line in lines)).decode()


def columns(scores: Mapping[str, Score], names: Iterable[str]) -> dict[str, Any]:
    """Three CSV columns for each score: the value and the ends of its interval."""
    return {
        f"{name}{part}": scores[name][end]
        for name in names
        for part, end in (("", "value"), ("_low", "low"), ("_high", "high"))
    }


def state_words(results: Sequence[Result]) -> str:
    """State of a row over its seeds, with reasons."""
    words = []
    for state in State:
        matching = [result for result in results if result.state is state]
        if not matching:
            continue
        seeds = [str(result.seed) for result in matching if result.seed is not None]
        some = f" (seed {', '.join(seeds)})" if seeds and len(matching) < len(results) else ""
        reasons = dict.fromkeys(result.reason for result in matching if result.reason)
        words.append(f"{state}{some}" + "".join(f": {reason}" for reason in reasons))
    return "; ".join(words).replace("|", "\\|")


def commit_of(content: Content) -> str:
    """Commit that a result was made at, and whether the checkout was changed."""
    git = content["git"]
    return f"commit {git['commit'][:12]}{' with local changes' if git['changed'] else ''}" if git else "no commit"


def _times(values: Sequence[int]) -> str:
    """Sizes in words, such as 96×96."""
    return "×".join(map(str, values))


def _listed(values: Iterable[Any]) -> str:
    """Different values one after the other, sorted, thousands apart."""
    return ", ".join(f"{value:,}" if isinstance(value, int) else str(value) for value in sorted(set(values)))


def _made(table: Table, budget: Budget, results: Sequence[JobResult], order: Order) -> list[str]:
    """How the rows were made: command, budget, seeds, steps, data, code, versions, intervals and time."""
    lines = [f"Command: `{order.command(trains=True)}`", f"Budget `{budget.name}`: {budget.words}"]
    seeds = range(order.seeds)
    others = {r.row.label: ", ".join(map(str, r.row.seeds_of(seeds))) for r in results if r.row.more_seeds}
    named = "".join(f"; {label}: {numbers}" for label, numbers in others.items())
    lines.append(f"Seeds: {', '.join(map(str, seeds))}{named}. {table.texts.seeds}".rstrip())
    # Rows that are one training in two modes have one result.
    done = list({str(r.folder): r.result for r in results if r.result}.values())
    if not done:
        return [*lines, f"TextRay {__version__}; no row is measured yet."]
    network = ""
    if not table.masks:
        network = f", map {_listed(_times(r['map']) for r in done)} cells; {_listed(r['parameters'] for r in done)} "
        network += f"parameters, bundles of {max(r['bundle_bytes'] for r in done) / 1e6:.1f} MB at most"
    steps, sizes = _listed(r["steps"] for r in done), _listed(_times(r["size"]) for r in done)
    lines.append(f"Optimiser steps of a row: {steps}; input {sizes} px{network}.")
    for data in dict.fromkeys(r["data"] for r in done):
        of_data = [r for r in done if r["data"] == data]
        fit = _listed(r["images"]["fit"] for r in of_data)
        for kind in ("",) if table.masks else of_data[0]["scores"]:
            lines.append(table.texts.training.format(fit=fit, kind=kind, **_view(of_data[0], kind)))
    lines.append(f"Code: TextRay {__version__}, {', '.join(dict.fromkeys(map(commit_of, done)))}.")
    packages = {f"{name} {number}" for result in done for name, number in result["versions"].items()}
    lines.append(f"Versions: {', '.join(sorted(packages))}.")
    lines.append(f"Intervals: {done[0].get('estimator') or next(iter(done[0]['scores'].values()))['estimator']}.")
    minutes = sum(result["train_seconds"] + result["evaluate_seconds"] for result in done) / 60
    return [*lines, f"Time: {minutes:.0f} minutes for {len(done)} trainings and their scores."]


def _view(content: Content, kind: str) -> dict[str, Any]:
    """What the sentences in ``tables.yaml`` can name of a result: its content, and ``of_kind`` of its phrases."""
    of_kind = dict(content["scores"][kind]) if kind else {}
    if kind:
        protocol = of_kind["protocol"]
        of_kind |= {"grid": _times(protocol["grid"]), "training_masks": protocol["training_masks"] or "none"}
    return {**content, "scored": content["images"].get(content["split"]), "of_kind": of_kind}


def _scored_words(table: Table, content: Content, kind: str = "") -> str:
    """What was scored, and the wording of its captions where there are several; older results do not say it."""
    data = content["scores"][kind]["data"] if kind else content
    wording = f" Captions: {data['captions']} wording." if data.get("captions") else ""
    return table.texts.scored.format(**_view(content, kind)) + wording


def _number(texts: PageTexts, value: float, sign: str = "") -> str:
    """A score as the page shows it; ``sign`` is ``+`` for differences."""
    return f"{texts.scale * value:{sign}.{texts.digits}f}"


def _interval(texts: PageTexts, score: Mapping[str, float], sign: str = "") -> str:
    value, low, high = (_number(texts, score[end], sign) for end in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _over_seeds(texts: PageTexts, scores: Iterable[Score]) -> str:
    """Mean over seeds, with the lowest and highest; a dash without values."""
    values = [texts.scale * value for score in scores if (value := score["value"]) is not None]
    if not values:
        return "–"
    mean, low, high = (f"{value:.{texts.digits}f}" for value in (_mean(values), min(values), max(values)))
    return f"{mean} ({low}–{high})" if len(values) > 1 else mean


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


Side = tuple[str, Callable[[Path], compare.Cases]]
"""Name of a row, and how its cases are read."""


def _answers(
    table: Table, results: Sequence[JobResult], questions: Iterable[tuple[Question, str, Side, Side]]
) -> list[list[str]]:
    """Cells of questions and their answers; of phrases with the range behind the question."""
    done = [(r.row.name, int(r.seed or 0), r.folder) for r in results if r.state is State.DONE and r.folder is not None]
    statistics, rows = compare.MASK_STATISTICS if table.masks else compare.PHRASE_STATISTICS, []
    for question, how, *sides in questions:
        cases = [{seed: read(home / "scores") for name, seed, home in done if name == row} for row, read in sides]
        first, second = ({seed: of_seed for seed, of_seed in side.items() if of_seed} for side in cases)
        answer = compare.answer(question, first, second, statistics)
        cells = [question.words, *([how] if how else [])]
        for name in statistics:
            difference = answer.differences.get(name)
            shown = "–" if difference is None else _interval(table.texts, vars(difference), "+")
            cells += [shown, answer.words(name)]
        each = answer.by_seed.get("dice_pooled" if table.masks else "dice", ())
        rows.append([*cells, ", ".join(_number(table.texts, d, "+") for d in each)])
    return rows


def _seed(table: Table, result: JobResult, scores: Iterable[Mapping[str, float] | None]) -> list[str]:
    """Cells of one training."""
    content, mode = result.result, [result.row.mode] * table.masks
    cells = [result.row.label, *mode, str(result.seed), f"{content['images']['fit']:,}", f"{content['steps']:,}"]
    return [*cells, *(_interval(table.texts, score) if score else "–" for score in scores)]


def _values(result: JobResult) -> dict[str, Any]:
    """CSV values of a training that do not depend on the columns of its table."""
    values = {"row": result.row.name, "label": result.row.label, "data": result.data, "state": str(result.state),
              "reason": result.reason, "seed": "" if result.seed is None else result.seed}  # fmt: skip
    if not (content := result.result):
        return values
    values |= {"images_fit": content["images"]["fit"], "commit": commit_of(content)}
    values |= {key: _times(content[key]) for key in ("size", "map") if key in content}
    return {"steps_before": 0, **content, **values}


# Masks.


def _writes(table: Table) -> bool:
    """True where rows are scored with reports that networks write themselves."""
    return any(row.mode == "generated" for row in table.rows)


def _measures(table: Table) -> tuple[str, ...]:
    """The scores that a table shows; accuracy where the paper prints it."""
    prints = any(scores.accuracy is not None for row in table.printed for scores in row.scores.values())
    return (*MASK_SCORES, ACCURACY) if prints else MASK_SCORES


def _mask_section(table: Table, data: str, results: Sequence[JobResult]) -> list[str]:
    """Rows, seeds and questions of one data set."""
    texts, title = table.texts, registry.dataset(data).title if data in registry.DATASETS else data
    done = [result for result in results if result.result]
    measures = [*(f"`{name}`" for name in _measures(table)), *["with a sentence"] * _writes(table)]
    blocks = [f"## {title}"]
    if done:
        blocks.append(_scored_words(table, done[0].result))
        blocks += [texts.by_slice] if registry.dataset(data).protocols[:1] == ("slice",) else []
    printed = f"printed {'accuracy / ' * (ACCURACY in _measures(table))}DSC / IoU"
    head = ["row", "text", "state", *measures, "trainable", "GMACs", "training", "scoring", printed]
    rows = [_mask_cells(table, row, data, [r for r in results if r.row == row]) for row in table.rows]
    blocks.append(grid([*head, "printed protocol"], rows, "lll".ljust(len(head), "r") + "l"))
    if not done:
        return blocks
    head = ["row", "text", "seed", "training images", "steps", *measures]
    blocks += [f"### Each seed: {title}", "In percent, with the 95 % interval over patients."]
    shown = ([*(r.scores[n] for n in _measures(table)), *[r.sentences] * _writes(table)] for r in done)
    blocks.append(grid(head, map(partial(_seed, table), done, shown), "ll"))
    if table.questions:
        sides = {row.name: (row.name, partial(compare.read_masks, mode=row.mode)) for row in table.rows}
        rows = _answers(table, results, ((q, "", sides[q.first], sides[q.second]) for q in table.questions))
        head = ["question", "`dice_pooled`", "answer", "`dice_per_image`", "answer", "each seed (pooled)"]
        paragraph = texts.questions.format(spread=_spread(results))
        blocks += [f"### Questions: {title}", paragraph, grid(head, rows, "lrlrlr")]
    return [*blocks, *_rank_section(table, title, results)] if table.ranks else blocks


def _rank_section(table: Table, title: str, results: Sequence[JobResult]) -> list[str]:
    """The order of the rows by pooled Dice, and how sure it is."""
    cases: dict[str, dict[int, compare.Cases]] = {}
    for result in results:
        if result.state is State.DONE and result.folder is not None:
            read = compare.read_masks(result.folder / "scores", result.row.mode)
            cases.setdefault(result.row.label, {})[int(result.seed or 0)] = read
    ranks = compare.rank(cases)
    if len(ranks) < 2:
        return []
    rows = []
    for place, found in enumerate(ranks, start=1):
        low, high = found.range
        below = "–" if found.above is None else f"{100 * found.above:.1f} %"
        apart = "–" if found.above is None else "yes" if found.apart else "not told apart"
        kept = f"{100 * found.kept:.1f} %"
        rows.append([str(place), found.name, f"{100 * found.score:.2f}", kept, f"{low} to {high}", below, apart])
    words = (
        f"{DRAWS:,} draws of patients, the same for all rows, over the images and seeds that all of them have. A row "
        "keeps its place in so many of them, and is in 95 % of them between these places. It is told apart from the "
        "next row if it is above it in 97.5 %."
    )
    head = ["place", "row", "`dice_pooled`", "keeps it in", "places", "above the next in", "told apart"]
    return [f"### Ranks: {title}", words, grid(head, rows, "rlrrrrl")]


def _mask_cells(table: Table, row: TableRow, data: str, results: Sequence[JobResult]) -> list[str]:
    """Cells of a row, over its seeds."""
    done = [result for result in results if result.result]
    for result in done:
        check_protocol({name: result.scores[name]["value"] for name in MASK_SCORES})
    cells = [row.label, row.mode if row.exists else "–", state_words(results)]
    cells += [_over_seeds(table.texts, [result.scores[name] for result in done]) for name in _measures(table)]
    if _writes(table):
        cells.append(_over_seeds(table.texts, [r.sentences for r in done if r.sentences is not None]))
    contents = [result.result for result in done]
    cells += [f"{contents[0]['trainable']:,}", f"{contents[0]['gmacs']:.2f}"] if done else ["–"] * 4
    for key in ("train_seconds", "evaluate_seconds") if done else ():
        cells.append(f"{_mean([content[key] for content in contents]):.0f} s")
    printed = table.printed_row(row)
    scores = printed.scores.get(data) if printed is not None else None
    if scores is None:
        return [*cells, "–", "–"]
    protocol = compare.protocol_of(scores)
    off = "" if protocol is compare.Protocol.POOLED else f" (J is {compare.gap(scores):+.2f} from D/(2−D))"
    return [*cells, str(scores), f"{protocol}{off}"]


def _spread(results: Sequence[JobResult]) -> str:
    """How much the seeds of one row differ, in words."""
    scores: dict[str, list[float]] = {}
    for result in results:
        if result.result:
            scores.setdefault(result.row.name, []).append(100 * result.scores["dice_pooled"]["value"])
    apart = sorted(max(values) - min(values) for values in scores.values() if len(values) > 1)
    if not apart:
        return "each row here is a single one."
    return f"seeds of one row differ here by {apart[0]:.2f} to {apart[-1]:.2f} points of pooled Dice."


def _mask_values(table: Table, result: JobResult) -> dict[str, Any]:
    """The line of one training in ``table.csv``."""
    row, values = result.row, _values(result)
    values |= {"text_mode": row.mode if row.exists else "", "fraction": row.fraction, "labelled": row.labelled,
               "model": row.model, "form": row.form}  # fmt: skip
    printed = table.printed_row(row)
    if printed is not None:
        scores = printed.scores.get(result.data)
        values |= {"printed_label": printed.label, "printed_parameters_millions": printed.parameters,
                   "printed_flops_g": printed.flops}  # fmt: skip
        if scores is not None:
            for name in ("dice", "iou", "accuracy"):
                if (share := getattr(scores, name)) is not None:
                    values[f"printed_{name}_percent"] = f"{share:.{scores.decimals}f}"
            values |= {
                "printed_gap_points": f"{compare.gap(scores):.2f}",
                "printed_protocol": str(compare.protocol_of(scores)),
            }
    if not (content := result.result):
        return values
    values |= {"images_scored": content["images"][content["split"]]} | columns(result.scores, (*MASK_SCORES, ACCURACY))
    return values | (columns({"sentence_share": result.sentences}, ["sentence_share"]) if result.sentences else {})


# Maps of phrases.


class MapsLine(NamedTuple):
    """A row of maps: whose they are, which, the state where they are a network's, and range → scores of each seed."""

    label: str
    maps: Maps
    state: str = ""
    scores: Sequence[Content] = ()


class Scored(NamedTuple):
    """A network, or the floors alone, with its state and the rows of maps of each seed."""

    label: str
    state: str
    seeds: Sequence[Content]

    def of(self, maps: Maps) -> list[Content]:
        """Scores of one row of maps, of the seeds that have it."""
        return [rows[maps] for rows in self.seeds if maps in rows]


def maps_lines(scored: Sequence[Scored], with_floors: Sequence[Scored]) -> list[MapsLine]:
    """Networks first, then different floors once each, then controls."""
    networks = [s for s in scored if s.label != FLOORS]
    lines = [MapsLine(s.label, Maps.MODEL, s.state, s.of(Maps.MODEL)) for s in networks]
    lines += [MapsLine(s.label, Maps.FULL, s.state) for s in scored if s.label == FLOORS and not s.seeds]
    seen: dict[Maps, list[Sequence[Content]]] = {}
    for source in with_floors:
        for maps in FLOOR_MAPS:
            scores = source.of(maps)[:1]
            if scores and scores not in seen.setdefault(maps, []):
                # The grid of a network that pads films is another, and so are floors on it.
                label = f"floor, on the grid of {source.label}" if seen[maps] else "floor"
                seen[maps].append(scores)
                lines.append(MapsLine(label, maps, "", scores))
    return lines + [
        MapsLine(s.label, maps, "", scores)
        for s in networks
        for maps in (Maps.SIDED, *CONTROLS)
        if (scores := s.of(maps))
    ]


def maps_table(
    lines: Sequence[MapsLine],
    ranges: Sequence[str],
    show: Callable[[Sequence[Score]], str],
    printed: Sequence[str] = (),
) -> str:
    """Scores of rows of maps under each range; a printed row's label, IoU and Dice beside them where given."""
    head = [*overlap_heads(ranges), *(f"`{name}`" for name in POINTS if ranges)]
    head += [f"{how}: best threshold, IoU / Dice" for how in ranges]
    label, *values = printed or ("",)
    rows = [[label, "–", "printed", *values, *["–"] * len(head)]] if printed else []
    for line in lines:
        cells = ["–"] * len(head)
        if line.scores:
            cells = [show([s[how]["scores"][name] for s in line.scores]) for how in ranges for name in OVERLAP]
            cells += [show([s[ranges[0]]["scores"][name] for s in line.scores]) for name in POINTS]
            cells += [_best([s[how]["best_threshold"] for s in line.scores]) for how in ranges]
        rows.append([line.label, f"`{line.maps}`", line.state, *["–"] * len(values), *cells])
    extra = ["printed `iou`", "printed `dice`"] if printed else []
    return grid(["row", "maps", "state", *extra, *head], rows, "lll")


def _best(best: Sequence[Mapping[str, float | None]]) -> str:
    """IoU and Dice at the best single threshold."""
    values = ([value for b in best if (value := b[name]) is not None] for name in OVERLAP)
    pair = " / ".join(f"{_mean(of_seeds):.3f}" if of_seeds else "–" for of_seeds in values)
    return f"{pair} > " + ", ".join(dict.fromkeys(f"{b['threshold']:g}" for b in best))


def _phrase_section(table: Table, data: str, results: Sequence[JobResult]) -> list[str]:
    """Rows, questions and seeds of one data set, for each kind of phrases."""
    title = registry.dataset(data).title
    blocks: list[str] = []
    for kind in dict.fromkeys(kind for result in results for kind in result.scores):
        done = [result for result in results if kind in result.scores]
        first = done[0].scores[kind]
        ranges = list(first["normalisations"])
        networks = []
        for row in table.rows:
            of_row = [result for result in results if result.row == row]
            seeds = [result.scores[kind]["rows"] for result in of_row if kind in result.scores]
            networks.append(Scored(row.label, state_words(of_row), seeds))
        lines = maps_lines(networks, [network for network in networks if network.seeds][:1])
        head = ["question", "range", "`iou`", "answer", "`dice`", "answer", "each seed (`dice`)"]
        blocks += [
            f"## {title}: phrases of kind `{kind}`",
            _scored_words(table, done[0].result, kind),
            maps_table(lines, ranges, partial(_over_seeds, table.texts)),
            meanings([first]),
            f"### Questions: `{kind}`",
            table.texts.questions,
            grid(head, _answers(table, done, _phrase_questions(table, kind, ranges, done)), "llrlrlr"),
            f"### Each seed: `{kind}`",
            "The network's own maps, with the 95 % interval over patients.",
            _phrase_seeds(table, kind, ranges, done),
        ]
    if not blocks:
        rows = [[row.label, state_words([r for r in results if r.row == row])] for row in table.rows]
        blocks = [f"## {title}", grid(["row", "state"], rows, "ll")]
    return blocks


def _phrase_questions(
    table: Table, kind: str, ranges: Sequence[str], done: Sequence[JobResult]
) -> Iterator[tuple[Question, str, Side, Side]]:
    """Between rows, then of each network against floors and its own map of the mirrored phrase."""
    questions = [(question, question.first, Maps.MODEL) for question in table.questions]
    for row in (row for row in table.rows if any(result.row == row for result in done)):
        for maps, words in _ABOVE.items():
            question = Question(words=f"Is {row.label} {words}?", first=str(maps), second=row.name)
            questions.append((question, row.name, maps))
    for question, first, maps in questions:
        for how in ranges:
            read = partial(compare.read_phrases, kind=kind, how=how)
            yield question, how, (first, partial(read, maps=maps)), (question.second, partial(read, maps=Maps.MODEL))


def _phrase_seeds(table: Table, kind: str, ranges: Sequence[str], done: Sequence[JobResult]) -> str:
    """Table of the trainings."""
    rows = []
    for result in done:
        network = result.scores[kind]["rows"][Maps.MODEL]
        shown = [network[how]["scores"][name] for how in ranges for name in OVERLAP]
        cells = _seed(table, result, [*shown, network[ranges[0]]["scores"]["pointing"]])
        seconds = result.result["train_seconds"], result.scores[kind]["seconds"]
        rows.append([*cells, *(f"{value:.0f} s" for value in seconds)])
    head = ["row", "seed", "training images", "steps", *overlap_heads(ranges), "`pointing`", "training", "scoring"]
    return grid(head, rows, "l")


def _phrase_values(results: Sequence[JobResult]) -> Iterator[dict[str, Any]]:
    """Lines of ``table.csv``: each row of maps of each training under each range; floors once."""
    with_floors: set[tuple[str, str]] = set()
    for result in results:
        values, content = _values(result), result.result
        if not content:
            yield values
            continue
        floor = {"label": "floor", "data": result.data, "split": content["split"], "state": str(result.state)}
        for kind, scores in result.scores.items():
            for line in map_values(scores["rows"], MAP_SCORES):
                if line["maps"] not in FLOOR_MAPS:
                    yield values | {"phrases": kind} | line
                elif (result.data, kind) not in with_floors:
                    yield {"row": line["maps"], **floor, "phrases": kind} | line
            with_floors.add((result.data, kind))


def map_values(rows: Content, names: Sequence[str], *, by_class: bool = False) -> Iterator[dict[str, Any]]:
    """CSV values of rows of maps: under each range, whole and then, where asked for, by class."""
    for maps, by_range in rows.items():
        for how, scores in by_range.items():
            about = {"maps": maps, "normalise": how}
            best = {f"best_{name}": scores["best_threshold"][name] for name in ("threshold", *OVERLAP)}
            yield about | {"cases": scores["cases"]} | best | columns(scores["scores"], names)
            for label, of_class in scores["classes"].items() if by_class else ():
                yield about | {"class": label} | columns(of_class, names)
