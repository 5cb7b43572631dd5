"""Evaluation of a network that writes its own report: of the zones whose pixels are bright."""

import csv
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import f1_score

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
from textray.records import ZONE_NAMES, Laterality, Report, Zones, ZoneSplit, ZoneState
from textray.text.zones import parse_caption, sentence

SIDE = 32
THRESHOLDS = (0.70, 0.839, 0.927, 0.703, 0.868, 0.932)
"""Such that about half of the films have a zone that reaches its threshold."""


FACTS = {
    "model": {"name": "fake", "version": "0", "sha256": "0" * 64},
    "data": {"name": "phantom", "split": "train", "ids_sha256": "0" * 64},
    "size": [SIDE, SIDE],
    "threshold": 0.5,
    "textray": "0",
    "command": "none",
}


@pytest.fixture(scope="module")
def write_bundle(make_bundle):
    writer = {"name": "writer", "size": SIDE, "zone_thresholds": THRESHOLDS}
    return lambda folder, **facts: make_bundle(folder, **writer, **facts).folder


@pytest.fixture(scope="module")
def bundle(write_bundle, tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("models") / "writer")


def run(bundle, root, out, modes):
    order = {"data": "qata_cov19", "root": root, "split": "train", "model": bundle, "threads": 1}
    return evaluate(MaskEvaluation(text_mode=tuple(modes), out=out, **order))


@pytest.fixture(scope="module")
def done(bundle, drawn_qata, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    return out, run(bundle, drawn_qata, out, ["oracle", "none", "generated"])


def read_cases(out, mode):
    with (out / "cases.csv").open(newline="") as file:
        return {row["image"]: row for row in csv.DictReader(file) if row["mode"] == mode}


def zones_of(row):
    return Zones.from_present(int(bit) for bit in row["zones"]) if row["zones"] else Zones()


def test_the_zones_column_holds_what_the_network_wrote_and_painted(bundle, drawn_qata, done):
    predictor = Predictor(Bundle.load(bundle), threads=1)
    rows = read_cases(done[0], "generated")
    assert 0 < sum(bool(row["zones"]) for row in rows.values()) < len(rows)  # both kinds are there
    for sample in QaTaCOV19(drawn_qata).samples("train"):
        image, row = read(sample.image_path), rows[sample.image_id]
        found = predictor.infer(predictor.preprocess.apply(image)[None], [Prompt.OWN_REPORT])
        reached = found.zone_probability[0] >= np.array(THRESHOLDS, np.float32)
        assert row["zones"] == ("".join(str(int(bit)) for bit in reached) if reached.any() else "")
        mask = predictor.preprocess.restore(found.probability[0], image.grid) >= predictor.threshold
        assert int(row["tp"]) + int(row["fp"]) == mask.sum()


def test_each_mode_says_itself_whether_a_report_is_written(write_bundle, drawn_qata, done, tmp_path):
    """`none` writes nothing and `generated` writes, whatever a run without a text does with this bundle otherwise."""
    silent = write_bundle(tmp_path / "writer", text_free="none")
    assert Bundle.load(silent).text_free == "none"
    summary = run(silent, drawn_qata, tmp_path / "out", ["oracle", "none", "generated"])
    assert summary["modes"] == done[1]["modes"]
    assert (tmp_path / "out" / "cases.csv").read_bytes() == (done[0] / "cases.csv").read_bytes()
    modes = summary["modes"]
    assert len({modes[mode]["dice_pooled"]["value"] for mode in modes}) == 3
    assert all(row["zones"] == "" for row in read_cases(done[0], "none").values())


def test_report_follows_from_the_cases(drawn_qata, done):
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
    named = np.array([s.report.zones.present for s in QaTaCOV19(drawn_qata).samples("train")])
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


def test_a_run_of_one_mode_has_no_differences_and_without_generated_no_report(bundle, drawn_qata, tmp_path):
    for mode in ("generated", "oracle"):
        summary = run(bundle, drawn_qata, tmp_path, [mode])
        page = (tmp_path / "summary.md").read_text()
        assert summary["paired"] == {}
        assert "Differences" not in page
        assert ("report" in summary) == ("Own reports" in page) == (mode == "generated")
        if mode == "generated":
            report = summary["report"]
            assert report["scores_where_used"]
            assert (report["none_where_used"], report["paired_where_used"]) == (None, None)
            assert "none, the same images" not in page


@pytest.mark.parametrize(("dropout", "learnt"), [(0.0, False), (0.5, True)])
def test_a_score_without_a_report_says_whether_it_was_trained(write_bundle, drawn_qata, tmp_path, dropout, learnt):
    facts = {"data": {"report_dropout": dropout}, "self_guided": 0.0}
    summary = run(write_bundle(tmp_path / "writer", provenance=facts), drawn_qata, tmp_path / "out", ["none", "oracle"])
    assert summary["learnt_without_report"] is learnt
    assert ("left no report out" in summary["text_modes"]["none"]) is not learnt
    assert "left no report out" not in summary["text_modes"]["oracle"]


def test_differences_of_modes_are_paired(done):
    summary = done[1]
    assert list(summary["paired"]) == ["oracle - generated", "oracle - none", "generated - none"]
    for pair, scores in summary["paired"].items():
        first, second = (summary["modes"][mode] for mode in pair.split(" - "))
        for name, found in scores.items():
            assert found["value"] == pytest.approx(first[name]["value"] - second[name]["value"])
            assert found["low"] <= found["value"] <= found["high"]


def test_captions_of_other_films_fit_worse(bundle, drawn_qata, tmp_path):
    summary = run(bundle, drawn_qata, tmp_path, ["shuffled", "none", "oracle"])
    samples = QaTaCOV19(drawn_qata).samples("train")
    predictor = Predictor(Bundle.load(bundle), threads=1)
    seen = {}
    for sample in samples:
        pixels = predictor.preprocess.apply(read(sample.image_path))[None]
        seen[sample.image_id] = predictor.infer(pixels, [Prompt.NO_REPORT]).zone_probability[0].astype(float)
    fits = {}
    for mode in ("oracle", "shuffled"):
        rows = read_cases(tmp_path, mode)
        named = {name: np.array(zones_of(row).present) for name, row in rows.items()}
        fits[mode] = [np.log(np.where(named[name], p, 1 - p)).mean() for name, p in seen.items()]
    wins = [(a > b) + (a == b) / 2 for a in fits["oracle"] for b in fits["shuffled"]]
    fit = summary["fit"]
    assert fit["images"] == len(samples)
    assert fit["auc"]["value"] == pytest.approx(np.mean(wins))
    assert fit["auc"]["low"] < fit["auc"]["value"] < fit["auc"]["high"]
    assert f"AUC {cell(fit['auc'])}, {len(samples)} images" in (tmp_path / "summary.md").read_text()


def test_captions_are_told_apart_by_modes_and_zones_that_are_there(make_bundle, bundle, drawn_qata, done, tmp_path):
    assert "fit" not in done[1], "without shuffled captions"
    make_bundle(tmp_path / "silent", size=SIDE)
    summary = run(tmp_path / "silent", drawn_qata, tmp_path / "out", ["oracle", "shuffled"])
    assert "fit" not in summary
    assert "Captions that fit" not in (tmp_path / "out" / "summary.md").read_text()
    samples = captioned(drawn_qata, [Report(zones=Zones()), *(Report(zones=Zones.from_index(i)) for i in (1, 2, 4))])
    modes = [TextMode.ORACLE, TextMode.SHUFFLED]
    summary = score(Fake([0.9, 0.2, 0.2, 0.2, 0.2, 0.2]), samples, modes, tmp_path / "out", FACTS)
    assert summary["fit"]["images"] == 3, "one has no caption"


def test_films_that_a_network_judges_free_have_no_report_and_an_empty_mask(make_film_bundle, drawn_qata, tmp_path):
    """As `Predictor.segment` judges them; captions decide themselves."""
    whole = Predictor(make_film_bundle(tmp_path / "whole", zone_thresholds=(0.1,) * 6), threads=1)
    presence = {}
    for sample in QaTaCOV19(drawn_qata).samples("train"):
        pixels = whole.preprocess.apply(read(sample.image_path))[None]
        presence[sample.image_id] = whole.infer(pixels, [Prompt.NO_REPORT]).presence[0]
    limit = float(np.median(list(presence.values())))
    bounds = replace(whole.bundle.bounds, threshold=limit)
    folder = make_film_bundle(tmp_path / "half", zone_thresholds=(0.1,) * 6, bounds=bounds).folder
    run(folder, drawn_qata, tmp_path / "out", ["oracle", "none", "generated"])
    free = {name for name, probability in presence.items() if probability < limit}
    assert 0 < len(free) < len(presence)
    for mode in ("none", "generated"):
        rows = read_cases(tmp_path / "out", mode)
        assert {name for name, row in rows.items() if row["prediction_empty"] == "1"} >= free
        assert not any(rows[name]["zones"] for name in free)
    assert all(row["zones"] for name, row in rows.items() if name not in free)
    predictor = Predictor(Bundle.load(folder), threads=1)
    for sample in QaTaCOV19(drawn_qata).samples("train")[:8]:
        mask = predictor.segment(sample.image_path, text_free="none").mask
        row = read_cases(tmp_path / "out", "none")[sample.image_id]
        assert int(row["tp"]) + int(row["fp"]) == mask.sum()
    assert any(
        row["prediction_empty"] == "0" for name, row in read_cases(tmp_path / "out", "oracle").items() if name in free
    )


class Fake:
    """A network that finds the same zones in every film, and remembers its prompts."""

    def __init__(self, zone_probability, thresholds=(0.5,) * 6):
        facts = {"threshold": 0.5, "zone_split": ZoneSplit(), "zone_thresholds": thresholds, "bounds": None}
        self.bundle = SimpleNamespace(preprocess=Preprocess(size=(SIDE, SIDE)), **facts)
        self.zone_probability, self.rows, self.denied = zone_probability, [], []

    reads_denial = True

    def bank_row(self, report):
        return report.zones.index

    def infer(self, pixels, rows, denied):
        self.rows.append(list(rows))
        self.denied.append(denied.tolist())
        zones = None if self.zone_probability is None else np.tile(np.float32(self.zone_probability), (len(rows), 1))
        return Inference(probability=np.full((len(rows), SIDE, SIDE), 0.9, np.float32), zone_probability=zones)


def captioned(root, reports):
    """Samples of the phantom with other captions."""
    films = QaTaCOV19(root).samples("train")
    return [replace(film, report=report, patient_id=None) for film, report in zip(films, reports, strict=False)]


def test_what_each_mode_tells_the_network(drawn_qata):
    absent, present, silent = ZoneState.ABSENT, ZoneState.PRESENT, ZoneState.UNMENTIONED
    lower = Zones((absent, silent, present, silent, silent, absent))
    samples = captioned(drawn_qata, [Report(zones=lower, text=sentence(lower)), Report(zones=Zones())])
    fake = Fake([0.9] * 6, (0.9, 0.91, 0.5, 0.95, 1.0, 0.0))
    texts = {mode: mode_texts(samples, mode, seed=0) for mode in (TextMode.ORACLE, TextMode.NONE, TextMode.GENERATED)}
    cases = segment(fake, samples, texts)
    # A film without a caption is silent under `oracle`: a report of its own would be another mode.
    assert fake.rows == [[lower.index, Prompt.NO_REPORT], [Prompt.NO_REPORT] * 2, [Prompt.OWN_REPORT] * 2]
    assert fake.denied == [[[1, 0, 0, 0, 0, 1], [0] * 6], [[0] * 6] * 2, [[0] * 6] * 2]
    written = Zones.from_present([1, 0, 1, 0, 0, 1])  # the threshold itself is reached
    assert [case.zones for case in cases[TextMode.GENERATED].values()] == [written, written]
    assert [case.zones for case in cases[TextMode.NONE].values()] == [None, None]


def test_a_network_that_tells_no_zones_cannot_be_asked_for_a_report(drawn_qata):
    samples = captioned(drawn_qata, [Report(zones=Zones())])
    for fake in (Fake(None), Fake([0.5] * 6, None)):
        with pytest.raises(UsageError, match="tells no zones"):
            segment(fake, samples, {"generated": {0: None}})


def own_report(samples, out, probability):
    score(Fake(probability), samples, [TextMode.GENERATED], out, FACTS)
    return json.loads((out / "summary.json").read_text())["report"], (out / "summary.md").read_text()


def test_a_network_that_finds_nothing_writes_no_infection(drawn_qata, tmp_path):
    clear = parse_caption("no infection.")
    lower = Zones.from_present([0, 0, 1, 0, 0, 0])
    samples = captioned(drawn_qata, [clear, Report(zones=lower, text=sentence(lower))])
    report, page = own_report(samples, tmp_path, [0.1] * 6)
    assert report["used"] == {"images": 0, "share": {"value": 0.0, "low": 0.0, "high": 0.0}}
    assert report["scores_where_used"] is None
    assert report["zones"]["exact_match"]["value"] == 0.5  # "no infection." is right for the first film
    assert report["zones"]["never_written"] == list(ZONE_NAMES)
    assert report["text"]["images"] == 2
    assert "Zones written into no report: left upper" in page
    assert "Zones named by no caption: left upper, left middle, right upper" in page


def test_films_without_a_caption_are_left_out_and_reports_are_written_in_its_convention(drawn_qata, tmp_path):
    """The caption means the patient's right, which lies on the viewer's left: the same zone, and the same words."""
    upper = Zones.from_present([1, 0, 0, 0, 0, 0])
    words = sentence(upper).replace("left", "right")
    unread = Report(zones=Zones((ZoneState.UNMENTIONED,) * 6), text="see earlier film")
    captions = [Report(zones=upper, text=words, laterality=Laterality.PATIENT), Report(zones=Zones()), unread]
    samples = captioned(drawn_qata, captions)
    report, page = own_report(samples, tmp_path, [0.9, 0.1, 0.1, 0.1, 0.1, 0.1])
    assert report["used"]["images"] == 3
    assert (report["images_without_caption"], report["zones"]["images"], report["text"]["images"]) == (2, 1, 1)
    assert report["zones"]["exact_match"]["value"] == 1.0
    assert report["text"]["scores"]["bleu_4"]["value"] == pytest.approx(1.0)
    none, page = own_report(samples[1:], tmp_path, [0.9] * 6)
    assert (none["zones"], none["text"]) == (None, None)
    assert "No image has a caption" in page
