"""Evaluation of phrases with a network whose answers are known: it points at the zones that it is told."""

import csv
import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

from textray.data.boxes import truth
from textray.data.qata_cov19 import QaTaCOV19
from textray.errors import InputError
from textray.evaluate.grounding import score
from textray.evaluate.maps import GRID, Row, Settings, evaluation_grid, mean_masks, score_phrases
from textray.evaluate.results import check
from textray.io.read import read
from textray.metrics.grounding import THRESHOLDS, enlarge, normalise, smooth
from textray.metrics.grounding import score as score_map
from textray.preprocess import Preprocess
from textray.records import Laterality
from textray.text.cleaning import swap_sides
from textray.text.zones import parse_caption

CELLS = 8
SETTINGS = Settings(sigma=1.0, margin=0, normalisations=("minmax", "none"), per_box=False)


class Pointer:
    """A network without weights, whose map is high in the middle of each zone that the phrase names."""

    preprocess = Preprocess(size=(32, 32))
    laterality = Laterality.VIEWER

    def __init__(self):
        self.asked, self.read = [], 0

    def normalise_sides(self, phrase, *, laterality, grid):
        if "leftmost" in phrase:
            raise InputError("sides", code="E_SIDES")
        return phrase if laterality == self.laterality else swap_sides(phrase)

    def embed(self, phrases):
        self.asked += phrases
        named = np.array([parse_caption(phrase).zones.present for phrase in phrases], np.float32)
        return named / np.linalg.norm(named, axis=1, keepdims=True)

    def maps(self, pixels, phrases):
        assert pixels.shape == (1, 3, 32, 32)
        self.read += 1
        found = np.zeros((1, len(phrases), CELLS, CELLS), np.float32)
        down, across = np.mgrid[:CELLS, :CELLS]
        for zone in range(6):
            side, level = divmod(zone, 3)
            away = (down - (2, 3.5, 5)[level]) ** 2 + (across - (1.5, 5.5)[side]) ** 2
            found[0] += phrases[:, zone, None, None] * np.exp(-away / 2).astype(np.float32)
        return found


@pytest.fixture(scope="module")
def samples(drawn_qata):
    return QaTaCOV19(drawn_qata).phrases("train", kind="caption")


@pytest.fixture(scope="module")
def means(samples):
    return mean_masks(samples, evaluation_grid(Pointer.preprocess), [s.phrase for s in samples])


@pytest.fixture(scope="module")
def done(samples, means, tmp_path_factory):
    """One run that several tests look at: the network, its folder and what was returned."""
    out, network = tmp_path_factory.mktemp("out"), Pointer()
    return network, out, score(network, samples, means, SETTINGS, out, facts())


def facts():
    """What `evaluate` says of the run."""
    protocol = {"grid": list(GRID), "sigma": 1.0, "margin": 0, "thresholds": list(THRESHOLDS), "per_box": False}
    protocol |= {"empty_prediction": "zero", "training_masks": 24, "training_masks_scored": True}
    data = {"name": "qata_cov19", "split": "train", "split_by": None, "kind": "caption", "ids_sha256": "ab" * 32}
    model = {"name": "pointer", "version": "1", "sha256": "cd" * 32}
    return {"textray": "0", "model": model, "data": data, "protocol": protocol, "command": "textray", "git": None}


def headline(summary, row, how="minmax"):
    return {name: value["value"] for name, value in summary["rows"][row][how]["scores"].items()}


def test_cases_equal_scoring_each_map_by_itself(samples, done):
    network, out, summary = done
    with (out / "cases.csv").open(newline="") as file:
        rows = {(row["image"], row["row"], row["normalise"]): row for row in csv.DictReader(file)}
    for sample in samples:
        image = read(sample.image_path)
        raw = network.maps(network.preprocess.apply(image)[None], network.embed([sample.phrase]))[0, 0]
        mask = Preprocess(size=GRID).resize_mask(truth(sample, image.grid.shape))
        for how in ("minmax", "none"):
            expected = score_map(normalise(enlarge(smooth(raw, 1.0), GRID), how), mask)
            row = rows[sample.image_id, "model", how]
            for t in (0.1, 0.5):
                assert float(row[f"iou_{t}"]) == pytest.approx(expected.at(t)[0], abs=1e-6)
            assert float(row["cnr_signed"]) == pytest.approx(expected.cnr_signed, abs=1e-5)
            assert row["told"] == row["phrase"] == sample.phrase
    of_model = [rows[sample.image_id, "model", "minmax"] for sample in samples]
    mean = np.mean([float(row[f"iou_{t}"]) for row in of_model for t in THRESHOLDS])
    assert headline(summary, "model")["iou"] == pytest.approx(mean, abs=1e-5)


def test_every_table_holds_the_floors_and_the_controls(done):
    _, _, summary = done
    assert list(summary["rows"]) == [str(row) for row in Row]
    assert summary["not_computed"] == {}
    model, mean = headline(summary, "model"), headline(summary, "mean_mask")
    assert headline(summary, "mean_phrase")["dice"] > mean["dice"] > headline(summary, "random")["dice"]
    assert model["dice"] > headline(summary, "shuffled")["dice"]
    assert headline(summary, "model_sided")["dice"] > headline(summary, "mirrored")["dice"]
    assert abs(headline(summary, "random_heads")["cnr_signed"]) < headline(summary, "model")["cnr_signed"] / 2
    assert headline(summary, "full") == pytest.approx(headline(summary, "full", "none"), nan_ok=True)
    difference = summary["paired"]["minmax"]["model - mean_mask"]["dice"]["value"]
    assert difference == pytest.approx(model["dice"] - mean["dice"])


def test_mirrored_is_held_against_the_same_phrases(samples, done):
    _, out, summary = done
    with (out / "cases.csv").open(newline="") as file:
        told = {row["image"]: row["told"] for row in csv.DictReader(file) if row["row"] == "mirrored"}
    own = {s.image_id: parse_caption(s.phrase).zones for s in samples}
    assert told.keys() == {name for name, zones in own.items() if zones.mirror() != zones}
    assert all(parse_caption(text).zones == own[name].mirror() for name, text in told.items())
    cases = summary["rows"]["mirrored"]["none"]["cases"]
    assert cases == summary["rows"]["model_sided"]["none"]["cases"] == len(told)
    assert summary["paired"]["none"]["model - mirrored"]["cases"] == cases


def test_page_and_files_belong_together_and_say_what_each_row_is(done):
    _, out, summary = done
    check(out)
    page = (out / "summary.md").read_text()
    for row in Row:
        assert f"| {row} |" in page
        assert f"- `{row}`: " in page
    assert "Never compare a score under `minmax` with one under `none`" in page
    assert "the very masks that are scored" in page  # split train
    assert json.loads((out / "summary.json").read_text()) == summary


def test_a_film_with_several_phrases_is_read_once_and_sides_are_turned_for_networks_trained_otherwise(samples):
    network = Pointer()
    others = [replace(s, phrase=samples[0].phrase, laterality=Laterality.PATIENT) for s in samples[1:4]]
    found = score_phrases(network, [*samples[1:4], *others], None, SETTINGS)
    assert network.read == 3
    assert len(found.rows[Row.MODEL]) == 6
    assert found.rows[Row.MODEL][0].phrase == samples[1].phrase
    assert found.rows[Row.MODEL][3].phrase == swap_sides(samples[0].phrase) != samples[0].phrase
    assert Row.MEAN_MASK not in found.rows


def test_what_cannot_be_scored_is_left_out_of_every_row_and_counted(samples):
    nothing = replace(samples[1], mask_path=None, boxes=((0.0, 0.0, 2.0, 2.0),), box_space=(61, 48))
    unknown = replace(samples[2], phrase="opacity on the leftmost margin")
    settings = replace(SETTINGS, margin=20)
    found = score_phrases(Pointer(), [samples[0], nothing, unknown], None, settings)
    assert found.without_truth == (nothing,)
    assert found.without_sides == (unknown,)
    assert {tuple(cases) for row, cases in found.rows.items() if row not in (Row.SIDED, Row.MIRRORED)} == {(0,)}


def test_a_margin_leaves_the_border_out_and_boxes_can_count_one_by_one(samples):
    box = replace(
        samples[0], mask_path=None, boxes=((5.0, 5.0, 20.0, 10.0), (30.0, 20.0, 20.0, 20.0)), box_space=(61, 48)
    )
    whole = score_phrases(None, [box], None, SETTINGS).rows
    cut = score_phrases(None, [box], None, replace(SETTINGS, margin=30)).rows
    each = score_phrases(None, [box], None, replace(SETTINGS, per_box=True)).rows
    full = [rows[Row.FULL][0].scores["none"].pointing for rows in (whole, cut)]  # the area of the truth
    mask = Preprocess(size=GRID).resize_mask(truth(box, (48, 61)))
    assert full == pytest.approx([mask.mean(), mask[30:-30, 30:-30].mean()])
    assert whole[Row.CENTRE][0].scores["none"].cnr_signed != each[Row.CENTRE][0].scores["none"].cnr_signed


def test_floors_need_no_network_and_say_what_is_missing(drawn_qata, tmp_path, cli):
    ran = cli(
        "evaluate", "--task", "grounding", "--data", "qata_cov19", "--root", drawn_qata, "--split", "val",
        "--floors-only", "--phrases", "clause", "--normalise", "minmax", "--out", tmp_path,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["model"] is None
    assert list(summary["rows"]) == ["mean_phrase", "mean_mask", "centre", "full", "random"]
    assert summary["protocol"]["training_masks"] == len(QaTaCOV19(drawn_qata).samples("train"))
    assert summary["command"].endswith("--split val --floors-only --phrases clause --normalise minmax --out OUT")
    assert "# Grounding" in ran.out
    assert str(drawn_qata) not in (tmp_path / "summary.json").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--task", "grounding", "--sides"], "not of task grounding"),
        (["--task", "grounding", "--text-mode", "none"], "not of task grounding"),
        (["--sigma", "1"], "not of task segmentation"),
        (["--floors-only"], "not of task segmentation"),
        (["--task", "grounding", "--floors-only", "--model", "x"], "without weights"),
        (["--task", "grounding", "--floors-only", "--normalise", "softmax"], "one of minmax, none, clamp"),
        (["--task", "grounding", "--floors-only", "--margin", "112"], "margin"),
        (["--task", "grounding", "--floors-only", "--empty-prediction", "one"], "one of zero, skip"),
        (["--task", "grounding", "--floors-only", "--phrases", "word"], "one of caption, clause"),
        (["--task", "grounding", "--floors-only", "--limit", "0"], "limit"),
        (["--task", "grounding", "--floors-only", "--data", "monuseg"], "where a phrase is true"),
    ],
)
def test_wrong_options_are_refused(words, message, drawn_qata, tmp_path, cli):
    ran = cli("evaluate", "--data", "qata_cov19", "--root", drawn_qata, "--out", tmp_path / "out", *words)
    assert ran.code == 2
    assert message in ran.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("labels", ["A", "AB"])
def test_classes_stand_one_by_one_and_one_phrase_alone_cannot_be_shuffled(labels, samples, tmp_path):
    some = [replace(s, phrase=samples[0].phrase, label=labels[i % len(labels)]) for i, s in enumerate(samples[:6])]
    summary = score(Pointer(), some, None, SETTINGS, tmp_path, facts())
    by_class, page = summary["rows"]["model"]["none"]["classes"], (tmp_path / "summary.md").read_text()
    assert list(by_class) == ([] if labels == "A" else ["A", "B"])
    assert ("## By class (minmax)" in page) == (labels == "AB")
    assert ("`shuffled`: not computed: every phrase is the same." in page) == (labels == "A")
    if labels == "AB":
        mean = np.mean([by_class[label]["dice"]["value"] for label in labels])
        assert mean == pytest.approx(headline(summary, "model", "none")["dice"])


def test_ms_cxr_is_scored_only_where_its_patients_were_left_out(ms_cxr, make_grounding_bundle, tmp_path, cli):
    data = ("--data", "ms_cxr", "--root", ms_cxr, "--split", "test")
    words = ["evaluate", "--task", "grounding", *data, "--threads", "1"]
    make_grounding_bundle(tmp_path / "unknown")
    refused = cli(*words, "--model", tmp_path / "unknown", "--out", tmp_path / "none")
    assert refused.code == 2
    assert "patients were left out" in refused.err
    assert not (tmp_path / "none").exists()
    left_out = {"sha256": hashlib.sha256(b"10000032").hexdigest(), "count": 1}
    make_grounding_bundle(tmp_path / "known", provenance={"excluded_patients": left_out})
    ran = cli(*words, "--model", tmp_path / "known", "--out", tmp_path / "out")
    assert ran.code == 0, ran.err
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["classes"] == {"Edema": 1, "Pneumonia": 1}
    assert headline(summary, "model")["pointing"] == 1  # the patient's left is the viewer's right
    assert headline(summary, "mirrored")["pointing"] == headline(summary, "shuffled")["pointing"] == 0
    assert headline(summary, "mirrored")["cnr_signed"] < 0 < headline(summary, "model")["cnr_signed"]
    assert "test alone" in summary["not_computed"]["mean_mask"]
    for name in ("summary.json", "summary.md"):  # which are pasted elsewhere, and the sentences may not be
        assert "opacity" not in (tmp_path / "out" / name).read_text()
