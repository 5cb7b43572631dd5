"""The tokens of a sentence of the text bank by name: which column of the bank's features is which word."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textray import registry
from textray.errors import BundleError
from textray.inference.bundle import Bundle
from textray.records import Zones
from textray.text.report import sentence

PLACES = frozenset({"left", "right", "upper", "middle", "lower"})
"""Words of the bank's sentences that tell where."""
_SAME = 0.99  # cosine from which a token feature of the encoder is that of the bank, which is kept in half precision


@dataclass(frozen=True, kw_only=True, eq=False)
class Tokens:
    """The sentence that a network is given, token by token.

    Attributes:
        zones: Zones by image side.
        names: The tokens in order, [CLS] and [SEP] included; L' of them.
        features: ``(L, D)`` float32, the bank's row; zero behind the last token.
        mask: ``(L,)`` float32, 1 at the L' tokens.
    """

    zones: Zones
    names: tuple[str, ...]
    features: NDArray[np.float32]
    mask: NDArray[np.float32]

    @property
    def places(self) -> tuple[int, ...]:
        """Positions of the words that tell where."""
        return tuple(i for i, name in enumerate(self.names) if name in PLACES)

    @property
    def labels(self) -> tuple[str, ...]:
        """The tokens for the eye: a word that comes again is numbered."""
        labels = []
        for i, name in enumerate(self.names):
            count = self.names[: i + 1].count(name)
            labels.append(f"{name} ({count})" if count > 1 else name)
        return tuple(labels)


class Vocabulary:
    """Names the tokens of a bundle's text bank; needs the text encoder that computed it.

    Args:
        bundle: A bundle that reads text.
        folder: Folder of the text encoder's published files, ``None`` where it is installed as a package.

    Raises:
        UsageError: If the encoder, or a package that it needs, is not installed; says how to get it.
    """

    def __init__(self, bundle: Bundle, folder: str | Path | None = None) -> None:
        load = registry.load("textray.nn.text_encoder:load_text_encoder")
        bank = bundle.text_bank()
        if bank is None:
            raise BundleError(f"bundle {bundle.name} has no text bank")
        self._bundle, self._bank = bundle, bank
        self._encoder: Any = load(str(bundle.text_encoder), folder=folder, max_tokens=bundle.tokens)

    def tokens(self, zones: Zones) -> Tokens:
        """Tokens of the sentence of zones, with the features that the bank holds.

        Raises:
            BundleError: If the encoder does not give the bank's features: its words would be put to wrong columns.
        """
        words = sentence(zones)
        row = zones.index
        features, mask = self._bank.features[row], self._bank.mask[row]
        names = tuple(self._encoder.tokenizer.id_to_token(i) for i in self._encoder.tokens(words))
        own = self._encoder.encode(words).numpy()
        real = features[mask > 0]
        if len(names) != len(real) or own.shape != real.shape or not _same(own, real):
            raise BundleError(
                f"the text bank of bundle {self._bundle.name} was not computed by this text encoder",
                came=f"{len(real)} tokens of width {real.shape[1]}, the encoder gives {own.shape}",
                expected=f"the features of {self._bundle.text_encoder}",
                do="Name the folder of the bank's own encoder with --text-encoder",
            )
        return Tokens(zones=zones, names=names, features=features, mask=mask)


def _same(first: NDArray[np.float32], second: NDArray[np.float32]) -> bool:
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return bool((np.sum(first * second, axis=1) >= _SAME * norms).all())
