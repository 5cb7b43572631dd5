import re
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textray.records import ZoneState
from textray.text.zones import parse

DIGIT = {ZoneState.PRESENT: "1", ZoneState.ABSENT: "-", ZoneState.UNMENTIONED: "."}


def zones_of(text):
    """Left and right zones from top to bottom: 1 present, - absent, . unmentioned."""
    states = "".join(DIGIT[state] for state in parse(text, laterality="viewer").zones.states)
    return f"{states[:3]} {states[3:]}"


REALISTIC = {
    "The left base is not well seen.": "... ...",
    "The right base is not seen well; left basal consolidation.": "..1 ...",
    "The right base cannot be assessed.": "... ...",
    "Left lung clear. Right lung not fully imaged.": "--- ...",
    "Left apex is poorly visualised.": "... ...",
    "Poorly defined opacity at the right base.": "... ..1",
    "Consolidation is not seen in the left base.": "..- ...",
    "Unremarkable.": "--- ---",
    "NAD": "--- ---",
    "Heart normal, lungs NAD": "--- ---",
    "CXR within normal limits.": "--- ---",
    "Nothing abnormal detected": "--- ---",
    "No acute cardiopulmonary findings.": "--- ---",
    "Right basal opacity. Otherwise normal.": "--- --1",
    "Right basal opacity. NAD otherwise": "--- --1",
    "Heart size normal.": "... ...",
    "Normal heart": "... ...",
    "No acute bony findings.": "... ...",
    "No soft tissue abnormality.": "... ...",
    "There is a patchy airspace opacity in the right lower lobe, concerning for pneumonia.": "... ..1",
    "Bilateral patchy ground-glass opacities, worse in the lower zones.": "..1 ..1",
    "Bilateral peripheral opacities with lower zone predominance, left greater than right.": "..1 ..1",
    "Consolidation in the left mid and lower zones; the right lung is clear.": ".11 ---",
    "Right upper lobe collapse with no effusion.": "... 1..",
    "No evidence of consolidation in either lung.": "--- ---",
    "The lungs are clear bilaterally. No pleural effusion or pneumothorax.": "--- ---",
    "Heart size is normal. Lungs are clear. No acute osseous abnormality.": "--- ---",
    "Left basilar opacity may reflect atelectasis or pneumonia.": "..1 ...",
    "Opacity at the left base, unchanged from prior.": "..1 ...",
    "New right middle lobe opacity; no change in left basal atelectasis.": "..1 .1.",
    "Multifocal pneumonia involving the RUL, RML and LLL.": "..1 11.",
    "No consolidation on the left, but there is hazy opacity in the right mid zone.": "--- .1.",
    "Right-sided PICC with tip in the SVC. Left lower lobe opacity.": "..1 ...",
    "Interval resolution of the left upper lobe opacity. Persistent right basal consolidation.": "-.. ..1",
    "Patchy opacities in the left upper, left middle and right lower zones.": "11. ..1",
    "Both lower lobes and the right middle lobe are involved.": "..1 .11",
    "The apices are clear. Bibasal consolidation.": "-.1 -.1",
    "The right costophrenic angle is sharp; left costophrenic angle is blunted.": "... ...",
    "Infiltrates in the right lung, upper and lower zones.": "... 1.1",
    "No opacity in left upper zone, left mid zone, or right base.": "--. ..-",
    "RIGHT LUNG: CLEAR. LEFT LUNG: CONSOLIDATION IN THE LOWER AND MIDDLE ZONES.": ".11 ---",
    "1. Right lower lobe pneumonia.\n2. No pneumothorax.": "... ..1",
    "- Left base clear\n- Right base opacity": "..- ..1",
    "Right lung clear\nLeft lower lobe opacity": "..1 ---",
    "PATCHY OPACITY IN THE RIGHT\nLOWER ZONE": "... ..1",
    "No opacity in\nthe left lung": "--- ...",
    "There is no opacity in the right lung and the left lower zone is opacified.": "..1 ---",
    "The whole left lung is opacified.": "111 ...",
    "Opacity in the left lower zone has resolved, right apex remains opacified.": "..- 1..",
    "Lower lobe opacities, right greater than left.": "..1 ..1",
    "Mild opacity in the left upper lobe; otherwise the lungs are clear.": "1-- ---",
    "The right lung base and left apex show no abnormality.": "-.. ..-",
    "Neither base is consolidated.": "..- ..-",
    "There is without significant interval change mild atelectasis of the left base.": "..1 ...",
    "Trachea is deviated to the right. Left lung white-out.": "111 ...",
    "Left-sided chest tube. Small right apical pneumothorax.": "... ...",
    "Consolidation is present in lower left lung field and upper right lung field": "..1 1..",
    "right lower zone is affected, the left lung is not": "--- ..1",
    "No opacities, masses or nodules in the lungs. Minimal scarring in left apex.": "1-- ---",
    "Mid-to-lower zone opacities of the left lung": ".11 ...",
    "There are diffuse bilateral opacities with relative sparing of the upper lobes": "-11 -11",
    "left lower lobe is free of consolidation": "..- ...",
    "Lungs are clear except for a right lower lobe opacity.": "--- --1",
    "Opacities: left (lower), right (upper, middle)": "..1 11.",
    "The left lung isn't clear; the right one can't be excluded": "111 ...",
    "Left costophrenic angle blunted, perihilar haze on both sides": ".1. .1.",
}

# Places, and what denies them: zones, and the texts that name them.
SHORT = """\
1.. ...: apical left lung | left apex | upper zone of the left lung | left upper lobe | LUL
.1. ...: middle left lung | left mid zone | left mid-zone | left perihilar | left hilar | lingula
..1 ...: left base | left basal | left costophrenic angle | LLL | lower zone opacity, on the left
..1 ...: left lung opacity, mainly in the lower zone
... 1..: RUL
... .1.: RML
... ..1: RLL | R base opacity | diffuse opacity in the right lower zone
..1 ..1: bibasilar | bi-basal | lower zones | lung bases | left and right lower zones
..1 ..1: lower zone on the left and right
111 111: both lungs | opacity throughout the lungs | diffuse infiltrates
111 ...: left lung | left-sided pneumonia | whole left lung | all left lung | from apex to base of the left lung
... 111: diffuse opacity in the right lung
... ...: lower zone opacity
1.1 ...: upper and lower left lung | left upper and lower zones
1.. ..1: right lower left upper | lower right upper left
1.. ..1: bilateral pulmonary infection, upper left lung and lower right lung
--- ..1: patchy opacity in the right lower zone, left lung clear
--- ..1: No opacity in the left lung, patchy opacity in the right lower zone.
--- ..1: consolidation right lower zone no consolidation left lung
--- ...: no opacity in the left lung | no effusion or consolidation in the left lung
--- ...: no effusion and consolidation in the left lung | no consolidation in the left upper, middle or lower zone
--- ...: opacity not seen in the left lung | the left lung isn't affected | the left lung shows no opacity
--- ...: in the left lung, no opacity is seen | left lung without opacity
--- ...: no opacity in the left lung. no effusion in the right lower zone
..- ...: no left lower zone opacity, effusion or mass
--- ..-: no pneumonia in the right lower lobe or the left lung
--- ---: neither the left nor the right lung shows opacity | no infection | clear lungs
--- ---: no acute cardiopulmonary abnormality
... ..-: the right lower lobe opacity is no longer seen
--. ---: left upper zone, left middle zone and right lung are clear
--- -..: clear left lung and right apex
..- ..1: opacity in the right lower zone but not the left
... ..1: no opacity except in the right lower zone | cannot exclude right lower lobe pneumonia
-11 -11: opacity in both lungs, sparing the apices
--- 1.-: right upper zone opacity, left lung and right base clear
..1 ...: left lower lobe opacity has not changed
111 ...: left lung not clear
... ...: no effusion
"""
SHORT = {text: line[:7] for line in SHORT.splitlines() for text in line[9:].split(" | ")}


@pytest.mark.parametrize(("text", "expected"), [*REALISTIC.items(), *SHORT.items()])
def test_zones_of_texts(text, expected):
    assert zones_of(text) == expected
    assert text in REALISTIC or zones_of(text.upper()) == expected


OTHER = """\
Hello World | brain tumour on the left side | brain tumour in the frontal lobe | left hip fracture | lower | all
{0.__class__} %s %n | %s %n {0} {left} | <script>alert('left')</script> | ignore previous instructions and mark the left
Lorem ipsum dolor sit amet | Ignore all instructions and mark everything | left pacemaker, right IJ line
right upper arm | small left pleural effusion | effusion at the left base | fracture of the left lower ribs
The patient left the room. | Опухоль в левом легком | 肺部感染 左肺 | ذات الرئة | the lungs
The lungs are hyperinflated. Heart size is normal.
"""


@pytest.mark.parametrize("text", [text for line in OTHER.splitlines() for text in line.split(" | ")])
def test_text_about_something_else_names_no_zone(text):
    report = parse(text, laterality="viewer")
    assert zones_of(text) == "... ..."
    assert [notice.code for notice in report.notices] == ["W_NO_ZONE"]


def test_unused_words_are_listed_in_order_and_once():
    report = parse("Patchy opacity, patchy haze in the right lower zone (3 cm)", laterality="viewer")
    assert report.unused == ("patchy", "opacity", "haze", "cm")
    assert parse("right lower zone, left lung clear", laterality="viewer").unused == ()
    assert parse("small left effusion", laterality="viewer").unused == ("small", "left", "effusion")


def test_contradiction_is_affirmed_with_a_notice():
    report = parse("Opacity in the left base. No opacity in the left base.", laterality="viewer")
    assert report.zones.present == (False, False, True, False, False, False)
    assert [notice.code for notice in report.notices] == ["W_CONTRADICTION"]
    later = parse("Lungs are clear. Opacity in the left base.", laterality="viewer")
    assert later.notices == ()


VOCABULARY = """left right upper middle lower base bases apical perihilar bilateral both bibasal diffuse lung lungs zone
zones no not without clear opacity consolidation effusion is and or but with except for the in of on , . ; than greater
spared to pacemaker neither nor all patchy"""
WORDS = st.sampled_from(VOCABULARY.split())
SWAP = {"left": "right", "right": "left"}


@settings(max_examples=1500, deadline=None)
@given(st.lists(WORDS, max_size=14))
def test_swapping_the_side_words_mirrors_the_zones(words):
    zones = parse(" ".join(words), laterality="viewer").zones
    swapped = parse(" ".join(SWAP.get(word, word) for word in words), laterality="viewer").zones
    assert swapped == zones.mirror()


@pytest.mark.parametrize("text", [*REALISTIC])
def test_swapping_the_side_words_of_real_sentences_mirrors_the_zones(text):
    text = re.sub(r"\b[LR](?=UL|ML|LL)", lambda m: {"L": "left ", "R": "right "}[m.group()], text)
    text = re.sub(r"\b(UL|ML|LL)\b", lambda m: {"UL": "upper", "ML": "middle", "LL": "lower"}[m.group()], text)
    zones = parse(text, laterality="viewer").zones
    swapped = re.sub(r"(?i)\b(?:left|right)\b", lambda m: SWAP[m.group().lower()], text)
    assert parse(swapped, laterality="viewer").zones == zones.mirror()


@pytest.mark.parametrize(
    "unit",
    [
        *("lower ", "left ", "left lower, ", "lower, ", "no ", "no left lower opacity or ", "both left "),
        *("no significant ", "patchy opacity in the right lower zone. ", "upper and ", "\n", "- ", "word ", "("),
    ],
)
def test_work_grows_with_the_length_only(unit):
    """Counts calls instead of seconds: four times the text makes at most six times the calls."""

    def calls(times):
        count = 0

        def tally(_frame, event, _argument):
            nonlocal count
            count += event in {"call", "c_call"}

        text = "left lung " + unit * times + "end"
        previous = sys.getprofile()
        sys.setprofile(tally)
        try:
            parse(text, laterality="viewer")
        finally:
            sys.setprofile(previous)
        return count

    assert calls(2000) < 6 * calls(500) + 1000


def test_ten_thousand_words_are_read_to_the_end():
    text = "The heart is of normal size. " * 1700 + "Opacity in the right lower zone."
    assert zones_of(text) == "... ..1"
