"""Many pictures: one loaded network, one row each, and a run that goes on where it was cut off.

A result is complete where its record is, and the record's key says of which input, weights, text and settings. So a
second run skips exactly what is finished, and ``run.json`` is a summary, never the state itself.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from textray import __version__
from textray.errors import DiskError, InputError, OutputError, TextRayError
from textray.inference import outputs, record
from textray.inference.inputs import RUN_FILE, Item
from textray.inference.plan import Plan
from textray.inference.predictor import Predictor
from textray.inference.texts import Words
from textray.io.write import check_writable, is_own_picture
from textray.records import Laterality

log = logging.getLogger(__name__)

RUN_SCHEMA = "textray.run/1"
NOT_IMAGE = "W_NOT_IMAGE"
Status = Literal["done", "finished", "skipped", "failed"]

_REFRESH_SECONDS = 5.0
_REFRESH_SHARE = 20  # writing the summary takes at most a twentieth of the time, however long it gets


@dataclass(frozen=True, kw_only=True)
class Row:
    """What became of one input.

    Attributes:
        path: The input as given.
        status: ``done`` now, ``finished`` by an earlier run, ``skipped`` (no picture), or ``failed``.
        code: Message code where skipped or failed.
        reason: One sentence, where skipped or failed.
        outputs: Written files by kind.
        share: Share of the picture that is lesion, where done or finished.
        text_mode: ``given``, ``generated``, ``edited`` or ``none``, where done or finished.
        written: The sentence that steered the network where no person gave it, by the patient's sides or, where those
            are undefined, by the viewer's; it says which.
        warnings: The record's warnings: code, text, remedy.
        seconds: Wall-clock time.
    """

    path: Path
    status: Status
    code: str = ""
    reason: str = ""
    outputs: dict[str, Path] = field(default_factory=dict)
    share: float | None = None
    text_mode: str = ""
    written: str = ""
    warnings: tuple[Mapping[str, str], ...] = ()
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The row in ``run.json`` and on the standard output."""
        return {
            "input": record.plain_path(self.path),
            "status": self.status,
            "code": self.code,
            "reason": record.plain_text(self.reason),
            "outputs": {kind: record.plain_path(path) for kind, path in self.outputs.items()},
            "share": self.share,
            "text_mode": self.text_mode,
            **({"written": self.written} if self.written else {}),
            "warnings": [dict(warning) for warning in self.warnings],
            "seconds": round(self.seconds, 3),
        }


class Batch:
    """A run over a plan.

    Args:
        predictor: The loaded network.
        plan: What to do.

    Raises:
        UsageError: If the plan needs a report that the network cannot write.
    """

    def __init__(self, predictor: Predictor, plan: Plan) -> None:
        self.predictor, self.plan = predictor, plan
        predictor.check_free(plan.text_free, plan.edit)
        self.rows: list[Row] = [
            Row(path=path.path, status="skipped", code=path.code, reason=path.reason) for path in plan.left_out
        ]
        self._started = datetime.now(UTC)
        self._clock = time.perf_counter()
        self._cleaned: set[Path] = set()
        self._warnings: dict[tuple[str, ...], Mapping[str, str]] = {}
        self._next_refresh = 0.0

    @property
    def counts(self) -> dict[str, int]:
        """Number of inputs by status."""
        counted = Counter(row.status for row in self.rows)
        return {status: counted[status] for status in ("done", "finished", "skipped", "failed")}

    @property
    def exit_code(self) -> int:
        """0 where nothing failed, 3 otherwise."""
        return InputError.exit_code if self.counts["failed"] else 0

    def run(self, on_row: Callable[[Row], None] | None = None) -> int:
        """Work through the plan; a refused file is noted and the rest goes on.

        Args:
            on_row: Called with the row of each input as it is known.

        Returns:
            The exit code.

        Raises:
            DiskError: If the disk is full; what is finished stays.
            OutputError: If a folder of the results cannot be written to.
        """
        outputs.clean(self.plan.out)
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
                log.warning("the summary %s could not be written", self.plan.out / RUN_FILE)
        return self.exit_code

    def _each(self) -> Iterator[Row]:
        for i, item in enumerate(self.plan.items):
            start = time.perf_counter()
            words = self.plan.words.get(i, Words(text=None))
            folder = self.plan.out / item.folder
            name = self._free_name(folder, item)
            try:
                row = self._finished(folder, name, item, words) or self._segment(folder, name, item, words)
            except (DiskError, OutputError) as error:
                # Every further file would fail alike; the earlier result of this one, if any, is whole and stays.
                self.rows.append(failed_row(item, error.code, str(error), start))
                raise
            except InputError as error:
                _remove(folder, name)
                row = failed_row(item, error.code, str(error), start)
                if not item.named and is_no_picture(item.path, error.code):
                    row = replace(row, status="skipped", code=NOT_IMAGE)
            except TextRayError as error:
                _remove(folder, name)
                row = failed_row(item, error.code, str(error), start)
            except Exception as error:  # one file must not end the run
                log.debug("unexpected failure", exc_info=True)
                _remove(folder, name)
                # The class only: the text of a foreign exception may quote the file, and with it a patient.
                row = failed_row(
                    item, "E_INTERNAL", f"unexpected {type(error).__name__}. Report this with the file.", start
                )
            yield row

    def _segment(self, folder: Path, name: str, item: Item, words: Words) -> Row:
        start = time.perf_counter()
        plan = self.plan
        prediction = self.predictor.segment(
            item.path, words.text, self._side(words), plan.strict_text, text_free=plan.text_free, edit=plan.edit
        )
        if folder not in self._cleaned:
            check_writable(folder)
            outputs.clean(folder)
            self._cleaned.add(folder)
        written = outputs.write(prediction, folder, name)
        return done_row(item, "done", prediction.record, written, start)

    def _finished(self, folder: Path, name: str, item: Item, words: Words) -> Row | None:
        start = time.perf_counter()
        written = outputs.paths(folder, name, attention=self.predictor.tells_attention)
        found = None if self.plan.overwrite else outputs.read_record(written["record"])
        if found is None or not all(path.is_file() for path in (*written.values(), item.path)):
            return None
        used = self._settings(self._side(words))
        sha256 = record.file_sha256(item.path)
        if sha256 is None or found.get("key") != record.key(sha256, self.predictor.bundle, words.text, used):
            return None
        return done_row(item, "finished", found, written, start)

    def _free_name(self, folder: Path, item: Item) -> str:
        """The item's name, marked where an earlier run gave it to another input or a foreign file has it."""
        places = outputs.paths(folder, item.name, attention=self.predictor.tells_attention)
        marked = f"{item.name}-{outputs.mark(item.path)}"
        place = places.pop("record")
        if not place.exists():  # pictures of a killed run may be overwritten, a user's own may not
            return marked if any(path.exists() and not is_own_picture(path) for path in places.values()) else item.name
        found = outputs.read_record(place)
        return item.name if found and same_file(found.get("input", {}).get("path"), item.path) else marked

    def _once(self, warning: Mapping[str, str]) -> Mapping[str, str]:
        """The same warning of many pictures is one object, so that long runs stay small."""
        return self._warnings.setdefault(tuple(warning.values()), warning)

    def _side(self, words: Words) -> Laterality:
        return words.laterality or self.plan.laterality

    def _settings(self, side: Laterality) -> dict[str, Any]:
        plan = self.plan
        return record.settings(
            self.predictor.bundle,
            laterality=side,
            strict_text=plan.strict_text,
            text_free=plan.text_free,
            edit=plan.edit,
        )

    def _write(self, status: str) -> None:
        start = time.perf_counter()
        plan = self.plan
        outputs.write_summary(
            plan.out / RUN_FILE,
            {
                "schema": RUN_SCHEMA,
                "textray": __version__,
                "status": status,
                "started": self._started.isoformat(timespec="seconds"),
                "written": datetime.now(UTC).isoformat(timespec="seconds"),
                "seconds": round(start - self._clock, 3),
                "model": self.predictor.bundle.describe(),
                "threads": self.predictor.threads,
                "settings": self._settings(plan.laterality),
                "inputs": len(plan.items) + len(plan.left_out),
                "counts": self.counts,
                "warnings": record.notice_rows(plan.notices),
                "items": [row.to_dict() for row in self.rows],
            },
        )
        now = time.perf_counter()
        self._next_refresh = now + max(_REFRESH_SECONDS, _REFRESH_SHARE * (now - start))


def done_row(item: Item, status: Status, found: dict[str, Any], written: dict[str, Path], start: float) -> Row:
    """Row of an input whose result is there, with what its record says."""
    return Row(
        path=item.path,
        status=status,
        outputs=written,
        share=found["lesion"]["share"],
        text_mode=found["text"]["mode"],
        written=steering_sentence(found["text"]),
        warnings=tuple(found["warnings"]),
        seconds=time.perf_counter() - start,
    )


def steering_sentence(text: Mapping[str, Any]) -> str:
    """The sentence of a record's ``text`` where a network wrote it, corrected or not; else nothing."""
    used = text["used"] if text["mode"] in ("generated", "edited") else None
    if used is None:
        return ""
    return f"{used['viewer']} (viewer's sides)" if used["patient"] is None else f"{used['patient']} (patient's sides)"


def failed_row(item: Item, code: str, reason: str, start: float) -> Row:
    """Row of an input that was refused."""
    return Row(path=item.path, status="failed", code=code, reason=reason, seconds=time.perf_counter() - start)


def is_no_picture(path: Path, code: str) -> bool:
    """True for what lies in a folder beside pictures: DICOM objects without pixels, tables, notes."""
    return code == NOT_IMAGE or (code == "E_FORMAT" and path.suffix.lower() not in outputs.IMAGE_SUFFIXES)


def same_file(recorded: object, path: Path) -> bool:
    """True where a record's path, as given to an earlier run, leads to the same file as ``path``."""
    if recorded == record.plain_path(path):
        return True
    return isinstance(recorded, str) and os.path.realpath(recorded) == os.path.realpath(path)


def _remove(folder: Path, name: str) -> None:
    """Remove an earlier result of a file that is now refused; its name is none that a user's own files have."""
    try:
        outputs.remove(folder, name)
    except OSError as error:
        raise outputs.write_failure(folder, error) from error
