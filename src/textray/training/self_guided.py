"""Training of networks that write their own reports: bank of sentences, thresholds of the zones, and their scores.

A threshold is the probability from which on a zone is written into a report. Before each validation the thresholds are
chosen on the split that selects checkpoints, so that a checkpoint holds those that its score was measured with.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor

from textray.data.batches import Batch
from textray.errors import UsageError
from textray.models.self_guided import Located, SelfGuided
from textray.nn.bert import TextEncoder
from textray.records import ZONE_NAMES
from textray.text.zones import bank_sentences

log = logging.getLogger(__name__)

CANDIDATES = np.linspace(0.02, 0.98, 49)
"""Thresholds that are tried."""
_SWEEPS = 4
_UNCHOSEN = 0.5  # each threshold of a network that nothing was chosen for
_SAME_BANK = 2e-3
"""Two banks of the same encoder differ by rounding to half precision only; those of two encoders by whole units."""


SENSITIVITY = 0.975
"""Share of the sick films of the selecting split that the threshold of presence keeps."""


FALSE_ALARM = 0.05
"""Share of films whose zones are rightly named, or rightly denied, of which a conflict may warn."""
CLEAR_ALARM = 0.02
"""The same of normal films that words rightly call clear; their masks are empty up to there."""

FEWEST = 50
"""Films of the selecting split, with zones that are known, below which thresholds of earlier weights are kept."""


class Row(NamedTuple):
    """What a locator says of one film, and the truth; NaN where unknown."""

    zones: NDArray[np.float64]  # (6,) probabilities
    truth: NDArray[np.float32]  # (6,) of {0, 1}
    presence: float
    finding: float
    source: str


class OwnReports:
    """What a training does with a self-guided network, beside training it: its bank and thresholds."""

    def __init__(self, network: SelfGuided, *, started: bool = False) -> None:
        """``started``: the locator comes from earlier weights, whose thresholds were chosen on more films."""
        self.network, self._started = network, started
        self._keeps: bool | None = None  # its thresholds, once that is decided
        self.restart()

    def restart(self) -> None:
        """Forget the validation before."""
        self._located: dict[tuple[str, ...], Located] = {}
        self._rows: list[Row] = []

    def fill_bank(self, encoder: TextEncoder) -> None:
        """Fill the bank of sentences.

        Raises:
            UsageError: If the network came with a bank of another text encoder.
        """
        network = self.network
        given = network.bank_features.clone() if bool(network.bank_mask.any()) else None
        features, mask = encoder(bank_sentences(), attend_padding=network.needs_text)
        network.set_bank(features.to(network.bank_features.device), mask)
        if given is not None:
            self.compare_bank(given, encoder)

    def compare_bank(self, given: Tensor, encoder: TextEncoder) -> None:
        """Refuse a bank that another text encoder encoded."""
        ours = self.network.bank_features
        apart = _SAME_BANK * ours.abs().clamp(min=1)
        if given.shape != ours.shape or bool(((given.to(ours) - ours).abs() > apart).any()):
            raise UsageError(
                "the checkpoint's sentences were encoded by another text encoder",
                expected=f"{encoder.name} with max_tokens {encoder.max_tokens}",
                do="Name the text encoder that it was trained with",
            )

    def locate(self, batch: Batch) -> Located:
        """Output of the locator for a validation's batch, kept for the scores beside the truth.

        The locator sees a batch once, for the thresholds and for all routes.
        """
        network, key = self.network, tuple(batch["image_id"])
        # Kept, for a running mean of the weights has left the network, thresholds and all, before `scores` is called.
        self._thresholds = network.thresholds.double().cpu().numpy()
        if key not in self._located:
            found = network.locator(batch["image"].to(network.thresholds.device))
            self._located[key] = found._replace(attention=None)
        located = self._located[key]
        zones = torch.sigmoid(located.zone_logits).double().cpu().numpy()
        presence = torch.full((len(key),), torch.nan)
        if network.tells_presence:
            presence = torch.sigmoid(network.presence(located.features))[:, 0]
        columns = zones, batch["zones"].cpu().numpy(), presence.double().cpu().numpy(), batch["finding"].cpu().numpy()
        self._rows += [Row(*row) for row in zip(*columns, batch["source"], strict=True)]
        return located

    def choose_thresholds(self, batches: Iterable[Batch]) -> None:
        """Choose the thresholds on a split, by a pass of the locator alone.

        Those of earlier weights are kept where fewer than `FEWEST` films say what their zones are: chosen on a handful,
        they would fit that handful.
        """
        for batch in batches:
            self.locate(batch)
        probability, truth = self._zones()
        if self._keeps is None:
            chosen = bool((self.network.thresholds != _UNCHOSEN).any())
            self._keeps = not self._known or (self._started and chosen and self._known < FEWEST)
            if self._keeps:
                text = "W_THRESHOLDS_KEPT: %d films to select with say what their zones are (fewer than %d), so the %s"
                kept = "thresholds of the start are kept" if chosen else "threshold is 0.5"
                log.warning(text, self._known, FEWEST, kept)
        if not self._keeps:
            device = self.network.thresholds.device
            self.network.set_thresholds(torch.tensor(choose_thresholds(probability, truth), device=device))
            if self.network.tells_presence:
                self.network.bounds.copy_(torch.tensor(choose_bounds(self._rows)))
        self._rows = []

    def scores(self) -> dict[str, float]:
        """Scores of a validation by name.

        ``zones_f1`` is the macro F1 of the zones, ``sentence_share`` the share of images with at least one zone: those
        that get a sentence; ``presence_auc`` as `textray.training.segmentation.SegmentationTask` says.
        """
        written = np.stack([row.zones for row in self._rows]) >= self._thresholds
        probability, truth = self._zones()
        scores = {"sentence_share": float(written.any(1).mean())}
        if self._known:
            scores["zones_f1"] = float(f1(probability >= self._thresholds, truth).mean())
        by_source = defaultdict(list)
        for row in self._rows:
            if row.source and row.finding == row.finding:
                by_source[row.source].append((row.finding, row.presence))
        both = [rows for rows in by_source.values() if len({finding for finding, _ in rows}) == 2]
        if self.network.tells_presence and both:
            scores["presence_auc"] = float(np.mean([roc_auc_score(*zip(*rows, strict=True)) for rows in both]))
        return scores

    @property
    def _known(self) -> int:
        """Number of images of which any zone is known."""
        return sum(not np.isnan(row.truth).all() for row in self._rows)

    def _zones(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Probabilities and truth of the zones, both ``(N, 6)``; one that is unknown is neither there nor predicted."""
        truth = np.stack([row.truth for row in self._rows])
        return np.where(np.isnan(truth), 0.0, np.stack([row.zones for row in self._rows])), truth > 0.5


def choose_bounds(rows: Sequence[Row]) -> tuple[float, float, float, float]:
    """Choose the probabilities at which a film is judged, in the order of `textray.inference.film.Bounds`.

    The threshold keeps `SENSITIVITY` of the sick films of the first data set. `CLEAR_ALARM` of the normal films are
    warned of if words call them clear, and at most `FALSE_ALARM` of the films whose zones are named or denied rightly.
    """
    drawn = [row for row in rows if not row.source]
    sick = [row.presence for row in drawn if row.finding == 1]
    threshold = float(np.quantile(sick, 1 - SENSITIVITY, method="lower")) if sick else 0.5
    normal = [row.presence for row in rows if row.finding == 0]
    clear = float(np.quantile(normal, 1 - CLEAR_ALARM)) if normal else threshold
    zones = np.concatenate([row.zones for row in drawn]) if drawn else np.zeros(0)
    truth = np.concatenate([row.truth for row in drawn]) if drawn else np.zeros(0)
    named, unnamed = zones[truth > 0.5], zones[truth < 0.5]
    free = float(np.quantile(named, FALSE_ALARM / len(ZONE_NAMES))) if named.size else 0.0
    ill = float(np.quantile(unnamed, 1 - FALSE_ALARM / len(ZONE_NAMES))) if unnamed.size else 1.0
    return threshold, max(clear, threshold), free, ill


def choose_thresholds(probability: NDArray[np.floating], truth: NDArray[np.bool_]) -> tuple[float, ...]:
    """Choose a threshold for each zone, so that zones are right and few films are left without a sentence.

    Each zone first takes the threshold of its best F1. A film whose zones all stay below theirs would be called free of
    infection, which no film of the training sets is; so the zones are then gone through again, each taking the
    threshold of the highest macro F1 less the share of the films that have zones and would get no sentence, until none
    changes. Of equal ones the lowest is taken. A zone that no film has says nothing about its threshold: 0.5.

    Probabilities and truth are ``(N, Z)``; a zone is written where its probability is not below its threshold.
    """
    zones = truth.shape[1]
    written = probability[:, :, None] >= CANDIDATES  # (N, Z, candidates)
    scores = np.stack([f1(written[:, zone], truth[:, zone, None]) for zone in range(zones)])  # (Z, candidates)
    present = [zone for zone in range(zones) if truth[:, zone].any()]
    middle = int(np.abs(CANDIDATES - 0.5).argmin())
    chosen = [int(scores[zone].argmax()) if zone in present else middle for zone in range(zones)]
    ill = truth.any(1)
    for _ in range(_SWEEPS):
        before = list(chosen)
        for zone in present:
            others = np.zeros(len(truth), np.bool_)
            for other in range(zones):
                if other != zone:
                    others |= written[:, other, chosen[other]]
            empty = ~(written[:, zone] | others[:, None])  # (N, candidates)
            chosen[zone] = int((scores[zone] / len(present) - empty[ill].mean(0)).argmax())
        if chosen == before:
            break
    return tuple(float(CANDIDATES[index]) for index in chosen)


def f1(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """F1 along the first axis, ``2TP / (2TP + FP + FN)``; 1 where nothing is present and nothing predicted."""
    hit = (predicted & truth).sum(0)
    total = predicted.sum(0) + np.broadcast_to(truth, predicted.shape).sum(0)
    return np.where(total > 0, 2 * hit / np.maximum(total, 1), 1.0)
