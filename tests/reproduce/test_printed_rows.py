"""The printed rows, and what their digits tell of how they were made."""

import re
from pathlib import Path

import pytest

from textray.reproduce.printed import (
    MMI_UNET_TABLE_1,
    MMI_UNET_TABLE_2,
    MMI_UNET_TABLE_3,
    Protocol,
    Scores,
)

ROWS = {row.label: row for row in MMI_UNET_TABLE_1}
ROOT = Path(__file__).parents[2]
PAPER = ROOT.parent / "shared" / "papers" / "mmi-unet.txt"
POOLED = {"GuideDecoder", "MMI-UNet"}


def test_table_1_mixes_two_protocols_on_both_data_sets():
    assert len(ROWS) == 16
    for data in ("qata_cov19", "mosmed_plus"):
        found = {label: row.scores[data].protocol for label, row in ROWS.items()}
        assert {label for label, protocol in found.items() if protocol is Protocol.POOLED} == POOLED
        assert {protocol for label, protocol in found.items() if label not in POOLED} == {Protocol.PER_IMAGE}


@pytest.mark.parametrize(
    ("label", "data", "gap"),
    [
        ("UNet", "qata_cov19", 4.14),
        ("nnUNet", "qata_cov19", 3.56),
        ("LViT", "qata_cov19", 3.20),
        ("GuideDecoder", "qata_cov19", -0.01),
        ("Swin-UNet", "mosmed_plus", 3.89),
        ("LViT", "mosmed_plus", 1.88),
        ("MMI-UNet", "mosmed_plus", 0.00),
    ],
)
def test_the_distance_from_a_pooled_row(label, data, gap):
    assert round(ROWS[label].scores[data].gap, 2) == pytest.approx(gap, abs=0.0101)


def test_the_only_row_of_the_ablations_that_is_not_pooled():
    found = {
        (row.label, data): scores.protocol
        for row in (*MMI_UNET_TABLE_2, *MMI_UNET_TABLE_3[1:])
        for data, scores in row.scores.items()
    }
    assert {key for key, protocol in found.items() if protocol is not Protocol.POOLED} == {
        ("MMI-UNet w/ GD", "qata_cov19")
    }
    assert found["MMI-UNet w/ GD", "qata_cov19"] is Protocol.UNCLEAR
    assert MMI_UNET_TABLE_3[0].scores["qata_cov19"].protocol is Protocol.PER_IMAGE


def test_a_jaccard_below_that_of_the_dice_is_impossible():
    assert Scores(dice=84.6, iou=72.5).protocol is Protocol.IMPOSSIBLE


def test_the_tables_agree_where_they_print_the_same_row():
    for other in (MMI_UNET_TABLE_2[1], MMI_UNET_TABLE_3[4]):
        assert other.scores == ROWS["MMI-UNet"].scores
    assert MMI_UNET_TABLE_3[0].scores == ROWS["nnUNet"].scores
    assert (ROWS["MMI-UNet"].parameters, ROWS["MMI-UNet"].flops) == (56.2, 22.1)


def test_sizes_are_those_of_the_page_about_cost():
    page = (ROOT / "docs" / "how-to" / "cost.md").read_text(encoding="utf-8")
    found = re.findall(r"^\| ([^|]+) \| [\d.]+ \| ([\d.]+) \| [\d.]+ \| ([\d.]+|none) \|$", page, re.MULTILINE)
    printed = {label.removesuffix(", released"): sizes for label, *sizes in found}
    ours = {"MMI-UNet": "MMI-UNet", "GuideDecoder": "GuideDecoder", "U-Net": "UNet", "LViT": "LViT"}
    for label, row in ours.items():
        assert printed.pop(label) == [str(ROWS[row].parameters), str(ROWS[row].flops)]
    assert printed == {"MMI-UNet with GuideDecoder": [str(MMI_UNET_TABLE_2[0].parameters), "none"]}


def numbers(row):
    sizes = [value for value in (row.parameters, row.flops) if value is not None]
    return sizes + [v for data in ("qata_cov19", "mosmed_plus") for v in (row.scores[data].dice, row.scores[data].iou)]


def test_columns_add_up_to_those_of_the_paper():
    sums = [round(sum(column), 2) for column in zip(*map(numbers, MMI_UNET_TABLE_1), strict=True)]
    assert sums == [919.7, 1337.6, 1296.79, 1150.15, 1140.36, 932.44]


def test_every_digit_is_the_papers():
    if not PAPER.is_file():
        pytest.skip("the paper's text is not on this machine")
    lines = [re.sub(r"<[^>]+>", "", line).split("\t") for line in PAPER.read_text(encoding="utf-8").splitlines()]
    found = [(cells[0], [float(c) for c in cells if re.fullmatch(r"[\d.]+", c)]) for cells in lines]
    printed = [(re.sub(r" \[\d+\]", "", label), values) for label, values in found if len(values) > 3]
    ours = [(row.label, numbers(row)) for row in (*MMI_UNET_TABLE_1, *MMI_UNET_TABLE_2, *MMI_UNET_TABLE_3)]
    assert ours == printed
