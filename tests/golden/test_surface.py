"""Golden tests of the command line itself: help, what is inside, message codes and refusals.

See `test_outputs.py` for what golden tests are and how to record them.
"""

import io
import json
import re
import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image as PILImage

import textray

COMMANDS = ["", "segment", "demo", "report", "ground", "info", "data", "data check", "data audit", "evaluate", "export"]
COMMANDS += ["import", "reproduce", "explain", "explain zones", "explain attention", "explain words"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command, cli, read, golden, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")  # no option is wrapped
    result = cli(*command.split(), "--help")
    assert (result.code, result.err) == (0, "")
    golden(f"help: textray {command}".rstrip(), read.lines(result.out))


def without_modules(value):
    """Values whose ``module:name`` is the name alone: modules may move."""
    if isinstance(value, dict):
        return {key: without_modules(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_modules(inner) for inner in value]
    return re.sub(r"^textray(\.\w+)+:", "", value) if isinstance(value, str) else value


def test_info(cli, golden):
    (found,) = cli("info", "--json").rows
    for here in ("textray", "python", "system", "extras"):
        assert found.pop(here)
    for part, values in found.items():
        golden(f"info: {part}", without_modules(values))


@pytest.mark.parametrize("name", ["sgseg_lite", "sentence_grounding_small"])
def test_bundle(name, cli, golden):
    """Identity, files and settings of the weights inside; the identity holds no name of a module."""
    (found,) = cli("info", name, "--json").rows
    golden(f"bundle: {name}", found)


def test_message_codes(golden):
    """Every code that the source names."""
    source = [path.read_text(encoding="utf-8") for path in Path(textray.__file__).parent.rglob("*.py")]
    golden("codes", sorted({code for text in source for code in re.findall(r"\b[EW]_[A-Z][A-Z0-9_]*[A-Z0-9]\b", text)}))


def test_recipes(read, golden):
    """Content of each recipe, comments aside, and the classes that it names: job hashes rest on both."""
    yaml = pytest.importorskip("yaml")
    folder = Path(str(files("textray"))) / "configs"
    found = {}
    for path in sorted(folder.rglob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        classes = re.findall(r"class_path: *(\S+)", text)
        found[path.relative_to(folder).as_posix()] = {"hash": read.digest(yaml.safe_load(text)), "classes": classes}
    golden("recipes", found)


USAGE = {
    "missing file": "segment nowhere.png",
    "unknown model": "segment good.png --model nowhere",
    "bad laterality": "segment good.png --laterality top",
    "edit beside text": "segment good.png --edit left --text right",
    "text beside texts": "segment good.png --text left --texts texts.csv",
    "table without a column": "segment good.png --texts texts.csv",
    "weights of another task": "segment good.png --model sentence_grounding_small",
    "unknown option": "segment good.png --treshold 1",
    "output folder is an input": "segment folder --out folder",
    "no phrase": "ground good.png",
    "empty phrase": ["ground", "good.png", "--phrase", " "],
    "normalise without threshold": "ground good.png --phrase left --normalise none",
    "threshold out of range": "ground good.png --phrase left --threshold 2",
    "weights that segment": "ground good.png --phrase left --model sgseg_lite",
    "report of unknown sides": "report left --laterality unknown",
    "info of nothing": "info sgseg_lit",
    "form of nothing": "info --form paper",
    "data check of nothing": "data check qata_cov folder",
    "data check on an empty folder": "data check qata_cov19 folder",
    "data check of a drawn set": "data check phantom folder",
    "evaluate unknown data": "evaluate --data qata",
    "evaluate without root": "evaluate --data qata_cov19",
    "evaluate unknown mode": "evaluate --data phantom --text-mode all",
    "evaluate options of the other task": "evaluate --data phantom --margin 3",
    "evaluate phrases of none": "evaluate --data phantom --task grounding",
    "unknown reproduction": "reproduce mmi-unet-table",
    "no command": "nothing",
}


@pytest.fixture
def refuse(cli, tmp_path, monkeypatch, read):
    """Run words that are refused; gives exit code and lines of the standard error. Nothing may be printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "1000")
    monkeypatch.setenv("TEXTRAY_CACHE", str(tmp_path / "cache"))

    def run(words):
        result = cli(*(words.split() if isinstance(words, str) else words))
        assert result.code != 0
        err = read.lines(result.err)
        if err[0].startswith("Usage:"):  # the parser of words is a library, and so are its sentences
            err = [line for line in err if line.startswith("Usage:")]
        return {"code": result.code, "out": read.lines(result.out), "err": err}

    return run


def test_refused_words(refuse, tmp_path, film, golden):
    film(tmp_path / "good.png")
    (tmp_path / "texts.csv").write_text("image,words\ngood.png,left\n")
    (tmp_path / "folder").mkdir()
    for name, words in USAGE.items():
        golden(f"refused: {name}", refuse(words), tmp_path)


@pytest.fixture
def bad_files(tmp_path, film, bench):
    """Folder of files that are refused, each for another reason; one is not, and one is left out."""
    folder = tmp_path / "bad"
    whole = film(folder / "good.png").read_bytes()
    (folder / "truncated.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "page.png").write_text("<html>not found</html>")
    (folder / "notes.txt").write_text("a note")
    colours = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    PILImage.fromarray(colours).save(folder / "colour.png")
    PILImage.fromarray(np.zeros((3, 3), np.uint8)).save(folder / "tiny.png")
    PILImage.fromarray(np.full((64, 64), 7, np.uint8)).save(folder / "flat.png")
    whole = (bench / "films/usual.dcm").read_bytes()
    (folder / "cut.dcm").write_bytes(whole[: len(whole) // 2])
    (folder / "header.dcm").write_bytes(whole[:200])
    header = pydicom.dcmread(io.BytesIO(whole))
    del header.PixelData
    header.save_as(folder / "no-pixels.dcm")
    return folder


def test_refused_files(refuse, bad_files, tmp_path, golden):
    for command in ("segment", "ground --phrase lung"):
        found = refuse(f"{command} bad --out out --threads 1")
        done = sorted(path.name for path in (tmp_path / "out").iterdir())
        found["codes"] = {
            row["input"]: row["code"] for row in json.loads((tmp_path / "out/run.json").read_text())["items"]
        }
        golden(f"refused: files of {command.split()[0]}", {**found, "written": done}, tmp_path / "out")
        shutil.rmtree(tmp_path / "out")


def test_refused_text(refuse, tmp_path, film, golden):
    film(tmp_path / "good.png")
    found = refuse(["segment", "good.png", "--strict-text", "--text", "a healthy pig", "--threads", "1"])
    golden("refused: strict text without a zone", found, tmp_path)
