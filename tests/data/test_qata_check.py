"""`data check` of QaTa-COV19: each fault of files, masks and captions is listed, and refused where it is an error."""

import shutil

import numpy as np
import pytest
from PIL import Image

from textray.data.qata_cov19 import QaTaCOV19
from textray.errors import InputError, LayoutError

IMAGES, MASKS, TABLE = "Train Set/Images", "Train Set/Ground-truths", "prompt/train.csv"


def levels_of(root):
    with Image.open(root / MASKS / "mask_covid_1.png") as picture:
        return np.array(picture)


def save(change):
    return lambda root: Image.fromarray(change(levels_of(root))).save(root / MASKS / "mask_covid_1.png")


def palette(root):
    picture = Image.fromarray((levels_of(root) > 0).astype(np.uint8), mode=None).convert("P")
    picture.putpalette([0, 0, 0, 255, 0, 0])
    picture.save(root / MASKS / "mask_covid_1.png")


def grey(levels):
    levels[0, :12] = 127
    return levels


def ambiguous(levels):
    return np.where(levels > 0, 90, np.arange(20, dtype=np.uint8)).astype(np.uint8)


def cut_off(path):
    return lambda root: (root / path).write_bytes((root / path).read_bytes()[:-20])


def copy(path, twin):
    return lambda root: shutil.copy(root / path, root / twin)


def rows(change):
    return lambda root: (root / TABLE).write_text("\n".join(change((root / TABLE).read_text().splitlines())))


FAULTS = {
    "a mask of another size": (save(lambda levels: levels[::2]), "mask_covid_1.png", "E_MASK_SIZE"),
    "grey levels": (save(grey), "mask_covid_1.png", "W_MASK_VALUES"),
    "a coloured mask": (save(lambda m: np.stack([m, m * 0, m * 0], axis=-1)), "mask_covid_1.png", "W_MASK_MODE"),
    "a palette": (palette, "mask_covid_1.png", "W_MASK_MODE"),
    "one bit": (save(lambda levels: levels > 0), "mask_covid_1.png", "W_MASK_MODE"),
    "levels that no rule parts": (save(ambiguous), "mask_covid_1.png", "E_DATA"),
    "an inverted mask": (save(lambda levels: 255 - levels), "mask_covid_1.png", "W_MASK_INVERTED"),
    "an empty mask": (save(np.zeros_like), "mask_covid_1.png", "W_MASK_EMPTY"),
    "a full mask": (save(lambda levels: np.full_like(levels, 255)), "mask_covid_1.png", "W_MASK_FULL"),
    "a truncated image": (cut_off(f"{IMAGES}/covid_1.png"), f"{IMAGES}/covid_1.png", "E_TRUNCATED"),
    "a truncated mask": (cut_off(f"{MASKS}/mask_covid_1.png"), "mask_covid_1.png", "E_TRUNCATED"),
    "a text": (lambda root: (root / IMAGES / "covid_1.png").write_text("<html>"), "Images/covid_1", "E_FORMAT"),
    "no mask": (lambda root: (root / MASKS / "mask_covid_1.png").unlink(), "Images/covid_1.png", "E_PAIR"),
    "no image": (lambda root: (root / IMAGES / "covid_1.png").unlink(), "mask_covid_1.png", "E_PAIR"),
    "another extension": (copy(f"{IMAGES}/covid_1.png", f"{IMAGES}/covid_1.jpg"), "Images/covid_1.jpg", "E_SAME_STEM"),
    "another case": (copy(f"{MASKS}/mask_covid_1.png", f"{MASKS}/mask_Covid_1.png"), "mask_Covid_1.png", "E_CASE"),
    "a blank caption": (rows(lambda r: [r[0], "mask_covid_1.png,", *r[2:]]), "covid_1.png", "E_CAPTION_BLANK"),
    "other words": (rows(lambda r: [r[0], "mask_covid_1.png,lung bad", *r[2:]]), "covid_1.png", "E_CAPTION_WORDS"),
    "no row": (rows(lambda r: [r[0], *r[2:]]), "covid_1.png", "E_CAPTION_MISSING"),
    "a row too many": (rows(lambda r: [*r, "mask_covid_999.png,no infection."]), "covid_999", "E_CAPTION_EXTRA"),
    "a row twice": (rows(lambda r: [*r, r[1]]), "row 52, mask_covid_1.png: stands in row 2", "E_DUPLICATE_ID"),
}
LATER = {"a truncated image", "a truncated mask", "levels that no rule parts"}  # found where pixels are decoded


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_listed_and_refused_where_it_is_an_error(qata, fault):
    spoil, name, code = FAULTS[fault]
    spoil(qata)
    if fault == "another case" and len(list((qata / MASKS).iterdir())) == 50:
        pytest.skip("this file system does not tell case")
    result = QaTaCOV19(qata).check()
    codes = {p.code for p in result.problems if name in p.path or name in p.message}
    assert code in codes
    assert result.ok == code.startswith("W_")
    if result.ok:
        assert codes == {code}
        assert result.counts["train empty masks"] == (code == "W_MASK_EMPTY")
        assert result.counts["train full masks"] == (code == "W_MASK_FULL")
    elif fault not in LATER:
        policy = "error" if code.startswith("E_CAPTION") else "skip"  # only captions can be let pass
        with pytest.raises(InputError, match="covid_"):
            QaTaCOV19(qata, captions=policy).samples("train")


def test_a_good_copy_is_ok_counted_and_left_as_it_is(qata):
    before = {p: p.stat().st_mtime_ns for p in qata.rglob("*")}
    result = QaTaCOV19(qata).check()
    assert result.ok
    assert result.problems == ()
    assert result.counts["split train"] == "40 images, 18 known patients"
    assert result.counts["train sizes"] == "24 x 20: 50"
    lines = result.lines()
    assert "train images: 50 (published: 7145)" in lines
    assert lines[-1] == "0 errors, 0 warnings"
    assert {p: p.stat().st_mtime_ns for p in qata.rglob("*")} == before


def test_an_absent_part_is_no_fault_but_both_are(qata):
    shutil.rmtree(qata / "Test Set")
    result = QaTaCOV19(qata).check()
    assert result.ok
    assert "test part: not present" in result.lines()
    shutil.rmtree(qata / "Train Set")
    with pytest.raises(LayoutError, match='neither "Train Set" nor "Test Set"') as caught:
        QaTaCOV19(qata)
    assert caught.value.exit_code == 2


def test_lines_are_cut_but_counted(qata):
    for path in sorted((qata / MASKS).iterdir())[:7]:
        Image.fromarray(np.zeros((24, 20), np.uint8)).save(path)
    lines = QaTaCOV19(qata).check().lines(limit=3)
    assert "W_MASK_EMPTY (7)" in lines
    assert "  ... and 4 more" in lines
    assert lines[-1] == "0 errors, 7 warnings"


@pytest.mark.slow
def test_real_copy_is_clean(real_qata):
    result = QaTaCOV19(real_qata).check()
    assert result.ok
    assert result.problems == ()
    assert result.counts["train images"] == "7145 (published: 7145)"
