"""The size and cost columns of the papers' tables, counted by their conventions.

Those columns were made with a counter that sees only layers of a known kind, each by a rule of its own, while they run:

    ==================================  ====================================================================
    layer, exactly of this class        multiplications for an output of n numbers
    ==================================  ====================================================================
    convolution                         n x channels in of a group x kernel
    transposed convolution              the same, which for 2 x 2 with stride 2 is four times what is computed
    linear                              n x width in
    batch and layer norm                4 n with weights, 2 n without
    average pooling                     n
    adaptive average pooling            n x (pixels in a window + 1)
    upsampling                          n nearest, 11 n bilinear
    softmax                             (3 length - 1) x rows
    all else                            nothing: activations, max pooling, resizing, and every attention layer
    ==================================  ====================================================================

An attention layer counts nothing at all, neither its projections nor its products; LViT's, written out of two linear
layers, counts these. Norms of a class of their own, such as those of ConvNeXt, count nothing. The tables then print
twice the count. Parameters are printed by one of two conventions: those with a gradient (most rows with a report), or
those of the layers that were seen (U-Net, LViT).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from textray.errors import UsageError
from textray.models.base import Network
from textray.models.released.base import ReleasedNetwork
from textray.models.released.fusion import FusionBlock
from textray.nn.attention import MultiHeadAttention
from textray.nn.blocks import SubpixelHead

Rule = Callable[[nn.Module, Tensor, Tensor], int]


@dataclass(frozen=True, kw_only=True)
class PrintedSize:
    """A row of the papers' size and cost columns.

    Attributes:
        parameters: Which parameters it counts: those with a gradient, or those of the layers that were seen.
        form: Form of the network whose figures were printed.
        millions: Printed parameters, 10^6.
        gflops: Printed operations, 10^9; ``None`` where the table has no such column.
        encoder: True where the operations of the text encoder are among the printed ones.
    """

    parameters: Literal["trainable", "seen"]
    form: str
    millions: float
    gflops: float | None
    encoder: bool = True


PRINTED = {
    "mmi_unet": PrintedSize(parameters="trainable", form="released", millions=56.2, gflops=22.1),
    "mmi_unet_gd": PrintedSize(parameters="trainable", form="released", millions=65.8, gflops=None),
    "guide_decoder": PrintedSize(parameters="trainable", form="released", millions=44.0, gflops=22.4),
    "lvit": PrintedSize(parameters="seen", form="released", millions=29.7, gflops=54.1, encoder=False),
    "unet": PrintedSize(parameters="seen", form="paper", millions=14.8, gflops=50.3),
}
"""Rows whose convention is known, by registry name."""


@dataclass(frozen=True, kw_only=True)
class PaperColumns:
    """A network's figures by the convention of its row in the papers' tables.

    Attributes:
        parameters: Parameters, by the row's own convention.
        gflops: 10^9 operations, twice the counted multiplications, text encoder and its unused head included where they
            are in the printed ones.
        printed_millions: What the table prints for the row, 10^6 parameters; ``None`` for a network that is not its.
        printed_gflops: What the table prints for the row; ``None`` without such a column too.
        convention: For each figure how it was counted, and what the columns are worth.
    """

    parameters: int
    gflops: float
    printed_millions: float | None
    printed_gflops: float | None
    convention: dict[str, str]


def columns(
    name: str,
    form: str | None,
    network: Network,
    inputs: list[Tensor],
    encoder: nn.Module | None,
    encoder_name: str | None,
    ids: Tensor,
) -> PaperColumns:
    """Count a network as the papers' tables count its row.

    Args:
        name: Registry name.
        form: Form of the network, ``None`` where it has other sizes than the row's.
        network: The network; a released form computes all that the authors' code computes (`compute_unread`).
        inputs: Image, and for a network that reads text its features.
        encoder: Text encoder, with the head that the released code runs if it has it; ``None`` for a network that
            reads no text.
        encoder_name: What it is called.
        ids: Tokens of the report, ``(1, L)``.

    Raises:
        UsageError: If the convention of this network's row is not known.
    """
    if name not in PRINTED:
        raise UsageError(f"no convention of the papers is known for {name}", expected=", ".join(PRINTED))
    row = PRINTED[name]
    macs, seen = count_layers(network, *inputs)
    macs += _count_unread_heads(network)
    if encoder is not None and row.encoder:
        macs += count_layers(encoder, ids)[0]
    with_gradient = sum(p.numel() for k, p in network.named_parameters() if p.requires_grad and k != "no_report")
    return PaperColumns(
        parameters=with_gradient if row.parameters == "trainable" else seen,
        gflops=2 * macs / 1e9,
        printed_millions=row.millions if form == row.form else None,
        printed_gflops=row.gflops if form == row.form else None,
        convention=_conventions(row, form, encoder_name if row.encoder else None),
    )


def compute_unread(network: Network) -> bool:
    """Make a released form compute the texts that nothing reads, as the authors' code does and ours does not.

    Args:
        network: Any network, changed in place; other forms leave nothing out.

    Returns:
        True where there is anything.
    """
    blocks = [part for part in network.modules() if isinstance(part, FusionBlock)]

    def ask(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, {**kwargs, "text_out": True}

    for block in blocks:
        block.register_forward_pre_hook(ask, with_kwargs=True)
    return bool(blocks)


def _count_unread_heads(network: Network) -> int:
    """Multiplications of the heads that the authors' code runs on one mean vector each, and nothing reads."""
    if not isinstance(network, ReleasedNetwork):
        return 0
    names = ("text_head", "final_norm", "image_head") if hasattr(network, "image_head") else ("text_head",)
    total = 0
    for name in names:
        head = network.get_submodule(name)
        width = next(head.parameters()).shape[-1]  # of a norm or of the first linear layer's input
        total += count_layers(head, torch.empty(1, width, device="meta"))[0]
    return total


def count_layers(module: nn.Module, *inputs: Tensor) -> tuple[int, int]:
    """Run a module once and count its known layers, as the module's docstring tells.

    Args:
        module: Any module; its own mode is kept.
        inputs: What it is called with.

    Returns:
        Multiplications, and the parameters of the layers that ran.
    """
    found: list[tuple[nn.Module, int]] = []

    def note(layer: nn.Module, given: tuple[Tensor, ...], output: Tensor, *, rule: Rule) -> None:
        found.append((layer, rule(layer, given[0], output)))

    hooks = []
    for layer in _outside_attention(module):
        rule = RULES.get(type(layer))
        if rule is not None:
            hooks.append(layer.register_forward_hook(partial(note, rule=rule)))
    try:
        with torch.no_grad():
            module(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    ran = {id(layer): layer for layer, _ in found if not list(layer.children())}
    return sum(count for _, count in found), sum(p.numel() for layer in ran.values() for p in layer.parameters())


def _outside_attention(module: nn.Module) -> list[nn.Module]:
    """All modules within, but none of an attention layer."""
    if isinstance(module, MultiHeadAttention | nn.MultiheadAttention):
        return []
    return [module, *(inner for child in module.children() for inner in _outside_attention(child))]


def _conv(layer: nn.Module, given: Tensor, output: Tensor) -> int:
    groups = getattr(layer, "groups", 1)
    weight: Tensor = getattr(layer, "weight")  # noqa: B009 -- a convolution of any kind has one
    return output.numel() * (given.shape[1] // groups) * math.prod(weight.shape[2:])


def _linear(layer: nn.Module, given: Tensor, output: Tensor) -> int:
    return output.numel() * given.shape[-1]


def _norm(layer: nn.Module, given: Tensor, output: Tensor) -> int:
    weighted = getattr(layer, "affine", False) or getattr(layer, "elementwise_affine", False)
    return (4 if weighted else 2) * given.numel()


def _pool(layer: nn.Module, given: Tensor, output: Tensor) -> int:
    return output.numel()


def _adaptive_pool(layer: nn.Module, given: Tensor, output: Tensor) -> int:
    window = math.prod(a / b for a, b in zip(given.shape[2:], output.shape[2:], strict=True))
    return int((window + 1) * output.numel())


def _upsample(layer: nn.Module, given: Tensor, output: Tensor) -> int:
    return {"nearest": 1, "linear": 5, "bilinear": 11, "bicubic": 259}.get(
        getattr(layer, "mode", ""), 0
    ) * output.numel()


def _softmax(layer: nn.Module, given: Tensor, output: Tensor) -> int:
    length = given.shape[getattr(layer, "dim", -1)]
    return given.numel() // length * (3 * length - 1)


def _subpixel(layer: nn.Module, given: Tensor, output: Tensor) -> int:
    """The pooling inside our head, which calls it as a function: one for each number that it puts out."""
    return given.shape[1] // 4 * output.numel() // output.shape[1]


RULES: dict[type[nn.Module], Rule] = {
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), _conv),
    **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), _conv),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm), _norm),
    **dict.fromkeys((nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d), _pool),
    **dict.fromkeys((nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d), _adaptive_pool),
    nn.Linear: _linear,
    nn.Upsample: _upsample,
    nn.Softmax: _softmax,
    SubpixelHead: _subpixel,
}
"""What is counted of a layer, by its exact class: a subclass counts nothing."""


def _conventions(row: PrintedSize, form: str | None, encoder: str | None) -> dict[str, str]:
    parameters = {
        "trainable": "parameters with a gradient, those that no step reaches included, the frozen text encoder not",
        "seen": "parameters of the layers that the layer counter saw run",
    }[row.parameters]
    head = "and its language-model head, which nothing reads, are" if encoder == "cxr_bert" else "is"
    worth = (
        "The columns of the published tables are not comparable across their rows: parameters follow two conventions, "
        "some rows count a text encoder and some do not, and attention layers count nothing."
    )
    if form != row.form:
        worth += f" The printed figures are of the {row.form} form in its default configuration."
    return {
        "parameters": parameters,
        "gflops": "twice the multiplications of known layers; attention layers count nothing, a 2 x 2 transposed "
        "convolution with stride 2 counts four times" + (f"; {encoder} {head} included" if encoder else ""),
        "comparable": worth,
    }
