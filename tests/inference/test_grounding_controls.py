"""Controls and floors of grounding: phrases that are wrong on purpose, and maps that saw nothing."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from textray.data.base import Sample
from textray.errors import DataError
from textray.evaluate.maps import centre, mean_masks, mirrored, random_direction, random_map, shuffled, wording
from textray.preprocess import Preprocess
from textray.records import Laterality, Zones
from textray.text.zones import bank_sentences, parse_caption

SIDE = 8


def sample(phrase="opacity", label="Opacity", image="film", **more):
    return Sample(
        image_id=image,
        image_path=Path(f"{image}.png"),
        phrase=phrase,
        label=label,
        laterality=Laterality.VIEWER,
        split="train",
        **more,
    )


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("opacity in the left lung", "opacity in the right lung"),
        ("Left-sided effusion, right base clear", "Right-sided effusion, left base clear"),
        ("lower left lung and upper right lung", "upper left lung and lower right lung"),
        ("upper middle left lung", "upper middle right lung"),
        ("opacities in the left base and right base", "opacities in the right base and left base"),
        ("left lung and right lung", None),
        ("opacities in the left and right base", None),
        ("Right- and left-sided effusions.", None),
        ("left/right apical caps", None),
        ("effusion, left greater than right", "effusion, right greater than left"),
        ("opacity in the lingula and left base", None),  # whose lingula would lie on the right
        ("enlarged heart", None),
        ("opacity on the leftmost margin", None),
    ],
)
def test_sides_are_exchanged_where_that_says_something_else(phrase, expected):
    assert mirrored(phrase) == expected


def test_captions_are_mirrored_into_the_wording_that_captions_have():
    """Order of sides and counts stay as in the data set: a network shall meet other sides, not other words."""
    for index, caption in enumerate(bank_sentences()[1:], start=1):
        zones = Zones.from_index(index)
        found = mirrored(caption)
        if zones == zones.mirror():
            assert found is None
        else:
            assert found in bank_sentences()
            assert parse_caption(found).zones == zones.mirror()
            place = caption.removesuffix(".").rsplit(", ", 1)[-1]
            assert mirrored(place) == found.removesuffix(".").rsplit(", ", 1)[-1]


def test_shuffled_phrases_are_of_another_class_or_other_words_and_repeat():
    many = [sample(f"phrase {i}", label) for i, label in enumerate("aabbc")]
    for own, other in zip(many, shuffled(many, seed=3), strict=True):
        assert own.label != other.label
    one = [sample(words) for words in ("Effusion.", "effusion", "opacity", "nodule")]
    found = shuffled(one, seed=3)
    assert all(wording(own.phrase) != wording(other.phrase) for own, other in zip(one, found, strict=True))
    assert found == shuffled(one, seed=3)
    assert shuffled([sample(), sample(image="other")], seed=3) == [None, None]


def test_chance_belongs_to_image_and_phrase():
    first, again, other = (random_direction(sample(image=name), 16, seed=1) for name in ("a", "a", "b"))
    assert np.linalg.norm(first) == pytest.approx(1, abs=1e-6)
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)
    noise = random_map(sample(), (28, 28), sigma=1.5, seed=1)
    assert noise.shape == (28, 28)
    assert noise.std() < random_map(sample(), (28, 28), sigma=0, seed=1).std()


def test_the_centre_is_in_the_centre():
    values = centre((9, 13))
    assert values.shape == (9, 13)
    assert np.unravel_index(values.argmax(), values.shape) == (4, 6)
    assert np.allclose(values, values[::-1, ::-1])


@pytest.fixture
def training(tmp_path):
    """Four films of 8 x 8 pixels, each with one quarter marked."""
    found = []
    for place, (phrase, label) in enumerate([("a", "one"), ("A.", "one"), ("b", "one"), ("c", "two")]):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        top, left = divmod(place, 2)
        mask[top * 4 : top * 4 + 4, left * 4 : left * 4 + 4] = 255
        path = tmp_path / f"mask_{place}.png"
        PILImage.fromarray(mask).save(path)
        found.append(sample(phrase, label, mask_path=path))
    return found


def test_mean_masks_of_all_of_a_class_and_of_a_phrase(training):
    means = mean_masks(training, Preprocess(size=(SIDE, SIDE)), ["a", "new words"])
    assert means.count == 4
    assert np.allclose(means.whole, 0.25)
    assert means.of(sample("a", "one"))[0, 0] == 0.5  # two of the films say it, one of them is marked there
    assert means.of(sample("new words", "two"))[7, 7] == 1
    assert means.of(sample("new words", "one"))[0, 0] == pytest.approx(1 / 3)
    assert np.allclose(means.of(sample("new words", "three")), 0.25)
    assert set(means.by_phrase) == {"a"}  # nobody asked for the others


def test_mean_masks_of_boxes_lie_on_the_padded_grid_of_the_network():
    wide = sample(boxes=((0.0, 0.0, 10.0, 10.0), (5.0, 0.0, 10.0, 10.0)), box_space=(20, 10))
    values = mean_masks([wide], Preprocess(size=(20, 20), letterbox=True), []).whole
    assert set(np.unique(values)) == {0, 1}  # overlapping boxes count once
    assert values[5:15, :15].all()
    assert values.sum() == 150


def test_no_mean_without_masks():
    with pytest.raises(DataError, match="training phrases"):
        mean_masks([], Preprocess(size=(8, 8)), [])
    with pytest.raises(DataError, match="neither a mask nor boxes"):
        mean_masks([sample()], Preprocess(size=(8, 8)), [])
