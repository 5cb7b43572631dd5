"""`textray data check mosmed_plus`: counts, both cuts, the leak, the sources, and what is wrong."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from textray.data.base import fingerprint
from textray.data.mosmed_plus import MosMedPlus

Fake = Callable[[str], Path]


def codes(result, name):
    return {p.code for p in result.problems if name in p.path or name in p.message}


@pytest.mark.parametrize(("layout", "name"), [("kaggle", "Kaggle"), ("lvit", "LViT"), ("csv", "csv")])
def test_a_good_copy_is_counted_and_its_leak_told(mosmed, layout, name):
    result = MosMedPlus(mosmed(layout)).check()
    assert result.ok
    assert {p.code for p in result.problems} == {"W_COUNT", "W_VOLUME_LEAK", "W_MASK_MODE", "W_MASK_VALUES"}
    counts = result.counts
    assert counts["layout"] == name
    assert (counts["images"], counts["masks"]) == (50, 50)
    assert counts["train captions"] == "40 (published: 2183)"
    assert sum(p.code == "W_COUNT" for p in result.problems) == 3
    assert str(counts["cut by slice, test"]).startswith("5 slices of 4 volumes, 1 of no known volume, ids ")
    samples = MosMedPlus(mosmed(layout), split_by="volume").samples("test")
    assert str(counts["cut by volume, test"]).endswith(fingerprint(sample.image_id for sample in samples)[:12])
    assert counts["volumes in several parts of the cut by slice"] == "5 of 13"
    assert counts["val slices whose volume is in train"] == "4 of 5"
    assert "5 of 13 volumes" in next(p.message for p in result.problems if p.code == "W_VOLUME_LEAK")


def test_no_leak_no_warning(mosmed):
    root = mosmed("csv")
    for part in ("Val", "Test"):
        for path in [*(root / part).rglob("*.png"), root / f"prompt/{part.lower()}.csv"]:
            path.unlink()
        (root / f"prompt/{part.lower()}.csv").write_text("Image,Description\n")
    result = MosMedPlus(root).check()
    assert result.counts["volumes in several parts of the cut by slice"] == "0 of 13"
    assert "W_VOLUME_LEAK" not in {p.code for p in result.problems}


def test_sources_tell_heights_and_sides(mosmed):
    counts = MosMedPlus(mosmed("kaggle")).check().counts
    morozov, flipped = str(counts["source morozov"]), str(counts["source jun_radiopaedia"])
    assert "24 slices" in morozov
    assert "12 of 12 named left only lie in the image's left half" in morozov
    assert "0 of 12 named right only lie in the image's left half" in morozov
    assert "upside down" in flipped
    assert "upside down" not in morozov
    assert str(counts["source bjorke"]).startswith("5 slices")


def test_coloured_slices_and_those_of_no_part_are_errors(mosmed):
    root = mosmed("kaggle")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(root / "frames/bjorke_0.png")
    for folder in ("frames", "masks"):
        (root / folder / "Morozov_study_0001_20.png").rename(root / folder / "stray_1.png")
    result = MosMedPlus(root).check()
    assert not result.ok
    assert "E_COLOR" in codes(result, "frames/bjorke_0")
    assert codes(result, "stray_1") == {"E_CAPTION_MISSING"}
    assert codes(result, "Morozov_study_0001_20") == {"E_CAPTION_EXTRA"}


def test_the_command_prints_it_and_its_exit_code(mosmed, cli):
    root = mosmed("lvit")
    good = cli("data", "check", "mosmed_plus", root)
    assert good.code == 0
    assert "train captions: 40 (published: 2183)" in good.out
    assert "W_VOLUME_LEAK" in good.out
    (root / "Val_Folder/img/Morozov_study_0003_20.png").unlink()
    assert cli("data", "check", "mosmed_plus", root).code == 3
