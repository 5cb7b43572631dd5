"""Images and masks that lie in two folders and belong together by name, and what is missing or more."""

from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image as PILImage

from textray.data.base import Problem
from textray.data.captions import PARTS, CaptionRow, Layout, PartName, read_captions, read_report, row_problem
from textray.errors import InputError
from textray.io import read as read_module
from textray.preprocess import Preprocess
from textray.records import Report

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})
INVERTED_SHARE = 0.5
"""A mask with a larger foreground share than this ..."""
INVERTED_BORDER = 0.9
"""... and a larger share of its outermost pixels is taken for inverted. QaTa-COV19 train reaches 0.67 and 0.28."""

_PNG = b"\x89PNG\r\n\x1a\n"
_TRANSPOSED = {5, 6, 7, 8}  # EXIF orientations that swap rows and columns


@dataclass(frozen=True, kw_only=True)
class MaskFacts:
    """What a mask file holds.

    Attributes:
        mode: Pillow's name of how it is stored; ``"L"`` is the plain one.
        odd_share: Share of pixels that are neither background nor full foreground.
        foreground: Share of lesion pixels, by the rule of `textray.io.read.inspect_mask`.
        border: Share of lesion pixels among the outermost ones.
        centre: Mean place of the lesion pixels, down and across, as shares of height and width; ``None`` without any.
    """

    mode: str
    odd_share: float
    foreground: float
    border: float
    centre: tuple[float, float] | None


class Folder:
    """The pictures of one folder by id, and what is wrong with their names.

    Args:
        path: The folder; it may be missing, then there are no pictures.
        root: What paths in messages are relative to.
        prefix: What stands before the id in each file name, such as ``"mask_"``.
    """

    def __init__(self, path: Path, root: Path, prefix: str = "") -> None:
        self.path = path
        self.problems: list[Problem] = []
        self._by_id: dict[str, Path] = {}
        self._by_folded: dict[str, str] = {}
        for file in sorted(_pictures(path)):
            name = file.stem.removeprefix(prefix)
            folded = name.casefold()
            if folded not in self._by_folded:
                self._by_id[name], self._by_folded[folded] = file, name
                continue
            other = self._by_id[self._by_folded[folded]]
            same = self._by_folded[folded] == name
            self.problems.append(
                Problem(
                    code="E_SAME_STEM" if same else "E_CASE",
                    path=str(file.relative_to(root)),
                    message=f"{'has the name' if same else 'differs only in case from that'} of "
                    f"{other.relative_to(root)}{' with another extension' if same else ''}; keep one of them",
                )
            )

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def ids(self) -> list[str]:
        """All ids, sorted."""
        return sorted(self._by_id)

    def find(self, name: str) -> str | None:
        """The id that equals ``name``, first exactly, then whatever its case; ``None`` if there is none."""
        return name if name in self._by_id else self._by_folded.get(name.casefold())

    def get(self, name: str) -> Path | None:
        """The file of an id, found as `find` does."""
        found = self.find(name)
        return None if found is None else self._by_id[found]


def bare_name(name: str, prefix: str = "") -> str:
    """The id in a file name: without a picture's extension and without the prefix; "007" stays "007"."""
    stem, dot, suffix = name.rpartition(".")
    return (stem if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES else name).removeprefix(prefix)


def header_size(path: Path) -> tuple[int, int]:
    """Height and width as displayed, from the header alone.

    Raises:
        InputError: If the file is no picture.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(24)
        if head[:8] == _PNG and len(head) == 24:
            width, height = struct.unpack(">II", head[16:24])
            return height, width
        with PILImage.open(path) as picture:
            width, height = picture.size
            # Pillow tells the size of a TIFF as displayed, that of other kinds as stored.
            turned = picture.format != "TIFF" and picture.getexif().get(0x0112) in _TRANSPOSED
    except (OSError, SyntaxError, ValueError, PILImage.DecompressionBombError) as error:
        raise InputError(f"{path.name} cannot be opened as a picture", came=type(error).__name__) from error
    return (width, height) if turned else (height, width)


def is_whole(path: Path) -> bool:
    """False where a PNG or JPEG does not end as it should; other files are taken as they are."""
    with path.open("rb") as stream:
        head = stream.read(8)
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - 64))
        tail = stream.read()
    if head == _PNG:
        return b"IEND" in tail
    return b"\xff\xd9" in tail if head[:2] == b"\xff\xd8" else True


def inspect_mask(path: Path) -> MaskFacts:
    """Read a mask and tell what it holds.

    Raises:
        InputError: If it cannot be read, or its levels are ambiguous.
    """
    file = read_module.inspect_mask(path)
    with PILImage.open(path) as picture:  # the header only
        mode = picture.mode
    border = np.concatenate([file.mask[0], file.mask[-1], file.mask[:, 0], file.mask[:, -1]])
    rows, columns = np.nonzero(file.mask)
    height, width = file.mask.shape
    return MaskFacts(
        mode=mode,
        odd_share=file.odd_share,
        foreground=file.foreground_share,
        border=float(border.mean()),
        centre=(float((rows.mean() + 0.5) / height), float((columns.mean() + 0.5) / width)) if len(rows) else None,
    )


def size_problem(image: Path, mask: Path, root: Path) -> Problem | None:
    """The problem of an image and a mask of different sizes, from the headers alone.

    Raises:
        InputError: If one of them is no picture.
    """
    of_image, of_mask = header_size(image), header_size(mask)
    if of_image == of_mask:
        return None
    return Problem(
        code="E_MASK_SIZE",
        path=str(mask.relative_to(root)),
        message=f"is {of_mask[0]} x {of_mask[1]} pixels, its image {of_image[0]} x {of_image[1]} (height x width); "
        "nothing is resized silently",
    )


def check_pixels(
    pairs: Iterable[tuple[Path, Path]],
    root: Path,
    part: str,
    counts: dict[str, int | float | str],
    problems: list[Problem],
) -> dict[Path, MaskFacts]:
    """Look at headers of images and all pixels of masks.

    Args:
        pairs: Image and mask of each.
        root: What paths in messages are relative to.
        part: What is looked at, the first word of each count.
        counts: Sizes, empty and full masks and the mean lesion share are added.
        problems: What is wrong is added.

    Returns:
        What each readable mask holds, by its path.
    """
    sizes: Counter[str] = Counter()
    found: dict[Path, MaskFacts] = {}
    for image, mask in pairs:
        for path in (image, mask):
            relative = str(path.relative_to(root))
            try:
                if path == image:
                    height, width = header_size(path)
                    sizes[f"{height} x {width}"] += 1
                    if not is_whole(path):
                        problems.append(Problem(code="E_TRUNCATED", path=relative, message="ends too early"))
                    continue
                facts = inspect_mask(path)
                problem = size_problem(image, path, root)
            except InputError as error:
                problems.append(Problem(code=error.code, path=relative, message=error.what))
                break
            problems += [problem] if problem else []
            problems += mask_problems(facts, relative)
            found[mask] = facts
    shares = [facts.foreground for facts in found.values()]
    counts[f"{part} sizes"] = ", ".join(f"{size}: {n}" for size, n in sizes.most_common(5)) or "none"
    counts[f"{part} empty masks"] = sum(share == 0 for share in shares)
    counts[f"{part} full masks"] = sum(share == 1 for share in shares)
    counts[f"{part} mean lesion share"] = round(float(np.mean(shares)), 4) if shares else 0.0
    return found


def colour_problems(images: Iterable[Path], root: Path, *, colour: bool = False) -> list[Problem]:
    """Decode the images that are not stored grey: equal channels are fine, coloured ones are a problem.

    Args:
        images: The files; those that are no picture are left to `check_pixels`.
        root: What paths in messages are relative to.
        colour: The other way round: all images are decoded, and grey ones are a problem.
    """
    way = Preprocess(size=(1, 1), colour=colour)
    problems = []
    for path in images:
        try:
            with PILImage.open(path) as picture:
                grey = picture.mode in ("1", "L") or picture.mode.startswith("I")
            if colour or not grey:
                way.read(path)
        except InputError as error:
            problems.append(Problem(code=error.code, path=str(path.relative_to(root)), message=error.what))
        except (OSError, SyntaxError, ValueError):
            continue  # no picture at all: the look at the headers has said so
    return problems


def mask_problems(facts: MaskFacts, path: str) -> list[Problem]:
    """What is to be known of a mask.

    Args:
        facts: What the file holds.
        path: Its path for the message.
    """
    found = []
    if facts.mode != "L":
        found.append(("W_MASK_MODE", f"is stored as {facts.mode}, read as one channel (largest of the colours)"))
    if facts.odd_share > 0:
        found.append(("W_MASK_VALUES", f"{100 * facts.odd_share:.3g} % of its pixels are between black and white"))
    if facts.foreground == 0:
        found.append(("W_MASK_EMPTY", "marks no lesion"))
    elif facts.foreground == 1:
        found.append(("W_MASK_FULL", "marks every pixel as lesion"))
    elif facts.foreground > INVERTED_SHARE and facts.border > INVERTED_BORDER:
        found.append(
            ("W_MASK_INVERTED", f"looks inverted: {100 * facts.foreground:.0f} % lesion, all along its border")
        )
    return [Problem(code=code, path=path, message=message) for code, message in found]


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return [
            Path(entry.path)
            for entry in entries
            if Path(entry.name).suffix.lower() in IMAGE_SUFFIXES and not entry.name.startswith(".") and entry.is_file()
        ]


# What lies in the folders of a data set in parts, and stands in its tables.

ReadReport = Callable[[CaptionRow, str, dict[str, Report | InputError]], tuple[Report | None, Problem | None]]
"""Turns a row of a caption table into a report, or into the problem that keeps it from being one."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A picture with its mask.

    Attributes:
        image_id: Its name.
        image: Its file.
        mask: The file of its mask.
        report: What its caption says, ``None`` where no usable one stands in the table.
        part: The part whose table names it.
        group: The patient or volume it is of, ``None`` where the name does not tell.
    """

    image_id: str
    image: Path
    mask: Path
    report: Report | None
    part: PartName
    group: str | None


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What lies in the folders and stands in the tables."""

    images: int
    masks: int
    rows: dict[PartName, int]
    entries: tuple[Entry, ...]
    problems: tuple[Problem, ...]


def survey(layout: Layout, *, group_of: Callable[[str], str | None], read: ReadReport = read_report) -> Survey:
    """List folders and read tables; what does not fit together becomes a problem, nothing is refused.

    A picture that no row names is missing its caption: in a part's own folder it belongs to that part, in folders that
    all parts share it belongs to none.

    Args:
        layout: Where things lie.
        group_of: Tells the patient or volume of an image by its name.
        read: Reads the caption of a row.
    """
    problems: list[Problem] = []
    images: dict[Path, Folder] = {}
    masks: dict[Path, Folder] = {}
    for part in layout.parts:
        if part.images not in images:
            images[part.images] = Folder(part.images, layout.root)
            masks[part.masks] = Folder(part.masks, layout.root, prefix="mask_")
            problems += images[part.images].problems + masks[part.masks].problems
            problems += _lone_masks(images[part.images], masks[part.masks], layout.root)
    entries: list[Entry] = []
    rows: dict[PartName, int] = {}
    seen: dict[str, str] = {}
    parsed: dict[str, Report | InputError] = {}
    for part in layout.parts:
        where = str(part.table.relative_to(layout.root))
        pictures, labels = images[part.images], masks[part.masks]
        reports: dict[str, Report | None] = {}
        table = read_captions(part.table)
        rows[part.name] = len(table)
        for row in table:
            found = pictures.find(bare_name(row.key, "mask_"))
            if found is None:
                if labels.find(bare_name(row.key, "mask_")) is None:
                    problems.append(row_problem("E_CAPTION_EXTRA", where, row, "has neither image nor mask"))
            elif found.casefold() in seen:
                message = f"stands in {seen[found.casefold()]} already"
                problems.append(row_problem("E_DUPLICATE_ID", where, row, message))
            else:
                seen[found.casefold()] = f"row {row.line} of {where}"
                reports[found], problem = read(row, where, parsed)
                problems += [problem] if problem else []
        if not layout.shared:
            for name in (n for n in pictures.ids if n not in reports and n.casefold() not in seen):
                problems.append(_missing(pictures, name, layout.root, f"has no row in {where}"))
                seen[name.casefold()] = f"the folder {part.images.relative_to(layout.root)}"
                reports[name] = None
        for name, image, mask in _pair(reports, pictures, labels, layout.root, problems):
            entries.append(
                Entry(
                    image_id=name,
                    image=image,
                    mask=mask,
                    report=reports[name],
                    part=part.name,
                    group=group_of(name),
                )
            )
    if layout.shared and len(rows) == len(PARTS):
        pictures = images[layout.parts[0].images]
        lost = [name for name in pictures.ids if name.casefold() not in seen]
        problems += [_missing(pictures, n, layout.root, "has no row in any table, so no part") for n in lost]
    return Survey(
        images=sum(map(len, images.values())),
        masks=sum(map(len, masks.values())),
        rows=rows,
        entries=tuple(entries),
        problems=tuple(problems),
    )


def _pair(
    names: Iterable[str], pictures: Folder, labels: Folder, root: Path, problems: list[Problem]
) -> Iterator[tuple[str, Path, Path]]:
    for name in names:
        image, mask = pictures.get(name), labels.get(name)
        if image is None or mask is None:
            problems.append(_missing(pictures, name, root, "has no mask of its name", code="E_PAIR"))
        else:
            yield name, image, mask


def _lone_masks(pictures: Folder, labels: Folder, root: Path) -> list[Problem]:
    lone = [name for name in labels.ids if pictures.find(name) is None]
    return [_missing(labels, name, root, "has no image of its name", code="E_PAIR") for name in lone]


def _missing(folder: Folder, name: str, root: Path, message: str, code: str = "E_CAPTION_MISSING") -> Problem:
    return Problem(code=code, path=str((folder.path / name).relative_to(root)), message=message)
