import numpy as np
import pytest

from textray.io.levels import Levels, distribution, percentiles, stacked, strips


def drawn(seed, size=(700, 301)):
    random = np.random.default_rng(seed)
    levels = np.minimum(random.integers(0, 200 * (seed + 1), size) ** 2 // 50, 4095).astype(np.uint16)
    return Levels.of(levels, random.permutation(4096).astype(np.float32) / np.float32(4095))


@pytest.mark.parametrize("seed", range(5))
def test_percentiles_of_levels_are_those_of_all_pixels_to_the_bit(seed):
    film, shares = drawn(seed, (53, 31 + seed)), (0, 0.5, 2, 50, 97.3, 99.5, 100)
    assert percentiles(*distribution(film), shares) == tuple(np.percentile(film[:], shares))


def test_levels_are_indexed_like_the_array_of_their_pixels():
    film = drawn(3)
    pixels = film.table[film.levels]
    for index in (slice(None), slice(5, 9), (slice(None, None, 7), slice(3, 40)), (slice(None), np.array([4, 4, 0]))):
        np.testing.assert_array_equal(film[index], pixels[index])
    np.testing.assert_array_equal(film.T[:], pixels.T)


@pytest.mark.parametrize("shape", [(1, 1), (3, 100_000), (100_000, 3), (500, 400, 3)])
def test_strips_cover_an_array_once(shape):
    values = np.arange(np.prod(shape)).reshape(shape)
    np.testing.assert_array_equal(stacked((values[rows] for rows in strips(shape)), shape[0]), values)
