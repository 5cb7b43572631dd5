"""Evaluation of a bundle whose network paints exactly the zones it is told, so that every answer is known."""

import csv
import itertools
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image as PILImage

from textray.data.base import Sample
from textray.data.qata_cov19 import QaTaCOV19
from textray.errors import DataError, OutputError, UsageError
from textray.evaluate.cases import TextMode, mode_texts, parse_modes, segment
from textray.evaluate.results import check, csv_table
from textray.evaluate.segmentation import MaskEvaluation, evaluate, score
from textray.inference.bundle import Bundle
from textray.inference.segmenter import Inference, Predictor
from textray.io.read import read_mask
from textray.preprocess import Preprocess
from textray.provenance import git_state
from textray.records import Report, Zones, ZoneSplit

SIDE = 32
ROWS = (0.375, 0.55)


PAINTER = f"""(float[B,3,{SIDE},{SIDE}] image, float[B,1,6] text_features, float[B,1] text_mask)
    => (float[B,1,{SIDE},{SIDE}] logits) {{
        gate = Unsqueeze (text_mask, last)
        told = Mul (text_features, gate)
        flat = MatMul (told, planes)
        painting = Reshape (flat, shape)
        logits = Sub (painting, ten)
    }}"""
"""Logits +10 in the zones told, -10 elsewhere."""


@pytest.fixture(scope="module")
def bundle(make_bundle, make_graph, tmp_path_factory):
    planes = np.zeros((6, SIDE, SIDE), np.float32)  # the rectangle of each zone
    for zone, (side, rows) in enumerate(itertools.product((0, 1), (slice(0, 12), slice(12, 18), slice(18, SIDE)))):
        planes[zone, rows, side * SIDE // 2 : (side + 1) * SIDE // 2] = 20
    constants = {"planes": planes.reshape(6, -1), "shape": np.array([-1, 1, SIDE, SIDE]), "ten": np.float32([10])}
    constants["last"] = np.array([2])
    folder = tmp_path_factory.mktemp("models") / "painter"
    make_bundle(folder, name="painter", size=SIDE, tokens=1, graph=make_graph(PAINTER, constants), zone_rows=ROWS)
    return folder


@pytest.fixture(scope="module")
def blind(make_bundle, tmp_path_factory):
    """Weights that read no text and mark bright pixels."""
    folder = tmp_path_factory.mktemp("models") / "bright"
    make_bundle(folder, name="bright", size=SIDE, reads_text=False)
    return folder


def run(bundle, root, out, modes=("oracle", "none", "shuffled"), progress=None, **options):
    settings = {"data": "qata_cov19", "root": root, "split": "train", "model": bundle, "threads": 1} | options
    return evaluate(MaskEvaluation(text_mode=modes, out=out, **settings), progress=progress)


@pytest.fixture(scope="module")
def done(bundle, drawn_qata, tmp_path_factory):
    """One run that several tests look at: its folder and what it returned."""
    out = tmp_path_factory.mktemp("out")
    return out, run(bundle, drawn_qata, out, sides=True)


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_cases_equal_segmenting_each_film_by_itself(bundle, drawn_qata, done):
    cases = {(row["image"], row["mode"]): row for row in read_csv(done[0] / "cases.csv")}
    samples = QaTaCOV19(drawn_qata).samples("train")
    assert len(cases) == 3 * len(samples)
    predictor = Predictor(Bundle.load(bundle), threads=1)
    for sample in samples:
        truth = read_mask(sample.mask_path)
        for mode, text in (("oracle", sample.report.text), ("none", None)):
            mask = predictor.segment(sample.image_path, text=text, laterality="viewer").mask
            assert mask.shape == (48, 61)  # the film's own grid, not the network's
            row = cases[sample.image_id, mode]
            expected = [(mask & truth).sum(), (mask & ~truth).sum(), (~mask & truth).sum(), (~mask & ~truth).sum()]
            assert [int(row[k]) for k in ("tp", "fp", "fn", "tn")] == expected
            assert float(row["dice"]) == pytest.approx(2 * expected[0] / (mask.sum() + truth.sum()))
            assert float(row["iou"]) == pytest.approx(expected[0] / (mask | truth).sum())
            assert row["patient"] == (sample.patient_id or "")
            assert row["truth_empty"] == "0"
            assert row["prediction_empty"] == ("1" if mode == "none" else "0")
            bits = "".join("1" if p else "0" for p in sample.report.zones.present)
            assert row["zones"] == (bits if mode == "oracle" else "")


def test_summary_follows_from_the_cases_and_says_where_the_numbers_come_from(bundle, done):
    out, returned = done
    summary = json.loads((out / "summary.json").read_text())
    assert summary == json.loads(json.dumps(returned))
    for mode in ("oracle", "none", "shuffled"):
        rows = [row for row in read_csv(out / "cases.csv") if row["mode"] == mode]
        tp, fp, fn = (sum(int(row[k]) for row in rows) for k in ("tp", "fp", "fn"))
        found = summary["modes"][mode]
        assert found["dice_pooled"]["value"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
        assert found["iou_per_image"]["value"] == pytest.approx(sum(float(row["iou"]) for row in rows) / len(rows))
        for interval in found.values():
            assert interval["low"] <= interval["value"] + 1e-12
            assert interval["value"] <= interval["high"] + 1e-12
    assert summary["modes"]["oracle"]["dice_pooled"]["value"] > summary["modes"]["shuffled"]["dice_pooled"]["value"]
    assert summary["modes"]["none"]["dice_pooled"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert summary["empty"]["none"] == {"truth": 0, "prediction": 32, "both": 0}
    assert summary["images_without_text"] == {"oracle": 0, "none": 32, "shuffled": 0}
    assert (summary["images"], summary["patients"], summary["images_without_patient"]) == (32, 6, 16)
    assert (summary["data"]["name"], summary["data"]["split"]) == ("qata_cov19", "train")
    assert len(summary["data"]["ids_sha256"]) == 64
    assert (summary["model"]["name"], summary["model"]["sha256"]) == ("painter", Bundle.load(bundle).sha256)
    assert (summary["size"], summary["threshold"], summary["draws"]) == ([SIDE, SIDE], 0.5, 1000)
    assert "caption" in summary["text_modes"]["oracle"]
    assert summary["command"] == (
        "textray evaluate --data qata_cov19 --root ROOT --split train --text-mode oracle --text-mode none "
        "--text-mode shuffled --model painter --sides --out OUT"
    )
    page = (out / "summary.md").read_text()
    assert summary["command"] in page
    assert "| painter | qata_cov19 train, revised captions | shuffled | 32 |" in page
    assert str(out) not in page + (out / "summary.json").read_text()
    assert sorted(p.name for p in out.iterdir()) == ["cases.csv", "sides.csv", "summary.json", "summary.md"]


def test_a_network_that_obeys_moves_every_film(drawn_qata, done):
    out, summary = done
    samples = QaTaCOV19(drawn_qata).samples("train")
    telling = [s for s in samples if s.report.zones.index != s.report.zones.mirror().index]
    rows = read_csv(out / "sides.csv")
    assert [row["image"] for row in rows] == [s.image_id for s in telling]
    for kind, found in summary["sides"].items():
        assert found["films"] == sum(row["kind"] == kind for row in rows) > 0
        for name in ("share_true_pooled", "share_mirrored_per_image"):
            assert found[name]["value"] > 0.95  # resizing to 61 columns blurs the middle
        assert found["moved_films"]["value"] == 1.0
    assert "Left-right sensitivity" in (out / "summary.md").read_text()


def test_sides_without_oracle_give_the_same_sides(bundle, drawn_qata, done, tmp_path):
    summary = run(bundle, drawn_qata, tmp_path, modes=("none",), sides=True)
    assert summary["sides"] == done[1]["sides"]
    assert list(summary["modes"]) == ["none"]
    assert {row["mode"] for row in read_csv(tmp_path / "cases.csv")} == {"none"}
    check(tmp_path)


def test_the_same_run_gives_the_same_numbers(bundle, drawn_qata, done, tmp_path):
    again = run(bundle, drawn_qata, tmp_path, sides=True)
    assert (tmp_path / "cases.csv").read_bytes() == (done[0] / "cases.csv").read_bytes()
    assert {k: v for k, v in again.items() if k != "seconds"} == {k: v for k, v in done[1].items() if k != "seconds"}


def test_limit_spreads_over_the_split_and_the_phantom_needs_no_folder(bundle, drawn_qata, tmp_path):
    calls = []
    summary = run(bundle, drawn_qata, tmp_path, ("oracle",), limit=10, progress=lambda *step: calls.append(step))
    assert summary["images"] == 10
    assert summary["images_without_patient"] == 5  # the first half of the split has no patient
    assert "--limit 10" in summary["command"]
    assert calls == [(8, 10), (10, 10)]
    summary = run(bundle, None, tmp_path, modes=("oracle",), data="phantom", split="val")
    assert summary["images"] == 8
    assert summary["modes"]["oracle"]["sensitivity_pooled"]["value"] > 0.9


def test_unknown_text_modes_list_the_valid_ones():
    with pytest.raises(UsageError, match=r"unknown text mode 'orakel'.*generated, none, oracle, shuffled.*'oracle'"):
        parse_modes(["orakel"])
    with pytest.raises(UsageError, match="no text mode given"):
        parse_modes([])
    assert parse_modes(["none", "oracle", "none"]) == (TextMode.NONE, TextMode.ORACLE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "qata"}, "unknown data set 'qata'.*qata_cov19"),
        ({"root": None}, "qata_cov19 is read from a folder.*docs/datasets"),
        ({"split": "valid"}, "split 'valid'"),
        ({"missing_captions": "maybe"}, "caption policy"),
        ({"limit": 0}, "limit"),
        ({"modes": ("oracle", "generated")}, "this model has no report generator"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_done(options, message, bundle, drawn_qata, tmp_path):
    with pytest.raises(UsageError, match=message) as caught:
        run(bundle, **({"root": drawn_qata} | options), out=tmp_path / "out")
    assert caught.value.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_written_stops_the_run_at_once(bundle, drawn_qata, tmp_path):
    (tmp_path / "out").write_text("a file")
    calls = []
    with pytest.raises(OutputError):
        run(bundle, drawn_qata, tmp_path / "out", progress=lambda *step: calls.append(step))
    assert not calls
    assert (tmp_path / "out").read_text() == "a file"


def test_a_model_that_reads_no_text_is_scored_without_text_only(bundle, blind, drawn_qata, tmp_path):
    for options in ({"modes": ("oracle", "none")}, {"modes": ("none",), "sides": True}):
        with pytest.raises(UsageError, match="bright reads no text"):
            run(blind, drawn_qata, tmp_path / "out", **options)
    for model, modes in ((blind, ["none"]), (bundle, ["oracle", "none"])):  # where nobody names the modes
        summary = run(model, drawn_qata, tmp_path / "out", modes=(), split="val")
        assert list(summary["modes"]) == modes
        assert all(f"--text-mode {mode}" in summary["command"] for mode in modes)
        assert 0 < summary["modes"][modes[0]]["dice_pooled"]["value"] < 1


def samples_of(indices):
    """Samples that name the zones of these bank rows; nothing on disk."""
    reports = [Report(zones=Zones.from_index(index)) for index in indices]
    return [Sample(image_id=f"film{k}", image_path=None, report=r, split="val") for k, r in enumerate(reports)]


def test_shuffled_never_gives_a_film_its_own_zones():
    indices = [63] * 30 + [36] * 5 + [4, 0, 0]  # one caption has a clear majority; two films have none
    told = mode_texts(samples_of(indices), TextMode.SHUFFLED, seed=0)
    assert list(told) == list(range(38))
    for k, own in enumerate(indices):
        assert told[k].zones.index in {63, 36, 4} - {own}
    assert len({told[k].zones.index for k in range(30)}) == 2  # drawn from all others


def test_shuffled_depends_on_seed_and_ids_and_not_on_order():
    samples = samples_of(range(1, 64))
    first = mode_texts(samples, TextMode.SHUFFLED, seed=0)
    turned = mode_texts(samples[::-1], TextMode.SHUFFLED, seed=0)
    assert [turned[62 - k] for k in range(63)] == [first[k] for k in range(63)]
    assert mode_texts(samples, TextMode.SHUFFLED, seed=1) != first


def test_captions_that_are_all_alike_cannot_be_shuffled_and_one_without_a_zone_is_no_text():
    for indices in ([7, 7, 7], [0, 0]):
        with pytest.raises(UsageError, match="cannot be shuffled"):
            mode_texts(samples_of(indices), TextMode.SHUFFLED, seed=0)
    samples = samples_of([0, 5])
    assert mode_texts(samples, TextMode.ORACLE, seed=0) == {0: None, 1: samples[1].report}
    assert mode_texts(samples, TextMode.NONE, seed=0) == {0: None, 1: None}


class Constant:
    """A network that answers the same everywhere, and fails at a given batch."""

    bundle = SimpleNamespace(
        preprocess=Preprocess(size=(SIDE, SIDE)),
        threshold=0.5,
        zone_split=ZoneSplit(),
        zone_thresholds=None,
        bounds=None,
    )
    reads_denial = False

    def __init__(self, value, fails_at=None):
        self.value, self.fails_at, self.batches = value, fails_at, 0

    def infer(self, pixels, rows, denied=None):
        assert len(rows) == len(pixels)
        if self.batches == self.fails_at:
            raise RuntimeError("stopped")
        self.batches += 1
        return Inference(probability=np.full((len(pixels), SIDE, SIDE), self.value, np.float32))


def test_the_threshold_itself_is_lesion(drawn_qata):
    samples = QaTaCOV19(drawn_qata).samples("val")
    texts = {"none": dict.fromkeys(range(len(samples)))}
    for value, empty in ((0.5, False), (0.49, True)):
        cases = segment(Constant(value), samples, texts)["none"]
        assert all((case.counts.tp + case.counts.fp == 0) is empty for case in cases.values())


def test_a_run_that_fails_leaves_the_old_results_whole(drawn_qata, tmp_path):
    samples = QaTaCOV19(drawn_qata).samples("train")
    (tmp_path / "summary.json").write_text("old")
    with pytest.raises(RuntimeError, match="stopped"):
        score(Constant(0.9, fails_at=2), samples, [TextMode.NONE], tmp_path, {})
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]
    assert (tmp_path / "summary.json").read_text() == "old"


@pytest.mark.skipif(sys.platform == "win32", reason="such names are POSIX")
def test_names_of_films_steer_neither_a_terminal_nor_a_spreadsheet(bundle, drawn_qata, tmp_path):
    root = shutil.copytree(drawn_qata, tmp_path / "set")
    table = (root / "prompt/train.csv").read_text()
    starts = ("=1+1", "@SUM(1)", "-2+3", "+4", "\t=5", "plain-1")
    for i, begin in enumerate(starts):
        old, new = f"covid_{i:05d}", f"{begin}\x1b[31m\u202e"
        (root / f"Train Set/Images/{old}.png").rename(root / f"Train Set/Images/{new}.png")
        (root / f"Train Set/Ground-truths/mask_{old}.png").rename(root / f"Train Set/Ground-truths/mask_{new}.png")
        table = table.replace(old, new)
    lines = table.split("\n")
    del lines[1]  # a film without a caption is logged
    (root / "prompt/train.csv").write_text("\n".join(lines))
    words = ("--data", "qata_cov19", "--root", root, "--split", "train", "--model", bundle, "--text-mode", "none")
    code = "import sys; from textray.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "evaluate", *words, "--missing-captions", "skip", "--out", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "=1+1\\x1b[31m\\u202e" in done.stderr
    assert not {"\x1b", "\u202e"} & set(done.stdout + done.stderr)
    names = {line["image"] for line in read_csv(tmp_path / "out/cases.csv")}
    assert {f"'{begin}\x1b[31m\u202e" for begin in starts[1:-1]} < names
    assert "plain-1\x1b[31m\u202e" in names
    assert not any(name.strip().startswith(tuple("=+-@")) for name in names)


def test_numbers_of_a_table_stay_numbers():
    lines = [(-1, -0.5, "-0.250000", "+3", "-", "=1", "a=b", "＝1", None)]
    assert csv_table(["a"], lines).decode() == "a\n-1,-0.5,-0.250000,+3,'-,'=1,a=b,'＝1,\n"


@pytest.mark.parametrize("name", ["summary.json", "cases.csv", "sides.csv", "summary.md"])
@pytest.mark.parametrize("content", [b"", b'{"a": 1}', b"image,patient,age\n", b"# Notes\n", b"\x89PNG", None])
def test_files_of_others_are_not_replaced(cli, bundle, drawn_qata, tmp_path, name, content):
    place = tmp_path / "out" / name
    place.parent.mkdir()
    place.mkdir() if content is None else place.write_bytes(content)
    words = ("--data", "qata_cov19", "--root", drawn_qata, "--split", "val", "--model", bundle, "--text-mode", "none")
    result = cli("evaluate", *words, "--out", tmp_path / "out")
    assert result.code == 2
    assert f"error E_OUTPUT: {place} is of no evaluation, so it is not overwritten" in result.err
    assert [path.name for path in place.parent.iterdir()] == [name]
    assert content is None or place.read_bytes() == content


def test_files_of_an_earlier_evaluation_are_replaced(cli, bundle, drawn_qata, tmp_path):
    words = ("--data", "qata_cov19", "--root", drawn_qata, "--split", "val", "--model", bundle, "--text-mode", "oracle")
    for more in (["--sides"], [], ["--sides"]):
        assert cli("evaluate", *words, *more, "--out", tmp_path).code == 0
        assert (tmp_path / "sides.csv").exists() is bool(more)
    (tmp_path / "summary.json").unlink()  # as a kill between two renames leaves them
    assert cli("evaluate", *words, "--out", tmp_path).code == 0


def test_a_mask_of_another_size_is_refused_by_name(drawn_qata, tmp_path):
    sample = QaTaCOV19(drawn_qata).samples("val")[0]
    PILImage.new("L", (48, 61)).save(tmp_path / "turned.png")
    wrong = replace(sample, mask_path=tmp_path / "turned.png")
    with pytest.raises(DataError, match=rf"{sample.image_id} has another size.*\(61, 48\).*\(48, 61\)"):
        segment(Constant(0.9), [wrong], {"none": {0: None}})


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_git_state_is_that_of_the_package_and_not_of_a_checkout_around_it(tmp_path):
    def git(*words):
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", "-C", str(tmp_path), *identity, *words], check=True, capture_output=True)
        return done.stdout.decode().strip()

    package, installed = tmp_path / "package", tmp_path / "venv"
    for folder in (package, installed):
        folder.mkdir()
        (folder / "__init__.py").write_text("")
    assert git_state(package) is None
    git("init", "-q")
    git("add", "package")
    git("commit", "-q", "-m", "first")
    assert git_state(package) == {"commit": git("rev-parse", "HEAD"), "changed": False}
    (package / "__init__.py").write_text("x = 1\n")
    assert git_state(package)["changed"] is True
    assert git_state(installed) is None
