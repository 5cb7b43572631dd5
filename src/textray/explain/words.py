"""`textray explain words`: the weight of each token, by attention (Fig. 2 of SGSeg) and by leaving it out.

The attention that a token receives follows Ye et al., MICCAI 2024, Fig. 2, who take the product of query and key; here
it is the softmax of that product, mean over heads, places and levels, so that it sums to one over the tokens. Leaving a
token out is an experiment: its place in the text mask is emptied, and the runtime segments the film again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textray.explain.attention import PLACES, AttentionReader, Tokens
from textray.explain.run import MARGIN, Explanation, convention, describe_zones, dice, open_page, zones_of
from textray.inference.bank import Prompt
from textray.inference.bundle import Bundle
from textray.inference.film import denied
from textray.inference.runtime import Runtime, sigmoid
from textray.inference.segmenter import Predictor
from textray.io.page import FAINT, INK, Colour, Picture, fit, shrink
from textray.io.write import render_overlay
from textray.records import Prediction

ATTENTION = "attention received"
EFFECT = "effect of leaving out"
MEANING = (
    "Attention tells what is looked at; leaving out tells what changes the mask. A token that is left out still lives "
    "on in the features of its neighbours, which were encoded together with it, so the effects do not add up."
)
_PLACE: Colour = (40, 95, 170)
_OTHER: Colour = (165, 175, 190)
_GROUP: Colour = (200, 110, 40)
_BATCH = 8
_ROW, _BAR, _LABEL, _NUMBER, _FILM = 24, 240, 130, 60, 320


class WordsExplainer:
    """Explains the weight of each token of the sentence; refused as by `AttentionReader`."""

    kind = "words"
    needs_words = True

    def __init__(self, bundle: Bundle, *, text_encoder: Path | None = None, threads: int | None = None) -> None:
        self.settings: dict[str, Any] = {}
        self._bundle = bundle
        self._reader = AttentionReader(bundle, text_encoder)
        self._runtime = Runtime(bundle, threads)

    def explain(self, predictor: Predictor, prediction: Prediction) -> Explanation:
        """Weigh the tokens of one film's sentence."""
        tokens = self._reader.tokens(zones_of(prediction))
        pixels = predictor.preprocess.apply(prediction.image)
        levels, _ = self._reader.read(pixels, tokens)
        by_level = np.stack([level.weights.mean((1, 2)) for level in levels])  # (levels, L')
        received = by_level.mean(0)
        groups = {"all words of place": tokens.places}
        if not self._bundle.needs_text:
            groups["the whole sentence"] = tuple(range(len(tokens.names)))
        left_out = [*((i,) for i in range(len(tokens.names))), *groups.values()]
        effects = self._leave_out(pixels, tokens, left_out)
        rows = [
            {
                "token": name,
                "place": i in tokens.places,
                "attention": round(float(received[i]), 6),
                "attention_by_level": [round(float(x), 6) for x in by_level[:, i]],
                **effects[i],
            }
            for i, name in enumerate(tokens.names)
        ]
        values = {
            "sentence": describe_zones(tokens.zones, prediction.grid),
            "levels": [level.name for level in levels],
            "attends_to": "tokens" if all(level.slots is None for level in levels) else "slots, shared out to tokens",
            "tokens": rows,
            "groups": [{"left_out": name, **effects[len(rows) + i]} for i, name in enumerate(groups)],
            "measured_at": list(predictor.preprocess.size),
            "meaning": MEANING,
        }
        return Explanation(values=values, picture=_draw(values, tokens, prediction))

    def _leave_out(
        self, pixels: NDArray[np.float32], tokens: Tokens, left_out: list[tuple[int, ...]]
    ) -> list[dict[str, float]]:
        """Effect of each way to leave tokens out, at the network's size."""
        masks = np.repeat(tokens.mask[None], len(left_out) + 1, axis=0)
        for row, positions in zip(masks[1:], left_out, strict=True):
            row[np.flatnonzero(tokens.mask)[list(positions)]] = 0
        outputs = np.concatenate(
            [self._run(pixels, tokens, masks[i : i + _BATCH]) for i in range(0, len(masks), _BATCH)]
        )
        whole, threshold = outputs[0], self._bundle.threshold
        return [
            {
                "probability_change": round(float(np.abs(one - whole).mean()), 6),
                "dice_with_whole": round(dice(one >= threshold, whole >= threshold), 6),
                "area_change": round(float((one >= threshold).mean() - (whole >= threshold).mean()), 6),
            }
            for one in outputs[1:]
        ]

    def _run(self, pixels: NDArray[np.float32], tokens: Tokens, masks: NDArray[np.float32]) -> NDArray[np.float32]:
        images = np.repeat(pixels[None], len(masks), axis=0)
        features = tokens.features[None] * masks[..., None]
        _, no_report = self._runtime.encode([Prompt.NO_REPORT])  # without a word it must not write its own
        masks = np.where(masks.any(1, keepdims=True), masks, no_report)
        denials = np.repeat(denied(tokens.zones)[None], len(masks), axis=0)
        return sigmoid(self._runtime.run(images, features, masks, denials)["logits"][:, 0])


def _draw(values: dict[str, Any], tokens: Tokens, prediction: Prediction) -> Picture:
    bars = [
        (label, row["attention"], 1 - row["dice_with_whole"], _PLACE if row["token"] in PLACES else _OTHER)
        for label, row in zip(tokens.labels, values["tokens"], strict=True)
    ]
    groups = [(row["left_out"], None, 1 - row["dice_with_whole"], _GROUP) for row in values["groups"]]
    size = fit(prediction.grid.shape, _FILM)
    chart = MARGIN + _LABEL + 2 * (_BAR + _NUMBER)
    width = chart + size[1] + 2 * MARGIN
    title, notes = "What each token of the sentence weighs", [f"{convention(prediction)['text']} {MEANING}"]
    below = 44 + max((len(bars) + len(groups)) * _ROW + 12, size[0] + 44) + MARGIN
    page, top = open_page(width, title, notes, sentence=values["sentence"], gap=10, below=below)
    first, second = MARGIN + _LABEL, MARGIN + _LABEL + _BAR + _NUMBER
    page.text(first, top, ATTENTION, 14)
    page.text(first, top + 18, "share, mean of heads, places and levels", 11, colour=FAINT)
    page.text(second, top, EFFECT, 14)
    page.text(second, top + 18, "1 - Dice with the mask of the whole sentence", 11, colour=FAINT)
    y = top + 44
    most = max(bar[1] for bar in bars), max(max(bar[2] for bar in [*bars, *groups]), 1e-6)
    for i, (label, attention, effect, colour) in enumerate([*bars, *groups]):
        if i == len(bars):
            page.rule([(MARGIN, y + 3), (chart - 10, y + 3)])
            y += 12
        page.text(first - 8, y + 3, label, 14 if i < len(bars) else 13, anchor="r")
        for left, value, scale in ((first, attention, most[0]), (second, effect, most[1])):
            if value is not None:
                length = round(value / scale * (_BAR - 10))
                page.box(left, y + 3, length, _ROW - 6, colour)
                page.text(left + length + 5, y + 4, f"{value:.3f}", 12)
        y += _ROW
    page.paste(chart + MARGIN, top + 44, shrink(render_overlay(prediction.image.film, prediction.mask), size))
    page.text(chart + MARGIN, top + 48 + size[0], "mask with the whole sentence", 13, colour=INK)
    for i, (name, colour) in enumerate((("words of place", _PLACE), ("other tokens", _OTHER))):
        page.box(chart + MARGIN + i * 150, top + 74 + size[0], 12, 12, colour)
        page.text(chart + MARGIN + i * 150 + 18, top + 71 + size[0], name, 13)
    return page.picture
