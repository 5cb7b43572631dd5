"""Pseudo-labels of the images without masks: probabilities on disk that each epoch moves towards predictions.

The labels after epoch n are one file, named by n. An epoch reads that file and writes the next one under a temporary
name; at its end the new file is flushed and renamed, and only then the checkpoint is written, which names n + 1. Files
that no checkpoint needs are removed when the next epoch begins. So a kill at any moment leaves the labels that the last
checkpoint was saved with, and an epoch that is run again reads what it read the first time.

Since an epoch reads only the labels that it began with, it does not matter in which order images come, nor whether one
comes twice; several processes of one machine, or of several with a shared disk, may write their own images' labels.

Sixteen bits of fixed point are stored: a half float near 1 has steps of 1/2048, at which an average with a beta of 0.99
stands still long before it has arrived.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from textray.augment import Geometry, Plane
from textray.errors import DiskError, ShapeError, UsageError
from textray.io.write import sync_folder

_FULL = 65535
_HALF = 32768  # the smallest stored value that means at least one half
_TEACHER = "teacher.bits"


def moved(old: Plane, predicted: Plane, way: Geometry, beta: float) -> Plane:
    """Move a pseudo-label P towards a prediction p, both ``(h, w)`` float32 in [0, 1]: beta P + (1 - beta) p.

    P is of the picture as it is, p of the picture as ``way`` has changed it; what that did not show keeps its P.
    """
    back, seen = way.back(predicted)
    return np.where(seen, np.float32(beta) * old + np.float32(1 - beta) * back, old)


class PseudoLabels:
    """Labels of ``count`` images on disk, memory-mapped; ``epoch`` counts what those being read have seen.

    The folder belongs to one training; ``size`` is height and width of each label.
    """

    def __init__(self, folder: Path, *, count: int, size: tuple[int, int]) -> None:
        self.folder, self.count, self.size, self.epoch = folder, count, size, 0
        self._now: NDArray[np.uint16] | None = None
        self._next: NDArray[np.uint16] | None = None

    def start(self, planes: Iterable[Plane]) -> None:
        """Write the teacher's labels, ``(h, w)`` float32 in [0, 1] in the images' order; one process does so for all.

        Raises:
            ShapeError: If one has another size, or there are more or fewer.
            DiskError: If they cannot be written.
        """
        part, written = self._part(0), 0
        with self._writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as labels, (self.folder / _TEACHER).open("wb") as bits:
                for plane in planes:
                    if plane.shape != self.size:
                        raise ShapeError("pseudo-label", came=plane.shape, expected=self.size)
                    stored = _store(plane)
                    labels.write(stored.tobytes())
                    bits.write(np.packbits(stored >= _HALF).tobytes())
                    written += 1
                for stream in (labels, bits):
                    stream.flush()
                    os.fsync(stream.fileno())
            if written != self.count:
                raise ShapeError("pseudo-labels", came=written, expected=self.count)
            part.replace(self._path(0))
            sync_folder(self.folder)

    def open(self, epoch: int) -> None:
        """Read the labels after an epoch: that of a checkpoint, or the next one after `finish` in one process.

        Raises:
            UsageError: If there are none, or they are of other images.
        """
        path = self._path(epoch)
        expected = 2 * self.count * self.size[0] * self.size[1]
        came = path.stat().st_size if path.is_file() else None
        if came != expected or not (self.folder / _TEACHER).is_file():
            raise UsageError(
                f"the pseudo-labels of epoch {epoch} are not in {self.folder}",
                came="no such file" if came is None else f"{path.name} of {came} bytes",
                expected=f"{path.name} of {expected} bytes, {self.count} images of {self.size[0]} x {self.size[1]}",
                do="Train with the data that the checkpoint was trained with, or start again with --fresh",
            )
        self._now, self._next, self.epoch = self._map(path, "r"), None, epoch

    def prepare(self, keep: int | None = None) -> None:
        """Copy these labels for the next epoch, and remove all others but those of the epoch ``keep``.

        One process does so for all, before any of them calls `begin`. ``keep`` is the epoch of the last checkpoint.

        Raises:
            DiskError: If the disk is full.
        """
        needed = {self._path(self.epoch), *([] if keep is None else [self._path(keep)])}
        for path in set(self.folder.glob("labels-*")) - needed:
            path.unlink(missing_ok=True)
        with self._writing():
            shutil.copyfile(self._path(self.epoch), self._part(self.epoch + 1))

    def begin(self) -> None:
        """Open the copy of `prepare` for writing."""
        self._next = self._map(self._part(self.epoch + 1), "r+")

    def read(self, index: int) -> Plane:
        """Label of an image before the epoch: ``(h, w)`` float32 in [0, 1]."""
        return self._reading[index].astype(np.float32) * np.float32(1 / _FULL)

    def write(self, index: int, plane: Plane) -> None:
        """Set an image's label for the next epoch, ``(h, w)`` float32 in [0, 1]; no other read sees it before."""
        if self._next is None:
            raise RuntimeError("labels are written between begin and finish")
        self._next[index] = _store(plane)

    def flush(self) -> None:
        """Flush this process's labels to the system; every process does so before one calls `finish`."""
        if isinstance(self._next, np.memmap):
            self._next.flush()

    def finish(self) -> None:
        """Put the next epoch's labels in place, flushed to disk; one process does so for all.

        Raises:
            DiskError: If they cannot be flushed.
        """
        part = self._part(self.epoch + 1)
        with self._writing():
            with part.open("rb") as stream:
                os.fsync(stream.fileno())
            part.replace(self._path(self.epoch + 1))
            sync_folder(self.folder)

    def scores(self, truth: Callable[[int], NDArray[np.bool_] | None]) -> dict[str, float]:
        """Compare the labels of the epoch, written so far, with those before, with the truth and with the teacher.

        ``truth`` gives the mask ``(h, w)`` of an image by its index, if there is one. The scores are the share of the
        pixels whose label ``changed`` in the epoch, and pooled Dice, labels at one half: ``dice_teacher`` against the
        teacher's labels, ``dice_truth`` against the masks, if there are any.
        """
        latest = self._reading if self._next is None else self._next
        height, width = self.size
        bits = np.fromfile(self.folder / _TEACHER, np.uint8).reshape(self.count, -1)
        changed = 0
        true, first, any_truth = np.zeros(2), np.zeros(2), False  # pixels in common, and pixels of both
        for index in range(self.count):
            label = latest[index] >= _HALF
            changed += int((label != (self._reading[index] >= _HALF)).sum())
            teacher = np.unpackbits(bits[index], count=height * width).reshape(height, width).view(np.bool_)
            first += _overlap(label, teacher)
            mask = truth(index)
            if mask is not None:
                any_truth = True
                true += _overlap(label, mask)
        scores = {"changed": changed / (self.count * height * width), "dice_teacher": _dice(first)}
        return scores | ({"dice_truth": _dice(true)} if any_truth else {})

    @property
    def _reading(self) -> NDArray[np.uint16]:
        if self._now is None:
            raise RuntimeError("labels are read after open")
        return self._now

    def _path(self, epoch: int) -> Path:
        return self.folder / f"labels-{epoch:04d}.u16"

    def _part(self, epoch: int) -> Path:
        return self.folder / f"labels-{epoch:04d}.part"

    def _map(self, path: Path, mode: Literal["r", "r+"]) -> NDArray[np.uint16]:
        return np.memmap(path, dtype="<u2", mode=mode, shape=(self.count, *self.size))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            size = 2 * self.count * self.size[0] * self.size[1] / 1e6
            raise DiskError(
                f"the pseudo-labels in {self.folder} cannot be written",
                came=error.strerror,
                do=f"Free some space: two files of {size:.0f} MB are kept.",
            ) from error


def _store(plane: Plane) -> NDArray[np.uint16]:
    return np.rint(np.clip(plane, 0.0, 1.0) * _FULL).astype("<u2")


def _overlap(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> tuple[int, int]:
    """Pixels in common, and pixels of both."""
    return int((first & second).sum()), int(first.sum() + second.sum())


def _dice(counts: NDArray[np.float64] | Sequence[float]) -> float:
    """2 common / (both), 1 where both are empty."""
    common, both = counts
    return 2 * float(common) / float(both) if both else 1.0
