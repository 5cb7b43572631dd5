"""Tables 1, 2 and 3 of the grounding paper for those who have the data: weights are scored, nothing is trained.

Each pair of weights and phrases has a folder of its own, by the hash of what its scores depend on; a finished one is
not made again, one that is refused is listed with its reason. Floors are scored by themselves too, so that a table
without weights holds what every network must beat.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textray import __version__, registry
from textray.data.base import fingerprint
from textray.data.phrases import phrases
from textray.errors import DataError, TextRayError, UsageError, unknown_name
from textray.evaluate_grounding import evaluate
from textray.inference import evaluation_files
from textray.inference.grounding_bundle import GroundingBundle
from textray.io.write import atomic_write
from textray.reproduce import grounding_tables_page as page
from textray.reproduce.catalogue import Order
from textray.reproduce.grounding_plan import FLOORS, SPLIT, TABLES, Block, Scored
from textray.reproduce.lock import locked
from textray.reproduce.runner import State
from textray.reproduce.tables import SOME_FAILED

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Model:
    """Weights with the label that a table or a figure gives them; ``None`` for floors alone."""

    label: str
    bundle: GroundingBundle | None


def read_models(words: Sequence[str]) -> tuple[Model, ...]:
    """Weights from words such as ``sentence=FOLDER``, all of them verified.

    Raises:
        UsageError: If a word is not LABEL=BUNDLE, two have one label, or there is no bundle.
        BundleError: If a bundle is damaged, or of another task.
    """
    found: list[Model] = []
    for word in words:
        label, equals, bundle = (part.strip() for part in word.partition("="))
        if not equals or not label or not bundle:
            raise UsageError("weights are not understood", came=word, expected="LABEL=BUNDLE")
        if label == FLOORS or any(model.label == label for model in found):
            raise UsageError(f"two rows are called {label!r}", do="Give each a label of its own")
        found.append(Model(label=label, bundle=GroundingBundle.load(bundle)))
    return tuple(found)


def run(order: Order) -> int:
    """Score what is not scored yet, then write ``table.md`` and ``table.csv``.

    Returns:
        Exit code: 0, or 3 where weights were refused on a data set or failed.

    Raises:
        UsageError: If a root, label or bundle is wrong, or a data set cannot be read.
        DataError: If a data set is refused.
    """
    table = TABLES[order.name]
    readable = [block.data for block in table.blocks if block.data in registry.DATASETS]
    for name in order.roots:
        if name not in readable:
            raise UsageError(f"{table.name} has no data set {name}", expected="one of " + ", ".join(readable))
    if not order.roots:
        raise UsageError(f"{table.name} has no data to score on", do=f"Add --root {readable[0]}=DIR.")
    models = (Model(label=FLOORS, bundle=None), *read_models(order.models))
    labels = [model.label for model in models]
    for name in order.rows:
        if name not in labels:
            raise unknown_name("row", name, labels)
    with locked(order.out):
        scored = [found for block in table.blocks for found in _block(block, models, order)]
        folder = order.out / table.name
        folder.mkdir(exist_ok=True)
        atomic_write(folder / "table.csv", page.csv_table(table, scored).encode())
        atomic_write(folder / "table.md", page.markdown(table, scored, command=_command(order)).encode())
    failed = [found for found in scored if found.state is State.FAILED]
    order.tell(f"Table: {folder / 'table.md'}" + (f"; {len(failed)} rows failed" if failed else ""))
    return SOME_FAILED if failed else 0


def _block(block: Block, models: Sequence[Model], order: Order) -> list[Scored]:
    root = order.roots.get(block.data)
    if block.data not in registry.DATASETS:
        return [Scored(label="", data=block.data, kind="", state=State.NOT_THERE, reason=f"no reader of {block.title}")]
    if root is None:
        return [Scored(label="", data=block.data, kind="", state=State.NO_ROOT)]
    found = []
    for kind in block.kinds:
        ids = fingerprint(f"{s.image_id}\t{s.phrase}" for s in phrases(block.data, SPLIT, root=root, kind=kind))
        found += [_score(model, block.data, root, kind, ids, order) for model in models]
    return found


def _score(model: Model, data: str, root: Path, kind: str, ids: str, order: Order) -> Scored:
    """One row: read again where it is finished, else made, else the reason why not."""
    about = {"textray": __version__, "data": data, "kind": kind, "split": SPLIT, "ids": ids}
    about["weights"] = "" if model.bundle is None else model.bundle.sha256
    number = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]
    name = FLOORS if model.bundle is None else model.bundle.name
    out = order.out / "rows" / f"grounding-{name}-{data}-{kind}-{number}"
    summary, state, reason = _finished(out), State.DONE, ""
    if summary is None and order.rows and model.label not in order.rows:
        state = State.NOT_RUN
    elif summary is None:
        order.tell(f"{model.label}, {data}, {kind} ...")
        try:
            summary = evaluate(
                data=data,
                root=root,
                split=SPLIT,
                out=out,
                model=None if model.bundle is None else model.bundle.folder,
                floors_only=model.bundle is None,
                kind=kind,
                threads=order.threads,
            )
        except Exception as error:  # one row must not end the others, whatever its network or a film raises
            logger.debug("row %s failed", out.name, exc_info=True)
            code = error.code if isinstance(error, TextRayError) else type(error).__name__
            state, reason = State.FAILED, f"{code}: {' '.join(str(error).split())[:300]}"
            order.tell(f"{model.label}, {data}, {kind}: failed ({reason})")
    return Scored(label=model.label, data=data, kind=kind, state=state, reason=reason, summary=summary)


def _finished(folder: Path) -> dict[str, Any] | None:
    try:
        evaluation_files.check(folder)
    except DataError:
        return None
    found: dict[str, Any] = json.loads((folder / evaluation_files.SUMMARY).read_text(encoding="utf-8"))
    return found


def _command(order: Order) -> str:
    """The command of a run; folders by placeholders, since a path may name persons."""
    words = ["textray reproduce", order.name, *(f"--root {name}=DIR" for name in order.roots)]
    words += [f'--model "{word.partition("=")[0].strip()}=BUNDLE"' for word in order.models]
    return " ".join([*words, "--out OUT"])
