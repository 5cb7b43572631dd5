"""Results are written whole or not at all, and show what they claim."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from textray.errors import DiskError, OutputError, ShapeError, TextRayError
from textray.io import write

pytestmark = pytest.mark.usefixtures("real_fsync")  # what survives a crash is asked


def names(folder):
    return [path.name for path in folder.iterdir()]


def fail_with(code):
    def failing(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    return failing


def test_a_file_is_replaced_and_no_other_remains(tmp_path):
    path = tmp_path / "record.json"
    path.write_bytes(b"old")
    write.atomic_write(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["record.json"]


@pytest.mark.parametrize(
    ("step", "code", "error"),
    [
        ("fsync", errno.ENOSPC, DiskError),
        ("replace", errno.EDQUOT, DiskError),
        ("fsync", errno.EFBIG, DiskError),
        ("replace", errno.EIO, DiskError),
        ("replace", errno.EROFS, OutputError),
        ("fsync", errno.EACCES, OutputError),
    ],
)
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, step, code, error):
    path = tmp_path / "film.mask.png"
    path.write_bytes(b"old")
    monkeypatch.setattr(*((write.os, "fsync") if step == "fsync" else (Path, "replace")), fail_with(code))
    with pytest.raises(error) as caught:
        write.atomic_write(path, b"new")
    assert caught.value.code == error.default_code
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["film.mask.png"]


def test_an_interrupt_removes_the_temporary_file(tmp_path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(write.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write.atomic_write(tmp_path / "a.json", b"new")
    assert names(tmp_path) == []


def test_a_failing_disk_after_the_rename_is_an_error(tmp_path, monkeypatch):
    real, calls = os.fsync, []

    def second_fails(handle):
        calls.append(handle)
        return real(handle) if len(calls) == 1 else fail_with(errno.EIO)()

    monkeypatch.setattr(write.os, "fsync", second_fails)
    with pytest.raises(DiskError):
        write.atomic_write(tmp_path / "a.json", b"new")


def test_long_names_are_written(tmp_path):
    path = tmp_path / ("x" * 246 + ".mask.png")
    write.write_mask(path, np.eye(32, dtype=bool))
    assert path.is_file()


def test_check_writable_creates_the_folder_and_leaves_nothing(tmp_path):
    folder = write.check_writable(tmp_path / "a" / "b")
    assert folder.is_dir()
    assert names(folder) == []
    (tmp_path / "out").write_text("mine")
    for folder in (tmp_path / "out", tmp_path / "out" / "below"):
        with pytest.raises(OutputError, match="--out") as caught:
            write.check_writable(folder)
        assert caught.value.exit_code == 2
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize(("code", "error"), [(errno.EROFS, OutputError), (errno.ENOSPC, DiskError)])
def test_check_writable_refuses_a_folder_that_it_cannot_write_to(tmp_path, monkeypatch, code, error):
    monkeypatch.setattr(Path, "open", fail_with(code))
    with pytest.raises(error):
        write.check_writable(tmp_path)


def test_json_keeps_order_and_words(tmp_path):
    path = tmp_path / "a.json"
    record = {
        "zone": "links, größer",
        "area": np.float32(0.5),
        "n": np.int64(3),
        "file": Path("b.png"),
        "name": "x\udcff.png",
    }
    write.write_json(path, record)
    raw = path.read_bytes()
    assert raw.endswith(b"}\n")
    text = raw.decode("utf-8")
    assert "größer" in text
    back = json.loads(text)
    assert list(back) == list(record)
    assert back == {**record, "area": 0.5, "n": 3, "file": "b.png"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("nan"), {1, 2}])
def test_json_refuses_what_it_cannot_hold(tmp_path, value):
    with pytest.raises(TextRayError, match="JSON"):
        write.write_json(tmp_path / "a.json", {"value": value})
    assert names(tmp_path) == []


def test_mask_is_written_as_0_and_255(tmp_path):
    mask = np.random.default_rng(0).random((33, 57)) > 0.5
    write.write_mask(tmp_path / "m.png", mask)
    with PILImage.open(tmp_path / "m.png") as picture:
        assert picture.mode == "L"
        np.testing.assert_array_equal(np.asarray(picture), mask * 255)
    with pytest.raises(ShapeError):
        write.write_mask(tmp_path / "m.png", mask.astype(np.uint8))


def film(height, width):
    return np.random.default_rng(1).uniform(0.3, 0.6, (height, width)).astype(np.float32)


def square(height, width, top, left, side):
    mask = np.zeros((height, width), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_overlay_tints_inside_outlines_the_border_and_leaves_the_rest():
    mask = square(80, 100, 20, 30, 30)
    shown = write.render_overlay(film(80, 100), mask)
    plain = write.render_overlay(film(80, 100), np.zeros_like(mask))
    assert shown.shape == (80, 100, 3)
    assert shown.dtype == np.uint8
    np.testing.assert_array_equal(shown[~mask], plain[~mask])
    np.testing.assert_array_equal(plain[..., 0], plain[..., 2])
    np.testing.assert_array_equal(shown[20, 30:60], np.tile(write.FOUND, (30, 1)))
    inside = shown[25:45, 35:55].astype(int)
    assert np.all(inside[..., 2] >= inside[..., 0])
    assert np.std(inside[..., 0]) > 10  # the film is still seen below the tint


def test_overlay_with_truth_uses_the_papers_colours():
    mask, truth = square(90, 90, 10, 10, 40), square(90, 90, 30, 30, 40)
    shown = write.render_overlay(film(90, 90), mask, truth).astype(int)
    assert tuple(shown[10, 20]) == write.FALSE_POSITIVE
    assert tuple(shown[69, 60]) == write.FALSE_NEGATIVE
    assert tuple(shown[30, 40]) == write.TRUE_POSITIVE  # the truth's outline inside the mask
    assert tuple(shown[49, 40]) == write.TRUE_POSITIVE  # the mask's outline inside the truth
    both, only_mask, only_truth = shown[35:45, 35:45], shown[15:25, 15:25], shown[55:65, 55:65]
    assert both[..., :2].mean() > both[..., 2].mean() + 30  # yellow
    assert only_mask[..., 1].mean() > only_mask[..., 0].mean() + 30  # green
    assert only_truth[..., 0].mean() > only_truth[..., 1].mean() + 30  # red


@pytest.mark.parametrize(("side", "width"), [(100, 1), (1000, 2), (2500, 5)])
def test_outline_grows_with_the_film(side, width):
    mask = square(side, side, side // 4, side // 4, side // 2)
    row = write.render_overlay(np.zeros((side, side), np.float32), mask)[side // 2]
    assert (row == write.FOUND).all(axis=1).sum() == 2 * width


def test_outline_closes_at_the_border_of_the_picture():
    line = write.outline(np.ones((20, 30), bool), 2)
    expected = np.ones((20, 30), bool)
    expected[2:-2, 2:-2] = False
    np.testing.assert_array_equal(line, expected)


def test_overlay_of_a_dim_film_is_readable_and_sizes_must_agree(tmp_path):
    dim = film(60, 60) / 16  # 12 bits in 16
    shown = write.render_overlay(dim, np.zeros((60, 60), bool))
    assert shown.max() == 255
    assert shown.min() == 0
    with pytest.raises(ShapeError, match="differ"):
        write.render_overlay(dim, np.zeros((60, 61), bool))
    write.write_overlay(tmp_path / "o.png", dim, np.zeros((60, 60), bool))
    with PILImage.open(tmp_path / "o.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), shown)
