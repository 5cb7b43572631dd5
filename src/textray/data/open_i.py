"""Open-i, the chest films of Indiana University: reports in XML, images by the names that the reports give.

Nothing marks where a finding lies, so it is for learning and for looking at words. Layout, counts and terms:
docs/datasets/open_i.md.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from textray.data.base import (
    CheckResult,
    Problem,
    Sample,
    Split,
    check_captions,
    check_split,
    draw_patients,
    fingerprint,
    refuse,
)
from textray.data.open_i_reports import OpenIReport, find_reports, read_report, report_files
from textray.data.pairs import header_size, is_whole
from textray.data.studies import Study
from textray.errors import DataError, InputError, LayoutError, UsageError
from textray.records import Laterality

log = logging.getLogger(__name__)

PUBLISHED = {"reports": 3955, "with findings": 3425, "with impression": 3921, "images named": 7470}
INNER_SHARE = 0.1
"""Share of the reports of `train` that selects."""

_HELP = 'See docs/datasets/open_i.md or run "textray data check open_i ROOT".'


class OpenI:
    """Reader of the Indiana University collection as Open-i publishes it.

    Args:
        root: The folder that holds ecgen-radiology, or NLMCXR_reports.tgz as it was downloaded, or the folder around
            it. Images are PNGs there or in a folder beside, such as NLMCXR_png.
        captions: What to do about a report without findings and impression. It is left out whatever is chosen; 28 of
            the published ones are such.
        seed: Chooses the reports of `inner`.
    """

    name = "open_i"

    def __init__(self, root: str | Path, *, captions: str = "error", seed: int = 0) -> None:
        self.root, self.seed = Path(root), seed
        self.policy = check_captions(captions)
        self.reports_at = find_reports(self.root, _HELP)
        self._problems: list[Problem] = []

    def samples(self, split: str) -> list[Sample]:
        """There are none: the data set has no lesion masks.

        Raises:
            UsageError: Always.
        """
        raise UsageError(
            "data set open_i has reports and no lesion masks: it can neither train nor score a segmenter",
            do="Learn grounding from it: studies(...) of textray.data.studies",
        )

    def reports(self, split: str | None = None) -> list[OpenIReport]:
        """Reports by number, with or without words and images.

        Args:
            split: A split, ``None`` for all reports.

        Raises:
            UsageError: If there is no such split.
            DataError: If a report cannot be read, or a name stands twice.
        """
        found = self._surveyed
        refuse([problem for problem in self._problems if problem.fatal], self.name, self.root)
        if split is None:
            return list(found)
        wanted = check_split(split)
        part = wanted if wanted in ("val", "test") else "train"
        found = tuple(report for report in found if report.part == part)
        if wanted in ("inner", "fit"):
            inner = draw_patients((str(report.number) for report in found), INNER_SHARE, self.seed)
            found = tuple(report for report in found if (str(report.number) in inner) == (wanted == "inner"))
        return list(found)

    def studies(self, split: str) -> list[Study]:
        """Images of a split with the sentences of their report; images of one report have the same ones.

        Reports without sentences and images that are not there are left out, and their number is logged.

        Raises:
            UsageError: If there is no such split.
            LayoutError: If no image is there at all.
            DataError: If a report cannot be read, or a name stands twice.
        """
        wanted: Split = check_split(split)
        reports, images = self.reports(wanted), self._images
        refuse([problem for problem in self._problems if problem.fatal], self.name, self.root)
        if not images:
            raise LayoutError(
                f"no image of open_i under {self.root}",
                came="reports alone",
                expected="PNGs such as NLMCXR_png/CXR1_1_IM-0001-3001.png",
                do=_HELP,
            )
        silent = sum(not report.sentences for report in reports)
        absent = sum(name not in images for report in reports for name in report.image_ids)
        if silent or absent:
            log.warning("%d reports without sentences and %d images that are not there are left out", silent, absent)
        return [
            Study(
                image_id=name,
                image_path=images[name],
                sentences=report.sentences,
                patient_id=None,
                laterality=Laterality.PATIENT,
                split=wanted,
            )
            for report in reports
            if report.sentences
            for name in report.image_ids
            if name in images
        ]

    def fingerprint(self, split: str) -> str:
        """SHA-256 of the report numbers of a split."""
        return fingerprint(str(report.number) for report in self.reports(split))

    def check(self) -> CheckResult:
        """Look at every report, and at the size and the end of every image."""
        reports, images = self._surveyed, self._images
        named = [name for report in reports for name in report.image_ids]
        told = {
            "reports": len(reports),
            "with findings": sum(bool(report.sections.findings) for report in reports),
            "with impression": sum(bool(report.sections.impression) for report in reports),
            "images named": len(named),
        }
        counts: dict[str, int | float | str] = {"root": str(self.root), "reports in": self.reports_at.name}
        counts |= {name: f"{count} (published: {PUBLISHED[name]})" for name, count in told.items()}
        counts["with words"] = sum(bool(report.text) for report in reports)
        counts["sentences"] = sum(len(report.sentences) for report in reports)
        counts["images on disk"] = len(images)
        for part in ("train", "val", "test"):
            of_part = [report for report in reports if report.part == part]
            ids = fingerprint(str(report.number) for report in of_part)[:12]
            counts[part] = f"{len(of_part)} reports, numbers {ids}"
        problems = [*self._problems, *_pictures(images.values(), self.root)]
        problems += [
            Problem(code="W_NO_TEXT", path=f"{report.number}.xml", message="has neither findings nor impression")
            for report in reports
            if not report.text
        ]
        problems += [
            Problem(code="W_COUNT", path=self.reports_at.name, message=f"{name}: {told[name]}, published are {count}")
            for name, count in PUBLISHED.items()
            if told[name] != count
        ]
        if images:
            problems += [
                Problem(code="W_NO_IMAGE", path=f"{report.number}.xml", message=f"names {name}, which is not there")
                for report in reports
                for name in report.image_ids
                if name not in images
            ]
            known = set(named)
            problems += [
                Problem(code="W_NO_REPORT", path=str(path.relative_to(self.root)), message="is named by no report")
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
                self._problems.append(Problem(code=error.code, path=name, message=error.what))
                continue
            if report.number in found:
                message = f"is a second report number {report.number}"
                self._problems.append(Problem(code="E_DUPLICATE_ID", path=name, message=message))
                continue
            for image, times in Counter(report.image_ids).items():
                if times > 1 or image in owners:
                    message = f"names {image}, as {owners.get(image, name)} does"
                    self._problems.append(Problem(code="E_DUPLICATE_ID", path=name, message=message))
                owners[image] = name
            found[report.number] = report
        return tuple(found[number] for number in sorted(found))

    @cached_property
    def _images(self) -> dict[str, Path]:
        """PNGs by name, of the folder of the reports and those beside them."""
        base = self.reports_at.parent
        found: dict[str, Path] = {}
        for folder in (base, *sorted(path for path in base.iterdir() if path.is_dir())):
            for path in sorted(folder.iterdir()):
                if path.suffix.lower() != ".png" or not path.stem.startswith("CXR"):
                    continue
                if path.stem in found:
                    message = f"has the name of {found[path.stem].relative_to(self.root)}"
                    where = str(path.relative_to(self.root))
                    self._problems.append(Problem(code="E_DUPLICATE_ID", path=where, message=message))
                else:
                    found[path.stem] = path
        return found


def _pictures(paths: Iterable[Path], root: Path) -> Iterator[Problem]:
    for path in paths:
        where = str(path.relative_to(root))
        try:
            header_size(path)
        except InputError as error:
            yield Problem(code=error.code, path=where, message=error.what)
            continue
        if not is_whole(path):
            yield Problem(code="E_TRUNCATED", path=where, message="ends too early")
