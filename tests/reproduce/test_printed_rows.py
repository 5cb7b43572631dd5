"""The printed rows, and what their digits tell of how they were made."""

import pytest

from textray.reproduce.printed import (
    MMI_UNET_TABLE_1,
    MMI_UNET_TABLE_2,
    MMI_UNET_TABLE_3,
    Protocol,
    Scores,
)

ROWS = {row.label: row for row in MMI_UNET_TABLE_1}
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
