"""What the golden tests share: the recorded values, the films, and how outputs become values that stay.

`golden` compares and records; see `test_outputs.py` for how to record. Everything that has to reach inside the package
is the fixture `inside`: drawing phantom films, and the hashes of the trainings that tables rest on. Where modules move,
this one class changes and no recorded value does.
"""

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image as PILImage

import textray

HERE = Path(__file__).parent
RECORD = "TEXTRAY_RECORD_GOLDEN"
DIGITS = 16
"""Hexadecimal digits that are kept of a SHA-256: enough to see any change, short enough to read."""
DECIMALS = 3
"""Decimals that are kept of what a network computed; other processors add in another order."""
_NOT_KEPT = {"textray", "key", "settings_sha256", "started", "written", "git", "versions", "files"}
_VERSION = re.compile(r"(version:|nltk |rouge-score )[\d.]+")


class Inside:
    """The only door to modules that are not public."""

    def draw(self, seed, size, zones=None):
        """Draw a phantom film: pixels in [0, 1] ``(H, W)``."""
        from textray.data.phantom import draw

        return draw(seed, size, zones)[0]

    def data_set(self, folder, *, n, size):
        """Write a phantom copy of QaTa-COV19 and give its root."""
        from textray.data.phantom import Phantom

        return Phantom(n=n, size=size).write(folder)

    def job_hash(self, table, budget, row, *, data, split, seed, ids):
        """SHA-256 of the settings of one training of a committed table."""
        from textray.reproduce.plan import Source, plan_job
        from textray.reproduce.tables import read_tables

        known = read_tables()[table]
        (wanted,) = (one for one in known.rows if one.name == row)
        source = Source(name=data, root=Path("nowhere"), split=split, ids=ids)
        return plan_job(wanted, source, seed, known.budget(budget)).hash


def digest(data):
    """Hash of bytes, of text, or of values that JSON can hold."""
    if not isinstance(data, bytes):
        data = (data if isinstance(data, str) else json.dumps(data, sort_keys=True)).encode()
    return hashlib.sha256(data).hexdigest()[:DIGITS]


def picture(path):
    """Hash of what a picture shows and tells: mode, size, text chunks and pixels, not how it is compressed."""
    with PILImage.open(path) as found:
        found.load()
        about = [found.mode, found.size, sorted(getattr(found, "text", {}).items())]
        return digest(json.dumps(about).encode() + found.tobytes())


def rounded(value):
    """Values with all their floats rounded, without seconds and versions of libraries."""
    if isinstance(value, float):
        return round(value, DECIMALS) + 0.0  # no negative zero
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items() if key != "seconds"}
    if isinstance(value, str):
        return _VERSION.sub(r"\1X", value)
    return [rounded(inner) for inner in value] if isinstance(value, list) else value


def tidy(record):
    """A record without versions, times and hashes of versions; what was measured is rounded."""
    kept = {key: value for key, value in record.items() if key not in _NOT_KEPT | {"seconds"}}
    if "settings" in kept:
        kept["settings"] = {key: value for key, value in kept["settings"].items() if key != "textray"}
    if "input" in kept:  # the hash of a written PNG file is that of its compression as well
        source = Path(kept["input"]["path"])
        path = source.name if source.is_absolute() else kept["input"]["path"]
        kept["input"] = {**kept["input"], "path": path, "sha256": None}
    exact = ("grid", "settings", "input", "model")
    return {key: value if key in exact else rounded(value) for key, value in kept.items()}


def sections(record):
    """Each part of a record by its hash, and its warnings by their codes."""
    kept = tidy(record)
    codes = [warning["code"] for warning in kept.get("warnings", ())]
    return {"codes": codes, **{key: digest(value) for key, value in kept.items()}}


def lines(text):
    """What a command said, line by line, free of boxes, of the width of columns, of folders and of versions."""
    text = re.sub(r"[─│╭╮╰╯]+", " ", text)
    text = re.sub(r"(?<![\w.])/\S*/(?=RG1_UNCR)", "", text)
    text = _VERSION.sub(r"\1X", text)
    return [line for line in (" ".join(line.split()) for line in text.splitlines()) if line]


def differences(before, after, at=""):
    """Paths of the values that are not the same, with both."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            here = f"{at} / {key}" if at else key
            if key not in after:
                yield f"{here}: gone, was {_short(before[key])}"
            elif key not in before:
                yield f"{here}: new, {_short(after[key])}"
            else:
                yield from differences(before[key], after[key], here)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (one, other) in enumerate(zip(before, after, strict=True), 1):
            yield from differences(one, other, f"{at} / {number}")
    elif before != after:
        yield f"{at}: was {_short(before)}, is {_short(after)}"


def _short(value):
    text = json.dumps(value)
    return text if len(text) <= 400 else text[:400] + "..."


@pytest.fixture
def golden(tmp_path):
    """Compare values with the recorded ones, or record them if that is asked for: ``golden(name, found, outputs)``."""

    def compare(name, found, outputs=None, *, file="golden.json"):
        found = json.loads(json.dumps(found))
        if os.environ.get(RECORD) == "1":
            record(name, found, HERE / file)
            return
        recorded = json.loads((HERE / file).read_text(encoding="utf-8")).get(name, {})
        changed = list(differences(recorded, found))
        if changed:
            (tmp_path / "found.json").write_text(json.dumps({name: found}, indent=1, sort_keys=True))
            shown = "\n  ".join(changed[:40]) + (f"\n  and {len(changed) - 40} more" if len(changed) > 40 else "")
            pytest.fail(
                f"{len(changed)} values of '{name}' in tests/golden/{file} are not what was recorded:\n  {shown}\n"
                f"New values: {tmp_path / 'found.json'}\nNew outputs: {outputs or 'none on disk'}\n"
                f"If the change is meant, record it and review the diff; see tests/golden/test_outputs.py.",
                pytrace=False,
            )

    return compare


def record(name, found, file):
    if os.environ.get("PYTEST_XDIST_WORKER"):
        pytest.fail("record with -n 0: several processes would write over each other's values", pytrace=False)
    values = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    values[name] = found
    file.write_text(json.dumps(values, indent=1, sort_keys=True) + "\n", encoding="utf-8", newline="\n")


@pytest.fixture(scope="session")
def inside():
    """What is reached inside the package."""
    return Inside()


@pytest.fixture(scope="session")
def read():
    """Make outputs into values: ``read.picture(path)``, and so on for these functions."""
    return SimpleNamespace(picture=picture, digest=digest, sections=sections, lines=lines, rounded=rounded)


@pytest.fixture(scope="session")
def bench(tmp_path_factory, inside, dicom, raster):
    """Folder with ``films``: six phantoms and the demo film; runs write beside it, each into a folder of its own."""
    pydicom_data = pytest.importorskip("data_store", reason="pydicom-data is not installed")
    folder = tmp_path_factory.mktemp("golden")
    films = folder / "films"
    films.mkdir()

    def levels(seed, size, top, zones=None):
        return np.rint(inside.draw(seed, size, zones) * top).astype(np.uint8 if top == 255 else np.uint16)

    def dicom_film(values, *drop, **tags):
        unnamed = ["PatientName", "PatientID", "PatientBirthDate", *drop]
        return dicom(values, drop=unnamed, SOPInstanceUID="1.2.3.4", **tags)

    mirrored = {"PatientOrientation": ["R", "F"], "PhotometricInterpretation": "MONOCHROME1"}
    pictures = {
        "tall.png": raster(levels(1, (301, 257), 255)),
        "wide.png": raster(levels(2, (211, 333), 65535)),
        "small.png": raster(levels(3, (97, 83), 255, textray.Zones.from_index(0))),  # no lesion
        "turned.png": raster(levels(4, (203, 271), 255), orientation=6),  # stored lying down
        "usual.dcm": dicom_film(levels(5, (305, 251), 4095)),
        "mirrored.dcm": dicom_film(4095 - levels(6, (239, 227), 4095), "PixelSpacing", **mirrored),
    }
    for name, content in pictures.items():
        (films / name).write_bytes(content)
    shutil.copyfile(Path(pydicom_data.__file__).parent / "data" / "RG1_UNCR.dcm", films / "RG1_UNCR.dcm")
    return folder


@pytest.fixture(scope="session")
def phantom_root(tmp_path_factory, inside):
    """Root of a phantom copy of QaTa-COV19: 20 films of the train part, four of them in split val."""
    return inside.data_set(tmp_path_factory.mktemp("golden-data"), n=20, size=(96, 80))
