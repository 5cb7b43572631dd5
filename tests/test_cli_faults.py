"""Faults of text, weights and running, through the command line: exit code, message code, nothing half-written."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from textray.inference.predictor import Predictor

pytestmark = pytest.mark.usefixtures("real_fsync")  # what survives a crash is asked


@pytest.fixture
def run(cli, tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *args: cli("segment", *args, "--model", tiny_bundle, "--threads", "1")


def record(path):
    return json.loads(path.read_bytes())


def left_over(folder):
    return [path.name for path in folder.rglob(".textray-*")] if folder.exists() else []


@pytest.mark.parametrize("text", ["", "   ", "NaN", "None", "\u200b\u2060"])
def test_c01_no_words_is_the_text_free_mode(run, film, tmp_path, text):
    film(tmp_path / "a.png")
    assert run("a.png").code == 0
    free = (tmp_path / "textray-out/a.mask.png").read_bytes()
    assert run("a.png", "--text", text, "--overwrite", "--strict-text").code == 0
    found = record(tmp_path / "textray-out/a.json")["text"]
    assert found["mode"] == "none"
    assert found["given"] is None
    assert (tmp_path / "textray-out/a.mask.png").read_bytes() == free


@pytest.mark.parametrize(
    "words", ["\u202eright lower\u202c zone", "right\u200b lower zone", "right lo\x07wer zone \ud83e"]
)
def test_c04_odd_characters_give_the_same_mask(run, film, tmp_path, words):
    film(tmp_path / "a.png")
    run("a.png", "--text", "right lower zone", "--out", "plain")
    assert run("a.png", "--text", words, "--out", "odd").code == 0
    assert record(tmp_path / "odd/a.json")["text"]["mode"] == "given"
    assert (tmp_path / "odd/a.mask.png").read_bytes() == (tmp_path / "plain/a.mask.png").read_bytes()


@pytest.mark.parametrize("words", ["Hello World", "brain tumour in the frontal lobe"])
def test_c08_off_topic_words_never_steer(run, film, tmp_path, words):
    film(tmp_path / "a.png")
    run("a.png", "--out", "free")
    result = run("a.png", "--text", words, "--out", "said")
    assert result.code == 0
    assert "W_NO_ZONE" in result.err
    assert record(tmp_path / "said/a.json")["text"]["mode"] == "none"
    assert (tmp_path / "said/a.mask.png").read_bytes() == (tmp_path / "free/a.mask.png").read_bytes()
    strict = run("a.png", "--text", words, "--out", "strict", "--strict-text")
    assert strict.code == 3
    assert "E_NO_ZONE" in strict.err
    assert sorted(path.name for path in (tmp_path / "strict").iterdir()) == ["run.json"]


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from textray.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
main(sys.argv[2:])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="resource limits are POSIX")
@pytest.mark.parametrize("limit", [0, 300, 8000])
def test_e01_a_full_disk_leaves_the_old_result_whole(run, film, tmp_path, tiny_bundle, limit):
    film(tmp_path / "a.png", shape=(200, 160))
    assert run("a.png").code == 0
    out = tmp_path / "textray-out"
    results = ("a.mask.png", "a.overlay.png", "a.json")
    before = {name: (out / name).read_bytes() for name in results}
    assert len(before["a.overlay.png"]) > 8000
    command = [sys.executable, "-c", LIMITED, str(limit), "segment", "a.png", "--model", str(tiny_bundle)]
    done = subprocess.run(
        [*command, "--text", "left base", "--threads", "1"], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert done.returncode == 1
    assert "error E_DISK" in done.stderr
    assert "Traceback" not in done.stderr
    assert {name: (out / name).read_bytes() for name in results} == before
    assert left_over(out) == []


@pytest.mark.parametrize("out", ["file", "file/below"])
def test_e02_an_output_that_is_a_file_fails_before_inference(run, film, tmp_path, monkeypatch, out):
    film(tmp_path / "a.png")
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr(Predictor, "segment", lambda *_, **__: pytest.fail("inference was started"))
    result = run("a.png", "--out", out)
    assert result.code == 2
    assert "error E_OUTPUT" in result.err
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_e02_a_read_only_output_fails_before_inference(run, film, tmp_path):
    film(tmp_path / "a.png")
    (tmp_path / "out").mkdir(mode=0o500)
    result = run("a.png", "--out", "out")
    assert result.code == 2
    assert "error E_OUTPUT" in result.err


def test_e04_after_a_kill_the_same_command_does_only_the_rest(run, film, tmp_path, tiny_bundle):
    for i in range(60):
        film(tmp_path / f"in/{i:02}.png", shape=(300, 240), seed=i)
    out = tmp_path / "out"
    command = [sys.executable, "-c", "from textray.cli import main; main()", "segment", "in", "--out", "out"]
    process = subprocess.Popen(
        [*command, "--model", str(tiny_bundle), "--threads", "1"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while len(list(out.glob("[0-9]*.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    finished = sorted(path.stem for path in out.glob("[0-9]*.json"))
    assert 3 <= len(finished) < 60
    for name in finished:
        assert record(out / f"{name}.json")["outputs"]["mask"] == f"{name}.mask.png"
        assert (out / f"{name}.mask.png").is_file()
        assert (out / f"{name}.overlay.png").is_file()
    assert record(out / "run.json")["status"] == "running"

    result = run("in", "--out", "out")
    assert result.code == 0
    counts = record(out / "run.json")["counts"]
    assert counts == {"done": 60 - len(finished), "finished": len(finished), "skipped": 0, "failed": 0}
    assert left_over(out) == []


def test_e10_altered_or_cut_off_weights_are_refused(cli, film, tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    film(tmp_path / "a.png")
    for what in ("altered", "cut off", "lacks"):
        folder = tmp_path / what
        shutil.copytree(tiny_bundle, folder)
        raw = (folder / "model.onnx").read_bytes()
        if what == "altered":
            (folder / "model.onnx").write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
        elif what == "cut off":
            (folder / "model.onnx").write_bytes(raw[:100])
        else:
            (folder / "model.onnx").unlink()
        result = cli("segment", "a.png", "--model", folder)
        assert result.code == 2
        assert "error E_BUNDLE" in result.err
        assert what in result.err
        assert "model.onnx" in result.err
        assert not list((tmp_path / "textray-out").glob("a.*"))


def test_e17_an_old_result_is_gone_when_the_new_run_fails(run, film, tmp_path):
    film(tmp_path / "a.png")
    film(tmp_path / "b.png")
    assert run("a.png", "b.png").code == 0
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:500])
    result = run("a.png", "b.png")
    assert result.code == 3
    assert "error E_TRUNCATED: a.png" in result.err
    assert sorted(path.name for path in (tmp_path / "textray-out").iterdir()) == [
        "b.json",
        "b.mask.png",
        "b.overlay.png",
        "run.json",
    ]
    rows = {row["input"]: row["status"] for row in record(tmp_path / "textray-out/run.json")["items"]}
    assert rows == {"a.png": "failed", "b.png": "finished"}


def test_e17_strict_text_that_fails_takes_the_old_result_away(run, film, tmp_path):
    film(tmp_path / "a.png")
    assert run("a.png").code == 0
    assert run("a.png", "--text", "Hello World", "--strict-text").code == 3
    assert [path.name for path in (tmp_path / "textray-out").iterdir()] == ["run.json"]


def test_e08_two_runs_in_one_folder_both_end_well(film, tmp_path, tiny_bundle):
    for i in range(8):
        film(tmp_path / f"in/{i}.png", seed=i)
    command = [sys.executable, "-c", "from textray.cli import main; main()", "segment", "in", "--out", "out"]
    runs = [
        subprocess.Popen(
            [*command, "--model", str(tiny_bundle), "--threads", "1"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in runs:
        _, told = process.communicate(timeout=120)
        assert process.returncode == 0, told
    out = tmp_path / "out"
    assert record(out / "run.json")["status"] == "done"
    assert len(list(out.glob("[0-9].json"))) == len(list(out.glob("*.mask.png"))) == 8
    assert left_over(out) == []


def test_an_unexpected_failure_of_one_file_does_not_end_the_run(run, film, tmp_path, monkeypatch):
    for name in "abc":
        film(tmp_path / f"{name}.png")
    real = Predictor.segment

    def broken(self, picture, *args, **options):
        if picture.name == "b.png":
            raise ZeroDivisionError("Jane Planted")
        return real(self, picture, *args, **options)

    monkeypatch.setattr(Predictor, "segment", broken)
    result = run("a.png", "b.png", "c.png")
    assert result.code == 3
    assert "error E_INTERNAL: b.png: unexpected ZeroDivisionError" in result.err
    assert "Planted" not in result.err + (tmp_path / "textray-out/run.json").read_text()
    assert record(tmp_path / "textray-out/run.json")["counts"]["done"] == 2


def test_an_interrupt_leaves_a_summary_and_130(run, film, tmp_path, monkeypatch):
    for name in "abc":
        film(tmp_path / f"{name}.png")
    real = Predictor.segment

    def interrupted(self, picture, *args, **options):
        if picture.name == "b.png":
            raise KeyboardInterrupt
        return real(self, picture, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Predictor, "segment", interrupted)
        assert run("a.png", "b.png", "c.png").code == 130
    assert record(tmp_path / "textray-out/run.json")["status"] == "interrupted"
    assert "2 done, 1 finished" in run("a.png", "b.png", "c.png").err


def test_a04_a_dicom_object_without_pixels_is_skipped_unless_named(run, film, tmp_path):
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    report = Dataset()
    report.file_meta = meta
    report.SOPClassUID, report.SOPInstanceUID, report.Modality = meta.MediaStorageSOPClassUID, "1.2.3", "SR"
    film(tmp_path / "in/a.png")
    report.save_as(tmp_path / "in/sr.dcm", enforce_file_format=True)
    below = run("in")
    assert below.code == 0
    assert "skipped W_NOT_IMAGE: in/sr.dcm" in below.err
    named = run("in/sr.dcm")
    assert named.code == 3
    assert "error W_NOT_IMAGE: in/sr.dcm" in named.err
