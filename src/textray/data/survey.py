"""What lies in the folders of a data set in parts, and stands in its tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from textray.data.base import Problem
from textray.data.caption_table import CaptionRow, read_captions, read_report, row_problem
from textray.data.lvit_folders import PARTS, Layout, PartName
from textray.data.pairs import Folder, bare_name
from textray.errors import InputError
from textray.records import Report

ReadReport = Callable[[CaptionRow, str, dict[str, Report | InputError]], tuple[Report | None, Problem | None]]
"""Turns a row of a caption table into a report, or into the problem that keeps it from being one."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A picture with its mask.

    Attributes:
        image_id: Its name.
        image: Its file.
        mask: The file of its mask.
        report: What its caption says, ``None`` where no usable one stands in the table.
        part: The part whose table names it.
        group: The patient or volume it is of, ``None`` where the name does not tell.
    """

    image_id: str
    image: Path
    mask: Path
    report: Report | None
    part: PartName
    group: str | None


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What lies in the folders and stands in the tables."""

    images: int
    masks: int
    rows: dict[PartName, int]
    entries: tuple[Entry, ...]
    problems: tuple[Problem, ...]


def survey(layout: Layout, *, group_of: Callable[[str], str | None], read: ReadReport = read_report) -> Survey:
    """List folders and read tables; what does not fit together becomes a problem, nothing is refused.

    A picture that no row names is missing its caption: in a part's own folder it belongs to that part, in folders that
    all parts share it belongs to none.

    Args:
        layout: Where things lie.
        group_of: Tells the patient or volume of an image by its name.
        read: Reads the caption of a row.
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
                reports[found], problem = read(row, where, parsed)
                problems += [problem] if problem else []
        if not layout.shared:
            for name in (n for n in pictures.ids if n not in reports and n.casefold() not in seen):
                problems.append(_missing(pictures, name, layout.root, f"has no row in {where}"))
                seen[name.casefold()] = f"the folder {part.images.relative_to(layout.root)}"
                reports[name] = None
        for name, image, mask in _pair(reports, pictures, labels, layout.root, problems):
            entries.append(
                Entry(
                    image_id=name,
                    image=image,
                    mask=mask,
                    report=reports[name],
                    part=part.name,
                    group=group_of(name),
                )
            )
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
    names: Iterable[str], pictures: Folder, labels: Folder, root: Path, problems: list[Problem]
) -> Iterator[tuple[str, Path, Path]]:
    for name in names:
        image, mask = pictures.get(name), labels.get(name)
        if image is None or mask is None:
            problems.append(_missing(pictures, name, root, "has no mask of its name", code="E_PAIR"))
        else:
            yield name, image, mask


def _lone_masks(pictures: Folder, labels: Folder, root: Path) -> list[Problem]:
    lone = [name for name in labels.ids if pictures.find(name) is None]
    return [_missing(labels, name, root, "has no image of its name", code="E_PAIR") for name in lone]


def _missing(folder: Folder, name: str, root: Path, message: str, code: str = "E_CAPTION_MISSING") -> Problem:
    return Problem(code=code, path=str((folder.path / name).relative_to(root)), message=message)
