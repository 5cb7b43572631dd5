"""Chest films of several places, healthy ones among them: a label for each film, for some a mask of the lungs.

No lesion is drawn in them, so they cannot train or score a segmenter by themselves. Layout, counts and terms:
docs/datasets/chest_films.md.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from textray.data.base import (
    PartName,
    Problem,
    Reader,
    Sample,
    check_split,
    draw_order,
    part_of,
)
from textray.data.boxes import read_table
from textray.data.folders import folders

TABLE = "films.csv"
NORMAL = "normal"
_VAL, _TEST = 0.1, 0.2  # shares of the patients of each source and label


@dataclass(frozen=True, kw_only=True)
class Film:
    """One row of the table."""

    image_id: str
    file: str  # below the root
    source: str
    patient: str
    label: str
    lungs: str | None  # below the root
    line: int


class ChestFilms(Reader):
    """Reader of films with a table of their labels.

    Of the patients of each source and label a fifth is `test`, a tenth `val`, the rest `train`, by a hash of their
    names: the same ones on every machine, whatever ``seed`` is.

    Args:
        root: The folder that holds films.csv, or the one it lies in.
        captions: Without effect on a data set that has no captions.
        seed: Chooses the patients of `inner`.
    """

    name = "chest_films"

    def __init__(self, root: str | Path, *, captions: str = "error", seed: int = 0) -> None:
        super().__init__(_find_root(Path(root)), captions=captions, seed=seed)

    def samples(self, split: str) -> list[Sample]:
        """Films of a split in the order of the table, without masks of lesions and without captions.

        Raises:
            UsageError: If there is no such split.
            DataError: If a row is faulty, or a film or a mask of lungs that it names is missing.
        """
        wanted = check_split(split)
        films, problems = self._surveyed
        self._refuse(problems)
        kept = [film for film in films if self._parts[film.patient] == part_of(wanted)]
        return [
            Sample(
                image_id=film.image_id,
                image_path=self.root / film.file,
                patient_id=film.patient,
                label=film.label,
                source=film.source,
                finding=film.label != NORMAL,
                lungs_path=None if film.lungs is None else self.root / film.lungs,
                split=wanted,
            )
            for film in self._cut_train(kept, wanted, lambda film: film.patient)
        ]

    @cached_property
    def _parts(self) -> dict[str, PartName]:
        """The part of each patient."""
        labels: defaultdict[str, set[str]] = defaultdict(set)
        for film in self._surveyed[0]:
            labels[film.patient] |= {film.source, film.label}
        strata: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
        for patient, stratum in labels.items():
            strata[tuple(sorted(stratum))].append(patient)
        parts: dict[str, PartName] = {}
        for patients in strata.values():
            test, val = round(_TEST * len(patients)), round(_VAL * len(patients))
            for place, patient in enumerate(draw_order(patients, 0)):
                parts[patient] = "test" if place < test else "val" if place < test + val else "train"
        return parts

    @cached_property
    def _surveyed(self) -> tuple[list[Film], list[Problem]]:
        """The rows that name a film, and what is wrong with them."""
        films: dict[str, Film] = {}
        problems: list[Problem] = []
        for row in read_table(self.root / TABLE, ("file", "source", "label", "lungs")):
            file, source, label, lungs = (row.cells[name] for name in ("file", "source", "label", "lungs"))
            if file is None or source is None or label is None:
                problems.append(row.problem("E_ROW", TABLE, "lacks its file, its source or its label"))
                continue
            for path in (file, lungs):
                if path is None:
                    continue
                if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
                    problems.append(row.problem("E_ROW", TABLE, f"names {path}, which is no path below the folder"))
                elif not (self.root / path).is_file():
                    problems.append(row.problem("E_PAIR", TABLE, f"names {path}, which is not there"))
            stem = PurePosixPath(file).stem
            film = Film(
                image_id=f"{source}-{stem}",
                file=file,
                source=source,
                patient=f"{source}-{stem.partition('_')[0] if source == 'nih' else stem}",
                label=label.casefold(),
                lungs=lungs,
                line=row.line,
            )
            known = films.setdefault(film.image_id.casefold(), film)
            if known is not film:
                problems.append(
                    row.problem("E_DUPLICATE_ID", TABLE, f"names {film.image_id}, as row {known.line} does")
                )
        return list(films.values()), problems


def _find_root(root: Path) -> Path:
    for folder in (root, *folders(root)):
        if (folder / TABLE).is_file():
            return folder
    raise ChestFilms._no_layout(f"no {TABLE} in {root}", expected="a table of files, sources, labels and lungs")
