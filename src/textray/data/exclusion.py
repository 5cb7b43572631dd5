"""Patients that a network must not have seen before it is scored on them, and what weights say of that.

A data set whose images are part of a larger one (MS-CXR is part of MIMIC-CXR) can only test weights that were learnt
without its patients. A training that leaves them out records whom, as a hash and a number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from textray.data.base import fingerprint
from textray.data.studies import Study
from textray.errors import DataError, UsageError

RECORDED_AS = "excluded_patients"
"""Key in the provenance of a checkpoint and of a bundle."""


@runtime_checkable
class HeldOut(Protocol):
    """A reader of a data set whose patients must be left out of training."""

    def patients(self) -> tuple[str, ...]:
        """Every patient of it, whatever the split, sorted."""
        ...


def exclusion_record(patients: Iterable[str]) -> dict[str, str | int]:
    """What a training without these patients writes under `RECORDED_AS`: their number and the hash of their ids."""
    listed = sorted(set(patients))
    return {"sha256": fingerprint(listed), "count": len(listed)}


def refuse_unless_excluded(reader: object, provenance: Mapping[str, Any], name: str) -> None:
    """Refuse to score weights on patients that they may have been learnt from.

    Does nothing for a data set that nobody has to leave out.

    Args:
        reader: Reader of the data set.
        provenance: What is recorded of the weights.
        name: Registry name of the data set, for the message.

    Raises:
        UsageError: If the reader has patients to be left out, and the record is missing or of other patients.
    """
    if not isinstance(reader, HeldOut):
        return
    expected = exclusion_record(reader.patients())
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


def leave_out(found: Iterable[Study], patients: Iterable[str]) -> list[Study]:
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
