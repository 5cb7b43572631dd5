"""A data set through a network: each image read once, asked once for each text of its text modes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from textray.data.base import Sample, naming
from textray.errors import DataError, UsageError, unknown_name
from textray.inference import bank as known
from textray.inference.bank import Prompt
from textray.inference.own_report import written
from textray.inference.record import zone_areas
from textray.inference.segmenter import Inference
from textray.metrics.segmentation import Counts, count
from textray.preprocess import Preprocess
from textray.records import Report, Zones

# Where the text of an evaluation comes from: a score without its text mode means nothing.


class TextMode(StrEnum):
    """Where the text of an evaluation comes from."""

    ORACLE = "oracle"
    NONE = "none"
    SHUFFLED = "shuffled"
    GENERATED = "generated"


@dataclass(frozen=True)
class Caption:
    """A free caption, told as it stands."""

    text: str


Told = Zones | Caption | Literal["own"] | None
"""What a network is told about an image: zones, or a free caption; ``None``, no text; ``own``, that it is to write its
own report."""

MEANINGS = {
    TextMode.ORACLE: "the data set's own caption, which tells where the lesions are",
    TextMode.NONE: "no text at all",
    TextMode.SHUFFLED: "the caption of another image of the split, naming other zones (seeded)",
    TextMode.GENERATED: "the report that the model writes itself from the image; no text where it finds nothing",
}
FREE_MEANINGS = MEANINGS | {TextMode.SHUFFLED: "the caption of another image of the split, another one (seeded)"}
"""The same for data sets with free captions."""


def parse_modes(names: Iterable[str]) -> tuple[TextMode, ...]:
    """Text modes by name, each once, in the order given.

    Raises:
        UsageError: If a name is unknown or none is given.
    """
    modes = []
    for name in dict.fromkeys(names):
        if name not in list(TextMode):
            raise unknown_name("text mode", name, TextMode)
        modes.append(TextMode(name))
    if not modes:
        raise UsageError("no text mode given", expected="one or more of " + ", ".join(TextMode))
    return tuple(modes)


def refuse_generated() -> UsageError:
    """The error for a model that is asked for a report of its own and writes none."""
    return UsageError(
        "text mode 'generated' needs a model that writes its own report, and this model has no report generator",
        expected=", ".join(mode for mode in TextMode if mode is not TextMode.GENERATED),
        do="Leave --text-mode generated out; 'none' scores the model without text.",
    )


def told_of(report: Report) -> Zones | Caption | None:
    """What a network is told of a report; ``None`` where it names no zone, or there is no caption."""
    if report.free:
        return Caption(report.text) if report.text is not None else None
    return report.zones if report.zones else None


def mode_texts(samples: Sequence[Sample], mode: TextMode, *, seed: int) -> dict[int, Told]:
    """What the network is told about each sample in a mode.

    Shuffled: each sample gets the caption of another sample that names other zones (of free captions: that is another
    one), drawn evenly from all such samples.
    The draw depends on seed and ids alone, not on the order of the samples.

    Raises:
        UsageError: If captions are to be shuffled and all name the same zones, or none.
    """
    if mode is TextMode.NONE:
        return dict.fromkeys(range(len(samples)))
    if mode is TextMode.GENERATED:
        return dict.fromkeys(range(len(samples)), "own")
    own = {i: told_of(sample.report) for i, sample in enumerate(samples)}
    if mode is TextMode.ORACLE:
        return dict(own)
    order = sorted(own, key=lambda i: samples[i].image_id)
    captions = {_key(told) for told in own.values() if told}
    donors_of = {key: [i for i in order if (told := own[i]) and _key(told) != key] for key in (0, *captions)}
    rng = np.random.default_rng(seed)
    drawn: dict[int, Told] = {}
    for i in order:
        mine = own[i]
        others = donors_of[_key(mine) if mine else 0]
        if not others:
            raise UsageError(
                "captions cannot be shuffled: no other image of the split "
                + ("has another one" if samples[i].report.free else "names other zones"),
                came=f"{len(samples)} images, {len(captions)} different captions",
                expected="at least two different captions",
            )
        drawn[i] = own[others[int(rng.integers(len(others)))]]
    return {i: drawn[i] for i in own}


def _key(told: Zones | Caption) -> int | str:
    """What makes texts the same: zones, or words whatever their case and blanks."""
    return " ".join(told.text.casefold().split()) if isinstance(told, Caption) else told.index


BATCH = 8
"""Images in one run of the network."""

Texts = Mapping[int, Told]
"""What the network is told about each sample, by its index; ``None`` or no zone in it is no text, and none is written
then. Samples that are left out are not segmented."""


class Segmenter(Protocol):
    """What a run over a data set needs of a network; `textray.inference.segmenter.Predictor` has it."""

    @property
    def preprocess(self) -> Preprocess:
        """From a picture to the network's input, and the way back."""
        ...

    @property
    def threshold(self) -> float:
        """Probability from which a pixel is lesion."""
        ...

    def infer(self, pixels: NDArray[np.float32], prompts: Sequence[int | Prompt | None]) -> Inference:
        """Run on preprocessed ``(B, C, h, w)``, each with a row of the bank or another prompt."""
        ...


@dataclass(frozen=True, kw_only=True)
class Case:
    """One image under one text.

    Attributes:
        sample: The image.
        zones: What the network was told or, where it was to write its own report, what it wrote; ``None`` where it
            worked without text.
        counts: Pixels on the image's own grid.
        areas: Predicted pixels in each of the six zones.
        caption: The free caption that the network was told, ``None`` where it was told none.
    """

    sample: Sample
    zones: Zones | None
    counts: Counts
    areas: tuple[int, ...]
    caption: str | None = None


def segment(
    segmenter: Segmenter,
    samples: Sequence[Sample],
    texts: Mapping[str, Texts],
    *,
    zone_rows: tuple[float, float],
    zone_thresholds: Sequence[float] | None = None,
    captions: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, dict[int, Case]]:
    """Segment and count: for each name of ``texts`` the cases by index of the sample.

    Args:
        segmenter: The network.
        samples: What to read.
        texts: By name, what the network is told; each image is read and preprocessed once for all of them.
        zone_rows: Heights, as shares of the image, that split the zones of pixels.
        zone_thresholds: Probabilities from which the network writes the six zones into a report of its own; ``None``
            where it writes none.
        captions: What the rows of its bank say, where its data have free captions.
        progress: Called with the number of images done and of all.

    Raises:
        UsageError: If the network is to write its own report and tells no zones, or does not know a caption.
        DataError: If an image and its mask have different sizes.
        InputError: If a file is refused; the message names it.
    """
    cases: dict[str, dict[int, Case]] = {name: {} for name in texts}
    for start in range(0, len(samples), BATCH):
        indices = range(start, min(start + BATCH, len(samples)))
        images = [naming(samples[i].image_path, segmenter.preprocess.read) for i in indices]
        truths = [samples[i].read_mask() for i in indices]
        for i, image, truth in zip(indices, images, truths, strict=True):
            if truth.shape != image.grid.shape:
                raise DataError(
                    f"the mask of {samples[i].image_id} has another size", came=truth.shape, expected=image.grid.shape
                )
        pixels = np.stack([segmenter.preprocess.apply(image) for image in images])
        for name, told in texts.items():
            here = [k for k, i in enumerate(indices) if i in told]
            if not here:
                continue
            found = segmenter.infer(pixels[here], [_row(told[start + k], captions) for k in here])
            for position, k in enumerate(here):
                text = told[start + k]
                grid = images[k].grid
                mask = segmenter.preprocess.restore(found.probability[position], grid) >= segmenter.threshold
                cases[name][start + k] = Case(
                    sample=samples[start + k],
                    zones=_zones(text, found, position, zone_thresholds),
                    counts=count(mask, truths[k]),
                    areas=tuple(int(area["pixels"]) for area in zone_areas(mask, grid, zone_rows).values()),
                    caption=text.text if isinstance(text, Caption) else None,
                )
        if progress is not None:
            progress(indices[-1] + 1, len(samples))
    return cases


def counts_of(cases: Sequence[Case]) -> NDArray[np.int64]:
    """Pixels of cases, ``(N, 4)``: true positive, false positive, false negative, true negative."""
    return np.array([[c.counts.tp, c.counts.fp, c.counts.fn, c.counts.tn] for c in cases], dtype=np.int64)


def _row(told: Told, captions: Sequence[str]) -> int | Prompt:
    """What `Segmenter.infer` takes for a text."""
    if isinstance(told, Caption):
        row = known.find(told.text, captions)
        if row is None:
            raise UsageError(
                "the network does not know a caption", came=repr(told.text), expected="one of its captions"
            )
        return row
    if isinstance(told, Zones) and told:
        return told.index
    return Prompt.OWN_REPORT if told == "own" else Prompt.NO_REPORT


def _zones(told: Told, found: Inference, position: int, thresholds: Sequence[float] | None) -> Zones | None:
    if told == "own":
        return _own_zones(found, position, thresholds)
    return told if isinstance(told, Zones) else None


def _own_zones(found: Inference, position: int, thresholds: Sequence[float] | None) -> Zones | None:
    """The zones that the network wrote into its own report of one image; ``None`` where it found nothing to write."""
    if found.zone_probability is None or thresholds is None:
        raise UsageError("the network is to write its own report, and it tells no zones", do="Give it texts.")
    zones = written(found.zone_probability[position], thresholds)
    return zones if zones else None
