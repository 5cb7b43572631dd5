"""What a table is: rows × data sets × seeds, and the budget that it is made with.

One protocol holds for every row of a table: the same recipe, size, augmentation, text encoder and budget of optimiser
steps. Rows of equal settings are one training, so tables share the rows that they have in common, and two rows of one
table can be one training that is scored in two text modes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from textray import registry
from textray.reproduce.printed import PrintedRow
from textray.rows import Form

Text = Literal["oracle", "none", "generated"]
"""Text mode of a training or of its score: captions, no word, or reports that the network writes itself."""
SELF_GUIDED: tuple[Text, ...] = ("generated", "oracle", "none")
"""Text modes that the training of a network which writes its own report is scored in."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a table.

    Attributes:
        name: Its name for ``--rows``; unique within a table.
        label: What the table calls it, as printed where the paper has it.
        model: Registry name of its network, whether that is there yet or not.
        form: Form of the network.
        text: ``oracle``: trained and scored with the data set's captions, none withheld (the paper's). ``none``:
            trained and scored without any. A network that reads no text is always ``none``. ``generated``: trained with
            the captions, by a network that learns to write its own report, selected and scored with those.
        scored: Text mode of its score where that is not the one of its training; for ``generated`` only, whose other
            modes are scored in any case.
        fraction: Share of the training patients.
        recipe: Name of its network's recipe in the budget; empty is ``model``.
        arguments: What the row changes in its recipe, as arguments of `textray train`.
        before: Task of a training before its own, from which it has its image trunk.
        teacher: Row of a training before its own, which gives the first labels of the images without masks, and where
            its network starts.
        teaches: True where another row has it for a teacher: its best checkpoint stays.
        labelled: Share of its training patients whose masks it may see; below 1 it learns from the others without.
        length: How long it is trained, as a share of the budget's epochs; a row and its teacher can so have the steps
            of one row.
        more_seeds: How many seeds it has more than the table's others, or less where below 0.
        printed: Label of the paper's row beside it; empty where the paper has none.
    """

    name: str
    label: str
    model: str
    form: Form = "paper"
    text: Text = "oracle"
    scored: Text | None = None
    fraction: float = 1.0
    recipe: str = ""
    arguments: tuple[str, ...] = ()
    before: Literal["contrastive"] | None = None
    teacher: Row | None = None
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
    def learnt(self) -> Text:
        """Text mode that it is trained for and selected in."""
        return self.text if self.reads_text else "none"

    @property
    def mode(self) -> Text:
        """Text mode that its score is made in."""
        return self.scored or self.learnt

    @property
    def modes(self) -> tuple[Text, ...]:
        """Text modes that its training is scored in, its own among them."""
        return SELF_GUIDED if self.learnt == "generated" else (self.learnt,)

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
        notes: What a reader must know of its rows, one sentence or more each.
    """

    name: str
    title: str
    rows: tuple[Row, ...]
    printed: tuple[PrintedRow, ...] = ()
    data: tuple[str, ...] = ("qata_cov19", "mosmed_plus")
    comparisons: tuple[Comparison, ...] = ()
    notes: tuple[str, ...] = ()

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
        networks: Registry name, or what a row calls its recipe → recipe of the network.
        semi: Recipes that rows share which also learn from images without masks.
        epochs: Epochs on the whole training data.
        epochs_before: Epochs of a training before a row's own.
        warmup: Share of the epochs in which the learning rate rises.
        most_repeats: Part of the data is seen more often, so that the number of steps stays, up to so many times.
    """

    name: str
    words: str
    recipes: tuple[str, ...]
    networks: Mapping[str, str]
    epochs: int
    epochs_before: int = 1
    warmup: float = 0.0
    most_repeats: float = 1.0
    semi: tuple[str, ...] = ()

    def epochs_of(self, fraction: float, length: float = 1.0) -> int:
        """Epochs on a share of the training data, for a share of the budget's length."""
        return max(1, round(self.epochs * length * min(1 / fraction, self.most_repeats)))

    def recipes_of(self, row: Row) -> tuple[str, ...]:
        """Recipes of a row, the later ones win."""
        return (*self.recipes, *(self.semi if row.labelled < 1 else ()), self.networks[row.recipe or row.model])
