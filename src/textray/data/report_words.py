"""What a film's report is told in: its sentences, some of them, or other words; and what each of them says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from textray.data.studies import Study
from textray.errors import InputError
from textray.records import Laterality, Zones
from textray.text.grammar import parse_caption
from textray.text.paraphrase import facts, paraphrase
from textray.text.sides import swap_sides
from textray.text.terms import PLACES

SentenceSampling = Literal["all", "random_subset"]

Facts = frozenset[str]

_ONE_SIDE = "|".join(w for w, place in PLACES.items() if len(place.sides) == 1 and w not in ("left", "right"))
_SHORT_SIDE = re.compile(rf"\b(?:{_ONE_SIDE}|[lr])\b", re.IGNORECASE)
"""Words of one side that cannot be exchanged, such as "lingula" and "rll"."""


class Said(NamedTuple):
    """What a film's text says, and what is known to be true of the film.

    A caption of zones says zones, a status and a count, in whatever words; any other sentence says itself.

    Attributes:
        sentences: The sentences that the network is given.
        says: What they say.
        true: Everything that the whole report says.
    """

    sentences: tuple[str, ...]
    says: Facts
    true: Facts


class StudyWords:
    """Draws the words that each study is told in.

    Args:
        studies: The studies.
        sampling: Which sentences are told.
        paraphrase: Share of the captions of zones that are said in other words.
    """

    def __init__(
        self, studies: Sequence[Study], *, sampling: SentenceSampling = "all", paraphrase: float = 0.0
    ) -> None:
        self.sampling, self.paraphrase = sampling, paraphrase
        self._sentences = [study.sentences for study in studies]
        known = {sentences: _zones(sentences) for sentences in dict.fromkeys(self._sentences)}
        self._zones = [known[sentences] for sentences in self._sentences]
        mirrors = {sentences: mirror(sentences) for sentences in known}
        self._mirrored = [
            None if study.laterality is Laterality.UNKNOWN else mirrors[study.sentences] for study in studies
        ]

    def can_mirror(self, index: int) -> bool:
        """True where left and right of a study's words can be exchanged."""
        return self._mirrored[index] is not None

    def true(self, index: int, *, mirrored: bool = False) -> Facts:
        """Everything that a study's report says."""
        return frozenset().union(*self._facts(*self._as_is(index, mirrored=mirrored)))

    def draw(
        self, index: int, rng: np.random.Generator, *, mirrored: bool = False
    ) -> tuple[tuple[str, ...], tuple[Facts, ...]]:
        """Sentences that a study is told in, one or more, and what each says.

        Args:
            index: Which study.
            rng: The only source of chance.
            mirrored: Of the mirrored film; only where `can_mirror`.
        """
        sentences, zones = self._as_is(index, mirrored=mirrored)
        says = self._facts(sentences, zones)
        if zones and rng.random() < self.paraphrase:
            statements = paraphrase(zones, rng)
            sentences, says = tuple(s.text for s in statements), tuple(s.says for s in statements)
        if self.sampling == "random_subset":
            kept = rng.permutation(len(sentences))[: rng.integers(1, len(sentences) + 1)]
            sentences, says = tuple(sentences[i] for i in kept), tuple(says[i] for i in kept)
        return sentences, says

    def _as_is(self, index: int, *, mirrored: bool) -> tuple[tuple[str, ...], Zones]:
        own, zones = self._sentences[index], self._zones[index]
        turned = self._mirrored[index]
        return (turned, zones.mirror()) if mirrored and turned is not None else (own, zones)

    def _facts(self, sentences: tuple[str, ...], zones: Zones) -> tuple[Facts, ...]:
        if not zones:
            return tuple(frozenset({" ".join(text.lower().split()).rstrip(" .")}) for text in sentences)
        everything = facts(zones)
        if len(sentences) == 1:
            return (everything,)
        # The grammar of captions: status, count, place.
        status = everything & {"bilateral", "unilateral"}
        count = frozenset(fact for fact in everything if fact.endswith(" areas"))
        return status, count, everything - status - count


def mirror(sentences: Sequence[str]) -> tuple[str, ...] | None:
    """Sentences that are true of the mirrored film; ``None`` where one names a side in a way that cannot be swapped."""
    swapped = [None if _SHORT_SIDE.search(text) else swap_sides(text) for text in sentences]
    return None if None in swapped else tuple(text for text in swapped if text is not None)


def _zones(sentences: tuple[str, ...]) -> Zones:
    """Zones of a caption, whole or in its three clauses; none where the sentences are no caption."""
    try:
        return parse_caption(", ".join(sentences)).zones
    except InputError:
        return Zones()
