import errno
import logging
import os
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from textray.augment import Augment
from textray.data import base as base_module
from textray.data import cache as cache_module
from textray.data.batches import SegmentationSet
from textray.data.cache import PixelCache, cache_folder
from textray.data.qata_cov19 import QaTaCOV19
from textray.errors import DataError, DiskError, InputError, OutputError
from textray.io.read import read, read_mask
from textray.preprocess import Preprocess

pytestmark = pytest.mark.usefixtures("real_fsync")  # what survives a crash is asked

SIZE = Preprocess(size=(16, 13))
OTHERS = ({"letterbox": True}, {"transpose": True}, {"interpolation": "bicubic"})
WAYS = [SIZE, *(replace(SIZE, **way) for way in OTHERS)]


@pytest.fixture
def samples(qata):
    return QaTaCOV19(qata).samples("val")


def no_decoding(monkeypatch):
    monkeypatch.setattr(base_module, "read_mask", lambda path: pytest.fail(f"{path} was decoded again"))


@pytest.mark.parametrize("way", WAYS)
def test_holds_what_preprocess_gives(samples, tmp_path, way):
    cache = PixelCache(samples, way, tmp_path / "c")
    assert len(cache) == len(samples) == 10
    for i, sample in enumerate(samples):
        assert cache.image(i).dtype == np.float32
        resized = np.clip(way.resize(read(sample.image_path).pixels), 0, 1)
        np.testing.assert_allclose(cache.image(i), resized, atol=1 / 65535)
        assert cache.mask(i).dtype == np.bool_
        np.testing.assert_array_equal(cache.mask(i), way.resize_mask(read_mask(sample.mask_path)))


def test_second_use_decodes_nothing_even_where_files_were_touched(samples, tmp_path, monkeypatch):
    first = PixelCache(samples, SIZE, tmp_path / "c")
    no_decoding(monkeypatch)
    for _ in range(2):
        again = PixelCache(samples, SIZE, tmp_path / "c")
        np.testing.assert_array_equal(first.image(3), again.image(3))
        os.utime(samples[0].image_path, ns=(1, 1))


def test_changed_content_order_and_size_give_other_pixels(samples, tmp_path):
    before = PixelCache(samples, SIZE, tmp_path / "c")
    swapped = PixelCache(samples[::-1], SIZE, tmp_path / "c")
    np.testing.assert_array_equal(swapped.image(9), before.image(0))
    status = samples[0].image_path.stat()
    Image.fromarray(np.arange(480, dtype=np.uint16).reshape(24, 20).astype(np.uint8)).save(samples[0].image_path)
    os.utime(samples[0].image_path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    after = PixelCache(samples, SIZE, tmp_path / "c")
    np.testing.assert_allclose(after.image(0), SIZE.resize(read(samples[0].image_path).pixels), atol=1 / 65535)
    assert np.abs(after.image(0) - before.image(0)).max() > 0.1
    assert PixelCache(samples, Preprocess(size=(8, 8)), tmp_path / "c").image(0).shape == (8, 8)


def test_ways_of_resizing_do_not_share_a_cache_but_those_of_normalising_do(samples, tmp_path):
    paths = [PixelCache(samples, way, tmp_path / "c").path for way in WAYS]
    assert len(set(paths)) == len(WAYS)
    other = Preprocess(size=(16, 13), normalise="zscore", channels=1)
    assert PixelCache(samples, other, tmp_path / "c").path == paths[0]


def test_kill_in_the_middle_of_a_build(samples, tmp_path):
    code = """
import os, signal, sys
from textray.data import base, cache
from textray.data.qata_cov19 import QaTaCOV19
from textray.preprocess import Preprocess
decode, seen = base.read_mask, []
def read(path):
    seen.append(path)
    if len(seen) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return decode(path)
base.read_mask = read
cache.PixelCache(QaTaCOV19(sys.argv[1]).samples("val"), Preprocess(size=(16, 13)), sys.argv[2])
"""
    root = samples[0].image_path.parents[2]
    done = subprocess.run([sys.executable, "-c", code, str(root), str(tmp_path / "c")], check=False)
    assert done.returncode == -9
    assert [p.suffix for p in (tmp_path / "c" / "pixels").iterdir()] == [".part"]
    cache = PixelCache(samples, SIZE, tmp_path / "c")
    np.testing.assert_allclose(cache.image(9), SIZE.resize(read(samples[9].image_path).pixels), atol=1 / 65535)


def test_leftovers_of_killed_builds_are_swept_after_a_day(samples, tmp_path):
    old, young = (tmp_path / "c" / "pixels" / f"{name}.part" for name in ("old", "young"))
    for folder in (old, young):
        folder.mkdir(parents=True)
    os.utime(old, (1, 1))
    PixelCache(samples, SIZE, tmp_path / "c")
    assert not old.exists()
    assert young.exists()


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_cache_is_built_again(samples, tmp_path, damage):
    path = PixelCache(samples, SIZE, tmp_path / "c").path / "masks.bits"
    path.write_bytes(b"xx") if damage == "cut" else path.unlink()
    again = PixelCache(samples, SIZE, tmp_path / "c")
    np.testing.assert_array_equal(again.mask(2), SIZE.resize_mask(read_mask(samples[2].mask_path)))


def test_losing_the_race_takes_the_winners(samples, tmp_path, monkeypatch):
    inside = []

    def read_late(path):
        monkeypatch.setattr(base_module, "read_mask", read_mask)
        inside.append(PixelCache(samples, SIZE, tmp_path / "c"))  # the other process, all of it, in between
        return read_mask(path)

    monkeypatch.setattr(base_module, "read_mask", read_late)
    mine = PixelCache(samples, SIZE, tmp_path / "c")
    np.testing.assert_array_equal(mine.image(0), inside[0].image(0))
    assert not list((tmp_path / "c" / "pixels").glob("*.part"))


def test_a_folder_that_cannot_be_or_is_full_is_said_and_nothing_left(samples, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="TEXTRAY_CACHE"):
        PixelCache(samples, SIZE, tmp_path / "file")
    monkeypatch.setattr(cache_module.os, "fsync", full)
    with pytest.raises(DiskError, match="TEXTRAY_CACHE") as caught:
        PixelCache(samples, SIZE, tmp_path / "c")
    assert caught.value.exit_code == 1
    assert list((tmp_path / "c" / "pixels").iterdir()) == []


def test_pickles_small_and_works_in_a_worker(samples, tmp_path):
    cache = PixelCache(samples, SIZE, tmp_path / "c")
    packed = pickle.dumps(cache)
    assert len(packed) < 1000
    np.testing.assert_array_equal(pickle.loads(packed).image(1), cache.image(1))


def test_environment_names_the_folder(samples, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("TEXTRAY_CACHE", str(tmp_path / "elsewhere"))
    assert cache_folder() == tmp_path / "elsewhere"
    assert PixelCache(samples, SIZE).path.parent == tmp_path / "elsewhere" / "pixels"
    assert "decoded 10 samples" in caplog.text


def test_images_without_masks_and_no_images(samples, tmp_path):
    assert len(PixelCache([], SIZE, tmp_path / "c")) == 0
    bare = [replace(sample, mask_path=None) for sample in samples]
    for sample in samples[1:]:
        sample.mask_path.write_bytes(b"")  # what is not to be read may be anything
    cache, again = (PixelCache(bare, SIZE, tmp_path / "c") for _ in range(2))
    np.testing.assert_array_equal(cache.image(2), again.image(2))
    assert cache.image(0).shape == SIZE.size
    with pytest.raises(IndexError):
        cache.mask(0)


def test_two_lists_have_a_cache_each(samples, tmp_path, monkeypatch):
    """Pictures without masks beside samples with theirs: more of them touch the others' cache in no way."""
    bare = [replace(sample, mask_path=None) for sample in samples[3:6]]
    whole = PixelCache(samples, SIZE, tmp_path / "c")
    PixelCache(samples[:3], SIZE, tmp_path / "c")
    no_decoding(monkeypatch)
    held = SegmentationSet(samples[:3], SIZE, augment=Augment.preset("none"), others=bare, cache=tmp_path / "c")
    for one in (held, pickle.loads(pickle.dumps(held))):
        for index in range(6):
            np.testing.assert_array_equal(one.image(index), whole.image(index))
        for index in (3, 5):
            assert one.truth(index) is None
        with pytest.raises(IndexError):
            one.image(6)
    with pytest.raises(DataError, match="some images have masks"):
        PixelCache([samples[0], bare[0]], SIZE, tmp_path / "c")


def test_every_file_that_is_refused_is_named_and_nothing_is_left(samples, tmp_path):
    samples[5].image_path.write_bytes(samples[5].image_path.read_bytes()[:60])
    with pytest.raises(InputError, match=samples[5].image_path.name) as caught:
        PixelCache(samples, SIZE, tmp_path / "c")
    assert caught.value.code in {"E_TRUNCATED", "E_FORMAT"}
    assert list((tmp_path / "c" / "pixels").iterdir()) == []
    samples[3].image_path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="2 files cannot be used") as caught:
        PixelCache(samples, SIZE, tmp_path / "c")
    for index in (3, 5):
        assert str(samples[index].image_path) in str(caught.value)
    assert list((tmp_path / "c" / "pixels").iterdir()) == []
