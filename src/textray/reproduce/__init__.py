"""Tables and figures of the papers: trained, measured, and set beside what was printed. This file is free of torch."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from textray import registry
from textray.errors import UsageError, unknown_name
from textray.inference.bundle import GroundingBundle

_TABLE, _FIGURE = "textray.reproduce.runner:run", "textray.reproduce.figures:run"
REPRODUCTIONS = {
    "mmi-unet-table1": _TABLE,
    "mmi-unet-table2": _TABLE,
    "mmi-unet-table3": _TABLE,
    "mmi-unet-fig2": _FIGURE,
    "mmi-unet-fig3": _FIGURE,
    "sgseg-table1": _TABLE,
    "sgseg-table2": _TABLE,
    "lvit-qata": _TABLE,
    "lvit-monuseg": _TABLE,
    "lvit-ablation": _TABLE,
    "sgseg-fig3": _FIGURE,
    "sgseg-fig4": _FIGURE,
    "sgseg-fig5": _FIGURE,
    "grounding-qata": _TABLE,
    "grounding-table1": _TABLE,
    "grounding-table2": _TABLE,
    "grounding-table3": _TABLE,
    "grounding-fig3": _FIGURE,
}
"""Name → ``module:function``; the function takes an `Order` and returns an exit code."""


FLOORS = "floors"
"""Label of what a table of weights scores without any."""


def silent(line: str) -> None:
    """Drop a line of progress."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a command line of ``textray reproduce`` asks for.

    Attributes:
        name: Name of the reproduction.
        roots: Registry name of a data set → its folder.
        out: Folder of the results.
        budget: ``full`` (the paper's configuration) or ``small`` (two hours a table on two CPU cores).
        seeds: How many seeds a row is trained with: 0, 1, ...; a few rows have more or less than the others.
        rows: Names of the rows or methods to make; empty is all.
        threads: Threads of the networks; ``None`` leaves the choice to torch and onnxruntime.
        keep_checkpoints: Keep the checkpoints of finished rows beside their bundles.
        text_encoder: Folder of the frozen text encoder, for one that is in no package.
        models: Weights of a figure or a table, LABEL=BUNDLE each.
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
    keep_checkpoints: bool = False
    text_encoder: Path | None = None
    models: Sequence[str] = ()
    cases: Sequence[str] = ()
    count: int = 4
    split: str = "val"
    tell: Callable[[str], None] = silent

    @property
    def training_command(self) -> str:
        """Command line of a table that trains; folders by placeholders, since a path may name persons."""
        words = ["textray", "reproduce", self.name, *(w for root in self.roots for w in ("--root", f"{root}=DIR"))]
        words += ["--budget", self.budget, "--seeds", str(self.seeds)]
        return shlex.join([*words, *(word for row in self.rows for word in ("--rows", row)), "--out", "OUT"])

    @property
    def scoring_command(self) -> str:
        """Command line of a table that scores weights; folders and bundles by placeholders."""
        words = ["textray reproduce", self.name, *(f"--root {root}=DIR" for root in self.roots)]
        words += [f'--model "{word.partition("=")[0].strip()}=BUNDLE"' for word in self.models]
        return " ".join([*words, "--out OUT"])


def reproduction(name: str) -> Callable[[Order], int]:
    """Return the function behind a name.

    Raises:
        UsageError: If the name is unknown; the message lists the valid ones and the nearest.
    """
    if name not in REPRODUCTIONS:
        raise unknown_name("reproduction", name, REPRODUCTIONS)
    run: Callable[[Order], int] = registry.load(REPRODUCTIONS[name])
    return run


def read_roots(words: Sequence[str]) -> dict[str, Path]:
    """Read folders of data sets from words such as ``qata_cov19=DIR``.

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


def read_models(words: Sequence[str]) -> dict[str, GroundingBundle]:
    """Read and verify grounding weights from words such as ``sentence=FOLDER``: label → bundle.

    Raises:
        UsageError: If a word is not LABEL=BUNDLE, two have one label, or there is no bundle.
        BundleError: If a bundle is damaged, or of another task.
    """
    bundles: dict[str, GroundingBundle] = {}
    for word in words:
        label, equals, bundle = (part.strip() for part in word.partition("="))
        if not equals or not label or not bundle:
            raise UsageError("weights are not understood", came=word, expected="LABEL=BUNDLE")
        if label == FLOORS or label in bundles:
            raise UsageError(f"two rows are called {label!r}", do="Give each a label of its own")
        bundles[label] = GroundingBundle.load(bundle)
    return bundles
