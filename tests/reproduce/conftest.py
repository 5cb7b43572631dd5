"""A fake QaTa-COV19 in the published layout: ``make_qata(folder, bright=0)``; ``qata`` is one with dim films."""

import csv

import numpy as np
import pytest
from PIL import Image as PILImage

WORDS = {"lower left": (slice(40, 60), slice(5, 25)), "upper right": (slice(5, 20), slice(35, 55))}


@pytest.fixture(scope="session")
def make_qata():
    """Build a fake, 64 x 60, each mask where its caption says; the val rows are the last fifth.

    ``bright`` is added to the film where its lesion is.
    """

    def make(folder, bright=0):
        root = folder / "QaTa-COV19-v2"
        for part in ("Images", "Ground-truths"):
            (root / "Train Set" / part).mkdir(parents=True)
        (root / "prompt").mkdir()
        rng, rows = np.random.default_rng(0), []
        for i in range(20):
            name = f"sub-S{10000 + i}_ses-E{i}_run-1_bp-chest_vp-ap_dx"
            place = list(WORDS)[i % 2]
            mask = np.zeros((64, 60), np.uint8)
            mask[WORDS[place]] = 255
            film = rng.integers(0, 90, (64, 60), np.uint8) + (mask > 0) * np.uint8(bright)
            PILImage.fromarray(film).save(root / f"Train Set/Images/{name}.png")
            PILImage.fromarray(mask).save(root / f"Train Set/Ground-truths/mask_{name}.png")
            rows.append((f"mask_{name}.png", f"unilateral pulmonary infection, one infected area, {place} lung."))
        with (root / "prompt/train.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("Image", "Description"), *rows])
        return root

    return make


@pytest.fixture
def qata(make_qata, tmp_path):
    """A fake whose films do not show their lesions."""
    return make_qata(tmp_path)
