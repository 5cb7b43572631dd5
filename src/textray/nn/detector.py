r"""LERG's detector: object queries of RT-DETR, aggregated by where they are into zone logits.

Source: Ye, Meng, Li, Feng, Kim: Enabling Text-free Inference in Language-guided Segmentation of Chest X-rays via
Self-guidance, MICCAI 2024 (localization-enhanced report generation). The detector is transformers' ``RTDetrModel``
(Zhao et al., DETRs Beat YOLOs on Real-time Object Detection, CVPR 2024)::

    X = Decode(CCFM(F_CNN(image)))               object queries, (B, Q, d)
    A = softmax(X q^T) X                         one learned query q; (B, d)
    z = W A + b                                  zone logits, (B, 6)

No loss trains boxes, so none are returned, but where the queries look: the aggregator's weight of each query, spread
over the places that its last layer samples.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import RTDetrConfig, RTDetrModel
from transformers.models.rt_detr.configuration_rt_detr_resnet import RTDetrResNetConfig

from textray.errors import BundleError, UsageError
from textray.nn.image_encoder import ImageEncoder

PUBLISHED: dict[str, dict[str, Any]] = {
    "resnet18_vd": {"depths": (2, 2, 2, 2), "hidden_sizes": (64, 128, 256, 512), "layer_type": "basic"},
    "resnet50_vd": {"depths": (3, 4, 6, 3), "hidden_sizes": (256, 512, 1024, 2048), "layer_type": "bottleneck"},
}
"""Trunks of published detectors, which come with transformers; every other name is one of timm's."""
CLASSES = 80
"""Classes that published detectors were trained on; their scores choose the queries."""
DEAD = ("enc_output.", "enc_score_head.", "enc_bbox_head.")
"""Parts that choose queries and their places; RT-DETR detaches both, so that only a loss on boxes would train them."""
STRIDES = (8, 16, 32)


@dataclass(frozen=True, kw_only=True)
class LERGConfig:
    """Sizes of LERG; the defaults are the paper's configuration.

    Attributes:
        trunk: ``resnet50_vd`` or ``resnet18_vd`` as published detectors have them, or timm's name of a trunk.
        trunk_weights: Tensors of a timm trunk, see `textray.nn.image_encoder.read_trunk`; ``None`` for random ones.
        detector_weights: A published RT-DETR, trunk included: a ``.safetensors`` file or a folder with a
            ``model.safetensors``; ``None`` for a random start. Read once, when a training starts.
        size: Height and width, multiples of 32, that an image is brought to before the trunk; ``None`` takes it as it
            is. Past the paper: zones are coarse, and a detector is slow at a segmenter's size.
        width: Width d of maps and queries, a multiple of 4 and of ``heads``.
        queries: Object queries Q; an image with fewer places than that has as many queries as places.
        layers: Layers of the decoder.
        heads: Heads of an attention.
        ffn: Hidden width of the feed-forward layers.
        expansion: Inner width of the fusion blocks as a share of ``width``: 1, and 0.5 in the small published detector.
        aggregate: How queries become zones: ``one`` learned query asks for all six (the paper), ``six`` ask for one
            each, ``mean`` asks nothing.
    """

    trunk: str = "resnet50_vd"
    trunk_weights: str | None = None
    detector_weights: str | None = None
    size: tuple[int, int] | None = None
    width: int = 256
    queries: int = 300
    layers: int = 6
    heads: int = 8
    ffn: int = 1024
    expansion: float = 1.0
    aggregate: Literal["one", "six", "mean"] = "one"


class Aggregator(nn.Module):
    """Object queries to zone logits; of ``mode`` see `LERGConfig.aggregate`."""

    def __init__(self, width: int, mode: Literal["one", "six", "mean"]) -> None:
        super().__init__()
        self.mode = mode
        if mode != "mean":
            # Queries leave a layer norm with a length of sqrt(d): so the scores start with a spread of 1.
            self.query = nn.Parameter(torch.randn(1 if mode == "one" else 6, width) * width**-0.5)
        self.classifier = nn.Linear(width, 6)

    def forward(self, objects: Tensor) -> tuple[Tensor, Tensor]:
        """Zone logits ``(B, 6)`` of objects X ``(B, Q, d)``, and the weight of each object ``(B, Q)``, with sum 1.

        If each zone has its own weights, these are the mean of the six.
        """
        if self.mode == "mean":
            weights = torch.full_like(objects[:, None, :, 0], 1 / objects.shape[1])  # (B, 1, Q)
        else:
            weights = torch.softmax(self.query @ objects.transpose(1, 2), 2)  # (B, 1 or 6, Q)
        gathered = weights @ objects  # (B, 1 or 6, d)
        logits = (gathered * self.classifier.weight).sum(2) + self.classifier.bias
        return logits, weights.mean(1)


class Detector(nn.Module):
    """RT-DETR up to its object queries, with the places at which they look.

    Its parts are called one by one, as ``RTDetrModel.forward`` does, which fixes the batch of an exported graph and
    has no room for images with fewer places than queries.

    Raises:
        UsageError: If a size is impossible, or weights are named that the trunk cannot take.
    """

    def __init__(self, config: LERGConfig, *, in_channels: int) -> None:
        super().__init__()
        check(config)
        self.config = config
        encoder = None
        trunk = PUBLISHED.get(config.trunk)
        if trunk is None:
            encoder = ImageEncoder(config.trunk, in_channels=in_channels, weights=config.trunk_weights)
            # The smallest trunk of transformers with these channels; ours takes its place below.
            trunk = {"depths": (1,) * 4, "hidden_sizes": encoder.channels, "layer_type": "bottleneck"}
        shape = {key: list(value) if isinstance(value, tuple) else value for key, value in trunk.items()}
        self.rt_detr = RTDetrModel(
            RTDetrConfig(
                backbone_config=RTDetrResNetConfig(num_channels=in_channels, out_indices=[2, 3, 4], **shape),
                freeze_backbone_batch_norms=False,  # without detector weights there is nothing worth freezing
                encoder_in_channels=shape["hidden_sizes"][1:],
                encoder_hidden_dim=config.width,
                encoder_ffn_dim=config.ffn,
                encoder_attention_heads=config.heads,
                hidden_expansion=config.expansion,
                d_model=config.width,
                decoder_in_channels=[config.width] * 3,
                decoder_ffn_dim=config.ffn,
                decoder_layers=config.layers,
                decoder_attention_heads=config.heads,
                num_queries=config.queries,
                num_labels=CLASSES,
                num_denoising=0,
                learn_initial_query=False,
            )
        )
        if encoder is not None:
            self.rt_detr.backbone = encoder
        _start(self.rt_detr)
        for name, parameter in self.rt_detr.named_parameters():
            parameter.requires_grad_(not name.startswith(DEAD))

    def load_pretrained(self) -> None:
        """Read the pretrained tensors that the configuration names, if any."""
        if isinstance(self.rt_detr.backbone, ImageEncoder):
            self.rt_detr.backbone.load_pretrained()
        if self.config.detector_weights is not None:
            load_detector(self.rt_detr, self.config.detector_weights)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Detect in images ``(B, C, H, W)``, H and W multiples of 32.

        Returns:
            Object queries X ``(B, Q, d)``; the N places that each samples in the last layer, ``(B, Q, N, 2)`` as x and
            y, 0 to 1 inside the image; their shares ``(B, Q, N)``, with sum 1; and means and maxima of the fused maps,
            ``(B, 6 d)``.
        """
        sources = self.fuse(image)
        sizes = [(source.shape[2], source.shape[3]) for source in sources]
        memory = torch.cat([source.flatten(2).transpose(1, 2) for source in sources], 1)  # (B, places, d)
        queries, anchors = self.choose(memory, sizes)
        shapes = torch.tensor(sizes, device=image.device)
        starts = torch.cat([shapes.new_zeros(1), shapes.prod(1).cumsum(0)[:-1]])
        seen: dict[str, Tensor] = {}
        look = self.rt_detr.decoder.layers[-1].encoder_attn
        hook = look.register_forward_pre_hook(lambda module, given, named: seen.update(named), with_kwargs=True)
        try:
            objects = self.rt_detr.decoder(
                inputs_embeds=queries,
                encoder_hidden_states=memory,
                reference_points=anchors,
                spatial_shapes=shapes,
                spatial_shapes_list=sizes,
                level_start_index=starts,
            ).last_hidden_state
        finally:
            hook.remove()
        with torch.no_grad():  # for showing only
            asking = seen["hidden_states"] + seen["position_embeddings"]  # (B, Q, d)
            heads = (*asking.shape[:2], look.n_heads, -1)
            shares = torch.softmax(look.attention_weights(asking).view(heads), 3)  # (B, Q, heads, levels * points)
            offsets = look.sampling_offsets(asking).view(*shares.shape, 2)
            box = seen["reference_points"][:, :, :, None]  # (B, Q, 1, 1, 4): centre and size
            sampled = box[..., :2] + offsets / look.n_points * box[..., 2:] / 2
            places, shares = sampled.flatten(2, 3), shares.flatten(2) / look.n_heads
        return objects, places, shares, torch.cat([pool(source) for source in sources], 1)

    def fuse(self, image: Tensor) -> list[Tensor]:
        """Trunk, encoder and fusion: ``(B, C, H, W)`` to three maps ``(B, d, h, w)`` at its strides 8, 16, 32."""
        if self.config.size is not None:
            image = F.interpolate(image, tuple(self.config.size), mode="bilinear", align_corners=False)
        backbone = self.rt_detr.backbone
        ours = isinstance(backbone, ImageEncoder)
        maps = backbone(image)[1:] if ours else backbone.model(image).feature_maps
        maps = [project(found) for project, found in zip(self.rt_detr.encoder_input_proj, maps, strict=True)]
        fused = self.rt_detr.encoder(maps).last_hidden_state
        return [project(found) for project, found in zip(self.rt_detr.decoder_input_proj, fused, strict=True)]

    @torch.no_grad()
    def choose(self, memory: Tensor, sizes: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        """Choose the places that the best scores come from, all of them where there are no more than queries.

        The memory ``(B, places, d)`` is the maps one behind the other, ``sizes`` height and width of each.

        Returns:
            Queries to start from ``(B, Q, d)`` and logits of their boxes ``(B, Q, 4)``.
        """
        anchors, valid = self.rt_detr.generate_anchors(tuple(sizes), device=memory.device, dtype=memory.dtype)
        embedded = self.rt_detr.enc_output(valid.to(memory.dtype) * memory)
        scores = self.rt_detr.enc_score_head(embedded).amax(2)  # (B, places)
        boxes = self.rt_detr.enc_bbox_head(embedded) + anchors
        best = scores.topk(min(self.config.queries, scores.shape[1]), dim=1).indices[..., None]  # (B, Q, 1)
        return embedded.gather(1, best.expand(-1, -1, embedded.shape[2])), boxes.gather(1, best.expand(-1, -1, 4))


def pool(features: Tensor) -> Tensor:
    """Mean and maximum of each channel of maps ``(B, C, h, w)``: ``(B, 2 C)``."""
    return torch.cat([features.mean((2, 3)), features.amax((2, 3))], 1)


def check(config: LERGConfig) -> None:
    """Refuse sizes that no detector can have, and weights that the trunk cannot take."""
    numbers = (config.queries, config.layers, config.heads, config.ffn)
    if min(numbers) < 1 or config.width % 4 or config.width % config.heads or config.width * config.expansion < 1:
        raise UsageError(
            "a detector cannot have these sizes",
            came=f"queries, layers, heads, ffn {numbers}, width {config.width}, expansion {config.expansion}",
            expected="each 1 or more, and a width that is a multiple of 4 and of heads",
        )
    if config.size is not None and (len(config.size) != 2 or min(config.size) < 32 or any(n % 32 for n in config.size)):
        raise UsageError(
            "a detector cannot see images of this size",
            came=config.size,
            expected="height and width, each a multiple of 32",
        )
    if config.trunk in PUBLISHED and config.trunk_weights is not None:
        raise UsageError(
            f"the trunk {config.trunk} has no weights of its own",
            came=f"trunk_weights {config.trunk_weights}",
            do="Name a whole published detector as detector_weights",
        )
    if config.trunk not in PUBLISHED and config.detector_weights is not None:
        raise UsageError(
            "detector_weights hold their own trunk",
            came=f"trunk {config.trunk}",
            expected=" or ".join(PUBLISHED),
            do="Choose such a trunk, or name trunk_weights alone",
        )


def _start(detector: RTDetrModel) -> None:
    """Give all but the trunk the start that a detector learns from.

    transformers starts batch norms near zero, which only a reading of published weights makes good. Boxes start as the
    anchors themselves, so that each query looks around its own place.
    """
    for name, module in detector.named_modules():
        if name.startswith("backbone") or name.endswith((".sampling_offsets", ".attention_weights")):
            continue
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.LayerNorm)):
            module.reset_parameters()
    last = detector.enc_bbox_head.layers[-1]
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)


def splat(places: Tensor, shares: Tensor, size: tuple[int, int]) -> Tensor:
    """Spread shares ``(B, N)`` over a map ``(B, 1, h, w)``, each between the four cells around its place.

    Places ``(B, N, 2)`` are x and y, 0 to 1 inside the image; what is outside counts at the border.
    """
    across, down = (
        F.relu(
            1 - ((places[..., axis] * n - 0.5).clamp(0, n - 1)[..., None] - torch.arange(n, device=places.device)).abs()
        )
        for axis, n in enumerate(reversed(size))
    )  # (B, N, w), (B, N, h)
    return ((down * shares[..., None]).transpose(1, 2) @ across)[:, None]


# Tensors of published detectors.

logger = logging.getLogger(__name__)

FILE = "model.safetensors"
LEAST = 0.9
"""Least share of the detector's tensors that must have changed by reading published ones."""
_RENAMED = (  # names of transformers 5, and the published ones, to which both sides are brought
    (re.compile(r"(layers\.\d+)\.mlp\.(fc[12])\."), r"\1.\2."),
    (re.compile(r"\bself_attn\.o_proj\."), "self_attn.out_proj."),
    (re.compile(r"^encoder\.aifi\."), "encoder.encoder."),
)


def published_name(name: str) -> str:
    """Name of a tensor of ``RTDetrModel`` in published files, without their leading ``model.``."""
    name = name.removeprefix("model.")
    for pattern, old in _RENAMED:
        name = pattern.sub(old, name)
    return name


def load_detector(detector: nn.Module, source: str) -> None:
    """Copy the tensors of a published detector; its last heads, for boxes and classes, are left out.

    Raises:
        BundleError: If there is no such file, a tensor is missing or of another shape, or too few have changed.
    """
    given = {published_name(name): value for name, value in _read(Path(source)).items()}
    # Some files count the batches that a normalisation has seen, some don't; the number means nothing here.
    ours = {k: v for k, v in detector.state_dict().items() if not k.endswith("num_batches_tracked")}
    names = {name: published_name(name) for name in ours}
    missing = [theirs for theirs in names.values() if theirs not in given]
    if missing:
        raise BundleError(
            f"tensors of the detector are missing in {source}",
            came=f"{len(given)} tensors",
            expected=", ".join(missing[:5]),
            do="Name a published RT-DETR with the trunk and the sizes of the configuration",
        )
    for name, theirs in names.items():
        if ours[name].shape != given[theirs].shape:
            raise BundleError(
                f"tensor {theirs!r} of {source} does not fit the detector",
                came=tuple(given[theirs].shape),
                expected=tuple(ours[name].shape),
                do="Set trunk, width, layers, heads, ffn and expansion as the published detector has them",
            )
    changed = sum(not torch.equal(ours[name], given[theirs].to(ours[name].dtype)) for name, theirs in names.items())
    if changed < LEAST * len(ours):
        raise BundleError(
            f"reading {source} changes too little of the detector",
            came=f"{changed} of {len(ours)} tensors",
            expected=f"more than {LEAST:.0%}",
            do="Name the weights of a trained detector, and read them once",
        )
    with torch.no_grad():
        for name, theirs in names.items():
            ours[name].copy_(given[theirs])
    logger.info("detector weights of %s: %d of %d tensors changed", source, changed, len(ours))


def _read(path: Path) -> dict[str, Tensor]:
    """Tensors of a file or of a folder's file."""
    file = path / FILE if path.is_dir() else path
    if not file.is_file() or file.suffix != ".safetensors":
        raise BundleError(
            "no detector weights to read", came=path, expected=f"a .safetensors file, or a folder with {FILE}"
        )
    try:
        return load_file(file)
    except SafetensorError as error:
        raise BundleError("the detector weights cannot be read", came=f"{file}: {error}") from error
