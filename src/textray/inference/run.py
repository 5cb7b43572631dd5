"""Many pictures: one loaded network, one row each, and a run that goes on where it was cut off.

A result is complete where its record is, and the record's key says of which input, weights, words and settings. So a
second run skips exactly what is finished, and ``run.json`` is a summary, never the state itself. What is done with a
picture is told by a subclass: `textray.inference.segment_run` and `textray.inference.ground_run`.
"""

from __future__ import annotations

import logging
import os
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from textray import __version__
from textray.errors import DiskError, InputError, OutputError, TextRayError
from textray.inference import record, results
from textray.inference.inputs import RUN_FILE, Item
from textray.io.files import IMAGE_SUFFIXES, LeftOut, plain_path, plain_text
from textray.io.write import check_writable
from textray.records import Notice

log = logging.getLogger(__name__)

NOT_IMAGE = "W_NOT_IMAGE"
Status = Literal["done", "finished", "skipped", "failed"]

_REFRESH_SECONDS = 5.0
_REFRESH_SHARE = 20  # writing the summary takes at most a twentieth of the time, however long it gets


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one input.

    Attributes:
        path: The input as given.
        status: ``done`` now, ``finished`` by an earlier run, ``skipped`` (no picture), or ``failed``.
        code: Message code where skipped or failed.
        reason: One sentence, where skipped or failed.
        outputs: Written files by kind.
        warnings: The record's warnings: code, text, remedy.
        seconds: Wall-clock time.
    """

    path: Path
    status: Status
    code: str = ""
    reason: str = ""
    outputs: dict[str, Path] = field(default_factory=dict)
    warnings: tuple[Mapping[str, str], ...] = ()
    seconds: float = 0.0

    def found(self) -> dict[str, Any]:
        """What was found in the picture, for the row; JSON values."""
        return {}

    def to_dict(self) -> dict[str, Any]:
        """The row in ``run.json`` and on the standard output."""
        return {
            "input": plain_path(self.path),
            "status": self.status,
            "code": self.code,
            "reason": plain_text(self.reason),
            "outputs": {kind: plain_path(path) for kind, path in self.outputs.items()},
            **self.found(),
            "warnings": [dict(warning) for warning in self.warnings],
            "seconds": round(self.seconds, 3),
        }


R = TypeVar("R", bound=Outcome)


class Run(ABC, Generic[R]):
    """A run over many inputs.

    Args:
        row: Class of its rows.
        schema: Of its summary.
        out: Output folder.
        items: Files to work on.
        left_out: Paths that were not looked at.
        notices: Warnings about the run as a whole.

    Attributes:
        rows: What became of each input so far.
    """

    def __init__(
        self,
        row: type[R],
        schema: str,
        *,
        out: Path,
        items: Sequence[Item],
        left_out: Sequence[LeftOut],
        notices: Sequence[Notice],
    ) -> None:
        self._row, self._schema = row, schema
        self._out, self._items, self._notices = out, items, notices
        self._inputs = len(items) + len(left_out)
        self.rows: list[R] = [row(path=p.path, status="skipped", code=p.code, reason=p.reason) for p in left_out]
        self._started = datetime.now(UTC)
        self._clock = time.perf_counter()
        self._cleaned: set[Path] = set()
        self._warnings: dict[tuple[str, ...], Mapping[str, str]] = {}
        self._next_refresh = 0.0

    @abstractmethod
    def work(self, number: int, item: Item, folder: Path, name: str) -> R:
        """Work on an item, or find that an earlier run did."""

    @abstractmethod
    def free_name(self, folder: Path, item: Item) -> str:
        """The item's name, marked where an earlier run gave it to another input or a foreign file has it."""

    @abstractmethod
    def remove(self, folder: Path, name: str) -> None:
        """Remove an earlier result of a file that is now refused."""

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """What the summary says of model, threads and settings."""

    @property
    def counts(self) -> dict[str, int]:
        """Number of inputs by status."""
        counted = Counter(row.status for row in self.rows)
        return {status: counted[status] for status in ("done", "finished", "skipped", "failed")}

    @property
    def exit_code(self) -> int:
        """0 where nothing failed, 3 otherwise."""
        return InputError.exit_code if self.counts["failed"] else 0

    def run(self, on_row: Callable[[R], None] | None = None) -> int:
        """Work through the plan; a refused file is noted and the rest goes on.

        Args:
            on_row: Called with the row of each input as it is known.

        Returns:
            The exit code.

        Raises:
            DiskError: If the disk is full; what is finished stays.
            OutputError: If a folder of the results cannot be written to.
        """
        results.clean(self._out)
        self._write("running")
        status = "interrupted"
        try:
            for row in self._each():
                row = replace(row, warnings=tuple(self._once(warning) for warning in row.warnings))
                self.rows.append(row)
                if on_row is not None:
                    on_row(row)
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
                log.warning("the summary %s could not be written", self._out / RUN_FILE)
        return self.exit_code

    def prepare(self, folder: Path) -> None:
        """See that a folder can be written to, and remove what killed runs left there; once a run."""
        if folder not in self._cleaned:
            check_writable(folder)
            results.clean(folder)
            self._cleaned.add(folder)

    def _each(self) -> Iterator[R]:
        for number, item in enumerate(self._items):
            start = time.perf_counter()
            folder = self._out / item.folder
            name = self.free_name(folder, item)
            try:
                row = self.work(number, item, folder, name)
            except (DiskError, OutputError) as error:
                # Every further file would fail alike; the earlier result of this one, if any, is whole and stays.
                self.rows.append(failed_row(self._row, item, error.code, str(error), start))
                raise
            except InputError as error:
                self._remove(folder, name)
                row = failed_row(self._row, item, error.code, str(error), start)
                if not item.named and is_no_picture(item.path, error.code):
                    row = replace(row, status="skipped", code=NOT_IMAGE)
            except TextRayError as error:
                self._remove(folder, name)
                row = failed_row(self._row, item, error.code, str(error), start)
            except Exception as error:  # one file must not end the run
                log.debug("unexpected failure", exc_info=True)
                self._remove(folder, name)
                # The class only: the text of a foreign exception may quote the file, and with it a patient.
                reason = f"unexpected {type(error).__name__}. Report this with the file."
                row = failed_row(self._row, item, "E_INTERNAL", reason, start)
            yield row

    def _remove(self, folder: Path, name: str) -> None:
        """Its name is none that a user's own files have."""
        try:
            self.remove(folder, name)
        except OSError as error:
            raise results.write_failure(folder, error) from error

    def _once(self, warning: Mapping[str, str]) -> Mapping[str, str]:
        """The same warning of many pictures is one object, so that long runs stay small."""
        return self._warnings.setdefault(tuple(warning.values()), warning)

    def _write(self, status: str) -> None:
        start = time.perf_counter()
        results.write_summary(
            self._out / RUN_FILE,
            {
                "schema": self._schema,
                "textray": __version__,
                "status": status,
                "started": self._started.isoformat(timespec="seconds"),
                "written": datetime.now(UTC).isoformat(timespec="seconds"),
                "seconds": round(start - self._clock, 3),
                **self.about(),
                "inputs": self._inputs,
                "counts": self.counts,
                "warnings": record.notice_rows(self._notices),
                "items": [row.to_dict() for row in self.rows],
            },
        )
        now = time.perf_counter()
        self._next_refresh = now + max(_REFRESH_SECONDS, _REFRESH_SHARE * (now - start))


def failed_row(row: type[R], item: Item, code: str, reason: str, start: float) -> R:
    """Row of an input that was refused."""
    return row(path=item.path, status="failed", code=code, reason=reason, seconds=time.perf_counter() - start)


def is_no_picture(path: Path, code: str) -> bool:
    """True for what lies in a folder beside pictures: DICOM objects without pixels, tables, notes."""
    return code == NOT_IMAGE or (code == "E_FORMAT" and path.suffix.lower() not in IMAGE_SUFFIXES)


def same_file(recorded: object, path: Path) -> bool:
    """True where a record's path, as given to an earlier run, leads to the same file as ``path``."""
    if recorded == plain_path(path):
        return True
    return isinstance(recorded, str) and os.path.realpath(recorded) == os.path.realpath(path)
