"""What lies in the folders of MosMedData+ and stands in its tables; volumes, sources, and a cut by volume."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from textray.data.base import Problem
from textray.data.caption_table import read_captions, read_report, row_problem
from textray.data.mosmed_layouts import PARTS, Layout, Part, PartName
from textray.data.pairs import Folder, bare_name
from textray.errors import InputError
from textray.records import Report

CUT_SHARE = 0.1
"""Share of each source's volumes in `test`, and as many again in `val`, where the cut is by volume."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A slice with its mask; ``report`` is ``None`` where no usable caption stands in the table."""

    image_id: str
    image: Path
    mask: Path
    report: Report | None
    part: PartName

    @property
    def volume(self) -> str | None:
        """The volume that the slice is of; see `volume_of`."""
        return volume_of(self.image_id)


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What lies in the folders and stands in the tables."""

    images: int
    masks: int
    rows: dict[PartName, int]
    entries: tuple[Entry, ...]
    problems: tuple[Problem, ...]


def survey(layout: Layout) -> Survey:
    """List folders and read tables; what does not fit together becomes a problem, nothing is refused.

    A slice that no row names is missing its caption: in a part's own folder it belongs to that part, in folders that
    all parts share it belongs to none.
    """
    problems: list[Problem] = []
    images: dict[Path, Folder] = {}
    masks: dict[Path, Folder] = {}
    for part in layout.parts:
        if part.images not in images:
            images[part.images] = Folder(part.images, layout.root)
            masks[part.masks] = Folder(part.masks, layout.root, prefix="mask_")
            problems += images[part.images].problems + masks[part.masks].problems
            problems += _lone_masks(images[part.images], masks[part.masks], layout.root)
    entries: list[Entry] = []
    rows: dict[PartName, int] = {}
    seen: dict[str, str] = {}
    parsed: dict[str, Report | InputError] = {}
    for part in layout.parts:
        where = str(part.table.relative_to(layout.root))
        pictures, labels = images[part.images], masks[part.masks]
        reports: dict[str, Report | None] = {}
        table = read_captions(part.table)
        rows[part.name] = len(table)
        for row in table:
            found = pictures.find(bare_name(row.key, "mask_"))
            if found is None:
                if labels.find(bare_name(row.key, "mask_")) is None:
                    problems.append(row_problem("E_CAPTION_EXTRA", where, row, "has neither image nor mask"))
            elif found.casefold() in seen:
                message = f"stands in {seen[found.casefold()]} already"
                problems.append(row_problem("E_DUPLICATE_ID", where, row, message))
            else:
                seen[found.casefold()] = f"row {row.line} of {where}"
                reports[found], problem = read_report(row, where, parsed)
                problems += [problem] if problem else []
        if not layout.shared:
            for name in (n for n in pictures.ids if n not in reports and n.casefold() not in seen):
                problems.append(_missing(pictures, name, layout.root, f"has no row in {where}"))
                seen[name.casefold()] = f"the folder {part.images.relative_to(layout.root)}"
                reports[name] = None
        entries += _pair(part, reports, pictures, labels, layout.root, problems)
    if layout.shared and len(rows) == len(PARTS):
        pictures = images[layout.parts[0].images]
        lost = [name for name in pictures.ids if name.casefold() not in seen]
        problems += [_missing(pictures, n, layout.root, "has no row in any table, so no part") for n in lost]
    return Survey(
        images=sum(map(len, images.values())),
        masks=sum(map(len, masks.values())),
        rows=rows,
        entries=tuple(entries),
        problems=tuple(problems),
    )


def _pair(
    part: Part, reports: dict[str, Report | None], pictures: Folder, labels: Folder, root: Path, problems: list[Problem]
) -> Iterator[Entry]:
    for name, report in reports.items():
        image, mask = pictures.get(name), labels.get(name)
        if image is None or mask is None:
            problems.append(_missing(pictures, name, root, "has no mask of its name", code="E_PAIR"))
        else:
            yield Entry(image_id=name, image=image, mask=mask, report=report, part=part.name)


def _lone_masks(pictures: Folder, labels: Folder, root: Path) -> list[Problem]:
    lone = [name for name in labels.ids if pictures.find(name) is None]
    return [_missing(labels, name, root, "has no image of its name", code="E_PAIR") for name in lone]


def _missing(folder: Folder, name: str, root: Path, message: str, code: str = "E_CAPTION_MISSING") -> Problem:
    return Problem(code=code, path=str((folder.path / name).relative_to(root)), message=message)


def volume_of(image_id: str) -> str | None:
    """The volume of a slice: all up to and with the number of the case or study, in lower case.

    ``Jun_coronacases_case1_128`` is of ``jun_coronacases_case1``, ``Morozov_study_0255_24`` of ``morozov_study_0255``;
    ``bjorke_8`` tells none. Radiopaedia has several series of some patients, such as 10_85902_1 and 10_85902_3: the
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
    """Cut volumes into parts, source by source: a tenth `test`, a tenth `val`, at least one each of three or more.

    Volumes stand in an order that the hash of seed and name fixes, the same on every machine.
    """
    cut: dict[str, PartName] = {}
    names = sorted(set(volumes), key=lambda v: hashlib.sha256(f"{seed}:{v}".encode()).hexdigest())
    for source in {source_of(volume) for volume in names}:
        ordered = [volume for volume in names if source_of(volume) == source]
        tenth = max(1, round(CUT_SHARE * len(ordered))) if len(ordered) >= len(PARTS) else 0
        for place, volume in enumerate(ordered):
            cut[volume] = "test" if place < tenth else "val" if place < 2 * tenth else "train"
    return cut
