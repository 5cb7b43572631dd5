"""Word pieces of BERT vocabularies in plain Python, and the weights of the pieces in a report's embedding.

`WordPiece` cuts text as `BertTokenizer` does, without its library, so that free phrases need nothing but a vocabulary
file. Sentences are cut one by one and joined to `[CLS] s1 s2 ... [SEP]`, so the word and sentence of each piece are
known; the released code of the sentence-grounding paper (section 2.2) guesses them from full stops.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase, digits, punctuation
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from textray.errors import BundleError, InputError, ShapeError, UsageError

PAD, UNKNOWN, FIRST, LAST, MASKED = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
MARKS = (PAD, UNKNOWN, FIRST, LAST, MASKED)
"""Special pieces of BERT, which no text gives; a vocabulary without masking may leave out the last."""
MOST_PIECES = 97
"""Most pieces of a report in the authors' code, the two marks included."""

_LONGEST_WORD = 100
"""A longer word is unknown as a whole, as in BERT."""
_FEWEST_WORDS = 2
"""A sentence that was cut to fewer words has no meaning."""


@dataclass(frozen=True, kw_only=True)
class Aggregation:
    """How pieces become words, words sentences, sentences the report.

    The paper sums pieces and words; the authors' code takes the mean of words, so that long sentences do not outweigh
    short ones in the report.
    """

    piece: Literal["sum", "mean"] = "sum"
    word: Literal["mean", "sum"] = "mean"
    sentence: Literal["mean"] = "mean"

    def __post_init__(self) -> None:
        for name, known in (("piece", ("sum", "mean")), ("word", ("mean", "sum")), ("sentence", ("mean",))):
            if (value := getattr(self, name)) not in known:
                raise UsageError(f"unknown aggregation of a {name}", came=value, expected=" or ".join(known))


@dataclass(frozen=True, kw_only=True, eq=False)
class Pieces:
    """A report, or a phrase, in pieces.

    Attributes:
        ids: Vocabulary indices, `[CLS]` first and `[SEP]` last, ``(L,)`` int64.
        word: Number of its word in the whole report, from 0, -1 at the two marks, ``(L,)`` int64. A punctuation mark is
            a word, as in BERT.
        sentence: Number of its sentence, from 0 without gaps, -1 at the two marks, ``(L,)`` int64.
        unknown: Words that are not in the vocabulary as a whole, each once, in lower case if it is.
        kept: Position of each sentence among those given.
        cut: True where sentences, or pieces of the last one, had no room.
    """

    ids: NDArray[np.int64]
    word: NDArray[np.int64]
    sentence: NDArray[np.int64]
    unknown: tuple[str, ...]
    kept: tuple[int, ...]
    cut: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class PieceBatch:
    """Reports of one length, all arrays ``(B, L)`` int64, as in `Pieces`.

    At padding ``ids`` and ``attention`` are 0, ``word`` and ``sentence`` -1.
    """

    ids: NDArray[np.int64]
    attention: NDArray[np.int64]
    word: NDArray[np.int64]
    sentence: NDArray[np.int64]


class WordPiece:
    """A BERT vocabulary that cuts text into its pieces, the longest first.

    Equal to `BertTokenizer` with one intended exception: "[SEP]" in a text is brackets and letters, never a mark.

    Args:
        vocabulary: Pieces by index, `##` before those that continue a word.
        lower: Lower-case and strip accents, for uncased vocabularies.

    Raises:
        BundleError: If a piece is repeated or a mark is missing.
    """

    def __init__(self, vocabulary: Sequence[str], *, lower: bool = True) -> None:
        self.vocabulary, self.lower = tuple(vocabulary), lower
        self._index = {piece: index for index, piece in enumerate(self.vocabulary)}
        missing = [mark for mark in (PAD, UNKNOWN, FIRST, LAST) if mark not in self._index]
        if missing or len(self._index) < len(self.vocabulary):
            twice = [piece for piece, count in Counter(self.vocabulary).items() if count > 1]
            raise BundleError(
                "this is no vocabulary of word pieces",
                came=f"without {', '.join(missing)}" if missing else f"{twice[0]!r} more than once",
                expected="each piece once, [PAD], [UNK], [CLS] and [SEP] among them",
            )

    @classmethod
    def read(cls, path: str | Path) -> WordPiece:
        """Read a `vocab.txt` of lower-case pieces.

        Raises:
            BundleError: If it cannot be read, or is not a vocabulary.
        """
        try:
            raw = Path(path).read_bytes()
        except OSError as error:
            raise BundleError("the vocabulary cannot be read", came=type(error).__name__) from error
        return cls(read_pieces(raw))

    def cut(self, word: str) -> list[int]:
        """Indices of the pieces of one word; `[UNK]` alone if any part of it is not in the vocabulary."""
        unknown = [self._index[UNKNOWN]]
        if len(word) > _LONGEST_WORD:
            return unknown
        pieces: list[int] = []
        start = 0
        while start < len(word):
            prefix = "##" if start else ""
            ends = range(len(word), start, -1)
            end = next((end for end in ends if prefix + word[start:end] in self._index), None)
            if end is None:
                return unknown
            pieces.append(self._index[prefix + word[start:end]])
            start = end
        return pieces

    def encode(self, sentences: Sequence[str], most_pieces: int = MOST_PIECES) -> Pieces:
        """Turn sentences into `[CLS] s1 s2 ... [SEP]` of at most ``most_pieces``, the two marks included.

        Pieces beyond the limit are left out from the end, and with them a sentence of which fewer than two words would
        remain, unless it is the only one. Sentences without a character to read are left out too.

        Raises:
            InputError: If nothing in the sentences can be read.
            UsageError: If there is no room for a piece between the marks.
        """
        if isinstance(sentences, str):
            raise UsageError("sentences came as one string", expected="a sequence of sentences", do="Give [text]")
        room = most_pieces - len((FIRST, LAST))
        if room < 1:
            raise UsageError("no room for a word", came=most_pieces, expected="3 pieces or more")
        rows: list[tuple[int, int, int]] = []  # piece, word, sentence
        unknown: dict[str, None] = {}
        kept: list[int] = []
        cut, count = False, 0
        for position, text in enumerate(sentences):
            texts = list(words(text, lower=self.lower))
            if not texts:
                continue
            if cut or len(rows) == room:
                cut = True
                continue
            pieces = [(index, place) for place, one in enumerate(texts) for index in self.cut(one)]
            if len(rows) + len(pieces) > room:
                cut = True
                pieces = pieces[: room - len(rows)]
                texts = texts[: pieces[-1][1] + 1]
                if kept and sum(any(map(str.isalnum, one)) for one in texts) < _FEWEST_WORDS:
                    continue
            rows += [(index, count + place, len(kept)) for index, place in pieces]
            unknown |= dict.fromkeys(one for one in texts if one not in self._index)
            count += len(texts)
            kept.append(position)
        if not kept:
            raise InputError(
                "the text has no words",
                came="nothing but blanks" if sentences else "no sentence",
                expected="a sentence",
                do="Describe in words what to look for",
            )
        whole = [(self._index[FIRST], -1, -1), *rows, (self._index[LAST], -1, -1)]
        ids, word, sentence = np.ascontiguousarray(np.array(whole, dtype=np.int64).T)
        return Pieces(ids=ids, word=word, sentence=sentence, unknown=tuple(unknown), kept=tuple(kept), cut=cut)


def pad(pieces: Sequence[Pieces]) -> PieceBatch:
    """Bring ``B`` reports to the length of the longest.

    Raises:
        ShapeError: If there is none.
    """
    if not pieces:
        raise ShapeError("pieces cannot be padded", came="no report", expected="one or more")
    ids = np.zeros((len(pieces), max(len(one.ids) for one in pieces)), dtype=np.int64)
    attention = np.zeros_like(ids)
    word, sentence = np.full_like(ids, -1), np.full_like(ids, -1)
    for report, one in enumerate(pieces):
        real = report, slice(len(one.ids))
        ids[real], word[real], sentence[real], attention[real] = one.ids, one.word, one.sentence, 1
    return PieceBatch(ids=ids, attention=attention, word=word, sentence=sentence)


def report_weights(batch: PieceBatch, how: Aggregation) -> NDArray[np.float32]:
    """Weights of the pieces in a report's embedding.

    With H the encoder's output, ``(weights[..., None] * H).sum(axis=1)`` sums pieces to words, words to sentences and
    sentences to the report. ``(B, L)`` float32, 0 at marks and padding.
    """
    weights = np.zeros(batch.ids.shape, dtype=np.float32)
    for report, (word, sentence) in enumerate(zip(batch.word, batch.sentence, strict=True)):
        real = sentence >= 0
        if not real.any():
            continue
        first_pieces = np.unique(word[real], return_index=True)[1]
        words_of = np.bincount(sentence[real][first_pieces])  # (S,)
        weight = np.full(int(real.sum()), 1.0 / np.count_nonzero(words_of))
        if how.word == "mean":
            weight /= words_of[sentence[real]]
        if how.piece == "mean":
            weight /= np.bincount(word[real])[word[real]]
        weights[report, real] = weight
    return weights


def build_vocabulary(texts: Iterable[str], size: int, *, lower: bool = True) -> tuple[str, ...]:
    """Make a vocabulary of at most ``size`` pieces: whole words, and single letters for all others.

    The marks, the letters that begin a word and those that continue one with `##`, then the words of the texts, the
    most frequent first. Every word of ASCII characters, and of characters in the texts, has pieces. ``lower`` must be
    that of the `WordPiece` of this vocabulary.

    Raises:
        UsageError: If there is no room for the letters.
    """
    counts = Counter(word for text in texts for word in words(text, lower=lower))
    plain = ascii_lowercase + digits + ("" if lower else ascii_uppercase)
    seen = {char for word in counts for char in word} | set(plain)
    within = sorted(char for char in seen if not stands_alone(char))  # others never continue a word
    fixed = [*MARKS, *sorted(seen | set(punctuation)), *(f"##{char}" for char in within)]
    if size < len(fixed):
        raise UsageError("the vocabulary is too small", came=size, expected=f"{len(fixed)} or more, for the letters")
    ranked = sorted((word for word in counts if len(word) > 1), key=lambda word: (-counts[word], word))
    return (*fixed, *ranked[: size - len(fixed)])


def read_pieces(raw: bytes) -> list[str]:
    """Word pieces of a ``vocab.txt``, one a line.

    Raises:
        BundleError: If it is not UTF-8.
    """
    try:
        lines = raw.decode("utf-8").split("\n")  # splitlines() would break at pieces that are rare line breaks
    except UnicodeDecodeError as error:
        raise BundleError(
            "the vocabulary cannot be read", came=type(error).__name__, expected="vocab.txt in UTF-8"
        ) from error
    return [line.removesuffix("\r") for line in (lines[:-1] if not lines[-1] else lines)]


_IDEOGRAPHS = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip
"""Code points that are words by themselves; the fifth and sixth range as BERT's tokenizers have them."""


def words(text: str, *, lower: bool) -> Iterator[str]:
    """Cut a text into words as BERT does: at blanks; punctuation marks and ideographs are words by themselves."""
    spaced = (f" {char} " if stands_alone(char) else char for char in _normalise(text, lower=lower))
    return (word for word in "".join(spaced).split(" ") if word)


def _normalise(text: str, *, lower: bool) -> Iterator[str]:
    """Characters without control characters, blanks as spaces; in lower case without accents if ``lower``."""
    clean = "".join(map(_clean, text))
    if not lower:
        return iter(clean)
    if clean.isascii():
        return iter(clean.lower())
    # Marks go before as well as after: a long run of them would take quadratic time to put in order.
    plain = "".join(char for char in clean if unicodedata.category(char) != "Mn")
    kept = (char for char in unicodedata.normalize("NFD", plain) if unicodedata.category(char) != "Mn")
    return (small for char in kept for small in char.lower())  # by letter: a final sigma is a sigma, as in BERT


@lru_cache(maxsize=4096)
def _clean(char: str) -> str:
    if char in "\t\n\r" or unicodedata.category(char) in {"Zs", "Zl", "Zp"}:
        return " "
    return "" if char == "\ufffd" or unicodedata.category(char) in {"Cc", "Cf", "Co", "Cs"} else char


@lru_cache(maxsize=4096)
def stands_alone(char: str) -> bool:
    """True for a character that is a word by itself: punctuation, ideographs."""
    code = ord(char)
    if char in punctuation or unicodedata.category(char).startswith("P"):
        return True
    return code > 0x2FFF and any(low <= code <= high for low, high in _IDEOGRAPHS)
