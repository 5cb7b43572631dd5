"""Evaluation of a network that writes its own report: it paints the zones told, or those whose pixels are bright."""

import csv
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import f1_score

from textray.data.phantom import Phantom
from textray.data.qata_cov19 import QaTaCOV19
from textray.errors import UsageError
from textray.evaluate.cases import TextMode, mode_texts, segment
from textray.evaluate.page import cell
from textray.evaluate.segmentation import MaskEvaluation, evaluate, score
from textray.inference.bank import Prompt
from textray.inference.bundle import Bundle
from textray.inference.segmenter import Inference, Predictor
from textray.io.read import read
from textray.preprocess import Preprocess
from textray.records import Laterality, Report, Zones, ZoneState
from textray.text.zones import parse_caption, sentence

SIDE = 32
ROWS = (0.375, 0.55)
THRESHOLDS = (0.8, 0.955, 0.993, 0.83, 0.963, 0.994)
"""Such that about half of the films have a zone that reaches its own."""


def planes():
    """``(6, SIDE * SIDE)`` float32: 1 in the rectangle of each zone."""
    found = np.zeros((6, SIDE, SIDE), np.float32)
    heights = [0, 12, 18, SIDE]
    for zone in range(6):
        side, level = divmod(zone, 3)
        found[zone, heights[level] : heights[level + 1], side * SIDE // 2 : (side + 1) * SIDE // 2] = 1
    return found.reshape(6, -1)


WRITER = f"""(float[B,3,{SIDE},{SIDE}] image, float[B,1,6] text_features, float[B,1] text_mask)
    => (float[B,1,{SIDE},{SIDE}] logits, float[B,6] zone_logits) {{
        grey = ReduceMean <keepdims=0> (image, one_axis)
        pixels = Reshape (grey, flat)
        zone_logits = MatMul (pixels, means)
        reached = GreaterOrEqual (zone_logits, levels)
        bright_zones = Cast <to=1> (reached)
        steered = Abs (text_mask)
        free = Sub (one, steered)
        written = Mul (bright_zones, free)
        given = Squeeze (text_features, one_axis)
        heard = Relu (text_mask)
        read = Mul (given, heard)
        told = Add (read, written)
        painting = MatMul (told, paint)
        dark = Sub (painting, ten)
        minus = Neg (text_mask)
        silent = Relu (minus)
        bright = Mul (pixels, five)
        seen = Add (bright, ten)
        alone = Mul (seen, silent)
        sum = Add (dark, alone)
        logits = Reshape (sum, shape)
    }}"""
"""Mask 1 paints the zones told, 0 its own zones, -1 whatever is bright."""


@pytest.fixture(scope="module")
def write_bundle(make_bundle, make_graph):
    areas, thresholds = planes(), np.array(THRESHOLDS)
    constants = {
        "means": (areas / areas.sum(1, keepdims=True)).T * 4,
        "paint": areas * 20,
        "levels": np.log(thresholds / (1 - thresholds)).astype(np.float32),
        "shape": np.array([-1, 1, SIDE, SIDE]),
        "flat": np.array([-1, SIDE * SIDE]),
        "one_axis": np.array([1]),
        "five": np.float32([5]),
        "ten": np.float32([10]),
        "one": np.float32([1]),
    }
    writer = {"name": "writer", "size": SIDE, "tokens": 1, "graph": make_graph(WRITER, constants), "zone_rows": ROWS}
    return lambda folder, **facts: make_bundle(folder, zone_thresholds=THRESHOLDS, **writer, **facts).folder


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return Phantom(n=40, size=(48, 61), seed=3).write(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def bundle(write_bundle, tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("models") / "writer")


def run(bundle, root, out, modes):
    order = {"data": "qata_cov19", "root": root, "split": "train", "model": bundle, "threads": 1}
    return evaluate(MaskEvaluation(text_mode=tuple(modes), out=out, **order))


@pytest.fixture(scope="module")
def done(bundle, root, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    return out, run(bundle, root, out, ["oracle", "none", "generated"])


def read_cases(out, mode):
    with (out / "cases.csv").open(newline="") as file:
        return {row["image"]: row for row in csv.DictReader(file) if row["mode"] == mode}


def zones_of(row):
    return Zones.from_present(int(bit) for bit in row["zones"]) if row["zones"] else Zones()


def test_the_zones_column_holds_what_the_network_wrote_and_painted(bundle, root, done):
    predictor = Predictor(Bundle.load(bundle), threads=1)
    rows = read_cases(done[0], "generated")
    samples = QaTaCOV19(root).samples("train")
    assert 0 < sum(bool(row["zones"]) for row in rows.values()) < len(rows)  # both kinds are there
    for sample in samples:
        pixels = predictor.preprocess.apply(read(sample.image_path))[None]
        told = predictor.infer(pixels, [None])
        reached = told.zone_probability[0] >= np.array(THRESHOLDS, np.float32)
        row = rows[sample.image_id]
        assert row["zones"] == ("".join(str(int(bit)) for bit in reached) if reached.any() else "")
        assert (row["prediction_empty"] == "1") == (not reached.any())


def test_each_mode_says_itself_whether_a_report_is_written(write_bundle, root, done, tmp_path):
    """`none` is silent and `generated` writes, whatever a run without a text does with this bundle otherwise."""
    silent = write_bundle(tmp_path / "writer", text_free="none")
    assert Bundle.load(silent).text_free == "none"
    summary = run(silent, root, tmp_path / "out", ["oracle", "none", "generated"])
    assert summary["modes"] == done[1]["modes"]
    assert (tmp_path / "out" / "cases.csv").read_bytes() == (done[0] / "cases.csv").read_bytes()
    modes = summary["modes"]
    assert len({modes[mode]["dice_pooled"]["value"] for mode in modes}) == 3
    assert all(row["zones"] == "" for row in read_cases(done[0], "none").values())


def test_report_follows_from_the_cases(root, done):
    out, summary = done
    report, rows = summary["report"], read_cases(out, "generated")
    assert summary == json.loads((out / "summary.json").read_text())
    used = [row for row in rows.values() if row["zones"]]
    assert report["used"]["images"] == len(used)
    assert report["used"]["share"]["value"] == pytest.approx(len(used) / len(rows))
    assert summary["images_without_text"]["generated"] == len(rows) - len(used)
    tp, fp, fn = (sum(int(row[k]) for row in used) for k in ("tp", "fp", "fn"))
    alone = report["scores_where_used"]
    assert alone["dice_pooled"]["value"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert alone["dice_per_image"]["value"] == pytest.approx(np.mean([float(row["dice"]) for row in used]))
    named = np.array([s.report.zones.present for s in QaTaCOV19(root).samples("train")])
    written = np.array([zones_of(row).present for row in rows.values()])
    assert report["zones"]["f1"]["macro"]["value"] == pytest.approx(f1_score(named, written, average="macro"))
    assert report["zones"]["exact_match"]["value"] == pytest.approx((named == written).all(axis=1).mean())
    assert report["images_without_caption"] == 0
    assert report["text"]["images"] == len(rows)
    assert 0 < report["text"]["scores"]["meteor_exact_stem"]["value"] < 1
    silent = [row for row in read_cases(out, "none").values() if rows[row["image"]]["zones"]]
    assert len(silent) == len(used)
    tp, fp, fn = (sum(int(row[k]) for row in silent) for k in ("tp", "fp", "fn"))
    without = report["none_where_used"]
    assert without["dice_pooled"]["value"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert without["iou_per_image"]["value"] == pytest.approx(np.mean([float(row["iou"]) for row in silent]))
    assert without["dice_pooled"] != summary["modes"]["none"]["dice_pooled"]  # not that of all images
    for name, found in report["paired_where_used"].items():
        assert found["value"] == pytest.approx(alone[name]["value"] - without[name]["value"])
        assert found["low"] <= found["value"] <= found["high"]
    page = (out / "summary.md").read_text()
    cells = " | ".join(cell(report[f"{name}_where_used"]["dice_pooled"]) for name in ("scores", "none", "paired"))
    assert f"| `dice_pooled` | {cells} |" in page
    assert f"A sentence was written and used on {len(used)} images" in page
    for words in ("All six zones right", "`bleu_4`", "nrefs:1|", "| right lower |", "| generated - none |"):
        assert words in page


def test_scores_where_a_sentence_was_used_stand_alone_without_mode_none(bundle, root, tmp_path):
    report = run(bundle, root, tmp_path, ["generated"])["report"]
    assert report["scores_where_used"]
    assert (report["none_where_used"], report["paired_where_used"]) == (None, None)
    assert "none, the same images" not in (tmp_path / "summary.md").read_text()


@pytest.mark.parametrize(("dropout", "learnt"), [(0.0, False), (0.5, True)])
def test_a_score_without_a_report_that_was_not_learnt_is_told_as_such(write_bundle, root, tmp_path, dropout, learnt):
    facts = {"data": {"report_dropout": dropout}, "self_guided": 0.0}
    summary = run(write_bundle(tmp_path / "writer", provenance=facts), root, tmp_path / "out", ["none", "oracle"])
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["learnt_without_report"] is learnt
    page = (tmp_path / "out" / "summary.md").read_text()
    for told in (summary["text_modes"]["none"], page):
        assert ("the training of this network left no report out" in told) is not learnt
    assert ("W_NONE_NOT_LEARNT" in page) is not learnt
    assert "left no report out" not in summary["text_modes"]["oracle"]


def test_differences_of_modes_are_paired(done):
    summary = done[1]
    assert list(summary["paired"]) == ["oracle - generated", "oracle - none", "generated - none"]
    for pair, scores in summary["paired"].items():
        first, second = pair.split(" - ")
        for name, found in scores.items():
            values = [summary["modes"][mode][name]["value"] for mode in (first, second)]
            assert found["value"] == pytest.approx(values[0] - values[1])
            assert found["low"] <= found["value"] <= found["high"]


def test_a_run_of_one_mode_has_no_differences_and_without_generated_no_report(bundle, root, tmp_path):
    summary = run(bundle, root, tmp_path, ["oracle"])
    assert summary["paired"] == {}
    assert "report" not in summary
    page = (tmp_path / "summary.md").read_text()
    assert "Own reports" not in page
    assert "Differences" not in page


class Fake:
    """A network that finds the same zones in every film, and remembers its prompts."""

    def __init__(self, zone_probability, thresholds=(0.5,) * 6):
        way = Preprocess(size=(SIDE, SIDE))
        self.bundle = SimpleNamespace(preprocess=way, threshold=0.5, zone_rows=ROWS, zone_thresholds=thresholds)
        self.zone_probability, self.rows = zone_probability, []

    def bank_row(self, report):
        return report.zones.index

    def infer(self, pixels, rows):
        self.rows.append(list(rows))
        zones = None if self.zone_probability is None else np.tile(np.float32(self.zone_probability), (len(rows), 1))
        return Inference(probability=np.full((len(rows), SIDE, SIDE), 0.9, np.float32), zone_probability=zones)


def captioned(root, reports):
    """Samples of the phantom with other captions."""
    films = QaTaCOV19(root).samples("train")
    return [replace(film, report=report, patient_id=None) for film, report in zip(films, reports, strict=False)]


def test_what_each_mode_tells_the_network(root):
    lower = Zones.from_present([0, 0, 1, 0, 0, 0])
    samples = captioned(root, [Report(zones=lower, text=sentence(lower)), Report(zones=Zones())])
    fake = Fake([0.9] * 6, (0.9, 0.91, 0.5, 0.95, 1.0, 0.0))
    texts = {mode: mode_texts(samples, mode, seed=0) for mode in (TextMode.ORACLE, TextMode.NONE, TextMode.GENERATED)}
    cases = segment(fake, samples, texts)
    # A film without a caption is silent under `oracle`: a report of its own would be another mode.
    assert fake.rows == [[lower.index, Prompt.NO_REPORT], [Prompt.NO_REPORT] * 2, [Prompt.OWN_REPORT] * 2]
    written = Zones.from_present([1, 0, 1, 0, 0, 1])  # the threshold itself is reached
    assert [case.zones for case in cases[TextMode.GENERATED].values()] == [written, written]
    assert [case.zones for case in cases[TextMode.NONE].values()] == [None, None]


def test_a_network_that_tells_no_zones_cannot_be_asked_for_a_report(root):
    samples = captioned(root, [Report(zones=Zones())])
    for fake in (Fake(None), Fake([0.5] * 6, None)):
        with pytest.raises(UsageError, match="tells no zones"):
            segment(fake, samples, {"generated": {0: None}})


def own_report(samples, out, probability):
    facts = {
        "model": {"name": "fake", "version": "0", "sha256": "0" * 64},
        "data": {"name": "phantom", "split": "train", "ids_sha256": "0" * 64},
        "size": [SIDE, SIDE],
        "threshold": 0.5,
        "textray": "0",
        "command": "none",
    }
    out.mkdir(exist_ok=True)
    score(Fake(probability), samples, [TextMode.GENERATED], out, facts)
    return json.loads((out / "summary.json").read_text())["report"], (out / "summary.md").read_text()


def test_a_network_that_finds_nothing_writes_no_infection(root, tmp_path):
    clear = parse_caption("no infection.")
    lower = Zones.from_present([0, 0, 1, 0, 0, 0])
    samples = captioned(root, [clear, Report(zones=lower, text=sentence(lower))])
    report, page = own_report(samples, tmp_path, [0.1] * 6)
    assert report["used"] == {"images": 0, "share": {"value": 0.0, "low": 0.0, "high": 0.0}}
    assert report["scores_where_used"] is None
    assert report["zones"]["exact_match"]["value"] == 0.5  # "no infection." is right for the first film
    assert report["zones"]["never_written"] == ["left upper", "left middle", "left lower"] + [
        f"right {level}" for level in ("upper", "middle", "lower")
    ]
    assert report["text"]["images"] == 2
    assert "Zones written into no report: left upper" in page
    assert "Zones named by no caption: left upper, left middle, right upper" in page


def test_films_without_a_caption_are_left_out_of_the_comparison(root, tmp_path):
    upper = Zones.from_present([1, 0, 0, 0, 0, 0])
    unread = Report(zones=Zones((ZoneState.UNMENTIONED,) * 6), text="see earlier film")
    samples = captioned(root, [Report(zones=upper, text=sentence(upper)), Report(zones=Zones()), unread])
    report, page = own_report(samples, tmp_path, [0.9, 0.1, 0.1, 0.1, 0.1, 0.1])
    assert report["used"]["images"] == 3
    assert (report["images_without_caption"], report["zones"]["images"], report["text"]["images"]) == (2, 1, 1)
    assert report["zones"]["exact_match"]["value"] == 1.0
    none, page = own_report(samples[1:], tmp_path, [0.9] * 6)
    assert none["zones"] is None
    assert none["text"] is None
    assert "No image has a caption" in page


def test_reports_are_written_in_the_convention_of_the_caption(root, tmp_path):
    """The caption means the patient's right, which lies on the viewer's left: the same zone, and the same words."""
    upper = Zones.from_present([1, 0, 0, 0, 0, 0])
    words = sentence(upper).replace("left", "right")
    samples = captioned(root, [Report(zones=upper, text=words, laterality=Laterality.PATIENT)])
    report, _ = own_report(samples, tmp_path, [0.9, 0.1, 0.1, 0.1, 0.1, 0.1])
    assert report["zones"]["exact_match"]["value"] == 1.0
    assert report["text"]["scores"]["bleu_4"]["value"] == pytest.approx(1.0)
