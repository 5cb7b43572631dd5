"""What moved with a picture comes back, and what a picture no longer shows is told."""

import numpy as np
import pytest

from textray.augment import Augment, Geometry
from textray.records import Report, Zones
from textray.text.zones import sentence

UPPER_LEFT = Zones.from_present([1, 0, 0, 0, 0, 0])


def blob(size=(80, 72)):
    down, across = np.mgrid[: size[0], : size[1]]
    mask = ((down - 34) / 12) ** 2 + ((across - 28) / 8) ** 2 < 1
    return np.where(mask, 0.9, 0.1).astype(np.float32), mask


def dice(first, second):
    return 2 * float((first & second).sum()) / float(first.sum() + second.sum())


@pytest.mark.parametrize("preset", ["none", "paper", "flips", "light", "strong", "sgseg"])
def test_a_map_goes_where_the_mask_went_and_comes_back(preset):
    pixels, mask = blob()
    report = Report(zones=UPPER_LEFT, text=sentence(UPPER_LEFT))
    rng = np.random.default_rng(0)
    moved = 0
    for _ in range(60):
        _, lesion, words, way = Augment.preset(preset).traced(pixels, mask, report, rng)
        there = way.forward(mask.astype(np.float32))
        if lesion.sum() > 50:
            assert dice(there >= 0.5, lesion) > 0.95
        assert way.flipped == (words is not report)
        again, seen = way.back(there)
        assert again.shape == seen.shape == mask.shape
        if (mask & seen).sum() > 50:
            assert dice((again >= 0.5) & seen, mask & seen) > 0.93
        moved += way.warped
    assert moved > 0 or preset in {"none", "flips"}


def test_a_call_and_a_traced_call_are_the_same():
    pixels, mask = blob()
    report = Report(zones=UPPER_LEFT, text=sentence(UPPER_LEFT))
    for seed in range(10):
        called = Augment.preset("strong")(pixels, mask, report, np.random.default_rng(seed))
        traced = Augment.preset("strong").traced(pixels, mask, report, np.random.default_rng(seed))
        np.testing.assert_array_equal(called[0], traced[0])
        np.testing.assert_array_equal(called[1], traced[1])
        assert called[2] == traced[2]


def test_whole_pixels_and_flips_come_back_exactly():
    plane = np.random.default_rng(0).random((9, 12), np.float32)
    way = Geometry(flipped=True, down=2, across=-3)
    there = way.forward(plane)
    np.testing.assert_allclose(there[2:, :-3], plane[:-2, ::-1][:, 3:], atol=1e-6)
    assert not there[:2].any()
    assert not there[:, -3:].any()
    back, seen = way.back(there)
    np.testing.assert_allclose(back[seen], plane[seen], atol=1e-6)
    expected = np.zeros((9, 12), bool)
    expected[:-2, :-3] = True  # the two lowest rows left it, and the three columns that the flip had put first
    np.testing.assert_array_equal(seen, expected)
    same, everywhere = Geometry().back(plane)
    np.testing.assert_array_equal(same, plane)
    assert everywhere.all()


def test_what_is_covered_is_not_seen():
    plane = np.ones((8, 10), np.float32)
    way = Geometry(inside=(1, 7, 2, 10), hidden=(3, 5, 4, 6))
    there = way.forward(plane)
    assert there.sum() == 6 * 8  # cleared under the border, kept under what is painted over
    seen = way.back(there)[1]
    assert seen.sum() == 6 * 8 - 4
    assert not seen[0].any()
    assert not seen[3:5, 4:6].any()
    mirrored = way._replace(flipped=True).back(there)[1]
    np.testing.assert_array_equal(mirrored, seen[:, ::-1])


def test_a_zoom_pushes_the_rim_out():
    way = Geometry(zoom=2.0)
    seen = way.back(np.zeros((20, 30), np.float32))[1]
    assert abs(int(seen.sum()) - 10 * 15) <= 26  # the middle half of each side, to a pixel
    assert seen[6:14, 9:21].all()
    assert not seen[:4].any()
    assert not seen[:, :6].any()
