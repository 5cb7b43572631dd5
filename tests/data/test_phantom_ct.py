"""Synthetic CT slices: zones hold what they say, and the set behaves as MosMedData+ does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from textray.data.base import open_reader
from textray.data.phantom_ct import PhantomCT, draw_slice
from textray.errors import UsageError
from textray.io.read import read, read_mask
from textray.records import Laterality, Zones

SIZES = [(224, 224), (64, 64), (97, 41), (40, 130), (16, 16)]


def zones_of(mask: np.ndarray) -> tuple[bool, ...]:
    """Zones that hold mask pixels, written again from the rule: halves, and heights split at 0.375 and 0.55."""
    height, width = mask.shape
    rows = (np.arange(height) + 0.5) / height
    columns = (np.arange(width) + 0.5) / width
    return tuple(
        bool(mask[np.ix_((rows >= low) & (rows < high), side)].any())
        for side in (columns < 0.5, columns >= 0.5)
        for low, high in ((0, 0.375), (0.375, 0.55), (0.55, 1))
    )


@pytest.mark.parametrize("size", SIZES)
def test_lesions_lie_in_the_zones_said_and_in_no_other(size: tuple[int, int]) -> None:
    for index in range(0, 64, 5 if size[0] < 200 else 21):
        pixels, mask, zones = draw_slice(index, size, Zones.from_index(index))
        assert pixels.shape == mask.shape == size
        assert (pixels.dtype, mask.dtype) == (np.float32, np.bool_)
        assert 0 <= pixels.min() < pixels.max() <= 1
        assert zones.index == index
        assert zones_of(mask) == zones.present


def test_same_seed_same_slice_and_zones_are_drawn_where_not_given() -> None:
    first, again, other = draw_slice(3, (48, 48)), draw_slice(3, (48, 48)), draw_slice(4, (48, 48))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert np.abs(first[0] - other[0]).max() > 0.05
    drawn = {draw_slice(seed, (16, 16))[2].index for seed in range(30)}
    assert len(drawn) > 15
    assert 0 not in drawn


def test_a_slice_looks_like_one() -> None:
    clear, _, _ = draw_slice(0, (200, 200), Zones())
    lungs = clear[80:110, 45:70].mean(), clear[80:110, 130:155].mean()
    heart, bone, outside = clear[80:95, 100:115].mean(), clear[143:151, 97:103].mean(), clear[:20].mean()
    assert outside < 0.1 < max(lungs) + 0.05 < heart < bone
    ill, mask, _ = draw_slice(0, (200, 200), Zones.from_present([0, 1, 0, 0, 0, 1]))
    assert 0.003 < mask.mean() < 0.1
    assert ill[mask].mean() > clear[mask].mean() + 0.15


def test_too_small_is_refused() -> None:
    with pytest.raises(UsageError, match="16"):
        draw_slice(0, (8, 64))
    with pytest.raises(UsageError, match="30"):
        PhantomCT("x", n=3)


def test_the_set_has_both_cuts_and_unknown_sides(tmp_path: Path) -> None:
    reader = PhantomCT(tmp_path, size=(24, 28), seed=2)
    assert {split: len(reader.samples(split)) for split in ("train", "val", "test")} == {
        "train": 72, "val": 9, "test": 9,
    }  # fmt: skip
    by_volume = PhantomCT(tmp_path, size=(24, 28), seed=2, split_by="volume")
    volumes = [{s.patient_id for s in by_volume.samples(split)} for split in ("train", "val", "test")]
    assert [len(found) for found in volumes] == [24, 3, 3]
    assert len(set.union(*volumes)) == 30, "no volume lies in two parts"
    assert by_volume.samples("inner")
    sample = reader.samples("val")[0]
    assert sample.report.laterality is Laterality.UNKNOWN
    assert zones_of(read_mask(sample.mask_path)) == sample.report.zones.present
    pixels, mask, _ = draw_slice(2 * 1_000_003, (24, 28))
    first = reader.samples("train")[0]
    np.testing.assert_allclose(read(first.image_path).pixels, pixels, atol=0.5 / 255 + 1e-6)
    np.testing.assert_array_equal(read_mask(first.mask_path), mask)
    result = reader.check()
    assert result.ok
    assert "W_VOLUME_LEAK" in {problem.code for problem in result.problems}


def test_slices_are_drawn_once_and_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTRAY_CACHE", str(tmp_path))
    monkeypatch.setattr(PhantomCT.__init__, "__kwdefaults__", {**PhantomCT.__init__.__kwdefaults__, "size": (16, 16)})
    first = open_reader("phantom_ct", None, split_by="volume").samples("test")
    times = [s.image_path.stat().st_mtime_ns for s in first]
    again = open_reader("phantom_ct", None, split_by="volume").samples("test")
    assert [s.image_path.stat().st_mtime_ns for s in again] == times
    assert not list(tmp_path.rglob("*.part"))
