"""Files of an evaluation: of one run, or none, or found out."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from textray.errors import DataError, DiskError
from textray.evaluate import results
from textray.evaluate.results import check, write

pytestmark = pytest.mark.usefixtures("real_fsync")  # what survives a crash is asked


def summary(value):
    """As much of a summary as its page needs."""
    score = {"value": value, "low": None, "high": None}
    return {
        "textray": "0", "model": {"name": "tiny", "version": "1", "sha256": "ab" * 32}, "size": [8, 8],
        "data": {"name": "phantom", "split": "val", "ids_sha256": "cd" * 32}, "threshold": 0.5, "command": "none",
        "images": 1, "patients": 0, "images_without_patient": 1, "estimator": "bootstrap", "seed": 0,
        "modes": {"none": {"accuracy_pooled": score}}, "empty": {"none": {"truth": 0, "prediction": 0, "both": 0}},
        "images_without_text": {"none": 1}, "text_modes": {"none": "no text"},
    }  # fmt: skip


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def earlier(tmp_path):
    """A folder with all files of an earlier run."""
    write(tmp_path, {"cases.csv": b"1", "sides.csv": b"1"}, summary(0.25))
    return tmp_path


def test_summary_and_page_tell_which_files_belong_to_them(earlier):
    check(earlier)
    told = json.loads((earlier / "summary.json").read_text())["files"]
    assert set(told) == {"cases.csv", "sides.csv", "summary.md"}
    assert f"`cases.csv`, SHA-256 `{told['cases.csv']}`" in (earlier / "summary.md").read_text()
    whole = write(earlier, {"cases.csv": b"2"}, summary(0.5))
    assert whole == json.loads((earlier / "summary.json").read_text())
    assert sorted(contents(earlier)) == ["cases.csv", "summary.json", "summary.md"]  # no sides of another run
    check(earlier)


@pytest.mark.parametrize("full_at", [0, 1, 2, 3])
def test_a_disk_that_fills_up_leaves_every_earlier_file(earlier, monkeypatch, full_at):
    before, written = contents(earlier), []

    def sync(handle):
        written.append(handle)
        if len(written) > 2 * full_at:  # each file is synced, and its folder
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", sync)
    with pytest.raises(DiskError):
        write(earlier, {"cases.csv": b"2", "sides.csv": b"2"}, summary(0.5))
    assert contents(earlier) == before
    check(earlier)


@pytest.mark.parametrize("cut_at", [0, 1, 2, 3])
def test_an_interruption_between_two_renames_is_found_out(earlier, monkeypatch, cut_at):
    before, rename, renamed = contents(earlier), Path.replace, []

    def replace(self, target):
        if ".textray-stage" in target.__fspath__():  # a file of the stage takes its name there
            return rename(self, target)
        if len(renamed) == cut_at:
            raise KeyboardInterrupt
        renamed.append(target.name)
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    new = {"cases.csv": b"2", "sides.csv": b"2"}
    with pytest.raises(KeyboardInterrupt):
        write(earlier, new, summary(0.5))
    assert "summary.json" in before
    assert renamed == ["cases.csv", "sides.csv", "summary.md", "summary.json"][:cut_at]
    with pytest.raises(DataError, match="no finished evaluation"):
        check(earlier)


def test_an_interrupt_while_the_stage_is_removed_leaves_nothing_half_written(earlier, monkeypatch):
    before, interrupts = contents(earlier), [KeyboardInterrupt, KeyboardInterrupt]
    real = shutil.rmtree

    def rmtree(path, **options):
        if len(interrupts) == 1:
            raise interrupts.pop()
        real(path, **options)

    def refuse(handle):
        raise interrupts.pop()

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", rmtree)
        patched.setattr(os, "fsync", refuse)
        with pytest.raises(KeyboardInterrupt):
            write(earlier, {"cases.csv": b"2"}, summary(0.5))
    assert not interrupts
    assert contents(earlier) == before
    assert not list(earlier.glob(".textray-*"))


@pytest.mark.parametrize("name", ["cases.csv", "sides.csv", "summary.md"])
def test_files_of_another_run_are_refused(earlier, name):
    (earlier / name).write_bytes(b"another")
    with pytest.raises(DataError, match=rf"different evaluations.*{name}"):
        check(earlier)
    (earlier / name).unlink()
    with pytest.raises(DataError, match=rf"different evaluations.*{name}: no file"):
        check(earlier)


def test_files_of_versions_without_hashes_pass(tmp_path):
    (tmp_path / results.SUMMARY).write_text("{}")
    check(tmp_path)
    (tmp_path / results.SUMMARY).write_text("[]")
    with pytest.raises(DataError, match="no finished evaluation"):
        check(tmp_path)
