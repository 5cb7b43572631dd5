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

DIFFUSE = _words("diffuse diffusely throughout everywhere widespread whole entire all")
LUNG = _words("lung lungs pulmonary hemithorax hemithoraces")
NOUNS = LUNG | _words("lobe lobes zone zones field fields chest thorax")
PLURALS = _words("lungs hemithoraces lobes zones fields")

BROAD = _words(
    """opacity opacities infiltrate infiltrates infiltration consolidation consolidations pneumonia pneumonitis
    infection infections infected disease abnormality abnormalities process lesion lesions airspace covid"""
)
"""Findings whose absence, where no place is named, means clear lungs."""

FINDINGS = BROAD | _words(
    """opacification opacifications opacified consolidated consolidative pneumonic bronchopneumonia ggo ggos
    groundglass glass haze haziness hazy atelectasis atelectases atelectatic collapse collapsed nodule nodules
    nodular nodularity mass masses infective infectious involvement involved involves affected affects shadow
    shadows shadowing density densities dense edema oedema inflammation inflammatory patch patches patchy reticular
    reticulation reticulonodular interstitial fibrosis fibrotic scar scars scarred scarring cavitation cavity
    cavities cavitary tuberculosis tb abnormal bronchogram bronchograms bronchiectasis bronchiectatic emphysema
    emphysematous copd infarct hemorrhage haemorrhage contusion contusions aspiration congestion streaky streaks
    granuloma granulomas granulomata granulomatous calcification calcifications bulla bullae bullous bleb blebs cyst
    cysts cystic changes change metastasis metastases metastatic neoplasm malignancy carcinoma tumor tumour tumors
    tumours abscess bronchitis bronchiolitis irregularity irregularities sequela sequelae micronodules miliary
    honeycombing pneumatocele peribronchial markings findings finding loss lucency alveolar"""
)

PLEURAL = _words(
    """effusion effusions pleural pleura pneumothorax pneumothoraces hydropneumothorax empyema blunting blunted blunts
    sharp fluid hemothorax haemothorax fissure fissures fissural loculated"""
)

NO_LESION = _words(
    """inflated inflation hyperinflated hyperinflation hypoinflated hypoinflation underinflated expanded expansion
    hyperexpanded hyperexpansion hypoexpanded hypoventilated hypoventilation hypoventilatory hyperaerated aerated
    aeration volumes volume crowding kyphosis kyphotic scoliosis position positioning"""
)
"""Words about how full the lungs are or how the patient stands, which are no lesions."""

ELSEWHERE = (
    PLEURAL
    | NO_LESION
    | _words(
        """pacemaker pacer catheter catheters line lines tube tubes tubing shunt picc port portacath drain drains lead
    leads electrode electrodes clip clips wire wires suture sutures staple staples stent stents hardware shrapnel
    bullet device prosthesis prostheses sternotomy mastectomy rib ribs clavicle clavicles clavicular shoulder
    shoulders humerus humeral scapula scapular spine spinal cervical spondylosis vertebra vertebral vertebrae bone
    bones osseous bony skeletal fracture fractures fractured deformity deformities tissue tissues skin fold artifact
    artefact fat epicardial cardiophrenic heart cardiac atrium atrial ventricle ventricular aorta aortic mediastinum
    mediastinal cardiomediastinal trachea tracheal paratracheal carina diaphragm diaphragms hemidiaphragm
    hemidiaphragms hemidiaphragmatic breast breasts nipple axilla axillary neck arm leg hand abdomen abdominal
    quadrant liver spleen kidney renal stomach gastric brain frontal temporal parietal occipital cerebral subclavian
    jugular artery arteries vein vascularity lymph adenopathy lymphadenopathy node nodes view views wall paraspinal
    pain tenderness crackles crackle creps crepitations crepitation rales rhonchi wheeze wheezes wheezing auscultation
    thyroid goiter projection rotated rotation oblique decubitus shift shifted deviated deviation corner"""
    )
)
"""Words beside which a side is not a part of the lung, unless a finding of the lung is named too."""

MEDIASTINUM = _words("mediastinum mediastinal paratracheal")
DIAPHRAGM = _words("diaphragm hemidiaphragm")
VIEWS = _words("view views projection")
NODES = _words("lymph node nodes adenopathy lymphadenopathy")
LANDMARKS = NODES | _words("rib ribs clavicle clavicles heart")
OVER = _words("over overlying overlies above between near adjacent projecting projects projected")
OPERATIONS = _words(
    """lobectomy lobectomies pneumonectomy segmentectomy resection resected thoracotomy thoracentesis thoracoscopy
    biopsy surgery surgical operative postsurgical postoperative vats decortication bullectomy lumpectomy
    pleurodesis transplant transplantation thoracostomy pneumonectomized"""
)

NORMAL = _words(
    """clear clears cleared normal unremarkable spared resolved uninvolved unaffected healthy absent gone disappeared
    vanished subsided negative neg nad wnl ok okay"""
)
RESOLVED = _words("resolved cleared gone disappeared vanished subsided")
NOTHING_WRONG = frozenset({"clear", "normal", "unremarkable", "negative", "nad", "wnl", "within normal limits"})
"""Words that make a whole sentence mean that nothing is wrong, as in "Unremarkable."."""

STATUS = _words("bilateral pulmonary infection")
"""Words that open a caption, whose places follow."""
UNSPECIFIC = _words("change changes finding findings")
"""Findings that are none of the lung beside an operation."""
STUDY = _words("film radiograph study examination exam cxr xray x ray")
VERBS = _words("is are was were shows show showed seen noted there has have demonstrates demonstrated")

BEING = _words("is are was were has have")
ELLIPTIC = _words("one ones so too either unchanged stable same similar likewise")
"""Words that stand for what was said before, as in "the left one is not"."""

ECHO = _words("so too likewise same as")
"""Those of them that say the same of another place."""

FUNCTION = VERBS | _words(
    """a an the in of on at to from by for and or with as it its they this that these those be been being also any
    which who s side sides sided"""
)
"""Words without content, never listed as unused."""

INTO = _words(
    """the in of on at to from by for within throughout over overlying through into across and or with both as"""
)
COMPARING = _words("greater worse more larger less slightly somewhat especially particularly mainly mostly most better")
TAIL = FUNCTION | _words(
    """now since currently today already all subsequently interval entirely totally completely fully both present
    visible identified detected evident appreciated found longer do does did had will can been yet again quite more
    anymore"""
)
"""Words beside a denial that has no place of its own, as in ", now completely resolved"."""
PAST = _words("previous previously prior former formerly earlier old")
PRESENT = _words("now currently today")
LASTING = _words(
    """unchanged stable persists persistent persisting remains remain remaining still again same also larger worse
    increased decreased smaller improved improving"""
)
"""Words about time: of what was, of what is, and of what was and is."""
REST = _words("otherwise elsewhere remaining remainder rest else other others")
YES = _words("yes positive present confirmed")
DENYING = _words("without except sparing spares excluding excluded unlikely nothing absence resolution clearing")
_CUES = DENYING | _words(
    """no not never none nothing neither nor without nil unlikely but however except change changes history query"""
)

_PARTLY = (
    r"(?:partial|partially|partly|incomplete|incompletely|near|nearly|almost|mostly|largely|slightly|somewhat|minimally|"
    r"not)(?: \w+ly| yet| complete| interval)*"
)
_PHRASES = {
    "neutral": r"(?:no|without|not)(?: any| significant\w*| interval| substantial\w*| appreciabl[ye]| definite| major|"
    r" much| really| been)* chang(?:es?|ed)|"
    r"retrosternal air ?space|no(?: longer| more)? (?:worse|better)|"
    r"not(?: \w+ly)? (?:worse|increased|decreased|enlarged|calcified|cavitated|loculated|displaced|improv(?:ed|ing)|"
    r"resolving|clearing|regressed|smaller|better)|"
    r"(?:fail(?:s|ed)? to|does not|did not|do not|will not) (?:clear|resolve|improve|regress|disappear)|"
    r"never (?:cleared|resolved|improved|disappeared)|"
    r"not as (?:well|clearly|prominent|conspicuous|dense|extensive|large|pronounced)(?: \w+)?|"
    r"(?:no|not|without)(?: evidence| suggestion| sign| definite| significant| interval| any| of| for)*"
    r" (?:enlargement|progression|worsening|growth|increase|improvement|resolution|clearing|clearance|regression|"
    r"decrease|reduction)(?: of| in)?|"
    r"not (?:seen|present|visible|noted) (?:previously|before|on (?:the )?(?:prior|previous)\w*)|"
    r"(?:cannot|can not|not|could not|does not|do not)(?: be)?(?: entirely| completely)?"
    r" (?:excluded?|ruled? ?out|r/o)|not only|no doubt|"
    r"neither(?: of \w+)?(?: has| have| is| are| was| were)?(?: \w+ly)? (?:changed|enlarged|worse|increased)|"
    r"(?:(?:as )?(?:compared|in comparison|relative) (?:to|with)|unlike)(?: that)?(?: on| of)?(?: the)? (?:left|right)"
    r"(?: (?:upper|middle|mid|lower|lung|lobe|zone|base|side|hemithorax))*",
    "hidden": r"obscur(?:ed|es|ing|ation)|hidden|excluded from|cut off|"
    r"incompletely (?:evaluated|assessed|imaged|characteri[sz]ed)|"
    r"(?:partially|partly) (?:excluded|imaged|visuali[sz]ed|included|seen)",
    "unseen": r"(?:not|poorly|incompletely|inadequately|suboptimally)(?: be)?"
    r"(?: well| fully| clearly| adequately| completely| entirely| optimally| properly| reliably| confidently)*"
    r" (?:visuali[sz]ed|assessed|evaluated|imaged|included)|"
    r"(?:cannot|can not|could not) be(?: \w+ly| well)? (?:seen|visuali[sz]ed|assessed|evaluated)|"
    r"not seen (?:well|fully|clearly|adequately|completely|properly)|"
    r"(?:poorly|incompletely|not (?:well|fully|clearly|adequately|completely|entirely|optimally|properly)) "
    r"(?:seen|shown|demonstrated)",
    "aside": r"(?:no |without )?(?:history(?: of)?|h/o|hx(?: of)?)|status post|s/p|"
    r"(?:to )?rul(?:e|ing) ?out|r/o|to exclude|"
    r"(?:please |to )?(?:evaluate|evaluating|assess|assessing)(?: for)?|(?:look|check|screen)(?:ing)? for|"
    r"c/o|complain(?:s|ed|ing)? of|recommend(?:ed|ing|s)?|"
    r"(?:suggest|advise)(?:ed|d|s)? (?:ct|lateral|repeat|further|follow)|"
    r"(?:evaluation|assessment) (?:for|of)|comparison (?:is|was) made (?:to|with)|query",
    "finding": rf"{_PARTLY} (?:clear|normal|unremarkable|cleared|resolved|spared|gone|disappeared|subsided)|"
    rf"{_PARTLY} (?:resolution|clearing|clearance)(?: of)?|"
    r"(?:clear|cleared|resolved) (?:partially|partly|incompletely)|"
    r"ground glass|air space|(?:kerley|septal)(?: b)? lines?|b lines",
    "normal": r"nad|wnl|within normal limits|no longer(?: \w+)?|not (?:involved|affected)|ruled out|excluded|"
    r"dis[- ]?appeared",
    "negation": r"free (?:of|from)|negative for|neg for|devoid of|(?:absence|lack|resolution|clearing|clearance) of|"
    r"(?:fail(?:s|ed)? to|does not|did not|do not) (?:show|demonstrate|reveal)|"
    r"(?:no|not|without)(?: \w+)? (?:evidence|sign|suggestion|suspicion)s?(?: (?:of|for))|"
    r"(?:is |are |was |were )?(?:considered |thought |felt )?(?:to be )?(?:very |highly |most )?unlikely|improbable|"
    r"low (?:suspicion|likelihood|probability) (?:for|of)|"
    r"not (?:likely|suspected|suggested)|nil|no|not|never|none|nothing|neither|nope|denies",
    "both": r"(?:left|right)(?: side| sided| lung)?(?: is| are)?(?: much| slightly| (?=[<>=≥≤]))?"
    r" (?:greater|more|worse|larger|less|higher|bigger|denser|>+|<+|=|≥|≤)"
    r"(?: (?:severe|marked|prominent|pronounced|extensive|so))?(?: than)?(?: on)?(?: the)? (?:left|right)",
    "without": r"without|w/o|sparing(?: of)?|spares?|excluding",
    "except": r"except(?:ing)?(?: for| in)?|bar(?= (?:the|a|an|for|some|left|right))|"
    r"apart from|aside from|other than|save for",
    "break": r"but|however|although|though|while|whereas|yet|with|w/",
    "or": r"or|nor",
    "and": r"as well as|and|plus|than|[&/+]",
    "comma": r"[,()]",
    "stop": r"[.;!?]+",
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

KNOWN = (
    FINDINGS | ELSEWHERE | OPERATIONS | NORMAL | NOUNS | PLURALS | DIFFUSE | STUDY | TAIL | REST | YES | _CUES
    | frozenset(PLACES)
)  # fmt: skip
"""The vocabulary; no message quotes other words of a report."""

ORDINARY = _words(
    """space spaces fever spring sparking noting bot lug lob obe lift loft cleft deft heft let lent lest light might
    night sight tight fight eight bright fright wright bath booth broth moth supper fiddle riddle meddle muddle
    slower flower power tower mower rower lowers loner loser lover blower glower apes case cases vase ease bale bare
    bake bade bane based baste basis basil nasal banal hill hilt hula lingual singular diffused diffuses whose while
    hole whale entice clean cleat cleaned clearer cleaved share shared shark formal spaced spare scared stared
    resolves resolve revolved assent done tone cone lone goner negatives wealthy banished varnished subsides subside
    either long lunge sung hung rung love lode robe globe lobed yield filed fiend cheat chess internal external
    demonstrate injection injected inflection inflected lobulated bronchitic biliary radiography changed respected
    rejected extended expended effected prevent resent involve collapses starring coarse thorn bone none one later
    least last same side mild mid miller along"""
)
"""Ordinary words that differ from a known one by a letter."""

COUNTED_PARTS = _words(
    """finding findings imp impression impressions conclusion conclusions opinion interpretation result results report
    summary assessment comment comments observation observations addendum diagnosis
    current now today currently"""
)
OTHER_PARTS = _words(
    """ind indication indications history hx pmh pmhx hpi comparison comparisons technique reason complaint complaints
    symptoms referral recommendation recommendations advice plan medication medications request"""
)
EARLIER = _words("clinical past previous prior priors old last requested question background")
TITLES = _words(
    """exam examination procedure study view views presentation information details data patient name dob mrn age sex
    gender date accession physician provider referrer doctor attending signed dictated projection projections
    protocol"""
)
HEADS = (
    COUNTED_PARTS | OTHER_PARTS | EARLIER | TITLES
    | _words(
    """for of the and medical surgical present presenting illness notes note brief relevant pertinent radiological
    radiology radiographic radiologist chest cxr xr xray x ray film films radiograph type id number final
    preliminary reports images ordering referring requesting by time year month week"""
)
)  # fmt: skip
"""Words of headings: of parts that describe the image, of others, of earlier matters, and of titles."""
ANATOMY = _words(
    """left right bilateral upper middle lower lung lungs chest pleura heart mediastinum bones lobe lobes zone zones
    and pleural spaces space airways base bases hila hilum cxr xr xray x ray radiograph"""
)
"""Words of headings such as "right lung", which name the place of what follows."""
