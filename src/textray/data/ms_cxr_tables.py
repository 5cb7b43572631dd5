"""The annotations of MS-CXR in their two forms: a CSV with one row for each box, and a JSON laid out like COCO."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textray.data.base import Problem
from textray.data.box_tables import read_box, read_table
from textray.data.phrases import Box, box_problem
from textray.errors import DataError, LayoutError
from textray.text.cleaning import clean

_NAME = re.compile(r"MS_CXR_Local_Alignment_v(\d+(?:\.\d+)*)\.(csv|json)", re.IGNORECASE)
_PATH = re.compile(r"files/p\d\d/p(?P<patient>\d+)/s\d+/(?P<image>[^/\\]+)\.(?:jpg|dcm|png)", re.IGNORECASE)
_SPLITS = frozenset({"train", "val", "valid", "validate", "test"})
_COLUMNS = ("dicom_id", "category_name", "label_text", "path", "x", "y", "w", "h", "image_width", "image_height")


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """One box, and the sentence that it belongs to.

    Attributes:
        image_id: MIMIC's ``dicom_id``.
        patient: MIMIC's ``subject_id``, digits.
        path: Path of the image under the folder of MIMIC-CXR-JPG.
        text: The sentence.
        category: Class of the finding.
        split: What the split column says, ``None`` in releases without it.
        space: Width and height of the image.
        box: The box.
    """

    image_id: str
    patient: str
    path: str
    text: str
    category: str
    split: str | None
    space: tuple[int, int]
    box: Box


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """All usable boxes of one table in its order, and what is wrong with it."""

    rows: tuple[Annotation, ...]
    problems: tuple[Problem, ...]


def folders_below(root: Path) -> Iterator[Path]:
    """A folder, those in it and those in them; folders of patients are not entered."""
    level = [root] if root.is_dir() else []
    for _ in range(3):
        yield from level
        level = [path for folder in level for path in sorted(folder.iterdir()) if path.is_dir() and _enter(path.name)]


def find_tables(root: Path, remedy: str) -> list[Path]:
    """Annotation tables under a folder: the newest first, of one release the CSV before the JSON; older ones left out.

    The version in the name is not always that of the release (0.1 holds files named 1.0.0), so it only sorts.

    Raises:
        LayoutError: If there is none.
    """
    found = []
    for folder in folders_below(root):
        for path in folder.iterdir():
            name = _NAME.fullmatch(path.name)
            if name and path.is_file():
                version = tuple(int(part) for part in name[1].split("."))
                found.append((version, folder.as_posix(), name[2].lower() == "csv", path))
    if not found:
        raise LayoutError(f"no MS_CXR_Local_Alignment_v*.csv or .json under {root}", do=remedy)
    found.sort(reverse=True)
    return [path for version, folder, _, path in found if (version, folder) == found[0][:2]]


def read_annotations(path: Path, where: str, classes: Collection[str]) -> Annotations:
    """Read a table of either form.

    Args:
        path: The file.
        where: Its path in messages.
        classes: Classes that there are.

    Raises:
        DataError: If it is no such table.
    """
    rows: list[Annotation] = []
    problems: list[Problem] = []
    spaces: dict[str, tuple[tuple[int, int], str]] = {}
    for place, cells in _csv_rows(path) if path.suffix.lower() == ".csv" else _json_rows(path):
        name = _PATH.fullmatch(str(cells["path"] or ""))
        box, size = read_box([cells[edge] for edge in "xywh"]), _size(cells["image_width"], cells["image_height"])
        text, category = " ".join(clean(str(cells["label_text"] or "")).split()), str(cells["category_name"] or "")
        if not text:
            problems.append(Problem(code="E_CAPTION_BLANK", path=where, message=f"{place} has no sentence"))
        elif name is None or name["image"] != cells["dicom_id"]:
            message = f"{place} ({cells['dicom_id']}) has a path that is not MIMIC's: {cells['path']}"
            problems.append(Problem(code="E_ROW", path=where, message=message))
        elif box is None or size is None or category not in classes:
            message = (
                f"{place} ({cells['dicom_id']}) lacks numbers of its box or image, or has a class that is not known"
            )
            problems.append(Problem(code="E_ROW", path=where, message=message))
        else:
            split = cells.get("split")
            odd = [box_problem(box, size)]
            if spaces.setdefault(name["image"], (size, place))[0] != size:
                odd.append(("E_ROW", f"has another size of its image than {spaces[name['image']][1]}"))
            if split is not None and str(split).lower() not in _SPLITS:
                odd.append(("E_ROW", f"has a split that is not known: {split}"))
            told = f"{place} ({name['image']})"
            problems += [Problem(code=o[0], path=where, message=f"{told} {o[1]}") for o in odd if o]
            rows.append(
                Annotation(
                    image_id=name["image"],
                    patient=name["patient"],
                    path=name.string,
                    text=text,
                    category=category,
                    split=None if split is None else str(split),
                    space=size,
                    box=box,
                )
            )
    return Annotations(rows=tuple(rows), problems=tuple(problems))


def _enter(name: str) -> bool:
    return name != "files" and not name.startswith(".") and re.fullmatch(r"[ps]\d+", name) is None


def _csv_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for row in read_table(path, _COLUMNS):
        yield f"row {row.line}", dict(row.cells)


def _json_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows with the names of the CSV's columns; an annotation that lacks a part has ``None`` for it."""
    try:
        book = json.loads(path.read_bytes())
        images = {image["id"]: dict(image) for image in book["images"]}
        categories = {category["id"]: category["name"] for category in book["categories"]}
        annotations = [dict(annotation) for annotation in book["annotations"]]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path.name} is no table of annotations",
            came=f"{type(error).__name__}: {error}",
            expected="a JSON object with images, annotations and categories, as COCO has",
        ) from error
    for number, one in enumerate(annotations, start=1):
        image = images.get(one.get("image_id"), {})
        edges: Any = one.get("bbox")
        whole = isinstance(edges, list) and len(edges) == 4
        box = dict(zip("xywh", edges if whole else [None] * 4, strict=True))
        yield (
            f"annotation {number}",
            {
                "dicom_id": str(image.get("file_name", "")).rsplit(".", 1)[0],
                "category_name": categories.get(one.get("category_id")),
                "label_text": one.get("label_text"),
                "path": image.get("path"),
                "image_width": image.get("width"),
                "image_height": image.get("height"),
                "split": one.get("split", image.get("split")),
                **box,
            },
        )


def _size(width: object, height: object) -> tuple[int, int] | None:
    try:
        size = int(float(str(width))), int(float(str(height)))
    except (ValueError, OverflowError):
        return None
    return size if min(size) > 0 else None
