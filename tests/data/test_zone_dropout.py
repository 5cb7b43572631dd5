"""Zones withheld from report and mask together, and zones denied."""

from collections import Counter

import numpy as np
import pytest

from textray.data.zone_dropout import REACH, deny, deny_zones, drop_zones
from textray.records import Laterality, Report, Zones, ZoneState
from textray.text.zones import sentence

SIZE = 100
BOTH = Zones.from_present([1, 1, 1, 0, 1, 1])


def report_of(zones, laterality=Laterality.VIEWER):
    return Report(zones=zones, text=sentence(zones), laterality=laterality)


def both_lungs():
    """One lesion on each side; the left one reaches from 10 to 90 and over the middle line, the right one 35 to 85."""
    mask = np.zeros((SIZE, SIZE), bool)
    mask[10:90, 10:40] = True
    mask[50:55, 40:52] = True
    mask[35:85, 60:90] = True
    return mask


def draws(mask, report, count=60):
    return [drop_zones(mask, report, np.random.default_rng(seed)) for seed in range(count)]


@pytest.mark.parametrize("seed", range(60))
def test_what_is_left_lies_where_the_report_still_reaches(seed):
    mask = both_lungs()
    kept, left = drop_zones(mask, report_of(BOTH), np.random.default_rng(seed))
    assert left.text == sentence(left.zones)
    assert left.zones != BOTH
    assert (kept <= mask).all()
    for side, columns in enumerate((slice(0, 52), slice(52, SIZE))):  # the left lesion is the left side's, all of it
        before, now = (z.present[side * 3 : side * 3 + 3] for z in (BOTH, left.zones))
        assert all(b or not n for b, n in zip(before, now, strict=True))
        reached = np.zeros(SIZE, bool)
        for level, (top, end) in enumerate(REACH):
            if now[level]:
                reached[round(top * SIZE) : round(end * SIZE)] = True
        if now == before:
            reached[:] = True
        expected = mask[:, columns] & reached[:, None]
        assert np.array_equal(kept[:, columns], expected)


def test_sides_and_heights_are_both_withheld():
    left = [found[1].zones.present for found in draws(both_lungs(), report_of(BOTH))]
    one_side = [not any(z[:3]) or not any(z[3:]) for z in left]
    assert 20 < sum(one_side) < 55
    assert any(any(z[:3]) and any(z[3:]) for z in left)
    assert {(1, 1, 1, 0, 0, 0), (0, 0, 0, 0, 1, 1)} <= {tuple(int(x) for x in z) for z in left}


def test_a_lesion_on_a_side_that_was_never_named_stays():
    mask = both_lungs()
    for kept, left in draws(mask, report_of(Zones.from_present([1, 0, 1, 0, 0, 0]))):
        assert not any(left.zones.present[3:])
        assert np.array_equal(kept[:, 52:], mask[:, 52:])


@pytest.mark.parametrize(
    "report", [report_of(Zones.from_present([0, 1, 0, 0, 0, 0])), report_of(BOTH, Laterality.UNKNOWN)]
)
def test_two_zones_of_known_sides_are_needed(report):
    assert drop_zones(both_lungs(), report, np.random.default_rng(0)) is None


def test_something_is_left_to_find():
    mask = np.zeros((SIZE, SIZE), bool)
    mask[90:, 5] = True  # left lower only
    found = draws(mask, report_of(BOTH))
    assert None in found
    for kept, left in (f for f in found if f is not None):
        assert np.array_equal(kept, mask)
        assert left.zones.present[2]


HEALTHY = {3}  # of `BOTH`


def named(report, wanted=ZoneState.PRESENT):
    return {zone for zone, state in enumerate(report.zones.states) if state is wanted}


def denied_of(report):
    return named(report, ZoneState.ABSENT)


def test_the_mask_loses_what_is_denied_where_it_lies():
    """Left is the image's left: columns up to 52 are the left lesion's, the others the right one's."""
    mask, sick, kinds = both_lungs(), named(report_of(BOTH)), Counter()
    for seed in range(200):
        kept, report = deny_zones(mask, report_of(BOTH), np.random.default_rng(seed))
        gone = denied_of(report)
        assert gone
        assert report.text == (sentence(report.zones) if report.zones else None)
        if not kept.any():
            kinds["all"] += 1
            assert (gone, report.text) == (set(range(6)), None)
            continue
        if np.array_equal(kept, mask) and not gone & sick:
            kinds["healthy"] += 1
            assert kept is mask, "nothing tells it from a report that denies nothing"
            assert (gone, report.text) == (HEALTHY, sentence(BOTH))
            continue
        kinds["sick", bool(report.text)] += 1
        still = sick - gone
        assert named(report) == (still if report.text else set())
        for side, columns in enumerate((slice(0, 52), slice(52, SIZE))):
            zones = set(range(side * 3, side * 3 + 3))
            reached = np.full(SIZE, not gone & sick & zones)
            for zone in still & zones:
                top, end = REACH[zone % 3]
                reached[round(top * SIZE) : round(end * SIZE)] = True
            assert np.array_equal(kept[:, columns], mask[:, columns] & reached[:, None])
    assert 15 < kinds["all"] < 50
    assert 40 < kinds["healthy"] < 100
    assert kinds["sick", True] > kinds["sick", False] > 20, "what is left is said in words two times in three"


def test_what_can_be_denied_of_a_report():
    mask, seeds = both_lungs(), range(40)
    assert all(deny_zones(mask, report_of(BOTH, Laterality.UNKNOWN), np.random.default_rng(s)) is None for s in seeds)
    everywhere = report_of(Zones.from_present([1] * 6))  # no zone is healthy
    for kept, report in (deny_zones(mask, everywhere, np.random.default_rng(seed)) for seed in seeds):
        assert not np.array_equal(kept, mask)
        assert denied_of(report) == set(range(6)) or kept.any()
    single = report_of(Zones.from_present([0, 1, 0, 0, 0, 0]))  # nothing of it can be left
    for kept, report in (deny_zones(mask, single, np.random.default_rng(seed)) for seed in seeds):
        assert (1 in denied_of(report)) is not kept.any()


def test_to_deny_leaves_words_and_other_zones():
    report = deny(report_of(Zones.from_present([1, 0, 0, 0, 0, 0])), {1, 5})
    assert denied_of(report) == {1, 5}
    assert report.zones.present == (True, False, False, False, False, False)
    assert report.text == sentence(report.zones)
