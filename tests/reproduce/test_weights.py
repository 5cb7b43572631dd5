"""Tables and Figure 3 of the grounding paper: scored beside what is printed, refused where nothing is recorded."""

import csv
import json

import numpy as np
import pytest
from PIL import Image as PILImage

pytest.importorskip("lightning")
from textray.data.base import open_reader
from textray.errors import UsageError
from textray.evaluate import grounding
from textray.reproduce import Order, figures, runner
from textray.reproduce.tables import read_tables
from textray.reproduce.weights_page import CLASSES, PAPER

METHODS = {"GLoRIA", "BioViL", "MedKLIP", PAPER}


@pytest.fixture
def rsna(tmp_path):
    """Three films with a box each, of which one is no test film; no code of the reader."""
    root = tmp_path / "rsna"
    (root / "stage_2_train_images").mkdir(parents=True)
    boxes = {"aa": (100, 100, 300, 400), "bb": (600, 300, 200, 500), "cc": (150, 200, 250, 300)}
    lines = ["patientId,x,y,width,height,Target"]
    for name, box in boxes.items():
        film = np.random.default_rng(len(lines)).integers(0, 256, (64, 64), dtype=np.uint8)
        PILImage.fromarray(film).save(root / "stage_2_train_images" / f"{name}.png")
        lines.append(f"{name},{','.join(map(str, box))},1")
    (root / "stage_2_train_labels.csv").write_text("\n".join(lines) + "\n")
    (root / "test.csv").write_text("ID\naa\nbb\n")
    return root


def order(name, out, roots, *models, **changes):
    return Order(name=name, roots=roots, out=out, models=models, threads=1, **changes)


def rows_of(out, name):
    with (out / name / "table.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_table_1_has_a_block_for_each_protocol_and_is_not_scored_twice(
    rsna, grounding_bundle, make_grounding_bundle, tmp_path, monkeypatch
):
    padded = tmp_path / "padded"
    make_grounding_bundle(padded, name="padded", letterbox=True)
    made, real = [], grounding.evaluate
    monkeypatch.setattr(runner, "evaluate_phrases", lambda order: (made.append(order.model), real(order))[1])
    out = tmp_path / "out"
    wanted = order("grounding-table1", out, {"rsna": rsna}, f"finder={grounding_bundle}", f"other={padded}")
    assert runner.run(wanted) == 0
    assert len(made) == 3
    lines = rows_of(out, "grounding-table1")
    printed = {(line["label"], line["data"]): line["protocol"] for line in lines if line["maps"] == "printed"}
    assert {label for (label, _), protocol in printed.items() if "MedKLIP" in protocol} == METHODS - {PAPER}
    scores = {(line["label"], line["maps"], line["normalise"]): line for line in lines if line["cases"]}
    summary = json.loads(next((out / "rows").glob("grounding-finder-*/summary.json")).read_text())
    score = summary["rows"]["model"]["minmax"]["scores"]["dice"]["value"]
    assert float(scores["finder", "model", "minmax"]["dice"]) == score
    assert float(scores["floors", "mean_mask", "none"]["iou"]) > 0
    (absent,) = [line for line in lines if line["state"] == "no --root given"]
    assert absent["data"] == "covid_rural"
    page = (out / "grounding-table1/table.md").read_text()
    ours, theirs = page.split("### Protocol: MedKLIP's own")[:2]
    assert f"| {PAPER} | – | printed | 0.331 | 0.474 |" in ours
    assert "| GLoRIA | 0.218 | 0.347 |" not in ours
    assert "| GLoRIA | 0.218 | 0.347 |" in theirs
    assert "| GLoRIA | 0.065 | 0.114 |" in page
    assert "Findings suggesting pneumonia." in page
    assert page.count("| floor | `mean_mask` |") == 1
    assert "on the grid of other" not in page, "square films have one grid"
    for control in ("mirrored", "shuffled", "random_heads"):
        assert f"`{control}`" in page
    assert str(tmp_path) not in page
    assert runner.run(wanted) == 0
    assert len(made) == 3, "finished rows are not made again"


def test_ms_cxr_is_refused_without_the_record_of_patients_and_floors_stay(
    ms_cxr, grounding_bundle, make_grounding_bundle, tmp_path
):
    from textray.data.studies import RECORDED_AS, exclusion_record

    kept = tmp_path / "kept"
    record = exclusion_record(open_reader("ms_cxr", ms_cxr).held_out_patients())
    make_grounding_bundle(kept, name="kept", laterality="patient", provenance={"data": "none", RECORDED_AS: record})
    out = tmp_path / "out"
    words = (f"seen={grounding_bundle}", f"kept={kept}")
    assert runner.run(order("grounding-table2", out, {"ms_cxr": ms_cxr}, *words)) == 3
    lines = rows_of(out, "grounding-table2")
    assert {line["phrases"] for line in lines if line["label"] == "kept"} == {"phrase", "class"}
    assert {line["state"] for line in lines if line["label"] == "seen"} == {"failed"}
    assert "left out of training" in next(line["reason"] for line in lines if line["label"] == "seen")
    scores = {
        (line["label"], line["maps"], line["class"]): line
        for line in lines
        if (line["phrases"], line["normalise"]) == ("phrase", "none")
    }
    both = [float(scores["kept", "model", label]["dice"]) for label in ("Pneumonia", "Edema")]
    assert float(scores["kept", "model", ""]["dice"]) == pytest.approx(sum(both) / 2)
    assert float(scores["floors", "centre", "Edema"]["dice"]) > 0
    page = (out / "grounding-table2/table.md").read_text()
    assert f"| {PAPER} | – | printed | 0.576 | 0.163 |" in page
    assert "opacity in the left lung" not in page, "sentences of radiologists stay where they are"
    assert runner.run(order("grounding-table3", out, {"ms_cxr": ms_cxr}, words[1])) == 0
    assert "| MedKLIP | – | printed | 0.297 |" in (out / "grounding-table3/table.md").read_text()


def test_printed_rows_are_those_of_the_paper():
    first, second, third = (read_tables()[f"grounding-table{n}"] for n in (1, 2, 3))
    assert {data: values[0] for data, values in first.printed[PAPER].items()} == {"rsna": 0.331, "covid_rural": 0.222}
    for table, best in ((second, 0.466), (third, 0.328)):
        assert table.printed[PAPER]["ms_cxr"][-1] == best
        for by_data in table.printed.values():
            *scores, mean = by_data["ms_cxr"]
            assert len(scores) == len(CLASSES)
            assert mean == pytest.approx(sum(scores) / len(scores), abs=1.1e-3)
    for label, dice in second.printed.items():
        assert all(iou < d for d, iou in zip(dice["ms_cxr"], third.printed[label]["ms_cxr"], strict=True))


def test_wrong_words_of_the_command_are_refused_at_once(rsna, grounding_bundle, tmp_path):
    out = tmp_path / "out"
    for roots, words in (
        ({}, ()),
        ({"ms_cxr": rsna}, ()),
        ({"rsna": rsna}, ("finder",)),
        ({"rsna": rsna}, (f"a={grounding_bundle}", f"a={grounding_bundle}")),
        ({"rsna": rsna}, (f"floors={grounding_bundle}",)),
    ):
        with pytest.raises(UsageError):
            runner.run(order("grounding-table1", out, roots, *words))
    assert not out.exists()
    with pytest.raises(UsageError, match="one data set"):
        figures.run(order("grounding-fig3", out, {"monuseg": rsna}))


def test_the_figure_shows_the_phrase_where_it_is_and_the_map_over_the_film(make_qata, grounding_bundle, tmp_path):
    root = make_qata(tmp_path, bright=120)
    cases = open_reader("qata_cov19", root).phrases("val", kind="caption")
    case = next(sample for sample in cases if "lower left" in sample.phrase)
    out = tmp_path / "out"
    methods = (f"one={grounding_bundle}", f"two={grounding_bundle}")
    wanted = order("grounding-fig3", out, {"qata_cov19": root}, *methods, cases=(case.image_id,))
    assert figures.run(wanted) == 0
    assert sorted(path.name for path in out.iterdir()) == ["grounding-fig3.json", "grounding-fig3.png"]
    record = json.loads((out / "grounding-fig3.json").read_text())
    (drawn,) = record["cases"]
    assert drawn["phrase"] == case.phrase
    assert drawn["found"]["one"] == drawn["found"]["two"]
    assert drawn["found"]["one"]["peak"][1] < 30, "the network reads the viewer's left"
    scored = {"data": "qata_cov19", "root": root, "split": "val", "out": tmp_path / "scores", "model": grounding_bundle}
    summary = grounding.evaluate(grounding.PhraseEvaluation(**scored, threads=1))
    assert summary["phrases"] == len(cases)
    with (tmp_path / "scores/cases.csv").open(newline="") as file:
        (line,) = [
            line
            for line in csv.DictReader(file)
            if (line["image"], line["row"], line["normalise"]) == (case.image_id, "model", "minmax")
        ]
    dice = np.mean([float(line[f"dice_{t}"]) for t in (0.1, 0.2, 0.3, 0.4, 0.5)])
    assert drawn["found"]["one"]["dice"] == pytest.approx(dice, abs=1e-5)
    picture = np.asarray(PILImage.open(out / "grounding-fig3.png"))
    assert picture.shape[2] == 3
    assert (picture.max(axis=2) - picture.min(axis=2) > 60).any(), "a map is in colour"
