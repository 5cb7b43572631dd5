"""Free text cut into sentences, those into clauses: one place each, and the words that decide what is said of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from textray.records import LEVELS
from textray.text.terms import (
    BROAD,
    DIFFUSE,
    ELSEWHERE,
    FINDINGS,
    FUNCTION,
    LUNG,
    NORMAL,
    NOTHING_WRONG,
    NOUNS,
    PATTERN,
    PLACES,
    PLEURAL,
    PLURALS,
    STUDY,
    VERBS,
    Place,
)

_BLANKS = re.compile(r"[ \t]+")
_LINE_BREAK = re.compile(r" ?\n\s*(?P<bullet>[-*\u2022] ?|\d{1,2}[.)] )?(?P<next>\S?)")
_IN_WORD = re.compile(r"(?<=\w)[-\u2010\u2011](?=\w)")
_DASH = re.compile(r"(?<=\s)-|[\u2012-\u2015]")
_TWO_SIDED = re.compile(r"\bbi (?=bas|apic|hil|perihil)")
_PREFIX = re.compile(r"\b(costo|peri|para|supra|infra|retro) (?=phren|hil|card)")
_NOT = re.compile(r"(?<=[a-z])n['\u2019]t\b")
EITHER = frozenset({"both", "neither"})
JOINERS = frozenset({"comma", "and", "or", "break", "without", "except"})


@dataclass(frozen=True, slots=True)
class Token:
    """One word or set phrase: its text in lower case, its kind, and its number in the whole text."""

    text: str
    kind: str
    number: int


@dataclass(slots=True)
class Clause:
    """A stretch of a sentence between two joiners that names at most one place.

    Attributes:
        joiner: Kind of the joiner before it, ``""`` at the start of a sentence, ``"split"`` where a second place began.
        tokens: Its tokens, without the joiner.
        words: Texts of its tokens.
        places: The tokens that name sides or levels, and what they name.
        sides: Sides named.
        levels: Levels named.
        negated: A "no", "not", "without" stands in it.
        normal: A "clear", "normal", "spared" stands in it.
        finding: A finding, such as "opacity", stands in it.
        unseen: It says that something could not be seen well, and so neither affirms nor denies.
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

    def add(self, token: Token) -> None:
        """Take a token in."""
        self.tokens.append(token)
        self.words.add(token.text)
        self.negated |= token.kind == "negation"
        self.normal |= token.kind == "normal" or token.text in NORMAL
        self.finding |= token.kind == "finding" or token.text in FINDINGS
        self.unseen |= token.kind == "unseen"
        place = place_of(token)
        if place is None:
            return
        if len(self.places) == 1 and self.places[0][0].text in EITHER and len(place.sides) == 1:
            self.sides = set()  # "both the left and the right": the one named counts, the other follows
        self.places.append((token, place))
        self.sides.update(place.sides)
        self.levels.update(place.levels)
        if {LEVELS[0], LEVELS[-1]} <= self.levels and self.words & {"to", "through"}:
            self.levels.update(LEVELS)

    @property
    def levels_first(self) -> bool:
        """True for "lower left lung", where the levels stand before the side."""
        return bool(self.levels) and bool(self.sides) and not self.places[0][1].sides

    @property
    def place_first(self) -> bool:
        """True for "left lower opacity", where the place stands before the finding."""
        for token in self.tokens:
            if place_of(token) is not None:
                return True
            if token.text in FINDINGS or token.kind == "finding":
                return False
        return False

    @property
    def ends_on_side(self) -> bool:
        """True for "in the left", cut off before "and right lower zones", but not for "on the left"."""
        texts = [token.text for token in self.tokens]
        if not self.places or self.levels or self.places[-1][0] is not self.tokens[-1]:
            return False
        return not (texts[-2:-1] == ["on"] or texts[-3:-1] == ["on", "the"])

    @property
    def only_place(self) -> bool:
        """True if no finding, no cue and no verb stands beside the place."""
        return bool(self.places) and not (self.finding or self.negated or self.normal or self.words & VERBS)

    @property
    def only_side(self) -> bool:
        """Nothing but a side and words without content, as in "and on the right", "not the left"."""
        return all(place_of(t) is not None or t.text in FUNCTION or t.kind == "negation" for t in self.tokens)

    @property
    def asserts(self) -> bool:
        """A verb makes it a statement of its own."""
        return bool(self.words & VERBS)

    @property
    def diffuse(self) -> bool:
        """A "diffuse", "throughout", "all" stands in it."""
        return bool(self.words & DIFFUSE)

    @property
    def plural(self) -> bool:
        """The place is a plural, such as "lower zones", "bases"."""
        return bool(self.words & PLURALS) or self.pair

    @property
    def pair(self) -> bool:
        """The place is a plural by itself, such as "bases"."""
        return any(place.pair for _, place in self.places)

    @property
    def lung(self) -> bool:
        """The lung is named."""
        return bool(self.words & LUNG)

    @property
    def of_lung(self) -> bool:
        """False where the side is that of a rib, a catheter, a pleural effusion."""
        if self.lung or not self.words & ELSEWHERE:
            return True
        in_lung = any(place.lung for _, place in self.places) and not self.words & PLEURAL
        return bool(self.levels) and (self.finding or in_lung)

    @property
    def anchored(self) -> bool:
        """Something in it says that the text is about lungs."""
        return self.finding or bool(self.words & NOUNS) or any(place.lung for _, place in self.places)

    @property
    def says_clear(self) -> bool:
        """Where it denies: what it denies is any lesion of the lungs, as in "no infection", "normal chest", "NAD"."""
        named = bool(self.words & (BROAD | {"abnormal", "finding", "findings"}))
        named |= self.normal and bool(self.words & (NOUNS | STUDY))
        named |= bool(self.words & NOTHING_WRONG) and self.words <= NOTHING_WRONG | FUNCTION
        return named and not self.places and self.of_lung


def place_of(token: Token) -> Place | None:
    """What a token says of the place, ``None`` if nothing."""
    if token.kind == "both":
        return PLACES["both"]
    if token.kind == "place":
        return PLACES["left" if token.text == "l" else "right"]
    return PLACES.get(token.text)


def sentences(text: str) -> Iterator[list[Clause]]:
    """Cut a cleaned text into sentences of clauses, in time that grows with its length only."""
    clauses: list[Clause] = []
    clause = Clause("")
    for token in _tokens(text):
        joiner = token.kind if token.kind in JOINERS | {"stop"} else _implied(clause, token)
        if joiner and clause.tokens:
            clauses.append(clause)
            clause = Clause(joiner)
        elif joiner and (joiner != "comma" or not clause.joiner):
            clause.joiner = joiner  # of ", but" the stronger one counts
        if joiner == "stop":
            if clauses:
                yield clauses
            clauses, clause = [], Clause("")
        elif joiner == "without":
            clause.negated = True
        if token.kind not in JOINERS and token.kind != "stop":
            clause.add(token)
    if clause.tokens:
        clauses.append(clause)
    if clauses:
        yield clauses


def _implied(clause: Clause, token: Token) -> str:
    """The joiner that a telegram leaves out: "right lower left upper", "right basal opacity no effusion"."""
    if token.kind == "negation" and token.text != "not" and clause.places and (clause.finding or clause.normal):
        return "break"
    place = place_of(token)
    if place is None or not clause.sides:
        return ""
    if clause.levels_first and place.levels:
        return "split"
    either = clause.places[0][0].text in EITHER and len(clause.places) == 1
    return "split" if place.sides and set(place.sides) != clause.sides and not either else ""


def _tokens(text: str) -> Iterator[Token]:
    prepared = _LINE_BREAK.sub(_line_break, _BLANKS.sub(" ", text)).lower()
    prepared = _IN_WORD.sub(" ", _DASH.sub(",", prepared)).replace("can't", "cannot").replace("can\u2019t", "cannot")
    prepared = _PREFIX.sub(r"\1", _TWO_SIDED.sub("bi", _NOT.sub(" not", prepared)))
    for number, match in enumerate(PATTERN.finditer(prepared)):
        yield Token(match.group(), match.lastgroup or "word", number)


def _line_break(match: re.Match[str]) -> str:
    """Blank lines and bullets end a sentence; a line that goes on in lower case is no break at all."""
    following = match["next"]
    if match["bullet"] or match.group().count("\n") > 1:
        return ". " + following
    return (" " if following.islower() else ", ") + following
