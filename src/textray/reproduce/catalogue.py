"""What `textray reproduce` can do, by name; free of torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from textray import registry
from textray.errors import UsageError, unknown_name

REPRODUCTIONS = {
    "mmi-unet-table1": "textray.reproduce.tables:run",
    "mmi-unet-table2": "textray.reproduce.tables:run",
    "mmi-unet-table3": "textray.reproduce.tables:run",
    "mmi-unet-fig2": "textray.reproduce.figures:run",
    "mmi-unet-fig3": "textray.reproduce.figures:run",
    "sgseg-table1": "textray.reproduce.sgseg_tables:run",
    "sgseg-table2": "textray.reproduce.sgseg_tables:run",
    "lvit-qata": "textray.reproduce.lvit_tables:run",
    "lvit-monuseg": "textray.reproduce.lvit_tables:run",
    "lvit-ablation": "textray.reproduce.lvit_tables:run",
    "sgseg-fig3": "textray.reproduce.figures:run",
    "sgseg-fig4": "textray.reproduce.own_report_figures:run",
    "sgseg-fig5": "textray.reproduce.own_report_figures:run",
    "grounding-qata": "textray.reproduce.grounding_qata:run",
    "grounding-table1": "textray.reproduce.grounding_tables:run",
    "grounding-table2": "textray.reproduce.grounding_tables:run",
    "grounding-table3": "textray.reproduce.grounding_tables:run",
    "grounding-fig3": "textray.reproduce.grounding_figures:run",
}
"""Name → ``module:function``; the function takes an `Order` and gives an exit code."""


def silent(line: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What the words after ``textray reproduce`` ask for.

    Attributes:
        name: Name of the reproduction.
        roots: Registry name of a data set → its folder.
        out: Folder of the results.
        budget: ``full`` (the paper's configuration) or ``small`` (two hours a table on two CPU cores).
        seeds: How many seeds a row is trained with: 0, 1, ...; a few rows have more or less than the others.
        rows: Names of the rows or methods to make; empty is all.
        threads: Threads of the networks; ``None`` leaves the choice to torch and onnxruntime.
        jobs: How many rows of a table are made at once, each in a process of its own.
        keep_checkpoints: Keep the checkpoints of finished rows beside their bundles.
        text_encoder: Folder of the frozen text encoder, for one that is in no package.
        models: Methods of a figure, LABEL=BUNDLE each; empty is the weights inside with and without captions.
        cases: Ids of the images of a figure; empty draws them.
        count: How many images a figure draws.
        split: Split that a figure's images are of.
        tell: Called with each line of progress.
    """

    name: str
    roots: Mapping[str, Path] = field(default_factory=dict)
    out: Path = Path("textray-reproduced")
    budget: str = "small"
    seeds: int = 2
    rows: Sequence[str] = ()
    threads: int | None = None
    jobs: int = 1
    keep_checkpoints: bool = False
    text_encoder: Path | None = None
    models: Sequence[str] = ()
    cases: Sequence[str] = ()
    count: int = 4
    split: str = "val"
    tell: Callable[[str], None] = silent


def reproduction(name: str) -> Callable[[Order], int]:
    """The function behind a name.

    Raises:
        UsageError: If there is none of that name; it lists the valid ones and the nearest.
    """
    if name not in REPRODUCTIONS:
        raise unknown_name("reproduction", name, REPRODUCTIONS)
    run: Callable[[Order], int] = registry.load(REPRODUCTIONS[name])
    return run


def read_roots(words: Sequence[str]) -> dict[str, Path]:
    """Folders of data sets from words such as ``qata_cov19=DIR``.

    Raises:
        UsageError: If a word is not NAME=DIR, names an unknown data set, or one twice.
    """
    roots: dict[str, Path] = {}
    for word in words:
        name, equals, folder = word.partition("=")
        if not equals or not folder:
            raise UsageError("a root names its data set", came=word, expected="NAME=DIR, such as qata_cov19=DIR")
        registry.dataset(name)
        if name in roots:
            raise UsageError(f"two roots for data set {name}", came=word, do="Name each data set once.")
        roots[name] = Path(folder)
    return roots
