"""Segmentation of one picture: `Predictor`, the network of a bundle behind `textray.load`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textray.errors import InputError, ShapeError, UsageError
from textray.inference import own_report, record, results
from textray.inference.bank import Prompt
from textray.inference.bundle import Bundle
from textray.inference.film import Film, Lungs, calls_clear, conflicts, denied, find_lungs, small_grid
from textray.inference.own_report import OwnReport, Steering, TextFree, TextMode, check_edit
from textray.inference.own_report import apply as apply_edit
from textray.inference.runtime import Runtime, sigmoid
from textray.io.ct_series import read_volume
from textray.io.levels import stacked
from textray.io.read import Source, not_a_film
from textray.preprocess import Preprocess
from textray.records import (
    Grid,
    Image,
    Laterality,
    Prediction,
    Report,
    Volume,
    VolumePrediction,
    Zones,
    ZoneState,
)
from textray.text.cleaning import is_blank
from textray.text.zones import as_laterality, parse


@dataclass(frozen=True, kw_only=True, eq=False)
class Inference:
    """Output of a network for a batch of preprocessed pictures; ``None`` where it has no such output."""

    probability: NDArray[np.float32]  # of lesion, (B, h, w) in [0, 1], at the network's size
    zone_probability: NDArray[np.float32] | None = None  # of a lesion, (B, 6) in [0, 1], by image side, for any prompt
    attention: NDArray[np.float32] | None = None  # that found the zones, (B, 1, h', w'), not negative
    presence: NDArray[np.float32] | None = None  # of any lesion in the film, (B,) in [0, 1], for any prompt
    lungs: NDArray[np.float32] | None = None  # (B, 2, h', w') in [0, 1], the one at the image's left first, by prompt


class Predictor:
    """A loaded bundle that segments pictures; `textray.load` returns one. Threads are those of `default_threads`."""

    def __init__(self, bundle: Bundle, *, threads: int | None = None) -> None:
        self.bundle = bundle
        self._runtime = Runtime(bundle, threads)

    def __getstate__(self) -> tuple[Bundle, int]:
        return self.bundle, self.threads

    def __setstate__(self, state: tuple[Bundle, int]) -> None:
        """Open the bundle anew: a session of the runtime does not leave its process."""
        self.__init__(state[0], threads=state[1])  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"Predictor({self.bundle.name!r}, version={self.bundle.version!r}, threads={self.threads})"

    @property
    def preprocess(self) -> Preprocess:
        """From a picture to the network's input, and the way back."""
        return self.bundle.preprocess

    @property
    def threshold(self) -> float:
        """Probability from which a pixel is lesion."""
        return self.bundle.threshold

    @property
    def threads(self) -> int:
        """Threads of the network."""
        return self._runtime.threads

    @property
    def reads_denial(self) -> bool:
        """True if the network hears which zones words deny."""
        return self._runtime.reads_denial

    @property
    def tells_attention(self) -> bool:
        """True if the network gives the attention with which it found the zones of its report."""
        return self.bundle.writes_report and "attention" in self._runtime.outputs

    def bank_row(self, report: Report) -> int | None:
        """Row of the text bank that a report selects; ``None`` if there is none or the network reads no text."""
        bank = self._runtime.bank
        return None if bank is None else bank.row(report)

    def predict_batch(self, pixels: NDArray[np.float32], prompts: Sequence[int | Prompt | None]) -> NDArray[np.float32]:
        """`Inference.probability` of `infer`, ``(B, h, w)``; `Preprocess.restore` brings one to its grid."""
        return self.infer(pixels, prompts).probability

    def infer(
        self,
        pixels: NDArray[np.float32],
        prompts: Sequence[int | Prompt | None],
        denied: NDArray[np.float32] | None = None,
    ) -> Inference:
        """Run the network on pictures ``(B, C, h, w)``, each as `Preprocess.apply` gives it.

        Each picture has a prompt: a row of the text bank, or a `Prompt`; ``None`` is that of the bundle for runs
        without a text (`Bundle.text_free`). ``denied`` ``(B, 6)`` is 1 at zones that a person denies; a network that
        does not read denials works as without.

        Raises:
            ShapeError: If the numbers of pictures and prompts differ, or a row is outside the bank.
            InputError: If a picture has no text and the network needs one.
            UsageError: If a report is to be written by a network that writes none.
        """
        if None in prompts or Prompt.NO_REPORT in prompts:
            self._require_text(None)
        if Prompt.OWN_REPORT in prompts:
            self.check_free("generated")
        if len(prompts) != len(pixels):
            raise ShapeError("pictures and texts differ in number", came=len(prompts), expected=len(pixels))
        free = Prompt.OWN_REPORT if self.bundle.text_free == "generated" else Prompt.NO_REPORT
        features, mask = self._runtime.encode([free if prompt is None else prompt for prompt in prompts])
        outputs = self._runtime.run(pixels, features, mask, denied)
        return Inference(
            probability=sigmoid(outputs["logits"][:, 0]),
            zone_probability=sigmoid(outputs["zone_logits"]) if "zone_logits" in outputs else None,
            attention=outputs.get("attention"),
            presence=sigmoid(outputs["presence"][:, 0]) if "presence" in outputs else None,
            lungs=sigmoid(outputs["lungs"]) if "lungs" in outputs else None,
        )

    def check_strict(self, strict_input: bool) -> None:
        """Refuse ``strict_input`` for a network that finds no lungs."""
        if strict_input and "lungs" not in self._runtime.outputs and self.preprocess.hounsfield is None:
            raise UsageError(
                f"{self.bundle.name} does not find lungs, so it cannot refuse pictures without them",
                expected="weights that find lungs",
                do="Leave --strict-input out",
            )

    def presence_threshold(self, given: float | None = None) -> float | None:
        """Probability from which a film is said to show a lesion: a ``given`` one, else the bundle's.

        Raises:
            UsageError: If the given one is no probability, or the weights do not judge films.
        """
        if given is not None and self.bundle.bounds is None:
            raise UsageError(
                f"{self.bundle.name} does not tell whether a film shows a lesion",
                expected="weights that do; textray info NAME says which",
                do="Leave the presence threshold out",
            )
        if given is not None and not 0 <= given <= 1:
            raise UsageError("the presence threshold is a probability", came=given, expected="0 to 1")
        return given if given is not None or self.bundle.bounds is None else self.bundle.bounds.threshold

    def check_free(self, text_free: TextFree | None, edit: str | None = None) -> None:
        """Refuse a generated report, or a correction of one, if the network writes none."""
        if (text_free == "generated" or edit is not None) and not self.bundle.writes_report:
            raise UsageError(
                f"{self.bundle.name} writes no report" + ("" if edit is None else ", so there is none to correct"),
                expected="weights that write one; textray info NAME says which do",
                do="Name such weights with --model, or give a report with --text",
            )

    def segment(
        self,
        picture: Source | NDArray[Any] | Image,
        text: str | None = None,
        laterality: Laterality | str = Laterality.PATIENT,
        strict_text: bool = False,
        *,
        text_free: TextFree | None = None,
        edit: str | None = None,
        presence_threshold: float | None = None,
        strict_input: bool = False,
    ) -> Prediction:
        """Find the lesions in a picture: mask and probability on its own grid, and the record of how they came about.

        Args:
            picture: A file (as `textray.io.read.read` takes it), its bytes, an open file, a pydicom Dataset, an array
                ``(H, W)`` bright where dense, or an `Image`; for weights that read colour also ``(H, W, 3)`` RGB.
            text: Its report, or any words that name places; without, the network writes a report itself if it
                can, or works from the picture alone. For weights that know captions (`Bundle.captions`) one of them.
            laterality: Whose left and right ``text`` and ``edit`` mean: the patient's, as in radiology reports, or the
                viewer's.
            strict_text: Refuse a text that names no zone, or is no known caption, instead of going on without it.
            text_free: The prompt of a picture without a text; ``None`` is that of the bundle.
            edit: Correction of the report that the network writes, instead of a text: a sentence that replaces it.
            presence_threshold: Probability of any lesion below which the mask is empty, unless words name a zone;
                ``None`` is that of the bundle (a higher one where words call every zone clear), 0 never empties it. For
                weights that tell presence.
            strict_input: Refuse a picture in which the network finds no lungs. For weights that find lungs.

        Raises:
            InputError: If the picture or, with ``strict_text``, the text is refused; or if the network needs a text
                and this one names no zone; ``E_NOT_A_CHEST`` with ``strict_input``.
            UsageError: If ``edit`` is not understood or comes beside a text, or the network writes no report.
        """
        side = as_laterality(laterality)  # an unknown one is refused before anything is read
        self.check_free(text_free, edit)
        self.check_strict(strict_input)
        least = self.presence_threshold(presence_threshold)
        if edit is not None:
            check_edit(edit, side, text=text, text_free=text_free)
        seconds: dict[str, float] = {}
        with _timed(seconds, "read"):
            image = self._as_image(picture)
        understand = parse if self._runtime.bank is None else self._runtime.bank.understand
        words = self._heard(understand(text, laterality=side, grid=image.grid, strict=strict_text))
        if presence_threshold is None and self.bundle.bounds is not None:
            least = self.bundle.bounds.least(words)
        prompt = self._prompt(text, words, text_free)
        with _timed(seconds, "preprocess"):
            pixels = self.preprocess.apply(image)[None]
        with _timed(seconds, "network"):
            inference = self.infer(pixels, [prompt], denied(words.zones)[None])
            presence = None if inference.presence is None else float(inference.presence[0])
            free = presence is not None and least is not None and presence < least
            lungs = None if inference.lungs is None else find_lungs(inference.lungs[0], self.preprocess, image.grid)
            if strict_input and lungs is not None and not any(lungs.found):
                raise _no_chest()
            generated, look = self._generated(inference, words, prompt, image.grid, lungs, free=free)
            steering = _steering(text, words, prompt, generated, heard=self._hears(words))
            if free and edit is None and prompt is Prompt.OWN_REPORT:  # the graph, which knows no threshold, wrote one
                inference = self.infer(pixels, [Prompt.NO_REPORT])
            if edit is not None and generated is not None:
                words = self._heard(apply_edit(edit, generated.zones, laterality=side, grid=image.grid))
                report = words if words.zones or self._hears(words) else None
                steering = replace(steering, words=words, mode="edited", report=report)
                row = self.bank_row(words)
                inference = self.infer(pixels, [Prompt.NO_REPORT if row is None else row], denied(words.zones)[None])
        if steering.mode in ("given", "edited") and steering.report is not None and steering.report.zones:
            free = False  # words that name a zone decide
        with _timed(seconds, "restore"):
            restore = partial(self.preprocess.restore_strips, inference.probability[0], image.grid)
            probability = stacked(restore(), image.grid.height)
            mask = probability >= self.threshold
            if free:
                mask[:] = False
            elif self.reads_denial:
                record.clear_denied(mask, words.zones, image.grid, record.zone_split(self.bundle, lungs))
            figures = record.figures(probability, mask)
            del probability  # its memory
            seen = self._film(inference, words, presence, least, image.grid, lungs, emptied=free)
            seen = replace(seen, empty=not mask.any())
        used = record.settings(
            self.bundle,
            laterality=side,
            strict_text=strict_text,
            text_free=text_free,
            edit=edit,
            presence_threshold=presence_threshold,
        )
        return Prediction(
            mask=mask,
            report=steering.report,
            image=image,
            record=record.build(image, self.bundle, steering, used, mask, figures, seconds, seen),
            restore=restore,
            look=look,
            saver=results.save,
        )

    def segment_volume(
        self,
        volume: Volume | str | Path | Sequence[Path],
        text: str | None = None,
        laterality: Laterality | str = Laterality.PATIENT,
        strict_text: bool = False,
        *,
        text_free: TextFree | None = None,
        edit: str | None = None,
        presence_threshold: float | None = None,
        strict_input: bool = False,
    ) -> VolumePrediction:
        """Find the lesions in a CT, slice by slice: mask on its own grid and one record. For weights that know CT.

        Args:
            volume: A NIfTI file in Hounsfield units, the DICOM files of one series, or a `Volume`.
            text: As of `segment`, for each slice, like ``laterality``, ``strict_text``, ``text_free``, ``edit`` and
                ``presence_threshold``.
            strict_input: Refuse a volume that does not say its sides.

        Raises:
            InputError: If the volume is refused; ``E_NOT_A_FILM`` where the weights know films only;
                ``E_SIDES_ASSUMED`` with ``strict_input``.
            UsageError: As `segment`, or if nibabel is not installed.
        """
        window = self.preprocess.hounsfield
        if window is None:
            raise not_a_film("a CT volume")
        seconds: dict[str, float] = {}
        with _timed(seconds, "read"):
            volume = volume if isinstance(volume, Volume) else read_volume(volume)
        if strict_input and volume.grid.sides_from != "tag":
            what, do = "the volume does not say its sides", "Leave out --strict-input to go on with assumed ones"
            raise InputError(what, expected="an affine with a code above 0", do=do, code="E_SIDES_ASSUMED")
        count = len(volume.to_slices(volume.hu))
        mask = np.zeros((count, *volume.grid.shape), np.bool_)
        largest, shown, records = -math.inf, None, []
        for number, image in enumerate(volume.images(window)):
            prediction = self.segment(
                image,
                text,
                laterality,
                strict_text,
                text_free=text_free,
                edit=edit,
                presence_threshold=presence_threshold,
            )
            if image.pixels.min() == image.pixels.max():  # air, or outside of the field of view
                prediction.mask[:] = False
            mask[number] = prediction.mask
            records.append(prediction.record)
            area = int(prediction.mask.sum()) or -abs(number - count // 2)  # without a lesion the middle one
            if area > largest:
                largest, shown = area, prediction
        assert shown is not None  # a volume has a slice
        values = record.build_volume(volume, mask, records, shown, seconds)
        return VolumePrediction(mask=mask, volume=volume, record=values, shown=shown, saver=results.save)

    def _heard(self, words: Report) -> Report:
        """Words without the warnings that a denial is not read, for a network that reads it."""
        if not self._hears(words):
            return words
        unread = ("W_NEGATIVE", "W_EDITED_TO_NOTHING")
        return replace(words, notices=tuple(notice for notice in words.notices if notice.code not in unread))

    def _hears(self, words: Report) -> bool:
        """True for words that deny a lesion, if the network reads denials or they call the whole film clear."""
        judged = self.bundle.bounds is not None and calls_clear(words)
        return judged or (self.reads_denial and _denies(words))

    def _prompt(self, text: str | None, words: Report, text_free: TextFree | None) -> int | Prompt:
        """Choose the prompt for words; nothing is written over what a person denies."""
        row = self.bank_row(words)
        if row is not None:
            return row
        self._require_text(text)
        write = (text_free or self.bundle.text_free) == "generated" and not _denies(words)
        return Prompt.OWN_REPORT if write else Prompt.NO_REPORT

    def _film(
        self,
        inference: Inference,
        words: Report,
        presence: float | None,
        least: float | None,
        grid: Grid,
        lungs: Lungs | None,
        *,
        emptied: bool,
    ) -> Film:
        """What the network says of the film as a whole, and where a person's words contradict it."""
        zones = None if inference.zone_probability is None else inference.zone_probability[0]
        small = None
        if lungs is not None:
            shown = self.preprocess.restore(inference.probability[0], small_grid(grid)) >= self.threshold
            small = shown & (not emptied)
            if self.reads_denial:
                record.clear_denied(small, words.zones, small_grid(grid), record.zone_split(self.bundle, lungs))
        return Film(
            presence=presence,
            threshold=least,
            emptied=emptied,
            zones=zones,
            lungs=lungs,
            mask=small,
            conflicts=conflicts(words, zones, presence, self.bundle.bounds),
        )

    def _generated(
        self,
        inference: Inference,
        words: Report,
        prompt: int | Prompt,
        grid: Grid,
        lungs: Lungs | None,
        *,
        free: bool,
    ) -> tuple[OwnReport | None, Callable[[], Iterator[NDArray[np.float32]]] | None]:
        """The report that the network wrote or would have written, and what gives its attention on the film's grid.

        Of a film that is ``free`` of lesions by its presence it writes none.
        """
        thresholds = self.bundle.zone_thresholds
        if thresholds is None or inference.zone_probability is None:
            return None, None
        look, shares = None, None
        if inference.attention is not None:
            look = partial(self.preprocess.restore_strips, self.preprocess.at_size(inference.attention[0, 0]), grid)
            parts = record.zone_parts(stacked(look(), grid.height), grid, record.zone_split(self.bundle, lungs))
            sums = {name: float(part.sum(dtype=np.float64)) for name, part in parts}
            total = sum(sums.values()) or 1.0
            shares = {name: value / total for name, value in sums.items()}
        generated = OwnReport(
            zones=Zones() if free else own_report.written(inference.zone_probability[0], thresholds),
            probability=inference.zone_probability[0],
            thresholds=thresholds,
            withheld=prompt is Prompt.NO_REPORT,
            denied=isinstance(prompt, Prompt) and _denies(words),
            attention=shares,
        )
        return generated, look

    def _as_image(self, picture: Source | NDArray[Any] | Image) -> Image:
        if isinstance(picture, Image):
            self.preprocess.check(picture)
            return picture
        if isinstance(picture, np.ndarray | list):
            return self.preprocess.from_array(picture)
        return self.preprocess.read(picture)

    def _require_text(self, text: str | None) -> None:
        """Refuse a picture without a known text if the network cannot work so."""
        if not self.bundle.needs_text:
            return
        if self.bundle.captions:
            came, expected = "words that are none of its captions", "one of the captions that textray info lists"
        else:
            came, expected = "words that name no zone with lesions", "words that name at least one zone with lesions"
        raise InputError(
            f"{self.bundle.name} cannot work without a report",
            came="no text" if text is None or is_blank(text) else came,
            expected=expected,
            do="Give --text or --texts, or name a model with --model that also works without",
            code="E_NO_TEXT",
        )


def _steering(
    text: str | None, words: Report, prompt: int | Prompt, generated: OwnReport | None, *, heard: bool
) -> Steering:
    """The report that a prompt stands for; words without a row of the bank are one if what they deny is ``heard``."""
    if not isinstance(prompt, Prompt) or heard:
        return Steering(text=text, words=words, mode="given", report=words, generated=generated)
    report = generated.report if generated is not None and prompt is Prompt.OWN_REPORT else None
    mode: TextMode = "none" if report is None else "generated"
    return Steering(text=text, words=words, mode=mode, report=report, generated=generated)


def _no_chest() -> InputError:
    return InputError(
        "the network finds no lungs in this picture",
        expected="a frontal chest film",
        do="Leave out --strict-input, if it is one",
        code="E_NOT_A_CHEST",
    )


def _denies(words: Report) -> bool:
    return ZoneState.ABSENT in words.zones.states


@contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[phase] = time.perf_counter() - start
