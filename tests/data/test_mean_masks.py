"""Floors of grounding on a tenth of the real QaTa-COV19, against counting by hand; skipped where it is not there."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from textray.data.base import open_reader
from textray.evaluate.maps import mean_masks
from textray.metrics.grounding import THRESHOLDS, normalise, score
from textray.preprocess import Preprocess

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "QaTa-COV19-v2"
EVERY = 10


def by_hand():
    """IoU and Dice of the mean mask and of that of the same place clause."""
    with (REAL / "prompt" / "train.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = sorted(list(csv.reader(file))[1:])
    cut = len(rows) * 4 // 5

    def mask(name):
        with PILImage.open(REAL / "Train Set" / "Ground-truths" / name) as picture:
            return np.asarray(picture.convert("L")) > 127

    def place(caption):
        return caption.strip(" .").lower().replace("  ", " ").split(",")[-1].strip()

    whole, by_place = np.zeros((224, 224)), {}
    for name, caption in rows[:cut:EVERY]:
        found = mask(name)
        whole += found
        total, count = by_place.get(place(caption), (0, 0))
        by_place[place(caption)] = total + found, count + 1
    number, results = len(range(0, cut, EVERY)), []
    for name, caption in rows[cut::EVERY]:
        total, count = by_place.get(place(caption), (whole, number))
        for values in (whole / number, total / count):
            stretched, truth = 2 * (values - values.min()) / np.ptp(values) - 1, mask(name)
            for threshold in THRESHOLDS:
                marked = stretched > threshold
                hit = (marked & truth).sum()
                results.append((hit / (marked | truth).sum(), 2 * hit / (marked.sum() + truth.sum())))
    return np.array(results).reshape(-1, 2, len(THRESHOLDS), 2).mean(axis=(0, 2))


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason=f"{REAL} is not there")
def test_floors_of_qata_equal_counting_by_hand():
    films = open_reader("qata_cov19", REAL).phrases("val")
    grid = Preprocess(size=(224, 224))
    training = open_reader("qata_cov19", REAL).phrases("train")[::EVERY]
    means = mean_masks(training, grid, [film.phrase for film in films])
    assert means.count == 572
    found = []
    for film in films[::EVERY]:
        with PILImage.open(film.mask_path) as picture:
            truth = np.asarray(picture.convert("L")) > 127
        for values in (means.whole, means.told(film)):
            case = score(normalise(values, "minmax"), truth)
            found.append([case.at(threshold) for threshold in THRESHOLDS])
    scores = np.array(found).reshape(-1, 2, len(THRESHOLDS), 2).mean(axis=(0, 2))
    assert np.allclose(scores, by_hand(), atol=5e-3)  # a few captions are irregular, and counted by their words by hand
    assert scores[1, 1] > scores[0, 1] > 0.25  # words tell more than nothing
