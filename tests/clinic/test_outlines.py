"""Connected parts and outlines of masks, compared with SciPy and by filling the outlines again."""

import numpy as np
import pytest
from PIL import Image as PILImage
from PIL import ImageDraw

from textray.io.outlines import outline, parts


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.9])
def test_parts_are_those_of_scipy(share):
    ndimage = pytest.importorskip("scipy.ndimage")
    mask = np.random.default_rng(1).random((61, 47)) < share
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    found, number = parts(mask, 10_000)
    assert (len(found), number) == (count, count)
    assert sorted(part.pixels for part in found) == sorted(np.bincount(labels.ravel())[1:])
    whole = np.zeros_like(mask)
    for part in found:
        box = whole[part.top : part.top + part.mask.shape[0], part.left : part.left + part.mask.shape[1]]
        assert not (box & part.mask).any()
        box |= part.mask
        assert part.mask.sum() == part.pixels
    np.testing.assert_array_equal(whole, mask)


def test_only_the_largest_parts_come():
    mask = np.zeros((9, 9), bool)
    mask[0, 0], mask[2:4, 2:4], mask[6, 1:4] = True, True, True
    found, number = parts(mask, 2)
    assert ([part.pixels for part in found], number) == ([4, 3], 3)
    assert parts(np.zeros((3, 3), bool), 5) == ([], 0)


def test_an_outline_goes_around_corners_of_pixels():
    mask = np.zeros((5, 6), bool)
    mask[1:3, 2:5] = True
    (part,), _ = parts(mask, 1)
    assert outline(part).tolist() == [[2, 1], [5, 1], [5, 3], [2, 3], [2, 1]]


def test_pixels_that_touch_at_a_corner_have_one_outline():
    mask = np.eye(3, dtype=bool)
    (part,), number = parts(mask, 5)
    line = outline(part)
    assert number == 1
    assert (line[0] == line[-1]).all()
    assert abs(shoelace(line)) == 3


@pytest.mark.parametrize("seed", range(5))
def test_an_outline_holds_the_area_of_a_part_with_its_holes_filled(seed):
    ndimage = pytest.importorskip("scipy.ndimage")
    mask = np.random.default_rng(seed).random((24, 31)) < 0.45
    for part in parts(mask, 20)[0]:
        filled = ndimage.binary_fill_holes(part.mask)
        assert abs(shoelace(outline(part, most=100_000))) == filled.sum()


def test_a_long_outline_is_made_shorter_and_stays_near():
    rows, columns = np.mgrid[:400, :400]
    mask = (rows - 200) ** 2 + (columns - 200) ** 2 < (
        150 + 20 * np.sin(np.arctan2(rows - 200, columns - 200) * 9)
    ) ** 2
    (part,), _ = parts(mask, 1)
    line = outline(part)
    assert len(line) <= 200
    assert (line[0] == line[-1]).all()
    picture = PILImage.new("1", (400, 400))
    ImageDraw.Draw(picture).polygon([tuple(point) for point in line], fill=1)
    drawn = np.asarray(picture)
    assert (drawn & mask).sum() * 2 / (drawn.sum() + mask.sum()) > 0.98


def shoelace(line):
    x, y = line.T
    return 0.5 * (x[:-1] * y[1:] - x[1:] * y[:-1]).sum()
