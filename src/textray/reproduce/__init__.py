"""Tables and figures of the papers: trained, measured, and set beside what was printed. This file is free of torch."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from textray import registry
from textray.errors import UsageError, unknown_name
from textray.inference.bundle import GroundingBundle

REPRODUCTIONS = {
    name: f"textray.reproduce.{'figures' if '-fig' in name else 'runner'}:run"
    for name in (
        "leaderboard", "mmi-unet-table1", "mmi-unet-table2", "mmi-unet-table3", "mmi-unet-fig2", "mmi-unet-fig3",
        "sgseg-table1", "sgseg-table2", "lvit-qata", "lvit-monuseg", "lvit-ablation",
        "sgseg-fig3", "sgseg-fig4", "sgseg-fig5",
        "grounding-qata", "grounding-table1", "grounding-table2", "grounding-table3", "grounding-fig3",
    )
} | {f"nnunet-{what}": f"textray.reproduce.nnunet:{what}" for what in ("export", "score")}  # fmt: skip
"""Name → ``module:function``; the function takes an `Order` and returns an exit code."""

FLOORS = "floors"
"""Label of what a table of weights scores without any."""
TextMode = Literal["oracle", "none", "generated"]
"""Text mode of a training or a score: the captions, no text, or reports that the network writes itself."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a command line of ``textray reproduce`` asks for.

    Attributes:
        roots: Registry name of a data set → its folder.
        out: Folder of the results.
        budget: ``full`` (the paper's configuration) or ``small`` (two hours a table on two CPU cores).
        seeds: How many seeds a row is trained with: 0, 1, ...; a few rows have more or less than the others.
        rows: Names of the rows or methods to make; empty is all.
        keep_checkpoints: Keep the checkpoints of finished rows beside their bundles.
        text_encoder: Folder of the frozen text encoder, for one that is in no package.
        models: Weights of a figure or a table, LABEL=BUNDLE each.
        cases: Ids of the images of a figure; empty draws ``count`` of ``split``.
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
    tell: Callable[[str], None] = lambda line: None

    def command(self, *, trains: bool) -> str:
        """Command line of a table; folders and bundles by placeholders, since a path may name persons."""
        words = ["textray reproduce", self.name, *(f"--root {root}=DIR" for root in self.roots)]
        if trains:
            words += [f"--budget {self.budget} --seeds {self.seeds}"]
            words += [f"--rows {shlex.quote(row)}" for row in self.rows]
        else:
            words += [f'--model "{word.partition("=")[0].strip()}=BUNDLE"' for word in self.models]
        return " ".join([*words, "--out OUT"])


def reproduction(name: str) -> Callable[[Order], int]:
    """The function behind a name; an unknown one is a `UsageError` that lists the valid ones and the nearest."""
    if name not in REPRODUCTIONS:
        raise unknown_name("reproduction", name, REPRODUCTIONS)
    run: Callable[[Order], int] = registry.load(REPRODUCTIONS[name])
    return run


def read_roots(words: Sequence[str]) -> dict[str, Path]:
    """Read folders of data sets from words such as ``qata_cov19=DIR``.

    Raises:
        UsageError: If a word is not NAME=DIR, names an unknown data set, or one twice.
    """
    roots = read_pairs(words, "NAME=DIR, such as qata_cov19=DIR")
    for name in roots:
        registry.dataset(name)
    return {name: Path(folder) for name, folder in roots.items()}


def read_models(words: Sequence[str]) -> dict[str, GroundingBundle]:
    """Read and verify grounding weights from words such as ``sentence=FOLDER``: label → bundle.

    Raises:
        UsageError: If a word is not LABEL=BUNDLE, or a label is used twice or reserved.
        BundleError: If a bundle is missing, damaged, or of another task.
    """
    bundles = read_pairs(words, "LABEL=BUNDLE")
    if FLOORS in bundles:
        raise UsageError(f"{FLOORS!r} is the label of the floors", do="Give the weights another one")
    return {label: GroundingBundle.load(bundle) for label, bundle in bundles.items()}


def read_pairs(words: Sequence[str], expected: str) -> dict[str, str]:
    """Read name → value from words such as ``sentence=FOLDER``; no such pair, or a name twice, is a `UsageError`."""
    pairs: dict[str, str] = {}
    for word in words:
        name, _, value = (part.strip() for part in word.partition("="))
        if not name or not value:
            raise UsageError("an argument is not understood", came=word, expected=expected)
        if name in pairs:
            raise UsageError(f"two arguments have the name {name!r}", do="Give each another name")
        pairs[name] = value
    return pairs
