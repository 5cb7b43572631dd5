"""Images and masks that lie in two folders and belong together by name, and what is missing or more.

Train_Folder/img/, Train_Folder/labelcol/, Train_Folder/Train_text.xlsx, and the same for Val and Test, is how LViT's
authors lay out several data sets.
"""

from __future__ import annotations

import os
import re
import struct
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image as PILImage

from textray.data.base import PARTS, Counts, PartName, Problem
from textray.errors import InputError, LayoutError
from textray.io import read as read_module
from textray.preprocess import Preprocess

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})
_INVERTED_SHARE, _INVERTED_BORDER = 0.5, 0.9
"""A mask with larger shares of all and of its outermost pixels is inverted; QaTa-COV19 train reaches 0.67 and 0.28."""

_PNG = b"\x89PNG\r\n\x1a\n"
_TRANSPOSED = {5, 6, 7, 8}  # EXIF orientations that swap rows and columns


@dataclass(frozen=True, kw_only=True)
class MaskFacts:
    """Facts of a mask file, in shares of its pixels, lesions being those of `textray.io.read.inspect_mask`."""

    mode: str  # Pillow's name of how it is stored; "L" is the plain one
    odd_share: float  # neither background nor full foreground
    foreground: float  # lesions
    border: float  # lesions among the outermost pixels
    centre: tuple[float, float] | None  # mean place of lesions, down and across, as shares of height and width


class Folder:
    """The pictures of one folder by id, and what is wrong with their names; a missing folder has no pictures.

    Paths in messages are relative to ``root``; ``prefix`` stands before the id in each file name, such as ``"mask_"``.
    """

    def __init__(self, path: Path, root: Path, prefix: str = "", *, suffixes: Collection[str] = IMAGE_SUFFIXES) -> None:
        self.problems: list[Problem] = []
        self._by_id: dict[str, Path] = {}
        self._by_folded: dict[str, str] = {}
        files = path.iterdir() if path.is_dir() else ()
        pictures = (f for f in files if f.suffix.lower() in suffixes and not f.name.startswith(".") and f.is_file())
        for file in sorted(pictures):
            name = file.stem.removeprefix(prefix)
            folded = name.casefold()
            if folded not in self._by_folded:
                self._by_id[name], self._by_folded[folded] = file, name
                continue
            other = self._by_id[self._by_folded[folded]].relative_to(root)
            if self._by_folded[folded] == name:
                code, message = "E_SAME_STEM", f"has the name of {other} with another extension; keep one of them"
            else:
                code, message = "E_CASE", f"differs only in case from that of {other}; keep one of them"
            self.problems.append(Problem(code, str(file.relative_to(root)), message))

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, name: str) -> bool:
        return name in self._by_id

    def __getitem__(self, name: str) -> Path:
        return self._by_id[name]

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
    """Height and width as displayed, from the header alone; a file that is no picture is an `InputError`."""
    try:
        with path.open("rb") as stream:
            head = stream.read(24)
        if head[:8] == _PNG and len(head) == 24:
            width, height = struct.unpack(">II", head[16:24])
            return height, width
        with PILImage.open(path) as picture:
            width, height = picture.size
            # Pillow gives the size of a TIFF as displayed, that of other kinds as stored.
            turned = picture.format != "TIFF" and picture.getexif().get(0x0112) in _TRANSPOSED
    except (OSError, SyntaxError, ValueError, PILImage.DecompressionBombError) as error:
        raise InputError(f"{path.name} cannot be opened as a picture", came=type(error).__name__) from error
    return (width, height) if turned else (height, width)


def sizes_of(paths: Iterable[Path], root: Path, problems: list[Problem]) -> Iterator[tuple[Path, str, tuple[int, int]]]:
    """Each picture that is no DICOM (those take long), its path below ``root``, and its height and width.

    What is no picture becomes one of the problems.
    """
    for path in paths:
        if path.suffix.lower() == ".dcm":
            continue
        where = str(path.relative_to(root))
        try:
            yield path, where, header_size(path)
        except InputError as error:
            problems.append(Problem(error.code, where, error.what))


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
    """Read the facts of a mask."""
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


def size_problems(image: Path, mask: Path, root: Path) -> list[Problem]:
    """The problem of an image and a mask of different sizes, from the headers alone."""
    of_image, of_mask = header_size(image), header_size(mask)
    if of_image == of_mask:
        return []
    message = (
        f"is {of_mask[0]} x {of_mask[1]} pixels, its image {of_image[0]} x {of_image[1]} (height x width); "
        "nothing is resized silently"
    )
    return [Problem("E_MASK_SIZE", str(mask.relative_to(root)), message)]


def check_pixels(
    pairs: Iterable[tuple[Path, Path]], root: Path, part: str, counts: Counts, problems: list[Problem]
) -> dict[Path, MaskFacts]:
    """Look at headers of images and all pixels of masks; return the facts of each readable mask, by its path.

    Sizes, empty and full masks and the mean lesion share are added to the counts, ``part`` being the first word of
    each, and what is wrong with the files to the problems.
    """
    sizes: Counter[str] = Counter()
    found: dict[Path, MaskFacts] = {}
    for image, mask in pairs:
        path = image
        try:
            height, width = header_size(image)
            sizes[f"{height} x {width}"] += 1
            if not is_whole(image):
                problems.append(Problem("E_TRUNCATED", str(image.relative_to(root)), "ends too early"))
            path = mask
            found[mask] = inspect_mask(mask)
            problems += size_problems(image, mask, root)
            problems += mask_problems(found[mask], str(mask.relative_to(root)))
        except InputError as error:
            problems.append(Problem(error.code, str(path.relative_to(root)), error.what))
    shares = [facts.foreground for facts in found.values()]
    counts[f"{part} sizes"] = ", ".join(f"{size}: {n}" for size, n in sizes.most_common(5)) or "none"
    counts[f"{part} empty masks"] = sum(share == 0 for share in shares)
    counts[f"{part} full masks"] = sum(share == 1 for share in shares)
    counts[f"{part} mean lesion share"] = round(float(np.mean(shares)), 4) if shares else 0.0
    return found


def colour_problems(images: Iterable[Path], root: Path, *, colour: bool = False) -> list[Problem]:
    """Decode the images that are not stored grey: equal channels are fine, coloured ones are a problem.

    With ``colour`` it is the other way round: all are decoded, and grey ones are a problem. Files that are no picture
    are left to `check_pixels`.
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
            problems.append(Problem(error.code, str(path.relative_to(root)), error.what))
        except (OSError, SyntaxError, ValueError):
            continue  # no picture at all: reported with its header
    return problems


def mask_problems(facts: MaskFacts, path: str) -> list[Problem]:
    """Warnings about a mask, ``path`` being its path in messages."""
    found = []
    if facts.mode != "L":
        found.append(("W_MASK_MODE", f"is stored as {facts.mode}, read as one channel (largest of the colours)"))
    if facts.odd_share > 0:
        found.append(("W_MASK_VALUES", f"{100 * facts.odd_share:.3g} % of its pixels are between black and white"))
    if facts.foreground == 0:
        found.append(("W_MASK_EMPTY", "marks no lesion"))
    elif facts.foreground == 1:
        found.append(("W_MASK_FULL", "marks every pixel as lesion"))
    elif facts.foreground > _INVERTED_SHARE and facts.border > _INVERTED_BORDER:
        found.append(
            ("W_MASK_INVERTED", f"looks inverted: {100 * facts.foreground:.0f} % lesion, all along its border")
        )
    return [Problem(code, path, message) for code, message in found]


# Where the parts of a data set lie: what a part is, and the layout of LViT's authors, which several data sets share.


@dataclass(frozen=True, kw_only=True)
class Part:
    """One published part: its caption table, and the folders of its images and masks."""

    name: PartName
    table: Path
    images: Path
    masks: Path


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the parts of a data set lie that are present, in the order of `PARTS`, and whose layout it is.

    Paths in messages are relative to ``root``, the folder that holds it.
    """

    name: Literal["Kaggle", "LViT", "QaTa", "csv"]
    root: Path
    parts: tuple[Part, ...]


def find_layout(root: Path, look: Callable[[Path], Layout | None], what: str, expected: str, help_text: str) -> Layout:
    """Find what ``look`` gives for a folder, or for the one folder inside it that has a layout.

    That there is none, or several folders inside have one, is a `LayoutError`, which names the layout (``what``), what
    it looks like (``expected``) and what to do (``help_text``).
    """
    if not root.is_dir():
        raise LayoutError(f"there is no folder {root}", do=help_text)
    for places in ([root], folders(root)):
        layouts = [found for folder in places if (found := look(folder))]
        if len(layouts) > 1:
            raise LayoutError(
                f"several data sets lie in {root}",
                came=" and ".join(layout.parts[0].images.relative_to(root).parts[0] for layout in layouts),
                expected="the folder of one",
                do=help_text,
            )
        if layouts:
            return layouts[0]
    raise LayoutError(f"no {what} under {root}", expected=expected, do=help_text)


def lvit(folder: Path, pattern: re.Pattern[str], help_text: str) -> Layout | None:
    """LViT's layout in this very folder, ``None`` where it has none of its parts.

    ``pattern`` is that of a caption table's name in lower case, with the part's name as its first group. A table or
    pictures that are missing, or two tables that could be the one of a part, are a `LayoutError`.
    """
    parts = []
    for name in PARTS:
        part = inside(folder, f"{name}_folder")
        if part is None:
            continue
        images, masks = inside(part, "img"), inside(part, "labelcol")
        if images is None or masks is None:
            raise LayoutError(f"{part} lacks its pictures", expected="the folders img and labelcol", do=help_text)
        found = tables(part.iterdir(), pattern, part)
        parts.append(Part(name=name, table=only(found, name, part, help_text), images=images, masks=masks))
    return Layout(name="LViT", root=folder, parts=tuple(parts)) if parts else None


def tables(paths: Iterable[Path], pattern: re.Pattern[str], where: Path) -> dict[PartName, Path]:
    """Caption tables by the part in their names; two that could be that of one part are a `LayoutError`."""
    found: dict[PartName, Path] = {}
    for path in sorted(set(paths)):
        match = pattern.fullmatch(path.name.casefold())
        if match is None or not path.is_file():
            continue
        name = next(known for known in PARTS if known == match[1])
        if name in found:
            raise LayoutError(
                f"two caption tables could be that of {name} in {where}",
                came=f"{found[name].name} and {path.name}",
                expected="one",
                do="Move the other one away.",
            )
        found[name] = path
    return found


def only(found: dict[PartName, Path], name: PartName, where: Path, help_text: str) -> Path:
    """The table of a part; that there is none is a `LayoutError`."""
    if name not in found:
        raise LayoutError(f"no caption table of {name} in {where}", expected="a csv or xlsx file", do=help_text)
    return found[name]


def inside(folder: Path, name: str) -> Path | None:
    """The folder of that name, given in lower case, whatever its case; the first of several by name."""
    return next((path for path in folders(folder) if path.name.casefold() == name), None)


def folders(folder: Path) -> list[Path]:
    """Folders inside a folder, sorted, without hidden ones; none where it is not there."""
    paths = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in paths if path.is_dir() and not path.name.startswith("."))
