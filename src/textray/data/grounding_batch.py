"""What a grounding task is given: one film with its words, a batch of them, and the order that they come in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypedDict, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler

from textray.data.batch import Key
from textray.data.report_words import Said
from textray.text.tokens import Pieces, pad


class GroundingItem(TypedDict):
    """One film and what is said of it."""

    image: Tensor
    pieces: Pieces
    said: Said
    image_id: str
    index: int


class GroundingBatch(TypedDict):
    """What a grounding task is given.

    Attributes:
        image: ``(B, C, H, W)`` float32, normalised, channels last.
        ids: Rows of the vocabulary, ``(B, L)`` int64; with the next three what
            `textray.models.sentence_grounding.SentenceGrounding.encode_text` takes.
        attention: ``(B, L)`` int64.
        word: ``(B, L)`` int64.
        sentence: ``(B, L)`` int64.
        said: For each film what its text says and what is true of it, see `textray.data.report_words.Said`.
        image_id: ``B`` names.
        index: ``(B,)`` int64, place of each study in its split.
    """

    image: Tensor
    ids: Tensor
    attention: Tensor
    word: Tensor
    sentence: Tensor
    said: list[Said]
    image_id: list[str]
    index: Tensor


def collate(items: list[GroundingItem]) -> GroundingBatch:
    """Stack the items of a batch; images channels last, which convolutions on CPUs like."""
    batch = pad([item["pieces"] for item in items])
    return GroundingBatch(
        image=torch.stack([item["image"] for item in items]).contiguous(memory_format=torch.channels_last),
        ids=torch.from_numpy(batch.ids),
        attention=torch.from_numpy(batch.attention),
        word=torch.from_numpy(batch.word),
        sentence=torch.from_numpy(batch.sentence),
        said=[item["said"] for item in items],
        image_id=[item["image_id"] for item in items],
        index=torch.tensor([item["index"] for item in items]),
    )


class RankSampler(DistributedSampler[Key]):
    """Keys of one epoch for one of several processes, in an order that seed and epoch fix.

    The processes' parts interleave: a batch of each makes the batch that one process would have with as many times the
    batch size. What does not go up is left out.

    Args:
        length: Number of studies.
        seed: Of the order.
        shuffle: False keeps the data set's order and epoch 0.
        rank: Which process this is.
        ranks: How many there are.
    """

    def __init__(self, length: int, *, seed: int, shuffle: bool, rank: int = 0, ranks: int = 1) -> None:
        super().__init__(
            cast(Dataset[Key], range(length)), num_replicas=ranks, rank=rank, shuffle=shuffle, seed=seed, drop_last=True
        )
        self.length = length

    def __len__(self) -> int:
        return self.length // self.num_replicas

    def __iter__(self) -> Iterator[Key]:
        order = np.arange(self.length)
        if self.shuffle:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        part = order[self.rank :: self.num_replicas][: len(self)]
        return ((self.epoch if self.shuffle else 0, int(index)) for index in part)
