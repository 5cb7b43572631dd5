"""QaTa-COV19 v2: chest films of COVID-19, lesion masks and captions that name infected zones.

Captions mean the viewer's left and right. Layout, counts and terms: docs/datasets/qata_cov19.md.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import ClassVar

from textray.data.base import (
    BOTH,
    CheckResult,
    Counts,
    PartName,
    Problem,
    Sample,
    Split,
    check_wording,
    fingerprint,
    leaks,
    name_some,
)
from textray.data.captions import CaptionedFolders, CaptionRow, Entry, Survey, read_captions
from textray.data.folders import Folder, Layout, Part, bare_name, check_pixels
from textray.data.twins import same_pictures
from textray.records import Laterality, Report
from textray.text.zones import sentence

log = logging.getLogger(__name__)

NAME = "QaTa-COV19-v2"
_IN_VAL = {
    "covid_967": "sub-S12197_ses-E24904_run-1_bp-chest_vp-ap_cr",
    "covid_2077": "sub-S12197_ses-E24132_run-1_bp-chest_vp-ap_cr",
    "covid_3495": "sub-S12197_ses-E26523_run-1_bp-chest_vp-ap_cr",
}
"""Films of `train` that are the same as one of `val`, in another brightness and contrast."""
_FOLDERS: dict[PartName, str] = {"train": "Train Set", "test": "Test Set"}


class QaTaCOV19(CaptionedFolders):
    """Reader of QaTa-COV19 v2 in its official layout, captions beside it in ``prompt``.

    The train part is cut as published: the first four fifths of the rows of ``prompt/train.csv`` (floor of 0.8 n;
    5,716 of 7,145) are `train`, the rest `val`. `inner` is 10 % of the `sub-*` patients of `train`, `fit` the others
    and every `covid_*` image but three, which are films of `val` in another brightness. A part that is not asked for
    may be missing.

    Args:
        root: The folder ``QaTa-COV19-v2``, or the folder it lies in.
        captions: Their wording: ``revised`` of train.csv, ``original`` of train_original.csv beside it, or ``both``,
            where the original one that names zones stands in `Sample.also`.
    """

    name = "qata_cov19"
    published: ClassVar[Mapping[PartName, int]] = {"train": 7145, "test": 2113}

    def __init__(
        self, root: str | Path, *, captions: str = "revised", missing_captions: str = "error", seed: int = 0
    ) -> None:
        self.captions = check_wording(self.name, captions)
        layout = find_layout(Path(root), original=captions == "original")
        super().__init__(layout, missing_captions=missing_captions, seed=seed)
        self._noticed: frozenset[str] = frozenset()
        self._originals: dict[PartName, dict[str, Report | None]] = {}

    def _phrases(self, split: Split, kind: str) -> list[Sample]:
        """One phrase for each image with a caption: its canonical sentence, or (``clause``) the places in it alone.

        The phrase is true where the lesion mask is: captions were written from the masks, and name all of their zones.
        So the whole mask is the truth of either kind of phrase.
        """
        captions = [(sample, sentence(sample.report.zones)) for sample in self.samples(split) if sample.report.zones]
        return [
            replace(
                sample,
                phrase=caption if kind == "caption" else caption.removesuffix(".").rsplit(", ", 1)[-1],
                label="Infection",
                laterality=Laterality.VIEWER,
            )
            for sample, caption in captions
        ]

    def check(self) -> CheckResult:
        """Look at headers of images, all pixels of masks and all rows of the tables, of every part that is present."""
        counts: Counts = {"root": str(self.root)}
        problems: list[Problem] = []
        parted: list[tuple[Entry, PartName]] = []
        pictures: list[tuple[Path, str]] = []
        for part, expected in self.published.items():
            if not self._sources(part):
                counts[f"{part} part"] = "not present"
                continue
            found = self._surveyed(part)
            problems += found.problems
            if not found.images:
                problems.append(Problem("E_LAYOUT", f"{_FOLDERS[part]}/Images", "holds no images"))
            counts[f"{part} images"] = f"{found.images} (published: {expected})"
            counts[f"{part} masks"], counts[f"{part} captions"] = found.masks, sum(found.rows.values())
            if self.captions != "original":
                problems += self._check_originals(part, found, counts)
            cut = _cut(found)
            parted += cut
            for split in ("train", "val") if part == "train" else ("test",):
                entries = [entry for entry, to in cut if to == split]
                patients = {entry.group for entry in entries} - {None}
                counts[f"split {split}"] = f"{len(entries)} images, {len(patients)} known patients"
            left_out = self._left_out(cut)
            pictures += [(e.image, f"{to} (left out of fit)" if e.image_id in left_out else to) for e, to in cut]
            check_pixels(((e.image, e.mask) for e in found.entries), self.root, part, counts, problems)
        problems += leaks((entry.group, part) for entry, part in parted if entry.group)
        problems += same_pictures(pictures, self.root, films=True)
        return CheckResult(name=self.name, root=self.root, counts=counts, problems=tuple(problems))

    def _check_originals(self, part: PartName, found: Survey, counts: Counts) -> list[Problem]:
        """Count a part's captions in their original wording, and name those that cannot be used; none without them."""
        (source,) = self._sources(part)
        table = original_of(source.table)
        if not table.is_file():
            return []
        revised = {entry.image_id.casefold(): entry.report for entry in found.entries}
        unusable: list[Problem] = []
        differing, rows = 0, read_captions(table)
        for row in rows:
            report = self._read_caption(row.text) if row.text else None
            other = revised.get(_key(row).casefold())
            differing += bool(report and other and report.zones != other.zones)
            if report is None:
                code, what = ("W_CAPTION_WORDS", "not in the grammar") if row.text else ("W_CAPTION_BLANK", "blank")
                message = f"has an original caption that is {what}"
                unusable.append(row.problem(code, str(table.relative_to(self.root)), message))
        counts[f"{part} captions, original wording"] = (
            f"{len(rows)}, {len(unusable)} blank or not understood, {differing} with other zones than the revised"
        )
        return unusable

    def _group_of(self, image_id: str) -> str | None:
        return patient_of(image_id)

    def _sources(self, part: PartName) -> tuple[Part, ...]:
        source = "test" if part == "test" else "train"
        return tuple(found for found in self.layout.parts if found.name == source)

    def _require(self, part: PartName) -> None:
        source: PartName = "test" if part == "test" else "train"
        if not self._surveyed(source).images:
            raise self._no_layout(
                f'no images under "{_FOLDERS[source]}/Images" of {self.root} (0 pictures)',
                expected=f"{NAME} ({self.published[source]:,})",
            )

    def _survey(self, parts: Sequence[Part]) -> Survey:
        if not any(len(Folder(part.images, self.root)) for part in parts):
            masks = sum(len(Folder(part.masks, self.root)) for part in parts)
            return Survey(images=0, masks=masks, rows={}, entries=(), problems=())
        return super()._survey(parts)

    def _rows(self, part: Part) -> list[CaptionRow]:
        rows = read_captions(part.table)
        published = json.loads(files("textray").joinpath("data", "splits", "qata_cov19.json").read_text("utf-8"))
        if part.name == "train" and fingerprint(_key(row) for row in rows) == published["ids_sha256"]:
            rows.sort(key=_key)  # a copy of the published table saved in another order is cut the same way
        return rows

    def _left_out(self, parted: Sequence[tuple[Entry, PartName]]) -> frozenset[str]:
        parts = {entry.image_id: part for entry, part in parted}
        found = frozenset(
            name for name, twin in _IN_VAL.items() if (parts.get(name), parts.get(twin)) == ("train", "val")
        )
        if found - self._noticed:
            text = "W_PICTURE_LEAK: %d films of train are films of val too, and are left out of fit and inner: %s"
            log.warning(text, len(found), name_some(sorted(found)))
            self._noticed |= found
        return found

    def _other_wordings(self, entry: Entry) -> tuple[Report, ...]:
        if self.captions != BOTH:
            return ()
        source: PartName = "test" if entry.part == "test" else "train"
        if source not in self._originals:
            (part,) = self._sources(source)
            self._originals[source] = self._read_originals(part)
        report = self._originals[source].get(entry.image_id.casefold())
        return (report,) if report and report.zones else ()

    def _read_originals(self, part: Part) -> dict[str, Report | None]:
        """Captions in their original wording, by the name of the image in lower case; ``None`` where unusable."""
        rows = read_captions(original_of(part.table))
        found = {_key(row).casefold(): self._read_caption(row.text) if row.text else None for row in rows}
        unusable = [_key(row) for row in rows if found[_key(row).casefold()] is None]
        if unusable:
            text = "%d captions of %s are blank or not understood, and the revised ones stand alone: %s"
            log.warning(text, len(unusable), original_of(part.table).name, name_some(unusable))
        return found

    def _parted(self, found: Survey) -> list[tuple[Entry, PartName]]:
        """The cut of the entries that are kept, which has no patient on both sides."""
        cut = [(entry, part) for entry, part in _cut(found) if self._keeps(entry)]
        self._refuse(leaks((entry.group, part) for entry, part in cut if entry.group))
        return cut


def _cut(found: Survey) -> list[tuple[Entry, PartName]]:
    """Entries and their parts: of the train folder the first four fifths of the rows are train, the rest val."""
    first = found.rows.get("train", 0) * 4 // 5
    of_val = {entry.group for entry in found.entries if entry.place is not None and entry.place >= first} - {None}
    return [
        (
            entry,
            entry.part
            if entry.part == "test" or (entry.group not in of_val if entry.place is None else entry.place < first)
            else "val",
        )
        for entry in found.entries
    ]


def _key(row: CaptionRow) -> str:
    return bare_name(row.key, "mask_")


def patient_of(image_id: str) -> str | None:
    """Pseudonym of the patient: ``sub-S...`` up to the first ``_``; ``covid_*`` images carry none."""
    found = re.match(r"(sub-S[^_]+)(?:_|$)", image_id, flags=re.IGNORECASE)
    return found.group(1) if found else None


def original_of(table: Path) -> Path:
    """The table of the captions in their original wording, beside a caption table."""
    return table.with_stem(f"{table.stem}_original")


def find_layout(root: Path, *, original: bool = False) -> Layout:
    """The parts that lie in ``root`` itself or in ``QaTa-COV19-v2`` in it; that there are none is a `LayoutError`.

    Their tables are those of the revised captions, or of the ``original`` ones.
    """
    for base in (root, root / NAME):
        parts = []
        for name, folder in _FOLDERS.items():
            if (base / folder).is_dir():
                table = base / "prompt" / f"{name}{'_original' if original else ''}.csv"
                if not table.exists() and table.with_suffix(".xlsx").exists():
                    table = table.with_suffix(".xlsx")
                images, masks = base / folder / "Images", base / folder / "Ground-truths"
                parts.append(Part(name=name, table=table, images=images, masks=masks))
        if parts:
            return Layout(name="QaTa", root=base, parts=tuple(parts))
    raise QaTaCOV19._no_layout(
        f'neither "Train Set" nor "Test Set" under {root}', expected=f"the folder {NAME} or the one it lies in"
    )
