"""Codes in the DICOM objects that TextRay writes; all but its own are of the standard's dictionaries."""

from __future__ import annotations

from typing import Final

from pydicom.sr.coding import Code

ABNORMAL: Final = Code("49755003", "SCT", "Morphologically Abnormal Structure")
LESION: Final = Code("52988006", "SCT", "Lesion")
LUNG: Final = Code("39607008", "SCT", "Lung")
INTELLIGENCE: Final = Code("123110", "DCM", "Artificial Intelligence")
RADIOGRAPH: Final = Code("43468-8", "LN", "XR unspecified body region")
SOURCE: Final = Code("121322", "DCM", "Source of Image Processing Operation")

SIDES: Final = {
    "left": Code("7771000", "SCT", "Left"),
    "right": Code("24028007", "SCT", "Right"),
    "both": Code("51440002", "SCT", "Bilateral"),
}
"""The patient's sides (CID 244)."""
LEVELS: Final = {
    "upper": Code("281392002", "SCT", "Upper zone of lung"),
    "middle": Code("281393007", "SCT", "Middle zone of lung"),
    "lower": Code("281394001", "SCT", "Lower zone of lung"),
}
"""CID 6171."""

AREA: Final = Code("42798000", "SCT", "Area")
PIXELS: Final = Code("{pixels}", "UCUM", "pixels")
SQUARE_MM: Final = Code("mm2", "UCUM", "square millimeter")
PERCENT: Final = Code("%", "UCUM", "percent")
SUMMARY: Final = Code("111017", "DCM", "CAD Processing and Findings Summary")
FINDINGS: Final = Code("111242", "DCM", "All algorithms succeeded; with findings")
NO_FINDINGS: Final = Code("111241", "DCM", "All algorithms succeeded; without findings")

_OWN = "99TEXTRAY"
AFFECTED: Final = {
    None: Code("AFFECTED", _OWN, "Affected share of lung"),
    "left": Code("AFFECTED_VIEW_L", _OWN, "Affected share of the lung at the viewer's left"),
    "right": Code("AFFECTED_VIEW_R", _OWN, "Affected share of the lung at the viewer's right"),
}
"""Share of a lung that the mask covers: of the side at the finding site, or by the viewer's side where the film does
not tell the patient's. DICOM has no code for it."""
