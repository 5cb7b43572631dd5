"""What a grounding run will do: phrases by picture, from the command line or a table ``image,phrase[,laterality]``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from textray.data.texts import TextTable, Words, read_columns, read_side, table_notices
from textray.errors import InputError, UsageError
from textray.inference.inputs import Item, collect
from textray.inference.phrases import check
from textray.io.walk import LeftOut
from textray.io.write import check_writable
from textray.metrics.score_map import SIGMA, Normalise
from textray.records import Laterality, Notice

MOST_OF_A_FILM = 20
"""Phrases that one picture may have: their maps lie in memory together, on its own grid."""
_WIDEST = 64.0
_COLUMNS = ("image", "phrase", "laterality")


@dataclass(frozen=True, kw_only=True)
class Phrase:
    """Words to look for.

    Attributes:
        text: The words.
        laterality: Whose left and right they mean, ``None`` where nobody said.
    """

    text: str
    laterality: Laterality | None = None


@dataclass(frozen=True, kw_only=True)
class GroundPlan:
    """What a run will do, fixed before the network is loaded.

    Attributes:
        out: Output folder.
        items: Files to work on.
        left_out: Paths that were not looked at, and pictures without a phrase.
        phrases: Phrases of each item.
        laterality: Convention of phrases that bring none of their own.
        sigma: Width of the smoothing, in cells of the network's map.
        threshold: Value above which a pixel is in the mask, ``None`` for no mask.
        normalise: What is done to a map before the threshold.
        overwrite: Work again on what is finished.
        notices: Warnings about the run as a whole.
    """

    out: Path
    items: tuple[Item, ...]
    phrases: tuple[tuple[Phrase, ...], ...]
    left_out: tuple[LeftOut, ...] = ()
    laterality: Laterality = Laterality.PATIENT
    sigma: float = SIGMA
    threshold: float | None = None
    normalise: Normalise = "minmax"
    overwrite: bool = False
    notices: tuple[Notice, ...] = field(default=())

    @property
    def sides(self) -> list[Laterality]:
        """The conventions that the phrases of this run use."""
        return sorted({phrase.laterality or self.laterality for phrases in self.phrases for phrase in phrases})


@dataclass(frozen=True, kw_only=True)
class PhraseTable:
    """Phrases by image name, as many for one image as there are rows.

    Attributes:
        names: The image names with the line of each one's first row, as a table that can be matched.
        phrases: Phrases by that line.
    """

    names: TextTable
    phrases: dict[int, tuple[Phrase, ...]]

    @classmethod
    def read(cls, path: str | Path) -> PhraseTable:
        """Read a CSV ``image,phrase[,laterality]``; see `textray.data.texts.read_columns`.

        Raises:
            UsageError: If it cannot be read, lacks a column, or has an image or a phrase alone in a row.
        """
        table = read_columns(path, _COLUMNS, needed=2)
        first: dict[str, int] = {}
        phrases: dict[int, tuple[Phrase, ...]] = {}
        for line, values in table.rows:
            name, text = values.get("image", "").strip(), values.get("phrase", "").strip()
            if not name and not text:
                continue
            if not name or not text:
                raise UsageError(
                    f"{table.path} line {line} has no {'phrase' if name else 'image name'}",
                    expected="an image and a phrase in each row",
                )
            phrase = Phrase(
                text=_checked(text, f"{table.path} line {line}"), laterality=read_side(table.path, line, values)
            )
            at = first.setdefault(name, line)
            phrases[at] = (*phrases.get(at, ()), phrase)
        names = TextTable(
            path=table.path,
            rows={name: Words(text=None, line=line) for name, line in first.items()},
            encoding=table.encoding,
            delimiter=table.delimiter,
        )
        return cls(names=names, phrases=phrases)


def plan_grounding(
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    phrases: Sequence[str] = (),
    table: PhraseTable | None = None,
    laterality: Laterality = Laterality.PATIENT,
    sigma: float = SIGMA,
    threshold: float | None = None,
    normalise: Normalise = "minmax",
    overwrite: bool = False,
) -> GroundPlan:
    """Look at everything that can go wrong before the network is loaded.

    Args:
        inputs: Files, folders or patterns.
        out: Output folder; made if it is not there.
        phrases: Phrases for every picture.
        table: Phrases by picture, instead; pictures that it does not name are left out.
        laterality: Whose left and right phrases mean, where the table does not say.
        sigma: Width of the smoothing, in cells of the network's map; 0 for none.
        threshold: Value in [-1, 1] above which a pixel is in the mask; ``None`` writes no mask.
        normalise: What is done to a map before the threshold.
        overwrite: Work again on what is finished.

    Raises:
        UsageError: If an input does not exist, there is no phrase or one without words, the table does not fit, or a
            number is out of range.
        OutputError: If the output folder cannot be written to.
    """
    if bool(phrases) == (table is not None):
        raise UsageError(
            "no phrase was given" if table is None else "both phrases and a table of phrases were given",
            expected="--phrase, once or more, or --table",
            do='Say what to look for, such as --phrase "opacity in the right lower zone"',
        )
    if not (math.isfinite(sigma) and 0 <= sigma <= _WIDEST):
        raise UsageError("width of the smoothing is wrong", came=sigma, expected=f"0 to {_WIDEST:g} cells of the map")
    if threshold is not None and not -1 <= threshold < 1:
        raise UsageError("threshold is wrong", came=threshold, expected="a number from -1 to below 1")
    for_all = tuple(Phrase(text=_checked(text, "--phrase")) for text in phrases)
    out = Path(out)
    items, left_out = collect(inputs, out)
    asked = [for_all] * len(items)
    notices: list[Notice] = []
    if table is not None:
        found, unknown = table.names.match_all([item.path for item in items])
        asked = [
            tuple(phrase for row in found.get(i, ()) for phrase in table.phrases[row.line]) for i in range(len(items))
        ]
        notices = table_notices(table.names, unknown)
        left_out += [
            LeftOut(path=item.path, code="W_NO_PHRASE", reason="the table has no phrase for it")
            for item, phrases_of in zip(items, asked, strict=True)
            if not phrases_of
        ]
        if not any(asked):
            raise UsageError(f"{table.names.path} names none of the inputs", do="Write image names as they are given")
    most = max(map(len, asked), default=0)
    if most > MOST_OF_A_FILM:
        raise UsageError("too many phrases for one picture", came=most, expected=f"at most {MOST_OF_A_FILM}")
    check_writable(out)
    pairs = [(item, phrases_of) for item, phrases_of in zip(items, asked, strict=True) if phrases_of]
    return GroundPlan(
        out=out,
        items=tuple(item for item, _ in pairs),
        phrases=tuple(phrases_of for _, phrases_of in pairs),
        left_out=tuple(left_out),
        laterality=laterality,
        sigma=sigma,
        threshold=threshold,
        normalise=normalise,
        overwrite=overwrite,
        notices=tuple(notices),
    )


def _checked(text: str, where: str) -> str:
    try:
        return check(text)
    except InputError as error:
        raise UsageError(f"{where}: {error.what}", came=error.came, expected=error.expected, do=error.do) from error
