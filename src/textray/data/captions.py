"""Caption tables, and the base of readers of pictures and masks in folders with such a table for each part."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import ClassVar

from textray import registry
from textray.data.base import PARTS, CheckResult, Counts, PartName, Problem, Reader, Sample, check_split, part_of
from textray.data.folders import (
    Folder,
    Layout,
    MaskFacts,
    Part,
    bare_name,
    check_pixels,
    colour_problems,
    size_problems,
)
from textray.data.twins import same_pictures
from textray.errors import DataError, InputError
from textray.records import Notice, Report, Zones
from textray.text.tables import known_cell, read_columns
from textray.text.zones import parse_caption

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CaptionRow:
    """One row of a caption table; the header is line 1."""

    key: str  # name as it stands in the table (the mask's file name in QaTa-COV19), never turned into a number
    text: str | None
    line: int

    def problem(self, code: str, where: str, message: str) -> Problem:
        """A problem of this row of the table ``where``."""
        return Problem(code, where, f"row {self.line}, {self.key}: {message}")


def read_captions(path: Path) -> list[CaptionRow]:
    """Rows of a table with the columns Image (or Filename) and Description (or Text), in its order.

    A row that names no image is a `DataError`; for others see `textray.text.tables.read_columns`.
    """
    table = read_columns(path, ("Image|Filename", "Description|Text"), of_data=True)
    if table.encoding != "utf-8-sig" or table.delimiter != ",":
        log.info("%s read as %s, columns parted by %r", path.name, table.encoding, table.delimiter)
    rows = []
    for line, cells in table.rows:
        if not cells["image"].strip():
            raise DataError(f"row {line} of {path.name} names no image", do="Fill in or remove the row.")
        rows.append(CaptionRow(key=cells["image"].strip(), text=known_cell(cells["description"]), line=line))
    return rows


@lru_cache(maxsize=4096)  # few sentences make up a whole data set
def _parsed(text: str) -> Report | None:
    try:
        return parse_caption(text)
    except InputError:
        return None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A picture with its mask."""

    image_id: str
    image: Path
    mask: Path
    report: Report | None  # None without a usable caption
    part: PartName  # the part whose table or folder has it
    place: int | None  # among the rows of that table, None where no row names it
    group: str | None  # patient or volume, None where unknown


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Contents of the folders and tables: numbers of files and rows, pictures with masks, and what is wrong."""

    images: int
    masks: int
    rows: dict[PartName, int]
    entries: tuple[Entry, ...]
    problems: tuple[Problem, ...]


class CaptionedFolders(Reader):
    """Base of readers of pictures and masks in folders, with a caption table for each part.

    Args:
        missing_captions: What to do about an image whose caption is missing, blank or not understood, and about rows
            without an image: refuse (``"error"``), leave it out (``"skip"``), or keep the image without a report
            (``"text-free"``). Each is named.
    """

    published: ClassVar[Mapping[PartName, int]]
    unit: ClassVar[str] = "images"
    no_report: ClassVar[Report] = Report(
        zones=Zones(), notices=(Notice(code="W_NO_ZONE", text="the data set has no usable caption for this image"),)
    )

    def __init__(self, layout: Layout, *, missing_captions: str, seed: int) -> None:
        super().__init__(layout.root, missing_captions=missing_captions, seed=seed)
        self.layout = layout
        self._surveys: dict[tuple[PartName, ...], Survey] = {}
        self._trusted: set[tuple[PartName, ...]] = set()

    def samples(self, split: str) -> list[Sample]:
        """Samples of a split, in the order of the caption tables.

        Raises:
            DataError: If files do not pair up, names collide, a mask has another size than its image, a patient is in
                two parts, or a caption is refused; others see `Reader.samples`.
        """
        wanted = check_split(split)
        part = part_of(wanted)
        self._require(part)
        parted = self._parted(self._trust(part))
        entries = [entry for entry, to in parted if to == part]
        if wanted in ("inner", "fit"):
            left_out = self._left_out(parted)
            entries = [entry for entry in entries if entry.image_id not in left_out]
            entries = self._cut_train(entries, wanted, self._draw_by(entries))
        return [
            Sample(
                image_id=entry.image_id,
                image_path=entry.image,
                mask_path=entry.mask,
                report=self._report(entry.report),
                also=self._other_wordings(entry),
                patient_id=entry.group,
                split=wanted,
            )
            for entry in entries
            if self._keeps(entry)
        ]

    def check(self) -> CheckResult:
        """Look at every file: all pixels of masks, headers of images (colour ones decoded), all rows of the tables."""
        found = self._surveyed("train")
        problems = list(found.problems)
        counts: Counts = {"root": str(self.root), "layout": self.layout.name}
        counts["images"], counts["masks"] = found.images, found.masks
        for name in PARTS:
            rows, expected = found.rows.get(name), self.published[name]
            counts[f"{name} captions"] = "not present" if rows is None else f"{rows} (published: {expected})"
            if rows not in (None, expected):
                table = next(part.table for part in self.layout.parts if part.name == name)
                message = f"has {rows} rows for {name}; published are {expected}"
                problems.append(Problem("W_COUNT", str(table.relative_to(self.root)), message))
        problems += self._check_parts(found, counts)
        pairs = [(entry.image, entry.mask) for entry in found.entries]
        facts = check_pixels(pairs, self.root, self.unit, counts, problems)
        colour = registry.dataset(self.name).colour
        problems += colour_problems((image for image, _ in pairs), self.root, colour=colour)
        pictures = ((entry.image, to) for entry, to in self._parted(found))
        problems += same_pictures(pictures, self.root, films=False)
        self._check_captions(found.entries, facts, counts)
        return CheckResult(name=self.name, root=self.root, counts=counts, problems=tuple(problems))

    def _group_of(self, image_id: str) -> str | None:
        """The patient or volume of an image."""
        raise NotImplementedError

    def _read_caption(self, text: str) -> Report | None:
        """What a caption says; ``None`` where the grammar of captions does not know it."""
        return _parsed(text)

    def _report(self, report: Report | None) -> Report:
        """The report of a sample."""
        return self.no_report if report is None else report

    def _left_out(self, parted: Sequence[tuple[Entry, PartName]]) -> frozenset[str]:
        """Images of `train` that no training gets, because they are held in another part too."""
        return frozenset()

    def _other_wordings(self, entry: Entry) -> tuple[Report, ...]:
        """What other wordings of the caption say."""
        return ()

    def _parted(self, found: Survey) -> list[tuple[Entry, PartName]]:
        """Entries and the part that each of them belongs to."""
        return [(entry, entry.part) for entry in found.entries]

    def _drawn_by(self, entry: Entry) -> str | None:
        """What an entry is drawn by into `inner`."""
        return entry.group

    def _draw_by(self, entries: Sequence[Entry]) -> Callable[[Entry], str | None]:
        """`_drawn_by`, or images one by one where there are no two groups to draw from."""
        if len({self._drawn_by(entry) for entry in entries} - {None}) > 1:
            return self._drawn_by
        log.warning("W_NO_PATIENT: no names of patients are known, so inner is drawn by image; one may be in fit too")
        return lambda entry: None if self._drawn_by(entry) else entry.image_id

    def _rows(self, part: Part) -> list[CaptionRow]:
        """Rows of a part's table, in the order of its samples."""
        return read_captions(part.table)

    def _sources(self, part: PartName) -> tuple[Part, ...]:
        """What must be read for a part."""
        return self.layout.parts

    def _require(self, part: PartName) -> None:
        """Refuse a copy that lacks a part that is needed."""
        present = [source.name for source in self.layout.parts]
        missing = [name for name in self._needed(part) if name not in present]
        if missing:
            raise self._no_layout(
                f"no {' and '.join(missing)} part under {self.root}",
                came=f"{', '.join(present)} in the {self.layout.name} layout",
                expected=", ".join(self._needed(part)),
            )

    def _needed(self, part: PartName) -> tuple[PartName, ...]:
        """The parts that must be there to give one."""
        return (part,)

    def _more_problems(self, entries: Sequence[Entry]) -> list[Problem]:
        """Problems of this data set alone."""
        return []

    def _check_parts(self, found: Survey, counts: Counts) -> list[Problem]:
        """Count each part; return what is wrong with the cut."""
        return []

    def _check_captions(self, entries: Sequence[Entry], facts: Mapping[Path, MaskFacts], counts: Counts) -> None:
        """Count captions, and masks that agree with them."""

    def _keeps(self, entry: Entry) -> bool:
        return entry.report is not None or self.policy == "text-free"

    def _surveyed(self, part: PartName) -> Survey:
        sources = self._sources(part)
        key = tuple(source.name for source in sources)
        if key not in self._surveys:
            self._surveys[key] = self._survey(sources)
        return self._surveys[key]

    def _trust(self, part: PartName) -> Survey:
        """What a part is cut from, once nothing is wrong with it that the caption policy does not let pass."""
        found, key = self._surveyed(part), tuple(source.name for source in self._sources(part))
        if key not in self._trusted:
            sizes = (size_problems(entry.image, entry.mask, self.root) for entry in found.entries)
            self._refuse(chain(found.problems, *sizes))
            for problem in found.problems:
                if problem.code in self._tolerated:
                    log.warning("%s: %s (missing_captions=%s)", problem.path, problem.message, self.policy)
            self._trusted.add(key)
        return found

    def _survey(self, parts: Sequence[Part]) -> Survey:
        """List folders and read tables; what does not fit together becomes a problem, nothing is refused.

        A picture that no row names is missing its caption: in a part's own folder it belongs to that part, in folders
        that all parts share it belongs to none.
        """
        root, shared = self.root, self.layout.name == "Kaggle"  # one folder for all, and only the tables part them
        problems: list[Problem] = []
        images: dict[Path, Folder] = {}
        masks: dict[Path, Folder] = {}
        for part in parts:
            if part.images not in images:
                pictures = images[part.images] = Folder(part.images, root)
                labels = masks[part.masks] = Folder(part.masks, root, prefix="mask_")
                problems += pictures.problems + labels.problems
                lone = [name for name in labels.ids if pictures.find(name) is None]
                problems += [_missing(labels, name, root, "has no image of its name", code="E_PAIR") for name in lone]
        entries: list[Entry] = []
        rows: dict[PartName, int] = {}
        seen: dict[str, str] = {}
        for part in parts:
            where = str(part.table.relative_to(root))
            pictures, labels = images[part.images], masks[part.masks]
            reports: dict[str, tuple[Report | None, int | None]] = {}
            table = self._rows(part)
            rows[part.name] = len(table)
            for place, row in enumerate(table):
                key = bare_name(row.key, "mask_")
                name = pictures.find(key)
                if name is None:
                    if labels.find(key) is None:
                        problems.append(row.problem("E_CAPTION_EXTRA", where, "has neither image nor mask"))
                elif name.casefold() in seen:
                    message = f"stands in {seen[name.casefold()]} already"
                    problems.append(row.problem("E_DUPLICATE_ID", where, message))
                else:
                    seen[name.casefold()] = f"row {row.line} of {where}"
                    report = None if row.text is None else self._read_caption(row.text)
                    reports[name] = report, place
                    if row.text is None:
                        problems.append(row.problem("E_CAPTION_BLANK", where, "has a blank caption"))
                    elif report is None:
                        message = "has a caption that the grammar does not know"
                        problems.append(row.problem("E_CAPTION_WORDS", where, message))
            if not shared:
                for name in (n for n in pictures.ids if n not in reports and n.casefold() not in seen):
                    problems.append(_missing(pictures, name, root, f"has no row in {where}"))
                    seen[name.casefold()] = f"the folder {part.images.relative_to(root)}"
                    reports[name] = None, None
            for name, (known, at) in reports.items():
                image, mask = pictures.get(name), labels.get(name)
                if image is None or mask is None:
                    problems.append(_missing(pictures, name, root, "has no mask of its name", code="E_PAIR"))
                    continue
                group = self._group_of(name)
                entries.append(
                    Entry(image_id=name, image=image, mask=mask, report=known, part=part.name, place=at, group=group)
                )
        if shared and len(rows) == len(PARTS):
            pictures = images[parts[0].images]
            lost = [name for name in pictures.ids if name.casefold() not in seen]
            problems += [_missing(pictures, n, root, "has no row in any table, so no part") for n in lost]
        return Survey(
            images=sum(map(len, images.values())),
            masks=sum(map(len, masks.values())),
            rows=rows,
            entries=tuple(entries),
            problems=(*problems, *self._more_problems(entries)),
        )


def _missing(folder: Folder, name: str, root: Path, message: str, code: str = "E_CAPTION_MISSING") -> Problem:
    return Problem(code, str(folder[name].relative_to(root)), message)
