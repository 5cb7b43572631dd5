"""Batches that several processes share: a contrastive loss sees all the films and texts of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, distributed
from torch.nn import functional as F

T = TypeVar("T")


def rank_count() -> int:
    """Number of processes that train together; 1 where there is no process group."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def gather_rows(own: Tensor) -> Tensor:
    """Rows of all processes, by rank; gradients reach this process's own rows.

    A loss over the rows of all, computed in each process, has in each of them the part of its gradient that goes
    through its own rows. Processes whose gradients are averaged then multiply the loss by their number.

    Args:
        own: ``(B, ...)``, of one shape in all processes.
    """
    ranks = rank_count()
    if ranks == 1:
        return own
    sent = own.detach().to(torch.uint8) if own.dtype == torch.bool else own.detach()
    parts = [torch.empty_like(sent, memory_format=torch.contiguous_format) for _ in range(ranks)]
    distributed.all_gather(parts, sent.contiguous())
    parts = [part.to(own.dtype) for part in parts]
    parts[distributed.get_rank()] = own
    return torch.cat(parts)


def gather_units(own: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Units of all processes, brought to the most that a text of any of them has.

    Args:
        own: ``(B, S, D)``; S may differ between processes.
        mask: ``(B, S)`` bool.
    """
    if rank_count() == 1:
        return own, mask
    most = torch.tensor(own.shape[1], device=own.device)
    distributed.all_reduce(most, op=distributed.ReduceOp.MAX)
    lacking = int(most) - own.shape[1]
    return gather_rows(F.pad(own, (0, 0, 0, lacking))), gather_rows(F.pad(mask, (0, lacking)))


def gather_objects(own: Sequence[T]) -> list[T]:
    """Objects of all processes, by rank."""
    ranks = rank_count()
    if ranks == 1:
        return list(own)
    parts: list[list[T]] = [[] for _ in range(ranks)]
    distributed.all_gather_object(parts, list(own))
    return [one for part in parts for one in part]
