import json

import numpy as np
import pytest
from PIL import Image as PILImage

import textray
from textray.errors import InputError, ShapeError, UsageError
from textray.inference.bundle import Bundle
from textray.inference.record import zone_areas
from textray.inference.runtime import Runtime, default_threads
from textray.inference.segmenter import Predictor
from textray.io.read import from_array
from textray.preprocess import Preprocess
from textray.records import Grid, Zones, ZoneSplit
from textray.text.zones import parse


@pytest.fixture(scope="module")
def predictor(tiny_bundle):
    return textray.load(tiny_bundle, threads=1)


@pytest.fixture(scope="module")
def grey():
    """An asymmetric picture with no bright area in the lower zones."""
    rows, columns = np.mgrid[:90, :70]
    return np.exp(-((rows - 20) ** 2 + (columns - 15) ** 2) / 200).astype(np.float32)


def share(prediction, zone):
    return prediction.record["lesion"]["zones"][zone]["share"]


def test_the_mask_lies_on_the_pictures_own_grid(predictor, grey):
    prediction = predictor.segment(grey)
    assert prediction.mask.shape == prediction.probability.shape == (90, 70)
    assert prediction.mask.dtype == np.bool_
    assert prediction.mask[20, 15]
    assert not prediction.mask[80, 60]
    np.testing.assert_array_equal(prediction.mask, prediction.probability >= 0.5)


@pytest.mark.parametrize("spot", [(0.2, 0.75), (0.8, 0.3)])
def test_a_network_that_sees_films_transposed_marks_the_same_place(make_bundle, tmp_path, spot):
    """The tiny network marks what is bright, wherever it is; swapped on the way in, the mask must come back upright."""
    rows, columns = np.mgrid[:120, :80]
    bright = np.exp(-((rows - 120 * spot[0]) ** 2 + (columns - 80 * spot[1]) ** 2) / 100).astype(np.float32)
    masks = []
    for transpose in (False, True):
        folder = tmp_path / f"transpose-{transpose}"
        make_bundle(folder, preprocess=Preprocess(size=(64, 64), transpose=transpose))
        masks.append(textray.load(folder, threads=1).segment(bright).mask)
    upright, swapped = masks
    assert 50 < upright.sum() < 2000
    assert upright[int(120 * spot[0]), int(80 * spot[1])]
    np.testing.assert_array_equal(upright, swapped)


def test_patient_and_viewer_words_steer_to_opposite_halves(predictor, grey):
    patient = predictor.segment(grey, "opacity in the right lower zone")
    viewer = predictor.segment(grey, "opacity in the right lower zone", laterality="viewer")
    assert share(patient, "left lower") > 0.5
    assert share(patient, "right lower") == 0
    assert share(viewer, "right lower") > 0.5
    assert share(viewer, "left lower") == 0
    assert patient.record["text"]["used"] == {
        "viewer": "unilateral pulmonary infection, one infected area, lower left lung.",
        "patient": "unilateral pulmonary infection, one infected area, lower right lung.",
    }


def test_a_film_turned_the_other_way_keeps_the_patients_side(predictor, grey):
    usual = predictor.segment(from_array(grey, orientation=("L", "F")), "right lower zone")
    turned = predictor.segment(from_array(grey, orientation=("R", "F")), "right lower zone")
    assert share(usual, "left lower") > 0.5
    assert share(turned, "right lower") > 0.5
    assert usual.record["text"]["film_sides_from"] == "tag"


@pytest.mark.parametrize("text", [None, " ", "NaN", "\u200b", "brain tumour", "肺炎", "no infection."])
def test_words_without_a_zone_leave_the_picture_alone_to_decide(predictor, grey, text):
    prediction = predictor.segment(grey, text)
    np.testing.assert_array_equal(prediction.probability, predictor.segment(grey).probability)
    assert prediction.report is None
    assert prediction.record["text"]["mode"] == "none"
    assert prediction.record["text"]["used"] is None


def test_probabilities_of_a_batch_are_those_of_each_picture_alone(predictor, grey):
    pictures = [from_array(grey), from_array(np.ascontiguousarray(grey[:, ::-1]))]
    pixels = np.stack([predictor.preprocess.apply(picture) for picture in pictures])
    rows = [None, Zones.from_present([0, 0, 1, 0, 0, 0]).index]
    together = predictor.predict_batch(pixels, rows)
    assert together.shape == (2, 64, 64)
    for i, row in enumerate(rows):
        np.testing.assert_allclose(together[i], predictor.predict_batch(pixels[i : i + 1], [row])[0], atol=1e-6)
    # the oracle of the tiny graph: blurred brightness, then plus 3 in the named zone
    padded = np.pad(pixels.mean(axis=1), ((0, 0), (2, 2), (2, 2)))
    window = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), axis=(1, 2))
    inside = window[:, 2:-2, 2:-2].mean(axis=(3, 4))
    logits = np.log(together / (1 - together))[:, 4:-4, 4:-4]
    np.testing.assert_allclose(logits[0], inside[0, 2:-2, 2:-2], atol=1e-4)
    np.testing.assert_allclose(logits[1, -8:, :8], inside[1, 2:-2, 2:-2][-8:, :8] + 3, atol=1e-4)


def test_rows_outside_the_bank_and_other_shapes_are_refused(predictor):
    pixels = np.zeros((1, 3, 64, 64), np.float32)
    with pytest.raises(ShapeError, match=r"0\.\.63"):
        predictor.predict_batch(pixels, [64])
    with pytest.raises(ShapeError, match="differ in number"):
        predictor.predict_batch(pixels, [])
    with pytest.raises(ShapeError, match="image does not fit the network"):
        predictor.predict_batch(pixels[:, :, :32], [None])
    with pytest.raises(UsageError, match="patient, unknown, viewer"):
        predictor.segment(np.eye(64, dtype=np.float32), "right lower zone", laterality="PATIENT")


def test_a_network_that_reads_no_text_says_so(make_bundle, tmp_path, grey):
    bundle = make_bundle(tmp_path / "plain", reads_text=False)
    assert (bundle.text_bank(), "text_bank.safetensors" in bundle.files) == (None, False)
    predictor = Predictor(bundle, threads=1)
    prediction = predictor.segment(grey, "right lower zone")
    assert predictor.bank_row(parse("right lower zone", laterality="viewer")) is None
    assert prediction.report is None
    assert "W_TEXT_NOT_READ" in [warning["code"] for warning in prediction.record["warnings"]]


def test_threads_are_bounded_and_checked(tiny_bundle):
    assert 1 <= default_threads() <= 16
    assert Runtime(Bundle.load(tiny_bundle), threads=3).threads == 3
    with pytest.raises(UsageError, match="threads"):
        Runtime(Bundle.load(tiny_bundle), threads=0)


def test_colour_is_refused_where_a_film_is_expected(predictor):
    picture = from_array(np.random.default_rng(0).random((64, 64)).astype(np.float32))
    coloured = type(picture)(film=np.stack([picture.pixels] * 3, axis=-1), grid=picture.grid)
    with pytest.raises(InputError) as caught:
        predictor.segment(coloured)
    assert caught.value.code == "E_COLOR"


def test_the_record_holds_words_times_and_areas(predictor, grey, film, tmp_path):
    record = predictor.segment(film(tmp_path / "a b.png"), "left base, Mr Smith").record
    assert (record["schema"], record["input"]["path"]) == ("textray.record/1", str(tmp_path / "a b.png"))
    assert record["model"]["sha256"] == predictor.bundle.sha256
    assert record["text"]["given"] == "left base, Mr Smith"
    assert "smith" in record["text"]["unused_words"]
    assert (record["text"]["laterality"], record["text"]["sides_from"]) == ("patient", "assumed")
    assert set(record["seconds"]) == {"read", "preprocess", "network", "restore"}
    calibrated = predictor.segment(from_array(grey, spacing_mm=(0.5, 0.25))).record["lesion"]
    assert calibrated["mm2"] == pytest.approx(calibrated["pixels"] * 0.125, abs=0.0051)
    assert sum(zone["pixels"] for zone in calibrated["zones"].values()) == calibrated["pixels"]


def test_an_empty_mask_has_areas_of_zero(make_bundle, tmp_path, grey):
    predictor = Predictor(make_bundle(tmp_path / "shy", threshold=0.999), threads=1)
    record = predictor.segment(grey).record
    assert record["lesion"]["pixels"] == 0
    assert record["probability"]["mean_inside"] is None
    assert all(zone["share"] == 0 for zone in record["lesion"]["zones"].values())


def test_zones_of_pixels_split_where_the_bundle_says():
    mask = np.zeros((40, 11), bool)
    mask[:15, 0] = mask[15:22, 5] = mask[22:, 10] = True
    areas = zone_areas(mask, Grid(height=40, width=11), ZoneSplit())
    found = {name: zone["pixels"] for name, zone in areas.items() if zone["pixels"]}
    assert found == {"left upper": 15, "right middle": 7, "right lower": 18}


def test_saving_writes_three_files_that_agree(predictor, film, tmp_path):
    prediction = predictor.segment(film(tmp_path / "in" / "chest.1.png"), "left upper zone")
    written = prediction.save(tmp_path / "out" / "deep")
    names = sorted(path.name for path in (tmp_path / "out" / "deep").iterdir())
    assert names == ["chest.1.json", "chest.1.mask.png", "chest.1.overlay.png"]
    with PILImage.open(written["mask"]) as picture:
        mask = np.asarray(picture)
    np.testing.assert_array_equal(mask, prediction.mask * np.uint8(255))
    with PILImage.open(written["overlay"]) as picture:
        assert picture.size == (80, 100)
    assert json.loads(written["record"].read_bytes())["outputs"]["mask"] == "chest.1.mask.png"
