"""What the scores of reports come to where each report is the caption of another film: the floor in the guide.

Run: python benchmarks/report_floor.py ROOT   (QaTa-COV19 v2; the captions of the validation part, no image is read)
"""

from __future__ import annotations

import argparse

from textray.data.base import open_reader
from textray.evaluate.cases import TextMode, mode_texts
from textray.metrics.intervals import SEED
from textray.metrics.text import TextScorer
from textray.metrics.zones import SCORES, zone_summary
from textray.text.zones import sentence


def main() -> None:
    """Print the scores of captions drawn as text mode ``shuffled`` draws them: each names other zones."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root")
    samples = open_reader("qata_cov19", parser.parse_args().root).samples("val")
    drawn = mode_texts(samples, TextMode.SHUFFLED, seed=SEED)
    written = [report.zones for report in drawn.values() if report is not None]
    groups = [sample.group for sample in samples]
    zones = zone_summary(written, [sample.report.zones for sample in samples], groups)
    words = TextScorer().summary(
        [sentence(zones) for zones in written], [sample.report.text or "" for sample in samples], groups
    )
    print(f"{len(samples)} films, exact match {zones['exact_match']['value']:.3f}")
    for score in SCORES:
        print(f"{score + ' macro':20}{zones[score]['macro']['value']:.3f}")
    for name, score in words["scores"].items():
        print(f"{name:20}{score['value']:.3f}")


if __name__ == "__main__":
    main()
