"""Golden tests: what TextRay writes and says today, frozen before its source is rebuilt.

Recorded values lie in ``golden.json`` and ``reports.json``; ``texts.json`` is the list of texts. A film's mask, overlay
and maps are hashes of pixels, with counts beside them that show how much a change changes; records are hashes of their
parts. Left out are times, versions, commits and folders.

A failure names each value that changed, and where the new values and outputs lie. To record on purpose:

    TEXTRAY_RECORD_GOLDEN=1 python -m pytest -n 0 -m "slow or not slow" tests/golden

and review the diff of the three files value by value: whoever records says that each change is meant. Values of a test
that is gone stay behind in the file until they are deleted by hand. Networks are run on one thread, and what they
compute is rounded; another kind of processor may still move a pixel on a mask's edge.
"""

import csv
import functools
import json
import re
from pathlib import Path

import numpy as np
import pytest
import typer.main
from PIL import Image as PILImage

import textray

REPORT = "Patchy opacity in the right lower zone and the left mid zone."
TEXTS = """\
image,text,laterality
tall.png,Consolidation at the left base; the right lung is clear.,
wide.png,"bilateral pulmonary infection, two infected areas, upper left lung and lower right lung.",viewer
small.png,The lungs are clear.,
usual.dcm,Hazy opacity in the right upper and middle lobes.,patient
mirrored.dcm,Left lower lobe pneumonia.,
RG1_UNCR.dcm,"bibasal atelectasis, more on the right",
"""
RUNS = {
    "no text": ["films"],
    "text by table": ["films", "--texts", "texts.csv"],
    "strict text": ["films", "--text", REPORT, "--strict-text"],
    "generated": ["films", "--text-free", "generated"],
    "edited": ["films/usual.dcm", "--edit", "Opacity in the left lower zone."],
    "viewer": ["films/usual.dcm", "--text", REPORT, "--laterality", "viewer"],
    "mirrored viewer": ["films/mirrored.dcm", "--text", REPORT, "--laterality", "viewer"],
}


@pytest.fixture
def run(cli, bench, monkeypatch):
    """Run a command beside the films: ``run(command, name, *arguments)`` gives result and folder of its outputs."""
    monkeypatch.chdir(bench)
    (bench / "texts.csv").write_text(TEXTS)

    def command(words, name, *arguments):
        out = name.replace(" ", "-")
        return cli(*words, *arguments, "--out", out, "--threads", "1"), bench / out

    return command


def load(path):
    return json.loads(path.read_bytes())


def said(result, read):
    """Exit code and lines of both streams; those of repeated warnings are sorted, for their order is that of a set."""
    err = read.lines(result.err)
    repeated = [at for at, line in enumerate(err) if ": also of " in line]
    for at, line in zip(repeated, sorted(err[at] for at in repeated), strict=True):
        err[at] = line
    return {"code": result.code, "out": read.lines(result.out), "err": err}


def segmented(path, read):
    """What was written of one film, from its record."""
    record = load(path)
    places = {kind: path.with_name(name) for kind, name in record["outputs"].items() if kind != "record"}
    with PILImage.open(places["mask"]) as mask:
        pixels = int((np.asarray(mask) > 0).sum())
    values = {
        "pictures": {kind: read.picture(place) for kind, place in places.items()},
        "pixels": pixels,
        "zones": {name: zone["pixels"] for name, zone in record["lesion"]["zones"].items() if zone["pixels"]},
        "probability": read.rounded(record["probability"]),
        "record": read.sections(record),
    }
    # The bytes of the demo film are the same everywhere, so its results must keep the key that lets a run skip them.
    return values | ({"key": record["key"]} if path.stem == "RG1_UNCR" else {})


@pytest.mark.parametrize("name", RUNS)
def test_segment(name, run, read, golden):
    result, out = run(["segment"], name, *RUNS[name])
    films = {path.stem: segmented(path, read) for path in sorted(out.glob("*.json")) if path.name != "run.json"}
    summary = read.sections(load(out / "run.json"))
    golden(f"segment: {name}", {"films": films, "said": said(result, read), "summary": summary}, out)


def test_demo(run, read, golden):
    result, out = run(["demo"], "demo")
    golden("demo", {"film": segmented(out / "RG1_UNCR.json", read), "said": said(result, read)}, out)


def test_a_film_in_python(bench, read, golden, monkeypatch):
    """The example of the README."""
    monkeypatch.chdir(bench)
    prediction = textray.load(threads=1).segment("films/usual.dcm", text=REPORT)
    assert prediction.mask.shape == prediction.probability.shape == prediction.grid.shape
    values = {
        "mask": read.digest(prediction.mask.tobytes()),
        "probability": read.rounded([float(prediction.probability.mean()), float(prediction.probability.max())]),
        "zones": [str(state) for state in prediction.report.zones.states],
        "record": read.sections(prediction.record),
        "files": sorted(path.name for path in prediction.save("python").values()),
    }
    golden("python", values, bench / "python")


GROUND = {
    "phrases": [
        "--phrase=opacity in the left lower lobe",
        "--phrase=No consolidation in the right upper zone.",
        "--phrase=xyzzy in both lungs",
    ],
    "viewer": ["--phrase", "opacity in the left lower lobe", "--laterality", "viewer", "--sigma", "0"],
    "mask": ["--phrase", "middle right lung", "--threshold", "0.5"],
    "mask of cosines": ["--phrase", "middle right lung", "--threshold", "0.01", "--normalise", "none"],
}


def grounded(path, read):
    """What was written of one film's phrases, from its record."""
    record, values = load(path), {}
    for kind, name in record["outputs"].items():
        place = path.with_name(name)
        if name.endswith(".npy"):
            found = np.load(place)
            about = [str(found.dtype), list(found.shape), *read.rounded([float(found.min()), float(found.max())])]
            values[kind] = {"about": about, "hash": read.digest((np.round(found, 3) + np.float32(0)).tobytes())}
        elif name.endswith(".png"):
            values[kind] = read.picture(place)
            if kind.startswith("mask"):
                with PILImage.open(place) as mask:
                    values[f"{kind} pixels"] = int((np.asarray(mask) > 0).sum())
    told = [[phrase["told"], phrase["unknown_words"], read.rounded(phrase["peak"])] for phrase in record["phrases"]]
    return {"outputs": values, "phrases": told, "record": read.sections(record)}


@pytest.mark.parametrize("name", GROUND)
def test_ground(name, run, read, golden):
    result, out = run(["ground"], f"ground {name}", "films/usual.dcm", "films/mirrored.dcm", *GROUND[name])
    films = {path.name: grounded(path, read) for path in sorted(out.glob("*.ground.json"))}
    summary = read.sections(load(out / "run.json"))
    golden(f"ground: {name}", {"films": films, "said": said(result, read), "summary": summary}, out)


def test_explain_zones(run, read, golden):
    result, out = run(["explain", "zones"], "explain zones", "films/usual.dcm", "--text", REPORT)
    values = {"picture": read.picture(out / "usual.zones.png"), "record": read.sections(load(out / "usual.zones.json"))}
    golden("explain zones", {**values, "said": said(result, read)}, out)


SIGNS = {"present": "1", "absent": "-", "unmentioned": "."}


def test_reports(cli, read, golden, monkeypatch):
    """Every text by both conventions: the left and right zones from top to bottom, and what is said of the words."""
    monkeypatch.setattr(typer.main, "get_command", functools.cache(typer.main.get_command))  # most of a call's time
    values = {}
    for text in load(Path(__file__).parent / "texts.json"):
        values[text] = {}
        for laterality in ("patient", "viewer"):
            (found,) = cli("report", "--laterality", laterality, "--json", "--", text).rows
            zones = "".join(SIGNS[state] for state in found["zones"].values())
            codes = [warning["code"] for warning in found["warnings"]]
            parts = [f"{zones[:3]} {zones[3:]}", *codes, *(f"unused: {word}" for word in found["unused_words"])]
            values[text][laterality] = "; ".join(parts)
            values[text][f"{laterality}, hash of all"] = read.digest(found)
    golden("reports", values, file="reports.json")


def test_reports_for_the_eye(cli, read, golden):
    found = {side: said(cli("report", REPORT, "--laterality", side), read) for side in ("patient", "viewer")}
    golden("report for the eye", found)


def table(path, read):
    """Hash of a table with numbers rounded, and its number of lines."""
    with path.open(newline="", encoding="utf-8") as file:
        found = [[_number(value, read) for value in line] for line in csv.reader(file)]
    return [len(found), read.digest(found)]


def _number(value, read):
    try:
        return read.rounded(float(value))
    except ValueError:
        return value


def scored(out, read):
    """What evaluate has written: main scores as they are, the rest of the summary by the hash of each part."""
    summary = load(out / "summary.json")
    page = re.sub(r"SHA-256 `\w+`", "SHA-256", (out / "summary.md").read_text())
    page = re.sub(r"at (no commit|commit `\w+`( with local changes)?), TextRay [\d.]+", "at COMMIT", page)
    return {
        "scores": {
            mode: {name: read.rounded(score["value"]) for name, score in scores.items()}
            for mode, scores in summary.get("modes", {}).items()
        },
        "summary": read.sections(summary),
        "page": read.lines(page),
        "tables": {path.name: table(path, read) for path in sorted(out.glob("*.csv"))},
    }


MODES = [word for mode in ("oracle", "none", "shuffled", "generated") for word in ("--text-mode", mode)]
EVALUATIONS = {"segmentation": ["--sides", *MODES], "grounding": ["--task", "grounding", "--phrases", "clause"]}


@pytest.mark.parametrize("name", EVALUATIONS)
def test_evaluate(name, run, phantom_root, read, golden, tmp_path, monkeypatch):
    if name == "segmentation":  # written reports are scored with packages of the extra train
        pytest.importorskip("sacrebleu")
    monkeypatch.setenv("TEXTRAY_CACHE", str(tmp_path))
    result, out = run(
        ["evaluate"], f"evaluate {name}", "--data", "qata_cov19", "--root", phantom_root, *EVALUATIONS[name]
    )
    values = scored(out, read)
    assert read.lines(result.out) == read.lines((out / "summary.md").read_text())
    golden(f"evaluate: {name}", {**values, "code": result.code, "err": read.lines(result.err)}, out)


def test_data_check(cli, phantom_root, read, golden):
    result = cli("data", "check", "qata_cov19", phantom_root, "--json")
    (found,) = result.rows
    found["counts"].pop("root", None)
    golden("data check", {"code": result.code, "found": found, "err": read.lines(result.err)})
