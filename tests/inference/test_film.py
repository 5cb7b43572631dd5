"""Films judged as a whole: empty masks of films without a lesion, denials, and words that contradict the film."""

import json

import numpy as np
import pytest

import textray
from textray.errors import UsageError
from textray.inference.own_report import caption
from textray.io.read import from_array
from textray.records import ZONE_NAMES

SIDE = 128
ROWS = {"upper": slice(16, 48), "middle": slice(48, 80), "lower": slice(80, 112)}
COLUMNS = {"left": slice(16, 56), "right": slice(72, 112)}
DARK, LUNG, LESION = 0.0, 0.25, 0.8  # and up to a fifth more, as a film has many levels


def draw(*lesions, lungs=("left", "right")):
    """A film with lungs and, in them, lesions nearly as large as their zones, by image side."""
    pixels = np.full((SIDE, SIDE), DARK, np.float32)
    for side in lungs:
        pixels[16:112, COLUMNS[side]] = LUNG
    for zone in lesions:
        side, level = zone.split()
        pixels[ROWS[level], COLUMNS[side]][4:-4, 4:-4] = LESION
    return pixels + np.random.default_rng(0).uniform(0, 0.2, pixels.shape).astype(np.float32)


HEALTHY, ILL = draw(), draw("left upper", "right lower")


@pytest.fixture(scope="module")
def model(film_bundle):
    return textray.load(film_bundle, threads=1)


def codes(prediction):
    return {warning["code"] for warning in prediction.record["warnings"]} - {"W_LOW_CONTRAST", "W_SIDES_ASSUMED"}


def notice(prediction, code):
    (found,) = (warning["text"] for warning in prediction.record["warnings"] if warning["code"] == code)
    return found


def marked(prediction):
    """Zones of the picture of which at least a third is marked."""
    return {f"{s} {n}" for s, c in COLUMNS.items() for n, r in ROWS.items() if prediction.mask[r, c].mean() > 1 / 3}


# Presence.


def test_a_film_without_a_lesion_has_an_empty_mask_and_the_record_says_why(model):
    bright = draw()
    bright[20, 20:60] = 1.0  # a line: the network would mark it, and sees no lesion
    prediction = model.segment(bright)
    assert not prediction.mask.any()
    assert (prediction.probability >= model.threshold).any()
    finding = prediction.record["finding"]
    assert finding["lesion"] is False
    assert finding["probability"] == pytest.approx(model.infer(*network_input(model, bright)).presence[0], abs=1e-4)
    assert finding["threshold"] == 0.5
    assert list(finding["zones"]) == list(ZONE_NAMES)
    assert finding["zones"]["right upper"] == pytest.approx(0.36, abs=0.01)
    assert finding["conflicts"] == []
    assert codes(prediction) == {"W_NO_LESION_SEEN"}
    assert "0.500" in notice(prediction, "W_NO_LESION_SEEN")
    assert prediction.record["lesion"]["pixels"] == 0
    assert prediction.record["lungs"]["left"]["affected"] == 0
    assert prediction.record["settings"]["presence_threshold"] == 0.5
    json.dumps(prediction.record, allow_nan=False)


def network_input(model, pixels):
    from textray.inference.bank import Prompt

    return model.preprocess.apply(from_array(pixels))[None], [Prompt.NO_REPORT]


def test_a_film_with_a_lesion_is_marked_as_before(model):
    prediction = model.segment(ILL)
    assert marked(prediction) == {"left upper", "right lower"}
    np.testing.assert_array_equal(prediction.mask, prediction.probability >= model.threshold)
    assert prediction.record["finding"]["lesion"] is True
    assert codes(prediction) == set()


def test_the_threshold_itself_counts_as_a_lesion(model):
    presence = model.infer(*network_input(model, ILL)).presence[0]
    at = model.segment(ILL, presence_threshold=float(presence))
    above = model.segment(ILL, presence_threshold=float(np.nextafter(presence, np.float32(1))))
    assert at.record["finding"]["lesion"] is True
    assert at.mask.any()
    assert above.record["finding"]["lesion"] is False
    assert not above.mask.any()


def test_zero_never_empties_a_mask_and_one_does(model):
    specks = draw()
    specks[20, 20:60] = 1.0
    prediction = model.segment(specks, presence_threshold=0)
    np.testing.assert_array_equal(prediction.mask, prediction.probability >= model.threshold)
    assert prediction.mask.any()
    assert prediction.record["settings"]["presence_threshold"] == 0
    assert prediction.record["key"] != model.segment(specks).record["key"], "another result needs another key"
    assert codes(model.segment(ILL, presence_threshold=1)) == {"W_NO_LESION_SEEN"}
    same = model.segment(specks, presence_threshold=model.bundle.bounds.threshold)
    assert same.record["key"] == model.segment(specks).record["key"]


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan"), float("inf")])
def test_what_is_no_probability_is_refused(model, cli, value):
    with pytest.raises(UsageError, match="presence threshold is a probability"):
        model.segment(ILL, presence_threshold=value)
    assert cli("segment", "nowhere.png", "--presence-threshold", value).code == 2


def test_weights_that_judge_no_film_refuse_the_options_and_work_as_before(writing_bundle, run, film, tmp_path):
    model = textray.load(writing_bundle, threads=1)
    assert model.presence_threshold() is None
    with pytest.raises(UsageError, match=r"writing does not tell whether a film shows a lesion.*Leave the presence"):
        model.segment(ILL, presence_threshold=0.5)
    with pytest.raises(UsageError, match="writing does not find lungs"):
        model.segment(ILL, strict_input=True)
    film(tmp_path / "a.png")
    for option in (["--presence-threshold", "0.5"], ["--strict-input"]):
        result = run("a.png", *option)
        assert (result.code, list((tmp_path / "textray-out").glob("*"))) == (2, []), result.err
    found = model.segment(ILL, "no infection.").record
    assert not {"finding", "lungs"} & set(found)
    assert "presence_threshold" not in found["settings"]
    assert "presence" not in found["model"]
    assert [warning["code"] for warning in found["warnings"]] == ["W_NEGATIVE"]
    assert found["text"]["mode"] == "none"


# Words that name zones, and words that deny them.


@pytest.mark.parametrize("mode", ["text", "edit"])
def test_words_that_name_a_zone_are_never_emptied(model, mode):
    prediction = model.segment(HEALTHY, laterality="viewer", **{mode: "opacity in the left lower zone"})
    assert "left lower" in marked(prediction)
    assert prediction.record["finding"]["lesion"] is False
    assert "W_NO_LESION_SEEN" not in codes(prediction)
    (line, *_) = caption(prediction.record)
    assert line.startswith("Without words the network sees no lesion in this film (probability 0.3")


@pytest.mark.parametrize(
    ("words", "laterality", "orientation", "side"),
    [
        ("no opacity in the left lung", "viewer", None, "left"),
        ("no opacity in the left lung", "viewer", ("R", "F"), "left"),
        ("no opacity in the left lung", "patient", None, "right"),
        ("no opacity in the left lung", "patient", ("L", "F"), "right"),
        ("no opacity in the left lung", "patient", ("R", "F"), "left"),
        ("the right lung is clear", "patient", ("R", "F"), "right"),
    ],
)
def test_a_denial_darkens_its_side_of_the_image(model, words, laterality, orientation, side):
    both = draw(*ZONE_NAMES)
    prediction = model.segment(from_array(both, orientation=orientation), words, laterality)
    assert marked(prediction) == {zone for zone in ZONE_NAMES if not zone.startswith(side)}
    text = prediction.record["text"]
    assert text["mode"] == "given"
    assert text["used"] is None
    assert {zone for zone, state in text["zones"].items() if state == "absent"} == set(ZONE_NAMES) - marked(prediction)
    assert prediction.report.zones.states == tuple(text["zones"].values())
    assert "W_NEGATIVE" not in codes(prediction)
    assert "W_REPORT_CONFLICT" in codes(prediction)


@pytest.mark.parametrize("orientation", [["L", "F"], ["R", "F"]])
@pytest.mark.parametrize("laterality", ["patient", "viewer"])
def test_the_command_hears_denials_at_the_same_side(cli, film_bundle, dicom, tmp_path, orientation, laterality):
    levels = np.rint(draw(*ZONE_NAMES) * 4095).astype(np.uint16)
    (tmp_path / "a.dcm").write_bytes(dicom(levels, PatientOrientation=orientation))
    words = ("--text", "no opacity in the left lung", "--laterality", laterality, "--out", tmp_path / "out", "--json")
    result = cli("segment", tmp_path / "a.dcm", "--model", film_bundle, *words)
    assert (result.code, result.rows[0]["text_mode"]) == (0, "given"), result.err
    zones = json.loads((tmp_path / "out/a.json").read_text())["lesion"]["zones"]
    side = "right" if (laterality, orientation) == ("patient", ["L", "F"]) else "left"
    assert {zone for zone, area in zones.items() if area["share"] < 0.01} == {z for z in ZONE_NAMES if z[0] == side[0]}


def test_words_may_name_and_deny_at_once(model):
    words = "opacity in the left upper zone, the right lung is clear"
    prediction = model.segment(draw(*ZONE_NAMES), words, "viewer")
    assert marked(prediction) == {"left upper", "left middle", "left lower"}
    assert prediction.record["text"]["used"] is not None


def test_a_correction_that_only_denies_is_heard(model):
    prediction = model.segment(draw(*ZONE_NAMES), edit="the left lung is clear", laterality="viewer")
    assert marked(prediction) == {"right upper", "right middle", "right lower"}
    assert prediction.record["text"]["mode"] == "edited"
    assert codes(prediction) == {"W_REPORT_CONFLICT"}
    assert caption(prediction.record) == ["A person's correction only denies lesions; the network read what it denies."]


def test_what_cannot_be_placed_is_not_heard(model):
    film = from_array(draw(*ZONE_NAMES), orientation=("F", "L"))
    prediction = model.segment(film, "no opacity in the left lung")
    assert marked(prediction) == set(ZONE_NAMES)
    assert "W_SIDES_UNDEFINED" in codes(prediction)
    assert prediction.record["text"]["mode"] == "none"


def test_words_that_deny_are_explained_where_the_network_reads_them(cli, film_bundle, dicom, tmp_path):
    (tmp_path / "a.dcm").write_bytes(dicom(np.rint(ILL * 4095).astype(np.uint16)))
    words = (tmp_path / "a.dcm", "--model", film_bundle, "--out", tmp_path / "out", "--text", "the lungs are clear")
    assert cli("explain", "zones", *words).code == 0
    given = json.loads((tmp_path / "out/a.zones.json").read_text())["zones"]
    assert given["compared_with"] == "given"
    assert given["given"]["denied"] == list(ZONE_NAMES)


# The network's own report.


@pytest.fixture(scope="module")
def writer(make_film_bundle, tmp_path_factory):
    """Weights that write where they have no words, from a brightness of 0.3, which lungs reach."""
    folder = tmp_path_factory.mktemp("bundles") / "writer"
    make_film_bundle(folder, text_free="generated", zone_thresholds=(0.3,) * 6)
    return textray.load(folder, threads=1)


def test_no_report_is_written_of_a_film_without_a_lesion(writer):
    prediction = writer.segment(HEALTHY)
    text, own = prediction.record["text"], prediction.record["own_report"]
    assert (prediction.report, text["mode"], text["used"]) == (None, "none", None)
    assert (own["sentence"], own["used"]) == (None, False)
    assert not any(zone["written"] for zone in own["zones"].values())
    assert codes(prediction) == {"W_NO_LESION_SEEN", "W_NOTHING_WRITTEN"}
    silent = writer.segment(HEALTHY, text_free="none")
    np.testing.assert_array_equal(prediction.probability, silent.probability, "no sentence steered it")
    assert caption(prediction.record) == [
        "The network sees no lesion in this film (probability 0.363, threshold 0.500), so the mask is empty."
    ]


def test_a_report_is_written_of_a_film_with_a_lesion(writer):
    prediction = writer.segment(ILL)
    assert prediction.record["text"]["mode"] == "generated"
    assert codes(prediction) == {"W_GENERATED", "W_OUTSIDE_LUNGS"}, "each zone that it names is whole"
    assert caption(prediction.record)[0].startswith("Written by the network")
    lowered = writer.segment(HEALTHY, presence_threshold=0.1)
    assert lowered.record["text"]["mode"] == "generated"


def test_attention_and_areas_have_the_same_zones(writer):
    """Those of the lungs: from 16 to 48, 80 and 112 of 128 rows."""
    shares = [
        zone["attention_share"] for zone in writer.segment(draw(*ZONE_NAMES)).record["own_report"]["zones"].values()
    ]
    np.testing.assert_allclose(shares, np.tile([0.17, 0.15, 0.17], 2), atol=0.02)


# Words against the film.


@pytest.mark.parametrize(
    ("lesions", "words", "said"),
    [
        ([], "opacity in the right lower zone", []),  # a lung is above the bound
        (["left upper"], "opacity in the left upper zone, right lung clear", []),
        ([], "the lungs are clear", []),
        (["left upper"], "no opacity in the right lung", []),
        (
            ["left upper"],
            "no opacity in the left upper zone",
            ["it denies one in the left upper zone (viewer's side; probability 0.91, any lesion in the film 0.91)"],
        ),
        (
            ["left upper", "right lower"],
            "opacity in the left upper zone, right lung clear",
            ["it denies one in the right lower zone (viewer's side; probability 0.90, any lesion in the film 0.91)"],
        ),
        (
            ["left upper"],
            "the lungs are clear",
            ["it denies every lesion (probability of any lesion in the film 0.91)"],
        ),
    ],
)
def test_words_against_the_film(model, lesions, words, said):
    prediction = model.segment(draw(*lesions), words, "viewer")
    assert prediction.record["finding"]["conflicts"] == said
    assert ("W_REPORT_CONFLICT" in codes(prediction)) == bool(said)
    assert all(one in notice(prediction, "W_REPORT_CONFLICT") for one in said)


def test_a_zone_that_is_named_and_free(model):
    film = from_array(draw("left lower", lungs=["left"]), orientation=("L", "F"))
    prediction = model.segment(film, "opacity in the left lower zone")  # on the viewer's right, where no lung is
    assert prediction.record["finding"]["conflicts"] == [
        "it names a lesion in the right lower zone (viewer's side; probability 0.12, any lesion in the film 0.91)"
    ]
    assert "whose left and right it means" in json.dumps(prediction.record["warnings"])
    fitting = model.segment(film, "opacity in the right lower zone")
    assert fitting.record["finding"]["conflicts"] == []


def test_words_that_call_a_film_clear_are_believed_up_to_a_limit(make_film_bundle, tmp_path):
    from textray.inference.film import Bounds

    bounds = Bounds(threshold=0.5, clear_above=0.95, zone_free_below=0.3, zone_ill_above=0.7)
    make_film_bundle(tmp_path / "sure", bounds=bounds)
    predictor = textray.load(tmp_path / "sure", threads=1)
    prediction = predictor.segment(ILL, "the lungs are clear")
    finding = prediction.record["finding"]
    assert (finding["lesion"], finding["threshold"], finding["conflicts"]) == (False, 0.95, [])
    assert not prediction.mask.any()
    assert "W_NO_LESION_SEEN" in {warning["code"] for warning in prediction.record["warnings"]}
    assert predictor.segment(ILL).mask.any()
    assert predictor.segment(ILL, "the lungs are clear", presence_threshold=0.5).record["finding"]["threshold"] == 0.5


def test_a_denial_of_some_zones_leaves_the_others_as_they_are(model):
    """What is denied leaves the mask; the network, which may take it for a denial of all, is not told."""
    both = draw(*ZONE_NAMES)
    whole = model.segment(from_array(both))
    some = model.segment(from_array(both), "no opacity in the left lung", "viewer")
    gone = whole.mask & ~some.mask
    assert marked(some) == {zone for zone in ZONE_NAMES if zone.startswith("right")}
    assert np.array_equal(some.probability, whole.probability)
    assert not gone[:, SIDE // 2 + 8 :].any()
    assert not (some.mask & ~whole.mask).any()
    lungs = some.record["lungs"]
    assert lungs["left"]["affected"] == 0, "the shares of the lungs are those of the mask"
    assert lungs["right"]["affected"] == whole.record["lungs"]["right"]["affected"] > 0
