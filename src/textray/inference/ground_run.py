"""Phrases in many films: what `textray ground` does with each of them."""

from __future__ import annotations

import io
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textray import __version__
from textray.errors import InputError, UsageError
from textray.inference import record, results
from textray.inference.ground_picture import draw
from textray.inference.inputs import Item, collect
from textray.inference.localizer import NOTHING_MARKED, Localization, Localizer, side_of
from textray.inference.results import GROUND_SCHEMA
from textray.inference.run import Outcome, Run, Status, same_file
from textray.io.files import LeftOut, mark, plain_text
from textray.io.write import atomic_write, check_writable, is_own_picture, write_json, write_mask, write_picture
from textray.metrics.grounding import SIGMA, Normalise, normalise
from textray.records import Grid, Image, Laterality, Notice
from textray.text.phrases import check
from textray.text.tables import TextTable, Words, read_columns, read_side, table_notices

RUN_SCHEMA = "textray.ground-run/1"

_Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class GroundRow(Outcome):
    """What became of one input.

    Attributes:
        phrases: For each phrase its words, what the network was told, and the peak; where done or finished.
    """

    phrases: tuple[Mapping[str, Any], ...] = ()

    def found(self) -> dict[str, Any]:
        """What was found of each phrase."""
        return {"phrases": [dict(phrase) for phrase in self.phrases]}


class Grounding(Run[GroundRow]):
    """A run over a plan.

    Args:
        localizer: The loaded network.
        plan: What to do.
    """

    def __init__(self, localizer: Localizer, plan: GroundPlan) -> None:
        super().__init__(
            GroundRow, RUN_SCHEMA, out=plan.out, items=plan.items, left_out=plan.left_out, notices=plan.notices
        )
        self.localizer, self.plan = localizer, plan
        self._counts = {item.path: len(phrases) for item, phrases in zip(plan.items, plan.phrases, strict=True)}
        self._sources = {os.path.realpath(item.path) for item in plan.items}

    def work(self, number: int, item: Item, folder: Path, name: str) -> GroundRow:
        """Find the phrases in an item, or find that an earlier run did."""
        start = time.perf_counter()
        phrases = self.plan.phrases[number]
        places = self._places(folder, name, len(phrases))
        earlier = results.read_record(places["record"], GROUND_SCHEMA)
        if earlier is not None and not self.plan.overwrite and all(path.is_file() for path in places.values()):
            sha256 = record.file_sha256(item.path)
            if sha256 is not None and earlier.get("key") == self._key(sha256, phrases):
                return _row(item, "finished", earlier, places, start)
        image = self.localizer.preprocess.read(item.path)
        found = self.localizer.locate(
            image,
            [phrase.text for phrase in phrases],
            laterality=[self._side(phrase) for phrase in phrases],
            sigma=self.plan.sigma,
        )
        masks = [self._mask(one) for one in found]
        values = self._record(image, phrases, found, masks, places, time.perf_counter() - start)
        self.prepare(folder)
        results.write_together(places, self._writers(image, found, masks, values))
        for path in _listed(folder, name, earlier):  # of an earlier run with more phrases, or with masks
            if path not in places.values():
                path.unlink(missing_ok=True)
        return _row(item, "done", values, places, start)

    def free_name(self, folder: Path, item: Item) -> str:
        """The item's name, marked where results of it would take the place of another input's or a user's files."""
        marked = f"{item.name}-{mark(item.path)}"
        places = self._places(folder, item.name, self._counts[item.path])
        if any(os.path.realpath(path) in self._sources for path in places.values()):
            return marked
        place = places.pop("record")
        if place.exists():
            found = results.read_record(place, GROUND_SCHEMA)
            return item.name if found and same_file(found.get("input", {}).get("path"), item.path) else marked
        pictures = [path for path in places.values() if path.suffix == ".png"]
        return marked if any(path.exists() and not is_own_picture(path) for path in pictures) else item.name

    def remove(self, folder: Path, name: str) -> None:
        """Remove an earlier result of a file that is now refused, the record first."""
        place = _record_path(folder, name)
        earlier = results.read_record(place, GROUND_SCHEMA)
        if earlier is not None:
            place.unlink(missing_ok=True)
            for path in _listed(folder, name, earlier):
                path.unlink(missing_ok=True)

    def about(self) -> dict[str, Any]:
        """What the summary says of model, threads and settings."""
        return {
            "model": self.localizer.bundle.describe(),
            "threads": self.localizer.threads,
            "settings": {**self._settings(), "laterality": str(self.plan.laterality)},
        }

    def _settings(self) -> dict[str, Any]:
        """Everything besides picture, phrases and weights that can change a result."""
        plan = self.plan
        return {
            "textray": __version__,
            "sigma": plan.sigma,
            "threshold": plan.threshold,
            "normalise": None if plan.threshold is None else plan.normalise,
            "preprocess": self.localizer.preprocess.to_dict(),
        }

    def _side(self, phrase: Phrase) -> Laterality:
        return phrase.laterality or self.plan.laterality

    def _key(self, sha256: str, phrases: Sequence[Phrase]) -> str:
        return record.digest(
            {
                "input": sha256,
                "bundle": self.localizer.bundle.sha256,
                "phrases": [[phrase.text, str(self._side(phrase))] for phrase in phrases],
                "settings": self._settings(),
            }
        )

    def _places(self, folder: Path, name: str, count: int) -> dict[str, Path]:
        """Files of a result by kind; the record comes last: where it is, the result is complete."""
        kinds = {"map": "ground.npy", "picture": "ground.png"}
        kinds |= {} if self.plan.threshold is None else {"mask": "ground.mask.png"}
        files = {
            f"{kind}.{number}": folder / f"{name}.{number}.{end}"
            for number in range(1, count + 1)
            for kind, end in kinds.items()
        }
        return {**files, "record": _record_path(folder, name)}

    def _mask(self, found: Localization) -> _Mask | None:
        threshold = self.plan.threshold
        return None if threshold is None else np.asarray(normalise(found.map, self.plan.normalise) > threshold)

    def _writers(
        self, image: Image, found: Sequence[Localization], masks: Sequence[_Mask | None], values: Mapping[str, Any]
    ) -> dict[str, Callable[[Path], None]]:
        writers: dict[str, Callable[[Path], None]] = {"record": partial(write_json, obj=values)}
        for number, (one, mask) in enumerate(zip(found, masks, strict=True), 1):
            writers[f"map.{number}"] = partial(_write_map, values=one.map)
            writers[f"picture.{number}"] = partial(self._draw, image=image, found=one, mask=mask)
            if mask is not None:
                writers[f"mask.{number}"] = partial(write_mask, mask=mask)
        return writers

    def _draw(self, path: Path, *, image: Image, found: Localization, mask: _Mask | None) -> None:
        plan = self.plan
        how = "the map stretched to [-1, 1]" if plan.normalise == "minmax" else "the cosine"
        rule = ""
        if mask is not None:
            rule = f"Outline: where {how} is above {plan.threshold:g}" + ("." if mask.any() else ", which is nowhere.")
        write_picture(path, draw(image.pixels, found, image.grid, mask=mask, rule=rule))

    def _record(
        self,
        image: Image,
        phrases: Sequence[Phrase],
        found: Sequence[Localization],
        masks: Sequence[_Mask | None],
        places: Mapping[str, Path],
        seconds: float,
    ) -> dict[str, Any]:
        told = {notice.code for one in found for notice in one.notices}  # they say what the reader's mean for phrases
        if self.plan.threshold is None:
            told.add("W_UNCALIBRATED")  # no area is measured
        notices = [notice for notice in image.notices if notice.code not in told]
        if any(mask is not None and not mask.any() for mask in masks):
            notices.append(NOTHING_MARKED)
        used = self._settings()
        return {
            "schema": GROUND_SCHEMA,
            "textray": __version__,
            "key": self._key(image.sha256, phrases),
            **record.film(image),
            "model": self.localizer.bundle.describe(),
            "sides": {
                "taught": str(self.localizer.laterality),
                "film_sides_from": image.grid.sides_from,
                "patients_left": _patients_left(image.grid),
            },
            "phrases": [
                self._describe(number, one, mask, image.grid)
                for number, (one, mask) in enumerate(zip(found, masks, strict=True), 1)
            ],
            "warnings": record.notice_rows([*notices, *(notice for one in found for notice in one.notices)]),
            "settings": used,
            "settings_sha256": record.digest(used),
            "seconds": round(seconds, 4),
            "outputs": {kind: path.name for kind, path in places.items()},
        }

    @staticmethod
    def _describe(number: int, found: Localization, mask: _Mask | None, grid: Grid) -> dict[str, Any]:
        row, column = found.peak
        side = side_of(found.peak, grid)
        return {
            "number": number,
            "phrase": plain_text(found.phrase.phrase),
            "laterality": str(found.phrase.laterality),
            "viewer": None if found.phrase.viewer is None else plain_text(found.phrase.viewer),
            "told": plain_text(found.told),
            "unknown_words": list(found.unknown),
            "map": {
                "min": round(float(found.map.min()), 6),
                "max": round(float(found.map.max()), 6),
                "mean": round(float(found.map.mean(dtype=np.float64)), 6),
            },
            "peak": {
                "row": row,
                "column": column,
                "value": round(found.score, 6),
                "side": {"viewer": side, "patient": _patient_side(side, grid)},
            },
            "mask": None if mask is None else record.area(mask, grid),
        }


def _patients_left(grid: Grid) -> str | None:
    """The viewer's side on which the patient's left lies, ``None`` where it lies on neither."""
    return None if grid.sides_from == "undefined" else "right" if grid.mirrored else "left"


def _patient_side(viewer: str, grid: Grid) -> str | None:
    left = _patients_left(grid)
    return None if left is None else "left" if viewer == left else "right"


def _record_path(folder: Path, name: str) -> Path:
    return folder / f"{name}{results.GROUND_RECORD}"


def _listed(folder: Path, name: str, found: Mapping[str, Any] | None) -> list[Path]:
    """Files that a record of this name lists and that can be its own: a record is data from elsewhere."""
    listed = (found or {}).get("outputs")
    names = listed.values() if isinstance(listed, dict) else ()
    files = [(file, results.GROUND_FILE.fullmatch(file)) for file in names if isinstance(file, str)]
    return [folder / file for file, match in files if match is not None and match["name"] == name]


def _write_map(path: Path, *, values: NDArray[np.float32]) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(values, np.float32), allow_pickle=False)
    atomic_write(path, buffer.getvalue())


def _row(item: Item, status: Status, found: Mapping[str, Any], written: dict[str, Path], start: float) -> GroundRow:
    told = ("number", "phrase", "laterality", "told", "unknown_words", "peak", "mask")
    return GroundRow(
        path=item.path,
        status=status,
        outputs=written,
        phrases=tuple({key: phrase[key] for key in told} for phrase in found["phrases"]),
        warnings=tuple(found["warnings"]),
        seconds=time.perf_counter() - start,
    )


# What a grounding run will do: phrases by picture, from the command line or a table ``image,phrase[,laterality]``.

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
        """Read a CSV ``image,phrase[,laterality]``; see `textray.text.tables.read_columns`.

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
