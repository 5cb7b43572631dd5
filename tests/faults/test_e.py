"""E: weights and running."""

import json
import os
import pickle
import re
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

with suppress(ImportError):
    import lightning  # noqa: F401 -- its log writes to the stderr that it finds when it is imported

BANK = "text_bank.safetensors"


class Loud:
    """A pickle that makes a folder where it is loaded."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


def film(tools):
    Path("film").write_bytes(tools.raster(tools.eight))
    return ["film"]


def weights(spoil, *, sealed=False):
    """The film with a bundle that was spoilt, ``sealed`` with the hashes of its files as they are then."""

    def make(tools):
        folder = tools.weights()
        spoil(folder)
        if sealed:
            tools.seal(folder)
        return [*film(tools), "--model", folder, "--text", "left base"]

    return make


def file(name, change):
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def config(**values):
    def change(raw):
        return json.dumps(json.loads(raw) | values).encode()

    return file("config.json", change)


def bank(features, mask, size=10_000):
    """A text bank whose header says where these tensors lie: type, shape, first and last byte."""
    named = {"features": features, "mask": mask}
    header = {name: dict(zip(("dtype", "shape", "data_offsets"), facts, strict=True)) for name, facts in named.items()}
    text = json.dumps(header).encode()
    return file(BANK, lambda raw: len(text).to_bytes(8, "little") + text + bytes(size))


def named(name, content):
    """The film with weights that are one file."""

    def make(tools):
        Path(name).write_bytes(content)
        return [*film(tools), "--model", name]

    return make


def zipped(tools):
    with zipfile.ZipFile("weights.zip", "w") as archive:
        for path in sorted(tools.weights().iterdir()):
            archive.write(path, f"../../{path.name}")
    return [*film(tools), "--model", "weights.zip"]


def linked(folder):
    """A file of the bundle leads to a file outside of it, of which the config has no hash."""
    (folder / "LICENSE").unlink()
    (folder / "LICENSE").symlink_to("/etc/hostname")


BUNDLE = {"exit": 2, "codes": ("E_BUNDLE",)}

CASES = [
    (
        "E10a",
        "weights that are cut off",
        weights(file("model.onnx", lambda raw: raw[:-9])),
        BUNDLE | {"words": "cut off"},
    ),
    (
        "E10b",
        "weights with another byte",
        weights(file("model.safetensors", lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]))),
        BUNDLE | {"words": "model.safetensors of bundle weights is altered"},
    ),
    (
        "E10c",
        "weights without a file",
        weights(lambda folder: (folder / BANK).unlink()),
        BUNDLE | {"words": f"lacks {BANK}"},
    ),
    (
        "E11a",
        "a pickle with code as weights",
        named("w.ckpt", pickle.dumps(Loud())),
        {"exit": 2, "codes": ("E_USAGE",)},
    ),
    (
        "E11b",
        "a pickle with code in the weights",
        weights(file(BANK, lambda raw: pickle.dumps(Loud())), sealed=True),
        BUNDLE,
    ),
    ("E12a", "an archive whose names lead out of its folder", zipped, {"exit": 2, "codes": ("E_USAGE",)}),
    (
        "E12b",
        "a list of files that leads out of the folder",
        weights(config(files={"../../secret": {"bytes": 1, "sha256": ""}})),
        BUNDLE,
    ),
    ("E12c", "a link out of the folder", weights(linked), BUNDLE),
    (
        "E13a",
        "weights of another task",
        lambda tools: [*film(tools), "--model", tools.of_grounding],
        BUNDLE | {"words": "textray ground"},
    ),
    ("E13b", "weights of a later format", weights(config(format=2)), BUNDLE | {"words": "Got 2. Expected 1"}),
    ("E13c", "weights with a key that is unknown", weights(config(more=1)), BUNDLE),
    (
        "E14a",
        "tensors with a header of 2^60 bytes",
        weights(file(BANK, lambda raw: (2**60).to_bytes(8, "little") + b"{}"), sealed=True),
        BUNDLE,
    ),
    (
        "E14b",
        "tensors that overlap",
        weights(bank(("F16", [64, 2, 6], [0, 1536]), ("U8", [64, 2], [1000, 1128]), 1536), sealed=True),
        BUNDLE,
    ),
    (
        "E14c",
        "tensors that end behind their file",
        weights(bank(("F16", [64, 2, 6], [0, 1536]), ("U8", [64, 2], [1536, 10**12])), sealed=True),
        BUNDLE,
    ),
    (
        "E14d",
        "tensors of another type",
        weights(bank(("I16", [64, 2, 6], [0, 1536]), ("U8", [64, 2], [1536, 1664]), 1664), sealed=True),
        BUNDLE,
    ),
]


@pytest.mark.parametrize(("make", "answer"), [case[2:] for case in CASES], ids=[case[0] for case in CASES])
def test_e(make, answer, attempt, tmp_path):
    attempt(make, **answer)
    assert not list(tmp_path.rglob("ran"))
    assert not (tmp_path.parent / "model.onnx").exists()


def apart(folder, bundle, *, environment=(), limit=None):
    """Segment the film of a folder in a process of its own: exit status, standard error and largest memory in MB."""
    code = "from pathlib import Path; from textray.cli import main\ntry: main()\n"
    code += "finally: print(Path('/proc/self/status').read_text() if Path('/proc/self/status').exists() else '')"
    words = [sys.executable, "-c", code, "segment", "in", "--model", str(bundle), "--out", "out é", "--threads", "1"]
    ended = subprocess.run(
        words, cwd=folder, env=os.environ | dict(environment), capture_output=True, text=True, check=False,
        timeout=300, preexec_fn=limit,
    )  # fmt: skip
    peak = re.search(r"VmHWM:\s+(\d+) kB", ended.stdout)
    return ended.returncode, ended.stderr, int(peak[1]) // 1024 if peak else 0


@pytest.fixture
def folder(raster, levels, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "film.png").write_bytes(raster((levels >> 4).astype("uint8")))
    return tmp_path


@pytest.mark.skipif(sys.platform != "linux", reason="limits are those of Linux")
@pytest.mark.parametrize("threads", ["no number", "0", "-3", "1000"])
def test_e15_one_processor_and_two_gigabytes_do(folder, tiny_bundle, threads):
    import resource

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    named = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads)
    status, err, _ = apart(folder, tiny_bundle, environment=named, limit=limit)
    assert (status, "Traceback" in err) == (0, False), err
    assert list(folder.glob("*/film.mask.png"))


@pytest.mark.skipif(sys.platform == "win32", reason="its locales and homes are others")
@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "xx_YY.ISO-8859-15"},
        {"HOME": "/nowhere", "XDG_CACHE_HOME": "/nowhere/x", "TEXTRAY_CACHE": "/nowhere/y"},
        {"TMPDIR": "/nowhere", "TZ": "Mars/Phobos", "TERM": "dumb", "COLUMNS": "0"},
    ],
    ids=["C", "unknown locale", "no home", "no terminal"],
)
def test_e16_other_locales_and_homes_change_nothing(folder, tiny_bundle, environment):
    status, err, _ = apart(folder, tiny_bundle, environment=environment)
    assert (status, "Traceback" in err) == (0, False), err
    assert list(folder.glob("*/film.mask.png"))


def test_e16_a_clock_that_jumps_changes_nothing(cli, folder, tiny_bundle, monkeypatch):
    monkeypatch.chdir(folder)
    words = ["segment", "in", "--model", tiny_bundle]
    for stamp, counted in ((0, "1 done"), (2**32, "1 finished"), (10, "1 finished")):
        os.utime(folder / "in" / "film.png", (stamp, stamp))
        monkeypatch.setattr("time.time", lambda stamp=stamp: float(stamp))
        assert counted in cli(*words).err
        for path in (folder / "textray-out").iterdir():
            os.utime(path, (stamp + 1, stamp + 1))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured as on Linux")
def test_e18_a_folder_of_30000_files_takes_bounded_memory(folder, tiny_bundle):
    for number in range(30_000):
        (folder / "in" / f"{number}.txt").touch()
    status, err, megabytes = apart(folder, tiny_bundle)
    assert status == 0
    assert "1 done, 30000 skipped" in err
    assert 0 < megabytes < 400
    assert (folder / "out é" / "run.json").stat().st_size < 12_000_000


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured as on Linux")
@pytest.mark.parametrize("kind", ["png8", "png16", "dicom"])
def test_a_large_film_takes_few_bytes_a_pixel(kind, folder, tiny_bundle, raster, dicom, levels):
    def measured(film):
        data = dicom(film) if kind == "dicom" else raster((film >> 4).astype("uint8") if kind == "png8" else film)
        (folder / "in" / "film.png").write_bytes(data)
        status, err, megabytes = apart(folder, tiny_bundle)
        assert (status, "1 done" in err) == (0, True), err
        return megabytes

    large = np.tile(levels, (40, 50))  # benchmarks/memory.py prints exact figures
    more = measured(large) - measured(levels)
    assert 0 < more * 2**20 / large.size < 10


@pytest.mark.filterwarnings("ignore")
def test_e09_weights_that_no_package_has_are_asked_for_without_a_network(train, tmp_path, monkeypatch):
    pytest.importorskip("lightning", reason="textray[train] is not installed")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    network = "{class_path: textray.models.mmi_unet.MMIUNet, init_args: {config: {trunk: efficientnet_lite0}}}"
    (tmp_path / "tiny.yaml").write_text(
        f"model: {{network: {network}, text_encoder: cxr_bert}}\ndata: {{data: phantom}}"
    )
    refused = train("--config", tmp_path / "tiny.yaml", "--out", tmp_path / "run")
    assert refused.code == 2
    assert "error E_USAGE: the weights of the text encoder" in refused.err
    assert "cxr_bert" in refused.err
    assert "name its folder" in refused.err
