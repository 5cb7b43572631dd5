"""Films with sentences about them: what grounding is learnt from, and in which words it is told.

Patients that a network must not have seen before it is scored on them, and what weights say of that.

A data set whose images are part of a larger one (MS-CXR is part of MIMIC-CXR) can only test weights that were learnt
without its patients. A training that leaves them out records whom, as a hash and a number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from textray.data.base import Reader, Sample, fingerprint
from textray.errors import DataError, UsageError
from textray.records import ZONE_NAMES, Laterality, Zones
from textray.text.cleaning import swap_sides
from textray.text.paraphrase import Form, facts, paraphrase
from textray.text.sentences import clauses
from textray.text.terms import PLACES
from textray.text.zones import sentence

RECORDED_AS = "excluded_patients"
"""Key in the provenance of a checkpoint and of a bundle."""


def exclusion_record(patients: Iterable[str]) -> dict[str, str | int]:
    """What a training without these patients writes under `RECORDED_AS`: their number and the hash of their ids."""
    listed = sorted(set(patients))
    return {"sha256": fingerprint(listed), "count": len(listed)}


def refuse_unless_excluded(reader: Reader, provenance: Mapping[str, Any], name: str) -> None:
    """Refuse to score weights on patients that they may have been learnt from.

    Does nothing for a data set that nobody has to leave out.

    Args:
        reader: Reader of the data set.
        provenance: What is recorded of the weights.
        name: Registry name of the data set, for the message.

    Raises:
        UsageError: If the reader has patients to be left out, and the record is missing or of other patients.
    """
    patients = reader.held_out_patients()
    if not patients:
        return
    expected = exclusion_record(patients)
    recorded = provenance.get(RECORDED_AS)
    if recorded != expected:
        raise UsageError(
            f"these weights cannot be scored on {name}: nothing shows that its patients were left out of training",
            came="no record of patients left out" if not recorded else f"another list of patients, {recorded}",
            expected=f"a training that left out the {expected['count']} patients of {name}, {expected['sha256']}",
            do="Score weights that were learnt without them.",
        )


def read_patients(path: str | Path) -> tuple[str, ...]:
    """Ids of patients from a file with one a line.

    Raises:
        UsageError: If it cannot be read, or names nobody.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("the list of patients cannot be read", came=f"{path}: {type(error).__name__}") from error
    found = tuple(sorted({line.strip() for line in lines} - {""}))
    if not found:
        raise UsageError("the list of patients is empty", came=path, expected="one id a line")
    return found


def leave_out(found: Iterable[Sample], patients: Iterable[str]) -> list[Sample]:
    """Studies of all but these patients.

    Raises:
        DataError: If a study does not tell whose it is.
    """
    out, kept = set(patients), []
    for study in found:
        if study.patient_id is None:
            raise DataError(
                "patients cannot be left out where images do not tell whose they are",
                came=study.image_id,
                do="Train without data.exclude, or on a data set with patient ids",
            )
        if study.patient_id not in out:
            kept.append(study)
    return kept


# What a film's report is told in: its sentences, some of them, or other words; and what each of them says.

SentenceSampling = Literal["all", "random_subset", "some_zones", "one_zone"]
"""``all`` sentences in order; a ``random_subset`` of them in random order; or of a caption of zones ``some_zones``, at
least one, told as places alone: whether one lung is ill or both, and in how many areas, is told by the healthy lung as
much as by the ill one, and a place that says so is no place of a lesion. One time in four, and for other reports
always, it is a ``random_subset``, so that whole captions can be read too. ``one_zone`` tells a single zone every time:
what else a caption says then means no place at all.
"""

Facts = frozenset[str]

_PLACES: tuple[Form, ...] = ("sides", "zones", "levels")
"""Forms that tell places alone."""
_OF_PLACES = 0.75
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
        self, studies: Sequence[Sample], *, sampling: SentenceSampling = "all", paraphrase: float = 0.0
    ) -> None:
        self.sampling, self.paraphrase = sampling, paraphrase
        self._sentences = [study.sentences for study in studies]
        self._zones = [study.report.zones for study in studies]
        mirrors = {sentences: mirror(sentences) for sentences in set(self._sentences)}
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
        self,
        index: int,
        rng: np.random.Generator,
        *,
        mirrored: bool = False,
        sampling: SentenceSampling | None = None,
    ) -> tuple[tuple[str, ...], tuple[Facts, ...]]:
        """Sentences that a study is told in, one or more, and what each says.

        Args:
            index: Which study.
            rng: The only source of chance.
            mirrored: Of the mirrored film; only where `can_mirror`.
            sampling: Which sentences, in place of the usual ones.
        """
        sampling = sampling or self.sampling
        sentences, zones = self._as_is(index, mirrored=mirrored)
        if zones and (sampling == "one_zone" or (sampling == "some_zones" and rng.random() < _OF_PLACES)):
            return self._some_zones(zones, rng, one=sampling == "one_zone")
        says = self._facts(sentences, zones)
        if zones and rng.random() < self.paraphrase:
            statements = paraphrase(zones, rng)
            sentences, says = tuple(s.text for s in statements), tuple(s.says for s in statements)
        if sampling != "all":
            kept = rng.permutation(len(sentences))[: rng.integers(1, len(sentences) + 1)]
            sentences, says = tuple(sentences[i] for i in kept), tuple(says[i] for i in kept)
        return sentences, says

    def _some_zones(
        self, zones: Zones, rng: np.random.Generator, *, one: bool
    ) -> tuple[tuple[str, ...], tuple[Facts, ...]]:
        named = [zone for zone, present in enumerate(zones.present) if present]
        count = 1 if one else rng.integers(1, len(named) + 1)
        kept = rng.choice(named, count, replace=False)
        some = Zones.from_present(zone in kept for zone in range(6))
        if rng.random() < self.paraphrase:
            statements = paraphrase(some, rng, form=_PLACES[int(rng.integers(len(_PLACES)))])
            return tuple(s.text for s in statements), tuple(s.says for s in statements)
        place = clauses(sentence(some))[-1]
        return (place,), (frozenset(name for name, is_in in zip(ZONE_NAMES, some.present, strict=True) if is_in),)

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
