"""Reports in sentences and clauses."""

import time

import pytest

from textray.errors import InputError
from textray.text.sentences import Sections, clauses, split, training_text

TABLE = [
    ("1. No acute disease.  2. Stable cardiomegaly.", ["No acute disease.", "Stable cardiomegaly."]),
    ("1) Mild edema; 2) small left effusion.", ["Mild edema", "small left effusion."]),
    ("Comparison is made to ___. The heart is enlarged.", ["Comparison is made to.", "The heart is enlarged."]),
    ("Opacity, e.g. atelectasis vs. pneumonia.", ["Opacity, e.g. atelectasis vs. pneumonia."]),
    ("Nodule measures 1.2 cm. No effusion.", ["Nodule measures 1.2 cm.", "No effusion."]),
    ("Discussed with Dr. ___ at 3:15 p.m. on ___ by telephone.", ["Discussed with Dr. at 3:15 p.m. on by telephone."]),
    ("Heart size normal.Lungs are clear.", ["Heart size normal.", "Lungs are clear."]),
    ("ET tube tip is 4.5 cm above\n the carina.", ["ET tube tip is 4.5 cm above the carina."]),
    ("Fracture of rib 5. The heart is normal.", ["Fracture of rib 5.", "The heart is normal."]),
    ("Old fracture of T12. No pneumothorax.", ["Old fracture of T12.", "No pneumothorax."]),
    ("No. 3 clip is unchanged.", ["No. 3 clip is unchanged."]),
    ("Stable appearance..  No change...", ["Stable appearance..", "No change..."]),
    ("Compared with 5 a.m. The tube has moved.", ["Compared with 5 a.m.", "The tube has moved."]),
    ("XXXX. Lungs are clear.", ["Lungs are clear."]),
    ("Cardiomegaly.", []),
    ("Seen by ___ today. ___ clear.", ["Seen by today."]),  # hidden words do not count
    ("..", []),
    ("", []),
    ("The lungs are clear\n\nNo effusion", ["The lungs are clear", "No effusion"]),
    ("The lungs\r\nare clear.\r\n \r\nNo effusion.", ["The lungs are clear.", "No effusion."]),
    ("Room 7: 2. The rib. 3. The lung.", ["The rib.", "The lung."]),
    ("Impression: 1. No edema. 2. Old scar.", ["No edema.", "Old scar."]),
    ("Clear lungs. 2 mm nodule. 12. The heart is big.", ["Clear lungs.", "2 mm nodule.", "The heart is big."]),
    ("The \u201chaze\u201d is seen.\u201d Next one.", ['The "haze" is seen."', "Next one."]),
    ("Seen [**Name 12**] before. It\u2019s unchanged.", ["Seen before.", "It's unchanged."]),
    ("Clear lungs. .5 cm nodule seen.", ["Clear lungs.", ".5 cm nodule seen."]),
]


@pytest.mark.parametrize(("text", "expected"), TABLE)
def test_the_table(text, expected):
    assert split(text) == tuple(expected)


def test_one_word_findings_are_kept_if_asked_for():
    assert split("Cardiomegaly. No effusion.", min_words=1) == ("Cardiomegaly.", "No effusion.")
    assert split("XXXX. 2.", min_words=1) == ()


def test_what_is_no_text_is_refused():
    with pytest.raises(InputError, match="not text"):
        split(None)


@pytest.mark.parametrize("unit", [".", " ", "\n", "[**", "_", "1. A", "Dr. ", "\u0301", '."', "X" * 5 + " "])
def test_a_long_text_takes_time_that_grows_with_its_length_only(unit):
    text = "Clear lungs " + unit * (100_000 // len(unit)) + "x"
    start = time.perf_counter()
    split(text)
    assert time.perf_counter() - start < 10  # a quadratic way would take minutes


def test_clauses_of_a_caption():
    assert clauses("Infection, two areas, left and right lung.") == ("Infection", "two areas", "left and right lung")
    assert clauses("no infection.") == ("no infection",)
    assert clauses(" , . ") == ()


def test_a_training_text_is_findings_then_impression_with_a_hard_break():
    both = Sections(findings="Clear lungs", impression="Normal heart")
    assert split(training_text(both)) == ("Clear lungs", "Normal heart")
    assert training_text(Sections(impression=" Normal heart\n")) == "Normal heart"
    assert training_text(Sections()) == ""
