"""A share of the training samples, by patient and nested: what 15 % holds, 25 % holds too."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from textray.data.base import Sample
from textray.errors import UsageError


def keep_share(samples: Sequence[Sample], share: float, *, seed: int = 0) -> list[Sample]:
    """Keep a share of the samples, whole patients at a time.

    Groups (patients; an image without a patient id is a group of its own) stand in an order that the hash of seed and
    id fixes. They are taken from its front until the share of the images is reached, so a smaller share of the same
    seed is always contained in a larger one, and what is kept exceeds the share by less than one group.

    Args:
        samples: All training samples.
        share: Share of the images to keep, in (0, 1]; 1 keeps all.
        seed: Another seed gives other patients.

    Returns:
        The kept samples in their old order.

    Raises:
        UsageError: If the share is out of range.
    """
    if not 0 < share <= 1:
        raise UsageError("the share of the training data is out of range", came=share, expected="above 0, at most 1")
    sizes: dict[str, int] = {}
    for sample in samples:
        sizes[sample.group] = sizes.get(sample.group, 0) + 1
    wanted, taken = share * len(samples) - 1e-9, 0  # a share such as 0.3 of 10 images is 3, not 3.0000000000000004
    kept = set()
    for group in sorted(sizes, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()):
        if taken >= wanted:
            break
        kept.add(group)
        taken += sizes[group]
    return [sample for sample in samples if sample.group in kept]
