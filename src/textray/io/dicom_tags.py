"""Reading single DICOM elements so that a bad value is an answer, not an accident.

pydicom converts values when they are asked for, and then raises or warns, with the value in its words. Values may
identify a patient, so neither its warnings nor its log lines nor its exceptions leave this package.
"""

from __future__ import annotations

import logging
import math
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydicom.dataset import Dataset

from textray.errors import InputError

_LOCK = threading.RLock()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom's warnings and log lines in; one thread at a time, since both are settings of the process."""
    log = logging.getLogger("pydicom")
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before, log.disabled = log.disabled, True
        try:
            yield
        finally:
            log.disabled = before


def value(ds: Dataset, keyword: str) -> Any:  # noqa: ANN401 -- whatever the element holds
    """An element's value, ``None`` where it is absent, empty, or cannot be converted."""
    try:
        found = ds.get(keyword)
        return None if found is None or found == "" else found
    except Exception:  # pydicom raises of many kinds here; an unreadable value is none
        return None


def numbers(ds: Dataset, keyword: str) -> tuple[float, ...] | None:
    """An element's finite numbers, ``None`` where it is absent or any of them is none."""
    found = value(ds, keyword)
    try:
        parts = [float(found)] if isinstance(found, int | float | str) else [float(part) for part in found]
    except (TypeError, ValueError, OverflowError):
        return None
    return tuple(parts) if parts and all(math.isfinite(part) for part in parts) else None


def integer(ds: Dataset, keyword: str) -> int | None:
    """An element's one integer, ``None`` where it is absent or something else."""
    found = numbers(ds, keyword)
    return int(found[0]) if found is not None and len(found) == 1 and found[0] == int(found[0]) else None


def words(ds: Dataset, keyword: str) -> tuple[str, ...]:
    """An element's strings in capitals, without blanks around; empty where it is absent."""
    found = value(ds, keyword)
    if found is None:
        return ()
    try:
        parts = [found] if isinstance(found, str) else list(found)
    except TypeError:
        return ()
    return tuple(str(part).strip().upper() for part in parts)


def known_word(ds: Dataset, keyword: str, known: frozenset[str]) -> str | None:
    """An element's one string if it is one of ``known``, so that no free text gets into a record."""
    found = words(ds, keyword)
    return found[0] if len(found) == 1 and found[0] in known else None


def tag_error(keyword: str, came: object, expected: object) -> InputError:
    """The refusal of a file for one element; ``came`` must not be free text of the file."""
    return InputError(
        f"the DICOM tag {keyword} is missing or wrong",
        came=came,
        expected=expected,
        do="Export it again.",
        code="E_DICOM_TAG",
    )
