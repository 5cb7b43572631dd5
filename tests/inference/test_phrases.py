"""Whose left and right a phrase means, whose the network was taught, how the film lies: all ways through the door."""

import re

import pytest

from textray.errors import InputError
from textray.records import Grid, Laterality
from textray.text.cleaning import swap_sides
from textray.text.phrases import lone_sides, spell, turn

USUAL = Grid(height=4, width=4, orientation=("L", "F"))
FLIPPED = Grid(height=4, width=4, orientation=("R", "F"))
UNTOLD = Grid(height=4, width=4)
LATERAL = Grid(height=4, width=4, orientation=("A", "F"))
PATIENT, VIEWER, UNKNOWN = Laterality.PATIENT, Laterality.VIEWER, Laterality.UNKNOWN


def turned(phrase, given=PATIENT, taught=VIEWER, grid=USUAL):
    """What the network reads, by default of the patient's sides where it was taught the viewer's."""
    return turn(phrase, laterality=given, network_laterality=taught, grid=grid).network_text


# What lies on the viewer's left is what a viewer's-side network calls left, and a patient's-side one, which knows the
# standard film only, right.
@pytest.mark.parametrize(
    ("given", "grid", "taught", "viewer", "read"),
    [
        (PATIENT, USUAL, VIEWER, "right", "right"),
        (PATIENT, FLIPPED, VIEWER, "left", "left"),
        (PATIENT, UNTOLD, VIEWER, "right", "right"),
        (VIEWER, USUAL, VIEWER, "left", "left"),
        (VIEWER, FLIPPED, VIEWER, "left", "left"),
        (VIEWER, LATERAL, VIEWER, "left", "left"),
        (UNKNOWN, USUAL, VIEWER, "left", "left"),
        (PATIENT, USUAL, PATIENT, "right", "left"),
        (PATIENT, FLIPPED, PATIENT, "left", "right"),
        (PATIENT, UNTOLD, PATIENT, "right", "left"),
        (VIEWER, USUAL, PATIENT, "left", "right"),
        (VIEWER, FLIPPED, PATIENT, "left", "right"),
        (VIEWER, LATERAL, PATIENT, "left", "right"),
        (PATIENT, USUAL, UNKNOWN, "right", "right"),
        (VIEWER, FLIPPED, UNKNOWN, "left", "left"),
    ],
)
def test_every_way_of_the_sides(given, grid, taught, viewer, read):
    found = turn("Opacity, left base", laterality=given, network_laterality=taught, grid=grid)
    assert (found.viewer, found.network_text) == (f"Opacity, {viewer} base", f"Opacity, {read} base")
    assert found.phrase == "Opacity, left base"
    codes = [notice.code for notice in found.notices]
    assert ("W_SIDES_ASSUMED" in codes) == (given is PATIENT and grid is UNTOLD)
    assert ("W_SIDES_UNTAUGHT" in codes) == (taught is UNKNOWN)


@pytest.mark.parametrize("taught", [VIEWER, PATIENT])
def test_the_patients_sides_of_a_film_that_has_none_are_refused(taught):
    with pytest.raises(InputError, match="run to neither side") as error:
        turned("left base", taught=taught, grid=LATERAL)
    assert error.value.code == "E_SIDES_UNDEFINED"
    assert turned("bilateral haze", taught=taught, grid=LATERAL) == "bilateral haze"


CANNOT = [
    "leftmost opacity", "rightward shift", "turned clockwise", "opacity at 3 o'clock",
    "a letter l on the film",
]  # fmt: skip


@pytest.mark.parametrize("phrase", CANNOT)
def test_sides_that_cannot_be_turned_are_refused_where_they_must_be(phrase):
    with pytest.raises(InputError, match="cannot be turned") as error:
        turned(phrase)
    assert error.value.code == "E_SIDES"
    assert turned(phrase, PATIENT, PATIENT) == turned(phrase, VIEWER, VIEWER) == phrase


def test_the_lingula_is_the_patients_left_whoever_looks():
    words = "lingular opacity"
    assert turned(words, PATIENT, PATIENT) == words
    for laterality, taught in ((PATIENT, VIEWER), (VIEWER, VIEWER), (VIEWER, PATIENT), (UNKNOWN, VIEWER)):
        with pytest.raises(InputError) as error:
            turned(words, laterality, taught)
        assert error.value.code == "E_SIDES"
        assert "left middle zone" in error.value.do or "side in the picture" in error.value.do


@pytest.mark.parametrize(
    "phrase", ["R+L bases", "R&L", "L=R", "R-base opacity", "l hemithorax", "L-sided haze", "LLZ haze", "R.U.L.", "r>l"]
)
def test_no_side_is_left_behind_when_others_are_turned(phrase):
    assert lone_sides(turned(phrase)) == ()
    sides = re.findall("left|right", turned(phrase))
    assert sides == [{"left": "right", "right": "left"}[side] for side in re.findall("left|right", spell(phrase))]
    assert sides


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("RLL opacity", "right lower lobe opacity"),
        ("Collapse of the lul.", "Collapse of the left upper lobe."),
        ("rt. base and Lt apex", "right base and left apex"),
        ("R lung, L > R", "right lung, left > right"),
        ("effusion (L)", "effusion (left)"),
        ("l base, r upper zone", "left base, right upper zone"),
        ("left-sided haze", "left-sided haze"),
        ("RML/RLL", "right middle lobe/right lower lobe"),
        ("R.U.L. opacity", "right upper lobe opacity"),
        ("l. l. z. haze", "left lower zone haze"),
        ("infection (l), opacity r.", "infection (left), opacity right."),
        ("opacity, r>l", "opacity, right>left"),
        ("bases, l >= r", "bases, left >= right"),
        ("L1 fracture, L 4, R.M. and O'R", "L1 fracture, L 4, R.M. and O'R"),
        ("R/O mass, L/R bases", "R/O mass, left/right bases"),
        ("b/l lower zone, B/L bases", "bilateral lower zone, bilateral bases"),
        ("Bilat. haze r/l", "bilateral haze right/left"),
        ("R. base, Rt LL, left UZ", "right base, right lower lobe, left upper zone"),
        ("Dr. R. Smith, R Patel", "Dr. R. Smith, R Patel"),
        ("bulla, alt, art, full", "bulla, alt, art, full"),
    ],
)
def test_short_forms_are_spelled_out(short, long):
    assert spell(short) == long
    assert spell(long) == long


@pytest.mark.parametrize("words", ["upright film", "a bright spot", "cleft"])
def test_words_that_hold_a_side_are_none(words):
    assert swap_sides(words) == words
    assert turned(words, grid=LATERAL) == words


@pytest.mark.parametrize("words", ["", " \n", "nan", "...", "x" * 4001])
def test_no_words_and_too_many_are_refused(words):
    with pytest.raises(InputError) as error:
        turned(words)
    assert error.value.code == "E_NO_PHRASE"
    assert len(str(error.value)) < 400
