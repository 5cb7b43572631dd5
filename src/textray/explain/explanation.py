"""What every explanation gives, and what a run needs of the code that makes one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from textray.inference.predictor import Predictor
from textray.records import Prediction


@dataclass(frozen=True, kw_only=True, eq=False)
class Explanation:
    """An explanation of one film.

    Attributes:
        values: Numbers and words for the record, JSON values.
        picture: The page, ``(H, W, 3)`` uint8.
    """

    values: dict[str, Any]
    picture: NDArray[np.uint8]


class Explainer(Protocol):
    """One kind of explanation.

    Attributes:
        kind: Its name; part of the names of the files.
        needs_words: True where a film without words cannot be explained.
        settings: What besides film, words and weights decides the result; JSON values.
    """

    kind: str
    needs_words: bool
    settings: dict[str, Any]

    def explain(self, predictor: Predictor, prediction: Prediction) -> Explanation:
        """Explain what the network made of a film.

        Raises:
            InputError: If the film's words cannot be explained.
        """
        ...
