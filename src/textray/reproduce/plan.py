"""The jobs of a table: the training of each row with its settings, and its state. Nothing is trained in this file.

Rows with equal settings are one job, so tables share the rows that they have in common, and two rows of one table can
be one job that is scored in two text modes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from textray import __version__, registry
from textray.data.base import Split, fingerprint, open_reader
from textray.errors import LayoutError, UsageError, unknown_name
from textray.reproduce import Order
from textray.reproduce.tables import Budget, Table, TableRow
from textray.training.cli import find_recipe

RESULT, FAILURE = "result.json", "failure.json"
SPLIT = "test"
"""Split that weights are scored on."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A data set as the jobs of a table use it; ``root`` is ``None`` for one that is drawn.

    The scored ``split`` is ``test`` where its files exist, else ``val``; ``ids`` is the SHA-256 of each split's ids.
    """

    name: str
    root: Path | None
    split: Split
    ids: Mapping[str, str]


def open_source(name: str, root: Path | None) -> Source:
    """Read a data set's lists of images; a missing training part, or part to score, is a `LayoutError`."""
    reader = open_reader(name, root)
    split: Split = "test"
    try:
        scored = reader.samples(split)
    except LayoutError:  # a missing part; faults inside a part are DataError
        split = "val"
        scored = reader.samples(split)
    parts = {"fit": reader.samples("fit"), "inner": reader.samples("inner"), split: scored}
    ids = {part: fingerprint(s.image_id for s in samples) for part, samples in parts.items()}
    return Source(name=name, root=root, split=split, ids=ids)


def settings_hash(settings: Mapping[str, Any]) -> str:
    """SHA-256 that a folder of results is named by."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training with its scores, or a training that another job starts from and that may not be ``scored``.

    Attributes:
        seed: Of the training, and of the choice of patients.
        arguments: Further arguments of `textray train` behind the recipes, without folders.
        settings: Everything that its result depends on, as JSON.
        name: First part of its folder's name, for the eye.
        before: The job that its trunk comes from, or its teacher.
    """

    row: TableRow
    source: Source
    seed: int
    recipes: tuple[str, ...]
    arguments: tuple[str, ...]
    settings: Mapping[str, Any] = field(repr=False)
    name: str
    before: Job | None = None
    scored: bool = True

    @property
    def hash(self) -> str:
        """SHA-256 of the settings."""
        return settings_hash(self.settings)

    @property
    def folder(self) -> str:
        """Name of its folder, with a part of the hash, so that other settings have another folder."""
        return f"{self.name}-seed{self.seed}-{self.hash[:8]}"

    @property
    def words(self) -> list[str]:
        """Arguments of `textray train`, without folders."""
        return [word for recipe in self.recipes for word in ("--config", recipe)] + list(self.arguments)

    @property
    def command(self) -> str:
        """The commands that it is trained with, without folders."""
        words = " ".join(["textray train", *self.words])
        if self.before is None:
            return words
        start = "--model.teacher=CHECKPOINT" if self.before.scored else "--model.initial=[trunk=CHECKPOINT]"
        return " ".join(["textray train", *self.before.words, "&&", words, start])

    @property
    def grounds(self) -> bool:
        """True where a grounding network is trained."""
        return bool(self.settings["recipe"].get("task") == "grounding")


def plan_job(row: TableRow, source: Source, seed: int, budget: Budget) -> Job:
    """Plan the job of a row on a data set; an unknown recipe is a `UsageError`."""
    semi = budget.semi if row.labelled < 1 else ()
    recipes = (*budget.recipes, *semi, budget.networks[row.recipe or row.model])
    tree, job = merged(recipes), partial(Job, row=row, source=source, seed=seed, recipes=recipes)
    words = _arguments(row, source, seed, budget.epochs_of(row.fraction, row.length), budget)
    if row.reads_text and row.training_mode == "none":  # learns, selects and stops without text
        words += ["--data.report_dropout=1.0", "--checkpoint.monitor=inner/dice_none"]
        words += ["--stopping.monitor=inner/dice_none", "--stopping.mode=max"]
    if row.labelled < 1:
        words += ["--task=semi_supervised", f"--data.labelled_fraction={row.labelled:g}"]
        words += [f"--data.fraction_seed={seed}"]
    words += row.arguments
    settings = {
        "textray": __version__, "model": row.model, "form": row.form, "text": row.training_mode, "recipe": tree,
        "arguments": words, "split": source.split, "ids": dict(source.ids),
    }  # fmt: skip
    before = None if row.teacher is None else plan_job(row.teacher, source, seed, budget)
    if row.before is not None:  # the same recipes, another task
        trunk_words = [*_arguments(row, source, seed, budget.epochs_before, budget), f"--task={row.before}"]
        trunk = {
            "textray": __version__, "task": row.before, "model": row.model, "recipe": tree, "arguments": trunk_words,
            "ids": {part: source.ids[part] for part in ("fit", "inner")},
        }  # fmt: skip
        name = f"{row.before}-{row.model}-{source.name}"
        before = job(arguments=tuple(trunk_words), settings=trunk, name=name, scored=False)
    if before is not None:
        settings["before"] = before.hash
    what = row.name if tree.get("task") == "grounding" else row.training_mode  # grounding has no text mode
    names = [row.model, *([row.form] if row.form != "paper" else []), source.name, what, f"{row.fraction:.0%}"]
    names += [f"masks{row.labelled:.0%}"] if row.labelled < 1 else []
    name = "-".join(names).replace("%", "pct")
    return job(arguments=tuple(words), settings=settings, name=name, before=before)


def _arguments(row: TableRow, source: Source, seed: int, epochs: int, budget: Budget) -> list[str]:
    words = [f"--seed_everything={seed}", f"--data.data={source.name}", f"--trainer.max_epochs={epochs}"]
    words += [f"--model.warmup_epochs={epochs * budget.warmup:g}"] if budget.warmup else []
    shares = [f"--data.train_fraction={row.fraction:g}", f"--data.fraction_seed={seed}"]
    return [*words, *(shares if row.fraction < 1 else [])]


def merged(recipes: tuple[str, ...]) -> dict[str, Any]:
    """Merge recipes, later ones win; without the defaults of the code. An unknown one is a `UsageError`."""
    tree: dict[str, Any] = {}
    for name in recipes:
        tree = _merge(tree, yaml.safe_load(Path(find_recipe(name)).read_text(encoding="utf-8")) or {})
    return tree


def _merge(tree: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    inner = [key for key in more if isinstance(more[key], dict) and isinstance(tree.get(key), dict)]
    return {**tree, **more, **{key: _merge(tree[key], more[key]) for key in inner}}


class State(StrEnum):
    """State of a row on a data set, for one seed."""

    DONE = "done"
    FAILED = "failed"
    NOT_RUN = "not run"
    NOT_AVAILABLE = "not there yet"
    NO_ROOT = "no --root given"


@dataclass(frozen=True, kw_only=True)
class Result:
    """State of a row on a data set, and why it is not done; ``seed`` is ``None`` where none can be run."""

    data: str
    state: State
    reason: str = ""
    seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class JobResult(Result):
    """A row on a data set for one seed, with the content of ``result.json``, which is empty where it is not done."""

    row: TableRow
    result: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def scores(self) -> Mapping[str, Any]:
        """Scores of masks in the row's text mode, of phrases by kind; empty where the row is not done."""
        scores: Mapping[str, Any] = self.result.get("scores", {})
        trained = self.result.get("text_mode") in (None, self.row.mode)
        return scores if trained else self.result["other_scores"][self.row.mode]

    @property
    def sentences(self) -> Mapping[str, float] | None:
        """Share of the images that a sentence was written for, where the row is scored with those."""
        return self.result.get("sentences") if self.row.mode == "generated" else None


@dataclass(frozen=True, kw_only=True)
class WeightsResult(Result):
    """Weights, or floors alone, on one kind of phrases, with the content of ``summary.json`` where it is done."""

    label: str
    kind: str
    summary: Mapping[str, Any] | None = None


def check_names(table: str, order: Order, rows: Iterable[str], data: Sequence[str]) -> None:
    """Refuse, as a `UsageError`, names of rows and data sets that a table does not have."""
    known = list(rows)
    for name in order.rows:
        if name not in known:
            raise unknown_name("row", name, known)
    for name in order.roots:
        if name not in data:
            raise UsageError(f"{table} has no data set {name}", expected="one of " + ", ".join(data))


def plan_table(table: Table, budget: Budget, order: Order) -> list[Job | JobResult]:
    """Plan every row on every data set: its jobs, or the reason why there is none.

    Raises:
        UsageError: If a name is wrong, or a data set that was asked for cannot be read.
    """
    if order.seeds < 1:
        raise UsageError("a table needs seeds", came=order.seeds, expected="1 or more")
    check_names(table.name, order, [row.name for row in table.rows], table.data)
    able = [n for n in table.data if n in registry.DATASETS and (n in order.roots or not registry.dataset(n).on_disk)]
    sources = {name: open_source(name, order.roots.get(name)) for name in able}
    if not sources:
        raise UsageError(f"{table.name} has no data to train on", do=f"Add --root {table.data[0]}=DIR.")
    plan: list[Job | JobResult] = []
    for data in table.data:
        for row in table.rows:
            plan += plan_row(row, data, sources.get(data), range(order.seeds), budget)
    return plan


def plan_row(
    row: TableRow, data: str, source: Source | None, seeds: Sequence[int], budget: Budget
) -> list[Job | JobResult]:
    """Plan the jobs of a row on a data set, or give the reason why there is none."""
    reason, state = "", State.NOT_AVAILABLE
    form = f" in form {row.form}" if row.form != "paper" else ""
    if not row.exists:
        reason = f"no network {row.model}{form}"
    elif form or (row.recipe or row.model) not in budget.networks:
        reason = f"no recipe for budget {budget.name}{form}"
    elif data not in registry.DATASETS:
        reason = f"no reader of {data}"
    elif source is None:
        state = State.NO_ROOT
    else:
        return [plan_job(row, source, seed, budget) for seed in row.seeds_of(seeds)]
    return [JobResult(row=row, data=data, seed=None, state=state, reason=reason)]


def home_of(out: Path, job: Job) -> Path:
    """Folder of a job among the results."""
    return out / "rows" / job.folder


def read_result(out: Path, job: Job) -> Mapping[str, Any]:
    """Result of a finished job, empty where it is not finished."""
    result = _read(home_of(out, job) / RESULT)
    return result if result.get("settings") == job.hash else {}


def job_result(job: Job, out: Path) -> JobResult:
    """State of a job, with its result of this or an earlier run."""
    home = home_of(out, job)
    result, failure = read_result(out, job), _read(home / FAILURE)
    state = State.DONE if result else State.FAILED if failure else State.NOT_RUN
    reason = "" if result else str(failure.get("reason", ""))
    return JobResult(
        row=job.row, data=job.source.name, seed=job.seed, state=state, reason=reason, result=result, folder=home
    )


def _read(path: Path) -> dict[str, Any]:
    """Content of a JSON file, empty without a readable one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
