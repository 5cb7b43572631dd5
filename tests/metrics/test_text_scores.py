"""BLEU, ROUGE-L and METEOR without synonyms, on sentences that were counted by hand."""

import itertools
import math
import random

import pytest
from nltk.stem.porter import PorterStemmer
from nltk.translate.meteor_score import single_meteor_score
from sacrebleu.metrics import BLEU

from textray.errors import ShapeError, UsageError
from textray.metrics.text import SCORES, TextScorer, align, strip_special
from textray.text.zones import bank_sentences

CAPTION = "unilateral pulmonary infection, one infected area, lower left lung."


@pytest.fixture(scope="module")
def scorer():
    return TextScorer()


def values(scorer, written, captions):
    found = scorer.summary(written, captions, [str(i) for i in range(len(written))])
    return {name: score["value"] for name, score in found["scores"].items()}


def test_bleu_and_rouge_by_hand(scorer):
    """ "a b c d e" for "a b c x e": 4 of 5 words, ab and bc of 4 pairs, abc of 3 triples, no quadruple."""
    found = values(scorer, ["alpha beta gamma delta eta"], ["alpha beta gamma xi eta"])
    assert found["bleu_1"] == pytest.approx(4 / 5)
    assert found["bleu_2"] == pytest.approx(math.sqrt(4 / 5 * 2 / 4))
    assert found["bleu_3"] == pytest.approx((4 / 5 * 2 / 4 * 1 / 3) ** (1 / 3))
    assert found["bleu_4"] == pytest.approx((4 / 5 * 2 / 4 * 1 / 3 * 1 / (2 * 2)) ** (1 / 4))  # smoothed: half of 1/2
    assert found["rouge_l"] == pytest.approx(4 / 5)  # longest common subsequence: alpha beta gamma eta
    short = values(scorer, ["alpha beta"], ["alpha beta gamma delta"])
    assert short["bleu_1"] == pytest.approx(math.exp(1 - 4 / 2))  # it pays for its shortness
    assert short["rouge_l"] == pytest.approx(2 * 1 * 0.5 / 1.5)


def test_bleu_is_that_of_the_whole_set_and_not_a_mean(scorer):
    sentences = bank_sentences()
    draw = random.Random(3)
    written, captions = ([draw.choice(sentences) for _ in range(30)] for _ in range(2))
    found = values(scorer, written, captions)
    for order in (1, 2, 3, 4):
        whole = BLEU(max_ngram_order=order, lowercase=True).corpus_score(written, [captions]).score / 100
        assert found[f"bleu_{order}"] == pytest.approx(whole, abs=1e-12)


def test_the_same_words_score_one_but_for_the_one_chunk_of_meteor(scorer):
    found = values(scorer, [CAPTION] * 2, [CAPTION.replace("unilateral", "Unilateral")] * 2)
    expected = dict.fromkeys(SCORES, 1.0) | {"meteor_exact_stem": 1 - 0.5 * (1 / 9) ** 3}
    assert found == pytest.approx(expected)


def test_meteor_by_hand(scorer):
    """Written 6 words, caption 7: "areas" matches "area" by its stem; the matches lie in two chunks."""
    written, caption = "two infected areas left lower lung", "one infected area in left lower lung"
    precision, recall = 5 / 6, 5 / 7
    mean = 10 * precision * recall / (recall + 9 * precision)
    assert scorer.meteor(written, caption) == pytest.approx(mean * (1 - 0.5 * (2 / 5) ** 3))
    assert scorer.meteor("alpha beta", "gamma delta") == scorer.meteor("", "gamma delta") == 0.0


def test_special_tokens_are_no_words(scorer):
    assert strip_special("[CLS] lower left lung . [SEP] [PAD] [pad]") == "lower left lung ."
    plain = values(scorer, ["lower left lung"], ["lower right lung"])
    assert values(scorer, ["[CLS] lower left lung [SEP] [PAD]"], ["[CLS] lower right lung [SEP]"]) == plain


class NoSynonyms:
    """WordNet without a word in it."""

    def synsets(self, word):
        return []


def test_meteor_is_that_of_nltk_without_synonyms(scorer):
    """nltk takes the last free place of a repeated word, so there it may find more chunks, never fewer."""
    for written, caption in itertools.product(bank_sentences()[::5], bank_sentences()[::7]):
        ours, theirs = (text.replace(",", "").replace(".", "").split() for text in (written, caption))
        nltk = single_meteor_score(theirs, ours, stemmer=PorterStemmer(), wordnet=NoSynonyms())
        found = scorer.meteor(written, caption)
        if len(set(ours)) == len(ours) and len(set(theirs)) == len(theirs):
            assert found == pytest.approx(nltk, abs=1e-12)
        assert found >= nltk - 1e-12


def chunks_by_trying(ours, theirs):
    """The same as `align`, by trying every way to match."""
    best = (0, 0)
    for places in itertools.product(*[[None, *(j for j, w in enumerate(theirs) if w == word)] for word in ours]):
        taken = [place for place in places if place is not None]
        if len(set(taken)) == len(taken):
            before = (None, *places[:-1])
            starts = sum(p is not None and (b is None or p != b + 1) for b, p in zip(before, places, strict=True))
            best = max(best, (len(taken), -starts))
    return best[0], -best[1]


def test_alignments_have_the_most_matches_and_of_those_the_fewest_chunks():
    draw = random.Random(0)
    for _ in range(60):
        ours, theirs = ([draw.choice("abc") for _ in range(draw.randint(1, 6))] for _ in range(2))
        assert align(ours, theirs) == chunks_by_trying(ours, theirs)


def test_intervals_draw_patients_and_signatures_tell_the_measure(scorer):
    sentences = bank_sentences()
    written, captions = [sentences[1], sentences[2], sentences[5]] * 4, [sentences[1], sentences[4], sentences[5]] * 4
    found = scorer.summary(written, captions, ["a", "b", "c"] * 4)
    assert found["images"] == 12
    for score in found["scores"].values():
        assert score["low"] < score["value"] < score["high"]
    one = scorer.summary(written, captions, ["a"] * 12)["scores"]["bleu_2"]
    assert one["low"] == pytest.approx(one["value"]) == one["high"]
    assert found["signatures"]["bleu"].startswith("nrefs:1|case:lc|eff:no|tok:13a|smooth:exp|version:")
    assert "no synonyms" in found["signatures"]["meteor_exact_stem"]


def test_pairs_must_be_pairs(scorer):
    with pytest.raises(ShapeError, match="one caption for each report"):
        scorer.summary(["a"], [], ["p"])
    with pytest.raises(UsageError, match="no interval without cases"):
        scorer.summary([], [], [])
