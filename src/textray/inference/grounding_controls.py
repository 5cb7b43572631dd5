"""What a map of a phrase is held against: phrases that are wrong on purpose, and maps that saw nothing."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from textray.data.mean_masks import wording
from textray.data.phrases import PhraseSample
from textray.errors import InputError
from textray.inference.phrases import exchange
from textray.metrics.score_map import enlarge, smooth
from textray.records import Zones
from textray.text.grammar import parse_caption, sentence

CENTRE_WIDTH = 0.25
"""Standard deviation of the centred Gaussian, as a share of height and of width."""
RANDOM_CELLS = (14, 14)
"""Cells of the random map, as many as stride 16 leaves of 224 pixels."""

_BOTH = re.compile(r"\bright(-?(?: (?:and|or|&) (?:the )?| ?/ ?))left\b")
"""Both sides of one thing, as in "right and left base", in the words of `wording`."""
_PLACE_ONLY = "bilateral pulmonary infection, two infected areas, "


def mirrored(phrase: str) -> str | None:
    """A phrase with left and right exchanged; ``None`` where it then says the same, or its sides are not understood.

    Captions and place clauses of QaTa-COV19 come back in the order in which they are always written, so that a network
    meets other sides, not another wording.
    """
    found = _zones(phrase)
    if found is not None:
        zones, whole = found
        if zones.mirror() == zones:
            return None
        caption = sentence(zones.mirror())
        return caption if whole else caption.removesuffix(".").rsplit(", ", 1)[-1]
    swapped = exchange(phrase)
    return None if swapped is None or _parts(swapped) == _parts(phrase) else swapped


def _zones(phrase: str) -> tuple[Zones, bool] | None:
    """Zones of a caption (then true) or of its place clause alone (then false)."""
    for head in ("", _PLACE_ONLY):
        try:
            zones = parse_caption(head + phrase).zones
        except InputError:
            continue
        if zones:
            return zones, not head
    return None


def _parts(phrase: str) -> frozenset[str]:
    """What a phrase lists, in no order: "left and right base" says the same as its mirror image."""
    words = _BOTH.sub(r"left\1right", wording(phrase))
    words = words.replace(",", " and ").replace(";", " and ").replace(" or ", " and ")
    return frozenset(part.strip() for part in f" {words} ".split(" and ") if part.strip())


def shuffled(samples: Sequence[PhraseSample], *, seed: int) -> list[PhraseSample | None]:
    """For each phrase another one of the set, drawn by chance, to be asked of its image in its place.

    Where the set has several classes it is one of another class; else one in other words. ``None`` where there is none.

    Args:
        samples: The phrases.
        seed: Of the draw.
    """
    rng = np.random.default_rng(seed)
    several = len({sample.label for sample in samples}) > 1
    keys = [sample.label if several else wording(sample.phrase) for sample in samples]
    groups: dict[str, list[int]] = {}
    for place, key in enumerate(keys):
        groups.setdefault(key, []).append(place)
    others = {key: [i for other, places in groups.items() if other != key for i in places] for key in groups}
    return [samples[others[key][rng.integers(len(others[key]))]] if others[key] else None for key in keys]


def _rng(sample: PhraseSample, seed: int) -> np.random.Generator:
    """Chance that belongs to an image and its phrase, whatever else is scored beside it."""
    digest = hashlib.sha256(f"{seed}:{sample.image_id}:{sample.phrase}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def random_direction(sample: PhraseSample, width: int, *, seed: int) -> NDArray[np.float32]:
    """A unit vector ``(width,)`` that stands in for the embedding of a phrase: uniform on the sphere.

    Comparing local features with it is the same as comparing them with the phrase after a random rotation between the
    two, that is a network with this trunk whose last projections never learnt to meet. It is drawn anew for each image
    and phrase, so that a set's score is a mean over many such heads.
    """
    drawn = _rng(sample, seed).standard_normal(width)
    return np.asarray(drawn / np.linalg.norm(drawn), np.float32)


def random_map(sample: PhraseSample, shape: tuple[int, int], *, sigma: float, seed: int) -> NDArray[np.float32]:
    """Uniform noise in [-1, 1] on `RANDOM_CELLS`, smoothed and enlarged as maps of a network are."""
    cells = _rng(sample, seed + 1).uniform(-1, 1, RANDOM_CELLS)
    return enlarge(smooth(cells, sigma), shape)


def centre(shape: tuple[int, int]) -> NDArray[np.float32]:
    """A Gaussian in the middle, 1 at its peak, of `CENTRE_WIDTH`."""
    rows, columns = (
        np.exp(-0.5 * (((np.arange(length) + 0.5) / length - 0.5) / CENTRE_WIDTH) ** 2) for length in shape
    )
    return np.asarray(rows[:, None] * columns[None, :], np.float32)
