"""MIMIC-CXR-JPG with the reports of MIMIC-CXR: frontal films and the sentences of their study's report.

Nothing marks where a finding lies, so it can train, but not score. Layout, counts and terms:
docs/datasets/mimic_cxr.md.
"""

from __future__ import annotations

import csv
import gzip
import io
import logging
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, cast
from zipfile import BadZipFile, ZipFile

from textray.data.base import PARTS, CheckResult, Counts, PartName, Problem, Reader, Sample, check_split, leaks, part_of
from textray.data.folders import folders, sizes_of
from textray.errors import DataError, UsageError
from textray.records import Laterality
from textray.text.sentences import Cut, Sections, parts, split, training_text

log = logging.getLogger(__name__)

FRONTAL = ("AP", "PA")
"""Views that are kept; laterals and films whose view is blank are not."""

_METADATA, _SPLIT = "mimic-cxr-2.0.0-metadata.csv", "mimic-cxr-2.0.0-split.csv"
_SECTIONED, _ARCHIVE = "mimic_cxr_sectioned.csv", "mimic-cxr-reports.zip"
_SPLITS: dict[str, PartName] = {"train": "train", "validate": "val", "test": "test"}
_DICOM_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{8}){4}")
_LARGEST_REPORT = 1_000_000  # bytes


@dataclass(frozen=True, kw_only=True)
class Film:
    """One frontal film."""

    image_id: str  # dicom_id
    patient: str  # subject_id, digits
    study: str  # study_id, digits
    part: PartName

    @property
    def folder(self) -> str:
        """Its study's folder below the root, which is its report's path without ``.txt``."""
        return f"files/p{self.patient[:2]}/p{self.patient}/s{self.study}"


class MIMICCXR(Reader):
    """Reader of the frontal films of MIMIC-CXR-JPG that have a report.

    Args:
        root: The folder that holds ``mimic-cxr-2.0.0-metadata.csv.gz``, or the one it lies in. Reports are in
            ``mimic_cxr_sectioned.csv``, ``mimic-cxr-reports.zip`` or ``files/``, here or in a folder beside.
        missing_captions: What to do about a study without a report. It is left out whatever is chosen.
        seed: Chooses the patients of `inner`.
    """

    name = "mimic_cxr"

    def __init__(self, root: str | Path, *, missing_captions: str = "error", seed: int = 0) -> None:
        super().__init__(_find_root(Path(root)), missing_captions=missing_captions, seed=seed)

    def studies(self, split: str, *, cut: Cut | None = None) -> list[Sample]:
        """Frontal films of a split with the sentences of their study's report; films of one study have the same ones.

        Films that are not there, or whose report is not or has no sentence, are left out, and their number is logged.

        Raises:
            UsageError: If there is no such split, or ``cut`` is not ``split``.
            LayoutError: If no film of the split is there, or no report.
            DataError: If a table is refused.
        """
        wanted = check_split(split)
        if cut not in (None, "split"):
            raise UsageError("reports of mimic_cxr are split into sentences", came=cut, expected="sentences: split")
        films, problems, _ = self._surveyed
        self._refuse(problems)
        films = [film for film in films if film.part == part_of(wanted)]
        on_disk = [film for film in films if self._path(film).is_file()]
        there = self._cut_train(on_disk, wanted, lambda film: film.patient)
        words = self._sentences({film.study: film for film in there})
        kept = [film for film in there if words[film.study]]
        if films and not kept:
            raise self._no_layout(
                f"no film of {wanted} with a report under {self.root}",
                came=f"{len(films)} listed, {len(on_disk)} there",
                expected=f"{films[0].folder}/{films[0].image_id}.jpg, and {_ARCHIVE} or {_SECTIONED}",
            )
        absent, silent = len(films) - len(on_disk), len(there) - len(kept)
        if absent or silent:
            log.warning("%d films that are not there and %d without a sentence are left out", absent, silent)
        return [
            Sample(
                image_id=film.image_id,
                image_path=self._path(film),
                patient_id=film.patient,
                sentences=words[film.study],
                laterality=Laterality.PATIENT,
                split=wanted,
            )
            for film in kept
        ]

    def check(self) -> CheckResult:
        """Look at every row of the tables, at every report, and at the header of every film that is there."""
        films, found, views = self._surveyed
        problems = list(found)
        there = {self._path(film): film for film in films if self._path(film).is_file()}
        of_study = {film.study: film for film in films}
        words = self._sentences(of_study)
        counts: Counts = {"root": str(self.root), "reports in": self._reports_at.name if self._reports_at else "none"}
        counts |= {f"view {view or 'blank'}": count for view, count in sorted(views.items())}
        for part in PARTS:
            of_part = [film for film in films if film.part == part]
            counts[part] = f"{len(of_part)} frontal films of {len({film.patient for film in of_part})} patients"
        counts["frontal films on disk"] = len(there)
        counts["sentences"] = sum(map(len, words.values()))
        for _ in sizes_of(there, self.root, problems):
            pass
        problems += [
            Problem("W_NO_IMAGE", f"{film.folder}/{film.image_id}.jpg", "is listed and not there")
            for film in films
            if there and self._path(film) not in there
        ]
        problems += [
            Problem("W_NO_TEXT", f"{of_study[study].folder}.txt", "is not there, or describes nothing")
            for study, sentences in words.items()
            if not sentences
        ]
        return CheckResult(name=self.name, root=self.root, counts=counts, problems=tuple(problems))

    def _path(self, film: Film) -> Path:
        return self.root / film.folder / f"{film.image_id}.jpg"

    @cached_property
    def _surveyed(self) -> tuple[list[Film], list[Problem], Counter[str]]:
        """Frontal films in the order of the metadata, what is wrong with the tables, and films of each view."""
        split_of = {
            row["dicom_id"]: row for row in _rows(self.root, _SPLIT, ("dicom_id", "subject_id", "study_id", "split"))
        }
        films: dict[str, Film] = {}
        problems: list[Problem] = []
        views: Counter[str] = Counter()
        columns = ("dicom_id", "subject_id", "study_id", "ViewPosition")
        for line, row in enumerate(_rows(self.root, _METADATA, columns), start=2):
            image, patient, study = row["dicom_id"], _digits(row["subject_id"]), _digits(row["study_id"])
            views[row["ViewPosition"]] += 1
            part = split_of.get(image)
            if not _DICOM_ID.fullmatch(image) or not patient or not study:
                problems.append(Problem("E_ROW", _METADATA, f"row {line} has no ids of a film, a patient and a study"))
            elif image in films:
                problems.append(Problem("E_DUPLICATE_ID", _METADATA, f"row {line} names {image} again"))
            elif part is None or part["split"] not in _SPLITS:
                problems.append(Problem("E_ROW", _SPLIT, f"puts {image} into no split: train, validate or test"))
            elif (_digits(part["subject_id"]), _digits(part["study_id"])) != (patient, study):
                problems.append(Problem("E_ROW", _SPLIT, f"gives {image} another patient or study than the metadata"))
            elif row["ViewPosition"] in FRONTAL:
                films[image] = Film(image_id=image, patient=patient, study=study, part=_SPLITS[part["split"]])
        problems += leaks((film.patient, film.part) for film in films.values())
        return list(films.values()), problems, views

    @cached_property
    def _reports_at(self) -> Path | None:
        """Where the reports are: the table of sections, the archive, or the folder of ``files``."""
        places = [self.root, *folders(self.root), self.root.parent, *folders(self.root.parent)]
        for name in (_SECTIONED, f"{_SECTIONED}.gz", _ARCHIVE):
            for place in places:
                if (place / name).is_file():
                    return place / name
        return next((place for place in places if next(place.glob("files/p1?/p*/s*.txt"), None)), None)

    def _sentences(self, films: dict[str, Film]) -> dict[str, tuple[str, ...]]:
        """Sentences of the report of each study, by study; none where it is not there."""
        words: dict[str, tuple[str, ...]] = dict.fromkeys(films, ())
        place = self._reports_at
        if place is None:
            return words
        if place.name.startswith(_SECTIONED):
            columns = ("study", "impression", "findings", "last_paragraph")
            for row in _rows(place.parent, _SECTIONED, columns):
                study = row["study"].removeprefix("s")
                if study in words:
                    sections = Sections(findings=row["findings"], impression=row["impression"])
                    words[study] = split(training_text(sections) or row["last_paragraph"])
            return words
        for study, report in _reports(place, films):
            flush = "\n".join(line.strip() for line in report.splitlines())  # the first heading stands far to the right
            words[study] = split("\n\n".join(text for counts, text in parts(flush) if counts))
        return words


def _find_root(root: Path) -> Path:
    for folder in (root, *folders(root)):
        if any((folder / name).is_file() for name in (_METADATA, f"{_METADATA}.gz")):
            return folder
    raise MIMICCXR._no_layout(f"no {_METADATA}.gz in {root}", expected="the folder of MIMIC-CXR-JPG")


def _rows(folder: Path, name: str, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    """Rows of a published table, compressed or not; no such table is a `LayoutError`, another one a `DataError`."""
    plain, packed = folder / name, folder / f"{name}.gz"
    if not plain.is_file() and not packed.is_file():
        raise MIMICCXR._no_layout(f"no {name}.gz in {folder}")
    try:
        opened: IO[bytes] = plain.open("rb") if plain.is_file() else cast(IO[bytes], gzip.open(packed))  # noqa: SIM115 -- closed with its wrapper
        with io.TextIOWrapper(opened, encoding="utf-8-sig", newline="") as stream:
            table = csv.DictReader(stream, strict=True)
            missing = [column for column in columns if column not in (table.fieldnames or ())]
            if missing:
                raise DataError(f"{name} lacks the column {' and '.join(missing)}", expected=", ".join(columns))
            for row in table:
                yield {column: (row[column] or "").strip() for column in columns}
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{name} cannot be read", came=type(error).__name__, do="Download it again.") from error


def _digits(cell: str) -> str:
    """An id; tables that went through other programs write ``10000032.0``."""
    number = cell.removesuffix(".0")
    return number if number.isascii() and number.isdecimal() else ""


def _reports(place: Path, films: dict[str, Film]) -> Iterator[tuple[str, str]]:
    """Studies and texts of the reports that are there, from the archive or from a folder."""
    try:
        if place.is_dir():
            for study, film in films.items():
                path = place / f"{film.folder}.txt"
                if path.is_file():
                    with path.open("rb") as stream:
                        yield study, stream.read(_LARGEST_REPORT).decode("utf-8", "replace")
            return
        with ZipFile(place) as archive:
            held = set(archive.namelist())
            for study, film in films.items():
                if f"{film.folder}.txt" in held:
                    with archive.open(f"{film.folder}.txt") as packed:
                        yield study, packed.read(_LARGEST_REPORT).decode("utf-8", "replace")
    except (OSError, BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{place.name} cannot be read", came=type(error).__name__, do="Download it again.") from error
