"""Free text to the zones that it names, side words kept as written.

A text is cut into sentences and these into clauses, each with at most one place. Neighbouring clauses then decide which
side a level belongs to and whether a clause affirms or denies, and the statements about each zone are weighed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

from textray.records import LEVELS, SIDES, Zones, ZoneState
from textray.text import terms
from textray.text.terms import Place

_BLANKS = re.compile(r"[ \t]+")
_LINE_BREAK = re.compile(r" ?\n\s*(?P<bullet>[-*\u2022] ?|\d{1,2}[.)] )?(?P<next>\S?)")
_IN_WORD = re.compile(r"(?<=\w)[-\u2010\u2011](?=\w)")
_DASH = re.compile(r"(?<=\s)-|[\u2012-\u2015]")
_TWO_SIDED = re.compile(r"\bbi (?=bas|apic|hil|perihil)")
_PREFIX = re.compile(r"\b(costo|peri|para|supra|infra|retro) (?=phren|hil|card)")
_NOT = re.compile(r"(?<=[a-z])n['\u2019]t\b")
_EITHER = frozenset({"both", "neither"})
_JOINERS = frozenset({"comma", "and", "or", "break", "without", "except", "stop"})
_SHARING = frozenset({"and", "or", "split"})
_LIST = _SHARING | {"comma"}


@dataclass(frozen=True, slots=True)
class Token:
    """One word or set phrase in lower case, its group in `terms.PATTERN` and its position in the whole text."""

    text: str
    kind: str
    number: int
    place: Place | None

    @property
    def negation(self) -> bool:
        """A "no", "not", "free of"."""
        return self.kind == "negation"

    @property
    def normal(self) -> bool:
        """A "clear", "normal", "spared"."""
        return self.kind == "normal" or self.text in terms.NORMAL

    @property
    def finding(self) -> bool:
        """A finding, such as "opacity"."""
        return self.kind == "finding" or self.text in terms.FINDINGS

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
        """Append a token."""
        self.tokens.append(token)
        self.words.add(token.text)
        self.negated |= token.negation
        self.normal |= token.normal
        self.finding |= token.finding
        self.unseen |= token.kind == "unseen"
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
        """Position of its first word such as "clear"."""
        return next(token.number for token in self.tokens if token.normal)

    @property
    def only_place(self) -> bool:
        """It has a place, but no finding, cue or verb."""
        return bool(self.places) and not (self.finding or self.negated or self.normal or self.has(terms.VERBS))

    @property
    def only_side(self) -> bool:
        """It has a place and words without content only, as "and on the right", "not the left"."""
        return all(token.place or token.text in terms.FUNCTION or token.negation for token in self.tokens)

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
        """False where the side is that of a rib, a catheter, a pleural effusion."""
        if self.has(terms.LUNG) or not self.has(terms.ELSEWHERE):
            return True
        in_lung = any(place.lung for _, place in self.places) and not self.has(terms.PLEURAL)
        return bool(self.levels) and (self.finding or in_lung)

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
        nothing = self.has(terms.NOTHING_WRONG) and self.words <= terms.NOTHING_WRONG | terms.FUNCTION
        return (named or nothing) and not self.places and self.of_lung


def sentences(text: str) -> Iterator[list[Clause]]:
    """Cut a cleaned text into sentences of clauses, in time that grows with its length only."""
    clauses: list[Clause] = []
    clause = Clause("")
    for token in chain(_tokens(text), [Token("", "stop", -1, None)]):
        joins = token.kind in _JOINERS
        joiner = token.kind if joins else _implied(clause, token)
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
        if not joins:
            clause.add(token)


def _implied(clause: Clause, token: Token) -> str:
    """The joiner that a telegram leaves out: "right lower left upper", "right basal opacity no effusion"."""
    if token.negation and token.text != "not" and clause.places and (clause.finding or clause.normal):
        return "break"
    place = token.place
    if place is None or not clause.sides:
        return ""
    if clause.levels_first and place.levels:
        return "split"
    return "split" if place.sides and set(place.sides) != clause.sides and not clause.either else ""


def _tokens(text: str) -> Iterator[Token]:
    prepared = _LINE_BREAK.sub(_line_break, _BLANKS.sub(" ", text)).lower()
    prepared = _IN_WORD.sub(" ", _DASH.sub(",", prepared)).replace("can't", "cannot").replace("can\u2019t", "cannot")
    prepared = _PREFIX.sub(r"\1", _TWO_SIDED.sub("bi", _NOT.sub(" not", prepared)))
    for number, match in enumerate(terms.PATTERN.finditer(prepared)):
        word, kind = match.group(), match.lastgroup or "word"
        named = {"both": "both", "place": "left" if word == "l" else "right"}.get(kind, word)
        yield Token(word, kind, number, terms.PLACES.get(named))


def _line_break(match: re.Match[str]) -> str:
    """Blank lines and bullets end a sentence; a line that goes on in lower case is no break at all."""
    following = match["next"]
    if match["bullet"] or match.group().count("\n") > 1:
        return ". " + following
    return (" " if following.islower() else ", ") + following


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The six zones by the side words as written, and whether the text both affirms and denies the same ones.

    ``unused`` are words that changed nothing, without numbers and words without content; lower case, each once.
    """

    zones: Zones
    unused: tuple[str, ...]
    contradictory: bool


ZoneSet = frozenset[tuple[str, str]]
"""Zones, each by its side and level."""


def read(text: str) -> Reading:
    """Read a cleaned text of any length; never raises."""
    claims: list[tuple[ZoneSet, bool]] = []
    words: list[Token] = []
    used: set[int] = set()
    clear = False
    for clauses in sentences(text):
        words += (token for clause in clauses for token in clause.tokens)
        present = _polarities(clauses)
        claimed = _claims(clauses, present)
        placed = any(zones is not None for zones in claimed)
        for clause, affirmed, zones in zip(clauses, present, claimed, strict=True):
            if zones is not None:
                claims.append((zones, affirmed))
                telling = terms.NOUNS | terms.DIFFUSE
                used.update(t.number for t in clause.tokens if t.place or t.text in telling or (t.cue and not affirmed))
            elif not placed and not affirmed and clause.says_clear:
                clear = True
                used.update(
                    t.number for t in clause.tokens if t.text in terms.BROAD | terms.NOUNS | terms.STUDY or t.cue
                )
        if any(zones is not None and not affirmed for zones, affirmed in zip(claimed, present, strict=True)):
            used.update(t.number for clause in clauses for t in clause.tokens if t.cue)
    states, contradictory = _weigh(claims, clear=clear)
    unused = dict.fromkeys(
        t.text for t in words if t.number not in used and t.text not in terms.FUNCTION and not t.text[0].isdigit()
    )
    return Reading(zones=states, unused=tuple(unused), contradictory=contradictory)


def _polarities(clauses: list[Clause]) -> list[bool]:
    """Whether each clause affirms (true) or denies.

    A denial reaches over "or", and over "and" and commas as long as no new statement begins. A clause with nothing but
    a place takes the polarity of the next clause ("the left lung and the right apex are clear") or of the previous one.
    """
    ahead = _or_ahead(clauses)
    result: list[bool] = []
    reach = False  # the last denial reaches on
    located = False  # it has named its place
    for index, clause in enumerate(clauses):
        joined = clause.joiner in _LIST and index > 0
        affirmed = True
        if clause.joiner == "except":
            affirmed, reach = not (result[-1] if result else True), True
            reach, located = not affirmed, False
        elif clause.negated:
            affirmed, reach, located = False, True, bool(clause.places)
        elif clause.normal:
            before = bool(clause.places) and clause.places[-1][0].number > clause.first_normal
            affirmed, reach, located = False, before, True
        elif reach and joined and not _starts_anew(clause, located=located, listed=ahead[index]):
            affirmed, located = False, located or bool(clause.places)
        else:
            reach = False
        result.append(affirmed)
    for index in range(len(clauses) - 2, -1, -1):
        clause, after = clauses[index], clauses[index + 1]
        if clause.only_place and result[index] and not result[index + 1] and clause.joiner != "except":
            result[index] = not _denied_by(after, first=index == 0 or clause.joiner == "break")
    return result


def _or_ahead(clauses: list[Clause]) -> list[bool]:
    """For each clause, whether its list goes on to an "or": "no A, B, or C"."""
    ahead = [False] * len(clauses)
    for index in range(len(clauses) - 2, -1, -1):
        joiner = clauses[index + 1].joiner
        ahead[index] = joiner == "or" or (joiner == "comma" and ahead[index + 1])
    return ahead


def _starts_anew(clause: Clause, *, located: bool, listed: bool) -> bool:
    """Whether a clause after a denial is a statement of its own, and so affirms."""
    if clause.joiner == "or" or listed or not (clause.finding and clause.places):
        return False
    return located or clause.has(terms.VERBS) or (clause.joiner == "comma" and clause.place_first)


def _denied_by(after: Clause, *, first: bool) -> bool:
    """Whether a bare place is denied by the next clause, as in "left lung and right apex clear"."""
    if after.places:
        post = after.normal and not after.negated and after.places[0][0].number < after.first_normal
        chained = after.only_place or post or (after.joiner in _SHARING and after.negated)
        return chained and (after.joiner in _SHARING or (after.joiner == "comma" and first))
    return after.joiner != "except" and (after.normal or (after.negated and after.finding))


def _claims(clauses: list[Clause], present: list[bool]) -> list[ZoneSet | None]:
    """The zones that each clause affirms or denies, ``None`` where it names none."""
    if not any(clause.anchored for clause in clauses) and not all(clause.placing for clause in clauses):
        return [None] * len(clauses)
    sides, levels = _resolve(clauses, present)
    refined = {
        side
        for index, clause in enumerate(clauses)
        if present[index] and clause.of_lung and levels[index]
        for side in sides[index]
    }
    claims: list[ZoneSet | None] = []
    for index, clause in enumerate(clauses):
        named = sides[index]
        placed = bool(named) and clause.of_lung and not clause.unseen
        if not levels[index] and present[index] and not clause.has(terms.DIFFUSE):
            named = {side for side in named if side not in refined}  # "left lung opacity, mainly in the lower zone"
        zones = frozenset((side, level) for side in named for level in levels[index] or LEVELS)
        claims.append(zones if placed else None)
    return claims


def _resolve(clauses: list[Clause], present: list[bool]) -> tuple[list[set[str]], list[set[str]]]:
    """Sides and levels of each clause, with those that it shares with its neighbours."""
    sides = [set(clause.sides) for clause in clauses]
    levels = [set(clause.levels) for clause in clauses]
    any_side = any(named for named, affirmed in zip(sides, present, strict=True) if affirmed)
    first = next((index for index, named in enumerate(sides) if named), 0)
    # From the last clause to the first: "upper and middle left lung", "left and right bases".
    for index in range(len(clauses) - 2, -1, -1):
        clause, after = clauses[index], clauses[index + 1]
        if after.joiner not in _LIST:
            continue
        if not sides[index] and levels[index] and (after.levels_first or (not after.sides and sides[index + 1])):
            before = clauses[index - 1] if index and clause.joiner in _LIST else None
            if before is None or not (before.sides and before.levels) or before.levels_first:
                sides[index] = set(sides[index + 1])
        if not sides[index] and levels[index] and after.only_side and not after.levels and index < first:
            sides[index] = set(after.sides)  # "lower zone opacity, on the left"
        if after.joiner in _SHARING and clause.ends_on_side and after.sides and not after.levels_first:
            levels[index] = set(levels[index + 1])
    last: set[str] = set()
    # From the first clause to the last: "left upper and lower zones", "lower zone on the left and right".
    for index, clause in enumerate(clauses):
        if levels[index] and not sides[index]:
            new = clause.pair and not clause.only_place
            sides[index] = set(SIDES) if new or (not last and clause.plural) else set(last)
        elif sides[index] and not levels[index] and index and clause.only_side:
            following = clauses[index + 1] if index + 1 < len(clauses) else None
            if following is None or following.joiner != "comma" or following.sides or not following.levels:
                levels[index] = set(levels[index - 1])
        elif not sides[index] and not levels[index] and _both_lungs(clause, any_side=any_side):
            sides[index] = set(SIDES)
        if sides[index] and clause.of_lung:
            last = sides[index]
    if not any_side:  # "upper and lower zones": the plural comes at the end of the list
        for index in range(len(clauses) - 2, -1, -1):
            if levels[index] and not sides[index] and clauses[index + 1].joiner in _LIST and levels[index + 1]:
                sides[index] = set(sides[index + 1])
    return sides, levels


def _both_lungs(clause: Clause, *, any_side: bool) -> bool:
    """Whether a clause without side or level is about both lungs: "lungs are clear", "diffuse opacities"."""
    if clause.plural and clause.has(terms.LUNG):
        return clause.finding or clause.negated or clause.normal or clause.has(terms.DIFFUSE) or clause.joiner == "or"
    return (
        clause.has(terms.DIFFUSE) and not any_side and (clause.finding or clause.has(terms.LUNG)) and not clause.negated
    )


def _weigh(claims: list[tuple[ZoneSet, bool]], *, clear: bool) -> tuple[Zones, bool]:
    """One state for each zone: the claim about the fewest zones wins, an affirmation wins a tie."""
    weight: dict[tuple[str, str], tuple[int, bool]] = {}
    denied: dict[tuple[str, str], int] = {}
    for named, affirmed in claims:
        size = len(named)
        for zone in named:
            rank = (-size, affirmed)
            weight[zone] = max(weight.get(zone, rank), rank)
            if not affirmed:
                denied[zone] = min(denied.get(zone, size), size)
    contradictory = any(present and denied.get(zone) == -size for zone, (size, present) in weight.items())
    none = clear and not any(present for _, present in weight.values())
    rest = ZoneState.ABSENT if none else ZoneState.UNMENTIONED
    state = {True: ZoneState.PRESENT, False: ZoneState.ABSENT}
    zones = Zones(tuple(state[weight[s, v][1]] if (s, v) in weight else rest for s in SIDES for v in LEVELS))
    return zones, contradictory
