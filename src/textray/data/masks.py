"""Masks as annotators export them: pictures of labels, NIfTI slices, DICOM SEG, and COCO, LabelMe and CVAT files.

A file is known by its content. It holds labels: grey levels (``"1"``), colours (``"#ff0000"``) or names
(``"opacity"``). Which of them are lesions is decided for a whole data set, never file by file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from textray.errors import DataError, InputError, UsageError
from textray.io import raster
from textray.io.files import IMAGE_SUFFIXES, regular
from textray.io.outlines import fill
from textray.io.read import detect, inspect_mask

Mask = NDArray[np.bool_]
Shape = tuple[int, int]

SOFT = "grey levels"
"""The only label of a mask whose levels are no labels, such as a JPEG: pixels above half of the range."""
MOST_LABELS = 32
"""Levels or colours of a file from which on they are shades, not labels."""
_LARGEST = 2**28
_NIFTI_SUFFIXES = (".nii", ".nii.gz")
_SEG = "1.2.840.10008.5.1.4.1.1.66.4"
_MOST_CORNERS = 10**6


@dataclass(frozen=True, kw_only=True, eq=False)
class Labels:
    """What a file says of one film.

    Attributes:
        kind: ``png``, ``jpeg``, ``tiff``, ``bmp``, ``jpeg2000``, ``nifti``, ``seg``, ``coco``, ``labelme`` or ``cvat``.
        names: Labels that are drawn, in order; background is none.
        draw: Pixels with one of the labels, ``(H, W)``; it may refuse a size as a `DataError`.
        shape: Height and width, ``None`` where the file does not say.
        notices: Codes ``W_...`` and words about the file.
        films: SOP Instance UIDs of the films that a DICOM SEG is of.
    """

    kind: str
    names: tuple[str, ...]
    draw: Callable[[Collection[str]], Mask] = field(repr=False)
    shape: Shape | None
    notices: tuple[tuple[str, str], ...] = ()
    films: tuple[str, ...] = ()

    @property
    def drawn_by_name(self) -> bool:
        """True where labels are words, not levels of pixels."""
        return self.kind in ("seg", "coco", "labelme", "cvat")


def read_labels(path: Path, film: Path) -> Labels | None:
    """Read what a file says of the film ``film``; ``None`` where it is an export in which that film does not occur.

    Raises:
        InputError: If the file cannot be read, or is none of these.
        UsageError: If it needs a package that is not installed.
    """
    head = _head(path)
    if path.name.lower().endswith(_NIFTI_SUFFIXES):
        return _nifti(path)
    kind = detect(head)
    if kind in raster.KINDS:
        return _raster(path, kind)
    if kind == "dicom":
        return _seg(path)
    if (films := _export(path)) is not None:
        return films.find(film)
    raise InputError(
        "the file is no mask that TextRay reads",
        came=kind,
        expected="PNG, TIFF, BMP, JPEG, NIfTI, DICOM SEG, or an export of COCO, LabelMe or CVAT",
        do="Export the mask as PNG, 0 outside of lesions and 255 inside",
    )


def draw_labels(path: Path, film: Path, names: Collection[str]) -> Mask:
    """Pixels of a film, ``(H, W)`` bool, that have one of the labels in its file; refused as by `read_labels`."""
    found = read_labels(path, film)
    if found is None:
        raise DataError(f"the annotations do not hold {film.name}", expected="the film among theirs")
    return found.draw(names)


def films_of(path: Path) -> list[str] | None:
    """Names of the films in an export of many (COCO, CVAT); ``None`` for a file of one film, or another kind.

    Raises:
        InputError: If it is a damaged export.
    """
    if not re.match(rb"\s*(\xef\xbb\xbf)?\s*[{\[<]", _head(path)):
        return None
    found = _export(path)
    return None if found is None or found.kind == "labelme" else list(found.names)


def _head(path: Path) -> bytes:
    try:
        regular(path, _LARGEST)
        with path.open("rb") as stream:
            return stream.read(1024)
    except OSError as error:
        raise InputError("the mask cannot be read", came=error.strerror, code="E_READ") from error


# Pictures, and arrays of levels.


def _raster(path: Path, kind: str) -> Labels:
    """Labels of a picture: its levels or colours, unless they are shades."""
    picture = raster.decode(path.read_bytes(), whole_film=False)
    levels = picture.levels
    if levels.ndim == 3 and (levels == levels[..., :1]).all():
        levels = levels[..., 0]
    notices = []
    if kind in ("jpeg", "jpeg2000"):
        notices.append(("W_MASK_JPEG", "is a JPEG, whose levels are not exact; those above half of the range count"))
        return _soft(path, kind, levels.shape[:2], notices)
    colour = levels.ndim == 3
    if colour:
        planes = levels.astype(np.uint32)
        levels = planes[..., 0] << 16 | planes[..., 1] << 8 | planes[..., 2]
    if picture.opacity is not None:
        levels = np.where(picture.opacity > 127, levels, 0)
    return _levels(path, kind, levels, "#{:06x}" if colour else "{}", notices)


def _levels(path: Path, kind: str, levels: NDArray[Any], form: str, notices: list[tuple[str, str]]) -> Labels:
    values = np.unique(levels)
    if len(values) > MOST_LABELS:
        if form != "{}":
            raise DataError(
                "the mask is a picture in colour, no mask",
                came=f"{len(values)} colours",
                expected="one colour for each label",
                do="Export the labels, not an overlay of the film",
            )
        notices.append(("W_MASK_VALUES", f"has {len(values)} grey levels; those above half of the range count"))
        return _soft(path, kind, levels.shape, notices)
    by_name = {form.format(int(value)): value for value in values if value != 0}

    def draw(names: Collection[str]) -> Mask:
        return np.isin(levels, [value for name, value in by_name.items() if name in names])

    return Labels(kind=kind, names=tuple(by_name), draw=draw, shape=levels.shape[:2], notices=tuple(notices))


def _soft(path: Path, kind: str, shape: Shape, notices: list[tuple[str, str]]) -> Labels:
    mask = inspect_mask(path).mask
    return Labels(kind=kind, names=(SOFT,) * bool(mask.any()), draw=lambda _: mask, shape=shape, notices=tuple(notices))


def _nifti(path: Path) -> Labels:
    """One slice: its first axis is the picture's columns, its second one the rows, as ITK writes pictures."""
    try:
        import nibabel
    except ImportError as error:
        raise UsageError(
            f"{path.name} needs the package nibabel, which is not installed", do="pip install 'textray[nifti]'"
        ) from error
    try:
        volume: Any = nibabel.load(path)
        values, affine = np.asanyarray(volume.dataobj), np.asarray(volume.affine)[:2, :2]
    except Exception as error:  # of any kind, for any bytes
        raise InputError("the NIfTI file is damaged", came=type(error).__name__, code="E_TRUNCATED") from error
    values = values.reshape(values.shape + (1,) * (2 - values.ndim))
    if values.ndim < 2 or max(values.shape[2:], default=1) > 1:
        raise DataError("the NIfTI mask is no slice", came=values.shape, expected="one slice", do="Export one slice")
    if abs(affine[0, 1]) + abs(affine[1, 0]) > abs(affine[0, 0]) + abs(affine[1, 1]):
        raise DataError(
            "the axes of the NIfTI mask are not those of a picture",
            expected="columns first, then rows",
            do="Export the mask as PNG",
        )
    levels = values.reshape(values.shape[:2]).T
    if not (np.isfinite(levels).all() and (levels == np.rint(levels)).all() and levels.min() >= 0):
        raise DataError("the NIfTI mask has values that are no labels", expected="whole numbers from 0 on")
    notices = []
    if not (affine[0, 0] < 0 and affine[1, 1] < 0):
        words = "does not say that it lies as ITK writes pictures; its first axis is taken as columns from the left"
        notices.append(("W_MASK_ORIENTATION", f"{words}, its second one as rows from the top"))
    return _levels(path, "nifti", levels.astype(np.int64), "{}", notices)


def _seg(path: Path) -> Labels:
    """A DICOM Segmentation of one film: a frame for each segment, or a map of labels."""
    import pydicom

    try:
        ds = pydicom.dcmread(path)
        if ds.SOPClassUID != _SEG:
            raise DataError(
                "the DICOM mask is no Segmentation", came=ds.SOPClassUID.name, expected="a Segmentation (SEG)"
            )
        pixels = ds.pixel_array
        frames = pixels if pixels.ndim == 3 else pixels[None]
        segments = {int(item.SegmentNumber): str(item.SegmentLabel) for item in ds.SegmentSequence}
        numbers = [
            int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
            for group in ds.get("PerFrameFunctionalGroupsSequence", ())
            if "SegmentIdentificationSequence" in group
        ] or list(segments)
        full = float(ds.get("MaximumFractionalValue", 1)) if ds.SegmentationType == "FRACTIONAL" else 1.0
        series = ds.get("ReferencedSeriesSequence", ())
        films = tuple(str(item.ReferencedSOPInstanceUID) for one in series for item in one.ReferencedInstanceSequence)
    except InputError:
        raise
    except Exception as error:  # of any kind, for any bytes
        raise InputError("the DICOM Segmentation is damaged", came=type(error).__name__, code="E_TRUNCATED") from error
    shape = frames.shape[1:]
    if ds.SegmentationType == "LABELMAP":
        if len(frames) != 1:
            raise _several_frames(len(frames))
        found = _levels(path, "seg", frames[0].astype(np.int64), "{}", [])
        planes = {segments.get(int(name), name): found.draw([name]) for name in found.names}
    else:
        if len(numbers) != len(frames) or len(set(numbers)) < len(numbers):
            raise _several_frames(len(frames))
        planes = {segments.get(n, str(n)): frame >= full / 2 for n, frame in zip(numbers, frames, strict=True)}
    return Labels(
        kind="seg", names=tuple(planes), draw=partial(_joined, planes, (shape[0], shape[1])),
        shape=(shape[0], shape[1]), films=films,
    )  # fmt: skip


def _several_frames(count: int) -> DataError:
    return DataError(
        "the DICOM Segmentation is not of one film", came=f"{count} frames", expected="one frame for each segment"
    )


def _joined(planes: Mapping[str, Mask], shape: Shape, names: Collection[str]) -> Mask:
    mask = np.zeros(shape, np.bool_)
    for name, plane in planes.items():
        if name in names:
            mask |= plane
    return mask


# Exports of annotation tools.


@dataclass(frozen=True, kw_only=True, eq=False)
class _Export:
    """An export of a tool: what it draws in each film, by the film's name."""

    kind: str
    films: Mapping[str, tuple[Shape | None, tuple[tuple[str, Callable[[Shape], Mask]], ...]]]

    @property
    def names(self) -> Iterable[str]:
        return self.films

    def find(self, film: Path) -> Labels | None:
        """What it draws in a film, found by as much of its path as it names, else by its name without suffix."""
        if self.kind == "labelme":
            (entry,) = self.films.values()
        else:
            parts = film.as_posix().casefold()
            keys = {name.casefold(): name for name in self.films}
            hits = [name for key, name in keys.items() if f"/{parts}".endswith(f"/{key}")]
            hits = hits or [name for key, name in keys.items() if _stem(key) == _stem(film.name.casefold())]
            if len(hits) > 1:
                raise DataError(
                    "the export has several films of that name", came=len(hits), do="Export the films' folders too"
                )
            if not hits:
                return None
            entry = self.films[hits[0]]
        shape, shapes = entry

        def draw(names: Collection[str]) -> Mask:
            if shape is None:
                raise DataError("the export does not give the film's size", expected="its width and height")
            mask = np.zeros(shape, np.bool_)
            for label, one in shapes:
                if label in names:
                    mask |= one(shape)
            return mask

        names = tuple(dict.fromkeys(label for label, _ in shapes))
        return Labels(kind=self.kind, names=names, draw=draw, shape=shape)


def _stem(name: str) -> str:
    name = PurePosixPath(PureWindowsPath(name).as_posix()).name
    suffix = PurePosixPath(name).suffix
    return name.removesuffix(suffix) if suffix in IMAGE_SUFFIXES else name


def _export(path: Path) -> _Export | None:
    try:
        status = path.stat()
        return _parse(path, status.st_size, status.st_mtime_ns)
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        RecursionError,
        ElementTree.ParseError,
    ) as error:
        raise InputError(
            "the annotations are damaged",
            came=type(error).__name__,
            expected="an export of COCO, LabelMe or CVAT",
            do="Export them again",
            code="E_ANNOTATIONS",
        ) from error


@lru_cache(maxsize=4)
def _parse(path: Path, size: int, changed: int) -> _Export | None:
    data = path.read_bytes()
    if data.lstrip()[:1] == b"<" or data[:4] == b"\xef\xbb\xbf<":
        root = ElementTree.fromstring(data)
        return _cvat(root) if root.tag == "annotations" else None
    if data.lstrip().removeprefix(b"\xef\xbb\xbf")[:1] != b"{":
        return None
    values = json.loads(data.decode("utf-8-sig"))
    if "annotations" in values and "images" in values:
        return _coco(values)
    return _labelme(values) if "shapes" in values else None


def _coco(values: Mapping[str, Any]) -> _Export:
    categories = {item["id"]: str(item["name"]) for item in values.get("categories", ())}
    shapes: dict[Any, list[tuple[str, Callable[[Shape], Mask]]]] = {item["id"]: [] for item in values["images"]}
    for item in values["annotations"]:
        label = categories.get(item["category_id"], str(item["category_id"]))
        shapes[item["image_id"]].append((label, _coco_shape(item)))
    films = {
        PureWindowsPath(str(item["file_name"])).as_posix(): (
            (int(item["height"]), int(item["width"])),
            tuple(shapes[item["id"]]),
        )
        for item in values["images"]
    }
    if len(films) < len(values["images"]):
        raise DataError("the annotations name a film twice", do="Export each film once", code="E_ANNOTATIONS")
    return _Export(kind="coco", films=films)


def _coco_shape(item: Mapping[str, Any]) -> Callable[[Shape], Mask]:
    drawn = item.get("segmentation")
    if isinstance(drawn, Mapping):
        counts = drawn["counts"]
        runs = _unpacked(counts) if isinstance(counts, str) else [int(count) for count in counts]
        height, width = map(int, drawn["size"])
        return partial(_from_runs, runs, (height, width))
    if not drawn:
        raise DataError(
            "an annotation has a box, but no outline",
            expected="polygons or masks",
            do="Export segmentations, not boxes",
            code="E_ANNOTATIONS",
        )
    return partial(_filled, [np.asarray(ring, np.float64).reshape(-1, 2) for ring in drawn])


def _unpacked(text: str) -> list[int]:
    """Lengths of runs out of COCO's text: six bits a character, differences from the one before last."""
    counts: list[int] = []
    value, bits = 0, 0
    for character in text:
        code = ord(character) - 48
        value |= (code & 31) << bits
        bits += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << bits
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value, bits = 0, 0
    return counts


def _from_runs(runs: list[int], size: Shape, shape: Shape) -> Mask:
    """Runs of background and foreground down the columns, as COCO counts them."""
    if size != shape or min(runs, default=0) < 0 or sum(runs) != shape[0] * shape[1]:
        raise DataError("a mask of the annotations has another size than its film", came=size, expected=shape)
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(flat.reshape(shape[::-1]).T)


def _filled(rings: list[NDArray[np.float64]], shape: Shape) -> Mask:
    mask = np.zeros(shape, np.bool_)
    for ring in rings:
        if len(ring) < 3 or len(ring) > _MOST_CORNERS or not np.isfinite(ring).all():
            raise DataError("an outline of the annotations is no polygon", came=f"{len(ring)} corners", expected="3")
        mask |= fill(ring, shape)
    return mask


def _labelme(values: Mapping[str, Any]) -> _Export:
    shapes = []
    for item in values["shapes"]:
        points, kind = np.asarray(item["points"], np.float64).reshape(-1, 2), item.get("shape_type") or "polygon"
        if kind == "rectangle" and len(points) == 2:
            ring = _box(*points[0], *points[1])
        elif kind == "circle" and len(points) == 2:
            ring = _ellipse(*points[0], *[float(np.hypot(*(points[1] - points[0])))] * 2)
        elif kind == "polygon":
            ring = points
        else:
            raise _unknown_shape(kind)
        shapes.append((str(item["label"]), partial(_filled, [ring])))
    height, width = values.get("imageHeight"), values.get("imageWidth")
    size = None if height is None or width is None else (int(height), int(width))
    return _Export(kind="labelme", films={str(values.get("imagePath") or ""): (size, tuple(shapes))})


def _cvat(root: ElementTree.Element) -> _Export:
    films = {}
    for image in root.iter("image"):
        shapes = []
        for item in image:
            if item.tag in ("tag",):
                continue
            if float(item.get("rotation") or 0) != 0:
                raise _unknown_shape(f"rotated {item.tag}")
            shapes.append((str(item.attrib["label"]), _cvat_shape(item)))
        size = int(image.attrib["height"]), int(image.attrib["width"])
        films[PureWindowsPath(image.attrib["name"]).as_posix()] = (size, tuple(shapes))
    return _Export(kind="cvat", films=films)


def _cvat_shape(item: ElementTree.Element) -> Callable[[Shape], Mask]:
    at = item.attrib
    if item.tag == "polygon":
        points = [[float(value) for value in pair.split(",")] for pair in at["points"].split(";")]
        return partial(_filled, [np.asarray(points).reshape(-1, 2)])
    if item.tag == "box":
        return partial(_filled, [_box(*(float(at[name]) for name in ("xtl", "ytl", "xbr", "ybr")))])
    if item.tag == "ellipse":
        return partial(_filled, [_ellipse(*(float(at[name]) for name in ("cx", "cy", "rx", "ry")))])
    if item.tag == "mask":
        runs = [int(value) for value in at["rle"].split(",")]
        left, top, width, height = (int(at[name]) for name in ("left", "top", "width", "height"))
        return partial(_pasted, runs, (left, top, width, height))
    raise _unknown_shape(item.tag)


def _pasted(runs: list[int], box: tuple[int, int, int, int], shape: Shape) -> Mask:
    """A mask of CVAT: runs along the rows of a box."""
    left, top, width, height = box
    if left < 0 or top < 0 or left + width > shape[1] or top + height > shape[0] or sum(runs) != width * height:
        raise DataError("a mask of the annotations lies outside of its film", came=(height, width), expected=shape)
    mask = np.zeros(shape, np.bool_)
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    mask[top : top + height, left : left + width] = flat.reshape(height, width)
    return mask


def _unknown_shape(kind: str) -> DataError:
    return DataError(
        "the annotations have a shape that is no area",
        came=kind,
        expected="polygons, boxes, circles or masks",
        do="Draw it as a polygon",
        code="E_ANNOTATIONS",
    )


def _box(x: float, y: float, right: float, bottom: float) -> NDArray[np.float64]:
    return np.array([(x, y), (right, y), (right, bottom), (x, bottom)], np.float64)


def _ellipse(x: float, y: float, across: float, down: float) -> NDArray[np.float64]:
    turn = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    return np.stack([x + across * np.cos(turn), y + down * np.sin(turn)], axis=1)
