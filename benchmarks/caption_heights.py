"""At which heights lesions lie whose caption names one height of their side; `textray.data.zone_dropout.REACH`
rests on it.

Run: python benchmarks/caption_heights.py ROOT   (QaTa-COV19 v2; only the training part is read)
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy import ndimage

from textray.data.base import open_reader
from textray.data.zone_dropout import REACH
from textray.io.read import read_mask
from textray.records import LEVELS


def main() -> None:
    """Print, for each height, how many sides name it alone with one lesion, and the median of that lesion's rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root")
    samples = open_reader("qata_cov19", parser.parse_args().root).samples("train")
    spans: list[list[tuple[float, ...]]] = [[], [], []]
    for sample in samples:
        mask = read_mask(sample.mask_path)
        lesions, count = ndimage.label(mask, np.ones((3, 3)))
        centres = ndimage.center_of_mass(mask, lesions, range(1, count + 1))
        for side in (0, 1):
            named = sample.report.zones.present[side * 3 : side * 3 + 3]
            on_side = [n for n, (_, column) in enumerate(centres, 1) if (column >= mask.shape[1] / 2) == bool(side)]
            if sum(named) == 1 and len(on_side) == 1:
                rows = np.nonzero(lesions == on_side[0])[0] / mask.shape[0]
                spans[named.index(True)].append((rows.min(), *np.percentile(rows, (5, 95)), rows.max()))
    print(f"{len(samples)} films; median first row, 5 %, 95 % and last row, as shares of the height; REACH")
    for level, name in enumerate(LEVELS):
        print(f"{name:8}{len(spans[level]):5}  {np.median(spans[level], 0).round(2)}  {REACH[level]}")


if __name__ == "__main__":
    main()
