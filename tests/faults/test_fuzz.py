"""Mutated inputs for a bounded time: each is read, or refused by an error of TextRay; none hangs or takes much memory.

``TEXTRAY_FUZZ_SECONDS`` sets the time of each kind, 15 by default.
"""

import io
import json
import os
import re
import resource
import shutil
import sys
import time

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

from textray.errors import TextRayError
from textray.inference.bundle import Bundle
from textray.io.read import read
from textray.text.tables import TextTable
from textray.text.zones import parse

pytestmark = pytest.mark.slow
SECONDS = float(os.environ.get("TEXTRAY_FUZZ_SECONDS", "15"))
SLOWEST, MOST_MEMORY = 10.0, 1.5 * 2**30
LENGTHS = (b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\xff\xff\xff\x7f", b"\x01\x00\x00\x00")
WORDS = re.findall(
    r"\S+",
    "left right upper lower base lung clear no not without denies b/l R>L LLL opacity consolidation: none FINDINGS: "
    "HISTORY: s/p 3 of the and or lowr rigth nil ? . , ; / - ( ) é ＬＥＦＴ 左 \x00 \u202e",
)


def mutate(data, rng):
    """Change, drop, repeat or insert a few stretches of bytes."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 9)):
        at, length = int(rng.integers(len(data))), int(2 ** rng.uniform(0, 11))
        kind = rng.integers(5)
        if kind == 0:
            data[at] = int(rng.integers(256))
        elif kind == 1:
            data[at : at + 4] = rng.choice(
                [b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\xff\xff\xff\x7f", b"\x01\x00\x00\x00"]
            )
        elif kind == 2:
            del data[at : at + length]
        elif kind == 3:
            data[at:at] = data[at : at + length]
        else:
            data[at:at] = rng.bytes(length)
        if not data:
            data = bytearray(b"\x00")
    return bytes(data)


def attack(use, make):
    """Use made inputs until the time is over: their number and that of refusals."""
    rng, end, tried, refused, slowest = np.random.default_rng(18), time.monotonic() + SECONDS, 0, 0, 0.0
    while time.monotonic() < end:
        source, begin = make(rng), time.monotonic()
        try:
            use(source)
        except TextRayError:
            refused += 1
        slowest, tried = max(slowest, time.monotonic() - begin), tried + 1
    assert slowest < SLOWEST
    unit = 1 if sys.platform == "darwin" else 1024
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit < MOST_MEMORY + START
    return tried, refused


START = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def compressed(data, syntax, payload=None):
    ds = pydicom.dcmread(io.BytesIO(data))
    if payload is None:
        ds.compress(syntax, generate_instance_uid=False)
    else:
        ds.file_meta.TransferSyntaxUID, ds.PixelData = syntax, encapsulate([payload])
        ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    stream = io.BytesIO()
    ds.save_as(stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    "kind", ["explicit", "implicit", "bare", "rle", "jpeg in DICOM", "jpeg2000 in DICOM", "png", "jpeg"]
)
def test_mutated_films(kind, dicom, raster, levels):
    eight = (levels >> 4).astype(np.uint8)
    film = dicom(eight, BitsAllocated=8, BitsStored=8, HighBit=7)
    good = {
        "explicit": lambda: dicom(levels, WindowCenter=2048, WindowWidth=4096, PixelPaddingValue=0),
        "implicit": lambda: dicom(levels, syntax="implicit"),
        "bare": lambda: dicom(levels, preamble=False),
        "rle": lambda: compressed(dicom(levels), RLELossless),
        "jpeg in DICOM": lambda: compressed(film, JPEGBaseline8Bit, raster(eight, "JPEG")),
        "jpeg2000 in DICOM": lambda: compressed(film, JPEG2000Lossless, raster(eight, "JPEG2000")),
        "png": lambda: raster(levels),
        "jpeg": lambda: raster(eight, "JPEG", progressive=True),
    }[kind]()
    assert read(good).pixels.shape == levels.shape
    tried, refused = attack(read, lambda rng: mutate(good, rng))
    assert tried > refused > 0


def test_mutated_tables(tmp_path):
    good = 'image;text;laterality\na.png;"opacity; left base";patient\nfilms\\b.dcm;clear;viewer\n'
    path = tmp_path / "texts.csv"

    def make(rng):
        encoding = ("utf-8", "utf-16", "cp1252", "mac_roman")[rng.integers(4)]
        path.write_bytes(mutate(good.encode(encoding), rng))
        return path

    tried, refused = attack(TextTable.read, make)
    assert tried > refused > 0


def test_reports_of_random_words():
    def use(text):
        report = parse(text, laterality="patient")
        assert len(report.zones.states) == 6

    attack(use, lambda rng: " ".join(rng.choice(WORDS, size=int(2 ** rng.uniform(0, 9)))))


def test_mutated_configs_of_bundles(tiny_bundle, tmp_path):
    folder = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    good = (folder / "config.json").read_bytes()
    values = [None, True, -1, 1e308, "", "x" * 10_000, [], {}, [[]], "../../etc/passwd", float("nan")]

    def make(rng):
        if rng.random() < 0.5:
            data = mutate(good, rng)
        else:  # a config that is JSON, with another value in one place
            config = json.loads(good)
            part = config
            while True:
                key = rng.choice(list(part))
                if not isinstance(part[key], dict) or not part[key] or rng.random() < 0.3:
                    break
                part = part[key]
            part[key] = values[rng.integers(len(values))]
            data = json.dumps(config).encode()
        (folder / "config.json").write_bytes(data)
        return folder

    tried, refused = attack(Bundle.load, make)
    assert tried >= refused > 0
