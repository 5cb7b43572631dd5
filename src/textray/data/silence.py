"""Whether a network has learnt to work without a report: what its score in text mode ``none`` is worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def learnt(facts: Mapping[str, Any]) -> bool | None:
    """Whether the training of a network that reads text left reports out, and let it go without.

    Samples without a report are those that lost theirs by ``report_dropout``, and those whose caption is missing or
    names no zone. A network that writes its own report is silent on the share of them that ``self_guided`` leaves.

    Args:
        facts: What a checkpoint says of its training, or the provenance of a bundle; without ``self_guided`` and
            ``data.without_text``, which older ones lack, there were none.

    Returns:
        ``None`` where the facts do not tell, as of weights that were not trained here.
    """
    data = facts.get("data")
    if not isinstance(data, Mapping):  # a provenance may hold anything
        return None
    dropout = data.get("report_dropout")
    if dropout is None:
        return None
    left_out = dropout > 0 or data.get("without_text", {}).get("fit", 0) > 0
    return bool(left_out and facts.get("self_guided", 0.0) < 1)
