"""A folder of one's own: films, masks in any form that annotators export, and a table of reports.

Nothing but ``images`` has to be there. What is broken is listed and left out, and the rest goes on. Layout, forms of
masks, splits and codes: docs/datasets/folder.md.
"""

from __future__ import annotations

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from textray.data.base import (
    PARTS,
    CheckResult,
    Counts,
    PartName,
    Problem,
    Reader,
    Sample,
    Split,
    check_split,
    draw_order,
    name_some,
    part_of,
)
from textray.data.folders import inside
from textray.data.own_settings import SETTINGS, TABLES, Settings
from textray.data.own_survey import PART_WORDS, REMEDIES, Film, Survey, decide, most
from textray.data.twins import same_pictures
from textray.errors import DataError, OutputError
from textray.io.files import plain_path
from textray.io.write import write_json

log = logging.getLogger(__name__)

SPLITS_FILE = "splits.json"
EXPORTS = ("annotations.json", "annotations.xml", "instances_default.json")
"""Names of an export of all films beside ``images``, where there is no folder ``masks``."""
_UNBALANCED = 0.05  # share of films of a kind below which there are too few to learn from
_WHOLE = ("E_MASK_LABELS", "E_CLASS_NOWHERE")
"""Problems of all masks together."""


class OwnFolder(Reader):
    """Reader of a folder of one's own.

    Films with a problem of a code ``E_...`` are left out and named; the others go on. Splits are drawn once, by
    patient, and kept in ``splits.json``; a column ``split`` decides over them.

    Args:
        root: The folder that holds ``images``.
        missing_captions: ``skip`` leaves films without a usable report out; otherwise they go without text.
        seed: Chooses the patients of `inner`.
        settings: What stands in ``dataset.yaml``; ``None`` reads it.
    """

    name = "folder"
    inner_share = 0.2

    def __init__(
        self,
        root: str | Path,
        *,
        missing_captions: str = "error",
        seed: int = 0,
        settings: Settings | None = None,
    ) -> None:
        super().__init__(Path(root), missing_captions=missing_captions, seed=seed)
        self.settings = Settings.read(self.root) if settings is None else settings
        images = self._folder(self.settings.images)
        if images is None:
            raise self._no_layout(
                f"no folder {self.settings.images} in {self.root}",
                expected="images/, and where there are any masks/ and reports.csv",
            )
        self.images, self._noted = images, False

    @property
    def colour(self) -> bool:
        """True where the settings say that the pictures are in colour."""
        return self.settings.colour

    @property
    def free(self) -> bool:
        """True where the settings say that words act as they stand."""
        return self.settings.words == "free"

    def samples(self, split: str) -> list[Sample]:
        """Films of a split that have a mask, or are labelled normal, in the order of their names.

        Raises:
            UsageError: If there is no such split.
            DataError: If the folder has no masks, or nobody says which of their labels are lesions.
        """
        wanted = check_split(split)
        self._note()
        films, parts = self._kept, self.parts
        drawn = [film for film in films if film.drawn is not None or film.finding is False]
        if not any(film.drawn for film in drawn):
            raise DataError(
                f"no film in {self.images} has a mask that can be used",
                came=f"{len(films)} films",
                expected="masks/ with a file for each film, or an export of annotations",
                do=f'Run "textray data check {self.name} ROOT"; films without masks may be data.unlabelled',
            )
        if self.policy == "skip":
            drawn = [film for film in drawn if film.report.zones or film.report.free]
        of_part = (film for film in drawn if parts[film.group] == part_of(wanted))
        return [self._sample(film, wanted) for film in self._cut_train(of_part, wanted, lambda film: film.group)]

    def _sample(self, film: Film, split: Split) -> Sample:
        return Sample(
            image_id=film.image_id,
            image_path=film.path,
            split=split,
            patient_id=film.patient,
            mask_path=film.mask if film.drawn else self._table if film.finding is False else None,
            mask_labels=self._lesions(film) if film.drawn else () if film.finding is False else None,
            report=film.report,
            label=film.label,
            finding=film.finding,
            lungs_path=film.lungs,
        )

    def known_captions(self) -> tuple[str, ...]:
        """Every text, where words act as they stand."""
        return tuple(sorted({film.report.text for film in self._kept if film.report.free and film.report.text}))

    def survey_counts(self) -> Counts:
        """What the folder holds, whatever is wrong with it; nothing is written."""
        films = self._surveyed.films
        drawn = [film.drawn for film in films if film.drawn is not None]
        return {
            "films": len(films),
            "sizes": most(f"{film.shape[0]} x {film.shape[1]}" for film in films),
            "masks": most(one.kind for one in drawn),
            "labels of masks": most(name for one in drawn for name in one.shares or ("nothing marked",)),
            "reports": f"{sum(film.report.text is not None for film in films)}, "
            f"{sum(bool(film.report.zones) for film in films)} of them with a zone",
            "labels of films": most(film.label for film in films if film.label),
            "lungs": sum(film.lungs is not None for film in films),
        }

    def check(self) -> CheckResult:
        """Decode every film and mask, and read every row of the table; the splits are written if there are none."""
        counts: Counts = {"root": str(self.root), **self.survey_counts()}
        kept, parts = self._kept, self.parts
        problems = list(self._problems)
        for part in PARTS:
            films = [film for film in kept if parts[film.group] == part]
            usable = sum(film.drawn is not None or film.finding is False for film in films)
            counts[f"split {part}"] = f"{usable} films to use of {len({film.group for film in films})} patients"
            problems += self._unbalanced(part, films)
        pictures = [(film.path, parts[film.group]) for film in kept]
        problems += same_pictures(pictures, self.root, films=not self.colour)
        problems = [replace(problem, do=problem.do or REMEDIES.get(problem.code, "")) for problem in problems]
        return CheckResult(name=self.name, root=self.root, counts=counts, problems=tuple(problems))

    def preview(self) -> list[tuple[Sample, str]]:
        """Films with a mask, and what is wrong with each, as a contact sheet shows them."""
        codes: defaultdict[str, list[str]] = defaultdict(list)
        for problem in self._problems:
            codes[problem.path].append(problem.code)
        films = [film for film in self._kept if film.drawn is not None]
        words = [", ".join(codes[self._where(film.path)] + codes[self._where(film.mask)]) for film in films]
        return [(self._sample(film, self.parts[film.group]), one) for film, one in zip(films, words, strict=True)]

    def _folder(self, name: str) -> Path | None:
        path = self.root / name
        return path if path.is_dir() else inside(self.root, name.casefold())

    def _where(self, path: Path | None) -> str:
        return "" if path is None else plain_path(path.relative_to(self.root).as_posix())

    # What the folder holds.

    @cached_property
    def _surveyed(self) -> Survey:
        found = Survey(root=self.root, settings=self.settings)
        pictures = found.list_films(self.images)
        found.read_table(self._table, self.images, pictures)
        found.find_masks(self._masks, self.images)
        lungs = self._folder(self.settings.lungs)
        if lungs is not None:
            found.find_lungs(lungs, self.images)
        return found

    @cached_property
    def _masks(self) -> Path | None:
        """Where the masks are: a folder, or a file of annotations."""
        given = self.settings.masks
        if given is not None:
            if not (self.root / given).exists():
                raise self._no_layout(f"no masks at {given} in {self.root}", expected=f"what {SETTINGS} names")
            return self.root / given
        folder = self._folder("masks")
        files = (self.root / name for name in EXPORTS)
        found = folder or next((path for path in files if path.is_file()), None)
        return self.images if found is None and any(self.images.rglob("*.json")) else found

    @cached_property
    def _table(self) -> Path | None:
        given = self.settings.reports
        if given is not None:
            return self.root / given
        return next((self.root / name for name in TABLES if (self.root / name).is_file()), None)

    @cached_property
    def _rule(self) -> tuple[frozenset[str], list[Problem]]:
        """Labels of all masks that are lesions, and what is wrong with them."""
        return decide(self._surveyed.films, self.settings.classes, self._where)

    def _lesions(self, film: Film) -> tuple[str, ...]:
        """Labels of a film's mask that are lesions, never none, which would be a film that is called normal."""
        names = film.drawn.shares if film.drawn else ()
        return tuple(name for name in names if name in self._rule[0]) or ("",)

    @cached_property
    def _problems(self) -> list[Problem]:
        """What is wrong with files and rows, and with the masks, once it is known which of their labels are lesions."""
        problems = [*self._surveyed.problems, *self._rule[1]]
        if any(problem.code in _WHOLE for problem in problems):
            return problems
        for film in self._surveyed.films:
            if film.drawn is None:
                continue
            shares = [film.drawn.shares.get(name, (0.0, 0.0)) for name in self._lesions(film)]
            share, border = (min(sum(values), 1.0) for values in zip(*shares, strict=True))
            where = self._where(film.mask)
            if film.finding is False and share > 0:
                words = f"is labelled normal, and {where} marks lesions"
                problems.append(Problem("E_LABEL_MASK", self._where(film.path), words))
            elif share == 0 and film.finding is not False:
                problems.append(Problem("W_MASK_EMPTY", where, f"marks no lesion in {film.image_id}"))
            elif share == 1:
                problems.append(Problem("W_MASK_FULL", where, f"marks every pixel of {film.image_id}"))
            elif share > 0.5 and border > 0.9:
                problems.append(Problem("W_MASK_INVERTED", where, f"looks inverted: {100 * share:.0f} % lesion"))
        return problems

    @cached_property
    def _kept(self) -> list[Film]:
        """Films without a problem that leaves them out."""
        bad = self._surveyed.bad | {problem.path for problem in self._problems if problem.fatal}
        return [film for film in self._surveyed.films if self._where(film.path) not in bad]

    def _note(self) -> None:
        """Refuse masks that nobody can read, and log once what is left out."""
        for problem in self._problems:
            if problem.code in _WHOLE:
                raise DataError(problem.message, came=problem.path, do=REMEDIES[problem.code], code=problem.code)
        if self._noted:
            return
        self._noted = True
        refused = [problem for problem in self._problems if problem.fatal]
        for code in sorted({problem.code for problem in refused}):
            paths = [problem.path for problem in refused if problem.code == code]
            do = REMEDIES.get(code, "") or f'See "textray data check {self.name} ROOT".'
            log.warning("%s: left out: %s. %s", code, name_some(paths), do)

    # Splits.

    @cached_property
    def parts(self) -> dict[str, PartName]:
        """The part of each patient, drawn once; see `draw_splits`."""
        path, before = self.root / SPLITS_FILE, {}
        if path.is_file():
            try:
                known = json.loads(path.read_text(encoding="utf-8"))["patients"]
                before = {str(name): PART_WORDS[part] for name, part in known.items()}
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise DataError(
                    f"{SPLITS_FILE} is damaged",
                    came=type(error).__name__,
                    expected="what TextRay wrote",
                    do="Restore it; without it the splits are drawn anew, and test films may have been learnt from",
                    code="E_SPLITS",
                ) from error
        fixed = {film.group: film.part for film in self._kept if film.part is not None}
        strata = {film.group: film.finding is False for film in self._kept}
        parts = draw_splits(strata, before | fixed, self.settings)
        if parts != before:
            facts = {"seed": self.settings.seed, "val": self.settings.val, "test": self.settings.test}
            try:
                write_json(path, facts | {"patients": parts})
            except (OutputError, OSError) as error:
                log.warning("W_SPLITS: %s cannot be written (%s); the draw is the same each time", path, error)
        return parts

    def _unbalanced(self, part: PartName, films: Sequence[Film]) -> list[Problem]:
        counts = Counter(film.finding for film in self._kept if film.finding is not None)
        of_part = Counter(film.finding for film in films)
        found = []
        for finding, word in ((False, "normal films"), (True, "films with a lesion")):
            total = sum(counts.values())
            if part == "train" and 0 < counts[finding] < _UNBALANCED * total:
                found.append(Problem("W_UNBALANCED", part, f"{counts[finding]} of {total} films are {word}"))
            if films and counts[finding] and not of_part[finding]:
                found.append(Problem("W_UNBALANCED", part, f"has no {word}"))
        return found


def draw_splits(patients: Mapping[str, bool], known: Mapping[str, PartName], settings: Settings) -> dict[str, PartName]:
    """The part of each patient: the ``known`` ones keep theirs, the others fill up `test`, `val` and then `train`.

    ``patients`` says whether one is of the normal films; both kinds are drawn apart, in an order that only the seed and
    the names fix, so that a patient who comes later changes no other's part.
    """
    parts = dict(known)
    for kind in (False, True):
        names = [name for name, normal in patients.items() if normal is kind]
        wanted = {"test": round(settings.test * len(names)), "val": round(settings.val * len(names))}
        held = Counter(parts[name] for name in names if name in parts)
        for name in draw_order((name for name in names if name not in parts), settings.seed):
            part: PartName = next((p for p in ("test", "val") if held[p] < wanted[p]), "train")
            parts[name] = part
            held[part] += 1
    return dict(sorted(parts.items()))
