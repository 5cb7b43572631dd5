"""The order of an evaluation, and what the summaries of both tasks share.

An order names weights, data and settings. It renders itself as the command line that a table prints.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from textray import __version__, registry
from textray.data.base import Reader, Sample, check_wording, fingerprint, open_reader
from textray.errors import UsageError
from textray.metrics import intervals
from textray.provenance import git_state

Progress = Callable[[int, int], None]
"""Called with the number of images or phrases done and of all."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Order of an evaluation of either task; its fields are the options of `textray evaluate`.

    Attributes:
        root: Folder of the data set; ``None`` for a data set that is drawn, such as ``phantom``.
        model: Name of weights inside the package, or a bundle folder; ``None`` for the default weights.
        captions: Wording of the captions (``revised`` or ``original``); ``None`` for the data set's first.
        missing_captions: Caption policy of the reader (``error``, ``skip``, ``text-free``).
        split_by: How the data set is cut (``slice`` or ``volume`` for CT); ``None`` for its first way.
        threads: Threads of the network; ``None`` for one per processor.
        limit: Number of samples to score, spread evenly over the split; ``None`` for all.
    """

    SAMPLE: ClassVar[str]
    """What is scored: an image or a phrase."""
    COMMAND: ClassVar[str] = "textray evaluate"
    OPTIONS: ClassVar[tuple[str, ...]]
    """Fields in their order on the command line."""

    data: str
    root: Path | None = None
    split: str
    out: Path
    model: str | Path | None = None
    captions: str | None = None
    missing_captions: str = "error"
    split_by: str | None = None
    threads: int | None = None
    limit: int | None = None

    @property
    def command(self) -> str:
        """Command line of this run; placeholders stand for folders, since a path may name persons."""
        defaults = {field.name: field.default for field in fields(self)}
        shown = {"root": "ROOT", "out": "OUT", "model": Path(self.model or "").name}
        words = self.COMMAND.split()
        for name in self.OPTIONS:
            value = getattr(self, name)
            if value != defaults[name]:
                option = f"--{name.replace('_', '-')}"
                values = value if isinstance(value, tuple) else (shown.get(name, value),)
                words += [option] if value is True else [word for v in values for word in (option, str(v))]
        return shlex.join(words)

    def open_reader(self) -> Reader:
        """Open the data set; several wordings of captions at once are refused, as by `check_wording`."""
        captions = None if self.captions is None else check_wording(self.data, self.captions, both=False)
        return open_reader(
            self.data, self.root, captions=captions, missing_captions=self.missing_captions, split_by=self.split_by
        )

    def choose(self, samples: list[Sample]) -> list[Sample]:
        """All samples, or `limit` of them at even distances; none, or a limit below 1, is a `UsageError`."""
        if not samples:
            raise UsageError(
                f"split {self.split} of {self.data} holds no {self.SAMPLE}",
                do=f"See {registry.dataset(self.data).card}.",
            )
        if self.limit is None or self.limit >= len(samples):
            return samples
        if self.limit < 1:
            raise UsageError(f"limit of {self.SAMPLE}s is wrong", came=self.limit, expected="1 or more")
        return [samples[i * len(samples) // self.limit] for i in range(self.limit)]

    def facts(self, ids: Iterable[str], **data: object) -> dict[str, Any]:
        """Version, data with the hash of its samples' ``ids``, command and commit for the summary."""
        row = registry.dataset(self.data)
        return {
            "textray": __version__,
            "data": {
                "name": self.data,
                "split": self.split,
                "split_by": self.split_by or next(iter(row.protocols), None),
                "captions": check_wording(self.data, self.captions, both=False),
                **data,
                "laterality": row.laterality,
                "ids_sha256": fingerprint(ids),
                "limit": self.limit,
            },
            "command": self.command,
            "git": git_state(Path(__file__).parent),
        }


def population(samples: Iterable[Sample]) -> dict[str, Any]:
    """Numbers of images and patients, and the estimator of the intervals, for the summary."""
    patients = {sample.image_id: sample.patient_id for sample in samples}
    return {
        "images": len(patients),
        "patients": len(set(patients.values()) - {None}),
        "images_without_patient": list(patients.values()).count(None),
        "estimator": intervals.ESTIMATOR,
        "draws": intervals.DRAWS,
        "seed": intervals.SEED,
    }
