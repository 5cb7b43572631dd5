"""How often `textray.io.quality` warns about sound films, and about the same films turned, inverted or clipped.

Run: python benchmarks/film_checks.py FOLDER [FOLDER ...] [--count 300]   (PNG or JPEG films, upright and positive)
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from pathlib import Path

import numpy as np

from textray.io.quality import film_notices
from textray.io.read import read

CHANGES = {
    "as it is": lambda film: film,
    "negative": lambda film: 1 - film,
    "upside down": lambda film: film[::-1],
    "turned by 90": np.rot90,
    "turned by 180": lambda film: np.rot90(film, 2),
    "clipped": lambda film: np.clip(film * 4, 0, 1),
}


def main() -> None:
    """Print, for each folder and change, the share of films with each warning, and of those with far values."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--count", type=int, default=300)
    options = parser.parse_args()
    for folder in options.folders:
        paths = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
        paths = random.Random(0).sample(paths, min(options.count, len(paths)))
        found, far = {name: Counter() for name in CHANGES}, 0
        for path in paths:
            film = read(path)
            far += "left_out" in film.info
            for name, change in CHANGES.items():
                found[name].update(n.code for n in film_notices(np.ascontiguousarray(change(film.pixels))))
        print(f"{folder}: {len(paths)} films, {far} with far values")
        for name, codes in found.items():
            print(f"  {name:14}", ", ".join(f"{code} {n / len(paths):.3f}" for code, n in sorted(codes.items())))


if __name__ == "__main__":
    main()
