"""Caption tables as they circulate, CSV with its quirks or XLSX, and the folders of LViT's authors.

Parts of a data set in folders: what a part is, and the layout of LViT's authors, which several data sets share.

Train_Folder/img/, Train_Folder/labelcol/, Train_Folder/Train_text.xlsx, and the same for Val and Test
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from textray.data.base import Problem
from textray.errors import DataError, InputError, LayoutError
from textray.records import Report, Zones
from textray.text.cleaning import clean
from textray.text.tables import known_cell, read_columns
from textray.text.zones import parse_caption

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CaptionRow:
    """One row of a caption table.

    Attributes:
        key: Name as it stands in the table (the mask's file name in QaTa-COV19), never turned into a number.
        text: The caption, ``None`` where blank.
        line: Row number in the table, the header being 1.
    """

    key: str
    text: str | None
    line: int


def read_captions(path: Path) -> list[CaptionRow]:
    """Rows of a caption table in its own order, see `textray.text.tables.read_columns`.

    Args:
        path: Table with the columns Image (or Filename) and Description (or Text).

    Raises:
        LayoutError: If it is not there.
        DataError: If it has no such columns, cannot be read, or names no image in a row.
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


def read_report(
    row: CaptionRow, where: str, parsed: dict[str, Report | InputError]
) -> tuple[Report | None, Problem | None]:
    """The report of a row by the grammar of captions, or the problem that keeps it from being one.

    Args:
        row: The row.
        where: Path of its table, for the message.
        parsed: What is known of texts already; it is added to, since few sentences make up a whole data set.
    """
    if row.text is None:
        return None, row_problem("E_CAPTION_BLANK", where, row, "has a blank caption")
    if row.text not in parsed:
        try:
            parsed[row.text] = parse_caption(row.text)
        except InputError as error:
            parsed[row.text] = error
    report = parsed[row.text]
    if isinstance(report, InputError):
        return None, row_problem("E_CAPTION_WORDS", where, row, "has a caption that the grammar does not know")
    return report, None


def read_free_caption(
    row: CaptionRow, where: str, parsed: dict[str, Report | InputError]
) -> tuple[Report | None, Problem | None]:
    """The caption of a row as it stands, its sides being the picture's; arguments and result are `read_report`'s."""
    if row.text is None:
        return None, row_problem("E_CAPTION_BLANK", where, row, "has a blank caption")
    return Report(zones=Zones(), text=clean(row.text), free=True), None


def row_problem(code: str, where: str, row: CaptionRow, message: str) -> Problem:
    """A problem of a row of the table ``where``."""
    return Problem(code=code, path=where, message=f"row {row.line}, {row.key}: {message}")


PartName = Literal["train", "val", "test"]
PARTS: tuple[PartName, ...] = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One published part.

    Attributes:
        name: Which one.
        table: Its caption table, whose rows are what belongs to it.
        images: Folder of its images.
        masks: Folder of its masks.
    """

    name: PartName
    table: Path
    images: Path
    masks: Path


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What was found.

    Attributes:
        name: ``LViT``, ``Kaggle`` or ``csv``.
        root: The folder that holds it; paths in messages are relative to it.
        parts: The parts that are present, in the order of `PARTS`.
    """

    name: Literal["Kaggle", "LViT", "csv"]
    root: Path
    parts: tuple[Part, ...]

    @property
    def shared(self) -> bool:
        """True where all parts lie in one folder and only the tables tell them apart."""
        return self.name == "Kaggle"


def find_lvit(root: Path, pattern: re.Pattern[str], help_text: str) -> Layout:
    """Find LViT's layout in a folder, or in the one folder inside it that has one.

    Args:
        root: The folder; names count whatever their case.
        pattern: Of a caption table's name in lower case, the part's name as its first group.
        help_text: What to do about a refusal.

    Raises:
        LayoutError: If there is none, a table is missing, or two tables could be the one of a part.
    """
    if not root.is_dir():
        raise LayoutError(f"there is no folder {root}", do=help_text)
    for places in ([root], folders(root)):
        layouts = [found for folder in places if (found := lvit(folder, pattern, help_text))]
        if len(layouts) > 1:
            refuse_several(layouts, root, help_text)
        if layouts:
            return layouts[0]
    raise LayoutError(
        f"no Train_Folder, Val_Folder or Test_Folder under {root}",
        expected="each with img, labelcol and a caption table such as Train_text.xlsx",
        do=help_text,
    )


def lvit(folder: Path, pattern: re.Pattern[str], help_text: str) -> Layout | None:
    """LViT's layout in this very folder, ``None`` where it has none of its parts; else as `find_lvit`."""
    parts = []
    for name in PARTS:
        part = inside(folder, f"{name}_folder")
        if part is None:
            continue
        images, masks = inside(part, "img"), inside(part, "labelcol")
        if images is None or masks is None:
            raise LayoutError(f"{part} lacks its pictures", expected="the folders img and labelcol", do=help_text)
        found = tables(part.iterdir(), pattern, part)
        parts.append(Part(name=name, table=only(found, name, part, help_text), images=images, masks=masks))
    return Layout(name="LViT", root=folder, parts=tuple(parts)) if parts else None


def refuse_several(layouts: list[Layout], root: Path, help_text: str) -> None:
    """Refuse a folder that holds several data sets.

    Raises:
        LayoutError: Always.
    """
    raise LayoutError(
        f"several data sets lie in {root}",
        came=" and ".join(layout.parts[0].images.relative_to(root).parts[0] for layout in layouts),
        expected="the folder of one",
        do=help_text,
    )


def tables(paths: Iterable[Path], pattern: re.Pattern[str], where: Path) -> dict[PartName, Path]:
    """Caption tables by the part that their names tell.

    Raises:
        LayoutError: If two could be that of one part.
    """
    found: dict[PartName, Path] = {}
    for path in sorted(set(paths)):
        match = pattern.fullmatch(path.name.casefold())
        if match is None or not path.is_file():
            continue
        name = next(known for known in PARTS if known == match[1])
        if name in found:
            raise LayoutError(
                f"two caption tables could be that of {name} in {where}",
                came=f"{found[name].name} and {path.name}",
                expected="one",
                do="Move the other one away.",
            )
        found[name] = path
    return found


def only(found: dict[PartName, Path], name: PartName, where: Path, help_text: str) -> Path:
    """The table of a part.

    Raises:
        LayoutError: If there is none.
    """
    if name not in found:
        raise LayoutError(f"no caption table of {name} in {where}", expected="a csv or xlsx file", do=help_text)
    return found[name]


def inside(folder: Path, name: str) -> Path | None:
    """The folder of that name, given in lower case, whatever its case; the first of several by name."""
    return next((path for path in folders(folder) if path.name.casefold() == name), None)


def folders(folder: Path) -> list[Path]:
    """Folders inside a folder, sorted, without hidden ones."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
