"""The door to every data set."""

import pytest

from textray.data.base import open_reader
from textray.errors import LayoutError, UsageError


def test_a_data_set_on_disk_needs_its_folder():
    with pytest.raises(UsageError, match=r"qata_cov19 is read from a folder.*--data\.root.*docs/datasets"):
        open_reader("qata_cov19", None)


def test_a_wrong_name_or_folder_is_told(tmp_path):
    with pytest.raises(UsageError, match=r"unknown data set 'qata'.*qata_cov19"):
        open_reader("qata", tmp_path)
    with pytest.raises(LayoutError, match="Train Set"):
        open_reader("qata_cov19", tmp_path)


def test_a_drawn_one_needs_none(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXTRAY_CACHE", str(tmp_path))
    assert open_reader("phantom", None).samples("inner")


def test_training_without_a_folder_is_a_usage_error():
    module = pytest.importorskip("textray.data.segmentation")
    with pytest.raises(UsageError, match=r"--data\.root"):
        module.SegmentationData("qata_cov19").setup("fit")
