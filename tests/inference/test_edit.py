import pytest

from textray.errors import InputError, UsageError
from textray.inference.edit import apply, check
from textray.records import Laterality, Zones

WRITTEN = Zones.from_present([1, 0, 0, 0, 0, 1])


@pytest.mark.parametrize(
    ("edit", "present"),
    [
        ("+left lower", [1, 0, 1, 0, 0, 1]),
        ("-left upper", [0, 0, 0, 0, 0, 1]),
        ("+left lower -right lower", [1, 0, 1, 0, 0, 0]),
        ("+left lower; -right lower", [1, 0, 1, 0, 0, 0]),
        ("+left lower\n-right lower", [1, 0, 1, 0, 0, 0]),
        ("−left upper", [0, 0, 0, 0, 0, 1]),  # the minus sign of a word processor
        ("—left upper", [0, 0, 0, 0, 0, 1]),  # and what another makes of it
        ("-left upper +left upper", [1, 0, 0, 0, 0, 1]),
        ("+left lung", [1, 1, 1, 0, 0, 1]),
        ("-left", [0, 0, 0, 0, 0, 1]),
        ("left-sided opacity in the mid zone", [0, 1, 0, 0, 0, 0]),
        ("opacity - left upper zone", [1, 0, 0, 0, 0, 0]),
        ("findings:\n- left mid zone\n- right lower zone", [0, 1, 0, 0, 0, 1]),
        ("* left mid zone\n* right lower zone", [0, 1, 0, 0, 0, 1]),
        ("no infection.", [0] * 6),
    ],
)
def test_signs_change_a_report_and_sentences_replace_it(edit, present):
    check(edit, Laterality.VIEWER)
    assert apply(edit, WRITTEN, laterality=Laterality.VIEWER).zones.present == Zones.from_present(present).present


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        ("", "blank"),
        (" \n", "blank"),
        ("Hello World", "not understood"),
        ("+heart", "not understood"),
        ("+", "sign or a bullet"),
        ("- right lower", "sign or a bullet"),
        ("\n - left mid zone\n - right lower zone", "sign or a bullet"),
        ("– right lower", "sign or a bullet"),
        ("--right lower", "sign or a bullet"),
        ("+ right lower", "sign or a bullet"),
        ("'-right lower'", "sign or a bullet"),
        ("+left upper - right lower", "sign or a bullet"),
        ("+left upper\n- right lower", "sign or a bullet"),
        ("+left upper -no opacity in the left lower zone", "deny"),
        ("left upper -right lower", "mixes"),
        ("left upper +right lower", "mixes"),
    ],
)
def test_what_is_not_understood_is_refused_before_any_film(edit, match):
    with pytest.raises(UsageError, match=match):
        check(edit, Laterality.PATIENT)


def test_a_refused_part_is_an_error_of_that_film():
    with pytest.raises(InputError):
        apply("+heart", WRITTEN, laterality=Laterality.VIEWER)
