"""Checkpoints that a kill cannot spoil."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from textray.io.write import sync_folder

logger = logging.getLogger(__name__)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint under a temporary name, flushes it to disk, then renames it."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:  # noqa: ANN401 -- Lightning's signature
        """Write ``checkpoint`` to ``path``; a file that was there stays whole until the new one is."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            with part.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
            sync_folder(target.parent)
        finally:
            part.unlink(missing_ok=True)


def last_checkpoint(folder: Path) -> Path | None:
    """Checkpoint to go on from: ``last.ckpt``, which is written at each epoch's end, or ``None``.

    A file that a dying disk cut off is passed over with a warning; then the newest of the others serves.
    """
    found = sorted(folder.glob("*.ckpt"), key=lambda p: (p.name == "last.ckpt", p.stat().st_mtime), reverse=True)
    for path in found:
        try:
            torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # whatever a half file makes torch say
            logger.warning("W_CHECKPOINT: %s cannot be read (%s); trying another", path, type(error).__name__)
        else:
            return path
    return None
