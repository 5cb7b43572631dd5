"""Where lesions lie on average: what a map can score without looking at the picture.

The mean training mask ignores picture and phrase; the mean over the training phrases that say the same ignores the
picture alone. A map of a phrase that scores no more than these has not localized anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from textray.data.base import naming
from textray.data.phrases import PhraseSample, truth
from textray.errors import DataError
from textray.io.read import read_mask
from textray.preprocess import Preprocess


@dataclass(frozen=True, kw_only=True, eq=False)
class MeanMasks:
    """Mean training masks, ``(h, w)`` float32 in [0, 1] each.

    Attributes:
        whole: Over all phrases.
        by_label: Over the phrases of a class.
        by_phrase: Over the phrases that say the same (see `wording`), for those that were asked for and met.
        count: Number of masks.
    """

    whole: NDArray[np.float32]
    by_label: dict[str, NDArray[np.float32]]
    by_phrase: dict[str, NDArray[np.float32]]
    count: int

    def told(self, sample: PhraseSample) -> NDArray[np.float32]:
        """What the words alone tell: the mean over the same phrase; else over its class; else over all."""
        found = self.by_phrase.get(wording(sample.phrase))
        return self.by_label.get(sample.label, self.whole) if found is None else found


def wording(phrase: str) -> str:
    """A phrase without what does not change its meaning: case, blanks, the full stop."""
    return " ".join(phrase.lower().split()).rstrip(" .")


def mean_masks(
    samples: Iterable[PhraseSample],
    preprocess: Preprocess,
    wanted: Iterable[str],
    *,
    progress: Callable[[int], None] | None = None,
) -> MeanMasks:
    """Average the masks or boxes of training phrases.

    Args:
        samples: Training phrases.
        preprocess: Brings masks to the grid of the result.
        wanted: Phrases whose own means will be asked for.
        progress: Called with the number of masks done.

    Raises:
        DataError: If there is no phrase, or one has a mask that cannot be read.
    """
    kept = {wording(phrase) for phrase in wanted}
    sums: dict[tuple[str, str], NDArray[np.float32]] = {}
    counts: dict[tuple[str, str], int] = {}
    number = 0
    for number, sample in enumerate(samples, start=1):
        mask = preprocess.resize_mask(_own_truth(sample))
        said = wording(sample.phrase)
        for key in (("", ""), ("label", sample.label), *([("phrase", said)] if said in kept else [])):
            sums[key] = sums.get(key, np.float32(0)) + mask.astype(np.float32)
            counts[key] = counts.get(key, 0) + 1
        if progress is not None:
            progress(number)
    if not number:
        raise DataError("no mean mask without training phrases", came="0 phrases", expected="at least one")
    means = {key: np.asarray(total / np.float32(counts[key]), np.float32) for key, total in sums.items()}
    return MeanMasks(
        whole=means["", ""],
        by_label={name: mean for (kind, name), mean in means.items() if kind == "label"},
        by_phrase={name: mean for (kind, name), mean in means.items() if kind == "phrase"},
        count=number,
    )


def _own_truth(sample: PhraseSample) -> NDArray[np.bool_]:
    """Where a phrase is true, on the grid of its mask or its boxes; the image is not opened."""
    if sample.mask_path is not None:
        return naming(sample.mask_path, read_mask)
    if sample.box_space is None:
        raise DataError(f"{sample.image_id} has neither a mask nor boxes", expected="one of them for each phrase")
    return truth(sample, (sample.box_space[1], sample.box_space[0]))
