"""Conversion of a picture to the input of a network, and of a map back to the picture's grid.

Training and the ONNX runtime share this implementation, and a bundle carries its settings as ``preprocess.json``. A
`Preprocess` holds no state about a picture: the way back needs only the picture's `Grid`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image as PILImage

from textray.errors import BundleError, InputError, ShapeError, UsageError
from textray.io.levels import in_pillow, stacked, strips
from textray.io.raster import is_grey
from textray.io.read import Source, from_array, not_a_film, read
from textray.records import Grid, Image, Pixels

Normalise = Literal["percentile", "zscore", "unit", "imagenet"]
Interpolation = Literal["bilinear", "bicubic"]

PERCENTILES = (0.5, 99.5)
"""Grey levels that ``percentile`` maps to -2 and 2; levels outside are clipped."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_OPTIONAL = frozenset(("colour", "hounsfield"))  # keys that a bundle without them does not have
_CUBIC = -0.75  # slope of the cubic kernel at distance 1, as in torch (Pillow's and OpenCV's differ)
_FLAT = 1e-6  # below this contrast a division would only amplify rounding noise


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """Resizing and normalisation of a picture, and the way of a map back to its grid.

    Attributes:
        size: Height and width of the network's input, in pixels.
        normalise: ``percentile``: clip to the picture's 0.5th and 99.5th percentile and map these to -2 and 2;
            ``zscore``: subtract the mean and divide by the standard deviation of the picture, per channel;
            ``unit``: leave [0, 1]; ``imagenet``: subtract and divide by ImageNet's channel statistics.
        channels: 1, or 3 where a grey picture is repeated.
        letterbox: Keep the aspect ratio and pad with black, centred, instead of stretching to ``size``. The padding
            counts in the statistics of ``normalise``, in training and in use alike.
        transpose: Swap rows and columns on the way in, and back on the way out, for networks of the authors' released
            codes, whose reader gives the width first. ``size`` is that of the swapped picture.
        interpolation: ``bilinear``, with antialiasing where it shrinks; or ``bicubic`` without antialiasing, as in
            torch, which may overshoot [0, 1]. Masks use nearest neighbour, and maps come back bilinear, always.
        colour: True for networks of colour pictures, RGB, which are `read` and normalised in colour (``percentile`` by
            the levels of all channels together); grey ones are refused then, and coloured ones otherwise.
        hounsfield: The window in HU that [0, 1] stands for, of networks that know slices of CT; ``None`` for all
            others, which refuse CT.
    """

    size: tuple[int, int]
    normalise: Normalise = "percentile"
    channels: int = 3
    letterbox: bool = False
    transpose: bool = False
    interpolation: Interpolation = "bilinear"
    colour: bool = False
    hounsfield: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if len(self.size) != 2 or not all(isinstance(n, int) and n > 0 for n in self.size):
            raise UsageError("preprocess size is wrong", came=self.size, expected="height and width, positive integers")
        for kind, value, known in (
            ("normalisation", self.normalise, get_args(Normalise)),
            ("interpolation", self.interpolation, get_args(Interpolation)),
        ):
            if value not in known:
                raise UsageError(f"unknown {kind}", came=repr(value), expected=", ".join(known))
        if self.channels not in (1, 3):
            raise UsageError("number of channels is wrong", came=self.channels, expected="1 or 3")
        if self.colour and self.channels != 3:
            raise UsageError("colour pictures have three channels", came=self.channels, expected=3)
        if (window := self.hounsfield) is not None and not (
            len(window) == 2 and all(map(math.isfinite, window)) and window[0] < window[1]
        ):
            raise UsageError(
                "the window in HU is wrong", came=window, expected="two rising numbers, such as -1000, 400"
            )
        if self.normalise == "imagenet" and self.channels != 3:
            raise UsageError("imagenet normalisation is defined for three channels", came=self.channels, expected=3)

    def read(self, source: Source) -> Image:
        """Read a picture; it must be in colour if and only if the network reads colour.

        Raises:
            InputError: If the file is refused, see `textray.io.read.read`; or as in `check`.
        """
        image = read(source, color=self.colour)
        self.check(image)
        return image

    def from_array(self, array: ArrayLike) -> Image:
        """Take a picture from an array ``(H, W)`` or, in colour, ``(H, W, 3)``; else as `read`."""
        image = from_array(array, color=self.colour)
        self.check(image)
        return image

    def check(self, image: Image) -> None:
        """Refuse a picture of another kind than the network knows: grey or colour, film or CT.

        Pictures that are no DICOM do not tell whether they are of a CT.

        Raises:
            InputError: ``E_COLOR``; ``E_NOT_A_FILM`` for a CT, ``E_NOT_A_CT`` for a DICOM film.
        """
        if self.hounsfield is None and image.info.get("modality") == "CT":
            raise not_a_film("a slice of a CT")
        if self.hounsfield is not None and image.info.get("format") == "dicom":
            raise InputError(
                "these weights know slices of CT in Hounsfield units only",
                came=f"a single picture of modality {image.info.get('modality') or 'unknown'}",
                expected="a CT series or a NIfTI volume",
                do="Use weights for chest films; give a CT as the folder of its slices",
                code="E_NOT_A_CT",
            )
        coloured = len(image.film.shape) == 3
        if coloured and not self.colour:
            raise InputError(
                "the picture is coloured",
                came=f"{image.film.shape[2]} different channels",
                expected="a grey chest film",
                do="Give the film itself, not a screenshot or a photo of it",
                code="E_COLOR",
            )
        if self.colour and (not coloured or is_grey(image.pixels)):
            raise InputError(
                "the picture is grey",
                came="equal channels" if coloured else "one channel",
                expected="a picture in colour, such as one of stained tissue",
                do="Use weights for chest films",
                code="E_COLOR",
            )

    def box(self, shape: tuple[int, int]) -> tuple[int, int, int, int]:
        """Rectangle of the network's input that a picture of ``shape`` fills: top, left, height, width.

        With ``transpose`` the rectangle lies in the swapped picture; ``shape`` is that of the file.
        """
        shape = shape[::-1] if self.transpose else shape
        if not self.letterbox:
            return 0, 0, *self.size
        scale = min(self.size[0] / shape[0], self.size[1] / shape[1])
        height = min(self.size[0], max(1, round(shape[0] * scale)))
        width = min(self.size[1], max(1, round(shape[1] * scale)))
        return (self.size[0] - height) // 2, (self.size[1] - width) // 2, height, width

    def resize(self, pixels: Pixels) -> NDArray[np.float32]:
        """Bring pixels, ``(H, W)`` or ``(H, W, 3)`` in [0, 1], to ``size``, swapped with ``transpose``.

        The result is in [0, 1] if bilinear, in [-0.45, 1.45] if bicubic.
        """
        if len(pixels.shape) == 3:
            return np.stack([self.resize(pixels[..., c]) for c in range(pixels.shape[2])], axis=-1)
        _two_axes(pixels.shape, "pixels")
        top, left, height, width = self.box((pixels.shape[0], pixels.shape[1]))
        pixels = pixels.T if self.transpose else pixels
        if self.interpolation == "bicubic":
            content = _bicubic(pixels, (height, width))
        else:
            content = np.clip(_bilinear(pixels, (height, width)), 0.0, 1.0)
        if (height, width) == self.size:
            return content
        frame = np.zeros(self.size, np.float32)
        frame[top : top + height, left : left + width] = content
        return frame

    def resize_mask(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Bring a mask ``(H, W)`` bool to ``size`` by nearest neighbour, swapped like pixels; padding is false."""
        _two_axes(mask.shape, "mask")
        top, left, height, width = self.box((mask.shape[0], mask.shape[1]))
        picture = PILImage.fromarray(np.ascontiguousarray(mask.T if self.transpose else mask, dtype=np.uint8))
        frame = np.zeros(self.size, np.bool_)
        content = picture.resize((width, height), PILImage.Resampling.NEAREST)
        frame[top : top + height, left : left + width] = np.asarray(content) > 0
        return frame

    def normalise_pixels(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turn resized pixels, ``(h, w)`` or ``(h, w, 3)`` in [0, 1], into the network's input, ``(C, h, w)`` float32.

        A picture without contrast gives zeros under ``percentile`` and ``zscore``.
        """
        if pixels.ndim == 3 and pixels.shape[2] != self.channels:
            raise ShapeError(
                "colour pixels do not fit the network", came=pixels.shape, expected=f"(h, w, {self.channels})"
            )
        planes = np.moveaxis(pixels, -1, 0) if pixels.ndim == 3 else pixels[None]
        planes = self._scale(planes.astype(np.float32, copy=False))
        planes = np.broadcast_to(planes, (self.channels, *planes.shape[1:]))
        if self.normalise == "imagenet":
            mean, std = (np.asarray(v, np.float32)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
            planes = (planes - mean) / std
        return np.ascontiguousarray(planes, dtype=np.float32)

    def _scale(self, planes: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.normalise == "percentile":
            low, high = (np.float32(v) for v in np.percentile(planes, PERCENTILES))
            if high - low < _FLAT:
                return np.zeros_like(planes)
            return (np.clip(planes, low, high) - low) / (high - low) * np.float32(4) - np.float32(2)
        if self.normalise == "zscore":
            mean, std = planes.mean(axis=(1, 2), keepdims=True), planes.std(axis=(1, 2), keepdims=True)
            return np.where(std < _FLAT, np.float32(0), (planes - mean) / np.maximum(std, _FLAT))
        return planes

    def apply(self, image: Image) -> NDArray[np.float32]:
        """Resize and normalise a picture: ``(C, h, w)`` float32."""
        return self.normalise_pixels(self.resize(image.film))

    def restore(self, values: NDArray[np.float32], grid: Grid) -> NDArray[np.float32]:
        """Bring a map ``(h, w)`` of the network, swapped like its input, back to the grid of its file.

        The result is ``(H, W)`` float32, bilinear, never outside the range of ``values``.
        """
        return stacked(self.restore_strips(values, grid), grid.height)

    def restore_strips(self, values: NDArray[np.float32], grid: Grid) -> Iterator[NDArray[np.float32]]:
        """Some rows of `restore` after the other."""
        if values.shape != self.size:
            raise ShapeError("map does not have the network's size", came=values.shape, expected=self.size)
        top, left, height, width = self.box(grid.shape)
        content = values[top : top + height, left : left + width]
        content = content.T if self.transpose else content
        low, high = content.min(), content.max()
        for restored in _bilinear_strips(content, grid.shape):
            yield np.clip(restored, low, high, out=restored)

    def restore_coarse(self, values: NDArray[np.float32], grid: Grid) -> NDArray[np.float32]:
        """Bring a map ``(h', w')`` of any size that covers the network's input back to the grid of the file."""
        return self.restore(self.at_size(values), grid)

    def at_size(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """A map ``(h', w')`` of any size that covers the network's input at the size of that."""
        return values if values.shape == self.size else _bilinear(values, self.size)

    def to_dict(self) -> dict[str, Any]:
        """Content of a bundle's ``preprocess.json``; ``colour`` and ``hounsfield`` only where they are set."""
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return {key: value for key, value in values.items() if value or key not in _OPTIONAL}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocess:
        """Build from the result of `to_dict`.

        Raises:
            BundleError: If a key is missing, unknown, or holds a wrong value.
        """
        keys = [one.name for one in fields(cls) if one.name not in _OPTIONAL]
        if set(values) - _OPTIONAL != set(keys):
            raise BundleError("preprocess settings have other keys", came=sorted(values), expected=", ".join(keys))
        switches = (values["letterbox"], values["transpose"], values.get("colour", False))
        pairs = {key: values[key] for key in ("size", "hounsfield") if key in values}
        whole = all(
            isinstance(pair, list | tuple) and all(type(n) in (int, float) for n in pair) for pair in pairs.values()
        )
        if not whole or not all(isinstance(switch, bool) for switch in switches):
            raise BundleError(
                "preprocess settings are wrong",
                came=dict(values),
                expected="a size [h, w], a window [low, high]; letterbox, transpose and colour true or false",
            )
        try:
            return cls(**{**values, **{key: tuple(pair) for key, pair in pairs.items()}})
        except UsageError as error:
            raise BundleError(f"preprocess settings are wrong: {error}") from error


def _bilinear(values: Pixels, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Resize ``(H, W)`` to ``shape`` as Pillow does."""
    return stacked(_bilinear_strips(values, shape), shape[0])


def _bilinear_strips(values: Pixels, shape: tuple[int, int]) -> Iterator[NDArray[np.float32]]:
    """Some rows of `_bilinear` after the other, or all where none are added."""
    picture = in_pillow("F", values.shape, (np.asarray(values[rows], np.float32) for rows in strips(values.shape)))
    rows = min(shape[0], values.shape[0])
    resized = np.array(picture.resize((shape[1], rows), PILImage.Resampling.BILINEAR), dtype=np.float32)
    yield from [resized] if rows == shape[0] else _with_more_rows(resized, shape[0])


def _with_more_rows(values: NDArray[np.float32], count: int) -> Iterator[NDArray[np.float32]]:
    """Interpolate rows as the second pass of Pillow's bilinear filter does, to the bit: sums in double precision."""
    height = len(values)
    centre = (np.arange(count) + 0.5) * (height / count)
    first = np.maximum((centre - 0.5).astype(np.int64), 0)
    last = np.minimum((centre + 1.5).astype(np.int64), height) - 1
    taps = [np.minimum(first + tap, last) for tap in range(3)]
    weights = [
        np.where(first + tap > last, 0, np.maximum(1 - np.abs(first + tap - centre + 0.5), 0)) for tap in range(3)
    ]
    total = weights[0] + weights[1] + weights[2]
    for part in strips((count, values.shape[1])):
        pairs = zip(taps, weights, strict=True)
        rows = sum(values[at[part]] * (weight[part] / total[part])[:, None] for at, weight in pairs)
        yield np.asarray(rows, np.float32)


def _bicubic(values: Pixels, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Resize ``(H, W)`` to ``shape`` by cubic convolution, half-pixel centres, edges repeated, no antialiasing."""
    if values.shape == shape:
        return np.array(values[:], np.float32)
    rows = _cubic_taps(values.shape[0], shape[0])
    columns = _cubic_taps(values.shape[1], shape[1])
    across = sum(weight * values[:, place] for place, weight in zip(*columns, strict=True))
    down = sum(weight[:, None] * np.asarray(across)[place] for place, weight in zip(*rows, strict=True))
    return np.asarray(down, np.float32)


def _cubic_taps(length: int, wanted: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Places and weights, ``(4, wanted)`` each, of the four neighbours of each resized pixel."""
    # single precision, like torch, whose rounding of the centres is visible on large films
    centre = (np.arange(wanted, dtype=np.float32) + np.float32(0.5)) * np.float32(length / wanted) - np.float32(0.5)
    first = np.floor(centre)
    t = centre - first
    near = [((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1 for x in (t, 1 - t)]
    far = [((_CUBIC * x - 5 * _CUBIC) * x + 8 * _CUBIC) * x - 4 * _CUBIC for x in (t + 1, 2 - t)]
    places = np.clip(first.astype(np.int64) + np.arange(-1, 3)[:, None], 0, length - 1)
    return places, np.stack([far[0], *near, far[1]]).astype(np.float32)


def _two_axes(shape: tuple[int, ...], name: str) -> None:
    if len(shape) != 2 or 0 in shape:
        raise ShapeError(f"{name} must have rows and columns", came=shape, expected="(H, W)")
