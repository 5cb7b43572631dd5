"""What a validation counts: pixels under each kind of report, and zones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textray.training.thresholds import f1

Route = Literal["generated", "oracle", "none"]
"""Which report an image is given: the one that the network writes, the data set's own, or none."""


class PixelCounts:
    """True, claimed and real lesion pixels of a split, for each route.

    Args:
        routes: The routes that are counted.
    """

    def __init__(self, routes: Sequence[Route]) -> None:
        self._counts = {route: torch.zeros(3, dtype=torch.float64) for route in routes}

    def add(self, route: Route, logits: Tensor, truth: Tensor) -> None:
        """Count a batch: scores ``(B, 1, H, W)``, above 0 a lesion, and a bool mask of the same shape."""
        found = logits > 0
        hit, claimed, real = (found & truth).sum(), found.sum(), truth.sum()
        self._counts[route] += torch.stack([hit, claimed, real]).double().cpu()

    def dice(self) -> dict[Route, Tensor]:
        """Pooled Dice of each route, 2TP / (2TP + FP + FN) over all pixels."""
        hit, claimed, real = torch.stack(list(self._counts.values())).float().unbind(1)
        return dict(zip(self._counts, 2 * hit / (claimed + real).clamp(min=1), strict=True))


class ZoneTable:
    """Zones that a network tells of the images of a split, beside those that are there."""

    def __init__(self) -> None:
        self._probability: list[NDArray[np.float64]] = []
        self._truth: list[NDArray[np.bool_]] = []

    def add(self, zone_logits: Tensor, zones: Tensor) -> None:
        """Keep a batch: zone logits ``(B, 6)`` and zones ``(B, 6)`` of {0, 1}."""
        self._probability.append(torch.sigmoid(zone_logits).double().cpu().numpy())
        self._truth.append(zones.cpu().numpy() > 0.5)

    def columns(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Probabilities and truth, both ``(N, 6)``."""
        return np.concatenate(self._probability), np.concatenate(self._truth)

    def macro_f1(self, thresholds: Tensor) -> float:
        """Mean over the zones of the F1 of "probability not below its threshold"."""
        probability, truth = self.columns()
        return float(f1(probability >= thresholds.double().cpu().numpy(), truth).mean())

    def sentence_share(self, thresholds: Tensor) -> float:
        """Share of the images with at least one zone at its threshold: those that get a sentence."""
        return float((self.columns()[0] >= thresholds.double().cpu().numpy()).any(1).mean())
