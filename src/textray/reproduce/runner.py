"""Makes tables: trains, exports and scores each row once, then writes ``table.md`` and ``table.csv``.

A row's folder is named by the hash of its settings. Where its ``result.json`` is, the row is done; where its
checkpoints are, its training goes on from the last whole epoch; anything else starts again. A training before a row's
own has a folder of the same kind, and is done where its best checkpoint is. Each folder is locked while it is at work,
so several commands can share the results: a row that another command makes is waited for, last. A row that fails ends
no other.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from textray import __version__, registry
from textray.data.base import BOTH, fingerprint, open_reader
from textray.errors import DataError, TextRayError, UsageError
from textray.evaluate import results as evaluation_files
from textray.evaluate.grounding import PhraseEvaluation
from textray.evaluate.grounding import evaluate as evaluate_phrases
from textray.evaluate.segmentation import MaskEvaluation, evaluate
from textray.export.cost import cost_of_bundle
from textray.export.grounder import export_grounding
from textray.export.segmenter import export
from textray.inference.bundle import GroundingBundle
from textray.inference.results import clean, write_together
from textray.io.files import regular
from textray.io.write import atomic_write, check_writable, refuse_other, write_json
from textray.metrics.text import TextScorer
from textray.provenance import git_state, versions
from textray.reproduce import FLOORS, Order, page, plan, read_models, weights_page
from textray.reproduce.tables import Block, Budget, Table, WeightsTable, read_tables
from textray.training import cli as training
from textray.training.checkpoints import last_checkpoint, read_checkpoint
from textray.training.semi import FOLDER

logger = logging.getLogger(__name__)

SOME_FAILED = 3
PHRASE_KINDS = ("caption", "clause")
"""Phrases that a trained row is scored with: the whole caption, and its clause of places."""
_MARKS = {"csv": b"label,data,", "md": b"\n## How it was made\n"}
"""What each file of a table holds."""
_LARGEST = 2**26
_TRAINED, _LOCK = "trained.json", ".lock"
_UNHASHED = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false",
             # jsonargparse cannot write the default of `interval` down.
             "--trainer.callbacks+=lightning.pytorch.callbacks.Timer", "--trainer.callbacks.interval=step")  # fmt: skip
_OF_PHRASES = ("data", "protocol", "phrases", "images", "patients", "left_out", "classes", "estimator",
               "normalisations", "meanings", "not_computed", "rows", "seconds", "command")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A finished training: best checkpoint, length; an epoch that was cut off and made again counts once."""

    checkpoint: Path
    epochs: int
    steps: int
    seconds: float


def run(order: Order) -> int:
    """Make a table: run what is not done yet, then write its two files. The exit code is 0, or 3 where a row failed.

    Raises:
        UsageError: If a name is wrong, or a data set cannot be read; nothing was trained then.
    """
    table = read_tables()[order.name]
    if isinstance(table, WeightsTable):
        return make_weights(table, order)
    return make(table, table.budget(order.budget), order)


def make(table: Table, budget: Budget, order: Order) -> int:
    """Make any table of trained rows with any budget; see `run`."""
    check_writable(order.out)
    planned = plan.plan_table(table, budget, order)
    places = _places(order, f"{table.name}-{budget.name}")
    jobs: dict[str, plan.Job] = {}  # two rows can be one job, scored in two modes
    for job in planned:
        if isinstance(job, plan.Job) and (not order.rows or job.row.name in order.rows):
            jobs.setdefault(job.folder, job)
    todo = [job for job in jobs.values() if not plan.read_result(order.out, job)]
    if any("generated" in job.row.modes for job in todo):
        TextScorer()  # asks for its packages before hours of training, not after
    order.tell(f"{table.name}: {len(jobs)} trainings, {len(jobs) - len(todo)} of them done")
    _run_jobs(todo, order)
    results = [job if isinstance(job, plan.JobResult) else plan.job_result(job, order.out) for job in planned]
    pages = {"csv": page.csv_table(table, results), "md": page.markdown(table, budget, results, order)}
    return _write(order, places, pages, _failed(results), "trainings")


def _places(order: Order, name: str) -> dict[str, Path]:
    """The two files of a table, in a folder of its own; files of somebody else are not replaced.

    Raises:
        OutputError: If there is such a file, or the folder cannot be written to.
    """
    folder = check_writable(order.out / name)
    places = {kind: folder / f"table.{kind}" for kind in _MARKS}
    for path in places.values():
        refuse_other(path, _is_own, "table of textray reproduce")
    return places


def _is_own(path: Path) -> bool:
    try:
        regular(path, _LARGEST)
        return _MARKS[path.suffix[1:]] in path.read_bytes()
    except OSError:
        return False


def _failed(results: Sequence[plan.Result]) -> int:
    return sum(result.state is plan.State.FAILED for result in results)


def _write(order: Order, places: Mapping[str, Path], pages: Mapping[str, str], failed: int, what: str) -> int:
    """Write a table's two files, both or none; give the exit code."""
    clean(places["md"].parent)
    writers = {kind: partial(atomic_write, data=text.encode()) for kind, text in pages.items()}
    write_together(places, writers)
    order.tell(f"Table: {places['md']}" + (f"; {failed} {what} failed" if failed else ""))
    return SOME_FAILED if failed else 0


@contextmanager
def locked(home: Path, *, wait: bool) -> Iterator[bool]:
    """Hold a job's folder, made if needed; give False where another process holds it and ``wait`` is false.

    The system releases the lock when its process ends, however it ends.
    """
    home.mkdir(parents=True, exist_ok=True)
    lock = FileLock(home / _LOCK)
    with suppress(Timeout):
        lock.acquire(blocking=wait)
    try:
        yield lock.is_locked
    finally:
        lock.release()


def _run_jobs(jobs: Sequence[plan.Job], order: Order) -> None:
    """Make jobs one after the other; those that another command makes are waited for at the end."""

    def run_one(job: plan.Job, place: str) -> None:
        order.tell(f"{place} ...")
        start = time.perf_counter()
        words = attempt_job(job, order)
        order.tell(f"{place}: {words} after {(time.perf_counter() - start) / 60:.1f} minutes")

    busy: list[tuple[plan.Job, str]] = []
    for number, job in enumerate(jobs, start=1):
        place = f"{number} of {len(jobs)}: {job.row.label}, {job.source.name}, text {job.row.training_mode}"
        place += f", seed {job.seed}"
        with locked(plan.home_of(order.out, job), wait=False) as held:
            if not held or (job.before is not None and _is_busy(plan.home_of(order.out, job.before))):
                busy.append((job, place))
            elif not plan.read_result(order.out, job):  # another command may have made it since
                run_one(job, place)
    for job, place in busy:
        order.tell(f"{place}: another command makes it or what it starts from; waiting ...")
        with locked(plan.home_of(order.out, job), wait=True):
            if plan.job_result(job, order.out).state is plan.State.NOT_RUN:  # that command was cut off
                run_one(job, place)


def _is_busy(home: Path) -> bool:
    """True while another command is at work in a folder."""
    with locked(home, wait=False) as held:
        return not held


def attempt_job(job: plan.Job, order: Order) -> str:
    """Make one row and give ``done``; where that fails, write ``failure.json`` and say why."""
    try:
        run_job(job, order)
    except Exception as error:  # one row must not end the others, whatever its network or its data raise
        logger.debug("row %s failed", job.folder, exc_info=True)
        reason = _reason(error)
        write_json(plan.home_of(order.out, job) / plan.FAILURE, {"reason": reason})
        return f"failed ({reason})"
    return "done"


def run_job(job: plan.Job, order: Order) -> None:
    """Train, export and score one row; write ``result.json``."""
    home = plan.home_of(order.out, job)
    (home / plan.FAILURE).unlink(missing_ok=True)
    for half in home.glob(".bundle-*"):  # what a kill left of an export
        shutil.rmtree(half)
    before = None
    if job.before is not None:  # of its checkpoints only the best one stays
        with locked(plan.home_of(order.out, job.before), wait=True):
            before = fit(job.before, order)
            _tidy(before, order, keep_best=True)
    trained = fit(job, order, before)
    # Seconds of an earlier training count as the row's, unless that training is a row too.
    seconds = trained.seconds + (before.seconds if before and job.before and not job.before.scored else 0)
    result = {
        "settings": job.hash,
        "model": job.row.model,
        "form": job.row.form,
        "data": job.source.name,
        "split": job.source.split,
        "seed": job.seed,
        "epochs": trained.epochs,
        "steps": trained.steps,
        "train_seconds": round(seconds, 1),
        "command": job.command,
        "git": git_state(Path(registry.__file__).parent),
        "versions": versions(),
        **(_score_phrases(job, trained, order) if job.grounds else _score_masks(job, trained, before, order)),
    }
    write_json(home / plan.RESULT, result)
    _tidy(trained, order, keep_best=job.row.teaches)


def _scoring(job: plan.Job, order: Order, bundle: Path) -> dict[str, Any]:
    """What an evaluation of either task has of a job."""
    source = job.source
    return {"data": source.name, "root": source.root, "split": source.split, "model": bundle, "threads": order.threads}


def _score_masks(job: plan.Job, trained: Trained, before: Trained | None, order: Order) -> dict[str, Any]:
    """Part of a result that is about masks."""
    home, split, mode = plan.home_of(order.out, job), job.source.split, job.row.training_mode
    bundle = export(trained.checkpoint, home / "bundle", text_encoder_folder=order.text_encoder)
    shared = ("captions", "missing_captions", "limit")
    options = {key: value for key, value in plan.merged(job.recipes).get("data", {}).items() if key in shared}
    if options.get("captions") == BOTH:  # a training may learn from both; one of them is scored
        del options["captions"]
    scoring = _scoring(job, order, bundle.folder) | {"text_mode": job.row.modes, "out": home / "scores"}
    summary = evaluate(MaskEvaluation(**scoring, **options))
    cost = cost_of_bundle(bundle)
    return {
        "ids_sha256": summary["data"]["ids_sha256"],
        "captions": summary["data"]["captions"],
        "text_mode": mode,
        "fraction": job.row.fraction,
        "labelled": job.row.labelled,
        "images": bundle.provenance["data"]["images"] | {split: summary["images"]},
        "patients": summary["patients"],
        "size": summary["size"],
        "scores": summary["modes"][mode],
        "other_scores": {name: scores for name, scores in summary["modes"].items() if name != mode},
        "sentences": summary["report"]["used"]["share"] if "report" in summary else None,
        "estimator": summary["estimator"],
        "trainable": cost.trainable,
        "gmacs": cost.gmacs,
        "best_epoch": bundle.provenance["epoch"],
        "evaluate_seconds": summary["seconds"],
        "steps_before": 0 if before is None else before.steps,
    }


def _score_phrases(job: plan.Job, trained: Trained, order: Order) -> dict[str, Any]:
    """Part of a result that is about maps of phrases."""
    home = plan.home_of(order.out, job)
    bundle = export_grounding(trained.checkpoint, home / "bundle")
    scores: dict[str, Any] = {}
    for kind in PHRASE_KINDS:
        scoring = _scoring(job, order, bundle.folder) | {"phrases": kind, "out": home / "scores" / kind}
        summary = evaluate_phrases(PhraseEvaluation(**scoring))
        scores[kind] = {key: summary[key] for key in _OF_PHRASES}
    return {
        **{key: bundle.provenance.get(key) for key in ("mode", "local_unit", "targets")},
        "sentences": bundle.text.sentences,
        "images": bundle.provenance["data"]["images"],
        "size": list(bundle.preprocess.size),
        "map": list(bundle.map_size),
        "parameters": sum(p.numel() for p in read_checkpoint(trained.checkpoint)[1].parameters()),
        "bundle_bytes": bundle.size_bytes,
        "scores": scores,
        "best_epoch": bundle.provenance["epoch"],
        "evaluate_seconds": round(sum(of_kind["seconds"] for of_kind in scores.values()), 1),
    }


def fit(job: plan.Job, order: Order, before: Trained | None = None) -> Trained:
    """Train, or go on with a training, unless it is done; it starts from the checkpoint of ``before``."""
    home = plan.home_of(order.out, job)
    checkpoints = home / "run" / "checkpoints"
    best = checkpoints / "best.ckpt"
    write_json(home / "settings.json", dict(job.settings))
    if not ((home / _TRAINED).is_file() and best.is_file()):
        try:
            last_checkpoint(checkpoints)
        except UsageError:  # none of them can be read: the row starts again
            shutil.rmtree(checkpoints)
        words = [*job.words, *_folders(job, order, before), *_UNHASHED, "--out", str(home / "run")]
        _train(words, order.threads)
        state = torch.load(checkpoints / "last.ckpt", map_location="cpu", weights_only=True, mmap=True)
        seconds = round(state["callbacks"]["Timer"]["time_elapsed"]["train"], 2)
        made = {"epochs": state["epoch"] + 1, "steps": state["global_step"], "seconds": seconds}
        write_json(home / _TRAINED, made)
    length = json.loads((home / _TRAINED).read_text(encoding="utf-8"))
    if isinstance(seconds := length["seconds"], dict):  # by epoch, as earlier versions wrote
        length |= {"epochs": len(seconds), "seconds": sum(seconds.values())}
    return Trained(checkpoint=best, **length)


def _train(words: Sequence[str], threads: int | None) -> None:
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        training.main(words)
    except SystemExit as stop:
        if stop.code == 2:  # what a parser of arguments says to a wrong one
            raise UsageError("the settings of the training are refused", came=" ".join(words)) from stop
        raise KeyboardInterrupt from stop  # Lightning's way to say so
    except RuntimeError as error:
        # Who ends all processes of a run means the run: its loader's process may notice first.
        if "is killed by signal: Terminated" in str(error):
            raise KeyboardInterrupt from error
        raise


def _folders(job: plan.Job, order: Order, before: Trained | None = None) -> list[str]:
    """Arguments that name folders of this machine."""
    words = [] if job.source.root is None else [f"--data.root={job.source.root}"]
    if order.text_encoder is not None and (not job.scored or job.row.reads_text):
        # The text encoder of a grounding network learns, and is a part of it.
        part = "network.init_args.config.text.weights" if job.grounds else "text_encoder_folder"
        words.append(f"--model.{part}={order.text_encoder}")
    if before is not None and job.before is not None:
        checkpoint = str(before.checkpoint.resolve())
        trunk = "--model.initial=" + json.dumps([f"trunk={checkpoint}"])
        words.append(f"--model.teacher={checkpoint}" if job.before.scored else trunk)
    return words


def _tidy(trained: Trained, order: Order, *, keep_best: bool) -> None:
    """Remove what a finished training needed to go on: pseudo-labels, and checkpoints except perhaps the best one."""
    if order.keep_checkpoints:
        return
    folder = trained.checkpoint.parent
    shutil.rmtree(folder.parent / FOLDER, ignore_errors=True)
    for path in folder.iterdir():
        if not (keep_best and path == trained.checkpoint):
            path.unlink(missing_ok=True)
    if not keep_best:
        shutil.rmtree(folder, ignore_errors=True)


def make_weights(table: WeightsTable, order: Order) -> int:
    """Score weights and floors where they are not scored yet, then write the table's two files; see `run`.

    Raises:
        UsageError: If a root, label or bundle is wrong, or a data set cannot be read.
        DataError: If a data set is refused.
    """
    readable = [block.data for block in table.blocks if block.data in registry.DATASETS]
    if not order.roots:
        raise UsageError(f"{table.name} has no data to score on", do=f"Add --root {readable[0]}=DIR.")
    bundles: dict[str, GroundingBundle | None] = {FLOORS: None, **read_models(order.models)}
    plan.check_names(table.name, order, bundles, readable)
    check_writable(order.out)
    places = _places(order, table.name)
    results = [result for block in table.blocks for result in _score_block(block, bundles, order)]
    pages = {"csv": weights_page.csv_table(table, results), "md": weights_page.markdown(table, results, order)}
    return _write(order, places, pages, _failed(results), "rows")


def _score_block(block: Block, bundles: Mapping[str, GroundingBundle | None], order: Order) -> list[plan.WeightsResult]:
    data, root = block.data, order.roots.get(block.data)
    if data not in registry.DATASETS:
        reason = f"no reader of {block.title}"
        return [plan.WeightsResult(label="", data=data, kind="", state=plan.State.NOT_AVAILABLE, reason=reason)]
    if root is None:
        return [plan.WeightsResult(label="", data=data, kind="", state=plan.State.NO_ROOT)]
    results = []
    for kind in block.kinds:
        ids = fingerprint(f"{s.image_id}\t{s.phrase}" for s in open_reader(data, root).phrases(plan.SPLIT, kind=kind))
        about = {"textray": __version__, "data": data, "kind": kind, "split": plan.SPLIT, "ids": ids}
        for label, bundle in bundles.items():
            settings = about | {"weights": "" if bundle is None else bundle.sha256}
            name = FLOORS if bundle is None else bundle.name
            home = order.out / "rows" / f"grounding-{name}-{data}-{kind}-{plan.settings_hash(settings)[:12]}"
            row = plan.WeightsResult(label=label, data=data, kind=kind, state=plan.State.NOT_RUN)
            results.append(_score_weights(row, bundle, home, order))
    return results


def _score_weights(
    row: plan.WeightsResult, bundle: GroundingBundle | None, home: Path, order: Order
) -> plan.WeightsResult:
    """Read a row again where it is finished, else make it, else give the reason why not."""
    place = f"{row.label}, {row.data}, {row.kind}"
    if order.rows and row.label not in order.rows and _finished(home) is None:
        return row
    with locked(home, wait=True):
        summary = _finished(home)
        if summary is not None:
            return replace(row, state=plan.State.DONE, summary=summary)
        order.tell(f"{place} ...")
        shared = {
            "data": row.data,
            "root": order.roots[row.data],
            "split": plan.SPLIT,
            "out": home,
            "phrases": row.kind,
        }
        scoring: dict[str, Any] = shared | ({"floors_only": True} if bundle is None else {"model": bundle.folder})
        try:
            summary = evaluate_phrases(PhraseEvaluation(**scoring, threads=order.threads))
        except Exception as error:  # one row must not end the others, whatever its network or a film raises
            logger.debug("row %s failed", home.name, exc_info=True)
            order.tell(f"{place}: failed ({_reason(error)})")
            return replace(row, state=plan.State.FAILED, reason=_reason(error))
    return replace(row, state=plan.State.DONE, summary=summary)


def _finished(folder: Path) -> dict[str, Any] | None:
    try:
        evaluation_files.check(folder)
    except DataError:
        return None
    summary: dict[str, Any] = json.loads((folder / evaluation_files.SUMMARY).read_text(encoding="utf-8"))
    return summary


def _reason(error: Exception) -> str:
    """Code and text of an error, on one line."""
    code = error.code if isinstance(error, TextRayError) else type(error).__name__
    return f"{code}: {' '.join(str(error).split())[:300]}"
