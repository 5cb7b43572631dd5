"""What reading rooms write: sides in shorthand, denials behind, whole reports, misspelt words."""

import re

import pytest

from textray.records import ZoneState
from textray.text.terms import DENYING, DIFFUSE, NORMAL, PLACES
from textray.text.zones import parse

DIGIT = {ZoneState.PRESENT: "1", ZoneState.ABSENT: "-", ZoneState.UNMENTIONED: "."}


def zones_of(text):
    """The patient's right and left zones from top to bottom: 1 present, - absent, . unmentioned."""
    states = "".join(DIGIT[state] for state in parse(text, laterality="patient").zones.states)
    return f"{states[:3]} {states[3:]}"


def codes(text):
    return [n.code for n in parse(text, laterality="patient").notices if n.code != "W_SIDES_ASSUMED"]


def rows(table):
    return [(text, line[:7]) for line in table.strip().splitlines() for text in line[9:].split(" | ")]


# The patient's right, then the left.
SIDES = """
..1 ..1: b/l lower zone opacity | B/L basal infiltrates | b.l. lower zones | Bilat. base opacity | bil LZ opacity
..1 ..1: L/R lower zone opacity | opacity in r/l lower zone | R & L bases | R=L basal opacities
..1 ..1: opacities, r>l, bases
..1 ..1: bases L>R | basal opacities (L > R) | RLL>LLL opacity | lower zones, right > left | L≥R lower zone opacities
1.. 1..: b/l upper lobe infiltrates, worse on the right | BL UZ opacities
111 111: Patchy opacities R>L | opacities b/l | opacities, r<l
.1. .1.: bilat perihilar haze | B/L MZ opacity
1.1 1.1: b/l UL and LL opacities
..1 ...: Rt. lower lobe opacity | R. base opacity | r. base opacity | (R) base opacity | opacity (r) base | Right LL
..1 ...: RLZ opacity | R LL opacity | rt LZ | right lower zone | R-sided basal opacity | Rt.base opacity
..1 ...: R.L.L. opacity
..1 ...: basal opacity on the R | basal opacity, R. | R LZ
... ..1: Lt. base | L. base opacity | l. base opacity | (L) base opacity | opacity (l) base | Left LL | LLZ | left LZ
... ..1: basal opacity on the L | basal opacity, L. | L. Lower lobe opacity | Lt LL | L.L.L. opacity
1.. ...: RUZ haze | R UZ | Rt. UL opacity
... 1..: LUZ haze | Lt. UL opacity
.1. ...: RMZ haze | R ML opacity | middle lobe opacity
... .1.: LMZ haze | L MZ | lingula
11. ...: right UZ and MZ opacity | R UL, ML opacity
... 1.1: left UL, LL opacity | LUL/LLL opacity
1.. ..1: Rt upper and lt lower zones | R upper, L lower zone opacities | Lt LL and Rt UL opacities
..1 ..1: right base and retrocardiac opacity
111 ...: r opacity | opacity R | rt-sided pneumonia
... 111: l opacity | opacity L | lt-sided pneumonia
... ..1: Dr. R. Smith: left base opacity | Left base opacity. Reported by Smith, R. | left base opacity, R/O mass
... ..1: retrocardiac opacity | left effusion with basal atelectasis | left basal effusion/atelectasis
..1 ...: Right basilar atelectasis, and bilateral pleural effusions. | right base opacity compared to the left
... ...: basal opacity 1.5 L of fluid | L1 fracture, lower lobe opacity
"""


@pytest.mark.parametrize(("text", "expected"), rows(SIDES))
def test_sides_in_shorthand(text, expected):
    assert zones_of(text) == expected
    assert "W_MISSPELT" not in codes(text)


RIGHT = {"c": "R", "s": "r", "t": "Rt", "w": "right", "o": "left", "O": "L", "p": "l"}
LEFT = {"c": "L", "s": "l", "t": "Lt", "w": "left", "o": "right", "O": "R", "p": "r"}
ONE_SIDED = """\
{c}. base opacity | {s}. base opacity | ({c}) base opacity | ({s}) base opacity | {t}. base opacity | {t} base opacity
{t}.base opacity | {c} base opacity | {c}-base opacity | {c}-sided basal opacity | {t}-sided opacity | opacity {c}
{s} opacity | {c}LZ | {c}UZ | {c}MZ | {c} LZ | {c}UL | {c}LL | {c}.L.L. opacity | {c} LL opacity
{t}. UL and {O} LL | {c}UL, {O}LL
{w} LL | {w} UZ and MZ | {w} UL, LL | basal opacity on the {c} | basal opacity, {c}. | {c} clear, {O} base opacity
{c}UL clear; {O}LL opacity (+) | {c}LL opacity (-), {O}LL opacity (+) | {w} effusion with basal atelectasis
{w} base opacity compared to the {o} | {w} base opacity, {p} clear | {t} upper and {O} lower zones
S/p {w} lobectomy, {o} base opacity
? {c}LL pneumonia. {O}LL opacity | HISTORY: {c}LL pneumonia FINDINGS: {O}LL opacity
{w} base opacity? No. {o} base opacity | {c} lower {O} upper opacity"""


@pytest.mark.parametrize("text", [text for line in ONE_SIDED.splitlines() for text in line.split(" | ")])
def test_the_other_letter_is_the_other_side(text):
    right, left = zones_of(text.format_map(RIGHT)), zones_of(text.format_map(LEFT))
    assert (right[:3], right[4:]) == (left[4:], left[:3])
    assert right[:3] != right[4:]
    assert "1" in right


DENIED = """
... ..-: LLL opacity: none | LLL opacity - nil | LLL opacity: negative | LLL opacity, now resolved.
... ..-: LLL opacity (resolved)
... ..-: LLL opacity - resolved | LLL opacity: absent | LLL opacity (none) | LLL opacity has gone
... ..-: LLL opacity. Resolved.
... ..-: Opacity in the left base? No. | Opacity in the left base? None seen. | LLL opacity ? no | LLL opacity (-)
... ..-: LLL opacity -ve
... ..-: LLL opacity... none | LLL opacity no more | unlikely to be LLL pneumonia
... ..-: LLL opacity neg. | LLL opacity: - | LLL opacity - | There isnt opacity in the left base
... ..-: LLL doesnt show opacity
... ..-: nil opacity in the left base | left base w/o opacity | LLL pneumonia unlikely | LLL pneumonia is unlikely.
... ..-: unlikely LLL pneumonia
... ..-: LLL pneumonia ruled out | left base negative for opacity | LLL opacity none
... ..-: LLL opacity, completely cleared since
..- ..-: RLL and LLL opacities, now resolved | RLL and LLL opacities, both resolved
--. ..-: RUL, RML and LLL opacities: resolved
..1 ..-: RLL opacity +ve, LLL opacity -ve | RLL +, LLL - | RLL opacity (+), LLL opacity (-)
..1 ..-: Right base opacity, left base opacity resolved
..1 ..-: Opacity in the left base? No, but right base opacity.
... ..1: LLL opacity, partially resolved | LLL opacity not resolved | near complete resolution of LLL opacity
... ..1: LLL opacity, no change
... ..1: Is there opacity in the left base? Yes. | LLL opacity no effusion | LLL opacity, pneumonia unlikely
... ..1: unchanged granuloma in LLL
--- ---: Consolidation: none | Negative chest | Hyperinflation of the lungs but they are clear. | Pneumonia? No.
--- --1: LLL opacity, nothing else | LLL opacity; no others | LLL opacity. None elsewhere.
--- --1: LLL opacity. Otherwise clear. | LLL opacity, no other infiltrate
--- --1: changes in the left base without acute disease
"""


@pytest.mark.parametrize(("text", "expected"), rows(DENIED))
def test_denials_before_and_behind(text, expected):
    assert zones_of(text) == expected


def test_a_denial_that_is_not_used_gives_a_notice():
    for text in ("Left base opacity. None.", "Left base opacity. No.", "LLL pneumonia is seen; not he"):
        assert codes(text) == ["W_DENIAL_UNUSED"]
    for text in (
        "Left base opacity. No pleural effusion.",
        "Left base opacity, no change.",
        "No opacity except in the left base",
    ):
        assert codes(text) == []


PARTS = {
    "INDICATION: Evaluate for RLL pneumonia.\nFINDINGS: Opacity in the left base.": "... ..1",
    "HISTORY: RUL pneumonia last month.\nFINDINGS: The lungs are clear.": "--- ---",
    "HISTORY:\n\nRUL pneumonia\n\nIMPRESSION: left base opacity": "... ..1",
    "COMPARISON: RLL opacity on prior film.\nFINDINGS: New left base opacity.": "... ..1",
    "COMPARISON: None.\n\nThe left base is opacified.": "... ..1",
    "Clinical history: RLL pneumonia. Findings: normal chest.": "--- ---",
    "INDICATION: cough, right pneumonia FINDINGS: left base opacity IMPRESSION: pneumonia": "... ..1",
    "Indication: right pneumonia Findings: left base opacity": "... ..1",
    "CLINICAL HISTORY Right upper pneumonia FINDINGS Left base opacity": "... ..1",
    "**History:** right pneumonia\n**Findings:** left base opacity": "... ..1",
    "FINDINGS\nLeft base opacity\nTECHNIQUE\nright decubitus chest": "... ..1",
    "PREVIOUS REPORT: RLL opacity. CURRENT REPORT: left base opacity": "... ..1",
    "REASON FOR EXAM: right pneumonia\nEXAM: Chest\nREPORT:\n1. LLL opacity.\n2. No effusion.": "... ..1",
    "EXAM: Chest x-ray. Left base opacity.": "... ..1",
    "RIGHT LUNG: CLEAR. LEFT LUNG: OPACITY IN THE BASE.": "--- ..1",
    "Hx: right pneumonia. CXR: left base opacity": "... ..1",
    "Impression: LLL opacity. Recommendation: CT to exclude RLL mass.": "... ..1",
    "In comparison: left base opacity": "... ..1",
    "FINDINGS LEFT BASE: OPACITY": "... ..1",
    "L BASE: CLEAR": "... ..-",
    "HISTORY LEFT PNEUMONIA FINDINGS: RIGHT BASE OPACITY": "..1 ...",
    "INDICATION: right pneumonia LUNGS: left base opacity": "... ..1",
    "PMH: right pneumonia. Imp: left base opacity": "... ..1",
    "Clinical Hx: RUL pneumonia\nXR Chest: left base opacity": "... ..1",
    "S/p right lower lobectomy, left basal opacity.": "... ..1",
    "Status post RUL lobectomy with left base opacity": "... ..1",
    "Left base opacity status post right lobectomy": "... ..1",
    "h/o RLL pneumonia. LLL opacity": "... ..1",
    "Rule out RLL pneumonia. Lungs are clear.": "--- ---",
    "R/O RLL, RML or RUL pneumonia": "... ...",
    "Evaluate for RLL pneumonia; left base opacity": "... ..1",
    "?RLL pneumonia. LLL opacity": "... ..1",
    "LLL opacity ?pneumonia": "... ..1",
    "LLL opacity, pneumonia?": "... ..1",
    "RLL pneumonia?": "... ...",
    "LLL pneumonia? Cannot be excluded.": "... ..1",
    "Post-operative changes on the right": "... ...",
    "Scarring in the left base after surgery": "... ..1",
    "Kerley lines at both bases": "..1 ..1",
    "Cannot rule out LLL pneumonia": "... ..1",
    "Left-sided shunt tubing, sutures along the left apex": "... ...",
    "Improved aeration of the left lung": "... ...",
    "Obscuration of the left base": "... ...",
    "Blunting of the left costophrenic angle": "... ...",
    "Changes in the lungs consistent with COPD": "111 111",
    "Calcified granuloma seen bilaterally": "111 111",
    "There is no pneumothorax the lungs are hyperinflated": "... ...",
    "There is no pneumothorax the lungs are clear": "--- ---",
    "The left lung is well aerated without focal consolidation": "... ---",
    "The lungs and pleural spaces show no acute abnormality": "--- ---",
    "Right basilar atelectasis, and bilateral pleural effusions": "..1 ...",
    "Bilateral effusions, small on the left, with left basilar atelectasis": "... ..1",
    "Consolidation and costophrenic blunting in the left lower lobe have cleared": "... ..-",
    "Left pneumothorax measuring 3 cm in the left apex": "... ...",
    "RUL resection, no acute abnormality": "--- ---",
    "No left base opacity or consolidation": "... ..-",
    "Emphysema and left lower lobe scarring, both stable": "... ..1",
    "Bibasilar atelectasis, greater on the left": "..1 ..1",
    "Bilateral opacities, most notably in the right middle lobe": "111 111",
    "Calcified granuloma in the left base and calcified left hilar lymph nodes": "... ..1",
    "Low lung volumes with crowding at the bases": "... ...",
    "A nodule in the left base that is not definitively calcified": "... ..1",
    "Subtle opacity in the left base otherwise unremarkable lungs": "--- --1",
    "The apices are partially excluded from the view": "... ...",
    "Bibasilar infiltrates and venous engorgement have resolved": "..- ..-",
    "No suggestion of enlargement of the left basal nodule": "... ..1",
    "Left basal scar is not as well seen": "... ..1",
    "Left hilar calcifications and dense nodule in the left lung": "... 111",
    "Left chest wall mass": "... ...",
    "The lungs are hyperexpanded with flattened diaphragms, compatible with emphysema": "111 111",
    "Hyperinflated lungs with flattened diaphragms and increased retrosternal airspace": "... ...",
    "Hypoinflated lungs with basilar atelectasis": "... ...",
    "Lungs are clear no effusions or edema": "--- ---",
    "Nodular opacity projecting over the left 5th rib": "... 111",
    "Irregularity of the left 7th rib with pleural thickening": "... ...",
    "Stable bilateral calcified granulomas/lymph nodes": "111 111",
    "Opacity in the left base incompletely evaluated by this exam": "... ..1",
    "In the left base on the lateral view, there is patchy disease": "... ..1",
    "Elevated left hemidiaphragm with basilar atelectasis": "... ..1",
}  # fmt: skip


@pytest.mark.parametrize("text", PARTS)
def test_only_what_describes_the_image_counts(text):
    assert zones_of(text) == PARTS[text]


NEARLY = {
    "rigth lower lobe consolidation and left base opacity": ("... ..1", "right"),
    "right lowr zone": ("... ...", "lower"),
    "right lower zoen": ("..1 ...", "zone"),
    "right l\u043ewer zone": ("... ...", "lower"),  # Cyrillic
    "r\u0456ght base": ("... ...", "right"),
    "n\u043e opacity in the left base": ("... ...", "no"),
    "left lung claer": ("... ...", "clear"),
    "wihtout opacity, left base": ("... ...", "without"),
    "left lung opacity, mainly in the lowr zone": ("... ...", "lower"),
    "diffuse opacity, sparing the lfet apex": ("... ...", "left"),
    "Diffuse opacities. The rigth base is clear.": ("... ...", "right"),
    "leftlower zone opacity": ("... ...", "left lower"),
    "left lung apx opacity": ("... ...", "apex"),
    "1eft base opacity": ("... ...", "left"),
    "left apical pnuemothorax": ("... ...", "pneumothorax"),
}


@pytest.mark.parametrize("text", NEARLY)
def test_a_misspelt_word_is_a_question(text):
    zones, near = NEARLY[text]
    assert zones_of(text) == zones
    report = parse(text, laterality="patient")
    (notice,) = [n for n in report.notices if n.code == "W_MISSPELT"]
    assert all(f"'{word}'" in notice.remedy for word in near.split())
    with pytest.raises(Exception, match="nearly") as caught:
        parse(text, laterality="patient", strict=True)
    assert caught.value.code == "E_MISSPELT"


@pytest.mark.parametrize(
    "word",
    [
        "might",
        "light",
        "based",
        "basis",
        "case",
        "power",
        "loft",
        "Wright",
        "singular",
        "nasal",
        "10th",
        "one",
        "let",
        "history",
        "shared",
    ],
)
def test_ordinary_words_are_not_misspelt(word):
    assert codes(f"left base opacity, {word}") == []


KNOWN_TOO = {"let", "resolve", "spring", "either", "one", "booth", "bot", "bae"}  # words of their own


@pytest.mark.parametrize("text", [text for text, _ in rows(DENIED) + rows(SIDES)[::3]] + [*PARTS])
def test_a_misspelt_word_never_adds_a_zone(text):
    """Each word that matters with a letter left out, doubled or exchanged with the next."""
    before = parse(text, laterality="patient").zones.present
    for match in re.finditer(r"[A-Za-z]{4,}", text):
        word = match.group()
        if word.lower() not in PLACES.keys() | NORMAL | DENYING | DIFFUSE:
            continue
        for i in range(0, len(word), 2):
            for wrong in (
                word[:i] + word[i + 1 :],
                word[: i + 1] + word[i:],
                word[:i] + word[i : i + 2][::-1] + word[i + 2 :],
            ):
                if wrong.lower() not in KNOWN_TOO:
                    found = parse(text[: match.start()] + wrong + text[match.end() :], laterality="patient").zones
                    assert not [1 for now, then in zip(found.present, before, strict=True) if now > then], wrong
