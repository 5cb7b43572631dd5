r"""Networks that write their own report where none is given: a locator predicts zones, a segmenter reads a report.

For any locator and any segmenter::

    z, A, f = locator(image)         zone logits (B, 6), attention map (B, 1, h, w) or none, features (B, F)
    row    = sum over zones of 2^zone where sigmoid(z) >= threshold
    report = the given one; or bank[row]; or none, where row = 0 or no report may be written
    logits = segmenter(image, report)

The sentences stand in a table, the bank: row i holds the token features of the sentence of ``Zones.from_index(i)``.
Nothing but a look-up joins the halves, so that one graph runs with a report and without.

Two options go past the papers: ``presence``, whether the film shows any lesion, a linear layer on f; and ``denial``, a
learned token beside the report for each zone that a person denies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from textray.errors import ShapeError, UsageError
from textray.models.base import Network, Output
from textray.nn.detector import STRIDES, Aggregator, Detector, LERGConfig, pool, splat
from textray.nn.image_encoder import ImageEncoder

ROWS = 64
"""Sentences of a bank: one for each set of the six zones."""
ZONES = 6


class Located(NamedTuple):
    """Output of a locator; the last two are ``None`` where it has none, or where only the first was kept."""

    zone_logits: Tensor  # (B, 6) in the order of `textray.records.Zones`
    attention: Tensor | None = None  # where they come from, (B, 1, h, w), at least 0, with sum 1 for each image
    features: Tensor | None = None  # of the whole image, (B, F)


class Locator(nn.Module):
    """Base of networks that predict zones from an image with sides of multiples of ``size_multiple``.

    ``width`` is the number F of features of the whole image.
    """

    def __init__(self, *, size_multiple: int, width: int) -> None:
        super().__init__()
        self.size_multiple, self.width = size_multiple, width

    def load_pretrained(self) -> None:
        """Read the pretrained tensors that the configuration names, if any."""
        cast(ImageEncoder, self.trunk).load_pretrained()

    def forward(self, image: Tensor) -> Located:
        """Find zones in an image."""
        raise NotImplementedError


class SelfGuided(Network):
    """A segmenter that reads the given report, or else the sentence of the zones that a locator finds.

    Where no zone reaches its threshold, its own report is none, never "no infection.": a network that predicts no zone
    goes on as the segmenter does without a report. For ``text_mask`` see `textray.models.base.Network`.

    Args:
        locator: Predicts zones.
        segmenter: Reads image and report.
        tokens: Most tokens L of a report, padding included; the bank's length.
        zone_tokens: Give the segmenter six more tokens beside its own sentence, one for each zone:
            ``p present + (1 - p) absent``, p the zone's probability and both vectors learned. Not in the paper.
        presence: Tell whether a film shows any lesion, from the locator's features alone. Not in the paper.
        denial: Read which zones a person denies: a learned token for each. Not in the paper.

    Attributes:
        bank_features: ``(64, L, D)``, token features of the sentences; see `set_bank`.
        bank_mask: ``(64, L)`` bool, true at real tokens. All false until `set_bank`: no report is written then.
        thresholds: ``(6,)``, probability from which on a zone is written; see `set_thresholds`.
        bounds: ``(4,)``, probabilities at which a film is judged, in the order of `textray.inference.film.Bounds`.

    Raises:
        UsageError: If the segmenter cannot read that many tokens, or cannot do without a report.
    """

    tells_zones = True
    outputs = ("logits", "zone_logits", "attention", "presence", "lungs")
    bank_features: Tensor
    bank_mask: Tensor
    thresholds: Tensor
    bounds: Tensor

    def __init__(
        self,
        locator: Locator,
        segmenter: Network,
        *,
        tokens: int,
        zone_tokens: bool,
        presence: bool = False,
        denial: bool = False,
    ) -> None:
        width = segmenter.text_width
        if width is None or segmenter.needs_text:
            raise UsageError("a self-guided network needs a segmenter that runs with a report and without")
        super().__init__(
            in_channels=segmenter.in_channels,
            size_multiple=math.lcm(segmenter.size_multiple, locator.size_multiple),
            text_width=width,
            most_tokens=tokens,
            no_report=False,
        )
        read = tokens + ZONES * (zone_tokens + denial)
        if tokens < 1 or (segmenter.most_tokens is not None and read > segmenter.most_tokens):
            raise UsageError(
                "the segmenter cannot read a report of that length",
                came=f"{tokens} tokens" + (f" and {read - tokens} of the zones" if read > tokens else ""),
                expected=f"1 to {segmenter.most_tokens} in all",
                do="Raise tokens of the segmenter's config, or lower tokens",
            )
        self.locator, self.segmenter = locator, segmenter
        self.tokens, self.zone_tokens = tokens, zone_tokens
        self.register_buffer("bank_features", torch.zeros(ROWS, tokens, width))
        self.register_buffer("bank_mask", torch.zeros(ROWS, tokens, dtype=torch.bool))
        self.register_buffer("thresholds", torch.full((ZONES,), 0.5))
        if zone_tokens:
            self.zone_present = nn.Parameter(torch.randn(ZONES, width) * 0.02)
            self.zone_absent = nn.Parameter(torch.randn(ZONES, width) * 0.02)
        self.tells_presence, self.reads_denial, self.tells_lungs = presence, denial, segmenter.tells_lungs
        if presence:
            self.presence = nn.Linear(locator.width, 1)
            self.register_buffer("bounds", torch.tensor([0.5, 0.5, 0.0, 1.0]))
        if denial:
            self.zone_denied = nn.Parameter(torch.randn(ZONES, width) * 0.02)

    @property
    def trunk(self) -> nn.ModuleList:
        """Both image trunks, the locator's and the segmenter's."""
        return nn.ModuleList(cast(nn.Module, half.trunk) for half in (self.locator, self.segmenter))

    def load_pretrained(self) -> None:
        """Read the pretrained tensors of both halves."""
        self.locator.load_pretrained()
        self.segmenter.load_pretrained()

    def set_bank(self, features: Tensor, mask: Tensor) -> None:
        """Fill the table of sentences with features ``(64, l, D)``, l at most ``tokens``, and a mask ``(64, l)``.

        Row i encodes the sentence of ``Zones.from_index(i)``; the mask is above zero at real tokens.

        Raises:
            ShapeError: If they are of other shapes.
        """
        rows, length, width = self.bank_features.shape
        fits = features.ndim == 3 and features.shape[0] == rows and features.shape[2] == width
        if not fits or features.shape[1] > length or mask.shape != features.shape[:2]:
            raise ShapeError(
                "the bank of sentences does not fit",
                came=f"features {tuple(features.shape)}, mask {tuple(mask.shape)}",
                expected=f"({rows}, l, {width}) and ({rows}, l) with l at most {length}",
                do="Encode bank_sentences() with the encoder and max_tokens of the network",
            )
        short = length - features.shape[1]
        with torch.no_grad():
            self.bank_features.copy_(F.pad(features, (0, 0, 0, short)))
            self.bank_mask.copy_(F.pad(mask > 0, (0, short)))

    def set_thresholds(self, values: Tensor) -> None:
        """Set the probability from which on each zone is written: ``(6,)``, values 0 to 1.

        Raises:
            ShapeError: If they are not six.
            UsageError: If one is no probability.
        """
        if values.shape != (ZONES,):
            raise ShapeError("zone thresholds do not fit", came=tuple(values.shape), expected=(ZONES,))
        if not bool(((values >= 0) & (values <= 1)).all()):
            raise UsageError("zone thresholds are probabilities", came=values.tolist(), expected="values of 0 to 1")
        with torch.no_grad():
            self.thresholds.copy_(values)

    def write(self, zone_logits: Tensor) -> Tensor:
        """Choose sentences: ``(B, 6)`` to rows of the bank ``(B,)`` int64; 0 where no zone reaches its threshold."""
        places = 2 ** torch.arange(ZONES, device=zone_logits.device)  # as `Zones.index` counts
        return ((torch.sigmoid(zone_logits) >= self.thresholds) * places).sum(1)

    def report(
        self,
        zone_logits: Tensor,
        text_features: Tensor | None,
        text_mask: Tensor | None,
        image: Tensor,
        denied: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Put together what the segmenter reads of each image: the given reports ``(B, l, D)``, or its own.

        Returns:
            Features ``(B, L, D)`` and mask ``(B, L)`` bool; six tokens more with zone tokens, and with denial. A row of
            false is no report.

        Raises:
            ShapeError: If the given reports do not fit.
        """
        sentence = self.write(zone_logits)  # (B,)
        writes = sentence > 0
        features, mask = self.bank_features[sentence], self.bank_mask[sentence]  # (B, L, D), (B, L)
        if text_features is not None:
            real = self.check_text(image, text_features, text_mask)  # (B, l)
            short = self.tokens - real.shape[1]
            given = real.any(1)
            writes = writes & ~given
            if text_mask is not None:
                writes = writes & ~(text_mask < 0).any(1)
            features = torch.where(given[:, None, None], F.pad(text_features, (0, 0, 0, short)), features)
            # Not torch.where, whose graph on truth values onnxruntime has no code for.
            mask = F.pad(real, (0, short)) | (mask & writes[:, None])
        else:
            mask = mask & writes[:, None]
        if self.zone_tokens:
            writes = writes & mask.any(1)  # an empty bank writes nothing
            # Detached: the loss of the mask does not reach the locator, as it does not through the sentence.
            present = torch.sigmoid(zone_logits.detach())[..., None]  # (B, 6, 1)
            zones = present * self.zone_present + (1 - present) * self.zone_absent  # (B, 6, D)
            features = torch.cat([features, zones], 1)
            mask = torch.cat([mask, writes[:, None].expand(-1, ZONES)], 1)
        if self.reads_denial:
            features = torch.cat([features, self.zone_denied.expand(image.shape[0], -1, -1)], 1)
            mask = torch.cat([mask, mask.new_zeros(image.shape[0], ZONES) if denied is None else denied > 0], 1)
        return features, mask

    def forward(
        self,
        image: Tensor,
        text_features: Tensor | None = None,
        text_mask: Tensor | None = None,
        denied: Tensor | None = None,
        located: Located | None = None,
    ) -> Output:
        """Segment images with their reports, or with such as it writes itself, see `Network`.

        Without ``text_features`` no image has a report, and each gets its own. ``denied`` ``(B, 6)`` is above zero at
        the zones that a person denies. ``located`` is the output of the locator, where it ran on these images before.

        Returns:
            Logits ``(B, 1, H, W)``, zone logits ``(B, 6)`` and, where there are such, the locator's map
            ``(B, 1, h, w)``, presence ``(B, 1)`` and lungs ``(B, 2, H/4, W/4)``.

        Raises:
            ShapeError: If a shape does not fit.
        """
        self.check_image(image)
        zone_logits, attention, pooled = self.locator(image) if located is None else located
        features, mask = self.report(zone_logits, text_features, text_mask, image, denied)
        found = self.segmenter(image, features, mask)
        presence = self.presence(pooled) if self.tells_presence and pooled is not None else None
        attended = None if attention is None else (attention,)
        return Output(found.logits, zone_logits, attention=attended, presence=presence, lungs=found.lungs)


# Locators: LERG, and the pooled classifier that replaces it.


@dataclass(frozen=True, kw_only=True)
class PooledConfig:
    """Sizes of a pooled classifier.

    Attributes:
        trunk: timm's name of the image trunk, with its tag.
        trunk_weights: Its pretrained tensors, see `textray.nn.image_encoder.read_trunk`; ``None`` for random ones.
        width: Channels that the last map is brought to before it is pooled; ``None`` pools it as it is.
    """

    trunk: str = "resnet50.a1_in1k"
    trunk_weights: str | None = None
    width: int | None = None


class LERG(Locator):
    """Localization-enhanced report generation: a detector's object queries, aggregated into zones.

    Its attention map stands on the detector's finest grid, ``(B, 1, H/8, W/8)``: the aggregator's weight of each query,
    spread over the places that the query samples in the last layer. No gradient comes out of the map. The default sizes
    give 41,787,174 trainable parameters.

    Raises:
        UsageError: If a size is impossible.
    """

    def __init__(self, config: LERGConfig, *, in_channels: int = 3) -> None:
        super().__init__(size_multiple=32, width=6 * config.width)
        self.detector = Detector(config, in_channels=in_channels)
        self.aggregator = Aggregator(config.width, config.aggregate)

    @property
    def trunk(self) -> nn.Module:
        """The detector's image trunk."""
        return self.detector.rt_detr.backbone

    def load_pretrained(self) -> None:
        """Read the trunk's or the whole detector's pretrained tensors, if the configuration names any."""
        self.detector.load_pretrained()

    def forward(self, image: Tensor) -> Located:
        """Zone logits ``(B, 6)``, map ``(B, 1, H/8, W/8)`` and features ``(B, 6 d)``."""
        objects, places, shares, features = self.detector(image)
        logits, weights = self.aggregator(objects)
        shares = (weights.detach()[..., None] * shares).flatten(1)  # (B, Q * N)
        size = image.shape[2] // STRIDES[0], image.shape[3] // STRIDES[0]
        return Located(logits, splat(places.flatten(1, 2), shares, size), features)


class PooledLocator(Locator):
    """An image trunk, the mean of its last map, a linear layer: what the authors' released code has for LERG.

    Since the mean and the linear layer may change places, each place of the last map has zone logits of its own. The
    attention map ``(B, 1, H/32, W/32)`` is a softmax over the places of those, each zone counting by its probability.

    Raises:
        UsageError: If the trunk is of a family that cannot be cut into stages, or the width is impossible.
    """

    def __init__(self, config: PooledConfig, *, in_channels: int = 3) -> None:
        trunk = ImageEncoder(config.trunk, in_channels=in_channels, weights=config.trunk_weights)
        channels = trunk.channels[3]
        super().__init__(size_multiple=32, width=2 * (config.width or channels))
        self.trunk = trunk
        if config.width is not None and config.width < 1:
            raise UsageError("a pooled classifier cannot have this width", came=config.width, expected="1 or more")
        self.widen: nn.Module = nn.Identity()
        if config.width is not None:
            norm = nn.BatchNorm2d(config.width)
            self.widen = nn.Sequential(nn.Conv2d(channels, config.width, 1, bias=False), norm, nn.ReLU(inplace=True))
        self.classifier = nn.Linear(config.width or channels, ZONES)

    def forward(self, image: Tensor) -> Located:
        """Zone logits ``(B, 6)``, map ``(B, 1, H/32, W/32)`` and features ``(B, 2 C)``."""
        features = self.widen(self.trunk(image)[3])  # (B, C, h, w)
        logits = self.classifier(features.mean((2, 3)))
        with torch.no_grad():  # for showing only
            weight = torch.sigmoid(logits) @ self.classifier.weight  # (B, C)
            evidence = (weight[:, None] @ features.flatten(2)).softmax(2)  # (B, 1, h*w)
        return Located(logits, evidence.unflatten(2, features.shape[2:]), pool(features))
