"""Phrases in many films: the plan and the run of `textray ground`."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from textray import __version__
from textray.errors import InputError, UsageError
from textray.inference import record, results
from textray.inference.ground_picture import draw
from textray.inference.inputs import Item, collect
from textray.inference.localizer import NOTHING_MARKED, Localization, Localizer, side_of
from textray.inference.results import GROUND_SCHEMA
from textray.inference.run import Run, RunPlan
from textray.io.files import LeftOut, plain_text
from textray.io.write import atomic_write, check_writable, write_mask, write_picture
from textray.metrics.grounding import SIGMA, Normalise, normalise
from textray.records import Grid, Image, Laterality, Notice
from textray.text.phrases import check
from textray.text.tables import TextTable, Words, no_match, read_columns, read_side, table_notices

MOST_OF_A_FILM = 20
"""Phrases that one picture may have: their maps lie in memory together, on its own grid."""
_WIDEST = 64.0
_COLUMNS = ("image", "phrase", "laterality")
_SHOWN = ("number", "phrase", "laterality", "told", "unknown_words", "peak", "mask")

_Mask = NDArray[np.bool_]


class Phrase(NamedTuple):
    """Words to look for, and whose left and right they mean, ``None`` for the convention of the run."""

    text: str
    laterality: Laterality | None = None


@dataclass(frozen=True, kw_only=True)
class GroundPlan(RunPlan):
    """A grounding as planned before the network is loaded."""

    phrases: tuple[tuple[Phrase, ...], ...]  # of each item
    sigma: float = SIGMA  # width of the smoothing, in cells of the network's map; 0 for none
    threshold: float | None = None  # value in [-1, 1] above which a pixel is in the mask, none for no mask
    normalise: Normalise = "minmax"  # how a map is scaled before the threshold

    @property
    def sides(self) -> list[Laterality]:
        """The conventions of the phrases of this run."""
        return sorted({phrase.laterality or self.laterality for phrases in self.phrases for phrase in phrases})


class Grounding(Run):
    """A grounding over a plan; the details of its results are the ``phrases``, in short."""

    SUMMARY, RECORD = "textray.ground-run/1", GROUND_SCHEMA
    plan: GroundPlan

    def __init__(self, localizer: Localizer, plan: GroundPlan) -> None:
        super().__init__(localizer.bundle, localizer.threads, plan)
        self.localizer = localizer

    def _places(self, number: int, folder: Path, name: str) -> dict[str, Path]:
        kinds = {"map": "ground.npy", "picture": "ground.png"}
        kinds |= {} if self.plan.threshold is None else {"mask": "ground.mask.png"}
        files = {
            f"{kind}.{phrase}": folder / f"{name}.{phrase}.{end}"
            for phrase in range(1, len(self.plan.phrases[number]) + 1)
            for kind, end in kinds.items()
        }
        return {**files, "record": folder / f"{name}{results.GROUND_RECORD}"}

    def _key(self, number: int, sha256: str) -> str:
        phrases = [[phrase.text, str(self._side(phrase))] for phrase in self.plan.phrases[number]]
        settings, bundle = self._settings(), self.localizer.bundle.sha256
        return record.digest({"input": sha256, "bundle": bundle, "phrases": phrases, "settings": settings})

    def _work(self, number: int, item: Item, places: Mapping[str, Path]) -> Mapping[str, Any]:
        start = time.perf_counter()
        phrases, place = self.plan.phrases[number], places["record"]
        image = self.localizer.preprocess.read(item.path)
        maps = self.localizer.locate(
            image,
            [phrase.text for phrase in phrases],
            laterality=[self._side(phrase) for phrase in phrases],
            sigma=self.plan.sigma,
        )
        masks = [self._mask(one) for one in maps]
        values = {
            **self._record(self._key(number, image.sha256), image, maps, masks),
            "seconds": round(time.perf_counter() - start, 4),
        }
        self._prepare(place.parent)
        writers = self._writers(image, maps, masks)
        writers["record"] = lambda path: results.write_record(path, values, places)
        # An earlier run may have had more phrases, or masks.
        results.write_together(places, writers, lambda: self._listed(place), lambda: self._claim(item, places))
        return values

    def _details(self, values: Mapping[str, Any] | None) -> dict[str, Any]:
        phrases = [] if values is None else values["phrases"]
        return {"phrases": [{key: phrase[key] for key in _SHOWN} for phrase in phrases]}

    def _remove(self, number: int, folder: Path, name: str) -> None:
        place = folder / f"{name}{results.GROUND_RECORD}"
        if self._read(place) is not None:
            for path in (place, *self._listed(place)):
                path.unlink(missing_ok=True)

    def _summary_settings(self) -> dict[str, Any]:
        return {**self._settings(), "laterality": str(self.plan.laterality)}

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

    def _mask(self, one: Localization) -> _Mask | None:
        threshold = self.plan.threshold
        return None if threshold is None else np.asarray(normalise(one.map, self.plan.normalise) > threshold)

    def _writers(
        self, image: Image, maps: Sequence[Localization], masks: Sequence[_Mask | None]
    ) -> dict[str, Callable[[Path], None]]:
        writers: dict[str, Callable[[Path], None]] = {}
        for number, (one, mask) in enumerate(zip(maps, masks, strict=True), 1):
            writers[f"map.{number}"] = partial(_write_map, values=one.map)
            writers[f"picture.{number}"] = partial(self._draw, image=image, one=one, mask=mask)
            if mask is not None:
                writers[f"mask.{number}"] = partial(write_mask, mask=mask)
        return writers

    def _draw(self, path: Path, *, image: Image, one: Localization, mask: _Mask | None) -> None:
        plan = self.plan
        how = "the map stretched to [-1, 1]" if plan.normalise == "minmax" else "the cosine"
        rule = ""
        if mask is not None:
            rule = f"Outline: where {how} is above {plan.threshold:g}" + ("." if mask.any() else ", which is nowhere.")
        write_picture(path, draw(image.film, one, image.grid, mask=mask, rule=rule))

    def _record(
        self, key: str, image: Image, maps: Sequence[Localization], masks: Sequence[_Mask | None]
    ) -> dict[str, Any]:
        of_phrases = [notice for one in maps for notice in one.notices]
        of_image = record.without(image.notices, of_phrases)
        if self.plan.threshold is None:  # no area is measured
            of_image = [notice for notice in of_image if notice.code != "W_UNCALIBRATED"]
        nothing = [NOTHING_MARKED] if any(mask is not None and not mask.any() for mask in masks) else []
        settings = self._settings()
        return {
            "schema": GROUND_SCHEMA,
            "textray": __version__,
            "key": key,
            **record.film(image),
            "model": self.localizer.bundle.describe(),
            "sides": {
                "taught": str(self.localizer.laterality),
                "film_sides_from": image.grid.sides_from,
                "patients_left": _patients_left(image.grid),
            },
            "phrases": [
                _describe(number, one, mask, image.grid)
                for number, (one, mask) in enumerate(zip(maps, masks, strict=True), 1)
            ],
            "warnings": record.notice_rows([*of_image, *nothing, *of_phrases]),
            "settings": settings,
            "settings_sha256": record.digest(settings),
        }

    def _listed(self, place: Path) -> list[Path]:
        """Files that an earlier record lists and that can be its own: a record is data from elsewhere."""
        listed = (self._read(place) or {}).get("outputs")
        names = listed.values() if isinstance(listed, dict) else ()
        files = [(file, results.GROUND_FILE.fullmatch(file)) for file in names if isinstance(file, str)]
        name = place.name.removesuffix(results.GROUND_RECORD)
        return [place.with_name(file) for file, match in files if match is not None and match["name"] == name]


def _describe(number: int, one: Localization, mask: _Mask | None, grid: Grid) -> dict[str, Any]:
    """A phrase and its map for the record."""
    row, column = one.peak
    side, left = side_of(one.peak, grid), _patients_left(grid)
    patient = None if left is None else "left" if side == left else "right"
    return {
        "number": number,
        "phrase": plain_text(one.phrase.phrase),
        "laterality": str(one.phrase.laterality),
        "viewer": None if one.phrase.viewer is None else plain_text(one.phrase.viewer),
        "told": plain_text(one.told),
        "unknown_words": list(one.unknown),
        "map": {
            "min": round(float(one.map.min()), 6),
            "max": round(float(one.map.max()), 6),
            "mean": round(float(one.map.mean(dtype=np.float64)), 6),
        },
        "peak": {
            "row": row,
            "column": column,
            "value": round(one.score, 6),
            "side": {"viewer": side, "patient": patient},
        },
        "mask": None if mask is None else record.area(mask, grid),
    }


def _patients_left(grid: Grid) -> str | None:
    """The viewer's side on which the patient's left lies, ``None`` if it lies on neither."""
    return None if grid.sides_from == "undefined" else "right" if grid.mirrored else "left"


def _write_map(path: Path, *, values: NDArray[np.float32]) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(values, np.float32), allow_pickle=False)
    atomic_write(path, buffer.getvalue())


@dataclass(frozen=True, kw_only=True)
class PhraseTable:
    """Phrases by image name, as many for one image as there are rows."""

    names: TextTable  # with the line of each one's first row, as a table that can be matched
    phrases: dict[int, tuple[Phrase, ...]]  # by that line

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
            phrase = Phrase(_checked(text, f"{table.path} line {line}"), read_side(table.path, line, values))
            at = first.setdefault(name, line)
            phrases[at] = (*phrases.get(at, ()), phrase)
        rows = {name: Words(text=None, line=line) for name, line in first.items()}
        names = TextTable(path=table.path, rows=rows, encoding=table.encoding)
        return cls(names=names, phrases=phrases)

    def match(self, paths: Sequence[Path]) -> tuple[list[tuple[Phrase, ...]], list[str]]:
        """Phrases of each path, and the image names of the table that match none."""
        lines, unknown = self.names.match_all(paths)
        phrases = [
            tuple(phrase for words in lines.get(i, ()) for phrase in self.phrases[words.line])
            for i in range(len(paths))
        ]
        return phrases, unknown


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
    """Plan a grounding; refuses whatever can be refused before the network is loaded.

    The phrases are for every picture, or by picture from a table, which leaves out pictures that it does not name.

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
    for_all = tuple(Phrase(_checked(text, "--phrase")) for text in phrases)
    out = Path(out)
    items, left_out = collect(inputs, out)
    of_items = [for_all] * len(items)
    notices: list[Notice] = []
    if table is not None:
        of_items, unknown = table.match([item.path for item in items])
        notices = table_notices(table.names, unknown)
        left_out += [
            LeftOut(path=item.path, code="W_NO_PHRASE", reason="the table has no phrase for it")
            for item, phrases_of in zip(items, of_items, strict=True)
            if not phrases_of
        ]
        if not any(of_items):
            raise no_match(table.names)
    most = max(map(len, of_items), default=0)
    if most > MOST_OF_A_FILM:
        raise UsageError("too many phrases for one picture", came=most, expected=f"at most {MOST_OF_A_FILM}")
    check_writable(out)
    pairs = [(item, phrases_of) for item, phrases_of in zip(items, of_items, strict=True) if phrases_of]
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
