"""Short forms of sides and places spelled out, and misspelt words recognised.

A radiologist writes "b/l LZ", "R>L" or "Rt. base". Each side is spelled out before anything else reads the words, so
that none is lost; a word that is only nearly a known one is a question, never an answer.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Set
from functools import lru_cache

from textray.records import LEVELS, SIDES
from textray.text.terms import DENYING, DIFFUSE, KNOWN, LOBES, NORMAL, NOUNS, ORDINARY, PLACES

_LEVELS = {level[0]: level for level in LEVELS}
_KINDS = {"l": "lobe", "z": "zone", "f": "field"}
_SPELLED = {
    **{short: f"{side} {level} lobe" for short, (side, level) in LOBES.items()},
    **{
        f"{side[0]}{level[0]}{kind}": f"{side} {level} {_KINDS[kind]}"
        for side in SIDES
        for level in LEVELS
        for kind in "zf"
    },
    "lml": "left middle lobe",
    **{f"{level[0]}z": f"{level} zone" for level in LEVELS},
    **{f"{level[0]}zs": f"{level} zones" for level in LEVELS},
    **{f"{level[0]}/z": f"{level} zone" for level in LEVELS},
    **dict.fromkeys(("lt", "lft"), "left"),
    **dict.fromkeys(("rt", "rgt"), "right"),
    **dict.fromkeys(("b/l", "bl", "bil", "bilat", "bilats", "bi-lat", "b/lat", "bil/lat"), "bilateral"),
    **{"cp angle": "costophrenic angle", "cp angles": "costophrenic angles"},
    "lwr": "lower",
    "upr": "upper",
    "leftsided": "left-sided",
    "rightsided": "right-sided",
}
_ABBREVIATED = {
    **dict.fromkeys(("infil", "infilt"), "infiltrate"),
    **dict.fromkeys(("infils", "infilts"), "infiltrates"),
    **dict.fromkeys(("pna", "pneumon"), "pneumonia"),
    **dict.fromkeys(("abn", "abnl"), "abnormal"),
    **dict.fromkeys(("post-op", "post op", "postop"), "postoperative"),
    **{"opac": "opacity", "opacs": "opacities", "consol": "consolidation", "atelect": "atelectasis"},
    **{"eff": "effusion", "effs": "effusions", "ptx": "pneumothorax", "dz": "disease"},
    **{"pulm": "pulmonary", "cardiopulm": "cardiopulmonary", "nml": "normal", "clr": "clear"},
}
_CUT_SHORT = "evid|sig|signif|susp|suspic|unch|incr|decr|min|mod|lat|ant|prob|poss|approx|assoc|prev|neg"
"""Words that end on a full stop within a sentence."""
_GOES_ON = r"(?=\s*[a-z,;:)]|\s+(?:[RL](?:t\b|[UML][LZ])?|B/L)\s*(?:[.,;<>=]|$))"
"""A word in small letters, or a side and no more, behind a full stop that ends no sentence."""
_SHORTENED = re.compile(
    r"(?<![\w.])(?:((?i:" + "|".join(sorted(_ABBREVIATED, key=len, reverse=True)) + rf"))\b(?:\.{_GOES_ON})?|"
    rf"((?i:{_CUT_SHORT}))\.{_GOES_ON})"
)
_SHORT = re.compile(
    r"(?<![\w.])(" + "|".join(sorted(map(re.escape, _SPELLED), key=len, reverse=True)) + r")(?!\w)", re.IGNORECASE
)
_BOTH = re.compile(r"(?<![\w./])b[./\\]\s?l\b\.?(?!\w)", re.IGNORECASE)
_DOT = re.compile(r"(?<![\w.])([lr]t|bilat|bil|rgt|lft)\.\s*(?=[\w,;:)]|$)", re.IGNORECASE)
_PAIR = re.compile(r"(?<![\w.'’/-])([lr])( ?(?:[/&+]|[<>≤≥=]+) ?)([lr])(?![\w'’/])", re.IGNORECASE)
_INITIALS = re.compile(r"(?<![\w.])([lr])\.\s?([uml])\.\s?([lz])\b\.?", re.IGNORECASE)
_NOT_IN_WORD = r"(?<![\w.'’-])(?<!\d )"
_BEFORE = (
    r"(?:lung|upper|mid|lower|bas|apex|apical|apices|hil|perihil|lobe|zone|field|side|hemi|costo|cp\b|infrahil|retro|"
    r"suprahil|ll\b|ul\b|ml\b)"
)
_LETTERS = (
    re.compile(_NOT_IN_WORD + r"([LR])\.(?=\s+[a-z])"),
    re.compile(_NOT_IN_WORD + rf"([lr])\.(?=\s+{_BEFORE})", re.IGNORECASE),
    re.compile(  # "R/O" rules out; "R. Smith" and "R Smith" are names
        _NOT_IN_WORD + r"([LR])(?=[)\s/,;:.>&+=<≥≤]|$)(?!\s*\d)(?!\.\w)(?!/[oO]\b)(?!\.?[ \t]+[A-Z][a-z])"
    ),
    re.compile(_NOT_IN_WORD + rf"([lr])(?=[ -]{_BEFORE})", re.IGNORECASE),
)
_LONE = re.compile(  # small letters, which are no names
    r"(?<![\w.'’/-])(?:(?<=\()[lr](?=\))|[lr](?=\s*[<>≤≥=])|(?<=[<>≤≥=] )[lr](?!\w)|(?<=[<>≤≥=])[lr](?!\w)|"
    r"[lr]\.?(?= (?:opac|consol|infiltr|effus|pleur|pneumo|atelec|nodul|mass|chest|haz|patch|ggo|hydro))|"
    r"(?<=[a-z] )[lr](?=\s*(?:[.,;)]|\Z)))"
)
_LOBE = re.compile(
    r"\b((?:left|right|bilateral|both)(?:(?:\s*[,/&+]|\s+and|\s+or)?\s*(?:upper|middle|lower) (?:lobe|zone|field)s?)*"
    r"(?:\s*[,/&+]|\s+and|\s+or)?\s*)([uml])l(s?)\b",
    re.IGNORECASE,
)
_MOST_LOBES = 3


def spell(words: str) -> str:
    """Spell out short forms as `spell_sides` does, and those of findings: "opac." is "opacity"."""
    return spell_sides(_SHORTENED.sub(lambda match: _ABBREVIATED[match[1].lower()] if match[1] else match[2], words))


def spell_sides(words: str) -> str:
    """Spell out the short forms of sides and lobes: "RLL" is "right lower lobe", "R" is "right", "b/l" "bilateral"."""
    words = _BOTH.sub("bilateral", _DOT.sub(r"\1 ", _INITIALS.sub(r"\1\2\3", words)))
    words = _SHORT.sub(lambda match: _SPELLED[match[1].lower()], words)
    words = _PAIR.sub(lambda match: _side(match[1]) + match[2] + _side(match[3]), words)
    for letter in (*_LETTERS, _LONE):
        words = letter.sub(lambda match: _side(match[0][0]), words)
    for _ in range(_MOST_LOBES):  # "right UL and LL"
        words, found = _LOBE.subn(lambda m: f"{m[1]}{_LEVELS[m[2].lower()]} lobe{m[3]}", words)
        if not found:
            break
    return words


def _side(letter: str) -> str:
    return "left" if letter in "lL" else "right"


_PAIRS = (
    "аa еe оo рp сc хx уy іi ӏl ѕs ԁd һh ԛq ԝw вb нh кk мm тt зe "
    "αa εe οo ρp υu ιi κk νv χx γy τt ηn ωw "
    "օo սu հh ոn "
    "ıi łl ɡg ɑa ßb øo đd 0o 1l 5s 3e |l"
)
_LOOK_ALIKE = str.maketrans({pair[0]: pair[1] for pair in _PAIRS.split()})
_NUMBERED = re.compile(r"\d{2}.*|\d+(?:st|nd|rd|th)?")
_SHORTEST = 4
_LONG = 7
_DECIDING = frozenset(PLACES) | DIFFUSE | NORMAL | DENYING
"""Words on which zones depend, as "zone" and "opacity" do not."""


@lru_cache(maxsize=4096)
def meant(word: str) -> tuple[str, bool] | None:
    """The known word that a lower-case word nearly is, and whether zones depend on it; ``None`` for other words.

    Nearly means letters of another script or digits that look alike, a missing blank, or one letter left out, added,
    changed or exchanged with the next.
    """
    if word in KNOWN or word in ORDINARY or len(word) > 30 or _NUMBERED.fullmatch(word):
        return None
    folded = unicodedata.normalize("NFKD", word).translate(_LOOK_ALIKE)
    folded = "".join(char for char in folded if not unicodedata.combining(char))
    if folded != word and folded in KNOWN and len(folded) > 1:
        return folded, folded in _DECIDING or folded not in NOUNS
    if not (folded.isascii() and folded.isalpha()) or len(folded) < _SHORTEST - 1:
        return None
    if folded in ORDINARY:
        return None
    for cut in range(3, len(folded) - 2):
        head, tail = folded[:cut], folded[cut:]
        if head in PLACES and tail in PLACES.keys() | NOUNS:
            return f"{head} {tail}", True
    if found := _near(folded, _DECIDING, _SHORTEST):
        return found, True
    if found := _near(folded, NOUNS, _SHORTEST):
        return found, False
    inflected = {folded[:-1], folded[:-2], folded + "s", folded + "d"} & KNOWN
    found = None if inflected or len(folded) < _LONG else _near(folded, KNOWN, _LONG)
    return None if found is None else (found, False)


def _near(word: str, words: Set[str], shortest: int) -> str | None:
    return min((known for known in words if len(known) >= shortest and _one_edit(word, known)), default=None)


def _one_edit(one: str, other: str) -> bool:
    """Whether one letter is left out, added, changed or exchanged with the next."""
    if abs(len(one) - len(other)) > 1:
        return False
    start = 0
    while start < min(len(one), len(other)) and one[start] == other[start]:
        start += 1
    a, b = one[start:], other[start:]
    return a[1:] == b[1:] or a[1:] == b or a == b[1:] or (a[:2] == b[1::-1] and len(b) > 1 and a[2:] == b[2:])
