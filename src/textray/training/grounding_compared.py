"""What the losses of sentence grounding compare, and their sum."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from textray.data.report_words import Said
from textray.errors import UsageError
from textray.training.grounding_losses import Aggregate, Match, Mode, Temperatures, local_scores
from textray.training.grounding_targets import Contrast, RightTexts, targeted_loss
from textray.training.ranks import gather_objects, gather_rows, gather_units


class Compared(NamedTuple):
    """What the losses compare, of one process or of all.

    Attributes:
        films: ``(B, D)``.
        places: ``(B, D, M)``.
        reports: ``(B, D)``.
        units: ``(B, S, D)``.
        mask: ``(B, S)`` bool, true at units.
        cls: ``(B, D)``.
        said: What each report says.
    """

    films: Tensor
    places: Tensor
    reports: Tensor
    units: Tensor
    mask: Tensor
    cls: Tensor
    said: list[Said]

    def gathered(self) -> Compared:
        """The same of all processes; gradients reach what is this one's own."""
        units, mask = gather_units(self.units, self.mask)
        films, places, reports, cls = (gather_rows(x) for x in (self.films, self.places, self.reports, self.cls))
        return Compared(films, places, reports, units, mask, cls, gather_objects(self.said))


class GroundingLosses(NamedTuple):
    """Scalars: the weighted sum, and its two parts in both directions together."""

    total: Tensor
    whole: Tensor
    local: Tensor


class GroundingCriterion(nn.Module):
    """The weighted sum of both losses; arguments as of `textray.training.grounding.GroundingTask`.

    Raises:
        UsageError: If a weight is negative, or both are zero.

    Attributes:
        bias: What the scores of films and of places are raised by before a sigmoid, ``(2,)``; ``None`` for the softmax.
            The first batch that is learnt from sets it, so that the mean score is raised to 0: else all that is found
            sinks to nothing before the first difference is learnt.
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
        self.mode: Mode = mode
        self.targets: RightTexts = targets
        self.aggregate: Aggregate = aggregate
        self.match: Match = match
        self.contrast: Contrast = contrast
        self.global_weight, self.local_weight = global_weight, local_weight
        self.temperatures = temperatures
        self.bias = nn.Parameter(torch.zeros(2)) if contrast == "sigmoid" else None
        if contrast == "sigmoid":
            self.register_buffer("begun", torch.tensor(False))

    def forward(self, found: Compared) -> GroundingLosses:
        """Losses of films and their reports."""
        scores = [
            self._films(found) if self.global_weight else None,
            self._places(found) if self.local_weight else None,
        ]
        if self.bias is not None and self.training and not self.begun:
            self._begin(scores)
        biases = (None, None) if self.bias is None else self.bias.unbind()
        whole, local = (
            found.films.new_zeros((), dtype=torch.float32)
            if part is None
            else targeted_loss(self.temperatures.contrastive * part, found.said, self.targets, bias)
            for part, bias in zip(scores, biases, strict=True)
        )
        return GroundingLosses(self.global_weight * whole + self.local_weight * local, whole, local)

    def _films(self, found: Compared) -> Tensor:
        films, reports = found.films.float(), F.normalize(found.reports.float(), dim=1, eps=1e-8)
        return (F.normalize(films, dim=1, eps=1e-8) if self.match == "cosine" else films) @ reports.T

    def _places(self, found: Compared) -> Tensor:
        return local_scores(
            found.places,
            found.units,
            found.mask,
            mode=self.mode,
            cls=found.cls if self.mode == "released" else None,
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
