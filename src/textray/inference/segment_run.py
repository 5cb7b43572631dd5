"""Segmentation of many pictures: the plan and the run of `textray segment`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from textray.errors import UsageError
from textray.inference import dicom_out, record, results
from textray.inference.film import NOT_A_CHEST
from textray.inference.inputs import Item, collect, with_volumes
from textray.inference.own_report import TextFree, check_edit
from textray.inference.run import Run, RunPlan
from textray.inference.segmenter import Predictor
from textray.io.nifti import require
from textray.io.write import check_writable
from textray.records import DicomOut, Laterality, Notice, Prediction, VolumePrediction
from textray.text.cleaning import is_blank
from textray.text.tables import TextTable, Words, no_match, table_notices
from textray.text.zones import counted, quoted


@dataclass(frozen=True, kw_only=True)
class Plan(RunPlan):
    """A segmentation as planned before the network is loaded."""

    words: dict[int, Words] = field(default_factory=dict)  # by position in `items`; the others have none
    strict_text: bool = False  # refuse words that name no zone
    text_free: TextFree | None = None  # the prompt of pictures without words, none for that of the weights
    edit: str | None = None  # correction of the reports that the network writes
    presence_threshold: float | None = None  # from which a film shows a lesion, none for that of the weights
    strict_input: bool = False  # refuse pictures without lungs
    dicom: DicomOut | None = None  # DICOM objects to write

    @property
    def sides(self) -> list[Laterality]:
        """The conventions of the words of this run."""
        used = {words.laterality or self.laterality for words in self.words.values()}
        return sorted(used | ({self.laterality} if self.edit is not None else set()))


class Segmenting(Run):
    """A segmentation over a plan; one that needs a report that the network cannot write is refused.

    The details of its results are the ``share`` of the picture that is lesion, the ``text_mode`` and, if a network
    wrote it, the sentence that steered, ``written``; of weights that judge films, the probability of a lesion,
    ``presence``; if words of a report changed nothing, ``unused`` says which of the vocabulary and how many others.
    """

    SUMMARY, RECORD = "textray.run/1", record.SCHEMA
    VOLUMES: ClassVar[bool] = True
    """True where a CT is worked on as a whole."""
    plan: Plan

    def __init__(self, predictor: Predictor, plan: Plan) -> None:
        if self.VOLUMES and predictor.preprocess.hounsfield is not None:  # others refuse each slice
            plan = _with_volumes(plan)
        super().__init__(predictor.bundle, predictor.threads, plan)
        self.predictor = predictor
        predictor.check_free(plan.text_free, plan.edit)
        predictor.presence_threshold(plan.presence_threshold)
        predictor.check_strict(plan.strict_input)
        if plan.dicom is not None:
            dicom_out.require()

    def _places(self, number: int, folder: Path, name: str) -> dict[str, Path]:
        objects = results.OBJECTS if self.plan.dicom is not None else ()
        volume = bool(self.plan.items[number].volume)
        attention = self.predictor.tells_attention
        return results.paths(folder, name, attention=attention, objects=objects, volume=volume)

    def _written(self, places: Mapping[str, Path], values: Mapping[str, Any]) -> dict[str, Path]:
        dicom = values.get("dicom")
        written = dicom.get("written", ()) if isinstance(dicom, dict) else ()
        return {kind: path for kind, path in places.items() if kind not in results.OBJECTS or kind in written}

    def _key(self, number: int, sha256: str) -> str:
        words = self._words(number)
        result = record.key(sha256, self.predictor.bundle, words.text, self._settings(self._side(words)))
        return dicom_out.key(result, self.plan.dicom)

    def _finished(self, number: int, item: Item, places: Mapping[str, Path]) -> dict[str, Any] | None:
        """As of every run; but what ``strict_input`` refuses is worked on again."""
        earlier = super()._finished(number, item, places)
        if earlier is None or not self.plan.strict_input:
            return earlier
        refused = (NOT_A_CHEST, "W_SIDES_ASSUMED") if item.volume else (NOT_A_CHEST,)
        return None if any(warning["code"] in refused for warning in earlier["warnings"]) else earlier

    def _work(self, number: int, item: Item, places: Mapping[str, Path]) -> Mapping[str, Any]:
        prediction: Prediction | VolumePrediction
        prediction = self._segment_volume(number, item) if item.volume else self._segment(number, item)
        objects: dict[str, bytes] = {}
        if self.plan.dicom is not None:
            objects, values = dicom_out.build(prediction, self.plan.dicom)
            prediction = replace(prediction, record=values)
        self._prepare(places["record"].parent)
        written = self._written(places, prediction.record)
        results.write(prediction, written, lambda: self._claim(item, places), objects=objects)
        return prediction.record

    def _segment(self, number: int, item: Item) -> Prediction:
        words, plan = self._words(number), self.plan
        return self.predictor.segment(item.path, words.text, self._side(words), plan.strict_text, **self._choices())

    def _segment_volume(self, number: int, item: Item) -> VolumePrediction:
        words, plan = self._words(number), self.plan
        return self.predictor.segment_volume(
            item.volume, words.text, self._side(words), plan.strict_text, **self._choices()
        )

    def _choices(self) -> dict[str, Any]:
        return {name: getattr(self.plan, name) for name in ("text_free", "edit", "presence_threshold", "strict_input")}

    def _details(self, values: Mapping[str, Any] | None) -> dict[str, Any]:
        if values is None:
            return {"share": None, "text_mode": ""}
        text, written = values["text"], steering_sentence(values["text"])
        more = {"written": written, "unused": quoted(text["unused_words"])}
        details = {"share": values["lesion"]["share"], "text_mode": text["mode"]}
        if "finding" in values:
            details["presence"] = values["finding"]["probability"]
        return details | {key: value for key, value in more.items() if value}

    def _remove(self, number: int, folder: Path, name: str) -> None:
        results.remove(folder, name)

    def _summary_settings(self) -> dict[str, Any]:
        settings = self._settings(self.plan.laterality)
        dicom = {} if self.plan.dicom is None else {"dicom": asdict(self.plan.dicom)}
        return settings | ({"edit": counted(self.plan.edit)} if self.plan.edit is not None else {}) | dicom

    def _summary_more(self) -> dict[str, Any]:
        if self.plan.dicom is None:
            return {}
        counted = Counter(kind for result in self.results for kind in result.outputs)
        return {"objects": {kind: counted[kind] for kind in results.OBJECTS}}

    def _words(self, number: int) -> Words:
        return self.plan.words.get(number, Words(text=None))

    def _side(self, words: Words) -> Laterality:
        return words.laterality or self.plan.laterality

    def _settings(self, side: Laterality) -> dict[str, Any]:
        plan = self.plan
        return record.settings(
            self.predictor.bundle,
            laterality=side,
            strict_text=plan.strict_text,
            text_free=plan.text_free,
            edit=plan.edit,
            presence_threshold=plan.presence_threshold,
        )


def _with_volumes(plan: Plan) -> Plan:
    """The plan with the slices of each CT as one item."""
    joined, localizers = with_volumes(plan.items)
    if any(item.volume for _, item in joined):
        require()
    words = {
        number: plan.words[file] for number, (files, _) in enumerate(joined) for file in files if file in plan.words
    }
    items = tuple(item for _, item in joined)
    return replace(plan, items=items, words=words, left_out=(*plan.left_out, *localizers))


def steering_sentence(text: Mapping[str, Any]) -> str:
    """The sentence in a record's ``text`` if a network wrote it, corrected or not; else nothing."""
    used = text["used"] if text["mode"] in ("generated", "edited") else None
    if used is None:
        return ""
    return f"{used['viewer']} (viewer's sides)" if used["patient"] is None else f"{used['patient']} (patient's sides)"


def plan(
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    text: str | None = None,
    texts: TextTable | None = None,
    laterality: Laterality = Laterality.PATIENT,
    strict_text: bool = False,
    overwrite: bool = False,
    text_free: TextFree | None = None,
    edit: str | None = None,
    presence_threshold: float | None = None,
    strict_input: bool = False,
    dicom: DicomOut | None = None,
) -> Plan:
    """Plan a segmentation; refuses whatever can be refused before the network is loaded.

    The words of ``text`` are for every picture, those of ``texts`` by picture; pictures that it does not name go
    without.

    Raises:
        UsageError: If an input does not exist, the table does not fit, or the correction is not understood.
        OutputError: If the output folder cannot be written to, or an input would be overwritten.
    """
    if edit is not None:
        check_edit(edit, laterality, text=text, text_free=text_free)
        if texts is not None:
            raise UsageError("both reports and a correction were given", expected="--texts or --edit")
    out = Path(out)
    items, left_out = collect(inputs, out)
    notices: list[Notice] = []
    words: dict[int, Words] = {}
    if texts is not None:
        words, unknown = texts.match([item.path for item in items])
        if not words:
            raise no_match(texts)
        words = {i: text_of for i, text_of in words.items() if text_of.text is not None}
        notices = table_notices(texts, unknown)
    elif not is_blank(text):
        words = dict.fromkeys(range(len(items)), Words(text=text))
    check_writable(out)
    return Plan(
        out=out,
        items=tuple(items),
        left_out=tuple(left_out),
        words=words,
        laterality=laterality,
        strict_text=strict_text,
        overwrite=overwrite,
        text_free=text_free,
        edit=edit,
        presence_threshold=presence_threshold,
        strict_input=strict_input,
        dicom=dicom,
        notices=tuple(notices),
    )
