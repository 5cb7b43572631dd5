"""Base of the readers of data sets: samples, splits and shares, and the result of a check. Free of torch."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from textray import registry
from textray.data.masks import draw_labels
from textray.errors import DataError, InputError, LayoutError, UsageError, unknown_name
from textray.io.read import read, read_mask
from textray.records import Laterality, Report, Zones
from textray.text.sentences import Cut, cut_text

log = logging.getLogger(__name__)

Split = Literal["train", "val", "test", "inner", "fit"]
SPLITS: tuple[Split, ...] = ("train", "val", "test", "inner", "fit")
"""`train` is `fit`, for gradients, and `inner`, to select (stopping, checkpoint, thresholds), and films of another part
that must not be learnt from."""

CaptionPolicy = Literal["error", "skip", "text-free"]
CAPTION_POLICIES: tuple[CaptionPolicy, ...] = ("error", "skip", "text-free")
"""What to do with an image whose caption is missing, blank or not understood."""

PartName = Literal["train", "val", "test"]
PARTS: tuple[PartName, ...] = ("train", "val", "test")

Box = tuple[float, float, float, float]
"""Left edge, upper edge, width and height in pixels of a sample's ``box_space``."""

Counts = dict[str, int | float | str]
"""What a check counts, by plain names, in the order to print."""

_NO_REPORT = Report(zones=Zones())
_SHOWN = 10
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image on disk with those parts that its data set has and its reader was asked for.

    Attributes:
        image_id: Name of the image without its extension; unique within the samples of a split, not among its phrases.
        patient_id: Pseudonym of the patient, ``None`` where it is not known.
        mask_path: Mask of the lesions, or of where the phrase is true, on the image's grid; ``None`` without one.
        mask_labels: Labels in that file that are lesions, see `textray.data.masks`: none for a table that calls the
            film normal; ``None`` for a mask by the rule of `textray.io.read.inspect_mask`.
        report: What the caption says; ``report.text`` is ``None`` where there are no words.
        also: What other wordings of the caption say, those that name zones; only where both are read.
        sentences: The words cut into sentences, in order; only of `Reader.studies`.
        phrase: Words to be looked for in the image; only of `Reader.phrases`.
        laterality: Whose left and right sentences and phrase mean.
        label: Class of the finding that the phrase names, over which scores are averaged first.
        boxes: Where the phrase is true, each half-open ``[x, x + w)`` by ``[y, y + h)``; they may overlap.
        box_space: Width and height of the picture that the boxes were drawn on, ``None`` without boxes.
        source: Where the film comes from, in a data set of films of several places.
        finding: Whether the film shows any lesion, ``None`` where it is not known.
        lungs_path: Mask of both lungs on the image's grid; ``None`` without one.
    """

    image_id: str
    image_path: Path
    split: Split
    patient_id: str | None = None
    mask_path: Path | None = None
    mask_labels: tuple[str, ...] | None = None
    report: Report = _NO_REPORT
    also: tuple[Report, ...] = ()
    sentences: tuple[str, ...] = ()
    phrase: str = ""
    laterality: Laterality = Laterality.VIEWER
    label: str = ""
    boxes: tuple[Box, ...] = ()
    box_space: tuple[int, int] | None = None
    source: str = ""
    finding: bool | None = None
    lungs_path: Path | None = None

    @property
    def group(self) -> str:
        """What a bootstrap draws: the patient, or the image itself where the patient is not known."""
        return self.patient_id or self.image_id

    def read_mask(self, shape: tuple[int, int] | None = None) -> NDArray[np.bool_]:
        """Read the mask of the lesions, ``(H, W)`` bool.

        A film without a finding needs no file: its mask is empty if ``shape``, the image's height and width, is given.

        Raises:
            DataError: If there is none, or it has another size than ``shape``.
        """
        if self.mask_path is None and self.finding is False and shape is not None:
            return np.zeros(shape, np.bool_)
        if self.mask_path is None:
            raise DataError(f"{self.image_id} has no mask", expected="an image whose lesions have been drawn")
        if self.mask_labels is None:
            return _on_grid(self.mask_path, shape)
        if not self.mask_labels:
            return np.zeros(shape or naming(self.image_path, read).grid.shape, np.bool_)
        return _on_grid(self.mask_path, shape, lambda path: draw_labels(path, self.image_path, self.mask_labels or ()))

    def read_lungs(self, shape: tuple[int, int] | None = None) -> NDArray[np.bool_]:
        """Read the lungs, ``(2, H, W)`` bool: the one at the image's left, then the one at its right.

        Raises:
            DataError: If there is no mask of them, or it has another size than ``shape``, the image's height and width.
        """
        from textray.data.lungs import split_lungs  # scipy is not of the base installation

        if self.lungs_path is None:
            raise DataError(f"{self.image_id} has no mask of the lungs", expected="an image whose lungs are drawn")
        return split_lungs(_on_grid(self.lungs_path, shape))


def _on_grid(
    path: Path, shape: tuple[int, int] | None, way: Callable[[Path], NDArray[np.bool_]] | None = None
) -> NDArray[np.bool_]:
    """A mask that has the size of its image, if that is given."""
    mask = naming(path, way or read_mask)
    if shape not in (None, mask.shape):
        raise DataError(
            f"{path.name} and its image differ in size",
            came=f"mask {mask.shape}, image {shape}",
            expected="one pixel grid; nothing is resized silently",
            do='Find all such masks with "textray data check".',
        )
    return mask


class Reader:
    """Base of all readers: refuses the parts that a data set does not have; its registry row says which it has.

    Args:
        root: Folder of the data.
        missing_captions: One of `CAPTION_POLICIES`.
        seed: Chooses the patients of `inner`, or the images where no patients are known.
    """

    name: ClassVar[str]
    inner_share: ClassVar[float] = 0.1
    """Share of the patients of `train` in `inner`."""

    def __init__(self, root: Path, *, missing_captions: str, seed: int) -> None:
        self.root, self.policy, self.seed = root, _known("caption policy", missing_captions, CAPTION_POLICIES), seed

    def samples(self, split: str) -> list[Sample]:
        """Images of a split with mask and caption, always in the same order.

        Raises:
            UsageError: If there is no such split, or the data set has no lesion masks.
            LayoutError: If the part it lies in is missing.
            DataError: If the data are refused.
        """
        check_masks(self.name)
        raise NotImplementedError

    def phrases(self, split: str, *, kind: str | None = None) -> list[Sample]:
        """Phrases of a split and where they are true, always in the same order.

        ``kind`` says which words are asked, one of the row's ``phrase_kinds``; ``None`` takes its first.

        Raises:
            UsageError: If there is no such split or kind, or nothing in the data set says where a phrase is true.
        """
        return self._phrases(check_split(split), check_kind(self.name, kind))

    def _phrases(self, split: Split, kind: str) -> list[Sample]:
        raise NotImplementedError

    def studies(self, split: str, *, cut: Cut | None = None) -> list[Sample]:
        """Images of a split that have words, with their sentences and without masks, always in the same order.

        ``cut`` is how a text becomes sentences; ``None`` is the usual way, clauses of captions, sentences of reports.

        Raises:
            UsageError: If there is no such split, or texts are not cut that way.
        """
        samples = self.samples(split)
        cuts = [cut_text(sample.report.text or "", cut or "clauses") for sample in samples]
        if not all(cuts):
            log.warning("%d images without words are left out", cuts.count(()))
        return [
            replace(sample, mask_path=None, sentences=sentences, laterality=sample.report.laterality)
            for sample, sentences in zip(samples, cuts, strict=True)
            if sentences
        ]

    def known_captions(self) -> tuple[str, ...]:
        """Every caption on disk, once, sorted: all texts that a network of free captions can read in use."""
        return ()

    @property
    def colour(self) -> bool:
        """True where its pictures are in colour."""
        return registry.dataset(self.name).colour

    @property
    def free(self) -> bool:
        """True where a network reads captions as they stand, not the zones that they name."""
        return registry.dataset(self.name).captions == "free"

    def preview(self) -> list[tuple[Sample, str]]:
        """Images with a mask of every part that is there, each with words about a fault, mostly none."""
        found: list[tuple[Sample, str]] = []
        for split in registry.dataset(self.name).splits:
            try:
                found += [(sample, "") for sample in self.samples(split) if sample.mask_path is not None]
            except LayoutError:  # a part that is not on disk
                continue
        return found

    def held_out_patients(self) -> tuple[str, ...]:
        """Patients that no training may have seen before it is scored on this data set, sorted."""
        return ()

    def check(self) -> CheckResult:
        """Everything that is wrong with the copy on disk; what keeps it from being one is refused as by `samples`."""
        raise NotImplementedError

    @property
    def _tolerated(self) -> tuple[str, ...]:
        """Codes of problems that the caption policy lets pass."""
        return () if self.policy == "error" else CAPTION_CODES

    def _refuse(self, problems: Iterable[Problem]) -> None:
        """Refuse the data if one of the problems is an error: count them by code and name the first."""
        found = [problem for problem in problems if problem.fatal and problem.code not in self._tolerated]
        if found:
            codes = ", ".join(f"{code} ({n})" for code, n in Counter(p.code for p in found).items())
            raise DataError(
                f"{len(found)} problems in the data under {self.root}: {codes}",
                came=name_some([f"{p.path} {p.message}" for p in found]),
                expected="images, masks and captions that pair up",
                do=f'Run "textray data check {self.name} ROOT" for the whole list'
                + (
                    "; missing_captions: skip or text-free lets some of it pass"
                    if found[0].code in CAPTION_CODES
                    else ""
                ),
            )

    def _cut_train(self, items: Iterable[T], split: Split, patient_of: Callable[[T], str | None]) -> list[T]:
        """Items of a split out of those of its part: a share of the patients (`inner`), the rest (`fit`), or all."""
        kept = list(items)
        if split in ("inner", "fit"):
            patients = (patient for item in kept if (patient := patient_of(item)))
            inner = draw_patients(patients, self.inner_share, self.seed)
            kept = [item for item in kept if (patient_of(item) in inner) == (split == "inner")]
        return kept

    @classmethod
    def _no_layout(cls, what: str, *, came: str | None = None, expected: str | None = None) -> LayoutError:
        """The error for a folder that is not laid out as the card says."""
        return LayoutError(what, came=came, expected=expected, do=help_for(cls.name))


def open_reader(
    name: str,
    root: str | Path | None = None,
    *,
    captions: str | None = None,
    missing_captions: str = "error",
    split_by: str | None = None,
) -> Reader:
    """Open a registered data set.

    ``root`` is ``None`` for one that is drawn, such as ``phantom``; ``split_by`` is one of the row's protocols and
    ``captions`` one of its wordings or `BOTH`, where ``None`` takes the first, or the only one there is.

    Raises:
        UsageError: If a name is unknown, a folder is needed and none was given, or the data set is not cut that way.
        LayoutError: If the folder is not laid out as the card says.
    """
    row = registry.dataset(name)
    if root is None and row.on_disk:
        raise UsageError(
            f"data set {name} is read from a folder, and none was given",
            do=f"Add --root (textray train: --data.root); see {row.card}.",
        )
    if split_by is not None and split_by not in row.protocols:
        raise UsageError(
            f"data set {name} cannot be cut by {split_by!r}",
            expected="one of " + ", ".join(row.protocols) if row.protocols else "no such option: it has one cut only",
            do=f"See {row.card}.",
        )
    options: dict[str, str | None] = {} if split_by is None else {"split_by": split_by}
    if captions is not None:
        options["captions"] = check_wording(name, captions)
    return cast(Reader, registry.load(row.path)(root, missing_captions=missing_captions, **options))


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a data set on disk, at a path relative to its root.

    Its code is ``E_...`` where training refuses it, or leaves it out, ``W_...`` for a warning.
    """

    code: str
    path: str
    message: str
    do: str = ""

    @property
    def fatal(self) -> bool:
        """True where reading for training refuses it."""
        return self.code.startswith("E_")


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """Result of the check of a data set: what was counted, and everything that is wrong."""

    name: str
    root: Path
    counts: Counts = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    @property
    def ok(self) -> bool:
        """True where nothing keeps the data from being trained on; warnings are allowed."""
        return not any(problem.fatal for problem in self.problems)

    def lines(self, limit: int = 20) -> list[str]:
        """Lines to print: counts first, then each problem, at most ``limit`` of one code; the rest is counted."""
        lines = [f"{name}: {value}" for name, value in self.counts.items()]
        for code, count in sorted(Counter(problem.code for problem in self.problems).items()):
            problems = [problem for problem in self.problems if problem.code == code]
            lines.append(f"{code} ({count}) {problems[0].do}".rstrip())
            lines += [f"  {problem.path}: {problem.message}" for problem in problems[:limit]]
            if count > limit:
                lines.append(f"  ... and {count - limit} more")
        errors = sum(problem.fatal for problem in self.problems)
        lines.append(f"{errors} errors, {len(self.problems) - errors} warnings")
        return lines


def check_split(split: str) -> Split:
    """The split of that name; an unknown one is a `UsageError`."""
    return _known("split", split, SPLITS)


BOTH = "both"
"""Every wording of the captions: the first one as `Sample.report`, the others in `Sample.also`."""


def check_wording(name: str, captions: str | None, *, both: bool = True) -> str | None:
    """The wording of captions of that name, ``None`` being a data set's first; `BOTH` may be refused, as others are.

    ``None`` for a data set whose captions have one wording only.
    """
    row = registry.dataset(name)
    known = (*row.wordings, *([BOTH] if both and row.wordings else []))
    if captions is not None and captions not in known:
        raise UsageError(
            f"data set {name} has no captions {captions!r}",
            expected="one of " + ", ".join(known) if known else "no such option: its captions have one wording only",
            do="What to do about missing captions is another option: missing_captions"
            if captions in CAPTION_POLICIES
            else f"See {row.card}.",
        )
    return captions or next(iter(known), None)


def check_masks(name: str) -> None:
    """Refuse to train or score a segmenter on a data set without lesion masks, as a `UsageError`."""
    row = registry.dataset(name)
    if not row.masks:
        raise UsageError(
            f"data set {name} has no lesion masks: by itself it can neither train nor score a segmenter",
            do="Use it for grounding" if "grounding" in row.tasks else "Use it beside a data set that has them",
        )


def check_kind(name: str, kind: str | None) -> str:
    """The kind of phrases of that name, ``None`` being a data set's first; that there is none is a `UsageError`."""
    kinds = registry.dataset(name).phrase_kinds
    if not kinds:
        able = ", ".join(sorted(row.name for row in registry.DATASETS.values() if row.phrase_kinds))
        raise UsageError(f"data set {name} does not say where a phrase is true", expected=f"one of {able}")
    if kind is not None and kind not in kinds:
        raise unknown_name(f"kind of phrases of {name}", kind, kinds)
    return kind or kinds[0]


def _known(kind: str, name: str, names: Sequence[T]) -> T:
    for known in names:
        if name == known:
            return known
    raise unknown_name(kind, name, map(str, names))


def naming(path: Path, read: Callable[[Path], T]) -> T:
    """Read a file of a data set; a refusal has the file's name before its words."""
    try:
        return read(path)
    except InputError as error:
        raise type(error)(
            f"{path.name}: {error.what}", came=error.came, expected=error.expected, do=error.do, code=error.code
        ) from error


def help_for(name: str) -> str:
    """What to do about a data set that is not laid out as its card says."""
    return f'See {registry.dataset(name).card} or run "textray data check {name} ROOT".'


def name_some(ids: Sequence[str]) -> str:
    """The first ids, and the number of the others."""
    rest = len(ids) - _SHOWN
    return ", ".join(ids[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def leaks(parts_of: Iterable[tuple[str, str]]) -> list[Problem]:
    """Problems of patients that are in several parts, from patient and part of each image."""
    parts: defaultdict[str, set[str]] = defaultdict(set)
    for patient, part in parts_of:
        parts[patient].add(part)
    return [
        Problem("E_PATIENT_LEAK", patient, f"is in {' and '.join(sorted(names))}")
        for patient, names in sorted(parts.items())
        if len(names) > 1
    ]


CAPTION_CODES = ("E_CAPTION_MISSING", "E_CAPTION_BLANK", "E_CAPTION_EXTRA", "E_CAPTION_WORDS")
"""Problems that a caption policy other than ``error`` lets pass."""


def fingerprint(names: Iterable[str]) -> str:
    """SHA-256 of a set of names, whatever order they come in."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()


def draw_order(names: Iterable[str], seed: int) -> list[str]:
    """Names, each once, by the hash of seed and name: the same order on every machine, whatever the folders' is."""
    return sorted(set(names), key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).hexdigest())


def draw_patients(patients: Iterable[str], share: float, seed: int) -> frozenset[str]:
    """Choose a share in [0, 1] of the patients, the same ones on every machine; at least one where there are two."""
    ordered = draw_order(patients, seed)
    wanted = round(share * len(ordered))
    return frozenset(ordered[: max(1, wanted) if len(ordered) > 1 else wanted])


def part_of(split: Split) -> PartName:
    """The published part that a split lies in."""
    return split if split in ("val", "test") else "train"


def keep_share(samples: Sequence[Sample], share: float, *, seed: int = 0) -> list[Sample]:
    """Keep a share, in (0, 1], of the samples' images, whole patients at a time; those that are kept stay in order.

    Groups (patients; an image without a patient id is a group of its own) are taken in the order of `draw_order` until
    the share of the images is reached, so a smaller share of the same seed is always contained in a larger one, and
    what is kept exceeds the share by less than one group. A share out of range is a `UsageError`.
    """
    if not 0 < share <= 1:
        raise UsageError("the share of the training data is out of range", came=share, expected="above 0, at most 1")
    sizes = Counter(sample.group for sample in samples)
    wanted, taken = share * len(samples) - 1e-9, 0  # a share such as 0.3 of 10 images is 3, not 3.0000000000000004
    kept = set()
    for group in draw_order(sizes, seed):
        if taken >= wanted:
            break
        kept.add(group)
        taken += sizes[group]
    return [sample for sample in samples if sample.group in kept]


def trained_without_report(facts: Mapping[str, Any]) -> bool | None:
    """Was this network trained with some reports left out? If not, its score in text mode ``none`` is meaningless.

    Samples without a report are those that lost theirs by ``report_dropout``, and those whose caption is missing or
    names no zone. A network that writes its own report goes without on the share of them that ``self_guided`` leaves.

    ``facts`` are what a checkpoint records of its training, or the provenance of a bundle; older ones lack
    ``self_guided`` and ``data.without_text``, and had none. ``None`` where nothing is recorded, as of weights that
    were not trained here.
    """
    data = facts.get("data")
    if not isinstance(data, Mapping) or (dropout := data.get("report_dropout")) is None:  # it may hold anything
        return None
    left_out = dropout > 0 or data.get("without_text", {}).get("fit", 0) > 0
    return bool(left_out and facts.get("self_guided", 0.0) < 1)
