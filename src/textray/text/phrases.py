"""Phrases for grounding, with their sides turned to those of the network's training texts.

A network knows "left" in one convention. If that is the patient's, it holds for the standard film only, on which the
patient's left is the viewer's right. So a phrase is first turned to the viewer's sides, by the film's own `Grid`, and
then to the network's, by the standard film.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from textray.errors import InputError
from textray.records import Grid, Laterality, Notice
from textray.text.cleaning import clean, is_blank, swap_sides
from textray.text.shorthand import spell
from textray.text.zones import ASSUMED, UNDEFINED, counted, refusal

MOST_CHARACTERS = 4000
"""Longest phrase; the network reads a fraction of it."""

_LONE = re.compile(r"(?<![\w'’])[lr](?![\w'’])(?!/o\b|\s*\d)", re.IGNORECASE)
"""A letter that may mean a side but is not understood, such as that of "a letter l on the film"."""
_IMPLIED = re.compile(r"\blingula\w*", re.IGNORECASE)


_UNTAUGHT = Notice(
    code="W_SIDES_UNTAUGHT",
    text="It is not known whose left and right the training texts of these weights meant; the viewer's are assumed.",
    remedy="Do not rely on the sides of this map.",
)


@dataclass(frozen=True, kw_only=True)
class TurnedPhrase:
    """A phrase in three conventions.

    Attributes:
        phrase: As given, by the sides of ``laterality``.
        viewer: The same by the viewer's sides, ``None`` where this is not possible.
        network_text: The same by the sides of the training texts (``network_laterality``), which the network reads.
    """

    phrase: str
    laterality: Laterality
    network_laterality: Laterality
    viewer: str | None
    network_text: str
    notices: tuple[Notice, ...] = ()


def turn(phrase: str, *, laterality: Laterality, network_laterality: Laterality, grid: Grid) -> TurnedPhrase:
    """Turn the sides of a phrase to those of the network's training texts.

    Short forms ("RLL", "lt", "R base") are spelled out first, so that their sides are turned too. Unknown laterality of
    the phrase or of the training texts is taken as the viewer's; the film's ``grid`` places the patient's sides.

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
            came=counted(words),
            expected="no 'lingula' among the viewer's sides",
            do="Name the zone by its side in the picture, or give the phrase by the patient's sides",
            code="E_SIDES",
        )
    sided = implied or bool(lone_sides(spelled)) or swap_sides(spelled) != spelled
    notices: list[Notice] = []
    swap_viewer = swap_network = False
    if sided and laterality is Laterality.PATIENT:
        if grid.sides_from == "undefined":
            raise refusal(UNDEFINED, came=counted(words))
        if grid.sides_from == "assumed":
            notices.append(ASSUMED)
        swap_viewer = grid.mirrored
    if sided:
        swap_network = swap_viewer is not (network_laterality is Laterality.PATIENT)
        if network_laterality is Laterality.UNKNOWN:
            notices.append(_UNTAUGHT)
    viewer = exchange(spelled) if swap_viewer else spelled
    network_text = exchange(spelled) if swap_network else spelled
    if network_text is None:
        raise InputError(
            "the sides of a phrase cannot be turned to those that the network knows",
            came=counted(words),
            expected="sides as the words left and right; no 'leftmost', 'clockwise', 'lingula' or lone 'l'",
            do="Write left and right in full; the lingula lies in the patient's left middle zone",
            code="E_SIDES",
        )
    return TurnedPhrase(
        phrase=words,
        laterality=laterality,
        network_laterality=network_laterality,
        viewer=viewer,
        network_text=network_text,
        notices=tuple(notices),
    )


def check(phrase: str) -> str:
    """Clean a phrase and put it on one line.

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
        raise InputError("a phrase has no words", came=f"{len(words)} characters", expected="words", code="E_NO_PHRASE")
    return words


def exchange(words: str) -> str | None:
    """Exchange left and right in spelled words; ``None`` where a word names a side in another way."""
    return None if _IMPLIED.search(words) or _LONE.search(words) else swap_sides(words)


def lone_sides(words: str) -> tuple[str, ...]:
    """Letters in spelled words that may mean a side but are not understood, as in "a letter l on the film"."""
    return tuple(match[0].lower() for match in _LONE.finditer(words))
