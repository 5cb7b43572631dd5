"""Zones in many wordings, so that a text encoder learns more than the 63 captions of QaTa-COV19.

The words are those of `textray.text.terms`, so the rule parser reads each sentence back: every place that it names is
a place of the zones it was written from, on the same side. Sides are those of the zones, the viewer's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Literal, TypeVar

import numpy as np

from textray.errors import UsageError
from textray.records import LEVELS, SIDES, ZONE_NAMES, Zones
from textray.text.terms import PLACES
from textray.text.zones import NUMBERS, bank_sentences, levels_by_side, status

Form = Literal["clauses", "whole", "sides", "zones", "levels"]
FORMS: tuple[Form, ...] = ("clauses", "whole", "sides", "zones", "levels")
"""How a report is cut: into status, count and place; not at all; by side, by zone or by level."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence, with or without a full stop, and the facts that it states.

    These are names of zones such as ``left upper``, ``bilateral``, ``two areas``; the sentence is true of a film whose
    `facts` include them all.
    """

    text: str
    says: frozenset[str]


_ADJECTIVES = {
    "upper": ("upper", "upper", "apical"),
    "middle": ("middle", "mid", "mid", "perihilar", "hilar"),
    "lower": ("lower", "lower", "basal", "basilar"),
}
_PLAIN = {"upper": "upper", "middle": "mid", "lower": "lower"}
_PART = {"upper": "apex", "middle": "midzone", "lower": "base"}
_PARTS = {"upper": "apices", "middle": "midzones", "lower": "bases"}
_TWO_SIDED = {"upper": ("biapical",), "middle": ("biperihilar", "bihilar"), "lower": ("bibasal", "bibasilar")}
_SHORT = {
    place.sides + place.levels: tuple(w for w, p in PLACES.items() if p == place and not w.startswith("lingula"))
    for place in PLACES.values()
    if len(place.sides) == 1 and len(place.levels) == 1
}
"""Words for one zone, such as ``lll``, by side and level; not the lingula, which names the patient's left."""

_KINDS = ("", "", "", "", "patchy ", "hazy ", "ground glass ", "interstitial ", "airspace ", "confluent ", "dense ")
_SINGULAR = (
    "opacity", "opacity", "opacification", "consolidation", "infiltrate", "infiltration", "infection", "pneumonia",
    "density", "disease", "haziness", "shadowing", "abnormality", "inflammation",
)  # fmt: skip
_PLURAL = ("opacities", "opacities", "consolidations", "infiltrates", "densities", "shadows", "lesions")
_STATUS = (
    "pulmonary infection", "pulmonary infection", "lung infection", "infection", "pneumonia", "covid pneumonia",
    "opacities", "infiltrates", "lung disease",
)  # fmt: skip
_NOUNS = ("zones", "fields", "lung zones")


def facts(zones: Zones) -> frozenset[str]:
    """All facts that a sentence of `paraphrase` may state about a film with these zones."""
    named = set(compress(ZONE_NAMES, zones.present))
    return frozenset(named | {status(zones), _count(zones)} if named else ())


def paraphrase(zones: Zones, rng: np.random.Generator, *, form: Form | None = None) -> tuple[Statement, ...]:
    """Write zones in other words: sentences that together name all the zones and no others.

    ``form`` says how the report is cut; ``None`` draws it.

    Raises:
        UsageError: If no zone is present.
    """
    if not zones:
        raise UsageError("a report needs a zone that is present", came="no zone", expected="one zone or more")
    chosen = form or _pick(rng, FORMS)
    levels = levels_by_side(zones)
    sides = [side for side in SIDES if levels[side]]
    if rng.random() < 0.5:
        sides.reverse()
    if chosen == "clauses":
        opening = _statement(rng, f"{status(zones)} {_pick(rng, _STATUS)}", {status(zones)})
        return opening, _statement(rng, _say_count(zones, rng), {_count(zones)}), _place(sides, levels, rng)
    if chosen == "whole":
        place = _place(sides, levels, rng)
        text = f"{status(zones)} {_pick(rng, _STATUS)}, {place.text.rstrip('.')}"
        return (_statement(rng, text, {*place.says, status(zones)}),)
    if chosen == "sides":
        return tuple(_sentence([side], levels[side], rng) for side in sides)
    if chosen == "zones":
        return tuple(_sentence([side], [level], rng) for side in sides for level in levels[side])
    by_level = [(level, [side for side in sides if level in levels[side]]) for level in LEVELS]
    return tuple(_sentence(some, [level], rng) for level, some in by_level if some)


def corpus() -> tuple[str, ...]:
    """Draw texts to build a vocabulary from: the words of `paraphrase` in about their shares.

    The 63 captions, and the sentences of 64 reports for each of the 63 sets of zones, equal ones repeated.
    """
    rng = np.random.default_rng(0)
    drawn = [
        statement.text
        for index in range(1, 2 ** len(ZONE_NAMES))
        for _ in range(64)
        for statement in paraphrase(Zones.from_index(index), rng)
    ]
    return (*bank_sentences()[1:], *drawn)


def _pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]


def _count(zones: Zones) -> str:
    return f"{NUMBERS[sum(zones.present) - 1]} areas"


def _statement(rng: np.random.Generator, text: str, says: set[str]) -> Statement:
    return Statement(text + ("." if rng.random() < 0.5 else ""), frozenset(says))


def _say_count(zones: Zones, rng: np.random.Generator) -> str:
    count = sum(zones.present)
    number, areas = _pick(rng, (NUMBERS[count - 1], NUMBERS[count - 1], str(count))), "area" if count == 1 else "areas"
    return _pick(rng, (f"{number} infected {areas}", f"{number} affected {areas}", f"{number} {areas} of infection"))


def _place(sides: Sequence[str], levels: dict[str, list[str]], rng: np.random.Generator) -> Statement:
    """All the zones as one clause without a verb."""
    says = {f"{side} {level}" for side in sides for level in levels[side]}
    if len(sides) == 2 and levels["left"] == levels["right"] and rng.random() < 0.6:
        return _statement(rng, _both(levels["left"], rng), says)
    if rng.random() < 0.4:  # as in the captions
        return _statement(rng, " and ".join(f"{' '.join(levels[side])} {side} lung" for side in sides), says)
    several = len(sides) > 1
    return _statement(rng, " and ".join(_one(side, levels[side], rng, side_first=several) for side in sides), says)


def _sentence(sides: Sequence[str], levels: Sequence[str], rng: np.random.Generator) -> Statement:
    """A finding in the same levels of one side or both."""
    says = {f"{side} {level}" for side in sides for level in levels}
    several = len(sides) * len(levels) > 1
    kind = _pick(rng, _KINDS)
    finding = kind + _pick(rng, _PLURAL if several or rng.random() < 0.2 else _SINGULAR)
    beside = _beside(sides, levels, rng)
    if rng.random() < 0.4:
        return _statement(rng, f"{beside} {finding}", says)
    place = _both(list(levels), rng) if len(sides) == 2 else _one(sides[0], levels, rng)
    if rng.random() < 0.25:
        return _statement(rng, place, says)
    be = "are" if finding.endswith("s") else "is"
    forms = (
        f"{finding} in {place}",
        f"{finding} in {place}",
        f"{finding} {_pick(rng, ('seen', 'noted', 'present'))} in {place}",
        f"{finding} involving {place}",
        f"there {be} {finding} in {place}",
        f"{place} {'show' if len(sides) == 2 else 'shows'} {finding}",
    )
    return _statement(rng, _pick(rng, forms), says)


def _one(side: str, levels: Sequence[str], rng: np.random.Generator, *, side_first: bool = False) -> str:
    """Levels of one side as a noun.

    ``side_first`` names the side before several levels: "and upper and lower left lung" would also change the meaning
    of the words before it.
    """
    the = _pick(rng, ("the ", ""))
    if len(levels) == len(LEVELS):
        forms = [
            f"{the}{side} lung",
            f"the whole {side} lung",
            f"the entire {side} lung",
            f"all zones of the {side} lung",
            f"all of the {side} lung",
            f"the {side} hemithorax",
        ]
        return _pick(rng, forms)
    if len(levels) == 1:
        level = levels[0]
        word, noun = _pick(rng, _ADJECTIVES[level]), _pick(rng, ("zone", "field", "lung", "lung zone"))
        forms = [
            f"{the}{side} {word} {noun}",
            f"{the}{word} {side} lung",
            f"{the}{word} zone of the {side} lung",
            f"{the}{side} {_PART[level]}",
            f"{the}{_PLAIN[level]} third of the {side} lung",
            f"{the}{word} zone on the {side}",
            *([_pick(rng, _SHORT[side, level])] if _SHORT[side, level] else []),
            f"{the}{side} {level} lobe",  # of either side: on the standard film the middle lobe is on the viewer's left
        ]
        return _pick(rng, forms)
    words = " and ".join(_PLAIN[level] for level in levels)
    noun = _pick(rng, _NOUNS)
    if side_first:
        return f"{the}{side} {words} {noun}"
    return _pick(
        rng, (f"{the}{side} {words} {noun}", f"{the}{words} {side} lung", f"{the}{words} {noun} of the {side} lung")
    )


def _both(levels: Sequence[str], rng: np.random.Generator) -> str:
    """The same levels of both sides as a noun."""
    if len(levels) == len(LEVELS):
        return _pick(rng, ("both lungs", "all zones of both lungs", "the whole of both lungs", "all of both lungs"))
    noun = _pick(rng, _NOUNS)
    words = " and ".join(_PLAIN[level] for level in levels)
    forms = [f"both {words} {noun}", f"{words} {noun} of both lungs", f"the {words} {noun} of both lungs"]
    if len(levels) == 1:
        forms.append(f"both {_PARTS[levels[0]]}")
    return _pick(rng, forms)


def _beside(sides: Sequence[str], levels: Sequence[str], rng: np.random.Generator) -> str:
    """The place as an adjective before a finding, such as "bibasal"."""
    whose = "bilateral" if len(sides) == 2 else sides[0]
    if len(levels) == len(LEVELS):
        return _pick(rng, (f"diffuse {whose}", f"{whose} diffuse")) if len(sides) == 2 else f"diffuse {whose} lung"
    words = " and ".join(_PLAIN[level] for level in levels)
    if len(levels) > 1:
        return f"{whose} {words} zone"
    level = levels[0]
    forms = [f"{whose} {words} zone", f"{whose} {_pick(rng, _ADJECTIVES[level])}"]
    if level != "middle" or len(sides) == 1:  # a patient has one middle lobe
        forms.append(f"{whose} {level} lobe")
    short = _TWO_SIDED[level] if len(sides) == 2 else _SHORT[sides[0], level]
    return _pick(rng, [*forms, _pick(rng, short)] if short else forms)
