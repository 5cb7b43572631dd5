"""Free text to the zones that it names, side words kept as written.

Neighbouring clauses decide which side a level belongs to and whether a clause affirms or denies, and the statements
about each zone are weighed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import count, pairwise

from textray.records import LEVELS, SIDES, Zones, ZoneState
from textray.text import terms
from textray.text.clauses import JOINERS, LIST, SHARING, Clause, Token, deny, sentences, tokens
from textray.text.sentences import parts


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The six zones by the side words as written, and what was not used.

    Attributes:
        unused: Words that changed nothing, without numbers and words without content; lower case, each once.
        contradictory: The text both affirms and denies the same zones.
        idle: Words that deny, but have nothing to deny.
        misspelt: Known words that others in the text nearly are.
    """

    zones: Zones
    unused: tuple[str, ...]
    contradictory: bool
    idle: tuple[str, ...]
    misspelt: tuple[str, ...]


ZoneSet = frozenset[tuple[str, str]]
"""Zones, each by its side and level."""


def read(text: str, *, patient: bool = False) -> Reading:
    """Read a cleaned text of any length; never raises.

    ``patient`` says that its sides are the patient's, so that "middle lobe" and "retrocardiac" name one.
    """
    claims: list[tuple[Clause, ZoneSet, bool]] = []
    words: list[Token] = []
    used: set[int] = set()
    idle: list[Token] = []
    clear = False
    last = 0
    numbers = count()
    for counts, part in parts(text):
        if not counts:
            words += (token for token in tokens(part, numbers) if token.kind not in JOINERS)
            continue
        for clauses in sentences(part, numbers):
            if patient:
                _imply(clauses)
            words += (token for clause in clauses for token in clause.tokens)
            present = _polarities(clauses)
            claimed = _claims(clauses, present)
            if any(t.deciding and t.meant not in terms.PLACES for clause in clauses for t in clause.tokens):
                claimed = [None] * len(clauses)  # a misspelt denial may reach anywhere
                if not any(clause.places or clause.finding for clause in clauses):
                    claims[last:] = []  # of the sentence before
            last = len(claims)
            for clause, affirmed, zones in zip(clauses, present, claimed, strict=True):
                if zones is not None:
                    claims.append((clause, zones, affirmed))
                    telling = terms.NOUNS | terms.DIFFUSE
                    used.update(
                        t.number
                        for t in clause.tokens
                        if t.place or t.text in telling or (t.cue and (clause.contrast or not affirmed))
                    )
                elif not (affirmed or clause.attached or clause.silent) and clause.says_clear:
                    clear = True
                    used.update(
                        t.number for t in clause.tokens if t.text in terms.BROAD | terms.NOUNS | terms.STUDY or t.cue
                    )
                elif not clause.silent and not clause.attached and not clause.has(terms.ELSEWHERE):
                    idle += (token for token in clause.tokens if token.cue)
            denials = (zones is not None and not affirmed for zones, affirmed in zip(claimed, present, strict=True))
            if any(denials):
                used.update(t.number for clause in clauses for t in clause.tokens if t.cue)
            used.update(
                t.number for clause in clauses if clause.attached and clause.bare for t in clause.tokens if t.cue
            )
    misspelt = tuple(dict.fromkeys(word for token in words for word in token.meant.split()))
    if any(token.deciding for token in words):  # what it would narrow is not known
        claims = [claim for claim in claims if not claim[2] or (claim[0].sides and claim[0].levels)]
    states, contradictory = _weigh([claim[1:] for claim in claims], clear=clear)
    unused = dict.fromkeys(
        t.text for t in words if t.number not in used and t.text not in terms.FUNCTION and not t.text[0].isdigit()
    )
    return Reading(
        zones=states,
        unused=tuple(word for word in unused if word[0].isalnum() or len(word) > 1),
        contradictory=contradictory,
        idle=tuple(dict.fromkeys(t.text.split()[0] for t in idle if t.number not in used)),
        misspelt=misspelt,
    )


def _imply(clauses: list[Clause]) -> None:
    """Sides that radiologists leave out: the middle lobe is the right one; behind the heart lies the left lung."""
    sided = any(clause.sides for clause in clauses)
    for clause in clauses:
        if not clause.sides and "retrocardiac" in clause.words:
            clause.sides = {terms.LEFT}
        elif not sided and clause.levels == {terms.MIDDLE} and {"middle", "lobe"} <= clause.words:
            clause.sides = {terms.RIGHT}


def _polarities(clauses: list[Clause]) -> list[bool]:
    """Whether each clause affirms (true) or denies.

    A denial reaches over "or", and over "and" and commas as long as no new statement begins. A clause with nothing but
    a place takes the polarity of the next clause ("the left lung and the right apex are clear") or of the previous one.
    """
    _contrast(clauses)
    ahead = _or_ahead(clauses)
    result: list[bool] = []
    reach = False  # the last denial reaches on
    located = False  # it has named its place
    began = 0
    for index, clause in enumerate(clauses):
        joined = clause.joiner in LIST and index > 0
        affirmed = True
        if clause.joiner == "except":
            affirmed, reach = not (result[-1] if result else True), True
            reach, located = not affirmed, False
            for earlier in clauses[:index]:
                earlier.attached = True
        elif clause.contrast and not clause.normal:
            reach = False
        elif clause.negated:
            affirmed, reach, located, began = False, True, bool(clause.places), index
        elif clause.normal:
            before = bool(clause.places) and clause.places[-1][0].number > clause.first_normal
            before |= any(token.deciding for token in clause.tokens)
            affirmed, reach, located, began = False, before, True, index
        elif reach and joined and not _starts_anew(clause, located=located, listed=ahead[index]):
            if clause.places and not located:
                clauses[began].attached = True
            clause.attached |= located and not clause.places
            affirmed, located = False, located or bool(clause.places)
        else:
            reach = False
        result.append(affirmed)
    for index in range(len(clauses) - 2, -1, -1):
        clause, after = clauses[index], clauses[index + 1]
        if not result[index] or result[index + 1] or clause.joiner == "except":
            continue
        if clause.places and clause.only_volume and after.joiner == "without" and not after.places:
            clause.normal = True
            result[index] = False
        elif _resolves(after) and clause.finding and not clause.has(terms.VERBS):
            result[index] = False  # "basal infiltrates and venous engorgement have resolved"
        elif clause.only_place and not clause.contrast and (clause.places or after.joiner in SHARING):
            result[index] = not _denied_by(after, first=index == 0 or clause.joiner == "break")
        after.attached |= not result[index]
    for index, (ahead_of, behind) in enumerate(pairwise(clauses)):
        if behind.bare and not ahead_of.bare and behind.joiner not in ("except", "or"):
            deny(clauses, index, behind)
    return [affirmed and not clause.denied for affirmed, clause in zip(result, clauses, strict=True)]


def _contrast(clauses: list[Clause]) -> None:
    """Find clauses that only say that the opposite, or the same, is true of their place: "the left is not"."""
    for index, clause in enumerate(clauses):
        said = next((c for c in reversed(clauses[:index]) if c.normal or c.negated or c.finding), None)
        if said is None or not clause.elliptic or not said.of_lung or clause.joiner in ("except", "or"):
            continue
        not_clear = any(t.kind == "finding" and t.text.startswith("not ") for t in said.tokens)
        if clause.negated:
            clause.contrast = said.normal and not said.negated
            clause.negated = not clause.contrast
        elif clause.has(terms.ECHO):
            clause.normal = said.normal or said.negated  # "as is the left"
        elif not_clear and clause.has(terms.BEING):
            clause.contrast = clause.normal = True


def _filled(clauses: list[Clause], present: list[bool]) -> int | None:
    """The clause whose place is that of a finding behind it: "hyperinflated lungs, consistent with emphysema"."""
    places = [index for index, clause in enumerate(clauses) if clause.places or clause.both_lungs]
    if len(places) != 1 or not clauses[places[0]].only_volume or clauses[places[0]].levels:
        return None
    behind = [
        affirmed and clause.finding and clause.of_lung and not clause.silent and not clause.has(terms.VERBS - {"are"})
        for clause, affirmed in zip(clauses[places[0] + 1 :], present[places[0] + 1 :], strict=True)
    ]
    return places[0] if any(behind) else None


def _resolves(clause: Clause) -> bool:
    """It ends a list of what is no longer there."""
    listed = clause.joiner == "and" and not clause.places and not clause.negated
    return listed and clause.has(terms.RESOLVED) and clause.has(frozenset({"have", "are", "were"}))


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
        chained = after.only_place or post or (after.joiner in SHARING and after.negated)
        return chained and (after.joiner in SHARING or (after.joiner == "comma" and first))
    return after.joiner != "except" and (after.normal or (after.negated and after.finding))


def _claims(clauses: list[Clause], present: list[bool]) -> list[ZoneSet | None]:
    """The zones that each clause affirms or denies, ``None`` where it names none."""
    if not any(clause.anchored for clause in clauses) and not all(clause.placing for clause in clauses):
        return [None] * len(clauses)
    sides, levels = _resolve(clauses, present)
    outside = _outside(clauses)
    filled = _filled(clauses, present)
    if filled is not None:
        sides[filled], outside[filled] = sides[filled] or set(SIDES), False
    affirmed = {index for index in range(len(clauses)) if present[index] and not outside[index]}
    refined = Counter(side for index in affirmed if levels[index] for side in sides[index])
    single = {side for index in affirmed if len(sides[index]) == 1 for side in sides[index]}
    by_caption = any(clauses[index].levels_first for index in affirmed)
    claims: list[ZoneSet | None] = []
    for index, clause in enumerate(clauses):
        named = sides[index]
        of_lung = not outside[index] or _shares(clauses, index)
        placed = bool(named) and of_lung and not clause.silent
        apart = [near for near in (index - 1, index + 1) if near in affirmed and _apart(clauses, index, near)]
        closer = {side for side, times in refined.items() if times > sum(side in sides[n] for n in apart if levels[n])}
        closer |= single if len(named) > 1 else set()
        # "left lung opacity, mainly in the lower zone", "bilateral pulmonary infection, lower left lung"
        repeated = named <= closer or (by_caption and clause.words <= terms.STATUS)
        if not levels[index] and present[index] and not clause.has(terms.DIFFUSE) and repeated:
            named = set()
        zones = frozenset((side, level) for side in named for level in levels[index] or LEVELS)
        claims.append(zones if placed else None)
    return claims


def _apart(clauses: list[Clause], index: int, near: int) -> bool:
    """Whether neighbours are two findings: "hilar calcifications and a nodule in the left lung"."""
    return clauses[max(index, near)].joiner == "and" and clauses[index].finding and clauses[near].finding


def _shares(clauses: list[Clause], index: int) -> bool:
    """Whether the place beside a word of the pleura is also that of a finding: "left basal effusion/atelectasis"."""
    clause, shared = clauses[index], []
    start = index
    while start and clauses[start].joiner in LIST and not clauses[start - 1].places:
        start -= 1
    if start < index and clause.joiner in SHARING and not (clauses[start].joiner in LIST and start):
        shared = clauses[start:index]
    if clause.levels and index + 1 < len(clauses) and clauses[index + 1].joiner in SHARING:
        shared = [*shared, clauses[index + 1]]
    return not clause.has(terms.ELSEWHERE - terms.PLEURAL) and any(
        other.finding and not other.places and not other.has(terms.ELSEWHERE) for other in shared
    )


def _outside(clauses: list[Clause]) -> list[bool]:
    """For each clause, whether its place is of what lies outside the lungs, in it or before it.

    Such is the apex of "right pneumothorax reaching the left apex", and the right of "effusions, larger on the right".
    """
    outside: list[bool] = []
    for clause in clauses:
        says = clause.finding or clause.negated or clause.normal or clause.has(terms.NOUNS)
        whole = clause.levels and clause.sides and clause.joiner != "split"
        goes_on = bool(outside) and outside[-1] and not says and not whole
        outside.append(not clause.of_lung or goes_on)
    return outside


def _resolve(clauses: list[Clause], present: list[bool]) -> tuple[list[set[str]], list[set[str]]]:
    """Sides and levels of each clause, with those that it shares with its neighbours."""
    sides = [set(clause.sides) for clause in clauses]
    levels = [set(clause.levels) for clause in clauses]
    any_side = any(named for named, affirmed in zip(sides, present, strict=True) if affirmed)
    first = next((index for index, named in enumerate(sides) if named), 0)
    # From the last clause to the first: "upper and middle left lung", "left and right bases".
    for index in range(len(clauses) - 2, -1, -1):
        clause, after = clauses[index], clauses[index + 1]
        shares = after.joiner in SHARING or (after.joiner == "break" and after.elliptic and "not" in after.words)
        if shares and clause.ends_on_side and after.sides and not after.levels_first:
            levels[index] = set(
                levels[index + 1]
            )  # "in the left and right bases", "in the left, but not the right base"
        if after.joiner not in LIST:
            continue
        if not sides[index] and levels[index] and (after.levels_first or (not after.sides and sides[index + 1])):
            before = clauses[index - 1] if index and clause.joiner in LIST else None
            if before is None or not (before.sides and before.levels) or before.levels_first:
                sides[index] = set(sides[index + 1])
        if not sides[index] and levels[index] and after.only_side and not after.levels and index < first:
            sides[index] = set(after.sides)  # "lower zone opacity, on the left"
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
        elif not sides[index] and not levels[index] and _both_lungs(clause, present[index], any_side=any_side):
            sides[index] = set(SIDES)
        lends = clause.has(terms.PLEURAL | terms.DIAPHRAGM) and not clause.negated
        if sides[index] and (clause.of_lung or lends):
            last = sides[index]  # "left effusion with basal atelectasis"
    if not any_side:  # "upper and lower zones": the plural comes at the end of the list
        for index in range(len(clauses) - 2, -1, -1):
            if levels[index] and not sides[index] and clauses[index + 1].joiner in LIST and levels[index + 1]:
                sides[index] = set(sides[index + 1])
    return sides, levels


def _both_lungs(clause: Clause, affirmed: bool, *, any_side: bool) -> bool:
    """Whether a clause without side or level is about both lungs: "lungs are clear", "diffuse opacities"."""
    if clause.plural and clause.has(terms.LUNG):
        says = clause.finding or clause.negated or clause.normal or clause.has(terms.DIFFUSE)
        return says or clause.joiner == "or" or not affirmed
    wide = clause.finding or clause.has(terms.LUNG | terms.PLURALS)
    return clause.has(terms.DIFFUSE) and not any_side and wide and not clause.negated


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
    rest = ZoneState.ABSENT if clear else ZoneState.UNMENTIONED
    state = {True: ZoneState.PRESENT, False: ZoneState.ABSENT}
    zones = Zones(tuple(state[weight[s, v][1]] if (s, v) in weight else rest for s in SIDES for v in LEVELS))
    return zones, contradictory
