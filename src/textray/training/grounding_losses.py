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
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from textray.errors import ShapeError, UsageError

Mode = Literal["paper", "released"]
Aggregate = Literal["lse", "lme"]
Match = Literal["cosine", "dot"]
"""How what a film shows is compared with a unit: by ``cosine`` (the paper), or past the paper by the ``dot`` product
with the unit's direction, so that how much is found counts too. Eq. 5 prints a dot product, of units of any length."""
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


class LossPair(NamedTuple):
    """A contrastive loss in both directions, two scalars.

    Attributes:
        to_text: Each image against all texts, L(v|t) of the paper: mean cross-entropy over rows of the scores.
        to_image: Each text against all images, L(t|v): over columns.
    """

    to_text: Tensor
    to_image: Tensor

    @property
    def total(self) -> Tensor:
        """Both together, as Eq. 8 adds them."""
        return self.to_text + self.to_image


def text_keys(texts: Sequence[str]) -> Tensor:
    """Numbers ``(B,)`` int64, equal where two texts are, letter case and white space aside, on whatever machine."""
    said = [" ".join(text.lower().split()) for text in texts]
    digests = [hashlib.blake2b(text.encode(), digest_size=8).digest() for text in said]
    return torch.tensor([int.from_bytes(digest, "big", signed=True) for digest in digests], dtype=torch.int64)


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
        match: How r is computed.

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
        places = _unit(local, 1) if mode == "paper" else local
        alike = _alike(local, places, units, mask, mode, match, temperatures)
        return _pool(alike, mask, mode, temperatures, aggregate)


def _alike(
    local: Tensor, places: Tensor, units: Tensor, mask: Tensor, mode: Mode, match: Match, temperatures: Temperatures
) -> Tensor:
    """Match r of each real unit of texts ``(K, S, D)`` with what it attends to in films ``(B, D, M)``: ``(B, N)``."""
    real = units[mask]  # (N, D); padding costs nothing
    aimed = _unit(real)
    if mode == "paper":
        weights = (temperatures.attention * aimed @ places).softmax(2)  # (B, N, M), alpha
    else:
        first = _over_units(real @ places, mask)
        weights = (temperatures.attention * first).softmax(2)
    attended = weights @ local.transpose(1, 2)  # (B, N, D), c
    return ((_unit(attended) if match == "cosine" else attended) * aimed).sum(2)


def _over_units(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax of ``(B, N, M)`` over the units that belong to one text of the mask ``(K, S)``, at each place."""
    table = scores.new_full((len(scores), *mask.shape, scores.shape[2]), -torch.inf)  # (B, K, S, M)
    table[:, mask] = scores
    return table.softmax(2)[:, mask]


def _pool(alike: Tensor, mask: Tensor, mode: Mode, temperatures: Temperatures, aggregate: Aggregate) -> Tensor:
    """Z ``(B, K)`` from r ``(B, N)`` of the units in the mask ``(K, S)``."""
    table = alike.new_full((len(alike), *mask.shape), -torch.inf)  # (B, K, S)
    table[:, mask] = temperatures.pooling * alike
    pooled = table.logsumexp(2)
    if aggregate == "lme":
        pooled = pooled - mask.sum(1).to(pooled.dtype).log()
    return pooled / temperatures.pooling if mode == "paper" else pooled


def _unit(vectors: Tensor, axis: int = -1) -> Tensor:
    """Vectors of length one; those shorter than 1e-8 are divided by that."""
    return F.normalize(vectors, dim=axis, eps=_LEAST)


def _exact(values: Tensor) -> Tensor:
    """Single precision for half, everything else as it is."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
