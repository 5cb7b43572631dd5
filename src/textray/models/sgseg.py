r"""SGSeg: a film's own report guides its segmentation.

Source: Ye, Meng, Li, Feng, Kim: Enabling Text-free Inference in Language-guided Segmentation of Chest X-rays via
Self-guidance, MICCAI 2024. ``SGSeg`` has the paper's LERG, ``SGSegSimple`` a pooled classifier in its place.

The idea: a segmenter that was trained with true reports needs one at inference, when none exists yet. A detector that
was trained on the zones of the true reports writes it: zones, then a sentence, then the segmenter.

Shapes in the paper's configuration, 224 x 224, L = 24 tokens of width D = 768:

    ============  ==========================================================  =====================================
    part          operation                                                   output
    ============  ==========================================================  =====================================
    trunk         ResNet-50-vd at strides 8, 16, 32                           512x28², 1024x14², 2048x7²
    fusion        Conv 1x1, BN; one encoder layer on 7²; CCFM up and down     256 at 28², 14², 7²
    decoder       the 300 best of 1,029 places; six deformable layers         X, 300 x 256
    aggregator    A = softmax(X q^T) X; Linear                                256; 6 zone logits
    report        zones at their thresholds; row of the bank                  24 x 768
    segmenter     GuideDecoder                                                1x224² logits
    ============  ==========================================================  =====================================

Differences from the paper: logits leave the network; where no zone is found the segmenter runs without a report, since
no training film is without an infection; thresholds of zones are settable. Options go past the paper: MMI-UNet as
segmenter, six queries or a mean as aggregator, tokens of the zones' probabilities beside the sentence, presence of any
lesion, tokens of denied zones.

Differences from the authors' released code: the detector runs once an image, and its report is chosen without gradient;
published detector weights reach the detector; what no loss can train is frozen, not called trainable; sentences come
from a table of the frozen text encoder; the trunk is the paper's ResNet.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from textray.errors import UsageError
from textray.models.base import Network
from textray.models.guide_decoder import GuideDecoder, GuideDecoderConfig
from textray.models.mmi_unet import MMIUNet, MMIUNetConfig
from textray.models.self_guided import LERG, PooledConfig, PooledLocator, SelfGuided
from textray.nn.detector import LERGConfig


@dataclass(frozen=True, kw_only=True)
class GuidedConfig:
    """Sizes of both SGSegs.

    Attributes:
        guide_decoder: Sizes of a GuideDecoder as segmenter, the paper's (whose authors start from the trunk
            ``convnext_tiny.fb_in1k`` with a scale of 0.01, as the recipe does); or
        mmi_unet: Sizes of an MMI-UNet as segmenter. One of both, the other ``None``.
        tokens: Most tokens L of a report, padding included; the length of the table of sentences.
        zone_tokens: Tokens of the zones' probabilities beside the network's own sentence; see
            `textray.models.self_guided.SelfGuided`.
        presence: Tell from the image alone whether it shows any lesion.
        denial: Read which zones a person denies.
    """

    guide_decoder: GuideDecoderConfig | None = field(default_factory=GuideDecoderConfig)
    mmi_unet: MMIUNetConfig | None = None
    tokens: int = 24
    zone_tokens: bool = False
    presence: bool = False
    denial: bool = False


@dataclass(frozen=True, kw_only=True)
class SGSegConfig(GuidedConfig):
    """Sizes of an SGSeg, whose locator is LERG; the defaults are the paper's configuration."""

    locator: LERGConfig = field(default_factory=LERGConfig)


@dataclass(frozen=True, kw_only=True)
class SGSegSimpleConfig(GuidedConfig):
    """Sizes of an SGSeg whose locator is a pooled classifier."""

    locator: PooledConfig = field(default_factory=PooledConfig)


class SGSeg(SelfGuided):
    """SGSeg in its paper form: LERG writes, the segmenter reads.

    The default sizes are the paper's: 83,963,719 trainable parameters.

    Raises:
        UsageError: If there is no segmenter or two, or a size is impossible.
    """

    def __init__(self, config: SGSegConfig = SGSegConfig()) -> None:
        segmenter = build_segmenter(config)
        locator = LERG(config.locator, in_channels=segmenter.in_channels)
        super().__init__(locator, segmenter, **own_options(config))
        self.config = config


class SGSegSimple(SelfGuided):
    """SGSeg with a pooled classifier in LERG's place: a row of the paper's ablation.

    Raises:
        UsageError: If there is no segmenter or two, or a size is impossible.
    """

    def __init__(self, config: SGSegSimpleConfig = SGSegSimpleConfig()) -> None:
        segmenter = build_segmenter(config)
        locator = PooledLocator(config.locator, in_channels=segmenter.in_channels)
        super().__init__(locator, segmenter, **own_options(config))
        self.config = config


def own_options(config: GuidedConfig) -> dict[str, Any]:
    """Options of `SelfGuided` itself in a configuration."""
    return {name: getattr(config, name) for name in ("tokens", "zone_tokens", "presence", "denial")}


def build_segmenter(config: GuidedConfig) -> Network:
    """Build the segmenter of a configuration.

    Raises:
        UsageError: If it names none or two, or one with a zone head of its own.
    """
    if (config.guide_decoder is None) == (config.mmi_unet is None):
        raise UsageError(
            "a self-guided network has one segmenter",
            came="none" if config.mmi_unet is None else "guide_decoder and mmi_unet",
            expected="sizes of guide_decoder or of mmi_unet, and null for the other",
        )
    if config.mmi_unet is None:
        return GuideDecoder(config.guide_decoder or GuideDecoderConfig())
    if config.mmi_unet.zone_head:
        raise UsageError("the locator predicts the zones: a zone head would have no loss", do="Leave zone_head out")
    return MMIUNet(config.mmi_unet)
