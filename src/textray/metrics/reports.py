"""The reports that a network wrote itself: how often it had one, how it drew with it, how near it is to the caption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textray.metrics.intervals import Interval, bootstrap, paired_difference
from textray.metrics.segmentation import SCORES, Floats, case_columns
from textray.metrics.table import HEADLINE
from textray.metrics.text import TextScorer
from textray.metrics.zones import zone_summary
from textray.records import Report, Zones
from textray.text.report import write


def report_summary(
    written: Sequence[Zones | None],
    captions: Sequence[Report],
    counts: NDArray[np.int64],
    groups: Sequence[str],
    scorer: TextScorer,
    *,
    without: NDArray[np.int64] | None = None,
) -> dict[str, Any]:
    """Everything that a summary says of the written reports.

    A report is written in the convention of the caption that it is compared with; for the patient's sides that of the
    usual film. Where the network found nothing, its report is "no infection.". Captions that affirm or deny no zone
    have nothing to compare with and are left out of ``zones`` and ``text``.

    Args:
        written: Zones of ``N`` reports, ``None`` where the network found none and worked without text.
        captions: What the data set says of the ``N`` images.
        counts: ``(N, 4)`` tp, fp, fn, tn of the masks.
        groups: ``N`` labels; images with the same label are drawn together.
        scorer: Measures of words.
        without: ``(N, 4)`` counts of the masks that the network drew of the same images without any report; ``None``
            where that was not measured.

    Returns:
        ``used`` (``images`` and ``share`` with a sentence), ``scores_where_used`` (every score of masks on those alone,
        ``None`` without one), ``none_where_used`` (the same of ``without``) and ``paired_where_used`` (the first minus
        the second, of the main scores), ``images_without_caption``, ``zones`` and ``text`` as `zone_summary` and
        `TextScorer.summary` give them, ``None`` without captions.

    Raises:
        ShapeError: If lengths differ.
        UsageError: If there is no image.
    """
    used = [i for i, zones in enumerate(written) if zones]
    hits = np.array([[bool(zones), 1] for zones in written], dtype=np.float64)
    summary: dict[str, Any] = {
        "used": {"images": len(used), "share": bootstrap(hits, groups, {"share": _share})["share"].to_dict()},
        "scores_where_used": None,
        "none_where_used": None,
        "paired_where_used": None,
    }
    if used:
        own, those = case_columns(counts[used]), [groups[i] for i in used]
        summary["scores_where_used"] = _dicts(bootstrap(own, those, SCORES))
        if without is not None:
            silent = case_columns(without[used])
            summary["none_where_used"] = _dicts(bootstrap(silent, those, SCORES))
            differences = paired_difference(silent, own, those, {name: SCORES[name] for name in HEADLINE})
            summary["paired_where_used"] = _dicts(differences)
    told = [i for i, caption in enumerate(captions) if _says_zones(caption)]
    summary |= {"images_without_caption": len(captions) - len(told), "zones": None, "text": None}
    if told:
        reports = [written[i] or Zones() for i in told]
        true = [captions[i] for i in told]
        those = [groups[i] for i in told]
        summary["zones"] = zone_summary(reports, [caption.zones for caption in true], those)
        words = [write(zones, laterality=caption.laterality) for zones, caption in zip(reports, true, strict=True)]
        summary["text"] = scorer.summary(words, [caption.text or "" for caption in true], those)
    return summary


def _says_zones(caption: Report) -> bool:
    """There are words, and they affirm or deny a zone."""
    return caption.text is not None and caption.zones.mentioned


def _dicts(found: Mapping[str, Interval]) -> dict[str, dict[str, float | None]]:
    return {name: interval.to_dict() for name, interval in found.items()}


def _share(totals: Floats) -> Floats:
    share: Floats = totals[..., 0] / totals[..., 1]
    return share
