"""Labels of zones from captions by clusters of their location phrases, beside those of the rule parser.

SGSeg (Ye et al., MICCAI 2024) trains its localizer on pseudo-labels: the location words of a caption are encoded by the
frozen text encoder and clustered by HDBSCAN. How a cluster becomes six bits it does not say. The rules of this module:

- The phrase is what follows status and count of a caption, else the whole text.
- Its vector is the mean over its tokens, without [CLS], [SEP] and padding, of unit length.
- HDBSCAN sees every caption, repeated ones too, of the training captions and of no others.
- A member of strength 0 is noise: it fell into a cluster that is infinitely dense without it.
- A cluster means the zones that the rule parser reads in more than half of those members in which it reads any. Without
  such a majority its members are noise. Where some members disagree with it, the notice `W_MIXED_CLUSTER` lists them.
- The label of noise, and of a caption outside training, is the rule parser's; equal phrases have equal labels.

On the captions of QaTa-COV19 the clusters are identity of strings. On captions in other words they are less right than
the rule parser, which is why `textray.data.segmentation.SegmentationData` has ``labels`` at ``rules``; figures and
command: docs/how-to/train.md.
"""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.cluster import HDBSCAN

from textray.data.segmentation import SegmentationData
from textray.errors import DataError, UsageError
from textray.nn.bert import TextEncoder
from textray.records import Laterality, Notice, Zones
from textray.text.cleaning import clean, is_blank
from textray.text.zones import parse, sentence

logger = logging.getLogger(__name__)

MOST_CAPTIONS = 20_000
"""Beyond it the matrix of distances, 8 bytes for each pair, would take more than 3.2 GB."""


@dataclass(frozen=True, kw_only=True)
class ZoneLabels:
    """Zones of each caption, and the clusters that they come from.

    Attributes:
        labels: One for each caption, in their order.
        cluster: Number of each caption's cluster, -1 for noise.
        clusters: Zones that each cluster means, in the order of their first captions.
        rules: What the rule parser reads in each caption.
        hdbscan: Clusters and noise points of HDBSCAN itself, before members of strength 0 and clusters without a
            majority became noise.
        notices: `W_MIXED_CLUSTER`, `W_NO_MAJORITY` for each such cluster; `W_NO_ZONE` if captions are left without any.
    """

    labels: tuple[Zones, ...]
    cluster: tuple[int, ...]
    clusters: tuple[Zones, ...]
    rules: tuple[Zones, ...]
    hdbscan: tuple[int, int]
    notices: tuple[Notice, ...] = ()
    _of_phrase: dict[str, Zones] = field(default_factory=dict, repr=False)

    @property
    def noise(self) -> int:
        """Captions in no cluster."""
        return self.cluster.count(-1)

    @property
    def pure(self) -> int:
        """Clusters in all of whose members the rule parser reads the same zones."""
        mixed = {number for number, equal in zip(self.cluster, self._equal(), strict=True) if not equal}
        return len(self.clusters) - len(mixed - {-1})

    @property
    def agreement(self) -> float:
        """Share of all captions whose six bits are those of the rule parser."""
        return sum(self._equal()) / len(self.labels)

    def _equal(self) -> list[bool]:
        return [label.present == rule.present for label, rule in zip(self.labels, self.rules, strict=True)]

    def label(self, caption: str, rule: Zones) -> Zones:
        """Label any caption: by its phrase if that is in a cluster, else by the rule parser.

        The nearest cluster is no better choice: phrases of different zones lie as near as phrases of the same ones.
        """
        return self._of_phrase.get(location_phrase(caption), rule)


def fit_zone_labels(
    captions: Sequence[str], encoder: TextEncoder, *, rules: Sequence[Zones] | None = None, strict: bool = False
) -> ZoneLabels:
    """Cluster captions by their place and label them; nothing is drawn at random.

    The training captions come each as often as it occurs, and all mean the same convention of sides. ``rules`` is what
    the rule parser reads in each; without, it reads the captions by the viewer's sides. ``strict`` refuses mixed
    clusters instead of labelling them by their majority.

    Raises:
        UsageError: If there are fewer captions than a cluster has or more than `MOST_CAPTIONS`, one is blank, or no
            phrase occurs twice: they have been de-duplicated, and density is what HDBSCAN clusters by.
        DataError: With code ``E_MIXED_CLUSTER``, if strict and members of a cluster disagree with its majority.
    """
    phrases = _phrases(captions)
    if rules is None:
        known = {text: parse(text, laterality=Laterality.VIEWER).zones for text in dict.fromkeys(captions)}
        rules = [known[text] for text in captions]
    read = tuple(rules)
    if len(read) != len(captions):
        raise UsageError("zones and captions differ in number", came=len(read), expected=len(captions))
    groups, hdbscan = cluster_phrases(phrases, encoder)
    clusters: list[Zones] = []
    notices: list[Notice] = []
    cluster = [-1] * len(phrases)
    labels = list(read)
    for members in groups:
        votes = Counter(read[i].present for i in members if read[i].mentioned)
        top, count = votes.most_common(1)[0] if votes else ((False,) * 6, 0)
        if 2 * count <= votes.total():
            notices.append(_notice("W_NO_MAJORITY", members, phrases, votes))
            continue
        zones = next(read[i] for i in members if read[i].present == top and read[i].mentioned)
        if len(votes) > 1:
            notices.append(_notice("W_MIXED_CLUSTER", members, phrases, votes))
        for i in members:
            cluster[i], labels[i] = len(clusters), zones
        clusters.append(zones)
    mixed = [notice for notice in notices if notice.code == "W_MIXED_CLUSTER"]
    if strict and mixed:
        raise DataError(
            f"{len(mixed)} clusters of captions mix zones",
            came=" ".join(notice.text for notice in mixed[:5]),
            expected="the same zones in all members of a cluster",
            do="Correct the captions, leave strict out, or label by the rules",
            code="E_MIXED_CLUSTER",
        )
    without = sum(not label.mentioned for label in labels)
    if without:
        notices.append(
            Notice(
                code="W_NO_ZONE",
                text=f"{without} captions get no zone: the rule parser reads none, and they are in no cluster.",
                remedy="Correct these captions.",
            )
        )
    return ZoneLabels(
        labels=tuple(labels),
        cluster=tuple(cluster),
        clusters=tuple(clusters),
        rules=read,
        hdbscan=hdbscan,
        notices=tuple(notices),
        _of_phrase={phrases[i]: clusters[number] for i, number in enumerate(cluster) if number >= 0},
    )


def label_training(data: SegmentationData, encoder: TextEncoder | None) -> ZoneLabels | None:
    """Set the zone labels of a training, if ``labels`` is ``clusters``.

    Clusters are those of ``fit``; ``inner`` is labelled by them where its captions are known, else by the rules. Images
    without words keep the zones of their report. Returns the labels of ``fit``'s captions, if there are clusters.

    Raises:
        UsageError: If there is no text encoder, captions mean the patient's sides, or as `fit_zone_labels`.
    """
    if data.labels != "clusters":
        return None
    if encoder is None:
        raise UsageError(
            "labels from clusters need a text encoder", do="Set model.text_encoder, or data.labels to rules"
        )
    reports = {split: [sample.report for sample in part.samples] for split, part in data.sets.items()}
    if any(report.laterality is Laterality.PATIENT for part in reports.values() for report in part):
        raise UsageError(
            "captions by the patient's sides cannot be clustered: the same words mean other zones on another film",
            expected="captions by the viewer's sides",
            do="Set data.labels to rules",
        )
    worded = [report for report in reports["fit"] if not is_blank(report.text)]
    fitted = fit_zone_labels([str(r.text) for r in worded], encoder, rules=[r.zones for r in worded])
    for split, part in reports.items():
        data.set_labels(split, [r.zones if is_blank(r.text) else fitted.label(str(r.text), r.zones) for r in part])
    logger.info(
        "zone labels: %d captions in %d clusters (%d pure), %d noise; %.2f %% as the rules",
        len(fitted.labels), len(fitted.clusters), fitted.pure, fitted.noise, 100 * fitted.agreement,
    )  # fmt: skip
    for notice in fitted.notices:
        logger.warning("%s %s", notice.code, notice.text)
    return fitted


def _phrases(captions: Sequence[str]) -> list[str]:
    """Location phrase of each caption; refuses captions that cannot be clustered."""
    if not MIN_CLUSTER_SIZE <= len(captions) <= MOST_CAPTIONS:
        raise UsageError(
            "captions cannot be clustered",
            came=f"{len(captions)} captions",
            expected=f"{MIN_CLUSTER_SIZE} to {MOST_CAPTIONS:,}",
            do="Label by the rules",
        )
    phrases = [location_phrase(caption) if not is_blank(caption) else "" for caption in captions]
    blank = [i for i, phrase in enumerate(phrases) if not re.search(r"\w", phrase)]
    if blank:
        raise UsageError(f"caption {blank[0]} of those to cluster is blank", do="Leave captions without words out")
    if len(set(phrases)) == len(phrases):
        raise UsageError(
            "no phrase occurs twice among the captions to cluster: they have been de-duplicated",
            came=f"{len(phrases)} different phrases",
            expected="every caption as often as it occurs, since HDBSCAN clusters by density",
            do="Give the captions of all images, or label by the rules",
        )
    return phrases


def _notice(code: str, members: Sequence[int], phrases: Sequence[str], votes: Counter[tuple[bool, ...]]) -> Notice:
    sets = "; ".join(f"{n} times {sentence(Zones.from_present(zones))!r}" for zones, n in votes.most_common(4))
    mixed = code == "W_MIXED_CLUSTER"
    return Notice(
        code=code,
        text=f"A cluster of {len(members)} captions, such as {phrases[members[0]]!r}, names "
        f"{len(votes)} sets of zones ({sets or 'none is read'}); "
        + ("the most frequent is taken." if mixed else "none has a majority, so each caption is read by the rules."),
        remedy="Correct the captions that name other zones." if mixed else "Look at these captions.",
    )


# Location phrases of captions, their vectors, and their clusters.

MIN_CLUSTER_SIZE = 3
"""Fewest captions of a cluster; also the neighbours that HDBSCAN estimates density with."""
_BATCH = 64
_START = re.compile(r"[^,]*(?:infection|pneumonia|opacit|lateral)[^,]*,[^,]*\bareas?\b[^,]*,\s*(?P<place>\S.*)", re.S)


def location_phrase(caption: str) -> str:
    """Location words of a caption, in lower case and without the final stop.

    What follows the status and the count of a caption of QaTa-COV19's kind, else the whole text.
    """
    words = " ".join(clean(caption).lower().split()).rstrip(". ")
    match = _START.fullmatch(words)
    return match["place"] if match else words


@torch.no_grad()
def encode_phrases(phrases: Sequence[str], encoder: TextEncoder) -> NDArray[np.float64]:
    """Vectors ``(n, D)`` of phrases: mean over their tokens without [CLS] and [SEP], of unit length.

    Phrases are encoded with others of as many tokens, so that there is no padding.
    """
    most = int(encoder.trunk.config.max_position_embeddings)
    by_length: dict[int, list[int]] = defaultdict(list)
    ids = [encoder.tokenizer.encode(phrase.lower()).ids[:most] for phrase in phrases]
    for index, tokens in enumerate(ids):
        by_length[len(tokens)].append(index)
    vectors = np.zeros((len(phrases), encoder.width))
    for rows in by_length.values():
        for start in range(0, len(rows), _BATCH):
            some = rows[start : start + _BATCH]
            batch = torch.tensor([ids[row] for row in some])  # (b, t)
            states = encoder.trunk(input_ids=batch, attention_mask=torch.ones_like(batch)).last_hidden_state
            vectors[some] = states[:, 1:-1].mean(1).double().numpy()
    unit: NDArray[np.float64] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return unit


def cluster_phrases(phrases: Sequence[str], encoder: TextEncoder) -> tuple[list[list[int]], tuple[int, int]]:
    """Cluster phrases, repeated ones kept, by HDBSCAN with fixed parameters.

    Equal phrases are in the same cluster. A member of strength 0 is left out: it fell into a cluster that is infinitely
    dense without it. Takes 8 bytes for each pair of phrases.

    Returns:
        Indices of the members of each cluster, in the order of their first phrases; and the numbers of clusters and of
        noise points as HDBSCAN gives them, before anything is left out.
    """
    distinct = sorted(set(phrases))  # sorted, so that the vectors do not depend on the captions' order
    place = {phrase: i for i, phrase in enumerate(distinct)}
    at = np.array([place[phrase] for phrase in phrases])
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
    chosen = {phrase: min(count, key=lambda n: (-count[n], -n)) for phrase, count in votes.items()}
    members: dict[int, list[int]] = defaultdict(list)
    for i, phrase in enumerate(phrases):
        if chosen[phrase] >= 0:
            members[chosen[phrase]].append(i)
    return list(members.values()), (int(numbers.max()) + 1, int((numbers < 0).sum()))
