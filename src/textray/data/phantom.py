"""Synthetic pictures with lesions in chosen zones: for tests and documentation, never for a score.

Air, body, two lungs, heart (mostly in the viewer's right half, as on the standard film), mediastinum, spine, ribs,
clavicles, diaphragm with a gas bubble under its viewer's right dome, vessels and grain, all drawn from one seed.
Zones are those of pixels: image halves, and heights split at 0.375 and 0.55 of the image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from textray.augment import blur
from textray.data.base import CheckResult, Reader, Sample
from textray.data.cache import cache_folder, write_once
from textray.data.qata_cov19 import NAME, QaTaCOV19
from textray.errors import UsageError
from textray.records import ZONE_ROWS, Zones
from textray.text.zones import sentence

_EXTENT = ((0.17, 0.365), (0.385, 0.54), (0.56, 0.76))  # heights that a lesion's centre may have, by level
_DRAWING = 1  # part of the folder's name: films drawn by other code do not stand in for these


@dataclass(frozen=True, kw_only=True)
class _Chest:
    """Coordinates and the parts of one chest; all fields are ``(H, W)``."""

    across: Field
    down: Field
    lungs: tuple[Field, Field]


def draw(
    seed: int, size: tuple[int, int] = (224, 224), zones: Zones | None = None
) -> tuple[Field, NDArray[np.bool_], Zones]:
    """Draw a film, its height and width at least 16 pixels each; the same seed gives the same film.

    Without ``zones`` they are drawn too, at least one; zones without any give a film without lesions.

    Returns:
        Pixels ``(H, W)`` float32 in [0, 1] with bright bone, the lesion mask ``(H, W)`` bool, and the zones: each
        zone that is present holds lesion pixels and no other zone does.

    Raises:
        UsageError: If the size is too small.
    """
    across, down = places(size)
    rng = np.random.default_rng(seed)
    if zones is None:
        zones = Zones.from_index(int(rng.integers(1, 64)))
    chest = _Chest(across=across, down=down, lungs=_lungs(across, down, rng))
    film = _film(chest, rng)
    opacity, mask = _lesions(chest, zones, rng)
    film = film + (np.float32(0.78) - film) * opacity
    film = blur(film, max(size) / 400)
    exposure, grain = rng.uniform(0.9, 1.1), rng.uniform(0.008, 0.02)
    film = np.clip(film, 0.0, 1.0) ** np.float32(exposure)
    film = film + rng.standard_normal(size, dtype=np.float32) * np.float32(grain)
    return np.clip(film, 0.0, 1.0).astype(np.float32, copy=False), mask, zones


class Phantom(Reader):
    """Synthetic films as a data set: real files, written once, in the layout and with the splits of QaTa-COV19.

    Args:
        root: Folder to keep them in; ``None`` takes the cache folder. Films found there are used again.
        missing_captions: As for `QaTaCOV19`.
        n: Films of the train part, at least 10; the test part has three tenths as many more.
        size: Height and width in pixels.
        seed: Of everything drawn.
    """

    name = "phantom"

    def __init__(
        self,
        root: str | Path | None = None,
        *,
        missing_captions: str = "error",
        n: int = 40,
        size: tuple[int, int] = (224, 224),
        seed: int = 0,
    ) -> None:
        if n < 10:
            raise UsageError("the phantom set is too small", came=n, expected="n of at least 10 films")
        base = cache_folder() / "phantom" if root is None else Path(root)
        folder = base / f"phantom-{_DRAWING}-{n}-{size[0]}x{size[1]}-{seed}"
        super().__init__(folder, missing_captions=missing_captions, seed=seed)
        self.n, self.size = n, size

    def samples(self, split: str) -> list[Sample]:
        """Samples of a split, as `QaTaCOV19.samples` gives them."""
        return self._reader().samples(split)

    def check(self) -> CheckResult:
        """Check the written films as `QaTaCOV19.check` does."""
        return self._reader().check()

    def write(self, folder: str | Path) -> Path:
        """Write the films below ``folder`` as a copy of QaTa-COV19 v2; return the folder that a reader is pointed at.

        Two fifths of the train part have no patient, as the ``covid_*`` images of QaTa-COV19; the others share
        patients by threes, and no patient is on both sides of the cut.
        """
        root = Path(folder) / NAME
        for part, names in (("train", self._train_names()), ("test", self._test_names())):
            pictures = root / f"{part.capitalize()} Set"
            (pictures / "Images").mkdir(parents=True, exist_ok=True)
            (pictures / "Ground-truths").mkdir(exist_ok=True)
            (root / "prompt").mkdir(exist_ok=True)
            lines = ["Image,Description"]
            for index, name in enumerate(names):
                pixels, mask, zones = draw(self._seed_of(part, index), self.size)
                film = PILImage.fromarray(np.rint(pixels * 255).astype(np.uint8))
                film.save(pictures / "Images" / f"{name}.png")
                PILImage.fromarray(mask.astype(np.uint8) * 255).save(pictures / "Ground-truths" / f"mask_{name}.png")
                lines.append(f'mask_{name}.png,"{sentence(zones)}"')
            (root / "prompt" / f"{part}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return root

    def _reader(self) -> QaTaCOV19:
        write_once(self.root, self.write)
        return QaTaCOV19(self.root, missing_captions=self.policy, seed=self.seed)

    def _seed_of(self, part: str, index: int) -> int:
        return self.seed * 1_000_003 + index + (500_000 if part == "test" else 0)

    def _train_names(self) -> Iterator[str]:
        train, without = self.n * 4 // 5, self.n * 2 // 5
        yield from (f"covid_{index:05d}" for index in range(without))
        for index in range(train - without):
            yield f"sub-S{10000 + index // 3}_ses-E{index}_run-1_bp-chest_vp-ap_dx"
        for index in range(self.n - train):
            yield f"sub-S{50000 + index // 3}_ses-E{index}_run-1_bp-chest_vp-pa_cr"

    def _test_names(self) -> Iterator[str]:
        for index in range(max(1, self.n * 3 // 10)):
            yield f"sub-S{80000 + index // 3}_ses-E{index}_run-1_bp-chest_vp-ap_cr"


def _spot(chest: _Chest, x: float, y: float, wide: float, high: float) -> Field:
    return np.asarray(np.exp(-(((chest.across - x) / wide) ** 2) - ((chest.down - y) / high) ** 2), np.float32)


def _lungs(across: Field, down: Field, rng: np.random.Generator) -> tuple[Field, Field]:
    """Both lungs, viewer's left first: 1 inside, 0 outside, soft edges."""
    lungs = []
    for sign, floor in ((-1, 0.79), (1, 0.82)):
        top, floor = 0.115 + rng.uniform(-0.012, 0.012), floor + rng.uniform(-0.02, 0.02)
        outer = 0.375 + rng.uniform(-0.02, 0.015)
        along = np.clip((down - top) / (floor - top), 0, 1)  # 0 at the apex, 1 at the floor
        side = (across - 0.5) * sign
        wall = 0.10 + (outer - 0.10) * np.sin(np.pi / 2 * np.clip(along * 1.15, 0, 1)) ** 0.62
        hilum = 0.062 + 0.02 * np.exp(-(((down - 0.17) / 0.08) ** 2))
        dome = floor - 0.055 + 0.9 * np.clip(side - 0.2, 0, None) ** 2 * 4 + 0.5 * np.clip(0.2 - side, 0, None) ** 2
        inside = edge(wall - side, 0.008) * edge(side - hilum, 0.009)
        apex = top + 2.2 * (side - 0.19) ** 2
        lungs.append(inside * edge(down - apex, 0.008) * edge(dome - down, 0.006))
    return lungs[0], lungs[1]


def _film(chest: _Chest, rng: np.random.Generator) -> Field:
    across, down = chest.across, chest.down
    side = np.abs(across - 0.5)
    size = (across.shape[0], across.shape[1])
    lung = np.maximum(*chest.lungs)

    neck = 0.13 + 0.36 * edge(down - 0.085 - 0.16 * np.clip(side - 0.1, 0, None), 0.02)
    body = edge(np.minimum(neck, 0.475 + 0.03 * np.sin(down * 3)) - side, 0.008)
    film = body * (0.60 + 0.06 * down + 0.02 * cloud(size, 5, rng))
    film = film + body * 0.08 * edge(0.16 - down + 0.5 * np.clip(side - 0.2, 0, None), 0.03)  # shoulders

    depth = 0.40 + 0.06 * rng.uniform(-1, 1)
    vessels = sum(_spot(chest, x, 0.45, 0.055, 0.10) for x in (0.405, 0.605)) * 0.15
    texture = 0.016 * cloud(size, 40, rng) + 0.020 * cloud(size, 14, rng)
    streaks = _vessels(chest, rng)
    air = 0.15 + 0.12 * down * down + vessels + texture + streaks
    film = film * (1 - lung) + lung * (film * (1 - depth) * 0.25 + air)

    film = film + body * 0.06 * _ribs(chest, rng) * (0.35 + 0.9 * lung)
    middle = edge(0.052 + 0.02 * edge(down - 0.3, 0.05) - np.abs(across - 0.505), 0.014) * edge(0.97 - down, 0.02)
    film = film + 0.07 * middle * body
    film = film + 0.022 * middle * np.sin(down * 2 * np.pi * 21) * edge(0.036 - np.abs(across - 0.5), 0.008)  # spine
    film = film - 0.10 * edge(0.016 - np.abs(across - 0.5), 0.005) * edge(0.33 - down, 0.02) * body  # windpipe
    heart = edge(1 - ((across - 0.565) / 0.152) ** 2 - ((down - 0.665 - 0.25 * (across - 0.565)) / 0.155) ** 2, 0.06)
    knob = edge(1 - ((across - 0.558) / 0.042) ** 2 - ((down - 0.325) / 0.045) ** 2, 0.15)
    shade = np.maximum(heart, np.maximum(0.8 * knob, 0.75 * _spot(chest, 0.45, 0.68, 0.055, 0.14)))
    film = film + (0.74 - film) * shade * 0.82 * body
    film = film + 0.11 * _clavicles(chest, rng) * body
    belly = edge(down - 0.80, 0.015) * (1 - lung) * body
    bubble = edge(1 - ((across - 0.66) / 0.07) ** 2 - ((down - 0.855) / 0.035) ** 2, 0.2)
    film = film + 0.05 * belly - 0.22 * belly * bubble
    return np.asarray(0.025 + film, np.float32)


def _vessels(chest: _Chest, rng: np.random.Generator) -> Field:
    """Bright lines that run from the hila outwards and fade."""
    lines = np.zeros_like(chest.across)
    for x, y, sign in ((0.415, 0.45, -1), (0.595, 0.44, 1)):
        away_x, away_y = (chest.across - x) * sign, chest.down - y
        reach = np.hypot(away_x, away_y)
        turn = np.arctan2(away_y, away_x)
        for angle in np.linspace(-1.25, 1.25, 11) + rng.uniform(-0.1, 0.1, 11):
            bend = angle + rng.uniform(-1.2, 1.2) * reach
            thick = 0.007 * np.clip(1 - reach / 0.33, 0, 1) + 1e-4
            lines += np.exp(-(((turn - bend) * reach / thick) ** 2)) * np.clip(1 - reach / 0.3, 0, 1)
    return np.asarray(0.09 * np.clip(lines, 0, 1.2), np.float32)


def _ribs(chest: _Chest, rng: np.random.Generator) -> Field:
    side = np.abs(chest.across - 0.5)
    ribs: Field = np.zeros_like(side)
    start = rng.uniform(0.10, 0.13)
    for rib in range(9):
        behind = start + 0.083 * rib - 0.035 + 0.10 * np.sin(np.clip(side / 0.42, 0, 1) * np.pi * 0.75) ** 1.5
        behind = behind + 0.32 * np.clip(side - 0.24, 0, None) ** 1.3
        ribs += edge(0.0125 - np.abs(chest.down - behind), 0.003) * edge(side - 0.04, 0.01)
        front = start + 0.02 + 0.083 * rib + 0.42 * (0.40 - side)
        ribs += 0.45 * edge(0.015 - np.abs(chest.down - front), 0.005) * edge(side - 0.17, 0.03)
    return np.asarray(np.clip(ribs, 0, 1.3), np.float32)


def _clavicles(chest: _Chest, rng: np.random.Generator) -> Field:
    bones: Field = np.zeros_like(chest.across)
    for sign in (-1, 1):
        side = (chest.across - 0.5) * sign
        line = 0.205 + rng.uniform(-0.01, 0.01) - 0.24 * side + 0.018 * np.sin(side * 18)
        bone = edge(0.0135 - np.abs(chest.down - line), 0.003)
        bones += bone * edge(side - 0.045, 0.008) * edge(0.37 - side, 0.01)
    return bones


def _lesions(chest: _Chest, zones: Zones, rng: np.random.Generator) -> tuple[Field, NDArray[np.bool_]]:
    """Opacity in [0, 1] of soft, mottled blobs, and the mask where they are dense; each stays in its zone."""
    shape = (chest.across.shape[0], chest.across.shape[1])
    opacity = np.zeros(shape, np.float32)
    mask = np.zeros(shape, np.bool_)
    mottle = np.clip(1 + 0.22 * cloud(shape, 28, rng), 0.5, 1.3)
    for zone, present in enumerate(zones.present):
        if not present:
            continue
        side, level = divmod(zone, 3)
        low, high = LEVELS[level], LEVELS[level + 1]
        half = chest.across < 0.5 if side == 0 else chest.across >= 0.5
        rows = (chest.down >= low) & (chest.down < high)
        place = half & rows & (chest.lungs[side] > 0.5)
        x = 0.5 + (1 if side else -1) * rng.uniform(0.15, 0.25)
        y = rng.uniform(*_EXTENT[level])
        blob = np.zeros(shape, np.float32)
        for _ in range(rng.integers(3, 7)):
            at_x, at_y = x + rng.normal(0, 0.035), y + rng.normal(0, 0.022)
            blob += _spot(chest, at_x, at_y, rng.uniform(0.035, 0.07), rng.uniform(0.03, 0.055))
        blob *= chest.lungs[side]
        blob *= edge(chest.down - low - 0.012, 0.005) * edge(high - 0.012 - chest.down, 0.005)
        dense = (blob > 0.42) & place
        if not dense.any():  # few pixels, or a blob at the very edge: its densest place in the zone is the lesion
            best = np.where(place if place.any() else half & rows, blob + 1e-6, 0.0)
            dense.flat[int(best.argmax())] = True
            blob = np.maximum(blob, dense)
        opacity = np.maximum(opacity, rng.uniform(0.6, 0.85) * np.clip(blob, 0, 1) * mottle)
        mask |= dense
    return np.clip(opacity, 0, 1), mask


# Shapes that the phantoms are drawn with.

Field = NDArray[np.float32]
Floats = NDArray[np.floating[Any]]

SMALLEST = 16
"""Shortest side that a phantom can have, in pixels."""
LEVELS = (0.0, *ZONE_ROWS, 1.0)
"""Heights between which the upper, middle and lower zones of pixels lie, as shares of the image's height."""


def places(size: tuple[int, int]) -> tuple[Field, Field]:
    """Where each pixel lies: across and down, each ``(H, W)`` in (0, 1)."""
    if min(size) < SMALLEST:
        came = f"{size[0]} x {size[1]}"
        raise UsageError("the phantom is too small", came=came, expected=f"at least {SMALLEST} pixels")
    down, across = np.meshgrid(*(((np.arange(n) + 0.5) / n).astype(np.float32) for n in size), indexing="ij")
    return across, down


def edge(distance: Floats, softness: float) -> Field:
    """A soft step: 1 where ``distance`` is well above 0, 0 well below."""
    return np.asarray(1 / (1 + np.exp(-np.clip(distance / softness, -30, 30))), np.float32)


def cloud(size: tuple[int, int], cells: int, rng: np.random.Generator) -> Field:
    """Smooth noise about 0, its features a ``cells``-th of the image."""
    coarse = rng.standard_normal((cells, cells)).astype(np.float32)
    picture = PILImage.fromarray(coarse).resize((size[1], size[0]), PILImage.Resampling.BICUBIC)
    return np.asarray(picture, np.float32)
