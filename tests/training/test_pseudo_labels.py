"""Pseudo-labels on disk: how they move, and that files and epochs stay together."""

import numpy as np
import pytest

from textray.augment import Geometry
from textray.errors import ShapeError, UsageError
from textray.training.pseudo_labels import PseudoLabels, moved

pytestmark = pytest.mark.usefixtures("real_fsync")  # what survives a crash is asked

SIZE = (6, 8)


@pytest.fixture
def planes():
    return np.random.default_rng(0).random((3, *SIZE)).astype(np.float32)


@pytest.fixture
def labels(tmp_path, planes):
    store = PseudoLabels(tmp_path / "labels", count=3, size=SIZE)
    store.start(iter(planes))
    store.open(0)
    return store


def epoch(store, change):
    store.prepare()
    store.begin()
    for row in range(store.count):
        store.write(row, change(store.read(row)))
    store.flush()
    store.finish()
    store.open(store.epoch + 1)


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.99])
def test_after_n_equal_predictions_beta_to_the_n_of_the_first_label_is_left(labels, planes, beta):
    found = np.random.default_rng(1).random(SIZE).astype(np.float32)
    for n in range(1, 13):
        epoch(labels, lambda old: moved(old, found, Geometry(), beta))
        expected = found + beta**n * (planes[1] - found)
        np.testing.assert_allclose(labels.read(1), expected, atol=(n + 1) * 0.51 / 65535)
    assert labels.epoch == 12


def test_what_was_pushed_out_keeps_its_label(planes):
    way = Geometry(flipped=True, down=2, across=-3)
    found = np.full(SIZE, 1, np.float32)
    label = moved(planes[0], found, way, 0.75)
    seen = way.back(found)[1]
    assert 0 < seen.sum() < seen.size
    np.testing.assert_array_equal(label[~seen], planes[0][~seen])
    np.testing.assert_allclose(label[seen], 0.75 * planes[0][seen] + 0.25, atol=1e-6)


def test_a_prediction_moves_the_label_where_it_belongs():
    """A lesion found in the mirrored, shifted picture is learned on the side where it is."""
    old, found = np.zeros((20, 30), np.float32), np.zeros((20, 30), np.float32)
    found[8:12, 22:26] = 1
    label = moved(old, found, Geometry(flipped=True, across=2), 0.5)
    rows, columns = np.nonzero(label >= 0.25)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (8, 11, 6, 9)


def test_the_labels_of_the_last_checkpoint_outlive_a_kill(tmp_path, labels, planes):
    epoch(labels, lambda old: old * 0.5)
    folder = labels.folder
    # A kill within an epoch: half of the next labels are written.
    labels.prepare(keep=1)
    labels.begin()
    labels.write(0, np.ones(SIZE, np.float32))
    np.testing.assert_allclose(labels.read(0), planes[0] / 2, atol=1e-4)  # an epoch reads what it began with
    again = PseudoLabels(folder, count=3, size=SIZE)
    again.open(1)
    np.testing.assert_allclose(again.read(0), planes[0] / 2, atol=1e-4)
    # A kill after the new labels were put in place, before a checkpoint named them.
    epoch(again, lambda old: old * 0)
    once_more = PseudoLabels(folder, count=3, size=SIZE)
    once_more.open(1)
    epoch(once_more, lambda old: old * 0.5)
    np.testing.assert_allclose(once_more.read(2), planes[2] / 4, atol=1e-4)
    # Only what is needed is kept.
    once_more.prepare(keep=2)
    assert sorted(path.name for path in folder.iterdir()) == ["labels-0002.u16", "labels-0003.part", "teacher.bits"]


def test_labels_of_another_epoch_or_of_other_images_are_refused(labels):
    with pytest.raises(UsageError, match=r"epoch 4.*--fresh"):
        labels.open(4)
    with pytest.raises(UsageError, match="4 images of 6 x 8"):
        PseudoLabels(labels.folder, count=4, size=SIZE).open(0)
    with pytest.raises(ShapeError, match="pseudo-label"):
        labels.start([np.zeros((3, 3), np.float32)] * 3)
    with pytest.raises(ShapeError, match="pseudo-labels"):
        labels.start([np.zeros(SIZE, np.float32)] * 2)


def test_scores_by_hand(tmp_path):
    store = PseudoLabels(tmp_path, count=2, size=(2, 4))
    first = np.zeros((2, 2, 4), np.float32)
    first[0, 0] = 0.9  # four pixels of the teacher's
    store.start(first)
    store.open(0)
    truth = np.zeros((2, 2, 4), bool)
    truth[0, 0, :2] = truth[1, 1, 3] = True
    before = store.scores(lambda row: truth[row])
    assert before["changed"] == 0
    assert before["dice_teacher"] == 1
    assert before["dice_truth"] == pytest.approx(2 * 2 / (4 + 3))
    store.prepare()
    store.begin()
    latest = first.copy()
    latest[0, 0, 2:] = 0.4999
    latest[1, 1, 3] = 0.5
    for row in range(2):
        store.write(row, latest[row])
    after = store.scores(lambda row: truth[row])
    assert after["changed"] == pytest.approx(3 / 16)
    assert after["dice_truth"] == 1
    assert after["dice_teacher"] == pytest.approx(2 * 2 / (4 + 3))
