"""`textray train`: LightningCLI with TextRay's defaults.

``--config`` takes a path or the name of a recipe inside the package (an unknown name lists them); several are merged in
order, later ones win, and single values are set with ``--data.root DIR`` and the like. ``task`` is a value like any
other, but it decides which others there are, so it is read before the rest.
"""

from __future__ import annotations

import logging
import multiprocessing.queues
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.resources import files
from itertools import count
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
import yaml
from filelock import FileLock, Timeout
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping, LambdaCallback, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger

from textray.data.grounding import GroundingData
from textray.data.segmentation import SegmentationData
from textray.errors import OutputError, TextRayError, UsageError, unknown_name
from textray.inference.results import clean
from textray.io.write import check_writable, refuse_other, write_json
from textray.provenance import git_state, versions
from textray.training.checkpoints import RUN_FILE, last_checkpoint, run_facts
from textray.training.contrastive import ContrastiveTask
from textray.training.grounding import GroundingTask
from textray.training.segmentation import SegmentationTask
from textray.training.semi import SemiSupervisedTask
from textray.training.task import Task

logger = logging.getLogger(__name__)

_GOES_ON = "the same command goes on from the last complete epoch"

TaskName = Literal["segmentation", "semi_supervised", "contrastive", "grounding"]
TASKS: dict[TaskName, type[Task]] = {
    "segmentation": SegmentationTask,
    "semi_supervised": SemiSupervisedTask,
    "contrastive": ContrastiveTask,
    "grounding": GroundingTask,
}


def recipes() -> dict[str, Path]:
    """Recipes inside the package: name such as ``data/qata_cov19`` → file."""
    folder = Path(str(files("textray") / "configs"))
    found = {str(p.relative_to(folder).with_suffix("")): p for p in sorted(folder.rglob("*.yaml"))}
    del found["reproduce/tables"]  # what `textray reproduce` makes of the recipes
    return found


def find_recipe(name: str) -> str:
    """Path of a configuration: a file as it is, otherwise a recipe by name.

    Raises:
        UsageError: If it is neither; lists the recipes and the nearest.
    """
    if Path(name).is_file():
        return name
    known = recipes()
    key = name.removesuffix(".yaml")
    if key not in known:
        raise unknown_name("recipe", name, known)
    return str(known[key])


class TrainCLI(LightningCLI):
    """LightningCLI with the checkpoints, logs and early stopping of every training of TextRay."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Declare the callbacks that can be configured, and link the two seeds."""
        parser.add_argument("--task", type=TaskName, default="segmentation", help="What is trained for.")
        monitor, mode = cast(type[Task], self._model_class).selects
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.add_lightning_class_args(EarlyStopping, "stopping")
        parser.set_defaults(
            {
                "checkpoint.monitor": monitor,
                "checkpoint.mode": mode,
                "checkpoint.save_top_k": 1,
                "checkpoint.filename": "best",
                "checkpoint.auto_insert_metric_name": False,
                "checkpoint.enable_version_counter": False,
                "stopping.monitor": "inner/loss",
                "stopping.patience": 20,
            }
        )
        parser.link_arguments("seed_everything", "data.seed")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:  # noqa: ANN401 -- Lightning's signature
        """Make the trainer; an accelerator, strategy or number of devices that is not there is a `UsageError`."""
        try:
            return super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, ImportError, RuntimeError, ValueError) as error:
            raise _refusal(error) from error


@dataclass(frozen=True, kw_only=True)
class Order:
    """Command line of ``textray train``, read."""

    recipes: tuple[str, ...]
    """Names or files given with ``--config``, in order."""
    out: Path
    fresh: bool
    task: TaskName
    rest: tuple[str, ...]
    """Words for LightningCLI, with each recipe's path."""


def read_order(arguments: Sequence[str]) -> Order:
    """Split TextRay's own options from LightningCLI's.

    Raises:
        UsageError: If no configuration is named, one is unknown, or an option lacks its value.
    """
    words = list(arguments)
    out, rest, names, fresh, task, network = None, [], [], False, "segmentation", False
    while words:
        word = words.pop(0)
        key, equals, value = word.partition("=")
        if word == "--fresh":
            fresh = True
        elif key in {"--config", "-c", "--out"}:
            if not equals and not words:
                raise UsageError(f"{key} needs a value")
            value = value if equals else words.pop(0)
            if key == "--out":
                out = Path(value)
            else:
                names.append(value)
                path = find_recipe(value)
                named, has_network = _look_into(path)
                task, network = named or task, network or has_network
                rest.append(f"--config={path}")
        elif key == "--task" and (equals or words):
            task = value if equals else words.pop(0)
            rest.append(f"--task={task}")
        else:
            network = (
                network or key == "--model" or key.startswith(("--model.network", "--print_config", "--help", "-h"))
            )
            rest.append(word)
    if not names and not {"--help", "-h", "--print_config"} & set(rest):
        raise UsageError(
            "a training needs a configuration", expected="--config with a file or one of " + ", ".join(recipes())
        )
    if task not in TASKS:
        raise unknown_name("task", task, get_args(TaskName))
    if names and not network:
        raise UsageError(
            "the configuration names no network",
            came=" ".join(names),
            expected="one with model.network among them, such as --config mmi_unet_lite",
            do="A recipe that holds only what differs, such as a later stage, comes after the one that it is for",
        )
    run = out or Path("textray-runs") / (Path(names[-1]).stem if names else "run")
    return Order(recipes=tuple(names), out=run, fresh=fresh, task=task, rest=tuple(rest))


def _look_into(path: str) -> tuple[str | None, bool]:
    """Task of a configuration, and whether it names a network; a file that is no YAML is left to the parser."""
    try:
        config = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return None, True
    if not isinstance(config, dict):
        return None, True
    task, model = config.get("task"), config.get("model")
    network = isinstance(model, str) or (isinstance(model, dict) and "network" in model)
    return None if task is None else str(task), network


def main(arguments: Sequence[str]) -> None:
    """Run a training.

    Args:
        arguments: Words after ``textray train``: ``--config NAME_OR_FILE`` (repeatable), ``--out DIR`` (the run's
            folder, default ``textray-runs/NAME``), ``--fresh`` (do not resume), and LightningCLI's own options.

    Raises:
        UsageError: If a configuration is unknown, the machine lacks what it asks for, or the run's folder holds
            checkpoints of another network or of other data, or none that can be read.
        OutputError: If another training is at work in the run's folder, or its ``run.json`` is of something else.
    """
    order = read_order(arguments)
    run, folder = order.out, order.out / "checkpoints"
    torch.set_flush_denormal(True)  # denormal numbers slow a CPU down a hundredfold
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the vocabulary is used before workers fork
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning still calls what has been renamed
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)  # advertisements
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")  # these are what came after `train`
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")  # one worker is enough on two cores
    # Lightning's own save_last waits until the monitored score improves; a resume must not.
    every_epoch = ModelCheckpoint(
        dirpath=folder, filename="last", save_on_train_epoch_end=True, enable_version_counter=False
    )
    cli = TrainCLI(
        TASKS[order.task],
        GroundingData if order.task == "grounding" else SegmentationData,
        run=False,
        args=list(order.rest),
        parser_kwargs={"prog": "textray train"},
        seed_everything_default=0,
        save_config_kwargs={"overwrite": True},
        trainer_defaults={
            "default_root_dir": str(run),
            "logger": [],  # a list, so that --trainer.logger+=TensorBoardLogger adds to it
            "callbacks": [LearningRateMonitor("epoch"), every_epoch],
            "plugins": [{"class_path": "textray.training.checkpoints.AtomicCheckpointIO"}],
            "max_epochs": 100,
            "log_every_n_steps": 1,
        },
    )
    table = CSVLogger(run, name="log", flush_logs_every_n_steps=1)  # always, beside any other
    cli.trainer.loggers = [table, *(other for other in cli.trainer.loggers if not isinstance(other, CSVLogger))]
    for callback in cli.trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint):
            callback.dirpath = str(folder)
    check_writable(run)
    with _alone(run) if cli.trainer.is_global_zero else nullcontext():
        _fit(cli, order)


@contextmanager
def _alone(run: Path) -> Iterator[None]:
    """Hold the folder of a training; the system lets go of it when the process ends, however it ends.

    Raises:
        OutputError: If another training holds it, or its ``run.json`` is of something else.
    """
    refuse_other(run / RUN_FILE, lambda path: run_facts(path) is not None, "training")
    lock = FileLock(run / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise OutputError(
            f"another training is at work in {run}", do="Wait until it ends, or name another folder with --out"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _fit(cli: TrainCLI, order: Order) -> None:
    """Train in a folder that no other training holds, from its last checkpoint on."""
    run, folder = order.out, order.out / "checkpoints"
    if cli.trainer.is_global_zero:
        clean(folder)
        if order.fresh and folder.exists():  # kept, but out of the way: a later run must not resume from them
            kept = next(p for n in count(1) if not (p := run / f"checkpoints-{n}").exists())
            folder.rename(kept)
            if (run / RUN_FILE).exists():
                (run / RUN_FILE).rename(kept / RUN_FILE)
    checkpoint = last_checkpoint(folder)
    if checkpoint is not None:
        logger.warning("Resuming from %s; --fresh starts again", checkpoint)
    known = recipes()
    facts = {
        "recipe": [name if name.removesuffix(".yaml") in known else Path(name).name for name in order.recipes],
        "arguments": order.rest,
        "seed": cli.config.seed_everything,
        "resumed": checkpoint is not None,
        "git": git_state(Path(__file__).parent.parent),
        "versions": versions(),
    }
    # Not before the checkpoint is read: a training that may not resume from it leaves the facts of the one before.
    cast(Any, cli.trainer).callbacks.append(LambdaCallback(on_fit_start=lambda *_: write_json(run / RUN_FILE, facts)))
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(_end_worker)  # type: ignore[attr-defined]
    try:
        cli.trainer.ckpt_path = checkpoint  # not as an argument of fit: tasks read it from the trainer
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    except (Exception, SystemExit) as error:
        ended = 143 if cli.trainer.received_sigterm else 130 if isinstance(error.__context__, KeyboardInterrupt) else 0
        if ended:
            done = cli.trainer.current_epoch
            logger.warning("Interrupted after %d complete epochs; %s", done, _GOES_ON)
            sys.exit(ended)
        if (fault := _explain(error, run)) is not None:
            raise fault from error
        raise


def _end_worker(error: Exception, _: object) -> None:
    """End a process that cannot send its batch, in place of Python's note: the training would wait for it for ever."""
    logger.error("A batch cannot be sent: %s", error)
    if multiprocessing.parent_process() is not None:
        os._exit(1)


def _explain(error: BaseException, run: Path) -> TextRayError | None:
    """The error for a fault of the machine or the configuration that ended a training; ``None`` for any other."""
    text = str(error)
    if "loading state_dict" in text:
        return UsageError(
            f"the checkpoint in {run} is of another network than the configuration",
            came=text.splitlines()[1].strip()[:200],
            do="Name another --out, or start again with --fresh",
        )
    if isinstance(error, MisconfigurationException) or text.startswith("Early stopping conditioned on metric"):
        return _refusal(error)
    if text.startswith("Expected more than 1 value per channel"):
        return UsageError(
            "a batch of one image leaves a norm with one value",
            came=text.rpartition("size ")[2],
            do="Raise data.batch_size or data.size, or add images",
        )
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        what, do, code = "the memory is full", "Lower data.batch_size or data.size", "E_MEMORY"
    elif text.startswith("DataLoader worker"):
        what, code = "a process that prepares batches ended, most often because the memory was full", "E_WORKER"
        do = "Free some memory, allow larger files (ulimit -f), or lower data.workers"
    else:
        return None
    return TextRayError(
        what, came=text.splitlines()[0][:200].rstrip(". ") if text else None, do=f"{do}; {_GOES_ON}", code=code
    )


def _refusal(error: BaseException) -> UsageError:
    """The error for what Lightning refuses."""
    return UsageError(
        "the training cannot run as configured on this machine",
        came=str(error).splitlines()[0][:300],
        do="Choose what is there, such as --trainer.accelerator cpu",
    )
