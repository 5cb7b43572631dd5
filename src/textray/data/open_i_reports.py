"""Reports of Open-i: where they are, and what one holds."""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Literal
from xml.etree import ElementTree

from textray.errors import DataError, LayoutError
from textray.text.sentences import Sections, split, training_text

_FOLDER, _ARCHIVE = "ecgen-radiology", "NLMCXR_reports.tgz"
_TEST_SHARE = _VAL_SHARE = 0.1
_LARGEST = 1_000_000
"""Bytes; the largest report published has 9 thousand."""


@dataclass(frozen=True, kw_only=True)
class OpenIReport:
    """One report, of one visit.

    Attributes:
        number: Its number, which is all that the data set tells of whose it is.
        sections: What it says.
        image_ids: Names of its images, frontal and lateral ones.
    """

    number: int
    sections: Sections
    image_ids: tuple[str, ...]

    @property
    def text(self) -> str:
        """Findings and impression, empty where it has neither."""
        return training_text(self.sections)

    @cached_property
    def sentences(self) -> tuple[str, ...]:
        """Its sentences of two words or more, without hidden words."""
        return split(self.text)

    @property
    def part(self) -> Literal["train", "val", "test"]:
        """Its split, by the hash of its number: the same in every copy, however many reports it holds."""
        share = int(hashlib.sha256(f"open_i:{self.number}".encode()).hexdigest()[:8], 16) / 16**8
        if share < _TEST_SHARE:
            return "test"
        return "val" if share < _TEST_SHARE + _VAL_SHARE else "train"


def find_reports(root: Path, help_text: str) -> Path:
    """The folder of the reports, or the archive that holds them; the folder counts where both are there.

    Args:
        root: The folder that either lies in, or the one around it.
        help_text: What to do where neither is there.

    Raises:
        LayoutError: If neither is there.
    """
    if root.is_dir():
        for base in (root, *sorted(path for path in root.iterdir() if path.is_dir())):
            for place in (base / _FOLDER, base / _ARCHIVE):
                if place.is_dir() or (place.name == _ARCHIVE and place.is_file()):
                    return place
    raise LayoutError(
        f"no reports of open_i under {root}", expected=f"{_FOLDER}/<number>.xml or {_ARCHIVE}", do=help_text
    )


def report_files(place: Path) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of the reports; nothing is unpacked to the disk.

    Raises:
        LayoutError: If the archive is broken.
    """
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
    """Read a report.

    Args:
        name: Name of its file.
        content: The XML.

    Raises:
        DataError: If it is none.
    """
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
    told = identity.get("id") if identity is not None else None
    if not (stem.isascii() and stem.isdecimal()) or told != f"CXR{int(stem)}":
        raise DataError(f"calls itself {told}: expected CXR and the number in its name", code="E_ID")
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
