"""A synthetic axial CT slice in a lung window with lesions in chosen zones: for tests, never for a score.

Air, body, two lungs, heart and vessels between them, vertebra, ribs, vessels in the lungs, the table's edge and grain,
all drawn from one seed. Zones are those of pixels, as on the phantom's films: image halves, and heights of the picture
split at 0.375 and 0.55. No slice is "upper" or "lower" as a whole here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from textray.augment import blur
from textray.data.base import CheckResult, Sample
from textray.data.cache import cache_folder, write_once
from textray.data.mosmed_plus import MosMedPlus, Protocol
from textray.data.phantom_shapes import LEVELS, Field, cloud, edge, places
from textray.errors import UsageError
from textray.records import Zones
from textray.text.report import sentence

_HEIGHTS = ((0.29, 0.34), (0.43, 0.50), (0.58, 0.65))  # heights that a lesion's centre may have, by level
_DRAWING = 1  # part of the folder's name: slices drawn by other code do not stand in for these
_SOURCES = ("Morozov_study_{:04d}", "Jun_coronacases_case{}", "Jun_radiopaedia_{}_case1")


def draw_slice(
    seed: int, size: tuple[int, int] = (224, 224), zones: Zones | None = None
) -> tuple[Field, NDArray[np.bool_], Zones]:
    """Draw a slice.

    Args:
        seed: The same seed gives the same slice.
        size: Height and width in pixels, each at least 16; any aspect ratio.
        zones: Where lesions lie; ``None`` draws them, at least one. Zones without any give a slice without lesions.

    Returns:
        Pixels ``(H, W)`` float32 in [0, 1] with bright bone, the lesion mask ``(H, W)`` bool, and the zones: each
        zone that is present holds lesion pixels and no other zone does.

    Raises:
        UsageError: If the size is too small.
    """
    across, down = places(size)
    rng = np.random.default_rng((seed, 1))  # other than those of the films of the same seed
    if zones is None:
        zones = Zones.from_index(int(rng.integers(1, 64)))
    lungs = _lungs(across, down, rng)
    picture = _body(across, down, lungs, rng)
    opacity, mask = _lesions(across, down, lungs, zones, rng)
    picture = picture + (np.float32(0.66) - picture) * opacity
    picture = blur(picture, max(size) / 500)
    picture = picture + rng.standard_normal(size, dtype=np.float32) * np.float32(rng.uniform(0.01, 0.025))
    return np.clip(picture, 0.0, 1.0).astype(np.float32, copy=False), mask, zones


class PhantomCT:
    """Synthetic slices as a data set: real files, written once, in Kaggle's layout of MosMedData+ with csv tables.

    Volumes have three slices each, and the published cut is by slice as there: a volume's slices lie in several parts.

    Args:
        root: Folder to keep them in; ``None`` takes the cache folder. Slices found there are used again.
        captions: As for `MosMedPlus`.
        split_by: As for `MosMedPlus`.
        n: Slices in all, at least 30.
        size: Height and width in pixels.
        seed: Of everything drawn.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        *,
        captions: str = "error",
        split_by: Protocol = "slice",
        n: int = 90,
        size: tuple[int, int] = (224, 224),
        seed: int = 0,
    ) -> None:
        if n < 30:
            raise UsageError("the phantom set is too small", came=n, expected="n of at least 30 slices")
        self.n, self.size, self.seed, self.split_by = n, size, seed, split_by
        base = cache_folder() / "phantom" if root is None else Path(root)
        self.root = base / f"phantom-ct-{_DRAWING}-{n}-{size[0]}x{size[1]}-{seed}"
        self.captions = captions
        self._kept: MosMedPlus | None = None

    def samples(self, split: str) -> list[Sample]:
        """Samples of a split, as `MosMedPlus.samples` gives them."""
        return self._reader().samples(split)

    def check(self) -> CheckResult:
        """Check the written slices as `MosMedPlus.check` does."""
        return self._reader().check()

    def write(self, folder: str | Path) -> Path:
        """Write the slices below ``folder`` in Kaggle's layout of MosMedData+; return that folder.

        Eight tenths of the slices are train, a tenth val, a tenth test, turn by turn.
        """
        root = Path(folder)
        (root / "frames").mkdir(parents=True, exist_ok=True)
        (root / "masks").mkdir(exist_ok=True)
        tables: dict[str, list[str]] = {part: ["Image,Description"] for part in ("Train", "Val", "Test")}
        for index in range(self.n):
            volume, place = divmod(index, 3)
            number, source = divmod(volume, len(_SOURCES))
            name = f"{_SOURCES[source].format(number + 1)}_{place + 10}"
            pixels, mask, zones = draw_slice(self.seed * 1_000_003 + index, self.size)
            PILImage.fromarray(np.rint(pixels * 255).astype(np.uint8)).save(root / "frames" / f"{name}.png")
            PILImage.fromarray(mask.astype(np.uint8) * 255).save(root / "masks" / f"{name}.png")
            part = {8: "Val", 9: "Test"}.get(index % 10, "Train")
            tables[part].append(f'{name}.png,"{sentence(zones)}"')
        for part, lines in tables.items():
            (root / f"{part}_text.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return root

    def _reader(self) -> MosMedPlus:
        if self._kept is not None:
            return self._kept
        write_once(self.root, self.write)
        self._kept = MosMedPlus(self.root, captions=self.captions, split_by=self.split_by, seed=self.seed)
        return self._kept


def _oval(across: Field, down: Field, centre: tuple[float, float], radii: tuple[float, float], soft: float) -> Field:
    """1 inside an ellipse, 0 outside; centre and radii across and down."""
    reach = np.hypot((across - centre[0]) / radii[0], (down - centre[1]) / radii[1])
    return edge((1 - reach) * min(radii), soft)


def _lungs(across: Field, down: Field, rng: np.random.Generator) -> tuple[Field, Field]:
    """Both lungs, viewer's left first: 1 inside, 0 outside, soft edges; the heart dents the right one."""
    lungs = []
    for sign in (-1, 1):
        centre = (0.5 + sign * (0.215 + rng.uniform(-0.01, 0.01)), 0.47 + rng.uniform(-0.01, 0.01))
        lungs.append(_oval(across, down, centre, (0.145 + rng.uniform(-0.01, 0.005), 0.245), 0.006))
    heart = _oval(across, down, (0.555, 0.42), (0.115, 0.11), 0.006)
    return lungs[0], np.asarray(lungs[1] * (1 - heart), np.float32)


def _body(across: Field, down: Field, lungs: tuple[Field, Field], rng: np.random.Generator) -> Field:
    size = (across.shape[0], across.shape[1])
    body = _oval(across, down, (0.5, 0.49), (0.455, 0.35), 0.008)
    picture = body * (0.62 + 0.02 * cloud(size, 9, rng))
    picture = picture + 0.16 * body * _oval(across, down, (0.545, 0.44), (0.12, 0.12), 0.02)  # heart, contrast in it
    wall = np.abs(np.hypot((across - 0.5) / 0.405, (down - 0.485) / 0.30) - 1)
    ribs = edge(0.03 - wall, 0.006) * edge(np.sin(12 * np.arctan2(down - 0.485, across - 0.5) + rng.uniform(0, 6)), 0.1)
    picture = picture + 0.30 * ribs * body
    for centre, radii in (((0.5, 0.735), (0.05, 0.045)), ((0.5, 0.80), (0.018, 0.05)), ((0.5, 0.195), (0.06, 0.018))):
        picture = np.maximum(picture, 0.95 * _oval(across, down, centre, radii, 0.005))  # vertebra, its spine, sternum
    lung = np.maximum(*lungs)
    air = 0.10 + 0.012 * cloud(size, 30, rng)
    for _ in range(40):  # vessels, cut across: small near the wall, larger near the middle
        side = rng.choice((-1, 1))
        away = rng.uniform(0.09, 0.34)
        at, radius = (0.5 + side * away, rng.uniform(0.27, 0.68)), 0.013 - 0.025 * away
        air = np.maximum(air, 0.55 * _oval(across, down, at, (radius, radius), 0.003))
    picture = picture * (1 - lung) + lung * air
    table = edge(0.006 - np.abs(down - 0.90 - 0.12 * (across - 0.5) ** 2), 0.002) * edge(
        0.4 - np.abs(across - 0.5), 0.01
    )
    return np.asarray(0.02 + picture + 0.25 * table, np.float32)


def _lesions(
    across: Field, down: Field, lungs: tuple[Field, Field], zones: Zones, rng: np.random.Generator
) -> tuple[Field, NDArray[np.bool_]]:
    """Opacity in [0, 1] of mottled blobs near the outer wall, and the mask where they are dense, each in its zone."""
    size = (across.shape[0], across.shape[1])
    opacity, mask = np.zeros(size, np.float32), np.zeros(size, np.bool_)
    mottle = np.clip(1 + 0.2 * cloud(size, 32, rng), 0.5, 1.3)
    for zone, present in enumerate(zones.present):
        if not present:
            continue
        side, level = divmod(zone, 3)
        low, high = LEVELS[level], LEVELS[level + 1]
        place = ((across < 0.5) if side == 0 else (across >= 0.5)) & (down >= low) & (down < high)
        at = 0.5 + (1 if side else -1) * rng.uniform(0.22, 0.30), rng.uniform(*_HEIGHTS[level])
        blob = np.zeros(size, np.float32)
        for _ in range(rng.integers(2, 5)):
            centre = at[0] + rng.normal(0, 0.025), at[1] + rng.normal(0, 0.02)
            radii = rng.uniform(0.03, 0.055), rng.uniform(0.025, 0.045)
            reach = ((across - centre[0]) / radii[0]) ** 2 + ((down - centre[1]) / radii[1]) ** 2
            blob += np.exp(-reach)
        blob *= lungs[side] * edge(down - low - 0.012, 0.005) * edge(high - 0.012 - down, 0.005)
        dense = (blob > 0.42) & place & (lungs[side] > 0.5)
        if not dense.any():  # few pixels, or a blob at the very edge: its densest place in the zone is the lesion
            dense.flat[int(np.where(place, blob + 1e-6 * (1 + lungs[side]), 0.0).argmax())] = True
            blob = np.maximum(blob, dense)
        opacity = np.maximum(opacity, rng.uniform(0.6, 0.9) * np.clip(blob, 0, 1) * mottle)
        mask |= dense
    return np.clip(opacity, 0, 1), mask
