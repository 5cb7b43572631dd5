"""How right zone labels from clusters are, beside those of the rule parser; `textray.training.zone_labels` rests on it.

Run: python benchmarks/zone_labels.py ROOT   (QaTa-COV19 v2; only the training part is read, its captions alone)

The captions as they are, then written anew from their zones, which are the truth: in the irregular forms of the first
release, and in other words (rewording.py, seeded). Clusters are fitted on `train`, `val` is unseen.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import rewording

from textray.data.base import open_reader
from textray.nn.bert import TextEncoder, load_text_encoder
from textray.records import Zones
from textray.text.zones import parse, sentence
from textray.training.zone_labels import ZoneLabels, encode_phrases, fit_zone_labels, location_phrase


def bits(zones: list[Zones] | tuple[Zones, ...]) -> np.ndarray:
    """(n, 6) bool."""
    return np.array([z.present for z in zones])


def exact(labels: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return (labels == truth).all(1)


def nearest(fitted: ZoneLabels, captions: list[str], unseen: list[str], encoder: TextEncoder) -> np.ndarray:
    """Zones of the cluster whose mean vector lies nearest, (n, 6)."""
    known, asked = sorted({location_phrase(c) for c in captions}), sorted({location_phrase(c) for c in unseen})
    vectors = dict(zip(known, encode_phrases(known, encoder), strict=True))
    phrases = [location_phrase(c) for c in captions]
    centres = [
        np.mean([vectors[p] for p, n in zip(phrases, fitted.cluster, strict=True) if n == number], 0)
        for number in range(len(fitted.clusters))
    ]
    closest = (encode_phrases(asked, encoder) @ np.array(centres).T).argmax(1)
    zones = {phrase: fitted.clusters[i].present for phrase, i in zip(asked, closest, strict=True)}
    return np.array([zones[location_phrase(c)] for c in unseen])


def show(name: str, write: Callable, truth: dict[str, list[Zones]], encoder: TextEncoder, seed: int) -> None:
    rng = np.random.default_rng(seed)
    captions = {split: [write(zones, rng) for zones in truth[split]] for split in ("train", "val")}
    fitted = fit_zone_labels(captions["train"], encoder)
    true, labels, rules = bits(truth["train"]), bits(fitted.labels), bits(fitted.rules)
    inside = np.array(fitted.cluster) >= 0
    codes = [notice.code for notice in fitted.notices]
    print(f"\n{name}, such as {captions['train'][0]!r}")
    print(
        f"  {len(labels)} captions, {len({location_phrase(c) for c in captions['train']})} phrases; HDBSCAN alone: "
        f"{fitted.hdbscan[0]} clusters, {fitted.hdbscan[1]} noise; without a majority: {codes.count('W_NO_MAJORITY')}"
    )
    print(
        f"  {len(fitted.clusters)} clusters, {fitted.pure} pure, {len(fitted.clusters) - fitted.pure} mixed; "
        f"{fitted.noise} noise; purity {exact(labels, rules)[inside].mean():.4f}, as the rules {fitted.agreement:.4f}"
    )
    right, ruled = exact(labels, true), exact(rules, true)
    print(
        f"  all six zones true: clusters {right.mean():.4f}, rules {ruled.mean():.4f}; in clusters alone "
        f"{right[inside].mean():.4f} and {ruled[inside].mean():.4f}; single zones {(labels == true).mean():.4f} and "
        f"{(rules == true).mean():.4f}; put "
        f"right {int((right & ~ruled).sum())}, put wrong {int((ruled & ~right).sum())}"
    )
    read = [parse(c, laterality="viewer").zones for c in captions["val"]]
    labels = bits([fitted.label(c, z) for c, z in zip(captions["val"], read, strict=True)])
    seen = {location_phrase(c) for c in captions["train"]}
    new = np.array([location_phrase(c) not in seen for c in captions["val"]])
    near, asked = nearest(fitted, captions["train"], captions["val"], encoder), bits(truth["val"])
    print(
        f"  val, {len(asked)} captions: labels {exact(labels, asked).mean():.4f}, rules "
        f"{exact(bits(read), asked).mean():.4f}, nearest cluster {exact(near, asked).mean():.4f}"
    )
    if new.any():
        print(
            f"  of {int(new.sum())} with new phrases: rules {exact(bits(read), asked)[new].mean():.4f}, nearest "
            f"cluster {exact(near, asked)[new].mean():.4f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root")
    parser.add_argument("--text-encoder", default="minilm")
    parser.add_argument("--folder", help="folder of its weights")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    encoder = load_text_encoder(options.text_encoder, folder=options.folder)
    reader = open_reader("qata_cov19", options.root)
    truth = {split: [sample.report.zones for sample in reader.samples(split)] for split in ("train", "val")}
    print(f"text encoder {options.text_encoder}, seed {options.seed}")
    styles = {
        "captions as published": lambda zones, rng: sentence(zones),
        "irregular forms of the first release": rewording.original,
        "other words, all known to the parser": lambda z, rng: rewording.paraphrase(z, rng, rewording.FAMILIAR),
        "other words, some unknown to the parser": rewording.paraphrase,
    }
    for name, write in styles.items():
        show(name, write, truth, encoder, options.seed)


if __name__ == "__main__":
    main()
