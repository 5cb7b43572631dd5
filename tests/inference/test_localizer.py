"""A localizer on a bundle whose places know their side and brightness: maps on the film's own grid, sides, refusals."""

import json

import numpy as np
import pytest

from textray.errors import BundleError, InputError, ShapeError, UsageError
from textray.inference.bundle import Bundle, GroundingBundle, load_any
from textray.inference.bundle_files import GROUNDING_FILES, list_files
from textray.inference.localizer import Localizer, find_peak, similarity
from textray.records import Grid, Image, Laterality

SHAPE = (90, 70)


def image(orientation=("L", "F"), spot=(70, 10), shape=SHAPE):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    pixels = np.exp(-((rows - spot[0]) ** 2 + (columns - spot[1]) ** 2) / 60).astype(np.float32)
    return Image(film=pixels, grid=Grid(height=shape[0], width=shape[1], orientation=orientation))


@pytest.fixture(scope="module")
def finder(grounding_bundle):
    return Localizer(GroundingBundle.load(grounding_bundle), threads=1)


@pytest.fixture(scope="module")
def patients(make_grounding_bundle, tmp_path_factory):
    return Localizer(make_grounding_bundle(tmp_path_factory.mktemp("p") / "p", laterality="patient"), threads=1)


def side_of(values):
    """Which half of the film is higher, by the viewer's sides."""
    middle = values.shape[1] // 2
    return "left" if values[:, :middle].mean() > values[:, -middle:].mean() else "right"


def test_a_map_is_the_cosine_on_the_films_own_grid(finder):
    (found,) = finder.locate(image(), ["left"], laterality="viewer", sigma=0)
    assert found.map.shape == SHAPE
    assert found.map.dtype == np.float32
    assert -1 <= found.map.min() < found.map.max() <= 1
    assert side_of(found.map) == "left"
    local = finder.features(finder.preprocess.apply(image())[None]).local
    # a place on the left is (1, 0, brightness, 1), the phrase (1, 0, 0, 0)
    cosine = local[0, 0] / np.sqrt((local[0] ** 2).sum(0))
    expected = finder.preprocess.restore_coarse(cosine, image().grid)
    np.testing.assert_allclose(found.map, expected, atol=1e-6)
    assert found.score == found.map.max() == found.map[found.peak]


@pytest.mark.parametrize("letterbox", [False, True])
@pytest.mark.parametrize("spot", [(70, 10), (12, 60), (45, 35)])
def test_the_peak_is_where_the_spot_is(make_grounding_bundle, tmp_path, spot, letterbox):
    local = Localizer(make_grounding_bundle(tmp_path / "b", letterbox=letterbox), threads=1)
    (found,) = local.locate(image(spot=spot), ["bright"], sigma=0)
    assert abs(found.peak[0] - spot[0]) <= 90 / 8
    assert abs(found.peak[1] - spot[1]) <= 90 / 8


# The whole door: whose words, how the film lies, and what the weights were taught, down to the side of the picture.
@pytest.mark.parametrize(
    ("said", "laterality", "orientation", "side"),
    [
        ("left", "viewer", ("L", "F"), "left"),
        ("left", "viewer", ("R", "F"), "left"),
        ("left", "viewer", ("A", "F"), "left"),
        ("left", "patient", ("L", "F"), "right"),
        ("left", "patient", ("R", "F"), "left"),
        ("left", "patient", None, "right"),
        ("RIGHT", "patient", ("L", "F"), "left"),
        ("rt", "patient", ("L", "F"), "left"),
        ("left", "unknown", ("L", "F"), "left"),
    ],
)
def test_left_and_right_of_a_phrase_down_to_the_picture(finder, patients, said, laterality, orientation, side):
    (found,) = finder.locate(image(orientation), [said], laterality=laterality)
    assert side_of(found.map) == side
    assert found.told.lower() == side
    # Weights whose captions mean the patient's sides of standard films call the viewer's right "left"; their graph, the
    # same, finds the word that it reads, so it must read the other one.
    (found,) = patients.locate(image(orientation), [said], laterality=laterality)
    assert found.told.lower() == {"left": "right", "right": "left"}[side]


def test_several_phrases_at_once_each_with_its_own_sides(finder):
    both = [Laterality.PATIENT, Laterality.VIEWER]
    found = finder.locate(image(), ["left", "left"], laterality=both)
    assert [side_of(one.map) for one in found] == ["right", "left"]
    with pytest.raises(ShapeError, match="differ in number"):
        finder.locate(image(), ["left"], laterality=both)


def test_sides_are_normalised_for_evaluation(finder):
    assert finder.normalise_sides("left lung", laterality="patient", grid=image().grid) == "right lung"
    with pytest.raises(InputError, match="cannot be turned"):
        finder.normalise_sides("leftmost", laterality="patient", grid=image().grid)


def test_phrases_are_embedded_once_and_do_not_depend_on_their_neighbours(finder, monkeypatch):
    alone = np.concatenate([finder.embed([text]) for text in ("left lung", "bright opacity lower lung")])
    finder._known.clear()
    together = finder.embed(["left lung", "bright opacity lower lung", "left lung"])
    np.testing.assert_allclose(together, alone[[0, 1, 0]], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    monkeypatch.setattr(finder, "_embed", lambda phrases: pytest.fail("computed again"))
    finder.embed(["left lung"])
    assert finder.embed([]).shape == (0, 4)


def test_a_phrase_is_read_once_for_all_films_of_one_orientation(finder, monkeypatch):
    read, real = [], Localizer.read
    monkeypatch.setattr(Localizer, "read", lambda self, phrase: read.append(phrase) or real(self, phrase))
    counting = Localizer(finder.bundle, threads=1)
    for film in (image(), image(shape=(50, 60)), image(("R", "F")), image()):
        counting.locate(film, ["left lung"], laterality="patient")
    assert read == ["right lung", "left lung"]


def test_words_that_were_not_learnt_are_told(finder):
    (found,) = finder.locate(image(), ["bright pneumothorax, left"], laterality="viewer")
    assert found.unknown == ("pneumothorax",)
    (notice,) = found.notices
    assert notice.code == "W_UNKNOWN_WORD"
    assert "'pneumothorax'" in notice.text
    assert finder.locate(image(), ["bright, left."], laterality="viewer")[0].notices == ()


def test_a_phrase_that_is_too_long_says_so(finder):
    (found,) = finder.locate(image(), ["bright lung " * 30])
    assert [notice.code for notice in found.notices] == ["W_PHRASE_CUT"]


def test_a_phrase_is_cut_into_sentences_as_the_training_did(make_grounding_bundle, tmp_path, finder):
    caption = "bright opacity, two areas, left lung."
    clauses = Localizer(make_grounding_bundle(tmp_path / "c", sentences="clauses"), threads=1)
    split = Localizer(make_grounding_bundle(tmp_path / "s", sentences="split"), threads=1)
    assert len(clauses.sentences(caption)) == 3
    assert len(split.sentences(caption)) == len(finder.sentences(caption)) == 1
    assert len(split.sentences("The lungs are clear. The heart is large.")) == 2
    assert split.sentences("Cardiomegaly.") == ("Cardiomegaly.",)
    assert split.sentences("Cardiomegaly. Small effusion.") == ("Cardiomegaly.", "Small effusion.")
    # The mean over sentences is not the mean over words: the second clause weighs as much as the first.
    mean = clauses.embed(["bright, left lung"])[0]
    np.testing.assert_allclose(mean / mean[2], [0.5, 0, 1, 0.5], atol=1e-6)


def test_similarity_is_the_cosine():
    rng = np.random.default_rng(0)
    local, phrases = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(6, 3))
    local[0, :, 1, 1] = 0  # a place without features is like nothing
    found = similarity(local.astype(np.float32), phrases.astype(np.float32))
    for b, k, r, c in [(0, 0, 0, 0), (1, 5, 3, 4), (1, 2, 1, 1)]:
        place, phrase = local[b, :, r, c], phrases[k]
        expected = place @ phrase / np.linalg.norm(place) / np.linalg.norm(phrase)
        assert found[b, k, r, c] == pytest.approx(expected, abs=1e-6)
    assert (found[0, :, 1, 1] == 0).all()
    with pytest.raises(ShapeError, match="do not fit"):
        similarity(np.zeros((1, 5, 2, 2), np.float32), phrases)


def test_the_peak_of_a_plateau_is_its_middle():
    values = np.zeros((9, 9), np.float32)
    values[2:5, 4:7] = 1
    assert find_peak(values) == (3, 5)
    assert find_peak(values[:, ::-1]) == (3, 3)
    assert find_peak(np.zeros((5, 5), np.float32)) == (2, 2)


def test_a_segmenters_command_says_which_one_takes_grounding_weights(grounding_bundle, tiny_bundle):
    for kind, folder, command in ((Bundle, grounding_bundle, "ground"), (GroundingBundle, tiny_bundle, "segment")):
        with pytest.raises(BundleError, match=f"textray {command}"):
            kind.load(folder)
    assert load_any(grounding_bundle).describe()["task"] == "grounding"
    assert load_any(tiny_bundle).describe()["model"] == "mmi_unet"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": "guessing"}, "for another task"),
        ({"task": ["grounding"]}, "for another task"),
        ({"map": {"height": 0}}, "impossible size"),
        ({"width": 10**6}, "impossible size"),
        ({"text": {"laterality": "mine"}}, "not laid out as expected"),
        ({"text": {"sentences": "all"}}, "unknown way"),
        ({"text": {"most_pieces": 2}}, "impossible"),
        ({"text": {"aggregation": {"piece": "max", "word": "sum", "sentence": "mean"}}}, "aggregation"),
        ({"text": None}, "not laid out as expected"),
    ],
)
def test_a_config_that_is_wrong_is_refused(grounding_bundle, changed, changes, words):
    with pytest.raises((BundleError, UsageError), match=words):
        GroundingBundle.load(changed(grounding_bundle, **changes))


@pytest.mark.parametrize(
    ("file", "data", "words"),
    [
        ("text.onnx", "image.onnx", "another signature"),
        ("image.onnx", "vocab.txt", "cannot be loaded"),
        ("vocab.txt", "README.md", "no vocabulary"),
    ],
)
def test_files_that_are_not_what_their_names_say_are_refused(grounding_bundle, changed, file, data, words):
    copy = changed(grounding_bundle)
    (copy / file).write_bytes((copy / data).read_bytes())
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"files": list_files(copy, GROUNDING_FILES)}))
    with pytest.raises(BundleError, match=words):
        Localizer(GroundingBundle.load(copy), threads=1)


def test_the_hash_is_of_what_decides(grounding_bundle, make_grounding_bundle, tmp_path):
    known = GroundingBundle.load(grounding_bundle)
    again = make_grounding_bundle(tmp_path / "again", name="other", provenance={"data": "other"})
    assert known.sha256 == again.sha256
    assert make_grounding_bundle(tmp_path / "p", laterality="patient").sha256 != known.sha256


def test_pixels_of_another_size_are_refused(finder):
    with pytest.raises(ShapeError, match="does not fit the network"):
        finder.features(np.zeros((1, 3, 32, 32), np.float32))
    with pytest.raises(UsageError, match="threads"):
        Localizer(finder.bundle, threads=0)
