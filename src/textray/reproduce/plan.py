"""What a table is: rows × data sets × seeds, each a training with settings of its own; nothing is trained here.

One protocol holds for every row of a table: the same recipe, size, augmentation, text encoder and budget of optimiser
steps. Rows of equal settings are one training, so tables share the rows that they have in common.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from textray import __version__, registry
from textray.data.base import Split, fingerprint, open_reader
from textray.errors import LayoutError
from textray.reproduce.printed import PrintedRow
from textray.rows import Form
from textray.training.cli import find_recipe


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a table.

    Attributes:
        name: Its name for ``--rows``; unique within a table.
        label: What the table calls it, as printed where the paper has it.
        model: Registry name of its network, whether that is there yet or not.
        form: Form of the network.
        text: ``oracle``: trained and scored with the data set's captions, none withheld (the paper's). ``none``:
            trained and scored without any. A network that reads no text is always ``none``.
        fraction: Share of the training patients.
        printed: Label of the paper's row beside it; empty where the paper has none.
    """

    name: str
    label: str
    model: str
    form: Form = "paper"
    text: Literal["oracle", "none"] = "oracle"
    fraction: float = 1.0
    printed: str = ""

    @property
    def mode(self) -> Literal["oracle", "none"]:
        """Text mode that its score is made in."""
        return self.text if self.reads_text else "none"

    @property
    def reads_text(self) -> bool:
        """True where its network is there and reads a text."""
        return self.model in registry.MODELS and "text" in registry.MODELS[self.model].reads

    @property
    def exists(self) -> bool:
        """True where the registry has its network in its form."""
        row = registry.MODELS.get(self.model)
        return row is not None and any(form.name == self.form for form in row.forms)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two rows that answer a question.

    Attributes:
        question: The question, to be answered by "better" or "worse".
        first: Name of the row that is compared with.
        second: Name of the row that the answer is about.
    """

    question: str
    first: str
    second: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """A paper's table.

    Attributes:
        name: Its name for the command line.
        title: Its heading.
        rows: Its rows, in the order of the paper.
        printed: The paper's rows.
        data: Registry names of its data sets, whether they are there yet or not.
        comparisons: Questions that its rows answer.
    """

    name: str
    title: str
    rows: tuple[Row, ...]
    printed: tuple[PrintedRow, ...] = ()
    data: tuple[str, ...] = ("qata_cov19", "mosmed_plus")
    comparisons: tuple[Comparison, ...] = ()

    def printed_row(self, row: Row) -> PrintedRow | None:
        """The paper's row beside one of ours."""
        return next((p for p in self.printed if row.printed and p.label == row.printed), None)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long and how large the trainings are.

    Attributes:
        name: Its name for the command line.
        words: What it is, one sentence for the page.
        recipes: Recipes that every row shares, by name or file.
        networks: Registry name → recipe of the network.
        epochs: Epochs on the whole training data.
        warmup: Share of the epochs in which the learning rate rises.
        most_repeats: Part of the data is seen more often, so that the number of steps stays, up to so many times.
    """

    name: str
    words: str
    recipes: tuple[str, ...]
    networks: Mapping[str, str]
    epochs: int
    warmup: float = 0.0
    most_repeats: float = 1.0

    def epochs_of(self, fraction: float) -> int:
        """Epochs on a share of the training data."""
        return max(1, round(self.epochs * min(1 / fraction, self.most_repeats)))


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training with its score.

    Attributes:
        row: The row.
        data: Registry name of the data set.
        root: Its folder, ``None`` for one that is drawn.
        seed: Of the training, and of the choice of patients.
        split: What it is scored on.
        recipes: Recipes, the later ones win.
        arguments: Further arguments of `textray train`, without folders.
        settings: Everything that its result depends on, as JSON.
        steps: Optimiser steps, about.
    """

    row: Row
    data: str
    root: Path | None
    seed: int
    split: Split
    recipes: tuple[str, ...]
    arguments: tuple[str, ...]
    settings: Mapping[str, Any] = field(repr=False)
    steps: int

    @property
    def hash(self) -> str:
        """SHA-256 of the settings."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()

    @property
    def folder(self) -> str:
        """Name of its folder: for the eye, and with a part of the hash, so that other settings lie elsewhere."""
        row = self.row
        words = [row.model, *([row.form] if row.form != "paper" else []), self.data, row.mode, f"{row.fraction:.0%}"]
        return "-".join([*words, f"seed{self.seed}", self.hash[:8]]).replace("%", "pct")


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
    recipes = (*budget.recipes, budget.networks[row.model])
    tree = merged(recipes)
    epochs = budget.epochs_of(row.fraction)
    words = [f"--seed_everything={seed}", f"--data.data={source.name}", f"--trainer.max_epochs={epochs}"]
    if budget.warmup:
        words.append(f"--model.warmup_epochs={epochs * budget.warmup:g}")
    if row.fraction < 1:
        words += [f"--data.train_fraction={row.fraction:g}", f"--data.fraction_seed={seed}"]
    if row.reads_text and row.mode == "none":  # learns, selects and stops without a word
        words += ["--data.report_dropout=1.0", "--checkpoint.monitor=inner/dice_none"]
        words += ["--stopping.monitor=inner/dice_none", "--stopping.mode=max"]
    settings = {
        "textray": __version__, "model": row.model, "form": row.form, "text": row.mode, "recipe": tree,
        "arguments": words, "split": source.split, "ids": dict(source.ids),
    }  # fmt: skip
    data = tree.get("data", {})
    images = min(source.images["fit"] * row.fraction, data.get("limit") or source.images["fit"])
    return Job(
        row=row,
        data=source.name,
        root=source.root,
        seed=seed,
        split=source.split,
        recipes=recipes,
        arguments=tuple(words),
        settings=settings,
        steps=epochs * max(1, int(images / data.get("batch_size", 32))),
    )


def _merge(tree: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, Mapping) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = dict(value) if isinstance(value, Mapping) else value
