"""Seconds of every epoch of a training, kept over interruptions."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from textray.io.write import write_json

NAME = "clock.json"


class EpochClock(Callback):
    """Writes ``clock.json`` into the run's folder after each epoch: seconds by epoch, and the steps so far.

    An epoch that was cut off is made again, and counts once.
    """

    def __init__(self) -> None:
        self._started = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write how long the epoch took, its validation included."""
        path = Path(trainer.default_root_dir) / NAME
        known = read_clock(path.parent)
        seconds = {epoch: t for epoch, t in known["seconds"].items() if int(epoch) < trainer.current_epoch}
        seconds[str(trainer.current_epoch)] = round(time.perf_counter() - self._started, 2)
        write_json(path, {"seconds": seconds, "steps": trainer.global_step})


def read_clock(run: Path) -> dict[str, Any]:
    """Seconds by epoch and steps of a run; nothing where it has not ended an epoch."""
    try:
        known: dict[str, Any] = json.loads((run / NAME).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {"seconds": {}, "steps": 0}
    return known
