"""Images with sentences about them: what grounding is learnt from. No mask is read. Free of torch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, cast

from textray import registry
from textray.data.base import Sample, Split, check_split, open_reader
from textray.errors import unknown_name
from textray.records import Laterality
from textray.text import sentences as words

log = logging.getLogger(__name__)

Cut = Literal["clauses", "caption", "split"]
"""A caption cut at its commas (``clauses``), not at all (``caption``), or where its sentences end (``split``)."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """One image and the sentences that were written about it.

    Attributes:
        image_id: Name of the image without its extension; unique within a data set.
        image_path: The image.
        sentences: What was written, at least one sentence, in order.
        patient_id: Pseudonym of the patient, ``None`` where the data set does not tell.
        laterality: Whose left and right the sentences mean.
        split: The split it was asked for under.
    """

    image_id: str
    image_path: Path
    sentences: tuple[str, ...]
    patient_id: str | None
    laterality: Laterality
    split: Split

    @property
    def group(self) -> str:
        """What a bootstrap draws: the patient, or the image itself where the patient is not known."""
        return self.patient_id or self.image_id


class StudyReader(Protocol):
    """A reader of a data set whose reports are cut into sentences by rules of their own."""

    def studies(self, split: str) -> list[Study]:
        """Images of a split that have sentences, always in the same order."""
        ...


def studies(
    name: str,
    split: str,
    *,
    root: str | Path | None,
    cut: Cut = "clauses",
    captions: str = "error",
    split_by: str | None = None,
) -> list[Study]:
    """Images with sentences of a split of a registered data set.

    Args:
        name: Registry name.
        split: A split of the data set.
        root: Its folder; ``None`` for one that is drawn.
        cut: How a caption is cut into sentences. Reports of a data set that has no captions are cut by its reader.
        captions: What to do with an image without a usable caption.
        split_by: One of the row's protocols; ``None`` takes its first.

    Raises:
        UsageError: If a name is unknown.
        LayoutError: If the folder is not laid out as the card says.
        DataError: If the data set is refused.
    """
    reader = open_reader(name, root, captions=captions, split_by=split_by)
    wanted = check_split(split)
    if hasattr(reader, "studies"):
        return cast(StudyReader, reader).studies(wanted)
    return studies_of(reader.samples(wanted), laterality=Laterality(registry.dataset(name).laterality), cut=cut)


def studies_of(samples: Iterable[Sample], *, laterality: Laterality, cut: Cut = "clauses") -> list[Study]:
    """Studies made of images with captions; an image without words is left out, and their number is logged.

    Args:
        samples: Images with captions. Their masks are not looked at.
        laterality: Whose left and right the captions mean.
        cut: How a caption is cut into sentences.
    """
    if cut not in _CUTS:
        raise unknown_name("way of cutting captions", cut, _CUTS)
    found, silent = [], 0
    for sample in samples:
        sentences = _CUTS[cut](sample.report.text or "")
        if not sentences:
            silent += 1
            continue
        found.append(
            Study(
                image_id=sample.image_id,
                image_path=sample.image_path,
                sentences=sentences,
                patient_id=sample.patient_id,
                laterality=laterality,
                split=sample.split,
            )
        )
    if silent:
        log.warning("%d images without words are left out", silent)
    return found


def _whole(caption: str) -> tuple[str, ...]:
    told = caption.strip()
    return (told,) if told else ()


_CUTS: dict[str, Callable[[str], tuple[str, ...]]] = {
    "clauses": words.clauses,
    "caption": _whole,
    "split": words.split,
}
