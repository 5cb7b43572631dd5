"""Free text cut into sentences, and these into clauses, each with at most one place.

Sides are spelled out, signs and marks become words, and history, questions and what is asked for are set aside.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count, pairwise

from textray.records import LEVELS
from textray.text import terms
from textray.text.shorthand import meant, spell, spell_sides
from textray.text.terms import Place

_BLANKS = re.compile(r"[ \t]+")
_LINE_BREAK = re.compile(r" ?\n\s*(?P<bullet>[-*\u2022] ?|\d{1,2}[.)] )?(?P<next>\S?)")
_IN_WORD = re.compile(r"(?<=\w)[-\u2010\u2011](?=\w)")
_FREE = re.compile(r"(?<=\w)-free\b")
_DASH = re.compile(r"(?<=\s)-|[\u2012-\u2015]")
_MID = re.compile(r"\bmid(?=(?:upper|lower|left|right)\b)")
_TWO_SIDED = re.compile(r"\bbi (?=bas|apic|hil|perihil)")
_PREFIX = re.compile(r"\b(costo|peri|para|supra|infra|retro) (?=phren|hil|card)")
_NOT = re.compile(
    r"(?<=[a-z])n['\u2019\u00b4`\u02bc]t\b|(?<=\bis|\bdo|\bca)n ?t\b|(?<=\bare|\bwas|\bdid|\bhas|\bhad)n ?t\b|"
    r"(?<=\bwere|\bdoes|\bhave)n ?t\b|(?<=\bcould|\bwould)n ?t\b"
)
_MINUS, _DASHES = "\\-\u2010-\u2015\u2212", "\\-\u2012-\u2015\u2212"
_SIGN = re.compile(  # "(-)", "-ve", and a minus or plus at the end of a statement
    rf"[(\[]\s*(?P<in>[+{_MINUS}])(?:ve)?\s*[)\]]|(?<![\w+{_MINUS}])(?P<ve>[+{_MINUS}])ve\b|"
    rf"(?<=[\w:]) +(?P<end>[+{_DASHES}])(?=\s*(?:[,;.)]|\Z))"
)
_ANSWER = re.compile(r"(?<=\w)\s*[:=]\s*(?:(?P<no>n|0|f|false)|(?P<yes>y|true))(?=\s*(?:[,;.)\]\n]|\Z))", re.IGNORECASE)
_THIRDS = re.compile(r"\b(upper|lower) (?:2/3|two[ -]thirds?)(?!\w)")
_NOT_OTHER = re.compile(
    r"\b(left|right),? (?:(?:but|and) )?(?:not|rather than|instead of) (?:the )?(left|right),? "
    r"((?:upper|middle|mid|lower)(?: (?:lung|lobe|zone|field))?|lung|base|apex)\b"
)
_LEVEL_FIRST = re.compile(
    r"(?P<before>^|[.;\n] *)(?P<level>(?:lung )?bases|(?:lung )?apices|(?:upper|middle|mid|lower) (?:zone|lobe|field)s)"
    r" *: *(?P<rest>[^.;\n]*)",
    re.MULTILINE,
)
_SIDE_ALONE = re.compile(r"\b(left|right)\b(?! (?:upper|middle|mid|lower|base|apex|lung))")
_ASKS = re.compile(
    r"(?:^|(?<=[\s(,;:.]))\?+(?:\s*(?=[a-z])(?!(?i:no|none|yes|nil|neg|negative|absent)\b)|(?=\w))|\A\?+",
    re.MULTILINE,
)
_SLASHED = re.compile(r"\b(?:w/(?!o\b)|c/w\b)")
_SPARED = re.compile(
    r"(\bwith|\band|[,;]) ((?:(?:relative|some|mild|left|right|bilateral|upper|middle|mid|lower|apical|biapical|basal|"
    r"basilar|bibasilar|perihilar|peripheral|subpleural|lobe|lung|zone|and) ){1,5})sparing\b(?! (?:of|the|both)\b)"
)
_EACH = re.compile(r"\b(?:either|each) (?=(?:upper|lower|mid|middle|lung|base|apex|side|hemithorax|lobe|zone|field)\b)")
_SIDE_IN_MARKS = re.compile(r"\(\s*((?:left|right|bilateral(?:ly)?|both)(?: side(?:s|d)?)?)\s*\)")
_COMPARED = re.compile(r"\s*([<>\u2264\u2265=]+)\s*")
_EITHER = frozenset({"both", "neither"})
JOINERS = frozenset({"comma", "and", "or", "break", "without", "except", "stop", "aside"})
SHARING = frozenset({"and", "or", "split"})
LIST = SHARING | {"comma"}


@dataclass(frozen=True, slots=True)
class Token:
    """One word or set phrase in lower case, its group in `terms.PATTERN` and its position in the whole text.

    A misspelt word has the known one that is ``meant``. If zones depend on it (``deciding``) it means nothing; else it
    is read as that one.
    """

    text: str
    kind: str
    number: int
    place: Place | None
    meant: str = ""
    deciding: bool = False

    @property
    def negation(self) -> bool:
        """A "no", "not", "free of"."""
        return self.kind == "negation"

    @property
    def normal(self) -> bool:
        """A "clear", "normal", "spared"."""
        return self.kind == "normal" or self._read in terms.NORMAL

    @property
    def finding(self) -> bool:
        """A finding, such as "opacity"."""
        return self.kind == "finding" or self._read in terms.FINDINGS

    @property
    def _read(self) -> str:
        return self.text if self.deciding else self.meant or self.text

    @property
    def cue(self) -> bool:
        """A word that denies."""
        return self.negation or self.normal


@dataclass(slots=True)
class Clause:
    """Part of a sentence between two joiners, with at most one place.

    Attributes:
        joiner: Kind of the joiner before it, ``""`` at the start of a sentence, ``"split"`` where a second place began.
        tokens: Its tokens, without the joiner; ``words`` are their texts.
        places: The tokens that name sides or levels, and what they name.
        negated: A negation, or "without" before it.
        unseen: It neither affirms nor denies: what could not be seen well, a misspelt word on which zones depend, a
            question without an answer; ``aside`` is history and what is asked for.
        denied: A denial behind it is of what it says: "opacity, now resolved".
        attached: It denies for another clause, or is itself all of a denial; it says nothing of the whole lungs.
        contrast: It says the opposite of the statement before it: "the right lung is clear, the left is not".
    """

    joiner: str
    tokens: list[Token] = field(default_factory=list)
    words: set[str] = field(default_factory=set)
    places: list[tuple[Token, Place]] = field(default_factory=list)
    sides: set[str] = field(default_factory=set)
    levels: set[str] = field(default_factory=set)
    negated: bool = False
    normal: bool = False
    finding: bool = False
    unseen: bool = False
    hidden: bool = False
    aside: bool = False
    denied: bool = False
    attached: bool = False
    contrast: bool = False

    def add(self, token: Token) -> None:
        """Append a token."""
        self.tokens.append(token)
        self.words.update((token.text, *(() if token.deciding else token.meant.split())))
        self.negated |= token.negation
        self.normal |= token.normal
        self.finding |= token.finding
        self.unseen |= token.kind == "unseen" or token.deciding
        self.hidden |= token.kind == "hidden"
        if token.place is None:
            return
        if self.either and len(token.place.sides) == 1:
            self.sides = set()  # "both the left and the right": the one named counts, the other follows
        self.places.append((token, token.place))
        self.sides.update(token.place.sides)
        self.levels.update(token.place.levels)
        if {LEVELS[0], LEVELS[-1]} <= self.levels and self.words & {"to", "through"}:
            self.levels.update(LEVELS)

    def has(self, words: frozenset[str]) -> bool:
        """One of these words is in it."""
        return not self.words.isdisjoint(words)

    @property
    def either(self) -> bool:
        """Its only place is "both" or "neither"."""
        return len(self.places) == 1 and self.places[0][0].text in _EITHER

    @property
    def levels_first(self) -> bool:
        """The levels come before the side, as in "lower left lung"."""
        return bool(self.levels) and bool(self.sides) and not self.places[0][1].sides

    @property
    def place_first(self) -> bool:
        """The place comes before the finding, as in "left lower opacity"."""
        return next((token.place is not None for token in self.tokens if token.place or token.finding), False)

    @property
    def ends_on_side(self) -> bool:
        """It ends on a bare side, as "in the left" before "and right lower zones", but not "on the left"."""
        if not self.places or self.levels or self.places[-1][0] is not self.tokens[-1]:
            return False
        texts = [token.text for token in self.tokens[-3:-1]]
        return not (texts[-1:] == ["on"] or texts == ["on", "the"])

    @property
    def first_normal(self) -> int:
        """Position of its first word such as "clear"; its end where that stands behind it."""
        return next((token.number for token in self.tokens if token.normal), self.tokens[-1].number + 1)

    @property
    def only_place(self) -> bool:
        """It has a place, but no finding, cue or verb."""
        other = terms.VERBS | terms.ELSEWHERE | terms.OPERATIONS | terms.YES
        says = self.finding or self.negated or self.normal or self.aside or self.has(other)
        return (bool(self.places) or self.both_lungs) and not says

    @property
    def both_lungs(self) -> bool:
        """It names both lungs, and no place of them."""
        return not self.places and self.has(terms.LUNG) and self.has(terms.PLURALS)

    @property
    def only_volume(self) -> bool:
        """It says of the lungs only how full they are, as "the left lung is well aerated"."""
        says = self.finding or self.negated or self.normal or self.has(terms.ELSEWHERE - terms.NO_LESION)
        return self.has(terms.NO_LESION) and self.has(terms.LUNG) and not says

    @property
    def only_side(self) -> bool:
        """It has a place and words without content only, as "and on the right", "not the left"."""
        plain = terms.FUNCTION | terms.COMPARING | terms.ELLIPTIC
        return all(t.place or t.text in plain or t.negation or t.text == "no longer" for t in self.tokens)

    @property
    def elliptic(self) -> bool:
        """It leaves out what it says of its place: "the left is not", "not in the left lung", "the right one is"."""
        plain = (terms.FUNCTION - terms.VERBS) | terms.BEING | terms.ELLIPTIC | terms.NOUNS | {"not"}
        return bool(self.places) and not self.either and all(t.place or t.text in plain for t in self.tokens)

    @property
    def placing(self) -> bool:
        """It has words of place, cues and words without content only."""
        return all(token.place or token.text in terms.FUNCTION | terms.DIFFUSE or token.cue for token in self.tokens)

    @property
    def pair(self) -> bool:
        """Its place is a plural by itself, such as "bases"."""
        return any(place.pair for _, place in self.places)

    @property
    def plural(self) -> bool:
        """Its place is a plural, such as "lower zones", "bases"."""
        return self.has(terms.PLURALS) or self.pair

    @property
    def of_lung(self) -> bool:
        """False where the side is that of a rib, a catheter, a pleural effusion, an operation."""
        lung_place = self.has(terms.NOUNS) or any(place.lung for _, place in self.places)
        other = (self.words & terms.ELSEWHERE) - (terms.VIEWS if lung_place else set())
        if self.has(terms.OPERATIONS) and not self.has(terms.FINDINGS - terms.UNSPECIFIC):
            return False
        if not other:
            return True
        if not self.finding:
            in_lung = self.has(terms.LUNG) or any(place.lung for _, place in self.places)
            return self.normal and in_lung and not self.has(terms.PLEURAL)
        beside = terms.NODES | (terms.LANDMARKS if self.has(terms.OVER) else set())
        if self.has(terms.LUNG) or other <= beside:  # "nodule projecting over the left 5th rib"
            return True
        return bool(self.levels) and (lung_place or not self.has(terms.MEDIASTINUM))

    @property
    def silent(self) -> bool:
        """It neither affirms nor denies."""
        says = self.finding or self.negated or self.normal or self.levels or self.has(terms.NOUNS)
        return self.unseen or self.aside or (self.hidden and not self.finding) or (self.either and not says)

    @property
    def bare(self) -> bool:
        """It denies, and says neither what nor where: "none", "now resolved"."""
        plain = all(token.cue or token.text in terms.TAIL or token.deciding for token in self.tokens)
        return plain and (self.negated or self.normal) and not self.finding and (not self.places or self.either)

    @property
    def anchored(self) -> bool:
        """A word in it shows that the text is about lungs."""
        return self.finding or self.has(terms.NOUNS) or any(place.lung for _, place in self.places)

    @property
    def says_clear(self) -> bool:
        """If it denies, it denies any lesion of the lungs, as in "no infection", "normal chest", "NAD"."""
        named = self.has(terms.BROAD | {"abnormal", "finding", "findings"}) or (
            self.normal and self.has(terms.NOUNS | terms.STUDY)
        )
        plain = terms.NOTHING_WRONG | terms.FUNCTION | terms.REST | {"no", "none", "nothing", "nil"}
        nothing = self.words <= plain and (self.has(terms.NOTHING_WRONG) or (self.negated and self.has(terms.REST)))
        doubted = any("unlikely" in token.text for token in self.tokens)
        return (named or nothing) and not self.places and self.of_lung and not doubted


def sentences(text: str, numbers: Iterator[int] | None = None) -> Iterator[list[Clause]]:
    """Cut a cleaned text into sentences of clauses, in time that grows with its length only.

    A question is set aside unless the next sentence answers it; "Resolved." denies the sentence before it.
    """
    before: list[Clause] = []
    asked: list[Clause] = []
    ended = ""
    for clauses, stop in _cut(text, numbers or count()):
        first = clauses[0]
        if before and len(clauses) == 1 and first.elliptic and first.negated:  # "Right lung clear; left not."
            first.joiner, ended = "comma", stop
            before += clauses
            continue
        _set_aside(clauses)
        if before and first.bare and (asked or ";" in ended or ".." in ended or first.has(terms.RESOLVED)):
            deny(before, len(before) - 1, first)
            for clause in asked:
                clause.denied = True
        plain = all(t.kind == "neutral" or t.text in terms.YES | terms.FUNCTION for t in first.tokens)
        if asked and (first.bare or plain):  # "? Cannot be excluded."
            for clause in asked:
                clause.unseen = False
        asked = []
        if "?" in stop:
            alone = any(clause.finding and clause.places for clause in clauses[:-1]) and not clauses[-1].places
            asked = [clause for clause in clauses[-1 if alone else 0 :] if not clause.unseen]
            for clause in asked:
                clause.unseen = True
        if before:
            yield before
        before, ended = clauses, stop
    if before:
        yield before


def _set_aside(clauses: list[Clause]) -> None:
    """History, questions and requests reach over the list that they begin, up to a statement of its own."""
    for before, clause in pairwise(clauses):
        listed = clause.joiner in SHARING or (clause.joiner == "comma" and not (clause.finding and clause.places))
        anew = clause.has(terms.VERBS | terms.PRESENT | {"new"}) or clause.negated or clause.normal
        clause.aside |= before.aside and listed and not anew
        # "previous left base opacity, now right base opacity"
        over = clause.has(terms.PRESENT) and not clause.has(terms.LASTING) and clause.finding and clause.places
        before.aside |= bool(over) and before.has(terms.PAST) and not before.has(terms.LASTING)


def deny(clauses: list[Clause], last: int, behind: Clause) -> None:
    """Let a denial behind a clause deny it, and the list of places that it ends."""
    behind.attached, behind.sides = True, set()
    for index in range(last, -1, -1):
        clauses[index].denied = True
        clauses[index].normal |= behind.normal
        joiner = clauses[index].joiner
        aside = not clauses[index].places and clauses[index].has(terms.PAST)  # "opacity, seen previously, is gone"
        if joiner not in SHARING and not (joiner == "comma" and (aside or clauses[index - 1].only_place)):
            return


def _cut(text: str, numbers: Iterator[int]) -> Iterator[tuple[list[Clause], str]]:
    """Sentences as clauses, each with the marks that end it."""
    clauses: list[Clause] = []
    clause = Clause("")
    for token in tokens(text, numbers):
        joins = token.kind in JOINERS
        joiner = token.kind if joins else _implied(clause, token)
        if joiner and clause.tokens:
            clauses.append(clause)
            clause = Clause(joiner)
        elif joiner and (joiner != "comma" or not clause.joiner):
            clause.joiner = joiner  # of ", but" the stronger one counts
        if joiner == "stop":
            if clauses:
                yield clauses, token.text
            clauses, clause = [], Clause("")
        elif joiner == "without":
            clause.negated = True
        elif joiner == "aside":
            clause.aside = True
        if not joins:
            clause.add(token)
    if clause.tokens:
        clauses.append(clause)
    if clauses:
        yield clauses, ""


def _implied(clause: Clause, token: Token) -> str:
    """The joiner that a telegram leaves out: "right lower left upper", "right basal opacity no effusion"."""
    if (
        token.negation
        and token.text != "not"
        and (clause.places or clause.both_lungs)
        and (clause.finding or clause.normal)
    ):
        return "break"
    if token.text == "otherwise" and clause.finding:
        return "break"
    texts = [before.text for before in clause.tokens[-2:]]
    if token.text == "lungs" and texts[-1:] == ["the"] and texts[0] not in terms.INTO and clause.has(terms.ELSEWHERE):
        return "break"  # "no pneumothorax the lungs are clear"
    place = token.place
    if place is None or not clause.sides:
        return ""
    if clause.levels_first and not clause.levels.issuperset(place.levels or clause.levels):
        return "split"
    return "split" if place.sides and set(place.sides) != clause.sides and not clause.either else ""


def tokens(text: str, numbers: Iterator[int]) -> Iterator[Token]:
    """Words and set phrases of a text, joiners too."""
    for match in terms.PATTERN.finditer(_prepare(text)):
        number = next(numbers)
        word, kind = match.group(), match.lastgroup or "word"
        near = meant(word) if kind == "word" else None
        known, deciding = near or ("", False)
        place = terms.PLACES.get("both" if kind == "both" else word)
        yield Token(word, kind, number, place, known, deciding)


def _prepare(text: str) -> str:
    """Lower case, with sides spelled out, signs as words, and hyphens and line breaks as they are meant."""
    text = _ANSWER.sub(lambda answer: ": negative" if answer["no"] else ": positive", _BLANKS.sub(" ", text))
    text = _SIGN.sub(lambda sign: " positive " if "+" in sign.group() else " negative ", text)
    text = spell(_LINE_BREAK.sub(_line_break, _ASKS.sub(" query ", text))).lower()
    text = _SIDE_IN_MARKS.sub(r" \1 ", spell_sides(_COMPARED.sub(r" \1 ", _SIDE_IN_MARKS.sub(r" \1 ", text))))
    text = _IN_WORD.sub(" ", _DASH.sub(",", _FREE.sub(" absent", _MID.sub("mid ", text))))
    text = _NOT.sub(" not", text.replace("can't", "cannot").replace("can\u2019t", "cannot")).replace("ca not", "cannot")
    text = _EACH.sub("both ", _SPARED.sub(r"\1 sparing of \2", _NOT_OTHER.sub(r"\1 \3, not \2 \3,", text)))
    text = _LEVEL_FIRST.sub(_level_to_each, text)
    text = _THIRDS.sub(r"\1 and middle", text)
    return _PREFIX.sub(r"\1", _TWO_SIDED.sub("bi", _SLASHED.sub("with ", text)))


def _level_to_each(match: re.Match[str]) -> str:
    """Bring the level of "bases: clear on the right, hazy on the left" to each side."""
    level = {"bases": "base", "apices": "apex"}.get(match["level"].split()[-1], match["level"].removesuffix("s"))
    rest, found = _SIDE_ALONE.subn(rf"\1 {level}", match["rest"])
    return match["before"] + (rest if found else f"{match['level']}, {rest}")


def _line_break(match: re.Match[str]) -> str:
    """Blank lines and bullets end a sentence; a line that goes on in lower case is no break at all."""
    following = match["next"]
    if match["bullet"] or match.group().count("\n") > 1:
        return ". " + following
    return (" " if following.islower() else ", ") + following
