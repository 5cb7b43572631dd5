"""From a picture and, if there is one, its report to the lesion mask on the picture's own grid."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from textray.errors import InputError, ShapeError, UsageError, unknown_name
from textray.inference import bank, own_report, record, results
from textray.inference.bundle import Bundle
from textray.inference.own_report import OwnReport, TextFree, TextMode, check_edit
from textray.inference.own_report import apply as apply_edit
from textray.inference.runtime import Runtime, sigmoid
from textray.preprocess import Preprocess
from textray.records import Grid, Image, Laterality, Notice, Prediction, Report, ZoneState
from textray.text.cleaning import is_blank
from textray.text.zones import parse

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Inference:
    """What a network said of a batch of preprocessed pictures.

    Attributes:
        probability: Of lesion, ``(B, h, w)`` float32 in [0, 1], at the network's size.
        zone_probability: Of a lesion in each zone by image side, ``(B, 6)`` float32 in [0, 1], whatever text was given;
            ``None`` where the network does not tell.
        attention: Where the network looked to tell the zones, ``(B, 1, h', w')`` float32, not negative, of its own
            size; ``None`` where it does not tell.
    """

    probability: NDArray[np.float32]
    zone_probability: NDArray[np.float32] | None = None
    attention: NDArray[np.float32] | None = None


class Predictor:
    """A loaded bundle that segments pictures; `textray.load` returns one.

    Args:
        bundle: A verified bundle.
        threads: Threads of the network; ``None`` is the number of processors.

    Attributes:
        SILENT: In place of a row of the text bank: no report, and none is to be written.
        WRITE: In place of a row: the network's own report, whatever the bundle says of runs without a text.
    """

    SILENT: ClassVar[int] = -1
    WRITE: ClassVar[int] = -2

    def __init__(self, bundle: Bundle, *, threads: int | None = None) -> None:
        self.bundle = bundle
        self._runtime = Runtime(bundle, threads)
        self._bank = bundle.text_bank()

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
    def tells_attention(self) -> bool:
        """True where the network tells where it looked to write its report."""
        return self.bundle.writes_report and "attention" in self._runtime.outputs

    def bank_row(self, report: Report) -> int | None:
        """Row of the text bank that a report selects; ``None`` where it names no zone or the network reads no text.

        Of weights that know captions: that of the report's words, ``None`` where they are none of the captions.
        """
        if self.bundle.captions:
            return bank.find(report.text, self.bundle.captions) if report.free and report.text else None
        return report.zones.index if self._bank is not None and report.zones else None

    def predict_batch(self, pixels: NDArray[np.float32], rows: Sequence[int | None]) -> NDArray[np.float32]:
        """Probability maps of preprocessed pictures; what `infer` gives, without the rest.

        Returns:
            ``(B, h, w)`` float32 in [0, 1], at the network's size; `Preprocess.restore` brings one to its grid.
        """
        return self.infer(pixels, rows).probability

    def infer(self, pixels: NDArray[np.float32], rows: Sequence[int | None]) -> Inference:
        """Run the network on preprocessed pictures.

        Args:
            pixels: ``(B, C, h, w)`` float32, each as `Preprocess.apply` gives it.
            rows: For each picture a row of the text bank; ``None`` for no text, where the network writes its own
                report if the bundle says so (`Bundle.text_free`); or `SILENT` or `WRITE`. B of them.

        Raises:
            ShapeError: If the numbers of pictures and rows differ, or a row is outside the bank.
            InputError: If a picture has no text and the network needs one.
            UsageError: If a report is to be written by a network that writes none.
        """
        if None in rows or self.SILENT in rows:
            self._require_text(None)
        if self.WRITE in rows:
            self.check_free("generated")
        if len(rows) != len(pixels):
            raise ShapeError("pictures and texts differ in number", came=len(rows), expected=len(pixels))
        features = np.zeros((len(rows), self.bundle.tokens, self.bundle.width), np.float32)
        mask = np.zeros((len(rows), self.bundle.tokens), np.float32)
        if self._bank is not None:
            for i, row in enumerate(rows):
                if row is None:
                    row = self.WRITE if self.bundle.text_free == "generated" else self.SILENT
                if row == self.SILENT and self.bundle.writes_report:
                    mask[i] = -1  # only a network that can write a report has to be told not to
                if row in (self.SILENT, self.WRITE):
                    continue
                if not 0 <= row < len(self._bank.mask):
                    raise ShapeError(
                        "row is outside the text bank", came=row, expected=f"0..{len(self._bank.mask) - 1}"
                    )
                features[i], mask[i] = self._bank.features[row], self._bank.mask[row]
        found = self._runtime.run(pixels, features, mask)
        return Inference(
            probability=sigmoid(found["logits"][:, 0]),
            zone_probability=sigmoid(found["zone_logits"]) if "zone_logits" in found else None,
            attention=found.get("attention"),
        )

    def check_free(self, text_free: TextFree | None, edit: str | None = None) -> None:
        """Refuse to let a network write, or to correct, a report that it cannot write.

        Raises:
            UsageError: If the bundle writes no report.
        """
        if (text_free == "generated" or edit is not None) and not self.bundle.writes_report:
            raise UsageError(
                f"{self.bundle.name} writes no report" + ("" if edit is None else ", so there is none to correct"),
                expected="weights that write one; textray info NAME says which do",
                do="Name such weights with --model, or give a report with --text",
            )

    def segment(
        self,
        picture: str | Path | NDArray[Any] | Image,
        text: str | None = None,
        laterality: Laterality | str = Laterality.PATIENT,
        strict_text: bool = False,
        *,
        text_free: TextFree | None = None,
        edit: str | None = None,
    ) -> Prediction:
        """Find the lesions in a picture.

        Args:
            picture: A file (PNG, JPEG, DICOM; told by content), an array ``(H, W)`` bright where dense, or an `Image`;
                for weights that read colour pictures these, and ``(H, W, 3)`` RGB.
            text: Its report, or any words that name places; without, the network writes a report itself where it
                can, or works from the picture alone. For weights that know captions (`Bundle.captions`) one of them.
            laterality: Whose left and right ``text`` and ``edit`` mean: the patient's, as in radiology reports, or the
                viewer's.
            strict_text: Refuse a text that names no zone, or is no known caption, instead of going on without it.
            text_free: What a picture without a text gets; ``None`` is what the bundle says.
            edit: Correction of the report that the network writes, instead of a text: a sentence that replaces it.

        Returns:
            Mask and probability on the picture's own grid, and the record of how they came about.

        Raises:
            InputError: If the picture or, with ``strict_text``, the text is refused; or if the network needs a text
                and this one names no zone.
            UsageError: If ``edit`` is not understood or comes beside a text, or the network writes no report.
        """
        side = as_laterality(laterality)
        self.check_free(text_free, edit)
        if edit is not None:
            check_edit(edit, side, text=text, text_free=text_free)
        start = time.perf_counter()
        image = self._as_image(picture)
        seconds = {"read": time.perf_counter() - start}
        if self.bundle.captions:
            report = bank.understand(text, self.bundle.captions, strict=strict_text)
        else:
            report = parse(text, laterality=side, grid=image.grid, strict=strict_text)
        row, denied = self.bank_row(report), False
        if row is None:
            self._require_text(text)
            denied = ZoneState.ABSENT in report.zones.states  # nothing is written over what a person denies
            write = (text_free or self.bundle.text_free) == "generated" and not denied
            row = self.WRITE if write else self.SILENT

        start = time.perf_counter()
        pixels = self.preprocess.apply(image)[None]
        seconds["preprocess"] = time.perf_counter() - start
        start = time.perf_counter()
        found = self.infer(pixels, [row])
        own, attention = self._own(found, image.grid, silent=row == self.SILENT, denied=denied)
        mode: TextMode = "none" if row == self.SILENT else "given"
        steering = report if mode == "given" else None
        if row == self.WRITE:
            steering = own.report if own is not None else None
            mode = "none" if steering is None else "generated"
        if edit is not None and own is not None:
            report = apply_edit(edit, own.zones, laterality=side, grid=image.grid)
            row, mode, steering = self.bank_row(report), "edited", report if report.zones else None
            found = self.infer(pixels, [self.SILENT if row is None else row])
        seconds["network"] = time.perf_counter() - start
        start = time.perf_counter()
        probability = self.preprocess.restore(found.probability[0], image.grid)
        mask = probability >= self.threshold
        seconds["restore"] = time.perf_counter() - start
        own_notices = [] if own is None else own_report.notices(own, image.grid, mode, steering)
        told = {n.code for n in (*report.notices, *own_notices)}  # they say what the reader's mean for these words
        heard = {n.code for n in report.notices}  # a person's words are told once what holds for the network's too
        notices = [*(n for n in image.notices if n.code not in told), *report.notices]
        notices += [n for n in own_notices if n.code not in heard]
        return Prediction(
            mask=mask,
            probability=probability,
            report=steering,
            image=image,
            record=record.build(
                image=image,
                bundle=self.bundle,
                text=text,
                report=report,
                mode=mode,
                steering=steering,
                own=own,
                used_settings=record.settings(
                    self.bundle, laterality=side, strict_text=strict_text, text_free=text_free, edit=edit
                ),
                mask=mask,
                probability=probability,
                notices=[*notices, *self._notices(report)],
                seconds=seconds,
            ),
            attention=attention,
            saver=results.save,
        )

    def _own(
        self, found: Inference, grid: Grid, *, silent: bool, denied: bool
    ) -> tuple[OwnReport | None, NDArray[np.float32] | None]:
        """The report that the network wrote or would have written, and its attention on the film's grid."""
        thresholds = self.bundle.zone_thresholds
        if thresholds is None or found.zone_probability is None:
            return None, None
        attention, shares = None, None
        if found.attention is not None:
            attention = self.preprocess.restore_coarse(found.attention[0, 0], grid)
            sums = record.zone_sums(attention, grid, self.bundle.zone_rows)
            total = sum(sums.values()) or 1.0
            shares = {name: value / total for name, value in sums.items()}
        own = OwnReport(
            zones=own_report.written(found.zone_probability[0], thresholds),
            probability=found.zone_probability[0],
            thresholds=thresholds,
            silent=silent,
            denied=denied,
            attention=shares,
        )
        return own, attention

    def _as_image(self, picture: str | Path | NDArray[Any] | Image) -> Image:
        if isinstance(picture, Image):
            self.preprocess.check_colour(picture)
            return picture
        if isinstance(picture, str | Path):
            return self.preprocess.read(picture)
        return self.preprocess.from_array(picture)

    def _require_text(self, text: str | None) -> None:
        """Refuse a picture whose text tells the network nothing, if it cannot work so."""
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

    def _notices(self, report: Report) -> list[Notice]:
        if report.zones and self._bank is None:
            return [
                Notice(
                    code="W_TEXT_NOT_READ",
                    text=f"{self.bundle.name} reads no text; the words changed nothing.",
                    remedy="Name a model that reads text with --model.",
                )
            ]
        return []


def as_laterality(word: Laterality | str) -> Laterality:
    """The convention of that name.

    Raises:
        UsageError: If there is none.
    """
    try:
        return Laterality(word)
    except ValueError as error:
        raise unknown_name("laterality", str(word), [side.value for side in Laterality]) from error
