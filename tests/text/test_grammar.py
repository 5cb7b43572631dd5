import csv
from pathlib import Path

import pytest

from textray.errors import InputError
from textray.records import Laterality, Zones, ZoneState
from textray.text.zones import bank_sentences, parse_caption, sentence

QATA = Path(__file__).parents[3] / "shared" / "data" / "QaTa-COV19-v2" / "prompt" / "train.csv"
NON_EMPTY = [Zones.from_index(i) for i in range(1, 64)]


def z(text):
    """Zones from six digits in the order of ZONE_NAMES."""
    return Zones.from_present(int(digit) for digit in text)


def test_canonical_sentence_is_the_published_one():
    expected = (
        "bilateral pulmonary infection, five infected areas, upper middle lower left lung and middle lower right lung."
    )
    assert sentence(z("111011")) == expected
    assert sentence(z("000010")) == "unilateral pulmonary infection, one infected area, middle right lung."
    assert sentence(Zones()) == "no infection."


@pytest.mark.parametrize("zones", NON_EMPTY, ids=sentence)
def test_every_sentence_round_trips(zones):
    report = parse_caption(sentence(zones))
    assert report.zones == zones
    assert report.stated_count == sum(zones.present)
    assert report.notices == ()
    assert report.unused == ()
    assert report.laterality is Laterality.VIEWER
    assert report.sides_from == "words"
    assert report.text == sentence(zones)


def test_mirrored_sentence_means_mirrored_zones():
    swap = {"left": "right", "right": "left"}
    for zones in NON_EMPTY:
        swapped = " ".join(swap.get(word, word) for word in sentence(zones).split(" "))
        assert parse_caption(swapped).zones == zones.mirror()
        assert parse_caption(sentence(zones.mirror())).zones == zones.mirror()


def test_absent_zones_are_not_written():
    assert sentence(Zones((ZoneState.ABSENT,) * 5 + (ZoneState.PRESENT,))) == sentence(z("000001"))


def test_bank_has_a_row_for_each_zone_set():
    bank = bank_sentences()
    assert len(bank) == len(set(bank)) == 64
    assert bank[0] == "no infection."
    assert all(bank[zones.index] == sentence(zones) for zones in NON_EMPTY)


def test_no_infection_negates_all_zones():
    for text in ("no infection.", "No infection", " NO  INFECTION. "):
        report = parse_caption(text)
        assert report.zones == Zones((ZoneState.ABSENT,) * 6)
        assert report.stated_count is None


@pytest.mark.parametrize(
    ("text", "zones", "count", "codes"),
    [
        ("Bilateral pulmonary infection, six infected areas, all left lung and all right lung.", "111111", 6, []),
        ("Unilateral pulmonary infection, one infected area, middle lower left lung.", "011000", 1, ["W_COUNT"]),
        ("unilateral pulmonary infection, one infected area, lower left lung", "001000", 1, []),
        ("Unilateral pulmonary infection, one infected area, all left lung.", "111000", 1, ["W_COUNT"]),
        ("unilateral pulmonary infection, two infected areas, upper middle lower left lung.", "111000", 2, ["W_COUNT"]),
        (
            "Bilateral pulmonary infection, two infected areas, all left lung and upper middle right lung.",
            "111110",
            2,
            ["W_COUNT"],
        ),
        (
            "bilateral pulmonary infection, seven infected areas, all left lung and all right lung",
            "111111",
            7,
            ["W_COUNT"],
        ),
        ("bilateral pulmonary infection, 2 infected areas, lower left lung and lower right lung.", "001001", 2, []),
        ("bilateral pulmonary infection, two infected areas, lower right lung and upper left lung.", "100001", 2, []),
        ("bilateral pulmonary infection, one infected area, lower right lung.", "000001", 1, ["W_STATUS"]),
        ("unilateral  pulmonary infection, one infected\narea, lower\u00a0right\u200b lung .", "000001", 1, []),
    ],
)
def test_irregular_original_forms(text, zones, count, codes):
    report = parse_caption(text)
    assert report.zones == z(zones)
    assert report.stated_count == count
    assert [notice.code for notice in report.notices] == codes


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no infection. no infection.",
        "bilateral pulmonary infection",
        "bilateral pulmonary infection, many infected areas, lower left lung and lower right lung.",
        "bilateral pulmonary infection, zero infected areas, lower left lung and lower right lung.",
        "bilateral pulmonary infection, two infected areas, lower left lung and lower left lung.",
        "bilateral pulmonary infection, two infected areas, lower left lung and right lung.",
        "unilateral pulmonary infection, two infected areas, lower lower left lung.",
        "unilateral pulmonary infection, one infected area, lowr left lung.",
        "unilateral pulmonary infection, one infected area, not lower left lung.",
        "unilateral pulmonary infection, one infected area, lower lung.",
        "unilateral pulmonary infection, one infected area, all lower left lung.",
        "unilateral pulmonary infection, one infected area, lower left lung. lower right lung.",
        "patchy opacity in the right lower zone",
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(InputError) as caught:
        parse_caption(text)
    assert caught.value.code == "E_CAPTION"
    assert "unilateral pulmonary" in str(caught.value) or "bilateral pulmonary" in str(caught.value)


def test_every_caption_of_qata_round_trips():
    if not QATA.exists():
        pytest.skip("QaTa-COV19-v2 is not beside the repository")
    with QATA.open(encoding="utf-8", newline="") as file:
        captions = [row["Description"] for row in csv.DictReader(file)]
    assert len(captions) == 7145
    for caption in set(captions):
        report = parse_caption(caption)
        assert sentence(report.zones) == caption
        assert report.notices == ()
