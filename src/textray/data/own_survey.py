"""What a folder of one's own holds: films with all that belongs to them, and what is wrong with it."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from textray.data.base import PartName, Problem
from textray.data.masks import SOFT, Labels, Shape, films_of, read_labels
from textray.data.own_settings import COLUMNS, SETTINGS, Settings
from textray.data.unlabelled import look, place_words
from textray.errors import InputError
from textray.io.files import IMAGE_SUFFIXES, LeftOut, plain_path, walk
from textray.io.read import inspect_mask, read_keys
from textray.preprocess import Preprocess
from textray.records import Grid, Laterality, Report, Zones
from textray.text.cleaning import clean
from textray.text.tables import TextTable, Words, known_cell, read_columns

NO_REPORT = Report(zones=Zones())
NORMAL = frozenset({"normal", "healthy", "no finding", "no findings", "negative", "clear", "0"})
"""Labels of a film without a lesion."""
PART_WORDS: Mapping[str, PartName] = {
    **dict.fromkeys(("train", "training", "fit"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "tune"), "val"),
    **dict.fromkeys(("test", "testing", "holdout"), "test"),
}
_AFFIXES = re.compile(r"^(?:mask|seg|label|gt)[_-]|[_-](?:mask|masks|seg|segmentation|label|labels|gt|lesion)$")
_FULL = frozenset({"1", "255", "65535", "#ffffff"})
"""Labels that stand for "marked" in masks of two levels; no file may hold two of them."""
REMEDIES: Mapping[str, str] = {
    "E_MASK_SIZE": "Export the mask at the film's size; nothing is resized silently.",
    "E_TWO_MASKS": "Keep one of them, or join them.",
    "E_MASK_LABELS": f"Say in {SETTINGS} which labels are lesions: classes: {{lesion: [...]}}.",
    "E_CLASS_NOWHERE": f"Correct classes in {SETTINGS}.",
    "E_MASK_OTHER": "Rename the file after its own film.",
    "E_LABEL_MASK": "Correct the label or the mask.",
    "E_PATIENT_LEAK": "Put all films of a patient in one split.",
    "E_SPLIT": "Write train, val or test, or nothing to let it be drawn.",
    "E_LATERALITY": "Write patient, viewer or unknown, or nothing.",
    "E_DUPLICATE_ID": "Keep one row for a film.",
    "E_AMBIGUOUS": "Write as much of the path below images as tells the films apart.",
    "E_SAME_STEM": "Keep one of the files.",
    "W_NO_MASK": "Draw one, or label the film normal; it is left out of training and scores.",
    "W_MASK_EXTRA": "Name it after its film.",
    "W_ROW_EXTRA": "Correct the name, or remove the row.",
    "W_MASK_JPEG": "Export it as PNG.",
    "W_MASK_VALUES": "Export it with two levels, 0 and 255.",
    "W_MASK_EMPTY": "Look whether the film has no lesion.",
    "W_MASK_FULL": "Look at it.",
    "W_MASK_INVERTED": "Look at it.",
    "W_MASK_ORIENTATION": "Look at it with --show, or export it as PNG.",
    "W_LABEL_UNUSED": f"Add the labels to classes in {SETTINGS} if they are lesions.",
    "W_LABEL_NOWHERE": f"Correct classes in {SETTINGS}.",
    "W_NO_PATIENT": f"Add a column patient, or patient: to {SETTINGS}; otherwise one may be in two splits.",
    "W_UNBALANCED": "Add films, or give the splits in a column split.",
    "W_CAPTION_BLANK": "Write the report, or leave it: the film goes without text.",
    "W_ENCODING": "Save it as UTF-8.",
}


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Facts of what is drawn in a film; shares are of its pixels, and of its outermost ones."""

    kind: str
    by_name: bool  # its labels are words, not levels
    shares: Mapping[str, tuple[float, float]]  # by label
    notices: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, labels: Labels) -> Drawn:
        """Facts of labels."""
        shares = {}
        for name in labels.names:
            mask = labels.draw([name])
            border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
            shares[name] = float(mask.mean()), float(border.mean())
        return cls(kind=labels.kind, by_name=labels.drawn_by_name, shares=shares, notices=labels.notices)


@dataclass(frozen=True, kw_only=True)
class Film:
    """A film of the folder and what is known of it."""

    image_id: str
    path: Path
    shape: Shape
    patient: str | None = None
    part: PartName | None = None  # that the table gives
    label: str = ""
    report: Report = NO_REPORT
    mask: Path | None = None
    drawn: Drawn | None = None
    lungs: Path | None = None

    @property
    def finding(self) -> bool | None:
        """Whether its label says that it shows a lesion."""
        return None if not self.label else self.label.casefold() not in NORMAL

    @property
    def group(self) -> str:
        """Its patient, or itself."""
        return self.patient or self.image_id


def decide(
    films: Sequence[Film], classes: Mapping[str, tuple[str, ...]], where: Callable[[Path | None], str]
) -> tuple[frozenset[str], list[Problem]]:
    """Which labels of all masks together are lesions, and what is wrong with them; ``where`` names a path.

    Levels and names of exports are judged apart. One label is the lesion; of several somebody has to say which, but 1
    and 255 mean the same where no file holds both.
    """
    masks = [(where(film.mask), film.drawn) for film in films if film.drawn is not None]
    problems = [Problem(code, path, words) for path, drawn in masks for code, words in drawn.notices]
    seen = Counter(name for _, drawn in masks for name in drawn.shares)
    named = {label for labels in classes.values() for label in labels}
    if named:
        others = sorted(set(seen) - named - {SOFT})
        if others and not named & set(seen):
            text = f"none of the labels {', '.join(sorted(named))} is in any mask; they hold {most(seen.elements())}"
            return frozenset(), [*problems, Problem("E_CLASS_NOWHERE", SETTINGS, text)]
        for label in sorted(named - set(seen)):
            problems.append(Problem("W_LABEL_NOWHERE", SETTINGS, f"label {label} is in no mask"))
        for label in others:
            problems.append(Problem("W_LABEL_UNUSED", SETTINGS, f"label {label} of {seen[label]} masks is background"))
        return frozenset({SOFT, *named}), problems
    chosen = {SOFT}
    for by_name in (False, True):
        of_kind = [(path, drawn) for path, drawn in masks if drawn.by_name is by_name]
        labels = Counter(name for _, drawn in of_kind for name in drawn.shares if name != SOFT)
        mixed = any(len(drawn.shares) > 1 for _, drawn in of_kind)
        if len(labels) < 2 or (set(labels) <= _FULL and not mixed):
            chosen |= set(labels)
            continue
        rare = min(labels, key=lambda name: labels[name])
        example = next(path for path, drawn in of_kind if rare in drawn.shares)
        text = f"the masks hold several labels, and nothing says which are lesions: {most(labels.elements())}"
        problems.append(Problem("E_MASK_LABELS", example, text))
    return frozenset(chosen), problems


def _lines(words: Words, twice: Mapping[str, list[int]]) -> list[int]:
    return next(lines for lines in twice.values() if words.line in lines)


class Survey:
    """Films of a folder with all that belongs to them, and what is wrong; built step by step."""

    def __init__(self, *, root: Path, settings: Settings) -> None:
        self.root, self.settings = root, settings
        self.films: list[Film] = []
        self.problems: list[Problem] = []
        self.bad: set[str] = set()  # files whose films are left out

    def where(self, path: Path) -> str:
        """A path for messages."""
        return plain_path(path.relative_to(self.root).as_posix())

    def add(self, code: str, path: Path | str, message: str, *, line: int | None = None) -> None:
        """Note a problem; a film with an ``E_`` code at its own file or its mask is left out."""
        name = path if isinstance(path, str) else self.where(path)
        if code.startswith("E_"):
            self.bad.add(name)
        self.problems.append(Problem(code, name, message if line is None else f"row {line} {message}"))

    def refuse(self, path: Path, error: InputError) -> None:
        """Note a file that was refused."""
        came = f" (came: {error.came})" if error.came else ""
        name = self.where(path)
        self.bad.add(name)
        self.problems.append(Problem(error.code, name, f"{error.what}{came}", error.do or ""))

    def list_films(self, folder: Path) -> dict[Path, Grid | None]:
        """Find the films and decode each; return their files, with the grids of DICOM files."""
        left_out: list[LeftOut] = []
        grids: dict[Path, Grid | None] = {}
        way = Preprocess(size=(1, 1), colour=self.settings.colour)
        taken: dict[str, Path] = {}
        for path in walk(folder, left_out):
            try:
                found = look(path, left_out)
                if not found:
                    continue
                image_id = film_id(path, folder)
                if (other := taken.setdefault(image_id.casefold(), path)) is not path:
                    self.add("E_SAME_STEM", path, f"has the name of {self.where(other)}")
                    continue
                shape = way.read(path).grid.shape
            except InputError as error:
                self.refuse(path, error)
                continue
            grids |= found
            self.films.append(Film(image_id=image_id, path=path, shape=shape))
        for one in left_out:
            if one.path.suffix.lower() in IMAGE_SUFFIXES and one.code != "W_OWN_RESULT":
                self.add("E_FORMAT", one.path, f"is no picture: {one.reason}")
        return grids

    def read_table(self, path: Path | None, folder: Path, grids: Mapping[Path, Grid | None]) -> None:
        """Give each film what its row says: patient, part, label and words."""
        rows: dict[str, Words] = {}  # by the name of a film; only the lines matter
        cells: dict[int, dict[str, str]] = {}
        twice: defaultdict[str, list[int]] = defaultdict(list)
        found: dict[int, list[Words]] = {}
        if path is not None:
            names = [f"{self.settings.columns.get(name, '')}|{known}".strip("|") for name, known in COLUMNS.items()]
            table = read_columns(path, names, needed=1, of_data=True)
            if table.encoding in ("latin-1", "cp1252", "mac_roman"):
                self.add("W_ENCODING", path, f"is not UTF-8 and was read as {table.encoding}")
            firsts = {name: one.split("|")[0].lower() for name, one in zip(COLUMNS, names, strict=True)}
            for line, given in table.rows:
                cells[line] = {name: given[first] for name, first in firsts.items() if first in given}
                name = cells[line]["image"].strip()
                twice[name].append(line)
                rows.setdefault(name, Words(text=None, line=line))
            if rows.pop("", None):
                self.add("W_ROW_EXTRA", path, "names no film", line=twice[""][0])
            ambiguous: list[str] = []
            whole = TextTable(path=path, rows=rows, encoding=table.encoding)
            found, unknown = whole.match_all([f.path for f in self.films], below=folder, ambiguous=ambiguous)
            for name in ambiguous:
                self.add("E_AMBIGUOUS", path, "fits several films", line=rows[name].line)
            for name in set(unknown) - set(ambiguous):
                self.add("W_ROW_EXTRA", path, "names no film", line=rows[name].line)
        lines_of = {place: [line for one in given for line in _lines(one, twice)] for place, given in found.items()}
        for place, film in enumerate(self.films):
            lines = lines_of.get(place, [])
            if len(lines) > 1:
                self.add("E_DUPLICATE_ID", film.path, f"is named by rows {' and '.join(map(str, lines))}")
            first = lines[0] if lines else None
            self.films[place] = self._with_row(film, first, cells.get(first or 0, {}), grids.get(film.path))
        without = sum(film.patient is None for film in self.films)
        if without:
            self.add("W_NO_PATIENT", path or folder, f"{without} of {len(self.films)} films have no known patient")
        self._find_leaks()

    def _find_leaks(self) -> None:
        parts: defaultdict[str, set[str]] = defaultdict(set)
        for film in self.films:
            if film.part is not None:
                parts[film.group].add(film.part)
        for film in self.films:
            if len(parts[film.group]) > 1:
                self.add("E_PATIENT_LEAK", film.path, f"is of a patient in {' and '.join(sorted(parts[film.group]))}")

    def _with_row(self, film: Film, line: int | None, cells: Mapping[str, str], grid: Grid | None) -> Film:
        patient = known_cell(cells.get("patient", ""))
        if patient is None and self.settings.patient is not None:
            match = re.search(self.settings.patient, film.image_id)
            patient = match[1] if match else None
        part = known_cell(cells.get("split", ""))
        if part is not None and part.casefold() not in PART_WORDS:
            self.add("E_SPLIT", film.path, "has an unknown split", line=line)
            part = None
        side = (known_cell(cells.get("laterality", "")) or self.settings.laterality).casefold()
        if side not in set(Laterality):
            self.add("E_LATERALITY", film.path, "has an unknown laterality", line=line)
            side = Laterality.UNKNOWN
        report = NO_REPORT
        text = known_cell(cells.get("text", ""))
        if text is None and "text" in cells:
            self.add("W_CAPTION_BLANK", film.path, "has no report", line=line)
        if text is not None and self.settings.words == "free":
            report = Report(zones=Zones(), text=clean(text), free=True)
        elif text is not None:
            report, notices = place_words(text, Laterality(side), Laterality.PATIENT, grid)
            for notice in notices:
                if notice.code != "W_SIDES_ASSUMED":
                    self.problems.append(Problem(notice.code, self.where(film.path), notice.text, notice.remedy))
        return replace(
            film, patient=patient, part=PART_WORDS[part.casefold()] if part else None, report=report,
            label=known_cell(cells.get("label", "")) or "",
        )  # fmt: skip

    def find_masks(self, place: Path | None, folder: Path) -> None:
        """Find the mask of each film and read its labels."""
        if place is None:
            return
        exports, singles = self._files(place, folder)
        by_id: defaultdict[str, list[Path]] = defaultdict(list)
        for path, names in singles.items():
            for name in names:
                by_id[name].append(path)
        used: set[Path] = set(exports)
        films = []
        for film in self.films:
            own = film.image_id.casefold()
            given = by_id.get(own) or by_id.get(own.rpartition("/")[2]) or []
            hits: list[tuple[Path, Labels, Drawn]] = []
            for path in dict.fromkeys((*given, *exports)):
                used.add(path)
                if self.where(path) in self.bad:
                    continue
                try:
                    labels = read_labels(path, film.path)
                    if labels is not None:
                        hits.append((path, labels, Drawn.of(labels)))
                except InputError as error:
                    if path in exports:
                        self.add(error.code, film.path, f"in {self.where(path)}: {error.what}")
                    else:
                        self.refuse(path, error)
            films.append(self._with_mask(film, hits, broken=any(self.where(path) in self.bad for path in given)))
        self.films = films
        for path in singles:
            if path not in used:
                self.add("W_MASK_EXTRA", path, "belongs to no film")

    def _files(self, place: Path, folder: Path) -> tuple[list[Path], dict[Path, tuple[str, ...]]]:
        """Exports of many films, and the other files by the names that their films may have."""
        paths = [place] if place.is_file() else list(walk(place, [], is_own=lambda _: False))
        if place == folder:
            paths = [path for path in paths if path.suffix.lower() == ".json"]
        exports, singles = [], dict[Path, tuple[str, ...]]()
        for path in paths:
            try:
                many = films_of(path)
            except InputError as error:
                self.refuse(path, error)
                many = None
            if many is not None:
                exports.append(path)
            else:
                name = film_id(path, place if place.is_dir() else place.parent).casefold()
                singles[path] = (name, _AFFIXES.sub("", name))
        return exports, {path: tuple(dict.fromkeys(names)) for path, names in singles.items()}

    def _with_mask(self, film: Film, hits: Sequence[tuple[Path, Labels, Drawn]], *, broken: bool) -> Film:
        if len(hits) > 1:
            names = " and ".join(self.where(path) for path, _, _ in hits[:3])
            self.add("E_TWO_MASKS", film.path, f"has the masks {names}")
        if not hits:
            if broken:
                self.bad.add(self.where(film.path))
            elif film.finding is not False:
                self.add("W_NO_MASK", film.path, "has no mask")
            return film
        path, labels, drawn = hits[0]
        if labels.shape not in (None, film.shape):
            words = f"in {self.where(path)} is {_size(labels.shape)}, its film {_size(film.shape)} (height x width)"
            self.add("E_MASK_SIZE", film.path, words)
            return film
        if labels.films and (keys := read_keys(film.path)) and not set(labels.films) & set(keys):
            self.add("E_MASK_OTHER", film.path, f"has a mask, {self.where(path)}, that refers to another film")
            return film
        return replace(film, mask=path, drawn=drawn)

    def find_lungs(self, place: Path, folder: Path) -> None:
        """Find the masks of lungs."""
        _, singles = self._files(place, folder)
        by_id = {name: path for path, names in singles.items() for name in names}
        for number, film in enumerate(self.films):
            path = by_id.get(film.image_id.casefold())
            if path is None:
                continue
            try:
                shape = inspect_mask(path).mask.shape
            except InputError as error:
                self.problems.append(Problem("W_LUNGS", self.where(path), f"is not used: {error.what}"))
                continue
            if shape != film.shape:
                words = f"is not used: it is {_size(shape)}, its film {_size(film.shape)}"
                self.problems.append(Problem("W_LUNGS", self.where(path), words))
            else:
                self.films[number] = replace(film, lungs=path)


def _size(shape: Shape | None) -> str:
    return "unknown" if shape is None else f"{shape[0]} x {shape[1]}"


def film_id(path: Path, folder: Path) -> str:
    """Name of a film or a mask: its path below the folder without the suffix of its kind."""
    name = plain_path(path.relative_to(folder).as_posix())
    for suffix in (".nii.gz", ".nii", ".json", ".xml", *IMAGE_SUFFIXES):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def most(names: Iterable[str]) -> str:
    """The most frequent names, and how often each occurs."""
    return ", ".join(f"{count} {name}" for name, count in Counter(names).most_common(8)) or "none"
