"""Pooled Dice and marked area by threshold, for `textray export --threshold`: choose on `inner`, not on `val`.

Run: python benchmarks/thresholds.py ROOT [--data qata_cov19] [--split inner] [--model BUNDLE] [--step 0.05]
"""

from __future__ import annotations

import argparse

import numpy as np

from textray.data.base import open_reader
from textray.inference.bank import Prompt
from textray.inference.bundle import Bundle
from textray.inference.segmenter import Predictor
from textray.io.read import read, read_mask

BATCH = 16


def main() -> None:
    """Print two rows for each text mode of the model: pooled Dice, and the marked area as a share of the true one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root")
    parser.add_argument("--data", default="qata_cov19")
    parser.add_argument("--split", default="inner")
    parser.add_argument("--model")
    parser.add_argument("--step", type=float, default=0.05)
    options = parser.parse_args()
    predictor = Predictor(Bundle.load(options.model))
    samples = open_reader(options.data, options.root).samples(options.split)
    thresholds = np.arange(0.4, 0.8 + options.step / 2, options.step)
    modes = ["oracle", "none", *(["generated"] if predictor.bundle.writes_report else [])]
    counts = {mode: np.zeros((len(thresholds), 3)) for mode in modes}  # in both, predicted, true
    for start in range(0, len(samples), BATCH):
        batch = samples[start : start + BATCH]
        images = [read(sample.image_path) for sample in batch]
        truths = [read_mask(sample.mask_path) for sample in batch]
        pixels = np.stack([predictor.preprocess.apply(image) for image in images])
        captions = [predictor.bank_row(sample.report) for sample in batch]
        for mode in modes:
            prompt = Prompt.NO_REPORT if mode == "none" else Prompt.OWN_REPORT
            rows = captions if mode == "oracle" else [prompt] * len(batch)
            planes = predictor.predict_batch(pixels, rows)
            for image, plane, truth in zip(images, planes, truths, strict=True):
                probability = predictor.preprocess.restore(plane, image.grid)
                for i, threshold in enumerate(thresholds):
                    mask = probability >= threshold
                    counts[mode][i] += (mask & truth).sum(), mask.sum(), truth.sum()
    name = predictor.bundle.name
    print(f"{len(samples)} images of {options.data} {options.split}, model {name}; pooled Dice on native grids")
    print("threshold ", *(f"{threshold:6.2f}" for threshold in thresholds))
    for mode, count in counts.items():
        print(f"{mode:10}", *(f"{2 * both / (marked + true):6.4f}" for both, marked, true in count))
        print("  area    ", *(f"{marked / true:6.3f}" for _, marked, true in count))


if __name__ == "__main__":
    main()
