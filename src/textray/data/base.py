"""What every data set reader gives: samples, shares of them, and the result of a check. Free of torch."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from textray import registry
from textray.errors import DataError, InputError, UsageError
from textray.io.read import read_mask
from textray.records import Report

Split = Literal["train", "val", "test", "inner", "fit"]
SPLITS: tuple[Split, ...] = ("train", "val", "test", "inner", "fit")
"""`inner` and `fit` part `train`: `inner` selects (stopping, checkpoint, thresholds), `fit` is learnt from."""

CaptionPolicy = Literal["error", "skip", "text-free"]
CAPTION_POLICIES: tuple[CaptionPolicy, ...] = ("error", "skip", "text-free")
"""What to do with an image whose caption is missing, blank or not understood."""

_SHOWN = 10
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image, its mask and its report, on disk.

    Attributes:
        image_id: Name of the image without its extension; unique within a data set.
        image_path: The image.
        mask_path: The lesion mask on the same pixel grid, ``None`` where nobody has drawn one.
        report: What is written about the image; ``report.text`` is ``None`` where there are no words.
        patient_id: Pseudonym of the patient, ``None`` where the data set does not tell.
        split: The split it was asked for under.
    """

    image_id: str
    image_path: Path
    mask_path: Path | None
    report: Report
    patient_id: str | None
    split: Split

    @property
    def group(self) -> str:
        """What a bootstrap draws: the patient, or the image itself where the patient is not known."""
        return self.patient_id or self.image_id

    def read_mask(self) -> NDArray[np.bool_]:
        """Read the lesion mask, ``(H, W)`` bool.

        Raises:
            DataError: If there is none.
            InputError: If the file cannot be read.
        """
        if self.mask_path is None:
            raise DataError(f"{self.image_id} has no mask", expected="an image whose lesions have been drawn")
        return naming(self.mask_path, read_mask)


class Reader(Protocol):
    """What a data set's reader can do."""

    def samples(self, split: Split) -> list[Sample]:
        """Samples of a split, always in the same order."""
        ...

    def check(self) -> CheckResult:
        """Everything that is wrong with the copy on disk."""
        ...


class FreeCaptions(Reader, Protocol):
    """A reader whose captions are told to networks as they stand."""

    def captions(self) -> tuple[str, ...]:
        """Every caption on disk, once, sorted: all that a network can be told in use."""
        ...


def open_reader(name: str, root: str | Path | None, *, captions: str = "error", split_by: str | None = None) -> Reader:
    """Open a registered data set.

    Args:
        name: Registry name.
        root: Its folder; ``None`` for one that is drawn, such as ``phantom``.
        captions: What to do with an image without a usable caption.
        split_by: One of the row's protocols; ``None`` takes its first, or the only cut there is.

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
    if split_by is None:
        return cast(Reader, registry.load(row.path)(root, captions=captions))
    if split_by not in row.protocols:
        raise UsageError(
            f"data set {name} cannot be cut by {split_by!r}",
            expected="one of " + ", ".join(row.protocols) if row.protocols else "no such option: it has one cut only",
            do=f"See {row.card}.",
        )
    return cast(Reader, registry.load(row.path)(root, captions=captions, split_by=split_by))


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong with a data set on disk.

    Attributes:
        code: Stable code, ``E_...`` where training refuses it and ``W_...`` where it is only to be known.
        path: The file, relative to the data set's root.
        message: One plain sentence.
    """

    code: str
    path: str
    message: str

    @property
    def fatal(self) -> bool:
        """True where reading for training refuses it."""
        return self.code.startswith("E_")


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """What a check of a data set found.

    Attributes:
        name: Registry name of the data set.
        root: The folder that was checked.
        counts: What was counted, by plain names, in the order to print.
        problems: Everything found, errors and warnings.
    """

    name: str
    root: Path
    counts: dict[str, int | float | str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    @property
    def ok(self) -> bool:
        """True where nothing keeps the data from being trained on; warnings are allowed."""
        return not any(problem.fatal for problem in self.problems)

    def lines(self, limit: int = 20) -> list[str]:
        """Lines to print: counts first, then each problem, at most ``limit`` of one code.

        Args:
            limit: Problems shown of each code; the rest is counted.
        """
        lines = [f"{name}: {value}" for name, value in self.counts.items()]
        for code, found in sorted(Counter(problem.code for problem in self.problems).items()):
            shown = [problem for problem in self.problems if problem.code == code][:limit]
            lines.append(f"{code} ({found})")
            lines += [f"  {problem.path}: {problem.message}" for problem in shown]
            if found > len(shown):
                lines.append(f"  ... and {found - len(shown)} more")
        errors = sum(problem.fatal for problem in self.problems)
        lines.append(f"{errors} errors, {len(self.problems) - errors} warnings")
        return lines


def check_split(split: str) -> Split:
    """The split of that name.

    Raises:
        UsageError: If there is none.
    """
    for known in SPLITS:
        if split == known:
            return known
    raise UsageError(f"unknown split {split!r}", expected="one of " + ", ".join(SPLITS))


def check_captions(policy: str) -> CaptionPolicy:
    """The caption policy of that name.

    Raises:
        UsageError: If there is none.
    """
    for known in CAPTION_POLICIES:
        if policy == known:
            return known
    raise UsageError(f"unknown caption policy {policy!r}", expected="one of " + ", ".join(CAPTION_POLICIES))


def naming(path: Path, read: Callable[[Path], T]) -> T:
    """Read a file of a data set; a refusal names the file, which readers leave to whoever lists files.

    Raises:
        InputError: What ``read`` raised, with the file's name before its words.
    """
    try:
        return read(path)
    except InputError as error:
        raise type(error)(
            f"{path.name}: {error.what}", came=error.came, expected=error.expected, do=error.do, code=error.code
        ) from error


def name_some(ids: Sequence[str]) -> str:
    """The first ids in words, and how many more there are."""
    rest = len(ids) - _SHOWN
    return ", ".join(ids[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def refuse_shared_patients(first: Iterable[str | None], second: Iterable[str | None], names: str) -> None:
    """Make sure that no patient is in two splits.

    Args:
        first: Patient ids of one split; ``None`` is nobody.
        second: Patient ids of the other.
        names: The two splits in words, for the message.

    Raises:
        DataError: If a patient is in both; it lists the ids.
    """
    shared = sorted({p for p in first if p} & {p for p in second if p})
    if shared:
        raise DataError(
            f"{len(shared)} patients are in both {names}",
            came=name_some(shared),
            expected="every patient in one split only",
            do="Restore the published order of the caption table, or move the patients' rows to one side.",
        )


CAPTION_CODES = ("E_CAPTION_MISSING", "E_CAPTION_BLANK", "E_CAPTION_EXTRA", "E_CAPTION_WORDS")
"""Problems that a caption policy other than ``error`` lets pass."""


def refuse(problems: Sequence[Problem], name: str, root: Path) -> None:
    """Refuse a data set that has problems; does nothing where there are none.

    Args:
        problems: Those that count.
        name: Registry name of the data set.
        root: Its folder.

    Raises:
        DataError: If there is one; it counts them by code and names the first.
    """
    if problems:
        codes = ", ".join(f"{code} ({n})" for code, n in Counter(p.code for p in problems).items())
        raise DataError(
            f"{len(problems)} problems in the data under {root}: {codes}",
            came=name_some([f"{p.path} {p.message}" for p in problems]),
            expected="images, masks and captions that pair up",
            do=f'Run "textray data check {name} ROOT" for the whole list'
            + ("; captions: skip or text-free lets some of it pass" if problems[0].code in CAPTION_CODES else ""),
        )


def fingerprint(names: Iterable[str]) -> str:
    """SHA-256 of a set of names, whatever order they come in."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()


def draw_patients(patients: Iterable[str], share: float, seed: int) -> frozenset[str]:
    """Choose a share of the patients, the same ones on every machine.

    Patients are ordered by the hash of seed and id, so neither folder order nor a random generator's version matters.

    Args:
        patients: Ids; repeated ones count once.
        share: Share to choose, in [0, 1]; at least one patient is chosen where there are two.
        seed: Another seed gives other patients.

    Returns:
        The chosen ids.
    """
    ordered = sorted(set(patients), key=lambda p: hashlib.sha256(f"{seed}:{p}".encode()).hexdigest())
    wanted = round(share * len(ordered))
    if len(ordered) > 1:
        wanted = max(1, wanted)
    return frozenset(ordered[:wanted])


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


def trained_without_report(facts: Mapping[str, Any]) -> bool | None:
    """Whether the training of a network that reads text left reports out, and let it go without.

    Samples without a report are those that lost theirs by ``report_dropout``, and those whose caption is missing or
    names no zone. A network that writes its own report is silent on the share of them that ``self_guided`` leaves.

    Args:
        facts: What a checkpoint says of its training, or the provenance of a bundle; without ``self_guided`` and
            ``data.without_text``, which older ones lack, there were none.

    Returns:
        ``None`` where the facts do not tell, as of weights that were not trained here.
    """
    data = facts.get("data")
    if not isinstance(data, Mapping):  # a provenance may hold anything
        return None
    dropout = data.get("report_dropout")
    if dropout is None:
        return None
    left_out = dropout > 0 or data.get("without_text", {}).get("fit", 0) > 0
    return bool(left_out and facts.get("self_guided", 0.0) < 1)
