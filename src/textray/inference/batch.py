"""Segmentation of many pictures: what `textray segment` does with each of them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textray.data.texts import Words
from textray.inference import outputs, record
from textray.inference.inputs import Item
from textray.inference.plan import Plan
from textray.inference.predictor import Predictor
from textray.inference.run import Outcome, Run, Status, same_file
from textray.io.names import mark
from textray.io.write import is_own_picture
from textray.records import Laterality

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
        outputs.remove(folder, name)

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

    def free_name(self, folder: Path, item: Item) -> str:
        """The item's name, marked where an earlier run gave it to another input or a foreign file has it."""
        places = outputs.paths(folder, item.name, attention=self.predictor.tells_attention)
        marked = f"{item.name}-{mark(item.path)}"
        place = places.pop("record")
        if not place.exists():  # pictures of a killed run may be overwritten, a user's own may not
            return marked if any(path.exists() and not is_own_picture(path) for path in places.values()) else item.name
        found = outputs.read_record(place)
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
