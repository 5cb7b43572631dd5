import pytest

from textray.errors import InputError, UsageError
from textray.inference.own_report import apply, check_edit
from textray.records import Laterality, Zones

WRITTEN = Zones.from_present([1, 0, 0, 0, 0, 1])


@pytest.mark.parametrize(
    ("edit", "present"),
    [
        ("left lower", [0, 0, 1, 0, 0, 0]),
        ("left-sided opacity in the mid zone", [0, 1, 0, 0, 0, 0]),
        ("opacity - left upper zone", [1, 0, 0, 0, 0, 0]),
        ("findings:\n- left mid zone\n- right lower zone", [0, 1, 0, 0, 0, 1]),
        ("* left mid zone\n* right lower zone", [0, 1, 0, 0, 0, 1]),
        ("no infection.", [0] * 6),
    ],
)
def test_a_sentence_replaces_a_report(edit, present):
    check_edit(edit, Laterality.VIEWER)
    assert apply(edit, WRITTEN, laterality=Laterality.VIEWER).zones.present == Zones.from_present(present).present


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (" \n", "blank"),
        ("Hello World", "not understood"),
        ("+left lower", "adds and removes nothing"),
        ("-left upper", "Name all places"),
        ("−left upper", "removes nothing"),  # the minus sign of a word processor
        ("—left upper", "removes nothing"),  # and what another makes of it
        ("- right lower", "removes nothing"),
        ("\n - left mid zone\n - right lower zone", "removes nothing"),
        ("--right lower", "removes nothing"),
        ("'-right lower'", "removes nothing"),
        ("left upper -right lower", "removes nothing"),
        ("left upper +right lower", "removes nothing"),
    ],
)
def test_what_is_not_understood_is_refused_before_any_film(edit, match):
    with pytest.raises(UsageError, match=match):
        check_edit(edit, Laterality.PATIENT)


def test_a_refused_sentence_is_an_error_of_that_film():
    with pytest.raises(InputError):
        apply("heart", WRITTEN, laterality=Laterality.VIEWER)
