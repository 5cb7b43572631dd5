"""Word pieces as BERT has them, and sums over them."""

import random

import numpy as np
import pytest

from textray.errors import BundleError, InputError, ShapeError, UsageError
from textray.text.tokens import Aggregation, WordPiece, build_vocabulary, pad, report_weights

MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["left", "lung", "pneumo", "##thorax", "no", "clear", "is", ".", ",", "-", "(", "right", "##s", "the"]
PIECES = WordPiece([*MARKS, *WORDS])

TEXTS = [
    "Left lung: clear, no pneumothorax (4.5 cm).",
    "Opacité à gauche — naïve Ångström e\u0301",
    "İstanbul ΣΑΣ ς Straße",
    "肺炎 in 左下。ok",
    "a\x0bb a\u2028b soft\u00adhyphen nul\x00l \ufffd tab\tnew\nline",
    "ﬁne ½ ２３ 😀 a😀b",
    "don't; right-sided `x` ^y$ ~",
    "한국어 ไทย עברית",
    "x" * 100 + " " + "x" * 101,
    "..",
]


@pytest.mark.parametrize("lower", [True, False])
def test_pieces_and_words_are_those_of_berts_tokenizer(lower):
    """Against the tokenizers library, on odd texts and on random ones."""
    tokenizers = pytest.importorskip("tokenizers")
    rng = random.Random(0)
    chars = [
        *"abcdefgXYZ0123 .,-() ",
        *map(chr, range(0xA1, 0x180)),
        *map(chr, range(0x391, 0x3AA)),  # one of them is not assigned
        *"肺炎\u0301\u00a0",
    ]
    texts = TEXTS + ["".join(rng.choices(chars, k=40)) for _ in range(300)]
    vocabulary = build_vocabulary(texts[:200], 1500, lower=lower)
    theirs = tokenizers.BertWordPieceTokenizer({p: i for i, p in enumerate(vocabulary)}, lowercase=lower)
    ours = WordPiece(vocabulary, lower=lower)
    unknown = 0
    for text in texts:
        expected, found = theirs.encode(text), ours.encode([text], 10_000)
        assert found.ids.tolist() == expected.ids, ascii(text)
        assert found.word.tolist() == [-1 if w is None else w for w in expected.word_ids], ascii(text)
        unknown += expected.ids.count(1)
    assert unknown < 10  # or the vocabulary would not hold the texts


def test_a_mark_in_a_text_is_brackets_and_letters():
    pieces = WordPiece(build_vocabulary([], 200))
    found = pieces.encode(["[SEP] [PAD]"])
    assert [pieces.vocabulary[i] for i in found.ids] == [
        "[CLS]", "[", "s", "##e", "##p", "]", "[", "p", "##a", "##d", "]", "[SEP]",
    ]  # fmt: skip


def test_sentences_words_and_pieces_are_numbered():
    found = PIECES.encode(["No pneumothorax.", "  ", "Left lung is clear"])
    assert found.ids.tolist() == [2, 9, 7, 8, 12, 5, 6, 11, 10, 3]
    assert found.word.tolist() == [-1, 0, 1, 1, 2, 3, 4, 5, 6, -1]
    assert found.sentence.tolist() == [-1, 0, 0, 0, 0, 1, 1, 1, 1, -1]
    assert found.kept == (0, 2)
    assert not found.cut
    assert found.unknown == ("pneumothorax",)
    assert found.ids.dtype == found.word.dtype == found.sentence.dtype == np.int64


def test_unknown_words_are_listed_once_as_they_are_looked_up():
    found = PIECES.encode(["Left ÉDEMA, edema lungs", "zzz"])
    assert found.unknown == ("edema", "lungs", "zzz")
    assert found.ids.tolist().count(1) == 3  # "lungs" has pieces


@pytest.mark.parametrize(
    ("most", "ids", "kept", "cut"),
    [
        (97, [5, 6, 11, 10, 9, 7, 8, 12], (0, 1), False),
        (9, [5, 6, 11, 10, 9, 7, 8], (0, 1), True),  # the full stop is lost, the words are not
        (7, [5, 6, 11, 10], (0,), True),  # "No" alone has no meaning
        (6, [5, 6, 11, 10], (0,), True),
        (4, [5, 6], (0,), True),
        (3, [5], (0,), True),  # the only sentence stays, however short
    ],
)
def test_a_long_report_is_cut_at_its_end(most, ids, kept, cut):
    found = PIECES.encode(["Left lung is clear", "No pneumothorax."], most)
    assert found.ids.tolist() == [2, *ids, 3]
    assert (found.kept, found.cut) == (kept, cut)
    assert found.sentence.max() == len(kept) - 1


def test_what_cannot_be_encoded_is_refused():
    with pytest.raises(InputError, match="no words"):
        PIECES.encode([])
    with pytest.raises(InputError, match=r"no words.*blanks"):
        PIECES.encode(["", " \t"])
    with pytest.raises(UsageError, match="room"):
        PIECES.encode(["left"], 2)
    with pytest.raises(UsageError, match="one string"):
        PIECES.encode("left lung")


def test_padding_says_that_it_is_none():
    short, long = PIECES.encode(["left"]), PIECES.encode(["left lung", "no"])
    batch = pad([short, long])
    assert batch.ids.tolist() == [[2, 5, 3, 0, 0], [2, 5, 6, 9, 3]]
    assert batch.attention.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch.word.tolist() == [[-1, 0, -1, -1, -1], [-1, 0, 1, 2, -1]]
    assert batch.sentence.tolist() == [[-1, 0, -1, -1, -1], [-1, 0, 0, 1, -1]]
    with pytest.raises(ShapeError, match="no report"):
        pad([])


@pytest.mark.parametrize(("piece", "word"), [("sum", "mean"), ("mean", "sum")])
def test_weights_are_pieces_to_words_to_sentences_to_report(piece, word):
    """The slow way over numbered words and sentences gives the same report."""
    reports = [["No pneumothorax.", "Left lungs, is clear", "no"], ["Right"], [".."]]
    batch = pad([PIECES.encode(sentences) for sentences in reports])
    features = np.random.default_rng(0).normal(size=(*batch.ids.shape, 5))
    weights = report_weights(batch, Aggregation(piece=piece, word=word))
    assert weights.dtype == np.float32
    for row in range(3):
        sentences = []
        for s in range(batch.sentence[row].max() + 1):
            numbers = sorted({int(w) for w in batch.word[row][batch.sentence[row] == s]})
            words = [getattr(features[row][batch.word[row] == w], piece)(axis=0) for w in numbers]
            sentences.append(getattr(np.array(words), word)(axis=0))
        expected = np.mean(sentences, axis=0)
        assert (weights[row][:, None] * features[row]).sum(axis=0) == pytest.approx(expected, abs=1e-6)
    assert not weights[batch.sentence < 0].any()


def test_an_unknown_aggregation_is_refused():
    with pytest.raises(UsageError, match="aggregation of a piece"):
        Aggregation(piece="max")


def test_our_own_vocabulary_has_frequent_words_whole_and_letters_for_the_rest():
    texts = ["left lung", "left base", "left lung œdema"]
    letters = build_vocabulary(texts, 10_000)
    full = len(letters)
    assert letters[:5] == tuple(MARKS)
    assert letters[-4:] == ("left", "lung", "base", "œdema")
    pieces = WordPiece(letters)
    assert pieces.encode(["LEFT lung"]).unknown == ()
    rare = pieces.encode(["upper zone ~7"])
    assert rare.unknown == ("upper", "zone")
    assert 1 not in rare.ids
    assert build_vocabulary(reversed(texts), full - 2) == letters[:-2]
    with pytest.raises(UsageError, match=f"{full - 4} or more"):
        build_vocabulary(texts, full - 5)


def test_a_vocabulary_file_is_read_line_by_line(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_bytes("\r\n".join([*MARKS, "left", "\u2028", "\x85"]).encode() + b"\r\n")
    assert WordPiece.read(path).vocabulary == (*MARKS, "left", "\u2028", "\x85")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"left\nlung\n", r"without \[PAD\], \[UNK\], \[CLS\], \[SEP\]"),
        ("\n".join([*MARKS, "left", "left"]).encode(), "'left' more than once"),
        (b"\xff\xfe\x00", "cannot be read"),
        (None, r"cannot be read.*FileNotFoundError"),
    ],
)
def test_what_is_no_vocabulary_is_refused(tmp_path, content, message):
    path = tmp_path / "vocab.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BundleError, match=message):
        WordPiece.read(path)
