"""Make the picture at the top of the README, from the phantom and the weights inside the package.

Run: python docs/make_picture.py [--seed N] [--model NAME_OR_FOLDER] [--out FILE]

Four panels of one synthetic film with lesions in both middle zones: the film; segmented without a report; told of the
viewer's left lung only; told of the viewer's right lung only. Yellow is found, red is missed, green is wrong.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

import textray
from textray.data.phantom import draw
from textray.io.read import from_array
from textray.io.write import FALSE_NEGATIVE, FALSE_POSITIVE, TRUE_POSITIVE, render_overlay

SIZE = 320
GAP = 8
CAPTION = 30
ZONES = textray.Zones.from_present([0, 1, 0, 0, 1, 0])
PANELS = (
    ("no report", None),
    ("told: viewer's left middle lung", "left middle lung"),
    ("told: viewer's right middle lung", "right middle lung"),
)
"""Caption and words of each segmented panel; the words mean the viewer's sides, as one looks at the picture."""
LEGEND = (("found", TRUE_POSITIVE), ("missed", FALSE_NEGATIVE), ("wrong", FALSE_POSITIVE))
INK, PAPER = (40, 40, 40), (255, 255, 255)


def panels(model: str | None, seed: int) -> list[tuple[str, NDArray[np.uint8]]]:
    """Caption and picture ``(SIZE, SIZE, 3)`` uint8 of each panel."""
    pixels, truth, _ = draw(seed, (SIZE, SIZE), ZONES)
    predictor = textray.load(model)
    nothing = np.zeros_like(truth)
    found = [("synthetic film", render_overlay(pixels, nothing))]
    for caption, words in PANELS:
        prediction = predictor.segment(from_array(pixels), text=words, laterality="viewer")
        found.append((caption, render_overlay(pixels, prediction.mask, truth)))
    return found


def compose(parts: list[tuple[str, NDArray[np.uint8]]]) -> PILImage.Image:
    """Panels side by side with their captions, the legend below the first."""
    width = len(parts) * SIZE + (len(parts) - 1) * GAP
    sheet = PILImage.new("RGB", (width, SIZE + CAPTION), PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for index, (caption, picture) in enumerate(parts):
        left = index * (SIZE + GAP)
        sheet.paste(PILImage.fromarray(picture), (left, 0))
        pen.text((left, SIZE + 7), caption, fill=INK, font=font)
    left = SIZE - 212
    for word, colour in LEGEND:
        pen.rectangle((left, SIZE + 11, left + 11, SIZE + 22), fill=colour, outline=INK)
        pen.text((left + 16, SIZE + 7), word, fill=INK, font=font)
        left += 72
    return sheet


def main() -> None:
    """Parse the arguments and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=125, help="of the film")
    parser.add_argument("--model", help="weights inside by name, or a bundle folder")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("picture.png"))
    arguments = parser.parse_args()
    compose(panels(arguments.model, arguments.seed)).save(arguments.out, optimize=True)


if __name__ == "__main__":
    main()
