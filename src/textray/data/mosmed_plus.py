"""MosMedData+: CT slices of COVID-19 from four sources, lesion masks and captions that name infected zones.

It is published cut by slice, so that slices of one volume lie in train and test; a cut by volume stands beside it.
It is unknown whose left and right its captions mean: they are kept as written. Layouts, counts, sources and terms:
docs/datasets/mosmed_plus.md.

Where the pictures and caption tables of MosMedData+ lie in the three layouts in which it is published.

Kaggle              LViT                                  csv
frames/             Train_Folder/img/, labelcol/          Train/Images/, GTs/
masks/              Train_Folder/Train_text.xlsx          prompt/train.csv
Train_text_….xlsx   Val_Folder/…, Test_Folder/…           Val/…, Test/…, prompt/val.csv, prompt/test.csv
"""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal, get_args

from textray.data.base import PARTS, Counts, PartName, Problem, draw_order, fingerprint, help_for
from textray.data.captions import CaptionedFolders, Entry, Survey
from textray.data.folders import Layout, MaskFacts, Part, find_layout, folders, inside, lvit, only, tables
from textray.errors import unknown_name
from textray.records import Laterality, Notice, Report

log = logging.getLogger(__name__)

Protocol = Literal["slice", "volume"]
"""``slice``: the parts as their tables name them. ``volume``: all slices of a volume in one part."""

_SIDES = Notice(
    code="W_SIDES_UNKNOWN",
    text="It is unknown whose left and right the captions of this data set mean; they are kept as written.",
    remedy="Do not flip the images, and do not mix the words with those of other data sets.",
)
_UPSIDE_DOWN = "jun_radiopaedia"


class MosMedPlus(CaptionedFolders):
    """Reader of MosMedData+ in its three published layouts.

    A slice that no table names belongs to no part and is left out unless it is refused.

    Args:
        root: The folder that holds the pictures, or the one it lies in.
        split_by: ``"slice"`` for the published parts, ``"volume"`` for a cut of our own: a tenth of each source's
            volumes is `test`, a tenth `val`; slices of no known volume are `train`.
        seed: Chooses the volumes of `inner`, and of the cut by volume.
    """

    name = "mosmed_plus"
    published: ClassVar[Mapping[PartName, int]] = {"train": 2183, "val": 273, "test": 273}
    unit = "slices"
    no_report = replace(CaptionedFolders.no_report, laterality=Laterality.UNKNOWN)

    def __init__(
        self, root: str | Path, *, missing_captions: str = "error", split_by: Protocol = "slice", seed: int = 0
    ) -> None:
        if split_by not in get_args(Protocol):
            raise unknown_name("way to cut the data", split_by, get_args(Protocol))
        given = Path(root)
        layout = find_layout(
            given,
            lambda folder: _kaggle(folder, given) or lvit(folder, _TABLE, help_for(self.name)) or _csv(folder),
            "layout of MosMedData+",
            "frames and masks, or Train_Folder with img and labelcol, or Train with Images and GTs and prompt with "
            "train.csv",
            help_for(self.name),
        )
        super().__init__(layout, missing_captions=missing_captions, seed=seed)
        self.split_by = split_by

    def _group_of(self, image_id: str) -> str | None:
        return volume_of(image_id)

    def _report(self, report: Report | None) -> Report:
        if report is None:
            return self.no_report
        return replace(report, laterality=Laterality.UNKNOWN, notices=(*report.notices, _SIDES))

    def _parted(self, found: Survey) -> list[tuple[Entry, PartName]]:
        return self._cut(found.entries, self.split_by)

    def _cut(self, entries: Sequence[Entry], protocol: Protocol) -> list[tuple[Entry, PartName]]:
        """Entries and the part of each; those of no known volume are train, since they may share a patient."""
        if protocol == "slice":
            return [(entry, entry.part) for entry in entries]
        cut = cut_volumes((e.group for e in entries if e.group), self.seed)
        return [(entry, cut[entry.group] if entry.group else "train") for entry in entries]

    def _needed(self, part: PartName) -> tuple[PartName, ...]:
        return PARTS if self.split_by == "volume" else (part,)

    def _trust(self, part: PartName) -> Survey:
        known = bool(self._trusted)
        found = super()._trust(part)
        if not known:
            log.warning("%s: %s", self.name, _SIDES.text)
        return found

    def _check_parts(self, found: Survey, counts: Counts) -> list[Problem]:
        """Count both cuts with the hash of their ids, and volumes with slices in several published parts."""
        for protocol in get_args(Protocol):
            if protocol == "volume" and len(found.rows) < len(PARTS):
                counts["cut by volume"] = "needs all three parts"
                continue
            parted = self._cut(found.entries, protocol)
            for name in PARTS:
                counts[f"cut by {protocol}, {name}"] = _describe([e for e, to in parted if to == name])
        parts: defaultdict[str, set[PartName]] = defaultdict(set)
        for entry in found.entries:
            if entry.group:
                parts[entry.group].add(entry.part)
        leaking = {volume for volume, names in parts.items() if len(names) > 1}
        counts["volumes in several parts of the cut by slice"] = f"{len(leaking)} of {len(parts)}"
        for name in ("val", "test"):
            held = [e for e in found.entries if e.part == name]
            seen = sum(e.group is not None and "train" in parts[e.group] for e in held)
            counts[f"{name} slices whose volume is in train"] = f"{seen} of {len(held)}"
        if not leaking:
            return []
        message = (
            f"{len(leaking)} of {len(parts)} volumes have slices in several parts, so scores of the cut by slice are "
            "partly scores of memory; --split-by volume cuts by volume"
        )
        return [Problem("W_VOLUME_LEAK", f"({self.layout.name} layout)", message)]

    def _check_captions(self, entries: Sequence[Entry], facts: Mapping[Path, MaskFacts], counts: Counts) -> None:
        """Count each source: slices, heights of lesions, and whether words and image agree on the side."""
        for source in sorted({source_of(entry.image_id) for entry in entries}):
            found = [entry for entry in entries if source_of(entry.image_id) == source]
            centres = {e.image_id: f.centre for e in found if (f := facts.get(e.mask)) and f.centre}
            heights = [centre[0] for centre in centres.values()]
            agreeing: Counter[str] = Counter()
            for entry in found:
                present = entry.report.zones.present if entry.report else ()
                centre = centres.get(entry.image_id)
                if centre and any(present[:3]) != any(present[3:]):  # the caption names one side only
                    side = "left" if any(present[:3]) else "right"
                    agreeing[side] += 1
                    agreeing[f"{side} in left half"] += centre[1] < 0.5
            words = [f"{len(found)} slices"]
            words += [f"mean lesion height {sum(heights) / len(heights):.2f}"] if heights else []
            words += [
                f"{agreeing[f'{side} in left half']} of {agreeing[side]} named {side} only lie in the image's left half"
                for side in ("left", "right")
                if agreeing[side]
            ]
            words += ["published upside down, read as stored"] if source == _UPSIDE_DOWN else []
            counts[f"source {source}"] = "; ".join(words)


def _describe(entries: list[Entry]) -> str:
    volumes = {entry.group for entry in entries} - {None}
    without = sum(entry.group is None for entry in entries)
    ids = fingerprint(entry.image_id for entry in entries)[:12]
    return f"{len(entries)} slices of {len(volumes)} volumes, {without} of no known volume, ids {ids}"


_TABLE = re.compile(r"(train|val|test)_text(?:_mosmed.*|[ (].*)?\.(?:xlsx|csv)")  # " 1.xlsx" and " 1(in).csv" circulate
_CSV_TABLE = re.compile(r"(train|val|test)\.(?:csv|xlsx)")


def _kaggle(folder: Path, given: Path) -> Layout | None:
    images, masks = inside(folder, "frames"), inside(folder, "masks")
    if images is None or masks is None:
        return None
    pictures = {images, masks}
    places = dict.fromkeys(f for f in (folder, *folders(folder), given, *folders(given)) if f not in pictures)
    found = tables((path for place in places for path in place.iterdir()), _TABLE, folder)
    if not found:
        raise MosMedPlus._no_layout(
            f"no caption table beside frames and masks of {folder}",
            expected='"Train_text_MosMedData+ 1.xlsx", "Val_text_MosMedData+ 1.xlsx" and "Test_text_MosMedData+.xlsx", '
            "which name the parts",
        )
    parts = (Part(name=name, table=found[name], images=images, masks=masks) for name in PARTS if name in found)
    # Tables may lie beside the folder of the pictures; messages are relative to what holds both.
    within = all(table.is_relative_to(folder) for table in found.values())
    return Layout(name="Kaggle", root=folder if within else given, parts=tuple(parts))


def _csv(folder: Path) -> Layout | None:
    prompt = inside(folder, "prompt")
    if prompt is None:
        return None
    found = tables(prompt.iterdir(), _CSV_TABLE, prompt)
    parts = []
    for name in PARTS:
        part = inside(folder, name)
        images, masks = (None, None) if part is None else (inside(part, "images"), inside(part, "gts"))
        if images is not None and masks is not None:
            parts.append(
                Part(name=name, table=only(found, name, prompt, help_for(MosMedPlus.name)), images=images, masks=masks)
            )
    return Layout(name="csv", root=folder, parts=tuple(parts)) if parts else None


# Volumes and sources in the names of MosMedData+, and a cut by volume.

CUT_SHARE = 0.1
"""Share of each source's volumes in `test`, and as many again in `val`, where the cut is by volume."""


def volume_of(image_id: str) -> str | None:
    """The volume of a slice: all up to and with the number of the case or study, in lower case.

    ``Jun_coronacases_case1_128`` is of ``jun_coronacases_case1``, ``Morozov_study_0255_24`` of ``morozov_study_0255``;
    ``bjorke_8`` has none. Radiopaedia has several series of some patients, such as 10_85902_1 and 10_85902_3: the
    first number is the patient's, and all of its series count as one volume, ``jun_radiopaedia_10``.
    """
    name = image_id.casefold()
    found = re.fullmatch(r"(jun_radiopaedia_\d+)_.*", name) or re.fullmatch(r"(.*(?:case|study)_?\d+)_\d+", name)
    return found[1] if found else None


def source_of(image_id: str) -> str:
    """The collection that a slice comes from, in lower case: ``jun_coronacases``, ``morozov``, ..."""
    first, _, rest = image_id.casefold().partition("_")
    return f"{first}_{rest.partition('_')[0]}" if first == "jun" else first


def cut_volumes(volumes: Iterable[str], seed: int = 0) -> dict[str, PartName]:
    """Cut volumes into parts, source by source: a tenth `test`, a tenth `val`, at least one each of three or more."""
    cut: dict[str, PartName] = {}
    names = draw_order(volumes, seed)
    for source in {source_of(volume) for volume in names}:
        ordered = [volume for volume in names if source_of(volume) == source]
        tenth = max(1, round(CUT_SHARE * len(ordered))) if len(ordered) >= len(PARTS) else 0
        for place, volume in enumerate(ordered):
            cut[volume] = "test" if place < tenth else "val" if place < 2 * tenth else "train"
    return cut
