"""NIH ChestX-ray14, its films with boxes: eight findings that a radiologist has marked.

The published table has commas in its header, so four columns are named ``Bbox [x``, ``y``, ``w`` and ``h]``. Layout,
splits and terms: docs/datasets/nih_boxes.md.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from textray.data.base import Box, CheckResult, Counts, Problem, Reader, Sample, Split, draw_patients
from textray.data.boxes import box_problem, is_scaled_copy, read_box, read_table
from textray.data.folders import Folder, folders, sizes_of
from textray.data.twins import same_pictures
from textray.errors import UsageError
from textray.records import Laterality

SPACE = (1024, 1024)
"""Width and height of the published films, which the boxes belong to."""
CLASSES = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltrate", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
)  # fmt: skip

_TABLE = "BBox_List_2017.csv"
_COLUMNS = ("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]")
_NAME = re.compile(r"(?P<patient>\d{8})_\d{3}\.png")
_TEST_SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One finding of a film, with all of its boxes."""

    image_id: str
    patient: str
    label: str
    boxes: tuple[Box, ...]


class NIHBoxes(Reader):
    """Reader of the films of ChestX-ray14 that have boxes.

    There is no published cut: half of the patients, by the hash of their number, are in `test`, the others in `train`.

    Args:
        root: The folder that holds ``BBox_List_2017.csv``, or the one it lies in. Films are in ``images`` or in
            ``images_001/images`` and so on, as they are published.
        missing_captions: Without effect on a data set that has no captions.
        seed: Chooses the patients of `inner`.
    """

    name = "nih_boxes"

    def __init__(self, root: str | Path, *, missing_captions: str = "error", seed: int = 0) -> None:
        super().__init__(_find_root(Path(root)), missing_captions=missing_captions, seed=seed)

    def _phrases(self, split: Split, kind: str) -> list[Sample]:
        """One phrase for each finding of a film of the split, in the order of the table."""
        if split == "val":
            raise UsageError("nih_boxes has no val", expected="train, test, inner or fit", do="Select on inner.")
        findings, images, problems = self._surveyed
        test = _test_patients(findings)
        kept = [one for one in findings if (one.patient in test) == (split == "test")]
        kept = self._cut_train(kept, split, lambda one: one.patient)
        self._refuse([*problems, *(_no_image(one.image_id) for one in kept if one.image_id not in images)])
        return [
            Sample(
                image_id=one.image_id,
                image_path=images[one.image_id],
                patient_id=one.patient,
                phrase=f"Findings suggesting {one.label.lower()}.",
                label=one.label,
                boxes=one.boxes,
                box_space=SPACE,
                laterality=Laterality.PATIENT,
                split=split,
            )
            for one in kept
        ]

    def check(self) -> CheckResult:
        """Look at every row of the table, and at the size of every film that it names."""
        findings, images, found = self._surveyed
        named = {one.image_id: one.patient for one in findings}
        problems = [*found, *(_no_image(name) for name in named if name not in images)]
        there = {images[name]: name for name in named if name in images}
        for _, where, (height, width) in sizes_of(there, self.root, problems):
            if not is_scaled_copy((height, width), SPACE):
                message = f"is {width} x {height} pixels, no scaled copy of a film of {SPACE[0]} x {SPACE[1]}"
                problems.append(Problem("E_SIZE", where, message))
        test = _test_patients(findings)
        parts = ((path, "test" if named[name] in test else "train") for path, name in there.items())
        problems += same_pictures(parts, self.root, films=True)
        counts: Counts = {"root": str(self.root)}
        counts["boxes"] = f"{sum(len(one.boxes) for one in findings)} (published: 984)"
        counts["films with boxes"] = f"{len(named)} (published: 880)"
        counts["films on disk"] = len(images)
        for part, of_test in (("train", False), ("test", True)):
            kept = [one for one in findings if (one.patient in test) == of_test]
            counts[part] = f"{len(kept)} findings of {len({one.patient for one in kept})} patients"
        classes = Counter(one.label for one in findings)
        counts |= {f"class {name}": count for name, count in sorted(classes.items())}
        return CheckResult(name=self.name, root=self.root, counts=counts, problems=tuple(problems))

    @cached_property
    def _surveyed(self) -> tuple[tuple[Finding, ...], dict[str, Path], tuple[Problem, ...]]:
        """Findings in the order of the table, films by name, and what is wrong with either."""
        boxes: dict[tuple[str, str], list[Box]] = {}
        problems: list[Problem] = []
        for row in read_table(self.root / _TABLE, _COLUMNS):
            image, label, *edges = (row.cells[column.lower()] for column in _COLUMNS)
            name, box = _NAME.fullmatch(image or ""), read_box(edges)
            if name is None or label not in CLASSES or box is None:
                message = f"names no film, no known finding, or no box: {image}, {label}, {edges}"
                problems.append(row.problem("E_ROW", _TABLE, message))
                continue
            odd = box_problem(box, SPACE)
            problems += [row.problem(odd[0], _TABLE, f"({name.string}) {odd[1]}")] if odd else []
            boxes.setdefault((name.string.removesuffix(".png"), label), []).append(box)
        findings = (
            Finding(image_id=image, patient=image[:8], label=label, boxes=tuple(found))
            for (image, label), found in boxes.items()
        )
        images: dict[str, Path] = {}
        for place in _image_folders(self.root):
            folder = Folder(place, self.root, suffixes={".png"})
            problems += folder.problems
            for image_id in folder.ids:
                if image_id in images:
                    where = str(folder[image_id].relative_to(self.root))
                    message = f"has the name of {images[image_id].relative_to(self.root)}"
                    problems.append(Problem("E_DUPLICATE_ID", where, message))
                else:
                    images[image_id] = folder[image_id]
        return tuple(findings), images, tuple(problems)


def _find_root(root: Path) -> Path:
    for folder in (root, *folders(root)):
        if (folder / _TABLE).is_file():
            return folder
    raise NIHBoxes._no_layout(f"no {_TABLE} in {root}", expected="the folder of ChestX-ray14, unpacked")


def _image_folders(root: Path) -> list[Path]:
    """``images`` and ``images_001/images`` to ``images_012/images``, those that are there."""
    numbered = (folder / "images" for folder in folders(root) if re.fullmatch(r"images_\d{3}", folder.name))
    return [folder for folder in (root / "images", *numbered) if folder.is_dir()]


def _test_patients(findings: tuple[Finding, ...]) -> frozenset[str]:
    return draw_patients((one.patient for one in findings), _TEST_SHARE, 0)


def _no_image(name: str) -> Problem:
    return Problem("E_PAIR", f"{name}.png", "has boxes and is not there")
