"""How the authors' codes bring film and report to each network that can be imported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from textray.nn.bert import TextEncoder
from textray.preprocess import Preprocess
from textray.text.zones import bank_sentences

_SIZE = (224, 224)
_VECTORS = 10
_FEWEST = 9  # words, parted by blanks, below which a text is filled
_FILLING = " EOF XXX"

Bank = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class Convention:
    """What a published network expects of its input, and the words about it for its card.

    Attributes:
        max_tokens: Longest text that the encoder reads, its marks included.
        encode: Features ``(K, L, D)`` and mask ``(K, L)`` of K texts as the network reads them.
        landmark: A word that the encoder's vocabulary holds whole, and others do not.
        landmark_id: Its number there, ``None`` if the word alone is enough.
        needed: Files of the encoder's folder that an import needs; ``no_folder`` is why.
        blue_first: Weight that reads the picture, if checkpoints trained on colour, blue first, have been published.
        captions: Texts of the bank in place of the zone sentences; empty for those.
    """

    preprocess: Preprocess
    text_encoder: str
    max_tokens: int
    encode: Callable[[TextEncoder, Sequence[str]], Bank]
    landmark: str
    landmark_id: int | None = None
    needed: tuple[str, ...] = ("config.json", "vocab.txt")
    no_folder: str
    card_film: str
    card_text: str
    blue_first: str = ""
    captions: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """Texts of the bundle's bank, in its order."""
        return self.captions or tuple(bank_sentences())

    def in_colour(self, captions: tuple[str, ...]) -> Convention:
        """The same for pictures in colour, red first, with captions; the weights are turned round, see `blue_first`."""
        return replace(
            self,
            captions=captions,
            preprocess=replace(self.preprocess, colour=True),
            card_film="Pictures in colour are resized to 224 × 224, red first, in [0, 1]; the weights that read them "
            "were published for blue first and are turned round.",
        )


def padded(encoder: TextEncoder, texts: Sequence[str]) -> Bank:
    """The texts padded to the encoder's longest one, padding as the encoder gives it, all of it to be attended."""
    features, mask = encoder(texts, attend_padding=True)
    return features, mask


def vectors(encoder: TextEncoder, texts: Sequence[str]) -> Bank:
    """The texts as the 10 vectors that LViT reads of each."""
    features = torch.stack([word_vectors(encoder, text) for text in texts])
    return features, torch.ones(features.shape[:2], dtype=torch.bool)


def word_vectors(encoder: TextEncoder, text: str) -> Tensor:
    """Vectors ``(10, D)`` of the first 10 words and punctuation marks of a text, without the encoder's own marks.

    That of a word is the mean over its pieces. A text of fewer than 9 words parted by blanks has the words ``EOF XXX``
    behind it, once for each that is missing. The encoder reads all of it, cut or not. Where there are fewer vectors
    even so, on which the authors' code fails, the rest is zero.
    """
    text += _FILLING * (_FEWEST - len(text.split()))
    pieces = [str(encoder.tokenizer.id_to_token(token)) for token in encoder.tokens(text)[1:-1]]
    word = torch.tensor([not piece.startswith("##") for piece in pieces]).cumsum(0) - 1
    features = encoder.encode(text)[1:-1]
    means = [features[word == place].mean(0) for place in range(min(int(word.max()) + 1, _VECTORS))]
    return torch.stack([*means, *[torch.zeros_like(features[0])] * (_VECTORS - len(means))])


_CXR_BERT = Convention(
    preprocess=Preprocess(
        size=_SIZE, normalise="zscore", channels=3, letterbox=False, transpose=True, interpolation="bicubic"
    ),
    text_encoder="cxr_bert",
    max_tokens=24,
    encode=padded,
    landmark="pneumothorax",  # BERTs of general English know it only in pieces
    no_folder="the checkpoint carries no vocabulary: it holds the text encoder's weights, but not the list of its "
    "words",
    card_film="Films are resized to 224 × 224 with rows and columns swapped, as in training; masks come back upright.",
    card_text="24 tokens each, padding included",
)

_LVIT = Convention(
    preprocess=Preprocess(size=_SIZE, normalise="unit", channels=3),
    text_encoder="bert_uncased",
    max_tokens=25,  # of bert-embedding, with which the authors encode
    encode=vectors,
    landmark="the",
    landmark_id=1996,
    needed=("config.json", "vocab.txt", "model.safetensors"),
    no_folder="the checkpoint carries no text encoder",
    card_film="Films are resized to 224 × 224, three equal channels in [0, 1].",
    card_text="the vectors of their first 10 words and marks, each the mean over its pieces, so that most captions of "
    "films lose what they say of the second lung",
    blue_first="body.first.0.weight",
)

CONVENTIONS: dict[str, Convention] = {
    "mmi_unet": _CXR_BERT,
    "mmi_unet_gd": _CXR_BERT,
    "guide_decoder": _CXR_BERT,
    "lvit": _LVIT,
}
"""By registry name."""
