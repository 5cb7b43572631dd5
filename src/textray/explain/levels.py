"""`textray explain attention`: where on the film each word is looked at, a row for each level of the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from textray.explain import subject
from textray.explain.attention import AttentionReader, Level
from textray.explain.explanation import Explanation
from textray.explain.tokens import Tokens, Vocabulary
from textray.inference.bundle import Bundle
from textray.inference.predictor import Predictor
from textray.io.page import FAINT, Page, Picture, fit, heat, line_height, shrink, thumbnail, wrap
from textray.io.write import render_overlay
from textray.records import Grid, Prediction

Columns = Literal["places", "all"]

_PANEL, _GAP, _MARGIN, _SCALE = 150, 6, 16, 120
_LEAST_WIDTH = 900
_OTHERS = 2
MEANING = (
    "Attention tells where the network reads a word, not what the word changes in the mask; "
    "'textray explain words' and 'textray explain zones' measure that."
)
SLOTS = (
    "Rows named guides attend to mixtures of tokens, which are not words: their attention is shared out to the words "
    "by the size of the mixing weights, an approximation."
)


class AttentionExplainer:
    """Explains how a film attends to its words.

    Args:
        bundle: The network's bundle.
        columns: ``places`` draws the words that tell where, the two other tokens that are looked at most, and one
            column for the rest; ``all`` draws each token.
        text_encoder: Folder of the text encoder, ``None`` where it is installed as a package.

    Raises:
        UsageError: If the network's attention cannot be read, or the text encoder is not installed.
    """

    kind = "attention"
    needs_words = True

    def __init__(self, bundle: Bundle, *, columns: Columns = "places", text_encoder: Path | None = None) -> None:
        self.settings: dict[str, Any] = {"columns": columns}
        self._columns = columns
        self._reader = AttentionReader(bundle)
        self._vocabulary = Vocabulary(bundle, text_encoder)

    def explain(self, predictor: Predictor, prediction: Prediction) -> Explanation:
        """Read the attention of one film and draw it."""
        tokens = self._vocabulary.tokens(subject.zones_of(prediction))
        pixels = predictor.preprocess.apply(prediction.image)
        levels, probability = self._reader.read(pixels, tokens)
        row = predictor.bank_row(prediction.report) if prediction.report is not None else None
        runtime = predictor.predict_batch(pixels[None], [row])[0]
        values = {
            "sentence": subject.describe_zones(tokens.zones, prediction.grid),
            "tokens": list(tokens.names),
            "levels": [_level_values(level) for level in levels],
            "torch_differs_by": round(float(np.abs(runtime - probability).max()), 5),
            "meaning": MEANING,
        }
        return Explanation(values=values, picture=self._draw(levels, tokens, predictor, prediction))

    def _draw(self, levels: list[Level], tokens: Tokens, predictor: Predictor, prediction: Prediction) -> Picture:
        received = np.mean([level.weights.mean((1, 2)) for level in levels], axis=0)
        columns = _columns(tokens, self._columns, received)
        height, width = fit(prediction.grid.shape, _PANEL)
        film = thumbnail(prediction.image.pixels, (height, width))
        overlay = render_overlay(prediction.image.pixels, prediction.mask)
        found = shrink(overlay, (height, width))
        left = _MARGIN + width + _GAP
        page_width = max(left + len(columns) * (width + _GAP) + _SCALE, _LEAST_WIDTH)
        header = _header(tokens, prediction, page_width - 2 * _MARGIN, slots=any(x.slots is not None for x in levels))
        top = _MARGIN + sum(line_height(size) for _, size in header) + 8
        page = Page(page_width, top + 22 + len(levels) * (height + _GAP + 18) + _MARGIN)
        y = _MARGIN
        for line, size in header:
            page.text(_MARGIN, y, line, size)
            y += line_height(size)
        for c, (label, _) in enumerate(columns):
            page.text(left + c * (width + _GAP) + width // 2, top, label, 14, anchor="m")
        page.text(_MARGIN + width // 2, top, "mask", 14, anchor="m")
        y = top + 22
        for level in levels:
            maps = predictor.preprocess.size
            spread = level.spread((maps[0], maps[1]))
            shares = [np.asarray(spread[list(positions)].sum(0), np.float32) for _, positions in columns]
            words = [share for share, (_, positions) in zip(shares, columns, strict=True) if len(positions) == 1]
            low, high = min(float(x.min()) for x in words), max(float(x.max()) for x in words)
            page.paste(_MARGIN, y, found)
            cells = level.weights.shape[1:]
            page.text(_MARGIN, y + height + 1, f"{level.name}: {cells[0]} x {cells[1]}", 12, colour=FAINT)
            for c, share in enumerate(shares):
                x = left + c * (width + _GAP)
                small = predictor.preprocess.restore(share, Grid(height=height, width=width))
                if len(columns[c][1]) == 1:
                    page.paste(x, y, heat(film, (small - low) / max(high - low, 1e-9)))
                    page.text(x, y + height + 1, f"mean {share.mean():.3f}", 12, colour=FAINT)
                else:  # a sum of many tokens has a scale of its own, which the numbers below it tell
                    page.paste(x, y, heat(film, _stretch(small)))
                    page.text(x, y + height + 1, f"{share.min():.2f} to {share.max():.2f}", 12, colour=FAINT)
            even = 1 / len(tokens.names)
            page.scale(left + len(columns) * (width + _GAP) + 6, y, height, low, high, (even, f"{even:.3f} even"))
            y += height + _GAP + 18
        return page.picture


def _columns(tokens: Tokens, which: Columns, received: NDArray[np.float32]) -> list[tuple[str, tuple[int, ...]]]:
    """Name of each column and the tokens that it adds up."""
    places = tuple(range(len(tokens.names)))
    if which == "places":
        others = sorted((i for i in places if i not in tokens.places), key=lambda i: -received[i])
        places = (*tokens.places, *others[:_OTHERS])
    columns: list[tuple[str, tuple[int, ...]]] = [(tokens.labels[i], (i,)) for i in places]
    rest = tuple(i for i in range(len(tokens.names)) if i not in places)
    return [*columns, (f"{len(rest)} other", rest)] if rest else columns


def _header(tokens: Tokens, prediction: Prediction, width: int, *, slots: bool) -> list[tuple[str, int]]:
    told = subject.describe_zones(tokens.zones, prediction.grid)
    lines = [(line, 18) for line in wrap("How much each place of the film attends to each word", 18, width)]
    for name, words in (
        ("viewer's sides (what the network was given)", told["viewer"]),
        ("patient's sides", told["patient"]),
    ):
        if words is not None:
            lines += [(line, 14) for line in wrap(f"{name}: {words}", 14, width)]
    notes = [
        subject.convention(prediction)["text"],
        "Mean over heads; one colour scale for the words of a row (the sum of the others has its own); even: what each "
        "would get if all got the same. " + MEANING,
    ]
    return lines + [(line, 12) for note in [*notes, *([SLOTS] if slots else [])] for line in wrap(note, 12, width)]


def _stretch(values: NDArray[np.float32]) -> NDArray[np.float32]:
    low, high = float(values.min()), float(values.max())
    return np.asarray((values - low) / max(high - low, 1e-9), np.float32)


def _level_values(level: Level) -> dict[str, Any]:
    return {
        "name": level.name,
        "height": level.weights.shape[1],
        "width": level.weights.shape[2],
        "covers": list(level.covers),
        "attends_to": "tokens" if level.slots is None else "slots",
        "mean": [round(float(x), 6) for x in level.weights.mean((1, 2))],
        "maps": np.round(level.weights.astype(np.float64), 6).tolist(),
        "slots": None if level.slots is None else np.round(level.slots.astype(np.float64), 6).tolist(),
    }
