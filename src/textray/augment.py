"""Random changes for training, made to image, mask and report together.

Geometry is one affine warp, interpolated once, the same for image and mask. A horizontal flip swaps the report's zones
and rewrites its sentence; nothing else swaps sides: there is no vertical flip and no rotation by a right angle. Zoom,
crop, shift and borders may push a lesion out of the picture; the mask then loses it but the report stays, which is
noise to a network that learns zones from it. Erased rectangles hide pixels only: mask and report stay.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from textray.errors import ShapeError, UsageError, unknown_name
from textray.records import Laterality, Report, Zones
from textray.text.cleaning import swap_sides
from textray.text.zones import sentence

Preset = Literal["none", "paper", "flips", "light", "strong", "hospitals", "sgseg"]

Pixels = NDArray[np.float32]
Mask = NDArray[np.bool_]
Plane = NDArray[np.float32]
Box = tuple[int, int, int, int]
"""Top, bottom, left, right in pixels; bottom and right are the first that are outside."""
Affine = tuple[float, float, float, float, float, float]
"""``a, b, c, d, e, f``: the point (x, y) of the result comes from (ax + by + c, dx + ey + f)."""

_LARGEST_TURN = 45.0  # beyond it left and right would no longer be sides


class Geometry(NamedTuple):
    """How pixels of a picture moved: a flip, then one affine warp, then covers; other maps can follow and return.

    A named tuple, not a dataclass: Lightning rebuilds the parts of a batch, and cannot do so with a frozen dataclass.
    """

    flipped: bool = False  # left and right were swapped first
    angle: float = 0.0  # turn in radians, clockwise as seen
    zoom: float = 1.0  # above 1 enlarges
    down: float = 0.0  # shift downwards, in pixels
    across: float = 0.0  # shift to the viewer's right, in pixels
    inside: Box | None = None  # part of the result inside black borders; maps are cleared outside it
    hidden: Box | None = None  # a rectangle of the result that was painted over; maps keep their values there

    @property
    def warped(self) -> bool:
        """True where pixels moved otherwise than by the flip."""
        return (self.angle, self.zoom, self.down, self.across) != (0.0, 1.0, 0.0, 0.0)

    def affine(self, shape: tuple[int, ...]) -> Affine:
        """The place that each point of the warped picture comes from; turn and zoom are about the centre."""
        centre_x, centre_y = shape[1] / 2, shape[0] / 2
        cos, sin = math.cos(self.angle) / self.zoom, math.sin(self.angle) / self.zoom
        from_x, from_y = centre_x + self.across, centre_y + self.down  # a point of the result, relative to this, ...
        offset_x = centre_x - cos * from_x - sin * from_y  # ... comes from this one
        offset_y = centre_y + sin * from_x - cos * from_y
        return cos, sin, offset_x, -sin, cos, offset_y

    def forward(self, plane: Plane) -> Plane:
        """Move a map ``(h, w)`` float32 as the picture was moved.

        It is interpolated linearly, and 0 where it comes from outside, and outside ``inside``.
        """
        if self.flipped:
            plane = plane[:, ::-1]
        if self.warped:
            plane = _moved(plane, plane.shape, self.affine(plane.shape))
        if self.inside is not None:
            plane = np.where(_box(plane.shape, self.inside), plane, np.float32(0))
        return np.ascontiguousarray(plane)

    def back(self, plane: Plane) -> tuple[Plane, NDArray[np.bool_]]:
        """Move a map ``(h, w)`` float32 of the changed picture back onto the original picture.

        Returned with it are the pixels, ``(h, w)`` bool, that are visible in the changed picture, neither pushed out of
        it nor covered. Elsewhere the map has no meaning.
        """
        seen = np.ones(plane.shape, np.bool_)
        if self.inside is not None:
            seen &= _box(plane.shape, self.inside)
        if self.hidden is not None:
            seen &= ~_box(plane.shape, self.hidden)
        if self.warped:
            returning = _inverse(self.affine(plane.shape))
            plane = _moved(plane, plane.shape, returning)
            seen = _moved(seen.astype(np.float32), seen.shape, returning, PILImage.Resampling.NEAREST) > 0
        if self.flipped:
            plane, seen = plane[:, ::-1], seen[:, ::-1]
        return np.ascontiguousarray(plane), np.ascontiguousarray(seen)


def _inverse(way: Affine) -> Affine:
    a, b, c, d, e, f = way
    area = a * e - b * d
    return e / area, -b / area, (b * f - c * e) / area, -d / area, a / area, (c * d - a * f) / area


def _moved(
    plane: NDArray[Any],
    shape: tuple[int, ...],
    way: Affine,
    resample: PILImage.Resampling = PILImage.Resampling.BILINEAR,
) -> NDArray[Any]:
    size = shape[1], shape[0]
    picture = PILImage.fromarray(np.ascontiguousarray(plane))
    return np.asarray(picture.transform(size, PILImage.Transform.AFFINE, way, resample=resample))


def _box(shape: tuple[int, ...], box: Box) -> NDArray[np.bool_]:
    top, bottom, left, right = box
    inside = np.zeros(shape, np.bool_)
    inside[top:bottom, left:right] = True
    return inside


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Ranges of the changes and their probabilities (``..._p``); all of them off by default."""

    geometry_p: float = 0.0  # of a warp, which then draws turn, scale and shift together
    rotate_degrees: float = 0.0  # turn, uniform in plus or minus this many degrees, at most 45
    scale: tuple[float, float] = (1.0, 1.0)  # zoom, uniform between the two; above 1 enlarges
    shift: float = 0.0  # along each axis, uniform in plus or minus this share of the side
    bicubic: bool = False  # interpolation of the image, else linear; the mask is always nearest neighbour
    fill: Literal["black", "edge"] = "black"  # from outside the picture: "edge" repeats its pixels, not the mask's

    crop_p: float = 0.0  # of a crop, which joins the warp
    crop: float = 0.0  # largest share of each side that a crop takes away
    flip_p: float = 0.0  # samples whose report cannot be flipped (`can_flip`) stay

    intensity_p: float = 0.0  # of each of the next four, drawn separately
    brightness: float = 0.0  # added, uniform in plus or minus this
    contrast: float = 0.0  # distance from the mean, changed by a factor of 1 plus or minus this
    gamma: float = 1.0  # exponent, log-uniform between its inverse and itself; 1 is off
    window: float = 0.0  # grey levels cut away at the dark and at the bright end, each up to this share of the range

    resize_p: float = 0.0  # of a loss of detail: made smaller, then as large as before
    resize: float = 1.0  # smallest size on the way, as a share of the side
    jpeg_p: float = 0.0  # of one pass through JPEG
    jpeg_quality: int = 95  # lowest quality, uniform up to 95
    blur_p: float = 0.0
    blur_pixels: float = 0.0  # largest standard deviation of the Gaussian, in pixels
    noise_p: float = 0.0
    noise: float = 0.0  # largest standard deviation of the Gaussian
    border_p: float = 0.0  # of black borders, as of collimation; the mask is cleared under them
    border: float = 0.0  # largest width as a share of the side, each of the four drawn separately
    erase_p: float = 0.0  # of a rectangle that is painted over with the picture's mean; the mask stays
    erase: float = 0.0  # its largest sides as a share of the picture's, each drawn separately

    def __post_init__(self) -> None:
        shares = ("geometry_p", "crop_p", "flip_p", "intensity_p", "resize_p", "jpeg_p", "blur_p", "noise_p")
        for name in (*shares, "border_p", "erase_p", "shift", "contrast"):
            _between(name, getattr(self, name), 0.0, 1.0)
        for name in ("crop", "window", "border", "erase"):
            _between(name, getattr(self, name), 0.0, 0.45)
        _between("rotate_degrees", self.rotate_degrees, 0.0, _LARGEST_TURN)
        _between("scale", self.scale[0], 0.1, self.scale[1])
        _between("gamma", self.gamma, 1.0, 10.0)
        _between("resize", self.resize, 0.1, 1.0)
        _between("jpeg_quality", self.jpeg_quality, 1, 95)
        for name in ("brightness", "blur_pixels", "noise"):
            _between(name, getattr(self, name), 0.0, 10.0)

    @classmethod
    def preset(cls, name: str) -> Augment:
        """Build a named recipe.

        ``none``; ``paper``: the zoom of MMI-UNet (probability 0.1, 0.95 to 1.2, bicubic); ``flips``: half of the images
        mirrored, no other change; ``light``: turn, zoom, shift, brightness and contrast; ``strong``: also flips, crops,
        gamma, window, blur, noise and borders; ``hospitals``: what makes films of different sources alike (exposure,
        borders, resizing, blur, noise, JPEG), without flips; ``sgseg``: "random crops, masks, and rotations" of SGSeg's
        paper, which gives no numbers: these are this project's.

        Raises:
            UsageError: If there is none of that name.
        """
        if name not in _PRESETS:
            raise unknown_name("augmentation preset", name, get_args(Preset))
        return _PRESETS[name]

    def __call__(
        self, pixels: Pixels, mask: Mask, report: Report, rng: np.random.Generator
    ) -> tuple[Pixels, Mask, Report]:
        """Change pixels, ``(h, w)`` float32 in [0, 1] or ``(h, w, 3)``, mask ``(h, w)`` bool, and report at random.

        Nothing is written to. ``rng`` is the only source of chance: the same state gives the same change.

        Raises:
            ShapeError: If pixels and mask differ in shape.
        """
        return self.traced(pixels, mask, report, rng)[:3]

    def traced(
        self, pixels: Pixels, mask: Mask, report: Report, rng: np.random.Generator
    ) -> tuple[Pixels, Mask, Report, Geometry]:
        """Change a sample as a call does; return also the geometry of the change."""
        if pixels.ndim not in (2, 3) or pixels.shape[:2] != mask.shape:
            raise ShapeError("pixels and mask differ", came=f"{pixels.shape} and {mask.shape}", expected="both (h, w)")
        way = Geometry()
        if _hit(rng, self.flip_p) and can_flip(report):
            pixels, mask, report = flip(pixels, mask, report)
            way = way._replace(flipped=True)
        pixels, mask, way = self._warp(pixels, mask, way, rng)
        pixels = self._intensity(pixels, rng)
        if _hit(rng, self.border_p):
            pixels, mask, way = self._borders(pixels, mask, way, rng)
        if _hit(rng, self.erase_p):
            pixels, way = self._erased(pixels, way, rng)
        pixels = np.clip(pixels, 0.0, 1.0).astype(np.float32, copy=False)
        return np.ascontiguousarray(pixels), np.ascontiguousarray(mask), report, way

    def _warp(
        self, pixels: Pixels, mask: Mask, way: Geometry, rng: np.random.Generator
    ) -> tuple[Pixels, Mask, Geometry]:
        angle, zoom, across, down = 0.0, 1.0, 0.0, 0.0
        if _hit(rng, self.geometry_p):
            angle = math.radians(rng.uniform(-self.rotate_degrees, self.rotate_degrees))
            zoom = rng.uniform(*self.scale)
            across, down = rng.uniform(-self.shift, self.shift, 2)
        if _hit(rng, self.crop_p):
            kept = 1.0 - rng.uniform(0.0, self.crop)
            zoom /= kept
            move_x, move_y = rng.uniform(-0.5, 0.5, 2) * (1.0 - kept) / kept
            across, down = across + move_x, down + move_y
        way = way._replace(angle=angle, zoom=zoom, down=down * mask.shape[0], across=across * mask.shape[1])
        if way.warped:
            pixels, mask = warp(pixels, mask, way, bicubic=self.bicubic, fill=self.fill)
        return pixels, mask, way

    def _intensity(self, pixels: Pixels, rng: np.random.Generator) -> Pixels:
        if _hit(rng, self.intensity_p * (self.contrast > 0)):
            mean = pixels.mean()
            pixels = (pixels - mean) * np.float32(1 + rng.uniform(-self.contrast, self.contrast)) + mean
        if _hit(rng, self.intensity_p * (self.brightness > 0)):
            pixels = pixels + np.float32(rng.uniform(-self.brightness, self.brightness))
        if _hit(rng, self.intensity_p * (self.window > 0)):
            low, cut = rng.uniform(0.0, self.window, 2)
            pixels = (pixels - np.float32(low)) / np.float32(1.0 - cut - low)
        if _hit(rng, self.intensity_p * (self.gamma > 1)):
            exponent = math.exp(rng.uniform(-1.0, 1.0) * math.log(self.gamma))
            pixels = np.clip(pixels, 0.0, 1.0) ** np.float32(exponent)
        if _hit(rng, self.resize_p):
            pixels = coarse(pixels, rng.uniform(self.resize, 1.0))
        if _hit(rng, self.blur_p):
            pixels = blur(pixels, rng.uniform(0.0, self.blur_pixels))
        if _hit(rng, self.noise_p):
            strength = np.float32(rng.uniform(0.0, self.noise))
            pixels = pixels + rng.standard_normal(pixels.shape, dtype=np.float32) * strength
        if _hit(rng, self.jpeg_p):
            pixels = through_jpeg(pixels, int(rng.integers(self.jpeg_quality, 96)))
        return pixels

    def _borders(
        self, pixels: Pixels, mask: Mask, way: Geometry, rng: np.random.Generator
    ) -> tuple[Pixels, Mask, Geometry]:
        height, width = mask.shape
        top, bottom = (rng.uniform(0.0, self.border, 2) * height).astype(int)
        left, right = (rng.uniform(0.0, self.border, 2) * width).astype(int)
        way = way._replace(inside=(int(top), height - int(bottom), int(left), width - int(right)))
        inside = slice(top, height - bottom), slice(left, width - right)
        dark, clear = np.zeros_like(pixels), np.zeros_like(mask)
        dark[inside], clear[inside] = pixels[inside], mask[inside]
        return dark, clear, way

    def _erased(self, pixels: Pixels, way: Geometry, rng: np.random.Generator) -> tuple[Pixels, Geometry]:
        sides = np.array(pixels.shape[:2])
        lengths = np.ceil(rng.uniform(0.0, self.erase, 2) * sides).astype(int)
        top, left = rng.integers(0, sides - lengths + 1)
        painted = pixels.copy()
        painted[top : top + lengths[0], left : left + lengths[1]] = pixels.mean()
        return painted, way._replace(hidden=(int(top), int(top + lengths[0]), int(left), int(left + lengths[1])))


def can_flip(report: Report) -> bool:
    """True where the report's sides can be swapped truthfully.

    False for words of unknown laterality, and for words that name no zone, whose sides are not understood. Free
    captions are as `textray.text.cleaning.swap_sides` reads them.
    """
    if report.laterality is Laterality.UNKNOWN:
        return False
    if report.text is None:
        return True
    if report.free:
        return swap_sides(report.text) is not None
    return bool(report.zones) or report.text.strip().lower() == sentence(Zones())


def flip(pixels: Pixels, mask: Mask, report: Report) -> tuple[Pixels, Mask, Report]:
    """Swap left and right of image, mask and report; a report with words gets the sentence of the swapped zones.

    A free caption keeps its words, with left and right exchanged.

    Raises:
        UsageError: If the report's sides cannot be swapped, see `can_flip`.
    """
    if not can_flip(report):
        raise UsageError(
            "the sides of this report cannot be swapped",
            came=f"laterality {report.laterality.value}, zones {'named' if report.zones else 'not named'}",
            expected="a report with known laterality whose words name zones",
            do="Leave flips off for this data.",
        )
    zones = report.zones.mirror()
    if report.free:
        mirrored = replace(report, text=None if report.text is None else swap_sides(report.text))
    else:
        mirrored = replace(report.with_zones(zones), text=None if report.text is None else sentence(zones))
    return np.ascontiguousarray(pixels[:, ::-1]), np.ascontiguousarray(mask[:, ::-1]), mirrored


def warp(
    pixels: Pixels, mask: Mask, way: Geometry, *, bicubic: bool = False, fill: Literal["black", "edge"] = "black"
) -> tuple[Pixels, Mask]:
    """Turn, zoom and shift image, ``(h, w)`` or ``(h, w, 3)``, and mask about their centre in one go.

    Flip and covers of ``way`` are not applied; ``fill`` is what comes in from outside the image.
    """
    height, width = mask.shape
    matrix = way.affine(mask.shape)
    cos, sin, offset_x, _, _, offset_y = matrix
    margin = 0
    if fill == "edge":
        corners = [(x, y) for x in (0, width) for y in (0, height)]
        reach_x = [cos * x + sin * y + offset_x for x, y in corners]
        reach_y = [-sin * x + cos * y + offset_y for x, y in corners]
        margin = 2 + math.ceil(max(0.0, -min(reach_x), -min(reach_y), max(reach_x) - width, max(reach_y) - height))
    padded = (cos, sin, offset_x + margin, -sin, cos, offset_y + margin)
    resample = PILImage.Resampling.BICUBIC if bicubic else PILImage.Resampling.BILINEAR
    planes = (np.pad(plane, margin, mode="edge") for plane in np.moveaxis(np.atleast_3d(pixels), -1, 0))
    image = np.stack([_moved(plane, mask.shape, padded, resample) for plane in planes], axis=-1)
    moved = _moved(mask.astype(np.uint8), mask.shape, matrix, PILImage.Resampling.NEAREST)
    return np.clip(image, 0.0, 1.0).reshape(pixels.shape), moved > 0


def blur(pixels: Pixels, sigma: float) -> Pixels:
    """Gaussian blur of an image ``(h, w)`` or ``(h, w, 3)``, its standard deviation in pixels; edges are repeated."""
    radius = min(math.ceil(3 * sigma), min(pixels.shape[:2]) - 1)
    if radius < 1 or sigma < 0.1:  # below a tenth of a pixel the kernel is a single tap
        return pixels
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2).astype(np.float32)
    taps /= taps.sum()
    height, width = pixels.shape[:2]
    still = ((0, 0),) * (pixels.ndim - 1)
    padded = np.pad(pixels, ((radius, radius), *still), mode="edge")
    rows = sum((tap * padded[i : i + height] for i, tap in enumerate(taps)), np.zeros_like(pixels))
    padded = np.pad(rows, ((0, 0), (radius, radius), *still[1:]), mode="edge")
    return sum((tap * padded[:, i : i + width] for i, tap in enumerate(taps)), np.zeros_like(pixels))


def coarse(pixels: Pixels, share: float) -> Pixels:
    """Lose detail of an image ``(h, w)`` or ``(h, w, 3)``: shrunk to a share of its sides, then as large as before."""
    height, width = pixels.shape[:2]
    small = max(1, round(width * share)), max(1, round(height * share))
    planes = np.moveaxis(np.atleast_3d(pixels), -1, 0)
    way = PILImage.Resampling.BILINEAR
    there = [PILImage.fromarray(np.ascontiguousarray(plane)).resize(small, way) for plane in planes]
    return np.stack([np.asarray(plane.resize((width, height), way)) for plane in there], -1).reshape(pixels.shape)


def through_jpeg(pixels: Pixels, quality: int) -> Pixels:
    """Write an image ``(h, w)`` or ``(h, w, 3)`` as JPEG in 8 bits and read it again."""
    held = io.BytesIO()
    PILImage.fromarray((np.clip(pixels, 0.0, 1.0) * 255).round().astype(np.uint8)).save(held, "JPEG", quality=quality)
    return np.asarray(PILImage.open(held), np.float32) / np.float32(255)


def _hit(rng: np.random.Generator, probability: float) -> bool:
    return probability > 0 and rng.random() < probability


def _between(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UsageError(f"augmentation setting {name} is out of range", came=value, expected=f"{low:g} to {high:g}")


_PRESETS: dict[str, Augment] = {
    "none": Augment(),
    "paper": Augment(geometry_p=0.1, scale=(0.95, 1.2), bicubic=True, fill="edge"),
    "flips": Augment(flip_p=0.5),
    "light": Augment(
        geometry_p=1.0,
        rotate_degrees=10.0,
        scale=(0.9, 1.2),
        shift=0.06,
        intensity_p=1.0,
        brightness=0.1,
        contrast=0.2,
    ),
    "strong": Augment(
        geometry_p=0.9,
        rotate_degrees=10.0,
        scale=(0.9, 1.2),
        shift=0.06,
        crop_p=0.3,
        crop=0.2,
        flip_p=0.5,
        intensity_p=0.5,
        brightness=0.15,
        contrast=0.3,
        gamma=1.5,
        window=0.15,
        blur_p=0.2,
        blur_pixels=1.2,
        noise_p=0.3,
        noise=0.05,
        border_p=0.15,
        border=0.1,
    ),
    "hospitals": Augment(
        geometry_p=0.9,
        rotate_degrees=10.0,
        scale=(0.9, 1.2),
        shift=0.06,
        crop_p=0.2,
        crop=0.15,
        intensity_p=0.6,
        brightness=0.15,
        contrast=0.3,
        gamma=1.6,
        window=0.12,
        resize_p=0.3,
        resize=0.4,
        jpeg_p=0.4,
        jpeg_quality=30,
        blur_p=0.2,
        blur_pixels=1.0,
        noise_p=0.25,
        noise=0.04,
        border_p=0.25,
        border=0.12,
    ),
    "sgseg": Augment(geometry_p=0.5, rotate_degrees=10.0, fill="edge", crop_p=0.5, crop=0.2, erase_p=0.5, erase=0.3),
}
