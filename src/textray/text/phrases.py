"""A phrase on its way to a network: its sides turned to those that the network's texts meant.

A network learns "left" from texts of one convention. Taught the viewer's sides it is told the viewer's; taught the
patient's it knows the usual film only, on which the patient's left is the viewer's right, and is told that. So a
phrase first becomes the viewer's, by the film's own `Grid`, and then the network's, by the usual film.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from textray.errors import InputError
from textray.records import Grid, Laterality, Notice
from textray.text.cleaning import clean, is_blank, swap_sides
from textray.text.zones import ASSUMED, UNDEFINED

MOST_CHARACTERS = 4000
"""Longest phrase; the network reads a fraction of it."""

_SPELLED = {
    "lul": "left upper lobe",
    "lll": "left lower lobe",
    "rul": "right upper lobe",
    "rml": "right middle lobe",
    "rll": "right lower lobe",
    **{
        f"{a}{b}z": f"{side} {level} zone"
        for a, side in (("l", "left"), ("r", "right"))
        for b, level in (("u", "upper"), ("m", "middle"), ("l", "lower"))
    },
    "lt": "left",
    "rt": "right",
    "leftsided": "left-sided",
    "rightsided": "right-sided",
}
_SHORT = re.compile(r"(?<![\w.])(" + "|".join(_SPELLED) + r")(?!\w)", re.IGNORECASE)
_DOT = re.compile(r"(?<![\w.])([lr]t)\.(?= [a-z])", re.IGNORECASE)
_NOT_IN_WORD = r"(?<![\w.'’-])"
_LETTERS = (
    re.compile(_NOT_IN_WORD + r"([LR])(?=[)\s/,;:.>&+=<]|$)(?!\s*\d)(?!\.\w)(?!/[oO]\b)"),  # "R/O" rules out
    re.compile(
        _NOT_IN_WORD + r"([lr])(?=[ -](?:lung|upper|mid|lower|bas|apex|apical|hil|perihil|lobe|zone|side|hemi))",
        re.IGNORECASE,
    ),
)
_LONE = re.compile(r"(?<![\w'’])[lr](?![\w'’])(?!/o\b|\s*\d)", re.IGNORECASE)
"""A letter that may be a side and was not understood as one, such as those of "R.U.L."."""
_IMPLIED = re.compile(r"\b(?:lingula\w*)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class TurnedPhrase:
    """A phrase in three conventions.

    Attributes:
        phrase: As given.
        laterality: Whose left and right it means.
        taught: Whose left and right the network was taught.
        viewer: The same by the viewer's sides, ``None`` where they cannot be said so.
        told: As the network is told it.
        notices: How sure the sides are.
    """

    phrase: str
    laterality: Laterality
    taught: Laterality
    viewer: str | None
    told: str
    notices: tuple[Notice, ...] = ()


def turn(phrase: str, *, laterality: Laterality, taught: Laterality, grid: Grid) -> TurnedPhrase:
    """Turn the sides of a phrase to those that a network was taught.

    Short forms ("RLL", "lt", "R base") are spelled out first, so that their sides are turned too.

    Args:
        phrase: Any words, in any case.
        laterality: Whose left and right they mean; unknown is taken as the viewer's.
        taught: Whose left and right the network's training texts meant; unknown is taken as the viewer's.
        grid: Grid of the film, which places the patient's sides.

    Raises:
        InputError: ``E_NO_PHRASE`` for no words or too many, ``E_SIDES`` for sides that cannot be turned,
            ``E_SIDES_UNDEFINED`` for the patient's sides on a film that runs to neither.
    """
    words = check(phrase)
    spelled = spell(words)
    implied = bool(_IMPLIED.search(spelled))
    if implied and laterality is not Laterality.PATIENT:
        raise InputError(
            "a word names the patient's left by itself, but the sides of the phrase are the viewer's",
            came=words[:200],
            expected="no 'lingula' among the viewer's sides",
            do="Name the zone by its side in the picture, or give the phrase by the patient's sides",
            code="E_SIDES",
        )
    sided = implied or bool(lone_sides(spelled)) or swap_sides(spelled) != spelled
    notices: list[Notice] = []
    as_viewer = as_taught = False  # whether the words have to be exchanged for each of the two
    if sided and laterality is Laterality.PATIENT:
        if grid.sides_from == "undefined":
            raise InputError(
                UNDEFINED.text.rstrip("."), came=words[:200], do=UNDEFINED.remedy, code="E_SIDES_UNDEFINED"
            )
        if grid.sides_from == "assumed":
            notices.append(ASSUMED)
        as_viewer = grid.mirrored
    if sided and taught is Laterality.UNKNOWN:
        notices.append(_UNTAUGHT)
    if sided:
        as_taught = as_viewer is not (taught is Laterality.PATIENT)
    viewer = exchange(spelled) if as_viewer else spelled
    told = exchange(spelled) if as_taught else spelled
    if told is None:
        raise InputError(
            "the sides of a phrase cannot be turned to those that the network knows",
            came=words[:200],
            expected="sides as the words left and right; no 'leftmost', 'clockwise', 'lingula', 'R.U.L.' or lone 'l'",
            do="Write left and right in full; the lingula lies in the patient's left middle zone",
            code="E_SIDES",
        )
    return TurnedPhrase(
        phrase=words, laterality=laterality, taught=taught, viewer=viewer, told=told, notices=tuple(notices)
    )


def check(phrase: str) -> str:
    """A phrase made safe, on one line.

    Raises:
        InputError: ``E_NO_PHRASE`` where it has no words or too many.
    """
    if is_blank(phrase):
        raise InputError(
            "a phrase has no words", expected="words such as 'opacity in the right lung'", code="E_NO_PHRASE"
        )
    words = " ".join(clean(phrase).split())
    if len(words) > MOST_CHARACTERS:
        raise InputError(
            "a phrase is too long",
            came=f"{len(words)} characters",
            expected=f"at most {MOST_CHARACTERS}",
            do="Give one sentence for each finding, each with its own --phrase",
            code="E_NO_PHRASE",
        )
    if not any(map(str.isalnum, words)):
        raise InputError("a phrase has no words", came=repr(words[:40]), expected="words", code="E_NO_PHRASE")
    return words


def spell(words: str) -> str:
    """Words with the short forms of sides and lobes spelled out: "RLL" is "right lower lobe", "R" is "right"."""
    words = _SHORT.sub(lambda match: _SPELLED[match[1].lower()], _DOT.sub(r"\1", words))
    for letter in _LETTERS:
        words = letter.sub(lambda match: "left" if match[1] in "lL" else "right", words)
    return words


def exchange(words: str) -> str | None:
    """Words, short forms spelled out, with left and right exchanged; ``None`` where one names a side by itself."""
    return None if _IMPLIED.search(words) or _LONE.search(words) else swap_sides(words)


def lone_sides(words: str) -> tuple[str, ...]:
    """Letters in spelled words that may mean a side and were not understood, such as the "l" of "infection (l)"."""
    return tuple(match[0].lower() for match in _LONE.finditer(words))


_UNTAUGHT = Notice(
    code="W_SIDES_UNTAUGHT",
    text="Nobody has said whose left and right the texts of these weights meant; the viewer's are assumed.",
    remedy="Do not rely on the sides of this map.",
)
