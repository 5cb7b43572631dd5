"""Tables 1, 2 and 3 of the grounding paper as printed (Yang et al., arXiv:2401.01524), in shares of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

OWN = "the grounding paper"
CLASSES = (
    "Pneumonia", "Pneumothorax", "Consolidation", "Atelectasis", "Edema", "Cardiomegaly", "Lung Opacity",
    "Pleural Effusion",
)  # fmt: skip
"""Classes of MS-CXR in the order of Tables 2 and 3."""


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """A printed pair.

    Attributes:
        iou: Intersection over union.
        dice: Dice.
    """

    iou: float
    dice: float


def _of_table_1(rsna: tuple[float, float], covid: tuple[float, float]) -> dict[str, Overlap]:
    return {name: Overlap(iou=iou, dice=dice) for name, (iou, dice) in (("rsna", rsna), ("covid_rural", covid))}


TABLE_1: Mapping[str, Mapping[str, Overlap]] = {
    "GLoRIA": _of_table_1((0.218, 0.347), (0.065, 0.114)),
    "BioViL": _of_table_1((0.303, 0.439), (0.120, 0.197)),
    "MedKLIP": _of_table_1((0.317, 0.465), (0.137, 0.228)),
    OWN: _of_table_1((0.331, 0.474), (0.222, 0.336)),
}
"""Method → data set → scores. All rows but the last are, to three decimals, those of MedKLIP's own paper."""


def _by_class(*scores: float) -> dict[str, float]:
    return dict(zip((*CLASSES, "mean"), scores, strict=True))


TABLE_2: Mapping[str, Mapping[str, float]] = {
    "GLoRIA": _by_class(0.417, 0.181, 0.443, 0.442, 0.315, 0.567, 0.298, 0.476, 0.392),
    "BioViL": _by_class(0.472, 0.217, 0.433, 0.405, 0.326, 0.560, 0.294, 0.352, 0.382),
    "MedKLIP": _by_class(0.443, 0.151, 0.401, 0.476, 0.476, 0.559, 0.307, 0.344, 0.395),
    OWN: _by_class(0.576, 0.163, 0.538, 0.538, 0.433, 0.485, 0.468, 0.525, 0.466),
}
"""MS-CXR, Dice by class."""

TABLE_3: Mapping[str, Mapping[str, float]] = {
    "GLoRIA": _by_class(0.290, 0.116, 0.304, 0.303, 0.201, 0.408, 0.197, 0.330, 0.269),
    "BioViL": _by_class(0.328, 0.137, 0.297, 0.275, 0.213, 0.406, 0.188, 0.224, 0.259),
    "MedKLIP": _by_class(0.297, 0.091, 0.265, 0.323, 0.327, 0.395, 0.197, 0.216, 0.264),
    OWN: _by_class(0.425, 0.106, 0.386, 0.388, 0.294, 0.330, 0.325, 0.368, 0.328),
}
"""MS-CXR, IoU by class."""
