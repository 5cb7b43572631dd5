"""Where the pictures and caption tables of MosMedData+ lie in the three layouts in which it is published.

Kaggle              LViT                                  csv
frames/             Train_Folder/img/, labelcol/          Train/Images/, GTs/
masks/              Train_Folder/Train_text.xlsx          prompt/train.csv
Train_text_….xlsx   Val_Folder/…, Test_Folder/…           Val/…, Test/…, prompt/val.csv, prompt/test.csv
"""

from __future__ import annotations

import re
from pathlib import Path

from textray.data.lvit_folders import PARTS, Layout, Part, folders, inside, lvit, only, refuse_several, tables
from textray.errors import LayoutError

_HELP = 'See docs/datasets/mosmed_plus.md or run "textray data check mosmed_plus ROOT".'
_TABLE = re.compile(r"(train|val|test)_text(?:_mosmed.*|[ (].*)?\.(?:xlsx|csv)")  # " 1.xlsx" and " 1(in).csv" circulate
_CSV_TABLE = re.compile(r"(train|val|test)\.(?:csv|xlsx)")


def find_layout(root: Path) -> Layout:
    """Find the layout in a folder, or in the one folder inside it that has one; names count whatever their case.

    Raises:
        LayoutError: If there is none, tables are missing, or two tables could be the one of a part.
    """
    if not root.is_dir():
        raise LayoutError(f"there is no folder {root}", do=_HELP)
    for places in ([root], folders(root)):
        layouts = [
            found
            for folder in places
            if (found := _kaggle(folder, root) or lvit(folder, _TABLE, _HELP) or _csv(folder))
        ]
        if len(layouts) > 1:
            refuse_several(layouts, root, _HELP)
        if layouts:
            return layouts[0]
    raise LayoutError(
        f"no layout of MosMedData+ under {root}",
        expected="frames and masks, or Train_Folder with img and labelcol, or Train with Images and GTs and prompt "
        "with train.csv",
        do=_HELP,
    )


def _kaggle(folder: Path, given: Path) -> Layout | None:
    images, masks = inside(folder, "frames"), inside(folder, "masks")
    if images is None or masks is None:
        return None
    pictures = {images, masks}
    places = dict.fromkeys(f for f in (folder, *folders(folder), given, *folders(given)) if f not in pictures)
    found = tables((path for place in places for path in place.iterdir()), _TABLE, folder)
    if not found:
        raise LayoutError(
            f"no caption table beside frames and masks of {folder}",
            expected='"Train_text_MosMedData+ 1.xlsx", "Val_text_MosMedData+ 1.xlsx" and "Test_text_MosMedData+.xlsx", '
            "which tell the parts",
            do=_HELP,
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
            parts.append(Part(name=name, table=only(found, name, prompt, _HELP), images=images, masks=masks))
    return Layout(name="csv", root=folder, parts=tuple(parts)) if parts else None
