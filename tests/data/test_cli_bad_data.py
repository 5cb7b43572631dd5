"""Copies of a data set without patients, images or enough of them; `tests/faults/test_d.py` has the faults of one."""

import csv
from contextlib import suppress

from textray.data.base import open_reader
from textray.text.tables import read_columns

with suppress(ImportError):
    import lightning  # noqa: F401 -- its log writes to the stderr that it finds when it is imported


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
