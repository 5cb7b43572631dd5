import json
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textray.errors import InputError, UsageError
from textray.records import Grid, Laterality, Zones, ZoneState
from textray.text.cleaning import clean
from textray.text.zones import parse, sentence, write

NON_EMPTY = [Zones.from_index(i) for i in range(1, 64)]
USUAL = Grid(height=4, width=4, orientation=("L", "F"))
MIRRORED = Grid(height=4, width=4, orientation=("R", "F"))
UNTAGGED = Grid(height=4, width=4)
LATERAL = Grid(height=4, width=4, orientation=("P", "F"))


def z(text):
    return Zones.from_present(int(digit) for digit in text)


def codes(report):
    return [notice.code for notice in report.notices]


@pytest.mark.parametrize("grid", [None, UNTAGGED, USUAL, MIRRORED], ids=["none", "untagged", "usual", "mirrored"])
@pytest.mark.parametrize("laterality", ["viewer", "patient", "unknown"])
def test_written_reports_round_trip(laterality, grid):
    for zones in NON_EMPTY:
        words = write(zones, laterality=laterality, grid=grid)
        assert parse(words, laterality=laterality, grid=grid).zones == zones
        assert words in {sentence(zones), sentence(zones.mirror())}


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


def test_patient_sentence_of_the_usual_film_names_the_other_side():
    assert write(z("001000"), laterality="patient", grid=USUAL) == sentence(z("000001"))
    assert write(z("001000"), laterality="patient", grid=MIRRORED) == sentence(z("001000"))


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
    assert codes(parse("both lungs", laterality="patient", grid=LATERAL)) == []
    with pytest.raises(InputError) as caught:
        parse("RUL opacity", laterality="patient", grid=LATERAL, strict=True)
    assert caught.value.code == "E_SIDES_UNDEFINED"
    with pytest.raises(InputError) as caught:
        write(z("100000"), laterality="patient", grid=LATERAL)
    assert caught.value.code == "E_SIDES_UNDEFINED"
    assert write(z("100100"), laterality="patient", grid=LATERAL) == sentence(z("100100"))


def test_sides_need_no_assumption_where_both_are_named_alike():
    assert codes(parse("opacity in both lungs", laterality="patient")) == []


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        " ",
        " \t\n",
        float("nan"),
        "nan",
        "NaN",
        "None",
        "null",
        "<NA>",
        "\u200b\u202e",
        "\u200b\u2060",
        "\ufeff",
        "\ud800",
        "\x00",
    ],
)
@pytest.mark.parametrize("strict", [False, True])
def test_no_text_is_an_empty_report(text, strict):
    report = parse(text, laterality="patient", strict=strict)
    assert report.text is None
    assert report.zones == Zones()
    assert report.notices == ()
    assert report.unused == ()


@pytest.mark.parametrize("text", [3.5, 7, ["left"], b"left lung"])
def test_what_is_no_text_is_refused(text):
    with pytest.raises(InputError, match="not text"):
        parse(text, laterality="viewer")


def test_unknown_laterality_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match=r"patient, unknown, viewer.*'patient'"):
        parse("left lung", laterality="patients")
    with pytest.raises(UsageError):
        write(Zones(), laterality="image")


def test_text_without_zone_says_which_words_were_not_understood():
    report = parse("Hello World", laterality="viewer")
    assert codes(report) == ["W_NO_ZONE"]
    assert "'hello', 'world'" in report.notices[0].text
    with pytest.raises(InputError, match="'hello', 'world'") as caught:
        parse("Hello World", laterality="viewer", strict=True)
    assert caught.value.code == "E_NO_ZONE"


def test_misspelt_places_are_guessed_in_words_only():
    report = parse("opacity in the rigth lowr zone", laterality="viewer")
    assert not report.zones
    assert "'right'" in report.notices[0].remedy
    assert "'lower'" in report.notices[0].remedy


def test_notice_about_a_long_text_stays_short():
    notice = parse(" ".join(f"{'word' * 50}{i}x" for i in range(10_000)), laterality="viewer").notices[0]
    assert len(notice.text) < 1000
    assert "and 9988 more" in notice.text


@pytest.mark.parametrize("text", ["no infection.", "Lungs are clear.", "no opacity in the left lung"])
def test_text_that_only_denies_is_said_to_steer_nothing(text):
    report = parse(text, laterality="viewer", strict=True)
    assert not report.zones
    assert codes(report) == ["W_NEGATIVE"]
    assert ZoneState.ABSENT in report.zones.states


def test_caption_count_and_its_notice_survive_the_patient_door():
    caption = "Unilateral pulmonary infection, one infected area, middle lower left lung."
    report = parse(caption, laterality="patient", grid=USUAL)
    assert report.zones == z("000011")
    assert report.stated_count == 1
    assert codes(report) == ["W_COUNT"]


@pytest.mark.parametrize(
    "text",
    [
        "ri\u200bght lo\u00adwer zone",
        "\u202eright lower zone\u202c",
        "right\u00a0lower\u2003zone",
        "right lower\x00 zone\ud83d",
        "\ufeffright\x0blower\u2028zone",
        "🫁 right lower zone 🫁",
        "RIGHT LOWER ZONE",
        "\U0001fac1 right lower zone \U0001f637\U0001f3fd",
        "right lo\x07wer\x00 zone\x1b",
        "right\u200b low\u200der zone\ufeff",
        "\u2067right\u2069 lower zone\u200f",
        "right lower\r\nzone",
        "right lower zone e\u0301" + "\u0300" * 50,
        "right-lower zone",
        "right lower zone\u2019s",
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
