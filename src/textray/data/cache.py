"""Decoded images and masks at the network's size, kept on disk so that each file is decoded once.

A cache is a folder named by the hash of every file's bytes and of the code and settings that resize them. It comes into
being under a temporary name and is renamed when complete, so a half-written one is never used and two processes may
build the same one at once. It may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import platformdirs
from numpy.typing import NDArray

from textray.data.base import Sample, name_some, naming
from textray.errors import DataError, DiskError, InputError, OutputError
from textray.preprocess import Preprocess

log = logging.getLogger(__name__)

ENVIRONMENT = "TEXTRAY_CACHE"
"""Environment variable that names another cache folder than the user's."""

_FORMAT = 1
_CODE = ("preprocess.py", *(f"io/{name}.py" for name in ("read", "raster", "dicom", "dicom_pixels", "decoder")))
_LABELS_CODE = ("data/masks.py", "io/outlines.py")
_FULL = 65535  # pixels are stored as 16-bit fixed point: half a step of error, half the size of float32
_STALE_SECONDS = 24 * 3600  # a temporary folder this old was left by a killed process


def cache_folder() -> Path:
    """Where caches lie: ``$TEXTRAY_CACHE``, else the user's cache folder."""
    given = os.environ.get(ENVIRONMENT)
    return Path(given) if given else platformdirs.user_cache_path("textray")


def write_once(folder: Path, write: Callable[[Path], object]) -> None:
    """Make a folder that is not there yet, whole or not at all; another process may do so at the same time.

    ``write`` fills the folder that it is given; what it writes must not depend on who calls it.
    """
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=folder.parent, suffix=".part"))
    try:
        write(part / folder.name)
        (part / folder.name).rename(folder)
    except OSError:
        if not folder.exists():  # otherwise another process was first, with the same files
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


class PixelCache:
    """Images and masks of a list of samples at one size, memory-mapped.

    The first use decodes every file; later uses look at sizes and times of the files only. Safe to hand to worker
    processes: the maps are opened anew there.

    Args:
        samples: What to hold, in this order. No masks are held where none has one.
        preprocess: Its ``resize`` and ``resize_mask`` are applied; normalisation is not.
        folder: Where to keep it; by default `cache_folder`.

    Raises:
        DataError: If a mask has another size than its image, or some have masks and some don't.
        InputError: If files cannot be read, or are in colour where ``preprocess`` is not, or the other way round; all
            of them are looked at, and each is logged where there are several.
        OutputError: If the folder cannot be written to.
        DiskError: If the disk is full.
    """

    def __init__(self, samples: Sequence[Sample], preprocess: Preprocess, folder: str | Path | None = None) -> None:
        self.size, self.colour = preprocess.size, preprocess.colour
        self._count, self._masked = len(samples), sum(sample.mask_path is not None for sample in samples)
        if self._masked not in (0, self._count):
            raise DataError("some images have masks and some don't", came=f"{self._masked} of {self._count} masks")
        base = (cache_folder() if folder is None else Path(folder)) / "pixels"
        try:
            base.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"the cache folder {base} cannot be made",
                came=error.strerror,
                do=f"Set {ENVIRONMENT} to another folder.",
            ) from error
        settings = _settings_digest(preprocess)
        seen = base / f"{_digest(samples, settings, _status)}.seen"
        try:
            content = seen.read_text(encoding="ascii", errors="replace").strip()
        except OSError:
            content = ""
        if not self._complete(base / content):
            content = _digest(samples, settings, _content)
            if not self._complete(base / content):
                self._build(samples, preprocess, base / content)
            _write(seen, content)
        self.path = base / content
        self._open()

    def __len__(self) -> int:
        return self._count

    def __getstate__(self) -> dict[str, Any]:
        """Leave the maps out: pickled, they would be whole arrays."""
        return {k: v for k, v in self.__dict__.items() if k not in {"_pixels", "_masks"}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def image(self, index: int) -> NDArray[np.float32]:
        """Pixels of a sample: what ``preprocess.resize`` gives, to within 1/65535.

        ``(h, w)`` float32 in [0, 1], or ``(h, w, 3)`` where ``preprocess`` is in colour.

        What bicubic interpolation overshoots is clipped here, as `textray.augment` would do next.
        """
        pixels: NDArray[np.float32] = self._pixels[index].astype(np.float32) * np.float32(1 / _FULL)
        return pixels

    def mask(self, index: int) -> NDArray[np.bool_]:
        """Lesion mask of a sample: ``(h, w)`` bool; an `IndexError` where there are none."""
        height, width = self.size
        return np.unpackbits(self._masks[index], count=height * width).reshape(height, width).view(np.bool_)

    @property
    def _shapes(self) -> tuple[tuple[int, ...], tuple[int, int]]:
        height, width = self.size
        return (self._count, height, width, *((3,) if self.colour else ())), (self._masked, (height * width + 7) // 8)

    def _open(self) -> None:
        pixels, masks = self._shapes
        self._masks = np.zeros(masks, np.uint8)
        if not self._count:  # an empty file cannot be mapped
            self._pixels = np.zeros(pixels, "<u2")
            return
        self._pixels = np.memmap(self.path / "pixels.u16", dtype="<u2", mode="r", shape=pixels)
        if self._masked:
            self._masks = np.memmap(self.path / "masks.bits", dtype=np.uint8, mode="r", shape=masks)

    def _complete(self, path: Path) -> bool:
        pixels, masks = self._shapes
        try:
            sizes = [(path / name).stat().st_size for name in ("pixels.u16", "masks.bits")]
        except OSError:
            return False
        return sizes == [2 * int(np.prod(pixels)), int(np.prod(masks))]

    def _build(self, samples: Sequence[Sample], preprocess: Preprocess, target: Path) -> None:
        _sweep(target.parent)
        started = time.monotonic()
        try:
            if target.exists() and not self._complete(target):
                log.warning("the cache %s is damaged and is built again", target)
                damaged = target.with_name(f"{target.name}.{secrets.token_hex(4)}.damaged.part")
                target.rename(damaged)
                shutil.rmtree(damaged, ignore_errors=True)
            write_once(target, lambda folder: _decode(samples, preprocess, folder))
        except OSError as error:
            raise DiskError(
                f"the cache in {target.parent} cannot be written",
                came=error.strerror,
                do=f"Free some space, or set {ENVIRONMENT} to another folder.",
            ) from error
        log.info("decoded %d samples into %s in %.1f s", len(samples), target, time.monotonic() - started)


def _decode(samples: Sequence[Sample], preprocess: Preprocess, folder: Path) -> None:
    """Write the files of a cache."""
    folder.mkdir()
    with (folder / "pixels.u16").open("wb") as pixels, (folder / "masks.bits").open("wb") as masks:
        refused: dict[Path, InputError] = {}
        for sample in samples:
            try:
                _append(sample, preprocess, pixels, masks)
            except InputError as error:
                refused[sample.image_path] = error
        refuse_files(refused)
        for stream in (pixels, masks):
            stream.flush()
            os.fsync(stream.fileno())
    settings = {"format": _FORMAT, "count": len(samples), **preprocess.to_dict()}
    _write(folder / "cache.json", json.dumps(settings, indent=2))


def refuse_files(refused: Mapping[Path, InputError]) -> None:
    """Refuse files of a training if there are any: one with its error, several with the first, each being logged."""
    if len(refused) == 1:
        raise next(iter(refused.values()))
    if refused:
        for path, error in refused.items():
            log.warning("%s %s: %s", error.code, path, error)
        raise DataError(
            f"{len(refused)} files cannot be used; each is named above",
            came=name_some([str(path) for path in refused]),
            do="Repair or remove them",
        )


def _append(sample: Sample, preprocess: Preprocess, pixels: BinaryIO, masks: BinaryIO) -> None:
    image = naming(sample.image_path, preprocess.read)
    if sample.mask_path is not None:
        masks.write(np.packbits(preprocess.resize_mask(sample.read_mask(image.grid.shape))).tobytes())
    resized = np.rint(np.clip(preprocess.resize(image.film), 0.0, 1.0) * _FULL).astype("<u2")
    pixels.write(resized.tobytes())


def _settings_digest(preprocess: Preprocess) -> str:
    """Hash of all that turns a file's bytes into cached pixels: way of resizing, and the code of it."""
    way: tuple[object, ...]
    way = (preprocess.size, preprocess.letterbox, preprocess.transpose, preprocess.interpolation)
    way += ("colour",) if preprocess.colour else ()
    digest = hashlib.sha256(f"{_FORMAT} {way}".encode())
    for name in _CODE:
        digest.update(files("textray").joinpath(name).read_bytes())
    return digest.hexdigest()


def _digest(samples: Sequence[Sample], settings: str, facts_of: Callable[[Path], bytes]) -> str:
    digest = hashlib.sha256(settings.encode())
    facts: dict[Path, bytes] = {}  # an export of annotations is the mask of every film
    for sample in samples:
        for path in (sample.image_path, sample.mask_path):
            if path is not None and path not in facts:
                facts[path] = facts_of(path)
            digest.update(b"" if path is None else facts[path])
        if sample.mask_labels is not None:
            digest.update(repr((sample.image_path.name, sample.mask_labels)).encode(errors="surrogateescape"))
    if any(sample.mask_labels is not None for sample in samples):
        for name in _LABELS_CODE:
            digest.update(files("textray").joinpath(name).read_bytes())
    return digest.hexdigest()[:32]


def _status(path: Path) -> bytes:
    status = path.stat()
    return f"{path.absolute()}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape")


def _content(path: Path) -> bytes:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def _write(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    part.write_text(text, encoding="ascii")
    part.replace(path)


def _sweep(base: Path) -> None:
    """Remove what killed processes left behind."""
    for left in base.glob("*.part"):
        try:
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        except OSError:
            log.debug("cannot remove %s", left)
