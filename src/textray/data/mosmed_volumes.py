"""What the names of MosMedData+ tell: volumes, sources, and a cut by volume."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from textray.data.lvit_folders import PARTS, PartName

CUT_SHARE = 0.1
"""Share of each source's volumes in `test`, and as many again in `val`, where the cut is by volume."""


def volume_of(image_id: str) -> str | None:
    """The volume of a slice: all up to and with the number of the case or study, in lower case.

    ``Jun_coronacases_case1_128`` is of ``jun_coronacases_case1``, ``Morozov_study_0255_24`` of ``morozov_study_0255``;
    ``bjorke_8`` tells none. Radiopaedia has several series of some patients, such as 10_85902_1 and 10_85902_3: the
    first number is the patient's, and all of its series count as one volume, ``jun_radiopaedia_10``.
    """
    name = image_id.casefold()
    found = re.fullmatch(r"(jun_radiopaedia_\d+)_.*", name) or re.fullmatch(r"(.*(?:case|study)_?\d+)_\d+", name)
    return found[1] if found else None


def source_of(image_id: str) -> str:
    """The collection that a slice comes from, in lower case: ``jun_coronacases``, ``morozov``, ..."""
    first, _, rest = image_id.casefold().partition("_")
    return f"{first}_{rest.partition('_')[0]}" if first == "jun" else first


def cut_volumes(volumes: Iterable[str], seed: int = 0) -> dict[str, PartName]:
    """Cut volumes into parts, source by source: a tenth `test`, a tenth `val`, at least one each of three or more.

    Volumes stand in an order that the hash of seed and name fixes, the same on every machine.
    """
    cut: dict[str, PartName] = {}
    names = sorted(set(volumes), key=lambda v: hashlib.sha256(f"{seed}:{v}".encode()).hexdigest())
    for source in {source_of(volume) for volume in names}:
        ordered = [volume for volume in names if source_of(volume) == source]
        tenth = max(1, round(CUT_SHARE * len(ordered))) if len(ordered) >= len(PARTS) else 0
        for place, volume in enumerate(ordered):
            cut[volume] = "test" if place < tenth else "val" if place < 2 * tenth else "train"
    return cut
