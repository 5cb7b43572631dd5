"""The text bank of a bundle: token features of all sentences it can be told, computed once by the frozen encoder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from textray.errors import BundleError

BANK = "text_bank.safetensors"
BANK_ROWS = 64
MOST_TOKENS, MOST_WIDTH = 512, 4096


@dataclass(frozen=True, kw_only=True, eq=False)
class TextBank:
    """Token features of K sentences: captions, or the 64 of zones, row ``i`` being that of ``Zones.from_index(i)``.

    Attributes:
        features: ``(K, L, D)`` float32.
        mask: ``(K, L)`` float32, 1 where a token is.
    """

    features: NDArray[np.float32]
    mask: NDArray[np.float32]


def parse_bank(raw: bytes, shape: tuple[int, int, int] | None = None, *, rows: int = BANK_ROWS) -> TextBank:
    """Read the bank's bytes; no code can be in them.

    Args:
        raw: What the file holds.
        shape: Shape ``(K, L, D)`` of the features that the config announces, ``None`` for any L and D.
        rows: K.

    Raises:
        BundleError: If a tensor is missing, unknown, or of another shape, type or range.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(raw)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise BundleError(f"{BANK} cannot be read", came=f"{type(error).__name__}: {error}") from error
    if set(tensors) != {"features", "mask"}:
        raise BundleError(f"{BANK} has other tensors", came=sorted(tensors), expected="features, mask")
    features, mask = tensors["features"], tensors["mask"]
    wanted = shape or features.shape
    if features.ndim != 3 or features.shape[0] != rows or features.shape != wanted or features.dtype.kind != "f":
        raise BundleError(
            f"features of {BANK} are wrong",
            came=f"{features.dtype} {features.shape}",
            expected=f"{shape or f'({rows}, L, D)'}",
        )
    if mask.shape != features.shape[:2] or not np.isin(mask, (0, 1)).all() or not np.isfinite(features).all():
        raise BundleError(f"mask of {BANK} is wrong", came=mask.shape, expected=f"{features.shape[:2]} of 0 and 1")
    return TextBank(features=features.astype(np.float32), mask=mask.astype(np.float32))
