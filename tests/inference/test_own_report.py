import json

import numpy as np
import pytest
from PIL import Image as PILImage

import textray
from textray.errors import BundleError, InputError, UsageError
from textray.inference.bank import Prompt
from textray.inference.bundle import Bundle
from textray.inference.own_report import caption
from textray.inference.segmenter import Predictor
from textray.io.read import from_array
from textray.io.write import render_overlay
from textray.records import ZONE_NAMES, Zones

LEFT_UPPER = "unilateral pulmonary infection, one infected area, upper left lung."
RIGHT_UPPER = "unilateral pulmonary infection, one infected area, upper right lung."


@pytest.fixture(scope="module")
def predictor(writing_bundle):
    return textray.load(writing_bundle, threads=1)


def black():
    """A black picture with a little texture, as a film has."""
    return np.random.default_rng(0).uniform(0, 0.3, (96, 72)).astype(np.float32)


def bright(*zones):
    """A dark picture with whole zones bright, by image side."""
    pixels = black()
    rows = {"upper": slice(0, 36), "middle": slice(36, 53), "lower": slice(53, 96)}
    for zone in zones:
        side, level = zone.split()
        pixels[rows[level], slice(0, 36) if side == "left" else slice(36, 72)] += 0.7
    return pixels


def dark():
    """A picture of which no zone is bright enough to be written."""
    pixels = black()
    pixels[40:52, 10:22] += 0.7
    return pixels


def codes(prediction):
    return [warning["code"] for warning in prediction.record["warnings"]]


def steered(prediction, zone):
    """Mean probability in a zone."""
    level = {"upper": (0, 30), "middle": (40, 50), "lower": (60, 96)}[zone.split()[1]]
    columns = slice(0, 30) if zone.startswith("left") else slice(42, 72)
    return float(prediction.probability[level[0] : level[1], columns].mean())


def test_without_a_text_the_network_is_steered_by_the_report_it_writes(predictor):
    prediction = predictor.segment(bright("left upper"))
    text, own = prediction.record["text"], prediction.record["own_report"]
    assert text["mode"] == "generated"
    assert prediction.report.zones == Zones.from_present([1, 0, 0, 0, 0, 0])
    assert prediction.report.text == LEFT_UPPER  # by image side
    assert own["used"]
    assert own["sentence"] == text["used"]
    found = own["zones"]["left upper"]
    assert found["written"]
    assert found["probability"] > 0.9
    assert found["threshold"] == 0.5
    assert not any(own["zones"][name]["written"] for name in ZONE_NAMES[1:])
    assert "W_GENERATED" in codes(prediction)
    told = predictor.segment(bright("left upper"), "left upper zone", laterality="viewer")
    np.testing.assert_array_equal(prediction.probability, told.probability)


@pytest.mark.parametrize(
    ("orientation", "patient", "notices", "sides"),
    [
        (("L", "F"), RIGHT_UPPER, [], "left is the patient's left"),  # the standard film: on the viewer's right
        (("R", "F"), LEFT_UPPER, [], "left is the patient's left"),
        (None, RIGHT_UPPER, ["W_SIDES_ASSUMED"], "left is the patient's left, as on the standard film"),
        (("F", "L"), None, ["W_SIDES_UNDEFINED"], "left and right are the viewer's, as in this picture"),
    ],
)
def test_the_written_sentence_names_the_patients_sides_of_this_film(predictor, orientation, patient, notices, sides):
    prediction = predictor.segment(from_array(bright("left upper"), orientation=orientation))
    assert prediction.record["text"]["used"] == {"viewer": LEFT_UPPER, "patient": patient}
    assert sorted(codes(prediction)) == ["W_GENERATED", *notices]
    strip = [f"Written by the network, not by a person ({sides}):", patient or LEFT_UPPER]
    assert caption(prediction.record) == strip
    assert steered(prediction, "left upper") > steered(prediction, "right upper")
    both = predictor.segment(from_array(bright("left lower", "right lower"), orientation=orientation))
    assert both.record["text"]["used"]["patient"] == both.record["text"]["used"]["viewer"] is not None
    assert codes(both) == ["W_GENERATED"]  # a sentence of both sides needs none


@pytest.mark.parametrize(
    ("picture", "options", "code", "meaning", "lines"),
    [
        ("dark", {}, ["W_NOTHING_WRITTEN"], "found nothing to write about this film", ["The network found nothing"]),
        ("bright", {"text_free": "none"}, [], "was not asked for a report", []),
        (
            "bright",
            {"text": "no infection."},
            ["W_NEGATIVE"],
            "A person's report names no zone with a lesion, so the network went without",
            ["The report that a person gave names no zone with a lesion; the film was read without a report."],
        ),
        (
            "bright",
            {"edit": "no infection."},
            ["W_EDITED_TO_NOTHING"],
            "left no zone, so it went without a report",
            ["A person's correction left no zone in the network's report; the film was read without a report."],
        ),
    ],
)
def test_a_film_that_is_read_without_a_report_says_why(predictor, picture, options, code, meaning, lines):
    film = from_array(dark() if picture == "dark" else bright("left upper"), orientation=("L", "F"))
    prediction, plain = predictor.segment(film, **options), predictor.segment(film, text_free="none")
    text, own = prediction.record["text"], prediction.record["own_report"]
    assert (prediction.report, text["used"]) == (None, None)
    assert text["mode"] == ("edited" if "edit" in options else "none")
    assert codes(prediction) == code
    assert meaning in own["meaning"]
    shown = caption(prediction.record)
    assert len(shown) == len(lines)
    assert all(found.startswith(line) for found, line in zip(shown, lines, strict=True))
    assert own["denied"] == ("text" in options)
    assert own["silent"] == ("text" in options or "text_free" in options)
    assert own["sentence"] == (None if picture == "dark" else {"viewer": LEFT_UPPER, "patient": RIGHT_UPPER})
    np.testing.assert_array_equal(prediction.probability, plain.probability)
    assert picture != "dark" or "no infection" not in json.dumps(prediction.record)


def test_words_about_something_else_leave_the_network_to_write(predictor):
    written = predictor.segment(bright("left upper"))
    off_topic = predictor.segment(bright("left upper"), "Hello World")
    assert off_topic.record["text"]["mode"] == "generated"
    assert off_topic.record["text"]["unused_words"] == ["hello", "world"]
    silent = predictor.segment(bright("left upper"), text_free="none")
    assert steered(written, "left upper") > steered(silent, "left upper")
    assert silent.record["key"] != written.record["key"]


def test_a_given_report_rules_and_the_networks_own_stands_beside(predictor):
    prediction = predictor.segment(from_array(bright("left upper"), orientation=("L", "F")), "left lower zone")
    assert prediction.record["text"]["mode"] == "given"
    assert prediction.report.zones == Zones.from_present([0, 0, 0, 0, 0, 1])
    assert prediction.record["own_report"]["sentence"] == {"viewer": LEFT_UPPER, "patient": RIGHT_UPPER}
    assert not prediction.record["own_report"]["used"]
    assert "would have written" in prediction.record["own_report"]["meaning"]
    assert codes(prediction) == []
    plain = predictor.segment(from_array(bright("left upper"), orientation=("L", "F")), text_free="none")
    assert steered(prediction, "right lower") > steered(plain, "right lower")


def test_a_bundle_says_what_a_run_without_a_text_does(make_bundle, tmp_path):
    bundle = make_bundle(tmp_path / "quiet", zone_thresholds=(0.5,) * 6, text_free="none")
    assert bundle.writes_report
    assert bundle.describe()["text_free"] == "none"
    quiet, picture = Predictor(bundle, threads=1), bright("left upper")
    assert quiet.segment(picture).record["text"]["mode"] == "none"
    assert quiet.segment(picture, text_free="generated").record["text"]["mode"] == "generated"
    pixels = quiet.preprocess.apply(from_array(picture))[None]
    np.testing.assert_array_equal(quiet.predict_batch(pixels, [None]), quiet.predict_batch(pixels, [Prompt.NO_REPORT]))
    assert not np.array_equal(quiet.predict_batch(pixels, [None]), quiet.predict_batch(pixels, [Prompt.OWN_REPORT]))


def test_thresholds_decide_what_is_written(make_bundle, tmp_path):
    lenient = Predictor(make_bundle(tmp_path / "lenient", zone_thresholds=(0, 0.5, 0.5, 0.5, 0.5, 0.5)), threads=1)
    assert lenient.segment(dark()).report.zones == Zones.from_present([1, 0, 0, 0, 0, 0])


def test_each_picture_of_a_batch_goes_its_own_way(predictor):
    picture = predictor.preprocess.apply(from_array(bright("left upper")))
    rows = [1, None, Prompt.NO_REPORT, 0b100]
    found = predictor.infer(np.stack([picture] * 4), rows)
    assert found.zone_probability.shape == (4, 6)
    assert found.attention.shape == (4, 1, 8, 8)
    np.testing.assert_array_equal(found.probability[0], found.probability[1])
    assert found.probability[2, 10, 10] < found.probability[1, 10, 10]
    assert found.probability[3, 50, 10] > found.probability[2, 50, 10]


def test_a_network_without_zones_tells_none_and_hears_silence_as_no_text(tiny_bundle):
    plain = textray.load(tiny_bundle, threads=1)
    picture = plain.preprocess.apply(from_array(bright("left upper")))[None]
    found = plain.infer(picture, [Prompt.NO_REPORT])
    assert found.zone_probability is None
    assert found.attention is None
    np.testing.assert_array_equal(found.probability, plain.predict_batch(picture, [None]))
    prediction = plain.segment(bright("left upper"))
    assert "own_report" not in prediction.record
    assert set(prediction.record["settings"]) == {"textray", "threshold", "laterality", "strict_text", "preprocess"}
    for ask in ({"text_free": "generated"}, {"edit": "left upper zone"}):
        with pytest.raises(UsageError, match="writes no report"):
            plain.segment(bright("left upper"), **ask)
    with pytest.raises(UsageError, match="writes no report"):
        plain.infer(picture, [Prompt.OWN_REPORT])


def test_attention_lies_where_the_network_looked(predictor, tmp_path):
    prediction = predictor.segment(from_array(bright("right lower"), orientation=("L", "F")))
    assert prediction.attention.shape == (96, 72)
    shares = {name: zone["attention_share"] for name, zone in prediction.record["own_report"]["zones"].items()}
    assert max(shares, key=shares.get) == "right lower"
    assert sum(shares.values()) == pytest.approx(1, abs=0.001)
    written = prediction.save(tmp_path)
    assert written["attention"].name == "array.report-attention.png"
    with PILImage.open(written["attention"]) as picture:
        red = np.asarray(picture, int)[..., 0]
    assert red.shape == (96, 72)
    assert red[60:, 45:].mean() > red[:30, :30].mean() + 50


def test_the_overlay_carries_the_sentence_beneath_and_the_mask_does_not(predictor, tmp_path):
    picture = from_array(bright("left upper"), orientation=("L", "F"))
    for name, prediction, lines in (
        ("generated", predictor.segment(picture), True),
        ("given", predictor.segment(picture, "right upper zone"), False),
        ("silent", predictor.segment(picture, text_free="none"), False),
        ("nothing", predictor.segment(dark()), True),
    ):
        written = prediction.save(tmp_path / name)
        with PILImage.open(written["overlay"]) as overlay:
            shown = np.asarray(overlay)
        plain = render_overlay(prediction.image.pixels, prediction.mask)
        assert (len(shown) > len(plain)) == lines
        np.testing.assert_array_equal(shown[: len(plain)], plain)
        with PILImage.open(written["mask"]) as mask:
            assert mask.size == (72, 96)


def test_an_earlier_attention_goes_with_weights_that_have_none(predictor, tiny_bundle, tmp_path):
    predictor.segment(bright("left upper")).save(tmp_path)
    assert (tmp_path / "array.report-attention.png").exists()
    textray.load(tiny_bundle, threads=1).segment(bright("left upper")).save(tmp_path)
    assert not (tmp_path / "array.report-attention.png").exists()


@pytest.mark.parametrize(
    ("zones", "text", "match"),
    [
        ({"thresholds": [0.5] * 5}, {}, "thresholds of the zones"),
        ({"thresholds": [0.5] * 5 + [1.5]}, {}, "thresholds of the zones"),
        ({"thresholds": [0.5] * 5 + [float("nan")]}, {}, "thresholds of the zones"),
        ({"thresholds": [0.5] * 6}, {"free": "always"}, "text.free"),
        ({"thresholds": None}, {"free": "generated"}, "writes no report"),
    ],
)
def test_a_config_that_says_something_else_of_reports_is_refused(writing_bundle, changed, zones, text, match):
    with pytest.raises(BundleError, match=match):
        Bundle.load(changed(writing_bundle, zones=zones, text=text))


def test_thresholds_without_zones_in_the_graph_are_refused(tiny_bundle, changed):
    folder = changed(tiny_bundle, zones={"thresholds": [0.5] * 6})
    assert Bundle.load(folder).sha256 != Bundle.load(tiny_bundle).sha256
    with pytest.raises(BundleError, match="graph has none"):
        Predictor(Bundle.load(folder), threads=1)


def test_correcting_a_given_report_or_none_is_refused(predictor):
    for beside in ({"text": "left base"}, {"text_free": "none"}):
        with pytest.raises(UsageError, match="the report that the network writes"):
            predictor.segment(bright("left upper"), edit="left upper zone", **beside)


def test_an_edit_of_undefined_sides_is_refused_for_that_film(predictor):
    film = from_array(bright("left upper"), orientation=("F", "L"))
    with pytest.raises(InputError) as caught:
        predictor.segment(film, edit="left lower")
    assert caught.value.code == "E_SIDES_UNDEFINED"
    viewer = predictor.segment(film, edit="left upper and left lower", laterality="viewer")
    assert viewer.report.zones == Zones.from_present([1, 0, 1, 0, 0, 0])
    assert viewer.record["text"]["used"]["patient"] is None


@pytest.mark.parametrize(
    ("laterality", "orientation", "edit", "present"),
    [
        ("patient", ("R", "F"), "opacity in the left lower zone", [0, 0, 1, 0, 0, 0]),
        ("patient", ("L", "F"), "right upper and left lower", [1, 0, 0, 0, 0, 1]),
        ("viewer", ("L", "F"), "left upper and left lower", [1, 0, 1, 0, 0, 0]),
        ("patient", ("L", "F"), "opacity in the left lower zone", [0, 0, 0, 0, 0, 1]),
        ("viewer", ("L", "F"), "opacity in the left lower zone", [0, 0, 1, 0, 0, 0]),
    ],
)
def test_a_correction_steers_to_the_side_it_means(predictor, laterality, orientation, edit, present):
    film = from_array(bright("left upper"), orientation=orientation)
    prediction = predictor.segment(film, laterality=laterality, edit=edit)
    zones = Zones.from_present(present)
    assert prediction.report.zones.present == zones.present
    told = predictor.infer(predictor.preprocess.apply(film)[None], [zones.index]).probability[0]
    np.testing.assert_array_equal(prediction.probability, predictor.preprocess.restore(told, film.grid))
    text, own = prediction.record["text"], prediction.record["own_report"]
    assert text["mode"] == "edited"
    assert text["edit"] == edit
    assert text["laterality"] == laterality
    assert own["sentence"]["viewer"] == LEFT_UPPER  # what was written stays on record
    assert text["used"] != own["sentence"]
    assert "W_GENERATED" not in codes(prediction)


def test_a_correction_that_makes_a_sentence_one_sided_tells_that_the_film_does_not_say_the_sides(predictor):
    film = from_array(bright("left lower", "right lower"))
    assert "W_SIDES_ASSUMED" not in codes(predictor.segment(film))
    for laterality in ("viewer", "patient"):
        prediction = predictor.segment(film, edit="right lower", laterality=laterality)
        assert prediction.record["text"]["used"]["patient"]
        assert codes(prediction) == ["W_SIDES_ASSUMED"]  # once, whether for the person's words or the network's


def test_a_correction_without_effect_is_told(predictor):
    film = from_array(bright("left upper"), orientation=("L", "F"))
    assert codes(predictor.segment(film, edit="right upper")) == ["W_EDIT_WITHOUT_EFFECT"]
