from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from textray.data.base import CheckResult
from textray.data.qata_cov19 import QaTaCOV19
from textray.errors import LayoutError

MASKS = "Train Set/Ground-truths"


def check(root: Path) -> CheckResult:
    return QaTaCOV19(root).check()


def codes(result: CheckResult, name: str) -> set[str]:
    return {p.code for p in result.problems if name in p.path or name in p.message}


def mask_of(root: Path, name: str) -> np.ndarray:
    with Image.open(root / MASKS / f"mask_{name}.png") as picture:
        return np.asarray(picture)


def save(root: Path, name: str, levels: np.ndarray) -> None:
    Image.fromarray(levels).save(root / MASKS / f"mask_{name}.png")


def test_a_good_copy_is_ok_and_counted(qata: Path) -> None:
    result = check(qata)
    assert result.ok
    assert result.problems == ()
    assert result.counts["split train"] == "40 images, 18 known patients"
    assert result.counts["train sizes"] == "24 x 20: 50"
    lines = result.lines()
    assert "train images: 50 (published: 7145)" in lines
    assert lines[-1] == "0 errors, 0 warnings"


def test_an_absent_part_is_said_not_failed(qata: Path) -> None:
    shutil.rmtree(qata / "Test Set")
    result = check(qata)
    assert result.ok
    assert "test part: not present" in result.lines()


def test_empty_folders_are_a_layout_error(tmp_path: Path) -> None:
    with pytest.raises(LayoutError):
        check(tmp_path)


def test_size_differs(qata: Path) -> None:
    save(qata, "covid_1", np.zeros((12, 20), np.uint8))
    result = check(qata)
    assert "E_MASK_SIZE" in codes(result, "mask_covid_1.png")
    assert not result.ok


def test_grey_levels_are_a_warning_with_their_share(qata: Path) -> None:
    levels = mask_of(qata, "covid_1").copy()
    levels[0, :12] = 127
    save(qata, "covid_1", levels)
    result = check(qata)
    assert codes(result, "mask_covid_1.png") == {"W_MASK_VALUES"}
    assert "2.5 %" in result.problems[0].message
    assert result.ok


def test_colour_and_palette_are_warnings_and_keep_their_lesion(qata: Path) -> None:
    levels = mask_of(qata, "covid_1")
    save(qata, "covid_1", np.stack([levels, levels * 0, levels * 0], axis=-1))
    palette = Image.fromarray((mask_of(qata, "covid_2") > 0).astype(np.uint8), mode=None).convert("P")
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.save(qata / MASKS / "mask_covid_2.png")
    result = check(qata)
    assert codes(result, "mask_covid_1.png") == {"W_MASK_MODE"}
    assert codes(result, "mask_covid_2.png") == {"W_MASK_MODE"}
    assert result.counts["train empty masks"] == 0


def test_inverted_empty_and_full_masks_are_told(qata: Path) -> None:
    save(qata, "covid_1", 255 - mask_of(qata, "covid_1"))
    save(qata, "covid_2", np.zeros((24, 20), np.uint8))
    save(qata, "covid_3", np.full((24, 20), 255, np.uint8))
    result = check(qata)
    assert codes(result, "mask_covid_1.png") == {"W_MASK_INVERTED"}
    assert codes(result, "mask_covid_2.png") == {"W_MASK_EMPTY"}
    assert codes(result, "mask_covid_3.png") == {"W_MASK_FULL"}
    assert (result.counts["train empty masks"], result.counts["train full masks"]) == (1, 1)
    assert result.ok


@pytest.mark.parametrize("folder", ["Images", "Ground-truths"])
def test_truncated_files_are_errors(qata: Path, folder: str) -> None:
    path = qata / "Train Set" / folder / ("covid_1.png" if folder == "Images" else "mask_covid_1.png")
    path.write_bytes(path.read_bytes()[:-20])
    result = check(qata)
    assert "E_TRUNCATED" in codes(result, path.name)
    assert not result.ok


def test_text_named_png_is_an_error(qata: Path) -> None:
    (qata / "Train Set/Images/covid_1.png").write_text("<html>")
    result = check(qata)
    assert "E_FORMAT" in codes(result, "Images/covid_1.png")


def test_captions_missing_extra_blank_and_not_understood(qata: Path) -> None:
    table = qata / "prompt/train.csv"
    head, *rows = table.read_text().splitlines()
    rows[0] = "mask_covid_1.png,"
    rows[1] = "mask_covid_2.png,nothing to see"
    del rows[2]
    table.write_text("\n".join([head, *rows, "mask_covid_999.png,no infection."]))
    result = check(qata)
    assert codes(result, "covid_1.png") == {"E_CAPTION_BLANK"}
    assert codes(result, "covid_2.png") == {"E_CAPTION_WORDS"}
    assert codes(result, "covid_3") == {"E_CAPTION_MISSING"}
    assert codes(result, "covid_999") == {"E_CAPTION_EXTRA"}
    assert not result.ok


def test_duplicates_and_colliding_names(qata: Path) -> None:
    table = qata / "prompt/train.csv"
    table.write_text(table.read_text() + table.read_text().splitlines()[1])
    shutil.copy(qata / "Train Set/Images/covid_2.png", qata / "Train Set/Images/covid_2.jpg")
    shutil.copy(qata / MASKS / "mask_covid_3.png", qata / MASKS / "mask_Covid_3.png")
    result = check(qata)
    assert "E_DUPLICATE_ID" in codes(result, "mask_covid_1.png")
    assert codes(result, "Images/covid_2") == {"E_SAME_STEM"}
    assert {"E_CASE"} <= codes(result, "mask_Covid_3.png") | codes(result, "mask_covid_3.png")


def test_lines_are_cut_but_counted(qata: Path) -> None:
    for path in sorted((qata / MASKS).iterdir())[:7]:
        Image.fromarray(np.zeros((24, 20), np.uint8)).save(path)
    lines = check(qata).lines(limit=3)
    assert "W_MASK_EMPTY (7)" in lines
    assert "  ... and 4 more" in lines
    assert lines[-1] == "0 errors, 7 warnings"


def test_nothing_is_written(qata: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in qata.rglob("*")}
    check(qata)
    assert {p: p.stat().st_mtime_ns for p in qata.rglob("*")} == before


@pytest.mark.slow
def test_real_copy_is_clean(real_qata: Path) -> None:
    result = check(real_qata)
    assert result.ok
    assert result.problems == ()
    assert result.counts["train images"] == "7145 (published: 7145)"
