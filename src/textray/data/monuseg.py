"""MoNuSeg in the folders of LViT's authors: stained tissue in colour, one mask of all nuclei, a free caption for each.

Its captions say where nuclei are dense, not zones of lungs, so a network reads them as they stand. Layout, counts,
sides and terms: docs/datasets/monuseg.md.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from textray.data.base import PARTS, Counts, PartName, Problem, fingerprint, help_for, leaks
from textray.data.captions import CaptionedFolders, Entry, Survey
from textray.data.folders import MaskFacts, find_layout, lvit
from textray.records import Notice, Report, Zones
from textray.text.cleaning import clean

_TABLE = re.compile(r"(train|val|test)_text(?:[ (].*)?\.(?:xlsx|csv)")
_PATIENT = re.compile(r"(tcga-[0-9a-z]{2}-[0-9a-z]{4})-.*", re.IGNORECASE)


class MoNuSeg(CaptionedFolders):
    """Reader of MoNuSeg as LViT's authors publish it; four of the 24 patients of `train` are in `inner`.

    Args:
        root: The folder that holds Train_Folder, Val_Folder and Test_Folder, or the one it lies in.
    """

    name = "monuseg"
    inner_share = 1 / 6
    published: ClassVar[Mapping[PartName, int]] = {"train": 24, "val": 6, "test": 14}
    no_report = Report(
        zones=Zones(),
        free=True,
        notices=(Notice(code="W_NO_TEXT", text="the data set has no caption for this image"),),
    )

    def __init__(self, root: str | Path, *, missing_captions: str = "error", seed: int = 0) -> None:
        layout = find_layout(
            Path(root),
            lambda folder: lvit(folder, _TABLE, help_for(self.name)),
            "Train_Folder, Val_Folder or Test_Folder",
            "each with img, labelcol and a caption table such as Train_text.xlsx",
            help_for(self.name),
        )
        super().__init__(layout, missing_captions=missing_captions, seed=seed)

    def known_captions(self) -> tuple[str, ...]:
        """Every caption of the parts that are present."""
        entries = self._trust("train").entries
        return tuple(sorted({entry.report.text for entry in entries if entry.report and entry.report.text}))

    def _group_of(self, image_id: str) -> str | None:
        return patient_of(image_id)

    def _read_caption(self, text: str) -> Report:
        return Report(zones=Zones(), text=clean(text), free=True)

    def _drawn_by(self, entry: Entry) -> str:
        return entry.group or entry.image_id

    def _more_problems(self, entries: Sequence[Entry]) -> list[Problem]:
        return leaks((self._drawn_by(entry), entry.part) for entry in entries)

    def _check_parts(self, found: Survey, counts: Counts) -> list[Problem]:
        for name in (part for part in PARTS if part in found.rows):
            entries = [entry for entry in found.entries if entry.part == name]
            ids = fingerprint(entry.image_id for entry in entries)[:12]
            counts[name] = f"{len(entries)} images of {len({self._drawn_by(e) for e in entries})} patients, ids {ids}"
        return []

    def _check_captions(self, entries: Sequence[Entry], facts: Mapping[Path, MaskFacts], counts: Counts) -> None:
        """Count captions, and those that agree with the picture on the side: image sides, if they do."""
        texts = Counter(entry.report.text for entry in entries if entry.report)
        counts["different captions"] = len(texts)
        for side in ("left", "right"):
            named = [e for e in entries if e.report and e.report.text and side in e.report.text.lower().split()]
            centres = [f.centre[1] for e in named if (f := facts.get(e.mask)) and f.centre]
            agreeing = sum((centre < 0.5) == (side == "left") for centre in centres)
            counts[f"captions that name the {side}"] = f"{agreeing} of {len(centres)} have their nuclei further {side}"


def patient_of(image_id: str) -> str | None:
    """The patient of a picture: the first three parts of a TCGA barcode, upper case; ``None`` for another name."""
    found = _PATIENT.fullmatch(image_id)
    return found[1].upper() if found else None
