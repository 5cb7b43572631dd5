"""Peak memory of `textray segment FILE` for each pixel of a large film, above that for a small film of the same kind.

    python benchmarks/memory.py --side 4500 --kinds png8,dicom16

Linux only. Prints a JSON row a kind: bytes a pixel with mask, overlay and record, and of DICOM
also with ``--dicom all``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, RLELossless, generate_uid

_SMALL = 300
_CODE = """
from pathlib import Path
from textray.cli import main
try:
    main()
finally:
    Path("status").write_text(Path("/proc/self/status").read_text())
"""


def film(side: int, bits: int) -> NDArray[np.uint16]:
    """Two dark lungs in a grey chest, with the noise of a detector."""
    random = np.random.default_rng(0)
    place = ((np.arange(side) + 0.5) / side - 0.5).astype(np.float32)
    lungs = sum(np.exp(-((place - at) ** 2) / 0.012) for at in (-0.22, 0.22))
    levels = np.empty((side, side), np.uint16)
    for row, height in enumerate(place):  # a row at a time: the film is drawn beside the process that is measured
        grey = 0.75 - 0.55 * np.exp(-(height**2) / 0.06) * lungs + random.normal(0, 0.01, side)
        levels[row] = np.rint(np.clip(grey, 0, 1) * (2**bits - 1))
    return levels


def raster(levels: NDArray[np.uint16], path: Path, kind: str, **options: object) -> None:
    """Save levels of at most 8 bits as they are, others as 16 bits."""
    Image.fromarray(levels.astype(np.uint8) if levels.max() < 256 else levels).save(path, kind, **options)


def colours(levels: NDArray[np.uint16], path: Path, kind: str, **options: object) -> None:
    """Save levels in three equal channels."""
    Image.fromarray(levels.astype(np.uint8)).convert("RGB").save(path, kind, **options)


def dicom(levels: NDArray[np.uint16], path: Path, *, bits: int, rle: bool = False, **tags: object) -> None:
    """Save levels as a film of a study."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = DigitalXRayImageStorageForPresentation, "1.2.3.4", "DX"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid()
    ds.PatientOrientation, ds.ImagerPixelSpacing = ["L", "F"], [0.1, 0.1]
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = *levels.shape, 1, "MONOCHROME1"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8 if bits == 8 else 16, bits, bits - 1, 0
    for keyword, value in tags.items():
        setattr(ds, keyword, value)
    ds.PixelData = (2**bits - 1 - levels).astype("u1" if bits == 8 else "<u2").tobytes()
    ds["PixelData"].VR = "OW"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if rle:
        ds.compress(RLELossless, generate_instance_uid=False)
    ds.save_as(path, enforce_file_format=True)


def _turned() -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = 6
    return tags


KINDS: dict[str, Callable[[int, Path], None]] = {
    "png8": lambda side, path: raster(film(side, 8), path, "PNG", compress_level=1),
    "png16": lambda side, path: raster(film(side, 16), path, "PNG", compress_level=1),
    "png-rgb": lambda side, path: colours(film(side, 8), path, "PNG", compress_level=1),
    "png-turned": lambda side, path: raster(film(side, 8), path, "PNG", compress_level=1, exif=_turned()),
    "jpeg": lambda side, path: raster(film(side, 8), path, "JPEG", quality=90),
    "jpeg-progressive": lambda side, path: raster(film(side, 8), path, "JPEG", quality=90, progressive=True),
    "jpeg-rgb": lambda side, path: colours(film(side, 8), path, "JPEG", quality=90),
    "tiff16": lambda side, path: raster(film(side, 16), path, "TIFF"),
    "dicom8": lambda side, path: dicom(film(side, 8), path, bits=8),
    "dicom16": lambda side, path: dicom(film(side, 12), path, bits=12),
    "dicom16-window": lambda side, path: dicom(film(side, 12), path, bits=12, WindowCenter=2048, WindowWidth=4000),
    "dicom16-padded": lambda side, path: dicom(film(side, 12), path, bits=12, PixelPaddingValue=1000),
    "dicom-rle": lambda side, path: dicom(film(side, 12), path, bits=12, rle=True),
}


def peak(kind: str, side: int, *options: str) -> int:
    """Largest resident memory of a run on one film of a kind, in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        KINDS[kind](side, Path(folder) / "film")
        words = [sys.executable, "-c", _CODE, "segment", "film", "--out", "out", "--threads", "1", *options]
        ended = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise SystemExit(f"segment ended with {ended.returncode}: {ended.stderr}")
        status = (Path(folder) / "status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def main() -> None:
    """Print a row for each kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=4500, help="rows and columns of the large film")
    parser.add_argument("--kinds", default=",".join(KINDS), help="of films")
    given = parser.parse_args()
    for kind in given.kinds.split(","):
        row: dict[str, object] = {"kind": kind, "side": given.side}
        for name, options in {"": (), "_dicom": ("--dicom", "all")}.items():
            if not options or kind.startswith("dicom"):
                more = peak(kind, given.side, *options) - peak(kind, _SMALL, *options)
                row[f"bytes_a_pixel{name}"] = round(more / (given.side**2 - _SMALL**2), 2)
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
