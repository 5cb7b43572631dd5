"""MoNuSeg in the folders of LViT's authors: stained tissue in colour, one mask of all nuclei, a free caption for each.

Its captions tell where nuclei are dense, not zones of lungs, so a network is told them as they stand. Layout, counts,
sides and terms: docs/datasets/monuseg.md.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from textray.data.base import (
    CAPTION_CODES,
    CheckResult,
    Problem,
    Sample,
    check_captions,
    check_split,
    draw_patients,
    fingerprint,
    refuse,
)
from textray.data.captions import PARTS, PartName, find_lvit, read_free_caption
from textray.data.folders import Entry, MaskFacts, Survey, check_pixels, colour_problems, size_problem, survey
from textray.errors import LayoutError
from textray.records import Notice, Report, Zones

log = logging.getLogger(__name__)

PUBLISHED: dict[PartName, int] = {"train": 24, "val": 6, "test": 14}
INNER_SHARE = 1 / 6
"""Share of the patients of `train` that selects: four of 24, since two pictures would select by chance."""

_HELP = 'See docs/datasets/monuseg.md or run "textray data check monuseg ROOT".'
_TABLE = re.compile(r"(train|val|test)_text(?:[ (].*)?\.(?:xlsx|csv)")
_PATIENT = re.compile(r"(tcga-[0-9a-z]{2}-[0-9a-z]{4})-.*", re.IGNORECASE)
_NO_CAPTION = Notice(code="W_NO_TEXT", text="the data set has no caption for this image")


class MoNuSeg:
    """Reader of MoNuSeg as LViT's authors publish it.

    Args:
        root: The folder that holds Train_Folder, Val_Folder and Test_Folder, or the one it lies in.
        captions: What to do about a picture whose caption is missing or blank, and about rows without a picture: refuse
            (``"error"``), leave it out (``"skip"``), or keep the picture without a report (``"text-free"``).
        seed: Chooses the patients of `inner`.
    """

    name = "monuseg"

    def __init__(self, root: str | Path, *, captions: str = "error", seed: int = 0) -> None:
        self.layout = find_lvit(Path(root), _TABLE, _HELP)
        self.root, self.seed = self.layout.root, seed
        self.policy = check_captions(captions)
        self._survey: Survey | None = None
        self._trusted = False

    def samples(self, split: str) -> list[Sample]:
        """Samples of a split, in the order of the caption tables.

        Raises:
            UsageError: If there is no such split.
            LayoutError: If the part it lies in is missing.
            DataError: If files do not pair up, names collide, a patient is in two parts, a mask has another size than
                its image, or a caption is refused.
        """
        wanted = check_split(split)
        part: PartName = wanted if wanted in ("val", "test") else "train"
        present = [found.name for found in self.layout.parts]
        if part not in present:
            raise LayoutError(
                f"no {part} part under {self.root}",
                came=", ".join(present),
                expected=f"{part.capitalize()}_Folder",
                do=_HELP,
            )
        entries = [entry for entry in self._trusted_entries() if entry.part == part]
        if wanted in ("inner", "fit"):
            inner = draw_patients((_group(entry) for entry in entries), INNER_SHARE, self.seed)
            entries = [entry for entry in entries if (_group(entry) in inner) == (wanted == "inner")]
        return [
            Sample(
                image_id=entry.image_id,
                image_path=entry.image,
                mask_path=entry.mask,
                report=entry.report or Report(zones=Zones(), free=True, notices=(_NO_CAPTION,)),
                patient_id=entry.group,
                split=wanted,
            )
            for entry in entries
            if entry.report is not None or self.policy == "text-free"
        ]

    def captions(self) -> tuple[str, ...]:
        """Every caption of the parts that are present, once, sorted: all that a network can be told in use."""
        return tuple(sorted({e.report.text for e in self._trusted_entries() if e.report and e.report.text}))

    def fingerprint(self, split: str) -> str:
        """SHA-256 of the image ids of a split."""
        return fingerprint(sample.image_id for sample in self.samples(split))

    def check(self) -> CheckResult:
        """Look at every file: all pixels of masks and images, all rows of the tables.

        Tells how often captions that name one side of the picture go with more nuclei there.
        """
        found = self._surveyed()
        problems = [*found.problems, *_shared_patients(found.entries)]
        counts: dict[str, int | float | str] = {"root": str(self.root), "layout": self.layout.name}
        counts["images"], counts["masks"] = found.images, found.masks
        for part in self.layout.parts:
            rows, expected = found.rows[part.name], PUBLISHED[part.name]
            counts[f"{part.name} captions"] = f"{rows} (published: {expected})"
            if rows != expected:
                message = f"has {rows} rows for {part.name}; published are {expected}"
                problems.append(Problem(code="W_COUNT", path=str(part.table.relative_to(self.root)), message=message))
        counts |= {f"{name} captions": "not present" for name in PARTS if name not in found.rows}
        for name in found.rows:
            of_part = [entry for entry in found.entries if entry.part == name]
            ids = fingerprint(entry.image_id for entry in of_part)[:12]
            counts[name] = f"{len(of_part)} images of {len({_group(e) for e in of_part})} patients, ids {ids}"
        facts = check_pixels([(e.image, e.mask) for e in found.entries], self.root, "images", counts, problems)
        problems += colour_problems((entry.image for entry in found.entries), self.root, colour=True)
        counts |= _tell_captions(found.entries, facts)
        return CheckResult(name=self.name, root=self.root, counts=counts, problems=tuple(problems))

    def _surveyed(self) -> Survey:
        if self._survey is None:
            self._survey = survey(self.layout, group_of=patient_of, read=read_free_caption)
        return self._survey

    def _trusted_entries(self) -> tuple[Entry, ...]:
        """All entries, once nothing is wrong with them that the caption policy does not let pass."""
        found = self._surveyed()
        if not self._trusted:
            tolerated = () if self.policy == "error" else CAPTION_CODES
            sizes = (size_problem(entry.image, entry.mask, self.root) for entry in found.entries)
            problems = [*found.problems, *(problem for problem in sizes if problem is not None)]
            problems += _shared_patients(found.entries)
            refuse([p for p in problems if p.fatal and p.code not in tolerated], self.name, self.root)
            for problem in found.problems:
                if problem.code in tolerated:
                    log.warning("%s: %s (captions=%s)", problem.path, problem.message, self.policy)
            self._trusted = True
        return found.entries


def patient_of(image_id: str) -> str | None:
    """The patient of a picture: the first three parts of a TCGA barcode, upper case; ``None`` for another name."""
    found = _PATIENT.fullmatch(image_id)
    return found[1].upper() if found else None


def _group(entry: Entry) -> str:
    return entry.group or entry.image_id


def _shared_patients(entries: Iterable[Entry]) -> list[Problem]:
    parts: dict[str, set[PartName]] = {}
    for entry in entries:
        parts.setdefault(_group(entry), set()).add(entry.part)
    return [
        Problem(code="E_PATIENT_LEAK", path=patient, message=f"has pictures in {' and '.join(sorted(found))}")
        for patient, found in sorted(parts.items())
        if len(found) > 1
    ]


def _tell_captions(entries: Iterable[Entry], facts: dict[Path, MaskFacts]) -> dict[str, int | float | str]:
    """How many captions there are, and whether words and picture agree on the side: image sides, if they do."""
    entries = [entry for entry in entries if entry.report is not None]
    texts = Counter(entry.report.text for entry in entries if entry.report)
    told: dict[str, int | float | str] = {"different captions": len(texts)}
    for side in ("left", "right"):
        named = [e for e in entries if e.report and e.report.text and side in e.report.text.lower().split()]
        centres = [f.centre[1] for e in named if (f := facts.get(e.mask)) and f.centre]
        there = sum((centre < 0.5) == (side == "left") for centre in centres)
        told[f"captions that name the {side}"] = f"{there} of {len(centres)} have their nuclei further {side}"
    return told
