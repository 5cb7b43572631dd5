"""Names of the tensors in the published checkpoints of LViT, and which tensor of our network each of them is."""

from __future__ import annotations

from collections.abc import Iterator

from textray.models.released.key_rows import Row, batch_norm, pair, under

_CHANNELS = (64, 128, 256, 512)
_PATCHES = (16, 8, 4, 2)
_TOKENS, _PLACES, _WIDTH = 10, 196, 768


def lvit() -> Iterator[Row]:
    """All tensors, in published order."""
    w = _CHANNELS[0]
    yield from _conv("inc", "body.first", w, 3, 3, 3)
    for branch in ("down", "up"):
        for s, c in enumerate(_CHANNELS):
            yield from under(f"{branch}Vit{s or ''}.", "", _transformer(branch, s, c))
    for s, c in enumerate(_CHANNELS):
        out = _CHANNELS[min(s + 1, 3)]
        yield from _convs(f"down{s + 1}", f"body.down.{s}", c, out)
    for s in (3, 2, 1, 0):
        c = _CHANNELS[s]
        yield from under(
            f"up{s + 1}.pixModule.", "", _pixel_attention(f"body.up.{s}.attention", f"unread.sigmoids.{s}", c)
        )
        yield from _convs(f"up{s + 1}", f"body.up.{s}.mix", 2 * c, _CHANNELS[max(s - 1, 0)])
    yield from pair("outc", "body.head", 1, w, 1, 1)
    for s, c in enumerate(_CHANNELS):
        yield from pair(f"reconstruct{s + 1}.conv", f"body.rebuild.{s}.conv", c, c, 1, 1)
        yield from batch_norm(f"reconstruct{s + 1}.norm", f"body.rebuild.{s}.norm", c)
    for s, c in enumerate(_CHANNELS):
        ours = f"unread.weighed.{s}"
        yield from under(f"pix_module{s + 1}.", "", _pixel_attention(f"{ours}.attention", f"{ours}.sigmoid", c))
    for step, (c, wider) in enumerate(zip(_CHANNELS[::-1], (_WIDTH, *_CHANNELS[:0:-1]), strict=True)):
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
    yield "embeddings.position_embeddings", f"{embed}.positions", (1, _PLACES, c)
    yield from pair("embeddings.patch_embeddings", f"{embed}.project", c, c, _PATCHES[s], _PATCHES[s])
    yield from pair("norm", f"{unread}.norm", c)
    yield from under("Encoder_blocks.0.", f"body.{branch}_blocks.{s}.0.", _block(c))
    yield from pair("head", f"{unread}.head", 1, c)
    halve = f"body.halve_down.{s - 1}" if down and s else f"{unread}.halve"
    yield from _conv("CTBN", halve, c // 2, c, 3)
    merge = f"{unread}.merge" if down or s == 3 else f"body.halve_up.{s}"
    yield from _conv("CTBN2", merge, c, 2 * c, 3)
    spread = "body.text.spread" if down and not s else f"{unread}.spread"
    yield from _conv("CTBN3", spread, _PLACES, _TOKENS, 3)


def _block(c: int) -> Iterator[Row]:
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
