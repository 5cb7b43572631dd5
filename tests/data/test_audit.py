"""Captions against masks: what is named and empty, what is marked and not named, in one wording and in two."""

import csv

import numpy as np
import pytest

from textray.data.audit import CaptionCase, audit, count, lines, marked_zones
from textray.errors import LayoutError, UsageError
from textray.inference.record import zone_areas
from textray.records import Grid, ZoneSplit

LEFT_UPPER, RIGHT_LOWER = (True, *[False] * 5), (*[False] * 5, True)


def case(named, marked=LEFT_UPPER, image="a", captions=""):
    return CaptionCase(image_id=image, split="train", captions=captions, named=tuple(map(bool, named)), marked=marked)


@pytest.mark.parametrize("seed", range(20))
def test_marked_zones_are_those_of_records(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(6, 41, 2)
    mask = rng.random((height, width)) > 1 - 4 / (height * width)
    areas = zone_areas(mask, Grid(height=int(height), width=int(width)), ZoneSplit())
    assert marked_zones(mask) == tuple(area["pixels"] > 0 for area in areas.values())


def test_a_case_tells_empty_zones_from_missed_ones_and_sides_from_zones():
    found = case([0, 1, 0, 0, 0, 1])
    assert found.line == ("a", "train", "", "left middle; right lower", "left upper", *found.line[5:])
    assert found.line[5:] == ("left middle; right lower", "left upper")
    assert found.wrong == 3
    assert (any(found.by_side.missed), any(found.by_side.empty)) == (False, True), "the left side is named and marked"
    assert case(LEFT_UPPER).wrong == case(LEFT_UPPER).by_side.wrong == 0


def test_two_wordings_are_counted_side_by_side_and_where_they_differ():
    cases = [
        case(LEFT_UPPER, captions="revised"),
        case(RIGHT_LOWER, captions="original"),  # the other side
        case([1, 1, 0, 0, 0, 0], image="b", captions="revised"),  # one zone too many
        case(LEFT_UPPER, image="b", captions="original"),
        case(LEFT_UPPER, image="c", captions="revised"),
    ]
    counts = count(cases)
    assert list(counts) == ["revised", "original", "compared"]
    assert counts["revised"]["images with a caption"] == 3
    assert counts["revised"]["both sides agree"] == 3
    assert counts["revised"]["a zone is named and empty"] == 1
    assert counts["original"]["a side is marked and not named"] == 1
    assert list(counts["compared"].values()) == [2, 2, 1, 1, 3, 2, 1, 1, 1, 0]
    shown = lines(counts)
    assert shown[0].split() == ["revised", "original"]
    assert shown[1].split()[-2:] == ["3", "2"]
    assert shown[-1] == "of these, the mask agrees with original only: 0"


def original(root, caption):
    table = root / "prompt" / "train.csv"
    rows = [line.split(",")[0] for line in table.read_text().splitlines()[1:]]
    lines = ["Image,Description", f"{rows[0]},", *(f'{row},"{caption}"' for row in rows[1:])]
    (table.with_stem("train_original")).write_text("\n".join(lines))


def test_the_command_writes_a_line_for_each_caption_and_prints_both(cli, qata, tmp_path):
    original(qata, "unilateral pulmonary infection, two infected areas, upper left lung")
    out = tmp_path / "tables" / "audit.csv"
    found = cli("data", "audit", "qata_cov19", qata, "--out", out)
    assert found.code == 0, found.err
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    # 50 images of train and val in both wordings but one, and 6 of test, whose original wording is not there.
    assert len(rows) == 50 + 49 + 6
    assert {row["captions"] for row in rows} == {"revised", "original"}
    assert [row["split"] for row in rows].count("test") == 6
    assert {row["zones_marked"] for row in rows} == {"left upper"}
    wrong = [row for row in rows if row["zones_named"] == "right lower"]
    assert len(wrong) == 28
    assert {(row["named_but_empty"], row["marked_but_not_named"]) for row in wrong} == {("right lower", "left upper")}
    assert "all six zones agree 28 49" in " ".join(found.out.split())
    assert "of these, the mask agrees with original: 50" in found.out
    assert cli("data", "audit", "qata_cov19", qata, "--out", out, "--json").rows[0]["counts"]["revised"]
    out.write_text("mine")
    refused = cli("data", "audit", "qata_cov19", qata, "--out", out)
    assert (refused.code != 0, "is not overwritten" in refused.err, out.read_text()) == (True, True, "mine")


def test_captions_in_one_wording_have_one_column(mosmed, qata):
    cases = audit("mosmed_plus", mosmed("csv"))
    assert len(cases) == 50
    assert {case.captions for case in cases} == {""}
    assert list(count(cases)) == [""]
    assert lines(count(cases))[0].split() == ["images", "with", "a", "caption", "50"]
    assert list(count(audit("qata_cov19", qata))) == ["revised"]


def test_data_sets_without_such_captions_or_parts_are_refused(monuseg, tmp_path):
    for name in ("monuseg", "rsna", "phantom", "chest_films"):
        with pytest.raises(UsageError, match=r"no captions of zones.*qata_cov19, mosmed_plus"):
            audit(name, monuseg)
    (tmp_path / "QaTa-COV19-v2" / "Train Set").mkdir(parents=True)
    with pytest.raises(LayoutError, match="no images under"):
        audit("qata_cov19", tmp_path)


@pytest.mark.slow
def test_real_figures(real_qata):
    """Those of docs/datasets/qata_cov19.md."""
    counts = count(audit("qata_cov19", real_qata))
    assert list(counts["revised"].values()) == [7145, 55, 83, 7048, 660, 4202, 2680]
    assert list(counts["original"].values()) == [7140, 12, 40, 7096, 571, 4056, 2826]
    assert list(counts["compared"].values()) == [7140, 901, 98, 666, 1592, 327, 1265, 59, 2, 55]
