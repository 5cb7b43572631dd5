"""MS-CXR: sentences of radiologists and boxes around what they say, on films of MIMIC-CXR.

Its patients must be left out of any training on MIMIC-CXR. Layout, counts and terms: docs/datasets/ms_cxr.md.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from textray.data.base import Box, CheckResult, Counts, Problem, Reader, Sample, Split, fingerprint, leaks, part_of
from textray.data.boxes import box_problem, is_scaled_copy, read_box, read_table
from textray.data.folders import folders, sizes_of
from textray.data.twins import same_pictures
from textray.errors import DataError, UsageError, unknown_name
from textray.records import Laterality
from textray.text.cleaning import clean

CLASSES = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Lung Opacity",
    "Pleural Effusion",
    "Pneumonia",
    "Pneumothorax",
)
PROTOCOLS = ("all", "published")

_SPLITS: dict[str, Split] = {"train": "train", "val": "val", "valid": "val", "validate": "val", "test": "test"}
_SUFFIXES = (".jpg", ".png", ".dcm")


class MSCXR(Reader):
    """Reader of MS-CXR in any of its releases; rows of one image, sentence and class are one sample.

    Args:
        root: A folder with the annotations and with the images of MIMIC-CXR-JPG, each at most two folders deep.
        missing_captions: What to do about a row without a sentence: refuse it (``"error"``), or leave it out.
        split_by: ``all``: every pair is `test`, as for zero-shot scores. ``published``: the split column of
            release 1.1.0.
        seed: Chooses the patients of `inner` where there is a train split.
    """

    name = "ms_cxr"

    def __init__(
        self, root: str | Path, *, missing_captions: str = "error", split_by: str = "all", seed: int = 0
    ) -> None:
        if split_by not in PROTOCOLS:
            raise unknown_name("way of cutting ms_cxr", split_by, PROTOCOLS)
        super().__init__(Path(root), missing_captions=missing_captions, seed=seed)
        self.split_by, self.tables = split_by, find_tables(self.root)
        self._problems: list[Problem] = []

    def held_out_patients(self) -> tuple[str, ...]:
        """Every patient (MIMIC's ``subject_id``), sorted: whom a training on MIMIC-CXR must leave out."""
        return tuple(sorted({row.patient for row in self._rows}))

    def _phrases(self, split: Split, kind: str) -> list[Sample]:
        """Phrases of a split, in the order in which the annotations first name them.

        A ``phrase`` is the radiologist's sentence, with its boxes; a ``class`` is "Findings suggesting pneumonia." and
        so on, with the boxes of that class of all sentences about the image.
        """
        pairs = self._cut(_pairs(self._rows, kind), split)
        if not self._images:
            raise self._no_layout(f"no image of MIMIC-CXR-JPG under {self.root}", expected="files/p10/p10...")
        self._refuse([*self._problems, *self._absent(pair.image_id for pair in pairs)])
        return [
            Sample(
                image_id=pair.image_id,
                image_path=self._images[pair.image_id],
                phrase=pair.text,
                label=pair.category,
                boxes=pair.boxes,
                box_space=pair.space,
                patient_id=pair.patient,
                laterality=Laterality.PATIENT,
                split=split,
            )
            for pair in pairs
        ]

    def check(self) -> CheckResult:
        """Look at every row of the annotations, in each form that is present, and at the size of every image."""
        rows = self._rows
        problems = [*self._problems, *self._absent(row.image_id for row in rows), *self._sizes()]
        pairs = _pairs(rows, "phrase")
        counts: Counts = {"root": str(self.root)}
        counts["annotations"] = str(self.tables[0].relative_to(self.root))
        counts["boxes"] = len(rows)
        counts["pairs of image and sentence"] = f"{len(pairs)} (published: 1162)"
        counts["images"] = len({row.image_id for row in rows})
        counts["images on disk"] = len(self._images)
        splits = {pair.image_id: _part(pair) or "test" for pair in pairs}
        films = [(path, str(splits[name])) for name, path in self._images.items() if name in splits]
        problems += same_pictures(films, self.root, films=True)
        patients = self.held_out_patients()
        counts["patients"] = f"{len(patients)} (published: 851), ids {fingerprint(patients)[:12]}"
        counts |= {f"class {name}": n for name, n in sorted(Counter(pair.category for pair in pairs).items())}
        counts |= {f"split {name}": n for name, n in sorted(Counter(_part(p) or "not stated" for p in pairs).items())}
        for other in self.tables[1:]:
            read, others = (
                {(p.image_id, p.text, p.category): set(p.boxes) for p in found}
                for found in (pairs, _pairs(read_annotations(other, self.root)[0], "phrase"))
            )
            differing = [key for key in {*read, *others} if read.get(key) != others.get(key)]
            if differing:
                message = f"has other boxes than {self.tables[0].name} in {len(differing)} pairs; the latter is read"
                problems.append(Problem("W_TABLES", str(other.relative_to(self.root)), message))
        return CheckResult(name=self.name, root=self.root, counts=counts, problems=tuple(problems))

    @cached_property
    def _rows(self) -> list[Annotation]:
        """All usable boxes in the order of the table; what is wrong with it becomes a problem."""
        rows, problems = read_annotations(self.tables[0], self.root)
        if self.split_by == "published":
            problems += leaks((row.patient, row.split or "no split") for row in rows)
        self._problems += problems
        return rows

    @cached_property
    def _images(self) -> dict[str, Path]:
        """Files of the images, in the one folder that has the first of them to be found anywhere."""
        paths = {row.image_id: row.path for row in self._rows}
        for base in folders_below(self.root):
            if not (base / "files").is_dir():
                continue
            found = {}
            for image_id, path in paths.items():
                options = [(base / path).with_suffix(suffix) for suffix in _SUFFIXES]
                existing = next((option for option in options if option.is_file()), None)
                if existing is not None:
                    found[image_id] = existing
            if found:
                return found
        return {}

    def _absent(self, image_ids: Iterable[str]) -> list[Problem]:
        paths = {row.image_id: row.path for row in self._rows}
        return [
            Problem("E_PAIR", paths[name], "has boxes and is not there")
            for name in dict.fromkeys(image_ids)
            if name not in self._images
        ]

    def _sizes(self) -> list[Problem]:
        spaces = {path: row.space for row in self._rows if (path := self._images.get(row.image_id))}
        problems: list[Problem] = []
        for path, where, (height, width) in sizes_of(spaces, self.root, problems):
            drawn = spaces[path]
            sizes = f"is {width} x {height} pixels, its boxes belong to {drawn[0]} x {drawn[1]}"
            if not is_scaled_copy((height, width), drawn):
                problems.append(Problem("E_SIZE", where, f"{sizes}: cropped or squeezed"))
            elif (width, height) != drawn:
                problems.append(Problem("W_SCALED", where, f"{sizes}: boxes are scaled with it"))
        return problems

    def _cut(self, pairs: list[Annotation], wanted: Split) -> list[Annotation]:
        if self.split_by == "all":
            if wanted != "test":
                raise UsageError(
                    f"ms_cxr is cut into test alone, not {wanted}: it is no data to train on",
                    do="Ask for test, or cut release 1.1.0 with split_by published",
                )
            return pairs
        if not any(_part(pair) for pair in pairs):
            raise UsageError(f"{self.tables[0].name} has no split column", do="Use release 1.1.0, or split_by all.")
        pairs = [pair for pair in pairs if _part(pair) == part_of(wanted)]
        return self._cut_train(pairs, wanted, lambda pair: pair.patient)


def _pairs(rows: Iterable[Annotation], kind: str) -> list[Annotation]:
    """Each image with each of its sentences (or classes), and all boxes of it."""
    grouped: dict[tuple[str, str, str], list[Annotation]] = {}
    for row in rows:
        text = row.text if kind == "phrase" else f"Findings suggesting {row.category.lower()}."
        grouped.setdefault((row.image_id, text, row.category), []).append(row)
    return [
        replace(group[0], text=text, boxes=tuple(box for row in group for box in row.boxes))
        for (_, text, _), group in grouped.items()
    ]


def _part(row: Annotation) -> Split | None:
    return _SPLITS.get((row.split or "").lower())


# The annotations of MS-CXR in their two forms: a CSV with one row for each box, and a JSON laid out like COCO.

_NAME = re.compile(r"MS_CXR_Local_Alignment_v(\d+(?:\.\d+)*)\.(csv|json)", re.IGNORECASE)
_PATH = re.compile(r"files/p\d\d/p(?P<patient>\d+)/s\d+/(?P<image>[^/\\]+)\.(?:jpg|dcm|png)", re.IGNORECASE)
_COLUMNS = ("dicom_id", "category_name", "label_text", "path", "x", "y", "w", "h", "image_width", "image_height")


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """A sentence about an image, and one box or all of its boxes."""

    image_id: str  # MIMIC's dicom_id
    patient: str  # MIMIC's subject_id, digits
    path: str  # below the folder of MIMIC-CXR-JPG
    text: str
    category: str  # class of the finding
    split: str | None  # the split column, None in releases without it
    space: tuple[int, int]  # width and height of the image
    boxes: tuple[Box, ...]


def folders_below(root: Path) -> Iterator[Path]:
    """A folder, those in it and those in them; folders of patients are not entered."""
    level = [root] if root.is_dir() else []
    for _ in range(3):
        yield from level
        below = (path for folder in level for path in folders(folder))
        level = [path for path in below if path.name != "files" and not re.fullmatch(r"[ps]\d+", path.name)]


def find_tables(root: Path) -> list[Path]:
    """Annotation tables under a folder: the newest first, of one release the CSV before the JSON; older ones left out.

    The version in the name is not always that of the release (0.1 holds files named 1.0.0), so it only sorts.
    """
    found = []
    for folder in folders_below(root):
        for path in folder.iterdir():
            name = _NAME.fullmatch(path.name)
            if name and path.is_file():
                version = tuple(int(part) for part in name[1].split("."))
                found.append((version, folder.as_posix(), name[2].lower() == "csv", path))
    if not found:
        raise MSCXR._no_layout(f"no MS_CXR_Local_Alignment_v*.csv or .json under {root}")
    found.sort(reverse=True)
    return [path for version, folder, _, path in found if (version, folder) == found[0][:2]]


def read_annotations(path: Path, root: Path) -> tuple[list[Annotation], list[Problem]]:
    """Usable boxes of a table of either form below ``root``, and what is wrong with it; no table is a `DataError`."""
    where = str(path.relative_to(root))
    rows: list[Annotation] = []
    problems: list[Problem] = []
    spaces: dict[str, tuple[tuple[int, int], str]] = {}
    table: Iterable[tuple[str, Mapping[str, Any]]] = _json_rows(path)
    if path.suffix.lower() == ".csv":
        table = ((f"row {row.line}", row.cells) for row in read_table(path, _COLUMNS))
    for place, cells in table:
        name = _PATH.fullmatch(str(cells["path"] or ""))
        box, size = read_box([cells[edge] for edge in "xywh"]), _size(cells["image_width"], cells["image_height"])
        text, category = " ".join(clean(str(cells["label_text"] or "")).split()), str(cells["category_name"] or "")
        if not text:
            problems.append(Problem("E_CAPTION_BLANK", where, f"{place} has no sentence"))
        elif name is None or name["image"] != cells["dicom_id"]:
            message = f"{place} ({cells['dicom_id']}) has a path that is not MIMIC's: {cells['path']}"
            problems.append(Problem("E_ROW", where, message))
        elif box is None or size is None or category not in CLASSES:
            message = f"{place} ({cells['dicom_id']}) lacks numbers of its box or image, or its class is not known"
            problems.append(Problem("E_ROW", where, message))
        else:
            split = cells.get("split")
            odd = [box_problem(box, size)]
            if spaces.setdefault(name["image"], (size, place))[0] != size:
                odd.append(("E_ROW", f"has another size of its image than {spaces[name['image']][1]}"))
            if split is not None and str(split).lower() not in _SPLITS:
                odd.append(("E_ROW", f"has a split that is not known: {split}"))
            at = f"{place} ({name['image']})"
            problems += [Problem(o[0], where, f"{at} {o[1]}") for o in odd if o]
            rows.append(
                Annotation(
                    image_id=name["image"],
                    patient=name["patient"],
                    path=name.string,
                    text=text,
                    category=category,
                    split=None if split is None else str(split),
                    space=size,
                    boxes=(box,),
                )
            )
    return rows, problems


def _json_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
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
        cells = {
            "dicom_id": str(image.get("file_name", "")).rsplit(".", 1)[0],
            "category_name": categories.get(one.get("category_id")),
            "label_text": one.get("label_text"),
            "path": image.get("path"),
            "image_width": image.get("width"),
            "image_height": image.get("height"),
            "split": one.get("split", image.get("split")),
        }
        yield f"annotation {number}", cells | box


def _size(width: object, height: object) -> tuple[int, int] | None:
    try:
        size = int(float(str(width))), int(float(str(height)))
    except (ValueError, OverflowError):
        return None
    return size if min(size) > 0 else None
