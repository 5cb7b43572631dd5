"""Tables of faults: an input, the answer that it must get, tried through the command line.

Each ``test_LETTER.py`` lists ``CASES`` of one letter: ``(id, input, make, answer)``. ``make(tools)`` writes inputs into
the present folder and gives the arguments of ``textray segment``, or gives the bytes of one film. In ``test_d.py``
``make(root)`` spoils a copy of a data set. ``answer`` holds the exit status (``exit``, 0 by default), message
``codes``, ``words`` of a message, and ``same_as``, which makes the clean twin whose result must be the same.
``python docs/write_faults.py`` writes docs/faults.md from them.
"""

import csv
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image as PILImage


def mask_of(folder):
    (path,) = folder.glob("*.mask.png")
    with PILImage.open(path) as picture:
        return np.asarray(picture)


def seal(folder):
    """Let the config of a bundle list its files as they are now."""
    from textray.inference.bundle_files import list_files

    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps(config | {"files": list_files(folder, config["files"])}))


@pytest.fixture
def attempt(cli, tiny_bundle, grounding_bundle, tmp_path, monkeypatch, dicom, raster, levels):
    """Try a case and assert its answer."""
    tools = SimpleNamespace(dicom=dicom, raster=raster, levels=levels, eight=(levels >> 4).astype(np.uint8), seal=seal)
    tools.weights = lambda: Path(shutil.copytree(tiny_bundle, "weights"))
    tools.of_grounding = grounding_bundle

    def run(make, name):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        made = make(tools)
        if isinstance(made, bytes):
            (folder / "film").write_bytes(made)
            made = ["film"]
        result = cli("segment", "--out", folder / "out", "--model", tiny_bundle, "--threads", "1", *made)
        return result, folder / "out"

    def check(make, *, exit=0, codes=(), words="", same_as=None):
        result, out = run(make, "odd")
        assert result.code == exit, result.err
        assert "E_INTERNAL" not in result.err
        assert all(code in result.err for code in codes), result.err
        assert words in result.out + result.err
        if exit == 0:
            assert json.loads((out / "run.json").read_bytes())["status"] == "done"
            assert mask_of(out).size
        else:
            assert not list(out.glob("*.mask.png"))
        if same_as is not None:
            twin, clean = run(same_as, "clean")
            assert twin.code == 0, twin.err
            np.testing.assert_array_equal(mask_of(out), mask_of(clean))

    return check


SPLITS = ("train", "val")


@pytest.fixture
def copy_of_data(drawn_qata, tmp_path):
    """Copy the drawn data set, which is in the layout of QaTa-COV19: ``copy_of_data(name) -> root``."""
    return lambda name: Path(shutil.copytree(drawn_qata, tmp_path / name))


@pytest.fixture
def scores(cli, tiny_bundle, tmp_path):
    """Evaluate a copy: ``scores(root, split="train", ...) -> result, rows of cases.csv by image and mode``."""

    def run(root, split="train", *more):
        out = tmp_path / f"scores-{root.name}-{split}"
        words = ["--data", "qata_cov19", "--root", root, "--split", split, "--model", tiny_bundle, "--threads", "1"]
        result = cli("evaluate", *words, "--out", out, *more)
        if result.code:
            assert not list(out.glob("*")), "what is refused leaves no file"
            return result, {}
        with (out / "cases.csv").open(newline="") as file:
            return result, {(row["image"], row["mode"]): row for row in csv.DictReader(file)}

    return run


@pytest.fixture
def attempt_data(cli, copy_of_data, scores):
    """Spoil a copy of a data set; assert the answer of ``data check``, and that ``evaluate`` agrees with it."""

    def check(make, *, exit=0, codes=(), words="", same_as=None):
        root = copy_of_data("odd")
        make(root)
        before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
        listed, plain = cli("data", "check", "qata_cov19", root, "--json"), cli("data", "check", "qata_cov19", root)
        results = [scores(root, split)[0] for split in SPLITS]
        assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
        assert listed.code == plain.code == max(result.code for result in results) == exit, plain.out + plain.err
        found = [problem["code"] for row in listed.rows for problem in row["problems"]]
        assert all(code in found or f"error {code}: " in plain.err for code in codes), plain.out + plain.err
        for row in listed.rows:
            assert row["ok"] == (exit == 0)
            assert all(problem["path"] in plain.out for problem in row["problems"])
        assert words in plain.out + plain.err
        assert "E_INTERNAL" not in plain.err
        for result in results:
            assert result.code == 0 or "error E_" in result.err
            assert "E_INTERNAL" not in result.err
        if exit:
            assert words in "".join(result.err for result in results)
        if same_as is not None:
            clean = copy_of_data("clean")
            same_as(clean)
            for split in SPLITS:
                assert scores(root, split)[1] == scores(clean, split)[1]

    return check
