"""A small copy of QaTa-COV19 v2 in the official layout, made without any code of the reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "QaTa-COV19-v2"
LEFT = "unilateral pulmonary infection, one infected area, upper left lung."
RIGHT = "unilateral pulmonary infection, one infected area, lower right lung."


def names_of(train: int, test: int) -> tuple[list[str], list[str]]:
    """10 % of the train rows carry no patient; patients have two images each and lie on one side of the cut."""
    cut, without = int(train * 0.8), train // 10
    first = [f"covid_{i}" for i in range(1, without + 1)]
    first += [f"sub-S1{i // 2:04d}_ses-E{i}_run-1_bp-chest_vp-ap_dx" for i in range(cut - without)]
    first += [f"sub-S2{i // 2:04d}_ses-E{i}_run-1_bp-chest_vp-pa_cr" for i in range(train - cut)]
    return first, [f"sub-S3{i // 2:04d}_ses-E{i}_run-1_bp-chest_cr" for i in range(test)]


def write_part(root: Path, part: str, names: list[str], size: tuple[int, int] = (24, 20)) -> None:
    folder = root / f"{part.capitalize()} Set"
    (folder / "Images").mkdir(parents=True)
    (folder / "Ground-truths").mkdir()
    (root / "prompt").mkdir(exist_ok=True)
    rng = np.random.default_rng(len(names))
    lines = ["Image,Description"]
    for i, name in enumerate(names):
        pixels = rng.integers(0, 256, size, dtype=np.uint8)
        mask = np.zeros(size, np.uint8)
        mask[3:8, 2:7] = 255
        Image.fromarray(pixels).save(folder / "Images" / f"{name}.png")
        Image.fromarray(mask).save(folder / "Ground-truths" / f"mask_{name}.png")
        lines.append(f'mask_{name}.png,"{(LEFT, RIGHT)[i % 2]}"')
    (root / "prompt" / f"{part}.csv").write_bytes(("\r\n".join(lines) + "\r\n").encode())


@pytest.fixture
def qata(tmp_path: Path) -> Path:
    """Root of a fake with 50 train rows (40 train, 10 val) and 6 test rows."""
    root = tmp_path / "QaTa-COV19-v2"
    train, test = names_of(50, 6)
    write_part(root, "train", train)
    write_part(root, "test", test)
    return root


@pytest.fixture
def real_qata() -> Path:
    if not REAL.is_dir():
        pytest.skip("no ../shared/data/QaTa-COV19-v2 beside the repository")
    return REAL
