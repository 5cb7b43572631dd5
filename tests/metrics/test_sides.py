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


def test_a_film_that_follows_its_text_moves():
    case = film()
    assert (case.kind, case.share_true, case.share_mirrored, case.moved) == ("unilateral", 1.0, 1.0, True)


def test_a_film_that_ignores_its_text_stays():
    case = film(mirrored=(0, 0, 10, 0, 0, 0))
    assert (case.share_true, case.share_mirrored, case.moved) == (1.0, 0.0, False)


def test_unilateral_films_count_the_whole_half_of_the_image():
    case = film(true=(2, 3, 1, 0, 1, 1), mirrored=(1, 0, 1, 3, 2, 1))
    assert case.areas == (6, 8, 6, 8)
    assert case.share_true == 0.75
    assert case.share_mirrored == 0.75


def test_right_sided_films_are_the_mirror_image_of_left_sided_ones():
    left = film(true=(2, 3, 1, 0, 1, 1), mirrored=(1, 0, 1, 3, 2, 1))
    right = film(LEFT_LOWER.mirror(), true=(0, 1, 1, 2, 3, 1), mirrored=(3, 2, 1, 1, 0, 1))
    assert left.areas == right.areas


def test_bilateral_films_count_only_zones_that_one_of_the_texts_names():
    """Left upper and middle against right upper and middle; the lower zones are named by both texts."""
    case = film(LEFT_ALL_RIGHT_LOWER, true=(4, 4, 90, 1, 1, 90), mirrored=(1, 2, 90, 3, 2, 90))
    assert case.kind == "bilateral"
    assert case.areas == (8, 10, 5, 8)
    assert case.moved


def test_exactly_one_half_has_not_moved():
    assert not film(mirrored=(0, 0, 5, 0, 0, 5)).moved


def test_a_film_without_area_has_no_share_and_has_not_moved():
    case = film(mirrored=(0,) * 6)
    assert math.isnan(case.share_mirrored)
    assert not case.moved
    summary = side_summary([case, film()])["unilateral"]
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


def test_kinds_are_apart_and_an_empty_one_has_no_score():
    summary = side_summary([film()])
    assert summary["unilateral"]["films"] == 1
    assert summary["bilateral"] == {"films": 0, "films_without_area": 0}


def test_areas_of_another_number_are_refused():
    with pytest.raises(ShapeError, match="six zones"):
        film(true=(1, 2, 3))
