r"""Contrastive losses of sentence grounding: film against report, and places against words, sentences or reports.

With n(x) = x / max(|x|, 1e-8), CE the mean softmax cross-entropy, and the three temperatures as **multipliers**:

    global     G[i, k] = contrastive n(v_i) . n(t_k)
    local      A[s, j] = n(T_s) . n(V_j)                                 for image i, text k, its unit s, place j
               alpha[s] = softmax over j of attention A[s, j]
               c_s = sum over j of alpha[s, j] V_j,   r_s = n(c_s) . n(T_s)
               Z[i, k] = (1 / pooling) log sum over s of exp(pooling r_s)
    losses     CE(G), CE(G^T), CE(contrastive Z), CE(contrastive Z^T)

Differences from the paper, whose equations cannot be computed as printed: Eq. 1 and 2 sum over matched pairs only, so
they hold no negatives and are least wherever all pairs are equally alike; Eq. 4 weighs places by log-probabilities, all
negative; temperatures stand outside the exponentials, where they cancel.

``released`` is what the authors' public code computes: A a raw dot product, a softmax over the units of a text before
the one over places, Z not divided by the pooling temperature. With one unit that first softmax is constant and nothing
is localised, for which reason [CLS] is one more query there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from textray.data.studies import StudyText
from textray.errors import ShapeError, UsageError

Mode = Literal["paper", "released"]
Aggregate = Literal["lse", "lme"]
Match = Literal["cosine", "dot"]
"""Comparison of attended places with a unit: their ``cosine`` (the paper), or past the paper the ``dot`` product with
the unit's direction, so that their length counts too. Eq. 5 prints a dot product, of units of any length."""
_LEAST = 1e-8
"""Shortest length that a vector is divided by."""


@dataclass(frozen=True, kw_only=True)
class Temperatures:
    """Fixed multipliers of similarities; a temperature of 0.25 is a multiplier of 4.

    Attributes:
        attention: Of the similarity of unit and place, before the softmax over places (tau 2 of the paper).
        pooling: Of the similarity of a unit and what it attends to, before the sum over units (tau 3).
        contrastive: Of the scores of both losses, before the cross-entropy (tau 1).
    """

    attention: float = 4.0
    pooling: float = 5.0
    contrastive: float = 10.0


def local_scores(
    local: Tensor,
    units: Tensor,
    mask: Tensor,
    *,
    mode: Mode = "paper",
    cls: Tensor | None = None,
    temperatures: Temperatures = Temperatures(),
    aggregate: Aggregate = "lse",
    match: Match = "cosine",
) -> Tensor:
    """Places of films against units of reports, Eq. 3 to 7 as corrected in the module's docstring.

    Args:
        local: V, ``(B, D, h, w)`` or ``(B, D, M)``, any length.
        units: T, ``(K, S, D)``: sentences, words, or reports as ``(K, 1, D)``.
        mask: ``(K, S)`` bool, true at units.
        mode: The scores as corrected, or those of the released code.
        cls: [CLS] of each text, ``(K, D)``: one more query of the released mode.
        temperatures: Multipliers.
        aggregate: ``lse``, or ``lme``: the mean over units in place of their sum, so that long texts gain nothing.
        match: How r is computed, see `Match`.

    Returns:
        Z of every film and every text, ``(B, K)`` float32 or float64.

    Raises:
        ShapeError: If the shapes do not fit, or a text has no unit.
        UsageError: If [CLS] is given to the other mode.
    """
    if cls is not None:
        if mode != "released":
            raise UsageError("[CLS] is a query of the released mode only", came=mode, do="Leave cls out")
        units, mask = torch.cat([units, cls[:, None]], 1), F.pad(mask, (0, 1), value=True)
    local = local.flatten(2)  # (B, D, M)
    if units.ndim != 3 or local.ndim != 3 or units.shape[2] != local.shape[1] or mask.shape != units.shape[:2]:
        raise ShapeError(
            "places and units do not fit",
            came=f"local {tuple(local.shape)}, units {tuple(units.shape)}, mask {tuple(mask.shape)}",
            expected="(B, D, M), (K, S, D), (K, S)",
        )
    if not mask.any(1).all():
        raise ShapeError("a text has no unit", came=int((~mask.any(1)).sum()), do="Leave out images without text")
    with torch.autocast(local.device.type, enabled=False):  # sums of exponentials need single precision
        local, units = _exact(local), _exact(units)
        real = units[mask]  # (N, D); padding costs nothing
        aimed = _unit(real)
        if mode == "paper":
            weights = (temperatures.attention * aimed @ _unit(local, 1)).softmax(2)  # (B, N, M), alpha
        else:
            weights = (temperatures.attention * _over_units(real @ local, mask)).softmax(2)
        attended = weights @ local.transpose(1, 2)  # (B, N, D), c
        alike = ((_unit(attended) if match == "cosine" else attended) * aimed).sum(2)  # (B, N), r
        table = alike.new_full((len(alike), *mask.shape), -torch.inf)  # (B, K, S)
        table[:, mask] = temperatures.pooling * alike
        pooled = table.logsumexp(2)
        if aggregate == "lme":
            pooled = pooled - mask.sum(1).to(pooled.dtype).log()
        return pooled / temperatures.pooling if mode == "paper" else pooled


def _over_units(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax of ``(B, N, M)`` over the units that belong to one text of the mask ``(K, S)``, at each place."""
    table = scores.new_full((len(scores), *mask.shape, scores.shape[2]), -torch.inf)  # (B, K, S, M)
    table[:, mask] = scores
    return table.softmax(2)[:, mask]


def _unit(vectors: Tensor, axis: int = -1) -> Tensor:
    """Vectors of length one; those shorter than 1e-8 are divided by that."""
    return F.normalize(vectors, dim=axis, eps=_LEAST)


def _exact(values: Tensor) -> Tensor:
    """Single precision for half, everything else as it is."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


# Texts that are right for a film, and the share of films whose own text is the nearest.

RightTexts = Literal["diagonal", "identical_text", "entailed"]
"""``diagonal``: a film's own. ``identical_text``: all that say the same. ``entailed``: all that say nothing but what
the film's own report says too, as a shortened text does of many films."""
Contrast = Literal["softmax", "sigmoid"]
"""``softmax``: each film chooses among the texts, and each text among the films (the paper). ``sigmoid``: for each film
and text on their own, whether the text is true of the film (after Zhai et al., ICCV 2023, without their temperature).
The films that a text is true of weigh as much together as the others, so that nothing is learned from how often a text
is true."""
_ROWS = 1024
"""Films that are compared with all texts at a time."""


def targeted_loss(
    scores: Tensor, statements: list[StudyText], targets: RightTexts, bias: Tensor | None = None
) -> Tensor:
    """Loss of scores ``(B films, B texts)``: both directions of the softmax together as Eq. 8 adds them.

    With a ``bias``, a scalar that all scores are raised by, it is the sigmoid's. Scores have their temperature.
    """
    if bias is None:
        to_text, to_image = targeted_pair(scores, statements, targets)
        return to_text + to_image
    right = right_texts(statements, targets).to(scores)
    losses = F.binary_cross_entropy_with_logits(scores + bias, right, reduction="none")
    shares = right / right.sum(0).clamp(min=1) + (1 - right) / (1 - right).sum(0).clamp(min=1)
    return (shares * losses).sum(0).mean() / 2


def right_texts(statements: list[StudyText], targets: RightTexts) -> Tensor:
    """Whether a text is right for a film: ``(B films, B texts)`` bool."""
    if targets == "diagonal":
        return torch.eye(len(statements), dtype=torch.bool)
    if targets == "identical_text":
        keys = keys_of(statements)
        return keys[:, None] == keys
    return torch.tensor([[text.facts <= film.report_facts for text in statements] for film in statements])


def targeted_pair(scores: Tensor, statements: list[StudyText], targets: RightTexts) -> tuple[Tensor, Tensor]:
    """Cross-entropy of scores ``(B films, B texts)``, all right answers weighing the same, in both directions.

    Each film against all texts is L(v|t) of the paper, each text against all films L(t|v).
    """
    shares = right_texts(statements, targets).to(scores)
    to_text = F.cross_entropy(scores, shares / shares.sum(1, keepdim=True))
    to_image = F.cross_entropy(scores.T, shares.T / shares.sum(0)[:, None])
    return to_text, to_image


def keys_of(statements: list[StudyText]) -> Tensor:
    """Numbers ``(B,)`` int64, on any machine equal where two texts say the same, whatever their words and case."""
    facts = [" ".join(" | ".join(sorted(one.facts)).lower().split()) for one in statements]
    digests = [hashlib.blake2b(text.encode(), digest_size=8).digest() for text in facts]
    return torch.tensor([int.from_bytes(digest, "big", signed=True) for digest in digests], dtype=torch.int64)


def retrieval(films: Tensor, reports: Tensor, keys: Tensor) -> Tensor:
    """Share of films ``(N, D)`` whose nearest report ``(N, D)``, of all the different ones, is their own.

    Keys ``(N,)`` are equal where two reports say the same; of those the first counts.
    """
    different, inverse = torch.unique(keys, return_inverse=True)
    first = torch.full((len(different),), len(keys), dtype=torch.int64)
    first.scatter_reduce_(0, inverse, torch.arange(len(keys)), "amin")
    texts = _unit(reports[first])  # (K, D)
    # A film's length changes nothing in the order of its texts.
    nearest = torch.cat([(some @ texts.T).argmax(1) for some in torch.split(films, _ROWS)])
    return (different[nearest] == keys).float().mean()


# The sum of both losses.


class Compared(NamedTuple):
    """Input of the losses, of one process or of all."""

    films: Tensor  # (B, D)
    places: Tensor  # (B, D, M)
    reports: Tensor  # (B, D)
    units: Tensor  # (B, S, D)
    mask: Tensor  # (B, S) bool, true at units
    cls: Tensor  # (B, D)
    statements: list[StudyText]  # of each report

    def gathered(self) -> Compared:
        """The same of all processes; gradients reach what is this one's own."""
        units, mask = gather_units(self.units, self.mask)
        films, places, reports, cls = (gather_rows(x) for x in (self.films, self.places, self.reports, self.cls))
        return Compared(films, places, reports, units, mask, cls, gather_objects(self.statements))


class GroundingLosses(NamedTuple):
    """Scalars: the weighted sum, and its two parts in both directions together."""

    total: Tensor
    whole: Tensor
    local: Tensor


class GroundingCriterion(nn.Module):
    """The weighted sum of both losses; arguments as of `textray.training.grounding.GroundingTask`.

    For a sigmoid a bias ``(2,)`` is added to the scores of films and of places. The first training batch sets it, so
    that the mean score is 0: else all scores sink to nothing before the first difference is learned.
    """

    begun: Tensor

    def __init__(
        self,
        *,
        mode: Mode,
        targets: RightTexts,
        aggregate: Aggregate,
        match: Match,
        contrast: Contrast,
        global_weight: float,
        local_weight: float,
        temperatures: Temperatures,
    ) -> None:
        super().__init__()
        if min(global_weight, local_weight) < 0 or global_weight == local_weight == 0:
            came = f"{global_weight:g} and {local_weight:g}"
            raise UsageError("the weights of the losses", came=came, expected="0 or more, not both 0")
        self.mode, self.targets, self.aggregate, self.match, self.contrast = mode, targets, aggregate, match, contrast
        self.global_weight, self.local_weight, self.temperatures = global_weight, local_weight, temperatures
        self.bias = nn.Parameter(torch.zeros(2)) if contrast == "sigmoid" else None
        if contrast == "sigmoid":
            self.register_buffer("begun", torch.tensor(False))

    def forward(self, compared: Compared) -> GroundingLosses:
        """Losses of films and their reports."""
        scores = [
            self._films(compared) if self.global_weight else None,
            self._places(compared) if self.local_weight else None,
        ]
        if self.bias is not None and self.training and not self.begun:
            self._begin(scores)
        biases = (None, None) if self.bias is None else self.bias.unbind()
        whole, local = (
            compared.films.new_zeros((), dtype=torch.float32)
            if part is None
            else targeted_loss(self.temperatures.contrastive * part, compared.statements, self.targets, bias)
            for part, bias in zip(scores, biases, strict=True)
        )
        return GroundingLosses(self.global_weight * whole + self.local_weight * local, whole, local)

    def _films(self, compared: Compared) -> Tensor:
        films, reports = compared.films.float(), _unit(compared.reports.float())
        return (_unit(films) if self.match == "cosine" else films) @ reports.T

    def _places(self, compared: Compared) -> Tensor:
        return local_scores(
            compared.places,
            compared.units,
            compared.mask,
            mode=self.mode,
            cls=compared.cls if self.mode == "released" else None,
            temperatures=self.temperatures,
            aggregate=self.aggregate,
            match=self.match,
        )

    @torch.no_grad()
    def _begin(self, scores: list[Tensor | None]) -> None:
        assert self.bias is not None
        for number, part in enumerate(scores):
            if part is not None:
                self.bias[number] = -self.temperatures.contrastive * part.mean()
        self.begun.fill_(True)


# Batches of several processes: a contrastive loss compares all their films and texts.

T = TypeVar("T")


def rank_count() -> int:
    """Number of processes that train together; 1 where there is no process group."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def gather_rows(rows: Tensor) -> Tensor:
    """Rows ``(B, ...)`` of all processes, of one shape in each, by rank; gradients reach this process's own rows.

    A loss over the rows of all, computed in each process, has in each of them the part of its gradient that goes
    through its own rows. Processes whose gradients are averaged then multiply the loss by their number.
    """
    ranks = rank_count()
    if ranks == 1:
        return rows
    sent = rows.detach().to(torch.uint8) if rows.dtype == torch.bool else rows.detach()
    parts = [torch.empty_like(sent, memory_format=torch.contiguous_format) for _ in range(ranks)]
    distributed.all_gather(parts, sent.contiguous())
    parts = [part.to(rows.dtype) for part in parts]
    parts[distributed.get_rank()] = rows
    return torch.cat(parts)


def gather_units(units: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Units ``(B, S, D)`` and mask of all processes, S brought to the most that a text of any of them has."""
    if rank_count() == 1:
        return units, mask
    most = torch.tensor(units.shape[1], device=units.device)
    distributed.all_reduce(most, op=distributed.ReduceOp.MAX)
    lacking = int(most) - units.shape[1]
    return gather_rows(F.pad(units, (0, 0, 0, lacking))), gather_rows(F.pad(mask, (0, lacking)))


def gather_objects(objects: Sequence[T]) -> list[T]:
    """Objects of all processes, by rank."""
    ranks = rank_count()
    if ranks == 1:
        return list(objects)
    parts: list[list[T]] = [[] for _ in range(ranks)]
    distributed.all_gather_object(parts, list(objects))
    return [one for part in parts for one in part]
