"""What a task is given: one sample as the network sees it, a batch of them, and the order that they come in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from textray.geometry import Geometry

Key = tuple[int, int]
"""Epoch and index of a sample: together with the seed they fix everything random about it."""


class Item(TypedDict):
    """One sample as the network sees it."""

    image: Tensor
    mask: Tensor
    zones: Tensor
    text: str | None
    image_id: str
    index: int
    labelled: bool
    geometry: Geometry


class Batch(TypedDict):
    """What a task is given.

    Attributes:
        image: ``(B, C, H, W)`` float32, normalised.
        mask: ``(B, 1, H, W)`` float32, {0, 1}; NaN throughout where it may not be seen, so that no loss can use it.
        zones: ``(B, 6)`` float32, {0, 1}: of the report or its cluster, whatever dropout left in ``text``; less those
            withheld, but not with ``whole_zones``: a locator is not told what is withheld and sees the whole film. NaN
            where nothing tells them.
        text: ``B`` sentences; ``None`` is no report.
        image_id: ``B`` names.
        index: ``(B,)`` int64, place of each sample in its split.
        labelled: ``(B,)`` bool, false where the mask may not be seen.
        geometry: Where each sample's augmentation moved its pixels.
    """

    image: Tensor
    mask: Tensor
    zones: Tensor
    text: list[str | None]
    image_id: list[str]
    index: Tensor
    labelled: Tensor
    geometry: list[Geometry]


def collate(items: list[Item]) -> Batch:
    """Stack the items of a batch; images channels last, which convolutions on CPUs like."""
    return Batch(
        image=torch.stack([item["image"] for item in items]).contiguous(memory_format=torch.channels_last),
        mask=torch.stack([item["mask"] for item in items]),
        zones=torch.stack([item["zones"] for item in items]),
        text=[item["text"] for item in items],
        image_id=[item["image_id"] for item in items],
        index=torch.tensor([item["index"] for item in items]),
        labelled=torch.tensor([item["labelled"] for item in items]),
        geometry=[item["geometry"] for item in items],
    )


class EpochSampler(Sampler[Key]):
    """Keys of one epoch, in an order that seed and epoch fix.

    Args:
        length: Number of samples.
        seed: Of the order.
        shuffle: False keeps the data set's order and epoch 0, as a validation needs.
        labelled: One for each sample; where some are not, the two kinds are shuffled apart and mixed evenly, so that
            every batch holds its share of each. ``None``: all are.
    """

    def __init__(self, length: int, *, seed: int, shuffle: bool, labelled: Sequence[bool] | None = None) -> None:
        self.length, self.seed, self.shuffle, self.epoch = length, seed, shuffle, 0
        self.labelled = None if labelled is None else np.asarray(labelled, np.bool_)

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Key]:
        if not self.shuffle:
            return ((0, index) for index in range(self.length))
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        if self.labelled is not None:
            first = self.labelled[order]
            place = np.zeros(self.length)
            for kind in (first, ~first):
                place[kind] = (np.arange(kind.sum()) + 0.5) / max(kind.sum(), 1)
            order = order[np.argsort(place, kind="stable")]
        return ((self.epoch, int(index)) for index in order)
