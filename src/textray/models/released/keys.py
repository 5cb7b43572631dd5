"""Names of the tensors in the published checkpoints, and which tensor of our networks each of them is.

A published file is a checkpoint: a dictionary whose ``state_dict`` holds the tensors. Those of Lightning keep their
network in the attribute ``model``, so every name there begins with ``model.``; the frozen text encoder is a part of
that network and stands under ``model.text_encoder.model.``. LViT's names have no prefix, and its text encoder is not in
the file. Nothing here imports torch.

The table of a network is made by rules, in the published order: each line gives the published name, our name (``None``
for what our networks compute themselves) and the shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import chain

from textray.errors import unknown_name

Shape = tuple[int, ...]
Row = tuple[str, str | None, Shape]
"""The published name, our name (``None`` for what our networks compute themselves), the shape."""


def under(theirs: str, ours: str, rows: Iterator[Row]) -> Iterator[Row]:
    """Rows with prefixes before both names."""
    for their_name, our_name, shape in rows:
        yield theirs + their_name, None if our_name is None else ours + our_name, shape


def pair(theirs: str, ours: str, *weight: int) -> Iterator[Row]:
    """A weight, and a bias as long as the weight's first side."""
    yield f"{theirs}.weight", f"{ours}.weight", weight
    yield f"{theirs}.bias", f"{ours}.bias", weight[:1]


def batch_norm(theirs: str, ours: str, width: int) -> Iterator[Row]:
    """A batch norm with its statistics."""
    yield from pair(theirs, ours, width)
    for part in ("running_mean", "running_var"):
        yield f"{theirs}.{part}", f"{ours}.{part}", (width,)
    yield f"{theirs}.num_batches_tracked", f"{ours}.num_batches_tracked", ()


# ConvNeXt networks.

LIGHTNING_PREFIX = "model."
"""What every name of a ``state_dict`` that Lightning wrote begins with."""

_CHANNELS = (96, 192, 384, 768)
_BLOCKS = (3, 3, 9, 3)
_WIDTH, _HIDDEN, _TOKENS, _PLACES = 768, 128, 24, 5000
_SLOTS = (9, 12, 24)


def _attention(theirs: str, ours: str, width: int) -> Iterator[Row]:
    yield f"{theirs}.in_proj_weight", f"{ours}.in_proj_weight", (3 * width, width)
    yield f"{theirs}.in_proj_bias", f"{ours}.in_proj_bias", (3 * width,)
    yield from pair(f"{theirs}.out_proj", f"{ours}.out_proj", width, width)


def _block(c: int, *, gamma: str, norm: str) -> Iterator[Row]:
    """A block of ConvNeXt."""
    yield gamma, "gamma", (c,)
    yield from pair("dwconv", "conv_dw", c, 1, 7, 7)
    yield from pair(norm, "norm", c)
    yield from pair("pwconv1", "mlp.fc1", 4 * c, c)
    yield from pair("pwconv2", "mlp.fc2", c, 4 * c)


def _our_blocks(stage: int) -> str:
    """Where our trunk keeps a stage's blocks; the first stage stands behind the stem."""
    return "trunk.stages.0.1.blocks" if stage == 0 else f"trunk.stages.{stage}.blocks"


def _trunk_of_mmi_unet() -> Iterator[Row]:
    """ConvNeXt-T in the style of its own authors: all downsampling layers, then all stages."""
    yield from pair("downsample_layers.0.0", "trunk.stages.0.0.0", 96, 3, 4, 4)
    yield from pair("downsample_layers.0.1", "trunk.stages.0.0.1", 96)
    for s in (1, 2, 3):
        before, c = _CHANNELS[s - 1 : s + 1]
        yield from pair(f"downsample_layers.{s}.0", f"trunk.stages.{s}.downsample.0", before)
        yield from pair(f"downsample_layers.{s}.1", f"trunk.stages.{s}.downsample.1", c, before, 2, 2)
    for s, c in enumerate(_CHANNELS):
        for b in range(_BLOCKS[s]):
            yield from under(f"stages.{s}.{b}.", f"{_our_blocks(s)}.{b}.", _block(c, gamma="gamma", norm="norm"))


def _trunk_of_guide_decoder() -> Iterator[Row]:
    """ConvNeXt-T in the style of the transformers library: stage by stage."""
    yield from pair("embeddings.patch_embeddings", "trunk.stages.0.0.0", 96, 3, 4, 4)
    yield from pair("embeddings.layernorm", "trunk.stages.0.0.1", 96)
    for s, c in enumerate(_CHANNELS):
        stage = f"encoder.stages.{s}"
        if s:
            before = _CHANNELS[s - 1]
            yield from pair(f"{stage}.downsampling_layer.0", f"trunk.stages.{s}.downsample.0", before)
            yield from pair(f"{stage}.downsampling_layer.1", f"trunk.stages.{s}.downsample.1", c, before, 2, 2)
        for b in range(_BLOCKS[s]):
            block = _block(c, gamma="layer_scale_parameter", norm="layernorm")
            yield from under(f"{stage}.layers.{b}.", f"{_our_blocks(s)}.{b}.", block)
    yield from pair("layernorm", "final_norm", 768)


def _text_head() -> Iterator[Row]:
    yield from pair("text_encoder.project_head.0", "text_head.0", _WIDTH, _WIDTH)
    yield from pair("text_encoder.project_head.1", "text_head.1", _WIDTH)
    yield from pair("text_encoder.project_head.3", "text_head.3", _WIDTH, _WIDTH)


def _fusion() -> Iterator[Row]:
    """The four fusion blocks."""
    for s, c in enumerate(_CHANNELS):
        theirs, ours = f"fusion{s + 1}", f"fusion.{s}"
        for branch, own_branch in (("fusion_v", "image"), ("fusion_t", "text")):
            yield from under(f"{theirs}.{branch}.", f"{ours}.{own_branch}.", _fusion_branch(c))
        yield f"{theirs}.zoom_in.weight", f"{ours}.reduce_image.weight", (c, c, 2, 2)
        yield f"{theirs}.zoom_out.weight", f"{ours}.restore_image.weight", (c, c, 2, 2)
        yield from pair(f"{theirs}.linear1", f"{ours}.reduce_text", c, _WIDTH)
        yield from pair(f"{theirs}.linear2", f"{ours}.restore_text", _WIDTH, c)
        yield from pair(f"{theirs}.ln_v", f"{ours}.image_norm", c)
        yield from pair(f"{theirs}.ln_t", f"{ours}.text_norm", c)


def _fusion_branch(c: int) -> Iterator[Row]:
    yield from _attention("self_attn", "self_attention", c)
    yield from _attention("multihead_attn", "cross_attention", c)
    yield from pair("linear1", "feed_forward.expand", _HIDDEN, c)
    yield from pair("linear2", "feed_forward.reduce", c, _HIDDEN)
    for theirs, ours in (("norm1", "self_norm"), ("norm2", "cross_norm"), ("norm3", "feed_norm")):
        yield from pair(theirs, ours, c)


def _guide_layer(c: int, slots: int) -> Iterator[Row]:
    yield "scale", "scale", ()
    yield from pair("self_attn_norm", "self_out_norm", c)
    yield from pair("cross_attn_norm", "cross_out_norm", c)
    yield from _attention("self_attn", "self_attention", c)
    yield from _attention("cross_attn", "cross_attention", c)
    yield from pair("text_project.0", "mix_tokens", slots, _TOKENS, 1)
    yield from pair("text_project.2", "project_text", c, _WIDTH)
    yield "vis_pos.pe", None, (1, _PLACES, c)
    yield "txt_pos.pe", None, (1, slots, c)
    yield from pair("norm1", "self_in_norm", c)
    yield from pair("norm2", "cross_in_norm", c)


def _guided_levels() -> Iterator[Row]:
    """The three levels of GuideDecoder, deepest first; theirs are called by the stride of what they make."""
    for level, theirs in ((2, "decoder16"), (1, "decoder8"), (0, "decoder4")):
        c, deeper = _CHANNELS[level : level + 2]
        guide = _guide_layer(deeper, _SLOTS[level])
        yield from under(f"{theirs}.guide_layer.", f"decoder.{level}.guide.", guide)
        block, up = f"{theirs}.decoder.conv_block", f"decoder.{level}.up"
        yield f"{theirs}.decoder.transp_conv.conv.weight", f"{up}.upsample.weight", (deeper, c, 2, 2)
        yield f"{block}.conv1.conv.weight", f"{up}.mix.0.weight", (c, 2 * c, 3, 3)
        yield f"{block}.conv2.conv.weight", f"{up}.mix.3.weight", (c, c, 3, 3)
        yield from batch_norm(f"{block}.norm1", f"{up}.mix.1", c)
        yield from batch_norm(f"{block}.norm2", f"{up}.mix.4", c)


def _head() -> Iterator[Row]:
    yield from pair("decoder1.conv_block", "head.expand", 384, 96, 3, 3)
    yield from pair("out.conv.conv", "head.read", 1, 24, 1, 1)


def _mmi_unet() -> Iterator[Row]:
    yield from _trunk_of_mmi_unet()
    yield from pair("norm", "final_norm", 768)
    yield from pair("head", "classifier", 1, 768)
    yield from _text_head()
    yield from _fusion()
    for level in (2, 1, 0):
        c, deeper = _CHANNELS[level : level + 2]
        theirs, ours = f"decode{level + 2}", f"decoder.{level}"
        yield f"{theirs}.up.weight", f"{ours}.upsample.weight", (deeper, c, 2, 2)
        yield f"{theirs}.up.bias", f"{ours}.upsample.bias", (c,)
        yield from pair(f"{theirs}.conv_bn_relu.0", f"{ours}.mix.0", c, 2 * c, 3, 3)
        yield from batch_norm(f"{theirs}.conv_bn_relu.1", f"{ours}.mix.1", c)
    yield from _head()


def _encoders_of_guide_decoder() -> Iterator[Row]:
    yield from under("encoder.model.", "", _trunk_of_guide_decoder())
    yield from pair("encoder.project_head", "image_head", _WIDTH, 768)
    yield from _text_head()


# LViT.

_LVIT_CHANNELS = (64, 128, 256, 512)
_LVIT_PATCHES = (16, 8, 4, 2)
_LVIT_TOKENS, _LVIT_PLACES, _LVIT_WIDTH = 10, 196, 768


def _lvit() -> Iterator[Row]:
    """All tensors, in published order."""
    w = _LVIT_CHANNELS[0]
    yield from _conv("inc", "body.first", w, 3, 3, 3)
    for branch in ("down", "up"):
        for s, c in enumerate(_LVIT_CHANNELS):
            yield from under(f"{branch}Vit{s or ''}.", "", _transformer(branch, s, c))
    for s, c in enumerate(_LVIT_CHANNELS):
        out = _LVIT_CHANNELS[min(s + 1, 3)]
        yield from _convs(f"down{s + 1}", f"body.down.{s}", c, out)
    for s in (3, 2, 1, 0):
        c = _LVIT_CHANNELS[s]
        yield from under(
            f"up{s + 1}.pixModule.", "", _pixel_attention(f"body.up.{s}.attention", f"unread.sigmoids.{s}", c)
        )
        yield from _convs(f"up{s + 1}", f"body.up.{s}.mix", 2 * c, _LVIT_CHANNELS[max(s - 1, 0)])
    yield from pair("outc", "body.head", 1, w, 1, 1)
    for s, c in enumerate(_LVIT_CHANNELS):
        yield from pair(f"reconstruct{s + 1}.conv", f"body.rebuild.{s}.conv", c, c, 1, 1)
        yield from batch_norm(f"reconstruct{s + 1}.norm", f"body.rebuild.{s}.norm", c)
    for s, c in enumerate(_LVIT_CHANNELS):
        ours = f"unread.weighed.{s}"
        yield from under(f"pix_module{s + 1}.", "", _pixel_attention(f"{ours}.attention", f"{ours}.sigmoid", c))
    for step, (c, wider) in enumerate(zip(_LVIT_CHANNELS[::-1], (_LVIT_WIDTH, *_LVIT_CHANNELS[:0:-1]), strict=True)):
        yield from pair(f"text_module{4 - step}", f"body.text.narrow.{step}", c, wider, 3)


def _conv(theirs: str, ours: str, *weight: int) -> Iterator[Row]:
    """A convolution and its batch norm."""
    yield from pair(f"{theirs}.conv", f"{ours}.0", *weight)
    yield from batch_norm(f"{theirs}.norm", f"{ours}.1", weight[0])


def _convs(theirs: str, ours: str, inputs: int, outputs: int) -> Iterator[Row]:
    """Two convolutions of 3 x 3 with their norms."""
    yield from _conv(f"{theirs}.nConvs.0", f"{ours}.0", outputs, inputs, 3, 3)
    yield from _conv(f"{theirs}.nConvs.1", f"{ours}.1", outputs, outputs, 3, 3)


def _transformer(branch: str, s: int, c: int) -> Iterator[Row]:
    """A transformer of one level; each holds all parts, of which the branches use different ones."""
    down, unread = branch == "down", f"unread.{branch}.{s}"
    embed = f"body.embed.{s}" if down else f"{unread}.embed"
    yield "embeddings.position_embeddings", f"{embed}.positions", (1, _LVIT_PLACES, c)
    yield from pair("embeddings.patch_embeddings", f"{embed}.project", c, c, _LVIT_PATCHES[s], _LVIT_PATCHES[s])
    yield from pair("norm", f"{unread}.norm", c)
    yield from under("Encoder_blocks.0.", f"body.{branch}_blocks.{s}.0.", _lvit_block(c))
    yield from pair("head", f"{unread}.head", 1, c)
    halve = f"body.halve_down.{s - 1}" if down and s else f"{unread}.halve"
    yield from _conv("CTBN", halve, c // 2, c, 3)
    merge = f"{unread}.merge" if down or s == 3 else f"body.halve_up.{s}"
    yield from _conv("CTBN2", merge, c, 2 * c, 3)
    spread = "body.text.spread" if down and not s else f"{unread}.spread"
    yield from _conv("CTBN3", spread, _LVIT_PLACES, _LVIT_TOKENS, 3)


def _lvit_block(c: int) -> Iterator[Row]:
    yield from pair("norm1", "attention_norm", c)
    yield from pair("attn.qkv", "attention.project_in", 3 * c, c)
    yield from pair("attn.proj", "attention.project_out", c, c)
    yield from pair("norm2", "feed_norm", c)
    yield from pair("mlp.fc1", "expand", 4 * c, c)
    yield from pair("mlp.fc2", "reduce", c, 4 * c)


def _pixel_attention(ours: str, sigmoid: str, c: int) -> Iterator[Row]:
    """PLAM, with a convolution before a sigmoid that is never computed."""
    yield "conv_avg.weight", f"{ours}.average.weight", (c, c, 1, 1)
    yield "conv_max.weight", f"{ours}.largest.weight", (c, c, 1, 1)
    yield from pair("bottleneck.0", f"{ours}.mix.0", 6, 3)
    yield from pair("bottleneck.2", f"{ours}.mix.2", 1, 6)
    yield from pair("conv_sig.0", sigmoid, c, c, 1, 1)


# The tables by name.

_NETWORKS = {
    "mmi_unet": (_mmi_unet,),
    "mmi_unet_gd": (_encoders_of_guide_decoder, _fusion, _guided_levels, _head),
    "guide_decoder": (_encoders_of_guide_decoder, _guided_levels, _head),
    "lvit": (_lvit,),
}
_BARE = ("lvit",)  # names without Lightning's prefix, and no text encoder among them


def published(name: str) -> dict[str, Shape]:
    """Shapes of a published checkpoint's tensors by published name, in that order; without its text encoder.

    Raises:
        UsageError: If no published checkpoint of that network is known.
    """
    return {theirs: shape for theirs, (_, shape) in _table(name).items()}


def own_name(name: str, published_name: str) -> str | None:
    """Name of a published tensor in our network's ``state_dict``; ``None`` for the sines, which our networks compute.

    Raises:
        UsageError: If the network or the tensor is unknown.
    """
    table = _table(name)
    if published_name not in table:
        raise unknown_name(f"tensor of the published {name}", published_name, table)
    return table[published_name][0]


def text_encoder_prefix(name: str) -> str | None:
    """What stands before the names of the text encoder's tensors in a published checkpoint of this network.

    Behind it come the names of CXR-BERT's own file: the trunk under ``bert.``, heads under ``cls.`` and
    ``cls_projection_head.``. ``None`` for a network whose checkpoints hold no text encoder.
    """
    _table(name)
    return None if name in _BARE else f"{LIGHTNING_PREFIX}text_encoder.model."


@cache
def _table(name: str) -> dict[str, tuple[str | None, Shape]]:
    """Our name and the shape of each published tensor of a network."""
    if name not in _NETWORKS:
        raise unknown_name("published network", name, _NETWORKS)
    parts = chain.from_iterable(part() for part in _NETWORKS[name])
    rows = under("" if name in _BARE else LIGHTNING_PREFIX, "", parts)
    return {theirs: (ours, shape) for theirs, ours, shape in rows}
