"""Weights for colour pictures with free captions: the bundle, its use, its scores, and a training that leads to one."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import textray
from textray.data.base import Sample
from textray.data.monuseg import MoNuSeg
from textray.errors import BundleError, DataError, InputError, UsageError
from textray.evaluate.cases import TextMode, mode_texts
from textray.evaluate.segmentation import MaskEvaluation, evaluate
from textray.inference.bank import TextBank, distinct, find, read_captions
from textray.inference.bundle import Bundle
from textray.preprocess import Preprocess
from textray.records import Report, Zones

UPPER_LEFT = "The nuclei density in the upper left is high."
LOWER_RIGHT = "The nuclei density in the lower right is high."
EVEN = "The nuclei are evenly distributed."
KNOWN = (EVEN, LOWER_RIGHT, UPPER_LEFT)


@pytest.fixture
def tissue_bundle(tmp_path, make_bundle):
    """The tiny graph, which reads colour and marks a half-corner for a caption that names one."""
    return write_bundle(tmp_path / "weights" / "tissue", make_bundle, KNOWN)


def write_bundle(folder, make_bundle, captions):
    zones = {EVEN: range(6), UPPER_LEFT: [0], LOWER_RIGHT: [5]}
    bits = np.array([[zone in zones.get(text, []) for zone in range(6)] for text in captions], np.float16)
    bank = {"features": np.repeat(bits[:, None], 2, axis=1), "mask": np.ones((len(captions), 2), np.uint8)}
    colour = Preprocess(size=(64, 64), colour=True)
    return make_bundle(folder, name="tissue", preprocess=colour, bank=bank, captions=captions, provenance={}).folder


@pytest.fixture
def tissue(tmp_path):
    """A picture in colour, brightest in its middle."""
    rows, columns = np.mgrid[:80, :72]
    bright = np.exp(-((rows - 40) ** 2 + (columns - 36) ** 2) / 200)[..., None]
    path = tmp_path / "slides" / "tissue.png"
    path.parent.mkdir()
    Image.fromarray((bright * (230, 120, 190) + (20, 40, 5)).astype(np.uint8)).save(path)
    return path


def understand(text, *, strict=False):
    none = np.zeros((len(KNOWN), 2, 6), np.float32)
    bank = TextBank(features=none, mask=none[..., 0], captions=KNOWN)
    return bank.understand(text, laterality="patient", strict=strict)


def test_a_bundle_lists_its_captions_and_its_bank_has_a_row_for_each(tissue_bundle, tiny_bundle):
    bundle, films = Bundle.load(tissue_bundle), Bundle.load(tiny_bundle)
    assert bundle.captions == KNOWN
    assert bundle.describe()["captions"] == list(KNOWN)
    assert bundle.text_bank().features.shape == (3, 2, 6)
    assert films.captions == ()
    assert "captions" not in films.describe(), "what records and keys of chest bundles hold stays as it was"
    config = tissue_bundle / "config.json"
    config.write_text(config.read_text().replace(UPPER_LEFT, "The nuclei are few."))
    assert Bundle.load(tissue_bundle).sha256 != bundle.sha256, "what a row says decides a result"
    values = json.loads(config.read_text())
    values["text"]["captions"] = [EVEN, LOWER_RIGHT]
    config.write_text(json.dumps(values))
    with pytest.raises(BundleError, match="text_bank"):
        Bundle.load(tissue_bundle).text_bank()


@pytest.mark.parametrize("captions", [[], [""], "words", [1], [EVEN, EVEN.upper()]])
def test_captions_that_are_none_and_reports_of_zones_beside_them_are_refused(captions):
    with pytest.raises(BundleError, match="captions"):
        read_captions({"captions": captions}, writes=False)
    with pytest.raises(BundleError, match="zones"):
        read_captions({"captions": [EVEN]}, writes=True)
    assert read_captions({"captions": None}, writes=True) == ()


@pytest.mark.parametrize("text", [UPPER_LEFT, UPPER_LEFT.upper(), f"  {UPPER_LEFT.replace(' ', '  ')}\n"])
def test_case_and_blanks_of_a_caption_do_not_matter(text):
    assert distinct([UPPER_LEFT, text, EVEN]) == (UPPER_LEFT, EVEN)
    assert read_captions({"captions": list(KNOWN)}, writes=False) == KNOWN
    assert find(text, KNOWN) == 2
    report = understand(text, strict=True)
    assert report.text == UPPER_LEFT
    assert report.free


def test_other_words_are_no_text_and_the_nearest_caption_is_named():
    report = understand("The density in the upper left is high")
    assert report.text is None
    (notice,) = report.notices
    assert notice.code == "W_UNKNOWN_CAPTION"
    assert UPPER_LEFT in notice.remedy
    with pytest.raises(InputError) as caught:
        understand("dense nuclei", strict=True)
    assert caught.value.code == "E_UNKNOWN_CAPTION"
    assert not understand("  ", strict=True).notices


def test_a_known_caption_steers_and_another_text_does_not(tissue_bundle, tissue):
    predictor = textray.load(tissue_bundle, threads=1)
    words = (None, LOWER_RIGHT.lower(), "opacity in the right lower zone")
    plain, steered, unknown = (predictor.segment(tissue, text) for text in words)
    assert steered.probability[70, 60] > 0.7 > plain.probability[70, 60]
    assert steered.probability[5, 5] < plain.probability[5, 5]
    np.testing.assert_array_equal(unknown.probability, plain.probability)
    assert [n["code"] for n in unknown.record["warnings"]] == ["W_UNKNOWN_CAPTION"]
    assert (plain.record["text"]["mode"], unknown.record["text"]["mode"]) == ("none", "none")
    text = steered.record["text"]
    assert (text["mode"], text["used"], text["laterality"]) == ("given", {"viewer": LOWER_RIGHT}, "viewer")
    assert steered.record["settings"]["preprocess"]["colour"] is True


def test_a_picture_is_segmented_and_drawn_in_colour(cli, tissue_bundle, tissue, tmp_path):
    found = cli("segment", tissue, "--model", tissue_bundle, "--text", LOWER_RIGHT, "--out", tmp_path / "out")
    assert found.code == 0, found.err
    assert "textray info lists" in found.err
    assert "the patient's" not in found.err
    with Image.open(tmp_path / "out" / "tissue.overlay.png") as overlay:
        drawn = np.asarray(overlay).astype(int)
    assert drawn.shape == (80, 72, 3)
    assert np.abs(drawn[2, 2, 0] - drawn[2, 2, 1]) > 5, "outside the mask it shows the picture's own colours"
    assert cli("segment", tissue, "--model", tissue_bundle, "--text", "dense", "--strict-text").code == 3


def test_info_lists_what_may_be_said_and_explanations_of_zones_are_refused(
    cli, tissue_bundle, tiny_bundle, tissue, tmp_path
):
    shown = cli("info", tissue_bundle).out
    assert all(caption in shown for caption in KNOWN)
    assert "captions" not in cli("info", tiny_bundle).out
    found = cli("explain", "zones", tissue, "--model", tissue_bundle, "--out", tmp_path / "out")
    assert found.code == 2
    assert "name no zones" in found.err


def samples_of(*texts):
    reports = [Report(zones=Zones(), text=text, free=True) for text in texts]
    return [
        Sample(image_id=str(i), image_path=Path(), mask_path=Path(), report=report, split="val")
        for i, report in enumerate(reports)
    ]


def test_shuffled_captions_are_always_other_ones():
    samples = samples_of(EVEN, EVEN, UPPER_LEFT, LOWER_RIGHT, None)
    oracle = mode_texts(samples, TextMode.ORACLE, seed=0)
    assert oracle == {i: sample.report for i, sample in enumerate(samples[:4])} | {4: None}
    for seed in range(10):
        shuffled = mode_texts(samples, TextMode.SHUFFLED, seed=seed)
        assert all(shuffled[i] not in (None, oracle[i]) for i in range(5))
    for same in (EVEN, EVEN.upper(), EVEN.replace(" ", "  ")):
        with pytest.raises(UsageError, match="has another one"):
            mode_texts(samples_of(EVEN, same), TextMode.SHUFFLED, seed=0)


def run(root, out, bundle, *modes, data="monuseg", **options):
    order = MaskEvaluation(
        data=data, root=root, split="val", text_mode=modes, out=out, model=bundle, threads=1, **options
    )
    return evaluate(order)


def test_each_text_mode_is_scored_and_the_caption_used_is_noted(monuseg, tissue_bundle, tmp_path):
    summary = run(monuseg, tmp_path, tissue_bundle, "oracle", "shuffled", "none")
    captions = {s.image_id: s.report.text for s in MoNuSeg(monuseg).samples("val")}
    rows = list(csv.DictReader((tmp_path / "cases.csv").read_text().splitlines()))
    assert len(rows) == 9
    for row in rows:
        own = captions[row["image"]]
        wanted = {"oracle": row["caption"] == own, "none": row["caption"] == ""}
        assert wanted.get(row["mode"], row["caption"] in KNOWN and row["caption"] != own)
        assert row["zones"] == ""
    assert summary["images_without_text"] == {"oracle": 0, "shuffled": 0, "none": 3}
    assert "another one" in summary["text_modes"]["shuffled"]
    scores = {mode: summary["modes"][mode]["dice_pooled"]["value"] for mode in summary["modes"]}
    assert len(set(scores.values())) == 3, "each text leads to other masks"


def test_what_a_network_does_not_understand_is_refused_before_anything_is_written(
    monuseg, tissue_bundle, tiny_bundle, make_bundle, tmp_path
):
    with pytest.raises(UsageError, match="reads zones"):
        run(monuseg, tmp_path / "a", tiny_bundle, "oracle")
    with pytest.raises(UsageError, match="reads captions"):
        run(None, tmp_path / "a", tissue_bundle, "oracle", data="phantom")
    with pytest.raises(UsageError, match="name no zones"):
        run(monuseg, tmp_path / "a", tissue_bundle, "oracle", sides=True)
    few = write_bundle(tmp_path / "few", make_bundle, (EVEN, UPPER_LEFT))
    with pytest.raises(DataError, match="1 of 3 captions"):
        run(monuseg, tmp_path / "a", few, "oracle")
    with pytest.raises(InputError) as caught:
        run(monuseg, tmp_path / "b", tiny_bundle, "none")
    assert caught.value.code == "E_COLOR"
    assert not (tmp_path / "a").exists()


ALL_LEFT = "Unilateral pulmonary infection, one infected area, all left lung"
"""As LViT's authors wrote: a count of lesions, "all", capitals."""


@pytest.fixture
def original(qata):
    """Films whose captions are LViT's original ones, and the root of the data set."""
    for table in (qata / "prompt").glob("*.csv"):
        table.write_text(
            table.read_text().replace("unilateral", "Unilateral").replace("upper left lung.", "all left lung")
        )
    return qata


def test_weights_of_films_read_captions_as_they_stand(original, make_bundle, cli, film, tmp_path):
    """An import keeps the published wording; sides are the viewer's, which the caller must say."""
    pytest.importorskip("torch")
    from textray.export.published import _convention

    captions = _convention("mmi_unet", "qata_cov19", original).captions
    assert ALL_LEFT in captions
    assert len(captions) == 2
    assert _convention("lvit", "qata_cov19", original).captions == captions
    bits = np.array([[float("left" in text)] * 3 + [0] * 3 for text in captions], np.float16)
    bank = {"features": np.repeat(bits[:, None], 2, axis=1), "mask": np.ones((2, 2), np.uint8)}
    folder = make_bundle(tmp_path / "films", bank=bank, captions=captions).folder
    film(tmp_path / "chest.png", shape=(90, 70))
    words = (
        "segment",
        tmp_path / "chest.png",
        "--model",
        folder,
        "--text",
        ALL_LEFT.upper(),
        "--out",
        tmp_path / "out",
    )
    refused = cli(*words)
    assert (refused.code, "E_LATERALITY" in refused.err) == (3, True)
    assert cli(*words, "--laterality", "viewer").code == 0
    assert json.loads((tmp_path / "out" / "chest.json").read_text())["text"]["used"] == {"viewer": ALL_LEFT}
    mask = np.asarray(Image.open(tmp_path / "out" / "chest.mask.png")) > 0
    assert mask[:, :35].sum() > 4 * mask[:, 35:].sum()
    order = ("evaluate", "--data", "qata_cov19", "--root", original, "--model", folder, "--out", tmp_path / "scores")
    assert cli(*order, "--text-mode", "oracle", "--threads", "1").code == 0
    rows = list(csv.DictReader((tmp_path / "scores" / "cases.csv").read_text().splitlines()))
    assert {row["caption"] for row in rows} <= set(captions)
    assert "name no zones" in cli(*order, "--sides").err


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_training_leads_to_weights_that_know_its_captions(monuseg, recipe, train, cli, tmp_path):
    pytest.importorskip("torch")
    from textray.export.segmenter import export

    assert train("--config", recipe("monuseg", monuseg, augment="strong"), "--out", tmp_path / "run").code == 0
    bundle = export(tmp_path / "run/checkpoints/last.ckpt", tmp_path / "weights")
    assert bundle.captions == KNOWN
    assert bundle.preprocess.colour
    card = (bundle.folder / "README.md").read_text()
    assert "features of 3 captions" in card
    assert "six zones" not in card
    assert "CC BY-NC-SA" in (bundle.folder / "LICENSE").read_text()
    summary = run(monuseg, tmp_path / "scores", bundle.folder, "oracle", "none")
    assert summary["images"] == 3
    picture = MoNuSeg(monuseg).samples("test")[0].image_path  # a TIFF
    found = cli("segment", picture, "--model", bundle.folder, "--text", EVEN, "--out", tmp_path / "out")
    assert found.code == 0, found.err
