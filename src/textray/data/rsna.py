"""RSNA Pneumonia Detection Challenge 2018: films with boxes around opacities that may be pneumonia.

A cut for zero-shot grounding is a list of test films, which others publish: docs/datasets/rsna.md.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from textray.data.base import Box, CheckResult, Counts, Problem, Reader, Sample, Split, fingerprint
from textray.data.boxes import TableRow, box_problem, is_scaled_copy, read_box, read_table
from textray.data.folders import Folder, folders, sizes_of
from textray.data.twins import same_pictures
from textray.errors import UsageError
from textray.records import Laterality

PHRASE = "Findings suggesting pneumonia."
"""What the released evaluation of the grounding paper asks of every film."""
SPACE = (1024, 1024)
"""Width and height of the published films, which the boxes belong to."""

_LABELS, _CLASSES, _IMAGES = "stage_2_train_labels.csv", "stage_2_detailed_class_info.csv", "stage_2_train_images"
_LISTS = ("test.csv", "medklip_test.csv")
_SUFFIXES = frozenset({".dcm", ".png", ".jpg", ".jpeg"})


@dataclass(frozen=True, kw_only=True)
class _Survey:
    """What the tables and the folder hold."""

    boxes: dict[str, tuple[Box, ...]]  # by film, empty for one without pneumonia
    images: Folder
    rows: int
    listed: tuple[str, ...] | None
    problems: tuple[Problem, ...]

    @property
    def positives(self) -> list[str]:
        return [name for name, boxes in self.boxes.items() if boxes]


class RSNA(Reader):
    """Reader of the challenge's second stage; only films with boxes are asked about.

    `test` holds the positive films of a published list, `train` the other positive ones, of which `inner` is a tenth
    and `fit` the rest. Who the patients are is not known, so a patient may be in several.

    Args:
        root: The folder that holds ``stage_2_train_labels.csv``, or the one it lies in.
        missing_captions: Without effect on a data set that has no captions.
        test_list: CSV with a column ``ID`` or ``patientId``: the films of `test`; by default ``test.csv`` beside the
            labels, as MedKLIP's authors publish it.
        seed: Chooses the films of `inner`.
    """

    name = "rsna"

    def __init__(
        self, root: str | Path, *, missing_captions: str = "error", test_list: str | Path | None = None, seed: int = 0
    ) -> None:
        super().__init__(_find_root(Path(root)), missing_captions=missing_captions, seed=seed)
        found = [self.root / name for name in _LISTS if (self.root / name).is_file()]
        self.test_list = Path(test_list) if test_list is not None else next(iter(found), None)

    def _phrases(self, split: Split, kind: str) -> list[Sample]:
        """One phrase for each positive film of a split, in the order of the labels."""
        if split == "val":
            raise UsageError("rsna has no val", expected="train, test, inner or fit", do="Select on inner.")
        survey = self._surveyed
        if survey.listed is None:
            raise self._no_layout(f"there is no list of test films in {self.root}", expected="test.csv")
        listed = set(survey.listed)
        names = [name for name in survey.positives if (name in listed) == (split == "test")]
        names = self._cut_train(names, split, str)
        self._refuse([*survey.problems, *(_no_image(name) for name in names if name not in survey.images)])
        return [
            Sample(
                image_id=name,
                image_path=survey.images[name],
                phrase=PHRASE,
                label="Pneumonia",
                boxes=survey.boxes[name],
                box_space=SPACE,
                laterality=Laterality.PATIENT,
                split=split,
            )
            for name in names
        ]

    def check(self) -> CheckResult:
        """Look at every row of the tables, at the names of all films, and at the size of those that are no DICOM."""
        survey = self._surveyed
        problems = [*survey.problems, *(_no_image(name) for name in survey.boxes if name not in survey.images)]
        paths = (survey.images[name] for name in survey.images.ids)
        for _, where, (height, width) in sizes_of(paths, self.root, problems):
            if not is_scaled_copy((height, width), SPACE):
                message = f"is {width} x {height} pixels, no scaled copy of a film of {SPACE[0]} x {SPACE[1]}"
                problems.append(Problem("E_SIZE", where, message))
        listed = set(survey.listed or ())
        there = (name for name in survey.positives if name in survey.images)
        pictures = ((survey.images[name], "test" if name in listed else "train") for name in there)
        problems += same_pictures(pictures, self.root, films=True)
        counts: Counts = {"root": str(self.root)}
        counts["rows of labels"] = f"{survey.rows} (published: 30227)"
        counts["films labelled"] = f"{len(survey.boxes)} (published: 26684)"
        counts["films with boxes"] = f"{len(survey.positives)} (published: 6012)"
        counts["boxes"] = f"{sum(map(len, survey.boxes.values()))} (published: 9555)"
        counts["films on disk"] = len(survey.images)
        if survey.listed is None:
            counts["list of test films"] = "not present"
        else:
            positive = [name for name in survey.positives if name in listed]
            counts["list of test films"] = (
                f"{self.test_list.name if self.test_list else ''}, {len(listed)} films, "
                f"ids {fingerprint(listed)[:12]} (MedKLIP's: 5337)"
            )
            counts["test"] = f"{len(positive)} films with boxes (MedKLIP's: 1218)"
            counts["train"] = f"{len(survey.positives) - len(positive)} films with boxes"
        if (self.root / _CLASSES).is_file():
            rows = read_table(self.root / _CLASSES, ("patientId", "class"))
            films = {row.cells["patientid"]: row.cells["class"] or "" for row in rows}  # a row for each box of a film
            counts |= {f"class {name}": count for name, count in sorted(Counter(films.values()).items())}
        return CheckResult(name=self.name, root=self.root, counts=counts, problems=tuple(problems))

    @cached_property
    def _surveyed(self) -> _Survey:
        rows = read_table(self.root / _LABELS, ("patientId", "x", "y", "width", "height", "Target"))
        boxes, problems = _read_labels(rows)
        images = Folder(self.root / _IMAGES, self.root, suffixes=_SUFFIXES)
        listed = None
        if self.test_list is not None:
            listed, odd = _read_list(self.test_list, boxes)
            problems += odd
        return _Survey(
            boxes={name: tuple(found) for name, found in boxes.items()},
            images=images,
            rows=len(rows),
            listed=listed,
            problems=(*problems, *images.problems),
        )


def _find_root(root: Path) -> Path:
    for folder in (root, *folders(root)):
        if (folder / _LABELS).is_file():
            return folder
    raise RSNA._no_layout(f"no {_LABELS} in {root}", expected="the folder of the challenge, unpacked")


def _read_labels(rows: list[TableRow]) -> tuple[dict[str, list[Box]], list[Problem]]:
    boxes: dict[str, list[Box]] = {}
    targets: dict[str, str] = {}
    problems = []
    for row in rows:
        name, target = row.cells["patientid"], row.cells["target"]
        edges = [row.cells[edge] for edge in ("x", "y", "width", "height")]
        if name is None or target not in ("0", "1"):
            problems.append(row.problem("E_ROW", _LABELS, "names no film, or a target that is neither 0 nor 1"))
            continue
        if targets.setdefault(name, target) != target:
            problems.append(row.problem("E_ROW", _LABELS, f"calls {name} {target}, an earlier row {targets[name]}"))
        found = boxes.setdefault(name, [])
        box = read_box(edges)
        if (target == "1") != (box is not None) or (target == "0" and any(edges)):
            problems.append(row.problem("E_ROW", _LABELS, f"has the target {target} and the box {edges}"))
        elif box is not None:
            odd = box_problem(box, SPACE)
            problems += [row.problem(odd[0], _LABELS, f"({name}) {odd[1]}")] if odd else []
            found.append(box)
    return boxes, problems


def _read_list(path: Path, boxes: dict[str, list[Box]]) -> tuple[tuple[str, ...], list[Problem]]:
    """Films of the list, and where it disagrees with the labels. Its paths follow another naming and are not used."""
    rows = read_table(path, ("ID|patientId",))
    names: list[str] = []
    problems = []
    for row in rows:
        name = row.cells["id"]
        if name is None or name not in boxes:
            problems.append(row.problem("E_LIST", path.name, f"names a film without labels: {name}"))
            continue
        if name in names[-1:]:
            continue  # a list cut out of the labels repeats a film for each of its boxes
        names.append(name)
        if "boxes" in row.cells:
            listed = [read_box(part.split(";")) for part in (row.cells["boxes"] or "").split("|") if part]
            if sorted(filter(None, listed)) != sorted(boxes[name]) or None in listed:
                problems.append(row.problem("W_LIST_BOXES", path.name, f"has other boxes of {name} than the labels"))
    twice = [name for name, count in Counter(names).items() if count > 1]
    problems += [Problem("E_DUPLICATE_ID", path.name, f"lists {name} twice") for name in twice]
    return tuple(names), problems


def _no_image(name: str) -> Problem:
    return Problem("E_PAIR", f"{_IMAGES}/{name}.dcm", "is labelled and not there")
