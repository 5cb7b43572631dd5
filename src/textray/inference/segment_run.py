"""Segmentation of many pictures: what `textray segment` does with each of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from textray.errors import UsageError
from textray.inference import record, results
from textray.inference.inputs import Item, collect
from textray.inference.own_report import TextFree, check_edit
from textray.inference.run import Outcome, Run, Status, same_file
from textray.inference.segmenter import Predictor
from textray.io.files import LeftOut, mark
from textray.io.write import check_writable, is_own_picture
from textray.records import Laterality, Notice
from textray.text.cleaning import is_blank
from textray.text.tables import TextTable, Words, table_notices

RUN_SCHEMA = "textray.run/1"


@dataclass(frozen=True, kw_only=True)
class Row(Outcome):
    """What became of one input.

    Attributes:
        share: Share of the picture that is lesion, where done or finished.
        text_mode: ``given``, ``generated``, ``edited`` or ``none``, where done or finished.
        written: The sentence that steered the network where no person gave it, by the patient's sides or, where those
            are undefined, by the viewer's; it says which.
    """

    share: float | None = None
    text_mode: str = ""
    written: str = ""

    def found(self) -> dict[str, Any]:
        """Share of lesion and what steered the network."""
        return {
            "share": self.share,
            "text_mode": self.text_mode,
            **({"written": self.written} if self.written else {}),
        }


class Batch(Run[Row]):
    """A run over a plan.

    Args:
        predictor: The loaded network.
        plan: What to do.

    Raises:
        UsageError: If the plan needs a report that the network cannot write.
    """

    def __init__(self, predictor: Predictor, plan: Plan) -> None:
        super().__init__(Row, RUN_SCHEMA, out=plan.out, items=plan.items, left_out=plan.left_out, notices=plan.notices)
        self.predictor, self.plan = predictor, plan
        predictor.check_free(plan.text_free, plan.edit)

    def work(self, number: int, item: Item, folder: Path, name: str) -> Row:
        """Segment an item, or find that an earlier run did."""
        words = self.plan.words.get(number, Words(text=None))
        return self._finished(folder, name, item, words) or self._segment(folder, name, item, words)

    def remove(self, folder: Path, name: str) -> None:
        """Remove an earlier result of a file that is now refused."""
        results.remove(folder, name)

    def about(self) -> dict[str, Any]:
        """What the summary says of model, threads and settings."""
        return {
            "model": self.predictor.bundle.describe(),
            "threads": self.predictor.threads,
            "settings": self._settings(self.plan.laterality),
        }

    def _segment(self, folder: Path, name: str, item: Item, words: Words) -> Row:
        start = time.perf_counter()
        plan = self.plan
        prediction = self.predictor.segment(
            item.path, words.text, self._side(words), plan.strict_text, text_free=plan.text_free, edit=plan.edit
        )
        self.prepare(folder)
        written = results.write(prediction, folder, name)
        return done_row(item, "done", prediction.record, written, start)

    def _finished(self, folder: Path, name: str, item: Item, words: Words) -> Row | None:
        start = time.perf_counter()
        written = results.paths(folder, name, attention=self.predictor.tells_attention)
        found = None if self.plan.overwrite else results.read_record(written["record"])
        if found is None or not all(path.is_file() for path in (*written.values(), item.path)):
            return None
        used = self._settings(self._side(words))
        sha256 = record.file_sha256(item.path)
        if sha256 is None or found.get("key") != record.key(sha256, self.predictor.bundle, words.text, used):
            return None
        return done_row(item, "finished", found, written, start)

    def free_name(self, folder: Path, item: Item) -> str:
        """The item's name, marked where an earlier run gave it to another input or a foreign file has it."""
        places = results.paths(folder, item.name, attention=self.predictor.tells_attention)
        marked = f"{item.name}-{mark(item.path)}"
        place = places.pop("record")
        if not place.exists():  # pictures of a killed run may be overwritten, a user's own may not
            return marked if any(path.exists() and not is_own_picture(path) for path in places.values()) else item.name
        found = results.read_record(place)
        return item.name if found and same_file(found.get("input", {}).get("path"), item.path) else marked

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


# What a run will do: everything that can go wrong before the network is loaded is found here.


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run will do, fixed before the network is loaded.

    Attributes:
        out: Output folder.
        items: Files to work on.
        left_out: Paths that were not looked at.
        words: Words by position in ``items``; the others have none.
        laterality: Convention of words that bring none of their own.
        strict_text: Refuse words that name no zone.
        overwrite: Work again on what is finished.
        text_free: What pictures without words get, ``None`` for what the weights say.
        edit: Correction of the reports that the network writes.
        notices: Warnings about the run as a whole.
    """

    out: Path
    items: tuple[Item, ...]
    left_out: tuple[LeftOut, ...] = ()
    words: dict[int, Words] = field(default_factory=dict)
    laterality: Laterality = Laterality.PATIENT
    strict_text: bool = False
    overwrite: bool = False
    text_free: TextFree | None = None
    edit: str | None = None
    notices: tuple[Notice, ...] = ()

    @property
    def sides(self) -> list[Laterality]:
        """The conventions that the words of this run use."""
        used = {words.laterality or self.laterality for words in self.words.values()}
        return sorted(used | ({self.laterality} if self.edit is not None else set()))


def plan(
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    text: str | None = None,
    texts: TextTable | None = None,
    laterality: Laterality = Laterality.PATIENT,
    strict_text: bool = False,
    overwrite: bool = False,
    text_free: TextFree | None = None,
    edit: str | None = None,
) -> Plan:
    """Look at everything that can go wrong before the network is loaded.

    Args:
        inputs: Files, folders or patterns.
        out: Output folder; made if it is not there.
        text: Words for every picture.
        texts: Words by picture; pictures that it does not name go without.
        laterality: Whose left and right the words mean, where the table does not say.
        strict_text: Refuse words that name no zone.
        overwrite: Work again on what is finished.
        text_free: What pictures without words get, ``None`` for what the weights say.
        edit: Correction of the reports that the network writes, see `textray.inference.own_report`.

    Raises:
        UsageError: If an input does not exist, the table does not fit, or the correction is not understood.
        OutputError: If the output folder cannot be written to, or an input would be overwritten.
    """
    if edit is not None:
        check_edit(edit, laterality, text=text, text_free=text_free)
        if texts is not None:
            raise UsageError("both reports and a correction were given", expected="--texts or --edit")
    out = Path(out)
    items, left_out = collect(inputs, out)
    notices: list[Notice] = []
    words: dict[int, Words] = {}
    if texts is not None:
        words, unknown = texts.match([item.path for item in items])
        words = {i: found for i, found in words.items() if found.text is not None}
        notices = table_notices(texts, unknown)
    elif not is_blank(text):
        words = dict.fromkeys(range(len(items)), Words(text=text))
    check_writable(out)
    return Plan(
        out=out,
        items=tuple(items),
        left_out=tuple(left_out),
        words=words,
        laterality=laterality,
        strict_text=strict_text,
        overwrite=overwrite,
        text_free=text_free,
        edit=edit,
        notices=tuple(notices),
    )
