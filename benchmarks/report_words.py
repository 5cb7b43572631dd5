"""How well `textray.text.zones.parse` reads the zones, sides and denials of real reports.

300 sentences of Open-i that name a place of the lungs, drawn with a fixed seed, were labelled by an AI assistant that
did not see the parser, not by a radiologist; no radiologist has checked the labels. ``report_words.md`` beside this
file is the guideline, ``report_words.csv`` holds the labels. Every second sentence may be read to improve the parser
(``open``); the others are for measuring only (``held_out``).

Run: python benchmarks/report_words.py ROOT [--half held_out] [--errors]   (ROOT holds NLMCXR_reports.tgz)
"""

from __future__ import annotations

import argparse
import csv
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from textray.data.open_i import OpenI
from textray.metrics.intervals import bootstrap
from textray.records import ZoneState
from textray.text.zones import parse

SEED, COUNT = 18, 300
LABELS = Path(__file__).with_suffix(".csv")
ZONES = [f"{side} {level}" for side in ("right", "left") for level in ("upper", "middle", "lower")]  # the patient's
STATES = {ZoneState.PRESENT: "P", ZoneState.ABSENT: "A", ZoneState.UNMENTIONED: "-"}
_LUNG = (
    r"lungs?|lob\w+|bas(?:e|es|al|ilar)|bibas\w*|biapical\w*|apex|apices|apical|lingula\w*|hemithorax|perihilar|"
    r"suprahilar|infrahilar|retrocardiac|zones?|airspace|opacit\w+|infiltrat\w+|consolidat\w+|atelecta\w+|effusion\w*|"
    r"pneumon\w+|pneumothora\w+|nodul\w*|granuloma\w*|pleural|mass"
)
_PLACE = (
    r"left|right|bilateral\w*|both|bibas\w*|biapical\w*|lungs|upper|lower|mid|middle|lingula\w*|bas(?:e|es|al|ilar)|"
    r"apex|apices|apical|lobe"
)
_NAMES_PLACE = re.compile(rf"(?=.*\b(?:{_LUNG})\b).*\b(?:{_PLACE})\b", re.IGNORECASE | re.DOTALL)


def sample(reports: Sequence) -> list[tuple[int, int, str]]:
    """Draw sentences by report number and place in the report; of sentences that differ in marks only one is drawn."""
    pool: dict[str, tuple[int, int, str]] = {}
    for report in reports:
        for place, sentence in enumerate(report.sentences):
            if _NAMES_PLACE.search(sentence):
                pool.setdefault(re.sub(r"\W+", " ", sentence.lower()).strip(), (report.number, place, sentence))
    drawn = sorted(pool.values())
    random.Random(SEED).shuffle(drawn)
    return drawn[:COUNT]


def labelled(reports: Sequence, half: str) -> Iterator[tuple[str, str]]:
    """Sentences of one half and their labels, without those that are unclear."""
    texts = {(report.number, place): text for report in reports for place, text in enumerate(report.sentences)}
    with LABELS.open(newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file)):
            if row["zones"] != "unclear" and number % 2 == (half == "held_out"):
                yield texts[int(row["report"]), int(row["sentence"])], row["zones"]


def read(text: str) -> str:
    """What the parser reads: P, A or - for each of `ZONES`."""
    return "".join(STATES[state] for state in parse(text, laterality="patient").zones.states)


def counts(pairs: Sequence[tuple[str, str]]) -> tuple[list[str], np.ndarray]:
    """Names of what is asked, and tp, fp and fn of each sentence ``(N, K, 3)``."""
    asked = {zone: lambda s, n=n: [s[n] == "P"] for n, zone in enumerate(ZONES)}
    asked |= {
        "all zones": lambda s: [c == "P" for c in s],
        "sides": lambda s: ["P" in s[:3], "P" in s[3:]],
        "denial": lambda s: [c == "A" for c in s],
    }
    rows = np.zeros((len(pairs), len(asked), 3))
    for n, (found, truth) in enumerate(pairs):
        for k, of in enumerate(asked.values()):
            got, true = np.array(of(found)), np.array(of(truth))
            rows[n, k] = (got & true).sum(), (got & ~true).sum(), (~got & true).sum()
    return list(asked), rows


def main() -> None:
    """Print precision and recall with intervals; with ``--errors`` the sentences that are read wrongly."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root")
    parser.add_argument("--half", choices=("open", "held_out"), default="open")
    parser.add_argument("--errors", action="store_true", help="print the sentences that are read wrongly")
    options = parser.parse_args()
    reports = OpenI(options.root).reports()
    sentences = list(labelled(reports, options.half))
    pairs = [(read(text), truth) for text, truth in sentences]
    names, rows = counts(pairs)
    flat = rows.reshape(len(rows), -1)

    def ratio(totals: np.ndarray, k: int, other: int) -> np.ndarray:
        return totals[..., 3 * k] / (totals[..., 3 * k] + totals[..., 3 * k + other])

    scores = {
        (name, score): lambda totals, k=k, other=other: ratio(totals, k, other)
        for k, name in enumerate(names)
        for score, other in (("precision", 1), ("recall", 2))
    }
    found = bootstrap(flat, [str(n) for n in range(len(flat))], scores)
    print(f"{options.half}: {len(pairs)} sentences\n\n| what | labelled | precision | recall |")
    print("| --- | ---: | --- | --- |")
    for k, name in enumerate(names):
        cells = [found[name, score] for score in ("precision", "recall")]
        shown = " | ".join(f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]" for one in cells)
        print(f"| {name} | {int(rows[:, k, 0].sum() + rows[:, k, 2].sum())} | {shown} |")
    if options.errors:
        for (text, truth), (got, _) in zip(sentences, pairs, strict=True):
            if got != truth:
                print(f"label {truth}  read {got}  {text}")


if __name__ == "__main__":
    main()
