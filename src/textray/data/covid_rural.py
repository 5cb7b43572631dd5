"""COVID Rural: films of COVID-19-AR (The Cancer Imaging Archive) with masks that others have drawn of opacities.

The masks, and JPEG copies of some films, come from a collection apart from the archive; a film without a copy is found
among the archive's DICOM files by patient and date. Layout, pairing and terms: docs/datasets/covid_rural.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from textray.data.base import CheckResult, Counts, Problem, Reader, Sample, Split
from textray.data.folders import Folder, folders, header_size, inspect_mask, mask_problems
from textray.data.twins import same_pictures
from textray.errors import InputError, UsageError
from textray.records import Laterality

PHRASE = "Findings suggesting pneumonia."
"""What the papers' evaluation asks of every film."""

_MASKS, _COPIES, _ARCHIVE = "pngs_masks", "jpgs", "COVID-19-AR"
_NAME = re.compile(r"COVID-19-AR-(?P<patient>\d+)_(?P<date>\d\d-\d\d-\d{4})(?:-.*)?")
_FILM = frozenset({"CR", "DX", "DR"})
"""Modalities of films; the archive holds CT as well."""


@dataclass(frozen=True, kw_only=True)
class Film:
    """A mask with lesions and the film that it was drawn on."""

    image_id: str
    patient: str
    image: Path
    mask: Path


class COVIDRural(Reader):
    """Reader of the masks of COVID-19-AR; all of their films are `test`.

    Args:
        root: The folder that holds ``pngs_masks``, or one or two folders above it.
        missing_captions: Without effect on a data set that has no captions.
        seed: Without effect on a data set of one split.
    """

    name = "covid_rural"

    def __init__(self, root: str | Path, *, missing_captions: str = "error", seed: int = 0) -> None:
        super().__init__(Path(root), missing_captions=missing_captions, seed=seed)
        self.masks_at = _find_masks(self.root)

    def _phrases(self, split: Split, kind: str) -> list[Sample]:
        """The one phrase for each film whose mask marks anything, by name."""
        if split != "test":
            raise UsageError(f"covid_rural has test alone, not {split}", do="Ask for test: it is no data to train on.")
        films, problems = self._surveyed
        self._refuse(problems)
        return [
            Sample(
                image_id=film.image_id,
                image_path=film.image,
                mask_path=film.mask,
                patient_id=film.patient,
                phrase=PHRASE,
                label="Pneumonia",
                laterality=Laterality.PATIENT,
                split=split,
            )
            for film in films
        ]

    def check(self) -> CheckResult:
        """Look at every mask and at the header of every film that it may belong to."""
        films, found = self._surveyed
        problems = list(found)
        problems += same_pictures(((film.image, "test") for film in films), self.root, films=True)
        counts: Counts = {"root": str(self.root)}
        counts["masks"] = f"{len(Folder(self.masks_at, self.root))} (193 were found in the collection)"
        counts["films with lesions"] = len(films)
        counts["of them DICOM"] = sum(film.image.suffix.lower() == ".dcm" for film in films)
        counts["patients"] = len({film.patient for film in films})
        return CheckResult(name=self.name, root=self.root, counts=counts, problems=tuple(problems))

    @cached_property
    def _surveyed(self) -> tuple[tuple[Film, ...], tuple[Problem, ...]]:
        """Films with lesions by name, and what is wrong with masks and pairs."""
        masks = Folder(self.masks_at, self.root, suffixes={".png"})
        copies = Folder(self.masks_at.parent / _COPIES, self.root, suffixes={".jpg", ".jpeg"})
        problems = [*masks.problems, *copies.problems]
        films = []
        for name in masks.ids:
            where, match = str(masks[name].relative_to(self.root)), _NAME.fullmatch(name)
            if match is None:
                problems.append(Problem("E_ID", where, "is not named by patient and date"))
                continue
            try:
                facts, size = inspect_mask(masks[name]), header_size(masks[name])
                problems += mask_problems(facts, where)
                if not facts.foreground:
                    continue
                copy = copies.get(name)
                candidates = [copy] if copy else list(self._archived(match["patient"], match["date"]))
                fitting = [path for path in candidates if _size(path) == size]
            except InputError as error:
                problems.append(Problem(error.code, where, error.what))
                continue
            if len(fitting) == 1:
                films.append(Film(image_id=name, patient=match["patient"], image=fitting[0], mask=masks[name]))
            elif fitting:
                problems.append(Problem("W_AMBIGUOUS", where, f"fits {len(fitting)} films of that patient and date"))
            elif candidates:
                problems.append(Problem("W_MASK_SIZE", where, f"is {size[1]} x {size[0]} pixels, as no film of it is"))
            else:
                problems.append(Problem("W_NO_IMAGE", where, "belongs to a film that is not there"))
        if masks.ids and not films:
            raise self._no_layout(
                f"no film of covid_rural that has a mask under {self.root}",
                expected=f"{_COPIES}/NAME.jpg beside {_MASKS}/NAME.png, or {_ARCHIVE}/PATIENT/STUDY/SERIES/*.dcm",
            )
        return tuple(films), tuple(problems)

    def _archived(self, patient: str, date: str) -> Iterator[Path]:
        """Films of a patient and a date in the archive's folders; CT and other kinds are passed over."""
        for base in (self.root, *folders(self.root)):
            for study in folders(base / _ARCHIVE / f"{_ARCHIVE}-{patient}"):
                if study.name.startswith(date):
                    yield from (path for path in sorted(study.rglob("*.dcm")) if _size(path) is not None)


def _find_masks(root: Path) -> Path:
    level = [root]
    for _ in range(3):
        for folder in level:
            if (folder / _MASKS).is_dir():
                return folder / _MASKS
        level = [below for folder in level for below in folders(folder) if not below.name.startswith(_ARCHIVE)]
    raise COVIDRural._no_layout(f"no {_MASKS} under {root}", expected=f"{_MASKS}/COVID-19-AR-..._MM-DD-YYYY-XR.png")


def _size(path: Path) -> tuple[int, int] | None:
    """Height and width of a picture or of a DICOM film, from its header; ``None`` for another kind of DICOM."""
    if path.suffix.lower() != ".dcm":
        return header_size(path)
    try:
        header = dcmread(path, stop_before_pixels=True, specific_tags=["Modality", "Rows", "Columns"])
    except (InvalidDicomError, OSError):
        return None
    if header.get("Modality") not in _FILM or not header.get("Rows") or not header.get("Columns"):
        return None
    return int(header.Rows), int(header.Columns)
