"""What a user must be told of a phrase and of the map that came of it."""

from __future__ import annotations

from collections.abc import Sequence

from textray.inference.phrases import TurnedPhrase
from textray.records import SIDES, Grid, Notice, ZoneState
from textray.text import free_text
from textray.text.clauses import sentences
from textray.text.cleaning import clean
from textray.text.terms import FUNCTION
from textray.text.tokens import Pieces

_SHOWN = 12
PLACES_ONLY = frozenset({"one_zone", "some_zones"})
"""Ways of sampling the training texts after which a network knows words of places only."""

DENIED = Notice(
    code="W_DENIED",
    text="The phrase denies; the network does not understand that and looks for what is denied.",
    remedy="Ask for what is there, in a phrase of its own.",
)
NO_PLACE = Notice(
    code="W_NO_PLACE",
    text="These weights learnt words of places, and the phrase names none: its map may mean anything.",
    remedy="Name a side and a level, such as 'lower left lung'.",
)
OTHER_SIDE = Notice(
    code="W_PEAK_OTHER_SIDE",
    text="The map's peak lies on the side that the phrase does not name: do not rely on it.",
    remedy="Look at the picture; another phrase may find more.",
)
NOTHING_MARKED = Notice(
    code="W_NOTHING_MARKED",
    text="No pixel of a map is above the threshold: its mask is empty.",
    remedy="Lower --threshold; --normalise minmax always marks something.",
)


def of_words(
    phrase: TurnedPhrase, pieces: Pieces, unknown: Sequence[str], *, most_pieces: int, sampling: str | None
) -> list[Notice]:
    """What the words themselves give reason to say.

    Args:
        phrase: The phrase.
        pieces: It in word pieces.
        unknown: Its words outside of the vocabulary.
        most_pieces: Longest text that the network reads.
        sampling: How training texts were drawn, as provenance has it.
    """
    notices = []
    telling = [word for word in unknown if word not in FUNCTION]
    if telling:
        shown = ", ".join(repr(word[:40]) for word in telling[:_SHOWN]) + (" ..." if len(telling) > _SHOWN else "")
        notices.append(
            Notice(
                code="W_UNKNOWN_WORD",
                text=f"The network has not learnt these words: {shown}; they may mean anything to it.",
                remedy="Say it with other words.",
            )
        )
    text = clean(phrase.told)
    clauses = [clause for sentence in sentences(text) for clause in sentence]
    if any(clause.negated for clause in clauses) or ZoneState.ABSENT in free_text.read(text).zones.states:
        notices.append(DENIED)
    if sampling in PLACES_ONLY and not any(clause.sides or clause.levels for clause in clauses):
        notices.append(NO_PLACE)
    if pieces.dropped or pieces.cut:
        notices.append(
            Notice(
                code="W_PHRASE_CUT",
                text=f"The network reads {most_pieces} pieces of a phrase; its end was left out.",
                remedy="Give one sentence for each finding, each as a phrase of its own.",
            )
        )
    return notices


def of_peak(phrase: TurnedPhrase, peak: tuple[int, int], grid: Grid) -> list[Notice]:
    """Whether the peak, row and column, lies on the side that the phrase names, where it names one side only."""
    if phrase.viewer is None:
        return []
    present = free_text.read(clean(phrase.viewer)).zones.present
    levels = len(present) // len(SIDES)
    named = [side for number, side in enumerate(SIDES) if any(present[number * levels : (number + 1) * levels])]
    return [OTHER_SIDE] if named and side_of(peak, grid) not in named else []


def side_of(peak: tuple[int, int], grid: Grid) -> str:
    """The viewer's side of a film on which a row and column lie."""
    return SIDES[0] if peak[1] + 0.5 < grid.width / 2 else SIDES[1]
