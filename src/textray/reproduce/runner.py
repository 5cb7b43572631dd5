"""Runs the rows of a table: train, export, evaluate, write ``result.json``; goes on past rows that fail.

A row's folder is named by the hash of its settings. Where its ``result.json`` is, the row is done; where its
checkpoints are, its training goes on from the last whole epoch; anything else starts again. A training before a row's
own has a folder of the same kind, and is done where its best checkpoint is; one that is a row itself, a teacher, is
scored as a row and keeps that checkpoint.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from textray import registry
from textray.cost import cost_of_bundle
from textray.errors import TextRayError, UsageError, unknown_name
from textray.evaluate import evaluate
from textray.export import export
from textray.io.write import write_json
from textray.metrics.text import TextScorer
from textray.provenance import git_state, versions
from textray.reproduce import workers
from textray.reproduce.fit import Options, fit, home_of, run_stage, tidy
from textray.reproduce.plan import Budget, Row, Table
from textray.reproduce.trainings import Job, Source, Stage, merged, open_source, plan_job

logger = logging.getLogger(__name__)

RESULT, FAILURE = "result.json", "failure.json"


class State(StrEnum):
    """What became of a row on a data set, for one seed."""

    DONE = "done"
    FAILED = "failed"
    NOT_RUN = "not run"
    NOT_THERE = "not there yet"
    NO_ROOT = "no --root given"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A row on a data set, for one seed.

    Attributes:
        row: The row.
        data: Registry name of the data set.
        seed: The seed, ``None`` where no seed can be run.
        state: What became of it.
        reason: Why it is not done.
        result: What ``result.json`` holds, where it is done.
        folder: Its folder.
    """

    row: Row
    data: str
    seed: int | None
    state: State
    reason: str = ""
    result: Mapping[str, Any] | None = None
    folder: Path | None = None

    @property
    def scores(self) -> Mapping[str, Any]:
        """The scores in the row's own text mode.

        Raises:
            KeyError: If the row is not done.
        """
        result = self.result or {}
        scores: Mapping[str, Any] = result["scores"]
        return scores if result["text_mode"] == self.row.mode else result["other_scores"][self.row.mode]

    @property
    def sentences(self) -> Mapping[str, float] | None:
        """Share of the images that a sentence was written for, where the row is scored with those."""
        found = (self.result or {}).get("sentences")
        return found if self.row.mode == "generated" else None


def run_table(
    table: Table,
    budget: Budget,
    *,
    roots: Mapping[str, Path],
    seeds: Sequence[int],
    rows: Sequence[str],
    options: Options,
    attempt: workers.Attempt | None = None,
) -> list[Entry]:
    """Run what is not done yet; every row of the table has an entry for every data set.

    Args:
        table: The table.
        budget: Its budget.
        roots: Registry name of a data set → its folder.
        seeds: Seeds of the trainings.
        rows: Names of the rows to run; empty is all. The others are listed as they are.
        options: How to run.
        attempt: What makes a row; ``None`` is `attempt_job`.

    Raises:
        UsageError: If a name is wrong, or a data set that was asked for cannot be read; nothing was trained then.
    """
    known = [row.name for row in table.rows]
    for name in rows:
        if name not in known:
            raise unknown_name("row", name, known)
    for name in roots:
        if name not in table.data:
            raise UsageError(f"{table.name} has no data set {name}", expected="one of " + ", ".join(table.data))
    sources = {name: open_source(name, roots.get(name)) for name in table.data if _readable(name, roots)}
    if not sources:
        raise UsageError(f"{table.name} has no data to train on", do=f"Add --root {table.data[0]}=DIR.")
    plan: list[Entry | Job] = []
    for data in table.data:
        for row in table.rows:
            plan += _planned(row, data, sources.get(data), seeds, budget)
    jobs: dict[str, Job] = {}  # two rows can be one training, scored in two modes
    for job in plan:
        if isinstance(job, Job) and (not rows or job.row.name in rows):
            jobs.setdefault(job.folder, job)
    wanted = list(jobs.values())
    done = [job for job in wanted if read_result(options.out, job) is not None]
    if any("generated" in job.row.modes for job in wanted if job not in done):
        TextScorer()  # asks for its packages before hours of training, not after
    options.tell(f"{table.name}: {len(wanted)} trainings, {len(done)} of them done")
    workers.run([job for job in wanted if job not in done], attempt or attempt_job, options)
    return [entry if isinstance(entry, Entry) else _entry(entry, options.out) for entry in plan]


def attempt_job(job: Job, options: Options) -> str:
    """Make one row; where that fails, write ``failure.json`` and say why."""
    return try_job(run_job, job, options)


def try_job(make: Callable[[Job, Options], object], job: Job, options: Options) -> str:
    """Make a row by ``make``; where that fails, write ``failure.json`` and say why."""
    try:
        make(job, options)
    except Exception as error:  # one row must not end the others, whatever its network or its data raise
        logger.debug("row %s failed", job.folder, exc_info=True)
        code = error.code if isinstance(error, TextRayError) else type(error).__name__
        reason = f"{code}: {' '.join(str(error).split())[:300]}"
        write_json(home_of(options.out, job) / FAILURE, {"reason": reason})
        return f"failed ({reason})"
    return workers.DONE


def run_job(job: Job, options: Options) -> Mapping[str, Any]:
    """Train, export and evaluate one row; gives what ``result.json`` holds.

    Raises:
        TextRayError: If any of the three refuses.
    """
    home = clear(job, options)
    before = None if job.before is None else run_stage(job.before, options)
    start = [] if before is None else [_start(job, str(before.checkpoint.resolve()))]
    trained = fit(job, home, options, start)
    bundle = export(trained.checkpoint, home / "bundle", text_encoder_folder=options.text_encoder)
    data = merged(job.recipes).get("data", {})
    summary = evaluate(
        data=job.data,
        root=job.root,
        split=job.split,
        text_modes=job.row.modes,
        out=home / "scores",
        model=bundle.folder,
        captions=data.get("captions", "error"),
        threads=options.threads,
        limit=data.get("limit"),
    )
    cost = cost_of_bundle(bundle)
    result = {
        "settings": job.hash,
        "model": job.row.model,
        "form": job.row.form,
        "data": job.data,
        "split": job.split,
        "ids_sha256": summary["data"]["ids_sha256"],
        "text_mode": job.row.learnt,
        "fraction": job.row.fraction,
        "labelled": job.row.labelled,
        "seed": job.seed,
        "images": bundle.provenance["data"]["images"] | {job.split: summary["images"]},
        "patients": summary["patients"],
        "size": summary["size"],
        "scores": summary["modes"][job.row.learnt],
        "other_scores": {mode: found for mode, found in summary["modes"].items() if mode != job.row.learnt},
        "sentences": summary["report"]["used"]["share"] if "report" in summary else None,
        "estimator": summary["estimator"],
        "trainable": cost.trainable,
        "gmacs": cost.gmacs,
        "epochs": trained.epochs,
        "best_epoch": bundle.provenance["epoch"],
        "steps": trained.steps,
        "steps_before": 0 if before is None else before.steps,
        "train_seconds": round(
            trained.seconds + (before.seconds if before and isinstance(job.before, Stage) else 0), 1
        ),
        "evaluate_seconds": summary["seconds"],
        "command": command_of(job),
        "git": git_state(Path(registry.__file__).parent),
        "versions": versions(),
    }
    write_json(home / RESULT, result)
    tidy(trained, options, keep_best=job.row.teaches)
    return result


def clear(job: Job, options: Options) -> Path:
    """Folder of a row that is about to be made, without what an earlier end has left there."""
    home = home_of(options.out, job)
    home.mkdir(parents=True, exist_ok=True)
    (home / FAILURE).unlink(missing_ok=True)
    for half in home.glob(".bundle-*"):  # what a kill left of an export
        shutil.rmtree(half)
    return home


def command_of(job: Job) -> str:
    """The commands that a row is trained with, without folders."""
    words = " ".join(["textray train", *job.words])
    if job.before is None:
        return words
    start = "--model.teacher=CHECKPOINT" if isinstance(job.before, Job) else "--model.initial=[trunk=CHECKPOINT]"
    return " ".join(["textray train", *job.before.words, "&&", words, start])


def _start(job: Job, checkpoint: str) -> str:
    """Argument that names what a training before has left; its seconds count as the row's unless it is a row too."""
    if isinstance(job.before, Job):
        return f"--model.teacher={checkpoint}"
    return "--model.initial=" + json.dumps([f"trunk={checkpoint}"])


def read_result(out: Path, job: Job) -> Mapping[str, Any] | None:
    """Result of a finished row, ``None`` where it is not finished."""
    found = _read(home_of(out, job) / RESULT)
    return found if found and found.get("settings") == job.hash else None


def _planned(row: Row, data: str, source: Source | None, seeds: Sequence[int], budget: Budget) -> list[Entry | Job]:
    """The trainings of a row on a data set, or the reason why there is none."""
    reason, state = "", State.NOT_THERE
    if not row.exists:
        reason = f"no network {row.model}" + (f" in form {row.form}" if row.form != "paper" else "")
    elif (row.recipe or row.model) not in budget.networks or row.form != "paper":
        reason = f"no recipe for budget {budget.name}" + (f" in form {row.form}" if row.form != "paper" else "")
    elif data not in registry.DATASETS:
        reason = f"no reader of {data}"
    elif source is None:
        state = State.NO_ROOT
    else:
        return [plan_job(row, source, seed, budget) for seed in row.seeds_of(seeds)]
    return [Entry(row=row, data=data, seed=None, state=state, reason=reason)]


def _entry(job: Job, out: Path) -> Entry:
    """What a training has come to, now or in an earlier run."""
    home = home_of(out, job)
    result = read_result(out, job)
    failure = _read(home / FAILURE)
    state = State.DONE if result else State.FAILED if failure else State.NOT_RUN
    reason = "" if result or not failure else str(failure.get("reason", ""))
    return Entry(row=job.row, data=job.data, seed=job.seed, state=state, reason=reason, result=result, folder=home)


def _readable(name: str, roots: Mapping[str, Path]) -> bool:
    return name in registry.DATASETS and (name in roots or not registry.dataset(name).on_disk)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None
