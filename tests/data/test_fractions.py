"""Shares of the training data: nested, by patient, measured in images."""

from itertools import pairwise
from pathlib import Path

import pytest

from textray.data.base import Sample, keep_share
from textray.errors import UsageError
from textray.records import Report, Zones

SHARES = (0.15, 0.25, 0.5, 1.0)


def sample(name, patient=None):
    path = Path(f"{name}.png")
    return Sample(
        image_id=name, image_path=path, mask_path=path, report=Report(zones=Zones()), patient_id=patient, split="fit"
    )


@pytest.fixture(scope="module")
def samples():
    """60 images: 20 without a patient, 40 of 10 patients with 1 to 7 images each, mixed."""
    owners = [None] * 20 + [f"p{i}" for i, n in enumerate((1, 7, 2, 6, 3, 5, 4, 4, 2, 6)) for _ in range(n)]
    return [sample(f"image{i:02d}", owners[(i * 7) % 60]) for i in range(60)]


def names(kept):
    return [s.image_id for s in kept]


@pytest.mark.parametrize("seed", range(5))
def test_smaller_shares_lie_in_larger_ones(samples, seed):
    kept = [set(names(keep_share(samples, share, seed=seed))) for share in SHARES]
    for smaller, larger in pairwise(kept):
        assert smaller < larger
    assert kept[-1] == set(names(samples))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", SHARES)
def test_the_share_is_one_of_images_reached_within_one_group(samples, share, seed):
    kept = keep_share(samples, share, seed=seed)
    assert share * 60 <= len(kept) < share * 60 + 7


@pytest.mark.parametrize("seed", range(5))
def test_patients_are_kept_or_left_whole(samples, seed):
    kept = keep_share(samples, 0.5, seed=seed)
    left = {s.patient_id for s in samples if s not in kept} - {None}
    assert not left & {s.patient_id for s in kept}
    assert {s.patient_id for s in kept if s.patient_id}
    without = [s for s in kept if s.patient_id is None]
    assert 0 < len(without) < 20, "images without a patient are drawn one by one"


def test_order_stays_and_does_not_decide(samples):
    kept = keep_share(samples, 0.25, seed=3)
    assert names(kept) == sorted(names(kept))
    backwards = keep_share(samples[::-1], 0.25, seed=3)
    assert names(backwards) == names(kept)[::-1]


def test_the_seed_chooses(samples):
    assert names(keep_share(samples, 0.25, seed=0)) == names(keep_share(samples, 0.25, seed=0))
    assert len({tuple(names(keep_share(samples, 0.25, seed=seed))) for seed in range(5)}) == 5


def test_binary_fractions_do_not_add_an_image():
    lone = [sample(f"i{i}") for i in range(10)]
    assert [len(keep_share(lone, share)) for share in (0.1, 0.3, 0.6, 0.7)] == [1, 3, 6, 7]
    assert keep_share([], 0.5) == []


@pytest.mark.parametrize("share", [0, -0.1, 1.01, float("nan")])
def test_a_share_out_of_range_is_refused(samples, share):
    with pytest.raises(UsageError, match="above 0, at most 1"):
        keep_share(samples, share)


def test_training_keeps_a_share_of_fit_and_all_of_inner():
    module = pytest.importorskip("textray.data.segmentation")

    def facts(**options):
        data = module.SegmentationData(data="phantom", size=(32, 32), workers=0, batch_size=4, **options)
        data.setup("fit")
        return data.describe(), {split: set(names(held.samples)) for split, held in data.sets.items()}

    (whole, all_ids), (half, half_ids) = facts(), facts(train_fraction=0.5, fraction_seed=1)
    assert half_ids["inner"] == all_ids["inner"]
    assert half_ids["fit"] < all_ids["fit"]
    assert (half["train_fraction"], half["fraction_seed"]) == (0.5, 1)
    assert half["images"]["fit"] == len(half_ids["fit"])
    assert half["groups"]["fit"] < whole["groups"]["fit"]
    assert half["ids_sha256"]["inner"] == whole["ids_sha256"]["inner"]
    assert half["ids_sha256"]["fit"] != whole["ids_sha256"]["fit"]
    assert facts(train_fraction=0.5, fraction_seed=2)[1]["fit"] != half_ids["fit"]
