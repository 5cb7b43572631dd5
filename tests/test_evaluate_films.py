"""`textray evaluate` on whole films: a fake of `chest_films` whose brightest patch is the probability of a lesion."""

import csv
import json
import re
from statistics import mean

import numpy as np
import pytest
from PIL import Image

from textray.data.base import open_reader
from textray.errors import UsageError
from textray.evaluate.films import FilmEvaluation, evaluate
from textray.evaluate.page import cell
from textray.evaluate.results import check
from textray.metrics.intervals import bootstrap_auc

SIDE = 64
LINE = -1.0
"""A bright line instead of a lesion: marked by the network, which sees no lesion in it."""
BRIGHTNESS = {
    ("nih", "normal"): [0.40, 0.60, LINE, 0.80, 0.40, LINE, 0.60, 0.40, 0.40, LINE] * 2,
    ("nih", "pneumonia"): [0.60, 0.80, 0.95, 0.40, 0.95, 0.80, 0.95, LINE, 0.80, 0.95] * 2,
    ("shenzhen", "normal"): [0.40] * 10,
    ("shenzhen", "tuberculosis"): [0.80] * 10,
    ("montgomery", "normal"): [0.60] * 5,
}


def draw(brightness, number):
    """A film, 64 x 64, and its lungs; the lesion covers a patch of the network and lies in the left upper zone."""
    pixels = np.random.default_rng(number).uniform(0, 0.1, (SIDE, SIDE))
    lungs = np.zeros((SIDE, SIDE), bool)
    lungs[8:56, 8:28] = lungs[8:56, 36:56] = True
    pixels[lungs] += 0.25
    stray = np.random.default_rng(number).integers(SIDE, size=(2, 60))
    pixels[tuple(stray)] = np.linspace(0.35, 0.97, 60)  # all grey levels occur, as in a film
    pixels[12:20, 8:24] = 1.0 * (np.arange(8) == 2)[:, None] if brightness == LINE else brightness
    return np.rint(pixels * 255).astype(np.uint8), lungs


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Films of nih by two for a patient; lungs of the others, of which one has none at the image's right."""
    root, rows, number = tmp_path_factory.mktemp("data") / "films", [], 0
    for (source, label), values in BRIGHTNESS.items():
        for i, brightness in enumerate(values):
            number += 1
            stem = f"{i // 2 + 100 * (label == 'normal'):08d}_{i % 2:03d}" if source == "nih" else f"{label}_{i:04d}_0"
            pixels, lungs = draw(brightness, number)
            (root / source).mkdir(parents=True, exist_ok=True)
            (root / "lungs").mkdir(exist_ok=True)
            Image.fromarray(pixels).save(root / source / f"{stem}.png")
            if source != "nih":
                Image.fromarray(lungs).save(root / "lungs" / f"{stem}.png")
            rows.append((f"{source}/{stem}.png", source, label, "" if source == "nih" else f"lungs/{stem}.png"))
    with (root / "films.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("file", "source", "label", "lungs"), *rows])
    return root


@pytest.fixture(scope="module")
def done(film_bundle, root, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    return out, run(film_bundle, root, out)


def run(bundle, root, out, **options):
    settings = {"data": "chest_films", "root": root, "split": "train", "model": bundle, "threads": 1} | options
    return evaluate(FilmEvaluation(out=out, **settings))


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def of(rows, source=None, sick=None):
    """Rows of a source, or of all, that are sick or not."""
    return [row for row in rows if source in (None, row["source"]) and sick in (None, row["finding"] == "1")]


def test_each_film_has_its_line(root, done):
    rows = read_csv(done[0] / "cases.csv")
    samples = open_reader("chest_films", root).samples("train")
    assert [row["image"] for row in rows] == [sample.image_id for sample in samples]
    for row, sample in zip(rows, samples, strict=True):
        assert (row["patient"], row["source"], row["label"]) == (sample.patient_id, sample.source, sample.label)
        assert row["finding"] == str(int(sample.label != "normal"))
        with Image.open(sample.image_path) as picture:
            pixels = np.asarray(picture, np.float64) / 255
        brightest = pixels.reshape(16, 4, 16, 4).mean((1, 3)).max()
        assert float(row["presence"]) == pytest.approx(brightest, abs=2e-3)
        marked = float((pixels >= 0.5).mean())
        assert float(row["area"]) == pytest.approx(marked if brightest >= 0.5 else 0, abs=1e-6)
        assert float(row["area_denied"]) == 0
        assert (row["lung_left"] == "") == (row["lung_right"] == "") == (sample.source == "nih")
    assert {row["area"] for row in rows} > {"0.0"}


def test_scores_by_source_are_those_of_its_films(done):
    summary, rows = done[1], read_csv(done[0] / "cases.csv")
    assert list(summary["sources"]) == ["montgomery", "nih", "shenzhen", "all"]
    for source, scores in summary["sources"].items():
        chosen = of(rows, None if source == "all" else source)
        normal, sick = of(chosen, sick=False), of(chosen, sick=True)
        assert (scores["normal"], scores["sick"]) == (len(normal), len(sick))
        value = {
            name: None if found is None or name in ("normal", "sick", "lungs") else found["value"]
            for name, found in scores.items()
        }
        wins = [(a > b) + (a == b) / 2 for a in presence(sick) for b in presence(normal)]
        assert value["presence_auc"] == (pytest.approx(mean(wins), abs=1e-6) if wins else None)
        assert value["unmarked"] == pytest.approx(mean(row["area"] == "0.0" for row in normal))
        assert value["unmarked_denied"] == 1
        assert value["area"] == pytest.approx(mean(float(row["area"]) for row in normal), abs=1e-6)
        assert value["area_denied"] == 0
        assert value["marked_sick"] == (pytest.approx(mean(row["area"] != "0.0" for row in sick)) if sick else None)
        assert scores["lungs"] == sum(row["lung_left"] != "" for row in chosen)
        assert (value["lung_left"] is None) == (source == "nih")
    nih = summary["sources"]["nih"]
    assert 0.5 < nih["presence_auc"]["value"] < 1
    assert nih["presence_auc"] == vars(interval(of(rows, "nih"))), "drawn by patient"
    assert nih["presence_auc"]["low"] < nih["presence_auc"]["value"] < nih["presence_auc"]["high"]
    assert summary["sources"]["shenzhen"]["presence_auc"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert summary["sources"]["shenzhen"]["lung_left"]["value"] > 0.9
    assert 0 < nih["unmarked"]["value"] < 1


def presence(rows):
    return [float(row["presence"]) for row in rows]


def interval(rows):
    return bootstrap_auc(presence(rows), [row["finding"] == "1" for row in rows], [row["patient"] for row in rows])


def test_the_page_holds_the_scores_and_where_they_come_from(done):
    out, summary = done
    assert summary == json.loads((out / "summary.json").read_text())
    check(out)
    page = (out / "summary.md").read_text()
    assert page.startswith("# Whole films\n")
    scores = summary["sources"]["nih"]
    cells = [cell(scores[name]) for name in ("presence_auc", "unmarked", "unmarked_denied", "area", "marked_sick")]
    assert f"| nih | {scores['normal']} | {scores['sick']} | {' | '.join(cells)} | – | – |" in page
    assert "| montgomery | 4 | 0 | – |" in page
    assert 'the words "The lungs are clear."' in page
    command = "textray evaluate --data chest_films --root ROOT --split train --model whole --out OUT"
    assert summary["command"] == command
    assert f"`{command}`" in page
    assert (summary["threshold"], summary["presence_threshold"]) == (0.5, 0.5)
    assert (summary["task"], summary["images"]) == ("films", len(read_csv(out / "cases.csv")))
    assert f"{summary['images']} images of {summary['patients']} patients" in page
    assert str(out) not in page + (out / "summary.json").read_text()


def test_the_command_scores_films_and_replaces_what_it_wrote(cli, film_bundle, root, done, tmp_path):
    words = ("evaluate", "--data", "chest_films", "--root", root, "--model", film_bundle, "--out", tmp_path / "out")
    first = cli(*words, "--split", "train", "--limit", "12")
    assert first.code == 0, first.err
    assert first.out.startswith("# Whole films\n")
    assert json.loads((tmp_path / "out/summary.json").read_text())["images"] == 12
    again = cli(*words, "--split", "train")
    assert again.code == 0, again.err
    assert (tmp_path / "out/cases.csv").read_bytes() == (done[0] / "cases.csv").read_bytes()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["cases.csv", "summary.json", "summary.md"]
    (tmp_path / "out/cases.csv").write_text("mine")
    other = cli(*words)
    assert (other.code, "is of no evaluation" in other.err) == (2, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--text-mode", "oracle"], "not of task films.*--text-mode"),
        (["--sides"], "not of task films.*--sides"),
        (["--margin", "3"], "these options are not of task"),
        (["--captions", "revised"], "has no captions 'revised'"),
        (["--split-by", "volume"], "cannot be cut by 'volume'"),
        (["--task", "grounding"], "weights of whole are for another task"),
        (["--split", "valid"], "split 'valid'"),
        (["--limit", "0"], "limit of images is wrong"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_options_of_other_evaluations_are_refused(cli, film_bundle, root, tmp_path, options, message):
    words = ("--data", "chest_films", "--root", root, "--model", film_bundle, "--out", tmp_path / "out")
    result = cli("evaluate", *words, *options)
    assert result.code == 2
    assert re.search(message, " ".join(result.err.split())), result.err
    assert not (tmp_path / "out").exists()


def test_weights_that_judge_no_film_have_no_curve(tiny_bundle, root, tmp_path):
    summary = run(tiny_bundle, root, tmp_path, limit=10)
    assert summary["presence_threshold"] is None
    for scores in summary["sources"].values():
        assert scores["presence_auc"] is None
        assert scores["unmarked"] is None or scores["unmarked"]["value"] == scores["unmarked_denied"]["value"]
        assert scores["lungs"] == 0
    assert all(row["presence"] == "" for row in read_csv(tmp_path / "cases.csv"))
    assert "nan" not in (tmp_path / "summary.json").read_text().lower()


def test_weights_that_need_a_text_are_refused(make_bundle, root, tmp_path):
    make_bundle(tmp_path / "needs", form="released")
    with pytest.raises(UsageError, match="needs a text, and films of chest_films have none"):
        run(tmp_path / "needs", root, tmp_path / "out")


def test_a_data_set_that_does_not_judge_films_is_refused(film_bundle, tmp_path):
    with pytest.raises(UsageError, match="phantom does not say which films show a lesion"):
        run(film_bundle, None, tmp_path / "out", data="phantom", split="val")
