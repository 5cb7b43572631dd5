"""Free text to the zones it names, side words kept as written.

Sentence by sentence and clause by clause: `clauses` finds one place per clause, this module decides which side a level
belongs to, whether the clause affirms or denies, and how clauses that speak of the same zone are weighed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from textray.records import LEVELS, SIDES, Zones, ZoneState
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

_LIST = frozenset({"and", "or", "comma", "split"})
_SHARING = frozenset({"and", "or", "split"})


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What free text says.

    Attributes:
        zones: The six zones, by the side words as written.
        unused: Words that changed nothing, but for numbers and words without content; lower case, each once, in order.
        contradictory: The text both affirms and denies the same zones.
    """

    zones: Zones
    unused: tuple[str, ...]
    contradictory: bool


@dataclass(frozen=True, slots=True)
class _Statement:
    """Zones that one clause affirms or denies; the fewer they are, the more the statement weighs."""

    zones: frozenset[tuple[str, str]]
    present: bool


def read(text: str) -> Reading:
    """Read a cleaned text of any length; never raises."""
    statements: list[_Statement] = []
    words: list[Token] = []
    used: set[int] = set()
    clear = False
    for clauses in sentences(text):
        words += (token for clause in clauses for token in clause.tokens)
        present = _polarities(clauses)
        found = _statements(clauses, present)
        placed = any(statement is not None for statement in found)
        for clause, affirmed, statement in zip(clauses, present, found, strict=True):
            if statement is not None:
                statements.append(statement)
                used.update(_used(clause, affirmed))
            elif not placed and not affirmed and clause.says_clear:
                clear = True
                used.update(t.number for t in clause.tokens if t.text in BROAD | NOUNS | STUDY or _is_cue(t))
        if any(s is not None and not s.present for s in found):
            used.update(t.number for c in clauses for t in c.tokens if _is_cue(t))
    zones, contradictory = _weigh(statements, clear=clear)
    unused = dict.fromkeys(
        t.text for t in words if t.number not in used and t.text not in FUNCTION and not t.text[0].isdigit()
    )
    return Reading(zones=zones, unused=tuple(unused), contradictory=contradictory)


def _polarities(clauses: list[Clause]) -> list[bool]:
    """Whether each clause affirms (true) or denies.

    A denial reaches over "or", and over "and" and commas as long as no new statement begins. A clause with nothing but
    a place takes what follows ("the left lung and the right apex are clear") or else what went before.
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
            before = bool(clause.places) and clause.places[-1][0].number > _first_normal(clause)
            affirmed, reach, located = False, before, True
        elif reach and joined and not _starts_anew(clause, located=located, listed=ahead[index]):
            affirmed, located = False, located or bool(clause.places)
        else:
            reach = False
        result.append(affirmed)
    for index in range(len(clauses) - 2, -1, -1):
        clause, after = clauses[index], clauses[index + 1]
        if clause.only_place and result[index] and not result[index + 1] and clause.joiner != "except":
            result[index] = not _denied_by(after, first=index == 0 or clauses[index].joiner == "break")
    return result


def _first_normal(clause: Clause) -> int:
    return next(t.number for t in clause.tokens if t.text in NORMAL or t.kind == "normal")


def _starts_anew(clause: Clause, *, located: bool, listed: bool) -> bool:
    """Whether a clause after a denial is a statement of its own, and so affirms."""
    if clause.joiner == "or" or listed or not (clause.finding and clause.places):
        return False
    return located or clause.asserts or (clause.joiner == "comma" and clause.place_first)


def _denied_by(after: Clause, *, first: bool) -> bool:
    """Whether a bare place is denied by the clause behind it, as in "left lung and right apex clear"."""
    if after.places:
        post = after.normal and not after.negated and after.places[0][0].number < _first_normal(after)
        chained = after.only_place or post or (after.joiner in _SHARING and after.negated)
        return chained and (after.joiner in _SHARING or (after.joiner == "comma" and first))
    return after.joiner != "except" and (after.normal or (after.negated and after.finding))


def _or_ahead(clauses: list[Clause]) -> list[bool]:
    """For each clause, whether the list it stands in goes on to an "or": "no A, B, or C"."""
    ahead = [False] * len(clauses)
    for index in range(len(clauses) - 2, -1, -1):
        joiner = clauses[index + 1].joiner
        ahead[index] = joiner == "or" or (joiner == "comma" and ahead[index + 1])
    return ahead


def _statements(clauses: list[Clause], present: list[bool]) -> list[_Statement | None]:
    """The zones of each clause, ``None`` where it names none."""
    if not any(clause.anchored for clause in clauses) and not all(_only_words_of_place(c) for c in clauses):
        return [None] * len(clauses)
    sides, levels = _resolve(clauses, present)
    refined = {
        side
        for index, clause in enumerate(clauses)
        if present[index] and clause.of_lung and levels[index]
        for side in sides[index]
    }
    found: list[_Statement | None] = []
    for index, clause in enumerate(clauses):
        named = sides[index]
        placed = bool(named) and clause.of_lung and not clause.unseen
        if not levels[index] and present[index] and not clause.diffuse:
            named = {side for side in named if side not in refined}  # "left lung opacity, mainly in the lower zone"
        zones = frozenset((side, level) for side in named for level in levels[index] or LEVELS)
        found.append(_Statement(zones, present[index]) if placed else None)
    return found


def _resolve(clauses: list[Clause], present: list[bool]) -> tuple[list[set[str]], list[set[str]]]:
    """Sides and levels of each clause, with those it shares with its neighbours."""
    sides = [set(clause.sides) for clause in clauses]
    levels = [set(clause.levels) for clause in clauses]
    any_side = any(named for named, affirmed in zip(sides, present, strict=True) if affirmed)
    first = next((index for index, named in enumerate(sides) if named), 0)
    for index in range(len(clauses) - 2, -1, -1):  # from behind: "upper and middle left lung", "left and right bases"
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
    for index, clause in enumerate(
        clauses
    ):  # from before: "left upper and lower zones", "lower zone on the left and right"
        before = clauses[index - 1] if index else None
        if levels[index] and not sides[index]:
            new = clause.pair and not clause.only_place
            sides[index] = set(SIDES) if new or (not last and clause.plural) else set(last)
        elif sides[index] and not levels[index] and before is not None and clause.only_side:
            following = clauses[index + 1] if index + 1 < len(clauses) else None
            if following is None or following.joiner != "comma" or following.sides or not following.levels:
                levels[index] = set(levels[index - 1])
        elif not sides[index] and not levels[index] and _both_lungs(clause, any_side=any_side):
            sides[index] = set(SIDES)
        if sides[index] and clause.of_lung:
            last = sides[index]
    if not any_side:  # "upper and lower zones": the plural stands at the end of the list
        for index in range(len(clauses) - 2, -1, -1):
            if levels[index] and not sides[index] and clauses[index + 1].joiner in _LIST and levels[index + 1]:
                sides[index] = set(sides[index + 1])
    return sides, levels


def _both_lungs(clause: Clause, *, any_side: bool) -> bool:
    """Whether a clause without side or level speaks of both lungs: "lungs are clear", "diffuse opacities"."""
    if clause.plural and clause.lung:
        return clause.finding or clause.negated or clause.normal or clause.diffuse or clause.joiner == "or"
    return clause.diffuse and not any_side and (clause.finding or clause.lung) and not clause.negated


def _only_words_of_place(clause: Clause) -> bool:
    return all(place_of(t) is not None or t.text in FUNCTION | DIFFUSE or _is_cue(t) for t in clause.tokens)


def _is_cue(token: Token) -> bool:
    return token.kind in {"negation", "normal"} or token.text in NORMAL


def _used(clause: Clause, affirmed: bool) -> set[int]:
    return {
        t.number
        for t in clause.tokens
        if place_of(t) is not None or t.text in NOUNS | DIFFUSE or (not affirmed and _is_cue(t))
    }


def _weigh(statements: list[_Statement], *, clear: bool) -> tuple[Zones, bool]:
    """One state a zone: the statement about the fewest zones wins, an affirmation wins a tie."""
    weight: dict[tuple[str, str], tuple[int, bool]] = {}
    denied: dict[tuple[str, str], int] = {}
    for statement in statements:
        size = len(statement.zones)
        for zone in statement.zones:
            rank = (-size, statement.present)
            weight[zone] = max(weight.get(zone, rank), rank)
            if not statement.present:
                denied[zone] = min(denied.get(zone, size), size)
    contradictory = any(present and denied.get(zone) == -size for zone, (size, present) in weight.items())
    none = clear and not any(present for _, present in weight.values())
    rest = ZoneState.ABSENT if none else ZoneState.UNMENTIONED
    state = {True: ZoneState.PRESENT, False: ZoneState.ABSENT}
    zones = Zones(tuple(state[weight[s, v][1]] if (s, v) in weight else rest for s in SIDES for v in LEVELS))
    return zones, contradictory


# Free text cut into sentences, those into clauses: one place each, and the words that decide what is said of it.

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
