"""Phrases in many films: what `textray ground` does with each of them."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textray import __version__
from textray.inference import outputs, phrase_notices, record
from textray.inference.ground_picture import draw
from textray.inference.ground_plan import GroundPlan, Phrase
from textray.inference.inputs import Item
from textray.inference.localizer import Localization, Localizer
from textray.inference.outputs import GROUND_SCHEMA
from textray.inference.run import Outcome, Run, Status, same_file
from textray.io.names import mark, plain_text
from textray.io.write import atomic_write, is_own_picture, write_json, write_mask, write_picture
from textray.metrics.score_map import normalise
from textray.records import Grid, Image, Laterality

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
        earlier = outputs.read_record(places["record"], GROUND_SCHEMA)
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
        outputs.write_together(places, self._writers(image, found, masks, values))
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
            found = outputs.read_record(place, GROUND_SCHEMA)
            return item.name if found and same_file(found.get("input", {}).get("path"), item.path) else marked
        pictures = [path for path in places.values() if path.suffix == ".png"]
        return marked if any(path.exists() and not is_own_picture(path) for path in pictures) else item.name

    def remove(self, folder: Path, name: str) -> None:
        """Remove an earlier result of a file that is now refused, the record first."""
        place = _record_path(folder, name)
        earlier = outputs.read_record(place, GROUND_SCHEMA)
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
            notices.append(phrase_notices.NOTHING_MARKED)
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
        side = phrase_notices.side_of(found.peak, grid)
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
    return folder / f"{name}{outputs.GROUND_RECORD}"


def _listed(folder: Path, name: str, found: Mapping[str, Any] | None) -> list[Path]:
    """Files that a record of this name lists and that can be its own: a record is data from elsewhere."""
    listed = (found or {}).get("outputs")
    names = listed.values() if isinstance(listed, dict) else ()
    files = [(file, outputs.GROUND_FILE.fullmatch(file)) for file in names if isinstance(file, str)]
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
