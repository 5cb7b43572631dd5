"""QaTa-COV19 v2: chest films of COVID-19, lesion masks and captions that name infected zones.

Captions mean the viewer's left and right. Layout, counts and terms: docs/datasets/qata_cov19.md.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from textray.data.base import (
    CAPTION_CODES,
    CheckResult,
    Problem,
    Sample,
    Split,
    check_captions,
    check_split,
    draw_patients,
    fingerprint,
    refuse,
    refuse_shared_patients,
)
from textray.data.boxes import PhraseSample
from textray.data.captions import read_captions, read_report, row_problem
from textray.data.folders import Folder, bare_name, check_pixels, size_problem
from textray.errors import DataError, InputError, LayoutError, unknown_name
from textray.records import Laterality, Notice, Report, Zones
from textray.text.zones import sentence

log = logging.getLogger(__name__)

NAME = "QaTa-COV19-v2"
INNER_SHARE = 0.1
"""Share of the train split's `sub-*` patients that selects (stopping, checkpoint, thresholds)."""

_PHRASES = ("caption", "clause")
_PARTS = {"train": ("Train Set", 7145), "test": ("Test Set", 2113)}
_HELP = 'See docs/datasets/qata_cov19.md or run "textray data check qata_cov19 ROOT".'


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """An image with its mask; ``report`` is ``None`` where no usable caption stands in the table."""

    image_id: str
    image: Path
    mask: Path
    report: Report | None
    in_val: bool

    @property
    def patient(self) -> str | None:
        return patient_of(self.image_id)


@dataclass(frozen=True, kw_only=True)
class _Survey:
    """What lies in one part (the official train or test folder) and in its caption table."""

    images: int
    masks: int
    rows: tuple[str, ...]
    entries: tuple[_Entry, ...]
    problems: tuple[Problem, ...] = field(default=())


class QaTaCOV19:
    """Reader of QaTa-COV19 v2 in its official layout, captions beside it in ``prompt``.

    The train part is cut as published: the first four fifths of the rows of ``prompt/train.csv`` (floor of 0.8 n;
    5,716 of 7,145) are `train`, the rest `val`. `inner` is 10 % of the `sub-*` patients of `train`, `fit` the others
    and every `covid_*` image. A part that is not asked for may be missing.

    Args:
        root: The folder ``QaTa-COV19-v2``, or the folder it lies in.
        captions: What to do about an image whose caption is missing, blank or not understood, and about rows without
            an image: refuse (``"error"``), leave it out (``"skip"``), or keep the image without a report
            (``"text-free"``). Each is named by id.
        seed: Chooses the patients of `inner`.
    """

    def __init__(self, root: str | Path, *, captions: str = "error", seed: int = 0) -> None:
        self.root = find_root(Path(root))
        self.captions = check_captions(captions)
        self.seed = seed
        self._surveys: dict[str, _Survey] = {}
        self._checked: set[str] = set()

    def samples(self, split: str) -> list[Sample]:
        """Samples of a split, in the order of the caption table.

        Raises:
            UsageError: If there is no such split.
            LayoutError: If the part it lies in is missing.
            DataError: If files do not pair up, names collide, a mask has another size than its image, a patient is
                in both `train` and `val`, or a caption is refused.
        """
        wanted = check_split(split)
        entries = self._entries("test" if wanted == "test" else "train")
        if wanted != "test":
            train = [entry for entry in entries if not entry.in_val]
            val = [entry for entry in entries if entry.in_val]
            refuse_shared_patients((e.patient for e in train), (e.patient for e in val), "train and val")
            if wanted == "val":
                entries = val
            elif wanted == "train":
                entries = train
            else:
                inner = draw_patients((e.patient for e in train if e.patient), INNER_SHARE, self.seed)
                entries = [e for e in train if (e.patient in inner) == (wanted == "inner")]
        return [self._sample(entry, wanted) for entry in entries]

    def phrases(self, split: str, *, kind: str = "caption") -> list[PhraseSample]:
        """What the captions say, one phrase for each image of a split that has a caption, in the order of the table.

        The phrase is true where the lesion mask is: captions were written from the masks, and name all of their zones.
        So the whole mask is the truth of either kind of phrase.

        Args:
            split: The split.
            kind: ``caption``: the canonical sentence of its zones. ``clause``: only the part of it that names places,
                "upper middle left lung and lower right lung".

        Raises:
            UsageError: If there is no such split or kind.
            LayoutError: As `samples`.
            DataError: As `samples`.
        """
        if kind not in _PHRASES:
            raise unknown_name("kind of phrases of qata_cov19", kind, _PHRASES)
        told = [(sample, sentence(sample.report.zones)) for sample in self.samples(split) if sample.report.zones]
        return [
            PhraseSample(
                image_id=sample.image_id,
                image_path=sample.image_path,
                phrase=caption if kind == "caption" else caption.removesuffix(".").rsplit(", ", 1)[-1],
                label="Infection",
                mask_path=sample.mask_path,
                patient_id=sample.patient_id,
                laterality=Laterality.VIEWER,
                split=sample.split,
            )
            for sample, caption in told
        ]

    def fingerprint(self, split: str) -> str:
        """SHA-256 of the image ids of a split, for summaries; the published cut's are in ``data/splits``."""
        return fingerprint(sample.image_id for sample in self.samples(split))

    def check(self) -> CheckResult:
        """Look at every file of every part that is present.

        Headers of images, all pixels of masks, all rows of the caption tables; training data is not needed for it.

        Raises:
            LayoutError: If neither part is there.
        """
        counts: dict[str, int | float | str] = {"root": str(self.root)}
        problems: list[Problem] = []
        patients: dict[str, set[str | None]] = {}
        for part, (folder, expected) in _PARTS.items():
            if not (self.root / folder).is_dir():
                counts[f"{part} part"] = "not present"
                continue
            survey = self._survey(part)
            problems += survey.problems
            counts[f"{part} images"] = f"{survey.images} (published: {expected})"
            counts[f"{part} masks"], counts[f"{part} captions"] = survey.masks, len(survey.rows)
            for split in ("train", "val") if part == "train" else ("test",):
                of_split = [e for e in survey.entries if part == "test" or e.in_val == (split == "val")]
                patients[split] = {e.patient for e in of_split} - {None}
                counts[f"split {split}"] = f"{len(of_split)} images, {len(patients[split])} known patients"
            check_pixels(((e.image, e.mask) for e in survey.entries), self.root, part, counts, problems)
        if not patients:
            raise LayoutError(
                f'neither "Train Set" nor "Test Set" in {self.root}', expected=f"the folders of {NAME}", do=_HELP
            )
        for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
            try:
                refuse_shared_patients(patients.get(first, ()), patients.get(second, ()), f"{first} and {second}")
            except DataError as error:
                problems.append(Problem(code="E_PATIENT_LEAK", path="prompt", message=str(error)))
        return CheckResult(name="qata_cov19", root=self.root, counts=counts, problems=tuple(problems))

    def _entries(self, part: str) -> list[_Entry]:
        survey = self._survey(part)
        folder, expected = _PARTS[part]
        if not survey.images:
            raise LayoutError(
                f'no images under "{folder}/Images" of {self.root} (0 pictures)',
                expected=f"{NAME} ({expected:,})",
                do=_HELP,
            )
        tolerated = () if self.captions == "error" else CAPTION_CODES
        if part not in self._checked:
            problems = list(survey.problems)
            for entry in survey.entries:
                problem = size_problem(entry.image, entry.mask, self.root)
                problems += [problem] if problem else []
            refuse([p for p in problems if p.fatal and p.code not in tolerated], "qata_cov19", self.root)
            for problem in survey.problems:
                if problem.code in tolerated:
                    log.warning("%s: %s (captions=%s)", problem.path, problem.message, self.captions)
            self._checked.add(part)
        return [e for e in survey.entries if e.report is not None or self.captions == "text-free"]

    def _survey(self, part: str) -> _Survey:
        if part not in self._surveys:
            self._surveys[part] = _survey(self.root, part)
        return self._surveys[part]

    @staticmethod
    def _sample(entry: _Entry, split: Split) -> Sample:
        report = entry.report
        if report is None:
            note = Notice(code="W_NO_ZONE", text="the data set has no usable caption for this image")
            report = Report(zones=Zones(), notices=(note,))
        return Sample(
            image_id=entry.image_id,
            image_path=entry.image,
            mask_path=entry.mask,
            report=report,
            patient_id=entry.patient,
            split=split,
        )


def patient_of(image_id: str) -> str | None:
    """Pseudonym of the patient: ``sub-S...`` up to the first ``_``; ``covid_*`` images carry none."""
    found = re.match(r"(sub-S[^_]+)(?:_|$)", image_id, flags=re.IGNORECASE)
    return found.group(1) if found else None


def find_root(root: Path) -> Path:
    """The folder that holds the parts: ``root`` itself or ``QaTa-COV19-v2`` in it.

    Raises:
        LayoutError: If it is neither.
    """
    for folder in (root, root / NAME):
        if any((folder / name).is_dir() for name, _ in _PARTS.values()):
            return folder
    raise LayoutError(
        f'neither "Train Set" nor "Test Set" under {root}',
        expected=f"the folder {NAME} or the one it lies in",
        do=_HELP,
    )


def _survey(root: Path, part: str) -> _Survey:
    folder = root / _PARTS[part][0]
    images, masks = Folder(folder / "Images", root), Folder(folder / "Ground-truths", root, prefix="mask_")
    if not len(images):
        return _Survey(images=0, masks=len(masks), rows=(), entries=())
    problems = images.problems + masks.problems
    table = root / "prompt" / f"{part}.csv"
    if not table.exists() and table.with_suffix(".xlsx").exists():
        table = table.with_suffix(".xlsx")
    rows = read_captions(table)
    keys = [bare_name(row.key, "mask_") for row in rows]
    order = list(range(len(rows)))
    if part == "train" and fingerprint(keys) == _published()["ids_sha256"]:
        order.sort(key=lambda i: keys[i])  # a copy of the published table saved in another order is cut the same way
    val_from = len(rows) * 4 // 5 if part == "train" else len(rows)

    where = str(table.relative_to(root))
    reports: dict[str, tuple[Report | None, bool]] = {}
    lines: dict[str, int] = {}
    parsed: dict[str, Report | InputError] = {}
    for place, index in enumerate(order):
        row, found = rows[index], images.find(keys[index])
        if found is None:
            if masks.find(keys[index]) is None:
                problems.append(row_problem("E_CAPTION_EXTRA", where, row, "has neither image nor mask"))
        elif found in lines:
            problems.append(row_problem("E_DUPLICATE_ID", where, row, f"stands in row {lines[found]} already"))
        else:
            lines[found] = row.line
            report, problem = read_report(row, where, parsed)
            problems += [problem] if problem else []
            reports[found] = report, place >= val_from
    val_patients = {patient_of(name) for name, (_, in_val) in reports.items() if in_val} - {None}
    for name in images.ids:
        if name not in reports:
            file = str((folder / "Images" / name).relative_to(root))
            problems.append(Problem(code="E_CAPTION_MISSING", path=file, message=f"has no row in {where}"))
            reports[name] = None, patient_of(name) in val_patients  # a patient stays on one side
    entries = []
    for name, (report, in_val) in reports.items():
        image, mask = images.get(name), masks.get(name)
        if image is None or mask is None:
            file = str((folder / "Images" / name).relative_to(root))
            problems.append(Problem(code="E_PAIR", path=file, message=f'has no mask "mask_{name}.png"'))
        else:
            entries.append(_Entry(image_id=name, image=image, mask=mask, report=report, in_val=in_val))
    for name in masks.ids:
        if images.find(name) is None:
            file = str((folder / "Ground-truths" / f"mask_{name}").relative_to(root))
            problems.append(Problem(code="E_PAIR", path=file, message="has no image"))
    return _Survey(
        images=len(images), masks=len(masks), rows=tuple(keys), entries=tuple(entries), problems=tuple(problems)
    )


def _published() -> dict[str, str]:
    text = files("textray.data.splits").joinpath("qata_cov19.json").read_text(encoding="utf-8")
    table: dict[str, str] = json.loads(text)
    return table
