"""Faulty copies of a data set through `textray data check`, `evaluate` and `train`: listed, refused, never guessed.

`test_qata_check` has every fault of a copy, `tests/io/test_read_mask.py` every form of a mask.
"""

import csv
import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from textray.data.base import open_reader
from textray.text.tables import read_columns

with suppress(ImportError):
    import lightning  # noqa: F401 -- its log writes to the stderr that it finds when it is imported

IMAGE, MASK, TABLE = "Train Set/Images/covid_1.png", "Train Set/Ground-truths/mask_covid_1.png", "prompt/train.csv"


@pytest.fixture
def evaluate(cli, qata, tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*args):
        words = ["--data", "qata_cov19", "--root", qata, "--split", "train", "--model", tiny_bundle]
        return cli("evaluate", *words, "--threads", "1", "--out", "scores", *args)

    return run


def summary():
    return json.loads(Path("scores/summary.json").read_bytes())


def cases():
    with Path("scores/cases.csv").open(newline="") as file:
        return {row["image"]: row for row in csv.DictReader(file) if row["mode"] == "oracle"}


def mask(change):
    def spoil(root):
        with PILImage.open(root / MASK) as picture:
            levels = np.array(picture)
        PILImage.fromarray(change(levels)).save(root / MASK)

    return spoil


def content(path, change):
    return lambda root: (root / path).write_bytes(change((root / path).read_bytes()))


def twin(root):
    (root / IMAGE).with_suffix(".jpg").write_bytes((root / IMAGE).read_bytes())


def ambiguous(levels):
    """Levels of a mask that no rule parts."""
    return np.where(levels > 0, 90, np.arange(20, dtype=np.uint8)).astype(np.uint8)


FAULTS = {  # a change, the exit status, the code of `check` and what both commands name
    "a mask of another size": (mask(lambda m: m[::2]), 3, "E_MASK_SIZE", ["mask_covid_1.png"]),
    "levels that no rule parts": (mask(ambiguous), 3, "E_DATA", ["mask_covid_1.png"]),
    "a cut mask": (content(MASK, lambda raw: raw[:-30]), 3, "E_TRUNCATED", ["mask_covid_1.png"]),
    "no picture": (content(IMAGE, lambda raw: b"<html>"), 3, "E_FORMAT", ["covid_1.png"]),
    "two endings": (twin, 3, "E_SAME_STEM", ["covid_1.png", "covid_1.jpg"]),
    "a row too many": (content(TABLE, lambda raw: raw + b"mask_x.png,\r\n"), 3, "E_CAPTION_EXTRA", ["mask_x"]),
    "a table that is none": (content(TABLE, lambda raw: b"\x00\x01"), 3, "E_DATA", ["train.csv"]),
    "no table": (lambda root: (root / TABLE).unlink(), 2, "E_LAYOUT", ["train.csv"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_listed_and_refused_by_name_and_nothing_is_written(cli, qata, evaluate, fault):
    spoil, status, code, names = FAULTS[fault]
    spoil(qata)
    before = {path: path.stat().st_mtime_ns for path in qata.rglob("*")}
    listed, plain = cli("data", "check", "qata_cov19", qata, "--json"), cli("data", "check", "qata_cov19", qata)
    result = evaluate()
    assert {path: path.stat().st_mtime_ns for path in qata.rglob("*")} == before
    assert listed.code == plain.code == result.code == status
    for row in listed.rows:
        assert not row["ok"]
        assert code in {problem["code"] for problem in row["problems"]}
        for problem in row["problems"]:
            assert problem["code"] in plain.out
            assert problem["path"] in plain.out
    assert listed.rows or f"error {code}: " in listed.err
    for name in names:
        assert name in plain.out + plain.err
        assert name in result.err
    assert "error E_" in result.err
    assert "Traceback" not in result.err
    assert result.out == ""
    assert not list(Path("scores").glob("*"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("spoil", "code", "name"),
    [
        (mask(lambda m: m[::2]), "E_DATA", "mask_covid_1.png"),
        (content(IMAGE, lambda raw: raw[:-40]), "E_TRUNCATED", "covid_1.png"),
    ],
    ids=["size", "cut image"],
)
def test_training_refuses_too_and_leaves_neither_cache_nor_checkpoint(
    train, qata, recipe, tmp_path, monkeypatch, spoil, code, name
):
    pytest.importorskip("lightning", reason="textray[train] is not installed")
    monkeypatch.setenv("TEXTRAY_CACHE", str(tmp_path / "cache"))
    spoil(qata)
    result = train("--config", recipe("qata_cov19", qata), "--out", tmp_path / "trained")
    assert result.code == 3
    assert f"error {code}: " in result.err
    assert name in result.err
    assert "Traceback" not in result.err
    assert list((tmp_path / "trained").rglob("*.ckpt")) == []
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def grey_edges(levels):
    levels[0, :10], levels[1, :10] = 100, 200
    return levels


@pytest.mark.parametrize(
    ("change", "pixels"),
    [(grey_edges, 25 + 10), (lambda m: m * 0, 0), (lambda m: np.full_like(m, 255), 24 * 20)],
    ids=["grey edges", "empty", "full"],
)
def test_masks_that_give_a_warning_are_scored_as_they_are_read(cli, qata, evaluate, change, pixels):
    mask(change)(qata)
    found = cli("data", "check", "qata_cov19", qata)
    assert found.code == 0
    assert "mask_covid_1.png" in found.out
    assert evaluate().code == 0
    case = cases()["covid_1"]
    assert int(case["tp"]) + int(case["fn"]) == pixels
    assert case["truth_empty"] == str(int(pixels == 0))
    assert "nan" not in Path("scores/summary.json").read_text().lower()
    assert pixels or "empty" in Path("scores/summary.md").read_text().lower()


def test_an_evaluation_leaves_out_or_counts_images_without_a_caption(qata, evaluate):
    rows = (qata / TABLE).read_text().splitlines()
    (qata / TABLE).write_text("\n".join([rows[0], "mask_covid_1.png,NaN", *rows[2:]]))
    assert evaluate("--missing-captions", "skip").code == 0
    assert "covid_1" not in cases()
    assert evaluate("--missing-captions", "text-free").code == 0
    assert cases()["covid_1"]["zones"] == ""
    assert summary()["images_without_text"]["oracle"] == 1
    wrong = evaluate("--missing-captions", "guess")
    assert wrong.code == 2
    assert "error E_USAGE: " in wrong.err


def test_names_without_patients_leave_a_part_to_select_by(qata, mosmed, caplog):
    """Other names than the published ones, or one patient alone: inner is drawn by image, and says so."""
    data_root = mosmed("csv")
    for root in (qata, data_root):
        for table in sorted(root.rglob("*.csv")):
            rename(root, table)
    for name, root in (("qata_cov19", qata), ("mosmed_plus", data_root)):
        caplog.clear()
        reader = open_reader(name, root)
        fit, inner = ({sample.image_id for sample in reader.samples(split)} for split in ("fit", "inner"))
        assert len(inner) == round(0.1 * len(fit | inner))
        assert not fit & inner
        assert all(image.startswith("film") for image in fit | inner)
        assert "W_NO_PATIENT" in caplog.text


def rename(root, table):
    """Give the images of a table, their masks and its rows plain numbers as names."""
    rows = [line for _, line in read_columns(table, ("Image", "Description")).rows]
    for number, row in enumerate(rows):
        old = row["image"].removesuffix(".png").removeprefix("mask_")
        row["image"] = f"film_{table.stem}_{number}.png"
        for path in root.rglob(f"*{old}.png"):
            if path.stem.removeprefix("mask_") == old:
                path.rename(path.with_name(row["image"] if path.stem == old else f"mask_{row['image']}"))
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("Image", "Description"), *((r["image"], r["description"]) for r in rows)])


def test_a_split_without_an_image_is_no_training(train, qata, recipe, tmp_path):
    refused = train("--config", recipe("qata_cov19", qata, limit=0), "--out", tmp_path / "run")
    assert (refused.code, "no image of qata_cov19 is left in fit" in refused.err) == (3, True), refused.err


def test_a_part_whose_folder_is_empty_is_no_copy(cli, qata):
    for image in (qata / "Train Set" / "Images").iterdir():
        image.unlink()
    found = cli("data", "check", "qata_cov19", qata)
    assert (found.code, "E_LAYOUT (1)" in found.out) == (3, True), found.out
    assert "Train Set/Images: holds no images" in found.out


def test_a_caption_with_commas_outside_of_quotes_is_not_cut(cli, qata):
    table = qata / TABLE
    table.write_text(table.read_text().replace('"', ""))
    found = cli("data", "check", "qata_cov19", qata)
    assert found.code == 3
    assert "E_DATA" in found.err
    assert "line 2 has more columns than the first line. Got 4. Expected 2. Put texts that hold a ','" in found.err
