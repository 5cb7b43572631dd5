"""Runs over many pictures: one loaded network, one result for each file, and a run that resumes after an interruption.

A result is complete if its record is there, which holds the hashes of its files, and the record's key is a hash of
input, weights, words and settings. So a second run skips exactly what is finished, and ``run.json`` is a summary, never
the state itself. Subclasses of `Run` do the work: `textray.inference.segment_run`, `textray.inference.ground_run` and
`textray.explain.run`.
"""

from __future__ import annotations

import logging
import os
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, Literal

from textray import __version__
from textray.errors import DiskError, InputError, OutputError, TextRayError
from textray.inference import record, results
from textray.inference.bundle import BaseBundle
from textray.inference.inputs import RUN_FILE, Item
from textray.io.files import IMAGE_SUFFIXES, LeftOut, joint_sha256, mark, plain_path, plain_text, sha256
from textray.io.write import check_writable, process, write_json
from textray.records import Laterality, Notice

log = logging.getLogger(__name__)

NOT_IMAGE = "W_NOT_IMAGE"
Status = Literal["done", "finished", "skipped", "failed"]

_REFRESH_SECONDS = 5.0
_REFRESH_SHARE = 20  # writing the summary takes at most a twentieth of the time, however long it gets


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """A run as planned before the network is loaded."""

    out: Path
    items: tuple[Item, ...]
    left_out: tuple[LeftOut, ...] = ()
    laterality: Laterality = Laterality.PATIENT  # convention of words that bring none of their own
    overwrite: bool = False  # work again on what is finished
    notices: tuple[Notice, ...] = ()  # warnings about the run as a whole


@dataclass(frozen=True, kw_only=True)
class FileResult:
    """Result of one input file: ``done`` now, ``finished`` by an earlier run, ``skipped`` (no picture), or ``failed``.

    The code and the reason, one sentence, are of files that are skipped or failed.
    """

    path: Path  # the input as given
    status: Status
    code: str = ""
    reason: str = ""
    outputs: dict[str, Path] = field(default_factory=dict)  # by kind
    details: dict[str, Any]  # JSON values of the command
    warnings: tuple[Mapping[str, str], ...] = ()  # of the record: code, text, remedy
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The result in ``run.json`` and on the standard output."""
        return {
            "input": plain_path(self.path),
            "status": self.status,
            "code": self.code,
            "reason": plain_text(self.reason),
            "outputs": {kind: plain_path(path) for kind, path in self.outputs.items()},
            **self.details,
            "warnings": [dict(warning) for warning in self.warnings],
            "seconds": round(self.seconds, 3),
        }


class Run(ABC):
    """A run of a bundle, whose network has ``threads``, over the inputs of a plan.

    ``results`` are those so far, and ``summary`` is the file that lists them.
    """

    SUMMARY: ClassVar[str]
    """Schema of the summary."""
    RECORD: ClassVar[str]
    """Schema of the records."""
    LARGEST_RECORD: ClassVar[int] = results.LARGEST_RECORD

    def __init__(self, bundle: BaseBundle, threads: int, plan: RunPlan) -> None:
        self.plan = plan
        self._bundle, self._threads = bundle, threads
        self.summary = plan.out / RUN_FILE
        self._check_summary()
        self.results = [self._without_record(p.path, "skipped", p.code, p.reason) for p in plan.left_out]
        self._sources = {os.path.realpath(path) for item in plan.items for path in item.files}
        self._started = datetime.now(UTC)
        self._clock = time.perf_counter()
        self._cleaned: set[Path] = set()
        self._warnings: dict[tuple[str, ...], Mapping[str, str]] = {}
        self._next_refresh = 0.0

    @abstractmethod
    def _places(self, number: int, folder: Path, name: str) -> dict[str, Path]:
        """Files of the result of an item by kind; the record comes last: if it is there, the result is complete."""

    def _written(self, places: Mapping[str, Path], values: Mapping[str, Any]) -> dict[str, Path]:
        """The files among ``places`` that a result with this record has."""
        return dict(places)

    @abstractmethod
    def _key(self, number: int, sha256: str) -> str:
        """Hash of everything that decides the result of an item, whose file has this hash."""

    @abstractmethod
    def _work(self, number: int, item: Item, places: Mapping[str, Path]) -> Mapping[str, Any]:
        """Work on an item, write its result, and give its record."""

    @abstractmethod
    def _details(self, values: Mapping[str, Any] | None) -> dict[str, Any]:
        """`FileResult.details` from a record, ``None`` for an input without one."""

    @abstractmethod
    def _remove(self, number: int, folder: Path, name: str) -> None:
        """Remove an earlier result of a file that is now refused, the record first."""

    @abstractmethod
    def _summary_settings(self) -> dict[str, Any]:
        """Settings for the summary."""

    def _summary_more(self) -> dict[str, Any]:
        """Further values of the summary."""
        return {}

    @property
    def counts(self) -> dict[str, int]:
        """Number of inputs by status."""
        counted = Counter(result.status for result in self.results)
        return {status: counted[status] for status in ("done", "finished", "skipped", "failed")}

    def run(self, on_result: Callable[[FileResult], None] | None = None) -> int:
        """Work through the plan; a refused file is noted and the rest goes on. The exit code is 3 if any failed.

        Raises:
            DiskError: If the disk is full; what is finished stays.
            OutputError: If a folder of the results cannot be written to.
        """
        status = "interrupted"
        try:
            results.clean(self.plan.out)
            with results.alone(self.plan.out):
                self.summary = self._free_summary()
                self._write("running")
            for result in self._each():
                self.results.append(result)
                if on_result is not None:
                    on_result(result)
                if time.perf_counter() >= self._next_refresh:
                    self._write("running")
            status = "done"
        except TextRayError:
            status = "failed"
            raise
        finally:
            try:
                self._write(status)
            except TextRayError:
                if status == "done":
                    raise
                log.warning("the summary %s could not be written", self.summary)
            if status == "interrupted":
                for folder in {self.plan.out, *self._cleaned}:
                    results.clean(folder)
        return InputError.exit_code if self.counts["failed"] else 0

    def _check_summary(self) -> None:
        """Refuse to replace a summary of another command, or a file of somebody else."""
        place = self.summary
        if os.path.lexists(place) and (schema := results.schema_of(place)) != self.SUMMARY:
            raise OutputError(
                f"{place} is no summary of this command, so it is not overwritten",
                came=schema if schema.startswith("textray.") else "another file",
                expected=self.SUMMARY,
                do="Name another folder with --out, or move the file away",
            )

    def _free_summary(self) -> Path:
        """``run.json``, or ``run-2.json`` and so on beside the summaries of runs that are at work in the folder."""
        place = self.summary
        for number in count(2):
            if not os.path.lexists(place) or (results.schema_of(place) == self.SUMMARY and not results.at_work(place)):
                break
            place = self.summary.with_stem(f"{self.summary.stem}-{number}")
        return place

    def _prepare(self, folder: Path) -> None:
        """See that a folder can be written to, and remove what killed runs left there; once a run."""
        if folder not in self._cleaned:
            self._cleaned.add(folder)
            check_writable(folder)
            results.clean(folder)

    def _free_name(self, number: int, folder: Path, item: Item) -> str:
        """The item's name, marked if its results would replace those of another input or a user's files."""
        marked = f"{item.name}-{mark(item.path)}"
        places = self._places(number, folder, item.name)
        if any(os.path.realpath(path) in self._sources for path in places.values()):
            return marked
        place = places.pop("record")
        if place.exists():
            return item.name if self._is_of(place, item) else marked
        # Pictures of a killed run may be overwritten, a user's own may not.
        pictures = [path for path in places.values() if path.suffix in (".png", ".dcm", ".gz")]
        return marked if any(path.exists() and not results.is_own(path) for path in pictures) else item.name

    def _is_of(self, place: Path, item: Item) -> bool:
        """True for a record of this input, and for a damaged one, which may be overwritten."""
        earlier = self._read(place)
        if earlier is None:
            return results.schema_of(place) == self.RECORD
        source = earlier.get("input")
        return isinstance(source, dict) and _same_file(source.get("path"), item.path)

    def _claim(self, item: Item, places: Mapping[str, Path]) -> None:
        """See that the places of a result are still those of this input, while no other run can take them."""
        if places["record"].exists() and not self._is_of(places["record"], item):
            raise results.NameTakenError

    def _read(self, place: Path) -> dict[str, Any] | None:
        return results.read_record(place, self.RECORD, largest=self.LARGEST_RECORD)

    def _each(self) -> Iterator[FileResult]:
        for number, item in enumerate(self.plan.items):
            start = time.perf_counter()
            folder = self.plan.out / item.folder
            name = self._free_name(number, folder, item)
            try:
                result = self._one(number, item, self._places(number, folder, name), start)
            except (DiskError, OutputError) as error:
                # Every further file would fail alike; the earlier result of this one, if any, is whole and stays.
                self.results.append(self._without_record(item.path, "failed", error.code, str(error), start))
                raise
            except Exception as error:  # one file must not end the run
                code, reason = _explain(error)
                try:
                    if folder.is_dir():
                        with results.alone(folder), suppress(results.NameTakenError):
                            self._claim(item, self._places(number, folder, name))
                            self._remove(number, folder, name)
                except OSError as failure:
                    raise results.write_failure(folder, failure) from failure
                skipped = isinstance(error, InputError) and not item.named and _is_no_picture(item.path, code)
                status: Status = "skipped" if skipped else "failed"
                result = self._without_record(item.path, status, NOT_IMAGE if skipped else code, reason, start)
            yield result

    def _one(self, number: int, item: Item, places: dict[str, Path], start: float) -> FileResult:
        """Result of an item, from an earlier run if that has the same key."""
        status: Status = "finished"
        values: Mapping[str, Any] | None = None if self.plan.overwrite else self._finished(number, item, places)
        if values is None:
            status = "done"
            try:
                values = self._work(number, item, places)
            except results.NameTakenError:
                folder = places["record"].parent
                places = self._places(number, folder, self._free_name(number, folder, item))
                values = self._work(number, item, places)
        return FileResult(
            path=item.path,
            status=status,
            outputs=self._written(places, values),
            details=self._details(values),
            # The same warning of many pictures is one object, so that long runs stay small.
            warnings=tuple(self._warnings.setdefault(tuple(one.values()), one) for one in values["warnings"]),
            seconds=time.perf_counter() - start,
        )

    def _finished(self, number: int, item: Item, places: Mapping[str, Path]) -> dict[str, Any] | None:
        """Record of an earlier run for an item as it is now, if it and all its files are as they were written."""
        earlier = self._read(places["record"])
        if earlier is None or not results.is_whole(earlier, self._written(places, earlier)):
            return None
        try:
            key = self._key(number, joint_sha256(map(sha256, item.files)))
        except OSError:  # which its reader reports
            return None
        if earlier.get("key") != key:
            return None
        try:  # a record that lacks a part is of no finished result
            self._details(earlier), [tuple(one.values()) for one in earlier["warnings"]]
        except (AttributeError, KeyError, TypeError, ValueError):
            return None
        return earlier

    def _without_record(self, path: Path, status: Status, code: str, reason: str, start: float = 0) -> FileResult:
        seconds = time.perf_counter() - start if start else 0.0
        return FileResult(
            path=path, status=status, code=code, reason=reason, details=self._details(None), seconds=seconds
        )

    def _write(self, status: str) -> None:
        start = time.perf_counter()
        write_json(
            self.summary,
            {
                "schema": self.SUMMARY,
                "textray": __version__,
                "status": status,
                **({"process": process()} if status == "running" else {}),
                "started": self._started.isoformat(timespec="seconds"),
                "written": datetime.now(UTC).isoformat(timespec="seconds"),
                "seconds": round(start - self._clock, 3),
                "model": self._bundle.describe(),
                "threads": self._threads,
                "settings": self._summary_settings(),
                "inputs": len(self.plan.items) + len(self.plan.left_out),
                "counts": self.counts,
                **self._summary_more(),
                "warnings": record.notice_rows(self.plan.notices),
                "items": [result.to_dict() for result in self.results],
            },
        )
        now = time.perf_counter()
        self._next_refresh = now + max(_REFRESH_SECONDS, _REFRESH_SHARE * (now - start))


def _explain(error: Exception) -> tuple[str, str]:
    """Code and reason of a failure."""
    if isinstance(error, TextRayError):
        return error.code, str(error)
    log.debug("unexpected failure", exc_info=error)
    # The class only: the text of a foreign exception may quote the file, and with it a patient.
    return "E_INTERNAL", f"unexpected {type(error).__name__}. Report this with the file."


def _is_no_picture(path: Path, code: str) -> bool:
    """True for what lies in a folder beside pictures: DICOM objects without pixels, tables, notes."""
    return code == NOT_IMAGE or (code == "E_FORMAT" and path.suffix.lower() not in IMAGE_SUFFIXES)


def _same_file(recorded: object, path: Path) -> bool:
    """True if a record's path, as given to an earlier run, leads to the same file as ``path``."""
    if recorded == plain_path(path):
        return True
    return isinstance(recorded, str) and os.path.realpath(recorded) == os.path.realpath(path)
