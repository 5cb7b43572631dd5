"""What Tables 1, 2 and 3 of the grounding paper are: data sets and phrases, and weights that are scored on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from textray.reproduce.runner import State

SPLIT = "test"
FLOORS = "floors"
"""Label of what is scored without weights."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Phrases of one data set.

    Attributes:
        data: Registry name, whether its reader is there or not.
        title: What the paper calls it.
        kinds: Which phrases are asked; the paper's first.
    """

    data: str
    title: str
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class GroundingTable:
    """A table of the paper.

    Attributes:
        name: Its name for the command line.
        title: Its heading.
        blocks: Its data sets.
        by_class: The score that is told class by class; ``None`` tells IoU and Dice of the whole set.
    """

    name: str
    title: str
    blocks: tuple[Block, ...]
    by_class: Literal["dice", "iou"] | None = None


_MS_CXR = (Block(data="ms_cxr", title="MS-CXR", kinds=("phrase", "class")),)
TABLES = {
    table.name: table
    for table in (
        GroundingTable(
            name="grounding-table1",
            title="Sentence grounding, Table 1: RSNA Pneumonia and COVID Rural",
            blocks=(
                Block(data="rsna", title="RSNA Pneumonia", kinds=("class",)),
                Block(data="covid_rural", title="COVID Rural"),
            ),
        ),
        GroundingTable(
            name="grounding-table2",
            title="Sentence grounding, Table 2: Dice on MS-CXR",
            blocks=_MS_CXR,
            by_class="dice",
        ),
        GroundingTable(
            name="grounding-table3",
            title="Sentence grounding, Table 3: IoU on MS-CXR",
            blocks=_MS_CXR,
            by_class="iou",
        ),
    )
}


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Weights on the phrases of one data set, or floors alone.

    Attributes:
        label: What the table calls them.
        data: Registry name of the data set.
        kind: Which phrases.
        state: What became of it.
        reason: Why it is not done.
        summary: What ``summary.json`` holds, where it is done.
    """

    label: str
    data: str
    kind: str
    state: State
    reason: str = ""
    summary: Mapping[str, Any] | None = None
