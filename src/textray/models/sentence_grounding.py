r"""Sentence grounding: an image's sub-regions and a report's sentences in one space, learned without masks.

Source: Yang et al.: Multimodal self-supervised learning for lesion localization, arXiv:2401.01524, 2024.

The idea: an image trunk gives one vector for the film and one for each place of a grid, a language model gives one for
the report and one for each of its sentences, and contrastive losses bring together what belongs together
(`textray.training.grounding_losses`). Where a phrase is true is then read off without any training for it: the cosine
of the phrase with each place.

Shapes in the paper's configuration, 224 x 224, ResNet-50, Bio_ClinicalBERT, L pieces, W words, S sentences, D = 768:

    ============  ==================================================  ======================================
    part          operation                                           output
    ============  ==================================================  ======================================
    enlarge       bilinear, corners aligned                           3 x 299²
    trunk         ResNet-50, stages 1 to 4                            256x75², 512x38², 1024x19², 2048x10²
    local         Conv 1x1 of stage 3, no bias                        V: D x 19²
    pooled        mean of stage 4, Linear                             v_g: D
    text          BERT-base, sum of its last 4 hidden layers          D x L
    words         sum over the pieces of a word                       D x W
    sentences     mean over the words of a sentence                   T: D x S
    report        mean over the sentences                             t_g: D
    ============  ==================================================  ======================================

Differences from the paper: a sentence is the mean of its words where the paper prints a sum (``agg_word`` has both), so
that a long sentence does not outweigh a short one in the report. Past the paper, off by default: ``local_stage`` other
than the third, ``finer``, ``merge``, ``positions``, ``pooled: places``, ``local: factored`` and a ``width`` other than
the text's.

Differences from the authors' released code: the report takes no padding, [CLS] or [SEP] in; sentences are those
of the text, not those between pieces that are full stops.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import lcm
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from textray.errors import ShapeError, UsageError
from textray.models.base import Network
from textray.nn.bert import TextTrunk, TextTrunkConfig
from textray.nn.image_encoder import STRIDES, ImageEncoder
from textray.nn.places import POSITIONS, AmountTimesPlace, gather, owners, position_sines


@dataclass(frozen=True, kw_only=True)
class SentenceGroundingConfig:
    """Sizes of a sentence grounding network; the defaults are the paper's.

    Attributes:
        trunk: timm's name of the image trunk, with its tag.
        trunk_weights: Its pretrained tensors, see `textray.nn.image_encoder.read_trunk`; ``None`` for random ones.
        in_channels: Channels of the image.
        enlarge: Longer side in pixels that the image is brought to before the trunk; ``None`` takes it as it is.
        local_stage: Stage of the trunk whose places are compared with phrases: 1 to 4 at strides 4, 8, 16, 32.
        local: Vector of a place: its features ``projected`` (the paper), or past the paper ``factored``: an amount of
            its features alone times a place of its position alone; see `textray.nn.places`. Texts are then vectors
            without negative numbers.
        finer: Beside a place's features take those of the stage before, averaged over what the place covers. Past the
            paper.
        merge: Average this many places a side into one once they are in the common space; 1 (the paper) leaves each.
            Past the paper: features of a fine stage are best, but the map may be coarser.
        quiet: Length of a factored place in a direction in which no text points: its cosine with any phrase sinks to 0
            where the amount is less than this.
        positions: Add fixed sines of row and column to the features of a place, and a hidden layer of width D before
            the 1x1 convolution. Past the paper: words such as "lower left" are about places.
        pooled: Vector of the film: mean of the ``last`` stage (the paper), or past the paper of the ``places``; later
            stages are left out.
        width: Width D of the common space; ``None`` (the paper) takes the text encoder's, and nothing stands between.
        text: The text encoder.
        agg_word: How the words of a sentence make the sentence: ``mean`` (released code), ``sum`` (as printed).
    """

    trunk: str = "resnet50.tv_in1k"
    trunk_weights: str | None = None
    in_channels: int = 3
    enlarge: int | None = 299
    local_stage: Literal[1, 2, 3, 4] = 3
    local: Literal["projected", "factored"] = "projected"
    finer: bool = False
    merge: int = 1
    quiet: float = 1.0
    positions: bool = False
    pooled: Literal["last", "places"] = "last"
    width: int | None = None
    text: TextTrunkConfig = field(default_factory=TextTrunkConfig)
    agg_word: Literal["mean", "sum"] = "mean"


class ImageFeatures(NamedTuple):
    """An image in the common space, not normalised."""

    pooled: Tensor  # v_g, (B, D)
    local: Tensor  # V, (B, D, h, w)


class TextFeatures(NamedTuple):
    """Reports in the common space, not normalised; zeros where a mask is false."""

    words: Tensor  # (B, W, D)
    word_mask: Tensor  # (B, W) bool, true at words
    sentences: Tensor  # T, (B, S, D)
    sentence_mask: Tensor  # (B, S) bool, true at sentences
    report: Tensor  # t_g, (B, D); zeros for a report without sentences
    cls: Tensor  # the piece [CLS], (B, D); a query of the released form's local loss, never part of the report


class SentenceGrounding(Network):
    """Sentence grounding; the default sizes are the paper's: 133,587,776 trainable parameters.

    Raises:
        UsageError: If a trunk is unknown or a size is impossible.
    """

    def __init__(self, config: SentenceGroundingConfig = SentenceGroundingConfig()) -> None:
        _check(config)
        multiple = lcm(32, config.merge * STRIDES[config.local_stage - 1])
        super().__init__(in_channels=config.in_channels, size_multiple=multiple, text_width=None)
        self.factored = config.local == "factored"
        self.config = config
        self.pools_places = config.pooled == "places"
        self.trunk = ImageEncoder(
            config.trunk,
            in_channels=config.in_channels,
            weights=config.trunk_weights,
            stages=config.local_stage if self.pools_places else 4,
        )
        self.text = TextTrunk(config.text)
        self.width = config.width or self.text.width
        channels, last = self.trunk.channels[config.local_stage - 1], self.trunk.channels[-1]
        if config.finer:
            channels += self.trunk.channels[config.local_stage - 2]
        self.hidden: nn.Module | None = None
        if config.positions:
            self.hidden = nn.Sequential(nn.Conv2d(channels + POSITIONS, self.width, 1), nn.GELU())
        self.local: nn.Module = nn.Conv2d(self.width if config.positions else channels, self.width, 1, bias=False)
        if self.factored:
            self.local = AmountTimesPlace(channels, self.width, quiet=config.quiet)
        self.pooled = None if self.pools_places else nn.Linear(last, self.width)
        # Linear and without bias, so that sums over pieces may be taken before or after it.
        width = self.width - 1 if self.factored else self.width  # no text points along the last axis of factored places
        same = width == self.text.width
        self.projection = nn.Identity() if same else nn.Linear(self.text.width, width, bias=False)

    def load_pretrained(self) -> None:
        """Read the pretrained tensors of the image trunk and of the text encoder, where any are named."""
        self.trunk.load_pretrained()
        self.text.load_pretrained()

    def encode_image(self, image: Tensor) -> ImageFeatures:
        """Bring normalised images ``(B, C, H, W)`` into the common space.

        Raises:
            ShapeError: If H or W is no multiple of ``size_multiple``, or C another.
        """
        self.check_image(image)
        if self.config.enlarge is not None:
            height, width = image.shape[2:]
            factor = self.config.enlarge / max(height, width)
            size = (max(round(height * factor), 1), max(round(width * factor), 1))
            image = F.interpolate(image, size, mode="bilinear", align_corners=True)
        maps = self.trunk(image)
        places = maps[self.config.local_stage - 1]  # (B, C, h, w)
        if self.config.finer:
            places = torch.cat([places, F.avg_pool2d(maps[self.config.local_stage - 2], 2)], 1)
        if self.hidden is not None:
            sines = position_sines(places).expand(places.shape[0], -1, -1, -1)
            places = self.hidden(torch.cat([places, sines], 1))
        local = self.local(places)  # (B, D, h, w)
        if self.config.merge > 1:
            local = F.avg_pool2d(local, self.config.merge)
        pooled = local.mean((2, 3)) if self.pooled is None else self.pooled(maps[-1].mean((2, 3)))
        return ImageFeatures(pooled, local)

    def encode_pieces(self, ids: Tensor, attention: Tensor) -> Tensor:
        """Bring word pieces ``(B, L)`` into the common space, ``(B, L, D)``.

        A phrase is the sum of these over L by the weights of `textray.text.tokens.report_weights`.

        Raises:
            ShapeError: If the shapes differ or the text is too long.
        """
        pieces: Tensor = self.projection(self.text(ids, attention))
        return F.pad(F.softplus(pieces), (0, 1)) if self.factored else pieces

    def encode_text(self, ids: Tensor, attention: Tensor, word: Tensor, sentence: Tensor) -> TextFeatures:
        """Bring reports into the common space: pieces to words to sentences to the report.

        Args:
            ids: Rows of the vocabulary, ``(B, L)`` int64, [CLS] first.
            attention: ``(B, L)``, above zero at pieces, zero at padding.
            word: Number of the word that a piece belongs to, counted from 0 through the whole report, ``(B, L)`` int64;
                -1 at [CLS], [SEP] and padding.
            sentence: Number of its sentence, the same way.

        Raises:
            ShapeError: If the shapes differ or the text is too long.
        """
        if not ids.shape == word.shape == sentence.shape:
            raise ShapeError(
                "words and sentences do not fit the pieces",
                came=f"word {tuple(word.shape)}, sentence {tuple(sentence.shape)}",
                expected=tuple(ids.shape),
            )
        pieces = self.encode_pieces(ids, attention)  # (B, L, D)
        words, word_mask = gather(pieces, word, mean=False)  # pieces of a word are summed
        sentences, sentence_mask = gather(words, owners(word, sentence), mean=self.config.agg_word == "mean")
        count = sentence_mask.sum(1, keepdim=True).clamp(min=1)
        report = sentences.sum(1) / count
        return TextFeatures(words, word_mask, sentences, sentence_mask, report, pieces[:, 0])

    def forward(self, image: Tensor, phrases: Tensor) -> Tensor:
        """Cosine of phrase and place ``(B, K, h, w)``, in [-1, 1], of images as `encode_image` takes them.

        Phrases are in the common space, ``(K, D)`` for all images or ``(B, K, D)``, of any length.

        Raises:
            ShapeError: If a shape does not fit.
        """
        return similarity(self.encode_image(image).local, phrases)


def _check(config: SentenceGroundingConfig) -> None:
    """Refuse sizes that make no network."""
    given, whole = f"enlarge {config.enlarge}", config.enlarge is None  # only whole images come out even
    if config.local_stage not in (1, 2, 3, 4):
        raise UsageError("no such stage of the image trunk", came=config.local_stage, expected="1, 2, 3 or 4")
    if config.merge < 1 or (config.merge > 1 and not whole):
        raise UsageError(
            "merge must come out even",
            came=f"merge {config.merge}, {given}",
            expected="merge of 1 or more; above 1 without enlarge",
        )
    if config.finer and (config.local_stage == 1 or not whole):
        raise UsageError(
            "finer takes the stage before, at twice as many places a side",
            came=f"local_stage {config.local_stage}, {given}",
            expected="local_stage 2, 3 or 4, without enlarge",
        )
    if any(size is not None and size < 1 for size in (config.width, config.enlarge)):
        raise UsageError("an impossible size", came=f"width {config.width}, {given}", expected="1 or more")
    if config.local == "factored" and config.positions:
        raise UsageError("a factored place has its position in any case", do="Leave positions out")


def similarity(local: Tensor, phrases: Tensor) -> Tensor:
    """Cosine of phrases ``(K, D)`` or ``(B, K, D)`` with places ``(B, D, h, w)``: ``(B, K, h, w)``.

    Raises:
        ShapeError: If the shapes do not fit each other.
    """
    fits = phrases.ndim in (2, 3) and phrases.shape[-1] == local.shape[1]
    if not fits or (phrases.ndim == 3 and phrases.shape[0] != local.shape[0]):
        raise ShapeError(
            "phrases do not fit the image",
            came=tuple(phrases.shape),
            expected=f"(K, {local.shape[1]}) or ({local.shape[0]}, K, {local.shape[1]})",
            do="Encode them with the network that encoded the image",
        )
    places = F.normalize(local.flatten(2), dim=1, eps=1e-8)  # (B, D, h*w)
    cosine = F.normalize(phrases, dim=-1, eps=1e-8) @ places  # (B, K, h*w)
    return cosine.view(*cosine.shape[:2], *local.shape[2:])
