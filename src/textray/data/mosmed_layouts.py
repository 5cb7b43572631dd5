"""Where the pictures and caption tables of MosMedData+ lie in the three layouts in which it is published.

Kaggle              LViT                                  csv
frames/             Train_Folder/img/, labelcol/          Train/Images/, GTs/
masks/              Train_Folder/Train_text.xlsx          prompt/train.csv
Train_text_….xlsx   Val_Folder/…, Test_Folder/…           Val/…, Test/…, prompt/val.csv, prompt/test.csv
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from textray.errors import LayoutError

PartName = Literal["train", "val", "test"]
PARTS: tuple[PartName, ...] = ("train", "val", "test")

_HELP = 'See docs/datasets/mosmed_plus.md or run "textray data check mosmed_plus ROOT".'
_TABLE = re.compile(r"(train|val|test)_text(?:_mosmed.*|[ (].*)?\.(?:xlsx|csv)")  # " 1.xlsx" and " 1(in).csv" circulate
_CSV_TABLE = re.compile(r"(train|val|test)\.(?:csv|xlsx)")


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
        name: ``Kaggle``, ``LViT`` or ``csv``.
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


def find_layout(root: Path) -> Layout:
    """Find the layout in a folder, or in the one folder inside it that has one; names count whatever their case.

    Raises:
        LayoutError: If there is none, tables are missing, or two tables could be the one of a part.
    """
    if not root.is_dir():
        raise LayoutError(f"there is no folder {root}", do=_HELP)
    for places in ([root], _folders(root)):
        layouts = [found for folder in places if (found := _kaggle(folder, root) or _lvit(folder) or _csv(folder))]
        if len(layouts) > 1:
            raise LayoutError(
                f"several data sets lie in {root}",
                came=" and ".join(layout.parts[0].images.relative_to(root).parts[0] for layout in layouts),
                expected="the folder of one",
                do=_HELP,
            )
        if layouts:
            return layouts[0]
    raise LayoutError(
        f"no layout of MosMedData+ under {root}",
        expected="frames and masks, or Train_Folder with img and labelcol, or Train with Images and GTs and prompt "
        "with train.csv",
        do=_HELP,
    )


def _kaggle(folder: Path, given: Path) -> Layout | None:
    images, masks = _inside(folder, "frames"), _inside(folder, "masks")
    if images is None or masks is None:
        return None
    pictures = {images, masks}
    places = dict.fromkeys(f for f in (folder, *_folders(folder), given, *_folders(given)) if f not in pictures)
    tables = _tables((path for place in places for path in place.iterdir()), _TABLE, folder)
    if not tables:
        raise LayoutError(
            f"no caption table beside frames and masks of {folder}",
            expected='"Train_text_MosMedData+ 1.xlsx", "Val_text_MosMedData+ 1.xlsx" and "Test_text_MosMedData+.xlsx", '
            "which tell the parts",
            do=_HELP,
        )
    parts = (Part(name=name, table=tables[name], images=images, masks=masks) for name in PARTS if name in tables)
    # Tables may lie beside the folder of the pictures; messages are relative to what holds both.
    inside = all(table.is_relative_to(folder) for table in tables.values())
    return Layout(name="Kaggle", root=folder if inside else given, parts=tuple(parts))


def _lvit(folder: Path) -> Layout | None:
    parts = []
    for name in PARTS:
        part = _inside(folder, f"{name}_folder")
        if part is None:
            continue
        images, masks = _inside(part, "img"), _inside(part, "labelcol")
        if images is None or masks is None:
            raise LayoutError(f"{part} lacks its pictures", expected="the folders img and labelcol", do=_HELP)
        tables = _tables(part.iterdir(), _TABLE, part)
        parts.append(Part(name=name, table=_only(tables, name, part), images=images, masks=masks))
    return Layout(name="LViT", root=folder, parts=tuple(parts)) if parts else None


def _csv(folder: Path) -> Layout | None:
    prompt = _inside(folder, "prompt")
    if prompt is None:
        return None
    tables = _tables(prompt.iterdir(), _CSV_TABLE, prompt)
    parts = []
    for name in PARTS:
        part = _inside(folder, name)
        images, masks = (None, None) if part is None else (_inside(part, "images"), _inside(part, "gts"))
        if images is not None and masks is not None:
            parts.append(Part(name=name, table=_only(tables, name, prompt), images=images, masks=masks))
    return Layout(name="csv", root=folder, parts=tuple(parts)) if parts else None


def _tables(paths: Iterable[Path], pattern: re.Pattern[str], where: Path) -> dict[PartName, Path]:
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


def _only(tables: dict[PartName, Path], name: PartName, where: Path) -> Path:
    if name not in tables:
        raise LayoutError(f"no caption table of {name} in {where}", expected="a csv or xlsx file", do=_HELP)
    return tables[name]


def _inside(folder: Path, name: str) -> Path | None:
    """The folder of that name, given in lower case, whatever its case; the first of several by name."""
    return next((path for path in _folders(folder) if path.name.casefold() == name), None)


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
