"""The real nnU-Net beside the others: a data set in its raw layout, and the scores of what it predicts.

nnU-Net plans, trains and predicts by its own commands (``nnUNetv2_plan_and_preprocess``, ``nnUNetv2_train``,
``nnUNetv2_predict``); TextRay runs none of them. It gives the same films and the same cut, and measures the masks that
come back as `textray evaluate` measures others.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PILImage

from textray import __version__, registry
from textray.data.base import Sample, check_masks, check_split, fingerprint, name_some, open_reader
from textray.errors import DataError, UsageError
from textray.evaluate.cases import open_case
from textray.evaluate.page import cell
from textray.io.read import read, read_mask
from textray.io.write import atomic_write, check_writable, write_json
from textray.metrics import intervals
from textray.metrics.segmentation import SCORES, case_columns, check_protocol, count
from textray.reproduce import Order, read_pairs

NUMBER = 501
"""nnU-Net's number of the data set; those below 500 are its own."""
SHOWN = ("dice_pooled", "iou_pooled", "dice_per_image", "iou_per_image")


def export(order: Order) -> int:
    """Write a data set in nnU-Net's raw layout; images of ``order.split`` are what it shall predict. Exit code 0.

    ``nnUNet_raw/Dataset501_NAME`` holds `fit` and `inner` for training, and ``nnUNet_preprocessed/Dataset501_NAME`` the
    one fold with `inner` for validation. Films are 8-bit PNGs on their own grid, masks PNGs of 0 and 1.

    Raises:
        UsageError: If there is not one data set with masks, or the split is one that nnU-Net trains on.
        DataError: If a film or a mask is refused.
    """
    data, reader = _reader(order)
    split = check_split(order.split)
    if split not in ("val", "test"):
        raise UsageError("nnU-Net shall predict films that it does not train on", came=split, expected="val or test")
    parts: dict[str, list[Sample]] = {name: reader.samples(name) for name in ("fit", "inner", split)}
    name = f"Dataset{NUMBER}_{data}"
    raw, prepared = order.out / "nnUNet_raw" / name, order.out / "nnUNet_preprocessed" / name
    for folder in (*(raw / sub for sub in ("imagesTr", "labelsTr", "imagesTs")), prepared):
        folder.mkdir(parents=True, exist_ok=True)
        check_writable(folder)
    for part, samples in parts.items():
        for sample in samples:
            _write_case(sample, raw, trains=part != split, colour=registry.dataset(data).colour)
        order.tell(f"{part}: {len(samples)} films")
    channels = ("R", "G", "B") if registry.dataset(data).colour else ("film",)
    facts = {
        "channel_names": {str(number): channel for number, channel in enumerate(channels)},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": len(parts["fit"]) + len(parts["inner"]),
        "file_ending": ".png",
    }
    write_json(raw / "dataset.json", facts)
    folds = [{"train": _ids(parts["fit"]), "val": _ids(parts["inner"])}]
    atomic_write(prepared / "splits_final.json", json.dumps(folds, indent=1).encode())
    order.tell(f"Set nnUNet_raw and nnUNet_preprocessed to the folders in {order.out}, then run, each with {NUMBER}:")
    order.tell("nnUNetv2_plan_and_preprocess, nnUNetv2_train (configuration 2d, fold 0), nnUNetv2_predict on imagesTs")
    return 0


def score(order: Order) -> int:
    """Score folders of predicted masks, ``LABEL=FOLDER`` each, on a split; writes ``nnunet-score.json``. Exit code 0.

    Raises:
        UsageError: If there is not one data set with masks, or no folder.
        DataError: If a prediction is missing, refused or of another size.
    """
    data, reader = _reader(order)
    folders = read_pairs(order.models, "LABEL=FOLDER with nnU-Net's predictions")
    if not folders:
        raise UsageError(
            "nnunet-score needs predictions", do="Add --model LABEL=FOLDER, the folder of the predicted PNGs"
        )
    samples = reader.samples(check_split(order.split))
    check_writable(order.out)
    rows = {label: _scores(samples, Path(folder)) for label, folder in folders.items()}
    values: dict[str, Any] = {
        "schema": "textray.nnunet-score/1",
        "textray": __version__,
        "data": {"name": data, "split": order.split, "images": len(samples), "ids_sha256": fingerprint(_ids(samples))},
        "patients": len({sample.group for sample in samples}),
        "rows": rows,
    }
    write_json(order.out / "nnunet-score.json", values)
    for label, scores in rows.items():
        order.tell(f"{label}: " + ", ".join(f"{name} {cell(scores[name])}" for name in SHOWN))
    return 0


def _reader(order: Order) -> tuple[str, Any]:
    """The one data set of a command line, which must have masks."""
    if len(order.roots) != 1:
        raise UsageError(
            f"{order.name} needs one data set", came=", ".join(order.roots) or "none", do="Add --root NAME=DIR"
        )
    ((data, root),) = order.roots.items()
    check_masks(data)
    return data, open_reader(data, root)


def _ids(samples: Sequence[Sample]) -> list[str]:
    return [sample.image_id for sample in samples]


def _write_case(sample: Sample, raw: Path, *, trains: bool, colour: bool) -> None:
    """Write the film, and its mask if nnU-Net trains on it; files that are there stay."""
    film = raw / ("imagesTr" if trains else "imagesTs") / f"{sample.image_id}_0000.png"
    label = raw / "labelsTr" / f"{sample.image_id}.png"
    if film.is_file() and (label.is_file() or not trains):
        return
    image, mask = open_case(sample, read)
    if (image.pixels.ndim == 3) != colour:
        raise DataError(f"{sample.image_id} is {'grey' if colour else 'in colour'}", expected="what its data set is")
    if trains:
        atomic_write(label, _png(mask.astype(np.uint8)))
    atomic_write(film, _png((image.pixels * 255).round().astype(np.uint8)))


def _png(values: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    stream = io.BytesIO()
    PILImage.fromarray(values).save(stream, "PNG")
    return stream.getvalue()


def _scores(samples: Sequence[Sample], folder: Path) -> dict[str, dict[str, float | None]]:
    """Scores of predictions named by image, with intervals over patients."""
    missing = [sample.image_id for sample in samples if not (folder / f"{sample.image_id}.png").is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(samples)} films have no prediction",
            came=f"none for {name_some(missing)}",
            expected="a PNG named by image, as nnUNetv2_predict writes them",
        )
    counts = []
    for sample in samples:
        predicted, truth = read_mask(folder / f"{sample.image_id}.png"), sample.read_mask()
        if predicted.shape != truth.shape:
            raise DataError(
                f"the prediction of {sample.image_id} has another size", came=predicted.shape, expected=truth.shape
            )
        counts.append(count(predicted, truth))
    columns = case_columns(np.array(counts, dtype=np.int64))
    scores = intervals.bootstrap(columns, [sample.group for sample in samples], SCORES)
    check_protocol({name: interval.value for name, interval in scores.items()})
    return intervals.to_dicts(scores)
