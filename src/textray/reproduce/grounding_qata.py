"""Sentence grounding on QaTa-COV19: what is compared with places (word, sentence, report), beside floors and controls.

The grounding paper's claim is that sentences teach more than words. Here each unit learns from the same films by the
same recipe, without a mask, and is asked where captions are true of films that it has not learnt from.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from textray import registry
from textray.evaluate_grounding import evaluate
from textray.export_grounding import export_grounding
from textray.io.write import write_json
from textray.provenance import git_state, versions
from textray.reproduce import grounding_page
from textray.reproduce.catalogue import Order
from textray.reproduce.fit import Options, fit, tidy
from textray.reproduce.plan import Budget, Comparison, Row, Table
from textray.reproduce.runner import RESULT, clear, command_of, try_job
from textray.reproduce.tables import budget_of, make
from textray.reproduce.trainings import Job
from textray.trained import read_checkpoint

BUDGETS = {
    budget.name: budget
    for budget in (
        Budget(
            name="full",
            words="the paper's network and rate: ResNet-50 enlarged to 299 px, Bio_ClinicalBERT that learns, Adam from "
            "2e-5, batches of 128, 224 px; on QaTa-COV19 in place of MIMIC-CXR, so equal captions are no wrong answers "
            "to each other, and 100 epochs along a cosine in place of 4 that fall by a tenth each.",
            recipes=(),
            networks={"sentence_grounding": "reproduce/full_grounding"},
            epochs=100,
        ),
        Budget(
            name="small",
            words="not the paper's configuration: EfficientNet-Lite0 from ImageNet that learns too, places at stride 8 "
            "that know where they lie, both losses as in the paper but for equal and entailed texts, which are right "
            "as well, a text encoder of two layers that learns which texts say the same before the first film, half of "
            "the captions in other words, 128 px, 6 epochs in batches of 64. The row of amounts and places is the "
            "recipe of the weights inside, `sentence_grounding_qata`, at these pixels and epochs: it sees one zone a "
            "text, judges pair by pair, and its trunk stays as it is.",
            recipes=("sentence_grounding_qata",),
            networks={"sentence_grounding": "reproduce/small_grounding", "places": "reproduce/small_grounding_places"},
            epochs=6,
        ),
    )
}

KINDS = ("caption", "clause")
"""Phrases that a row is asked: the whole caption, and its clause of places."""


def _row(name: str, label: str, *arguments: str, recipe: str = "") -> Row:
    return Row(name=name, label=label, model="sentence_grounding", recipe=recipe, arguments=arguments)


TABLES = {
    table.name: table
    for table in (
        Table(
            name="grounding-qata",
            title="Sentence grounding on QaTa-COV19: word, sentence, report",
            rows=(
                _row("sentence", "sentence (clauses)"),
                _row("word", "word", "--model.local_unit=word"),
                _row("report", "report", "--model.local_unit=report"),
                _row("caption", "sentence (caption as one)", "--data.sentences=caption"),
                _row("released", "sentence, released mode", "--model.mode=released"),
                _row("places", "how much times where", recipe="places"),
            ),
            data=("qata_cov19",),
            comparisons=(
                Comparison(question="Is sentence better than word?", first="word", second="sentence"),
                Comparison(question="Is sentence better than report?", first="report", second="sentence"),
                Comparison(
                    question="Are clauses better than the caption as one sentence?", first="caption", second="sentence"
                ),
                Comparison(question="Is paper's mode better than released?", first="released", second="sentence"),
                Comparison(question="Is how much times where better than sentence?", first="sentence", second="places"),
            ),
        ),
    )
}


def run(order: Order) -> int:
    """Make the table; see `textray.reproduce.tables.run`."""
    return run_of(TABLES[order.name], BUDGETS, order)


def run_of(table: Table, budgets: Mapping[str, Budget], order: Order) -> int:
    """Make a table of grounding networks with one of its budgets; see `run`.

    Raises:
        UsageError: As `textray.reproduce.tables.run`.
    """
    budget = budget_of(budgets, order.budget)
    return make(table, budget, order, attempt=attempt_job, pages=grounding_page)


def attempt_job(job: Job, options: Options) -> str:
    """Make one row, as `textray.reproduce.runner.attempt_job` does."""
    return try_job(run_job, job, options)


def run_job(job: Job, options: Options) -> Mapping[str, Any]:
    """Train, export and score one row; gives what ``result.json`` holds.

    Raises:
        TextRayError: If any of the three refuses.
    """
    home = clear(job, options)
    trained = fit(job, home, options, [])
    bundle = export_grounding(trained.checkpoint, home / "bundle")
    parameters = sum(p.numel() for p in read_checkpoint(trained.checkpoint)[1].parameters())
    scores: dict[str, Any] = {}
    for kind in KINDS:
        summary = evaluate(
            data=job.data,
            root=job.root,
            split=job.split,
            out=home / "scores" / kind,
            model=bundle.folder,
            kind=kind,
            threads=options.threads,
        )
        scores[kind] = {key: summary[key] for key in _KEPT}
    result = {
        "settings": job.hash,
        "model": job.row.model,
        "form": job.row.form,
        "data": job.data,
        "split": job.split,
        "seed": job.seed,
        "mode": bundle.provenance.get("mode"),
        "local_unit": bundle.provenance.get("local_unit"),
        "targets": bundle.provenance.get("targets"),
        "sentences": bundle.text.sentences,
        "images": bundle.provenance["data"]["images"],
        "size": list(bundle.preprocess.size),
        "map": list(bundle.map_size),
        "parameters": parameters,
        "bundle_bytes": bundle.size_bytes,
        "scores": scores,
        "epochs": trained.epochs,
        "best_epoch": bundle.provenance["epoch"],
        "steps": trained.steps,
        "train_seconds": round(trained.seconds, 1),
        "evaluate_seconds": round(sum(found["seconds"] for found in scores.values()), 1),
        "command": command_of(job),
        "git": git_state(Path(registry.__file__).parent),
        "versions": versions(),
    }
    write_json(home / RESULT, result)
    tidy(trained, options, keep_best=False)
    return result


_KEPT = ("data", "protocol", "phrases", "images", "patients", "left_out", "classes", "estimator", "normalisations",
         "meanings", "not_computed", "rows", "seconds", "command")  # fmt: skip
