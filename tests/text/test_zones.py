"""Reports and captions to zones and back, whose sides are those of the film."""

import csv
import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textray.errors import InputError, UsageError
from textray.records import Grid, Laterality, Report, Zones, ZoneState
from textray.text.cleaning import clean
from textray.text.zones import bank_sentences, parse, parse_caption, sentence, write

QATA = Path(__file__).parents[3] / "shared" / "data" / "QaTa-COV19-v2" / "prompt" / "train.csv"
NON_EMPTY = [Zones.from_index(i) for i in range(1, 64)]
USUAL = Grid(height=4, width=4, orientation=("L", "F"))
MIRRORED = Grid(height=4, width=4, orientation=("R", "F"))
UNTAGGED = Grid(height=4, width=4)
LATERAL = Grid(height=4, width=4, orientation=("P", "F"))


def z(text):
    """Zones from six digits in the order of ZONE_NAMES."""
    return Zones.from_present(int(digit) for digit in text)


def codes(report):
    return [notice.code for notice in report.notices]


@pytest.mark.parametrize("grid", [None, UNTAGGED, USUAL, MIRRORED], ids=["none", "untagged", "usual", "mirrored"])
@pytest.mark.parametrize("laterality", ["viewer", "patient", "unknown"])
def test_written_reports_round_trip(laterality, grid):
    for zones in NON_EMPTY:
        words = write(zones, laterality=laterality, grid=grid)
        assert parse(words, laterality=laterality, grid=grid).zones == zones
        mirrored = laterality == "patient" and grid is not MIRRORED
        assert words == sentence(zones.mirror() if mirrored else zones)


@pytest.mark.parametrize(
    ("grid", "zones", "sides_from", "expected"),
    [
        (None, "100000", "assumed", ["W_SIDES_ASSUMED"]),
        (UNTAGGED, "100000", "assumed", ["W_SIDES_ASSUMED"]),
        (USUAL, "100000", "tag", []),
        (MIRRORED, "000100", "tag", []),
    ],
)
@pytest.mark.parametrize(
    "text", ["RUL opacity", "unilateral pulmonary infection, one infected area, upper right lung."]
)
def test_patient_sides_go_through_the_grid(text, grid, zones, sides_from, expected):
    report = parse(text, laterality="patient", grid=grid)
    assert report.zones == z(zones)
    assert report.sides_from == sides_from
    assert report.laterality is Laterality.PATIENT
    assert codes(report) == expected
    assert report.text == text


@pytest.mark.parametrize("laterality", ["viewer", "unknown"])
@pytest.mark.parametrize("grid", [None, USUAL, MIRRORED, LATERAL])
def test_other_sides_are_kept_as_written(laterality, grid):
    report = parse("RUL opacity", laterality=laterality, grid=grid)
    assert report.zones == z("000100")
    assert report.sides_from == "words"
    assert codes(report) == []
    assert write(report.zones, laterality=laterality, grid=grid) == sentence(report.zones)


def test_absent_zones_change_sides_too():
    report = parse("right lower zone opacity, left lung clear", laterality="patient", grid=USUAL)
    assert report.zones.states == (ZoneState.UNMENTIONED,) * 2 + (ZoneState.PRESENT,) + (ZoneState.ABSENT,) * 3


def test_sides_that_no_film_side_answers_to_are_dropped():
    report = parse("RUL opacity, bibasal haze", laterality="patient", grid=LATERAL)
    assert report.zones == z("001001")
    assert report.sides_from == "undefined"
    assert codes(report) == ["W_SIDES_UNDEFINED"]
    assert "of one side only is not used" in report.notices[0].text
    assert not parse("RUL opacity", laterality="patient", grid=LATERAL).zones
    for grid in (None, LATERAL):  # where both are named alike, nothing is assumed
        assert codes(parse("opacity in both lungs", laterality="patient", grid=grid)) == []
    with pytest.raises(InputError) as caught:
        parse("RUL opacity", laterality="patient", grid=LATERAL, strict=True)
    assert caught.value.code == "E_SIDES_UNDEFINED"
    with pytest.raises(InputError) as caught:
        write(z("100000"), laterality="patient", grid=LATERAL)
    assert caught.value.code == "E_SIDES_UNDEFINED"
    assert write(z("100100"), laterality="patient", grid=LATERAL) == sentence(z("100100"))


BLANK = [None, "", " \t\n", float("nan"), "NaN", "None", "null", "<NA>", "\u200b\u202e", "\ufeff", "\ud800", "\x00"]


@pytest.mark.parametrize("text", BLANK)
def test_no_text_is_an_empty_report(text):
    for strict in (False, True):
        report = parse(text, laterality="patient", strict=strict)
        assert report == Report(zones=Zones(), laterality=Laterality.PATIENT)


@pytest.mark.parametrize("text", [3.5, 7, ["left"], b"left lung"])
def test_what_is_no_text_is_refused(text):
    with pytest.raises(InputError, match="not text"):
        parse(text, laterality="viewer")


def test_unknown_laterality_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match=r"patient, unknown, viewer.*'patient'"):
        parse("left lung", laterality="patients")
    with pytest.raises(UsageError):
        write(Zones(), laterality="image")


def test_text_without_zone_says_how_many_words_were_not_understood():
    report = parse("Jane Planted, normal heart", laterality="viewer")
    assert codes(report) == ["W_NO_ZONE"]
    assert report.notices[0].text.endswith("not understood: 'normal', 'heart', 2 unknown words.")
    with pytest.raises(InputError, match="2 unknown words") as caught:
        parse("Hello World", laterality="viewer", strict=True)
    assert caught.value.code == "E_NO_ZONE"


@pytest.mark.parametrize("door", [parse_caption, lambda text: parse(text, laterality="patient", strict=True)])
@pytest.mark.parametrize("text", ["Planted, Jane", "Planted rigth lowr zone", "planted" * 9])
def test_no_error_quotes_a_strangers_words(door, text):
    with pytest.raises(InputError) as caught:
        door(text)
    assert "lanted" not in str(caught.value)
    assert "lowr" not in str(caught.value)


def test_misspelt_places_are_guessed_in_words_only():
    report = parse("opacity in the rigth lowr zone", laterality="viewer")
    assert not report.zones
    assert codes(report) == ["W_MISSPELT", "W_NO_ZONE"]
    assert "'right'" in report.notices[0].remedy
    assert "'lower'" in report.notices[0].remedy


def test_notice_about_a_long_text_stays_short():
    notice = parse(" ".join(f"{'word' * 50}{i}x" for i in range(10_000)), laterality="viewer").notices[0]
    assert len(notice.text) < 1000
    assert "10000 unknown words" in notice.text


@pytest.mark.parametrize("text", ["no infection.", "Lungs are clear.", "no opacity in the left lung"])
def test_text_that_only_denies_gives_a_notice(text):
    report = parse(text, laterality="viewer", strict=True)
    assert not report.zones
    assert codes(report) == ["W_NEGATIVE"]
    assert ZoneState.ABSENT in report.zones.states


def test_caption_count_and_its_notice_survive_patient_sides():
    caption = "Unilateral pulmonary infection, one infected area, middle lower left lung."
    report = parse(caption, laterality="patient", grid=USUAL)
    assert report.zones == z("000011")
    assert report.stated_count == 1
    assert codes(report) == ["W_COUNT"]


@pytest.mark.parametrize(
    "text",
    [
        "ri\u200bght lo\u00adwer z\u200done\ufeff",
        "\u202eright lower zone\u202c\u2067\u2069",
        "\ufeffright\x0blower\u2028zone\u00a0\u2003",
        "RIGHT\u00a0LOWER\u2003ZONE",
        "\U0001fac1 right lower zone \U0001f637\U0001f3fd",
        "right lo\x07wer\x00 zone\x1b\ud83d",
        "right-lower\r\nzone\u2019s",
        "right lower zone e\u0301" + "\u0300" * 50,
    ],
)
def test_marks_and_controls_change_nothing(text):
    report = parse(text, laterality="viewer")
    assert report.zones == z("000001")
    json.dumps(report.text, ensure_ascii=False).encode("utf-8")


@settings(max_examples=500, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_any_text_is_read_and_comes_out_stable(text):
    report = parse(text, laterality="patient")
    if report.text is None:
        assert report.zones == Zones()
        return
    assert report.text == unicodedata.normalize("NFC", report.text) == clean(report.text)
    report.text.encode("utf-8")
    again = parse(report.text, laterality="patient")
    assert again == report


def test_a_pile_of_accents_is_cut():
    assert len(clean("a" + "\u0301\u0323" * 5000)) < 40


def test_canonical_sentence_is_the_published_one():
    expected = (
        "bilateral pulmonary infection, five infected areas, upper middle lower left lung and middle lower right lung."
    )
    assert sentence(z("111011")) == expected
    assert sentence(z("000010")) == "unilateral pulmonary infection, one infected area, middle right lung."
    assert sentence(Zones()) == "no infection."
    assert sentence(Zones((ZoneState.ABSENT,) * 5 + (ZoneState.PRESENT,))) == sentence(z("000001"))


def test_every_sentence_round_trips_and_has_its_row_in_the_bank():
    bank = bank_sentences()
    assert len(bank) == len(set(bank)) == 64
    assert bank[0] == "no infection."
    for zones in NON_EMPTY:
        text = sentence(zones)
        assert bank[zones.index] == text
        assert parse_caption(text) == Report(zones=zones, text=text, stated_count=sum(zones.present))
        swapped = " ".join({"left": "right", "right": "left"}.get(word, word) for word in text.split(" "))
        assert parse_caption(swapped).zones == zones.mirror()


@pytest.mark.parametrize("text", ["no infection.", "No infection", " NO  INFECTION. "])
def test_no_infection_negates_all_zones(text):
    report = parse_caption(text)
    assert (report.zones, report.stated_count) == (Zones((ZoneState.ABSENT,) * 6), None)


@pytest.mark.parametrize(
    ("text", "zones", "count", "notices"),
    [
        ("Bilateral pulmonary infection, six infected areas, all left lung and all right lung.", "111111", 6, []),
        ("Unilateral pulmonary infection, one infected area, middle lower left lung.", "011000", 1, ["W_COUNT"]),
        ("unilateral pulmonary infection, one infected area, lower left lung", "001000", 1, []),
        ("unilateral pulmonary infection, two infected areas, upper middle lower left lung.", "111000", 2, ["W_COUNT"]),
        ("unilateral pulmonary infection, seven infected areas, all left lung", "111000", 7, ["W_COUNT"]),
        ("bilateral pulmonary infection, 2 infected areas, lower left lung and lower right lung.", "001001", 2, []),
        ("bilateral pulmonary infection, two infected areas, lower right lung and upper left lung.", "100001", 2, []),
        ("bilateral pulmonary infection, one infected area, lower right lung.", "000001", 1, ["W_STATUS"]),
        ("unilateral  pulmonary infection, one infected\narea, lower\u00a0right\u200b lung .", "000001", 1, []),
    ],
)
def test_irregular_original_forms(text, zones, count, notices):
    report = parse_caption(text)
    assert report.zones == z(zones)
    assert report.stated_count == count
    assert codes(report) == notices


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no infection. no infection.",
        "bilateral pulmonary infection",
        "bilateral pulmonary infection, zero infected areas, lower left lung and lower right lung.",
        "bilateral pulmonary infection, two infected areas, lower left lung and lower left lung.",
        "bilateral pulmonary infection, two infected areas, lower left lung and right lung.",
        "unilateral pulmonary infection, two infected areas, lower lower left lung.",
        "unilateral pulmonary infection, one infected area, lowr left lung.",
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
    assert "bilateral pulmonary infection, two infected areas, lower left" in str(caught.value)


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
