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
    from pathlib import Path

    from textray.errors import TextRayError
    from textray.inference.bundle import Bundle
    from textray.inference.segmenter import Predictor
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


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'textray' has no attribute {name!r}")
    return getattr(import_module(f"textray.{_HOMES.get(name, 'records')}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
