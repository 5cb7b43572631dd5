"""Settings of a folder of one's own: what ``dataset.yaml`` may say, and a proposal for a folder as it is found."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_type_hints

from textray.data.folders import folders
from textray.data.masks import films_of
from textray.data.unlabelled import look
from textray.errors import DataError, InputError, TextRayError
from textray.io.files import stem, walk
from textray.records import Laterality
from textray.text.tables import Columns, read_columns

SETTINGS = "dataset.yaml"
TABLES = ("reports.csv", "reports.xlsx", "reports.tsv")
"""Names of the table, the first that is there."""
COLUMNS: Mapping[str, str] = {
    "image": "image|filename|file|image_id|accession|accessionnumber|accession number|sopinstanceuid",
    "text": "text|report|description|caption",
    "patient": "patient|patient_id|subject|subject_id",
    "split": "split|set",
    "laterality": "laterality|sides",
    "label": "label|diagnosis|finding",
}
"""Columns of the table, and the names that they are found by."""
_MASKS, _LUNGS = re.compile(r"mask|label|seg|gt|annot|ground", re.IGNORECASE), re.compile("lung", re.IGNORECASE)
_TABLE_SUFFIXES = (".csv", ".xlsx", ".tsv")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What ``dataset.yaml`` may say of a folder; `textray data init` writes one with comments.

    Attributes:
        images: Folder of the films.
        masks: Folder of masks, or file of annotations; ``None`` finds ``masks`` or annotations beside the films.
        lungs: Folder of masks of both lungs.
        reports: Table; ``None`` finds one of `TABLES`.
        columns: Names of the table's columns, where they are others than those of `COLUMNS`.
        laterality: Whose left and right the words mean, where the table does not say.
        patient: Pattern whose first group is the patient in a film's name, for tables without that column.
        words: ``zones``: reports act through the zones that they name; ``free``: as they stand, for other pictures.
        classes: Labels of the masks that are lesions, under the name of the one class.
        colour: True for pictures in colour.
        seed: Chooses the splits.
        val: Share of the patients in `val`.
        test: Share of the patients in `test`.
    """

    images: str = "images"
    masks: str | None = None
    lungs: str = "lungs"
    reports: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    laterality: Literal["patient", "viewer", "unknown"] = "patient"
    patient: str | None = None
    words: Literal["zones", "free"] = "zones"
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    colour: bool = False
    seed: int = 0
    val: float = 0.15
    test: float = 0.15

    @classmethod
    def read(cls, root: Path) -> Settings:
        """Read the settings of a folder; the defaults where it has none.

        Raises:
            DataError: ``E_SETTINGS`` if the file is no YAML, or says what is not known; it names the known keys.
        """
        path = root / SETTINGS
        if not path.is_file():
            return cls()
        import yaml

        try:
            given = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
            known = get_type_hints(cls)
            if not isinstance(given, dict) or not given.keys() <= known.keys():
                raise _wrong(f"unknown: {', '.join(sorted(map(str, set(given) - set(known))))}", ", ".join(known))
            given = {name: value for name, value in given.items() if value is not None}
            classes = {str(name): _labels(values) for name, values in dict(given.pop("classes", {})).items()}
            found = cls(**given, classes=classes)
            found._check()
        except (yaml.YAMLError, OSError, UnicodeDecodeError, ValueError, TypeError, re.error) as error:
            raise _wrong(str(error).split("\n", 1)[0], "YAML as textray data init writes it") from error
        return found

    def _check(self) -> None:
        if len(self.classes) > 1:
            raise _wrong(f"{len(self.classes)} classes", "one class, with all labels that are lesions")
        if unknown := set(self.columns) - set(COLUMNS):
            raise _wrong(f"columns {', '.join(sorted(unknown))}", ", ".join(COLUMNS))
        if self.laterality not in set(Laterality) or self.words not in ("zones", "free"):
            came = f"laterality {self.laterality}, words {self.words}"
            raise _wrong(came, "laterality patient, viewer or unknown; words zones or free")
        if min(self.val, self.test) < 0 or self.val + self.test >= 1:
            raise _wrong(f"val {self.val}, test {self.test}", "shares that leave something for train")
        if self.patient is not None and re.compile(self.patient).groups < 1:
            raise _wrong(f"patient {self.patient}", "a pattern with one group, such as ^(P[0-9]+)_")


def _labels(values: object) -> tuple[str, ...]:
    return tuple(map(str, values if isinstance(values, list) else [values]))


def _wrong(came: str, expected: str) -> DataError:
    return DataError(f"{SETTINGS} is not understood", came=came, expected=expected, do="Correct it", code="E_SETTINGS")


# A proposal for a folder as it is found.


def propose(root: Path) -> Settings:
    """Settings that fit a folder, whatever its parts are called; the defaults for what is not there.

    Raises:
        DataError: If no folder in it holds pictures.
    """
    counts = {path: sum(1 for _ in _pictures(path)) for path in folders(root)}
    masks = _first(root, "masks", [path for path in counts if _MASKS.search(path.name)])
    lungs = _first(root, "lungs", [path for path in counts if _LUNGS.search(path.name) and path != masks])
    films = {path: count for path, count in counts.items() if count and path not in (masks, lungs)}
    if not films:
        raise DataError(f"no folder of pictures in {root}", expected="films in a folder such as images")
    images = _first(root, "images", sorted(films, key=lambda path: -films[path]))
    if masks is None:
        masks = next((path for path in sorted(root.iterdir()) if _is_export(path)), None)
    found = Settings(images=images.name if images else "images", lungs=lungs.name if lungs else "lungs")
    if masks is not None and masks.name != "masks":
        found = replace(found, masks=masks.name)
    return _with_table(root, found)


def _first(root: Path, usual: str, paths: list[Path]) -> Path | None:
    return next((path for path in paths if path == root / usual), next(iter(paths), None))


def _pictures(folder: Path) -> Iterator[Path]:
    for path in walk(folder, []):
        try:
            yield from look(path, [])
        except InputError:
            continue


def _is_export(path: Path) -> bool:
    try:
        return path.is_file() and path.suffix.lower() in (".json", ".xml") and films_of(path) is not None
    except InputError:
        return False


def _with_table(root: Path, settings: Settings) -> Settings:
    """The settings with the table that names the films, and its columns where they have names of their own."""
    names = {stem(path.name).casefold() for path in _pictures(root / settings.images)}
    tables = [path for path in sorted(root.iterdir()) if path.suffix.lower() in _TABLE_SUFFIXES and path.is_file()]
    for path in sorted(tables, key=lambda path: path.name not in TABLES):
        try:
            table = read_columns(path, (), of_data=True)
        except TextRayError:
            continue
        columns = _columns(table, names)
        if columns is not None:
            return replace(settings, reports=None if path.name in TABLES else path.name, columns=columns)
    return settings


def _columns(table: Columns, names: set[str]) -> dict[str, str] | None:
    """Columns that are found by no known name: that of the films by its cells, that of the texts by its length."""
    headings = list(table.rows[0][1]) if table.rows else []
    known = {
        name: next((one for one in aliases.split("|") if one in headings), None) for name, aliases in COLUMNS.items()
    }
    cells = {heading: [row[heading] for _, row in table.rows] for heading in headings}
    found = {}
    if known["image"] is None:
        hits = {h: sum(stem(Path(cell).name).casefold() in names for cell in cells[h]) for h in headings}
        best = max(hits, key=lambda heading: hits[heading], default="")
        if not hits.get(best):
            return None
        found["image"] = best
    if known["text"] is None:
        free = [h for h in headings if h not in (*known.values(), *found.values())]
        longest = max(free, key=lambda h: sum(map(len, cells[h])), default=None)
        if longest is not None and sum(cell.count(" ") for cell in cells[longest]) > 2 * len(table.rows):
            found["text"] = longest
    return found


def text_of(settings: Settings, facts: Mapping[str, object]) -> str:
    """The file ``dataset.yaml`` with comments; ``facts`` are what a check counted."""

    def value(name: str) -> str:
        return json.dumps(getattr(settings, name), ensure_ascii=False)

    def fact(name: str) -> str:
        return str(facts.get(name, "unknown"))

    columns = ", ".join(
        f"{name}: {json.dumps(column, ensure_ascii=False)}" for name, column in settings.columns.items()
    )
    classes = {name: list(labels) for name, labels in settings.classes.items()}
    return f"""\
# Settings of this folder for TextRay; what stands here was found, and every line may be changed or left out.
# Look at it with: textray data check folder DIR --show

# Films, below this folder, in any format that textray segment reads. Found: {fact("films")}.
images: {value("images")}

# Masks: a folder with a file for each film, named like it (PNG, NIfTI slice, DICOM SEG, LabelMe), or an export of
# COCO or CVAT. Nothing finds masks/ or annotations.json. Found: {fact("masks")}.
masks: {value("masks")}

# Labels of the masks that are lesions: grey levels (1), colours ("#ff0000") or names of an export, under the name of
# the class. Needed where there are several. Found in so many masks: {fact("labels of masks")}.
classes: {json.dumps(classes, ensure_ascii=False)}

# Masks of both lungs, a folder. Nothing has to be there.
lungs: {value("lungs")}

# Table of reports (CSV or XLSX), one row a film. Nothing finds reports.csv. Found: {fact("reports")}.
reports: {value("reports")}
# Its columns, where they have other names than image, text, patient, split, laterality, label.
columns: {{{columns}}}

# Whose left and right the reports mean where no column laterality says: patient, viewer (the picture's) or unknown.
laterality: {settings.laterality}
# zones: reports act through the zones of the lungs that they name; free: as they stand, for pictures of other things.
words: {settings.words}

# Patient in a film's name, for a table without a column patient: a pattern with one group, such as "^(P[0-9]+)_".
patient: {value("patient")}

# True for pictures in colour.
colour: {value("colour")}

# Splits are drawn once by patient, with this seed and these shares, and kept in splits.json.
seed: {settings.seed}
val: {settings.val}
test: {settings.test}
"""
