"""TextRay finds lesions in chest images with the help of language.

    import textray

    model = textray.load()
    prediction = model.segment("chest.dcm", text="patchy opacity in the right lower zone")
    prediction.save("out")

Importing this module loads neither torch nor the ONNX runtime; each part is loaded at its first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from textray.errors import TextRayError
    from textray.inference.bundle import BaseBundle, Bundle
    from textray.inference.segmenter import Predictor
    from textray.models.base import Network
    from textray.nn.bert import TextEncoder
    from textray.preprocess import Preprocess
    from textray.records import DicomOut, Grid, Image, Laterality, Notice, Prediction, Report, Zones

__version__ = "0.1.0"

_HOMES = {"Bundle": "inference.bundle", "Predictor": "inference.segmenter", "TextRayError": "errors"}
"""Modules of the names that are not in `textray.records`."""

__all__ = [
    "Bundle",
    "DicomOut",
    "Grid",
    "Image",
    "Laterality",
    "Notice",
    "Prediction",
    "Predictor",
    "Report",
    "TextRayError",
    "Zones",
    "__version__",
    "load",
    "load_network",
    "predictor",
]


def load(name_or_folder: str | Path | None = None, *, threads: int | None = None) -> Predictor:
    """Load weights for use.

    Args:
        name_or_folder: Name of weights inside the package, or a bundle folder; ``None`` takes the default weights.
        threads: Threads of the network; ``None`` takes the number of processors.

    Raises:
        BundleError: If a file of the bundle is missing, cut off or altered.
        UsageError: If there is no bundle of that name.
    """
    from textray.inference.bundle import Bundle
    from textray.inference.segmenter import Predictor

    return Predictor(Bundle.load(name_or_folder), threads=threads)


def load_network(source: str | Path | BaseBundle) -> Network:
    """Load a network for torch: in evaluation mode, on the CPU, in single precision.

    The weights of a bundle are in half precision and widened. Needs the extra ``train``.

    Args:
        source: A checkpoint of `textray train`, a bundle or its folder, or the name of weights inside the package.

    Raises:
        UsageError: If there is nothing of that name, it is no checkpoint or bundle, or does not hold its network whole.
    """
    from textray import registry

    network: Network = registry.load("textray.training.checkpoints:load_network")(source)
    return network


def predictor(
    network: Network,
    *,
    preprocess: Preprocess,
    text_encoder: TextEncoder | None = None,
    captions: Sequence[str] = (),
    threshold: float = 0.5,
    threads: int | None = None,
) -> Predictor:
    """Make a `Predictor` of a segmentation network in memory; no file is left behind.

    Its masks are those of the bundle that `textray export` would write: the network is copied, rounded to half
    precision, exported to ONNX and compared with torch, which takes some seconds. Needs the extra ``train``.

    Args:
        network: A network of `textray.models`, in evaluation mode, on the CPU, in single precision.
        preprocess: From a picture to its input, as in its training.
        text_encoder: The frozen text encoder that it was trained with; ``None`` for a network that reads no text.
        captions: The texts that it knows, for a network of free captions; the zone sentences without.
        threshold: Probability from which a pixel is lesion, in (0, 1).
        threads: Threads of the network; ``None`` takes the number of processors.

    Raises:
        UsageError: If it is no such network, or text encoder and threshold do not fit it.
        ShapeError: If it cannot run at the size of ``preprocess``.
        BundleError: If ONNX and torch disagree, or the sentences that it carries are not those of its text encoder.
    """
    from textray import registry

    made: Predictor = registry.load("textray.export.in_memory:hold")(
        network,
        preprocess=preprocess,
        text_encoder=text_encoder,
        captions=captions,
        threshold=threshold,
        threads=threads,
    )
    return made


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'textray' has no attribute {name!r}")
    return getattr(import_module(f"textray.{_HOMES.get(name, 'records')}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
