"""The door to every data set, and shares of the training data: nested, by patient, measured in images."""

from itertools import pairwise
from pathlib import Path

import pytest

from textray.data.base import Sample, keep_share, open_reader, trained_without_report
from textray.errors import LayoutError, UsageError

SHARES = (0.15, 0.25, 0.5, 1.0)


def sample(name, patient=None):
    return Sample(image_id=name, image_path=Path(f"{name}.png"), patient_id=patient, split="fit")


@pytest.fixture(scope="module")
def samples():
    """60 images: 20 without a patient, 40 of 10 patients with 1 to 7 images each, mixed."""
    owners = [None] * 20 + [f"p{i}" for i, n in enumerate((1, 7, 2, 6, 3, 5, 4, 4, 2, 6)) for _ in range(n)]
    return [sample(f"image{i:02d}", owners[(i * 7) % 60]) for i in range(60)]


def names(kept):
    return [s.image_id for s in kept]


@pytest.mark.parametrize("seed", range(5))
def test_smaller_shares_of_the_images_lie_in_larger_ones_and_are_reached_within_one_group(samples, seed):
    kept = [set(names(keep_share(samples, share, seed=seed))) for share in SHARES]
    for smaller, larger in pairwise(kept):
        assert smaller < larger
    for share, found in zip(SHARES, kept, strict=True):
        assert share * 60 <= len(found) < share * 60 + 7


@pytest.mark.parametrize("seed", range(5))
def test_patients_are_kept_or_left_whole(samples, seed):
    kept = keep_share(samples, 0.5, seed=seed)
    left = {s.patient_id for s in samples if s not in kept} - {None}
    assert not left & {s.patient_id for s in kept}
    assert {s.patient_id for s in kept if s.patient_id}
    without = [s for s in kept if s.patient_id is None]
    assert 0 < len(without) < 20, "images without a patient are drawn one by one"


def test_the_seed_chooses_and_order_stays_and_does_not_decide(samples):
    kept = keep_share(samples, 0.25, seed=3)
    assert names(kept) == sorted(names(kept))
    backwards = keep_share(samples[::-1], 0.25, seed=3)
    assert names(backwards) == names(kept)[::-1]
    assert len({tuple(names(keep_share(samples, 0.25, seed=seed))) for seed in range(5)}) == 5


def test_binary_fractions_do_not_add_an_image():
    lone = [sample(f"i{i}") for i in range(10)]
    assert [len(keep_share(lone, share)) for share in (0.1, 0.3, 0.6, 0.7)] == [1, 3, 6, 7]
    assert keep_share([], 0.5) == []


@pytest.mark.parametrize("share", [0, -0.1, 1.01, float("nan")])
def test_a_share_out_of_range_is_refused(samples, share):
    with pytest.raises(UsageError, match="above 0, at most 1"):
        keep_share(samples, share)


def test_wrong_names_and_folders_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"qata_cov19 is read from a folder.*--data\.root.*docs/datasets"):
        open_reader("qata_cov19", None)
    with pytest.raises(UsageError, match=r"unknown data set 'qata'.*qata_cov19"):
        open_reader("qata", tmp_path)
    with pytest.raises(LayoutError, match="Train Set"):
        open_reader("qata_cov19", tmp_path)
    with pytest.raises(UsageError, match="one cut only"):
        open_reader("qata_cov19", tmp_path, split_by="slice")


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"data": {"report_dropout": 0.4}}, True),
        ({"data": {"report_dropout": 0.0}}, False),
        ({"data": {"report_dropout": 0.0, "without_text": {"fit": 0, "inner": 3}}}, False),
        ({"data": {"report_dropout": 0.0, "without_text": {"fit": 1, "inner": 0}}}, True),  # films without a caption
        ({"data": {"report_dropout": 0.6}, "self_guided": 0.5}, True),
        ({"data": {"report_dropout": 0.6}, "self_guided": 1.0}, False),  # each of them had a report of its own
        ({"data": {"name": "published"}}, None),
        ({}, None),
    ],
)
def test_a_network_can_do_without_reports_where_samples_went_without(facts, expected):
    assert trained_without_report(facts) is expected
