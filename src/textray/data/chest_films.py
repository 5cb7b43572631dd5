"""Chest films of several places, healthy ones among them: a label for each film, for some a mask of the lungs.

No lesion is drawn in them, so they cannot train or score a segmenter by themselves. Layout, counts and terms:
docs/datasets/chest_films.md.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path, PurePosixPath

from textray.data.base import (
    PARTS,
    CheckResult,
    Counts,
    PartName,
    Problem,
    Reader,
    Sample,
    check_split,
    draw_order,
    fingerprint,
    naming,
    part_of,
)
from textray.data.boxes import read_table
from textray.data.folders import folders, size_problems
from textray.data.lungs import split_lungs
from textray.data.twins import same_pictures
from textray.errors import InputError
from textray.io.read import read, read_mask

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
        missing_captions: Without effect on a data set that has no captions.
        seed: Chooses the patients of `inner`.
    """

    name = "chest_films"

    def __init__(self, root: str | Path, *, missing_captions: str = "error", seed: int = 0) -> None:
        super().__init__(_find_root(Path(root)), missing_captions=missing_captions, seed=seed)

    def samples(self, split: str) -> list[Sample]:
        """Films of a split in the order of the table, without masks of lesions and without captions.

        Raises:
            UsageError: If there is no such split.
            DataError: If a row is faulty, a film or a mask of lungs that it names is missing, or they differ in size.
        """
        wanted = check_split(split)
        films, problems = self._surveyed
        self._refuse(problems)
        kept = [film for film in films if self._parts[film.patient] == part_of(wanted)]
        pairs = ((self.root / film.file, self.root / film.lungs) for film in kept if film.lungs is not None)
        self._refuse(chain.from_iterable(size_problems(image, lungs, self.root) for image, lungs in pairs))
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

    def check(self) -> CheckResult:
        """Decode every film and every mask of lungs, and read every row of the table."""
        films, found = self._surveyed
        problems = list(found)
        counts: Counts = {"root": str(self.root), "films": len(films)}
        for source in sorted({film.source for film in films}):
            counts[f"source {source}"] = _describe([film for film in films if film.source == source])
        for part in PARTS:
            of_part = [film for film in films if self._parts[film.patient] == part]
            ids = fingerprint(film.image_id for film in of_part)[:12]
            counts[f"split {part}"] = f"{_describe(of_part)}; ids {ids}"
        sizes: Counter[str] = Counter()
        for film in films:
            for name in (film.file, film.lungs):
                if name is None or not (self.root / name).is_file():
                    continue
                try:
                    if name == film.file:
                        height, width = naming(self.root / name, read).grid.shape
                        sizes[f"{height} x {width}"] += 1
                    else:
                        problems += self._lungs_problems(film, name)
                except InputError as error:
                    problems.append(Problem(error.code, name, error.what))
        counts["sizes"] = ", ".join(f"{size}: {n}" for size, n in sizes.most_common(5)) or "none"
        there = ((self.root / film.file, self._parts[film.patient]) for film in films)
        problems += same_pictures(((path, part) for path, part in there if path.is_file()), self.root, films=True)
        return CheckResult(name=self.name, root=self.root, counts=counts, problems=tuple(problems))

    def _lungs_problems(self, film: Film, lungs: str) -> list[Problem]:
        """What is wrong with a mask of lungs that is there; one that is no picture is an `InputError`."""
        halves = split_lungs(naming(self.root / lungs, read_mask)).any(axis=(1, 2))
        image = self.root / film.file
        problems = size_problems(image, self.root / lungs, self.root) if image.is_file() else []
        if not halves.all():
            message = "marks a lung at one image side only" if halves.any() else "marks no lung"
            problems.append(Problem("W_LUNGS", lungs, message))
        return problems

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
            paths = [path for path in (file, lungs) if path is not None]
            outside = [path for path in paths if _leads_out(PurePosixPath(path))]
            if outside:
                message = f"names {outside[0]}, which is no path below the folder"
                problems.append(row.problem("E_ROW", TABLE, message))
                continue
            missing = [path for path in paths if not (self.root / path).is_file()]
            problems += [row.problem("E_PAIR", TABLE, f"names {path}, which is not there") for path in missing]
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


def _leads_out(path: PurePosixPath) -> bool:
    return path.is_absolute() or ".." in path.parts


def _describe(films: list[Film]) -> str:
    labels = ", ".join(f"{n} {label}" for label, n in sorted(Counter(film.label for film in films).items()))
    patients = len({film.patient for film in films})
    return f"{len(films)} films of {patients} patients ({labels}), {sum(bool(f.lungs) for f in films)} with lungs"


def _find_root(root: Path) -> Path:
    for folder in (root, *folders(root)):
        if (folder / TABLE).is_file():
            return folder
    raise ChestFilms._no_layout(f"no {TABLE} in {root}", expected="a table of files, sources, labels and lungs")
