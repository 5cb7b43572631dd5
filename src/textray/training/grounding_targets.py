"""Which texts are right for which films, and for how many films the right one is found."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from textray.data.report_words import Said
from textray.training.grounding_losses import LossPair, text_keys

RightTexts = Literal["diagonal", "identical_text", "entailed"]
"""``diagonal``: a film's own. ``identical_text``: all that say the same. ``entailed``: all that say nothing but what
the film's own report says too, as a text that was cut short does of many films."""
Contrast = Literal["softmax", "sigmoid"]
"""``softmax``: each film chooses among the texts, and each text among the films (the paper). ``sigmoid``: each film and
text are told apart on their own, whether the text is true of it (after Zhai et al., ICCV 2023, whose temperature is
left out). The films that a text is true of weigh as much together as those that it is not: that a text is often true
is not to be learnt from films."""
_ROWS = 1024
"""Films whose texts are looked for at a time."""


def targeted_loss(scores: Tensor, said: list[Said], targets: RightTexts, bias: Tensor | None = None) -> Tensor:
    """The loss of scores ``(B, B)``, film by text, with their temperature: both directions of the softmax together.

    Args:
        scores: With their temperature.
        said: What is said of each film.
        targets: Which texts are right.
        bias: Of the sigmoid, a scalar that all scores are raised by; ``None`` for the softmax.
    """
    if bias is None:
        return targeted_pair(scores, said, targets).total
    right = right_texts(said, targets).to(scores)
    losses = F.binary_cross_entropy_with_logits(scores + bias, right, reduction="none")
    shares = right / right.sum(0).clamp(min=1) + (1 - right) / (1 - right).sum(0).clamp(min=1)
    return (shares * losses).sum(0).mean() / 2


def right_texts(said: list[Said], targets: RightTexts) -> Tensor:
    """Whether a text is right for a film: ``(B films, B texts)`` bool."""
    if targets == "diagonal":
        return torch.eye(len(said), dtype=torch.bool)
    if targets == "identical_text":
        keys = keys_of(said)
        return keys[:, None] == keys
    return entailed(said)


def targeted_pair(scores: Tensor, said: list[Said], targets: RightTexts) -> LossPair:
    """Cross-entropy of scores ``(B, B)``, film by text, in both directions: all that is right, to equal parts.

    Args:
        scores: With their temperature.
        said: What is said of each film.
        targets: Which texts are right.
    """
    shares = right_texts(said, targets).to(scores)
    to_text = F.cross_entropy(scores, shares / shares.sum(1, keepdim=True))
    to_image = F.cross_entropy(scores.T, shares.T / shares.sum(0)[:, None])
    return LossPair(to_text, to_image)


def keys_of(said: list[Said]) -> Tensor:
    """Numbers ``(B,)`` int64, equal where two texts say the same, whatever their words."""
    return text_keys([" | ".join(sorted(one.says)) for one in said])


def entailed(said: list[Said]) -> Tensor:
    """Whether a text says nothing but what is true of a film: ``(B films, B texts)`` bool."""
    return torch.tensor([[text.says <= film.true for text in said] for film in said])


def retrieval(films: Tensor, reports: Tensor, keys: Tensor) -> Tensor:
    """Share of films whose nearest report, of all the different ones, is their own.

    Args:
        films: ``(N, D)``.
        reports: ``(N, D)``; of those with one key the first counts.
        keys: ``(N,)``, equal where two reports say the same.
    """
    different, first = _first_of_each(keys)
    texts = F.normalize(reports[first], dim=1, eps=1e-8)  # (K, D)
    # A film's length changes nothing in the order of its texts.
    nearest = torch.cat([(some @ texts.T).argmax(1) for some in torch.split(films, _ROWS)])
    return (different[nearest] == keys).float().mean()


def _first_of_each(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Different keys, and where each stands first."""
    different, inverse = torch.unique(keys, return_inverse=True)
    places = torch.full((len(different),), len(keys), dtype=torch.int64)
    places.scatter_reduce_(0, inverse, torch.arange(len(keys)), "amin")
    return different, places
