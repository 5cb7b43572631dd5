"""Location phrases of captions, their vectors, and the clusters HDBSCAN finds among them; see `zone_labels`."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.cluster import HDBSCAN

from textray.nn.text_encoder import TextEncoder
from textray.text.cleaning import clean

MIN_CLUSTER_SIZE = 3
"""Fewest captions of a cluster; also the neighbours that HDBSCAN estimates density with."""
_BATCH = 64
_START = re.compile(r"[^,]*(?:infection|pneumonia|opacit|lateral)[^,]*,[^,]*\bareas?\b[^,]*,\s*(?P<place>\S.*)", re.S)


def location_phrase(caption: str) -> str:
    """Words of a caption that tell the place, in lower case and without the final stop.

    What follows the status and the count of a caption of QaTa-COV19's kind, else the whole text.
    """
    words = " ".join(clean(caption).lower().split()).rstrip(". ")
    match = _START.fullmatch(words)
    return match["place"] if match else words


@torch.no_grad()
def encode_phrases(phrases: Sequence[str], encoder: TextEncoder) -> NDArray[np.float64]:
    """Vectors of phrases: mean over their tokens without [CLS] and [SEP], of unit length.

    Phrases are encoded with others of as many tokens, so that there is no padding.

    Args:
        phrases: ``n`` distinct texts with at least one letter.
        encoder: Frozen.

    Returns:
        ``(n, D)``.
    """
    most = int(encoder.trunk.config.max_position_embeddings)
    by_length: dict[int, list[int]] = defaultdict(list)
    ids = [encoder.tokenizer.encode(phrase.lower()).ids[:most] for phrase in phrases]
    for index, found in enumerate(ids):
        by_length[len(found)].append(index)
    vectors = np.zeros((len(phrases), encoder.width))
    for rows in by_length.values():
        for start in range(0, len(rows), _BATCH):
            some = rows[start : start + _BATCH]
            tokens = torch.tensor([ids[row] for row in some])  # (b, t)
            states = encoder.trunk(input_ids=tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state
            vectors[some] = states[:, 1:-1].mean(1).double().numpy()
    unit: NDArray[np.float64] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return unit


def cluster_phrases(phrases: Sequence[str], encoder: TextEncoder) -> tuple[list[list[int]], tuple[int, int]]:
    """Cluster phrases, repeated ones kept, by HDBSCAN with fixed parameters.

    Equal phrases are in the same cluster. A member of strength 0 is left out: it fell into a cluster that is infinitely
    dense without it.

    Args:
        phrases: ``n`` of them; takes 8 bytes for each pair.
        encoder: Frozen.

    Returns:
        Indices of the members of each cluster, in the order of their first phrases; and the numbers of clusters and of
        noise points as HDBSCAN gives them, before anything is left out.
    """
    distinct = sorted(set(phrases))  # sorted, so that the vectors do not depend on the captions' order
    row = {phrase: i for i, phrase in enumerate(distinct)}
    at = np.array([row[phrase] for phrase in phrases])
    vectors = encode_phrases(distinct, encoder)
    # Distances of distinct phrases, spread out: equal ones lie at exactly 0, which no sum over products gives.
    apart = cdist(vectors, vectors)
    model = HDBSCAN(
        min_cluster_size=MIN_CLUSTER_SIZE,
        min_samples=MIN_CLUSTER_SIZE,
        metric="precomputed",
        algorithm="brute",
        cluster_selection_method="eom",
        copy=False,  # the matrix is this call's own
    ).fit(apart[np.ix_(at, at)])
    numbers = cast("NDArray[np.int64]", model.labels_)
    strong = np.where(model.probabilities_ > 0, numbers, -1)
    votes: dict[str, Counter[int]] = defaultdict(Counter)
    for phrase, number in zip(phrases, strong.tolist(), strict=True):
        votes[phrase][number] += 1
    own = {phrase: min(count, key=lambda n: (-count[n], -n)) for phrase, count in votes.items()}  # equal, equal label
    members: dict[int, list[int]] = defaultdict(list)
    for i, phrase in enumerate(phrases):
        if own[phrase] >= 0:
            members[own[phrase]].append(i)
    return list(members.values()), (int(numbers.max()) + 1, int((numbers < 0).sum()))
