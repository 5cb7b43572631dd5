"""Left-right sensitivity on films whose answers are known."""

import math

import pytest

from textray.errors import ShapeError
from textray.metrics.sides import SideCase, can_tell, side_summary
from textray.records import Zones

LEFT_LOWER = Zones.from_present([0, 0, 1, 0, 0, 0])
LEFT_ALL_RIGHT_LOWER = Zones.from_present([1, 1, 1, 0, 0, 1])
BOTH_LOWER = Zones.from_present([0, 0, 1, 0, 0, 1])


def film(zones=LEFT_LOWER, true=(0, 0, 10, 0, 0, 0), mirrored=(0, 0, 0, 0, 0, 10), group="a"):
    return SideCase(zones=zones, true_areas=true, mirrored_areas=mirrored, group=group)


def test_only_films_that_differ_from_their_mirror_image_can_tell():
    assert can_tell(LEFT_LOWER)
    assert can_tell(LEFT_ALL_RIGHT_LOWER)
    assert not can_tell(BOTH_LOWER)
    assert not can_tell(Zones())


@pytest.mark.parametrize(
    ("case", "areas", "moved"),
    [
        (film(), [10, 10, 10, 10], True),  # it follows its text
        (film(mirrored=(0, 0, 10, 0, 0, 0)), [10, 10, 0, 10], False),  # it ignores its text
        (film(mirrored=(0, 0, 5, 0, 0, 5)), [10, 10, 5, 10], False),  # one half has not moved
        # Unilateral films count the whole half of the image; the right one is the mirror image of the left one.
        (film(true=(2, 3, 1, 0, 1, 1), mirrored=(1, 0, 1, 3, 2, 1)), [6, 8, 6, 8], True),
        (film(LEFT_LOWER.mirror(), true=(0, 1, 1, 2, 3, 1), mirrored=(3, 2, 1, 1, 0, 1)), [6, 8, 6, 8], True),
        # Left upper and middle against right upper and middle; the lower zones are named by both texts.
        (film(LEFT_ALL_RIGHT_LOWER, true=(4, 4, 90, 1, 1, 90), mirrored=(1, 2, 90, 3, 2, 90)), [8, 10, 5, 8], True),
    ],
)
def test_area_that_is_named_and_contested_and_films_that_move(case, areas, moved):
    assert case.kind == ("bilateral" if case.zones == LEFT_ALL_RIGHT_LOWER else "unilateral")
    assert case.areas.tolist() == areas
    assert case.shares.tolist() == [areas[0] / areas[1], areas[2] / areas[3]]
    assert case.moved is moved


def test_a_film_without_area_has_no_share_and_has_not_moved():
    case = film(mirrored=(0,) * 6)
    assert math.isnan(case.shares[1])
    assert not case.moved
    kinds = side_summary([case, film()])
    summary = kinds["unilateral"]
    assert kinds["bilateral"] == {"films": 0, "films_without_area": 0}, "an empty kind has no score"
    assert (summary["films"], summary["films_without_area"]) == (2, 1)
    assert summary["share_mirrored_per_image"]["value"] == 1.0  # of the one that has a share
    assert summary["moved_films"]["value"] == 0.5


def test_pooled_and_per_image_shares_weigh_films_differently():
    cases = [film(mirrored=(0, 0, 0, 0, 0, 90), group="a"), film(mirrored=(0, 0, 10, 0, 0, 0), group="b")]
    summary = side_summary(cases)["unilateral"]
    assert summary["share_mirrored_pooled"]["value"] == pytest.approx(0.9)
    assert summary["share_mirrored_per_image"]["value"] == pytest.approx(0.5)
    low, high = (summary["share_mirrored_per_image"][k] for k in ("low", "high"))
    assert (low, high) == (0, 1)


def test_areas_of_another_number_are_refused():
    with pytest.raises(ShapeError, match="six zones"):
        film(true=(1, 2, 3))
