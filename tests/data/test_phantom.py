import numpy as np
import pytest

from textray.data.phantom import Phantom, draw
from textray.errors import UsageError
from textray.io.read import read, read_mask
from textray.records import Zones
from textray.text.zones import sentence

SIZES = [(224, 224), (64, 64), (97, 41), (40, 130), (16, 16)]


def zones_of(mask):
    """Zones that hold mask pixels, written again from the rule: halves, and heights split at 0.375 and 0.55."""
    rows, columns = ((np.arange(length) + 0.5) / length for length in mask.shape)
    levels = [(rows >= low) & (rows < high) for low, high in ((0, 0.375), (0.375, 0.55), (0.55, 1))]
    return tuple(bool(mask[np.ix_(level, side)].any()) for side in (columns < 0.5, columns >= 0.5) for level in levels)


@pytest.mark.parametrize("size", SIZES)
def test_lesions_lie_in_the_zones_said_and_in_no_other(size):
    for index in range(0, 64, 3 if size[0] < 200 else 13):
        pixels, mask, zones = draw(index, size, Zones.from_index(index))
        assert pixels.shape == mask.shape == size
        assert pixels.dtype == np.float32
        assert mask.dtype == np.bool_
        assert 0 <= pixels.min() < pixels.max() <= 1
        assert zones.index == index
        assert zones_of(mask) == zones.present


def test_same_seed_same_film_another_seed_another():
    first, again, other = draw(3, (48, 48)), draw(3, (48, 48)), draw(4, (48, 48))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert first[2] == again[2]
    assert np.abs(first[0] - other[0]).max() > 0.05
    drawn = {draw(seed, (24, 24))[2].index for seed in range(40)}  # zones, where none are given
    assert len(drawn) > 20
    assert 0 not in drawn


def test_film_looks_like_a_film():
    pixels, _, _ = draw(0, (200, 200), Zones())
    lungs = pixels[70:110, 45:70].mean(), pixels[70:110, 130:155].mean()
    heart, spine, air = pixels[125:145, 105:130].mean(), pixels[150:160, 95:105].mean(), pixels[:10, :10].mean()
    assert air < 0.1 < max(lungs) < 0.6 * heart
    assert spine > 1.5 * max(lungs)
    assert pixels[130:140, 115:140].mean() > 1.3 * pixels[130:140, 60:85].mean()  # the heart is on the viewer's right


def test_lesions_are_brighter_than_the_lung_without_them():
    zones = Zones.from_present([0, 1, 0, 0, 0, 1])
    clear, _, _ = draw(5, (160, 160), Zones())
    ill, mask, _ = draw(5, (160, 160), zones)
    assert 0.01 < mask.mean() < 0.2
    for half in (slice(0, 80), slice(80, 160)):
        inside = mask[:, half]
        assert ill[:, half][inside].mean() > clear[:, half][inside].mean() + 0.1


def test_too_small_is_refused():
    with pytest.raises(UsageError, match="16"):
        draw(0, (8, 64))
    with pytest.raises(UsageError, match="10"):
        Phantom("x", n=3)


def test_reader_gives_splits_of_real_files(tmp_path):
    reader = Phantom(tmp_path, n=30, size=(32, 40), seed=2)
    splits = {split: reader.samples(split) for split in ("train", "val", "test", "inner", "fit")}
    assert {name: len(found) for name, found in splits.items() if name not in ("inner", "fit")} == {
        "train": 24, "val": 6, "test": 9,
    }  # fmt: skip
    assert {s.image_id for s in splits["inner"] + splits["fit"]} == {s.image_id for s in splits["train"]}
    assert splits["inner"]
    pixels, mask, zones = draw(2 * 1_000_003, (32, 40))
    sample = splits["train"][0]
    np.testing.assert_allclose(read(sample.image_path).pixels, pixels, atol=0.5 / 255 + 1e-6)
    np.testing.assert_array_equal(read_mask(sample.mask_path), mask)
    assert sample.report.text == sentence(zones)
    for sample in splits["val"]:
        assert zones_of(read_mask(sample.mask_path)) == sample.report.zones.present
    assert reader.check().ok


def test_films_are_drawn_once(tmp_path):
    first = Phantom(tmp_path, n=10, size=(16, 16)).samples("train")
    times = [s.image_path.stat().st_mtime_ns for s in first]
    again = Phantom(tmp_path, n=10, size=(16, 16)).samples("train")
    assert [s.image_path.stat().st_mtime_ns for s in again] == times
    assert not list(tmp_path.glob("*.part"))
    assert Phantom(tmp_path, n=10, size=(16, 16), seed=1).samples("train")[0].image_path != first[0].image_path
