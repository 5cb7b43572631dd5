"""Where the text of an evaluation comes from: a score without its text mode means nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np

from textray.data.base import Sample
from textray.errors import UsageError, unknown_name
from textray.records import Report, Zones


class TextMode(StrEnum):
    """Where the text of an evaluation comes from."""

    ORACLE = "oracle"
    NONE = "none"
    SHUFFLED = "shuffled"
    GENERATED = "generated"


@dataclass(frozen=True)
class Caption:
    """A free caption, told as it stands."""

    text: str


Told = Zones | Caption | Literal["own"] | None
"""What a network is told about an image: zones, or a free caption; ``None``, no text; ``own``, that it is to write its
own report."""

MEANINGS = {
    TextMode.ORACLE: "the data set's own caption, which tells where the lesions are",
    TextMode.NONE: "no text at all",
    TextMode.SHUFFLED: "the caption of another image of the split, naming other zones (seeded)",
    TextMode.GENERATED: "the report that the model writes itself from the image; no text where it finds nothing",
}
FREE_MEANINGS = MEANINGS | {TextMode.SHUFFLED: "the caption of another image of the split, another one (seeded)"}
"""The same for data sets with free captions."""


def parse_modes(names: Iterable[str]) -> tuple[TextMode, ...]:
    """Text modes by name, each once, in the order given.

    Raises:
        UsageError: If a name is unknown or none is given.
    """
    modes = []
    for name in dict.fromkeys(names):
        if name not in list(TextMode):
            raise unknown_name("text mode", name, TextMode)
        modes.append(TextMode(name))
    if not modes:
        raise UsageError("no text mode given", expected="one or more of " + ", ".join(TextMode))
    return tuple(modes)


def refuse_generated() -> UsageError:
    """The error for a model that is asked for a report of its own and writes none."""
    return UsageError(
        "text mode 'generated' needs a model that writes its own report, and this model has no report generator",
        expected=", ".join(mode for mode in TextMode if mode is not TextMode.GENERATED),
        do="Leave --text-mode generated out; 'none' scores the model without text.",
    )


def told_of(report: Report) -> Zones | Caption | None:
    """What a network is told of a report; ``None`` where it names no zone, or there is no caption."""
    if report.free:
        return Caption(report.text) if report.text is not None else None
    return report.zones if report.zones else None


def mode_texts(samples: Sequence[Sample], mode: TextMode, *, seed: int) -> dict[int, Told]:
    """What the network is told about each sample in a mode.

    Shuffled: each sample gets the caption of another sample that names other zones (of free captions: that is another
    one), drawn evenly from all such samples.
    The draw depends on seed and ids alone, not on the order of the samples.

    Raises:
        UsageError: If captions are to be shuffled and all name the same zones, or none.
    """
    if mode is TextMode.NONE:
        return dict.fromkeys(range(len(samples)))
    if mode is TextMode.GENERATED:
        return dict.fromkeys(range(len(samples)), "own")
    own = {i: told_of(sample.report) for i, sample in enumerate(samples)}
    if mode is TextMode.ORACLE:
        return dict(own)
    order = sorted(own, key=lambda i: samples[i].image_id)
    captions = {_key(told) for told in own.values() if told}
    donors_of = {key: [i for i in order if (told := own[i]) and _key(told) != key] for key in (0, *captions)}
    rng = np.random.default_rng(seed)
    drawn: dict[int, Told] = {}
    for i in order:
        mine = own[i]
        others = donors_of[_key(mine) if mine else 0]
        if not others:
            raise UsageError(
                "captions cannot be shuffled: no other image of the split "
                + ("has another one" if samples[i].report.free else "names other zones"),
                came=f"{len(samples)} images, {len(captions)} different captions",
                expected="at least two different captions",
            )
        drawn[i] = own[others[int(rng.integers(len(others)))]]
    return {i: drawn[i] for i in own}


def _key(told: Zones | Caption) -> int | str:
    """What makes texts the same: zones, or words whatever their case and blanks."""
    return " ".join(told.text.casefold().split()) if isinstance(told, Caption) else told.index
