"""How near the words of a written report are to those of a caption: BLEU, ROUGE-L and METEOR without synonyms.

Captions of a grammar share most of their words whatever they say, so these scores are high even for wrong places: read
them beside those of `textray.metrics.zones`. ``[CLS]``, ``[SEP]`` and ``[PAD]``, which some networks write around their
sentences, are no words and are left out on both sides.

* ``bleu_1`` to ``bleu_4``: sacrebleu over the whole set, tokens of ``13a``, lower case, exponential smoothing.
* ``rouge_l``: F measure of rouge-score, mean over the pairs; lower-case words and numbers, not stemmed.
* ``meteor_exact_stem``: METEOR (Banerjee and Lavie 2005) with the stages *exact* and *stem* only, mean over the pairs.
  It is not the METEOR of papers, which also matches synonyms of WordNet.

METEOR here: a word matches one of equal Porter stem, so an equal word always matches; as many words match as can; of
all such alignments the one with the fewest chunks counts. P and R are the matches' shares of the written words and of
the caption's, F = 10PR / (R + 9P), and the score is F (1 - 0.5 (chunks / matches)³).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np

from textray import registry
from textray.errors import ShapeError
from textray.metrics.intervals import bootstrap, to_dicts
from textray.metrics.segmentation import Floats, Statistic, ratio_of

ORDERS = (1, 2, 3, 4)
"""Longest n-gram of each BLEU."""
SCORES = (*(f"bleu_{order}" for order in ORDERS), "rouge_l", "meteor_exact_stem")
"""Every score by its name, in the order of the tables; all in [0, 1]."""

_SPECIAL = re.compile(r"\[(?:CLS|SEP|PAD)\]", re.IGNORECASE)
_WORD = re.compile(r"[a-z0-9]+")
_BEAM = 256  # alignments looked at together: exact for sentences that repeat a few words, as captions do
# Columns of a pair: n-grams that match, n-grams written, words written, words of the caption, ROUGE-L, METEOR, 1.
_MATCHES, _NGRAMS, _LENGTHS, _ROUGE, _METEOR, _ONE = slice(0, 4), slice(4, 8), slice(8, 10), 10, 11, 12


def strip_special(text: str) -> str:
    """The text without special tokens, words one space apart."""
    return " ".join(_SPECIAL.sub(" ", text).split())


class TextScorer:
    """The three measures, with their packages loaded.

    Raises:
        UsageError: If one of the packages is not installed.
    """

    def __init__(self) -> None:
        self._bleu_class = registry.load("sacrebleu.metrics:BLEU")
        # Effective order silences a warning about single sentences; the counts of n-grams are the same without.
        self._bleu = self._bleu_class(lowercase=True, effective_order=True)
        self._rouge = registry.load("rouge_score.rouge_scorer:RougeScorer")(["rougeL"], use_stemmer=False)
        self._stemmer = registry.load("nltk.stem.porter:PorterStemmer")()
        self._known: dict[tuple[str, str], list[float]] = {}

    @property
    def signatures(self) -> dict[str, str]:
        """How each measure was computed, in words that make scores comparable."""
        corpus = self._bleu_class(lowercase=True)
        corpus.corpus_score(["a"], [["a"]])  # the number of references is known only then
        return {
            "bleu": str(corpus.get_signature()),
            "rouge_l": f"rouge-score {version('rouge-score')}, rougeL F, not stemmed, mean over pairs",
            "meteor_exact_stem": f"exact and stem (Porter of nltk {version('nltk')}), no synonyms, alpha 0.9, beta 3, "
            "gamma 0.5, mean over pairs",
        }

    def meteor(self, written: str, caption: str) -> float:
        """METEOR of one pair without synonyms, in [0, 1); 0 where no word matches."""
        ours, theirs = self._stems(written), self._stems(caption)
        matches, chunks = align(ours, theirs)
        if not matches:
            return 0.0
        precision, recall = matches / len(ours), matches / len(theirs)
        mean = 10 * precision * recall / (recall + 9 * precision)
        return mean * (1 - 0.5 * (chunks / matches) ** 3)

    def summary(self, written: Sequence[str], captions: Sequence[str], groups: Sequence[str]) -> dict[str, Any]:
        """All scores of ``N`` reports, each beside its caption, with intervals by patient (``groups``).

        Raises:
            ShapeError: If the three differ in length.
            UsageError: If there is no pair.
        """
        if len(written) != len(captions):
            raise ShapeError("one caption for each report", came=(len(written), len(captions)), expected="N and N")
        pairs = zip(written, captions, strict=True)
        columns = np.array([self._columns(*pair) for pair in pairs]).reshape(len(written), _ONE + 1)
        statistics: dict[str, Statistic] = {f"bleu_{order}": self._corpus_bleu(order) for order in ORDERS}
        statistics |= {"rouge_l": ratio_of(_ROUGE, _ONE), "meteor_exact_stem": ratio_of(_METEOR, _ONE)}
        scores = to_dicts(bootstrap(columns, groups, statistics))
        return {"images": len(written), "scores": scores, "signatures": self.signatures}

    def _columns(self, written: str, caption: str) -> list[float]:
        pair = strip_special(written), strip_special(caption)
        if pair not in self._known:  # a set has few different sentences
            bleu = self._bleu.sentence_score(pair[0], [pair[1]])
            rouge = self._rouge.score(pair[1], pair[0])["rougeL"].fmeasure
            lengths = (bleu.sys_len, bleu.ref_len)
            self._known[pair] = [*bleu.counts, *bleu.totals, *lengths, rouge, self.meteor(*pair), 1.0]
        return self._known[pair]

    def _corpus_bleu(self, order: int) -> Statistic:
        compute = self._bleu_class.compute_bleu

        def one(totals: Floats) -> float:
            written, theirs = (int(length) for length in totals[_LENGTHS])
            matches, ngrams = ([int(n) for n in totals[part][:order]] for part in (_MATCHES, _NGRAMS))
            bleu = compute(matches, ngrams, written, theirs, smooth_method="exp", max_ngram_order=order)
            return float(bleu.score) / 100

        return partial(np.apply_along_axis, one, -1)

    def _stems(self, text: str) -> list[str]:
        return [self._stemmer.stem(word) for word in _WORD.findall(strip_special(text).lower())]


def align(ours: Sequence[str], theirs: Sequence[str]) -> tuple[int, int]:
    """Match as many equal words as can be, in as few chunks as can be: matched words and chunks.

    A chunk is a run of words that lie side by side, in the same order, in both sentences. The search goes through
    ``ours`` word by word and keeps the 256 alignments with the fewest chunks so far.
    """
    shared = Counter(ours) & Counter(theirs)
    places: dict[str, list[int]] = {}
    for place, word in enumerate(theirs):
        places.setdefault(word, []).append(place)
    left = Counter(ours)
    # State: places taken (one bit each) and the place of the word before (-2 where it has none) → chunks.
    states = {(0, -2): 0}
    for word in ours:
        left[word] -= 1
        after: dict[tuple[int, int], int] = {}
        for (taken, last), chunks in states.items():
            own = places.get(word, [])
            missing = shared[word] - sum(taken >> place & 1 for place in own)
            steps = [(taken | 1 << place, place) for place in own if missing and not taken >> place & 1]
            if left[word] >= missing:  # the words to come can still make up for leaving this one out
                steps.append((taken, -2))
            for step in steps:
                cost = chunks + (step[1] >= 0 and step[1] != last + 1)
                after[step] = min(cost, after.get(step, cost))
        states = dict(sorted(after.items(), key=lambda item: item[1])[:_BEAM])
    return sum(shared.values()), min(states.values())
