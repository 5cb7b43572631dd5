"""Studies, films with sentences, to learn grounding from: patients to leave out, and the texts that are drawn.

A data set whose images are part of a larger one (MS-CXR is part of MIMIC-CXR) can only test weights that were trained
without its patients. A training that leaves them out records how many and the hash of their ids.
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
from textray.text.paraphrase import Form, Statement, facts, paraphrase
from textray.text.sentences import clauses
from textray.text.terms import PLACES
from textray.text.zones import sentence

RECORDED_AS = "excluded_patients"
"""Key in the provenance of a checkpoint and of a bundle."""


def exclusion_record(patients: Iterable[str]) -> dict[str, str | int]:
    """Record, under `RECORDED_AS`, of a training without these patients: their number and the hash of their ids."""
    listed = sorted(set(patients))
    return {"sha256": fingerprint(listed), "count": len(listed)}


def refuse_unless_excluded(reader: Reader, provenance: Mapping[str, Any], name: str) -> None:
    """Refuse to score weights on patients that may have been in their training.

    It is a `UsageError` if the reader has patients to be left out, and the provenance of the weights has no record of
    it, or one of other patients.
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
            do="Score weights that were trained without them.",
        )


def read_patients(path: str | Path) -> tuple[str, ...]:
    """Ids of patients from a file with one a line; one that cannot be read or names nobody is a `UsageError`."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("the list of patients cannot be read", came=f"{path}: {type(error).__name__}") from error
    found = tuple(sorted({line.strip() for line in lines} - {""}))
    if not found:
        raise UsageError("the list of patients is empty", came=path, expected="one id a line")
    return found


def leave_out(studies: Sequence[Sample], patients: Iterable[str]) -> list[Sample]:
    """Studies of all but these patients; one without a patient id is a `DataError`."""
    unknown = next((study for study in studies if study.patient_id is None), None)
    if unknown is not None:
        raise DataError(
            "patients cannot be left out where images have no patient ids",
            came=unknown.image_id,
            do="Train without data.exclude, or on a data set with patient ids",
        )
    out = set(patients)
    return [study for study in studies if study.patient_id not in out]


# Texts of studies: which sentences of a report are drawn, in which words, and what each of them states.

SentenceSampling = Literal["all", "random_subset", "some_zones", "one_zone"]
"""``all`` sentences in order; a ``random_subset`` of them in random order; or of a caption of zones ``some_zones``, at
least one, as places alone: the healthy lung shows as well as the ill one whether one lung is ill or both and in how
many areas, so such words point at no lesion. One time in four, and for other reports always, it is a
``random_subset``, so that whole captions can be read too. ``one_zone`` is a single zone every time.
"""

Facts = frozenset[str]

_PLACES: tuple[Form, ...] = ("sides", "zones", "levels")
"""Forms that name places alone."""
_OF_PLACES = 0.75
_ONE_SIDE = "|".join(w for w, place in PLACES.items() if len(place.sides) == 1 and w not in ("left", "right"))
_SHORT_SIDE = re.compile(rf"\b(?:{_ONE_SIDE}|[lr])\b", re.IGNORECASE)
"""Words of one side that cannot be exchanged, such as "lingula" and "rll"."""


class StudyText(NamedTuple):
    """The text drawn for a study, and what is known to be true of its film.

    A caption of zones states zones, a status and a count, in whatever words; any other sentence states itself.
    """

    sentences: tuple[str, ...]  # what the network reads
    facts: Facts  # what they state
    report_facts: Facts  # everything that the whole report states


class StudyWords:
    """Draws the sentences of each study; ``paraphrase`` is the probability of other words for a caption of zones."""

    def __init__(
        self, studies: Sequence[Sample], *, sampling: SentenceSampling = "all", paraphrase: float = 0.0
    ) -> None:
        self.studies, self.sampling, self.paraphrase = studies, sampling, paraphrase
        mirrors = {sentences: mirror(sentences) for sentences in {study.sentences for study in studies}}
        self._mirrored = [
            None if study.laterality is Laterality.UNKNOWN else mirrors[study.sentences] for study in studies
        ]

    def can_mirror(self, index: int) -> bool:
        """True where left and right of a study's words can be exchanged."""
        return self._mirrored[index] is not None

    def report_facts(self, index: int, *, mirrored: bool = False) -> Facts:
        """Everything that a study's report states."""
        sentences, zones = self._report(index, mirrored=mirrored)
        return facts(zones) if zones else frozenset().union(*(s.says for s in _statements(sentences, zones)))

    def draw(
        self, index: int, rng: np.random.Generator, *, mirrored: bool = False, sampling: SentenceSampling | None = None
    ) -> tuple[Statement, ...]:
        """Sentences for a study, one or more, with what each states; all chance comes from ``rng``.

        ``mirrored`` asks for those of the mirrored film, only where `can_mirror`; ``sampling`` replaces the usual one.
        """
        sampling = sampling or self.sampling
        sentences, zones = self._report(index, mirrored=mirrored)
        if zones and (sampling == "one_zone" or (sampling == "some_zones" and rng.random() < _OF_PLACES)):
            return self._some_zones(zones, rng, one=sampling == "one_zone")
        statements = _statements(sentences, zones)
        if zones and rng.random() < self.paraphrase:
            statements = paraphrase(zones, rng)
        if sampling != "all":
            kept = rng.permutation(len(statements))[: rng.integers(1, len(statements) + 1)]
            statements = tuple(statements[i] for i in kept)
        return statements

    def _some_zones(self, zones: Zones, rng: np.random.Generator, *, one: bool) -> tuple[Statement, ...]:
        named = [zone for zone, present in enumerate(zones.present) if present]
        count = 1 if one else rng.integers(1, len(named) + 1)
        kept = rng.choice(named, count, replace=False)
        some = Zones.from_present(zone in kept for zone in range(6))
        if rng.random() < self.paraphrase:
            return paraphrase(some, rng, form=_PLACES[int(rng.integers(len(_PLACES)))])
        names = frozenset(name for name, present in zip(ZONE_NAMES, some.present, strict=True) if present)
        return (Statement(clauses(sentence(some))[-1], names),)

    def _report(self, index: int, *, mirrored: bool) -> tuple[tuple[str, ...], Zones]:
        study, turned = self.studies[index], self._mirrored[index]
        zones = study.report.zones
        return (turned, zones.mirror()) if mirrored and turned is not None else (study.sentences, zones)


def _statements(sentences: tuple[str, ...], zones: Zones) -> tuple[Statement, ...]:
    """Sentences of a report as they stand, and what each states."""
    if not zones:
        return tuple(Statement(text, frozenset({" ".join(text.lower().split()).rstrip(" .")})) for text in sentences)
    everything = facts(zones)
    if len(sentences) == 1:
        return (Statement(sentences[0], everything),)
    # The grammar of captions: status, count, place.
    status = everything & {"bilateral", "unilateral"}
    count = frozenset(fact for fact in everything if fact.endswith(" areas"))
    stated = status, count, everything - status - count
    return tuple(Statement(text, stated[i]) for i, text in enumerate(sentences))


def mirror(sentences: Sequence[str]) -> tuple[str, ...] | None:
    """Sentences that are true of the mirrored film; ``None`` where one names a side in a way that cannot be swapped."""
    swapped = [None if _SHORT_SIDE.search(text) else swap_sides(text) for text in sentences]
    return None if None in swapped else tuple(text for text in swapped if text is not None)
