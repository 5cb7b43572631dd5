"""Pictures that are no chest films."""

import numpy as np
import pytest

from textray.data.elsewhere import elsewhere
from textray.data.phantom import draw


@pytest.mark.parametrize("shape", [(64, 48), (224, 224)])
def test_they_have_the_films_size_and_range_and_differ(shape):
    film = draw(1, shape)[0]
    kinds = set()
    for seed in range(40):
        picture = elsewhere(film, np.random.default_rng(seed))
        assert (picture.shape, picture.dtype) == (film.shape, np.float32)
        np.testing.assert_array_equal(picture, picture.clip(0, 1))
        assert not np.array_equal(picture, film)
        np.testing.assert_array_equal(picture, elsewhere(film, np.random.default_rng(seed)))
        kinds.add(picture.tobytes())
    assert len(kinds) > 20
