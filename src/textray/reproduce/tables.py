"""What the papers' tables are, and how they are read from ``configs/reproduce/tables.yaml``.

The file is the tables' only source. Its mappings are the dataclasses below, key by field, and it is read strictly:
nothing may be unknown, missing or doubled. One protocol holds for every row of a table: the same recipe, size,
augmentation, text encoder and budget of optimiser steps. This module is free of torch.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from textray import registry
from textray.errors import UsageError, unknown_name
from textray.registry import Form
from textray.reproduce import TextMode

FILE = Path(str(files("textray") / "configs" / "reproduce" / "tables.yaml"))
T = TypeVar("T")
SELF_GUIDED: tuple[TextMode, ...] = ("generated", "oracle", "none")
"""Text modes in which a network that writes its own report is scored."""


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """One row of a table.

    Attributes:
        model: Registry name of its network, which need not exist.
        text: ``oracle``: trained and scored with the captions. ``none``: without; always so for a network that reads no
            text. ``generated``: trained with captions, selected and scored with reports that the network writes itself.
        scored: Text mode of its score where that is not the one of its training; for ``generated`` only.
        fraction: Share of the training patients.
        recipe: Name of its network's recipe in the budget; empty means ``model``.
        arguments: What the row changes in its recipe, as arguments of `textray train`.
        before: Task of an earlier training, which provides its image trunk.
        teacher: Row of an earlier training, which provides the first labels of the images without masks and the weights
            to start from.
        teaches: True for a teacher: its best checkpoint is kept.
        labelled: Share of its training patients whose masks it sees; below 1 it learns from the others without.
        length: Share of the budget's epochs, so that a row and its teacher can have the steps of one row.
        more_seeds: How many seeds it has more than the table's others, or less where below 0.
        printed: Label of the paper's row beside it; empty where the paper has none.
    """

    name: str
    label: str
    model: str
    form: Form = "paper"
    text: TextMode = "oracle"
    scored: TextMode | None = None
    fraction: float = 1.0
    recipe: str = ""
    arguments: tuple[str, ...] = ()
    before: Literal["contrastive"] | None = None
    teacher: TableRow | None = None
    teaches: bool = False
    labelled: float = 1.0
    length: float = 1.0
    more_seeds: int = 0
    printed: str = ""

    def seeds_of(self, seeds: Sequence[int]) -> Sequence[int]:
        """Its seeds, at least one, where the table's others have these."""
        if self.more_seeds <= 0:
            return seeds[: max(1, len(seeds) + self.more_seeds)]
        return [*seeds, *range(max(seeds) + 1, max(seeds) + 1 + self.more_seeds)]

    @property
    def training_mode(self) -> TextMode:
        """Text mode that it is trained and selected in."""
        return self.text if self.reads_text else "none"

    @property
    def mode(self) -> TextMode:
        """Text mode of its score."""
        return self.scored or self.training_mode

    @property
    def modes(self) -> tuple[TextMode, ...]:
        """Text modes that its job is scored in, its own among them."""
        return SELF_GUIDED if self.training_mode == "generated" else (self.training_mode,)

    @property
    def reads_text(self) -> bool:
        """True where its network exists and reads a text."""
        return self.model in registry.MODELS and "text" in registry.MODELS[self.model].reads

    @property
    def exists(self) -> bool:
        """True where the registry has its network in its form."""
        row = registry.MODELS.get(self.model)
        return row is not None and any(form.name == self.form for form in row.forms)


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question whether the ``second`` of two rows is better than the ``first``, in ``words``."""

    words: str
    first: str
    second: str


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores as printed, in percent, with how many ``decimals``; most papers print no accuracy of pixels."""

    dice: float
    iou: float
    accuracy: float | None = None
    decimals: int = 2

    @classmethod
    def parse(cls, text: str) -> Scores:
        """Read ``Dice / IoU`` or ``accuracy / Dice / IoU``; anything else is a ValueError."""
        words = text.split(" / ")
        if len(words) not in (2, 3):
            raise ValueError(f"no scores: {text}")
        *accuracy, dice, iou = map(float, words)
        return cls(dice=dice, iou=iou, accuracy=(*accuracy, None)[0], decimals=len(words[-1].partition(".")[2]))

    def __str__(self) -> str:
        shown = [self.dice, self.iou] if self.accuracy is None else [self.accuracy, self.dice, self.iou]
        return " / ".join(f"{score:.{self.decimals}f}" for score in shown)


@dataclass(frozen=True, kw_only=True)
class PrintedRow:
    """A row of a paper's table: scores by registry name of the data set, "Param" in millions and "FLOPs" in G."""

    label: str
    scores: Mapping[str, Scores]
    parameters: float | None = None
    flops: float | None = None


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long and how large the trainings are, in ``words`` for the page.

    Attributes:
        networks: Registry name, or what a row calls its recipe → recipe of the network.
        epochs: Epochs on the whole training data; ``epochs_before`` of a training before a row's own.
        recipes: Recipes that every row shares, by name or file; ``semi`` those of rows that also learn from images
            without masks.
        warmup: Share of the epochs in which the learning rate rises.
        most_repeats: Part of the data is seen more often, so that the number of steps stays, up to so many times.
    """

    name: str
    words: str
    networks: Mapping[str, str]
    epochs: int
    recipes: tuple[str, ...] = ()
    semi: tuple[str, ...] = ()
    epochs_before: int = 1
    warmup: float = 0.0
    most_repeats: float = 1.0

    def epochs_of(self, fraction: float, length: float = 1.0) -> int:
        """Epochs on a share of the training data, for a share of the budget's length."""
        return max(1, round(self.epochs * length * min(1 / fraction, self.most_repeats)))


@dataclass(frozen=True, kw_only=True)
class PageTexts:
    """Sentences that pages of one kind share.

    Attributes:
        scores: What rows are scored by: masks of lesions, or maps of phrases.
        fields: Columns of ``table.csv``.
        scale: What scores are multiplied by on the page, with ``digits`` behind the point.
        scored: Sentence about what was scored; it and ``training``, about the images of one data set that rows are
            trained with, name parts of a result.
        questions: Paragraph above the questions; ``{spread}`` is how much seeds of one row differ.
        seeds: What else a seed chooses.
        by_slice: Warning above a data set that is cut by slice.
        generated: Note of a table with rows that are scored with reports of their own.
        impossible: Note of a table that prints scores that no masks have, ``{rows}``.
    """

    scores: Literal["masks", "phrases"]
    fields: tuple[str, ...]
    scale: int
    digits: int
    scored: str
    training: str
    questions: str
    notes: tuple[str, ...]
    seeds: str = ""
    by_slice: str = ""
    generated: str = ""
    impossible: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table whose rows are trained; ``data`` are registry names, and their data sets need not exist.

    ``ranks`` says that it also shows how sure the order of its rows is.
    """

    name: str
    title: str
    texts: PageTexts
    budgets: tuple[Budget, ...] = ()
    data: tuple[str, ...]
    rows: tuple[TableRow, ...]
    printed: tuple[PrintedRow, ...] = ()
    questions: tuple[Question, ...] = ()
    notes: tuple[str, ...] = ()
    ranks: bool = False

    @property
    def masks(self) -> bool:
        """True where rows are scored by masks, not by maps of phrases."""
        return self.texts.scores == "masks"

    def printed_row(self, row: TableRow) -> PrintedRow | None:
        """The paper's row beside one of ours."""
        return next((p for p in self.printed if row.printed and p.label == row.printed), None)

    def budget(self, name: str) -> Budget:
        """The budget of that name; without it a `UsageError`."""
        budgets = {budget.name: budget for budget in self.budgets}
        if name not in budgets:
            raise unknown_name("budget", name, budgets)
        return budgets[name]


@dataclass(frozen=True, kw_only=True)
class Block:
    """Phrases of one data set in a `WeightsTable`: its registry name, the paper's name of it, the kinds to ask."""

    data: str
    title: str
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class WeightsTable:
    """A table of maps of phrases whose weights are scored as they are; nothing is trained.

    ``printed`` is method → data set → IoU and Dice of the whole set, or, where ``by_class`` names a score, that of each
    class and their mean. ``baselines`` says why the paper's other methods stand in a block apart.
    """

    name: str
    title: str
    blocks: tuple[Block, ...]
    printed: Mapping[str, Mapping[str, tuple[float, ...]]]
    by_class: Literal["dice", "iou"] | None = None
    baselines: str = ""
    notes: tuple[str, ...]


@cache
def read_tables(path: Path = FILE) -> Mapping[str, Table | WeightsTable]:
    """Tables by name.

    Raises:
        UsageError: If a key is unknown, missing or doubled, a value has another type, or a name is used twice.
    """
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except yaml.YAMLError as error:
        raise UsageError(f"{path.name} is not readable", came=" ".join(str(error).split())) from error
    file = build(_File, tree, path.stem)
    for table in file.tables:
        names = _unique([row.name for row in table.rows], f"rows of {table.name}")
        for name in (name for question in table.questions for name in (question.first, question.second)):
            if name not in names:
                raise unknown_name(f"row in a question of {table.name}", name, names)
    tables: list[Table | WeightsTable] = [*file.tables, *file.weights]
    _unique([table.name for table in tables], "tables")
    return {table.name: table for table in tables}


@dataclass(frozen=True, kw_only=True)
class _File:
    """The whole file; tables refer to ``texts`` and ``budgets`` by anchors."""

    texts: tuple[PageTexts, ...]
    budgets: tuple[Budget, ...]
    tables: tuple[Table, ...]
    weights: tuple[WeightsTable, ...]


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key that stands twice in a mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping."""
        keys = [key.value for key, _ in node.value]
        doubled = sorted({key for key in keys if keys.count(key) > 1})
        if doubled:
            raise yaml.constructor.ConstructorError(None, None, f"doubled: {', '.join(doubled)}", node.start_mark)
        return super().construct_mapping(node, deep)


def build(kind: type[T], values: object, where: str) -> T:
    """Build a dataclass from a mapping, key by field."""
    if not isinstance(values, dict):
        raise _wrong(where, values, f"a mapping of {kind.__name__}")
    hints = get_type_hints(kind)
    for key in values:
        if key not in hints:
            raise unknown_name(f"key of {where}", str(key), hints)
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]  # every kind is a dataclass
        if field.default is dataclasses.MISSING and field.name not in values:
            raise _wrong(where, ", ".join(values), f"a key {field.name}")
    return kind(**{key: _cast(hints[key], value, f"{where}.{key}") for key, value in values.items()})


def _cast(hint: Any, value: object, where: str) -> Any:  # noqa: ANN401 -- a type, and an instance of it
    """Give a YAML value the type of its field."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (types.UnionType, Union):
        return None if value is None else _cast(parts[0], value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_cast(parts[0], item, f"{where}[{number}]") for number, item in enumerate(value))
    if origin is Mapping and isinstance(value, dict):
        return {key: _cast(parts[1], item, f"{where}.{key}") for key, item in value.items()}
    if origin is Literal and value in parts:
        return value
    if hint is Scores or hint is float:
        try:
            return Scores.parse(str(value)) if hint is Scores else float(Fraction(str(value)))
        except ValueError as error:
            raise _wrong(where, value, hint.__name__) from error
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return build(hint, value, where)
    if origin is None and type(value) is hint:
        return value
    raise _wrong(where, value, str(hint))


def _unique(names: list[str], what: str) -> list[str]:
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise UsageError(f"{FILE.name}: two {what} have one name", came=", ".join(doubled))
    return names


def _wrong(where: str, value: object, expected: str) -> UsageError:
    return UsageError(f"{FILE.name}: {where} is wrong", came=value, expected=expected)
