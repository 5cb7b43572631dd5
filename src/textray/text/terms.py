"""Vocabulary of the free-text parser: places, findings, cues, and things outside the lungs.

Words that are not listed change nothing; `Report.unused` names them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from textray.records import LEVELS, SIDES

UPPER, MIDDLE, LOWER = LEVELS
LEFT, RIGHT = SIDES


@dataclass(frozen=True, kw_only=True)
class Place:
    """Sides, as written, and levels that one word names.

    Attributes:
        lung: True for a word that is used of lungs only, such as "basal", unlike "lower".
        pair: True for a plural that means the left and the right one, such as "bases".
    """

    sides: tuple[str, ...] = ()
    levels: tuple[str, ...] = ()
    lung: bool = False
    pair: bool = False


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


LOBES = {
    "lul": (LEFT, UPPER),
    "lll": (LEFT, LOWER),
    "rul": (RIGHT, UPPER),
    "rml": (RIGHT, MIDDLE),
    "rll": (RIGHT, LOWER),
}
"""Short forms of lobes."""

_PLACES: tuple[tuple[str, tuple[str, ...], tuple[str, ...], str], ...] = (
    ("left lt leftsided", (LEFT,), (), ""),
    ("right rt rightsided", (RIGHT,), (), ""),
    ("bilateral bilaterally both neither", SIDES, (), ""),
    ("upper uppermost", (), (UPPER,), ""),
    ("middle mid", (), (MIDDLE,), ""),
    ("lower lowermost", (), (LOWER,), ""),
    ("apical apex apically suprahilar", (), (UPPER,), "lung"),
    ("midzone midlung perihilar parahilar hilar hilum", (), (MIDDLE,), "lung"),
    ("base basal basally basilar costophrenic infrahilar retrocardiac", (), (LOWER,), "lung"),
    ("apices", (), (UPPER,), "lung pair"),
    ("midzones hila", (), (MIDDLE,), "lung pair"),
    ("bases", (), (LOWER,), "lung pair"),
    ("biapical biapically", SIDES, (UPPER,), "lung"),
    ("bihilar biperihilar", SIDES, (MIDDLE,), "lung"),
    ("bibasal bibasally bibasilar", SIDES, (LOWER,), "lung"),
    ("lingula lingular", (LEFT,), (MIDDLE,), "lung"),
    *((lobe, (side,), (level,), "lung") for lobe, (side, level) in LOBES.items()),
)
PLACES = {
    word: Place(sides=sides, levels=levels, lung="lung" in kind, pair="pair" in kind)
    for words, sides, levels, kind in _PLACES
    for word in words.split()
}

DIFFUSE = _words("diffuse diffusely throughout widespread whole entire all")
LUNG = _words("lung lungs pulmonary hemithorax hemithoraces")
NOUNS = LUNG | _words("lobe lobes zone zones field fields chest thorax")
PLURALS = _words("lungs hemithoraces lobes zones fields")

BROAD = _words(
    """opacity opacities infiltrate infiltrates infiltration consolidation consolidations pneumonia pneumonitis
    infection infections infected disease abnormality abnormalities process lesion lesions airspace covid"""
)
"""Findings whose absence, where no place is named, means clear lungs."""

FINDINGS = BROAD | _words(
    """opacification opacified consolidated consolidative pneumonic bronchopneumonia ggo ggos groundglass glass haze
    haziness hazy atelectasis atelectases atelectatic collapse collapsed nodule nodules nodular mass masses
    infective infectious involvement involved involves affected affects shadow shadows shadowing density
    densities dense edema oedema inflammation inflammatory patch patches patchy reticular reticulation
    interstitial fibrosis fibrotic scar scarring cavitation cavity cavitary tuberculosis tb abnormal
    bronchogram bronchograms bronchiectasis emphysema infarct hemorrhage haemorrhage contusion aspiration
    congestion streaky"""
)

PLEURAL = _words("effusion effusions pleural pleura pneumothorax pneumothoraces hydropneumothorax empyema")

ELSEWHERE = PLEURAL | _words(
    """pacemaker catheter line lines tube tubes picc port drain lead leads electrode electrodes clip clips wire wires
    rib ribs clavicle clavicles shoulder humerus humeral scapula spine spinal vertebra vertebral bone bones
    osseous bony skeletal tissue tissues heart cardiac atrium atrial ventricle ventricular aorta aortic
    mediastinum mediastinal cardiomediastinal trachea tracheal carina diaphragm diaphragms hemidiaphragm hemidiaphragms
    breast breasts
    axilla axillary neck arm leg hand abdomen abdominal quadrant liver spleen kidney renal stomach brain
    frontal temporal parietal occipital cerebral subclavian jugular artery view views projection rotated
    rotation oblique decubitus shift shifted deviated deviation inflated expanded hyperinflated hyperexpanded
    volumes corner"""
)
"""Words beside which a side is not a part of the lung, unless the lung is named too."""

NORMAL = _words(
    "clear cleared sharp normal normally unremarkable spared resolved uninvolved unaffected healthy aerated absent"
)
NOTHING_WRONG = frozenset({"clear", "normal", "unremarkable", "nad", "wnl", "within normal limits"})
"""Words that make a whole sentence mean that nothing is wrong, as in "Unremarkable."."""

STUDY = _words("film radiograph study examination exam cxr xray x ray")
VERBS = _words("is are was were shows show showed seen noted there has have demonstrates demonstrated")

FUNCTION = VERBS | _words(
    """a an the in of on at to from by for and or with as it its this that these those be been being also any which
    who s side sides sided"""
)
"""Words without content, never listed as unused."""

_PHRASES = {
    "neutral": r"(?:no|without)(?: any| significant| interval| substantial| appreciable| definite| major)* changes?|"
    r"not(?: significantly)? changed|"
    r"not (?:seen|present|visible|noted) (?:previously|before|on (?:the )?(?:prior|previous)\w*)|"
    r"(?:cannot|can not|not|could not)(?: be)?(?: entirely| completely)? (?:excluded?|ruled? out)|not only",
    "unseen": r"(?:not|poorly|incompletely|inadequately|suboptimally)(?: be)?"
    r"(?: well| fully| clearly| adequately| completely| entirely| optimally| properly| reliably| confidently)*"
    r" (?:visuali[sz]ed|assessed|evaluated|imaged|included)|"
    r"(?:cannot|can not|could not) be(?: \w+ly| well)? (?:seen|visuali[sz]ed|assessed|evaluated)|"
    r"not seen (?:well|fully|clearly|adequately|completely|properly)|"
    r"(?:poorly|incompletely|not (?:well|fully|clearly|adequately|completely|entirely|optimally|properly)) "
    r"(?:seen|shown|demonstrated)",
    "finding": r"not (?:fully |completely |entirely |yet )?(?:clear|normal|unremarkable|cleared|resolved|spared)|"
    r"ground glass|air space",
    "normal": r"nad|wnl|within normal limits|no longer(?: \w+)?|not (?:involved|affected)|ruled out|excluded",
    "negation": r"free (?:of|from)|negative for|(?:absence|lack|resolution|clearing) of|"
    r"no|not|never|none|nothing|neither",
    "both": r"(?:left|right)(?: side| lung)?(?: is| are)?(?: much| slightly)? (?:greater|more|worse|larger|less|>|<)"
    r"(?: than)?(?: on)?(?: the)? (?:left|right)",
    "without": r"without|sparing(?: of)?|spares|excluding",
    "except": r"except(?:ing)?(?: for| in)?|apart from|aside from|other than|save for",
    "break": r"but|however|although|though|while|whereas|yet|with",
    "or": r"or|nor",
    "and": r"as well as|and|plus|than|[&/+]",
    "comma": r"[,()]",
    "stop": r"[.;!?]+",
    "place": r"[lr](?= (?:lung|upper|middle|mid|lower|base|basal|apex|apical|hilar|perihilar|lobe|zone)\b)",
}
_UNBOUNDED = {"comma", "stop"}
PATTERN = re.compile(
    "|".join(
        f"(?P<{kind}>" + (phrase if kind in _UNBOUNDED else rf"(?<!\w)(?:{phrase})(?!\w)") + ")"
        for kind, phrase in _PHRASES.items()
    )
    + r"|(?P<number>\d+(?:\.\d+)+)|(?P<word>[^\W_]+)"
)
"""Tokens of a prepared text, set phrases before single words; the name of the group is the kind of the token."""
