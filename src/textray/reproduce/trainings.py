"""The trainings that a table's rows come to, each with settings of its own; nothing is trained here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from textray import __version__
from textray.data.base import Split, fingerprint, open_reader
from textray.errors import LayoutError
from textray.reproduce.plan import Budget, Row
from textray.training.cli import find_recipe


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training.

    Attributes:
        data: Registry name of the data set.
        root: Its folder, ``None`` for one that is drawn.
        seed: Of the training, and of the choice of patients.
        recipes: Recipes, the later ones win.
        arguments: Further arguments of `textray train`, without folders.
        settings: Everything that its result depends on, as JSON.
        steps: Optimiser steps, about.
    """

    data: str
    root: Path | None
    seed: int
    recipes: tuple[str, ...]
    arguments: tuple[str, ...]
    settings: Mapping[str, Any] = field(repr=False)
    steps: int

    @property
    def hash(self) -> str:
        """SHA-256 of the settings."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()

    @property
    def words(self) -> list[str]:
        """Arguments of `textray train`, without folders."""
        return [word for recipe in self.recipes for word in ("--config", recipe)] + list(self.arguments)

    @property
    def grounds(self) -> bool:
        """True where it is one of a grounding network."""
        return bool(self.settings["recipe"].get("task") == "grounding")

    def _named(self, *words: str) -> str:
        """Name of a folder: for the eye, and with a part of the hash, so that other settings lie elsewhere."""
        return "-".join([*words, f"seed{self.seed}", self.hash[:8]]).replace("%", "pct")


@dataclass(frozen=True, kw_only=True)
class Stage(Training):
    """A training whose image trunk another one starts from; it is not scored.

    Attributes:
        task: What is trained for.
        model: Registry name of the network that the trunk belongs to.
    """

    task: str
    model: str

    @property
    def folder(self) -> str:
        """Name of its folder."""
        return self._named(self.task, self.model, self.data)


@dataclass(frozen=True, kw_only=True)
class Job(Training):
    """One training with its scores.

    Attributes:
        row: The row.
        split: What it is scored on.
        before: The training that its trunk comes from, or its teacher.
    """

    row: Row
    split: Split
    before: Stage | Job | None = None

    @property
    def folder(self) -> str:
        """Name of its folder."""
        row = self.row
        told = row.name if self.grounds else row.learnt  # grounding has no text mode
        words = [row.model, *([row.form] if row.form != "paper" else []), self.data, told, f"{row.fraction:.0%}"]
        return self._named(*words, *([f"masks{row.labelled:.0%}"] if row.labelled < 1 else []))


@dataclass(frozen=True, kw_only=True)
class Source:
    """A data set as the rows of a table use it.

    Attributes:
        name: Registry name.
        root: Its folder, ``None`` for one that is drawn.
        split: What is scored: ``test`` where its files are, else ``val``.
        ids: Split → SHA-256 of its image ids.
        images: Split → number of images.
    """

    name: str
    root: Path | None
    split: Split
    ids: Mapping[str, str]
    images: Mapping[str, int]


def open_source(name: str, root: Path | None, *, captions: str = "error") -> Source:
    """Read a data set's lists of images.

    Raises:
        UsageError: If the name is unknown.
        LayoutError: If neither training nor measuring part is there.
        DataError: If a file is refused.
    """
    reader = open_reader(name, root, captions=captions)
    split: Split = "test"
    try:
        scored = reader.samples(split)
    except LayoutError:  # a part that is not there; faults inside a part are DataError
        split = "val"
        scored = reader.samples(split)
    parts = {"fit": reader.samples("fit"), "inner": reader.samples("inner"), split: scored}
    ids = {part: fingerprint(s.image_id for s in samples) for part, samples in parts.items()}
    return Source(name=name, root=root, split=split, ids=ids, images={part: len(s) for part, s in parts.items()})


def merged(recipes: tuple[str, ...]) -> dict[str, Any]:
    """What recipes come to, later ones winning, without the defaults of the code.

    Raises:
        UsageError: If one is unknown.
    """
    tree: dict[str, Any] = {}
    for name in recipes:
        _merge(tree, yaml.safe_load(Path(find_recipe(name)).read_text(encoding="utf-8")) or {})
    return tree


def plan_job(row: Row, source: Source, seed: int, budget: Budget) -> Job:
    """Settings of one training.

    Raises:
        UsageError: If a recipe is unknown.
    """
    recipes = budget.recipes_of(row)
    tree = merged(recipes)
    epochs = budget.epochs_of(row.fraction, row.length)
    words = [*_arguments(source, seed, epochs, budget), *_share(row.fraction, seed)]
    if row.reads_text and row.learnt == "none":  # learns, selects and stops without a word
        words += ["--data.report_dropout=1.0", "--checkpoint.monitor=inner/dice_none"]
        words += ["--stopping.monitor=inner/dice_none", "--stopping.mode=max"]
    if row.labelled < 1:
        words += [
            "--task=semi_supervised",
            f"--data.labelled_fraction={row.labelled:g}",
            f"--data.fraction_seed={seed}",
        ]
    words += row.arguments
    before: Stage | Job | None = plan_stage(row, source, seed, budget) if row.before is not None else None
    if row.teacher is not None:
        before = plan_job(row.teacher, source, seed, budget)
    settings = {
        "textray": __version__, "model": row.model, "form": row.form, "text": row.learnt, "recipe": tree,
        "arguments": words, "split": source.split, "ids": dict(source.ids),
    }  # fmt: skip
    if before is not None:
        settings["before"] = before.hash
    return Job(
        row=row,
        data=source.name,
        root=source.root,
        seed=seed,
        split=source.split,
        recipes=recipes,
        arguments=tuple(words),
        settings=settings,
        steps=_steps(tree, source, epochs, row.fraction) + (before.steps if isinstance(before, Stage) else 0),
        before=before,
    )


def plan_stage(row: Row, source: Source, seed: int, budget: Budget) -> Stage:
    """Settings of the training before a row's own: the same recipes, another task.

    Raises:
        UsageError: If a recipe is unknown.
    """
    recipes = budget.recipes_of(row)
    tree, epochs = merged(recipes), budget.epochs_before
    words = [*_arguments(source, seed, epochs, budget), *_share(row.fraction, seed), f"--task={row.before}"]
    settings = {
        "textray": __version__, "task": row.before, "model": row.model, "recipe": tree, "arguments": words,
        "ids": {part: source.ids[part] for part in ("fit", "inner")},
    }  # fmt: skip
    return Stage(
        task=str(row.before),
        model=row.model,
        data=source.name,
        root=source.root,
        seed=seed,
        recipes=recipes,
        arguments=tuple(words),
        settings=settings,
        steps=_steps(tree, source, epochs, row.fraction),
    )


def _arguments(source: Source, seed: int, epochs: int, budget: Budget) -> list[str]:
    words = [f"--seed_everything={seed}", f"--data.data={source.name}", f"--trainer.max_epochs={epochs}"]
    return [*words, *([f"--model.warmup_epochs={epochs * budget.warmup:g}"] if budget.warmup else [])]


def _share(fraction: float, seed: int) -> list[str]:
    return [f"--data.train_fraction={fraction:g}", f"--data.fraction_seed={seed}"] if fraction < 1 else []


def _steps(tree: Mapping[str, Any], source: Source, epochs: int, fraction: float) -> int:
    data = tree.get("data", {})
    images = min(source.images["fit"] * fraction, data.get("limit") or source.images["fit"])
    return epochs * max(1, int(images / data.get("batch_size", 32)))


def _merge(tree: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, Mapping) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = dict(value) if isinstance(value, Mapping) else value
