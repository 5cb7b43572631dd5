"""Open-i, the chest films of Indiana University: reports in XML, images by the names that the reports give.

Nothing marks where a finding lies, so it can train, but not score. Layout, counts and terms:
docs/datasets/open_i.md.
"""

from __future__ import annotations

import hashlib
import logging
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from textray.data.base import (
    PARTS,
    CheckResult,
    Counts,
    PartName,
    Problem,
    Reader,
    Sample,
    check_split,
    fingerprint,
    part_of,
)
from textray.data.folders import folders, is_whole, sizes_of
from textray.data.twins import same_pictures
from textray.errors import DataError, LayoutError, UsageError
from textray.records import Laterality
from textray.text.sentences import Cut, Sections, split, training_text

log = logging.getLogger(__name__)

PUBLISHED = {"reports": 3955, "with findings": 3425, "with impression": 3921, "images named": 7470}


class OpenI(Reader):
    """Reader of the Indiana University collection as Open-i publishes it.

    Args:
        root: The folder that holds ecgen-radiology, or NLMCXR_reports.tgz as it was downloaded, or the folder around
            it. Images are PNGs there or in a folder beside, such as NLMCXR_png.
        missing_captions: What to do about a report without findings and impression. It is left out whatever is chosen;
            28 of the published ones are such.
        seed: Chooses the reports of `inner`.
    """

    name = "open_i"

    def __init__(self, root: str | Path, *, missing_captions: str = "error", seed: int = 0) -> None:
        super().__init__(Path(root), missing_captions=missing_captions, seed=seed)
        self.reports_at = find_reports(self.root)
        self._problems: list[Problem] = []

    def reports(self, split: str | None = None) -> list[OpenIReport]:
        """Reports of a split, or all of them, by number, with or without words and images; raises as `studies`."""
        found = self._surveyed
        self._refuse(self._problems)
        if split is None:
            return list(found)
        wanted = check_split(split)
        of_part = (report for report in found if report.part == part_of(wanted))
        return self._cut_train(of_part, wanted, lambda report: str(report.number))

    def studies(self, split: str, *, cut: Cut | None = None) -> list[Sample]:
        """Images of a split with the sentences of their report; images of one report have the same ones.

        Reports without sentences and images that are not there are left out, and their number is logged.

        Raises:
            UsageError: If there is no such split, or ``cut`` is not ``split``.
            LayoutError: If no image is there at all.
            DataError: If a report cannot be read, or a name stands twice.
        """
        wanted = check_split(split)
        if cut not in (None, "split"):
            raise UsageError("reports of open_i are split into sentences", came=cut, expected="sentences: split")
        reports, images = self.reports(wanted), self._images
        self._refuse(self._problems)
        if not images:
            raise self._no_layout(
                f"no image of open_i under {self.root}",
                came="reports alone",
                expected="PNGs such as NLMCXR_png/CXR1_1_IM-0001-3001.png",
            )
        without = sum(not report.sentences for report in reports)
        absent = sum(name not in images for report in reports for name in report.image_ids)
        if without or absent:
            log.warning("%d reports without sentences and %d images that are not there are left out", without, absent)
        there = ((name, report.sentences) for report in reports for name in report.image_ids if name in images)
        return [
            Sample(image_id=name, image_path=images[name], sentences=words, laterality=Laterality.PATIENT, split=wanted)
            for name, words in there
            if words
        ]

    def check(self) -> CheckResult:
        """Look at every report, and at the size and the end of every image."""
        reports, images = self._surveyed, self._images
        named = [name for report in reports for name in report.image_ids]
        counted = {
            "reports": len(reports),
            "with findings": sum(bool(report.sections.findings) for report in reports),
            "with impression": sum(bool(report.sections.impression) for report in reports),
            "images named": len(named),
        }
        counts: Counts = {"root": str(self.root), "reports in": self.reports_at.name}
        counts |= {name: f"{count} (published: {PUBLISHED[name]})" for name, count in counted.items()}
        counts["with words"] = sum(bool(report.text) for report in reports)
        counts["sentences"] = sum(len(report.sentences) for report in reports)
        counts["images on disk"] = len(images)
        for part in PARTS:
            of_part = [report for report in reports if report.part == part]
            ids = fingerprint(str(report.number) for report in of_part)[:12]
            counts[part] = f"{len(of_part)} reports, numbers {ids}"
        problems = list(self._problems)
        for path, where, _ in sizes_of(images.values(), self.root, problems):
            if not is_whole(path):
                problems.append(Problem("E_TRUNCATED", where, "ends too early"))
        parts = {name: report.part for report in reports for name in report.image_ids}
        films = ((path, str(parts[name])) for name, path in images.items() if name in parts)
        problems += same_pictures(films, self.root, films=True)
        problems += [
            Problem("W_NO_TEXT", f"{report.number}.xml", "has neither findings nor impression")
            for report in reports
            if not report.text
        ]
        problems += [
            Problem("W_COUNT", self.reports_at.name, f"{name}: {counted[name]}, published are {count}")
            for name, count in PUBLISHED.items()
            if counted[name] != count
        ]
        if images:
            problems += [
                Problem("W_NO_IMAGE", f"{report.number}.xml", f"names {name}, which is not there")
                for report in reports
                for name in report.image_ids
                if name not in images
            ]
            known = set(named)
            problems += [
                Problem("W_NO_REPORT", str(path.relative_to(self.root)), "is named by no report")
                for name, path in images.items()
                if name not in known
            ]
        return CheckResult(name=self.name, root=self.root, counts=counts, problems=tuple(problems))

    @cached_property
    def _surveyed(self) -> tuple[OpenIReport, ...]:
        """Every report that can be read, by number; what is wrong becomes a problem."""
        found: dict[int, OpenIReport] = {}
        owners: dict[str, str] = {}
        for name, content in report_files(self.reports_at):
            try:
                report = read_report(name, content)
            except DataError as error:
                self._problems.append(Problem(error.code, name, error.what))
                continue
            if report.number in found:
                message = f"is a second report number {report.number}"
                self._problems.append(Problem("E_DUPLICATE_ID", name, message))
                continue
            for image, times in Counter(report.image_ids).items():
                if times > 1 or image in owners:
                    message = f"names {image}, as {owners.get(image, name)} does"
                    self._problems.append(Problem("E_DUPLICATE_ID", name, message))
                owners[image] = name
            found[report.number] = report
        return tuple(found[number] for number in sorted(found))

    @cached_property
    def _images(self) -> dict[str, Path]:
        """PNGs by name, of the folder of the reports and those beside them."""
        base = self.reports_at.parent
        found: dict[str, Path] = {}
        for folder in (base, *folders(base)):
            for path in sorted(folder.iterdir()):
                if path.suffix.lower() != ".png" or not path.stem.startswith("CXR"):
                    continue
                if path.stem in found:
                    message = f"has the name of {found[path.stem].relative_to(self.root)}"
                    where = str(path.relative_to(self.root))
                    self._problems.append(Problem("E_DUPLICATE_ID", where, message))
                else:
                    found[path.stem] = path
        return found


# Reports of Open-i: where they are, and what one holds.

_FOLDER, _ARCHIVE = "ecgen-radiology", "NLMCXR_reports.tgz"
_TEST_SHARE = _VAL_SHARE = 0.1
_LARGEST = 1_000_000
"""Bytes; the largest report published has 9 thousand."""


@dataclass(frozen=True, kw_only=True)
class OpenIReport:
    """One report, of one visit of a patient who is not known."""

    number: int
    sections: Sections
    image_ids: tuple[str, ...]  # frontal and lateral ones

    @property
    def text(self) -> str:
        """Findings and impression, empty where it has neither."""
        return training_text(self.sections)

    @cached_property
    def sentences(self) -> tuple[str, ...]:
        """Its sentences of two words or more, without hidden words."""
        return split(self.text)

    @property
    def part(self) -> PartName:
        """Its split, by the hash of its number: the same in every copy, however many reports it holds."""
        share = int(hashlib.sha256(f"open_i:{self.number}".encode()).hexdigest()[:8], 16) / 16**8
        if share < _TEST_SHARE:
            return "test"
        return "val" if share < _TEST_SHARE + _VAL_SHARE else "train"


def find_reports(root: Path) -> Path:
    """The folder of the reports, else the archive that holds them, in ``root`` or one of its folders."""
    for base in (root, *folders(root)):
        for place in (base / _FOLDER, base / _ARCHIVE):
            if place.is_dir() or (place.name == _ARCHIVE and place.is_file()):
                return place
    raise OpenI._no_layout(f"no reports of open_i under {root}", expected=f"{_FOLDER}/<number>.xml or {_ARCHIVE}")


def report_files(place: Path) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of the reports; nothing is unpacked to the disk, and a broken archive is a `LayoutError`."""
    if place.is_dir():
        for path in sorted(place.iterdir()):
            if _is_report(path.name) and path.is_file():
                with path.open("rb") as stream:
                    yield path.name, stream.read(_LARGEST + 1)
        return
    try:
        with tarfile.open(place, "r:gz") as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                held = archive.extractfile(member) if member.isfile() and _is_report(name) else None
                if held is not None:
                    yield name, held.read(_LARGEST + 1)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise LayoutError(
            f"{place.name} cannot be read", came=type(error).__name__, expected="the archive whole", do="Load it again."
        ) from error


def _is_report(name: str) -> bool:
    return name.endswith(".xml") and not name.startswith(".")


def read_report(name: str, content: bytes) -> OpenIReport:
    """Read a report from the name and the bytes of its XML file; anything else is a `DataError`."""
    if len(content) > _LARGEST:
        raise DataError(f"is larger than {_LARGEST} bytes", code="E_SIZE")
    try:
        text = content.decode("utf-8-sig")
        if "<!DOCTYPE" in text:  # a report has none, and entities of one could grow without end
            raise DataError("has a document type, which no report has", code="E_XML")
        tree = ElementTree.fromstring(text)
    except (UnicodeDecodeError, ElementTree.ParseError, ValueError) as error:
        raise DataError("is no XML", code="E_XML") from error
    stem = name.removesuffix(".xml")
    identity = tree.find("uId")
    own_id = identity.get("id") if identity is not None else None
    if not (stem.isascii() and stem.isdecimal()) or own_id != f"CXR{int(stem)}":
        raise DataError(f"calls itself {own_id}: expected CXR and the number in its name", code="E_ID")
    sections: dict[str, str] = {}
    for part in tree.iter("AbstractText"):
        body = "".join(part.itertext()).strip()
        if body:
            sections[(part.get("Label") or "").strip().upper()] = body
    images = (image.get("id") for image in tree.iter("parentImage"))
    return OpenIReport(
        number=int(stem),
        sections=Sections(findings=sections.get("FINDINGS", ""), impression=sections.get("IMPRESSION", "")),
        image_ids=tuple(image for image in images if image),
    )
