"""Trainings of a table one after the other, or several at once in processes of their own.

Small networks use several threads badly; `benchmarks/jobs.py` measures what a process for each core is worth.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing.connection import wait as wait_for

from textray.errors import UsageError
from textray.reproduce.catalogue import silent
from textray.reproduce.fit import Options, is_trained
from textray.reproduce.trainings import Job

Attempt = Callable[[Job, Options], str]
"""Makes a row and says what became of it: ``done``, or ``failed`` and why. It raises nothing but interruptions."""

DONE = "done"


class Progress:
    """Tells of every training that begins and ends, and how long the rest will take.

    Args:
        jobs: All that is to be made.
        options: How; its ``tell`` is called.
    """

    def __init__(self, jobs: Sequence[Job], options: Options) -> None:
        self._tell, self._at_once = options.tell, options.jobs
        self._numbers = {job.folder: number for number, job in enumerate(jobs, start=1)}
        self._left = {job.folder: job.steps for job in jobs}
        self._started: dict[str, float] = {}
        self._spent, self._steps = 0.0, 0

    def begin(self, job: Job) -> None:
        """Say that a training begins."""
        self._started[job.folder] = time.perf_counter()
        self._tell(f"{self._name(job)} ...")

    def end(self, job: Job, words: str) -> None:
        """Say what became of a training."""
        seconds = time.perf_counter() - self._started[job.folder]
        del self._left[job.folder]
        if words == DONE:
            self._spent, self._steps = self._spent + seconds, self._steps + job.steps
        left = sum(self._left.values()) / self._at_once
        rest = f"; about {self._spent / self._steps * left / 60:.0f} minutes remain" if self._steps and left else ""
        self._tell(f"{self._name(job)}: {words} after {seconds / 60:.1f} minutes{rest}")

    def _name(self, job: Job) -> str:
        number = f"{self._numbers[job.folder]} of {len(self._numbers)}"
        return f"{number}: {job.row.label}, {job.data}, text {job.row.learnt}, seed {job.seed}"


def run(jobs: Sequence[Job], attempt: Attempt, options: Options) -> None:
    """Make rows, ``options.jobs`` of them at once.

    Args:
        jobs: The rows, the one to begin with first.
        attempt: Makes one; a function of a module, since processes are told its name.
        options: How. Without ``threads``, several at once share the processors evenly.

    Raises:
        UsageError: If a process is killed from outside, as for want of memory.
    """
    progress = Progress(jobs, options)
    if options.jobs > 1 and len(jobs) > 1:
        _run_at_once(list(jobs), attempt, options, progress)
        return
    for job in jobs:
        progress.begin(job)
        progress.end(job, attempt(job, options))


def _run_at_once(waiting: list[Job], attempt: Attempt, options: Options, progress: Progress) -> None:
    threads = options.threads or max(1, (os.cpu_count() or 1) // options.jobs)
    theirs = replace(options, threads=threads, jobs=1, tell=silent)
    running: dict[Future[str], Job] = {}
    # Started afresh, since threads of torch and onnxruntime don't survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=context, initializer=_end_with_parent) as pool:
        while waiting or running:
            for job in _ready(waiting, list(running.values()), options):
                waiting.remove(job)
                progress.begin(job)
                running[pool.submit(attempt, job, theirs)] = job
            ended, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in ended:
                job = running.pop(future)
                try:
                    progress.end(job, future.result())
                except BrokenProcessPool as error:
                    for other in multiprocessing.active_children():  # asked to end by the pool, which they may ignore
                        other.kill()
                    raise UsageError(
                        "the process of a training has ended without a word",
                        came=job.row.label,
                        expected=f"memory for {options.jobs} trainings at once",
                        do="Run the command again with fewer --jobs; it goes on where it was cut off",
                    ) from error


def _ready(waiting: Sequence[Job], running: Sequence[Job], options: Options) -> list[Job]:
    """The next jobs to begin: as many as there is room for, no two of them at work in the same folder."""
    chosen: list[Job] = []
    taken = {folder for job in running for folder in _folders(job, options)}
    for job in waiting:
        folders = _folders(job, options)
        if len(running) + len(chosen) < options.jobs and taken.isdisjoint(folders):
            chosen.append(job)
            taken |= folders
    return chosen


def _folders(job: Job, options: Options) -> set[str]:
    """The folders that a job writes into: its own, and that of the training before it where that is not made yet."""
    before = job.before
    return {job.folder} | ({before.folder} if before is not None and not is_trained(before, options) else set())


def _end_with_parent() -> None:
    """End this process when the one that started it has ended, however that ended: the lock on the folder is gone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()


def _end_after(sentinel: int) -> None:
    wait_for([sentinel])
    os._exit(1)
