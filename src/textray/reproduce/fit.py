"""Runs single trainings: once each, and on from the last whole epoch where one was cut off."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from textray.errors import UsageError
from textray.io.write import write_json
from textray.reproduce.clock import read_clock
from textray.reproduce.trainings import Job, Stage
from textray.training import cli as training
from textray.training.semi import FOLDER

_TRAINED, _RUN = "trained.json", "run"
_UNHASHED = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false",
             "--trainer.callbacks+=textray.reproduce.clock.EpochClock")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Options:
    """How rows are run; nothing here changes a result.

    Attributes:
        out: Folder of the results.
        threads: Threads of the networks; ``None`` leaves the choice to torch and onnxruntime.
        jobs: How many rows are made at once.
        keep_checkpoints: Keep the checkpoints of finished rows.
        text_encoder: Folder of the frozen text encoder.
        tell: Called with each line of progress.
    """

    out: Path
    threads: int | None = None
    jobs: int = 1
    keep_checkpoints: bool = False
    text_encoder: Path | None = None
    tell: Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a training left.

    Attributes:
        checkpoint: Its best one.
        epochs: How many it had.
        steps: Optimiser steps.
        seconds: Of all epochs.
    """

    checkpoint: Path
    epochs: int
    steps: int
    seconds: float


def fit(job: Job | Stage, home: Path, options: Options, start: Sequence[str]) -> Trained:
    """Train, or go on with a training, unless it is done.

    Args:
        job: The training.
        home: Its folder.
        options: How to run it.
        start: Arguments that name what it starts from, with folders of this machine.

    Raises:
        UsageError: If its settings are refused.
    """
    home.mkdir(parents=True, exist_ok=True)
    write_json(home / "settings.json", dict(job.settings))
    if not is_trained(job, options):
        words = [*job.words, *_folders(job, options), *start, *_UNHASHED, "--out", str(home / _RUN)]
        _train(words, options.threads)
        write_json(home / _TRAINED, read_clock(home / _RUN))
    clock = json.loads((home / _TRAINED).read_text(encoding="utf-8"))
    seconds = clock["seconds"].values()
    return Trained(checkpoint=_best(home), epochs=len(seconds), steps=clock["steps"], seconds=sum(seconds))


def is_trained(job: Job | Stage, options: Options) -> bool:
    """True where a training has ended and its best checkpoint is kept."""
    home = home_of(options.out, job)
    return (home / _TRAINED).is_file() and _best(home).is_file()


def run_stage(stage: Job | Stage, options: Options) -> Trained:
    """Make the training before a row's own, if it is not made yet; of its checkpoints only the best one stays.

    Raises:
        TextRayError: If the training refuses.
    """
    trained = fit(stage, home_of(options.out, stage), options, [])
    tidy(trained, options, keep_best=True)
    return trained


def tidy(trained: Trained, options: Options, *, keep_best: bool) -> None:
    """Remove what a finished training needed to go on: pseudo-labels, and checkpoints except perhaps the best one."""
    if options.keep_checkpoints:
        return
    folder = trained.checkpoint.parent
    shutil.rmtree(folder.parent / FOLDER, ignore_errors=True)
    if not keep_best:
        shutil.rmtree(folder, ignore_errors=True)
        return
    for path in folder.iterdir():
        if path != trained.checkpoint:
            path.unlink(missing_ok=True)  # another row with the same training before it may tidy too


def home_of(out: Path, job: Job | Stage) -> Path:
    """Folder of a training among the results."""
    return out / "rows" / job.folder


def _best(home: Path) -> Path:
    return home / _RUN / "checkpoints" / "best.ckpt"


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


def _folders(job: Job | Stage, options: Options) -> list[str]:
    """Arguments that name folders of this machine."""
    words = [] if job.root is None else [f"--data.root={job.root}"]
    if options.text_encoder is not None and (isinstance(job, Stage) or job.row.reads_text):
        # The text encoder of a grounding network learns, and is a part of it.
        part = "network.init_args.config.text.weights" if job.grounds else "text_encoder_folder"
        words.append(f"--model.{part}={options.text_encoder}")
    return words
