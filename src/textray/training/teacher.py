"""The teacher of a semi-supervised training: an earlier training that must fit it in every respect."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from textray.data import silence
from textray.data.module import SegmentationData
from textray.errors import UsageError
from textray.models.base import Network
from textray.preprocess import Preprocess
from textray.training.initial import read_network, start_from

logger = logging.getLogger(__name__)


def load_teacher(
    network: Network, path: Path, data: SegmentationData, *, text_encoder: str | None, max_tokens: int
) -> None:
    """Give a network the teacher's tensors, all of them.

    Args:
        network: Changed in place.
        path: The teacher's checkpoint.
        data: What the training learns from. A teacher that learnt from other images than those labelled in it is
            warned of: it may have seen masks that the training may not; so is one that has not learnt to go without
            reports, where some images come without.
        text_encoder: That of the training.
        max_tokens: Its longest report.

    Raises:
        UsageError: If there is no such checkpoint, or it is of another network, or read pictures or reports otherwise;
            or if the network needs a report and some images have none.
    """
    missing = sorted(set(network.state_dict()) - set(read_network(path)))
    if missing:
        raise UsageError(
            f"{path.name} is of another network",
            came=f"nothing for {', '.join(missing[:5])}",
            expected="its own tensors",
        )
    start_from(network, path)
    facts = torch.load(path, map_location="cpu", weights_only=True).get("textray", {})
    about = facts.get("data", {})
    came = {
        "text_encoder": facts.get("text_encoder"),
        "max_tokens": facts.get("max_tokens"),
        "preprocess": Preprocess.from_dict(about["preprocess"]).to_dict() if "preprocess" in about else None,
    }
    expected = {"text_encoder": text_encoder, "max_tokens": max_tokens, "preprocess": data.preprocess.to_dict()}
    other = [name for name in expected if came[name] != expected[name]]
    if other:
        raise UsageError(
            "the teacher reads pictures or reports otherwise than this training",
            came=", ".join(f"{name} {came[name]}" for name in other),
            expected=", ".join(f"{name} {expected[name]}" for name in other),
            do="Train teacher and student with the same text encoder and data settings",
        )
    silent = data.sets["fit"].silent_unlabelled
    if silent and network.needs_text:
        raise UsageError(
            "this network needs a report with every image",
            came=f"{silent} images without masks that have none",
            expected="a report of each that names an infected zone",
            do="Leave these images out, or take a form of the network that goes without",
        )
    if silent and text_encoder is not None and silence.learnt(facts) is False:
        logger.warning(
            "W_SILENCE: %d images without masks have no report, and %s has not learnt to do without: its labels of "
            "them are not to be relied on. Train it with data.report_dropout above 0, or leave these images out",
            silent,
            path,
        )
    learnt = about.get("labelled", {}).get("ids_sha256", about.get("ids_sha256", {}).get("fit"))
    if learnt != data.describe()["labelled"]["ids_sha256"]:
        logger.warning(
            "W_TEACHER: %s learnt from other images than those labelled here (%s of %s); if it saw more masks, this is "
            "not semi-supervised training. Give both the same data.labelled_fraction and data.fraction_seed",
            path,
            about.get("images", {}).get("fit", "an unknown number"),
            about.get("name", "unknown data"),
        )
